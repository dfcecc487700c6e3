//! How a connection to a vendor is opened: name, TCP, a proxy, TLS.
//!
//! hyper-util's connector looks the name up and tries its addresses with a head start for
//! the first of the other family (RFC 8305). A proxy is sent CONNECT for an https URL and
//! the absolute URL for an http one. TLS offers HTTP/2 and HTTP/1.1; without TLS it is
//! HTTP/1.1.

use std::{
    cell::Cell,
    error::Error,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures_util::future::BoxFuture;
use http::{HeaderValue, Uri, uri::Scheme};
use hyper_util::{
    client::{
        legacy::connect::{Connected, Connection, HttpConnector, proxy::Tunnel},
        proxy::matcher::Matcher,
    },
    rt::TokioIo,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream, rustls::pki_types::ServerName};
use tower::Service;

use super::{
    SetupError,
    address::Resolver,
    intervals::INTERVALS,
    tls::{self, Offer},
};
use crate::{
    config::{Network, Proxies, Proxy},
    vendors::BaseUrl,
};

tokio::task_local! {
    /// Whether the request that the task sends had to open a connection.
    pub(super) static CONNECTED: Cell<bool>;
}

/// How the reason of a failure at the proxy begins.
pub(super) const AT_PROXY: &str = "the proxy: ";

/// How the connections of one base URL are opened.
pub(super) struct Dialer {
    tcp: HttpConnector<Resolver>,
    proxy: Option<Proxy>,
    /// Towards the vendor.
    tls: Option<TlsConnector>,
    /// Towards a proxy with an https URL.
    proxy_tls: Option<TlsConnector>,
    connect_timeout: Duration,
}

impl Dialer {
    pub(super) fn new(
        base_url: &BaseUrl,
        network: &Network,
        connect_timeout: Duration,
        offer: Offer,
    ) -> Result<Arc<Self>, SetupError> {
        Self::with_addresses(base_url, network, connect_timeout, offer, false)
    }

    /// Connects to public addresses only, unless the URL itself has another one. A proxy
    /// resolves the name by itself, so that it is the proxy that has to refuse the others.
    pub(super) fn to_public(
        base_url: &BaseUrl,
        network: &Network,
        connect_timeout: Duration,
        offer: Offer,
    ) -> Result<Arc<Self>, SetupError> {
        Self::with_addresses(base_url, network, connect_timeout, offer, true)
    }

    fn with_addresses(
        base_url: &BaseUrl,
        network: &Network,
        connect_timeout: Duration,
        offer: Offer,
        public_only: bool,
    ) -> Result<Arc<Self>, SetupError> {
        let proxy = proxy_for(base_url, &network.proxy);
        let mut tcp = HttpConnector::new_with_resolver(Resolver::new(public_only && proxy.is_none()));
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(INTERVALS.tcp_keep_alive));
        tcp.set_keepalive_interval(Some(INTERVALS.tcp_keep_alive_interval));
        tcp.set_keepalive_retries(Some(INTERVALS.tcp_keep_alive_probes));
        tcp.set_connect_timeout(Some(connect_timeout));
        let tls = base_url.is_https().then(|| tls::connector(network.ca.as_deref(), offer)).transpose()?;
        let proxy_is_https = proxy.as_ref().is_some_and(|proxy| proxy.uri.scheme() == Some(&Scheme::HTTPS));
        let proxy_tls =
            proxy_is_https.then(|| tls::connector(network.ca.as_deref(), Offer::Nothing)).transpose()?;
        Ok(Arc::new(Self { tcp, proxy, tls, proxy_tls, connect_timeout }))
    }

    /// The header that an HTTP proxy must find in each request. Behind TLS the proxy sees
    /// nothing but CONNECT.
    pub(super) fn proxy_authorization(&self) -> Option<&HeaderValue> {
        self.proxy.as_ref().filter(|_| self.tls.is_none())?.authorization.as_ref()
    }

    /// Whether the vendor may speak HTTP/2.
    pub(super) fn is_https(&self) -> bool {
        self.tls.is_some()
    }

    async fn open(self: Arc<Self>, uri: Uri) -> io::Result<Stream> {
        let proxy = self.proxy.clone();
        let (io, is_proxied) = match (proxy, &self.tls) {
            (None, _) => (self.tcp(uri.clone()).await?, false),
            (Some(proxy), None) => (self.to_proxy(proxy.uri).await?, true),
            (Some(proxy), Some(_)) => {
                let dialer = Arc::clone(&self);
                let connector = tower::service_fn(move |uri| {
                    let dialer = Arc::clone(&dialer);
                    async move { dialer.to_proxy(uri).await.map(TokioIo::new) }
                });
                let mut tunnel = Tunnel::new(proxy.uri, connector);
                if let Some(authorization) = proxy.authorization {
                    tunnel = tunnel.with_auth(authorization);
                }
                let tunnelled = tunnel.call(uri.clone()).await.map_err(|error| at_proxy(&error))?;
                (tunnelled.into_inner(), false)
            }
        };
        let io = match &self.tls {
            None => io,
            Some(tls) => handshake(tls, &uri, io).await?,
        };
        Ok(Stream { io, is_proxied })
    }

    async fn tcp(&self, uri: Uri) -> io::Result<Io> {
        let stream = self.tcp.clone().call(uri).await;
        stream.map(|stream| Io::Tcp(stream.into_inner())).map_err(io::Error::other)
    }

    async fn to_proxy(&self, uri: Uri) -> io::Result<Io> {
        let failed = |error: io::Error| at_proxy(&error);
        let stream = self.tcp(uri.clone()).await.map_err(failed)?;
        match &self.proxy_tls {
            None => Ok(stream),
            Some(tls) => handshake(tls, &uri, stream).await.map_err(failed),
        }
    }
}

