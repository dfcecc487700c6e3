//! A simulated vendor, asked with the adapter of its definition.

use super::*;
use crate::vendors::declared::{SHIPPED, Shipped};

const BASE: &str = "http://127.0.0.1:1";

fn lives() -> Lives {
    Lives { queued: Duration::from_secs(2), running: Duration::from_secs(4), end: None, jobs: Vec::new() }
}

fn simulation(name: &str, lives: Lives) -> Simulation {
    let shipped = Shipped::find(name).unwrap();
    let definition = Definition::parse(shipped.definition).unwrap();
    Simulation::new(definition, shipped.cases, &BASE.parse().unwrap(), lives).unwrap()
}

#[test]
fn job_in_a_text_that_holds_json_runs_and_succeeds() {
    const TEXT: &str = r#"
        format = 1
        name = "t"
        version = "1.0.0"
        title = "T"
        docs = "d"
        [id]
        pattern = "{a}"
        [credentials.none]
        [request]
        path = "/j/{{ id.a }}"
        [batch]
        path = "/j"
        query = { ids = "{{ ids | map(attribute='a') | join(',') }}" }
        jobs = "(body.text | json).jobs"
        [answer]
        job = "(body.text | json).job"
        [status]
        id = "job.id"
        word = "job.s"
        [states]
        RUNNING = ["run"]
        SUCCEEDED = ["ok"]
        FAILED = ["bad"]
        [[faults]]
        status = 404
        is = "not_found"
    "#;
    const CASES: &str = r#"
        base_url = "https://t.example"
        [[case]]
        ids = ["j-1000"]
        body = '{"text": "{\"job\": {\"id\": \"j-1000\", \"s\": \"ok\"}}"}'
        expect = { state = "SUCCEEDED" }
    "#;
    let definition = Definition::parse(TEXT).unwrap();
    let lives = Lives { end: Some("SUCCEEDED".to_owned()), ..lives() };
    let mut vendor = Simulation::new(definition, CASES, &BASE.parse().unwrap(), lives).unwrap();
    // Without a word for PENDING no job waits.
    assert_eq!(vendor.times(), [("runs", Duration::from_secs(4))]);
    assert_eq!(state(&mut vendor, "j-2000", 100), JobState::Running);
    assert_eq!(state(&mut vendor, "j-2000", 103), JobState::Running);
    assert_eq!(state(&mut vendor, "j-2000", 104), JobState::Succeeded);
    let jobs = ["j-2000", "j-3000"].map(|id| JobRef::new("simulated", id));
    let request = request(&vendor, &jobs);
    let simulated = vendor.answer(&request, Duration::from_secs(108));
    let elements = vendor.adapter.split(&jobs, &simulated.response).unwrap();
    assert!(elements.as_slice().iter().all(Result::is_ok), "{elements:?}: {}", simulated.note);
}

/// What the gateway would send, with credentials of the first way.
fn request(simulation: &Simulation, jobs: &[JobRef]) -> Request<Bytes> {
    let mut request = simulation.adapter.request(jobs);
    if let Some(way) = simulation.ways.first() {
        way.sign(&mut request);
    }
    request
}

fn state(simulation: &mut Simulation, id: &str, seconds: u64) -> JobState {
    let jobs = [JobRef::new("simulated", id)];
    let request = request(simulation, &jobs);
    let simulated = simulation.answer(&request, Duration::from_secs(seconds));
    let elements = simulation.adapter.split(&jobs, &simulated.response);
    let elements = elements.unwrap_or_else(|fault| panic!("{id}: {fault:?}: {}", simulated.note));
    let element = elements.as_slice()[0].as_ref().unwrap_or_else(|fault| panic!("{id}: {fault:?}"));
    simulation.adapter.observe(&jobs[0], element).unwrap_or_else(|fault| panic!("{id}: {fault:?}")).state
}

/// An id of the definition that is in no case.
fn another_id(simulation: &Simulation) -> String {
    let example = simulation.example_id();
    let other: String =
        example.chars().map(|c| if c.is_ascii_digit() { '7' } else { c }).chain(['7']).collect();
    let fits = simulation.adapter.check(&JobRef::new("simulated", &*other)).is_ok();
    if fits { other } else { example.to_owned() }
}

