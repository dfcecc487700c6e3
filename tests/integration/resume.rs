//! Resume tokens: a watch continues on the same server, after a restart, and on a replica
//! with newer or older statuses.

use jobwatch::{
    proto::v1::{JobState as S, JobStatusView, WatchJobRequest, watch_job_response::Event},
    simulators::{Plan, Vendor},
};

use crate::harness::*;

fn from(token: &str, job: &jobwatch::proto::v1::JobRef) -> WatchJobRequest {
    WatchJobRequest {
        resume_token: token.to_owned(),
        heartbeat_interval: Some(proto_ms(150)),
        ..watch_request(job)
    }
}

/// The next events are heartbeats, this many of them.
async fn stays_silent(watch: &mut Watch, heartbeats: usize) {
    for _ in 0..heartbeats {
        let event = watch.next().await.unwrap();
        assert!(matches!(event, Some(Event::Heartbeat(_))), "{event:?}");
    }
}

#[tokio::test]
async fn resumed_watch_sends_nothing_twice() {
    let (simulator, client, _gateway) = single_backend(Vendor::Immuta).await;
    let (job, mut watch) = watched_job(&simulator, &client, Plan::fixed("created")).await;
    let token = watch.token.clone();
    // On the same gateway: while another watch is open, and without any other watch.
    for _ in 0..2 {
        let mut resumed = Watch::open(&client, from(&token, &job)).await.unwrap();
        stays_silent(&mut resumed, 3).await;
        assert!(!resumed.token.is_empty());
        drop(std::mem::replace(&mut watch, resumed));
    }
    simulator.set_state(&job.job_id, "active");
    assert_eq!(watch.status().await.state(), S::Running);
    let token = watch.token.clone();
    drop(watch);
    simulator.finish(&job.job_id);
    let mut watch = Watch::open(&client, from(&token, &job)).await.unwrap();
    assert_eq!(watch.next_status().await.state(), S::Succeeded);
    let token = watch.token.clone();
    watch.end().await.unwrap();
    let mut watch = Watch::open(&client, from(&token, &job)).await.unwrap();
    assert_eq!(watch.next_status().await.state(), S::Succeeded, "OK never comes without it");
    watch.end().await.unwrap();
}

#[tokio::test]
async fn resume_after_a_restart_sends_only_changes() {
    for vendor in Vendor::ALL {
        let simulator = simulator(vendor).await;
        let (first, second) = match vendor {
            Vendor::Immuta => ("created", "active"),
            Vendor::Kinetica => ("RUNNING", "CANCELLED"),
            Vendor::Claret => ("pending", "in_progress"),
            Vendor::Datasaur => ("QUEUED", "IN_PROGRESS"),
        };
        let started = simulator.start_job(Plan::fixed(first));
        let job = job_at(&simulator, &started);
        let gateway = Gateway::start([Backend::of(&simulator)]).await;
        let mut watch = Watch::of(&gateway.client(), &job).await;
        watch.status().await;
        assert_eq!(
            code_and_reason(&{
                let stopping = gateway.stop();
                let (error, ()) = tokio::join!(watch.end(), stopping);
                error.unwrap_err()
            })
            .1,
            "SHUTTING_DOWN"
        );

        let gateway = Gateway::start([Backend::of(&simulator)]).await;
        let client = gateway.client();
        let mut watch = Watch::open(&client, from(&watch.token, &job)).await.unwrap();
        stays_silent(&mut watch, 2).await;
        simulator.set_state(&started.id, second);
        assert_eq!(watch.next_status().await.vendor_state, second);
    }
}

#[tokio::test]
async fn end_without_a_watch_is_sent_by_another_replica() {
    let simulator = simulator(Vendor::Claret).await;
    let one = Gateway::start([Backend::of(&simulator)]).await;
    let other = Gateway::start([Backend::of(&simulator)]).await;
    let started = simulator.start_job(Plan::fixed("in_progress"));
    let job = job_at(&simulator, &started);
    let mut watch = Watch::of(&one.client(), &job).await;
    watch.status().await;
    drop(one);
    simulator.finish(&started.id);
    let mut watch = Watch::open(&other.client(), from(&watch.token, &job)).await.unwrap();
    assert!(watch.next_status().await.terminal);
    watch.end().await.unwrap();
}

