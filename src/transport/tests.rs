//! The transport against a vendor on loopback: real sockets, real clock.

use std::{
    collections::BTreeSet,
    num::{NonZeroU32, NonZeroUsize},
    sync::OnceLock,
    time::Duration,
};

use futures_util::future::join_all;
use tokio::{
    net::{TcpListener, TcpSocket},
    task, time,
};

use super::*;
use crate::{
    config::{Backend, Credentials as Configured, Network, Poll},
    job::{FaultKind, JobFault, JobState},
    vendors::{
        ClaretConfig, ClientAuth, DatasaurConfig, ImmutaConfig, KineticaConfig, Scheme, SignIn, VendorConfig,
    },
};

mod answers;
mod connections;
mod early;
mod login_budget;
mod other_origins;
mod proxies;
mod rate_limiter;
mod reach;
mod response_budget;
mod tls_vendor;
mod tokens;
mod vendor;

use vendor::{Received, Reply, Vendor as Peer};

const IMMUTA_JOBS: &str = "/jobs/statuses";
const IMMUTA_TOKENS: &str = "/bim/apikey/authenticate";
const DATASAUR_TOKENS: &str = "/api/oauth/token";
const TOO_LARGE: FaultKind = FaultKind::TooLarge;

/// Long enough for a busy machine; only a failing test waits for it.
const PATIENCE: Duration = Duration::from_secs(20);

fn poll() -> Poll {
    Poll {
        min_interval: Duration::from_secs(1),
        max_interval: Duration::from_secs(10),
        timeout: PATIENCE,
        connect_timeout: PATIENCE,
        max_batch: NonZeroUsize::new(200).unwrap(),
        max_concurrency: NonZeroUsize::new(8).unwrap(),
        requests_per_second: NonZeroU32::new(20).unwrap(),
        not_found_grace: Duration::from_secs(10),
        login_backoff: Duration::from_secs(10),
        max_backoff: Duration::from_secs(30),
        max_response_bytes: 64 << 10,
    }
}

fn backend(vendor: impl VendorConfig + 'static, url: &str, credentials: Configured) -> Backend {
    let base_url = url.parse().unwrap();
    Backend {
        name: "b".into(),
        vendor: Arc::new(vendor),
        base_url,
        credentials,
        poll: poll(),
        network: Network::default(),
        own: toml::Table::new(),
    }
}

fn endpoint_with(
    vendor: impl VendorConfig + 'static,
    url: &str,
    credentials: Configured,
    poll: Poll,
) -> Endpoint {
    set_up(&Backend { poll, ..backend(vendor, url, credentials) }).unwrap()
}

fn set_up(backend: &Backend) -> Result<Endpoint, SetupError> {
    Endpoint::new(backend, &ResponseBudget::new(DEFAULT_RESPONSE_BYTES))
}

fn endpoint(vendor: impl VendorConfig + 'static, url: &str, credentials: Configured) -> Endpoint {
    endpoint_with(vendor, url, credentials, poll())
}

const IMMUTA: ImmutaConfig = ImmutaConfig { exchange: false };
const EXCHANGING_IMMUTA: ImmutaConfig = ImmutaConfig { exchange: true };

/// A Claret whose secret is the password of an account.
fn claret() -> ClaretConfig {
    ClaretConfig { tenant: "demo".into(), email: Some("me@example.com".into()) }
}

fn sent_as(scheme: Scheme, secret: &str) -> Configured {
    Configured::new(SignIn { scheme, description: "" }, secret.into())
}

fn api_key(key: &str) -> Configured {
    sent_as(Scheme::Bare, key)
}

fn basic(username: &str, password: &str) -> Configured {
    sent_as(Scheme::Basic { username: username.into() }, password)
}

fn exchanged(secret: &str) -> Configured {
    sent_as(Scheme::Exchange, secret)
}

fn immuta(url: &str) -> Endpoint {
    endpoint(IMMUTA, url, api_key("k3y-of-the-gateway"))
}

fn exchanging(url: &str) -> Endpoint {
    endpoint(EXCHANGING_IMMUTA, url, exchanged("k3y-of-the-gateway"))
}

fn datasaur(url: &str) -> Endpoint {
    let vendor = DatasaurConfig { client: Some(("client".into(), ClientAuth::Basic)) };
    endpoint(vendor, url, exchanged("s3cret-of-the-client"))
}

