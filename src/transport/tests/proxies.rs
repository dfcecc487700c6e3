//! Proxies: of the backend's own configuration and of the environment, over http and https.

use std::{
    io::Write as _,
    sync::{Arc, Mutex},
};

use http::HeaderValue;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional},
    net::TcpStream,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, pki_types::PrivatePkcs8KeyDer},
};

use super::{
    reach::{PROTOCOLS, client_through, send},
    *,
};
use crate::{
    config::{Proxies, Proxy},
    transport::{
        intervals::INTERVALS,
        tests::tls_vendor::{Act, TlsVendor},
    },
};

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

type Heads = Arc<Mutex<Vec<String>>>;

/// A proxy that connects everybody to `port`, and the heads of what it was sent. With
/// `tls`, it is reached over TLS.
async fn proxy_to(port: u16, tls: Option<TlsAcceptor>) -> (String, Heads) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let scheme = if tls.is_some() { "https" } else { "http" };
    let url = format!("{scheme}://localhost:{}", listener.local_addr().unwrap().port());
    let heads = Heads::default();
    let seen = Arc::clone(&heads);
    tokio::spawn(async move {
        loop {
            let (inbound, _) = listener.accept().await.unwrap();
            match &tls {
                None => connect(inbound, port, &seen).await,
                // A client that does not trust it ends the handshake.
                Some(tls) => {
                    if let Ok(inbound) = tls.accept(inbound).await {
                        connect(inbound, port, &seen).await;
                    }
                }
            }
        }
    });
    (url, heads)
}

/// Answers CONNECT.
async fn connect<T>(mut inbound: T, port: u16, seen: &Heads)
where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        assert_ne!(inbound.read_buf(&mut head).await.unwrap(), 0);
    }
    let head = String::from_utf8(head).unwrap();
    let is_known = head.contains("Basic bWU6aHVzaA==");
    seen.lock().unwrap().push(head);
    if !is_known {
        let refusal = "HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n";
        inbound.write_all(refusal.as_bytes()).await.unwrap();
        return;
    }
    inbound.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
    let mut outbound = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    tokio::spawn(async move { copy_bidirectional(&mut inbound, &mut outbound).await });
}

#[tokio::test]
async fn https_proxy_is_sent_connect_over_tls() {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = PrivatePkcs8KeyDer::from(signing_key.serialize_der());
    let config = ServerConfig::builder().with_no_client_auth();
    let config = config.with_single_cert(vec![cert.der().clone()], key.into()).unwrap();
    for protocol in PROTOCOLS {
        let mut vendor = TlsVendor::start(protocol, |_, _| Act::Answer).await;
        let tls = TlsAcceptor::from(Arc::new(config.clone()));
        let (url, heads) = proxy_to(vendor.port, Some(tls)).await;
        let untrusting = client_through(&vendor, proxy(&url), PATIENCE, INTERVALS);
        let fault = send(&untrusting, &vendor).await.unwrap_err();
        assert!(
            matches!(&fault, FaultKind::Unreachable { why } if why.starts_with("no connection: the proxy: ")),
            "{fault:?}"
        );
        // An authority for both of them.
        vendor.ca.write_all(cert.pem().as_bytes()).unwrap();
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
async fn no_proxy_of_the_environment_names_hosts_that_are_reached_directly() {
    for (no_proxy, is_proxied) in [
        ("", true),
        ("other.invalid", true),
        ("invalid", false),
        (".invalid", false),
        ("VENDOR.invalid", false),
        ("a.example, vendor.invalid", false),
        ("*", false),
    ] {
        let peer = Peer::start(|_| active()).await;
        let proxy = Proxy { uri: peer.url().parse().unwrap(), authorization: None };
        let proxies = Proxies::Environment { http: Some(proxy), https: None, no_proxy: no_proxy.to_owned() };
        let network = Network { proxy: proxies, ..Network::default() };
        let endpoint =
            set_up(&Backend { network, ..backend(IMMUTA, "http://vendor.invalid", api_key("k3y")) }).unwrap();
        let polled = poll_once(&endpoint).await;
        assert_eq!(
            (polled.is_ok(), peer.received().len()),
            (is_proxied, usize::from(is_proxied)),
            "{no_proxy}: {polled:?}"
        );
    }
}

#[tokio::test]
async fn proxy_is_sent_only_connect_where_there_is_tls() {
    for protocol in PROTOCOLS {
        let vendor = TlsVendor::start(protocol, |_, _| Act::Answer).await;
        let (url, heads) = proxy_to(vendor.port, None).await;
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
    let (url, _) = proxy_to(vendor.port, None).await;
    let nobody = Proxies::Own(Proxy { uri: url.parse().unwrap(), authorization: None });
    let client = client_through(&vendor, nobody, PATIENCE, INTERVALS);
    let fault = send(&client, &vendor).await.unwrap_err();
    assert!(
        matches!(&fault, FaultKind::Unreachable { why } if why == "no connection: the proxy: it rejects the gateway's credentials for it (HTTP 407)"),
        "{fault:?}"
    );
}
