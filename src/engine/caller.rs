//! Who calls, as far as the engine needs to know: which calls are one caller's, and how much
//! it may have open.

use std::{
    hash::{BuildHasher, Hash, RandomState},
    net::{IpAddr, Ipv6Addr},
    sync::LazyLock,
};

/// A caller. Calls without one count as one caller's.
#[derive(Clone, Copy, Debug, Default)]
pub struct Caller {
    key: CallerKey,
    limits: CallerLimits,
}

/// How much one caller may have open, where that differs from every caller's share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CallerLimits {
    /// Watches, and calls that wait for a job to end.
    pub watches: Option<usize>,
    /// Downloads of one backend's files.
    pub downloads: Option<usize>,
}

/// Stands for a [`Caller`] where many are compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CallerKey(pub(super) u64);

impl CallerKey {
    /// Another replica's session of this number: one caller, for whomever it asks.
    pub fn of_replica(session: u64) -> Self {
        Self(HASHER.hash_one(("replica", session)))
    }
}

/// Keyed by a random number, so that nobody can choose a name that counts as another's.
static HASHER: LazyLock<RandomState> = LazyLock::new(RandomState::new);

impl Caller {
    /// The caller at this address. Of an IPv6 address the first 64 bits count, since the
    /// rest is any host's to choose.
    pub fn from_address(address: Option<IpAddr>) -> Self {
        let Some(address) = address else { return Self::default() };
        Self::of(&match address.to_canonical() {
            IpAddr::V6(address) => {
                let network = u128::from(address) & !u128::from(u64::MAX);
                IpAddr::V6(Ipv6Addr::from(network))
            }
            address @ IpAddr::V4(_) => address,
        })
    }

    /// The caller of this name, wherever it calls from.
    pub fn from_name(name: &str) -> Self {
        Self::of(&name)
    }

    fn of(who: &impl Hash) -> Self {
        Self { key: CallerKey(HASHER.hash_one(who)), limits: CallerLimits::default() }
    }

    /// The same caller with limits of its own.
    #[must_use]
    pub fn with_limits(self, limits: CallerLimits) -> Self {
        Self { limits, ..self }
    }

    /// How much it may have open.
    pub fn limits(&self) -> CallerLimits {
        self.limits
    }

    /// A short name of this caller, which is compared in its place.
    pub fn key(&self) -> CallerKey {
        self.key
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_one_ipv6_network_are_one_caller() {
        let caller = |address: &str| Caller::from_address(Some(address.parse().unwrap())).key();
        assert_eq!(caller("2001:db8:0:1::1"), caller("2001:db8:0:1:ffff::2"));
        assert_ne!(caller("2001:db8:0:1::1"), caller("2001:db8:0:2::1"));
        assert_ne!(caller("127.0.0.1"), caller("127.0.0.2"));
        assert_eq!(caller("::ffff:127.0.0.1"), caller("127.0.0.1"), "the same address in both notations");
    }

    #[test]
    fn name_is_one_caller_wherever_it_calls_from() {
        assert_eq!(Caller::from_name("token:a").key(), Caller::from_name("token:a").key());
        assert_ne!(Caller::from_name("token:a").key(), Caller::from_name("token:b").key());
        assert_ne!(
            Caller::from_name("127.0.0.1").key(),
            Caller::from_address("127.0.0.1".parse().ok()).key()
        );
    }
}
