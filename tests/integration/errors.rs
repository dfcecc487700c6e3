//! Every error of the contract: code, reason, metadata and details.

use jobwatch::{
    proto::v1::{GetJobStatusRequest, WatchJobRequest},
    simulators::{Effect, Fault, GraphQlError, Plan, Vendor},
};
use tonic::Code;

use crate::harness::*;

#[tokio::test]
async fn download_with_bad_field_names_the_field() {
    let simulator = simulator(Vendor::Immuta).await;
    let gateway = Gateway::start([Backend::of(&simulator)]).await;
    let client = gateway.client();
    let good = job("immuta", "a");
    let negative = Some(prost_types::Duration { seconds: -1, nanos: 0 });
    let zero = Some(proto_ms(0));
    let get = |request: GetJobStatusRequest| get_status(&client, request);
    let watch = async |request: WatchJobRequest| Watch::open(&client, request).await.unwrap_err();
    let refused = [
        (get(GetJobStatusRequest::default()).await.unwrap_err(), "job"),
        (get(get_request(&job("", "a"))).await.unwrap_err(), "job.backend"),
        (get(GetJobStatusRequest { view: 9, ..get_request(&good) }).await.unwrap_err(), "view"),
        (get(GetJobStatusRequest { wait: negative, ..get_request(&good) }).await.unwrap_err(), "wait"),
        (get(GetJobStatusRequest { max_age: negative, ..get_request(&good) }).await.unwrap_err(), "max_age"),
        (watch(WatchJobRequest::default()).await, "job"),
        (watch(WatchJobRequest { view: 9, ..watch_request(&good) }).await, "view"),
        (watch(WatchJobRequest { poll_interval: zero, ..watch_request(&good) }).await, "poll_interval"),
        (
            watch(WatchJobRequest { heartbeat_interval: negative, ..watch_request(&good) }).await,
            "heartbeat_interval",
        ),
        (batch(&client, batch_request([])).await.unwrap_err(), "jobs"),
        (batch(&client, batch_request(vec![good.clone(); 1001])).await.unwrap_err(), "jobs"),
    ];
    for (status, field) in refused {
        let decoded = decode_error(&status);
        assert_eq!((decoded.code, &*decoded.reason), (Code::InvalidArgument, "INVALID_REQUEST"), "{field}");
        assert_eq!(decoded.field(), field);
    }
    assert_eq!(simulator.count(""), 0);
}

/// Not every client decodes what tonic escapes, such as spaces.
#[tokio::test]
async fn error_message_on_the_wire_is_plain_text() {
    let gateway = Gateway::start([Backend::dead(Vendor::Immuta).await]).await;
    let client = reqwest::Client::builder().http2_prior_knowledge().build().unwrap();
    let url = format!("http://{}/jobwatch.v1.JobStatusService/GetJobStatus", gateway.address);
    let request = client.post(url).header("content-type", "application/grpc").body(vec![0; 5]);
    let response = guard(request.send()).await.unwrap();
    let message = response.headers()["grpc-message"].to_str().unwrap();
    assert_eq!(message, "job is required");
}

#[tokio::test]
async fn invalid_job_id_is_refused_without_a_poll() {
    let mut simulators = Vec::new();
    for vendor in Vendor::ALL {
        simulators.push(simulator(vendor).await);
    }
    let gateway = Gateway::start(simulators.iter().map(Backend::of)).await;
    let client = gateway.client();
    let long = "x".repeat(513);
    for (backend, id, tag, field) in [
        ("immuta", "", "", "job.job_id"),
        ("immuta", &*long, "", "job.job_id"),
        ("immuta", "a\nb", "", "job.job_id"),
        ("immuta", "a", "tag", "job.job_tag"),
        ("kinetica", "9223372036854775808", "", "job.job_id"),
        ("kinetica", "1.0", "", "job.job_id"),
        ("kinetica", "1", "no spaces", "job.job_tag"),
        ("claret", "0", "", "job.job_id"),
        ("claret", "twelve", "", "job.job_id"),
        ("claret", "1", "tag", "job.job_tag"),
        ("datasaur", "", "", "job.job_id"),
        ("datasaur", "a", "tag", "job.job_tag"),
    ] {
        let mut bad = job(backend, id);
        tag.clone_into(&mut bad.job_tag);
        let by_watch = Watch::open(&client, watch_request(&bad)).await.unwrap_err();
        for status in [get(&client, &bad).await.unwrap_err(), by_watch] {
            let decoded = decode_error(&status);
            assert_eq!((decoded.code, &*decoded.reason), (Code::InvalidArgument, "INVALID_JOB_ID"));
            assert_eq!((decoded.field(), &*decoded.metadata["backend"]), (field, backend));
        }
    }
    assert!(simulators.iter().all(|simulator| simulator.count("") == 0));
}

