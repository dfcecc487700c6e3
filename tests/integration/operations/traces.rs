//! Traces, exported by the built program to a collector that speaks OTLP.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

use axum::{Router, extract::State, http::HeaderMap, http::StatusCode};
use jobwatch::{
    proto::v1::{JobRef, ListBackendsRequest},
    simulators::{Effect, Fault, Plan, Simulator, Vendor, credentials},
};
use opentelemetry_proto::tonic::trace::v1::{Span, span::SpanKind, status::StatusCode as SpanStatus};
use tokio::net::TcpListener;
use tonic::Request;

use super::{Admin, SECTIONS, exposition, program_with};
use crate::{
    harness::*,
    program::{Program, command},
};

mod collector;
mod failures;

use collector::{Collector, attributes, id, links};

const GET: &str = "jobwatch.v1.JobStatusService/GetJobStatus";

/// The trace and span of the caller in `traceparent`.
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

/// A call of a caller that samples its traces or not.
fn traced<T>(message: T, trace: &str, flags: &str) -> Request<T> {
    let mut request = Request::new(message);
    let text = format!("00-{trace}-{SPAN}-{flags}");
    request.metadata_mut().insert("traceparent", text.parse().unwrap());
    request
}

fn new_job(simulator: &Simulator) -> JobRef {
    let word = running(simulator.vendor());
    job_at(simulator, &simulator.start_job(Plan::fixed(word)))
}

#[tokio::test]
async fn call_continues_the_trace_of_its_caller_and_is_linked_with_its_poll() {
    let (collector, immuta) = (Collector::grpc().await, simulator(Vendor::Immuta).await);
    let more = "headers = { X-Tenant = \"a\" }\nattributes = { team = \"jobs\" }";
    let (program, _) = program_with(&collector.section(more), [Backend::of(&immuta)]).await;
    let mut request = traced(get_request(&new_job(&immuta)), TRACE, "01");
    request.metadata_mut().insert("tracestate", "vendor=1".parse().unwrap());
    get_status(&program.client(), request).await.unwrap();

    let call = collector.named(GET, 1).await.remove(0);
    assert_eq!((&*hex(&call.trace_id), &*hex(&call.parent_span_id)), (TRACE, SPAN));
    assert_eq!((call.kind(), &*call.trace_state), (SpanKind::Server, "vendor=1"));
    assert!(call.start_time_unix_nano < call.end_time_unix_nano);
    assert_eq!(call.status.as_ref().unwrap().code(), SpanStatus::Unset);
    let of_call = attributes(&call.attributes);
    assert_eq!(of_call["rpc.system"], "grpc");
    assert_eq!(of_call["rpc.service"], "jobwatch.v1.JobStatusService");
    assert_eq!(of_call["rpc.method"], "GetJobStatus");
    assert_eq!(of_call["rpc.grpc.status_code"], "0");

    let poll = collector.named("poll", 1).await.remove(0);
    assert_eq!((poll.kind(), poll.parent_span_id.len()), (SpanKind::Client, 0));
    assert_ne!(poll.trace_id, call.trace_id);
    let of_poll = attributes(&poll.attributes);
    let expected = [
        ("jobwatch.backend", "immuta"),
        ("jobwatch.poll.jobs", "1"),
        ("jobwatch.poll.subscribers", "1"),
        ("jobwatch.poll.outcome", "ok"),
        ("jobwatch.poll.requests", "1"),
        ("http.request.method", "POST"),
        ("http.response.status_code", "200"),
        ("server.address", "127.0.0.1"),
    ];
    for (name, value) in expected {
        assert_eq!(of_poll[name], value, "{name}");
    }
    assert_eq!(of_poll["server.port"], immuta.addr().port().to_string());

    let wait = collector.named("queue wait", 1).await.remove(0);
    assert_eq!((&wait.trace_id, &wait.parent_span_id), (&call.trace_id, &call.span_id));
    assert_eq!(wait.kind(), SpanKind::Internal);
    assert!(call.start_time_unix_nano <= wait.start_time_unix_nano);
    assert!(wait.end_time_unix_nano <= call.end_time_unix_nano);
    assert_eq!(attributes(&wait.attributes)["jobwatch.backend"], "immuta");
    assert_eq!((links(&call), links(&wait)), (vec![id(&poll)], vec![id(&poll)]));
    assert_eq!(links(&poll), [id(&call)]);

    let first = collector.requests().remove(0);
    assert_eq!(first.headers["x-tenant"], "a");
    let resource = first.request.resource_spans[0].resource.clone().unwrap();
    let resource = attributes(&resource.attributes);
    assert_eq!((&*resource["service.name"], &*resource["team"]), ("jobwatch", "jobs"));
    assert_eq!(resource["service.version"], env!("CARGO_PKG_VERSION"));
}

