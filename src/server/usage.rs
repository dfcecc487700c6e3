//! Bytes that connections hold: what they received and no call has read, what is encoded
//! and not sent, and a fixed cost of each open call.
//!
//! Every byte counts three times: for its connection, for the connection's address, and
//! for all. A call encodes its next message only where all three have room, so the sum is
//! exceeded by at most one message for each thread. The more is held in all, the less one
//! address may hold, so that many of them together leave room for another. When calls wait for
//! room, connections that don't take their bytes are closed.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    task::Poll,
};

use futures_util::task::AtomicWaker;
use tokio::{sync::Notify, time::Instant};

use crate::{api::http::CountsBytes, config::CALL_BYTES};

mod room;
mod sweep;

pub(super) use room::Room;
pub(super) use sweep::sweep;

/// What all connections hold.
#[derive(Debug)]
pub(super) struct Usage {
    room: Room,
    used: AtomicUsize,
    /// Calls that wait for room.
    waiting: AtomicUsize,
    addresses: Mutex<HashMap<IpAddr, Weak<AddressUsage>>>,
    connections: Mutex<Vec<Weak<ConnectionUsage>>>,
    began: Instant,
}

/// What the connections of one address hold.
#[derive(Debug)]
struct AddressUsage {
    usage: Arc<Usage>,
    address: IpAddr,
    connections: AtomicUsize,
    used: AtomicUsize,
}

/// What one connection holds, and the signal for its end.
#[derive(Debug)]
pub(super) struct ConnectionUsage {
    address: Arc<AddressUsage>,
    used: AtomicUsize,
    /// What of that is messages: received in part, not read, or not sent.
    messages: AtomicUsize,
    calls: AtomicUsize,
    waiting: AtomicUsize,
    /// There may be room for the messages of waiting calls.
    room: Notify,
    /// Bytes of messages that the client has taken, or a call has read.
    moved: AtomicUsize,
    /// How many they were at the last progress, and when that was, in milliseconds since the
    /// server began.
    progress: AtomicUsize,
    progress_at: AtomicUsize,
    draining: AtomicBool,
    closed: AtomicBool,
    waker: AtomicWaker,
}

/// Bytes that are held until this is dropped.
#[derive(Debug)]
pub(super) struct Charge {
    connection: Arc<ConnectionUsage>,
    bytes: usize,
}

/// An open call.
#[derive(Debug)]
pub(super) struct CallUsage {
    connection: Arc<ConnectionUsage>,
    bytes: usize,
}

/// The network that counts as one address: of IPv6 the first 64 bits, since the rest is any
/// host's to choose.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
        address @ IpAddr::V4(_) => address,
    }
}

impl Usage {
    pub(super) fn new(room: Room) -> Arc<Self> {
        Arc::new(Self {
            room,
            used: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            addresses: Mutex::default(),
            connections: Mutex::default(),
            began: Instant::now(),
        })
    }

    /// Counts a new connection; `None` if its address has its share already.
    pub(super) fn connect(self: &Arc<Self>, address: IpAddr) -> Option<Arc<ConnectionUsage>> {
        let address = self.address(network(address));
        let limit = self.room.connections_per_address;
        if address.connections.fetch_add(1, Relaxed) >= limit {
            address.connections.fetch_sub(1, Relaxed);
            return None;
        }
        let connection = Arc::new(ConnectionUsage {
            address,
            used: AtomicUsize::new(0),
            messages: AtomicUsize::new(0),
            calls: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            room: Notify::new(),
            moved: AtomicUsize::new(0),
            progress: AtomicUsize::new(0),
            progress_at: AtomicUsize::new(self.millis()),
            draining: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            waker: AtomicWaker::new(),
        });
        let mut connections = lock(&self.connections);
        // Amortized: the list is as long as there were connections at the last clean-up.
        if connections.len() == connections.capacity() {
            connections.retain(|connection| connection.strong_count() > 0);
        }
        connections.push(Arc::downgrade(&connection));
        Some(connection)
    }

