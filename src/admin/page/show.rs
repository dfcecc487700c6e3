//! What the tables show of backends, jobs and recent events.

use jiff::{Timestamp, ToSpan};
use maud::{Markup, html};

use super::{
    search::Search,
    table::{Cell, Row, Table},
    text::{job_href, shown, vendor_href},
};
use crate::{
    admin::name_of,
    engine::{
        BackendReport, Circuit, Engine, FoundJob, Health, JobDetail, JobHistory, JobReport, Phase, Recent,
        RecentEvent, Report,
    },
    job::{JobRef, JobState},
    proto::v1 as pb,
};

pub(super) const BACKENDS: [&str; 8] =
    ["Backend", "Health", "Jobs", "Poll lag", "Waiting", "Rate", "Last answer", "Last error"];
pub(super) const JOBS: [&str; 8] =
    ["Job", "State", "Progress", "Subscribers", "Last poll", "Next poll", "Last change", "Last error"];
pub(super) const RECENT: [&str; 4] = ["Time", "Event", "About", "Details"];
pub(super) const FACTS: [&str; 2] = ["Field", "Value"];
pub(super) const HISTORY: [&str; 3] = ["Since", "State", "For"];

/// Recent events on the overview.
pub(super) const RECENT_ROWS: usize = 25;

/// A time, as text in UTC; the script shows how long ago it was.
pub(super) fn time(at: Timestamp, now: Timestamp) -> Markup {
    let is_near = now.duration_since(at).unsigned_abs().as_secs() < 12 * 60 * 60;
    let text = at.strftime(if is_near { "%H:%M:%S" } else { "%Y-%m-%d %H:%M:%S" }).to_string();
    let exact = at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    html! { time datetime=(exact) title=(exact) { (text) } }
}

/// The same where the script leaves the time as it is.
fn exact_time(at: Timestamp, now: Timestamp) -> Markup {
    html! { span class="exact" { (time(at, now)) } }
}

fn time_or(at: Option<Timestamp>, now: Timestamp, otherwise: &str) -> Markup {
    match (at, otherwise) {
        (Some(at), _) => time(at, now),
        (None, "none") => none(),
        (None, text) => html! { span class="dim" { (text) } },
    }
}

/// Stands where there is nothing to show. A narrow screen leaves it out.
pub(super) fn none() -> Markup {
    html! { span class="dim no" { "none" } }
}

pub(super) fn badge(class: &str, text: &str) -> Markup {
    html! { span class={ "badge " (class) } { (text) } }
}

pub(super) fn words(text: &str) -> Markup {
    html! { bdi { (shown(text)) } }
}

/// A short duration.
fn duration(millis: u128) -> String {
    let (seconds, minutes, hours) = (millis / 1000, millis / 60_000, millis / 3_600_000);
    match millis {
        0..1000 => format!("{millis} ms"),
        1000..10_000 => format!("{}.{} s", seconds, millis % 1000 / 100),
        10_000..60_000 => format!("{seconds} s"),
        60_000..3_600_000 => format!("{minutes} min {} s", seconds % 60),
        3_600_000..172_800_000 => format!("{hours} h {} min", minutes % 60),
        _ => format!("{} d {} h", hours / 24, hours % 24),
    }
}

/// One row for each backend.
pub(super) fn backends(backends: &[BackendReport], now: Timestamp) -> Table {
    let rows = backends.iter().map(|backend| backend_row(backend, now)).collect();
    Table::new("backends", rows, BACKENDS.len(), "No backend is configured.")
}