#[tokio::test]
async fn two_waiting_calls_share_one_poll_that_is_linked_with_both() {
    let (collector, immuta) = (Collector::grpc().await, simulator(Vendor::Immuta).await);
    let server = "[server]\nlisten = \"127.0.0.1:0\"\ncollection_window = \"1s\"\n";
    let text = config_text(&format!("{server}{}", collector.section("")), [Backend::of(&immuta)]);
    let program = Program::run(command(&text), "info").await;
    let (one, two) = (new_job(&immuta), new_job(&immuta));
    let client = program.client();
    let traces = [TRACE.to_owned(), TRACE.replace('4', "5")];
    let calls = tokio::join!(
        get_status(&client, traced(get_request(&one), &traces[0], "01")),
        get_status(&client, traced(get_request(&two), &traces[1], "01")),
    );
    assert!(calls.0.is_ok() && calls.1.is_ok(), "{calls:?}");
    let calls = collector.named(GET, 2).await;
    let waits = collector.named("queue wait", 2).await;
    let poll = collector.named("poll", 1).await.remove(0);
    assert_eq!(attributes(&poll.attributes)["jobwatch.poll.jobs"], "2");
    for (span, call) in calls.iter().chain(&waits).zip(calls.iter().chain(&calls)) {
        assert_eq!(links(span), [id(&poll)], "{}", span.name);
        assert!(links(&poll).contains(&id(call)));
    }
    let of = |spans: &[Span]| spans.iter().map(|span| hex(&span.trace_id)).collect::<BTreeSet<_>>();
    assert_eq!(of(&calls), traces.clone().into());
    assert_eq!(of(&waits), traces.into());
    assert_eq!(poll.links.len(), 2);
}

#[tokio::test]
async fn call_that_joins_a_poll_in_flight_is_linked_with_it() {
    let (collector, kinetica) = (Collector::grpc().await, simulator(Vendor::Kinetica).await);
    let job = new_job(&kinetica);
    kinetica.inject(Fault::new(Effect::HoldResponse));
    let (program, admin) = program_with(&collector.section(""), [Backend::of(&kinetica)]).await;
    let client = program.client();
    let first = tokio::spawn({
        let (client, job) = (client.clone(), job.clone());
        async move { get(&client, &job).await }
    });
    guard(kinetica.wait_for_calls("/get/job", 1)).await;
    let second = tokio::spawn(async move { get(&client, &job).await });
    let subscribed = async {
        while !admin.get("/metrics").await.1.contains("jobwatch_subscriptions_total{backend=\"kinetica\"} 2")
        {
        }
    };
    guard(subscribed).await;
    kinetica.clear_faults();
    for call in [first, second] {
        guard(call).await.unwrap().unwrap();
    }
    let calls = collector.named(GET, 2).await;
    let poll = collector.named("poll", 1).await.remove(0);
    for call in &calls {
        assert!(links(call).contains(&id(&poll)), "{call:?}");
        assert!(links(&poll).contains(&id(call)), "{poll:?}");
    }
}

#[tokio::test]
async fn watch_is_linked_with_the_poll_of_its_first_status() {
    let (collector, immuta) = (Collector::grpc().await, simulator(Vendor::Immuta).await);
    let (program, _) = program_with(&collector.section(""), [Backend::of(&immuta).every(ms(10))]).await;
    let started = immuta.start_job(Plan::fixed("active"));
    let mut watch = Watch::of(&program.client(), &job_at(&immuta, &started)).await;
    watch.status().await;
    immuta.wait_for_responses("/jobs/statuses", 4).await;
    immuta.set_state(&started.id, "completed");
    watch.rest().await.1.unwrap();
    let watch = collector.named("jobwatch.v1.JobStatusService/WatchJob", 1).await.remove(0);
    assert_eq!(watch.links.len(), 1, "{watch:?}");
    let first = links(&watch).remove(0);
    let poll = collector.find(|spans| spans.iter().find(|span| id(span) == first).cloned()).await;
    assert_eq!((&*poll.name, links(&poll)), ("poll", vec![id(&watch)]));
}

