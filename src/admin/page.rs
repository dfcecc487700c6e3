//! The page for people: backends, their jobs, recent ends and errors, and one job with its
//! history. It changes nothing.
//!
//! | path | response |
//! | --- | --- |
//! | `GET /?q=TEXT&backend=NAME&show=failing` | the overview, with the jobs that were searched for |
//! | `GET /jobs/BACKEND/ID?tag=TAG` | one job |
//! | `GET /events` and the same below `/jobs/` | server-sent events with the rows that changed |
//! | `GET /assets/NAME` | the style sheet, the script, the icon |
//!
//! The server renders everything, so the page works without its script, which only puts
//! changed rows in place.

use axum::{
    Router,
    extract::{Path, Query, State},
    response::{Html, IntoResponse, Response},
    routing::get,
};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use jiff::Timestamp;
use maud::{DOCTYPE, Markup, html};
use serde::Deserialize;

use super::Admin;
use crate::{
    engine::{JobDetail, JobStatuses},
    job::JobRef,
    telemetry::build,
};

mod live;
mod replicas;
mod search;
mod show;
mod table;
mod text;

pub use live::Live;

use search::{Found, Search};
use table::Table;
use text::{encoded, job_href, shown};

/// What the page may load and do: nothing from elsewhere, and no script or style in the
/// HTML.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
                                       connect-src 'self'; base-uri 'none'; form-action 'self'; \
                                       frame-ancestors 'none'";

const SCRIPT: &str = include_str!("page/script.js");
const STYLE: &str = include_str!("page/style.css");
const ICON: &str = include_str!("page/icon.svg");

/// The routes of the page.
pub(super) fn routes() -> Router<Admin> {
    Router::new()
        .route("/", get(overview))
        .route("/events", get(live::overview))
        .route("/jobs/{backend}", get(job_by_query))
        .route("/jobs/{backend}/{id}", get(job))
        .route("/events/{backend}", get(live::job))
        .route("/assets/style.css", get(async || asset("text/css; charset=utf-8", STYLE)))
        .route("/assets/script.js", get(async || asset("text/javascript; charset=utf-8", SCRIPT)))
        .route("/assets/icon.svg", get(async || asset("image/svg+xml", ICON)))
}

fn asset(content_type: &'static str, text: &'static str) -> Response {
    ([(header::CONTENT_TYPE, content_type)], text).into_response()
}

