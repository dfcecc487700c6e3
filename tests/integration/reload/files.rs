//! Files that change without a signal.

use jobwatch::simulators::credentials;

use super::*;

#[tokio::test]
async fn changed_file_is_reloaded_without_a_signal() {
    let simulator = simulator(Vendor::Immuta).await;
    let gateway = Reloading::start("", [Backend::of(&simulator)]).await;
    let client = gateway.program.client();
    let (job, mut watch) = watched_job(&simulator, &client, Plan::fixed("active")).await;
    replace(&gateway.file, &text("[limits]\nbatch_size = 7", [Backend::of(&simulator)]));
    gateway.program.logged("limits.batch_size 1000 -> 7").await;
    gateway.program.logged(RELOADED).await;
    // Written in place, and bad.
    fs::write(&gateway.file, "nonsense").unwrap();
    gateway.program.logged(REFUSED).await;
    gateway.program.logged("configuration problem problem=the file (line 1, column 9) is not TOML").await;
    fs::remove_file(&gateway.file).unwrap();
    gateway.logged_again(REFUSED, 1).await;
    gateway.program.logged(&format!("{} can't be read", gateway.file.display())).await;
    replace(&gateway.file, &text("[limits]\nbatch_size = 8", [Backend::of(&simulator)]));
    gateway.program.logged("limits.batch_size 7 -> 8").await;
    simulator.finish(&job.job_id);
    watch.terminal_status().await;
    let log = gateway.program.log();
    assert_eq!(log.matches(REFUSED).count(), 2, "each content is refused once: {log}");
}

/// As Kubernetes replaces the files of a ConfigMap: `config.toml` leads through `..data` to
/// a folder, and `..data` is replaced.
#[cfg(unix)]
#[tokio::test]
async fn symlink_that_is_replaced_as_kubernetes_does_is_reloaded() {
    use std::os::unix::fs::symlink;
    let simulator = simulator(Vendor::Immuta).await;
    let dir = TempDir::new().unwrap();
    let version = |name: &str, batch_size: u32| {
        let folder = dir.path().join(name);
        fs::create_dir(&folder).unwrap();
        let sections = format!("[limits]\nbatch_size = {batch_size}");
        fs::write(folder.join("config.toml"), text(&sections, [Backend::of(&simulator)])).unwrap();
        let new = dir.path().join("..data_tmp");
        symlink(name, &new).unwrap();
        fs::rename(new, dir.path().join("..data")).unwrap();
    };
    version("..1", 10);
    let config = dir.path().join("config.toml");
    symlink("..data/config.toml", &config).unwrap();
    let mut command = Command::new(executable());
    command.arg("serve").arg("--config").arg(&config).env_clear();
    command.stdin(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    let program = Program::run((NamedTempFile::new().unwrap(), command), "").await;
    for (old, new) in [(10, 20), (20, 30)] {
        version(&format!("..{new}"), new);
        fs::remove_dir_all(dir.path().join(format!("..{}", if old == 10 { 1 } else { old }))).unwrap();
        program.logged(&format!("limits.batch_size {old} -> {new}")).await;
    }
    assert!(!program.log().contains(REFUSED), "{}", program.log());
}

#[tokio::test]
async fn environment_file_and_the_secret_of_a_header_are_parts_of_the_configuration() {
    let simulator = simulator(Vendor::Immuta).await;
    let dir = TempDir::new().unwrap();
    let (environment, header) = (dir.path().join("env"), dir.path().join("tenant"));
    let variables = |batch_size: u32| {
        format!("JOBWATCH__LIMITS__BATCH_SIZE={batch_size}\nKEY={}\n", credentials::IMMUTA_API_KEY)
    };
    fs::write(&environment, variables(10)).unwrap();
    fs::write(&header, "one-hush").unwrap();
    let backend = Backend::of(&simulator)
        .credentials("{ api_key = { env = \"KEY\" } }")
        .key("headers", &format!("{{ \"X-Tenant\" = {{ file = {header:?} }} }}"));
    let (file, mut command) = command(&text("", [backend]));
    command.arg("--env-file").arg(&environment);
    let program = Program::run((file, command), "").await;
    let client = program.client();
    let (job, mut watch) = watched_job(&simulator, &client, Plan::fixed("active")).await;
    replace(&environment, &variables(20));
    program.logged("limits.batch_size 10 -> 20").await;
    replace(&header, "two-hush");
    program.logged("backend changed backend=immuta changed=\"headers.x-tenant\"").await;
    let polls = simulator.count("/jobs/statuses");
    guard(simulator.wait_for_responses("/jobs/statuses", polls + 2)).await;
    simulator.finish(&job.job_id);
    watch.terminal_status().await;
    let log = program.log();
    assert!(!log.contains("hush") && !log.contains(credentials::IMMUTA_API_KEY), "{log}");
}

#[tokio::test]
async fn secret_of_an_added_backend_is_replaced_when_its_file_is() {
    let [one, two] = [simulator(Vendor::Immuta).await, simulator(Vendor::Immuta).await];
    let dir = TempDir::new().unwrap();
    let key = dir.path().join("key");
    fs::write(&key, credentials::IMMUTA_API_KEY).unwrap();
    let added =
        || Backend::of(&two).named("two").credentials(format!("{{ api_key = {{ file = {key:?} }} }}"));
    let gateway = Reloading::start("", [Backend::of(&one)]).await;
    gateway.reload("", [Backend::of(&one), added()]).await;
    let started = two.start_job(Plan::fixed("active"));
    let mut watch = Watch::of(&gateway.program.client(), &job("two", &started.id)).await;
    watch.status().await;
    two.set_secret("another-key");
    replace(&key, "another-key");
    gateway.program.logged("secret replaced key=\"backends.two.credentials.api_key\"").await;
    two.finish(&started.id);
    watch.terminal_status().await;
}
