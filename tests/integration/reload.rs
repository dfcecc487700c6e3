//! Configuration reload of the built program, while calls and watches are open.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
};

use jobwatch::simulators::{Plan, Simulator, Vendor};
use serde_json::Value;
use tempfile::{NamedTempFile, TempDir};
use tokio::process::Command;
use tonic::Code;

use crate::{
    harness::*,
    program::{Program, command, executable},
};

mod diff;
mod files;
mod refused;
mod revocation;
mod settings;
mod sites;

const SECTIONS: &str = "[server]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n";
const RELOADED: &str = "configuration reloaded backends_added";
const UNCHANGED: &str = "configuration reloaded; nothing has changed";
const REFUSED: &str = "configuration reload refused";

/// A program whose configuration file can be replaced.
struct Reloading {
    program: Program,
    file: PathBuf,
}

impl Reloading {
    async fn start(sections: &str, backends: impl IntoIterator<Item = Backend>) -> Self {
        let (file, command) = command(&text(sections, backends));
        let path = file.path().to_owned();
        Self { program: Program::run((file, command), "").await, file: path }
    }

    /// Writes another configuration and has it reloaded.
    async fn reload(&self, sections: &str, backends: impl IntoIterator<Item = Backend>) {
        replace(&self.file, &text(sections, backends));
        self.hang_up(RELOADED).await;
    }

    /// Sends SIGHUP, and waits for one more line like this.
    async fn hang_up(&self, line: &str) {
        let before = self.program.log().matches(line).count();
        self.program.signal("HUP").await;
        self.logged_again(line, before).await;
    }

    async fn logged_again(&self, line: &str, before: usize) {
        self.program.find(|log| (log.matches(line).count() > before).then_some(())).await;
    }

    async fn admin(&self, path: &str) -> (u16, String) {
        let log = self.program.log();
        let (_, rest) = log.split_once("admin address is ").expect("the log has the admin address");
        let url = format!("http://{}{path}", rest.split_whitespace().next().unwrap());
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let response = guard(client.get(url).send()).await.unwrap();
        (response.status().as_u16(), guard(response.text()).await.unwrap())
    }

    /// The value of a metric without the labels of others.
    async fn metric(&self, series: &str) -> f64 {
        let (_, text) = self.admin("/metrics").await;
        let line = text.lines().find(|line| line.rsplit_once(' ').is_some_and(|(name, _)| name == series));
        line.unwrap_or_else(|| panic!("no {series} in {text}")).rsplit_once(' ').unwrap().1.parse().unwrap()
    }

    /// What `/readyz` says of the configuration of a server that is ready.
    async fn readiness(&self) -> Value {
        let (code, body) = self.admin("/readyz").await;
        assert_eq!(code, 200, "{body}");
        serde_json::from_str::<Value>(&body).unwrap()["configuration"].clone()
    }
}

fn text(sections: &str, backends: impl IntoIterator<Item = Backend>) -> String {
    config_text(&format!("{SECTIONS}{sections}"), backends)
}

/// Replaces a file in one step, as editors and `kubectl` do.
fn replace(path: &Path, content: &str) {
    let new = path.with_extension("new");
    fs::write(&new, content).unwrap();
    fs::rename(new, path).unwrap();
}

/// A backend that is polled for a new watch or call, and then hardly ever.
fn rarely_polled(simulator: &Simulator) -> Backend {
    Backend::of(simulator).every(ms(3_600_000))
}

#[tokio::test]
async fn watches_of_an_unaffected_backend_notice_nothing_of_a_reload() {
    let (immuta, claret, datasaur) =
        (simulator(Vendor::Immuta).await, simulator(Vendor::Claret).await, simulator(Vendor::Datasaur).await);
    let gateway = Reloading::start("", [rarely_polled(&immuta), Backend::of(&claret)]).await;
    let client = gateway.program.client();
    let mut watches = Vec::new();
    for _ in 0..100 {
        watches.push(watched_job(&immuta, &client, Plan::fixed("active")).await);
    }
    let polls = immuta.calls().len();
    for _ in 0..3 {
        let changed = Backend::of(&claret).poll("max_interval", "\"150ms\"");
        gateway.reload("[limits]\nbatch_size = 7", [rarely_polled(&immuta), changed]).await;
        gateway.reload("", [rarely_polled(&immuta), Backend::of(&datasaur)]).await;
        gateway.reload("", [rarely_polled(&immuta), Backend::of(&claret)]).await;
    }
    // The added one is polled, and the jobs of the other are the same.
    let added = job_at(&claret, &claret.start_job(Plan::fixed("pending")));
    get(&client, &added).await.unwrap();
    assert_eq!(immuta.calls().len(), polls, "no extra poll");
    for (job, _) in &watches {
        immuta.finish(&job.job_id);
    }
    // A call has them polled, and every watch receives that.
    let answers = batch(&client, batch_request(watches.iter().map(|(job, _)| job.clone()))).await.unwrap();
    assert!(answers.iter().all(Result::is_ok));
    for (_, watch) in &mut watches {
        let (statuses, end) = watch.rest().await;
        assert_eq!((statuses.len(), end.is_ok()), (1, true), "the terminal status and OK");
        assert!(statuses[0].terminal);
    }
}

