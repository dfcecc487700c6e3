//! Watches without faults: their events and their upstream cost.

use std::time::Duration;

use jobwatch::{
    proto::v1::{JobState as S, JobStatusView, WatchJobRequest, watch_job_response::Event},
    simulators::{End, Outcome, Plan, Vendor},
};

use crate::harness::*;

#[tokio::test]
async fn watch_sends_the_status_at_once_and_then_changes_only() {
    let (simulator, client, _gateway) = single_backend(Vendor::Immuta).await;
    let started = simulator.start_job(Plan::fixed("created"));
    let mut watch = Watch::of(&client, &job_at(&simulator, &started)).await;
    assert_eq!(watch.status().await.state(), S::Pending);
    guard(simulator.wait_for_responses("/jobs/statuses", 5)).await;
    simulator.set_state(&started.id, "active");
    assert_eq!(watch.status().await.state(), S::Running);
    simulator.finish(&started.id);
    let (statuses, end) = watch.rest().await;
    assert_eq!(statuses.len(), 1);
    end.unwrap();
}

#[tokio::test]
async fn watch_of_a_terminal_job_sends_its_status_and_ends() {
    let (simulator, client, _gateway) = single_backend(Vendor::Claret).await;
    let job = job_at(&simulator, &simulator.start_job(Plan::default()));
    for _ in 0..2 {
        let mut watch = Watch::of(&client, &job).await;
        assert!(watch.status().await.terminal);
        watch.end().await.unwrap();
    }
}

#[tokio::test]
async fn terminal_status_is_served_from_the_cache() {
    let (simulator, client, _gateway) = single_backend(Vendor::Immuta).await;
    let job = job_at(&simulator, &simulator.start_job(Plan::default()));
    let first = get(&client, &job).await.unwrap();
    assert_eq!(get(&client, &job).await.unwrap(), first);
    assert_eq!(Watch::of(&client, &job).await.status().await, first);
    assert_eq!(simulator.count("/jobs/statuses"), 1);
}

#[tokio::test]
async fn idle_watch_receives_heartbeats() {
    let (simulator, client, _gateway) = single_backend(Vendor::Immuta).await;
    let job = job_at(&simulator, &simulator.start_job(Plan::fixed("active")));
    let request = WatchJobRequest { heartbeat_interval: Some(proto_ms(100)), ..watch_request(&job) };
    let mut watch = Watch::open(&client, request).await.unwrap();
    let first = watch.next_status().await.observe_time.unwrap();
    let mut times = vec![(first.seconds, first.nanos)];
    for _ in 0..5 {
        let Ok(Some(Event::Heartbeat(heartbeat))) = watch.next().await else { panic!("no heartbeat") };
        let time = heartbeat.observe_time.unwrap();
        times.push((time.seconds, time.nanos));
    }
    assert!(times.is_sorted() && times.first() < times.last(), "{times:?}");
}

#[tokio::test]
async fn change_outside_the_view_is_not_sent() {
    let (simulator, client, _gateway) = single_backend(Vendor::Datasaur).await;
    let started = simulator.start_job(Plan::fixed("IN_PROGRESS"));
    let job = job_at(&simulator, &started);
    let states = WatchJobRequest { state_changes_only: true, ..watch_request(&job) };
    let mut states = Watch::open(&client, states).await.unwrap();
    let mut all = Watch::of(&client, &job).await;
    states.status().await;
    all.status().await;
    for percent in [10, 20, 30] {
        simulator.set_progress(&started.id, percent);
        assert_eq!(all.status().await.progress.unwrap().percent, Some(percent.into()));
    }
    simulator.finish(&started.id);
    assert!(all.status().await.terminal);
    assert!(states.status().await.terminal, "progress was left out");
}

