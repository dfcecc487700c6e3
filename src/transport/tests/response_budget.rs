//! The room that responses take in the budget.

use super::*;

const KIB: usize = 1024;

fn endpoint_within(url: &str, budget: &Arc<ResponseBudget>, timeout: Duration) -> Endpoint {
    let backend = Backend { poll: Poll { timeout, ..poll() }, ..backend(IMMUTA, url, api_key("k3y")) };
    Endpoint::new(&backend, budget).unwrap()
}

/// A response of so many KiB, with its length or in chunks.
fn sized(kib: usize, chunked: bool) -> Reply {
    let job = r#"{"a":{"id":"a","state":"active"}}"#;
    let body = format!("{job}{}", " ".repeat(kib * KIB - job.len()));
    let json = "Content-Type: application/json\r\n";
    if !chunked {
        return Reply::with("200 OK", json, &body);
    }
    let head = format!("HTTP/1.1 200 OK\r\n{json}Transfer-Encoding: chunked\r\n\r\n");
    Reply::raw(format!("{head}{:x}\r\n{body}\r\n0\r\n\r\n", body.len()))
}

#[tokio::test]
async fn response_holds_its_room_until_it_is_dropped() {
    let peer = Peer::start(|_| sized(5, false)).await;
    let budget = ResponseBudget::new(64 * KIB);
    let endpoint = endpoint_within(&peer.url(), &budget, PATIENCE);
    let jobs = job();
    let response = endpoint.poll(&jobs, permit()).await.unwrap();
    assert_eq!(budget.available(), 59 * KIB);
    drop(response);
    assert_eq!(budget.available(), 64 * KIB);
}

#[tokio::test]
async fn response_of_unknown_length_holds_what_was_read() {
    let peer = Peer::start(|_| sized(5, true)).await;
    let budget = ResponseBudget::new(100 * KIB);
    let endpoint = endpoint_within(&peer.url(), &budget, PATIENCE);
    let jobs = job();
    let response = endpoint.poll(&jobs, permit()).await.unwrap();
    let held = 100 * KIB - budget.available();
    // The buffer may have grown past the body, but not to `max_response_bytes`.
    assert!((5 * KIB..=16 * KIB).contains(&held), "{held}");
    drop(response);
    assert_eq!(budget.available(), 100 * KIB);
}

#[tokio::test]
async fn vendor_that_sends_no_head_holds_no_room() {
    let hanging = Peer::start(|_| Reply::nothing().then_stall()).await;
    let good = Peer::start(|_| sized(64, false)).await;
    let budget = ResponseBudget::new(64 * KIB);
    let (one, other) =
        (endpoint_within(&hanging.url(), &budget, PATIENCE), endpoint_within(&good.url(), &budget, PATIENCE));
    let jobs = job();
    let mut stalled = one.poll(&jobs, permit());
    tokio::select! {
        outcome = &mut stalled => panic!("{outcome:?}"),
        () = hanging.requests_came(1) => {}
    }
    assert_eq!(budget.available(), 64 * KIB);
    assert_eq!(poll_once(&other).await, Ok(JobState::Running));
}

#[tokio::test]
async fn response_without_room_within_the_timeout_is_overload_and_not_the_vendors_fault() {
    let peer = Peer::start(|_| sized(40, false)).await;
    let budget = ResponseBudget::new(64 * KIB);
    let endpoint = endpoint_within(&peer.url(), &budget, Duration::from_millis(150));
    let held = budget.acquire(32 * KIB).await;
    let jobs = job();
    let fault = endpoint.poll(&jobs, permit()).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Overloaded);
    assert!(fault.concerns_backend());
    drop(held);
    assert_eq!(budget.available(), 64 * KIB);
    let patient = endpoint_within(&peer.url(), &budget, PATIENCE);
    assert_eq!(poll_once(&patient).await, Ok(JobState::Running));
}

#[tokio::test]
async fn poll_that_is_cancelled_while_it_reads_releases_its_room() {
    let peer = Peer::start(|_| sized(40, false).cut(4000).then_stall()).await;
    let budget = ResponseBudget::new(64 * KIB);
    let endpoint = endpoint_within(&peer.url(), &budget, PATIENCE);
    let jobs = job();
    let mut reading = endpoint.poll(&jobs, permit());
    let holds_room = async {
        while budget.available() == 64 * KIB {
            task::yield_now().await;
        }
    };
    tokio::select! {
        outcome = &mut reading => panic!("{outcome:?}"),
        () = holds_room => {}
    }
    assert_eq!(budget.available(), 24 * KIB);
    drop(reading);
    assert_eq!(budget.available(), 64 * KIB);
}

#[tokio::test]
async fn room_of_a_rejected_response_is_released_before_the_token_is_refreshed() {
    let peer = Peer::start(|request| match (request.path.as_str(), request.authorization.as_deref()) {
        (IMMUTA_TOKENS, _) => token("t"),
        _ => Reply::with("401 Unauthorized", "Content-Type: application/json\r\n", " ".repeat(40 * KIB)),
    })
    .await;
    let backend = backend(EXCHANGING_IMMUTA, &peer.url(), exchanged("k3y"));
    // Room for one rejected response, not for two or for one beside a token.
    let budget = ResponseBudget::new(40 * KIB);
    let endpoint = Endpoint::new(&backend, &budget).unwrap();
    assert_eq!(poll_once(&endpoint).await, Err(FaultKind::CredentialsRejected));
    assert_eq!(peer.received_at(IMMUTA_JOBS).len(), 2);
    assert_eq!(budget.available(), 40 * KIB);
}