#[tokio::test]
async fn job_id_refused_by_the_vendor_is_invalid_argument() {
    let simulator = simulator(Vendor::Claret).await;
    let gateway = Gateway::start([Backend::of(&simulator)]).await;
    let client = gateway.client();
    let refused = Effect::Refuse("The job log id is invalid.".to_owned());
    simulator.inject(Fault::new(refused).at("/imports/status"));
    let bad = job("claret", "77");
    let mut watch = Watch::of(&client, &bad).await;
    for status in [get(&client, &bad).await.unwrap_err(), watch.end().await.unwrap_err()] {
        let decoded = decode_error(&status);
        assert_eq!((decoded.code, &*decoded.reason), (Code::InvalidArgument, "INVALID_JOB_ID"));
        assert_eq!((decoded.field(), &*decoded.metadata["job_id"]), ("job.job_id", "77"));
    }
}

#[tokio::test]
async fn resume_token_of_another_job_is_refused() {
    let simulator = simulator(Vendor::Immuta).await;
    let gateway = Gateway::start([Backend::of(&simulator)]).await;
    let client = gateway.client();
    let one = job_at(&simulator, &simulator.start_job(Plan::fixed("active")));
    let other = job_at(&simulator, &simulator.start_job(Plan::fixed("active")));
    let mut watch = Watch::of(&client, &one).await;
    watch.status().await;
    for token in ["garbage", "AAAA", "\u{fffd}", &watch.token] {
        let request = WatchJobRequest { resume_token: token.to_owned(), ..watch_request(&other) };
        let decoded = decode_error(&Watch::open(&client, request).await.unwrap_err());
        assert_eq!((decoded.code, &*decoded.reason), (Code::InvalidArgument, "INVALID_RESUME_TOKEN"));
        assert_eq!(decoded.field(), "resume_token");
    }
}

#[tokio::test]
async fn unknown_artifact_is_named() {
    let mut simulators = Vec::new();
    for vendor in Vendor::ALL {
        simulators.push(simulator(vendor).await);
    }
    let gateway = Gateway::start(simulators.iter().map(Backend::of)).await;
    let client = gateway.client();
    for (backend, id, reason, kind, name) in [
        ("elsewhere", "1", "UNKNOWN_BACKEND", "backend", "elsewhere"),
        ("immuta", "nobody", "JOB_NOT_FOUND", "job", "immuta/nobody"),
        ("kinetica", "404", "JOB_NOT_FOUND", "job", "kinetica/404"),
        ("claret", "404", "JOB_NOT_FOUND", "job", "claret/404"),
        ("datasaur", "Queue:404", "JOB_NOT_FOUND", "job", "datasaur/Queue:404"),
    ] {
        let missing = job(backend, id);
        let by_watch = match Watch::open(&client, watch_request(&missing)).await {
            Ok(mut watch) => watch.end().await.unwrap_err(),
            Err(error) => error,
        };
        for status in [get(&client, &missing).await.unwrap_err(), by_watch] {
            let decoded = decode_error(&status);
            assert_eq!((decoded.code, &*decoded.reason), (Code::NotFound, reason));
            let resource = decoded.details.resource_info().unwrap();
            assert_eq!((&*resource.resource_type, &*resource.resource_name), (kind, name));
            assert_eq!((&*decoded.metadata["backend"], &*decoded.metadata["job_id"]), (backend, id));
        }
    }
}

#[tokio::test]
async fn exceeded_limit_is_named() {
    let simulator = simulator(Vendor::Immuta).await;
    let limits = "[limits]\nwatches = 2\nwatches_per_caller = 2\nbatch_size = 3";
    let gateway = Gateway::start_with(limits, [Backend::of(&simulator)]).await;
    let client = gateway.client();
    let job = job_at(&simulator, &simulator.start_job(Plan::fixed("active")));
    let mut watches = [Watch::of(&client, &job).await, Watch::of(&client, &job).await];
    let error = decode_error(&Watch::open(&client, watch_request(&job)).await.unwrap_err());
    assert_eq!((error.code, &*error.reason), (Code::ResourceExhausted, "TOO_MANY_WATCHES"));
    let quota = &error.details.quota_failure().unwrap().violations[0];
    assert_eq!(quota.subject, "limits.watches");
    assert!(quota.description.contains('2'));
    for watch in &mut watches {
        watch.status().await;
    }
    get(&client, &job).await.expect("a get is not a watch");
    let error = decode_error(&batch(&client, batch_request(vec![job.clone(); 4])).await.unwrap_err());
    assert_eq!((&*error.reason, error.field()), ("INVALID_REQUEST", "jobs"));
    drop(watches);
    // The server counts a watch until it learns of the watch's end.
    let open_again = async {
        while Watch::open(&client, watch_request(&job)).await.is_err() {
            get(&client, &job).await.unwrap();
        }
    };
    guard(open_again).await;
}