fn backend_row(backend: &BackendReport, now: Timestamp) -> Row {
    let BackendReport {
        name,
        vendor,
        vendor_version,
        max_batch: _,
        requests_per_second,
        report,
        rejected_credentials,
    } = backend;
    let Report {
        health,
        last_fault,
        last_success,
        subscribed_jobs,
        poll_lag,
        queued_calls,
        rate_in_use,
        quarantined_jobs,
        circuit,
    } = report;
    let (class, health_text) = match health {
        Health::Unknown => ("idle", "not polled yet"),
        Health::Healthy => ("good", name_of(*health)),
        Health::Degraded => ("warn", name_of(*health)),
        Health::Unavailable => ("bad", name_of(*health)),
    };
    let circuit = match circuit {
        Circuit::Closed => None,
        Circuit::HalfOpen => Some("circuit half-open"),
        Circuit::Open => Some("circuit open"),
    };
    let search = Search { backend: name.to_string(), ..Search::default() };
    let quarantined = Search { show: "quarantined".to_owned(), ..search.clone() };
    let percent = (rate_in_use.clamp(0.0, 1.0) * 100.0).round();
    let rate_label = format!("rate in use at {name}");
    let cells: [Cell; 8] = [
        (
            "Backend",
            html! {
                a href={ "/" (search.query("")) "#jobs-title" } { (words(name)) }
                @if **name != **vendor { " " span class="dim" { (vendor) } }
                @if !vendor_version.is_empty() { " " span class="dim" { (vendor_version) } }
            },
        ),
        (
            "Health",
            html! {
                (badge(class, health_text))
                @if let Some(circuit) = circuit { " " span class="dim" { (circuit) } }
            },
        ),
        (
            "Jobs",
            html! {
                (subscribed_jobs)
                @if *quarantined_jobs > 0 {
                    " " a href={ "/" (quarantined.query("")) "#jobs-title" } { (quarantined_jobs) " quarantined" }
                }
            },
        ),
        ("Poll lag", html! { (duration(poll_lag.as_millis())) }),
        ("Waiting", html! { (queued_calls) }),
        (
            "Rate",
            html! {
                meter min="0" max="100" value=(percent) aria-label=(rate_label) {}
                " " (percent) " % of " (requests_per_second) "/s"
            },
        ),
        ("Last answer", time_or(*last_success, now, "none")),
        (
            "Last error",
            html! {
                @if rejected_credentials.is_some() { (badge("bad", "credentials rejected")) " " }
                @if let Some(fault) = last_fault { (words(&fault.without_vendor_message().to_string())) }
                @else { (none()) }
            },
        ),
    ];
    // A backend that is degraded may be healthy a second later, and so on.
    let available = if *health == Health::Unavailable { "unavailable" } else { "available" };
    let news = format!("{name} is {available}");
    Row::new(&["backend", name], "", Some(&news), &cells)
}

/// One row for each job.
pub(super) fn jobs(found: &[FoundJob], search: &Search, now: Timestamp) -> Table {
    let empty = if search.is_empty() { "No job is watched or waited for." } else { "No job matches." };
    Table::new("jobs", found.iter().map(|job| job_row(job, now)).collect(), JOBS.len(), empty)
}

fn job_row(found: &FoundJob, now: Timestamp) -> Row {
    let FoundJob { number: _, report, snapshot } = found;
    let JobReport {
        job,
        latest: _,
        state,
        subscribers,
        last_poll,
        last_change,
        next_poll: _,
        quarantined,
        failure,
    } = report;
    let status = snapshot.as_ref().map(|snapshot| snapshot.core_status());
    let cells: [Cell; 8] = [
        ("Job", job_link(job)),
        (
            "State",
            html! {
                (state_badge(*state))
                @if let Some(status) = &status { " " span class="dim" { (words(&status.vendor_state)) } }
                @if *quarantined { " " (badge("bad", "quarantined")) }
            },
        ),
        ("Progress", progress(status.as_ref(), job)),
        ("Subscribers", html! { (subscribers) }),
        ("Last poll", time_or(*last_poll, now, "none")),
        ("Next poll", next_poll(report, now)),
        ("Last change", time_or(*last_change, now, "none")),
        (
            "Last error",
            html! {
                @if let Some(failure) = failure { (words(&failure.to_string())) }
                @else { (none()) }
            },
        ),
    ];
    Row::new(&["job", &job.backend, &job.id, job.tag.as_deref().unwrap_or_default()], "", None, &cells)
}

/// When the next poll is due; the script shows for how long it has been.
fn next_poll(report: &JobReport, now: Timestamp) -> Markup {
    let otherwise = match report.state {
        Some(state) if state.is_terminal() => "ended",
        _ if report.subscribers == 0 => "retained",
        _ => "now",
    };
    html! { span class="due" { (time_or(report.next_poll, now, otherwise)) } }
}

fn job_link(job: &JobRef) -> Markup {
    html! {
        a href=(job_href(job)) { (words(&job.backend)) "/" (words(&job.id)) }
        @if let Some(tag) = &job.tag { " " span class="dim" { "tag " (words(tag)) } }
    }
}

