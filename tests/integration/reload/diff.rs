//! `jobwatch check --diff`.

use jobwatch::simulators::credentials;

use super::*;

/// Runs `jobwatch check --diff`. Returns its exit code, stdout and stderr.
async fn diff(old: &str, new: &str, more: &[&str]) -> (Option<i32>, String, String) {
    let dir = TempDir::new().unwrap();
    let [old_file, new_file] = ["old.toml", "new.toml"].map(|name| dir.path().join(name));
    fs::write(&old_file, old).unwrap();
    fs::write(&new_file, new).unwrap();
    let mut command = Command::new(executable());
    command.arg("check").arg("--diff").arg(&old_file).arg(&new_file).args(more).env_clear();
    let output = guard(command.stdin(Stdio::null()).kill_on_drop(true).output()).await.unwrap();
    let [stdout, stderr] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    let all = format!("{stdout}{stderr}");
    for secret in [credentials::IMMUTA_API_KEY, credentials::KINETICA_PASSWORD, "hush"] {
        assert!(!all.contains(secret), "{all}");
    }
    (output.status.code(), stdout, stderr)
}

fn backend(vendor: Vendor, port: u16) -> Backend {
    Backend::at(vendor, format!("http://127.0.0.1:{port}"))
}

#[tokio::test]
async fn difference_names_backends_settings_and_what_needs_a_restart() {
    let old = text("", [backend(Vendor::Immuta, 1), backend(Vendor::Kinetica, 1)]);
    let changed = backend(Vendor::Immuta, 1).credentials("{ api_key = \"hush\" }").poll("timeout", "\"4s\"");
    let new = text(
        "[log]\nlevel = \"debug\"\nformat = \"json\"\n[limits]\nwatches = 4",
        [changed, backend(Vendor::Claret, 1)],
    );
    let (code, stdout, stderr) = diff(&old, &new, &[]).await;
    let expected = "\
removed  backends.kinetica: its calls and watches end with UNKNOWN_BACKEND
added    backends.claret
changed  backends.immuta: credentials.api_key, poll.timeout 5s -> 4s, poll.connect_timeout 5s -> 4s; its watches go on
changed  log.level unset -> debug
changed  limits.watches 2000000 -> 4
changed  limits.watches_per_caller 500000 -> 1
restart  log.format: takes effect after a restart
";
    assert_eq!((code, &*stdout, &*stderr), (Some(0), expected, ""));
    let (code, stdout, _) = diff(&old, &old, &[]).await;
    assert_eq!((code, &*stdout), (Some(0), "nothing changes\n"));
}

#[tokio::test]
async fn bad_file_is_named_with_each_problem_and_exit_code_2() {
    let good = text("", [backend(Vendor::Immuta, 1)]);
    let bad = text("[limits]\nbatch_size = 0\nwatchs = 7", [backend(Vendor::Immuta, 1)]);
    for (old, new, which) in [(&good, &bad, "NEW"), (&bad, &good, "OLD")] {
        let (code, stdout, stderr) = diff(old, new, &[]).await;
        assert_eq!((code, &*stdout), (Some(2), ""));
        for problem in ["limits.batch_size is 0; write a whole number", "limits.watchs is not a key here"] {
            assert!(stderr.contains(&format!("{which}: {problem}")), "{stderr}");
        }
    }
}

#[tokio::test]
async fn new_configuration_that_a_reload_would_refuse_is_an_error_with_exit_code_3() {
    let authorities = NamedTempFile::new().unwrap();
    fs::write(authorities.path(), "no certificate").unwrap();
    let backend = || Backend::at(Vendor::Immuta, "https://127.0.0.1:1");
    let old = text("", [backend()]);
    let new = text("", [backend().key("ca", &format!("{:?}", authorities.path()))]);
    let (code, stdout, stderr) = diff(&old, &new, &[]).await;
    assert_eq!(code, Some(3), "{stderr}");
    assert!(stdout.starts_with("changed  backends.immuta: ca unset -> "), "{stdout}");
    assert!(stderr.contains("error: backends.immuta can't be set up: "), "{stderr}");
    assert!(stderr.ends_with("; a reload would be refused\n"), "{stderr}");
}

#[tokio::test]
async fn difference_takes_two_files_and_no_others() {
    let good = text("", [backend(Vendor::Immuta, 1)]);
    for more in [["--config", "other.toml"].as_slice(), &["--connect"]] {
        let (code, _, stderr) = diff(&good, &good, more).await;
        assert_eq!(code, Some(2), "{stderr}");
        assert!(stderr.contains("cannot be used with"), "{stderr}");
    }
    let mut command = Command::new(executable());
    let output = guard(command.args(["check"]).env_clear().output()).await.unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(2) && stderr.contains("write --config FILE"), "{stderr}");
}
