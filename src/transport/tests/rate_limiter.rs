//! Everything that is sent to a backend counts towards its rate limit.

use super::*;

const PER_SECOND: usize = 2;

/// Has `work` done within one rate limit, and checks that what `peers` received
/// meanwhile could be sent in that time: at least `least` requests.
async fn within_the_limit<F: Future<Output = ()>>(
    peers: &[&Peer],
    least: usize,
    work: impl FnOnce(Arc<RateLimiter>) -> F,
) {
    let begin = time::Instant::now();
    work(RateLimiter::new(NonZeroU32::new(2).unwrap())).await;
    let seconds: usize = begin.elapsed().as_secs().try_into().unwrap();
    let sent: usize = peers.iter().map(|peer| peer.received().len()).sum();
    assert!(sent >= least, "{sent} requests");
    assert!(sent <= PER_SECOND * (seconds + 1), "{sent} requests in less than {} s", seconds + 1);
}

#[tokio::test]
async fn tokens_and_the_repeated_poll_count() {
    let peer = Peer::start(|request| match request.path.as_str() {
        IMMUTA_TOKENS => token("t"),
        _ => rejected(),
    })
    .await;
    let endpoint = exchanging(&peer.url());
    within_the_limit(&[&peer], 4, async |limiter| {
        let permit = limiter.acquire().await;
        assert_eq!(poll_with(&endpoint, permit).await, Err(FaultKind::CredentialsRejected));
    })
    .await;
}

#[tokio::test]
async fn polls_that_wait_for_one_token_are_sent_within_the_limit() {
    let peer = Peer::start(|request| match request.path.as_str() {
        IMMUTA_TOKENS => token("t"),
        _ => active(),
    })
    .await;
    let endpoint = exchanging(&peer.url());
    within_the_limit(&[&peer], 6, async |limiter| {
        let polls = (0..5).map(|_| poll_with(&endpoint, limiter.deferred()));
        assert!(join_all(polls).await.iter().all(|answer| *answer == Ok(JobState::Running)));
    })
    .await;
}

#[tokio::test]
async fn request_that_is_sent_once_more_counts_twice() {
    let peer = fickle(Reply::nothing().then_close()).await;
    let endpoint = immuta(&peer.url());
    within_the_limit(&[&peer], 3, async |limiter| {
        for _ in 0..2 {
            assert_eq!(poll_with(&endpoint, limiter.acquire().await).await, Ok(JobState::Running));
        }
    })
    .await;
}

#[tokio::test]
async fn file_counts_with_its_token_and_its_repeat() {
    let peer = Peer::start(|request| match request.path.as_str() {
        "/demo/download/a.csv" => rejected(),
        _ => Reply::json("200 OK", r#"{"data":{"token":"t"},"token":"t"}"#),
    })
    .await;
    let endpoint = endpoint(claret(), &peer.url(), exchanged("hush"));
    within_the_limit(&[&peer], 4, async |limiter| {
        let permit = limiter.acquire().await;
        endpoint.open("/demo/download/a.csv", 0, None, permit).await.unwrap_err();
    })
    .await;
    assert_eq!(peer.received_at("/demo/download/a.csv").len(), 2);
}

#[tokio::test]
async fn all_clusters_share_the_limit_and_health_checks_count() {
    let first = Peer::start(|_| Reply::json("503 Busy", "{}")).await;
    let record = r#"{"job_status":"RUNNING","running":true,"request_data":"","job_tag":"t"}"#;
    let wrapper = format!(r#"{{"status":"OK","data_str":{}}}"#, serde_json::Value::from(record));
    let standby = Peer::start(move |_| Reply::json("200 OK", &wrapper)).await;
    let standby_urls = vec![standby.url().parse().unwrap()];
    let often = Duration::from_millis(1);
    let endpoint = endpoint_with(
        KineticaConfig { standby_urls, ..KineticaConfig::default() },
        &first.url(),
        Configured::NONE,
        Poll { min_interval: often, max_backoff: often, ..poll() },
    );
    let job = [JobRef::new("b", "1").with_tag("t")];
    within_the_limit(&[&first, &standby], 5, async |limiter| {
        // The primary is polled once, and its health is checked beside some of the later polls.
        for _ in 0..30 {
            let permit = limiter.acquire().await;
            endpoint.poll(&job, permit).await.unwrap();
            if first.received().len() >= 3 {
                return;
            }
        }
        panic!("the primary's health is not checked: {:?}", first.received());
    })
    .await;
}
