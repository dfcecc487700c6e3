//! Converts what the engine returns to messages. Every field is named, so that a new
//! one does not compile until someone has decided what becomes of it.

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

use super::status;
use crate::{
    cluster::status::{RoleName, SeatStatus},
    engine::{BackendReport, Event, Health, JobReport, LatestStatus, RejectedCredentials, Report, Update},
    job::{JobRef, View},
    proto::{
        served::{self, watch_job_response},
        v1 as pb,
    },
    snapshot::{Shown, timestamp},
};

/// One event of a watch of `job`.
pub(super) fn update(job: &JobRef, update: Update) -> served::WatchJobResponse {
    let Update { event, view, resume_token } = update;
    let event = match event {
        Event::Status(latest) => watch_job_response::Event::Status(self::status(job.clone(), latest, view)),
        Event::Heartbeat { observed } => {
            watch_job_response::Event::Heartbeat(pb::Heartbeat { observe_time: observed.map(timestamp) })
        }
        Event::Interruption { interruption, observed } => {
            watch_job_response::Event::Interruption(pb::Interruption {
                cause: Some(status::to_proto(&status::of_interruption(&interruption, job))),
                observe_time: observed.map(timestamp),
                retry_time: Some(timestamp(interruption.retry_time)),
            })
        }
    };
    served::WatchJobResponse { event: Some(event), resume_token }
}

/// The latest status in a caller's view.
pub(super) fn status(job: JobRef, latest: LatestStatus, view: View) -> Shown {
    Shown::new(job, latest.snapshot, view, latest.time)
}

/// Health and load of a backend, and what this replica does for it among others.
pub(super) fn backend(backend: BackendReport, seat: Option<SeatStatus>) -> pb::Backend {
    let BackendReport {
        name,
        vendor,
        vendor_version,
        max_batch,
        requests_per_second: _,
        report,
        rejected_credentials,
    } = backend;
    let Report {
        health,
        last_fault,
        last_success,
        subscribed_jobs,
        poll_lag,
        queued_calls,
        rate_in_use,
        quarantined_jobs,
        // The health says as much to callers.
        circuit: _,
    } = report;
    pb::Backend {
        last_error: last_fault.map(|fault| status::to_proto(&status::of_last_fault(&fault, &name))),
        name: name.as_ref().into(),
        vendor: vendor.into(),
        vendor_version: vendor_version.as_ref().into(),
        health: match health {
            Health::Unknown => pb::BackendHealth::Unspecified,
            Health::Healthy => pb::BackendHealth::Healthy,
            Health::Degraded => pb::BackendHealth::Degraded,
            Health::Unavailable => pb::BackendHealth::Unavailable,
        }
        .into(),
        last_success_time: last_success.map(timestamp),
        watched_jobs: count(subscribed_jobs),
        max_batch_size: i32::try_from(max_batch.get()).unwrap_or(i32::MAX),
        poll_lag: prost_types::Duration::try_from(poll_lag).ok(),
        queued_calls: count(queued_calls),
        rate_in_use,
        quarantined_jobs: count(quarantined_jobs),
        rejected_credentials: rejected_credentials.map(self::rejected_credentials),
        replica_role: seat
            .as_ref()
            .map_or(pb::ReplicaRole::Unspecified, |seat| replica_role(seat.role))
            .into(),
        replica_owner: seat.and_then(|seat| seat.owner).map(|owner| owner.member).unwrap_or_default(),
    }
}

fn replica_role(role: RoleName) -> pb::ReplicaRole {
    match role {
        RoleName::Starting => pb::ReplicaRole::Starting,
        RoleName::Owner => pb::ReplicaRole::Owner,
        RoleName::Follower => pb::ReplicaRole::Follower,
        RoleName::Isolated => pb::ReplicaRole::Isolated,
    }
}

fn rejected_credentials(rejected: RejectedCredentials) -> pb::RejectedCredentials {
    let RejectedCredentials { secret, reject_time, retry_at } = rejected;
    let retry_in = SignedDuration::try_from(retry_at.saturating_duration_since(Instant::now()));
    let retry_time = Timestamp::now().saturating_add(retry_in.unwrap_or_default());
    pb::RejectedCredentials {
        secret,
        reject_time: Some(timestamp(reject_time)),
        retry_time: Some(timestamp(retry_time.unwrap_or(Timestamp::MAX))),
    }
}

