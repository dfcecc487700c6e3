//! Which connections are kept, and what their ends cost.

use bytes::Bytes;
use http::Request;

use super::*;
use crate::transport::tests::tls_vendor::{Act, TlsVendor};

#[tokio::test]
async fn kept_connections_that_end_together_cost_one_request_more_each() {
    let peer = Peer::start(|request: &Received| match request.nth {
        0 => active(),
        _ => Reply::nothing().then_close(),
    })
    .await;
    let endpoint = immuta(&peer.url());
    for answer in join_all((0..4).map(|_| poll_once(&endpoint))).await {
        assert_eq!(answer, Ok(JobState::Running));
    }
    // The retry must not take the next one that has ended.
    let before = peer.received().len();
    assert_eq!(poll_once(&endpoint).await, Ok(JobState::Running));
    assert_eq!(peer.received().len(), before + 2);
}

/// A Kinetica record as the vendor wraps it.
fn record(state: &str) -> Reply {
    let record = format!(r#"{{"job_status":"{state}","running":true}}"#);
    let wrapper = format!(r#"{{"status":"OK","data_str":{}}}"#, serde_json::Value::from(record));
    Reply::json("200 OK", &wrapper)
}

async fn poll_kinetica(endpoint: &Endpoint, id: &str) -> JobState {
    let job = [JobRef::new("b", id)];
    let response = endpoint.poll(&job, permit()).await.unwrap();
    let element = response.elements()[0].as_ref().unwrap();
    response.observe(&job[0], element).unwrap().state
}

fn connections_of(peer: &Peer) -> Vec<usize> {
    peer.received().iter().map(|request| request.connection).collect()
}

#[tokio::test]
async fn kept_connection_serves_only_answers_that_a_new_one_has_given() {
    let peer = Peer::start(|_| record("RUNNING")).await;
    let endpoint = endpoint(KineticaConfig::default(), &peer.url(), Configured::NONE);
    // Each job's first answer comes over a connection of its own.
    for id in ["1", "2"] {
        assert_eq!(poll_kinetica(&endpoint, id).await, JobState::Running);
    }
    assert_eq!(connections_of(&peer), [0, 1]);
    for id in ["1", "2", "1", "2"] {
        assert_eq!(poll_kinetica(&endpoint, id).await, JobState::Running);
    }
    assert_eq!(connections_of(&peer), [0, 1, 2, 2, 2, 2]);
}

#[tokio::test]
async fn answers_that_name_the_jobs_tag_share_a_connection() {
    // The second connection is a response behind from its sixth request on.
    let peer = Peer::start(|request: &Received| {
        let tag = match (request.connection, request.nth) {
            (1, 5..) => "tag-0".to_owned(),
            _ => request
                .body
                .split("tag-")
                .nth(1)
                .map(|rest| format!("tag-{}", &rest[..1]))
                .unwrap_or_default(),
        };
        let record =
            format!(r#"{{"job_status":"RUNNING","progress":{},"info":{{"job_tag":"{tag}"}}}}"#, request.nth);
        let wrapper = format!(r#"{{"status":"OK","data_str":{}}}"#, serde_json::Value::from(record));
        Reply::json("200 OK", &wrapper)
    })
    .await;
    let endpoint = endpoint(KineticaConfig::default(), &peer.url(), Configured::NONE);
    for number in 0..8 {
        let job = [JobRef::new("b", "7").with_tag(format!("tag-{number}"))];
        let response = endpoint.poll(&job, permit()).await.unwrap();
        let element = response.elements()[0].as_ref().unwrap();
        assert_eq!(response.observe(&job[0], element).unwrap().state, JobState::Running);
    }
    // The first one shows that records name tags. One with another tag is requested again.
    assert_eq!(connections_of(&peer), [0, 1, 1, 1, 1, 1, 1, 2, 3]);
}

#[tokio::test]
async fn changed_answer_over_a_kept_connection_is_requested_again_over_a_new_one() {
    // The kept connection, the second, answers everything but the first request with
    // another job's state.
    let peer = Peer::start(|request: &Received| match (request.connection, request.nth) {
        (1, 1..) => record("CANCELLED"),
        _ => record("RUNNING"),
    })
    .await;
    let endpoint = endpoint(KineticaConfig::default(), &peer.url(), Configured::NONE);
    for _ in 0..3 {
        assert_eq!(poll_kinetica(&endpoint, "1").await, JobState::Running);
    }
    // And that connection is used for nothing more.
    assert_eq!(poll_kinetica(&endpoint, "1").await, JobState::Running);
    assert_eq!(connections_of(&peer), [0, 1, 1, 2, 3]);
}

#[tokio::test]
async fn refusal_over_a_kept_connection_is_not_requested_again() {
    let refusals =
        ["429 Too Many Requests", "503 Busy", "408 Late", "401 Who", "403 No", "301 There", "407 Proxy"];
    for status in refusals {
        let peer = Peer::start(move |request: &Received| match (request.connection, request.nth) {
            (1, 1..) => Reply::json(status, "{}"),
            _ => record("RUNNING"),
        })
        .await;
        let endpoint = endpoint(KineticaConfig::default(), &peer.url(), Configured::NONE);
        for _ in 0..2 {
            assert_eq!(poll_kinetica(&endpoint, "1").await, JobState::Running);
        }
        let refused = endpoint.poll(&[JobRef::new("b", "1")], permit()).await;
        assert!(refused.is_err(), "{status}");
        assert_eq!(connections_of(&peer), [0, 1, 1], "{status}");
    }
}

#[tokio::test]
async fn second_response_at_once_closes_the_connection() {
    let twice = || {
        let Reply { bytes, then } = record("RUNNING");
        Reply { bytes: [bytes.clone(), bytes].concat(), then }
    };
    let peer = Peer::start(move |_| twice()).await;
    let endpoint = endpoint(KineticaConfig::default(), &peer.url(), Configured::NONE);
    for _ in 0..4 {
        assert_eq!(poll_kinetica(&endpoint, "1").await, JobState::Running);
    }
    assert_eq!(connections_of(&peer), [0, 1, 2, 3]);
}

#[tokio::test]
async fn first_answers_over_http2_share_a_connection() {
    let vendor = TlsVendor::start("h2", |_, _| Act::Answer).await;
    let network = Network { ca: Some(vendor.ca.path().to_owned()), ..Network::default() };
    let (url, budget) = (vendor.url().parse().unwrap(), ResponseBudget::new(1 << 20));
    let client = HttpClient::new(&url, &poll(), &network, false, budget).unwrap();
    for job in 0..9 {
        let request = Request::get(format!("{}/{job}", vendor.url())).body(Bytes::new()).unwrap();
        drop(client.send(request, &mut permit()).await.unwrap());
    }
    // The first one shows that it is HTTP/2.
    assert_eq!(vendor.requests(), [0, 1, 1, 1, 1, 1, 1, 1, 1]);
}

#[tokio::test]
async fn answer_that_changes_at_each_poll_costs_one_request_more_for_every_second_change() {
    let peer = Peer::start(|request: &Received| {
        let record = format!(r#"{{"job_status":"RUNNING","progress":{}}}"#, request.connection % 100);
        let wrapper = format!(r#"{{"status":"OK","data_str":{}}}"#, serde_json::Value::from(record));
        Reply::json("200 OK", &wrapper)
    })
    .await;
    let endpoint = endpoint(KineticaConfig::default(), &peer.url(), Configured::NONE);
    for _ in 0..20 {
        assert_eq!(poll_kinetica(&endpoint, "1").await, JobState::Running);
    }
    // The first answer may last; one that changed is expected to change again.
    assert!(peer.received().len() <= 22, "{:?}", connections_of(&peer));
}
