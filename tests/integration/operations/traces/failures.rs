//! Collectors that hang, fail or are not there, and configurations that can't be used.

use std::process::Stdio;

use super::{collector::Mode, *};

/// How many spans had this outcome.
async fn spans(admin: &Admin, outcome: &str) -> u64 {
    let (_, text) = admin.get("/metrics").await;
    let families = exposition::read(&text);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small count")]
    let count = families["jobwatch_spans_total"].sum(&[&format!("outcome=\"{outcome}\"")]) as u64;
    count
}

/// Waits until this many spans had this outcome.
async fn wait_for_spans(admin: &Admin, outcome: &str, count: u64) {
    guard(async { while spans(admin, outcome).await < count {} }).await;
}

async fn list_backends(client: &Client, calls: usize) {
    let calls = (0..calls).map(|_| async { client.clone().list_backends(ListBackendsRequest {}).await });
    for outcome in guard(futures_util::future::join_all(calls)).await {
        outcome.unwrap();
    }
}

#[tokio::test]
async fn collector_that_hangs_delays_neither_calls_nor_shutdown_and_dropped_spans_are_counted() {
    for protocol in ["grpc", "http"] {
        let collector = if protocol == "grpc" { Collector::grpc().await } else { Collector::http().await };
        collector.set(Mode::Hang);
        let section = format!("[traces]\nendpoint = {:?}\nprotocol = {protocol:?}\n", collector.url());
        let (mut program, admin) = program_with(&section, [Backend::dead(Vendor::Immuta).await]).await;
        let client = program.client();
        list_backends(&client, 1).await;
        collector.wait_for_requests(1).await;
        // More than one request, 512 spans, and the queue, 2048, hold. Each call returns though
        // the collector has not answered, and none can: it hangs for good.
        for _ in 0..30 {
            list_backends(&client, 100).await;
        }
        assert!(spans(&admin, "queue_full").await >= 3001 - 512 - 2048);
        assert_eq!(spans(&admin, "exported").await, 0);
        program.signal("TERM").await;
        assert_eq!(program.exit_code().await, Some(0), "{}", program.log());
        assert!(program.log().contains("traces were not exported in time at shutdown"), "{}", program.log());
    }
}

#[tokio::test]
async fn collector_that_is_down_has_one_line_when_it_fails_and_one_when_it_works_again() {
    let address = own_address().await;
    let section =
        format!("[traces]\nendpoint = \"http://{address}\"\nprotocol = \"grpc\"\ntimeout = \"2s\"\n");
    let (program, admin) = program_with(&section, [Backend::dead(Vendor::Immuta).await]).await;
    list_backends(&program.client(), 5).await;
    program.logged("trace export failed").await;
    let collector = Collector::grpc_on(TcpListener::bind(address).await.unwrap());
    collector.named("jobwatch.v1.JobStatusService/ListBackends", 5).await;
    program.logged("trace export works again").await;
    assert_eq!(spans(&admin, "exported").await, 5);
    let log = program.log();
    let lines: Vec<_> = log.lines().filter(|line| line.contains("trace export")).collect();
    assert_eq!(lines.len(), 2, "{log}");
    assert!(lines[0].contains("reason=\"no connection: ") && lines[1].contains("down_for_ms="), "{log}");
    assert!(!lines[0].contains(&address.to_string()), "{log}");
}

#[tokio::test]
async fn request_is_sent_again_only_after_a_temporary_error() {
    for (collector, protocol) in [(Collector::grpc().await, "grpc"), (Collector::http().await, "http")] {
        let section = format!("[traces]\nendpoint = {:?}\nprotocol = {protocol:?}\n", collector.url());
        let (program, admin) = program_with(&section, [Backend::dead(Vendor::Immuta).await]).await;
        collector.set(Mode::Throttle);
        list_backends(&program.client(), 2).await;
        collector.wait_for_requests(2).await;
        collector.set(Mode::Unavailable);
        collector.wait_for_requests(3).await;
        collector.set(Mode::Take);
        wait_for_spans(&admin, "exported", 2).await;
        collector.set(Mode::Refuse);
        list_backends(&program.client(), 3).await;
        wait_for_spans(&admin, "refused", 3).await;
        collector.set(Mode::RefuseOne);
        list_backends(&program.client(), 4).await;
        wait_for_spans(&admin, "refused", 4).await;
        wait_for_spans(&admin, "exported", 5).await;
        assert_eq!(spans(&admin, "queue_full").await, 0);
        let log = program.log();
        assert_eq!(log.matches("trace export failed").count(), 2, "{log}");
        assert!(!log.contains("BODY"), "{log}");
    }
}

