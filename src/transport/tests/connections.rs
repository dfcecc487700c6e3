//! Which connections are kept, and what their ends cost.

use super::*;

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

#[tokio::test]
async fn connection_is_kept_only_where_responses_identify_their_jobs() {
    let record = r#"{"job_status":"RUNNING","running":true}"#;
    let wrapper = format!(r#"{{"status":"OK","data_str":{}}}"#, serde_json::Value::from(record));
    let peer = Peer::start(move |_| Reply::json("200 OK", &wrapper)).await;
    let endpoint = endpoint(KineticaConfig::default(), &peer.url(), Configured::NONE);
    for _ in 0..3 {
        let job = [JobRef::new("b", "1")];
        let response = endpoint.poll(&job, permit()).await.unwrap();
        let element = response.elements()[0].as_ref().unwrap();
        assert_eq!(response.observe(&job[0], element).unwrap().state, JobState::Running);
    }
    let connections: Vec<_> = peer.received().iter().map(|request| request.connection).collect();
    assert_eq!(connections, [0, 1, 2]);
    peer.client_closed(3).await;
}