    fn address(self: &Arc<Self>, address: IpAddr) -> Arc<AddressUsage> {
        let mut addresses = lock(&self.addresses);
        if let Some(known) = addresses.get(&address).and_then(Weak::upgrade) {
            return known;
        }
        let usage = Arc::clone(self);
        let new = Arc::new(AddressUsage {
            usage,
            address,
            connections: AtomicUsize::new(0),
            used: AtomicUsize::new(0),
        });
        addresses.insert(address, Arc::downgrade(&new));
        new
    }

    /// Bytes that are held now.
    #[cfg(test)]
    pub(super) fn used(&self) -> usize {
        self.used.load(Relaxed)
    }

    /// Asks all connections to end with their last call.
    pub(super) fn drain(&self) {
        for connection in self.connections() {
            connection.draining.store(true, Relaxed);
            connection.waker.wake();
        }
    }

    /// Closes all connections.
    pub(super) fn close(&self) {
        self.connections().iter().for_each(|connection| connection.close());
    }

    fn connections(&self) -> Vec<Arc<ConnectionUsage>> {
        lock(&self.connections).iter().filter_map(Weak::upgrade).collect()
    }

    fn millis(&self) -> usize {
        usize::try_from(self.began.elapsed().as_millis()).unwrap_or(usize::MAX)
    }
}

impl AddressUsage {
    /// What it may hold at present.
    fn limit(&self) -> usize {
        self.usage.room.of_address(self.used.load(Relaxed), self.usage.used.load(Relaxed))
    }

    fn is_full(&self) -> bool {
        self.used.load(Relaxed) >= self.limit()
    }
}

impl Drop for AddressUsage {
    fn drop(&mut self) {
        let mut addresses = lock(&self.usage.addresses);
        if addresses.get(&self.address).is_some_and(|known| known.strong_count() == 0) {
            addresses.remove(&self.address);
        }
    }
}

impl ConnectionUsage {
    fn usage(&self) -> &Usage {
        &self.address.usage
    }

    /// What it may hold at present.
    fn limit(&self) -> usize {
        let address = &self.address;
        Room::of_connection(self.used.load(Relaxed), address.used.load(Relaxed), address.limit())
    }

    /// Whether another message may be received or encoded.
    pub(super) fn has_room(&self) -> bool {
        self.used.load(Relaxed) < self.limit()
    }

    /// Whether another call may begin. Calls take three quarters of the room: the rest is
    /// for their messages.
    fn has_room_for_call(&self) -> bool {
        let has_room = |used: &AtomicUsize, limit: usize| used.load(Relaxed) < limit / 4 * 3;
        has_room(&self.used, self.limit()) && has_room(&self.address.used, self.address.limit())
    }

    /// Whether its messages are more than small ones.
    fn is_large(&self) -> bool {
        self.messages.load(Relaxed) > 4 * CALL_BYTES
    }

    /// Waits until another message may be encoded.
    pub(super) async fn wait_for_room(&self) {
        if self.has_room() {
            return;
        }
        let _waiting = Waiting::new(self);
        loop {
            let notified = self.room.notified();
            if self.has_room() {
                // The next one, too.
                self.room.notify_one();
                return;
            }
            notified.await;
        }
    }

    /// Counts bytes that the connection holds now.
    pub(super) fn charge(self: &Arc<Self>, bytes: usize) -> Charge {
        let mut charge = Charge { connection: Arc::clone(self), bytes: 0 };
        charge.set(bytes);
        charge
    }

    /// Counts a call with `bytes` of headers; `None` if there is no room for it. The first
    /// call of a connection always has room.
    pub(super) fn begin_call(self: &Arc<Self>, headers: usize) -> Option<CallUsage> {
        if self.calls.load(Relaxed) > 0 && !self.has_room_for_call() {
            return None;
        }
        let bytes = CALL_BYTES + headers;
        self.calls.fetch_add(1, Relaxed);
        self.add(bytes);
        Some(CallUsage { connection: Arc::clone(self), bytes })
    }

