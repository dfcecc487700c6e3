//! The part of Datasaur's published schema that concerns jobs.

use std::sync::Arc;

use async_graphql::{
    Context, EmptyMutation, EmptySubscription, Enum, ID, Object, Schema, SimpleObject, Value, scalar,
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::simulators::{
    SimulatorState,
    faults::{response_id, response_ids},
    job_state::{JobSnapshot, Phase},
    plan::Outcome,
};

pub(super) type Served = Schema<Query, EmptyMutation, EmptySubscription>;

pub(super) fn schema(state: Arc<SimulatorState>) -> Served {
    Schema::build(Query, EmptyMutation, EmptySubscription).data(state).finish()
}

#[derive(Debug)]
pub(super) struct Query;

#[Object]
#[allow(clippy::unused_async, reason = "the macro wants it")]
impl Query {
    async fn get_export_delivery_status(
        &self,
        context: &Context<'_>,
        export_id: ID,
    ) -> async_graphql::Result<GetExportDeliveryStatusResult> {
        let job = find(context, &response_id(export_id.to_string()))?;
        Ok(match job {
            Some(job) => {
                GetExportDeliveryStatusResult { delivery_status: job.status.into(), errors: job.errors }
            }
            None => GetExportDeliveryStatusResult {
                delivery_status: ExportDeliveryStatus::None,
                errors: Vec::new(),
            },
        })
    }

    async fn get_job(&self, context: &Context<'_>, job_id: String) -> async_graphql::Result<Option<Job>> {
        find(context, &response_id(job_id))
    }

    async fn get_jobs(
        &self,
        context: &Context<'_>,
        job_ids: Vec<String>,
    ) -> async_graphql::Result<Vec<Option<Job>>> {
        response_ids(job_ids).iter().map(|id| find(context, id)).collect()
    }
}

fn find(context: &Context<'_>, id: &str) -> async_graphql::Result<Option<Job>> {
    let state = context.data::<Arc<SimulatorState>>()?;
    Ok(state.jobs.snapshot(id).map(Job::from))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
enum JobStatus {
    Delivered,
    Failed,
    InProgress,
    None,
    Queued,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
#[graphql(remote = "JobStatus")]
enum ExportDeliveryStatus {
    Delivered,
    Failed,
    InProgress,
    None,
    Queued,
}

#[derive(SimpleObject)]
struct GetExportDeliveryStatusResult {
    delivery_status: ExportDeliveryStatus,
    errors: Vec<JobError>,
}

#[derive(SimpleObject)]
struct Job {
    additional_data: Option<JobAdditionalData>,
    created_at: String,
    errors: Vec<JobError>,
    id: String,
    progress: i32,
    result: Option<JobResult>,
    result_id: Option<String>,
    status: JobStatus,
    updated_at: String,
}

#[derive(SimpleObject)]
struct JobAdditionalData {
    automation_activity_id: Option<ID>,
}

#[derive(SimpleObject)]
struct JobError {
    args: Option<JobErrorArgs>,
    id: String,
    stack: String,
}

#[derive(Serialize, Deserialize)]
struct JobErrorArgs(Value);
scalar!(JobErrorArgs, "JobErrorArgs");

#[derive(Serialize, Deserialize)]
struct JobResult(Value);
scalar!(JobResult, "JobResult");

impl From<JobSnapshot> for Job {
    fn from(snapshot: JobSnapshot) -> Self {
        Self {
            additional_data: Some(JobAdditionalData { automation_activity_id: None }),
            created_at: iso(snapshot.created_at),
            errors: snapshot
                .failure()
                .map(|message| JobError::new(message, &snapshot.id))
                .into_iter()
                .collect(),
            progress: snapshot.progress.into(),
            result: result(snapshot.outcome()),
            result_id: None,
            status: status(&snapshot),
            updated_at: iso(snapshot.changed_at()),
            id: snapshot.id,
        }
    }
}

impl JobError {
    fn new(message: &str, job_id: &str) -> Self {
        let args = async_graphql::value!({ "message": message });
        let stack = format!("Error: {message}\n    at Queue.process (queue.js:1:1)");
        Self { args: Some(JobErrorArgs(args)), id: job_id.to_owned(), stack }
    }
}

/// The status of a held job: a word of the schema, or the nearest one.
fn status(snapshot: &JobSnapshot) -> JobStatus {
    match snapshot.phase {
        Phase::Queued if snapshot.word == "NONE" => JobStatus::None,
        Phase::Queued => JobStatus::Queued,
        Phase::Running | Phase::Retrying | Phase::Cancelling => JobStatus::InProgress,
        Phase::Succeeded => JobStatus::Delivered,
        Phase::Failed | Phase::Cancelled | Phase::Expired => JobStatus::Failed,
    }
}

fn result(outcome: &Outcome) -> Option<JobResult> {
    let value = match outcome {
        Outcome::Nothing => return None,
        Outcome::Json(value) => serde_json::from_str(value.get()).unwrap_or_default(),
        Outcome::Text(text) => Value::String(text.clone()),
        Outcome::Size(bytes) => Value::String(Outcome::text_of_size(*bytes)),
        Outcome::Binary(bytes) => Value::String(bytes.iter().map(|byte| char::from(*byte)).collect()),
    };
    Some(JobResult(value))
}

fn iso(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}
