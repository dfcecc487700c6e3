//! Three gateways as programs, real NATS servers, and a simulated vendor that logs requests.

use std::{collections::BTreeMap, time::Duration};

use jobwatch::{
    proto::v1::{JobRef, WatchJobRequest, watch_job_response::Event},
    simulators::{End, Outcome, Plan, Simulator, Vendor},
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};
use tonic::Code;

use super::servers::Servers;
use crate::{
    harness::*,
    program::{Program, command},
};

const GATEWAYS: usize = 3;
const SECOND: Duration = Duration::from_secs(1);

/// Gateways that share one backend.
struct Gateways {
    servers: Servers,
    backend: Backend,
    programs: Vec<Program>,
}

impl Gateways {
    async fn start(servers: Servers, backend: Backend) -> Self {
        let mut gateways = Self { servers, backend, programs: Vec::new() };
        for number in 0..GATEWAYS {
            gateways.programs.push(gateways.program(number).await);
        }
        gateways.owner().await;
        gateways
    }

    async fn program(&self, number: usize) -> Program {
        let sections = format!(
            "[server]\nlisten = \"127.0.0.1:0\"\ndrain_timeout = \"2s\"\n[cluster]\nnats = {:?}\nname = \
             \"gateways\"\nreplicas = {GATEWAYS}\nmember = \"gateway-{number}\"\nlease = \"4s\"\n",
            self.servers.urls()
        );
        let config = config_text(&sections, [self.backend.clone()]);
        Program::run(command(&config), "info").await
    }

    /// The number of the gateway that owns the backend, once there is one that all agree on.
    async fn owner(&self) -> usize {
        loop {
            let mut owners = BTreeMap::new();
            for (number, program) in self.programs.iter().enumerate() {
                if let Some(owner) = last_owner(&program.log(), number) {
                    *owners.entry(owner).or_insert(0) += 1;
                }
            }
            if let Some((owner, _)) = owners.iter().find(|(_, agreeing)| **agreeing == GATEWAYS) {
                return *owner;
            }
            sleep(SECOND / 10).await;
        }
    }

    /// Starts another one in the place of one that was killed.
    async fn replace_killed(&mut self, number: usize) {
        self.programs[number] = self.program(number).await;
    }
}

/// The number of the gateway that owns the backend, as this log of gateway `number` says.
fn last_owner(log: &str, number: usize) -> Option<usize> {
    let line = log.lines().rev().find(|line| line.contains("jobwatch::cluster::election"))?;
    if line.contains("this replica owns") {
        return Some(number);
    }
    let (_, rest) = line.split_once("owner=\"gateway-")?;
    rest.split('"').next()?.parse().ok()
}

/// Most requests in any second.
fn most_in_a_second(simulator: &Simulator) -> usize {
    let calls = simulator.calls();
    let within =
        |first: &Instant| calls.iter().filter(|call| call.at >= *first && call.at < *first + SECOND).count();
    calls.iter().map(|call| within(&call.at)).max().unwrap_or(0)
}

fn plan(number: usize) -> Plan {
    Plan::succeeds(Outcome::default()).id(format!("job-{number}")).running_for(Duration::from_hours(1))
}

/// Opens a watch of each job at one gateway, and waits for the first status of each.
async fn watch_all(client: &Client, jobs: &[JobRef]) -> Vec<Watch> {
    let mut watches = Vec::new();
    for job in jobs {
        watches.push(Watch::of(client, job).await);
    }
    for watch in &mut watches {
        watch.status().await;
    }
    watches
}

