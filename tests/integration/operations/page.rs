//! The page at the admin address: its headers and bounds over plain HTTP, and what
//! Chromium shows.

use std::{fmt::Write, path::PathBuf, process::Stdio};

use jobwatch::simulators::{Plan, Simulator, Vendor};
use serde_json::Value;
use tokio::{process::Command, task::JoinHandle};

use super::{Admin, program_with};
use crate::{harness::*, program::Program};

/// Pages with live updates that may be open at once.
const PAGES: usize = 50;

/// A job that the simulator holds in its running state, and that is watched to its end.
async fn watched(simulator: &Simulator, client: &Client, id: &str) -> JoinHandle<()> {
    let plan = Plan { id: Some(id.to_owned()), ..Plan::fixed(running(simulator.vendor())) };
    let (_, mut watch) = watched_job(simulator, client, plan).await;
    tokio::spawn(async move { while let Ok(Some(_)) = watch.next().await {} })
}

async fn program(simulator: &Simulator) -> (Program, Admin) {
    program_with("", [Backend::of(simulator).every(ms(50))]).await
}

impl Admin {
    async fn response(&self, path: &str) -> reqwest::Response {
        guard(self.client.get(format!("{}{path}", self.url)).send()).await.unwrap()
    }

    /// Opens a page's events, and reads the first.
    async fn events(&self, path: &str) -> (reqwest::Response, Value) {
        let mut response = self.response(path).await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let event = event(&mut response).await;
        (response, event)
    }
}

/// The next event with data.
async fn event(response: &mut reqwest::Response) -> Value {
    let mut text = String::new();
    loop {
        let piece = guard(response.chunk()).await.unwrap().expect("the events go on");
        text.push_str(std::str::from_utf8(&piece).unwrap());
        if let Some((_, rest)) = text.split_once("data: ")
            && let Some((data, _)) = rest.split_once("\n\n")
        {
            return serde_json::from_str(data).unwrap();
        }
    }
}

/// The rows of one table that an event has.
fn rows<'a>(event: &'a Value, table: &str) -> &'a str {
    let found = event.as_array().unwrap().iter().find(|change| change["table"] == table);
    found.map_or("", |change| change["rows"].as_str().unwrap())
}

#[tokio::test]
async fn every_response_of_the_admin_address_has_the_headers_of_a_page() {
    let simulator = simulator(Vendor::Immuta).await;
    let (program, admin) = program(&simulator).await;
    let _watch = watched(&simulator, &program.client(), "one").await;
    for (path, code, content_type) in [
        ("/", 200, "text/html; charset=utf-8"),
        ("/jobs/immuta/one", 200, "text/html; charset=utf-8"),
        ("/jobs/immuta/none", 404, "text/html; charset=utf-8"),
        ("/?show=x", 400, "text/html; charset=utf-8"),
        ("/events", 200, "text/event-stream"),
        ("/assets/style.css", 200, "text/css; charset=utf-8"),
        ("/assets/script.js", 200, "text/javascript; charset=utf-8"),
        ("/assets/icon.svg", 200, "image/svg+xml"),
        ("/readyz", 200, "application/json"),
    ] {
        let response = admin.response(path).await;
        assert_eq!(response.status().as_u16(), code, "{path}");
        let headers = response.headers();
        assert_eq!(headers["content-type"], content_type, "{path}");
        let policy = headers["content-security-policy"].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'; script-src 'self'; style-src 'self';"), "{policy}");
        assert!(!policy.contains("unsafe") && policy.contains("frame-ancestors 'none'"), "{policy}");
        assert_eq!(headers["x-content-type-options"], "nosniff", "{path}");
        assert_eq!(headers["referrer-policy"], "no-referrer", "{path}");
        assert_eq!(headers["cross-origin-resource-policy"], "same-origin", "{path}");
        assert!(!headers.contains_key("access-control-allow-origin"), "{path}");
    }
    for path in ["/", "/jobs/immuta/one"] {
        let request = admin.client.post(format!("{}{path}", admin.url)).send();
        assert_eq!(guard(request).await.unwrap().status(), 405, "the page changes nothing");
    }
}