async fn handshake(tls: &TlsConnector, uri: &Uri, io: Io) -> io::Result<Io> {
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    Ok(Io::Tls(Box::new(tls.connect(name, io).await?)))
}

/// An error and its causes, the innermost last.
pub(super) fn causes<'a>(
    error: &'a (dyn Error + 'static),
) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |cause: &&'a (dyn Error + 'static)| (**cause).source())
}

/// What failed at the proxy. The words name it once, however deep the failure lies.
fn at_proxy(error: &(dyn Error + 'static)) -> io::Error {
    let innermost = causes(error).last().map_or_else(String::new, ToString::to_string);
    // hyper-util's words for the response to CONNECT; it does not export the error's type.
    let text = match innermost.strip_prefix("tunnel error: ") {
        Some("proxy authorization required") => "it rejects the gateway's credentials for it (HTTP 407)",
        Some("unsuccessful") => "it refuses to connect to the vendor",
        Some("unexpected end of file") => "it closed the connection",
        Some(other) => other,
        None => innermost.strip_prefix(AT_PROXY).unwrap_or(&innermost),
    };
    io::Error::other(format!("{AT_PROXY}{text}"))
}

/// The proxy through which a base URL is reached. That of the environment is not used
/// towards this machine.
fn proxy_for(base_url: &BaseUrl, proxies: &Proxies) -> Option<Proxy> {
    match proxies {
        Proxies::None => None,
        Proxies::Own(proxy) => Some(proxy.clone()),
        Proxies::Environment { .. } if base_url.is_loopback() => None,
        Proxies::Environment { http, https, no_proxy } => {
            let proxy = if base_url.is_https() { https } else { http }.as_ref()?;
            let matcher = Matcher::builder().all("http://proxy.invalid").no(no_proxy.as_str()).build();
            matcher.intercept(&base_url.join("/")).map(|_| proxy.clone())
        }
    }
}

/// Opens connections for hyper-util's client.
#[derive(Clone)]
pub(super) struct Connector {
    dialer: Arc<Dialer>,
    /// Whether one of its connections speaks HTTP/2.
    multiplexes: Arc<AtomicBool>,
}

impl Connector {
    pub(super) fn new(dialer: &Arc<Dialer>, multiplexes: &Arc<AtomicBool>) -> Self {
        Self { dialer: Arc::clone(dialer), multiplexes: Arc::clone(multiplexes) }
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Stream>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<TokioIo<Stream>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Runs in the task of the request that needs the connection.
    fn call(&mut self, uri: Uri) -> Self::Future {
        // Outside of a first try, nobody wants to know.
        let _ = CONNECTED.try_with(|connected| connected.set(true));
        let Self { dialer, multiplexes } = self.clone();
        Box::pin(async move {
            let stream = timeout(dialer.connect_timeout, Arc::clone(&dialer).open(uri)).await;
            let stream = stream.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
            if stream.is_http2() {
                multiplexes.store(true, Ordering::Relaxed);
            }
            Ok(TokioIo::new(stream))
        })
    }
}

/// A connection to a vendor.
pub(super) struct Stream {
    io: Io,
    /// Whether requests name the whole URL, for an HTTP proxy.
    is_proxied: bool,
}

enum Io {
    Tcp(TcpStream),
    /// Over TCP, or through a proxy's TLS.
    Tls(Box<TlsStream<Io>>),
}

impl Stream {
    fn is_http2(&self) -> bool {
        matches!(&self.io, Io::Tls(tls) if tls.get_ref().1.alpn_protocol() == Some(b"h2"))
    }
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        let connected = Connected::new().proxy(self.is_proxied);
        if self.is_http2() { connected.negotiated_h2() } else { connected }
    }
}

impl AsyncRead for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_read(cx, buffer),
            Self::Tls(tls) => Pin::new(&mut **tls).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_write(cx, bytes),
            Self::Tls(tls) => Pin::new(&mut **tls).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_write_vectored(cx, parts),
            Self::Tls(tls) => Pin::new(&mut **tls).poll_write_vectored(cx, parts),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(tcp) => tcp.is_write_vectored(),
            Self::Tls(tls) => tls.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_flush(cx),
            Self::Tls(tls) => Pin::new(&mut **tls).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Tls(tls) => Pin::new(&mut **tls).poll_shutdown(cx),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}