#[test]
fn job_of_every_shipped_definition_runs_and_succeeds() {
    for shipped in SHIPPED {
        let lives = Lives { end: Some("SUCCEEDED".to_owned()), ..lives() };
        let mut vendor = simulation(shipped.name, lives.clone());
        let id = another_id(&vendor);
        let asked = request(&vendor, &[JobRef::new("simulated", id.as_str())]);
        // An id that can't be read back from its request has to be named.
        if vendor.jobs(&sign_in::without_credentials(&vendor.ways, &asked)).is_none() {
            vendor = simulation(shipped.name, Lives { jobs: vec![id.clone()], ..lives });
        }
        let first = state(&mut vendor, &id, 100);
        assert!(!first.is_terminal(), "{}: {first:?}", shipped.name);
        let last = state(&mut vendor, &id, 107);
        assert_eq!(last, JobState::Succeeded, "{}: {:?}", shipped.name, vendor.words());
    }
}

#[test]
fn job_goes_through_waiting_and_running_to_its_end() {
    use JobState::{Pending, Running, Succeeded};

    let mut airflow = simulation("airflow", lives());
    let states: Vec<JobState> = (10..18).map(|second| state(&mut airflow, "etl/run", second)).collect();
    assert_eq!(states, [Pending, Pending, Running, Running, Running, Running, Succeeded, Succeeded]);
    assert_eq!(airflow.words()[0], ("PENDING", "queued".to_owned()));
}

#[test]
fn jobs_end_in_turn_with_each_end_of_the_cases() {
    let mut airflow = simulation("airflow", lives());
    for (id, end) in [("a/1", JobState::Succeeded), ("a/2", JobState::Failed), ("a/3", JobState::Succeeded)] {
        state(&mut airflow, id, 0);
        assert_eq!(state(&mut airflow, id, 9), end, "{id}");
    }
    let shipped = Shipped::find("airflow").unwrap();
    let definition = Definition::parse(shipped.definition).unwrap();
    let expired = Lives { end: Some("EXPIRED".to_owned()), ..lives() };
    let refused = Simulation::new(definition, shipped.cases, &BASE.parse().unwrap(), expired).unwrap_err();
    assert_eq!(refused, "EXPIRED is no end that the cases have; write one of SUCCEEDED, FAILED");
}

#[test]
fn job_that_is_not_listed_gets_the_answer_of_the_not_found_case() {
    let mut airflow = simulation("airflow", Lives { jobs: vec!["etl/a".to_owned()], ..lives() });
    assert_eq!(state(&mut airflow, "etl/a", 0), JobState::Pending);
    let jobs = [JobRef::new("simulated", "etl/b")];
    let request = request(&airflow, &jobs);
    let simulated = airflow.answer(&request, Duration::ZERO);
    assert_eq!(simulated.note, "etl/b: no such job");
    let elements = airflow.adapter.split(&jobs, &simulated.response).unwrap();
    assert_eq!(elements.as_slice(), [Err(JobFault::NotFound)]);
    assert!(String::from_utf8_lossy(simulated.response.body()).contains("was not found"));
}

#[test]
fn batch_has_each_job_that_exists() {
    let ids = [
        "gid://shopify/BulkOperation/11",
        "gid://shopify/BulkOperation/12",
        "gid://shopify/BulkOperation/13",
    ];
    let listed = ids[..2].iter().map(|id| (*id).to_owned()).collect();
    let mut shopify = simulation("shopify-bulk", Lives { jobs: listed, ..lives() });
    let jobs = ids.map(|id| JobRef::new("simulated", id));
    let request = request(&shopify, &jobs);
    let simulated = shopify.answer(&request, Duration::from_secs(3));
    let elements = shopify.adapter.split(&jobs, &simulated.response).unwrap();
    for (job, element) in jobs.iter().zip(elements.as_slice()).take(2) {
        let seen = shopify.adapter.observe(job, element.as_ref().unwrap()).unwrap();
        assert_eq!(seen.state, JobState::Pending, "{}", simulated.note);
    }
    assert_eq!(elements.as_slice()[2], Err(JobFault::NotFound));
}

