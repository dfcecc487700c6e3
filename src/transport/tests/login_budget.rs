//! A secret that the vendor rejects is sent ever more rarely, whatever asks for it.

use super::*;
use crate::transport::{Files, tests::vendor::Reply};

/// Polls until nothing more is sent.
async fn fault(endpoint: &Endpoint) -> FaultKind {
    poll_once(endpoint).await.unwrap_err()
}

#[tokio::test]
async fn rejected_secret_is_not_sent_again_before_its_time() {
    let peer = Peer::start(|_| rejected()).await;
    let endpoint = exchanging(&peer.url());
    for _ in 0..50 {
        assert_eq!(fault(&endpoint).await, FaultKind::CredentialsRejected);
    }
    let faults = join_all((0..50).map(|_| fault(&endpoint))).await;
    assert!(faults.iter().all(|fault| *fault == FaultKind::CredentialsRejected));
    assert_eq!(peer.received().len(), 1);
    let rejected = endpoint.rejected_credentials().unwrap();
    assert!(rejected.retry_at <= time::Instant::now() + Duration::from_secs(12));
    assert_eq!(endpoint.login_paused_until(), Some(rejected.retry_at));
}

#[tokio::test]
async fn rejected_fixed_secret_is_sent_by_one_of_many_polls() {
    for credentials in [api_key("wrong"), basic("me", "wrong"), sent_as(Scheme::Bearer, "wrong")] {
        let peer = Peer::start(|_| rejected()).await;
        let endpoint = endpoint(IMMUTA, &peer.url(), credentials);
        let faults = join_all((0..50).map(|_| fault(&endpoint))).await;
        assert!(faults.iter().all(|fault| *fault == FaultKind::CredentialsRejected));
        assert_eq!((fault(&endpoint).await, peer.received().len()), (FaultKind::CredentialsRejected, 1));
    }
}

#[tokio::test]
async fn accepted_fixed_secret_delays_no_poll() {
    let peer = Peer::start(|_| active()).await;
    let endpoint = immuta(&peer.url());
    let answers = join_all((0..20).map(|_| poll_once(&endpoint))).await;
    assert!(answers.iter().all(|answer| *answer == Ok(JobState::Running)), "{answers:?}");
    assert_eq!(peer.received().len(), 20);
}

#[tokio::test]
async fn rotated_secret_is_tried_at_once() {
    let good =
        |request: &Received| request.authorization.as_deref() == Some("new") || request.body.contains("new");
    for exchanges in [true, false] {
        let peer = Peer::start(move |request| match (good(request), request.path.as_str()) {
            (true, IMMUTA_TOKENS) => token("t"),
            (true, _) => active(),
            (false, _) if request.authorization.as_deref() == Some("Bearer t") => active(),
            (false, _) => rejected(),
        })
        .await;
        let endpoint = if exchanges { exchanging(&peer.url()) } else { immuta(&peer.url()) };
        assert_eq!(fault(&endpoint).await, FaultKind::CredentialsRejected);
        assert!(endpoint.rejected_credentials().is_some());
        endpoint.rotate("new".into()).unwrap();
        assert_eq!(endpoint.rejected_credentials(), None);
        assert_eq!(poll_once(&endpoint).await, Ok(JobState::Running));
    }
}

#[tokio::test]
async fn token_that_no_poll_accepts_is_fetched_twice() {
    let peer = Peer::start(|request| match request.path.as_str() {
        IMMUTA_TOKENS => token("t"),
        _ => rejected(),
    })
    .await;
    let endpoint = exchanging(&peer.url());
    for _ in 0..20 {
        assert_eq!(fault(&endpoint).await, FaultKind::CredentialsRejected);
    }
    assert_eq!((peer.received_at(IMMUTA_TOKENS).len(), peer.received_at(IMMUTA_JOBS).len()), (2, 2));
    assert!(endpoint.rejected_credentials().is_some());
}

#[tokio::test]
async fn token_that_polls_accept_and_others_reject_is_rarely_fetched() {
    let count = std::sync::atomic::AtomicUsize::new(0);
    let peer = Peer::start(move |request| match request.path.as_str() {
        IMMUTA_TOKENS => token("t"),
        _ if count.fetch_add(1, std::sync::atomic::Ordering::Relaxed).is_multiple_of(2) => active(),
        _ => rejected(),
    })
    .await;
    let endpoint = exchanging(&peer.url());
    for _ in 0..50 {
        let _ = poll_once(&endpoint).await;
    }
    let logins = peer.received_at(IMMUTA_TOKENS).len();
    assert!((2..=4).contains(&logins), "{logins}");
    assert_eq!(endpoint.rejected_credentials(), None);
}

#[tokio::test]
async fn secret_that_worked_is_paused_at_its_second_rejection() {
    let peer = Peer::start(|request| if request.nth == 0 { active() } else { rejected() }).await;
    let endpoint = immuta(&peer.url());
    assert_eq!(poll_once(&endpoint).await, Ok(JobState::Running));
    for _ in 0..10 {
        assert_eq!(fault(&endpoint).await, FaultKind::CredentialsRejected);
    }
    assert_eq!(peer.received().len(), 3);
}

#[tokio::test]
async fn downloads_share_the_budget_of_the_login() {
    let peer = Peer::start(|_| rejected()).await;
    let endpoint = endpoint(claret(), &peer.url(), exchanged("wrong"));
    for _ in 0..10 {
        assert_eq!(fault(&endpoint).await, FaultKind::CredentialsRejected);
        endpoint.open("/demo/download/a.csv", 0, None, permit()).await.unwrap_err();
    }
    assert_eq!(peer.received().len(), 1);
}

#[tokio::test]
async fn rejected_download_pauses_downloads_and_no_poll() {
    let peer = Peer::start(|request| match request.path.as_str() {
        path if path.contains("/tokens/create") => token("t"),
        path if path.contains("/download/") => rejected(),
        _ => Reply::json("200 OK", r#"{"content":{"job_log_id":7,"status":"in_progress"}}"#),
    })
    .await;
    for credentials in [exchanged("s3cret"), sent_as(Scheme::Bearer, "t")] {
        let endpoint = endpoint(claret(), &peer.url(), credentials);
        endpoint.poll(&[JobRef::new("b", "7")], permit()).await.unwrap();
        let before = peer.received().len();
        for _ in 0..10 {
            endpoint.open("/demo/download/a.csv", 0, None, permit()).await.unwrap_err();
        }
        assert!(peer.received().len() - before <= 8, "{:?}", peer.received());
        assert!(endpoint.rejected_credentials().is_some() && endpoint.login_paused_until().is_none());
        assert!(Files::downloads_paused_until(&endpoint).is_some());
    }
}

#[tokio::test]
async fn login_that_fails_otherwise_is_not_repeated_at_each_poll() {
    let peer = Peer::start(|_| Reply::json("503 Busy", "{}")).await;
    let endpoint = exchanging(&peer.url());
    for _ in 0..20 {
        assert!(matches!(fault(&endpoint).await, FaultKind::Unavailable { .. }));
    }
    assert_eq!((peer.received().len(), endpoint.rejected_credentials()), (2, None));
}
