//! What operators find of jobs: their histories, recent events, searches.

use super::rig::*;
use crate::{
    engine::{JobFilter, JobHistory, JobStatuses, Phase, RecentEvent, Show},
    job::{FaultKind, JobState},
};

fn phases(history: &JobHistory) -> Vec<Phase> {
    history.steps.iter().map(|step| step.phase).collect()
}

/// The names of what happened, the newest first.
fn events(rig: &Rig) -> Vec<String> {
    let recent = rig.engine.recent(100).into_iter();
    let name = |event| match event {
        RecentEvent::Ended { job, state, .. } => format!("{job} {state:?}"),
        RecentEvent::JobFailed { job, phase, .. } => format!("{job} {phase:?}"),
        RecentEvent::BackendFailed(_) => "failed".to_owned(),
        RecentEvent::BackendRecovered { .. } => "recovered".to_owned(),
    };
    let mut names: Vec<_> = recent.map(|(_, recent)| name(recent.event)).collect();
    // Those of one millisecond are in no order.
    names.sort();
    names
}

#[tokio::test(start_paused = true)]
async fn history_of_a_job_has_its_states_and_outlives_its_watch() {
    let rig = rig();
    rig.script.set("a", JobState::Pending);
    let mut watch = rig.watch("a");
    assert_eq!(event(&mut watch).await, "Pending");
    rig.script.set("a", JobState::Running);
    assert_eq!(event(&mut watch).await, "Running");
    let (pending, running) = (Phase::In(JobState::Pending), Phase::In(JobState::Running));
    let detail = rig.engine.job_detail(&job("a")).unwrap();
    assert_eq!(phases(&detail.history), [pending, running]);
    assert_eq!(detail.report.unwrap().subscribers, 1);
    rig.script.set("a", JobState::Succeeded);
    assert_eq!([event(&mut watch).await, event(&mut watch).await], ["Succeeded", "end"]);
    drop(watch);
    let detail = rig.engine.job_detail(&job("a")).unwrap();
    assert!(detail.report.is_none());
    assert_eq!(detail.latest.unwrap().snapshot.state, JobState::Succeeded);
    assert_eq!(phases(&detail.history), [pending, running, Phase::In(JobState::Succeeded)]);
    assert_eq!(events(&rig), ["vendor/a Succeeded"]);
    assert!(rig.engine.job_detail(&job("b")).is_none());
}

#[tokio::test(start_paused = true)]
async fn poll_without_a_change_of_state_adds_nothing_to_the_history() {
    let rig = rig();
    rig.script.set("a", JobState::Running);
    let mut watch = rig.watch("a");
    assert_eq!(event(&mut watch).await, "Running");
    pass(100 * SECOND).await;
    let detail = rig.engine.job_detail(&job("a")).unwrap();
    assert_eq!(phases(&detail.history), [Phase::In(JobState::Running)]);
}

#[tokio::test(start_paused = true)]
async fn outage_is_one_recent_event_however_many_jobs_wait_and_so_is_its_end() {
    let rig = rig_with(limits(many_watches()));
    let mut watches = Vec::new();
    for id in 0..300 {
        rig.script.set(&id.to_string(), JobState::Running);
        watches.push(rig.watch(&id.to_string()));
    }
    for watch in &mut watches {
        assert_eq!(event(watch).await, "Running");
    }
    rig.script.fail(FaultKind::Unreachable { why: "no route".to_owned() });
    assert!(event(&mut watches[0]).await.starts_with("interrupted"));
    pass(60 * SECOND).await;
    assert_eq!(events(&rig), ["failed"]);
    rig.script.recover();
    pass(60 * SECOND).await;
    assert_eq!(events(&rig), ["failed", "recovered"]);
    let detail = rig.engine.job_detail(&job("7")).unwrap();
    assert_eq!(phases(&detail.history), [Phase::In(JobState::Running)]);
}

#[tokio::test(start_paused = true)]
async fn missing_job_is_one_recent_event() {
    let rig = rig();
    let mut watch = rig.watch("a");
    assert!(event(&mut watch).await.contains("does not know"));
    assert_eq!(events(&rig), ["vendor/a Missing"]);
}

#[tokio::test(start_paused = true)]
async fn search_looks_at_a_bounded_part_of_the_table_and_finds_each_job_once() {
    const JOBS: usize = 9000;
    let rig = rig_with(limits(many_watches()));
    let mut watches = Vec::new();
    for id in 0..JOBS {
        let id = format!("Job-{id}");
        rig.script.set(&id, JobState::Running);
        watches.push(rig.watch(&id));
    }
    let find = |text: &str, limit| {
        let filter = JobFilter { text: text.to_owned(), show: Show::All };
        let (mut found, mut next, mut looks) = (Vec::new(), Some(0), 0);
        while let Some(from) = next {
            let page = rig.engine.find_jobs("vendor", from, limit, &filter).unwrap();
            assert!(page.jobs.len() <= limit);
            found.extend(page.jobs.into_iter().map(|job| job.report.job.id.to_string()));
            (next, looks) = (page.next, looks + 1);
        }
        found.sort();
        found.dedup();
        (found, looks)
    };
    let (found, looks) = find("JOB-8999", 50);
    assert_eq!(found, ["Job-8999"]);
    assert!((3..=6).contains(&looks), "{looks} looks at {JOBS} jobs");
    assert_eq!(find("", 50).0.len(), JOBS);
    assert_eq!(find("job-1", 1000).0.len(), 1 + 10 + 100 + 1000);
    assert!(find("none", 50).0.is_empty());
    assert!(rig.engine.find_jobs("nowhere", 0, 1, &JobFilter::default()).is_none());
    assert_eq!(rig.engine.backend_names().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn filters_find_failing_and_quarantined_jobs() {
    let rig = rig();
    rig.script.set("good", JobState::Running);
    let (mut good, mut missing) = (rig.watch("good"), rig.watch("missing"));
    assert_eq!(event(&mut good).await, "Running");
    let find = |show| {
        let filter = JobFilter { text: String::new(), show };
        let found = rig.engine.find_jobs("vendor", 0, 50, &filter).unwrap().jobs.into_iter();
        found.map(|job| job.report.job.id.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(find(Show::All), ["good", "missing"]);
    assert_eq!(find(Show::Failing), ["missing"]);
    assert_eq!(find(Show::Quarantined), [""; 0]);
    assert!(event(&mut missing).await.contains("does not know"));
}