    /// Number of open calls.
    pub(super) fn calls(&self) -> usize {
        self.calls.load(Relaxed)
    }

    /// Wakes the task of `waker` when the connection has to end.
    pub(super) fn register(&self, waker: &std::task::Waker) {
        self.waker.register(waker);
    }

    /// Ends when the connection may take no more calls.
    pub(super) async fn drained(&self) {
        std::future::poll_fn(|cx| {
            self.register(cx.waker());
            if self.is_draining() || self.is_closed() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    pub(super) fn is_draining(&self) -> bool {
        self.draining.load(Relaxed)
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Relaxed)
    }

    fn close(&self) {
        self.closed.store(true, Relaxed);
        self.waker.wake();
    }

    fn add(&self, bytes: usize) {
        self.used.fetch_add(bytes, Relaxed);
        self.address.used.fetch_add(bytes, Relaxed);
        self.usage().used.fetch_add(bytes, Relaxed);
    }

    fn remove(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Relaxed);
        self.address.used.fetch_sub(bytes, Relaxed);
        self.usage().used.fetch_sub(bytes, Relaxed);
        if self.waiting.load(Relaxed) > 0 {
            self.room.notify_one();
        }
    }

    /// Notes bytes that the client has taken, or a call has read.
    fn moved(&self, bytes: usize) {
        self.moved.fetch_add(bytes, Relaxed);
    }

    /// How long its bytes have stood still, at most since `since`; both in milliseconds. Only
    /// the sweep calls this.
    fn still(&self, now: usize, since: usize) -> usize {
        let moved = self.moved.load(Relaxed);
        if moved.wrapping_sub(self.progress.load(Relaxed)) >= sweep::PROGRESS {
            self.progress.store(moved, Relaxed);
            self.progress_at.store(now, Relaxed);
        }
        now.saturating_sub(self.progress_at.load(Relaxed).max(since))
    }
}

impl CountsBytes for ConnectionUsage {
    fn room(self: Arc<Self>) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move { self.wait_for_room().await })
    }

    fn hold(self: Arc<Self>, bytes: usize) -> Box<dyn Send + Sync> {
        Box::new(self.charge(bytes))
    }
}

impl Drop for ConnectionUsage {
    fn drop(&mut self) {
        self.address.connections.fetch_sub(1, Relaxed);
    }
}

impl Charge {
    /// Notes bytes that the client has taken, or a call has read.
    pub(super) fn moved(&self, bytes: usize) {
        self.connection.moved(bytes);
    }

    /// Counts more or fewer bytes.
    pub(super) fn set(&mut self, bytes: usize) {
        if bytes > self.bytes {
            self.connection.messages.fetch_add(bytes - self.bytes, Relaxed);
            self.connection.add(bytes - self.bytes);
        } else if bytes < self.bytes {
            self.connection.messages.fetch_sub(self.bytes - bytes, Relaxed);
            self.connection.remove(self.bytes - bytes);
        }
        self.bytes = bytes;
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.set(0);
    }
}

impl CallUsage {
    pub(super) fn connection(&self) -> &Arc<ConnectionUsage> {
        &self.connection
    }
}

impl Drop for CallUsage {
    fn drop(&mut self) {
        self.connection.calls.fetch_sub(1, Relaxed);
        self.connection.remove(self.bytes);
    }
}

/// Counts a call that waits for room.
struct Waiting<'a>(&'a ConnectionUsage);

impl<'a> Waiting<'a> {
    fn new(connection: &'a ConnectionUsage) -> Self {
        connection.waiting.fetch_add(1, Relaxed);
        connection.usage().waiting.fetch_add(1, Relaxed);
        Self(connection)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Relaxed);
        self.0.usage().waiting.fetch_sub(1, Relaxed);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