/// Exit code and stderr of a command that ends at once.
async fn output(
    arguments: &[&str],
    config: &str,
    variables: &[(&str, &str)],
) -> (Option<i32>, String, String) {
    let (file, _) = command(config);
    let mut command = tokio::process::Command::new(crate::program::executable());
    command.args(arguments).arg("--config").arg(file.path()).env_clear();
    command.envs(variables.iter().copied()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = guard(command.output()).await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[tokio::test]
async fn bad_traces_are_refused_by_key_and_variable() {
    let backend = || [Backend::at(Vendor::Immuta, "http://127.0.0.1:1")];
    let config = config_text("[traces]\nendpoint = \"collector:4317\"\nprotocol = \"udp\"", backend());
    let (code, _, stderr) = output(&["serve"], &config, &[]).await;
    assert_eq!(code, Some(2));
    assert!(
        stderr
            .contains("traces.endpoint can't be used; write a URL such as \"http://collector.example:4318\"")
            || stderr.contains("traces.protocol is \"udp\"; write \"http\" or \"grpc\""),
        "{stderr}"
    );
    let variables = [("OTEL_TRACES_SAMPLER", "sometimes"), ("OTEL_EXPORTER_OTLP_ENDPOINT", "hush")];
    let (code, _, stderr) = output(&["serve"], &config_text("", backend()), &variables).await;
    assert_eq!(code, Some(2));
    assert!(stderr.contains("OTEL_TRACES_SAMPLER is \"sometimes\"; write always_on, always_off"), "{stderr}");
    assert!(
        stderr.contains("traces.endpoint (set by OTEL_EXPORTER_OTLP_ENDPOINT) can't be used"),
        "{stderr}"
    );
    assert!(!stderr.contains("hush"), "{stderr}");
}

#[tokio::test]
async fn check_connects_to_the_collector_and_says_why_it_can_not() {
    let (collector, immuta) = (Collector::grpc().await, simulator(Vendor::Immuta).await);
    let config = config_text(&collector.section(""), [Backend::of(&immuta)]);
    let (code, stdout, stderr) = output(&["check", "--connect"], &config, &[]).await;
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    assert!(stdout.contains("OK      traces  OTLP over gRPC to http://127.0.0.1:"), "{stdout}");
    assert!(collector.requests()[0].request.resource_spans.is_empty());
    collector.set(Mode::Refuse);
    let (code, stdout, _) = output(&["check", "--connect"], &config, &[]).await;
    assert_eq!(code, Some(3), "{stdout}");
    assert!(
        stdout.contains("FAILED  traces  the collector answered with gRPC code InvalidArgument"),
        "{stdout}"
    );
    assert!(!stdout.contains("BODY"), "{stdout}");
}

#[tokio::test]
async fn collector_behind_tls_is_trusted_by_its_authority() {
    let key = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, key.cert.pem()).unwrap();
    let identity = tonic::transport::Identity::from_pem(key.cert.pem(), key.signing_key.serialize_pem());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let collector = Collector::grpc_with_tls(listener, identity);
    let section =
        format!("[traces]\nendpoint = \"https://localhost:{port}\"\nprotocol = \"grpc\"\nca = {ca:?}\n");
    let (program, _) = program_with(&section, [Backend::dead(Vendor::Immuta).await]).await;
    list_backends(&program.client(), 1).await;
    collector.named("jobwatch.v1.JobStatusService/ListBackends", 1).await;
}
