//! A rolling restart: three gateways behind a client that balances calls over them.

use std::{
    collections::BTreeMap,
    fmt::Write,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use jobwatch::{
    proto::v1::{JobRef, JobState as S, WatchJobRequest, watch_job_response::Event},
    simulators::{Job, Plan, Simulator, Vendor},
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint},
};

use crate::{
    harness::*,
    program::{Program, command},
};

const GATEWAYS: usize = 3;
const WATCHES: usize = 1000;
/// Each is watched by several.
const JOBS: usize = 250;
/// Of each gateway.
const REQUESTS_PER_SECOND: usize = 20;

/// Longest wait for a thousand watches on a busy machine.
async fn patiently<T>(future: impl Future<Output = T>) -> T {
    timeout(Duration::from_mins(5), future).await.expect("no result within five minutes")
}

async fn start(address: &str, simulator: &Simulator) -> Program {
    let sections = format!("[server]\nlisten = \"{address}\"");
    let backend = Backend::of(simulator).poll("requests_per_second", &REQUESTS_PER_SECOND.to_string());
    Program::run(command(&config_text(&sections, [backend])), "info").await
}

/// What the watches have seen, in all.
#[derive(Debug, Default)]
struct Seen {
    opened: AtomicUsize,
    statuses: AtomicUsize,
    terminal: AtomicUsize,
    resumed: AtomicUsize,
    /// Calls that failed without a status of the gateway: the connection was refused.
    refused: AtomicUsize,
}

/// The step that a job's state names.
fn step(state: &str) -> usize {
    state.strip_prefix("step-").unwrap_or_else(|| panic!("{state}")).parse().unwrap()
}

/// When to call again, if that makes sense after this failure.
fn retry(failure: &Status, seen: &Seen) -> Duration {
    let decoded = tonic_types::StatusExt::get_error_details(failure);
    let Some(info) = decoded.error_info() else {
        // The address has no listener for a moment.
        assert!(
            failure.code() == Code::Unavailable || std::error::Error::source(failure).is_some(),
            "{failure:?}"
        );
        seen.refused.fetch_add(1, Relaxed);
        return ms(50);
    };
    assert_eq!((failure.code(), &*info.reason), (Code::Unavailable, "SHUTTING_DOWN"), "{failure:?}");
    seen.resumed.fetch_add(1, Relaxed);
    decoded.retry_info().and_then(|retry| retry.retry_delay).expect("it has a RetryInfo")
}

/// Watches a job to its end, over any gateway. Each status differs from the one before, none
/// is older, and the terminal one comes once and last.
async fn watch(channel: Channel, job: JobRef, seen: Arc<Seen>) {
    let mut client = Client::new(channel);
    let (mut token, mut newest, mut has_opened) = (String::new(), None, false);
    loop {
        let request = WatchJobRequest { resume_token: token.clone(), ..watch_request(&job) };
        let failure = match client.watch_job(request).await {
            Err(failure) => failure,
            Ok(response) => {
                let mut stream = response.into_inner();
                loop {
                    let response = match stream.message().await {
                        Ok(Some(response)) => response,
                        Ok(None) => panic!("it ended with OK before its terminal status"),
                        Err(failure) => break failure,
                    };
                    token = response.resume_token;
                    let Some(Event::Status(status)) = response.event else { continue };
                    seen.statuses.fetch_add(1, Relaxed);
                    if !std::mem::replace(&mut has_opened, true) {
                        seen.opened.fetch_add(1, Relaxed);
                    }
                    if status.terminal {
                        assert_eq!(status.state(), S::Succeeded);
                        seen.terminal.fetch_add(1, Relaxed);
                        assert!(stream.message().await.unwrap().is_none(), "nothing follows the end");
                        return;
                    }
                    let now = step(&status.vendor_state);
                    assert!(newest < Some(now), "{now} after {newest:?}");
                    newest = Some(now);
                }
            }
        };
        sleep(retry(&failure, &seen)).await;
    }
}

/// Jobs that go on until they end.
struct Running {
    simulator: Simulator,
    jobs: Vec<Job>,
    /// So many have ended.
    ended: Mutex<usize>,
}

