//! Clients in other languages: generated from the contract, each beside that ecosystem's own
//! package of Google's common types, the packages of `clients/`, and the programs of `examples/`,
//! through kills of the real gateway.

mod page;
mod programs;
pub(crate) mod restarted;
#[allow(dead_code, unreachable_pub, reason = "a program of its own, too")]
#[path = "../../examples/client.rs"]
mod rust_example;

use std::path::{Path, PathBuf};

use jobwatch::simulators::{Plan, Vendor};
use tempfile::TempDir;
use tokio::process::Command;

use self::programs::*;
use crate::{harness::*, program::Program};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Where `make tools` has installed what clients of other languages need.
fn build_tools() -> PathBuf {
    let tools = root().join(".tools");
    assert!(tools.join("languages").exists(), "make tools installs what clients of other languages need");
    tools
}

/// Builds programs with a script of `tests/clients` in a new directory.
async fn build(script: &str, language: &[&str]) -> TempDir {
    let tools = build_tools();
    let out = tempfile::tempdir().unwrap();
    let mut command = Command::new(root().join("tests/clients").join(script));
    command.args(language).arg(tools).arg(out.path());
    run(command).await;
    out
}

/// Runs an example, and compares what it prints.
async fn example_works(example: Example<'_>) {
    watches_through_kills(example).await;
    waits_through_kills(example).await;
    writes_large_result(example).await;
    shows_errors(example).await;
}

/// A client of the contract and Google's types work in one program, and the example works.
async fn language_works(language: &str) {
    let built = build("languages.sh", &[language]).await;
    let simulator = simulator(Vendor::Immuta).await;
    let program = Program::start([Backend::of(&simulator)], "info").await;
    let job = job_at(&simulator, &simulator.start_job(Plan::default()));
    let mut check = Command::new(built.path().join("check"));
    check.args([program.address(), &job.backend, &job.job_id]);
    assert_eq!(run(check).await, "all good\n");
    example_works(Example::Program(&built.path().join("example"))).await;
}

/// The checks of one of the packages.
async fn package_works(check: PathBuf) {
    let simulator = simulator(Vendor::Immuta).await;
    let backends = [
        Backend::of(&simulator),
        Backend::dead(Vendor::Immuta).await.named("down"),
        Backend::of(&simulator).named("locked").credentials("{ api_key = \"wrong\" }"),
    ];
    let program = Program::start(backends, "info").await;
    let mut check = Command::new(check);
    check.args([program.address(), &simulator.base_url()]);
    let printed = run(check).await;
    assert!(printed.starts_with("ok ") && printed.ends_with("all good\n"), "{printed}");
}

#[tokio::test]
async fn cpp_client_and_example_work() {
    language_works("cpp").await;
}

#[tokio::test]
async fn go_client_and_example_work() {
    language_works("go").await;
}

#[tokio::test]
async fn java_client_and_example_work() {
    language_works("java").await;
}

#[tokio::test]
async fn ruby_client_and_example_work() {
    language_works("ruby").await;
}

#[tokio::test]
async fn python_package_is_typed_and_resumes_through_kills() {
    let built = build("python.sh", &[]).await;
    example_works(Example::Program(&built.path().join("example"))).await;
    example_works(Example::Program(&built.path().join("example-asyncio"))).await;
    package_works(built.path().join("check")).await;
    page::python_runs(built.path()).await;
}

#[tokio::test]
async fn typescript_package_is_typed_and_resumes_through_kills() {
    let built = build("typescript.sh", &[]).await;
    example_works(Example::Program(&built.path().join("example"))).await;
    package_works(built.path().join("check")).await;
    page::typescript_runs(built.path()).await;
}

#[tokio::test]
async fn rust_example_resumes_through_kills() {
    example_works(Example::Rust).await;
}