#[tokio::test]
async fn sampling_follows_the_caller_and_else_the_ratio() {
    let (collector, immuta) = (Collector::grpc().await, simulator(Vendor::Immuta).await);
    let (mut program, _) = program_with(&collector.section("sample_ratio = 0"), [Backend::of(&immuta)]).await;
    let client = program.client();
    let unsampled = traced(get_request(&new_job(&immuta)), TRACE, "00");
    get_status(&client, unsampled).await.unwrap();
    get(&client, &new_job(&immuta)).await.unwrap();
    // No valid trace at all.
    let mut invalid = Request::new(get_request(&new_job(&immuta)));
    invalid.metadata_mut().insert("traceparent", "00-1-1-01".parse().unwrap());
    get_status(&client, invalid).await.unwrap();
    get_status(&client, traced(get_request(&new_job(&immuta)), TRACE, "01")).await.unwrap();
    program.signal("TERM").await;
    assert_eq!(program.exit_code().await, Some(0));
    let spans = collector.spans();
    let mut names: Vec<_> = spans.iter().map(|span| &*span.name).collect();
    names.sort_unstable();
    assert_eq!(names, [GET, "poll", "queue wait"], "of the sampled call alone");
    let call = spans.iter().find(|span| span.name == GET).unwrap();
    assert_eq!(hex(&call.trace_id), TRACE);
}

#[tokio::test]
async fn traces_are_off_by_default() {
    let immuta = simulator(Vendor::Immuta).await;
    let text = config_text(&format!("{SECTIONS}[log]\naccess = true\n"), [Backend::of(&immuta)]);
    let program = Program::run(command(&text), "info").await;
    let admin = Admin::of(&program.log());
    get_status(&program.client(), traced(get_request(&new_job(&immuta)), TRACE, "01")).await.unwrap();
    program.logged("call ended").await;
    assert!(!program.log().contains("trace_id"), "{}", program.log());
    assert!(!admin.get("/metrics").await.1.contains("jobwatch_spans_total"));
}

#[tokio::test]
async fn access_log_names_the_trace_of_a_sampled_call() {
    let (collector, immuta) = (Collector::grpc().await, simulator(Vendor::Immuta).await);
    let sections = format!("[log]\naccess = true\n{}", collector.section(""));
    let (program, _) = program_with(&sections, [Backend::of(&immuta)]).await;
    get_status(&program.client(), traced(get_request(&new_job(&immuta)), TRACE, "01")).await.unwrap();
    program.logged(&format!("trace_id=\"{TRACE}\"")).await;
}