fn job() -> [JobRef; 1] {
    [JobRef::new("b", "a")]
}

fn active() -> Reply {
    Reply::json("200 OK", r#"{"a":{"id":"a","state":"active"}}"#)
}

fn rejected() -> Reply {
    Reply::json("401 Unauthorized", "{}")
}

fn token(value: &str) -> Reply {
    Reply::json("200 OK", &format!(r#"{{"token":"{value}"}}"#))
}

fn permit() -> Permit {
    RateLimiter::new(NonZeroU32::MAX).deferred()
}

async fn poll_once(endpoint: &Endpoint) -> Result<JobState, FaultKind> {
    poll_with(endpoint, permit()).await
}

async fn poll_with(endpoint: &Endpoint, permit: Permit) -> Result<JobState, FaultKind> {
    let job = job();
    let poll = time::timeout(PATIENCE, endpoint.poll(&job, permit)).await.expect("a response in time");
    let response = poll.map_err(|fault| fault.kind)?;
    let element = response.elements()[0].as_ref().unwrap();
    Ok(response.observe(&job[0], element).unwrap().state)
}

/// Polls, and checks that the fault is Unavailable and gives nothing away.
async fn outage(endpoint: &Endpoint) -> String {
    let fault = poll_once(endpoint).await.unwrap_err();
    assert_gives_nothing_away(&fault);
    let FaultKind::Unavailable { why } = fault else { panic!("{fault:?}") };
    why
}

fn assert_gives_nothing_away(fault: &FaultKind) {
    for telling in ["http", "127.0.0.1", "/jobs", "k3y", "authorization", "BODY", "a secret path"] {
        assert!(!format!("{fault} {fault:?}").contains(telling), "{fault:?}");
    }
}

/// Every other task has come as far as it can: all they do is local.
async fn settled() {
    for _ in 0..20 {
        task::yield_now().await;
    }
}

#[tokio::test]
async fn each_scheme_has_its_authorization_header() {
    for (credentials, header) in [
        (Configured::NONE, None),
        (api_key("s3cret"), Some("s3cret")),
        (Configured::bearer("s3cret".into()), Some("Bearer s3cret")),
        (basic("admin", "s3cret"), Some("Basic YWRtaW46czNjcmV0")),
        (sent_as(Scheme::BasicUsername, "s3cret"), Some("Basic czNjcmV0Og==")),
    ] {
        let peer = Peer::start(|_| active()).await;
        let endpoint = endpoint(IMMUTA, &peer.url(), credentials);
        assert_eq!(poll_once(&endpoint).await, Ok(JobState::Running));
        assert_eq!(peer.received()[0].authorization.as_deref(), header);
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let target = Peer::start(|_| active()).await;
    for status in ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"] {
        let location = format!("Location: {}/jobs/statuses\r\n", target.url());
        let peer = Peer::start(move |_| Reply::with(status, &location, "")).await;
        let fault = poll_once(&immuta(&peer.url())).await.unwrap_err();
        assert!(matches!(fault, FaultKind::Rejected { .. }), "{fault:?}");
    }
    assert_eq!(target.received().len(), 0);
}

#[tokio::test]
async fn an_answer_over_the_limit_is_malformed() {
    let limit = poll().max_response_bytes;
    let over = " ".repeat(limit + 1);
    let chunked: Vec<String> = (0..17).map(|_| format!("1000\r\n{}\r\n", " ".repeat(0x1000))).collect();
    let json = "Content-Type: application/json\r\n";
    let head = |headers: &str| format!("HTTP/1.1 200 OK\r\n{json}{headers}\r\n");
    for reply in [
        // A text of 100 MB.
        Reply::raw(format!("{}{{\"a\":\"{}", head(""), "x".repeat(100 << 20))).then_close(),
        // Only declared: not a byte of it is waited for.
        Reply::raw(head("Content-Length: 1000000000000\r\n")).then_stall(),
        Reply::with("200 OK", json, &over),
        Reply::raw(format!("{}{}0\r\n\r\n", head("Transfer-Encoding: chunked\r\n"), chunked.concat())),
        // Without an end.
        Reply::raw(format!("{}{}", head("Transfer-Encoding: chunked\r\n"), chunked.concat())).then_stall(),
        Reply::raw(format!("{}{over}", head(""))).then_stall(),
        Reply::with("200 OK", &format!("{json}Content-Encoding: gzip\r\n"), gzip_of_spaces(limit + 1)),
        Reply::with("200 OK", &format!("{json}Content-Encoding: gzip\r\n"), gzip_of_spaces(1 << 30)),
    ] {
        let peer = Peer::start(move |_| reply.clone()).await;
        assert_eq!(poll_once(&immuta(&peer.url())).await, Err(TOO_LARGE));
    }
    let job = r#"{"a":{"id":"a","state":"active"}}"#;
    let fits = format!("{job}{}", " ".repeat(limit - job.len()));
    let peer = Peer::start(move |_| Reply::with("200 OK", json, &fits)).await;
    assert_eq!(poll_once(&immuta(&peer.url())).await, Ok(JobState::Running));
}

/// A gzip member of `length` spaces: repeats of one deflate block (RFC 1951) of a
/// space and 258 times 1000 more, so that a gigabyte is 130 kB or so.
fn gzip_of_spaces(length: usize) -> Vec<u8> {
    let mut bits = Bits::default();
    // A block that is not the last, with the fixed codes.
    bits.put(0b010, 3);
    // The literal space: code 0x30 + 32, eight bits, high bit first.
    bits.put(u32::from((0x30_u8 + 32).reverse_bits()), 8);
    for _ in 0..length.div_ceil(258) {
        // Length 258: code 285, 0xc5 in eight bits. Distance 1: code 0 in five.
        bits.put(u32::from(0xc5_u8.reverse_bits()), 8);
        bits.put(0, 5);
    }
    // The end of the block, code 256; an end is never reached, so no checksum.
    bits.put(0, 7);
    [&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff][..], &bits.bytes].concat()
}

#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    pending: u32,
    count: u32,
}

impl Bits {
    fn put(&mut self, value: u32, count: u32) {
        self.pending |= value << self.count;
        self.count += count;
        while self.count >= 8 {
            self.bytes.push(self.pending.to_le_bytes()[0]);
            self.pending >>= 8;
            self.count -= 8;
        }
    }
}

#[tokio::test]
async fn vendor_that_does_not_listen_is_unreachable() {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let url = format!("http://{}", socket.local_addr().unwrap());
    let fault = poll_once(&immuta(&url)).await.unwrap_err();
    assert_gives_nothing_away(&fault);
    assert!(
        matches!(&fault, FaultKind::Unreachable { why } if why.starts_with("no connection: ")),
        "{fault:?}"
    );
}

#[tokio::test]
async fn vendor_without_tls_is_unreachable_over_https() {
    let peer = Peer::start(|_| Reply::nothing().then_close()).await;
    let url = peer.url().replace("http://", "https://");
    let fault = poll_once(&immuta(&url)).await.unwrap_err();
    assert!(
        matches!(&fault, FaultKind::Unreachable { why } if why.starts_with("no connection: ")),
        "{fault:?}"
    );
}

#[tokio::test]
async fn vendor_that_does_not_respond_in_time_is_unavailable() {
    let short = || Poll { timeout: Duration::from_millis(150), ..poll() };
    for reply in [Reply::nothing(), active().cut(20), active().cut(100)] {
        let peer = Peer::start(move |_| reply.clone().then_stall()).await;
        let key = api_key("k3y");
        let endpoint = endpoint_with(IMMUTA, &peer.url(), key, short());
        assert_eq!(outage(&endpoint).await, "no whole response within 150ms");
        peer.client_closed(1).await;
        assert_eq!(peer.received().len(), 1);
    }
}

#[tokio::test]
async fn response_that_breaks_off_is_an_outage_and_not_requested_again() {
    let whole = Reply::json("200 OK", r#"{"a":{"id":"a","state":"active","BODY":1}}"#);
    for end in [0, 5, 40, 80, 100] {
        for reply in [whole.clone().cut(end).then_close(), whole.clone().cut(end).then_reset()] {
            let peer = Peer::start(move |_| reply.clone()).await;
            assert!(outage(&immuta(&peer.url())).await.starts_with("the connection broke: "));
            assert_eq!(peer.received().len(), 1, "the connection was new");
        }
    }
}

#[tokio::test]
async fn what_is_not_http_is_an_outage() {
    let endless = format!("HTTP/1.1 200 OK\r\n{}", "x: BODY\r\n".repeat(100_000));
    for bytes in ["BODY\r\n\r\n", "HTTP/9.9 BODY\r\n\r\n", "HTTP/1.1 200 OK\r\nBODY\r\n\r\n", &endless] {
        let reply = Reply::raw(bytes).then_close();
        let peer = Peer::start(move |_| reply.clone()).await;
        outage(&immuta(&peer.url())).await;
        assert_eq!(peer.received().len(), 1);
    }
}

/// A vendor that answers the first request of its first connection well, and the
/// second one so.
async fn fickle(second: Reply) -> Peer {
    Peer::start(move |request: &Received| match (request.connection, request.nth) {
        (0, 1) => second.clone(),
        _ => active(),
    })
    .await
}

#[tokio::test]
async fn kept_connection_that_is_closed_under_the_request_costs_one_more() {
    // The client can't tell half a head from none, and no request here starts or
    // changes a job.
    let cut = |end| [active().cut(end).then_close(), active().cut(end).then_reset()];
    for lost in [cut(0), cut(1), cut(40)].concat() {
        let peer = fickle(lost).await;
        let endpoint = immuta(&peer.url());
        assert_eq!(poll_once(&endpoint).await, Ok(JobState::Running));
        assert_eq!(poll_once(&endpoint).await, Ok(JobState::Running));
        let seen: Vec<_> = peer.received().iter().map(|request| (request.connection, request.nth)).collect();
        assert_eq!(seen, [(0, 0), (0, 1), (1, 0)]);
    }
}

#[tokio::test]
async fn connection_that_was_closed_while_idle_costs_nothing() {
    let peer = Peer::start(|request: &Received| match request.connection {
        0 => active().then_close(),
        _ => active(),
    })
    .await;
    let endpoint = immuta(&peer.url());
    assert_eq!(poll_once(&endpoint).await, Ok(JobState::Running));
    assert_eq!(poll_once(&endpoint).await, Ok(JobState::Running));
    assert_eq!(peer.received().len(), 2);
}

#[tokio::test]
async fn a_request_is_sent_once_more_at_most() {
    let peer = Peer::start(|request: &Received| match request.connection {
        0 if request.nth == 0 => active(),
        _ => Reply::nothing().then_close(),
    })
    .await;
    let endpoint = immuta(&peer.url());
    assert_eq!(poll_once(&endpoint).await, Ok(JobState::Running));
    outage(&endpoint).await;
    assert_eq!(peer.received().len(), 3);
}

#[tokio::test]
async fn poll_on_a_kept_connection_is_not_repeated_once_its_response_began() {
    let cut = |end| [active().cut(end).then_close(), active().cut(end).then_reset()];
    let stalled = [Reply::nothing().then_stall(), active().cut(40).then_stall()];
    let cases = [cut(90), cut(100), stalled].concat().into_iter().map(async |lost| {
        let peer = fickle(lost).await;
        // Enough for the first response on a busy machine.
        let short = Poll { timeout: Duration::from_secs(5), ..poll() };
        let endpoint = endpoint_with(IMMUTA, &peer.url(), api_key("k3y"), short);
        assert_eq!(poll_once(&endpoint).await, Ok(JobState::Running));
        outage(&endpoint).await;
        assert_eq!(peer.received().len(), 2);
    });
    join_all(cases).await;
}

#[tokio::test]
async fn cancelled_poll_closes_its_connection() {
    for reply in [Reply::nothing(), active().cut(20), active().cut(100)] {
        let peer = Peer::start(move |_| reply.clone().then_stall()).await;
        let endpoint = immuta(&peer.url());
        {
            let jobs = job();
            let call = endpoint.poll(&jobs, permit());
            tokio::select! {
                answer = call => panic!("{answer:?}"),
                () = peer.requests_came(1) => {}
            }
        }
        time::timeout(PATIENCE, peer.client_closed(1)).await.expect("closed");
    }
}

#[tokio::test]
async fn a_secret_that_the_vendor_repeats_is_redacted() {
    let refusal = |message: &str| Reply::json("409 Conflict", &format!(r#"{{"message":"{message}"}}"#));
    let words = |fault| match fault {
        Err(FaultKind::Rejected { message }) => message,
        other => panic!("{other:?}"),
    };

    let peer = Peer::start(move |_| refusal("no k3y-of-the-gateway here")).await;
    assert_eq!(words(poll_once(&immuta(&peer.url())).await), "no [redacted] here");
    // In the exchange.
    assert_eq!(words(poll_once(&exchanging(&peer.url())).await), "no [redacted] here");

    let peer = Peer::start(move |request| match request.path.as_str() {
        IMMUTA_TOKENS => token("t0ken"),
        _ => refusal("no Bearer t0ken here, k3y-of-the-gateway"),
    })
    .await;
    assert_eq!(words(poll_once(&exchanging(&peer.url())).await), "no Bearer [redacted] here, [redacted]");

    let peer = Peer::start(move |request| refusal(request.authorization.as_deref().unwrap_or(""))).await;
    assert_eq!(
        words(poll_once(&endpoint(IMMUTA, &peer.url(), basic("admin", "s3cret"))).await),
        "Basic [redacted]"
    );

    let peer = Peer::start(|request| {
        let header = request.authorization.as_deref().unwrap_or("");
        let body = format!(r#"{{"error":"invalid_request","error_description":"no {header}"}}"#);
        Reply::json("400 Bad Request", &body)
    })
    .await;
    assert_eq!(words(poll_once(&datasaur(&peer.url())).await), "no Basic [redacted]");

    // A login is a part of the URL, which a router repeats.
    let peer = Peer::start(move |request| {
        Reply::json("404 Not Found", &format!(r#"{{"message":"no route {}"}}"#, request.path))
    })
    .await;
    assert_eq!(
        words(poll_once(&endpoint(claret(), &peer.url(), exchanged("p&w ä"))).await),
        "no route /demo/api/v1/tokens/create?email=me%40example.com&password=[redacted]"
    );

    let peer = Peer::start(move |_| {
        Reply::json("400 Bad Request", r#"{"message":"jobIds: k3y-of-the-gateway may not ask"}"#)
    })
    .await;
    let response = immuta(&peer.url()).poll(&job(), permit()).await.unwrap();
    let message = "jobIds: [redacted] may not ask".into();
    assert_eq!(response.elements(), [Err(JobFault::Invalid { message })]);
}

#[tokio::test]
async fn secret_in_an_unknown_state_is_redacted() {
    for (word, shown) in [
        ("k3y-of-the-gateway", "[redacted]"),
        ("for  k3y-of-the-gateway!", "for  [redacted]!"),
        ("some-k3y", "some-k3y"),
    ] {
        let body = format!(r#"{{"a":{{"id":"a","state":"{word}"}}}}"#);
        let peer = Peer::start(move |_| Reply::json("200 OK", &body)).await;
        let response = immuta(&peer.url()).poll(&job(), permit()).await.unwrap();
        let element = response.elements()[0].as_ref().unwrap();
        let seen = response.observe(&job()[0], element).unwrap();
        assert_eq!((seen.state, &*seen.vendor_state), (JobState::Unknown, shown), "{word}");
    }
}

#[tokio::test]
async fn debug_output_shows_no_secret() {
    let peer = Peer::start(|request| match request.path.as_str() {
        IMMUTA_TOKENS => token("t0ken"),
        _ => active(),
    })
    .await;
    let exchanging = exchanging(&peer.url());
    poll_once(&exchanging).await.unwrap();
    for endpoint in [
        exchanging,
        immuta(&peer.url()),
        datasaur(&peer.url()),
        endpoint(claret(), &peer.url(), exchanged("s3cret")),
        endpoint(KineticaConfig::default(), &peer.url(), basic("admin", "s3cret")),
        endpoint(IMMUTA, &peer.url(), Configured::bearer("s3cret".into())),
    ] {
        let shown = format!("{endpoint:?} {endpoint:#?}");
        for secret in ["k3y", "s3cret", "t0ken", "YWRtaW46"] {
            assert!(!shown.contains(secret), "{shown}");
        }
    }
}

#[tokio::test]
async fn secret_that_no_header_can_hold_stops_the_setup() {
    let url = "https://vendor.example";
    for credentials in [api_key("k3y\n"), Configured::bearer("k3y\0".into())] {
        assert!(!set_up(&backend(IMMUTA, url, credentials)).unwrap_err().to_string().contains("k3y"));
    }
    let tenant = ClaretConfig { tenant: "..".into(), email: None };
    let error = set_up(&backend(tenant, url, Configured::NONE)).unwrap_err();
    assert!(error.to_string().contains("tenant"));
}