/// What is known of a job's polls.
pub(super) fn job(report: JobReport) -> pb::InspectedJob {
    let JobReport {
        job,
        latest: _,
        state,
        subscribers,
        last_poll,
        last_change,
        next_poll,
        quarantined,
        failure,
    } = report;
    let error = failure.map(|failure| status::to_proto(&status::of_failure(&failure, &job, "job")));
    pb::InspectedJob {
        job: Some(job_ref(&job)),
        state: state.map(|state| i32::from(state as u8)),
        subscribers: count(subscribers),
        last_poll_time: last_poll.map(timestamp),
        last_change_time: last_change.map(timestamp),
        next_poll_time: next_poll.map(timestamp),
        quarantined,
        last_error: error,
    }
}

/// A job's name.
pub(super) fn job_ref(job: &JobRef) -> pb::JobRef {
    let JobRef { backend, id, tag, .. } = job;
    pb::JobRef {
        backend: backend.as_ref().into(),
        job_id: id.as_ref().into(),
        job_tag: tag.as_deref().unwrap_or_default().into(),
    }
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::{
        num::{NonZeroU32, NonZeroUsize},
        time::Duration,
    };

    use super::*;
    use crate::{
        cluster::status::{OwnerStatus, SessionRestarts, ShareStatus},
        engine::Circuit,
    };

    fn seat(role: RoleName, owner: Option<OwnerStatus>) -> SeatStatus {
        SeatStatus {
            backend: "b".into(),
            role,
            since: Timestamp::UNIX_EPOCH,
            owner,
            sessions: 0,
            requests_per_second: ShareStatus { own: 1, owner: 18 },
            owner_changes: 0,
            session_restarts: SessionRestarts::default(),
            why: None,
        }
    }

    #[test]
    fn backend_load_is_reported_in_its_message() {
        let report = Report {
            health: Health::Degraded,
            last_fault: None,
            last_success: None,
            subscribed_jobs: 3,
            poll_lag: Duration::from_millis(1500),
            queued_calls: 7,
            rate_in_use: 0.5,
            quarantined_jobs: 2,
            circuit: Circuit::Closed,
        };
        let max_batch = NonZeroUsize::MIN;
        let rejected_credentials = Some(RejectedCredentials {
            secret: "credentials.password from the variable P".into(),
            reject_time: Timestamp::UNIX_EPOCH,
            retry_at: Instant::now() + Duration::from_mins(1),
        });
        let name = "b".into();
        let requests_per_second = NonZeroU32::MIN;
        let report = BackendReport {
            name,
            vendor: "claret",
            vendor_version: "1.2.0".into(),
            max_batch,
            requests_per_second,
            report,
            rejected_credentials,
        };
        assert_eq!(backend(report.clone(), None).replica_role(), pb::ReplicaRole::Unspecified);
        let listed = backend(report.clone(), None);
        assert_eq!((&*listed.vendor, &*listed.vendor_version), ("claret", "1.2.0"));
        let owner = OwnerStatus { member: "gateway-1".into(), incarnation: "2".into(), epoch: 7 };
        for (role, owner, wanted) in [
            (RoleName::Starting, None, (pb::ReplicaRole::Starting, "")),
            (RoleName::Owner, Some(owner.clone()), (pb::ReplicaRole::Owner, "gateway-1")),
            (RoleName::Isolated, Some(owner.clone()), (pb::ReplicaRole::Isolated, "gateway-1")),
        ] {
            let listed = backend(report.clone(), Some(seat(role, owner)));
            assert_eq!((listed.replica_role(), &*listed.replica_owner), wanted);
        }
        let backend = backend(report, Some(seat(RoleName::Follower, Some(owner))));
        assert_eq!(backend.replica_role(), pb::ReplicaRole::Follower);
        let rejected = backend.rejected_credentials.as_ref().unwrap();
        assert_eq!(rejected.secret, "credentials.password from the variable P");
        assert_eq!(rejected.reject_time, Some(prost_types::Timestamp::default()));
        assert!(rejected.retry_time.unwrap().seconds > Timestamp::now().as_second());
        assert_eq!(backend.health(), pb::BackendHealth::Degraded);
        assert_eq!(backend.poll_lag, Some(prost_types::Duration { seconds: 1, nanos: 500_000_000 }));
        assert_eq!((backend.watched_jobs, backend.queued_calls, backend.quarantined_jobs), (3, 7, 2));
        assert!((backend.rate_in_use - 0.5).abs() < f64::EPSILON);
    }
}
