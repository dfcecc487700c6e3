//! How a vendor is reached, and how long a connection lives: over TLS with HTTP/2 and
//! HTTP/1.1, and through a proxy.

use std::sync::Mutex;

use bytes::Bytes;
use http::{HeaderValue, Request};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::TcpStream,
};

use super::*;
use crate::{
    config::{Proxies, Proxy},
    transport::{
        intervals::{INTERVALS, Intervals},
        tests::tls_vendor::{Act, TlsVendor},
    },
};

const PROTOCOLS: [&str; 2] = ["h2", "http/1.1"];

fn client(vendor: &TlsVendor, timeout: Duration, intervals: Intervals) -> HttpClient {
    client_through(vendor, Proxies::None, timeout, intervals)
}

fn client_through(vendor: &TlsVendor, proxy: Proxies, timeout: Duration, intervals: Intervals) -> HttpClient {
    let network = Network { proxy, ca: Some(vendor.ca.path().to_owned()), ..Network::default() };
    let (url, poll) = (vendor.url().parse().unwrap(), Poll { timeout, ..poll() });
    HttpClient::with_intervals(&url, &poll, &network, true, ResponseBudget::new(1 << 20), intervals).unwrap()
}

async fn send(client: &HttpClient, vendor: &TlsVendor) -> Result<(), FaultKind> {
    let request = Request::get(format!("{}/status", vendor.url())).body(Bytes::new()).unwrap();
    match time::timeout(PATIENCE, client.send(request, &mut permit())).await.expect("a response in time") {
        Ok((response, _)) => {
            assert_eq!(response.body(), "{}");
            Ok(())
        }
        Err(fault) => Err(fault.kind),
    }
}

#[tokio::test]
async fn connections_are_kept_on_every_http_version() {
    for protocol in PROTOCOLS {
        let vendor = TlsVendor::start(protocol, |_, _| Act::Answer).await;
        let client = client(&vendor, PATIENCE, INTERVALS);
        for _ in 0..4 {
            send(&client, &vendor).await.unwrap();
        }
        assert_eq!(vendor.requests(), [0, 0, 0, 0], "{protocol}");
    }
}

#[tokio::test]
async fn time_out_costs_the_connection_on_every_http_version() {
    join_all(PROTOCOLS.map(async |protocol| {
        let vendor = TlsVendor::start(protocol, |connection, nth| match (connection, nth) {
            (0, 1) => Act::Freeze,
            _ => Act::Answer,
        })
        .await;
        let client = client(&vendor, Duration::from_secs(5), INTERVALS);
        send(&client, &vendor).await.unwrap();
        let fault = send(&client, &vendor).await.unwrap_err();
        assert!(
            matches!(&fault, FaultKind::Unavailable { why } if why == "no whole response within 5s"),
            "{fault:?}"
        );
        for _ in 0..2 {
            send(&client, &vendor).await.unwrap();
        }
        assert_eq!(vendor.requests(), [0, 0, 1, 1], "{protocol}");
    }))
    .await;
}

#[tokio::test]
async fn silent_http2_connection_is_closed_after_a_ping() {
    let vendor = TlsVendor::start("h2", |connection, _| match connection {
        0 => Act::Freeze,
        _ => Act::Answer,
    })
    .await;
    let (ping, ping_timeout) = (Duration::from_millis(100), Duration::from_secs(1));
    let client = client(&vendor, Duration::from_hours(1), Intervals { ping, ping_timeout, ..INTERVALS });
    // Long before the time-out.
    let fault = send(&client, &vendor).await.unwrap_err();
    assert!(
        matches!(&fault, FaultKind::Unavailable { why } if why.starts_with("the connection broke: ")),
        "{fault:?}"
    );
    send(&client, &vendor).await.unwrap();
    assert_eq!(vendor.requests(), [0, 1]);
}

#[tokio::test]
async fn old_connection_ends_its_requests_and_serves_no_others() {
    for protocol in PROTOCOLS {
        let vendor = TlsVendor::start(protocol, |connection, _| match connection {
            0 => Act::Hold,
            _ => Act::Answer,
        })
        .await;
        // At once too old.
        let intervals = Intervals { max_age: Duration::ZERO, ..INTERVALS };
        let client = client(&vendor, PATIENCE, intervals);
        let (first, ()) = tokio::join!(send(&client, &vendor), async {
            vendor.requests_came(1).await;
            for _ in 0..2 {
                send(&client, &vendor).await.unwrap();
            }
            vendor.release();
        });
        first.unwrap();
        assert_eq!(vendor.requests(), [0, 1, 2], "{protocol}");
    }
}

