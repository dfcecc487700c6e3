//! The built program with vendors that a definition describes, against a vendor on loopback.

use std::{
    collections::BTreeMap,
    io::Write,
    process::{Output, Stdio},
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::{Request, Response},
};
use jobwatch::proto::v1::{DownloadArtifactRequest, JobState, ListBackendsRequest};
use tempfile::{NamedTempFile, TempDir};
use tokio::{net::TcpListener, process::Command, task::AbortHandle};
use tonic::Code;

use crate::{
    harness::*,
    program::{self, Program},
};

mod origins;
mod storage;
mod trial;

/// A request as the vendor saw it.
#[derive(Clone, Debug)]
struct Seen {
    target: String,
    headers: BTreeMap<String, String>,
    body: String,
}

type Answers = BTreeMap<String, (u16, Vec<(&'static str, String)>, String)>;

/// A vendor that answers each method and target with what the test says.
#[derive(Clone, Default)]
struct Script {
    answers: Arc<Mutex<Answers>>,
    seen: Arc<Mutex<Vec<Seen>>>,
}

struct Vendor {
    script: Script,
    url: String,
    server: AbortHandle,
}

impl Drop for Vendor {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Vendor {
    async fn start() -> Self {
        let script = Script::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let app = Router::new().fallback(answer).with_state(script.clone());
        let server = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() }).abort_handle();
        Self { script, url, server }
    }

    fn answers(&self, request: &str, status: u16, body: &str) {
        self.answers_with(request, status, &[], body);
    }

    fn answers_with(&self, request: &str, status: u16, headers: &[(&'static str, &str)], body: &str) {
        let headers = headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        self.script.answers.lock().unwrap().insert(request.to_owned(), (status, headers, body.to_owned()));
    }

    fn seen(&self, request: &str) -> Vec<Seen> {
        self.script.seen.lock().unwrap().iter().filter(|seen| seen.target == request).cloned().collect()
    }
}

async fn answer(State(script): State<Script>, request: Request<Body>) -> Response<Body> {
    let (head, body) = request.into_parts();
    let body: Bytes = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    let target = format!("{} {}", head.method, head.uri.path_and_query().unwrap());
    let headers = head
        .headers
        .iter()
        .map(|(name, value)| (name.to_string(), value.to_str().unwrap_or_default().to_owned()));
    let seen = Seen {
        target: target.clone(),
        headers: headers.collect(),
        body: String::from_utf8_lossy(&body).into(),
    };
    script.seen.lock().unwrap().push(seen);
    let (status, headers, text) =
        script.answers.lock().unwrap().get(&target).cloned().unwrap_or((500, Vec::new(), String::new()));
    let mut response = Response::builder().status(status);
    if !headers.iter().any(|(name, _)| *name == "content-type") {
        response = response.header("content-type", "application/json");
    }
    for (name, value) in headers {
        response = response.header(name, value);
    }
    response.body(text.into()).unwrap()
}

async fn serve(backends: &str) -> Program {
    let text = format!("allow_inline_secrets = true\n[server]\nlisten = \"127.0.0.1:0\"\n{backends}");
    Program::run(program::command(&text), "info").await
}

const POLL: &str = "poll = { min_interval = \"20ms\", max_interval = \"50ms\", not_found_grace = \"0ms\" }";

async fn databricks() -> (Vendor, Program) {
    let vendor = Vendor::start().await;
    let url = &vendor.url;
    let backend = format!(
        "[backends.dbx]\nvendor = \"databricks\"\nbase_url = {url:?}\ncredentials = {{ bearer = \"dapi-hush\" }}\n{POLL}"
    );
    let program = serve(&backend).await;
    (vendor, program)
}

fn run(id: u64) -> String {
    format!("GET /api/2.2/jobs/runs/get?run_id={id}")
}

fn status(id: u64, words: &str) -> String {
    format!("{{\"run_id\": {id}, \"run_name\": \"nightly\", \"state\": {{{words}}}}}")
}

const RUNNING: &str = "\"life_cycle_state\": \"RUNNING\"";
const SUCCESS: &str = "\"life_cycle_state\": \"TERMINATED\", \"result_state\": \"SUCCESS\"";

#[tokio::test]
async fn job_of_a_declared_vendor_is_watched_to_its_end() {
    let (vendor, program) = databricks().await;
    vendor.answers(&run(7), 200, &status(7, RUNNING));
    let client = program.client();
    let job = job("dbx", "7");
    let first = get(&client, &job).await.unwrap();
    assert_eq!(
        (first.state(), &*first.vendor_state, &*first.description),
        (JobState::Running, "RUNNING", "nightly")
    );
    assert_eq!(vendor.seen(&run(7))[0].headers["authorization"], "Bearer dapi-hush");

    let mut watch = Watch::of(&client, &job).await;
    assert_eq!(watch.status().await.state(), JobState::Running);
    vendor.answers(&run(7), 200, &status(7, "\"life_cycle_state\": \"HIBERNATING\""));
    let unknown = watch.next_status().await;
    assert_eq!((unknown.state(), unknown.terminal), (JobState::Unspecified, false));
    program.logged("HIBERNATING").await;
    vendor.answers(&run(7), 200, &status(7, SUCCESS));
    let end = watch.terminal_status().await;
    assert_eq!((end.state(), &*end.vendor_state), (JobState::Succeeded, "TERMINATED/SUCCESS"));

    let backends = guard(client.clone().list_backends(ListBackendsRequest::default()))
        .await
        .unwrap()
        .into_inner()
        .backends;
    assert_eq!((&*backends[0].vendor, &*backends[0].vendor_version), ("databricks", "1.0.0"));
    assert!(!program.log().contains("dapi-hush"));
}

#[tokio::test]
async fn faults_of_a_declared_vendor_have_their_reasons() {
    let (vendor, program) = databricks().await;
    vendor.answers(
        &run(1),
        400,
        r#"{"error_code": "INVALID_PARAMETER_VALUE", "message": "Run 1 does not exist."}"#,
    );
    vendor.answers(&run(2), 400, r#"{"error_code": "BAD_REQUEST", "message": "no"}"#);
    vendor.answers(&run(3), 200, &status(4, SUCCESS));
    let client = program.client();
    let reason = async |id: &str| code_and_reason(&get(&client, &job("dbx", id)).await.unwrap_err());
    assert_eq!(reason("1").await, (Code::NotFound, "JOB_NOT_FOUND".to_owned()));
    assert_eq!(reason("x").await, (Code::InvalidArgument, "INVALID_JOB_ID".to_owned()));
    assert_eq!(reason("2").await.1, "BACKEND_REJECTED");
    assert_eq!(reason("3").await.1, "BACKEND_MALFORMED");
}

#[tokio::test]
async fn throttling_and_rejected_credentials_of_a_declared_vendor_are_told_apart() {
    let (vendor, program) = databricks().await;
    vendor.answers_with(&run(1), 429, &[("retry-after", "30")], "{}");
    let client = program.client();
    let throttled = get(&client, &job("dbx", "1")).await.unwrap_err();
    assert_eq!(code_and_reason(&throttled).1, "BACKEND_THROTTLED");

    let (vendor, program) = databricks().await;
    vendor.answers(&run(1), 403, "{}");
    vendor.answers(&run(2), 401, "{}");
    let client = program.client();
    let rejected = get(&client, &job("dbx", "2")).await.unwrap_err();
    assert_eq!(code_and_reason(&rejected).1, "BACKEND_CREDENTIALS_REJECTED");
    assert_shows_none_of(&rejected, "a rejected token", &["dapi-hush"]);
}

#[tokio::test]
async fn file_of_a_declared_vendor_is_downloaded_when_asked_for() {
    let (vendor, program) = databricks().await;
    let body = r#"{"run_id": 7, "state": {"life_cycle_state": "TERMINATED", "result_state": "SUCCESS"},
        "tasks": [{"task_key": "ingest", "run_id": 99}]}"#;
    let file = "GET /api/2.2/jobs/runs/get-output?run_id=99";
    vendor.answers(&run(7), 200, body);
    vendor.answers(file, 200, r#"{"notebook_output": {"result": "42"}}"#);
    let client = program.client();
    let status = get(&client, &job("dbx", "7")).await.unwrap();
    assert_eq!(status.artifacts[0].artifact_id, "output/ingest.json");
    assert!(vendor.seen(file).is_empty());
    let request = DownloadArtifactRequest {
        job: Some(job("dbx", "7")),
        artifact_id: "output/ingest.json".into(),
        ..DownloadArtifactRequest::default()
    };
    let mut stream = guard(client.clone().download_artifact(request)).await.unwrap().into_inner();
    let mut data = Vec::new();
    while let Some(message) = guard(stream.message()).await.unwrap() {
        data.extend_from_slice(&message.data);
    }
    assert_eq!(data, br#"{"notebook_output": {"result": "42"}}"#);
    assert_eq!(vendor.seen(file)[0].headers["authorization"], "Bearer dapi-hush");
}

#[tokio::test]
async fn jobs_of_a_batch_are_polled_in_one_request() {
    let vendor = Vendor::start().await;
    let request = "POST /admin/api/2026-07/graphql.json";
    let gid = |number: u32| format!("gid://shopify/BulkOperation/{number}");
    let node = |number: u32, word: &str| format!("{{\"id\": {:?}, \"status\": {word:?}}}", gid(number));
    vendor.answers(
        request,
        200,
        &format!("{{\"data\": {{\"nodes\": [{}, null, {}]}}}}", node(1, "RUNNING"), node(3, "COMPLETED")),
    );
    let url = &vendor.url;
    let program = serve(&format!(
        "collection_window = \"1s\"\n[backends.shop]\nvendor = \"shopify-bulk\"\nbase_url = {url:?}\n\
         credentials = {{ access_token = \"shpat-hush\" }}\n{POLL}"
    ))
    .await;
    let jobs = [1, 2, 3].map(|number| job("shop", &gid(number)));
    let results = batch(&program.client(), batch_request(jobs)).await.unwrap();
    let states: Vec<_> = results
        .iter()
        .map(|result| result.as_ref().map(jobwatch::proto::v1::JobStatus::state).ok())
        .collect();
    assert_eq!(states, [Some(JobState::Running), None, Some(JobState::Succeeded)]);
    let seen = vendor.seen(request);
    assert_eq!(seen[0].headers["x-shopify-access-token"], "shpat-hush");
    assert!([1, 2, 3].iter().all(|number| seen[0].body.contains(&gid(*number))), "{}", seen[0].body);
}

/// A definition of exports whose token comes from another origin.
fn exports(token_url: &str) -> String {
    format!(
        r#"
format = 1
name = "exports"
version = "1.0.0"
title = "Example exports"
docs = "https://api.example/docs"
[params]
team = {{ type = "text" }}
[id]
pattern = "{{export_id}}"
[credentials.oauth2]
token_url = "{token_url}/token"
[request]
path = "/v1/{{{{ params.team }}}}/exports/{{{{ id.export_id }}}}"
[status]
id = "job.id"
word = "job.phase"
[states]
RUNNING = ["working"]
SUCCEEDED = ["done"]
FAILED = ["broken"]
[[faults]]
status = 404
is = "not_found"
"#
    )
}

fn backend_of(file: &std::path::Path, vendor: &Vendor, more: &str) -> String {
    let (file, url) = (file.to_str().unwrap(), &vendor.url);
    format!(
        "[backends.exports]\nvendor_file = {file:?}\nbase_url = {url:?}\nparams = {{ team = \"a b\" }}\n\
         headers = {{ X-Tenant = \"t-hush\" }}\n\
         credentials = {{ client_id = \"me\", client_secret = \"s-hush\" }}\n{more}\n{POLL}\n"
    )
}

#[tokio::test]
async fn token_comes_from_another_origin_only_if_the_operator_allows_it() {
    let (vendor, login) = (Vendor::start().await, Vendor::start().await);
    let request = "GET /v1/a%20b/exports/e-1";
    vendor.answers(request, 200, r#"{"id": "e-1", "phase": "done"}"#);
    login.answers("POST /token", 200, r#"{"access_token": "tok-hush", "token_type": "Bearer"}"#);
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(exports(&login.url).as_bytes()).unwrap();

    let refused = check(&backend_of(file.path(), &vendor, "")).await;
    assert_eq!(refused.status.code(), Some(2));
    let text = String::from_utf8(refused.stderr).unwrap();
    assert!(
        text.contains(&format!("backends.exports.allow_origins does not hold {:?}", login.url)),
        "{text}"
    );

    let origins = format!("allow_origins = [{:?}]", login.url);
    let program = serve(&backend_of(file.path(), &vendor, &origins)).await;
    let status = get(&program.client(), &job("exports", "e-1")).await.unwrap();
    assert_eq!(status.state(), JobState::Succeeded);
    assert_eq!(vendor.seen(request)[0].headers["authorization"], "Bearer tok-hush");
    assert_eq!(vendor.seen(request)[0].headers["x-tenant"], "t-hush");
    let asked = &login.seen("POST /token")[0];
    assert!(asked.body.contains("client_secret=s-hush"), "{asked:?}");
    assert!(!asked.headers.contains_key("x-tenant"), "{asked:?}");
    assert!(vendor.seen("POST /token").is_empty());
}

#[tokio::test]
async fn definition_that_changed_is_taken_with_a_reload_and_a_bad_one_is_not() {
    let vendor = Vendor::start().await;
    vendor.answers("GET /v1/a%20b/exports/e-1", 200, r#"{"id": "e-1", "phase": "parked"}"#);
    vendor.answers("POST /token", 200, r#"{"access_token": "tok"}"#);
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("definition.toml");
    let definition = exports(&vendor.url);
    std::fs::write(&file, &definition).unwrap();
    let origins = format!("allow_origins = [{:?}]", vendor.url);
    let program = serve(&backend_of(&file, &vendor, &origins)).await;
    let client = program.client();
    let state = async || get(&client, &job("exports", "e-1")).await.unwrap().state();
    assert_eq!(state().await, JobState::Unspecified);

    let changed = definition.replace("[\"working\"]", "[\"working\", \"parked\"]");
    std::fs::write(&file, changed.replace("version = \"1.0.0\"", "version = \"1.1.0\"")).unwrap();
    program.signal("HUP").await;
    program.logged("configuration reloaded").await;
    assert_eq!(state().await, JobState::Running);
    let listed = guard(client.clone().list_backends(ListBackendsRequest::default())).await.unwrap();
    assert_eq!(listed.into_inner().backends[0].vendor_version, "1.1.0");

    std::fs::write(&file, definition.replace("SUCCEEDED", "SUCEEDED")).unwrap();
    program.signal("HUP").await;
    program.logged("did you mean SUCCEEDED?").await;
    assert_eq!(state().await, JobState::Running);
}

async fn check(backends: &str) -> Output {
    let mut file = NamedTempFile::new().unwrap();
    write!(file, "allow_inline_secrets = true\n{backends}").unwrap();
    jobwatch(&["check", "--config", file.path().to_str().unwrap()]).await
}

async fn jobwatch(args: &[&str]) -> Output {
    let mut command = Command::new(program::executable());
    command.args(args).env_clear().stdin(Stdio::null()).kill_on_drop(true);
    guard(command.output()).await.unwrap()
}

#[tokio::test]
async fn problems_of_a_declared_backend_name_their_keys() {
    let missing =
        check("[backends.x]\nvendor = \"dbt-cloud\"\nbase_url = \"https://x.example\"\ncolour = 1").await;
    assert_eq!(missing.status.code(), Some(2));
    let text = String::from_utf8(missing.stderr).unwrap();
    for problem in [
        "backends.x.colour is not a key here",
        "backends.x.credentials is missing; write { bearer = { env = \"NAME\" } }",
        "backends.x.params.account_id is missing; write account_id = .., an integer",
    ] {
        assert!(text.contains(problem), "{text}");
    }
    let unknown = check("[backends.x]\nvendor = \"databrick\"\nbase_url = \"https://x.example\"").await;
    let text = String::from_utf8(unknown.stderr).unwrap();
    assert!(text.contains("backends.x.vendor is \"databrick\"; did you mean databricks?"), "{text}");

    for (vendor, keys, about) in [
        (
            "dbt-cloud",
            "params = { account_id = 7 }\ncredentials = { bearer = \"t\" }",
            "dbt Cloud job runs 1.0.0 at https://x.example/, access token",
        ),
        (
            "elasticsearch-tasks",
            "credentials = { api_key = \"t\" }",
            "Elasticsearch tasks 1.0.0 at https://x.example/, API key",
        ),
    ] {
        let text = format!("[backends.x]\nvendor = {vendor:?}\nbase_url = \"https://x.example\"\n{keys}");
        let good = check(&text).await;
        let text = String::from_utf8(good.stdout).unwrap();
        assert!(good.status.success() && text.contains(about), "{text}");
    }
}

#[tokio::test]
async fn commands_for_definitions_list_show_check_and_test_them() {
    let text = |output: &Output| String::from_utf8(output.stdout.clone()).unwrap();
    let listed = jobwatch(&["vendor", "list"]).await;
    assert!(
        listed.status.success()
            && text(&listed).lines().any(|line| {
                line.split_whitespace().eq(["databricks", "1.0.0", "Databricks", "job", "runs"])
            })
    );
    let shown = text(&jobwatch(&["vendor", "show", "dbt-cloud"]).await);
    for part in [
        "account_id = .., an integer",
        "GET /api/v2/accounts/{params.account_id}/runs/{id.run_id}/",
        "SUCCEEDED  10",
    ] {
        assert!(shown.contains(part), "{shown}");
    }
    let source = text(&jobwatch(&["vendor", "show", "databricks", "--source"]).await);
    let folder = TempDir::new().unwrap();
    let (definition, cases) = (folder.path().join("definition.toml"), folder.path().join("cases.toml"));
    let path = folder.path().to_str().unwrap();
    std::fs::write(&definition, source.replace("SUCCEEDED", "SUCEEDED")).unwrap();
    let checked = jobwatch(&["vendor", "check", path]).await;
    assert_eq!(checked.status.code(), Some(1));
    let line = 1 + source.lines().position(|line| line.starts_with("SUCCEEDED")).unwrap();
    let problem =
        format!("{}:{line}:1: states.SUCEEDED is not a state; did you mean SUCCEEDED?", definition.display());
    assert!(text(&checked).contains(&problem), "{}", text(&checked));

    std::fs::write(&definition, &source).unwrap();
    let checked = jobwatch(&["vendor", "check", path]).await;
    assert!(checked.status.success() && text(&checked).contains("no problem found"));
    let body = r#"'{"run_id": 7, "state": {"life_cycle_state": "RUNNING"}}'"#;
    std::fs::write(
        &cases,
        format!("[[case]]\nname = \"a\"\nids = [\"7\"]\nbody = {body}\nexpect = {{ state = \"FAILED\" }}\n[untested]\n\"RUNNING/*\" = \"x\"\n\"NONE/*\" = \"x\"\n"),
    )
    .unwrap();
    let tested = jobwatch(&["vendor", "test", path]).await;
    assert_eq!(tested.status.code(), Some(1));
    let shown = text(&tested);
    let cases = cases.display();
    for part in [
        format!("{cases}:1: a: state is \"RUNNING\", expected \"FAILED\""),
        format!("{cases}: no case covers PENDING/*; add one, or write \"PENDING/*\" = \"why\" in [untested]"),
        format!("{cases}: no case covers faults[0]; add one"),
        format!("{cases}:7: untested.\"RUNNING/*\" has a case; remove it"),
        format!("{cases}:8: untested.\"NONE/*\" is no word, fault rule or file rule; remove it"),
        "databricks 1.0.0: 0 of 1 cases passed".to_owned(),
    ] {
        assert!(shown.contains(&part), "{part}\n{shown}");
    }
    let repository = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("vendors");
    let all = jobwatch(&["vendor", "test", repository.to_str().unwrap()]).await;
    assert!(all.status.success(), "{}", text(&all));
    // Not read whole, and refused.
    std::fs::File::create(&definition).unwrap().set_len(1 << 40).unwrap();
    let checked = jobwatch(&["vendor", "check", path]).await;
    assert_eq!(checked.status.code(), Some(1));
    assert!(text(&checked).contains("1:1: it is longer than 131072 bytes"), "{}", text(&checked));
    let nothing = jobwatch(&["vendor", "show", "nothing"]).await;
    assert_eq!(nothing.status.code(), Some(2));
}
