//! The part of Datasaur's published schema that concerns jobs.

use std::sync::Arc;

use async_graphql::{
    Context, EmptyMutation, EmptySubscription, Enum, ID, Object, Schema, SimpleObject, Value, scalar,
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::simulators::{
    World,
    faults::{answered, answered_one},
    life::{Phase, View},
    plan::Outcome,
};

pub(super) type Served = Schema<Query, EmptyMutation, EmptySubscription>;

pub(super) fn schema(world: Arc<World>) -> Served {
    Schema::build(Query, EmptyMutation, EmptySubscription).data(world).finish()
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
        let job = find(context, &answered_one(export_id.to_string()))?;
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
        find(context, &answered_one(job_id))
    }

    async fn get_jobs(
        &self,
        context: &Context<'_>,
        job_ids: Vec<String>,
    ) -> async_graphql::Result<Vec<Option<Job>>> {
        answered(job_ids).iter().map(|id| find(context, id)).collect()
    }
}

fn find(context: &Context<'_>, id: &str) -> async_graphql::Result<Option<Job>> {
    let world = context.data::<Arc<World>>()?;
    Ok(world.jobs.view(id).map(Job::from))
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

impl From<View> for Job {
    fn from(view: View) -> Self {
        Self {
            additional_data: Some(JobAdditionalData { automation_activity_id: None }),
            created_at: iso(view.created_at),
            errors: view.failure().map(|message| JobError::new(message, &view.id)).into_iter().collect(),
            progress: view.progress.into(),
            result: result(view.outcome()),
            result_id: None,
            status: status(&view),
            updated_at: iso(view.changed_at()),
            id: view.id,
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

/// The schema holds what a held job can be: a word of it, or else what is nearest.
fn status(view: &View) -> JobStatus {
    match view.phase {
        Phase::Queued if view.word == "NONE" => JobStatus::None,
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
        Outcome::Binary(bytes) => Value::String(bytes.iter().map(|byte| char::from(*byte)).collect()),
    };
    Some(JobResult(value))
}

fn iso(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}
