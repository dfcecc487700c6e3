//! Secrets that change while watches are open.

use std::{
    fs,
    path::{Path, PathBuf},
};

use futures_util::future::join_all;
use jobwatch::{
    proto::v1::JobRef,
    simulators::{Plan, Simulator, Vendor, credentials},
};
use tempfile::TempDir;
use tokio::process::Command;

use crate::{
    harness::*,
    program::{Program, command},
};

const NEW: &str = "another+secret=1";

/// A vendor, and a file with the gateway's secret for it.
struct Fixture {
    dir: TempDir,
    simulator: Simulator,
    job: JobRef,
}

impl Fixture {
    async fn new(vendor: Vendor, secret: &str) -> Self {
        let simulator = simulator(vendor).await;
        let word = match vendor {
            Vendor::Immuta => "active",
            Vendor::Kinetica => "RUNNING",
            Vendor::Claret => "in_progress",
            Vendor::Datasaur => "IN_PROGRESS",
        };
        let job = job_at(&simulator, &simulator.start_job(Plan::fixed(word)));
        let dir = tempfile::tempdir().unwrap();
        let fixture = Self { dir, simulator, job };
        fs::write(fixture.path("key"), secret).unwrap();
        fixture
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The backend with its secret in `{ file = .. }` or `{ env = .. }`.
    fn backend(&self, kind: Kind, place: &str) -> Backend {
        let credentials = match kind {
            Kind::Key => format!("{{ api_key = {place} }}"),
            Kind::Exchange => format!("{{ api_key = {place}, exchange = true }}"),
            Kind::Bearer => format!("{{ bearer = {place} }}"),
            Kind::Basic => format!("{{ username = {:?}, password = {place} }}", credentials::KINETICA_USER),
            Kind::Login => format!("{{ email = {:?}, password = {place} }}", credentials::CLARET_EMAIL),
            Kind::Client => {
                format!("{{ client_id = {:?}, client_secret = {place} }}", credentials::DATASAUR_CLIENT_ID)
            }
        };
        Backend::of(&self.simulator).credentials(credentials)
    }

    fn in_file(&self, kind: Kind) -> Backend {
        let file = self.path("key").display().to_string();
        self.backend(kind, &format!("{{ file = {file:?} }}"))
    }

    /// The vendor accepts another secret, and no longer the previous one or its tokens.
    fn revoke(&self) {
        self.simulator.set_secret(NEW);
        self.simulator.expire_tokens();
    }

    fn finish(&self) {
        assert!(self.simulator.finish(&self.job.job_id));
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Key,
    Exchange,
    Bearer,
    Basic,
    Login,
    Client,
}

fn replace(path: &Path, content: &str) {
    let new = path.with_extension("new");
    fs::write(&new, content).unwrap();
    fs::rename(new, path).unwrap();
}

#[tokio::test]
async fn watch_continues_with_a_rotated_secret() {
    let cases = [
        (Vendor::Immuta, Kind::Key, credentials::IMMUTA_API_KEY),
        (Vendor::Immuta, Kind::Exchange, credentials::IMMUTA_API_KEY),
        (Vendor::Immuta, Kind::Bearer, ""),
        (Vendor::Kinetica, Kind::Basic, credentials::KINETICA_PASSWORD),
        (Vendor::Kinetica, Kind::Bearer, ""),
        (Vendor::Claret, Kind::Login, credentials::CLARET_PASSWORD),
        (Vendor::Datasaur, Kind::Client, credentials::DATASAUR_CLIENT_SECRET),
    ];
    join_all(cases.map(|(vendor, kind, secret)| async move {
        let fixture = Fixture::new(vendor, secret).await;
        if kind == Kind::Bearer {
            fs::write(fixture.path("key"), fixture.simulator.issue_token()).unwrap();
        }
        let gateway = Gateway::start([fixture.in_file(kind)]).await;
        let mut watch = Watch::of(&gateway.client(), &fixture.job).await;
        assert!(!watch.status().await.terminal, "{vendor} {kind:?}");

        fixture.revoke();
        let new = if kind == Kind::Bearer { fixture.simulator.issue_token() } else { NEW.to_owned() };
        fs::write(fixture.path("key"), new).unwrap();
        fixture.finish();
        assert!(watch.next_status().await.terminal, "{vendor} {kind:?}");
        watch.end().await.unwrap();
    }))
    .await;
}

#[tokio::test]
async fn rotated_secret_with_a_valid_token_causes_no_error() {
    for (vendor, kind, secret, trade) in [
        (Vendor::Claret, Kind::Login, credentials::CLARET_PASSWORD, "/tokens/create"),
        (Vendor::Datasaur, Kind::Client, credentials::DATASAUR_CLIENT_SECRET, "/oauth/token"),
    ] {
        let fixture = Fixture::new(vendor, secret).await;
        let gateway = Gateway::start([fixture.in_file(kind)]).await;
        let mut watch = Watch::of(&gateway.client(), &fixture.job).await;
        watch.status().await;
        fixture.simulator.set_secret(NEW);
        fs::write(fixture.path("key"), NEW).unwrap();
        guard(fixture.simulator.wait_for_responses(trade, 2)).await;
        fixture.finish();
        assert!(watch.status().await.terminal, "there was no interruption");
        assert_eq!(fixture.simulator.count(trade), 2);
    }
}

#[cfg(unix)]
#[tokio::test]
async fn secret_symlink_that_is_replaced_is_reread() {
    use std::os::unix::fs::symlink;

    let fixture = Fixture::new(Vendor::Immuta, "").await;
    for (version, secret) in [("..1", credentials::IMMUTA_API_KEY), ("..2", NEW)] {
        fs::create_dir(fixture.path(version)).unwrap();
        fs::write(fixture.path(version).join("key"), secret).unwrap();
    }
    fs::remove_file(fixture.path("key")).unwrap();
    symlink("..data/key", fixture.path("key")).unwrap();
    symlink("..1", fixture.path("..data")).unwrap();
    let gateway = Gateway::start([fixture.in_file(Kind::Key)]).await;
    let mut watch = Watch::of(&gateway.client(), &fixture.job).await;
    watch.status().await;

    fixture.revoke();
    symlink("..2", fixture.path("..tmp")).unwrap();
    fs::rename(fixture.path("..tmp"), fixture.path("..data")).unwrap();
    fixture.finish();
    assert!(watch.next_status().await.terminal);
}

#[tokio::test]
async fn emptied_secret_file_keeps_the_secret_and_is_logged_once() {
    let fixture = Fixture::new(Vendor::Immuta, credentials::IMMUTA_API_KEY).await;
    let program = Program::start([fixture.in_file(Kind::Key)], "info").await;
    let client = program.client();
    let mut watch = Watch::of(&client, &fixture.job).await;
    watch.status().await;

    fs::write(fixture.path("key"), "").unwrap();
    until(|| program.log().contains("which is empty")).await;
    get(&client, &fixture.job).await.unwrap();

    fixture.revoke();
    replace(&fixture.path("key"), NEW);
    fixture.finish();
    assert!(watch.next_status().await.terminal);
    let replaced = "secret replaced key=\"backends.immuta.credentials.api_key\"";
    until(|| program.log().contains(replaced)).await;
    let log = program.log();
    assert_eq!(log.matches("which is empty").count(), 1, "{log}");
    assert_eq!(log.matches(replaced).count(), 1, "{log}");
    assert!(!log.contains(NEW) && !log.contains(credentials::IMMUTA_API_KEY), "{log}");
}

/// `jobwatch serve` with an environment file and an environment of its own.
fn with_env_file(backend: Backend, env_file: &Path) -> (tempfile::NamedTempFile, Command) {
    let config = config_text("[server]\nlisten = \"127.0.0.1:0\"", [backend]);
    let (file, mut command) = command(&config);
    command.arg("--env-file").arg(env_file).env("CLARET_PASSWORD", "not this one");
    (file, command)
}

#[tokio::test]
async fn environment_file_takes_precedence_and_is_reread() {
    let fixture = Fixture::new(Vendor::Claret, "").await;
    let env = fixture.path("prod.env");
    let old = credentials::CLARET_PASSWORD;
    fs::write(&env, format!("# the planner's\nexport CLARET_PASSWORD='{old}'\n")).unwrap();
    let backend = fixture.backend(Kind::Login, "{ env = \"CLARET_PASSWORD\" }");
    let program = Program::run(with_env_file(backend, &env), "info").await;
    let mut watch = Watch::of(&program.client(), &fixture.job).await;
    watch.status().await;

    fixture.revoke();
    replace(&env, &format!("CLARET_PASSWORD={NEW}\n"));
    fixture.finish();
    assert!(watch.next_status().await.terminal);
}

#[tokio::test]
async fn environment_file_with_bad_line_stops_start_and_names_the_line() {
    let fixture = Fixture::new(Vendor::Claret, "").await;
    let env = fixture.path("prod.env");
    fs::write(&env, "CLARET_PASSWORD=hush\n\nhush\n").unwrap();
    let backend = fixture.backend(Kind::Login, "{ env = \"CLARET_PASSWORD\" }");
    let (_file, mut command) = with_env_file(backend, &env);
    let output = guard(command.output()).await.unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains(&format!("{} line 3 is no variable", env.display())), "{stderr}");
    assert!(!stderr.contains("hush"), "{stderr}");
}
