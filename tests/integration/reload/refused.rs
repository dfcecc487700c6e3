//! Configurations that can't be used.

use super::*;

#[tokio::test]
async fn refused_configuration_changes_nothing_and_is_visible_until_it_is_repaired() {
    let simulator = simulator(Vendor::Immuta).await;
    let gateway = Reloading::start("", [Backend::of(&simulator)]).await;
    let client = gateway.program.client();
    let (job, mut watch) = watched_job(&simulator, &client, Plan::fixed("active")).await;
    let successful = "jobwatch_config_last_reload_successful";
    let read_at = "jobwatch_config_last_reload_success_timestamp_seconds";
    let before = (gateway.metric(successful).await, gateway.metric(read_at).await);
    assert!(before.0 > 0.5 && before.1 > 1.7e9, "{before:?}");
    assert_eq!(gateway.readiness().await["status"], "current");

    let bad = "[limits]\nbatch_size = 0\nwatchs = 7\n";
    replace(&gateway.file, &text(bad, []));
    gateway.hang_up(REFUSED).await;
    let problems = [
        "limits.batch_size is 0; write a whole number from 1 to 1000",
        "limits.watchs is not a key here; did you mean watches?",
        "backends is missing; write at least one backend, such as [backends.immuta-prod]",
    ];
    for problem in problems {
        gateway.program.logged(&format!("configuration problem problem={problem}")).await;
    }
    gateway.program.logged("reload refused; the previous configuration stays in effect problems=3").await;
    let readiness = gateway.readiness().await;
    assert_eq!(readiness["status"], "refused");
    let mut shown: Vec<&str> =
        readiness["problems"].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect();
    shown.sort_unstable();
    let mut expected = problems;
    expected.sort_unstable();
    assert_eq!(shown, expected);
    assert!(gateway.metric(successful).await < 0.5);
    assert!((gateway.metric(read_at).await - before.1).abs() < 1e-6);
    assert!((gateway.metric("jobwatch_config_reloads_total{outcome=\"refused\"}").await - 1.0).abs() < 0.1);

    gateway.reload("[limits]\nbatch_size = 3", [Backend::of(&simulator)]).await;
    assert_eq!(gateway.readiness().await["status"], "current");
    assert!(gateway.metric(successful).await > 0.5);
    assert!(gateway.metric(read_at).await > before.1);
    simulator.finish(&job.job_id);
    watch.terminal_status().await;
}

#[tokio::test]
async fn backend_that_can_not_be_set_up_has_the_whole_configuration_refused() {
    let simulator = simulator(Vendor::Immuta).await;
    let gateway = Reloading::start("", [Backend::of(&simulator)]).await;
    let authorities = NamedTempFile::new().unwrap();
    fs::write(authorities.path(), "no certificate").unwrap();
    let other = Backend::at(Vendor::Immuta, "https://127.0.0.1:1")
        .named("other")
        .key("ca", &format!("{:?}", authorities.path()));
    replace(&gateway.file, &text("[limits]\nbatch_size = 1", [Backend::of(&simulator), other]));
    gateway.hang_up(REFUSED).await;
    gateway.program.logged("configuration problem problem=backends.other can't be set up: ").await;
    let jobs = [(); 2].map(|()| job_at(&simulator, &simulator.start_job(Plan::fixed("active"))));
    let answers = batch(&gateway.program.client(), batch_request(jobs)).await.unwrap();
    assert!(answers.iter().all(Result::is_ok), "batch_size is as before: {answers:?}");
}

#[tokio::test]
async fn configuration_whose_secret_comes_later_is_applied_then() {
    let simulator = simulator(Vendor::Immuta).await;
    let dir = TempDir::new().unwrap();
    let key = dir.path().join("key");
    let gateway = Reloading::start("", [Backend::of(&simulator)]).await;
    let added =
        Backend::of(&simulator).named("added").credentials(format!("{{ api_key = {{ file = {key:?} }} }}"));
    replace(&gateway.file, &text("", [Backend::of(&simulator), added]));
    gateway.hang_up(REFUSED).await;
    gateway.program.logged("problem=backends.added.credentials.api_key is the file ").await;
    replace(&key, jobwatch::simulators::credentials::IMMUTA_API_KEY);
    gateway.program.logged("backend added backend=added").await;
    // A slow server reads the file for the first time only now, and a second time on request.
    assert!(gateway.program.log().matches(REFUSED).count() <= 2, "attempts of its own are not logged");
    assert_eq!(gateway.readiness().await["status"], "current");
}