/// A vendor's fault, and the error that a caller receives.
struct Case {
    vendor: Vendor,
    effect: Effect,
    code: Code,
    reason: &'static str,
    http_status: Option<&'static str>,
}

fn case(
    vendor: Vendor,
    effect: Effect,
    code: Code,
    reason: &'static str,
    http_status: impl Into<Option<&'static str>>,
) -> Case {
    Case { vendor, effect, code, reason, http_status: http_status.into() }
}

fn graphql(message: &str, class: &str, status: Option<u16>) -> Effect {
    let extensions = [("type".to_owned(), class.into())].into_iter().collect();
    Effect::GraphQlError(GraphQlError { message: message.to_owned(), extensions, with_data: false, status })
}

#[tokio::test]
async fn vendor_failures_map_to_code_and_reason() {
    use Code::{FailedPrecondition as Precondition, Internal, Unavailable};
    use Vendor::{Claret, Datasaur, Immuta, Kinetica};
    let kinetica = |code, message: &str| {
        let body = format!(
            r#"{{"status":"ERROR","message":{message:?},"data_type":"none","data":"","data_str":""}}"#
        );
        Effect::status(code, body)
    };
    let mut cases = vec![
        case(Immuta, Effect::Html(200), Internal, "BACKEND_MALFORMED", None),
        case(Immuta, Effect::Html(404), Precondition, "BACKEND_REJECTED", "404"),
        case(Immuta, Effect::Html(502), Unavailable, "BACKEND_UNAVAILABLE", "502"),
        case(Immuta, Effect::Redirect("/login".into()), Precondition, "BACKEND_REJECTED", "302"),
        case(Immuta, Effect::Refuse("no".into()), Precondition, "BACKEND_REJECTED", "400"),
        case(Kinetica, Effect::Html(200), Internal, "BACKEND_MALFORMED", None),
        case(Kinetica, Effect::Html(404), Precondition, "BACKEND_REJECTED", "404"),
        case(
            Kinetica,
            kinetica(400, "SqlEngine: Object 'x' not found"),
            Precondition,
            "BACKEND_REJECTED",
            "400",
        ),
        case(Kinetica, kinetica(200, "Bad request"), Precondition, "BACKEND_REJECTED", None),
        case(Kinetica, kinetica(400, "Access denied; ok"), Precondition, "BACKEND_FORBIDDEN", "400"),
        case(Kinetica, kinetica(400, "Kinetica is exiting"), Unavailable, "BACKEND_UNAVAILABLE", "400"),
        case(
            Kinetica,
            kinetica(200, "Unavailable: Draining HA queue"),
            Unavailable,
            "BACKEND_UNAVAILABLE",
            None,
        ),
        case(Claret, Effect::Html(200), Precondition, "BACKEND_CREDENTIALS_REJECTED", None),
        case(Claret, Effect::Html(404), Precondition, "BACKEND_CREDENTIALS_REJECTED", "404"),
        case(Claret, Effect::Html(503), Unavailable, "BACKEND_UNAVAILABLE", "503"),
        case(Claret, Effect::Redirect("/login".into()), Precondition, "BACKEND_CREDENTIALS_REJECTED", "302"),
        case(Claret, Effect::status(405, r#"{"message":"no"}"#), Precondition, "BACKEND_REJECTED", "405"),
        case(Datasaur, Effect::Html(200), Internal, "BACKEND_MALFORMED", None),
        case(Datasaur, Effect::Redirect("/login".into()), Precondition, "BACKEND_REJECTED", "302"),
        case(
            Datasaur,
            graphql("Unauthorized", "AuthenticationError", None),
            Precondition,
            "BACKEND_CREDENTIALS_REJECTED",
            None,
        ),
        case(Datasaur, graphql("no", "ForbiddenError", None), Precondition, "BACKEND_FORBIDDEN", None),
        case(Datasaur, graphql("no", "UserInputError", None), Precondition, "BACKEND_REJECTED", None),
        case(Datasaur, graphql("no", "UserInputError", Some(400)), Precondition, "BACKEND_REJECTED", "400"),
    ];
    for vendor in Vendor::ALL {
        cases.extend([
            case(vendor, Effect::status(401, "{}"), Precondition, "BACKEND_CREDENTIALS_REJECTED", "401"),
            case(vendor, Effect::status(403, "{}"), Precondition, "BACKEND_FORBIDDEN", "403"),
            case(vendor, Effect::status(429, "{}"), Unavailable, "BACKEND_THROTTLED", "429"),
            case(vendor, Effect::retry_after(429, 9), Unavailable, "BACKEND_THROTTLED", "429"),
            case(vendor, Effect::status(500, "{}"), Unavailable, "BACKEND_UNAVAILABLE", "500"),
            case(vendor, Effect::retry_after(503, 9), Unavailable, "BACKEND_UNAVAILABLE", "503"),
            case(vendor, Effect::Reset, Unavailable, "BACKEND_UNAVAILABLE", None),
            case(vendor, Effect::Truncate(9), Unavailable, "BACKEND_UNAVAILABLE", None),
            case(vendor, Effect::Empty204, Internal, "BACKEND_MALFORMED", "204"),
            case(vendor, Effect::HugeBody(100_000), Internal, "BACKEND_MALFORMED", None),
            case(vendor, Effect::EndlessChunks, Internal, "BACKEND_MALFORMED", None),
            case(vendor, Effect::WrongContentType("text/csv".into()), Internal, "BACKEND_MALFORMED", None),
            case(vendor, Effect::status(200, "[1"), Internal, "BACKEND_MALFORMED", None),
        ]);
    }
    for Case { vendor, effect, code, reason, http_status } in cases {
        let what = format!("{vendor}: {effect:?}");
        let retry_after = what.contains("retry-after");
        let simulator = simulator(vendor).await;
        let path = match vendor {
            Immuta => "/jobs/statuses",
            Kinetica => "/get/job",
            Claret => "/imports/status",
            Datasaur => "/graphql",
        };
        simulator.inject(Fault::new(effect).at(path));
        let backend = Backend::of(&simulator).poll("max_response_bytes", "65536");
        let gateway = Gateway::start([backend]).await;
        let client = gateway.client();
        let job = job_at(&simulator, &simulator.start_job(Plan::default()));
        let error = decode_error(&get(&client, &job).await.unwrap_err());
        assert_eq!((error.code, &*error.reason), (code, reason), "{what}: {}", error.message);
        let told_status = error.metadata.get("http_status").map(String::as_str);
        assert_eq!(told_status, http_status, "{what}");
        assert_eq!(error.metadata["backend"], vendor.name());
        assert_eq!(error.metadata["job_id"], job.job_id);
        assert_eq!(error.retry_delay().is_some(), code == Unavailable, "{what}");
        assert_eq!(error.metadata.contains_key("vendor_message"), reason == "BACKEND_REJECTED", "{what}");
        if retry_after {
            assert!(error.retry_delay().unwrap() > ms(8000), "{what}");
        }
        let mut watch = Watch::of(&client, &job).await;
        assert_eq!(watch.interruption().await.1.reason, reason, "{what}");
    }
}

#[tokio::test]
async fn wrong_endpoint_is_backend_rejected() {
    for vendor in Vendor::ALL {
        let simulator = simulator(vendor).await;
        let token = simulator.issue_token();
        let gateway = Gateway::start([Backend::of(&simulator).path("/elsewhere").bearer(&token)]).await;
        let error = decode_error(&get(&gateway.client(), &job(vendor.name(), "1")).await.unwrap_err());
        assert_eq!((error.code, &*error.reason), (Code::FailedPrecondition, "BACKEND_REJECTED"), "{vendor}");
        assert_eq!(error.metadata["http_status"], "404");
    }
}

#[tokio::test]
async fn refused_connection_is_unavailable() {
    for vendor in Vendor::ALL {
        let gateway = Gateway::start([Backend::dead(vendor).await]).await;
        let error = decode_error(&get(&gateway.client(), &job(vendor.name(), "1")).await.unwrap_err());
        assert_eq!((error.code, &*error.reason), (Code::Unavailable, "BACKEND_UNAVAILABLE"));
        assert!(error.retry_delay().is_some());
    }
}

#[tokio::test]
async fn vendor_message_is_truncated_to_512_characters() {
    let simulator = simulator(Vendor::Immuta).await;
    simulator.inject(Fault::new(Effect::Refuse("ä".repeat(5000))));
    let gateway = Gateway::start([Backend::of(&simulator)]).await;
    let error = decode_error(&get(&gateway.client(), &job("immuta", "1")).await.unwrap_err());
    assert_eq!(error.metadata["vendor_message"].chars().count(), 512);
}
