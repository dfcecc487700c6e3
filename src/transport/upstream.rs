//! What the engine polls: a vendor's backend, or a script in a test.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::time::Instant;

use super::{Files, Permit, RejectedCredentials, Reservation, credentials::Authorization};
use crate::{
    job::{BackendFault, JobFault, JobRef, Observation},
    vendors::{Adapter, Elements},
};

/// Answers polls: a vendor's backend, or a script in a test.
pub trait Upstream: Send + Sync + 'static {
    /// Polls at most as many jobs as the backend's batch holds. Whatever is sent for that
    /// consumes the `permit`. Dropping the future cancels the request.
    ///
    /// # Errors
    /// A fault of the whole request, which says nothing about its jobs.
    fn poll<'a>(
        &'a self,
        jobs: &'a [JobRef],
        permit: Permit,
    ) -> BoxFuture<'a, Result<PollResponse, BackendFault>>;

    /// Ends when the backend's secret has been replaced: a poll that was rejected for its
    /// credentials is worth repeating then, whatever back-off runs.
    fn credentials_rotated(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::pending())
    }

    /// The backend's secret, while the vendor rejects it.
    fn rejected_credentials(&self) -> Option<RejectedCredentials> {
        None
    }

    /// Until when no poll is sent since none can be authorized: the vendor rejects the
    /// secret, or gives no token for it.
    fn login_paused_until(&self) -> Option<Instant> {
        None
    }

    /// Where its jobs' files can be had, if they can.
    fn files(&self) -> Option<&dyn Files> {
        None
    }
}

/// A vendor's response to a poll: an element for each job, and the adapter that reads them.
/// Holds its room in the [`ResponseBudget`](super::ResponseBudget) until it is dropped. An
/// element shares the memory of the whole body: what outlives the response is copied.
pub struct PollResponse {
    reader: Arc<dyn Adapter>,
    elements: Elements,
    /// What was sent, which no text of the vendor may repeat.
    authorization: Option<Authorization>,
    _room: Reservation,
}

impl fmt::Debug for PollResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PollResponse").field("jobs", &self.elements.as_slice().len()).finish_non_exhaustive()
    }
}

impl PollResponse {
    /// A response that holds no room, to a request without credentials.
    pub fn new(reader: Arc<dyn Adapter>, elements: Elements) -> Self {
        Self { reader, elements, authorization: None, _room: Reservation::default() }
    }

    pub(super) fn authorized(
        reader: Arc<dyn Adapter>,
        elements: Elements,
        authorization: Authorization,
        room: Reservation,
    ) -> Self {
        Self { reader, elements, authorization: Some(authorization), _room: room }
    }

    /// The same response, holding room.
    #[cfg(test)]
    pub(crate) fn with_reservation(self, room: Reservation) -> Self {
        Self { _room: room, ..self }
    }

    /// The element of each job, in the order of the poll.
    pub fn elements(&self) -> &[Result<Bytes, JobFault>] {
        self.elements.as_slice()
    }

    /// Reads the element of one job. Pure: an element that has not changed need not be
    /// read again.
    ///
    /// # Errors
    /// Why the element says nothing about the job.
    pub fn observe(&self, job: &JobRef, element: &Bytes) -> Result<Observation, JobFault> {
        let seen = self.reader.observe(job, element)?;
        Ok(match &self.authorization {
            Some(authorization) => authorization.redact_observation(seen),
            None => seen,
        })
    }
}