/// Adds the headers that keep a browser from treating a response as anything else, or from
/// showing it to another site.
pub(super) fn protect(headers: &mut HeaderMap) {
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (header::HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (header::CACHE_CONTROL, "no-store"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

/// Which job, where the path does not say it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Name {
    id: String,
    tag: String,
}

impl Name {
    fn of(self, backend: String) -> JobRef {
        let Self { id, tag } = self;
        let job = JobRef::new(backend, id);
        if tag.is_empty() { job } else { job.with_tag(tag) }
    }
}

async fn overview(State(admin): State<Admin>, Query(search): Query<Search>) -> Response {
    match search.run(&admin.engine).await {
        Ok(found) => Html(overview_page(&admin, &search, &found).into_string()).into_response(),
        Err(why) => {
            let page = error_page(&admin, "This search can't be read", &why);
            (StatusCode::BAD_REQUEST, Html(page.into_string())).into_response()
        }
    }
}

async fn job(
    state: State<Admin>,
    Path((backend, id)): Path<(String, String)>,
    Query(name): Query<Name>,
) -> Response {
    job_response(&state, &Name { id, ..name }.of(backend))
}

async fn job_by_query(
    state: State<Admin>,
    Path(backend): Path<String>,
    Query(name): Query<Name>,
) -> Response {
    job_response(&state, &name.of(backend))
}

fn job_response(admin: &Admin, job: &JobRef) -> Response {
    let Some(detail) = admin.engine.job_detail(job) else {
        let known = admin.engine.backend_name(&job.backend).is_some();
        let why = if known {
            "No call or watch is subscribed to this job, and it has not ended in the last minutes."
        } else {
            "No backend has this name."
        };
        let page = error_page(admin, "This job is not known here", why);
        return (StatusCode::NOT_FOUND, Html(page.into_string())).into_response();
    };
    Html(job_page(admin, job, &detail).into_string()).into_response()
}

/// The tables of the overview.
struct Overview {
    backends: Table,
    /// With `[cluster]`.
    replicas: Option<Table>,
    jobs: Table,
    recent: Table,
}

/// What both the page and its events show of the overview.
fn overview_tables(admin: &Admin, search: &Search, found: &Found, now: Timestamp) -> Overview {
    Overview {
        backends: show::backends(&admin.engine.backends(), now),
        replicas: admin.replica.as_ref().map(|replica| replicas::table(&replica.status(), now)),
        jobs: show::jobs(&found.jobs, search, now),
        recent: show::recent(&admin.engine, now),
    }
}

/// The same of a job.
fn job_tables(job: &JobRef, detail: &JobDetail, now: Timestamp) -> [Table; 2] {
    [show::facts(job, detail, now), show::history(&detail.history, now)]
}

fn overview_page(admin: &Admin, search: &Search, found: &Found) -> Markup {
    let now = Timestamp::now();
    let Overview { backends, replicas: _, jobs, recent } = overview_tables(admin, search, found, now);
    let names = admin.engine.backend_names();
    let events = format!("/events{}", search.query(&search.from));
    let content = html! {
        section aria-labelledby="backends-title" {
            h2 id="backends-title" { "Backends" }
            (backends.html("Backends with their health, lag and rate", &show::BACKENDS))
        }
        @if let Some(replica) = &admin.replica { (replicas::section(&replica.status(), now)) }
        section aria-labelledby="jobs-title" {
            h2 id="jobs-title" tabindex="-1" { "Jobs" }
            form action="/#jobs-title" method="get" role="search" {
                div {
                    label for="q" { "Part of the id or tag" }
                    input id="q" name="q" type="search" value=(search.q) maxlength="512" autocomplete="off" spellcheck="false";
                }
                div {
                    label for="backend" { "Backend" }
                    select id="backend" name="backend" {
                        option value="" { "all" }
                        @for name in &names { option value=(name) selected[**name == *search.backend] { (shown(name)) } }
                    }
                }
                div {
                    label for="show" { "Show" }
                    select id="show" name="show" {
                        @for (value, text) in [("", "all"), ("failing", "failing"), ("quarantined", "quarantined")] {
                            option value=(value) selected[value == search.show] { (text) }
                        }
                    }
                }
                button type="submit" { "Search" }
                @if !search.is_empty() { a href="/#jobs-title" { "All jobs" } }
            }
            (jobs.html("Jobs with their state, progress and polls", &show::JOBS))
            nav aria-label="Pages of jobs" {
                @if !search.from.is_empty() { a href={ "/" (search.query("")) "#jobs-title" } { "First page" } " " }
                @if let Some(next) = &found.next {
                    a href={ "/" (search.query(next)) "#jobs-title" } rel="next" { "Next page" }
                }
            }
        }
        section aria-labelledby="recent-title" {
            h2 id="recent-title" { "Recent ends and errors" }
            (recent.html("Recent ends and errors, the newest first", &show::RECENT))
        }
    };
    let href = format!("/{}", search.query(&search.from));
    layout(admin, "Overview", Some(&events), &href, &content)
}

fn job_page(admin: &Admin, job: &JobRef, detail: &JobDetail) -> Markup {
    let [facts, history] = job_tables(job, detail, Timestamp::now());
    let mut events = format!("/events/{}?id={}", encoded(&job.backend), encoded(&job.id));
    if let Some(tag) = &job.tag {
        events = format!("{events}&tag={}", encoded(tag));
    }
    let content = html! {
        nav aria-label="Breadcrumb" { a href="/" { "Overview" } }
        h2 { "Job " bdi { (shown(&job.id)) } " at " bdi { (shown(&job.backend)) } }
        @if let Some(tag) = &job.tag { p { "Tag " bdi { (shown(tag)) } } }
        section aria-labelledby="facts-title" {
            h3 id="facts-title" { "Status" }
            (facts.html("What is known of the job", &show::FACTS))
        }
        section aria-labelledby="history-title" {
            h3 id="history-title" { "History" }
            (history.html("States of the job, the newest first", &show::HISTORY))
        }
    };
    let title = format!("{} at {}", shown(&job.id), shown(&job.backend));
    layout(admin, &title, Some(&events), &job_href(job), &content)
}

fn error_page(admin: &Admin, title: &str, why: &str) -> Markup {
    let content = html! {
        nav aria-label="Breadcrumb" { a href="/" { "Overview" } }
        h2 { (title) }
        p { (why) }
    };
    layout(admin, title, None, "/", &content)
}

/// What all pages have. `events` is where the script gets changes, `href` the page itself.
fn layout(admin: &Admin, title: &str, events: Option<&str>, href: &str, content: &Markup) -> Markup {
    let phase = admin.readiness.get().to_string();
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="robots" content="noindex";
                title { (title) " · jobwatch" }
                link rel="icon" href="/assets/icon.svg" type="image/svg+xml";
                link rel="stylesheet" href="/assets/style.css";
                script src="/assets/script.js" defer {}
            }
            body data-events=[events] data-now=(Timestamp::now()) {
                a class="skip" href="#content" { "Skip to the content" }
                header {
                    h1 { a href="/" { "jobwatch" } }
                    p { "Server " strong { (phase) } ", version " (build::VERSION) ". Times are UTC." }
                    p class="controls" {
                        a href=(href) { "Refresh" }
                        @if events.is_some() {
                            button type="button" id="pause" hidden { "Pause updates" }
                            span id="live" role="status" {}
                        }
                    }
                }
                main id="content" tabindex="-1" { (content) }
                p id="news" class="hidden" role="status" {}
            }
        }
    }
}