#[tokio::test]
async fn payload_change_is_sent_only_in_views_that_show_it() {
    let (simulator, client, _gateway) = single_backend(Vendor::Immuta).await;
    // A retry adds a count to the payload and an error to the output.
    let started = simulator.start_job(Plan::fixed("active").retried_after("no"));
    let job = job_at(&simulator, &started);
    let open = async |view: JobStatusView| {
        let request = WatchJobRequest { view: view.into(), ..watch_request(&job) };
        let mut watch = Watch::open(&client, request).await.unwrap();
        watch.status().await;
        watch
    };
    let (mut basic, mut full) = (open(JobStatusView::Basic).await, open(JobStatusView::Full).await);
    simulator.set_state(&started.id, "retry");
    assert_eq!([basic.status().await.state(), full.status().await.state()], [S::Retrying; 2]);
    simulator.set_state(&started.id, "active");
    assert_eq!([basic.status().await.state(), full.status().await.state()], [S::Running; 2]);
    simulator.finish_with(&started.id, End::Success(Outcome::Text("done".to_owned())));
    assert!(full.status().await.result.is_some());
    assert!(basic.status().await.result.is_none());
}

#[tokio::test]
async fn job_without_subscribers_is_not_polled() {
    let (simulator, client, _gateway) = single_backend(Vendor::Claret).await;
    let left = simulator.start_job(Plan::fixed("in_progress"));
    let other = job_at(&simulator, &simulator.start_job(Plan::fixed("in_progress")));
    let mut watch = Watch::of(&client, &job_at(&simulator, &left)).await;
    watch.status().await;
    drop(watch);
    let mut watch = Watch::of(&client, &other).await;
    watch.status().await;
    // The server learns of the end of a stream a little later.
    guard(simulator.wait_for_responses("/imports/status", 10)).await;
    simulator.clear_calls();
    guard(simulator.wait_for_responses("/imports/status", 5)).await;
    assert!(simulator.calls().iter().all(|call| call.job_ids == [other.job_id.clone()]));
}

#[tokio::test]
async fn watch_poll_interval_is_clamped_to_the_minimum() {
    let simulator = simulator(Vendor::Immuta).await;
    let backend = Backend::of(&simulator).poll("min_interval", "\"100ms\"").poll("max_interval", "\"60s\"");
    let gateway = Gateway::start([backend]).await;
    let client = gateway.client();
    let job = job_at(&simulator, &simulator.start_job(Plan::fixed("active")));
    let request = WatchJobRequest { poll_interval: Some(proto_ms(1)), ..watch_request(&job) };
    let mut watch = Watch::open(&client, request).await.unwrap();
    watch.status().await;
    guard(simulator.wait_for_calls("/jobs/statuses", 10)).await;
    // Ten polls at the requested 1 ms would take a tenth of that. On a busy machine a poll
    // may arrive late, which shortens the gap before the next one.
    let calls = simulator.calls();
    let time = calls.last().unwrap().at - calls[0].at;
    let intervals = u32::try_from(calls.len() - 1).unwrap();
    assert!(time >= intervals * ms(100) / 2, "{intervals} intervals in {time:?}");
}

const INTERVAL: Duration = ms(100);

/// Upstream requests of two seconds for this number of watches of one job.
async fn cost_of(watchers: usize) -> usize {
    let simulator = simulator(Vendor::Immuta).await;
    let gateway = Gateway::start([Backend::of(&simulator).every(INTERVAL)]).await;
    let started = simulator.start_job(Plan::fixed("active"));
    let job = job_at(&simulator, &started);
    // One client connection for a hundred watches.
    let clients: Vec<_> = (0..watchers.div_ceil(100)).map(|_| gateway.client()).collect();
    let mut open = Vec::new();
    for index in 0..watchers {
        open.push(Watch::of(&clients[index / 100], &job).await);
    }
    for watch in &mut open {
        watch.next_status().await;
    }
    simulator.clear_calls();
    guard(simulator.wait_for_calls("/jobs/statuses", 1)).await;
    let since = simulator.calls()[0].at;
    let window = ms(2000);
    while simulator.calls().last().unwrap().at < since + window {
        guard(simulator.wait_for_calls("/jobs/statuses", simulator.count("") + 1)).await;
    }
    let count = simulator.calls().iter().filter(|call| call.at < since + window).count();
    simulator.finish(&started.id);
    for watch in &mut open {
        assert!(watch.next_status().await.terminal);
        watch.end().await.unwrap();
    }
    count
}

