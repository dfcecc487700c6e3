//! What the `errors` of a GraphQL answer mean.
//!
//! An expired token is one of them, with HTTP 200. The specification fixes only
//! `message` and `path`; the `type` in `extensions` is what Datasaur's own client
//! goes by, the `code` is what most servers send.

use http::StatusCode;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    adapters::{BackendFault, FaultKind, Interpretation, JobFault, answer, json, refusal},
    job::JobRef,
};

/// The errors of one answer, in its order.
pub(super) struct GraphqlErrors(Vec<GraphqlError>);

struct GraphqlError {
    message: String,
    kind: Kind,
    /// Position in the list of jobs that the error is about.
    position: Option<usize>,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Credentials,
    Forbidden,
    NotFound,
    Other,
}

impl GraphqlErrors {
    /// Total: what is not a documented error is one without words.
    pub(super) fn read(errors: Option<&RawValue>) -> Self {
        let Some(errors) = errors else { return Self(Vec::new()) };
        match serde_json::from_str::<Vec<&RawValue>>(errors.get()) {
            Ok(list) => Self(list.into_iter().map(GraphqlError::read).collect()),
            Err(_) => Self(vec![GraphqlError::read(errors)]),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What an answer says that has errors and no list of jobs.
    pub(super) fn of_the_whole(&self, jobs: &[JobRef], status: StatusCode) -> Interpretation {
        let any = |kind| self.0.iter().any(|error| error.kind == kind);
        if any(Kind::Credentials) {
            return Err(answer::judged(FaultKind::CredentialsRejected, status));
        }
        if any(Kind::Forbidden) {
            return Err(answer::judged(FaultKind::Forbidden, status));
        }
        if let [job] = jobs
            && self.0.iter().any(|error| refusal::says_no_such_job(&error.message, job))
        {
            return Ok(vec![Err(JobFault::NotFound)]);
        }
        let message = self.0.iter().map(|error| error.message.as_str()).find(|message| !message.is_empty());
        Err(answer::rejected(message.unwrap_or("an error without a message"), status))
    }

    /// What the errors say about a job that has no element: the first error whose
    /// position `speaks_for_it`, except that a rejected token is everybody's.
    pub(super) fn of_one(
        &self,
        speaks_for_it: impl Fn(Option<usize>) -> bool,
        job: &JobRef,
    ) -> Result<Option<JobFault>, BackendFault> {
        let mut first = None;
        for error in self.0.iter().filter(|error| speaks_for_it(error.position)) {
            if error.kind == Kind::Credentials {
                return Err(FaultKind::CredentialsRejected.into());
            }
            first.get_or_insert(error);
        }
        Ok(first.map(|error| error.about(job)))
    }
}

impl GraphqlError {
    fn read(error: &RawValue) -> Self {
        #[derive(Default, Deserialize)]
        struct Entry<'a> {
            #[serde(borrow, default)]
            message: Option<&'a RawValue>,
            #[serde(borrow, default)]
            path: Option<&'a RawValue>,
            #[serde(borrow, default)]
            extensions: Option<&'a RawValue>,
        }
        #[derive(Default, Deserialize)]
        struct Extensions<'a> {
            #[serde(borrow, default)]
            code: Option<&'a RawValue>,
            #[serde(borrow, default, rename = "type")]
            class: Option<&'a RawValue>,
        }
        let entry: Entry = json::object(error.get()).unwrap_or_default();
        let extensions: Extensions =
            entry.extensions.and_then(|extensions| json::object(extensions.get())).unwrap_or_default();
        let message: String = json::lenient(entry.message).unwrap_or_default();
        let code: String = json::lenient(extensions.code).unwrap_or_default();
        let class: String = json::lenient(extensions.class).unwrap_or_default();
        let kind = match (message.trim(), code.as_str(), class.as_str()) {
            ("Unauthorized", _, _) | (_, "UNAUTHENTICATED", _) | (_, _, "AuthenticationError") => {
                Kind::Credentials
            }
            ("Forbidden", _, _) | (_, "FORBIDDEN", _) | (_, _, "ForbiddenError" | "AuthorizationError") => {
                Kind::Forbidden
            }
            (_, "NOT_FOUND", _) | (_, _, "NotFoundError") => Kind::NotFound,
            _ => Kind::Other,
        };
        // A path goes through the alias to the position, and may go on to a field
        // whose null has spread to the whole element.
        let path: Vec<&RawValue> = json::lenient(entry.path).unwrap_or_default();
        let position = json::lenient(path.get(1).copied());
        Self { message, kind, position }
    }

    /// What it says about the job that it stands in place of.
    fn about(&self, job: &JobRef) -> JobFault {
        match self.kind {
            // With a position, the path has said what it is that was not found.
            Kind::NotFound if self.position.is_some() => JobFault::NotFound,
            _ if refusal::says_no_such_job(&self.message, job) => JobFault::NotFound,
            Kind::Forbidden => JobFault::Malformed { why: "the vendor forbids it to the gateway's account" },
            _ => JobFault::Malformed { why: "an error stands in its place" },
        }
    }
}
