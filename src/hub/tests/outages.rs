//! What followers and reports tell while a backend can't be asked.

use super::*;

#[tokio::test(start_paused = true)]
async fn an_outage_is_told_once_and_its_end_too() {
    let rig = rig();
    rig.script.set("a", JobState::Running);
    let mut watch = rig.watch("a");
    assert_eq!(said(&mut watch).await, "Running");
    rig.script.go_down();
    assert_eq!(said(&mut watch).await, "interrupted: the vendor gave no usable response: down");
    pass(2 * SECOND).await;
    rig.script.come_back();
    assert_eq!(said(&mut watch).await, "heartbeat", "nothing changed, and that is known again");
    rig.script.go_down();
    assert!(said(&mut watch).await.starts_with("interrupted"));
    rig.script.set("a", JobState::Succeeded);
    rig.script.come_back();
    assert_eq!([said(&mut watch).await, said(&mut watch).await], ["Succeeded", "end"]);
}

#[tokio::test(start_paused = true)]
async fn an_outage_that_lasts_is_told_again_instead_of_a_heartbeat() {
    let rig = rig();
    rig.script.go_down();
    let mut watch = rig.watch("a");
    for _ in 0..3 {
        assert!(said(&mut watch).await.starts_with("interrupted"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_begins_in_an_outage_is_told_at_once() {
    let rig = rig();
    rig.script.fail(FaultKind::CredentialsRejected);
    let mut first = rig.watch("a");
    assert!(said(&mut first).await.starts_with("interrupted"));
    pass(60 * SECOND).await;
    let started = Instant::now();
    let mut second = rig.watch("b");
    assert!(said(&mut second).await.starts_with("interrupted: the vendor rejects"));
    assert!(started.elapsed() < SECOND);
}

#[tokio::test(start_paused = true)]
async fn the_report_follows_the_circuit() {
    let rig = rig();
    let health = || {
        let report = rig.hub.report().remove(1);
        assert_eq!(&*report.name, "vendor");
        (report.report.health, report.report.last_fault.is_some(), report.report.followed)
    };
    assert_eq!(health(), (Health::Unknown, false, 0));
    rig.script.set("a", JobState::Running);
    let _watch = rig.watch("a");
    pass(SECOND / 2).await;
    assert_eq!(health(), (Health::Healthy, false, 1));
    rig.script.go_down();
    pass(SECOND).await;
    assert_eq!(health(), (Health::Degraded, true, 1));
    pass(120 * SECOND).await;
    assert_eq!(health(), (Health::Unavailable, true, 1));
    rig.script.come_back();
    pass(31 * SECOND).await;
    assert_eq!(health(), (Health::Healthy, false, 1));
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_begins_during_a_slow_probe_is_told_of_the_outage_at_once() {
    let rig = rig();
    let _first = rig.watch("a");
    rig.script.go_down();
    pass(400 * SECOND).await;
    rig.script.set_latency(15 * SECOND);
    while rig.script.under_way() == 0 {
        pass(SECOND / 10).await;
    }
    let started = Instant::now();
    let mut second = rig.watch("b");
    assert!(said(&mut second).await.starts_with("interrupted"));
    assert!(started.elapsed() < SECOND);
}
