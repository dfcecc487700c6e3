//! Three gateways as programs, real NATS servers, and a simulated vendor that logs requests.

use std::{collections::BTreeMap, time::Duration};

use jobwatch::{
    cluster::{
        election::Election,
        lease::{Member, Ownership, Timing},
        nats::Nats,
    },
    config::Config,
    proto::v1::{GetJobStatusRequest, JobRef, WatchJobRequest, watch_job_response::Event},
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
    lease: Duration,
    programs: Vec<Program>,
}

impl Gateways {
    async fn start(servers: Servers, backend: Backend) -> Self {
        Self::start_with(servers, backend, 4 * SECOND).await
    }

    async fn start_with(servers: Servers, backend: Backend, lease: Duration) -> Self {
        release_a_lease(&servers).await;
        let mut gateways = Self { servers, backend, lease, programs: Vec::new() };
        for number in 0..GATEWAYS {
            gateways.programs.push(gateways.program(number).await);
        }
        gateways.owner().await;
        gateways
    }

    async fn program(&self, number: usize) -> Program {
        let sections = format!(
            "[server]\nlisten = \"127.0.0.1:0\"\ndrain_timeout = \"60s\"\n[cluster]\nnats = {:?}\nname = \
             \"gateways\"\nreplicas = {GATEWAYS}\nmember = \"gateway-{number}\"\nlease = \"{}s\"\n[limits]\n\
             inline_result_bytes = \"16 MiB\"\nmessage_bytes = \"32 MiB\"\n",
            self.servers.urls(),
            self.lease.as_secs()
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

/// Has a lease taken and released, so that gateways with a longer one needn't wait for a whole
/// one at their first start.
async fn release_a_lease(servers: &Servers) {
    let section = format!("[cluster]\nnats = {:?}\nname = \"gateways\"\nreplicas = 1\n", servers.urls());
    let dead = "[backends.immuta]\nvendor = \"kinetica\"\nbase_url = \"http://127.0.0.1:1\"\n";
    let cluster = Config::parse(&format!("{dead}{section}"), []).unwrap().cluster.unwrap();
    let (nats, _messages) = Nats::start(&cluster, 99);
    let me = Member { name: "first".into(), incarnation: 99 };
    let election = Election::start(nats, "immuta", me, Timing::of_lease(3 * SECOND), |_| None);
    let is_owner = |ownership: &Ownership| matches!(ownership, Ownership::Owner { .. });
    guard(election.ownership().wait_for(is_owner)).await.expect("it goes on");
    election.release(super::PATIENCE).await;
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

/// How many seconds the requests are counted over. A busy machine delays some, which then arrive
/// with later ones; in a single second that would look like too many.
const SECONDS: u32 = 5;

/// Checks that the vendor has not received more than the rate allows.
fn check_rate(simulator: &Simulator, rate: usize) {
    let calls = simulator.calls();
    let end = |from: Instant| from + SECOND * SECONDS;
    let within = |from: Instant| calls.iter().filter(|call| call.at >= from && call.at < end(from)).count();
    let most = calls.iter().map(|call| within(call.at)).max().unwrap_or(0);
    let in_a_second = calls
        .iter()
        .map(|call| calls.iter().filter(|other| other.at >= call.at && other.at < call.at + SECOND).count());
    println!("at most {} requests in a second, {most} in {SECONDS}", in_a_second.max().unwrap_or(0));
    assert!(most <= rate * SECONDS as usize, "{most} requests in {SECONDS} seconds");
}

fn plan(number: usize) -> Plan {
    Plan::succeeds(Outcome::default()).id(format!("job-{number}")).running_for(Duration::from_hours(1))
}

/// How many owners are killed, one after the other: `JOBWATCH_KILLS`, or a few.
fn kills() -> usize {
    std::env::var("JOBWATCH_KILLS").map_or(3, |kills| kills.parse().expect("JOBWATCH_KILLS is a number"))
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
    for round in 0..kills() {
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
        check_rate(&simulator, RATE);
        simulator.clear_calls();
    }
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
    check_rate(&simulator, RATE);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn owner_that_is_stopped_and_continued_sends_within_the_rate_and_follows_afterwards() {
    const RATE: usize = 30;
    let simulator = simulator(Vendor::Immuta).await;
    let backend = Backend::of(&simulator)
        .every(SECOND / 5)
        .poll("requests_per_second", &RATE.to_string())
        .poll("max_batch", "2");
    let gateways = Gateways::start(Servers::start(1, ""), backend).await;
    let started: Vec<_> = (0..20).map(|number| simulator.start_job(plan(number))).collect();
    let jobs: Vec<JobRef> = started.iter().map(|job| job_at(&simulator, job)).collect();
    let mut watches = Vec::new();
    for program in &gateways.programs {
        watches.extend(watch_all(&program.client(), &jobs).await);
    }
    simulator.clear_calls();
    let owner = gateways.owner().await;
    gateways.programs[owner].signal("STOP").await;
    // Until another one owns the backend, and this one has not noticed.
    let others: Vec<usize> = (0..GATEWAYS).filter(|number| *number != owner).collect();
    until(|| {
        others.iter().any(|number| {
            last_owner(&gateways.programs[*number].log(), *number).is_some_and(|now| now != owner)
        })
    })
    .await;
    gateways.programs[owner].signal("CONT").await;
    assert_ne!(gateways.owner().await, owner);
    for job in &started {
        simulator.finish(&job.id);
    }
    for watch in &mut watches {
        assert!(watch.terminal_status().await.terminal);
    }
    check_rate(&simulator, RATE);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn owner_that_shuts_down_leaves_the_backend_to_another_at_once() {
    let simulator = simulator(Vendor::Immuta).await;
    let lease = Duration::from_mins(2);
    let gateways =
        Gateways::start_with(Servers::start(1, ""), Backend::of(&simulator).every(SECOND), lease).await;
    let started = simulator.start_job(plan(1));
    let job = job_at(&simulator, &started);
    let owner = gateways.owner().await;
    let follower = (owner + 1) % GATEWAYS;
    let mut watch = watch_all(&gateways.programs[follower].client(), std::slice::from_ref(&job)).await;
    // A call that the owner still has is served to its end.
    let last = simulator.start_job(plan(2));
    let last_job = job_at(&simulator, &last);
    let client = gateways.programs[owner].client();
    let waiting = tokio::spawn(async move {
        let request = GetJobStatusRequest { wait: Some(proto_ms(120_000)), ..get_request(&last_job) };
        get_status(&client, request).await
    });
    until(|| simulator.calls().iter().any(|call| call.job_ids.contains(&last.id))).await;
    let began = Instant::now();
    gateways.programs[owner].signal("TERM").await;
    simulator.finish(&started.id);
    gateways.programs[owner].logged("shutdown began").await;
    simulator.finish(&last.id);
    assert!(waiting.await.unwrap().unwrap().terminal);
    assert!(watch[0].terminal_status().await.terminal);
    let is_other =
        |number: usize| last_owner(&gateways.programs[number].log(), number).is_some_and(|now| now != owner);
    until(|| (0..GATEWAYS).filter(|number| *number != owner).all(is_other)).await;
    let logs: Vec<String> =
        gateways.programs.iter().map(Program::log).filter(|_| began.elapsed() >= lease / 2).collect();
    assert!(began.elapsed() < lease / 2, "{:?}: {}", began.elapsed(), logs.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_result_through_a_follower_has_the_same_bytes() {
    let simulator = simulator(Vendor::Immuta).await;
    let backend = Backend::of(&simulator).every(SECOND).poll("max_response_bytes", "\"64 MiB\"");
    let gateways = Gateways::start(Servers::start(1, ""), backend).await;
    let text = Outcome::text_of_size(8 << 20);
    let started = simulator.start_job(Plan::succeeds(Outcome::Size(text.len())));
    let job = job_at(&simulator, &started);
    for program in &gateways.programs {
        let client = program.client().max_decoding_message_size(64 << 20);
        let status = get_status(&client, full(&job)).await.unwrap();
        let data = status.result.expect("it has a result").data;
        assert!(String::from_utf8_lossy(&data).contains(&text), "the bytes differ");
    }
}
