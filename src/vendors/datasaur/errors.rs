//! What the `errors` of a GraphQL response mean.
//!
//! An expired token is one of them, with HTTP 200, and so may be an outage. The
//! specification fixes only `message` and `path`; [`ErrorClass`] reads the rest.

use http::StatusCode;

use super::error_class::ErrorClass;
use crate::{
    job::{BackendFault, FaultKind, JobFault, JobRef},
    vendors::{
        json::{self, Object, Value},
        refusal, response,
    },
};

/// The errors of one response, in its order.
pub(in crate::vendors) struct GraphqlErrors(Vec<GraphqlError>);

struct GraphqlError {
    message: String,
    class: ErrorClass,
    /// Position in the list of jobs that the error is about.
    position: Option<usize>,
}

impl GraphqlErrors {
    /// Total: what is not a documented error is one without words.
    pub(in crate::vendors) fn read(errors: Option<Value<'_>>) -> Self {
        let Some(errors) = errors else { return Self(Vec::new()) };
        let list = json::list(errors).unwrap_or_else(|| vec![errors]);
        Self(list.into_iter().map(GraphqlError::read).collect())
    }

    pub(in crate::vendors) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What a response with errors and without a list of jobs says of each job.
    pub(in crate::vendors) fn of_the_whole(
        &self,
        jobs: &[JobRef],
        status: StatusCode,
    ) -> Result<JobFault, BackendFault> {
        if let Some(kind) = backend_fault(&self.0) {
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
        // What a resolver throws has this class, so the words come first.
        if let Some(kind) = self.0.iter().find_map(|error| error.class.outage()) {
            return Err(response::judged(kind, status));
        }
        let message = self.0.iter().map(|error| error.message.as_str()).find(|message| !message.is_empty());
        Err(response::rejected(message.unwrap_or("an error without a message"), status))
    }

    /// What the errors say about a job that has no element: of those whose position
    /// `speaks_for_it` the first with a position, or else the first. A refusal without a
    /// position is the backend's, unless another job of the same response `has_data`.
    pub(in crate::vendors) fn of_one(
        &self,
        speaks_for_it: impl Fn(Option<usize>) -> bool,
        job: &JobRef,
        has_data: bool,
    ) -> Result<Option<JobFault>, BackendFault> {
        if !has_data && let Some(kind) = backend_fault(&self.0) {
            return Err(kind.into());
        }
        let errors: Vec<_> = self.0.iter().filter(|error| speaks_for_it(error.position)).collect();
        let own = errors.iter().find(|error| error.position.is_some()).or(errors.first());
        // Nothing came back at all: a resolver's outage is the server's.
        let is_missing = own.is_some_and(|own| refusal::says_no_such_job(&own.message, job));
        if let Some(kind) = own.and_then(|own| own.class.outage()).filter(|_| !has_data && !is_missing) {
            return Err(kind.into());
        }
        Ok(own.map(|error| error.about(job)))
    }
}

/// What the errors say about the backend whatever job was polled: one with a position is
/// about that job alone.
fn backend_fault(errors: &[GraphqlError]) -> Option<FaultKind> {
    let has = |class| errors.iter().any(|error| error.position.is_none() && error.class == class);
    let classes =
        [ErrorClass::Credentials, ErrorClass::Throttled, ErrorClass::Unavailable, ErrorClass::Forbidden];
    classes.into_iter().find(|class| has(*class)).and_then(|class| match class {
        ErrorClass::Credentials => Some(FaultKind::CredentialsRejected),
        ErrorClass::Forbidden => Some(FaultKind::Forbidden),
        class => class.outage(),
    })
}

impl ErrorClass {
    /// The fault of a response that is not well for a while.
    fn outage(self) -> Option<FaultKind> {
        match self {
            Self::Throttled => Some(FaultKind::Throttled),
            Self::Unavailable => Some(FaultKind::Unavailable {
                why: "its GraphQL error says that it is unavailable".to_owned(),
            }),
            Self::Internal => {
                Some(FaultKind::Unavailable { why: "its GraphQL error is an internal one".to_owned() })
            }
            _ => None,
        }
    }
}

impl GraphqlError {
    fn read(error: Value<'_>) -> Self {
        let error = Object::of(error);
        let part = |name| error.as_ref()?.get(name);
        let message = part("message").and_then(json::text).unwrap_or_default();
        let class = error.as_ref().map_or(ErrorClass::Other, |error| ErrorClass::of(&message, error));
        // A path goes through the alias to the position, and may go on to a field
        // whose null has spread to the whole element.
        let path = part("path").and_then(json::list).unwrap_or_default();
        let position = path.get(1).and_then(|position| position.get().parse().ok());
        Self { message, class, position }
    }

    fn is_refusal(&self) -> bool {
        matches!(self.class, ErrorClass::Credentials | ErrorClass::Forbidden)
    }

    /// What it says about the job that it stands in place of.
    fn about(&self, job: &JobRef) -> JobFault {
        match self.class {
            // With a position, the path has said what it is that was not found.
            ErrorClass::NotFound if self.position.is_some() => JobFault::NotFound,
            _ if refusal::says_no_such_job(&self.message, job) => JobFault::NotFound,
            ErrorClass::Forbidden | ErrorClass::Credentials => JobFault::Forbidden,
            _ => JobFault::Malformed { why: "an error stands in its place" },
        }
    }
}
