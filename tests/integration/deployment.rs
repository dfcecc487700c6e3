//! What operators read and deploy agrees with the program: the runbook with the alerts and the
//! error reasons, the manifests with the image, the figures with the measurements.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::Command,
    time::Duration,
};

use tempfile::TempDir;

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path))
        .unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The alerts of the rules.
fn alerts() -> BTreeSet<String> {
    let rules = read("deploy/prometheus/alerts.yml");
    let names = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: "));
    names.map(str::to_owned).collect()
}

/// Whether a text is in the form of an error reason.
fn is_reason(text: &str) -> bool {
    let is_word = |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_uppercase());
    text.len() > 5 && text.split('_').all(is_word)
}

/// The reasons of the only module that builds errors.
fn reasons() -> BTreeSet<String> {
    let mut reasons = BTreeSet::new();
    for file in ["status.rs", "status/operations.rs", "status/web.rs"] {
        let source = read(&format!("src/api/{file}"));
        let code = source.split("#[cfg(test)]").next().unwrap();
        let texts = code.split('"').skip(1).step_by(2);
        reasons.extend(texts.filter(|text| is_reason(text)).map(str::to_owned));
    }
    reasons
}

/// The sections of the runbook, by their headings.
fn sections(runbook: &str) -> BTreeMap<String, String> {
    let mut sections = BTreeMap::new();
    for section in runbook.split("\n### ").skip(1) {
        let (heading, text) = section.split_once('\n').unwrap();
        let text = text.split("\n## ").next().unwrap();
        let known = sections.insert(heading.trim_matches('`').to_owned(), text.to_owned());
        assert!(known.is_none(), "{heading} stands twice");
    }
    sections
}

#[test]
fn runbook_has_a_section_for_every_alert_and_every_reason() {
    let runbook = read("docs/runbook.md");
    let sections = sections(&runbook);
    let described: BTreeSet<_> = sections.keys().cloned().collect();
    let (alerts, reasons) = (alerts(), reasons());
    assert!(alerts.len() >= 10 && reasons.len() >= 20, "{alerts:?} {reasons:?}");
    let expected: BTreeSet<_> = alerts.union(&reasons).cloned().collect();
    let missing: Vec<_> = expected.difference(&described).collect();
    let extra: Vec<_> = described.difference(&expected).collect();
    assert!(
        missing.is_empty() && extra.is_empty(),
        "without a section: {missing:?}; without an object: {extra:?}"
    );
    for (heading, text) in sections {
        for part in ["- **Meaning.** ", "- **Check.** ", "- **Cure.** "] {
            assert_eq!(text.matches(part).count(), 1, "{heading}: {part}");
        }
    }
}

#[test]
fn every_alert_links_to_its_section() {
    let rules = read("deploy/prometheus/alerts.yml");
    let links: BTreeSet<_> =
        rules.lines().filter_map(|line| line.trim().strip_prefix("runbook_url: docs/runbook.md#")).collect();
    let anchors: BTreeSet<_> = alerts().iter().map(|alert| alert.to_lowercase()).collect();
    assert_eq!(links, anchors.iter().map(String::as_str).collect());
}

#[test]
fn every_alert_has_a_test_in_which_it_fires() {
    let tests = read("deploy/prometheus/alerts_test.yml");
    for alert in alerts() {
        let name = format!("- alertname: {alert}\n");
        let fires = tests.split(&name).skip(1).any(|test| {
            let test = test.split("- alertname: ").next().unwrap();
            test.split("- name: ").next().unwrap().contains("exp_alerts:")
        });
        assert!(fires, "{alert}");
    }
}

#[test]
fn readme_describes_every_reason() {
    let readme = read("README.md");
    let (_, errors) = readme.split_once("\n## Errors\n").unwrap();
    let section = errors.split("\n## ").next().unwrap();
    let table = section.lines().filter(|line| line.starts_with("| `"));
    let described: BTreeSet<_> = table
        .flat_map(|line| line.split('|').nth(1).unwrap().split('`').skip(1).step_by(2))
        .map(str::to_owned)
        .collect();
    // INTERNAL is what has no reason of its own.
    let rest = BTreeSet::from(["INTERNAL".to_owned()]);
    assert_eq!(&described - &rest, &reasons() - &rest);
}