#[tokio::test]
async fn hundred_watches_of_one_job_cost_one_poll_per_interval() {
    for watchers in [1, 100, 1000] {
        let requests = cost_of(watchers).await;
        println!("{watchers:>5} watchers of one job: {requests} upstream requests in 2 s at {INTERVAL:?}");
        // Two intervals more, since a late first poll shortens the time to the second.
        assert!(requests <= 22, "{requests} for {watchers} watchers");
    }
}

#[tokio::test]
async fn gets_with_max_age_share_the_polls_of_a_watched_job() {
    let simulator = simulator(Vendor::Immuta).await;
    let gateway = Gateway::start([Backend::of(&simulator).every(ms(60_000))]).await;
    let client = gateway.client();
    let job = job_at(&simulator, &simulator.start_job(Plan::fixed("active")));
    let mut watch = Watch::of(&client, &job).await;
    watch.status().await;
    let before = simulator.count("");
    let mut request = get_request(&job);
    request.max_age = Some(proto_ms(60_000));
    for _ in 0..10 {
        get_status(&client, request.clone()).await.unwrap();
    }
    assert_eq!(simulator.count(""), before);
    get(&client, &job).await.unwrap();
    assert_eq!(simulator.count(""), before + 1, "without max_age the vendor is polled");
}

#[tokio::test]
async fn get_with_wait_returns_at_the_end_of_the_job_or_the_wait() {
    let (simulator, client, _gateway) = single_backend(Vendor::Kinetica).await;
    let job = job_at(&simulator, &simulator.start_job(Plan::default().running_for(ms(400))));
    let mut request = get_request(&job);
    request.wait = Some(proto_ms(15_000));
    assert!(get_status(&client, request).await.unwrap().terminal);
    let job = job_at(&simulator, &simulator.start_job(Plan::fixed("RUNNING")));
    let mut request = get_request(&job);
    request.wait = Some(proto_ms(300));
    assert_eq!(get_status(&client, request).await.unwrap().state(), S::Running);
}

#[tokio::test]
async fn job_that_appears_within_the_grace_is_found() {
    let simulator = simulator(Vendor::Datasaur).await;
    let grace = "\"5s\"";
    let gateway = Gateway::start([Backend::of(&simulator).poll("not_found_grace", grace)]).await;
    let client = gateway.client();
    let plan = Plan::fixed("QUEUED").appears_after(ms(600));
    let job = job_at(&simulator, &simulator.start_job(plan));
    assert_eq!(
        code_and_reason(&get(&client, &job).await.unwrap_err()).1,
        "JOB_NOT_FOUND",
        "a get does not wait"
    );
    let mut watch = Watch::of(&client, &job).await;
    assert_eq!(watch.status().await.state(), S::Pending);
}

#[tokio::test]
async fn job_that_never_appears_is_not_found_after_the_grace() {
    let simulator = simulator(Vendor::Immuta).await;
    let gateway = Gateway::start([Backend::of(&simulator).poll("not_found_grace", "\"600ms\"")]).await;
    let mut watch = Watch::of(&gateway.client(), &job("immuta", "nobody")).await;
    assert_eq!(code_and_reason(&watch.end().await.unwrap_err()).1, "JOB_NOT_FOUND");
    let calls = simulator.calls();
    assert!(calls.last().unwrap().at - calls[0].at >= ms(500), "it was polled during the grace");
}

#[tokio::test]
async fn job_that_vanishes_is_gone_with_its_last_status() {
    for vendor in Vendor::ALL {
        let (simulator, client, _gateway) = single_backend(vendor).await;
        let word = match vendor {
            Vendor::Immuta => "active",
            Vendor::Kinetica => "RUNNING",
            Vendor::Claret => "in_progress",
            Vendor::Datasaur => "IN_PROGRESS",
        };
        let started = simulator.start_job(Plan::fixed(word));
        let job = job_at(&simulator, &started);
        let (mut watch, mut other) = (Watch::of(&client, &job).await, Watch::of(&client, &job).await);
        watch.status().await;
        other.status().await;
        simulator.forget(&started.id);
        for watch in [&mut watch, &mut other] {
            let error = decode_error(&watch.end().await.unwrap_err());
            assert_eq!((error.code, &*error.reason), (tonic::Code::NotFound, "JOB_GONE"));
            assert!(error.message.contains("RUNNING") && error.message.contains(word), "{}", error.message);
        }
    }
}
