//! The functions that run for every status: reading what vendors say, telling
//! followers, answering callers, and choosing what to ask about next.
//!
//! `cargo bench --bench micro`

use std::{
    hint::black_box,
    num::{NonZeroU32, NonZeroUsize},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use futures_util::{FutureExt, future::BoxFuture};
use http::Response;
use jobwatch::{
    api::Service,
    config::Poll,
    hub::{BackendSetup, Hub, WatchLimits},
    job::{BackendFault, JobRef, JobState, Observation},
    pacing::{Backoff, Cadence, Gate},
    poller::{Ended, Follow, Interest, Mailbox, Plan, Roster},
    proto::{served::job_status_service_server::JobStatusService, v1::GetJobStatusRequest},
    snapshot::Snapshot,
    transport::{Permit, PollResponse, Upstream},
    vendors::{Adapter, BaseUrl, Claret, Datasaur, Elements, Encoding, Immuta, Kinetica},
};
use prost::Message;
use serde_json::json;
use tokio::{runtime::Runtime, time::Instant};
use tokio_util::sync::CancellationToken;
use tonic::Request;

const HOUR: Duration = Duration::from_hours(1);

fn base_url() -> BaseUrl {
    "https://vendor.example".parse().expect("a URL")
}

fn answer(body: impl Into<Bytes>) -> Response<Bytes> {
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

fn immuta(c: &mut Criterion) {
    const JOBS: usize = 500;
    let element = |n| {
        let id = uuid(n);
        (id.clone(), json!({ "id": id, "state": "active", "output": { "rows": n }, "retryCount": 0 }))
    };
    let body: serde_json::Map<_, _> = (0..JOBS).map(element).collect();
    let most = NonZeroUsize::new(JOBS).expect("not zero");
    let response = answer(serde_json::Value::from(body).to_string());
    read(c, "immuta, 500 jobs", &Immuta::new(base_url(), most, false), &jobs((0..JOBS).map(uuid)), &response);
}

fn datasaur(c: &mut Criterion) {
    const JOBS: usize = 100;
    let id = |n| format!("AutoLabelQueue:{}", uuid(n));
    let elements: Vec<_> = (0..JOBS)
        .map(|n| {
            json!({ "id": id(n), "status": "IN_PROGRESS", "progress": n, "errors": [], "resultId": null,
                "result": null, "additionalData": null, "createdAt": "2024-01-01T10:00:00.000Z",
                "updatedAt": "2024-01-01T10:02:30.000Z" })
        })
        .collect();
    let most = NonZeroUsize::new(JOBS).expect("not zero");
    let response = answer(json!({ "data": { "result": elements } }).to_string());
    read(
        c,
        "datasaur, 100 jobs",
        &Datasaur::new(base_url(), most, None),
        &jobs((0..JOBS).map(id)),
        &response,
    );
}

fn claret(c: &mut Criterion) {
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
    let claret = Claret::new(base_url(), "demo", None).expect("a tenant");
    read(c, "claret", &claret, &jobs(["12345".to_owned()].into_iter()), &answer(body.to_string()));
}

fn kinetica(c: &mut Criterion) {
    let record = json!({
        "endpoint": "/alter/table", "job_status": "RUNNING", "running": true, "progress": 42,
        "successful": false, "response_encoding": "json", "job_response": "", "job_response_str": "",
        "status_map": {}, "info": { "job_tag": "nightly-2024" },
    });
    let body = json!({
        "status": "OK", "message": "", "data_type": "get_job_response", "data": "",
        "data_str": record.to_string(),
    });
    let kinetica = Kinetica::new(base_url(), Encoding::Json);
    let job = jobs(["4611686018427387907".to_owned()].into_iter());
    read(c, "kinetica", &kinetica, &job, &answer(body.to_string()));
}

/// Says at once that every job has succeeded.
struct AllDone;

impl Upstream for AllDone {
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

/// A whole `GetJobStatus` of a job that has ended, from the message that came to the
/// bytes that go.
fn get(c: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let _entered = runtime.enter();
    let setup = BackendSetup {
        name: "backend".into(),
        vendor: "immuta",
        check: Box::new(|_| Ok(())),
        max_batch: NonZeroUsize::MIN,
        long_poll: false,
        upstream: Arc::new(AllDone),
        poll: Poll { requests_per_second: NonZeroU32::MAX, ..Poll::default() },
    };
    let limits = WatchLimits { total: 1, per_caller: 1, per_call: 1 };
    let (hub, _pollers) = Hub::start(vec![setup], Duration::ZERO, limits, CancellationToken::new());
    let service = Service::new(Arc::new(hub), 1, HOUR);
    let job = job_ref(&uuid(0));
    let request = move || Request::new(GetJobStatusRequest { job: Some(job.clone()), ..Default::default() });
    runtime.block_on(service.get_job_status(request())).expect("an answer");
    let mut buffer = Vec::with_capacity(1024);
    c.bench_function("get a job that has ended", |b| {
        b.iter(|| {
            buffer.clear();
            let answer = service.get_job_status(request()).now_or_never().expect("it is known");
            answer.expect("an answer").into_inner().encode(&mut buffer).expect("it grows");
            black_box(&buffer);
        });
    });
}

fn job_ref(id: &str) -> jobwatch::proto::v1::JobRef {
    jobwatch::proto::v1::JobRef { backend: "backend".into(), job_id: id.to_owned(), job_tag: String::new() }
}

fn roster(max_batch: usize) -> Arc<Roster> {
    let plan = Plan {
        cadence: Cadence { min: HOUR, max: HOUR },
        window: Duration::ZERO,
        max_batch,
        long_poll: false,
    };
    let gate = Gate::new(Backoff { min: HOUR, max: HOUR });
    Arc::new(Roster::new(plan, gate, Ended::new(1 << 20, HOUR)))
}

fn interest(mailbox: &Arc<Mailbox>, slot: u32) -> Interest {
    Interest { mailbox: Arc::clone(mailbox), slot, eager: false, interval: None }
}

/// Takes what is due, as if that were now, and answers that each job runs and has
/// this output.
fn poll(roster: &Arc<Roster>, output: &Bytes) {
    let mut batch = roster.take(Instant::now() + 2 * HOUR, 0.5).expect("something is due");
    let part = batch.open();
    let running =
        Observation { vendor_payload: output.clone(), ..Observation::new(JobState::Running, "active") };
    let answers = part.iter().map(|_| Ok(Some(Snapshot::new(running.clone())))).collect();
    batch.answered(&part, answers, 0.5);
}

/// A change of one job, told to everybody who follows it.
fn publish(c: &mut Criterion) {
    const FOLLOWERS: usize = 10_000;
    let roster = roster(1);
    let job = JobRef::new("backend", uuid(0));
    let mailboxes: Vec<Arc<Mailbox>> = (0..FOLLOWERS).map(|_| Arc::default()).collect();
    let follows: Vec<Follow> =
        mailboxes.iter().map(|mailbox| roster.join(&job, interest(mailbox, 0))).collect();
    let mut change = 0_u64;
    let mut group = c.benchmark_group("publish");
    group.throughput(Throughput::Elements(FOLLOWERS as u64));
    group.bench_function("a change to 10000 followers", |b| {
        let read_all = || {
            for mailbox in &mailboxes {
                let _ = mailbox.try_next();
            }
            change += 1;
            Bytes::from(change.to_string())
        };
        b.iter_batched(read_all, |output| poll(&roster, &output), BatchSize::PerIteration);
    });
    group.finish();
    drop(follows);
}

/// A batch taken off a full roster, answered, and put back on.
fn schedule(c: &mut Criterion) {
    const JOBS: usize = 1_000_000;
    const BATCH: usize = 1000;
    let roster = roster(BATCH);
    let mailbox = Arc::default();
    let follows: Vec<Follow> = (0..)
        .zip(jobs((0..JOBS).map(uuid)))
        .map(|(slot, job)| roster.join(&job, interest(&mailbox, slot)))
        .collect();
    let output = Bytes::from_static(b"{}");
    for _ in 0..JOBS / BATCH {
        poll(&roster, &output);
    }
    let mut group = c.benchmark_group("schedule");
    group.throughput(Throughput::Elements(BATCH as u64));
    group.bench_function("1000 of 1000000 unchanged jobs", |b| b.iter(|| poll(&roster, &output)));
    group.finish();
    drop(follows);
}

criterion_group!(micro, immuta, datasaur, claret, kinetica, get, publish, schedule);
criterion_main!(micro);
