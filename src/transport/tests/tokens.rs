//! How tokens are refreshed and shared, and secrets rotated.

use super::*;

#[tokio::test]
async fn hundred_polls_share_one_token() {
    let peer = Peer::start(|request| match request.path.as_str() {
        IMMUTA_TOKENS => token("t0ken"),
        _ => active(),
    })
    .await;
    let endpoint = exchanging(&peer.url());
    let answers = join_all((0..100).map(|_| poll_once(&endpoint))).await;
    assert!(answers.iter().all(|answer| *answer == Ok(JobState::Running)));
    let fetches = peer.received_at(IMMUTA_TOKENS);
    assert_eq!(fetches.len(), 1);
    assert_eq!(
        (fetches[0].authorization.as_deref(), &*fetches[0].body),
        (None, r#"{"apikey":"k3y-of-the-gateway"}"#)
    );
    let polls = peer.received_at(IMMUTA_JOBS);
    assert_eq!(polls.len(), 100);
    assert!(polls.iter().all(|request| request.authorization.as_deref() == Some("Bearer t0ken")));
}

#[tokio::test]
async fn whoever_waited_for_a_token_shares_the_failure() {
    let peer = Peer::start(|_| Reply::json("503 Busy", "{}")).await;
    let endpoint = exchanging(&peer.url());
    let faults = join_all((0..100).map(|_| poll_once(&endpoint))).await;
    assert!(faults.iter().all(|fault| matches!(fault, Err(FaultKind::Unavailable { .. }))));
    assert_eq!(peer.received().len(), 1);
    // The next one tries again.
    poll_once(&endpoint).await.unwrap_err();
    assert_eq!(peer.received().len(), 2);
}

#[tokio::test]
async fn failed_token_refresh_concerns_the_backend() {
    for status in ["503 Busy", "404 Not Found", "200 OK"] {
        let peer = Peer::start(move |_| Reply::json(status, "{}")).await;
        let endpoint = exchanging(&peer.url());
        let jobs = job();
        let fault = endpoint.poll(&jobs, permit()).await.unwrap_err();
        assert!(fault.token_refresh && fault.concerns_backend(), "{fault:?}");
        assert_eq!(peer.received_at(IMMUTA_JOBS).len(), 0);
    }
    // The same of a poll may be about one of its jobs.
    let peer = Peer::start(|_| Reply::json("503 Busy", "{}")).await;
    let jobs = job();
    let fault = immuta(&peer.url()).poll(&jobs, permit()).await.unwrap_err();
    assert!(!fault.token_refresh && !fault.concerns_backend(), "{fault:?}");
}

#[tokio::test]
async fn cancelled_poll_leaves_the_refresh_to_the_next() {
    let peer = Peer::start(|request| match (request.path.as_str(), request.connection) {
        (IMMUTA_TOKENS, 0) => Reply::nothing().then_stall(),
        (IMMUTA_TOKENS, _) => token("t0ken"),
        _ => active(),
    })
    .await;
    let endpoint = Arc::new(exchanging(&peer.url()));
    let spawn = || {
        let endpoint = Arc::clone(&endpoint);
        tokio::spawn(async move { poll_once(&endpoint).await })
    };
    let first = spawn();
    peer.requests_came(1).await;
    let second = spawn();
    settled().await;
    first.abort();
    assert_eq!(second.await.unwrap(), Ok(JobState::Running));
}

/// A Datasaur whose tokens `t1`, `t2`, .. last for a second.
async fn short_lived(refuses_after: usize) -> Peer {
    let fetches = std::sync::atomic::AtomicUsize::new(0);
    Peer::start(move |request| match request.path.as_str() {
        DATASAUR_TOKENS => {
            let fetch = 1 + fetches.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            if fetch > refuses_after {
                return Reply::json("400 Bad Request", r#"{"error":"invalid_client"}"#);
            }
            Reply::json("200 OK", &format!(r#"{{"access_token":"t{fetch}","expires_in":1}}"#))
        }
        _ => Reply::json("200 OK", r#"{"data":{"result":[{"id":"a","status":"QUEUED"}]}}"#),
    })
    .await
}

#[tokio::test]
async fn a_token_is_replaced_before_it_expires() {
    let peer = short_lived(usize::MAX).await;
    let endpoint = datasaur(&peer.url());
    let begin = time::Instant::now();
    while peer.received_at(DATASAUR_TOKENS).len() < 2 {
        assert_eq!(poll_once(&endpoint).await, Ok(JobState::Pending));
    }
    assert!(begin.elapsed() >= Duration::from_millis(800), "not before most of its life is over");
    let sent: BTreeSet<_> =
        peer.received_at("/graphql").into_iter().map(|request| request.authorization).collect();
    assert!(sent.contains(&Some("Bearer t1".into())) && sent.len() <= 2);
}

#[tokio::test]
async fn token_that_cannot_be_refreshed_is_used_to_its_end() {
    let peer = short_lived(1).await;
    let endpoint = datasaur(&peer.url());
    while peer.received_at(DATASAUR_TOKENS).len() < 2 {
        assert_eq!(poll_once(&endpoint).await, Ok(JobState::Pending));
    }
    let fault = loop {
        if let Err(fault) = poll_once(&endpoint).await {
            break fault;
        }
    };
    assert_eq!(fault, FaultKind::CredentialsRejected);
    assert!(peer.received_at("/graphql").iter().all(|it| it.authorization.as_deref() == Some("Bearer t1")));
    assert_eq!(peer.received_at(DATASAUR_TOKENS).len(), 2, "the login budget allows no other yet");
}

#[tokio::test]
async fn rejected_token_is_refreshed_once_and_the_poll_repeated() {
    let fetches = std::sync::atomic::AtomicUsize::new(0);
    let peer = Peer::start(move |request| match (request.path.as_str(), request.authorization.as_deref()) {
        (IMMUTA_TOKENS, _) => {
            token(&format!("t{}", fetches.fetch_add(1, std::sync::atomic::Ordering::Relaxed)))
        }
        (_, Some("Bearer t1")) => active(),
        _ => rejected(),
    })
    .await;
    let endpoint = exchanging(&peer.url());
    let answers = join_all((0..20).map(|_| poll_once(&endpoint))).await;
    assert!(answers.iter().all(|answer| *answer == Ok(JobState::Running)), "{answers:?}");
    assert_eq!(peer.received_at(IMMUTA_TOKENS).len(), 2);
    assert_eq!(peer.received_at(IMMUTA_JOBS).len(), 40);
}

#[tokio::test]
async fn a_second_rejection_is_the_credentials_fault() {
    let peer = Peer::start(|request| match request.path.as_str() {
        IMMUTA_TOKENS => token("t"),
        _ => rejected(),
    })
    .await;
    assert_eq!(poll_once(&exchanging(&peer.url())).await, Err(FaultKind::CredentialsRejected));
    assert_eq!(peer.received_at(IMMUTA_TOKENS).len(), 2);
    assert_eq!(peer.received_at(IMMUTA_JOBS).len(), 2);
}

#[tokio::test]
async fn fixed_credential_is_not_tried_again() {
    let peer = Peer::start(|_| rejected()).await;
    assert_eq!(poll_once(&immuta(&peer.url())).await, Err(FaultKind::CredentialsRejected));
    assert_eq!(peer.received().len(), 1);
}

/// A vendor that takes only what `good` says of an Authorization, or of a trade's
/// body. When it refuses for the first time, the gateway's secret is replaced.
async fn rotating(
    good: impl Fn(&Received) -> Option<Reply> + Send + Sync + 'static,
) -> (Peer, Arc<OnceLock<Arc<Endpoint>>>) {
    let room: Arc<OnceLock<Arc<Endpoint>>> = Arc::default();
    let endpoint = Arc::clone(&room);
    let peer = Peer::start(move |request| {
        good(request).unwrap_or_else(|| {
            endpoint.get().unwrap().rotate("new".into()).unwrap();
            rejected()
        })
    })
    .await;
    (peer, room)
}

#[tokio::test]
async fn a_secret_that_is_replaced_while_it_is_rejected_is_no_fault() {
    let (peer, room) = rotating(|request| match request.authorization.as_deref() {
        Some("new") => Some(active()),
        _ => None,
    })
    .await;
    let endpoint = room.get_or_init(|| Arc::new(immuta(&peer.url())));
    assert_eq!(poll_once(endpoint).await, Ok(JobState::Running));
    assert_eq!(poll_once(endpoint).await, Ok(JobState::Running));
    assert_eq!(peer.received().len(), 3);
}

#[tokio::test]
async fn secret_that_is_rotated_during_a_refresh_is_no_fault() {
    let (peer, room) = rotating(|request| match request.path.as_str() {
        IMMUTA_TOKENS if request.body.contains("new") => Some(token("t0ken")),
        IMMUTA_TOKENS => None,
        _ => Some(active()),
    })
    .await;
    let endpoint = room.get_or_init(|| Arc::new(exchanging(&peer.url())));
    let answers = join_all((0..20).map(|_| poll_once(endpoint))).await;
    assert!(answers.iter().all(|answer| *answer == Ok(JobState::Running)), "{answers:?}");
    assert_eq!(peer.received_at(IMMUTA_TOKENS).len(), 2);
}

#[tokio::test]
async fn token_of_the_secret_before_is_not_used_again() {
    let peer = Peer::start(|request| match request.path.as_str() {
        IMMUTA_TOKENS if request.body.contains("new") => token("t-new"),
        IMMUTA_TOKENS => token("t-old"),
        _ => active(),
    })
    .await;
    let endpoint = exchanging(&peer.url());
    assert_eq!(poll_once(&endpoint).await, Ok(JobState::Running));
    endpoint.rotate("new".into()).unwrap();
    assert_eq!(poll_once(&endpoint).await, Ok(JobState::Running));
    let sent: Vec<_> =
        peer.received_at(IMMUTA_JOBS).into_iter().map(|it| it.authorization.unwrap()).collect();
    assert_eq!(sent, ["Bearer t-old", "Bearer t-new"]);
}

#[tokio::test]
async fn new_secret_that_is_rejected_too_is_a_fault() {
    let (peer, room) = rotating(|_| None).await;
    let endpoint = room.get_or_init(|| Arc::new(immuta(&peer.url())));
    assert_eq!(poll_once(endpoint).await, Err(FaultKind::CredentialsRejected));
    assert_eq!(peer.received().len(), 2);
}

#[tokio::test]
async fn secret_that_no_header_can_hold_does_not_replace_one() {
    let peer = Peer::start(|_| active()).await;
    let endpoint = immuta(&peer.url());
    assert!(!endpoint.rotate("hush\n".into()).unwrap_err().to_string().contains("hush"));
    assert_eq!(poll_once(&endpoint).await, Ok(JobState::Running));
    assert_eq!(peer.received()[0].authorization.as_deref(), Some("k3y-of-the-gateway"));
}
