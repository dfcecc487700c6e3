//! The streams of WatchJob and WatchJobs.
//!
//! Both are pulled: a watch is polled only when the client has room for another
//! message, so every message holds the newest status at that time.

use std::task::{Poll, ready};

use futures_util::stream;
use tokio_stream::StreamExt;
use tokio_util::task::AbortOnDropHandle;
use tonic::{Status, Streaming};

use super::{Events, Expiry, Service, SilenceLimit, convert, request::InvalidField, status};
use crate::{
    access::Grant,
    engine::{End, Failure, JobStatuses, Outcome, Watch, WatchOptions, WatchSet},
    job::{JobRef, ResumeToken},
    proto::{
        served::{self, watch_jobs_response},
        v1::{self as pb, watch_jobs_request::Request},
    },
};

impl<E: JobStatuses> Service<E> {
    /// No event of a watch whose client has seen its end.
    pub(super) fn ended_watch(
        &self,
        job: &JobRef,
        options: &WatchOptions,
        grant: &Grant,
    ) -> Result<Events<served::WatchJobResponse>, Status> {
        let checked = if self.engine.backend_name(&job.backend).is_none() {
            Err(Failure::UnknownBackend)
        } else if options.resume_token.is_empty() {
            Ok(())
        } else {
            ResumeToken::decode(&options.resume_token, job).map(drop).map_err(Failure::from)
        };
        checked.map_err(|failure| self.failed(&failure, job, "job", grant))?;
        Ok(Box::pin(stream::empty()))
    }
}

/// The events of one watch.
pub(super) fn events<E: JobStatuses>(
    watch: Watch,
    job: JobRef,
    expiry: Expiry,
    service: Service<E>,
    grant: Grant,
) -> Events<served::WatchJobResponse> {
    let (mut watch, mut expiry) = (watch, expiry);
    Box::pin(stream::poll_fn(move |cx| {
        if expiry.has_come(cx) {
            watch.expire();
        }
        let event = ready!(watch.poll_next(cx));
        Poll::Ready(event.map(|event| match event {
            Ok(update) => Ok(convert::update(&job, update)),
            Err(failure) => {
                let status = service.failed(&failure, &job, "job", &grant);
                status::log_watch_end(&status, &job);
                Err(status)
            }
        }))
    }))
}

/// The events of all watches of one call. A task reads the call's requests meanwhile.
pub(super) fn call_events<E: JobStatuses>(
    service: Service<E>,
    watches: WatchSet,
    grant: Grant,
    expiry: Expiry,
    requests: (Streaming<pb::WatchJobsRequest>, Option<SilenceLimit>),
) -> Events<served::WatchJobsResponse> {
    let reader = AbortOnDropHandle::new(tokio::spawn(read_requests(
        service.clone(),
        watches.clone(),
        grant.clone(),
        requests,
    )));
    Box::pin(stream::unfold(Some((watches, reader, service, grant, expiry)), |call| async move {
        let (watches, reader, service, grant, mut expiry) = call?;
        let next = if let Ok(next) = expiry.unless_expired(watches.next()).await {
            next
        } else {
            watches.expire();
            watches.next().await
        };
        match next? {
            Ok((watch_id, outcome)) => {
                let outcome = Some(to_proto(outcome, &service, &grant));
                let response = served::WatchJobsResponse { watch_id, outcome };
                Some((Ok(response), Some((watches, reader, service, grant, expiry))))
            }
            Err(failure) => Some((Err(status::of_call(&failure)), None)),
        }
    }))
}

async fn read_requests<E: JobStatuses>(
    service: Service<E>,
    watches: WatchSet,
    grant: Grant,
    (mut requests, limit): (Streaming<pb::WatchJobsRequest>, Option<SilenceLimit>),
) {
    while let Some(received) = requests.next().await {
        let Ok(pb::WatchJobsRequest { request }) = received else {
            // The connection has failed, and nobody reads this, or the message is malformed.
            return watches
                .fail(InvalidField::new("request", "can't be read; send a WatchJobsRequest").into());
        };
        match request {
            Some(Request::Add(pb::AddWatch { watch_id, watch })) => {
                let read = watch
                    .ok_or_else(|| InvalidField::new("add.watch", "is required").into())
                    .and_then(|watch| service.watch_request(watch, (None, limit), "add.watch.", &grant));
                match read {
                    Ok((job, options)) => watches.add(watch_id, &job, &options).await,
                    Err(refusal) => watches.refuse(watch_id, Failure::from(refusal)).await,
                }
            }
            Some(Request::Remove(pb::RemoveWatch { watch_id })) => watches.remove(watch_id).await,
            None => {
                let invalid = InvalidField::new("request", "is required; write add or remove");
                watches.reject(invalid.into()).await;
            }
        }
    }
    watches.complete();
}

fn to_proto<E: JobStatuses>(
    outcome: Outcome,
    service: &Service<E>,
    grant: &Grant,
) -> watch_jobs_response::Outcome {
    match outcome {
        Outcome::Update(job, update) => watch_jobs_response::Outcome::Event(convert::update(&job, update)),
        Outcome::Rejected(failure) => {
            watch_jobs_response::Outcome::Rejected(status::to_proto(&status::of_call(&failure)))
        }
        Outcome::End(End { failure, job }) => watch_jobs_response::Outcome::End(match (failure, job) {
            (None, _) => pb::CallError::default(),
            (Some(failure), Some(job)) => {
                let status = service.failed(&failure, &job, "add.watch.job", grant);
                status::log_watch_end(&status, &job);
                status::to_proto(&status)
            }
            (Some(failure), None) => status::to_proto(&status::of_call(&failure)),
        }),
    }
}
