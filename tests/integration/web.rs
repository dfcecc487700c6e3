//! gRPC-Web, in a browser and outside of one.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use jobwatch::{
    proto::{
        FILE_DESCRIPTOR_SET,
        v1::{GetJobStatusResponse, JobState, WatchJobResponse},
    },
    simulators::{Plan, Simulator, Vendor},
};
use prost::Message;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::Command,
    time::timeout,
};

use crate::{
    harness::*,
    program::{Program, command},
};

const SERVICE: &str = "jobwatch.v1.JobStatusService";
const ORIGIN: &str = "http://localhost:5173";

async fn program(simulator: &Simulator) -> Program {
    program_for(simulator, ORIGIN).await
}

async fn program_for(simulator: &Simulator, origin: &str) -> Program {
    let sections = format!("[server]\nlisten = \"127.0.0.1:0\"\n[server.web]\norigins = [{origin:?}]");
    let config = config_text(&sections, [Backend::of(simulator)]);
    Program::run(command(&config), "info").await
}

/// The clients of both versions of HTTP.
fn clients() -> [reqwest::Client; 2] {
    let client = || reqwest::Client::builder().no_proxy();
    [client().http1_only().build().unwrap(), client().http2_prior_knowledge().build().unwrap()]
}

/// The messages of a body, and the trailers that end it.
fn messages(mut body: &[u8]) -> (Vec<Vec<u8>>, String) {
    let mut messages = Vec::new();
    while let Some((head, rest)) = body.split_first_chunk::<5>() {
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        let (message, rest) = rest.split_at(length);
        if head[0] & 0x80 != 0 {
            assert!(rest.is_empty(), "the trailers are the end");
            return (messages, String::from_utf8(message.to_vec()).unwrap());
        }
        messages.push(message.to_vec());
        body = rest;
    }
    panic!("no trailers after {} messages", messages.len())
}

#[tokio::test]
async fn unary_call_and_stream_are_served_in_both_encodings_and_versions() {
    let simulator = simulator(Vendor::Immuta).await;
    let program = program(&simulator).await;
    let job = job_at(&simulator, &simulator.start_job(Plan::default()));
    for client in clients() {
        for method in ["GetJobStatus", "WatchJob"] {
            let request = match method {
                "GetJobStatus" => get_request(&job).encode_to_vec(),
                _ => watch_request(&job).encode_to_vec(),
            };
            let request = frame(&request);
            for is_text in [false, true] {
                let kind = if is_text { "application/grpc-web-text" } else { "application/grpc-web+proto" };
                // As libraries write it, with parameters, and among others.
                let (content_type, accept) = match method {
                    "GetJobStatus" => (kind.to_owned(), kind.to_owned()),
                    _ => (
                        format!("{} ; charset=utf-8", kind.to_uppercase()),
                        format!("text/html;q=0.5, {kind};q=0.9"),
                    ),
                };
                let body = if is_text { STANDARD.encode(&request).into_bytes() } else { request.to_vec() };
                let call = client.post(format!("http://{}/{SERVICE}/{method}", program.address()));
                let call = call.header("content-type", content_type).header("accept", accept).body(body);
                let response = guard(call.send()).await.unwrap();
                assert_eq!(response.status(), 200);
                assert!(response.headers()["content-type"].to_str().unwrap().starts_with(kind));
                let mut body = guard(response.bytes()).await.unwrap().to_vec();
                if is_text {
                    // Each piece is encoded by itself.
                    let pieces = String::from_utf8(body).unwrap();
                    let pieces = pieces.split_inclusive('=').filter(|piece| *piece != "=");
                    body = pieces.flat_map(decoded).collect();
                }
                let (messages, trailers) = messages(&body);
                assert!(trailers.contains("grpc-status:0"), "{trailers}");
                let status = match method {
                    "GetJobStatus" => GetJobStatusResponse::decode(&*messages[0]).unwrap().status.unwrap(),
                    _ => {
                        match WatchJobResponse::decode(&**messages.last().unwrap()).unwrap().event.unwrap() {
                            jobwatch::proto::v1::watch_job_response::Event::Status(status) => status,
                            other => panic!("{other:?}"),
                        }
                    }
                };
                assert_eq!(status.state(), JobState::Succeeded);
            }
        }
    }
}

/// What one piece of base64 holds, with its padding or a part of that.
fn decoded(piece: &str) -> Vec<u8> {
    let piece = piece.trim_matches('=');
    base64::engine::general_purpose::STANDARD_NO_PAD.decode(piece).unwrap()
}