#[tokio::test]
async fn page_under_another_sites_name_is_refused_and_probes_are_not() {
    let simulator = simulator(Vendor::Immuta).await;
    let (_program, admin) = program(&simulator).await;
    let get = async |path: &str, host: &str| {
        let request = admin.client.get(format!("{}{path}", admin.url)).header("host", host);
        let response = guard(request.send()).await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    };
    for path in ["/", "/jobs/immuta/one", "/events", "/assets/script.js", "/log-level"] {
        let (code, text) = get(path, "rebound.example:9090").await;
        let wanted = "\"rebound.example\" is not a name of this address; open it by its IP address or as \
                      localhost, or add the name to admin.hosts\n";
        assert_eq!((code, &*text), (421, wanted), "{path}");
    }
    for path in ["/livez", "/readyz", "/metrics"] {
        assert_eq!(get(path, "jobwatch.monitoring.svc:9090").await.0, 200, "{path}");
    }
    let request = admin.client.put(format!("{}/log-level", admin.url)).header("host", "rebound.example");
    assert_eq!(guard(request.body("debug").send()).await.unwrap().status(), 421);

    let listed = "hosts = [\"jobwatch.internal\"]";
    let (_program, admin) = program_with(listed, [Backend::of(&simulator)]).await;
    let request = admin.client.get(format!("{}/", admin.url)).header("host", "jobwatch.internal:9090");
    assert_eq!(guard(request.send()).await.unwrap().status(), 200);
}

#[tokio::test]
async fn page_escapes_what_callers_and_vendors_say() {
    let simulator = simulator(Vendor::Immuta).await;
    let (program, admin) = program(&simulator).await;
    let client = program.client();
    let _one = watched(&simulator, &client, "<script>alert(1)</script>").await;
    let _two = watched(&simulator, &client, "' onmouseover='alert(1)\u{202e}").await;
    let (_, page) = admin.get("/?q=%22%3E%3Cscript%3Ealert(2)").await;
    assert!(!page.contains("<script>alert"), "{page}");
    assert!(page.contains("value=\"&quot;&gt;&lt;script&gt;alert(2)\""), "{page}");
    let (_, page) = admin.get("/").await;
    assert!(!page.contains("<script>alert") && !page.contains('\u{202e}'), "{page}");
    assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;"), "{page}");
    assert!(page.contains("href=\"/jobs/immuta/%3Cscript%3Ealert%281%29%3C%2Fscript%3E\""), "{page}");
    assert!(page.contains("href=\"/jobs/immuta/%27%20onmouseover%3D%27alert%281%29%E2%80%AE\""), "{page}");
    let (code, page) = admin.get("/jobs/immuta/%3Cscript%3Ealert%281%29%3C%2Fscript%3E").await;
    assert!(code == 200 && !page.contains("<script>alert"), "{page}");
    let (code, page) = admin.get("/jobs/immuta/%FF").await;
    assert!(code == 400 && !page.contains("<html"), "{page}");
}

#[tokio::test]
async fn bad_search_is_an_error_that_says_what_to_write() {
    let simulator = simulator(Vendor::Immuta).await;
    let (_program, admin) = program(&simulator).await;
    for (query, text) in [
        ("show=none".to_owned(), "show can't be used; write all, failing or quarantined"),
        ("from=1".to_owned(), "from is not one of a link of this page; leave it out to begin anew"),
        (format!("q={}", "x".repeat(513)), "q is longer than 512 bytes; write a part of a job's id or tag"),
    ] {
        let (code, page) = admin.get(&format!("/?{query}")).await;
        assert!(code == 400 && page.contains(text), "{page}");
    }
}