#[test]
fn sizing_uses_measured_figures_only() {
    let (readme, operations) = (read("README.md"), read("docs/operations.md"));
    let (_, measured) = readme.split_once("<!-- performance table: begin -->").unwrap();
    let table = measured.split("<!-- performance table: end -->").next().unwrap();
    let cells = table.lines().filter_map(|line| line.split('|').nth(2));
    let measured: BTreeSet<_> =
        cells.flat_map(str::split_whitespace).map(|word| word.trim_end_matches([',', ';'])).collect();
    let (_, sizing) = operations.split_once("\n## Sizing\n").unwrap();
    let rows = sizing.split("\n## ").next().unwrap().lines().filter(|line| line.starts_with("| ")).skip(2);
    let mut figures = 0;
    for row in rows {
        let cost = row.split('|').nth(2).unwrap();
        let numbers =
            cost.split_whitespace().filter(|word| word.starts_with(|first: char| first.is_ascii_digit()));
        for number in numbers {
            assert!(measured.contains(number), "{number} of {row:?} was not measured");
            figures += 1;
        }
    }
    assert!(figures >= 6);
}

/// The arguments that the image starts with.
fn arguments_of_image() -> Vec<String> {
    let dockerfile = read("Dockerfile");
    let arguments = dockerfile.lines().find_map(|line| line.strip_prefix("CMD ")).unwrap();
    serde_json::from_str(arguments).unwrap()
}

#[test]
fn manifests_start_the_program_as_the_image_does() {
    let arguments = arguments_of_image();
    let deployment = read("deploy/kubernetes/base/deployment.yaml");
    assert!(deployment.contains(&format!("args: [{}]\n", arguments.join(", "))));
    let unit = read("deploy/systemd/jobwatch.service");
    assert!(unit.contains(&format!("\nExecStart=/usr/local/bin/jobwatch {}\n", arguments.join(" "))));
}

/// How long a gateway with this configuration may take to stop.
fn longest_shutdown(configuration: &str) -> Duration {
    let table: toml::Table = toml::from_str(configuration).unwrap();
    let defaults = jobwatch::config::Server::default();
    let of = |key: &str, default: Duration| match table["server"].get(key) {
        Some(text) => jobwatch::config::parse_duration(text.as_str().unwrap()).unwrap(),
        None => default,
    };
    // The rule of docs/operations.md.
    of("drain_delay", defaults.drain_delay)
        + of("drain_timeout", defaults.drain_timeout)
        + Duration::from_secs(5)
}

#[test]
fn grace_periods_are_long_enough_for_the_drain() {
    let seconds = |path: &str, key: &str| {
        let text = read(path);
        let rest = text.split_once(key).unwrap_or_else(|| panic!("{path} has no {key:?}")).1;
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        Duration::from_secs(digits.parse().unwrap())
    };
    for (path, key, configuration) in [
        (
            "deploy/kubernetes/base/deployment.yaml",
            "terminationGracePeriodSeconds: ",
            read("deploy/kubernetes/base/jobwatch.toml"),
        ),
        (
            "deploy/kubernetes/base/deployment.yaml",
            "terminationGracePeriodSeconds: ",
            read("deploy/kubernetes/cluster/jobwatch.toml"),
        ),
        ("deploy/compose/compose.yaml", "stop_grace_period: ", read("deploy/compose/jobwatch.toml")),
        ("deploy/compose/cluster.yaml", "stop_grace_period: ", read("deploy/compose/cluster.toml")),
        ("deploy/systemd/jobwatch.service", "\nTimeoutStopSec=", "[server]".to_owned()),
    ] {
        let (grace, needed) = (seconds(path, key), longest_shutdown(&configuration));
        assert!(grace >= needed, "{path}: {grace:?} is shorter than {needed:?}");
    }
    let kubernetes = read("deploy/kubernetes/base/deployment.yaml");
    assert!(!kubernetes.contains("preStop"), "its time is not part of the sum");
    assert!(longest_shutdown(&read("deploy/kubernetes/base/jobwatch.toml")) > longest_shutdown("[server]"));
}

/// The bytes that a gateway with this configuration may take, as README.md adds them up.
fn most_memory(configuration: &str) -> u64 {
    // Bytes of a watch with its job, and of an idle process.
    const WATCH: u64 = 1027;
    const IDLE: u64 = 14 << 20;
    // Without the files that it names.
    let text =
        ["{ file = \"/run/secrets/immuta-api-key\" }", "{ file = \"/run/secrets/jobwatch/immuta-api-key\" }"]
            .iter()
            .fold(configuration.to_owned(), |text, secret| text.replace(secret, "\"a\""))
            .replace("tls = {", "allow_plaintext = true # {");
    let text = format!("allow_inline_secrets = true\n{text}")
        .replace("{ file = \"/run/secrets/nats/password\" }", "\"a\"")
        .replace("{ env = \"JOBWATCH_NATS_PASSWORD\" }", "\"a\"");
    let limits = jobwatch::config::Config::parse(&text, []).unwrap().limits;
    let watches = u64::try_from(limits.watches.max(limits.jobs)).unwrap();
    IDLE + limits.status_bytes + limits.response_bytes + limits.connection_bytes + watches * WATCH
}