#[tokio::test]
async fn request_that_http2_takes_back_is_sent_once_more_over_a_new_connection() {
    for act in [Act::Refuse, Act::GoAway] {
        let vendor = TlsVendor::start("h2", move |connection, nth| match (connection, nth) {
            (0, 1) => act,
            _ => Act::Answer,
        })
        .await;
        let client = client(&vendor, PATIENCE, INTERVALS);
        for _ in 0..3 {
            send(&client, &vendor).await.unwrap();
        }
        assert_eq!(vendor.requests(), [0, 0, 1, 1], "{act:?}");

        let vendor = TlsVendor::start("h2", move |_, _| act).await;
        let client = self::client(&vendor, PATIENCE, INTERVALS);
        send(&client, &vendor).await.unwrap_err();
        assert!(vendor.requests().len() <= 2, "{act:?}: once more at most");
    }
}

const TOGETHER: usize = 32;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_together_open_one_http2_connection() {
    async fn all(client: &HttpClient, vendor: &TlsVendor) -> Vec<Result<(), FaultKind>> {
        join_all((0..TOGETHER).map(|_| send(client, vendor))).await
    }
    let vendor = TlsVendor::start("h2", |_, _| Act::Answer).await;
    let client = client(&vendor, PATIENCE, INTERVALS);
    for _ in 0..3 {
        assert!(all(&client, &vendor).await.iter().all(Result::is_ok));
        assert_eq!(vendor.handshakes(), 1);
    }

    // All of them are lost together, which opens one more.
    for end in [Act::GoAway, Act::Freeze] {
        let vendor = TlsVendor::start("h2", move |connection, nth| match (connection, nth) {
            (0, 0) | (1.., _) => Act::Answer,
            (0, ..TOGETHER) => Act::Hold,
            _ => end,
        })
        .await;
        let client = self::client(&vendor, Duration::from_secs(2), INTERVALS);
        send(&client, &vendor).await.unwrap();
        let lost = all(&client, &vendor).await;
        assert_eq!(lost.iter().all(Result::is_ok), end == Act::GoAway, "{lost:?}");
        assert!(all(&client, &vendor).await.iter().all(Result::is_ok));
        assert_eq!(vendor.handshakes(), 2, "{end:?}");
    }
}

#[tokio::test]
async fn requests_together_fail_together_where_no_connection_can_be_opened() {
    let vendor = TlsVendor::start("http/1.1", |_, _| Act::Answer).await;
    let network = Network::default();
    let (url, poll) = (vendor.url().parse().unwrap(), poll());
    let client = HttpClient::new(&url, &poll, &network, true, ResponseBudget::new(1 << 20)).unwrap();
    for outcome in join_all((0..8).map(|_| send(&client, &vendor))).await {
        assert!(matches!(outcome, Err(FaultKind::Unreachable { .. })), "{outcome:?}");
    }
    let client = self::client(&vendor, PATIENCE, INTERVALS);
    assert!(join_all((0..8).map(|_| send(&client, &vendor))).await.iter().all(Result::is_ok));
}

#[tokio::test]
async fn request_that_is_cancelled_while_it_connects_holds_up_no_other() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let poll = Poll { timeout: Duration::from_millis(200), ..poll() };
    let network = Network::default();
    let budget = ResponseBudget::new(1 << 20);
    let client = HttpClient::new(&url.parse().unwrap(), &poll, &network, true, Arc::clone(&budget)).unwrap();
    let send = || async {
        let request = Request::get(format!("{url}/")).body(Bytes::new()).unwrap();
        client.send(request, &mut permit()).await.map(drop)
    };
    {
        let first = std::pin::pin!(send());
        tokio::select! {
            _ = first => panic!("nobody answers"),
            accepted = listener.accept() => drop(accepted.unwrap()),
        }
    }
    let both = time::timeout(PATIENCE, join_all([send(), send()])).await.expect("each ends by itself");
    assert!(both.iter().all(Result::is_err));
}

#[tokio::test]
async fn authority_that_is_not_trusted_ends_the_connection() {
    let vendor = TlsVendor::start("h2", |_, _| Act::Answer).await;
    let other = TlsVendor::start("h2", |_, _| Act::Answer).await;
    let network = Network { ca: Some(other.ca.path().to_owned()), ..Network::default() };
    let (url, poll) = (vendor.url().parse().unwrap(), poll());
    let client = HttpClient::new(&url, &poll, &network, true, ResponseBudget::new(1 << 20)).unwrap();
    let fault = send(&client, &vendor).await.unwrap_err();
    assert!(matches!(&fault, FaultKind::Unreachable { why } if why.contains("certificate")), "{fault:?}");
    assert_eq!(vendor.requests(), [0; 0]);
}

