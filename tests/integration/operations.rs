//! What an operator uses: the admin address, health, `jobwatch healthcheck`.

use std::process::Stdio;

use jobwatch::simulators::{Effect, Fault, Plan, Vendor};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    process::Command,
    sync::mpsc,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Streaming, transport::Channel};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, ServerReflectionResponse, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest,
};

use crate::{
    harness::*,
    program::{Program, command},
};

mod connection_age;
mod drain;
mod exposition;
mod inspection;
mod log;
mod metrics;
mod page;
#[cfg(target_os = "linux")]
mod rolling;
mod traces;

/// The sections of a gateway with an admin address.
const SECTIONS: &str = "[server]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n";

/// A program with an admin address, and that address.
async fn program_with(sections: &str, backends: impl IntoIterator<Item = Backend>) -> (Program, Admin) {
    run(&format!("{SECTIONS}{sections}"), backends).await
}

/// The same with further keys of `[server]`.
async fn server_with(keys: &str, backends: impl IntoIterator<Item = Backend>) -> (Program, Admin) {
    run(&SECTIONS.replacen("[admin]", &format!("{keys}\n[admin]"), 1), backends).await
}

async fn run(sections: &str, backends: impl IntoIterator<Item = Backend>) -> (Program, Admin) {
    let program = Program::run(command(&config_text(sections, backends)), "info").await;
    let admin = Admin::of(&program.log());
    (program, admin)
}

/// The admin address of a program.
struct Admin {
    url: String,
    client: reqwest::Client,
}

impl Admin {
    fn of(log: &str) -> Self {
        let (_, rest) = log.split_once("admin address is ").expect("the log has the admin address");
        let address = rest.split_whitespace().next().unwrap();
        Self {
            url: format!("http://{address}"),
            client: reqwest::Client::builder().no_proxy().build().unwrap(),
        }
    }

    async fn get(&self, path: &str) -> (u16, String) {
        let response = guard(self.client.get(format!("{}{path}", self.url)).send()).await.unwrap();
        (response.status().as_u16(), guard(response.text()).await.unwrap())
    }

    async fn put(&self, path: &str, body: &'static str) -> (u16, String) {
        let request = self.client.put(format!("{}{path}", self.url)).body(body);
        let response = guard(request.send()).await.unwrap();
        (response.status().as_u16(), guard(response.text()).await.unwrap())
    }
}

#[tokio::test]
async fn probes_answer_and_an_unavailable_backend_makes_the_server_not_unready() {
    let dead = Backend::dead(Vendor::Immuta).await;
    let (program, admin) = program_with("", [dead]).await;
    let mut watch = Watch::of(&program.client(), &job("immuta", "1")).await;
    watch.interruption().await;
    assert_eq!(admin.get("/livez").await, (200, "ok\n".to_owned()));
    let readiness = async {
        loop {
            let (code, body) = admin.get("/readyz").await;
            assert_eq!(code, 200, "{body}");
            let body: Value = serde_json::from_str(&body).unwrap();
            assert_eq!(body["status"], "ready");
            if body["backends"]["immuta"] == "unavailable" {
                return;
            }
        }
    };
    guard(readiness).await;
    assert_eq!(admin.get("/nothing").await.0, 404);
}

#[tokio::test]
async fn probes_answer_while_other_requests_stall() {
    let (_program, admin) = program_with("", [Backend::dead(Vendor::Immuta).await]).await;
    let address = admin.url.strip_prefix("http://").unwrap();
    let mut stalled = Vec::new();
    for _ in 0..40 {
        let mut stream = guard(TcpStream::connect(address)).await.unwrap();
        let head = b"PUT /log-level HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n";
        stream.write_all(head).await.unwrap();
        // The handler waits for the body.
        let mut line = [0; 12];
        if stalled.len() < 16 {
            guard(stream.read_exact(&mut line)).await.unwrap();
            assert_eq!(&line, b"HTTP/1.1 100");
        }
        stalled.push(stream);
    }
    assert_eq!((admin.get("/livez").await.0, admin.get("/readyz").await.0), (200, 200));
    // Past the rest of the line and the line that ends the head.
    let mut response = [0; 25];
    guard(stalled[0].read_exact(&mut response)).await.unwrap();
    assert_eq!(&response[13..], b"HTTP/1.1 408");
}

#[tokio::test]
async fn admin_address_in_use_is_one_sentence_and_exit_code_2() {
    let simulator = simulator(Vendor::Immuta).await;
    let sections = format!("[server]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"{}\"", simulator.addr());
    let (_file, mut command) = command(&config_text(&sections, [Backend::of(&simulator)]));
    let output = guard(command.stdout(Stdio::piped()).output()).await.unwrap();
    assert_eq!(output.status.code(), Some(2));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("admin.listen ") && stderr.contains("can't be listened on"), "{stderr}");
}

