//! Micro-benchmarks: parsing each vendor's responses, by the adapters in code and by
//! definitions, and a GetJobStatus served from the terminal-status cache.
//!
//! `cargo bench --bench micro`, and `cargo bench --bench micro -- declared` for the costs of
//! definitions alone. The rows of `cargo bench --bench load` measure scheduling
//! and notification.

use std::{
    hint::black_box,
    num::{NonZeroU32, NonZeroUsize},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use futures_util::{FutureExt, future::BoxFuture};
use http::Response;
use jobwatch::{
    api::Service,
    engine::{BackendSetup, Engine, EngineLimits, MemoryLimits, PollInterval, PollPlan, WatchLimits},
    job::{BackendFault, JobRef},
    proto::{served::job_status_service_server::JobStatusService, v1::GetJobStatusRequest},
    transport::{Backoff, Permit, PollResponse, Upstream},
    vendors::{Adapter, BaseUrl, Claret, Datasaur, Elements, Encoding, Immuta, Kinetica},
};
use prost::Message;
use serde_json::json;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;
use tonic::Request;

#[path = "micro/declared.rs"]
mod declared;

const HOUR: Duration = Duration::from_hours(1);

fn base_url() -> BaseUrl {
    "https://vendor.example".parse().expect("a URL")
}

fn response(body: impl Into<Bytes>) -> Response<Bytes> {
    let response = Response::builder().header("content-type", "application/json");
    response.body(body.into()).expect("a response")
}

fn uuid(number: usize) -> String {
    format!("cefb58a0-cd71-11ec-8e29-{number:012}")
}

fn jobs(ids: impl Iterator<Item = String>) -> Vec<JobRef> {
    let backend: Arc<str> = "backend".into();
    ids.map(|id| JobRef::new(Arc::clone(&backend), id)).collect()
}

/// Splits `response`, which has an element for each of `jobs`, and reads all of them.
fn read(c: &mut Criterion, name: &str, adapter: &dyn Adapter, jobs: &[JobRef], response: &Response<Bytes>) {
    let split = || adapter.split(black_box(jobs), black_box(response)).expect("elements");
    let observe = |elements: &Elements| {
        for (job, element) in jobs.iter().zip(elements.as_slice()) {
            let element = element.as_ref().expect("each job has an element");
            black_box(adapter.observe(job, element)).expect("an observation");
        }
    };
    observe(&split());
    let mut group = c.benchmark_group("read a response");
    group.throughput(Throughput::Elements(jobs.len() as u64));
    group.bench_function(format!("{name}, unchanged"), |b| b.iter(split));
    group.bench_function(name, |b| b.iter(|| observe(&split())));
    group.finish();
}

/// The response to a poll of Immuta, and its jobs.
fn immuta_poll(count: usize) -> (Vec<JobRef>, Response<Bytes>) {
    let element = |n| {
        let id = uuid(n);
        (id.clone(), json!({ "id": id, "state": "active", "output": { "rows": n }, "retryCount": 0 }))
    };
    let body: serde_json::Map<_, _> = (0..count).map(element).collect();
    (jobs((0..count).map(uuid)), response(serde_json::Value::from(body).to_string()))
}

fn immuta(c: &mut Criterion) {
    const JOBS: usize = 500;
    let most = NonZeroUsize::new(JOBS).expect("not zero");
    let (jobs, response) = immuta_poll(JOBS);
    read(c, "immuta, 500 jobs", &Immuta::new(base_url(), most, false), &jobs, &response);
}

/// The same of Datasaur.
fn datasaur_poll(count: usize) -> (Vec<JobRef>, Response<Bytes>) {
    let id = |n| format!("AutoLabelQueue:{}", uuid(n));
    let elements: Vec<_> = (0..count)
        .map(|n| {
            json!({ "id": id(n), "status": "IN_PROGRESS", "progress": n, "errors": [], "resultId": null,
                "result": null, "additionalData": null, "createdAt": "2024-01-01T10:00:00.000Z",
                "updatedAt": "2024-01-01T10:02:30.000Z" })
        })
        .collect();
    let response = response(json!({ "data": { "result": elements } }).to_string());
    (jobs((0..count).map(id)), response)
}

fn datasaur(c: &mut Criterion) {
    const JOBS: usize = 100;
    let most = NonZeroUsize::new(JOBS).expect("not zero");
    let (jobs, response) = datasaur_poll(JOBS);
    read(c, "datasaur, 100 jobs", &Datasaur::new(base_url(), most, None), &jobs, &response);
}

/// The same of Claret.
fn claret_poll() -> (Vec<JobRef>, Response<Bytes>) {
    let file = |kind| format!("/demo/download/demo/user-uploads/inventory-import/2024-01-01/1/a_{kind}.csv");
    let body = json!({
        "message": "Job status retrieved successfully",
        "content": {
            "job_log_id": 12345,
            "status": "completed",
            "type": "inventory-import",
            "description": "Inventory Import",
            "progress": { "completed_steps": 8, "total_steps": 8, "current_step": null },
            "files": { "input": [file("untouched")], "staging": [file("staging")], "output": [file("final")],
                "errors": [file("errors")] },
            "job_status_link": "https://plan.claret.app/demo/settings/application-maintenance/job-management/imports/logs/12345",
            "timestamps": { "started_at": "2024-01-01T10:00:00Z", "completed_at": "2024-01-01T10:02:30Z" },
            "user_id": 42,
        },
    });
    (jobs(["12345".to_owned()].into_iter()), response(body.to_string()))
}

fn claret(c: &mut Criterion) {
    let claret = Claret::new(base_url(), "demo", None).expect("a tenant");
    let (jobs, response) = claret_poll();
    read(c, "claret", &claret, &jobs, &response);
}

/// The same of Kinetica.
fn kinetica_poll() -> (Vec<JobRef>, Response<Bytes>) {
    let record = json!({
        "endpoint": "/alter/table", "job_status": "RUNNING", "running": true, "progress": 42,
        "successful": false, "response_encoding": "json", "job_response": "", "job_response_str": "",
        "status_map": {}, "info": { "job_tag": "nightly-2024" },
    });
    let body = json!({
        "status": "OK", "message": "", "data_type": "get_job_response", "data": "",
        "data_str": record.to_string(),
    });
    (jobs(["4611686018427387907".to_owned()].into_iter()), response(body.to_string()))
}

fn kinetica(c: &mut Criterion) {
    let kinetica = Kinetica::new(base_url(), Encoding::Json);
    let (jobs, response) = kinetica_poll();
    read(c, "kinetica", &kinetica, &jobs, &response);
}

/// Responds at once that every job has succeeded.
struct AllSucceeded;

impl Upstream for AllSucceeded {
    fn poll<'a>(
        &'a self,
        jobs: &'a [JobRef],
        _: Permit,
    ) -> BoxFuture<'a, Result<PollResponse, BackendFault>> {
        let reader = Arc::new(Immuta::new(base_url(), NonZeroUsize::MIN, false));
        let elements = Elements::for_each(jobs, |_, _| Ok(Bytes::from_static(br#"{"state":"completed"}"#)));
        Box::pin(std::future::ready(Ok(PollResponse::new(reader, elements))))
    }
}

/// A GetJobStatus of a job with a cached terminal status, from the decoded request to
/// the encoded response.
fn get(c: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let _entered = runtime.enter();
    let limits = EngineLimits {
        watches: WatchLimits { total: 1, per_caller: 1, per_call: 1 },
        memory: MemoryLimits { status_bytes: 64 << 20, inline_result_bytes: 1 << 20, jobs: 1000 },
    };
    let (engine, _poll_tasks) = Engine::new(limits, CancellationToken::new());
    let setup = BackendSetup {
        name: "backend".into(),
        vendor: "immuta",
        vendor_version: Arc::default(),
        check: Box::new(|_| Ok(())),
        upstream: Arc::new(AllSucceeded),
        plan: PollPlan {
            interval: PollInterval { min: HOUR, max: HOUR },
            backoff: Backoff { min: HOUR, max: HOUR },
            collection_window: Duration::ZERO,
            max_batch: NonZeroUsize::MIN,
            max_concurrency: NonZeroUsize::MIN,
            requests_per_second: NonZeroU32::MAX,
            terminal_age: None,
        },
        timeout: HOUR,
        not_found_grace: HOUR,
        tracer: None,
    };
    engine.start_backend(setup);
    let service = Service::new(engine, 1, HOUR);
    let job = job_ref(&uuid(0));
    let request = move || Request::new(GetJobStatusRequest { job: Some(job.clone()), ..Default::default() });
    runtime.block_on(service.get_job_status(request())).expect("a response");
    let mut buffer = Vec::with_capacity(1024);
    c.bench_function("get, terminal status cached", |b| {
        b.iter(|| {
            buffer.clear();
            let response = service.get_job_status(request()).now_or_never().expect("a cached status");
            response.expect("a response").into_inner().encode(&mut buffer).expect("the buffer grows");
            black_box(&buffer);
        });
    });
}

fn job_ref(id: &str) -> jobwatch::proto::v1::JobRef {
    jobwatch::proto::v1::JobRef { backend: "backend".into(), job_id: id.to_owned(), job_tag: String::new() }
}

criterion_group!(micro, immuta, datasaur, claret, kinetica, get, declared::ratios);
criterion_main!(micro);