fn state_name(state: JobState) -> &'static str {
    match state {
        JobState::Unknown => "unknown",
        JobState::Pending => "pending",
        JobState::Running => "running",
        JobState::Retrying => "retrying",
        JobState::Cancelling => "cancelling",
        JobState::Succeeded => "succeeded",
        JobState::Failed => "failed",
        JobState::Cancelled => "cancelled",
        JobState::Expired => "expired",
    }
}

fn state_class(state: JobState) -> &'static str {
    match state {
        JobState::Unknown | JobState::Pending | JobState::Cancelled => "idle",
        JobState::Running => "busy",
        JobState::Retrying | JobState::Cancelling => "warn",
        JobState::Succeeded => "good",
        JobState::Failed | JobState::Expired => "bad",
    }
}

fn state_badge(state: Option<JobState>) -> Markup {
    state.map_or_else(|| badge("idle", "not observed"), |state| badge(state_class(state), state_name(state)))
}

/// The progress as the vendor reports it.
fn progress(status: Option<&pb::JobStatus>, job: &JobRef) -> Markup {
    let Some(progress) = status.and_then(|status| status.progress.as_ref()) else {
        return none();
    };
    if progress.percent.is_none() && progress.total_steps == Some(0) && progress.current_step.is_empty() {
        return none();
    }
    let pb::Progress { percent, completed_steps, total_steps, current_step } = progress;
    #[expect(clippy::cast_precision_loss, reason = "a share of a bar")]
    let share = match (percent, completed_steps, total_steps) {
        (Some(percent), _, _) => Some(*percent),
        (None, Some(done), Some(total)) if *total > 0 => Some(*done as f64 * 100.0 / *total as f64),
        _ => None,
    };
    let share = share.filter(|share| share.is_finite()).map(|share| share.clamp(0.0, 100.0));
    let label = format!("progress of {}", shown(&job.id));
    html! {
        @if let Some(share) = share {
            progress max="100" value=(format!("{share:.1}")) aria-label=(label) {}
            " "
        }
        @match (percent, completed_steps, total_steps) {
            (Some(percent), _, _) => { (format!("{percent:.0}")) " %" }
            (None, Some(done), Some(total)) => { (done) " of " (total) }
            (None, Some(done), None) => { (done) " done" }
            _ => {}
        }
        @if !current_step.is_empty() { " " span class="dim" { (words(current_step)) } }
    }
}

/// The newest ends and errors of all backends.
pub(super) fn recent(engine: &Engine, now: Timestamp) -> Table {
    let rows = engine.recent(RECENT_ROWS);
    let rows = rows.iter().map(|(backend, recent)| recent_row(engine, backend, recent, now)).collect();
    Table::new("recent", rows, RECENT.len(), "Nothing has ended or failed yet.")
}

fn recent_row(engine: &Engine, backend: &str, recent: &Recent, now: Timestamp) -> Row {
    let Recent { time: at, event } = recent;
    let (what, about, details, id) = match event {
        RecentEvent::Ended { job, state, history: _ } => {
            let error = engine.terminal_status(job).and_then(|snapshot| snapshot.core_status().error);
            let details = error.map_or_else(|| html! {}, |error| words(&error.message));
            ((state_class(*state), state_name(*state)), job_link(job), details, &*job.id)
        }
        RecentEvent::JobFailed { job, phase, fault } => {
            let details = fault.as_ref().map_or_else(|| html! {}, |fault| words(&fault.to_string()));
            (phase_badge(*phase), job_link(job), details, &*job.id)
        }
        RecentEvent::BackendFailed(fault) => {
            (("bad", "backend failed"), words(backend), words(&fault.to_string()), "")
        }
        RecentEvent::BackendRecovered { down_for } => {
            let details = html! { "after " (duration(down_for.as_millis())) };
            (("good", "backend recovered"), words(backend), details, "")
        }
    };
    let news = format!("{backend} {} {}", shown(id), what.1);
    let cells: [Cell; 4] =
        [("Time", time(*at, now)), ("Event", badge(what.0, what.1)), ("About", about), ("Details", details)];
    Row::new(&["recent", backend, id, what.1, &at.to_string()], "", Some(&news), &cells)
}

fn phase_badge(phase: Phase) -> (&'static str, &'static str) {
    match phase {
        Phase::Unobserved => ("idle", "not observed"),
        Phase::In(state) => (state_class(state), state_name(state)),
        Phase::Missing => ("warn", "missing"),
        Phase::Refused => ("bad", "id refused"),
        Phase::Failing => ("bad", "failing"),
    }
}