/// A stream of the reflection service that has answered one request. It stays open with the
/// sender.
async fn reflection(
    channel: Channel,
) -> (mpsc::Sender<ServerReflectionRequest>, Streaming<ServerReflectionResponse>) {
    let (requests, stream) = mpsc::channel(1);
    let list = MessageRequest::ListServices(String::new());
    let request = ServerReflectionRequest { host: String::new(), message_request: Some(list) };
    requests.send(request).await.unwrap();
    let mut client = ServerReflectionClient::new(channel);
    let responses = guard(client.server_reflection_info(ReceiverStream::new(stream))).await.unwrap();
    let mut responses = responses.into_inner();
    guard(responses.message()).await.unwrap().unwrap();
    (requests, responses)
}

fn health_of(service: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: service.to_owned() }
}

#[tokio::test]
async fn backend_is_not_serving_in_health_while_it_is_unavailable() {
    let simulator = simulator(Vendor::Immuta).await;
    let gateway = Gateway::start([Backend::of(&simulator).every(ms(10))]).await;
    let job = job_at(&simulator, &simulator.start_job(Plan::fixed("active")));
    let mut watch = Watch::of(&gateway.client(), &job).await;
    watch.status().await;
    let mut health = HealthClient::new(gateway.channel());
    let mut watch = guard(health.watch(health_of("jobwatch.backend/immuta"))).await.unwrap().into_inner();
    let mut wait_for = async |wanted| {
        let found = async { while watch.message().await.unwrap().unwrap().status() != wanted {} };
        guard(found).await;
    };
    wait_for(ServingStatus::Serving).await;
    simulator.inject(Fault::new(Effect::status(503, "")));
    wait_for(ServingStatus::NotServing).await;
    simulator.clear_faults();
    wait_for(ServingStatus::Serving).await;
}

#[tokio::test]
async fn health_of_backends_is_not_published_where_callers_are_identified() {
    let sections = "[access]\npolicies = [{ principals = [\"anonymous\"] }]";
    let gateway = Gateway::start_with(sections, [Backend::dead(Vendor::Immuta).await]).await;
    let mut health = HealthClient::new(gateway.channel());
    assert_eq!(
        guard(health.check(health_of(""))).await.unwrap().into_inner().status(),
        ServingStatus::Serving
    );
    let error = guard(health.check(health_of("jobwatch.backend/immuta"))).await.unwrap_err();
    assert_eq!(error.code(), Code::NotFound);
}

/// Runs `jobwatch healthcheck`. Returns its exit code and stderr.
async fn healthcheck(arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_jobwatch"));
    command.arg("healthcheck").args(arguments).env_clear().stdin(Stdio::null()).kill_on_drop(true);
    let output = guard(command.output()).await.unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[tokio::test]
async fn healthcheck_exits_with_0_or_1() {
    let gateway = Gateway::start([Backend::dead(Vendor::Immuta).await]).await;
    let server = format!("http://{}", gateway.address);
    assert_eq!(healthcheck(&["--server", &server]).await, (Some(0), String::new()));
    let (code, text) = healthcheck(&["--server", &server, "--service", "jobwatch.backend/none"]).await;
    assert_eq!((code, &*text), (Some(1), "unhealthy: there is no service \"jobwatch.backend/none\"\n"));
    gateway.stop().await;
    let (code, text) = healthcheck(&["--server", &server]).await;
    assert!(code == Some(1) && text.starts_with("unhealthy: can't reach a gateway"), "{text}");
    // One that accepts connections and answers nothing.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = format!("http://{}", silent.local_addr().unwrap());
    let (code, text) = healthcheck(&["--server", &server, "--timeout", "200ms"]).await;
    assert_eq!((code, &*text), (Some(1), "unhealthy: no answer within 200ms\n"));
}

#[tokio::test]
async fn healthcheck_over_tls_trusts_the_given_authority() {
    let key = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(path("cert.pem"), key.cert.pem()).unwrap();
    std::fs::write(path("key.pem"), key.signing_key.serialize_pem()).unwrap();
    let tls = format!("[server]\ntls = {{ cert = {:?}, key = {:?} }}", path("cert.pem"), path("key.pem"));
    let gateway = Gateway::start_with(&tls, [Backend::dead(Vendor::Immuta).await]).await;
    let server = format!("https://localhost:{}", gateway.address.port());
    let (code, text) = healthcheck(&["--server", &server, "--ca", &path("cert.pem")]).await;
    assert_eq!((code, &*text), (Some(0), ""));
    assert_eq!(healthcheck(&["--server", &server]).await.0, Some(1));
}

#[tokio::test]
async fn version_names_the_commit() {
    let output = Command::new(env!("CARGO_BIN_EXE_jobwatch")).arg("--version").output().await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.trim(), format!("jobwatch {}", jobwatch::telemetry::build::LONG_VERSION));
    let commit = jobwatch::telemetry::build::COMMIT;
    assert!(commit == "unknown" || commit.len() >= 7, "{commit}");
}
