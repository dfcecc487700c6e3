//! Third-party clients against the real server over real sockets:
//! grpcurl, buf, grpcio, grpc-js, and Kinetica's own against its simulator.
//! `make tools` installs them into `.tools/`.

use std::{
    ffi::OsStr,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Output, Stdio},
    time::Duration,
};

use jobwatch::{
    config::Config,
    server,
    simulators::{Outcome, Plan, Simulator, SimulatorSet, Vendor},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader, Lines},
    net::TcpListener,
    process::{ChildStdout, Command},
    time::timeout,
};
use tokio_util::sync::{CancellationToken, DropGuard};

const SERVICE: &str = "jobwatch.v1.JobStatusService";
const HEALTH: &str = "grpc.health.v1.Health";

/// Longest run time of one client.
const PATIENCE: Duration = Duration::from_mins(2);

/// The real server before simulated vendors, with a short poll interval.
struct Gateway {
    simulators: SimulatorSet,
    address: SocketAddr,
    stop: DropGuard,
}

impl Gateway {
    async fn start() -> Self {
        let simulators = SimulatorSet::start().await.unwrap();
        let poll = |(key, value): (&str, &str)| {
            Vendor::ALL.map(|vendor| {
                let vendor = vendor.name().to_uppercase();
                (format!("JOBWATCH__BACKENDS__{vendor}__POLL__{key}"), value.to_owned())
            })
        };
        let short = [("MIN_INTERVAL", "30ms"), ("MAX_INTERVAL", "100ms"), ("REQUESTS_PER_SECOND", "1000")];
        let config = Config::parse(&simulators.config(), short.into_iter().flat_map(poll)).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        tokio::spawn(server::run(listener, stop.clone(), config));
        Self { simulators, address, stop: stop.drop_guard() }
    }

    fn simulator(&self, vendor: Vendor) -> &Simulator {
        self.simulators.simulator(vendor)
    }

    /// Starts a job; its JobRef as JSON.
    fn start_job(&self, vendor: Vendor, plan: Plan) -> Value {
        json!({ "backend": vendor.name(), "jobId": self.simulator(vendor).start_job(plan).id })
    }

    /// Calls one of the service's methods with grpcurl.
    async fn grpcurl(&self, method: &str, request: &Value) -> Ran {
        Ran::of(self.grpcurl_command(method, request)).await
    }

    fn grpcurl_command(&self, method: &str, request: &Value) -> Command {
        let (method, address) = (format!("{SERVICE}/{method}"), self.address.to_string());
        grpcurl_command(&["-d", &request.to_string(), &address, &method])
    }
}

/// A program below `.tools/`.
fn tool(path: &str) -> PathBuf {
    let path = root().join(".tools").join(path);
    assert!(path.exists(), "{} is missing: run `make tools`", path.display());
    path
}

/// A search path with grpcurl in its first directory.
fn path() -> String {
    format!("{}:/usr/bin:/bin", tool("python/bin/grpcurl").parent().unwrap().display())
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn contract() -> String {
    root().join("proto").display().to_string()
}

fn client(script: &str) -> PathBuf {
    root().join("tests/clients").join(script)
}

fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.current_dir(root()).stdin(Stdio::null()).kill_on_drop(true);
    // A proxy of the machine must not be used for loopback.
    for name in ["http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
        command.env_remove(name);
    }
    command
}

struct Ran {
    output: Output,
    out: String,
    err: String,
}

impl Ran {
    async fn of(mut command: Command) -> Self {
        let output = timeout(PATIENCE, command.output()).await.expect("the client ends").unwrap();
        let out = String::from_utf8_lossy(&output.stdout).into_owned();
        let err = String::from_utf8_lossy(&output.stderr).into_owned();
        Self { output, out, err }
    }

    #[track_caller]
    fn succeeded(self) -> Self {
        assert!(self.output.status.success(), "{}\n{}\n{}", self.output.status, self.out, self.err);
        self
    }

    /// The JSON objects of a call that ended with OK.
    #[track_caller]
    fn responses(self) -> Vec<Value> {
        let ran = self.succeeded();
        serde_json::Deserializer::from_str(&ran.out).into_iter().map(Result::unwrap).collect()
    }

    /// The one JSON object of a unary call.
    #[track_caller]
    fn response(self) -> Value {
        let mut responses = self.responses();
        assert_eq!(responses.len(), 1);
        responses.remove(0)
    }

