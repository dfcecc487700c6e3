//! What metrics, the access log and traces cost, at a call that is served from memory and at
//! one that is polled upstream.

use std::{hint::black_box, net::SocketAddr, sync::Arc, time::Duration};

use jobwatch::{
    proto::v1::{GetJobStatusRequest, JobState},
    telemetry::metrics::{BackendMetrics, Metrics, metrics},
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
    trace_service_server::{TraceService, TraceServiceServer},
};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::task::AbortOnDropHandle;
use tonic::{Request, Response, Status, transport::Server};

use super::{Bench, ratios};
use crate::{
    Outcome,
    gateway::{CLARET, IMMUTA, Poll, Setup, job},
    http2::framed,
    load::{Calls, Load, Meter, Series},
    message::{number, part},
    process::own_cpu,
    report::{Goal, Row},
    vendor::{Mode, Vendor},
};

/// Takes spans and drops them.
struct Sink;

#[tonic::async_trait]
impl TraceService for Sink {
    async fn export(
        &self,
        _: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

async fn collector() -> Outcome<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let service = TraceServiceServer::new(Sink);
    let serving = Server::builder().add_service(service);
    tokio::spawn(serving.serve_with_incoming(TcpListenerStream::new(listener)));
    Ok(address)
}

/// A gateway that is measured beside one without any of this.
struct Variant {
    name: &'static str,
    setup: Setup,
    goal: Option<Goal>,
}

fn variants(poll: Poll, collector: SocketAddr) -> [Variant; 5] {
    let plain = Setup::from(poll);
    let traces = |ratio| Setup { traces: Some((collector, ratio)), ..plain };
    [
        Variant { name: "nothing", setup: plain, goal: None },
        Variant {
            name: "metrics read every second",
            setup: Setup { admin: true, ..plain },
            goal: Some(Goal::AtMost(1.05)),
        },
        Variant { name: "a log line for each call", setup: Setup { access_log: true, ..plain }, goal: None },
        Variant { name: "1 % of traces", setup: traces(0.01), goal: None },
        Variant { name: "all traces", setup: traces(1.0), goal: None },
    ]
}

pub(super) async fn cached(bench: &Bench) -> Outcome<Row> {
    let vendor = Vendor::start(bench.cores).await?;
    vendor.set(Mode::End).await?;
    let poll = Poll { interval: Duration::from_secs(1), batch: 200, concurrency: 8 };
    let calls = Arc::new(Calls {
        method: "GetJobStatus",
        requests: vec![framed(&request(IMMUTA, 0))],
        is_response: Box::new(|_, message| state(message) == JobState::Succeeded as u64),
    });
    let row = Row::new("overhead", "GetJobStatus of a job that has ended, observed");
    measured(bench, &vendor, poll, &calls, (8, 32), record_call, row).await
}

pub(super) async fn polls(bench: &Bench) -> Outcome<Row> {
    const JOBS: usize = 10_000;
    let vendor = Vendor::start(bench.cores).await?;
    let poll = Poll { interval: Duration::from_secs(1), batch: 200, concurrency: 64 };
    let calls = Arc::new(Calls {
        method: "GetJobStatus",
        requests: (0..JOBS).map(|number| framed(&request(CLARET, number))).collect(),
        is_response: Box::new(|_, message| state(message) == JobState::Running as u64),
    });
    let row = Row::new("overhead-polls", "GetJobStatus polled upstream at Claret, observed");
    let record = |metrics: &Metrics, backend: &BackendMetrics| {
        record_call(metrics, backend);
        backend.subscribed();
        backend.call_queued(Duration::from_micros(90));
        backend.poll_begins(1, Duration::from_micros(90));
        backend.poll_ended("ok", Duration::from_millis(1), 1);
    };
    measured(bench, &vendor, poll, &calls, (8, 8), record, row).await
}

/// What the metrics of a call are.
fn record_call(metrics: &Metrics, _: &BackendMetrics) {
    let mut call = metrics.begin_call("GetJobStatus");
    metrics.status_returned(Duration::from_millis(1));
    call.end(0);
}

async fn measured(
    bench: &Bench,
    vendor: &Vendor,
    poll: Poll,
    calls: &Arc<Calls>,
    (connections, in_flight): (usize, usize),
    record: impl Fn(&Metrics, &BackendMetrics),
    mut row: Row,
) -> Outcome<Row> {
    let variants = variants(poll, collector().await?);
    let mut gateways = Vec::new();
    for variant in &variants {
        let gateway = bench.gateway(vendor, variant.setup).await?;
        let mut load = Load::open(gateway.address, connections, in_flight, calls).await?;
        load.run(bench.slice() / 2).await?;
        let scrape = gateway.admin.map(|admin| AbortOnDropHandle::new(tokio::spawn(scrape(admin))));
        gateways.push((gateway, load, Series::default(), scrape));
    }
    for _ in 0..bench.pick(10, 4) {
        for (gateway, load, series, _) in &mut gateways {
            let meter = Meter::start(&**gateway, None)?;
            let completed = load.run(bench.slice()).await?;
            series.add(completed, meter.stop(&**gateway, None)?);
        }
    }
    for (gateway, _, _, scrape) in &gateways {
        if gateway.admin.is_some() && scrape.as_ref().is_none_or(AbortOnDropHandle::is_finished) {
            return Err("the metrics could not be read".into());
        }
    }
    let plain = gateways[0].2.cpu.clone();
    let recording = recording(bench, record)?;
    let share: Vec<f64> = plain.iter().map(|call| 1.0 + recording / call).collect();
    row.goal("CPU a call with what its metrics cost, by that without", "", &share, Goal::AtMost(1.05));
    for (variant, (_, _, series, _)) in variants.iter().zip(&gateways).skip(1) {
        let what = format!("CPU a call with {}, by that with nothing", variant.name);
        match variant.goal {
            Some(goal) => row.goal(what, "", &ratios(&series.cpu, &plain), goal),
            None => row.note(what, "", &ratios(&series.cpu, &plain)),
        }
    }
    row.note("to record the metrics of a call", "µs", &[recording]);
    row.note("CPU a call with nothing", "µs", &plain);
    Ok(row)
}

/// Microseconds of CPU to record the metrics of a call, in this process. A gateway always
/// records them.
fn recording(bench: &Bench, record: impl Fn(&Metrics, &BackendMetrics)) -> Outcome<f64> {
    let (metrics, times) = (metrics(), bench.pick(3_000_000, 1_000_000));
    let backend = metrics.backend(&"bench".into());
    let before = own_cpu()?;
    for _ in 0..times {
        record(black_box(metrics), black_box(&backend));
    }
    Ok(own_cpu()?.saturating_sub(before).as_secs_f64() * 1e6 / f64::from(times))
}

/// Reads the metrics once a second, as Prometheus does at most.
async fn scrape(admin: SocketAddr) {
    let client = reqwest::Client::builder().no_proxy().build();
    let Ok(client) = client else { return };
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    loop {
        ticks.tick().await;
        let response = client.get(format!("http://{admin}/metrics")).send().await;
        let Ok(Ok(text)) = response.map(reqwest::Response::error_for_status) else { return };
        if !text.text().await.is_ok_and(|text| text.contains("jobwatch_")) {
            return;
        }
    }
}

fn request(backend: &'static str, number: usize) -> GetJobStatusRequest {
    GetJobStatusRequest { job: Some(job(backend, number)), ..GetJobStatusRequest::default() }
}

/// The state in an encoded response.
fn state(message: &[u8]) -> u64 {
    number(part(message, &[1]).unwrap_or_default(), 2)
}
