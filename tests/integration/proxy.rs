//! A faulty network between a gateway and a vendor.
//!
//! A [`Proxy`] reads the requests of a connection one by one, fetches each response from
//! the simulator behind it, and sends the response with the current [`Fault`]
//! applied. A test changes the fault while connections are open.

use std::{
    io,
    net::SocketAddr,
    ops::RangeInclusive,
    sync::{Arc, Mutex},
    time::Duration,
};

use jobwatch::simulators::{Delivery, Effect, RawResponse, Simulator};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::{AbortHandle, JoinSet},
    time::sleep,
};

use crate::harness::guard;

/// The order of a connection's responses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    /// Each request gets its own response.
    Right,
    /// No response; requests are not read.
    Deaf,
    /// One response, then the connection ends under the next request.
    Once,
    /// From the second on, a copy of the previous response comes first.
    CopyFirst,
    /// From the second on, the previous response comes instead.
    Shifted,
}

type Change = Arc<dyn Fn(&RawResponse) -> Delivery + Send + Sync>;

/// A fault of the network.
#[derive(Clone)]
pub(crate) struct Fault {
    change: Change,
    /// Milliseconds that a request and a response wait; a range is jitter.
    delays: [RangeInclusive<u64>; 2],
    order: Order,
}

impl Fault {
    /// No fault.
    pub(crate) fn none() -> Self {
        Self::changed(|response| Delivery::of(response.whole()))
    }

    /// This delivery instead of the response's.
    pub(crate) fn changed(change: impl Fn(&RawResponse) -> Delivery + Send + Sync + 'static) -> Self {
        Self { change: Arc::new(change), delays: [0..=0, 0..=0], order: Order::Right }
    }

    /// Applies a simulator's effect to the bytes on the way.
    pub(crate) fn of(effect: &Effect) -> Self {
        match (effect, effect.distortion()) {
            (_, Some(distortion)) => Self::changed(distortion),
            (Effect::Delay(time), None) => Self::delayed(0..=0, millis(*time)..=millis(*time)),
            (Effect::Jitter(time), None) => Self::delayed(0..=millis(*time), 0..=millis(*time)),
            (_, None) => panic!("{effect:?} is not the network's"),
        }
    }

    /// Connections are accepted and never read.
    pub(crate) fn deaf() -> Self {
        Self { order: Order::Deaf, ..Self::none() }
    }

    /// A connection that has served a response is closed under the next request.
    pub(crate) fn once_a_connection() -> Self {
        Self { order: Order::Once, ..Self::none() }
    }

    /// A copy of the previous response instead of the response, when the next request has
    /// arrived.
    pub(crate) fn copied_late() -> Self {
        Self { order: Order::CopyFirst, ..Self::none() }
    }

    /// Each request of a connection but the first gets the response to the previous one.
    pub(crate) fn shifted() -> Self {
        Self { order: Order::Shifted, ..Self::none() }
    }

    /// Milliseconds of latency on the way there and back.
    pub(crate) fn delayed(request: RangeInclusive<u64>, response: RangeInclusive<u64>) -> Self {
        Self { delays: [request, response], ..Self::none() }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap()
}

/// Counts the traffic of a proxy.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) connections: usize,
    /// Requests that were read, or that were awaited if none is read.
    pub(crate) requests: usize,
    /// Bytes that the gateway received.
    pub(crate) bytes: usize,
}

struct Shared {
    vendor: SocketAddr,
    fault: Mutex<Fault>,
    seen: watch::Sender<Seen>,
}

/// A proxy in front of one simulator until it is dropped.
pub(crate) struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    listening: AbortHandle,
}

impl Proxy {
    pub(crate) async fn before(simulator: &Simulator) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let fault = Mutex::new(Fault::none());
        let shared = Arc::new(Shared { vendor: simulator.addr(), fault, seen: watch::Sender::default() });
        let listening = tokio::spawn(Arc::clone(&shared).listen(listener)).abort_handle();
        Self { address, shared, listening }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Sets the fault from the next response on, on open connections, too.
    pub(crate) fn set(&self, fault: Fault) {
        *self.shared.fault.lock().unwrap() = fault;
    }

    pub(crate) fn heal(&self) {
        self.set(Fault::none());
    }

    pub(crate) fn seen(&self) -> Seen {
        *self.shared.seen.borrow()
    }

    /// Returns once `number` more requests have arrived.
    pub(crate) async fn requests_come(&self, number: usize) {
        let wanted = self.seen().requests + number;
        let mut seen = self.shared.seen.subscribe();
        guard(seen.wait_for(|seen| seen.requests >= wanted)).await.unwrap();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

impl Shared {
    fn fault(&self) -> Fault {
        self.fault.lock().unwrap().clone()
    }

    /// The connections end with the proxy.
    async fn listen(self: Arc<Self>, listener: TcpListener) {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => {
                    self.seen.send_modify(|seen| seen.connections += 1);
                    connections.spawn(Arc::clone(&self).serve(accepted.unwrap().0));
                }
                Some(_) = connections.join_next() => {}
            }
        }
    }

    /// An error means that the gateway or the vendor closed its connection.
    async fn serve(self: Arc<Self>, mut stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let mut unread = Vec::new();
        let mut before: Option<RawResponse> = None;
        loop {
            stream.readable().await?;
            if self.fault().order == Order::Deaf {
                self.seen.send_modify(|seen| seen.requests += 1);
                std::future::pending::<()>().await;
            }
            let Some(request) = read_request(&mut stream, &mut unread).await? else { return Ok(()) };
            let fault = self.fault();
            self.seen.send_modify(|seen| seen.requests += 1);
            let wait = |range: &RangeInclusive<u64>| Duration::from_millis(rand::random_range(range.clone()));
            if fault.order == Order::Once && before.is_some() {
                return Ok(());
            }
            if fault.order == Order::CopyFirst
                && let Some(before) = &before
            {
                stream.write_all(&before.whole()).await?;
            }
            sleep(wait(&fault.delays[0])).await;
            let response = fetch(self.vendor, &request).await?;
            sleep(wait(&fault.delays[1])).await;
            let next = before
                .replace(response.clone())
                .filter(|_| fault.order == Order::Shifted)
                .unwrap_or(response);
            let sent = |bytes| self.seen.send_modify(|seen| seen.bytes += bytes);
            if !(fault.change)(&next).send(&mut stream, sent).await? {
                return Ok(());
            }
        }
    }
}

/// The next request as received; `None` at the end of the connection.
async fn read_request(stream: &mut TcpStream, unread: &mut Vec<u8>) -> io::Result<Option<Vec<u8>>> {
    loop {
        if let Some(end) = unread.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&unread[..end]).to_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
            let length: usize = length.map_or(0, |length| length.trim().parse().unwrap());
            if unread.len() >= end + 4 + length {
                let rest = unread.split_off(end + 4 + length);
                return Ok(Some(std::mem::replace(unread, rest)));
            }
        }
        if stream.read_buf(unread).await? == 0 {
            return Ok(None);
        }
    }
}

/// The vendor's response, over a connection of its own.
async fn fetch(vendor: SocketAddr, request: &[u8]) -> io::Result<RawResponse> {
    let mut stream = TcpStream::connect(vendor).await?;
    let line = 2 + request.windows(2).position(|two| two == b"\r\n").expect("a request has lines");
    stream.write_all(&[&request[..line], b"Connection: close\r\n", &request[line..]].concat()).await?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await?;
    Ok(RawResponse::parse(&bytes).expect("a response of HTTP/1.1"))
}
