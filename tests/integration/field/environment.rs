//! What operators put into the environment and into secret files.

use std::{fs, path::Path, process::Stdio};

use jobwatch::{
    proto::v1::JobState as S,
    simulators::{Plan, Vendor, credentials},
};
use tempfile::{NamedTempFile, TempDir};
use tokio::process::Command;

use super::front::{Front, Protocol};
use crate::{
    harness::*,
    program::{self, Program},
};

const LISTEN: &str = "[server]\nlisten = \"127.0.0.1:0\"";

/// An environment without any CA certificate.
struct NoCertificates {
    folder: TempDir,
    file: NamedTempFile,
}

impl NoCertificates {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), file: NamedTempFile::new().unwrap() }
    }

    fn variables(&self) -> [(&'static str, &str); 2] {
        let (file, folder) = (self.file.path().to_str().unwrap(), self.folder.path().to_str().unwrap());
        [("SSL_CERT_FILE", file), ("SSL_CERT_DIR", folder)]
    }
}

/// Runs a subcommand on this configuration to its end. Returns success and the output.
async fn run(arguments: &[&str], config: &str, variables: &[(&str, &str)]) -> (bool, String) {
    let file = NamedTempFile::new().unwrap();
    fs::write(file.path(), config).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_jobwatch"));
    command.args(arguments).arg("--config").arg(file.path());
    command.env_clear().envs(variables.iter().copied()).stdin(Stdio::null()).kill_on_drop(true);
    let output = guard(command.output()).await.unwrap();
    (output.status.success(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
}

#[tokio::test]
async fn image_without_ca_certificates_polls_http_backends() {
    let none = NoCertificates::new();
    for vendor in Vendor::ALL {
        let simulator = simulator(vendor).await;
        let (file, mut command) = program::command(&config_text(LISTEN, [Backend::of(&simulator)]));
        command.envs(none.variables());
        let program = Program::run((file, command), "info").await;
        let job = job_at(&simulator, &simulator.start_job(Plan::fixed(running(vendor))));
        assert_eq!(get(&program.client(), &job).await.unwrap().state(), S::Running, "{vendor}");
    }
}

#[tokio::test]
async fn missing_ca_certificates_are_named_for_an_https_backend() {
    let none = NoCertificates::new();
    for vendor in Vendor::ALL {
        let simulator = simulator(vendor).await;
        let front = Front::before(&simulator, Protocol::TlsHttp1).await;
        let config = config_text("", [front.backend(), Backend::of(&simulator).named("plain")]);
        for arguments in [&["check"][..], &["check", "--connect"]] {
            let (ok, output) = run(arguments, &config, &none.variables()).await;
            assert!(!ok, "{vendor}: {output}");
            for part in ["CA certificates", "ca-certificates", "SSL_CERT_FILE"] {
                assert!(output.contains(part), "{vendor}: {part} is missing in {output}");
            }
            let plain = output.lines().find(|line| line.contains("plain")).unwrap();
            assert!(plain.contains("OK"), "{vendor}: {output}");
        }
    }
}

/// The vendor's credentials, with the secret from this source.
fn with_secret(vendor: Vendor, source: &str) -> String {
    match vendor {
        Vendor::Immuta => format!("{{ api_key = {source} }}"),
        Vendor::Kinetica => format!("{{ username = {:?}, password = {source} }}", credentials::KINETICA_USER),
        Vendor::Claret => format!("{{ email = {:?}, password = {source} }}", credentials::CLARET_EMAIL),
        Vendor::Datasaur => {
            format!("{{ client_id = {:?}, client_secret = {source} }}", credentials::DATASAUR_CLIENT_ID)
        }
    }
}

fn secret(vendor: Vendor) -> &'static str {
    match vendor {
        Vendor::Immuta => credentials::IMMUTA_API_KEY,
        Vendor::Kinetica => credentials::KINETICA_PASSWORD,
        Vendor::Claret => credentials::CLARET_PASSWORD,
        Vendor::Datasaur => credentials::DATASAUR_CLIENT_SECRET,
    }
}

#[tokio::test]
async fn byte_order_mark_and_line_end_of_a_secret_file_are_dropped() {
    let folder = tempfile::tempdir().unwrap();
    for vendor in Vendor::ALL {
        let simulator = simulator(vendor).await;
        let job = job_at(&simulator, &simulator.start_job(Plan::fixed(running(vendor))));
        for (start, end) in [("\u{feff}", "\r\n"), ("\u{feff}", ""), ("", "\r\n"), ("\u{feff}", "\n")] {
            let file = folder.path().join("secret");
            fs::write(&file, format!("{start}{}{end}", secret(vendor))).unwrap();
            let source = format!("{{ file = {} }}", toml_text(&file));
            let gateway =
                Gateway::start([Backend::of(&simulator).credentials(with_secret(vendor, &source))]).await;
            let status = get(&gateway.client(), &job).await;
            let status = status.unwrap_or_else(|error| panic!("{vendor}, {start:?}, {end:?}: {error}"));
            assert_eq!(status.state(), S::Running);
        }
    }
}

fn toml_text(path: &Path) -> String {
    format!("{:?}", path.to_str().unwrap())
}

#[tokio::test]
async fn invisible_character_of_a_secret_is_named_at_start() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("secret");
    for vendor in Vendor::ALL {
        let source = format!("{{ file = {} }}", toml_text(&file));
        let backend = Backend::at(vendor, "http://127.0.0.1:9").credentials(with_secret(vendor, &source));
        for (character, code) in [('\u{200b}', "U+200B"), ('\u{a0}', "U+00A0"), ('\u{feff}', "U+FEFF")] {
            let (start, end) = secret(vendor).split_at(3);
            fs::write(&file, format!("{start}{character}{end}")).unwrap();
            let (_, output) = run(&["check"], &config_text("", [backend.clone()]), &[]).await;
            assert!(output.contains(code), "{vendor}: {code} is missing in {output}");
            assert!(!output.contains(end), "{vendor}: the secret is in the output");
        }
    }
}