#[tokio::test]
async fn failed_call_has_its_details_where_a_site_may_read_them() {
    let simulator = simulator(Vendor::Immuta).await;
    let program = program(&simulator).await;
    for client in clients() {
        let url = format!("http://{}/{SERVICE}/GetJobStatus", program.address());
        let call =
            client.post(&url).header("content-type", "application/grpc-web+proto").header("origin", ORIGIN);
        let body = frame(&get_request(&job("immuta", "none")).encode_to_vec());
        let response = guard(call.body(body).send()).await.unwrap();
        let headers = response.headers();
        assert_eq!(headers["access-control-allow-origin"], ORIGIN);
        let exposed = headers["access-control-expose-headers"].to_str().unwrap();
        for name in ["grpc-status", "grpc-message", "grpc-status-details-bin"] {
            assert!(exposed.contains(name) && headers.contains_key(name), "{name}: {headers:?}");
        }
        assert_eq!(headers["grpc-status"], "5");

        let foreign = client.post(&url).header("content-type", "application/grpc-web+proto");
        let foreign = foreign.header("origin", "https://evil.example").body("");
        let response = guard(foreign.send()).await.unwrap();
        assert_eq!(response.headers()["grpc-status"], "7");
        assert!(!response.headers().contains_key("access-control-allow-origin"));

        let long =
            client.post(&url).header("content-type", "application/grpc-web+proto").body(vec![0; 1 << 20]);
        let response = guard(long.send()).await.unwrap();
        assert_eq!(response.headers()["grpc-status"], "8", "{:?}", response.headers());

        let encoded = client.post(&url).header("content-type", "application/grpc-web+proto");
        let response = guard(encoded.header("content-encoding", "gzip").body("").send()).await.unwrap();
        assert_eq!(response.headers()["grpc-status"], "12");
        let message = response.headers()["grpc-message"].to_str().unwrap();
        assert!(
            message.starts_with("the header Content-Encoding is \"gzip\", which is not served"),
            "{message}"
        );
    }
    assert_eq!(simulator.calls().len(), 2, "the site's calls only, which found nothing");
}

#[tokio::test]
async fn preflight_of_a_listed_site_is_answered() {
    let program = program(&simulator(Vendor::Immuta).await).await;
    for client in clients() {
        for path in [format!("/{SERVICE}/GetJobStatus"), "/v1/jobs:batchGet".to_owned()] {
            let url = format!("http://{}{path}", program.address());
            let ask = |origin: &'static str| {
                let ask = client.request(reqwest::Method::OPTIONS, &url).header("origin", origin);
                let ask = ask.header("access-control-request-method", "POST");
                ask.header("access-control-request-headers", "content-type,x-grpc-web")
            };
            let response = guard(ask(ORIGIN).send()).await.unwrap();
            assert_eq!(response.status(), 204);
            let headers = response.headers();
            assert_eq!(headers["access-control-allow-origin"], ORIGIN);
            assert_eq!(headers["access-control-allow-headers"], "content-type,x-grpc-web");
            assert_eq!(headers["access-control-allow-methods"], "GET, POST");
            let response = guard(ask("https://evil.example").send()).await.unwrap();
            assert_eq!(response.status(), 403);
            assert!(!response.headers().contains_key("access-control-allow-origin"));
        }
    }
}

/// A path below `.tools/node`.
fn node(path: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools/node").join(path);
    assert!(path.exists(), "{} is missing: run `make tools`", path.display());
    path
}

#[tokio::test]
async fn page_in_chromium_calls_watches_and_resumes() {
    let simulator = simulator(Vendor::Immuta).await;
    simulator.start_job(Plan::default().id("done"));
    for id in ["resumed", "events"] {
        simulator.start_job(Plan::fixed("created").id(id));
    }
    let descriptors = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(descriptors.path(), FILE_DESCRIPTOR_SET).unwrap();
    let mut command = Command::new("node");
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/web.mjs"));
    command.arg(simulator.base_url()).arg(node("chromium")).arg(descriptors.path());
    for name in ["http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
        command.env_remove(name);
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut browser = command.spawn().unwrap();
    let mut lines = BufReader::new(browser.stdout.take().unwrap()).lines();
    let origin = guard(lines.next_line()).await.unwrap().expect("the script says which site it is");
    let program = program_for(&simulator, &origin).await;
    let mut input = browser.stdin.take().unwrap();
    input.write_all(format!("{}\n", program.address()).as_bytes()).await.unwrap();
    let mut said = String::new();
    let ended = async {
        while let Some(line) = lines.next_line().await.unwrap() {
            said.extend([&*line, "\n"]);
        }
        browser.wait_with_output().await.unwrap()
    };
    let output = timeout(Duration::from_mins(5), ended).await.expect("the browser ends");
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.ends_with("all good\n"), "{said}\n{complaints}");
}
