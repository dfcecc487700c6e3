//! Answers that come before, between or instead of the expected ones.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::*;
use crate::transport::tests::tls_vendor::{Act, TlsVendor};

#[tokio::test]
async fn switched_protocol_is_no_answer_and_costs_the_connection() {
    let peer = Peer::start(|request: &Received| match request.connection {
        0 => Reply::raw(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        ),
        _ => active(),
    })
    .await;
    let endpoint = immuta(&peer.url());
    assert_eq!(poll_once(&endpoint).await, Err(FaultKind::Malformed { why: "no content" }));
    assert_eq!(poll_once(&endpoint).await, Ok(JobState::Running));
    assert_eq!(peer.received().len(), 2);
}

#[tokio::test]
async fn interim_responses_without_end_are_cut_off_by_the_time_out() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        assert_ne!(stream.read(&mut [0; 64]).await.unwrap(), 0);
        // Ends when the client closes the connection.
        while stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.is_ok() {}
    });
    let short = Poll { timeout: Duration::from_millis(300), ..poll() };
    let why = outage(&endpoint_with(IMMUTA, &url, api_key("k3y"), short)).await;
    assert_eq!(why, "no whole response within 300ms");
}

#[tokio::test]
async fn answer_before_the_request_is_sent_is_read() {
    for closes in [true, false] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let vendor = tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                tokio::spawn(async move {
                    assert_ne!(stream.read(&mut [0; 64]).await.unwrap(), 0);
                    let busy = "HTTP/1.1 503 Busy\r\nRetry-After: 7\r\nContent-Length: 2\r\n\r\n{}";
                    stream.write_all(busy.as_bytes()).await.unwrap();
                    // Unread bytes make its end a reset.
                    if !closes {
                        std::future::pending::<()>().await;
                    }
                });
            }
        });
        let endpoint = immuta(&url);
        let jobs: Vec<_> = (0..1000).map(|n| JobRef::new("b", format!("{n:0>500}"))).collect();
        // A vendor that reads no further and closes nothing costs the next poll its time-out.
        for _ in 0..if closes { 3 } else { 1 } {
            let poll =
                time::timeout(PATIENCE, endpoint.poll(&jobs, permit())).await.expect("a response in time");
            let fault = poll.unwrap_err();
            assert_eq!(
                (fault.http_status, fault.retry_after),
                (Some(503), Some(Duration::from_secs(7))),
                "{fault}"
            );
        }
        vendor.abort();
    }
}

#[tokio::test]
async fn long_head_over_http2_is_read_and_an_endless_one_is_an_outage() {
    let vendor = TlsVendor::start("h2", |_, nth| match nth {
        0 => Act::LongHead(50_000),
        1 => Act::LongHead(10_000_000),
        _ => Act::Answer,
    })
    .await;
    let network = Network { ca: Some(vendor.ca.path().to_owned()), ..Network::default() };
    let (url, budget) = (vendor.url().parse().unwrap(), ResponseBudget::new(1 << 20));
    let client = HttpClient::new(&url, &poll(), &network, true, budget).unwrap();
    let send = || async {
        let request = http::Request::get(format!("{}/", vendor.url())).body(bytes::Bytes::new()).unwrap();
        let sent = client.send(request, &mut permit()).await;
        sent.map(|(response, _)| response.body().clone()).map_err(|fault| fault.kind)
    };
    assert_eq!(send().await, Ok("{}".into()));
    assert!(matches!(send().await, Err(FaultKind::Unavailable { .. })));
    assert_eq!(send().await, Ok("{}".into()));
}