#[tokio::test]
async fn added_backend_is_polled_with_its_own_credentials() {
    let (immuta, kinetica) = (simulator(Vendor::Immuta).await, simulator(Vendor::Kinetica).await);
    let gateway = Reloading::start("", [Backend::of(&immuta)]).await;
    let client = gateway.program.client();
    let job = job_at(&kinetica, &kinetica.start_job(Plan::fixed("RUNNING")));
    let error = decode_error(&get(&client, &job).await.unwrap_err());
    assert_eq!((error.code, &*error.reason), (Code::NotFound, "UNKNOWN_BACKEND"));
    gateway.reload("", [Backend::of(&immuta), Backend::of(&kinetica)]).await;
    let mut watch = Watch::of(&client, &job).await;
    watch.status().await;
    kinetica.finish(&job.job_id);
    watch.terminal_status().await;
    gateway.program.logged("backend added backend=kinetica").await;
}

#[tokio::test]
async fn removed_backend_ends_watches_and_waiting_calls_as_it_would_answer_new_ones() {
    let (immuta, kinetica) = (simulator(Vendor::Immuta).await, simulator(Vendor::Kinetica).await);
    let gateway = Reloading::start("", [Backend::of(&immuta), rarely_polled(&kinetica)]).await;
    let client = gateway.program.client();
    let (job, mut watch) = watched_job(&kinetica, &client, Plan::fixed("RUNNING")).await;
    let mut waits = get_request(&job);
    waits.wait = Some(proto_ms(600_000));
    let call = tokio::spawn({
        let (client, waits) = (client.clone(), within(ms(600_000), waits));
        async move { get_status(&client, waits).await }
    });
    // The call has subscribed: it had the job polled.
    guard(kinetica.wait_for_responses("/get/job", 2)).await;
    gateway.reload("", [Backend::of(&immuta)]).await;
    let ends = [watch.end().await.unwrap_err(), guard(call).await.unwrap().unwrap_err()];
    let new =
        [Watch::open(&client, watch_request(&job)).await.unwrap_err(), get(&client, &job).await.unwrap_err()];
    for error in ends.iter().chain(&new).map(decode_error) {
        assert_eq!((error.code, &*error.reason), (Code::NotFound, "UNKNOWN_BACKEND"));
        assert_eq!(error.message, "no backend is named \"kinetica\"");
        assert_eq!(error.metadata["known_backends"], "immuta");
    }
    gateway.program.logged("backend removed backend=kinetica").await;
    let polls = kinetica.calls().len();
    let other = job_at(&immuta, &immuta.start_job(Plan::fixed("active")));
    get(&client, &other).await.unwrap();
    assert_eq!(kinetica.calls().len(), polls);
}

#[tokio::test]
async fn watch_of_a_changed_backend_goes_on_at_its_new_address() {
    let [old, new] = [simulator(Vendor::Immuta).await, simulator(Vendor::Immuta).await];
    let gateway = Reloading::start("", [Backend::of(&old)]).await;
    let client = gateway.program.client();
    let (job, mut watch) = watched_job(&old, &client, Plan::fixed("active").id("7")).await;
    new.start_job(Plan::fixed("active").id("7"));
    gateway.reload("", [Backend::of(&new)]).await;
    guard(new.wait_for_responses("/jobs/statuses", 2)).await;
    let polls = old.calls().len();
    new.finish(&job.job_id);
    let (statuses, end) = watch.rest().await;
    assert!(end.is_ok() && statuses.len() == 1 && statuses[0].terminal, "{statuses:?} {end:?}");
    assert_eq!(old.calls().len(), polls, "the old address is not polled any more");
    gateway.program.logged("backend changed backend=immuta changed=\"base_url http://127.0.0.1:").await;
}

#[tokio::test]
async fn watch_of_a_changed_backend_is_polled_at_the_new_interval_without_a_new_status() {
    let simulator = simulator(Vendor::Immuta).await;
    let gateway = Reloading::start("", [rarely_polled(&simulator)]).await;
    let client = gateway.program.client();
    let (job, mut watch) = watched_job(&simulator, &client, Plan::fixed("active")).await;
    gateway.reload("", [Backend::of(&simulator).every(ms(20))]).await;
    let polls = simulator.count("/jobs/statuses");
    guard(simulator.wait_for_responses("/jobs/statuses", polls + 3)).await;
    simulator.finish(&job.job_id);
    let (statuses, end) = watch.rest().await;
    assert!(end.is_ok() && statuses.len() == 1 && statuses[0].terminal, "{statuses:?} {end:?}");
    let interval = "poll.min_interval 1h -> 20ms, poll.max_interval 1h -> 20ms, poll.max_backoff 1h -> 20ms";
    gateway.program.logged(interval).await;
}

