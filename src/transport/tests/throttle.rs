//! Everything that is sent to a backend is sent in its turn.

use super::*;

const PER_SECOND: usize = 2;

/// Has `work` done with the leave of one throttle, and checks that what `peers`
/// received meanwhile could be sent in that time: at least `least` requests.
async fn in_its_turn<F: Future<Output = ()>>(
    peers: &[&Peer],
    least: usize,
    work: impl FnOnce(Arc<Throttle>) -> F,
) {
    let begin = time::Instant::now();
    work(Throttle::new(NonZeroU32::new(2).unwrap())).await;
    let seconds: usize = begin.elapsed().as_secs().try_into().unwrap();
    let sent: usize = peers.iter().map(|peer| peer.received().len()).sum();
    assert!(sent >= least, "{sent} requests");
    assert!(sent <= PER_SECOND * (seconds + 1), "{sent} requests in less than {} s", seconds + 1);
}

#[tokio::test]
async fn tokens_and_the_question_after_a_rejected_one_count() {
    let peer = Peer::start(|request| match request.path.as_str() {
        IMMUTA_TOKENS => token("t"),
        _ => rejected(),
    })
    .await;
    let endpoint = exchanging(&peer.url());
    in_its_turn(&[&peer], 4, async |throttle| {
        let leave = throttle.leave_to_send().await;
        assert_eq!(ask_with(&endpoint, leave).await, Err(FaultKind::CredentialsRejected));
    })
    .await;
}

#[tokio::test]
async fn questions_that_wait_for_one_token_are_asked_in_their_turn() {
    let peer = Peer::start(|request| match request.path.as_str() {
        IMMUTA_TOKENS => token("t"),
        _ => active(),
    })
    .await;
    let endpoint = exchanging(&peer.url());
    in_its_turn(&[&peer], 6, async |throttle| {
        let asked = (0..5).map(|_| ask_with(&endpoint, throttle.leave_when_sending()));
        assert!(join_all(asked).await.iter().all(|answer| *answer == Ok(JobState::Running)));
    })
    .await;
}

#[tokio::test]
async fn a_request_that_is_sent_once_more_counts_twice() {
    let peer = fickle(Reply::nothing().then_close()).await;
    let endpoint = immuta(&peer.url());
    in_its_turn(&[&peer], 3, async |throttle| {
        for _ in 0..2 {
            assert_eq!(ask_with(&endpoint, throttle.leave_to_send().await).await, Ok(JobState::Running));
        }
    })
    .await;
}

#[tokio::test]
async fn a_file_counts_with_its_token_and_its_repeat() {
    let peer = Peer::start(|request| match request.path.as_str() {
        "/demo/download/a.csv" => rejected(),
        _ => Reply::json("200 OK", r#"{"data":{"token":"t"},"token":"t"}"#),
    })
    .await;
    let login = Configured::Login { email: "me@example.com".into(), password: "hush".into() };
    let endpoint = endpoint(Vendor::Claret { tenant: "demo".into() }, &peer.url(), login);
    in_its_turn(&[&peer], 4, async |throttle| {
        let leave = throttle.leave_to_send().await;
        endpoint.open("/demo/download/a.csv", 0, leave).await.unwrap_err();
    })
    .await;
    assert_eq!(peer.received_at("/demo/download/a.csv").len(), 2);
}

#[tokio::test]
async fn all_clusters_share_the_limit_and_looks_at_the_first_count() {
    let first = Peer::start(|_| Reply::json("503 Busy", "{}")).await;
    let record = r#"{"job_status":"RUNNING","running":true,"request_data":"","job_tag":"t"}"#;
    let wrapper = format!(r#"{{"status":"OK","data_str":{}}}"#, serde_json::Value::from(record));
    let standby = Peer::start(move |_| Reply::json("200 OK", &wrapper)).await;
    let standby_urls = vec![standby.url().parse().unwrap()];
    let often = Duration::from_millis(1);
    let endpoint = endpoint_with(
        Vendor::Kinetica { encoding: Encoding::Json, standby_urls },
        &first.url(),
        Configured::None,
        Poll { min_interval: often, max_backoff: often, ..poll() },
    );
    let job = [JobRef::new("b", "1").with_tag("t")];
    in_its_turn(&[&first, &standby], 5, async |throttle| {
        // The first is asked once, and looked at beside some of the later questions.
        for _ in 0..30 {
            let leave = throttle.leave_to_send().await;
            endpoint.ask(Question::about(&job), leave).await.unwrap().unwrap();
            if first.received().len() >= 3 {
                return;
            }
        }
        panic!("nothing looks at the first: {:?}", first.received());
    })
    .await;
}