#[tokio::test]
async fn resume_at_a_stale_replica_sends_nothing_older() {
    let simulator = simulator(Vendor::Immuta).await;
    let started = simulator.start_job(Plan::fixed("created"));
    let job = job_at(&simulator, &started);
    let behind = Gateway::start([Backend::of(&simulator).every(ms(600_000))]).await;
    let ahead = Gateway::start([Backend::of(&simulator)]).await;
    let mut old = Watch::of(&behind.client(), &job).await;
    assert_eq!(old.status().await.state(), S::Pending);
    simulator.set_state(&started.id, "active");
    let mut watch = Watch::of(&ahead.client(), &job).await;
    assert_eq!(watch.status().await.state(), S::Running);
    drop(ahead);

    let mut watch = Watch::open(&behind.client(), from(&watch.token, &job)).await.unwrap();
    stays_silent(&mut watch, 2).await;
    assert_eq!(old.status().await.state(), S::Running, "the vendor was polled at once");
    let calls = simulator.count("");
    let mut watch = Watch::open(&behind.client(), from(&watch.token, &job)).await.unwrap();
    stays_silent(&mut watch, 2).await;
    assert_eq!(simulator.count(""), calls, "what it knows now is as new as the token");
}

#[tokio::test]
async fn state_that_recurs_is_sent_again() {
    let (simulator, client, _gateway) = single_backend(Vendor::Immuta).await;
    let (job, mut watch) = watched_job(&simulator, &client, Plan::fixed("active")).await;
    let token = watch.token.clone();
    for word in ["retry", "active"] {
        simulator.set_state(&job.job_id, word);
        assert_eq!(watch.status().await.vendor_state, word);
    }
    // The status differs from the token's: it has the error of the retry.
    let mut resumed = Watch::open(&client, from(&token, &job)).await.unwrap();
    assert_eq!(resumed.next_status().await.state(), S::Running);
}

#[tokio::test]
async fn resume_token_survives_an_outage() {
    let simulator = simulator(Vendor::Datasaur).await;
    let gateway = Gateway::start([Backend::of(&simulator)]).await;
    let client = gateway.client();
    let started = simulator.start_job(Plan::fixed("QUEUED"));
    let job = job_at(&simulator, &started);
    let mut watch = Watch::of(&client, &job).await;
    watch.status().await;
    let token = watch.token.clone();
    simulator.go_down().await;
    watch.interruption().await;
    assert_eq!(watch.token, token);
    let mut watch = Watch::open(&client, from(&watch.token, &job)).await.unwrap();
    watch.interruption().await;
    assert_eq!(watch.token, token);
    simulator.come_back().await.unwrap();
    loop {
        match watch.next().await.unwrap().unwrap() {
            Event::Interruption(_) => {}
            Event::Heartbeat(_) => break,
            Event::Status(status) => panic!("it was sent before: {status:?}"),
        }
    }
    simulator.finish(&started.id);
    assert!(watch.next_status().await.terminal);
}

#[tokio::test]
async fn resume_with_another_view_sends_the_state_again() {
    let simulator = simulator(Vendor::Immuta).await;
    let gateway = Gateway::start([Backend::of(&simulator)]).await;
    let client = gateway.client();
    let job = job_at(&simulator, &simulator.start_job(Plan::fixed("active")));
    let mut watch = Watch::of(&client, &job).await;
    watch.status().await;
    let request = WatchJobRequest { view: JobStatusView::Full.into(), ..from(&watch.token, &job) };
    let mut full = Watch::open(&client, request).await.unwrap();
    assert!(!full.next_status().await.vendor_payload.is_empty());
}
