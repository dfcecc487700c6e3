//! Who calls, as far as the engine needs to know: which calls are one caller's.

use std::net::{IpAddr, Ipv6Addr};

use xxhash_rust::xxh3::xxh3_64;

/// A caller. Calls without one count as one caller's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Caller(Option<IpAddr>);

impl Caller {
    /// The caller at this address. Of an IPv6 address the first 64 bits count, since the
    /// rest is any host's to choose.
    pub fn from_address(address: Option<IpAddr>) -> Self {
        Self(address.map(|address| match address.to_canonical() {
            IpAddr::V6(address) => {
                let network = u128::from(address) & !u128::from(u64::MAX);
                IpAddr::V6(Ipv6Addr::from(network))
            }
            address @ IpAddr::V4(_) => address,
        }))
    }

    /// A short name of this caller, which is compared in its place.
    pub fn key(&self) -> CallerKey {
        match self.0 {
            None => CallerKey(0),
            Some(IpAddr::V4(address)) => CallerKey(xxh3_64(&address.octets())),
            Some(IpAddr::V6(address)) => CallerKey(xxh3_64(&address.octets())),
        }
    }
}

/// Stands for a [`Caller`] where many are compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CallerKey(pub(super) u64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_one_ipv6_network_are_one_caller() {
        let caller = |address: &str| Caller::from_address(Some(address.parse().unwrap()));
        assert_eq!(caller("2001:db8:0:1::1"), caller("2001:db8:0:1:ffff::2"));
        assert_eq!(caller("2001:db8:0:1::1").key(), caller("2001:db8:0:1:ffff::2").key());
        assert_ne!(caller("2001:db8:0:1::1"), caller("2001:db8:0:2::1"));
        assert_ne!(caller("127.0.0.1"), caller("127.0.0.2"));
        assert_eq!(caller("::ffff:127.0.0.1"), caller("127.0.0.1"), "the same address in both notations");
        assert_ne!(caller("127.0.0.1").key(), caller("127.0.0.2").key());
    }
}