#[tokio::test]
async fn variables_of_opentelemetry_configure_an_export_over_http() {
    let (collector, immuta) = (Collector::http().await, simulator(Vendor::Immuta).await);
    let (file, mut command) = command(&config_text(SECTIONS, [Backend::of(&immuta)]));
    command
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("{}/otlp/", collector.url()))
        .env("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
        .env("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20hush")
        .env("OTEL_SERVICE_NAME", "gateway")
        .env("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
        .env("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
        .env("OTEL_TRACES_SAMPLER_ARG", "1.0");
    let program = Program::run((file, command), "info").await;
    get(&program.client(), &new_job(&immuta)).await.unwrap();
    let call = collector.named(GET, 1).await.remove(0);
    assert!(call.parent_span_id.is_empty(), "there is no caller's trace");
    let request = collector.requests().remove(0);
    assert_eq!(request.path, "/otlp/v1/traces");
    assert_eq!(request.headers["content-type"], "application/x-protobuf");
    assert_eq!(request.headers["authorization"], "Bearer hush");
    let resource = request.request.resource_spans[0].resource.clone().unwrap();
    let resource = attributes(&resource.attributes);
    assert_eq!((&*resource["service.name"], &*resource["deployment.environment.name"]), ("gateway", "test"));
    assert!(!program.log().contains("hush"), "{}", program.log());
}

#[tokio::test]
async fn spans_hold_neither_secrets_nor_paths_nor_jobs() {
    let (collector, mut simulators) = (Collector::grpc().await, Vec::new());
    for vendor in Vendor::ALL {
        simulators.push(simulator(vendor).await);
    }
    let backends = simulators.iter().map(Backend::of);
    let (program, _) = program_with(&collector.section(""), backends).await;
    let mut jobs = Vec::new();
    for simulator in &simulators {
        let job = new_job(simulator);
        get(&program.client(), &job).await.unwrap();
        jobs.push(job.job_id);
        simulator.inject(Fault::new(Effect::status(503, "BODY")));
        get(&program.client(), &new_job(simulator)).await.unwrap_err();
    }
    collector.named(GET, 8).await;
    let polls = collector.named("poll", 8).await;
    let failed = polls.iter().find(|poll| attributes(&poll.attributes).contains_key("error.type")).unwrap();
    assert_eq!(attributes(&failed.attributes)["http.response.status_code"], "503");
    assert_eq!(failed.status.as_ref().unwrap().code(), SpanStatus::Error);
    let all = format!("{:?}", collector.requests());
    let secrets = [
        credentials::IMMUTA_API_KEY,
        credentials::KINETICA_USER,
        credentials::KINETICA_PASSWORD,
        credentials::CLARET_EMAIL,
        credentials::CLARET_PASSWORD,
        credentials::DATASAUR_CLIENT_ID,
        credentials::DATASAUR_CLIENT_SECRET,
        "Bearer",
        "http://",
        "/jobs",
        "BODY",
    ];
    for text in secrets.into_iter().chain(jobs.iter().map(String::as_str)) {
        assert!(!all.contains(text), "{text}");
    }
}

/// A vendor that fails each request, and the `traceparent` of each.
async fn failing_vendor() -> (String, Arc<Mutex<Vec<Option<String>>>>) {
    type Seen = Arc<Mutex<Vec<Option<String>>>>;
    async fn fail(State(seen): State<Seen>, headers: HeaderMap) -> StatusCode {
        let given = headers.get("traceparent").map(|value| value.to_str().unwrap().to_owned());
        seen.lock().unwrap().push(given);
        StatusCode::SERVICE_UNAVAILABLE
    }
    let (listener, seen) = (TcpListener::bind("127.0.0.1:0").await.unwrap(), Seen::default());
    let url = format!("http://{}", listener.local_addr().unwrap());
    let router = Router::new().fallback(fail).with_state(Arc::clone(&seen));
    tokio::spawn(async { axum::serve(listener, router).await.unwrap() });
    (url, seen)
}

#[tokio::test]
async fn vendor_is_sent_no_context_unless_it_is_propagated() {
    for (more, is_sent) in [("", false), ("propagate = true", true)] {
        let (collector, (url, seen)) = (Collector::grpc().await, failing_vendor().await);
        let backend = Backend::at(Vendor::Immuta, url);
        let (program, _) = program_with(&collector.section(more), [backend]).await;
        let request = traced(get_request(&job("immuta", "1")), TRACE, "01");
        get_status(&program.client(), request).await.unwrap_err();
        let poll = collector.named("poll", 1).await.remove(0);
        let expected = format!("00-{}-{}-01", hex(&poll.trace_id), hex(&poll.span_id));
        assert_eq!(seen.lock().unwrap()[0], is_sent.then_some(expected), "{more}");
    }
}

#[tokio::test]
async fn spans_of_the_last_calls_are_exported_at_shutdown() {
    let (collector, immuta) = (Collector::http().await, simulator(Vendor::Immuta).await);
    let section = format!("[traces]\nendpoint = {:?}\n", collector.url());
    let (mut program, _) = program_with(&section, [Backend::of(&immuta)]).await;
    for _ in 0..600 {
        guard(program.client().list_backends(ListBackendsRequest {})).await.unwrap();
    }
    program.signal("TERM").await;
    assert_eq!(program.exit_code().await, Some(0));
    assert_eq!(collector.spans().len(), 600);
    assert_eq!(collector.requests()[0].path, "/v1/traces");
}
