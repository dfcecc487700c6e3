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
    /// The job that the error is about, where its path leads to one.
    job: Option<Place>,
}

/// Where a job stands among the jobs of a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::vendors) enum Place {
    /// In a list, and whether the path of the error ends there.
    Position { position: usize, is_last: bool },
    /// In an object of jobs by their ids, and the same.
    Id { id: String, is_last: bool },
}

/// Where the jobs of a response stand.
#[derive(Clone, Copy, Debug)]
pub(in crate::vendors) struct JobsAt<'a> {
    /// Names and positions from `data` on.
    pub(in crate::vendors) path: &'a [String],
    /// Whether they are an object by id, and no list.
    pub(in crate::vendors) by_id: bool,
}

impl GraphqlErrors {
    /// Total: what is not a documented error is one without words.
    pub(in crate::vendors) fn read(errors: Option<Value<'_>>, jobs: Option<JobsAt<'_>>) -> Self {
        let Some(errors) = errors else { return Self(Vec::new()) };
        let list = json::list(errors).unwrap_or_else(|| vec![errors]);
        Self(list.into_iter().map(|error| GraphqlError::read(error, jobs)).collect())
    }

    /// No errors, as of an API that is not GraphQL.
    pub(in crate::vendors) fn none() -> Self {
        Self(Vec::new())
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

    /// What the errors say about a job that has no element: those whose place `speaks_for_it`,
    /// or else those whose words name its id, or else those without a place. What they differ
    /// in is not known. A refusal without a place is the backend's, unless another job of the
    /// same response `has_data`.
    pub(in crate::vendors) fn of_one(
        &self,
        speaks_for_it: impl Fn(&Place) -> bool,
        job: &JobRef,
        has_data: bool,
    ) -> Result<Option<JobFault>, BackendFault> {
        if !has_data && let Some(kind) = backend_fault(&self.0) {
            return Err(kind.into());
        }
        let placed: Vec<_> =
            self.0.iter().filter(|error| error.job.as_ref().is_some_and(&speaks_for_it)).collect();
        let without: Vec<_> = self.0.iter().filter(|error| error.job.is_none()).collect();
        let named: Vec<_> = without.iter().copied().filter(|error| error.names(job)).collect();
        let own = [placed, named, without].into_iter().find(|errors| !errors.is_empty()).unwrap_or_default();
        let faults: Vec<JobFault> = own.iter().map(|error| error.about(job)).collect();
        let is_missing = faults.iter().all(|fault| *fault == JobFault::NotFound);
        // Nothing came back at all: a resolver's outage is the server's.
        if let Some(kind) =
            own.iter().find_map(|error| error.class.outage()).filter(|_| !has_data && !is_missing)
        {
            return Err(kind.into());
        }
        let is_clear = faults.windows(2).all(|two| two[0] == two[1]);
        Ok(faults.into_iter().next().map(|fault| if is_clear { fault } else { UNCLEAR }))
    }
}

/// An error, or several that differ, of which none says what became of the job.
const UNCLEAR: JobFault = JobFault::Malformed { why: "an error stands in its place" };

/// What the errors say about the backend whatever job was polled: one that has a job's place is
/// about that job alone.
fn backend_fault(errors: &[GraphqlError]) -> Option<FaultKind> {
    let has = |class| errors.iter().any(|error| error.job.is_none() && error.class == class);
    let classes =
        [ErrorClass::Credentials, ErrorClass::Throttled, ErrorClass::Unavailable, ErrorClass::Forbidden];
    classes.into_iter().find(|class| has(*class)).and_then(|class| match class {
        ErrorClass::Credentials => Some(FaultKind::CredentialsRejected),
        ErrorClass::Forbidden => Some(FaultKind::Forbidden),
        class => class.outage(),
    })
}

impl Place {
    /// Whether the path of the error ends there.
    fn is_last(&self) -> bool {
        match self {
            Self::Position { is_last, .. } | Self::Id { is_last, .. } => *is_last,
        }
    }
}

impl JobsAt<'_> {
    /// The job that the path of an error leads to.
    fn place(self, path: &[Value<'_>]) -> Option<Place> {
        let is_at = |(part, name): (&Value<'_>, &String)| json::identifier(*part).as_ref() == Some(name);
        let job = path.get(self.path.len())?;
        if !path.iter().zip(self.path).all(is_at) {
            return None;
        }
        let is_last = path.len() == self.path.len() + 1;
        if self.by_id {
            return Some(Place::Id { id: json::identifier(*job)?, is_last });
        }
        let position = job.get().parse().ok()?;
        Some(Place::Position { position, is_last })
    }
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
    fn read(error: Value<'_>, jobs: Option<JobsAt<'_>>) -> Self {
        let error = Object::of(error);
        let part = |name| error.as_ref()?.get(name);
        let message = part("message").and_then(json::text).unwrap_or_default();
        let class = error.as_ref().map_or(ErrorClass::Other, |error| ErrorClass::of(&message, error));
        // A path goes through the jobs to one of them, and may go on to a field whose null has
        // spread to the whole element.
        let path = part("path").and_then(json::list).unwrap_or_default();
        Self { message, class, job: jobs.and_then(|jobs| jobs.place(&path)) }
    }

    /// Whether its words have the id of the job, and not as a part of another.
    fn names(&self, job: &JobRef) -> bool {
        let is_part = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_');
        let joins = |after: &str| after.strip_prefix(['.', ':', '/']).unwrap_or(after).starts_with(is_part);
        self.message.match_indices(&*job.id).any(|(at, id)| {
            let (before, after) = (&self.message[..at], &self.message[at + id.len()..]);
            let is_within = before.ends_with(is_part)
                || before.strip_suffix('.').is_some_and(|before| before.ends_with(is_part));
            !is_within && !joins(after)
        })
    }

    fn is_refusal(&self) -> bool {
        matches!(self.class, ErrorClass::Credentials | ErrorClass::Forbidden)
    }

    /// What it says about the job that it stands in place of.
    fn about(&self, job: &JobRef) -> JobFault {
        match self.class {
            // The path has said what it is that was not found: the job, or a part of one.
            ErrorClass::NotFound if self.job.as_ref().is_some_and(Place::is_last) => JobFault::NotFound,
            _ if refusal::says_no_such_job(&self.message, job) => JobFault::NotFound,
            ErrorClass::Forbidden | ErrorClass::Credentials => JobFault::Forbidden,
            _ => UNCLEAR,
        }
    }
}
