//! Clients that are generated from the contract in other languages, each beside that
//! ecosystem's own package of Google's common types, in one program.

use std::{path::Path, time::Duration};

use jobwatch::simulators::{Plan, Vendor};
use tokio::process::Command;

use crate::{harness::*, program::Program};

/// A C++ compiler takes a minute on a machine at rest.
const PATIENCE: Duration = Duration::from_mins(15);

async fn passes(language: &str) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let tools = root.join(".tools");
    assert!(tools.join("languages").exists(), "make tools installs what clients of other languages need");
    let simulator = simulator(Vendor::Immuta).await;
    let program = Program::start([Backend::of(&simulator)], "info").await;
    let job = job_at(&simulator, &simulator.start_job(Plan::default()));
    let mut command = Command::new(root.join("tests/clients/languages.sh"));
    command.arg(language).arg(tools).args([program.address(), &job.backend, &job.job_id]);
    let output = tokio::time::timeout(PATIENCE, command.kill_on_drop(true).output()).await;
    let output = output.expect("it ends in time").unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success() && out == "all good\n", "{out}{err}");
}

#[tokio::test]
async fn cpp_client_is_generated_beside_googleapis() {
    passes("cpp").await;
}

#[tokio::test]
async fn go_client_is_generated_beside_googleapis() {
    passes("go").await;
}

#[tokio::test]
async fn java_client_is_generated_beside_googleapis() {
    passes("java").await;
}

#[tokio::test]
async fn ruby_client_is_generated_beside_googleapis() {
    passes("ruby").await;
}