/// Requests in some intervals of a second.
async fn requests(simulator: &Simulator, intervals: u32) -> usize {
    simulator.clear_calls();
    sleep(SECOND * intervals).await;
    simulator.calls().iter().filter(|call| call.path.contains("job")).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_watched_through_all_gateways_cost_what_those_of_one_do() {
    const JOBS: usize = 100;
    let simulator = simulator(Vendor::Immuta).await;
    let started: Vec<_> = (0..JOBS).map(|number| simulator.start_job(plan(number))).collect();
    let jobs: Vec<JobRef> = started.iter().map(|job| job_at(&simulator, job)).collect();
    let backend = Backend::of(&simulator).every(SECOND).poll("max_batch", "20");
    let alone = {
        let config = config_text("[server]\nlisten = \"127.0.0.1:0\"", [backend.clone()]);
        let program = Program::run(command(&config), "info").await;
        let _watches = watch_all(&program.client(), &jobs).await;
        requests(&simulator, 10).await
    };
    let gateways = Gateways::start(Servers::start(3, ""), backend).await;
    let mut watches = Vec::new();
    for program in &gateways.programs {
        watches.extend(watch_all(&program.client(), &jobs).await);
    }
    let together = requests(&simulator, 10).await;
    println!("{alone} requests of one gateway, {together} of three");
    assert!(together * 10 <= alone * 11 + 50, "{alone} requests of one gateway, {together} of three");
    for job in &started {
        simulator.finish(&job.id);
    }
    for mut watch in watches {
        assert!(watch.terminal_status().await.terminal);
    }
}

/// Watches a job to its end through whatever gateway answers. Returns the statuses it saw.
async fn follow(addresses: Vec<Client>, job: JobRef, from: usize) -> Vec<(String, bool)> {
    let (mut seen, mut token, mut at) = (Vec::new(), String::new(), from);
    loop {
        let client = &addresses[at % addresses.len()];
        at += 1;
        let request =
            WatchJobRequest { job: Some(job.clone()), resume_token: token.clone(), ..Default::default() };
        let Ok(stream) = client.clone().watch_job(request).await else {
            sleep(SECOND / 10).await;
            continue;
        };
        let mut stream = stream.into_inner();
        loop {
            match stream.message().await {
                Ok(Some(response)) => {
                    token = response.resume_token;
                    if let Some(Event::Status(status)) = response.event {
                        let progress = status.progress.and_then(|progress| progress.percent);
                        seen.push((format!("{} {progress:?}", status.vendor_state), status.terminal));
                    }
                }
                Ok(None) => return seen,
                Err(error) => {
                    assert!(matches!(error.code(), Code::Unavailable | Code::Unknown), "{error:?}");
                    break;
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_terminal_status_is_lost_when_owners_are_killed_and_the_rate_holds() {
    const RATE: usize = 30;
    let simulator = simulator(Vendor::Immuta).await;
    let backend = Backend::of(&simulator)
        .every(SECOND / 2)
        .poll("requests_per_second", &RATE.to_string())
        .poll("max_batch", "5");
    let mut gateways = Gateways::start(Servers::start(1, ""), backend).await;
    simulator.clear_calls();
    for round in 0..3 {
        let started: Vec<_> = (0..10).map(|number| simulator.start_job(plan(100 * round + number))).collect();
        let mut watchers = JoinSet::new();
        for (number, job) in started.iter().enumerate() {
            let job = job_at(&simulator, job);
            let clients = gateways.programs.iter().map(Program::client).collect();
            watchers.spawn(follow(clients, job, number));
        }
        sleep(SECOND).await;
        let owner = gateways.owner().await;
        gateways.programs[owner].signal("KILL").await;
        gateways.programs[owner].exit_code().await;
        for job in &started {
            simulator.finish_with(&job.id, End::Success(Outcome::default()));
        }
        while let Some(seen) = guard(watchers.join_next()).await {
            let seen = seen.unwrap();
            assert_eq!(seen.iter().filter(|(_, terminal)| *terminal).count(), 1, "{seen:?}");
            assert!(seen.windows(2).all(|pair| pair[0] != pair[1]), "twice: {seen:?}");
        }
        gateways.replace_killed(owner).await;
        gateways.owner().await;
    }
    let most = most_in_a_second(&simulator);
    assert!(most <= RATE, "{most} requests in a second");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gateways_without_nats_serve_their_callers_within_the_rate_and_share_again_after_it() {
    const RATE: usize = 30;
    let simulator = simulator(Vendor::Immuta).await;
    let backend = Backend::of(&simulator).every(SECOND).poll("requests_per_second", &RATE.to_string());
    let mut gateways = Gateways::start(Servers::start(1, ""), backend).await;
    let started = simulator.start_job(plan(1));
    let job = job_at(&simulator, &started);
    let mut watches = Vec::new();
    for program in &gateways.programs {
        watches.extend(watch_all(&program.client(), std::slice::from_ref(&job)).await);
    }
    simulator.clear_calls();
    gateways.servers.kill_one(0);
    let other = simulator.start_job(plan(2));
    for program in &gateways.programs {
        let status = get(&program.client(), &job_at(&simulator, &other)).await.unwrap();
        assert!(!status.terminal);
    }
    simulator.finish(&started.id);
    for watch in &mut watches {
        assert!(watch.terminal_status().await.terminal);
    }
    gateways.servers.start_one(0);
    gateways.owner().await;
    let last = simulator.start_job(plan(3));
    for program in &gateways.programs {
        get(&program.client(), &job_at(&simulator, &last)).await.unwrap();
    }
    let most = most_in_a_second(&simulator);
    assert!(most <= RATE, "{most} requests in a second");
}
