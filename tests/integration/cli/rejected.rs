//! Credentials that the gateway rejects, from the beginning and during a watch.

use jobwatch::{
    access::{generate_token, hash_token},
    simulators::{Plan, Vendor},
};

use super::*;
use crate::{
    harness::{Backend, config_text, job_at, simulator},
    program::{Program, command},
};

fn access(token: &str) -> String {
    format!(
        "[server]\nlisten = \"127.0.0.1:0\"\n[access]\ntokens.billing.sha256 = [\"{}\"]\n\
         policies = [{{ principals = [\"token:billing\"], backends = [\"*\"] }}]",
        hash_token(token)
    )
}

#[tokio::test]
async fn watch_with_rejected_credentials_ends_at_once() {
    let simulator = simulator(Vendor::Immuta).await;
    let job = job_at(&simulator, &simulator.start_job(Plan::fixed("active")));
    let name = format!("{}/{}", job.backend, job.job_id);
    let config = config_text(&access(&generate_token()), [Backend::of(&simulator)]);
    let program = Program::run(command(&config), "info").await;
    for token in [None, Some("wrong")] {
        let mut command =
            jobwatch(&["watch", &name, "claret/1", "--timeout", "10m", "--server", program.address()]);
        command.envs(token.map(|token| ("JOBWATCH_TOKEN", token)));
        let ran = Ran::of(&guard(command.output()).await.unwrap());
        assert_eq!((ran.code, ran.err.matches(": UNAUTHENTICATED: ").count()), (Some(3), 2), "{}", ran.err);
        assert!(ran.err.contains("with --token-file or with --cert and --key"), "{}", ran.err);
    }
}

#[tokio::test]
async fn watch_whose_token_is_revoked_is_tried_once_more_and_ends() {
    let simulator = simulator(Vendor::Immuta).await;
    let job = job_at(&simulator, &simulator.start_job(Plan::fixed("active")));
    let name = format!("{}/{}", job.backend, job.job_id);
    let token = generate_token();
    let config = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(config.path(), config_text(&access(&token), [Backend::of(&simulator)])).unwrap();
    let mut serve = jobwatch(&["serve", "--config", &config.path().display().to_string()]);
    serve.stderr(Stdio::piped());
    let other = config_text(&access(&generate_token()), [Backend::of(&simulator)]);
    let (unused, _) = command("");
    let program = Program::run((unused, serve), "info").await;

    let mut watch =
        jobwatch(&["watch", &name, "--timeout", "10m", "-o", "jsonl", "--server", program.address()]);
    watch.env("JOBWATCH_TOKEN", &token);
    let mut child = watch.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let first = guard(lines.next_line()).await.unwrap().unwrap();
    assert!(first.contains("JOB_STATE_RUNNING"), "{first}");
    std::fs::write(config.path(), other).unwrap();
    program.signal("HUP").await;
    let mut rest = Vec::new();
    while let Some(line) = guard(lines.next_line()).await.unwrap() {
        rest.push(line);
    }
    let ran = Ran::of(&guard(child.wait_with_output()).await.unwrap());
    assert_eq!(ran.code, Some(3), "{}", ran.err);
    assert_eq!(ran.err.matches("disconnected; trying again").count(), 1, "{}", ran.err);
    assert!(ran.err.contains("what the caller may do has changed"), "{}", ran.err);
    let end: Value = serde_json::from_str(rest.last().unwrap()).unwrap();
    assert_eq!(end["error"]["code"], 16, "{rest:?}");
}
