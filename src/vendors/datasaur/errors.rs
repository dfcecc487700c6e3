//! What the `errors` of a GraphQL response mean.
//!
//! An expired token is one of them, with HTTP 200. The specification fixes only
//! `message` and `path`; the `type` in `extensions` is what Datasaur's own client
//! goes by, the `code` is what most servers send.

use http::StatusCode;
use serde_json::value::RawValue;

use crate::{
    job::{BackendFault, FaultKind, JobFault, JobRef},
    vendors::{
        json::{self, Object},
        refusal, response,
    },
};

/// The errors of one response, in its order.
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
        let list = json::list(errors).unwrap_or_else(|| vec![errors]);
        Self(list.into_iter().map(GraphqlError::read).collect())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What a response with errors and without a list of jobs says of each job.
    pub(super) fn of_the_whole(&self, jobs: &[JobRef], status: StatusCode) -> Result<JobFault, BackendFault> {
        if let Some(kind) = backend_refusal(&self.0) {
            return Err(response::judged(kind, status));
        }
        let refuses_one = self.0.iter().any(GraphqlError::is_refusal);
        match jobs {
            [_] if refuses_one => return Ok(JobFault::Forbidden),
            [job] if self.0.iter().any(|error| refusal::says_no_such_job(&error.message, job)) => {
                return Ok(JobFault::NotFound);
            }
            // Of the other jobs nothing is known, so each has to be polled again.
            _ if refuses_one => return Err(response::judged(FaultKind::Forbidden, status)),
            _ => {}
        }
        let message = self.0.iter().map(|error| error.message.as_str()).find(|message| !message.is_empty());
        Err(response::rejected(message.unwrap_or("an error without a message"), status))
    }

    /// What the errors say about a job that has no element: of those whose position
    /// `speaks_for_it` the first with a position, or else the first. A refusal without a
    /// position is the backend's, unless another job of the same response `has_data`.
    pub(super) fn of_one(
        &self,
        speaks_for_it: impl Fn(Option<usize>) -> bool,
        job: &JobRef,
        has_data: bool,
    ) -> Result<Option<JobFault>, BackendFault> {
        if !has_data && let Some(kind) = backend_refusal(&self.0) {
            return Err(kind.into());
        }
        let errors: Vec<_> = self.0.iter().filter(|error| speaks_for_it(error.position)).collect();
        let own = errors.iter().find(|error| error.position.is_some()).or(errors.first());
        Ok(own.map(|error| error.about(job)))
    }
}

/// What the errors refuse to the gateway whatever job it polls: one with a position is
/// about that job alone.
fn backend_refusal(errors: &[GraphqlError]) -> Option<FaultKind> {
    let refused = |kind| errors.iter().any(|error| error.position.is_none() && error.kind == kind);
    if refused(Kind::Credentials) {
        Some(FaultKind::CredentialsRejected)
    } else {
        refused(Kind::Forbidden).then_some(FaultKind::Forbidden)
    }
}

impl GraphqlError {
    fn read(error: &RawValue) -> Self {
        let error = Object::of(error);
        let part = |name| error.as_ref()?.get(name);
        let extensions = part("extensions").and_then(Object::of);
        let extension = |name| extensions.as_ref()?.text(name);
        let message = part("message").and_then(json::text).unwrap_or_default();
        let (code, class) = (extension("code").unwrap_or_default(), extension("type").unwrap_or_default());
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
        let path = part("path").and_then(json::list).unwrap_or_default();
        let position = path.get(1).and_then(|position| position.get().parse().ok());
        Self { message, kind, position }
    }

    fn is_refusal(&self) -> bool {
        matches!(self.kind, Kind::Credentials | Kind::Forbidden)
    }

    /// What it says about the job that it stands in place of.
    fn about(&self, job: &JobRef) -> JobFault {
        match self.kind {
            // With a position, the path has said what it is that was not found.
            Kind::NotFound if self.position.is_some() => JobFault::NotFound,
            _ if refusal::says_no_such_job(&self.message, job) => JobFault::NotFound,
            Kind::Forbidden | Kind::Credentials => JobFault::Forbidden,
            _ => JobFault::Malformed { why: "an error stands in its place" },
        }
    }
}
