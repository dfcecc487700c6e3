//! From the job model to messages. Every field is named, so that a new one does
//! not compile until someone has decided what becomes of it.

use jiff::Timestamp;

use super::status;
use crate::{
    hub::{BackendReport, Event, Update},
    job::{Artifact, JobError, JobRef, JobResult, Lens, Observation, Progress},
    poller::{Health, Latest, Report},
    proto::v1::{self as pb, watch_job_response},
};

/// One event of a watch of `job`.
pub(super) fn update(job: &JobRef, update: Update) -> pb::WatchJobResponse {
    let Update { event: said, lens, resume_token } = update;
    let said = match said {
        Event::Status(latest) => watch_job_response::Event::Status(self::status(&latest, lens)),
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
    pb::WatchJobResponse { event: Some(said), resume_token }
}

/// What was observed, as much as `lens` shows.
pub(super) fn status(latest: &Latest, lens: Lens) -> pb::JobStatus {
    let Observation {
        state,
        vendor_state,
        progress,
        result,
        error,
        artifacts,
        job_type,
        description,
        vendor_url,
        owner,
        create_time,
        start_time,
        end_time,
        vendor_payload,
    } = &latest.snapshot.observation;
    let Lens { result: show_result, payload: show_payload, progress: _ } = lens;
    pb::JobStatus {
        job: Some(job_ref(&latest.snapshot.job)),
        state: i32::from(*state as u8),
        vendor_state: vendor_state.clone(),
        terminal: state.is_terminal(),
        progress: progress.as_ref().map(|progress| {
            let Progress { percent, completed_steps, total_steps, current_step } = progress;
            pb::Progress {
                percent: *percent,
                completed_steps: *completed_steps,
                total_steps: *total_steps,
                current_step: current_step.clone(),
            }
        }),
        result: result.as_ref().filter(|_| show_result).map(|JobResult { data, content_type }| {
            pb::JobResult { data: data.clone(), content_type: content_type.as_str().to_owned() }
        }),
        error: error.as_ref().map(|JobError { message, details }| pb::JobError {
            message: message.clone(),
            details: details.clone(),
        }),
        artifacts: artifacts
            .iter()
            .map(|Artifact { id, category, file_name, vendor_uri }| pb::Artifact {
                artifact_id: id.clone(),
                category: category.clone(),
                file_name: file_name.clone(),
                vendor_uri: vendor_uri.clone(),
            })
            .collect(),
        job_type: job_type.clone(),
        description: description.clone(),
        vendor_url: vendor_url.clone(),
        owner: owner.clone(),
        create_time: create_time.map(timestamp),
        start_time: start_time.map(timestamp),
        end_time: end_time.map(timestamp),
        observe_time: Some(timestamp(latest.time)),
        vendor_payload: if show_payload { vendor_payload.clone() } else { bytes::Bytes::new() },
    }
}

/// How a backend is doing.
pub(super) fn backend(backend: BackendReport) -> pb::Backend {
    let BackendReport { name, vendor, max_batch, report } = backend;
    let Report { health, last_fault, last_answer, followed } = report;
    pb::Backend {
        last_error: last_fault.map(|fault| status::to_proto(&status::of_last_fault(&fault, &name))),
        name: name.as_ref().into(),
        vendor: vendor.into(),
        health: match health {
            Health::Unknown => pb::BackendHealth::Unspecified,
            Health::Healthy => pb::BackendHealth::Healthy,
            Health::Degraded => pb::BackendHealth::Degraded,
            Health::Unavailable => pb::BackendHealth::Unavailable,
        }
        .into(),
        last_success_time: last_answer.map(timestamp),
        watched_jobs: i64::try_from(followed).unwrap_or(i64::MAX),
        max_batch_size: i32::try_from(max_batch.get()).unwrap_or(i32::MAX),
    }
}

fn job_ref(job: &JobRef) -> pb::JobRef {
    let JobRef { backend, id, tag } = job;
    pb::JobRef {
        backend: backend.as_ref().into(),
        job_id: id.as_ref().into(),
        job_tag: tag.as_deref().unwrap_or_default().into(),
    }
}

fn timestamp(time: Timestamp) -> prost_types::Timestamp {
    // The wire form counts nanoseconds forward, jiff away from the epoch.
    let nanos = time.as_nanosecond();
    let second = i128::from(1_000_000_000);
    prost_types::Timestamp {
        seconds: i64::try_from(nanos.div_euclid(second)).expect("a timestamp's seconds fit in 64 bits"),
        nanos: i32::try_from(nanos.rem_euclid(second)).expect("less than a second of nanoseconds"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_before_the_epoch_counts_its_nanoseconds_forward() {
        let time = Timestamp::from_nanosecond(-1).unwrap();
        assert_eq!(timestamp(time), prost_types::Timestamp { seconds: -1, nanos: 999_999_999 });
    }
}