#[test]
fn other_credentials_are_refused_with_401() {
    for shipped in SHIPPED {
        // One that needs none accepts any.
        if shipped.definition.contains("[credentials.none]") {
            continue;
        }
        let mut simulation = simulation(shipped.name, lives());
        let jobs = [JobRef::new("simulated", simulation.example_id())];
        let request = simulation.adapter.request(&jobs);
        let simulated = simulation.answer(&request, Duration::ZERO);
        assert_eq!(simulated.response.status(), StatusCode::UNAUTHORIZED, "{}", shipped.name);
        assert_eq!(simulated.note, "other credentials: refused");
    }
}

#[test]
fn token_is_given_for_the_right_secret_only() {
    let mut airflow = simulation("airflow", lives());
    let way = airflow.ways.iter().find(|way| way.written.contains("password")).unwrap();
    assert_eq!(way.written, "{ username = \"simulated\", password = \"simulated-secret\" }");
    let mut request = Request::new(Bytes::from(r#"{"password":"simulated-secret","username":"simulated"}"#));
    *request.method_mut() = http::Method::POST;
    *request.uri_mut() = "/auth/token".parse().unwrap();
    let given = airflow.answer(&request, Duration::ZERO);
    assert_eq!(given.note, "a token");
    assert_eq!(given.response.body(), r#"{"access_token":"simulated-token"}"#);
    *request.body_mut() = Bytes::from(r#"{"password":"x","username":"simulated"}"#);
    let refused = airflow.answer(&request, Duration::ZERO);
    assert_eq!(refused.response.status(), 400);
}

#[test]
fn other_request_is_answered_with_404() {
    let mut airflow = simulation("airflow", lives());
    for target in ["/", "/api/v2/dags/a", "/api/v2/dags/a/dagRuns/b?x=1"] {
        let mut request = Request::new(Bytes::new());
        *request.uri_mut() = target.parse().unwrap();
        let simulated = airflow.answer(&request, Duration::ZERO);
        assert_eq!(simulated.note, "no request of the definition; answered with 404", "{target}");
    }
}

#[test]
fn word_without_a_case_is_simulated_too() {
    let definition = include_str!("tests/exports.toml");
    let cases = include_str!("tests/exports-cases.toml");
    let definition = Definition::parse(definition).unwrap();
    let mut exports = Simulation::new(definition, cases, &BASE.parse().unwrap(), lives()).unwrap();
    let words: Vec<String> = exports.words().into_iter().map(|(_, word)| word).collect();
    assert_eq!(words, ["waiting", "working", "done", "broken"]);
    let states: Vec<JobState> =
        [0, 3, 9].into_iter().map(|second| state(&mut exports, "e-44", second)).collect();
    assert_eq!(states, [JobState::Pending, JobState::Running, JobState::Succeeded]);
}

#[test]
fn id_with_characters_that_need_no_escape_is_found_in_both_spellings() {
    let mut airflow = simulation("airflow", lives());
    let Some(way) = airflow.ways.iter().find(|way| way.written.contains("bearer")) else { panic!() };
    let secret = format!("Bearer {SECRET}");
    assert!(way.written.contains(SECRET));
    for run in ["it's*(1)!", "it%27s%2A%281%29%21", "it%27s*(1)%21", "a:b@c&d=e+f$g"] {
        let mut request = Request::new(Bytes::new());
        *request.uri_mut() = format!("/api/v2/dags/etl/dagRuns/{run}").parse().unwrap();
        request.headers_mut().insert("authorization", secret.parse().unwrap());
        let simulated = airflow.answer(&request, Duration::ZERO);
        let id = percent_encoding::percent_decode_str(run).decode_utf8().unwrap();
        assert_eq!(simulated.note, format!("etl/{id}: PENDING (queued)"), "{run}");
    }
}

/// The files that a gateway would have of a job that has succeeded, each with its content.
fn files_of(name: &str) -> Vec<(String, Response<Bytes>)> {
    let text = Shipped::find(name).unwrap().definition;
    let text = relocated(text).map_or(text.to_owned(), |(text, _)| text);
    let definition = Definition::parse(&text).unwrap();
    let lives = Lives {
        end: Some("SUCCEEDED".to_owned()),
        queued: Duration::ZERO,
        running: Duration::ZERO,
        ..lives()
    };
    let cases = Shipped::find(name).unwrap().cases;
    let mut vendor = Simulation::new(definition, cases, &BASE.parse().unwrap(), lives).unwrap();
    let jobs = [JobRef::new("simulated", vendor.example_id())];
    let polled = request(&vendor, &jobs);
    let answer = vendor.answer(&polled, Duration::from_secs(9)).response;
    let elements = vendor.adapter.split(&jobs, &answer).unwrap();
    let seen = vendor.adapter.observe(&jobs[0], elements.as_slice()[0].as_ref().unwrap()).unwrap();
    let mut found = Vec::new();
    for file in seen.artifacts {
        let location = format!("{}{}", file.vendor_uri, file.query.0);
        // No file is at another origin.
        let mut request = crate::vendors::declared::files::request(&vendor.adapter.base_url, &location)
            .unwrap_or_else(|refused| panic!("{name}: {location}: {refused:?}"));
        let without = vendor.answer(&request, Duration::from_secs(9));
        if let Some(way) = vendor.ways.first() {
            way.sign(&mut request);
        }
        let simulated = vendor.answer(&request, Duration::from_secs(9));
        assert_eq!(simulated.note, format!("the file {}", file.file_name), "{name}");
        let is_open = location.starts_with("/_files/")
            || vendor.ways.iter().any(|way| way.accepts(&Request::new(Bytes::new())));
        assert_eq!(without.response.status() == 200, is_open, "{name}: {location}: {}", without.note);
        found.push((file.file_name, simulated.response));
    }
    found
}

#[test]
fn files_of_every_shipped_definition_are_served() {
    let mut count = 0;
    for shipped in SHIPPED {
        for (name, response) in files_of(shipped.name) {
            assert_eq!(response.status(), 200, "{}: {name}", shipped.name);
            assert!(!response.body().is_empty(), "{}: {name}", shipped.name);
            count += 1;
        }
    }
    assert!(count > 10, "{count}");
    let shop = files_of("shopify-bulk");
    assert!(shop[0].0.split('.').next_back() == Some("jsonl"), "{shop:?}");
    assert_eq!(shop[0].1.headers()["content-type"], "application/x-ndjson");
}

#[test]
fn tokens_of_another_origin_are_given_at_the_own_one() {
    let shipped = Shipped::find("power-bi").unwrap();
    let (text, _) = relocated(shipped.definition).unwrap();
    let definition = Definition::parse(&text).unwrap();
    let mut vendor = Simulation::new(definition, shipped.cases, &BASE.parse().unwrap(), lives()).unwrap();
    let way = vendor.ways.iter().find(|way| way.written.contains("client_secret")).unwrap();
    assert_eq!(way.written, "{ client_id = \"simulated\", client_secret = \"simulated-secret\" }");
    let (asked, _) = way.exchange.clone().unwrap();
    assert!(asked.uri().path().ends_with("/oauth2/v2.0/token"), "{asked:?}");
    assert_eq!(vendor.answer(&asked, Duration::ZERO).note, "a token");
}

#[test]
fn token_that_an_expression_makes_is_given_and_accepted() {
    let shipped = Shipped::find("looker").unwrap();
    let text = shipped.definition.replace("\"body.access_token\"", "\"'_x' ~ body.access_token\"");
    let text = text.replace("[credentials.bearer]                     # an access token\n", "");
    assert!(text.contains("'_x'"));
    let definition = Definition::parse(&text).unwrap();
    let mut vendor = Simulation::new(definition, shipped.cases, &BASE.parse().unwrap(), lives()).unwrap();
    let way = &vendor.ways[0];
    assert_eq!(way.written, "{ client_id = \"simulated\", client_secret = \"simulated-secret\" }");
    let (asked, _) = way.exchange.clone().unwrap();
    let mut request = http::Request::new(bytes::Bytes::new());
    way.sign(&mut request);
    assert_eq!(request.headers()["authorization"], "Bearer _xsimulated-token");
    assert!(vendor.ways[0].accepts(&request));
    assert_eq!(vendor.answer(&asked, Duration::ZERO).note, "a token");
}
