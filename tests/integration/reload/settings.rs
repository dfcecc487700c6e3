//! Policies, limits and the log.

use jobwatch::access::{generate_token, hash_token};

use super::*;

pub(super) fn with_token<T>(message: T, token: &str) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    request
}

#[tokio::test]
async fn changed_policies_hold_for_new_calls_and_end_open_ones_that_they_allow_no_longer() {
    let simulator = simulator(Vendor::Immuta).await;
    let [one, two] = [generate_token(), generate_token()];
    let access = |token: &str, policies: &str| {
        format!("[access]\ntokens.ci.sha256 = [\"{}\"]\npolicies = [{policies}]\n", hash_token(token))
    };
    let backend = || Backend::of(&simulator);
    let gateway = Reloading::start("", [backend()]).await;
    let client = gateway.program.client();
    let (job, mut watch) = watched_job(&simulator, &client, Plan::fixed("active")).await;
    let get_with = async |token: &str| {
        let status = get_status(&client, with_token(get_request(&job), token)).await;
        status.map(drop).map_err(|error| code_and_reason(&error).1)
    };
    get_with(&one).await.unwrap();
    gateway.reload(&access(&one, "{ principals = [\"token:ci\"] }"), [backend()]).await;
    assert_eq!(code_and_reason(&watch.end().await.unwrap_err()).1, "ACCESS_CHANGED");
    let request = with_token(watch_request(&job), &one);
    let mut watch = Watch::open(&client, request).await.unwrap();
    watch.status().await;
    assert_eq!(code_and_reason(&get(&client, &job).await.unwrap_err()).1, "CALLER_UNAUTHENTICATED");
    assert_eq!((get_with(&one).await, get_with(&two).await.is_err()), (Ok(()), true));
    let other = "{ principals = [\"token:ci\"], backends = [\"other\"] }";
    gateway.reload(&access(&two, other), [backend()]).await;
    let refused = [get_with(&one).await, get_with(&two).await].map(Result::unwrap_err);
    assert_eq!(refused, ["CALLER_UNAUTHENTICATED", "BACKEND_NOT_ALLOWED"]);
    assert_eq!(code_and_reason(&watch.end().await.unwrap_err()).1, "ACCESS_CHANGED");
    let log = gateway.program.log();
    assert!(log.contains("access.policies[0]") && log.contains("access.tokens.ci"), "{log}");
    assert!(!log.contains(&hash_token(&one).to_string()), "{log}");
    gateway.reload("", [backend()]).await;
    gateway.program.logged("callers are not identified any more: everybody may do everything").await;
}

#[tokio::test]
async fn rate_of_a_caller_changes_with_its_policy() {
    let simulator = simulator(Vendor::Immuta).await;
    let token = generate_token();
    let access = |calls: u32| {
        format!(
            "[access]\ntokens.ci.sha256 = [\"{}\"]\npolicies = [{{ principals = [\"*\"], calls_per_second = {calls} }}]\n",
            hash_token(&token)
        )
    };
    let gateway = Reloading::start(&access(1000), [Backend::of(&simulator)]).await;
    let client = gateway.program.client();
    let job = job_at(&simulator, &simulator.start_job(Plan::fixed("active")));
    let call = async || get_status(&client, with_token(get_request(&job), &token)).await;
    for _ in 0..3 {
        call().await.unwrap();
    }
    gateway.reload(&access(1), [Backend::of(&simulator)]).await;
    let refused = async {
        loop {
            if let Err(error) = call().await {
                return error;
            }
        }
    };
    assert_eq!(code_and_reason(&guard(refused).await).1, "RATE_LIMITED");
}

#[tokio::test]
async fn limits_take_effect_at_once_and_addresses_are_said_to_need_a_restart() {
    let simulator = simulator(Vendor::Immuta).await;
    let gateway = Reloading::start("", [Backend::of(&simulator)]).await;
    let client = gateway.program.client();
    let jobs: Vec<_> =
        (0..3).map(|_| job_at(&simulator, &simulator.start_job(Plan::fixed("active")))).collect();
    batch(&client, batch_request(jobs.clone())).await.unwrap();
    let _watch = Watch::of(&client, &jobs[0]).await;
    gateway
        .reload("[limits]\nbatch_size = 2\nwatches = 1\nconnections = 100", [Backend::of(&simulator)])
        .await;
    let error = batch(&client, batch_request(jobs.clone())).await.unwrap_err();
    assert_eq!(
        decode_error(&error).details.bad_request().unwrap().field_violations[0].description,
        "holds 3 jobs; name 1 to 2"
    );
    let error = Watch::open(&client, watch_request(&jobs[1])).await.unwrap_err();
    assert_eq!(code_and_reason(&error).1, "TOO_MANY_WATCHES");
    assert!((gateway.metric("jobwatch_watches_limit").await - 1.0).abs() < 0.1);
    let log = gateway.program.log();
    for line in [
        "setting changed key=\"limits.batch_size\" change=limits.batch_size 1000 -> 2",
        "configuration key needs a restart to take effect key=\"limits.connections\" \
         change=limits.connections 5000 -> 100",
    ] {
        assert!(log.contains(line), "{line:?} in {log}");
    }
    let restart = ["limits.connections", "limits.connections_per_address"];
    assert_eq!(gateway.readiness().await["needs_restart"], Value::from(restart.as_slice()));
    gateway
        .reload("[limits]\nbatch_size = 3\nconnections = 100\nwatches = 1", [Backend::of(&simulator)])
        .await;
    assert_eq!(gateway.program.log().matches("key=\"limits.connections\"").count(), 1, "said once");
}

#[tokio::test]
async fn log_level_and_access_log_change_at_once() {
    let simulator = simulator(Vendor::Immuta).await;
    let gateway = Reloading::start("", [Backend::of(&simulator)]).await;
    let (client, job) =
        (gateway.program.client(), job_at(&simulator, &simulator.start_job(Plan::fixed("active"))));
    assert_eq!(gateway.admin("/log-level").await.1, "info,h2=error,async_nats=off\n");
    gateway.reload("[log]\nlevel = \"jobwatch=debug\"\naccess = true", [Backend::of(&simulator)]).await;
    assert_eq!(gateway.admin("/log-level").await.1, "jobwatch=debug,h2=error,async_nats=off\n");
    get(&client, &job).await.unwrap();
    gateway.program.logged("call ended").await;
    gateway.reload("[log]\nlevel = \"info\"", [Backend::of(&simulator)]).await;
    let lines = gateway.program.log().matches("call ended").count();
    get(&client, &job).await.unwrap();
    gateway.hang_up(UNCHANGED).await;
    assert_eq!(gateway.program.log().matches("call ended").count(), lines);
}