#[tokio::test]
async fn events_have_rows_that_changed_and_nothing_else() {
    let simulator = simulator(Vendor::Immuta).await;
    let (program, admin) = program_with("", [Backend::of(&simulator).every(ms(50))]).await;
    let client = program.client();
    let _one = watched(&simulator, &client, "one").await;
    let (_, first) = admin.events("/events/immuta?id=one").await;
    assert!(rows(&first, "facts").contains("running") && rows(&first, "history").contains("running"));
    let (mut overview, first) = admin.events("/events?q=ONE").await;
    assert!(
        rows(&first, "backends").contains("healthy") && rows(&first, "jobs").contains("/jobs/immuta/one")
    );
    assert!(rows(&first, "recent").contains("Nothing has ended"));
    let _two = watched(&simulator, &client, "two").await;
    simulator.finish("one");
    let seen = async {
        loop {
            let event = event(&mut overview).await;
            assert!(!rows(&event, "jobs").contains("/jobs/immuta/two"), "the page searches for another job");
            if rows(&event, "recent").contains("succeeded") {
                return;
            }
        }
    };
    guard(seen).await;
}

#[tokio::test]
async fn live_pages_beyond_the_limit_are_refused_until_one_is_closed() {
    let simulator = simulator(Vendor::Immuta).await;
    let (_program, admin) = program(&simulator).await;
    let mut pages = Vec::new();
    for _ in 0..PAGES {
        pages.push(admin.events("/events").await);
    }
    let refused = admin.response("/events").await;
    assert_eq!((refused.status().as_u16(), &refused.headers()["retry-after"]), (503, &"10".parse().unwrap()));
    let text = refused.text().await.unwrap();
    assert!(text.starts_with("50 pages with live updates are open, and no more may be; close one"), "{text}");
    assert_eq!(admin.get("/").await.0, 200, "the page itself is served");
    assert_eq!(admin.get("/livez").await.0, 200);
    pages.pop();
    let reopened = async { while admin.response("/events").await.status() != 200 {} };
    guard(reopened).await;
}

#[tokio::test]
async fn page_of_many_jobs_has_few_rows() {
    let simulator = simulator(Vendor::Immuta).await;
    let (program, admin) = program(&simulator).await;
    let client = program.client();
    let mut watches = Vec::new();
    for number in 0..120 {
        watches.push(watched(&simulator, &client, &format!("many-{number}")).await);
    }
    let (_, page) = admin.get("/").await;
    assert_eq!(page.matches("href=\"/jobs/").count(), 50);
    let (_, found) = admin.get("/?q=many-119").await;
    assert_eq!(found.matches("href=\"/jobs/").count(), 1);
    let (_, event) = admin.events("/events").await;
    assert_eq!(rows(&event, "jobs").matches("href=\"/jobs/").count(), 50);
}

/// A path below `.tools/node`.
fn node(path: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(".tools/node").join(path);
    assert!(path.exists(), "{} is missing: run `make tools`", path.display());
    path
}

#[tokio::test]
async fn page_works_in_chromium() {
    let (browser, script) =
        (node("chromium"), PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/clients/page.mjs"));
    let pictures = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("page");
    std::fs::create_dir_all(&pictures).unwrap();
    let immuta = simulator(Vendor::Immuta).await;
    let backends = [Backend::of(&immuta).every(ms(50)), Backend::dead(Vendor::Claret).await];
    let (program, admin) = program_with("", backends).await;
    let client = program.client();
    let mut watches = Vec::new();
    let hostile = "\"><img src=x onerror=alert(1)>/../a?b#c%2F";
    for id in ["live-job", "paused-job", hostile, "invoice\u{202e}gnp.exe", ".."] {
        watches.push(watched(&immuta, &client, id).await);
    }
    for number in 0..60 {
        watches.push(watched(&immuta, &client, &format!("many-{number}")).await);
    }
    let mut failing = Watch::of(&client, &job("claret", "7")).await;
    failing.interruption().await;
    let mut command = Command::new("node");
    command.arg(script).args([&admin.url, &immuta.base_url()]).args([&browser, &pictures]);
    for name in ["http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
        command.env_remove(name);
    }
    command.stdin(Stdio::null()).kill_on_drop(true);
    let patience = std::time::Duration::from_mins(5);
    let output = tokio::time::timeout(patience, command.output()).await.expect("the browser ends").unwrap();
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    let _ = write!(text, "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && text.contains("all good\n"), "{text}");
}