#[tokio::test]
async fn jobs_that_end_while_backends_change_and_go_end_each_watch_once() {
    let (immuta, kinetica) = (simulator(Vendor::Immuta).await, simulator(Vendor::Kinetica).await);
    let gateway = Reloading::start("", [Backend::of(&immuta), Backend::of(&kinetica)]).await;
    let client = gateway.program.client();
    let mut watches = Vec::new();
    for _ in 0..20 {
        for (simulator, word) in [(&immuta, "active"), (&kinetica, "RUNNING")] {
            watches.push((simulator, watched_job(simulator, &client, Plan::fixed(word)).await));
        }
    }
    replace(&gateway.file, &text("", [Backend::of(&immuta).poll("max_interval", "\"150ms\"")]));
    gateway.program.signal("HUP").await;
    for (simulator, (job, _)) in &watches {
        simulator.finish(&job.job_id);
    }
    for (simulator, (_, watch)) in &mut watches {
        let stays = simulator.vendor() == Vendor::Immuta;
        let (statuses, end) = watch.rest().await;
        let has_ended = statuses.last().is_some_and(|status| status.terminal);
        match end {
            Ok(()) => assert!(has_ended, "{statuses:?}"),
            Err(error) => {
                assert!(!stays, "{error:?}");
                assert_eq!(code_and_reason(&error), (Code::NotFound, "UNKNOWN_BACKEND".to_owned()));
            }
        }
    }
}

#[tokio::test]
async fn reload_that_changes_nothing_says_so_and_polls_nothing() {
    let simulator = simulator(Vendor::Immuta).await;
    let gateway = Reloading::start("", [rarely_polled(&simulator)]).await;
    let client = gateway.program.client();
    let (_job, _watch) = watched_job(&simulator, &client, Plan::fixed("active")).await;
    let polls = simulator.calls().len();
    for _ in 0..3 {
        gateway.hang_up(UNCHANGED).await;
    }
    assert_eq!(simulator.calls().len(), polls);
    assert!(gateway.metric("jobwatch_config_reloads_total{outcome=\"unchanged\"}").await > 2.5);
    assert!(!gateway.program.log().contains(RELOADED));
}

#[tokio::test]
async fn many_requests_at_once_end_with_the_last_configuration() {
    let simulator = simulator(Vendor::Immuta).await;
    let gateway = Reloading::start("", [Backend::of(&simulator)]).await;
    let client = gateway.program.client();
    let (job, mut watch) = watched_job(&simulator, &client, Plan::fixed("active")).await;
    for round in 0..20 {
        let interval = format!("\"{}ms\"", 200 + round);
        let backend = Backend::of(&simulator).poll("max_interval", &interval);
        replace(&gateway.file, &text(&format!("[limits]\nbatch_size = {}", 20 + round), [backend]));
        gateway.program.signal("HUP").await;
    }
    gateway.program.logged("-> 39").await;
    gateway.hang_up(UNCHANGED).await;
    simulator.finish(&job.job_id);
    watch.terminal_status().await;
}

#[tokio::test]
async fn reload_is_ignored_during_the_shutdown() {
    let simulator = simulator(Vendor::Kinetica).await;
    simulator.inject(jobwatch::simulators::Fault::new(jobwatch::simulators::Effect::Hang));
    let mut gateway = Reloading::start("", [Backend::of(&simulator).poll("timeout", "\"60s\"")]).await;
    let client = gateway.program.client();
    let call = tokio::spawn(async move { get(&client, &job("kinetica", "1")).await });
    guard(simulator.wait_for_calls("/get/job", 1)).await;
    gateway.program.signal("TERM").await;
    gateway.program.logged("shutdown began").await;
    replace(&gateway.file, "nonsense");
    gateway.program.signal("HUP").await;
    assert!(guard(call).await.unwrap().is_err());
    assert_eq!(gateway.program.exit_code().await, Some(0));
    assert!(!gateway.program.log().contains("configuration reload"), "{}", gateway.program.log());
}

/// The program reads its configuration from a pipe, so that it starts when the test writes.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn hangup_before_the_start_is_finished_does_not_end_the_program() {
    let simulator = simulator(Vendor::Immuta).await;
    let dir = TempDir::new().unwrap();
    let pipe = dir.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().await.unwrap().success());
    let mut command = Command::new(executable());
    command.arg("serve").arg("--config").arg(&pipe).env_clear();
    command.stdin(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().unwrap();
    let pid = child.id().unwrap();
    let catches = || {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap().trim();
        u64::from_str_radix(mask, 16).unwrap() & 1 == 1
    };
    until(catches).await;
    assert!(Command::new("kill").arg("-HUP").arg(pid.to_string()).status().await.unwrap().success());
    let config = text("", [Backend::of(&simulator)]);
    let written = tokio::task::spawn_blocking(move || fs::write(pipe, config));
    guard(written).await.unwrap().unwrap();
    let mut lines =
        tokio::io::AsyncBufReadExt::lines(tokio::io::BufReader::new(child.stderr.take().unwrap()));
    let mut log = String::new();
    // The request that came early is heard, and the pipe can't be read again.
    while !log.contains("is not a regular file, so that it can't be read again") {
        let line = guard(lines.next_line()).await.unwrap();
        log.push_str(&line.unwrap_or_else(|| panic!("the program has ended: {log}")));
    }
    assert!(log.contains("listening on "), "{log}");
    child.kill().await.unwrap();
}