impl Running {
    /// Each step is another state of every job that has not ended.
    async fn go_on(&self) {
        for step in 1.. {
            sleep(ms(100)).await;
            let ended = self.ended.lock().unwrap();
            for job in &self.jobs[*ended..] {
                self.simulator.set_state(&job.id, &format!("step-{step}"));
            }
        }
    }

    /// Ends some more jobs.
    fn end(&self, count: usize) {
        let mut ended = self.ended.lock().unwrap();
        let up_to = (*ended + count).min(self.jobs.len());
        for job in &self.jobs[*ended..up_to] {
            self.simulator.finish(&job.id);
        }
        *ended = up_to;
    }
}

/// Requests to the vendor in each second.
fn requests(simulator: &Simulator, began: Instant) -> BTreeMap<u64, usize> {
    let mut seconds = BTreeMap::new();
    for call in simulator.calls() {
        *seconds.entry(call.at.saturating_duration_since(began).as_secs()).or_default() += 1;
    }
    seconds
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rolling_restart_of_three_gateways_loses_nothing_of_a_thousand_watches() {
    let simulator = simulator(Vendor::Immuta).await;
    let began = Instant::now();
    let mut gateways = Vec::new();
    for _ in 0..GATEWAYS {
        let address = own_address().await.to_string();
        gateways.push((start(&address, &simulator).await, address));
    }
    let endpoints =
        gateways.iter().map(|(_, address)| Endpoint::from_shared(format!("http://{address}")).unwrap());
    let channel = Channel::balance_list(endpoints);
    let jobs: Vec<Job> = (0..JOBS).map(|_| simulator.start_job(Plan::fixed("step-0"))).collect();
    let (seen, mut watches) = (Arc::new(Seen::default()), JoinSet::new());
    for at in 0..WATCHES {
        let job = job_at(&simulator, &jobs[at % JOBS]);
        watches.spawn(watch(channel.clone(), job, Arc::clone(&seen)));
    }
    patiently(until(|| seen.opened.load(Relaxed) == WATCHES)).await;

    let running = Arc::new(Running { simulator, jobs, ended: Mutex::new(0) });
    let simulator = &running.simulator;
    let going_on = tokio::spawn({
        let running = Arc::clone(&running);
        async move { running.go_on().await }
    });
    let mut report = String::new();
    for (gateway, address) in &mut gateways {
        let restarts = Instant::now();
        gateway.signal("TERM").await;
        // In the midst of the restart.
        running.end(JOBS / 4);
        assert_eq!(gateway.exit_code().await, Some(0), "{}", gateway.log());
        *gateway = start(address, simulator).await;
        write!(report, "{} ", restarts.elapsed().as_millis()).unwrap();
        // The next one follows when its clients are back.
        let resumed = seen.statuses.load(Relaxed);
        patiently(until(|| seen.statuses.load(Relaxed) > resumed + WATCHES / 4)).await;
    }
    running.end(JOBS);
    while let Some(watched) = patiently(watches.join_next()).await {
        watched.unwrap();
    }
    going_on.abort();
    assert_eq!(seen.terminal.load(Relaxed), WATCHES, "each sees its terminal status once");
    assert!(seen.resumed.load(Relaxed) >= WATCHES / 2, "{seen:?}");

    let seconds = requests(simulator, began);
    let total: usize = seconds.values().sum();
    let elapsed = usize::try_from(began.elapsed().as_secs()).unwrap() + 1;
    // Six processes, of which three run at a time.
    assert!(total <= REQUESTS_PER_SECOND * (2 * GATEWAYS + GATEWAYS * elapsed), "{seconds:?}");
    println!(
        "| rolling restart of 3 gateways, 1,000 watches of 250 jobs, in {elapsed} s | restarts took {report}ms | {} \
         watches resumed with a token, {} calls were refused | {total} requests to the vendor, at most {} in a \
         second | {} statuses, 1,000 terminal ones |",
        seen.resumed.load(Relaxed),
        seen.refused.load(Relaxed),
        seconds.values().max().unwrap(),
        seen.statuses.load(Relaxed)
    );
}