    /// The error that grpcurl shows, with its details decoded.
    #[track_caller]
    fn error(self) -> Value {
        assert!(!self.output.status.success(), "{}", self.out);
        assert!(!self.err.contains("unknown"), "{}", self.err);
        let shown = self.err.find('{').unwrap_or_else(|| panic!("{}", self.err));
        serde_json::from_str(&self.err[shown..]).unwrap()
    }
}

async fn grpcurl(args: &[&str]) -> Ran {
    Ran::of(grpcurl_command(args)).await
}

fn grpcurl_command(args: &[&str]) -> Command {
    let mut command = command(tool("python/bin/grpcurl"));
    command.args(["-plaintext", "-format-error", "-max-time", "30"]).args(args);
    command
}

/// Runs one of our scripts and prints its output, which names each failure.
async fn passes(mut command: Command, args: impl IntoIterator<Item = String>) {
    command.args(args);
    let ran = Ran::of(command).await.succeeded();
    println!("{}", ran.out);
    assert!(ran.out.ends_with("all good\n") && ran.out.starts_with("ok "), "{}", ran.out);
}

fn python(script: &str) -> Command {
    let mut command = command(tool("python/bin/python"));
    command.arg("-B").arg(client(script));
    command
}

/// The details of an error by their type's name.
fn detail<'a>(error: &'a Value, name: &str) -> &'a Value {
    let kind = format!("type.googleapis.com/google.rpc.{name}");
    let found = error["details"].as_array().and_then(|all| all.iter().find(|one| one["@type"] == *kind));
    found.unwrap_or_else(|| panic!("no {name} in {error}"))
}

#[tokio::test]
async fn grpcurl_lists_and_describes_the_service() {
    let gateway = Gateway::start().await;
    let address = gateway.address.to_string();
    let services = grpcurl(&[&address, "list"]).await.succeeded().out;
    assert_eq!(
        services.lines().collect::<Vec<_>>(),
        [
            "google.longrunning.Operations",
            HEALTH,
            "grpc.reflection.v1.ServerReflection",
            "grpc.reflection.v1alpha.ServerReflection",
            SERVICE
        ]
    );
    let service = grpcurl(&[&address, "describe", SERVICE]).await.succeeded().out;
    let watch =
        "rpc WatchJob ( .jobwatch.v1.WatchJobRequest ) returns ( stream .jobwatch.v1.WatchJobResponse );";
    assert!(service.contains(watch), "{service}");
    assert_eq!(service.matches("rpc ").count(), 7, "{service}");
    let message = grpcurl(&[&address, "describe", "jobwatch.v1.JobRef"]).await.succeeded().out;
    assert!(message.contains("string backend = 1;") && message.contains("string job_tag = 3;"), "{message}");
}

#[tokio::test]
async fn grpcurl_gets_one_status() {
    let gateway = Gateway::start().await;
    let job = gateway.start_job(Vendor::Immuta, Plan::succeeds(Outcome::Text("24 tables".to_owned())));
    let mut response = gateway.grpcurl("GetJobStatus", &json!({ "job": job })).await.response();
    let observed = response["status"].as_object_mut().unwrap().remove("observeTime").unwrap();
    assert!(observed.as_str().unwrap().ends_with('Z'), "{observed}");
    let result = json!({ "data": "MjQgdGFibGVz", "contentType": "text/plain; charset=utf-8" });
    let wanted = json!({
        "job": job,
        "state": "JOB_STATE_SUCCEEDED",
        "vendorState": "completed",
        "terminal": true,
        "result": result,
    });
    assert_eq!(response, json!({ "status": wanted }));
}

#[tokio::test]
async fn grpcurl_gets_a_batch_and_decodes_the_error_of_an_element() {
    let gateway = Gateway::start().await;
    let failed = gateway.start_job(Vendor::Claret, Plan::fails("no valid rows"));
    let missing = json!({ "backend": "immuta", "jobId": "no-such-job" });
    let done = gateway.start_job(Vendor::Datasaur, Plan::default());
    let jobs = [&failed, &missing, &done];
    let response = gateway.grpcurl("BatchGetStatuses", &json!({ "jobs": jobs })).await.response();
    let results = response["results"].as_array().unwrap();
    assert_eq!(results.iter().map(|result| &result["job"]).collect::<Vec<_>>(), jobs);
    assert_eq!(results[0]["status"]["state"], "JOB_STATE_FAILED");
    assert_eq!(results[1]["error"]["code"], 5);
    assert_eq!(results[1]["error"]["reason"], "JOB_NOT_FOUND");
    assert_eq!(results[2]["status"]["state"], "JOB_STATE_SUCCEEDED");
}

