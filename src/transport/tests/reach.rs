//! How a vendor is reached, and how long a connection lives: over TLS with HTTP/2 and
//! HTTP/1.1.

use bytes::Bytes;
use http::Request;

use super::*;
use crate::{
    config::Proxies,
    transport::{
        intervals::{INTERVALS, Intervals},
        tests::tls_vendor::{Act, TlsVendor},
    },
};

pub(super) const PROTOCOLS: [&str; 2] = ["h2", "http/1.1"];

fn client(vendor: &TlsVendor, timeout: Duration, intervals: Intervals) -> HttpClient {
    client_through(vendor, Proxies::None, timeout, intervals)
}

pub(super) fn client_through(
    vendor: &TlsVendor,
    proxy: Proxies,
    timeout: Duration,
    intervals: Intervals,
) -> HttpClient {
    let network = Network { proxy, ca: Some(vendor.ca.path().to_owned()), ..Network::default() };
    let (url, poll) = (vendor.url().parse().unwrap(), Poll { timeout, ..poll() });
    HttpClient::with_intervals(&url, &poll, &network, true, ResponseBudget::new(1 << 20), intervals).unwrap()
}

pub(super) async fn send(client: &HttpClient, vendor: &TlsVendor) -> Result<(), FaultKind> {
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

/// Systems without `/proc` have no such table.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn idle_connection_has_tcp_keep_alive() {
    let vendor = TlsVendor::start("http/1.1", |_, _| Act::Answer).await;
    let client = client(&vendor, PATIENCE, INTERVALS);
    send(&client, &vendor).await.unwrap();
    // The remote address of the client's end; what follows is its timer. 02: keep-alive.
    let end = format!(":{:04X} 01", vendor.port);
    let has_timer = || {
        let sockets = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let fields: Vec<_> = sockets.lines().filter(|line| line.contains(&end)).collect();
        assert!(!fields.is_empty(), "{sockets}");
        fields.iter().any(|line| line.split_ascii_whitespace().nth(5).unwrap().starts_with("02:"))
    };
    // While a segment is not acknowledged, the socket has another timer.
    let idle = async {
        while !has_timer() {
            time::sleep(Duration::from_millis(10)).await;
        }
    };
    time::timeout(PATIENCE, idle).await.expect("a timer for keep-alive");
}
