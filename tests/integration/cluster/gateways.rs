//! Three gateways as programs, real NATS servers, and a simulated vendor that logs requests.

use std::time::Duration;

use jobwatch::{
    proto::v1::{GetJobStatusRequest, JobRef},
    simulators::{Outcome, Plan, Simulator, Vendor},
};
use tokio::time::{Instant, sleep};

use super::{
    SECOND,
    rig::{GATEWAYS, Gateways, last_owner},
    servers::Servers,
};
use crate::{
    harness::*,
    program::{Program, command},
};

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

/// Requests in ten intervals of a second, and how many intervals they began in.
async fn requests(simulator: &Simulator) -> (usize, u64) {
    simulator.clear_calls();
    let began = Instant::now();
    sleep(SECOND * 10).await;
    (simulator.count("job"), began.elapsed().as_secs() + 1)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_watched_through_all_gateways_cost_what_those_of_one_do() {
    const JOBS: usize = 1000;
    const BATCH: usize = 100;
    let simulator = simulator(Vendor::Immuta).await;
    let started: Vec<_> = (0..JOBS).map(|number| simulator.start_job(plan(number))).collect();
    let jobs: Vec<JobRef> = started.iter().map(|job| job_at(&simulator, job)).collect();
    let backend = Backend::of(&simulator).every(SECOND).poll("max_batch", &BATCH.to_string());
    let alone = {
        let config = config_text("[server]\nlisten = \"127.0.0.1:0\"", [backend.clone()]);
        let program = Program::run(command(&config), "info").await;
        let _watches = watch_all(&program.client(), &jobs).await;
        requests(&simulator).await
    };
    let gateways = Gateways::start(Servers::start(3, ""), backend).await;
    let mut watches = Vec::new();
    for program in &gateways.programs {
        watches.extend(watch_all(&program.client(), &jobs).await);
    }
    gateways.together().await;
    let together = requests(&simulator).await;
    println!("{} requests of one gateway, {} of three", alone.0, together.0);
    // What one gateway sends at most. A busy machine sends less.
    for (requests, intervals) in [alone, together] {
        let most = JOBS.div_ceil(BATCH) * usize::try_from(intervals).unwrap();
        assert!(requests * 10 <= most * 11, "{requests} requests in {intervals} intervals");
    }
    assert!(together.0 > JOBS.div_ceil(BATCH), "they are polled");
    for job in &started {
        simulator.finish(&job.id);
    }
    for mut watch in watches {
        assert!(watch.terminal_status().await.terminal);
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
    gateways.check_rate(RATE);
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
            last_owner(&gateways.programs[*number].log(), *number).is_some_and(|(now, _)| now != owner)
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
    gateways.check_rate(RATE);
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
    let is_other = |number: usize| {
        last_owner(&gateways.programs[number].log(), number).is_some_and(|(now, _)| now != owner)
    };
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
