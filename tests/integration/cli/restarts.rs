//! `jobwatch watch` through gateways that are killed and started again at their address.

use std::collections::BTreeSet;

use jobwatch::simulators::Plan;

use super::*;
use crate::languages::restarted::Restarted;

#[tokio::test]
async fn watch_through_several_kills_prints_each_end_once_and_runs_each_command_once() {
    let mut gateway = Restarted::start().await;
    let jobs: Vec<JobRef> = (0..5).map(|_| gateway.job(Plan::fixed("active"))).collect();
    let dir = tempfile::tempdir().unwrap();
    let list = dir.path().join("ended");
    let exec = format!("echo \"$JOBWATCH_JOB_ID $JOBWATCH_STATE\" >>'{}'", list.display());
    let names: Vec<String> = jobs.iter().map(|job| format!("{}/{}", job.backend, job.job_id)).collect();
    let mut args = vec!["watch", "-o", "jsonl", "--exec", &exec, "--server", &gateway.address];
    args.extend(names.iter().map(String::as_str));
    let mut command = jobwatch(&args);
    command.env("PATH", std::env::var_os("PATH").unwrap());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();

    let mut events: Vec<Value> = Vec::new();
    let is_end = |event: &Value| event["status"]["terminal"] == true;
    let ends = |events: &[Value]| events.iter().filter(|event| is_end(event)).count();
    // Each has been seen before the first kill.
    let mut seen = BTreeSet::new();
    while seen.len() < jobs.len() {
        let event: Value = serde_json::from_str(&guard(lines.next_line()).await.unwrap().unwrap()).unwrap();
        seen.insert(event["job"]["jobId"].to_string());
        events.push(event);
    }
    // One ends while there is no gateway, and one after it is back.
    for round in 0..3 {
        gateway.kill().await;
        if let Some(job) = jobs.get(2 * round) {
            gateway.simulator.finish(&job.job_id);
        }
        let before = gateway.simulator.count("");
        gateway.restart().await;
        gateway.polled(before).await;
        if let Some(job) = jobs.get(2 * round + 1) {
            gateway.simulator.finish(&job.job_id);
        }
        let wanted = (2 * round + 2).min(jobs.len());
        while ends(&events) < wanted {
            events.push(serde_json::from_str(&guard(lines.next_line()).await.unwrap().unwrap()).unwrap());
        }
    }
    while let Some(line) = guard(lines.next_line()).await.unwrap() {
        events.push(serde_json::from_str(&line).unwrap());
    }
    let ran = Ran::of(&guard(child.wait_with_output()).await.unwrap());
    assert_eq!(ran.code, Some(0), "{}", ran.err);

    let mut ended: Vec<_> =
        events.iter().filter(|event| is_end(event)).map(|event| &event["job"]["jobId"]).collect();
    ended.sort_by_key(ToString::to_string);
    let mut wanted: Vec<_> = jobs.iter().map(|job| &*job.job_id).collect();
    wanted.sort_unstable();
    assert_eq!(ended, wanted);
    let text = std::fs::read_to_string(&list).unwrap();
    let mut commands: Vec<_> = text.lines().collect();
    commands.sort_unstable();
    let mut expected: Vec<_> = wanted.iter().map(|id| format!("{id} SUCCEEDED")).collect();
    expected.sort_unstable();
    assert_eq!(commands, expected);
    assert!(ran.err.matches("connected again").count() >= 2, "{}", ran.err);
    assert!(ran.err.contains("disconnected; trying again in"), "{}", ran.err);
}

#[tokio::test]
async fn watch_on_a_board_through_a_kill_shows_each_end_once() {
    let mut gateway = Restarted::start().await;
    let jobs: Vec<JobRef> = (0..3).map(|_| gateway.job(Plan::fixed("active"))).collect();
    let names: Vec<String> = jobs.iter().map(|job| format!("{}/{}", job.backend, job.job_id)).collect();
    let args: Vec<&str> = ["watch"].into_iter().chain(names.iter().map(String::as_str)).collect();
    let terminal = terminal::Terminal::new(24, 80);
    let mut child = terminal.start_at(&args, &gateway.address, &[]);
    terminal.shows("3 jobs: 3 open").await;
    for job in &jobs {
        gateway.kill().await;
        gateway.simulator.finish(&job.job_id);
        gateway.restart().await;
        let ended = jobs.iter().position(|other| other.job_id == job.job_id).unwrap() + 1;
        if ended < jobs.len() {
            terminal.shows(&format!("3 jobs: {} open · {ended} succeeded", jobs.len() - ended)).await;
        }
    }
    assert_eq!(guard(child.wait()).await.unwrap().code(), Some(0));
    let (lines, _) = terminal.finish();
    for name in &names {
        assert_eq!(
            lines.iter().filter(|line| line.starts_with(&format!("✔ {name} "))).count(),
            1,
            "{lines:#?}"
        );
    }
}