#[tokio::test]
async fn quotes_around_a_secret_are_a_warning_at_start() {
    const NAME: &str = "JOBWATCH_TEST_SECRET";
    for vendor in Vendor::ALL {
        for quote in ['"', '\''] {
            let simulator = simulator(vendor).await;
            let source = format!("{{ env = \"{NAME}\" }}");
            let backend = Backend::of(&simulator).credentials(with_secret(vendor, &source));
            let value = format!("{quote}{}{quote}", secret(vendor));
            let (_, checked) = run(&["check"], &config_text("", [backend.clone()]), &[(NAME, &value)]).await;
            let (file, mut command) = program::command(&config_text(LISTEN, [backend]));
            command.env(NAME, &value);
            let served = Program::run((file, command), "info").await.log();
            for output in [checked, served] {
                let warns = |line: &str| line.contains(NAME) && line.contains("quote");
                assert!(output.lines().any(warns), "{vendor}, {quote}: {output}");
                assert!(!output.contains(secret(vendor)), "{vendor}: the secret is in the output");
            }
        }
    }
}

#[tokio::test]
async fn unusable_proxy_of_the_environment_is_refused_at_start() {
    let names = ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"];
    let values = [
        "\"http://proxy.example:3128\"",
        "'http://proxy.example:3128'",
        "http://proxy.example:3128 ",
        " http://proxy.example:3128",
        "http://user:p@ss-W0RD@proxy.example:3128",
        "gopher://proxy.example:3128",
        "http://",
    ];
    let backends = || Vendor::ALL.map(|vendor| Backend::at(vendor, "http://vendor.invalid"));
    let config = config_text(LISTEN, backends());
    for (name, value) in names.iter().flat_map(|name| values.map(|value| (*name, value))) {
        // It would run until it is stopped.
        for arguments in [&["check"][..], &["serve"]] {
            let (ok, output) = run(arguments, &config, &[(name, value)]).await;
            assert!(!ok && output.contains(name), "{arguments:?}, {name}={value}: {output}");
            assert!(!output.contains("ss-W0RD"), "{output}");
        }
    }
}
