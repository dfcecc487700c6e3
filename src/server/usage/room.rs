//! How much connections may hold, in all and each.

/// The part of an address's room that one connection may take: one in so many.
const CONNECTION_SHARE: usize = 2;

/// The part of all room that is reserved for addresses that hold little: one in so many.
const RESERVE: usize = 8;

/// What an address may hold of the reserve, at most a sixteenth of its share: small responses
/// to some calls.
const LITTLE: usize = 256 << 10;

/// How many connections and bytes there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server) struct Room {
    /// Connections of one address.
    pub(in crate::server) connections_per_address: usize,
    /// Bytes beside those of idle connections.
    pub(in crate::server) bytes: usize,
    /// The same of one address.
    pub(in crate::server) bytes_per_address: usize,
    /// The same of one connection.
    pub(in crate::server) bytes_per_connection: usize,
}

impl Room {
    /// The room that `bytes` leave beside so many connections, each of which takes `idle`
    /// bytes without a call. An address has the same share of bytes as of connections.
    pub(in crate::server) fn new(
        bytes: u64,
        idle: usize,
        connections: usize,
        connections_per_address: usize,
    ) -> Self {
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        let bytes = bytes.saturating_sub(connections.saturating_mul(idle));
        let share = |bytes: usize| {
            let share = bytes as u128 * connections_per_address.min(connections) as u128;
            usize::try_from(share / connections.max(1) as u128).unwrap_or(usize::MAX)
        };
        let bytes_per_address = share(bytes);
        Self {
            connections_per_address,
            bytes,
            bytes_per_address,
            bytes_per_connection: bytes_per_address / CONNECTION_SHARE,
        }
    }

    /// What an address may hold that holds `own`, while all addresses hold `all`: its share of
    /// what the others leave. An eighth is reserved for addresses that hold little: it goes to
    /// them until nothing is left.
    pub(super) fn of_address(&self, own: usize, all: usize) -> usize {
        let left = self.bytes.saturating_sub(all.saturating_sub(own));
        let beside_reserve = left.saturating_sub(self.bytes / RESERVE);
        let share = self.bytes_per_address as u128 * beside_reserve as u128
            / (self.bytes - self.bytes / RESERVE).max(1) as u128;
        let share = usize::try_from(share).unwrap_or(usize::MAX);
        share.max(left.min(LITTLE).min(self.bytes_per_address / 16))
    }

    /// What a connection may hold that holds `own`, while its address holds `all` and may hold
    /// `limit`.
    pub(super) fn of_connection(own: usize, all: usize, limit: usize) -> usize {
        limit.saturating_sub(all.saturating_sub(own)) / CONNECTION_SHARE
    }
}
