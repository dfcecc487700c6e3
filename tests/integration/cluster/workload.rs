//! Jobs whose versions count up at the vendor, and callers that watch them.

use std::{
    fmt,
    sync::{Arc, Mutex},
    time::Duration,
};

use jobwatch::{
    proto::v1::{JobRef, WatchJobRequest, watch_job_response::Event},
    simulators::{Job, Outcome, Plan, Simulator},
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};
use tokio_util::task::AbortOnDropHandle;
use tonic::Code;

use super::{
    history::{LAST, Shown, Wrong},
    rig::patiently,
};
use crate::harness::*;

/// How often each job has a new version, where no test says otherwise.
const PERIOD: Duration = Duration::from_millis(200);

/// Watches of one connection.
const STREAMS: usize = 100;

/// Pause before a caller tries the next gateway.
const RETRY: Duration = Duration::from_millis(100);

#[derive(Default)]
struct Versions {
    newest: u64,
    /// How many jobs have ended, from the first on.
    ended: usize,
}

/// One watch, over all gateways that its caller was connected to.
#[derive(Default)]
pub(super) struct Watcher {
    shown: Mutex<Vec<Shown>>,
}

impl Watcher {
    pub(super) fn shown(&self) -> Vec<Shown> {
        self.shown.lock().unwrap().clone()
    }

    fn last(&self) -> Option<Shown> {
        self.shown.lock().unwrap().last().copied()
    }
}

/// Jobs, and watches of them.
pub(super) struct Workload {
    simulator: Arc<Simulator>,
    jobs: Vec<Job>,
    versions: Arc<Mutex<Versions>>,
    pub(super) watchers: Vec<Arc<Watcher>>,
    watching: JoinSet<()>,
    _publishing: AbortOnDropHandle<()>,
}

impl fmt::Debug for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Workload").finish_non_exhaustive()
    }
}

impl Workload {
    /// Starts jobs that go on until they are ended, with these names.
    pub(super) fn start(simulator: &Arc<Simulator>, names: impl Iterator<Item = String>) -> Self {
        Self::start_with(simulator, names, PERIOD)
    }

    /// Each job has a new version once in a `period`.
    pub(super) fn start_with(
        simulator: &Arc<Simulator>,
        names: impl Iterator<Item = String>,
        period: Duration,
    ) -> Self {
        let jobs: Vec<Job> = names.map(|name| simulator.start_job(Plan::fixed("1").id(name))).collect();
        let versions = Arc::new(Mutex::new(Versions { newest: 1, ended: 0 }));
        let publishing = {
            let (simulator, jobs, versions) = (Arc::clone(simulator), jobs.clone(), Arc::clone(&versions));
            tokio::spawn(async move {
                loop {
                    sleep(period).await;
                    let mut versions = versions.lock().unwrap();
                    versions.newest += 1;
                    for job in &jobs[versions.ended..] {
                        simulator.set_state(&job.id, &versions.newest.to_string());
                    }
                }
            })
        };
        Self {
            simulator: Arc::clone(simulator),
            jobs,
            versions,
            watchers: Vec::new(),
            watching: JoinSet::new(),
            _publishing: AbortOnDropHandle::new(publishing),
        }
    }

    /// Watches each job `times` times, over connections of their own for each hundred watches,
    /// through whichever gateway answers. Waits for the first status of each.
    pub(super) async fn watch_often(&mut self, times: usize, clients: impl Fn() -> Vec<Client>) {
        let mut connected = clients();
        for watch in 0..times * self.jobs.len() {
            if watch % STREAMS == 0 {
                connected = clients();
            }
            let clients = connected.iter().cloned().enumerate().collect();
            self.watch(watch % self.jobs.len(), clients, watch / STREAMS);
        }
        self.hear(|_| true).await;
    }

    /// Watches each job once, from one of these gateways on, and through whichever of them
    /// answers. Waits for the first status of each.
    pub(super) async fn watch_anywhere(&mut self, clients: &[Client]) {
        for number in 0..self.jobs.len() {
            let clients = clients.iter().cloned().enumerate().collect();
            self.watch(number, clients, number);
        }
        self.hear(|_| true).await;
    }

    /// Watches each job through each of these gateways. Waits for the first status of each.
    pub(super) async fn watch_everywhere(&mut self, clients: &[Client]) {
        for number in 0..self.jobs.len() {
            for (gateway, client) in clients.iter().enumerate() {
                self.watch(number, vec![(gateway, client.clone())], 0);
            }
        }
        self.hear(|_| true).await;
    }