/// What is known of one job.
pub(super) fn facts(job: &JobRef, detail: &JobDetail, now: Timestamp) -> Table {
    let status = detail.latest.as_ref().map(|latest| latest.snapshot.core_status());
    let report = detail.report.as_ref();
    let state = detail.latest.as_ref().map(|latest| latest.snapshot.state);
    let mut rows = Vec::new();
    let mut add = |name: &'static str, news: Option<&str>, value: Markup| {
        rows.push(Row::new(&["fact", name], "", news, &[("Field", html! { (name) }), ("Value", value)]));
    };
    let news = format!("{} is {}", shown(&job.id), state.map_or("not observed", state_name));
    add(
        "State",
        Some(&news),
        html! {
            (state_badge(state))
            @if let Some(status) = &status { " " span class="dim" { (words(&status.vendor_state)) } }
        },
    );
    add("Progress", None, progress(status.as_ref(), job));
    if let Some(error) = status.as_ref().and_then(|status| status.error.as_ref()) {
        add("Error of the job", None, words(&error.message));
    }
    if let Some(warnings) =
        status.as_ref().map(|status| status.warnings.join("\n")).filter(|all| !all.is_empty())
    {
        add("Warnings", None, words(&warnings));
    }
    match report {
        Some(report) => {
            let quarantined = if report.quarantined {
                badge("bad", "polled alone")
            } else {
                html! { "no" }
            };
            let failure = report.failure.as_ref().map(ToString::to_string);
            let failure = failure.map_or_else(none, |text| words(&text));
            add("Subscribers", None, html! { (report.subscribers) });
            add("Last poll", None, time_or(report.last_poll, now, "none"));
            add("Next poll", None, next_poll(report, now));
            add("Last change", None, time_or(report.last_change, now, "none"));
            add("Quarantine", None, quarantined);
            add("Last error", None, failure);
        }
        None => add("Subscribers", None, html! { "none; the job is not polled any more" }),
    }
    if let Some(status) = &status {
        let texts =
            [("Type", &status.job_type), ("Description", &status.description), ("Owner", &status.owner)];
        for (name, text) in texts.into_iter().filter(|(_, text)| !text.is_empty()) {
            add(name, None, words(text));
        }
        let times =
            [("Created", &status.create_time), ("Started", &status.start_time), ("Ended", &status.end_time)];
        for (name, at) in times {
            if let Some(at) = at.as_ref().and_then(read_time) {
                add(name, None, exact_time(at, now));
            }
        }
        if let Some(href) = vendor_href(&status.vendor_url) {
            add("At the vendor", None, html! { a href=(href) rel="noopener noreferrer" { (shown(&href)) } });
        }
    }
    Table::new("facts", rows, FACTS.len(), "")
}

fn read_time(at: &prost_types::Timestamp) -> Option<Timestamp> {
    Timestamp::from_second(at.seconds).ok()?.checked_add(i64::from(at.nanos).nanoseconds()).ok()
}

/// The states of one job, the newest first.
pub(super) fn history(history: &JobHistory, now: Timestamp) -> Table {
    let JobHistory { steps, left_out } = history;
    let rows = steps.iter().enumerate().rev().map(|(number, step)| {
        let end = steps.get(number + 1).map(|next| next.since());
        let (class, name) = phase_badge(step.phase);
        let lasted = match (end, step.phase) {
            (Some(end), _) => {
                html! { (duration(end.duration_since(step.since()).unsigned_abs().as_millis())) }
            }
            (None, Phase::In(state)) if state.is_terminal() => html! { span class="dim" { "ended" } },
            (None, _) => html! { span class="dim" { "so far" } },
        };
        let cells: [Cell; 3] =
            [("Since", exact_time(step.since(), now)), ("State", badge(class, name)), ("For", lasted)];
        Row::new(&["step", name, &step.since().to_string()], "", None, &cells)
    });
    let mut rows: Vec<Row> = rows.collect();
    if *left_out > 0 {
        rows.push(Row::empty(
            "left-out",
            HISTORY.len(),
            &format!("{left_out} earlier changes are not kept."),
        ));
    }
    Table::new("history", rows, HISTORY.len(), "No poll of this job has been answered.")
}