#[test]
fn memory_limits_of_containers_are_above_the_sum_of_the_limits() {
    for (path, limit, configuration) in [
        ("deploy/kubernetes/base/deployment.yaml", "memory: 2Gi\n", "deploy/kubernetes/base/jobwatch.toml"),
        (
            "deploy/kubernetes/base/deployment.yaml",
            "memory: 2Gi\n",
            "deploy/kubernetes/cluster/jobwatch.toml",
        ),
        ("deploy/compose/compose.yaml", "mem_limit: 2g\n", "deploy/compose/jobwatch.toml"),
        ("deploy/compose/cluster.yaml", "mem_limit: 2g\n", "deploy/compose/cluster.toml"),
    ] {
        assert!(read(path).contains(limit), "{path} has no {limit:?}");
        let most = most_memory(&read(configuration));
        assert!(most < 2 << 30, "{configuration}: {most} bytes do not fit");
    }
    // The rule of the sum: the defaults need more.
    let compose = read("deploy/compose/jobwatch.toml");
    let without = |line: &&str| !line.starts_with("watches = ") && !line.starts_with("jobs = ");
    let defaults: Vec<_> = compose.lines().filter(without).collect();
    assert!(most_memory(&defaults.join("\n")) > 2 << 30);
}

#[test]
fn version_is_the_same_everywhere() {
    let version = env!("CARGO_PKG_VERSION");
    for (path, text) in [
        ("Dockerfile", format!("\nARG VERSION={version}\n")),
        ("deploy/compose/compose.yaml", format!("image: jobwatch:{version}\n")),
        ("deploy/compose/cluster.yaml", format!("image: jobwatch:{version}\n")),
        ("deploy/kubernetes/base/deployment.yaml", format!("image: jobwatch:{version}\n")),
        ("CHANGELOG.md", format!("\n## [{version}] - ")),
        ("clients/python/pyproject.toml", format!("\nversion = \"{version}\"\n")),
        ("clients/typescript/package.json", format!("\n  \"version\": \"{version}\",\n")),
    ] {
        assert!(read(path).contains(&text), "{path} has no {text:?}");
    }
    let toolchain = format!("\nARG RUST_VERSION={}.", env!("CARGO_PKG_RUST_VERSION"));
    assert!(read("Dockerfile").contains(&toolchain), "Dockerfile has no {toolchain:?}");
}

/// `jobwatch check` of a configuration of deploy/, with the files that it names.
fn check(path: &str) -> (bool, String) {
    let directory = TempDir::new().unwrap();
    let file = |name: &str, content: &str| {
        let file = directory.path().join(name);
        fs::write(&file, content).unwrap();
        file.to_str().unwrap().to_owned()
    };
    let secret = file("immuta-api-key", "5f0c9e1a7b2d4e8fa3c61d90");
    let identity = rcgen::generate_simple_self_signed(["jobwatch".to_owned()]).unwrap();
    let certificate = file("tls.crt", &identity.cert.pem());
    let key = file("tls.key", &identity.signing_key.serialize_pem());
    let configuration = read(path)
        .replace("/run/secrets/jobwatch/immuta-api-key", &secret)
        .replace("/run/secrets/immuta-api-key", &secret)
        .replace("/run/secrets/nats/password", &secret)
        .replace("/run/tls/tls.crt", &certificate)
        .replace("/run/tls/tls.key", &key);
    let configuration = file("jobwatch.toml", &configuration);
    let output = Command::new(env!("CARGO_BIN_EXE_jobwatch"))
        .args(["check", "--config", &configuration])
        .env_clear()
        .env("JOBWATCH_NATS_PASSWORD", "simulated")
        .output()
        .unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn configurations_of_deploy_are_valid() {
    for path in [
        "deploy/compose/jobwatch.toml",
        "deploy/compose/cluster.toml",
        "deploy/kubernetes/base/jobwatch.toml",
        "deploy/kubernetes/cluster/jobwatch.toml",
    ] {
        let (is_valid, problems) = check(path);
        assert!(is_valid, "{path}: {problems}");
    }
}
