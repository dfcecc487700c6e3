//! What a caller may do.

use std::{net::IpAddr, num::NonZeroU32, sync::Arc};

use wildmatch::WildMatch;

use super::{
    Right,
    limits::{Usage, Usages},
};
use crate::config;

/// What some callers may do.
#[derive(Debug)]
pub struct Policy {
    principals: Vec<WildMatch>,
    backends: Vec<WildMatch>,
    rights: Vec<Right>,
    pub(super) calls_per_second: Option<NonZeroU32>,
    pub(super) download_bytes_per_second: Option<NonZeroU32>,
    watches: Option<usize>,
    downloads: Option<usize>,
}

/// A caller, and what it may do.
#[derive(Clone, Debug)]
pub struct Grant(Granted);

#[derive(Clone, Debug)]
enum Granted {
    /// Callers are not identified.
    Everything(Option<IpAddr>),
    Nothing(Arc<str>),
    By {
        name: Arc<str>,
        address: Option<IpAddr>,
        policy: Arc<Policy>,
        usage: Arc<Usage>,
    },
}

impl Policy {
    pub(super) fn new(configured: &config::Policy) -> Self {
        let patterns = |texts: &[String]| texts.iter().map(|text| WildMatch::new(text)).collect();
        let number = |number: Option<NonZeroU32>| number.map(|number| number.get() as usize);
        Self {
            principals: patterns(&configured.principals),
            backends: patterns(&configured.backends),
            rights: configured.rights.clone(),
            calls_per_second: configured.calls_per_second,
            download_bytes_per_second: configured.download_bytes_per_second,
            watches: number(configured.watches),
            downloads: number(configured.downloads),
        }
    }

    /// Whether it is about the caller of this name. `*` does not stand for callers that are
    /// not identified.
    pub(super) fn names(&self, principal: &str) -> bool {
        self.principals.iter().any(|pattern| match principal {
            super::ANONYMOUS => *pattern == WildMatch::new(principal),
            _ => pattern.matches(principal),
        })
    }
}

impl Grant {
    /// Of a caller where none are identified.
    pub fn unrestricted(address: Option<IpAddr>) -> Self {
        Self(Granted::Everything(address))
    }

    pub(super) fn nothing(name: &str) -> Self {
        Self(Granted::Nothing(name.into()))
    }

    pub(super) fn new(name: &str, address: Option<IpAddr>, policy: &Arc<Policy>, usages: &Usages) -> Self {
        let name: Arc<str> = name.into();
        let usage = usages.of(&name, policy);
        Self(Granted::By { name, address, policy: Arc::clone(policy), usage })
    }

    /// The caller's name; `None` where callers are not identified.
    pub fn principal(&self) -> Option<&str> {
        match &self.0 {
            Granted::Everything(_) => None,
            Granted::Nothing(name) | Granted::By { name, .. } => Some(name),
        }
    }

    /// Where the caller is, where nothing else tells it from others.
    pub fn address(&self) -> Option<IpAddr> {
        match &self.0 {
            Granted::Everything(address) | Granted::By { address, .. } => *address,
            Granted::Nothing(_) => None,
        }
    }

    /// Whether the caller may do this at the backend of this name, which need not exist.
    pub fn allows(&self, right: Right, backend: &str) -> bool {
        match &self.0 {
            Granted::Everything(_) => true,
            Granted::Nothing(_) => false,
            Granted::By { policy, .. } => {
                policy.rights.contains(&right) && policy.backends.iter().any(|name| name.matches(backend))
            }
        }
    }

    /// How many watches and waiting calls the caller may have open, if its policy says so.
    pub fn watches(&self) -> Option<usize> {
        self.policy()?.watches
    }

    /// How many downloads the caller may have open, if its policy says so.
    pub fn downloads(&self) -> Option<usize> {
        self.policy()?.downloads
    }

    /// What the caller has used lately, where its policy bounds that.
    pub fn usage(&self) -> Option<&Arc<Usage>> {
        match &self.0 {
            Granted::By { usage, .. } => Some(usage),
            Granted::Everything(_) | Granted::Nothing(_) => None,
        }
    }

    fn policy(&self) -> Option<&Policy> {
        match &self.0 {
            Granted::By { policy, .. } => Some(policy),
            Granted::Everything(_) | Granted::Nothing(_) => None,
        }
    }
}