#[tokio::test]
async fn unusable_ca_file_is_named() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let set_up = |file: &tempfile::NamedTempFile| {
        let network = Network { ca: Some(file.path().to_owned()), ..Network::default() };
        let backend = Backend { network, ..backend(IMMUTA, "https://vendor.example", api_key("k3y")) };
        super::set_up(&backend).unwrap_err().to_string()
    };
    let path = file.path().display().to_string();
    assert_eq!(set_up(&file), format!("ca is the file {path}, which holds no PEM certificate"));
    let junk = "-----BEGIN CERTIFICATE-----\nQUJD\n-----END CERTIFICATE-----\n";
    std::io::Write::write_all(&mut file, junk.as_bytes()).unwrap();
    assert!(set_up(&file).contains("which holds a certificate that can't be used: "));
}

fn proxy(uri: &str) -> Proxies {
    let authorization = Some(HeaderValue::from_static("Basic bWU6aHVzaA=="));
    Proxies::Own(Proxy { uri: uri.parse().unwrap(), authorization })
}

#[tokio::test]
async fn proxy_is_sent_the_whole_url_where_there_is_no_tls() {
    let peer = Peer::start(|_| active()).await;
    let headers = [(http::HeaderName::from_static("x-tenant"), HeaderValue::from_static("a"))];
    let network =
        Network { proxy: proxy(&peer.url()), headers: headers.into_iter().collect(), ..Network::default() };
    let backend = Backend { network, ..backend(IMMUTA, "http://vendor.invalid", api_key("k3y")) };
    let endpoint = set_up(&backend).unwrap();
    for _ in 0..2 {
        assert_eq!(poll_once(&endpoint).await, Ok(JobState::Running));
    }
    for request in peer.received() {
        assert_eq!((&*request.path, request.connection), ("http://vendor.invalid/jobs/statuses", 0));
        for header in ["proxy-authorization: Basic bWU6aHVzaA==", "x-tenant: a", "authorization: k3y"] {
            assert!(request.head.contains(&format!("\r\n{header}\r\n")), "{}", request.head);
        }
    }
}

/// A proxy that connects everybody to `port`, and the heads of what it was sent.
async fn tunnels_to(port: u16) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let heads = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&heads);
    tokio::spawn(async move {
        loop {
            let (mut inbound, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                assert_ne!(inbound.read_buf(&mut head).await.unwrap(), 0);
            }
            let head = String::from_utf8(head).unwrap();
            let known = head.contains("Basic bWU6aHVzaA==");
            seen.lock().unwrap().push(head);
            if !known {
                let refusal = "HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n";
                inbound.write_all(refusal.as_bytes()).await.unwrap();
                continue;
            }
            inbound.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
            let mut outbound = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            tokio::spawn(async move { copy_bidirectional(&mut inbound, &mut outbound).await });
        }
    });
    (url, heads)
}

#[tokio::test]
async fn proxy_is_sent_only_connect_where_there_is_tls() {
    for protocol in PROTOCOLS {
        let vendor = TlsVendor::start(protocol, |_, _| Act::Answer).await;
        let (url, heads) = tunnels_to(vendor.port).await;
        let client = client_through(&vendor, proxy(&url), PATIENCE, INTERVALS);
        for _ in 0..3 {
            send(&client, &vendor).await.unwrap();
        }
        assert_eq!(vendor.requests(), [0, 0, 0], "{protocol}");
        let heads = heads.lock().unwrap().clone();
        assert_eq!(heads.len(), 1, "{heads:?}");
        assert!(
            heads[0].starts_with(&format!("CONNECT localhost:{} HTTP/1.1\r\n", vendor.port)),
            "{heads:?}"
        );
    }
}

#[tokio::test]
async fn proxy_that_refuses_the_password_is_named() {
    let vendor = TlsVendor::start("h2", |_, _| Act::Answer).await;
    let (url, _) = tunnels_to(vendor.port).await;
    let nobody = Proxies::Own(Proxy { uri: url.parse().unwrap(), authorization: None });
    let client = client_through(&vendor, nobody, PATIENCE, INTERVALS);
    let fault = send(&client, &vendor).await.unwrap_err();
    assert!(
        matches!(&fault, FaultKind::Unreachable { why } if why == "no connection: the proxy: it rejects the gateway's credentials for it (HTTP 407)"),
        "{fault:?}"
    );
}