#[tokio::test]
async fn grpcurl_watches_to_the_end() {
    let gateway = Gateway::start().await;
    let job = gateway.start_job(Vendor::Immuta, Plan::fixed("created"));
    let id = job["jobId"].as_str().unwrap();
    let mut watch = gateway.grpcurl_command("WatchJob", &json!({ "job": job }));
    let mut watch = watch.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let mut seen = String::new();
    while let Some(line) = timeout(PATIENCE, lines.next_line()).await.expect("the watch goes on").unwrap() {
        if line.contains("JOB_STATE_PENDING") {
            gateway.simulator(Vendor::Immuta).set_state(id, "active");
        } else if line.contains("JOB_STATE_RUNNING") {
            gateway.simulator(Vendor::Immuta).finish(id);
        }
        seen += &line;
    }
    assert!(watch.wait().await.unwrap().success());
    let events: Vec<Value> =
        serde_json::Deserializer::from_str(&seen).into_iter().map(Result::unwrap).collect();
    let states: Vec<_> = events.iter().map(|event| event["status"]["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["JOB_STATE_PENDING", "JOB_STATE_RUNNING", "JOB_STATE_SUCCEEDED"]);
    assert!(events.iter().all(|event| event["resumeToken"].is_string()));
}

#[tokio::test]
async fn grpcurl_shows_every_detail_of_an_error_decoded() {
    let gateway = Gateway::start().await;
    let missing = json!({ "job": { "backend": "immuta", "jobId": "no-such-job" } });
    let error = gateway.grpcurl("GetJobStatus", &missing).await.error();
    assert_eq!(error["code"], 5, "{error}");
    let info = detail(&error, "ErrorInfo");
    assert_eq!((&info["reason"], &info["domain"]), (&json!("JOB_NOT_FOUND"), &json!("jobwatch")));
    assert_eq!(info["metadata"], json!({ "backend": "immuta", "job_id": "no-such-job" }));
    let resource = detail(&error, "ResourceInfo");
    assert_eq!(
        (&resource["resourceType"], &resource["resourceName"]),
        (&json!("job"), &json!("immuta/no-such-job"))
    );

    let malformed = json!({ "job": { "backend": "kinetica", "jobId": "seven" } });
    for method in ["GetJobStatus", "WatchJob"] {
        let error = gateway.grpcurl(method, &malformed).await.error();
        assert_eq!(error["code"], 3, "{error}");
        assert_eq!(detail(&error, "ErrorInfo")["reason"], "INVALID_JOB_ID");
        assert_eq!(detail(&error, "BadRequest")["fieldViolations"][0]["field"], "job.job_id");
    }

    gateway.simulator(Vendor::Claret).go_down().await;
    let unreachable = json!({ "job": { "backend": "claret", "jobId": "1" } });
    let error = gateway.grpcurl("GetJobStatus", &unreachable).await.error();
    assert_eq!(error["code"], 14, "{error}");
    assert_eq!(detail(&error, "ErrorInfo")["reason"], "BACKEND_UNAVAILABLE");
    assert!(detail(&error, "RetryInfo")["retryDelay"].is_string());
}

#[tokio::test]
async fn grpcurl_checks_the_health() {
    let gateway = Gateway::start().await;
    let (address, check) = (gateway.address.to_string(), format!("{HEALTH}/Check"));
    for service in [SERVICE, ""] {
        let request = json!({ "service": service }).to_string();
        let response = grpcurl(&["-d", &request, &address, &check]).await.response();
        assert_eq!(response, json!({ "status": "SERVING" }));
    }
}

#[tokio::test]
async fn health_at_shutdown_is_not_serving_and_does_not_delay_it() {
    let gateway = Gateway::start().await;
    let (address, watch) = (gateway.address.to_string(), format!("{HEALTH}/Watch"));
    let mut watches = [SERVICE, ""].map(|service| {
        let request = json!({ "service": service }).to_string();
        let mut watch = grpcurl_command(&["-d", &request, &address, &watch]);
        let mut watch = watch.stdout(Stdio::piped()).spawn().unwrap();
        (BufReader::new(watch.stdout.take().unwrap()).lines(), watch)
    });
    for (lines, _) in &mut watches {
        shows(lines, "\"SERVING\"").await;
    }
    drop(gateway.stop);
    for (lines, watch) in &mut watches {
        shows(lines, "\"NOT_SERVING\"").await;
        let ended = timeout(PATIENCE, watch.wait()).await.expect("it ends").unwrap();
        assert!(ended.success(), "{ended}");
    }
}

/// Reads lines until one contains `text`.
async fn shows(lines: &mut Lines<BufReader<ChildStdout>>, text: &str) {
    let read = async {
        while let Some(line) = lines.next_line().await.unwrap() {
            if line.contains(text) {
                return;
            }
        }
        panic!("it ended without {text}");
    };
    timeout(PATIENCE, read).await.expect("it goes on");
}

#[tokio::test]
async fn buf_curl_calls_over_reflection_v1() {
    let gateway = Gateway::start().await;
    let job = gateway.start_job(Vendor::Kinetica, Plan::fails("no such table"));
    let mut command = command(tool("python/bin/buf"));
    let url = format!("http://{}/{SERVICE}/GetJobStatus", gateway.address);
    let protocol = ["--protocol", "grpc", "--http2-prior-knowledge", "--reflect-protocol", "grpc-v1"];
    command.arg("curl").args(protocol).args(["-d", &json!({ "job": job }).to_string(), &url]);
    let response = Ran::of(command).await.response();
    assert_eq!(response["status"]["job"], job);
    assert_eq!(response["status"]["error"]["message"], "no such table");
}

#[tokio::test]
async fn python_client_works_over_reflection() {
    let gateway = Gateway::start().await;
    let urls = Vendor::ALL.map(|vendor| format!("{vendor}={}", gateway.simulator(vendor).base_url()));
    let args = [gateway.address.to_string()].into_iter().chain(urls);
    passes(python("grpc_python.py"), args).await;
}

#[tokio::test]
async fn python_client_is_generated_from_the_contract() {
    let gateway = Gateway::start().await;
    let job = gateway.simulator(Vendor::Immuta).start_job(Plan::default());
    let args = [gateway.address.to_string(), contract(), Vendor::Immuta.to_string(), job.id];
    passes(python("grpc_generated.py"), args).await;
}

#[tokio::test]
async fn operation_future_of_google_waits_for_a_job() {
    let gateway = Gateway::start().await;
    let simulator = gateway.simulator(Vendor::Immuta);
    let plan = Plan::succeeds(Outcome::Text("24 tables".to_owned())).running_for(Duration::from_hours(1));
    let running = simulator.start_job(plan).id;
    let failing = simulator.start_job(Plan::fails("no such column")).id;
    let names = [&*running, &*failing, "none"].map(|id| format!("backends/immuta/jobs/{id}"));
    let args = [gateway.address.to_string(), contract(), simulator.base_url()].into_iter().chain(names);
    passes(python("operations.py"), args).await;
}

#[tokio::test]
async fn node_client_gets_and_watches_from_the_contract() {
    let gateway = Gateway::start().await;
    let mut node = command("node");
    node.env("NODE_PATH", tool("node/node_modules")).arg(client("grpc_node.js"));
    let simulator = gateway.simulator(Vendor::Immuta).base_url();
    let mut python = command(tool("python/bin/python"));
    python.args(["-c", "import google.rpc; print(list(google.rpc.__path__)[0] + '/../..')"]);
    let common = Ran::of(python).await.succeeded().out.trim().to_owned();
    passes(node, [gateway.address.to_string(), contract(), simulator, common]).await;
}

#[tokio::test]
async fn examples_watch_a_job_and_exit_by_its_outcome() {
    let gateway = Gateway::start().await;
    let out = tempfile::tempdir().unwrap();
    let run = async |program: &OsStr, args: &[&str]| {
        let mut command = command(program);
        command.args(args).current_dir(out.path()).env("PATH", path());
        Ran::of(command).await
    };
    let python = tool("python/bin/python");
    let files = ["jobwatch/v1/job.proto", "jobwatch/v1/job_status_service.proto"];
    let contract = format!("-I{}", contract());
    let generate = ["-m", "grpc_tools.protoc", &contract, "--python_out=.", "--grpc_python_out=."];
    run(python.as_os_str(), &[&generate[..], &files].concat()).await.succeeded();

    let address = gateway.address.to_string();
    let script = |name: &str| root().join("examples").join(name).display().to_string();
    for (plan, code, state) in
        [(Plan::default(), 0, "SUCCEEDED"), (Plan::fails("no such column"), 1, "FAILED")]
    {
        let id = gateway.simulator(Vendor::Immuta).start_job(plan).id;
        let job = format!("immuta/{id}");
        let by_python = run(python.as_os_str(), &["-B", &script("watch.py"), &address, &job]).await;
        let by_shell = run(OsStr::new("sh"), &[&script("wait.sh"), &address, "immuta", &id]).await;
        for ran in [by_python, by_shell] {
            assert_eq!(ran.output.status.code(), Some(code), "{}{}", ran.out, ran.err);
            assert_eq!(ran.out.lines().count(), 1, "{}", ran.out);
            assert!(ran.out.contains(state), "{}", ran.out);
        }
    }
}

#[tokio::test]
async fn openapi_document_is_valid() {
    let gateway = Gateway::start().await;
    let document = reqwest::get(format!("http://{}/openapi.json", gateway.address)).await.unwrap();
    let file = tempfile::Builder::new().suffix(".json").tempfile().unwrap();
    std::fs::write(file.path(), document.bytes().await.unwrap()).unwrap();
    let mut validator = command(tool("python/bin/python"));
    validator.args(["-m", "openapi_spec_validator", "--schema", "3.1.0"]).arg(file.path());
    let out = Ran::of(validator).await.succeeded().out;
    assert!(out.ends_with(": OK\n"), "{out}");
}

#[tokio::test]
async fn kinetica_client_works_with_the_simulator() {
    let simulator = Simulator::start(Vendor::Kinetica).await.unwrap();
    passes(python("kinetica_gpudb.py"), [simulator.base_url()]).await;
}

#[tokio::test]
async fn demo_output_has_commands_that_work() {
    let mut demo = command(env!("CARGO_BIN_EXE_jobwatch"));
    demo.args(["demo", "--listen", "127.0.0.1:0"]).stdout(Stdio::piped());
    let mut demo = demo.spawn().unwrap();
    let mut printed = BufReader::new(demo.stdout.take().unwrap()).lines();
    // Commands are indented, and may go on over several lines.
    let (mut commands, mut open, mut server) = (Vec::<String>::new(), String::new(), String::new());
    while commands.last().is_none_or(|command| !command.contains("/WatchJob")) {
        let line =
            crate::harness::guard(printed.next_line()).await.unwrap().expect("the demo prints what to paste");
        if let Some(address) = line.strip_prefix("  export JOBWATCH_SERVER=") {
            server.push_str(address);
        }
        let begins = ["  jobwatch ", "  grpcurl "].iter().any(|program| line.starts_with(program));
        if !begins && open.is_empty() {
            continue;
        }
        open.push_str(line.trim());
        let goes_on = line.ends_with('\\') || open.matches('\'').count() % 2 == 1;
        open.push('\n');
        if !goes_on {
            commands.push(std::mem::take(&mut open));
        }
    }
    let program = Path::new(env!("CARGO_BIN_EXE_jobwatch")).parent().unwrap();
    let path =
        std::env::join_paths([program.into()].into_iter().chain(std::env::split_paths(&path()))).unwrap();
    let shell = |line: &str| {
        let mut shell = command("sh");
        shell.args(["-c", &format!("exec {line}")]).env("PATH", &path);
        shell.env("JOBWATCH_SERVER", &server);
        shell
    };
    let watch = commands.pop().unwrap();
    let calls = commands.iter().filter(|line| line.starts_with("grpcurl ") || line.contains(" backends"));
    let calls: Vec<_> = calls.collect();
    assert_eq!(calls.len(), 4, "{commands:?}");
    for line in calls {
        Ran::of(shell(line)).await.succeeded();
    }
    // It runs as long as its job.
    let mut watching = shell(&watch).stdout(Stdio::piped()).spawn().unwrap();
    let mut shown = vec![0; 512];
    let read = watching.stdout.take().unwrap().read(&mut shown).await.unwrap();
    assert!(String::from_utf8_lossy(&shown[..read]).starts_with("{\n  \"status\": {"));
}