    fn watch(&mut self, number: usize, clients: Vec<(usize, Client)>, from: usize) {
        let job = job_at(&self.simulator, &self.jobs[number]);
        let watcher = Arc::<Watcher>::default();
        self.watchers.push(Arc::clone(&watcher));
        self.watching.spawn(follow(clients, job, from, watcher));
    }

    /// The newest version of all jobs that have not ended.
    pub(super) fn version(&self) -> u64 {
        self.versions.lock().unwrap().newest
    }

    /// Waits until each watch that was last served by such a gateway shows a version that is
    /// newer than that of now. Returns how long that took.
    pub(super) async fn hear(&self, at: impl Fn(Option<usize>) -> bool) -> Duration {
        let (began, version) = (Instant::now(), self.version());
        let is_chosen = |watcher: &&Arc<Watcher>| at(watcher.last().map(|shown| shown.gateway));
        let chosen: Vec<_> = self.watchers.iter().filter(is_chosen).collect();
        let all = async {
            while !chosen.iter().all(|watcher| watcher.last().is_some_and(|shown| shown.version > version)) {
                sleep(Duration::from_millis(10)).await;
            }
        };
        patiently(all).await;
        began.elapsed()
    }

    /// How long each watch that was served by another gateway than `gateway` at `since` had to
    /// wait for a version that is newer than `version`.
    pub(super) fn waits(&self, gateway: usize, since: Instant, version: u64) -> Vec<Duration> {
        let wait = |watcher: &Arc<Watcher>| {
            let shown = watcher.shown();
            let before = shown.iter().rev().find(|shown| shown.at <= since)?;
            let after = shown.iter().find(|shown| shown.at > since && shown.version > version)?;
            (before.gateway != gateway).then(|| after.at - since)
        };
        self.watchers.iter().filter_map(wait).collect()
    }

    /// Ends the first so many jobs.
    pub(super) fn end(&self, jobs: usize) {
        let mut versions = self.versions.lock().unwrap();
        for job in &self.jobs[versions.ended.min(jobs)..jobs] {
            self.simulator.finish_with(&job.id, jobwatch::simulators::End::Success(Outcome::default()));
        }
        versions.ended = versions.ended.max(jobs);
    }

    /// Ends all jobs, waits for the ends of all watches, and checks what they showed. Returns
    /// the number of statuses and what was wrong, of which it prints the histories.
    pub(super) async fn finish(mut self) -> (usize, Wrong) {
        self.end(self.jobs.len());
        let ended = async {
            while let Some(ended) = self.watching.join_next().await {
                ended.unwrap();
            }
        };
        patiently(ended).await;
        let (mut statuses, mut wrong) = (0, Wrong::default());
        for watcher in &self.watchers {
            let shown = watcher.shown();
            let of_one = Wrong::of(&shown);
            if of_one != Wrong::default() {
                println!("{of_one:?}: {shown:?}");
            }
            statuses += shown.len();
            wrong.add(of_one);
        }
        for job in &self.jobs {
            self.simulator.forget(&job.id);
        }
        (statuses, wrong)
    }

    /// As [`finish`](Self::finish). Nothing may be wrong.
    pub(super) async fn finish_right(self) -> usize {
        let (statuses, wrong) = self.finish().await;
        assert_eq!(wrong, Wrong::default());
        statuses
    }
}

/// Watches a job to its end through whichever of the gateways answers.
async fn follow(clients: Vec<(usize, Client)>, job: JobRef, from: usize, watcher: Arc<Watcher>) {
    let (mut token, mut at) = (String::new(), from);
    loop {
        let (gateway, client) = &clients[at % clients.len()];
        at += 1;
        let request =
            WatchJobRequest { job: Some(job.clone()), resume_token: token.clone(), ..Default::default() };
        let Ok(response) = client.clone().watch_job(request).await else {
            sleep(RETRY).await;
            continue;
        };
        let mut stream = response.into_inner();
        loop {
            match stream.message().await {
                Ok(Some(response)) => {
                    token = response.resume_token;
                    if let Some(Event::Status(status)) = response.event {
                        let version =
                            if status.terminal { LAST } else { status.vendor_state.parse().unwrap() };
                        let shown = Shown { version, at: Instant::now(), gateway: *gateway };
                        watcher.shown.lock().unwrap().push(shown);
                    }
                }
                Ok(None) => return,
                Err(error) => {
                    assert!(matches!(error.code(), Code::Unavailable | Code::Unknown), "{error:?}");
                    sleep(RETRY).await;
                    break;
                }
            }
        }
    }
}
