//! What a caller may do.

use std::{net::IpAddr, num::NonZeroU32, sync::Arc};

use wildmatch::WildMatch;

use super::{
    Right,
    jwt::JwtVerifier,
    limits::{Usage, Usages},
};
use crate::config::{self, TokenHash};

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
    Nothing(Arc<str>, Proof),
    By {
        name: Arc<str>,
        proof: Proof,
        address: Option<IpAddr>,
        policy: Arc<Policy>,
        usage: Arc<Usage>,
    },
}

/// What identifies a caller.
#[derive(Clone, Debug)]
pub(super) enum Proof {
    /// It is not identified.
    None,
    Certificate,
    Token(TokenHash),
    /// A token that this has verified.
    Jwt(Arc<JwtVerifier>),
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

impl Policy {
    /// Whether it is sure to allow all that `other` allows.
    fn includes(&self, other: &Self) -> bool {
        let names = |name| self.backends.iter().any(|pattern| includes(pattern, name));
        other.rights.iter().all(|right| self.rights.contains(right)) && other.backends.iter().all(names)
    }
}

impl Grant {
    /// Of a caller where none are identified.
    pub fn unrestricted(address: Option<IpAddr>) -> Self {
        Self(Granted::Everything(address))
    }

    pub(super) fn nothing(name: &str, proof: Proof) -> Self {
        Self(Granted::Nothing(name.into(), proof))
    }

    pub(super) fn new(
        name: &str,
        proof: Proof,
        address: Option<IpAddr>,
        policy: &Arc<Policy>,
        usages: &Usages,
    ) -> Self {
        let name: Arc<str> = name.into();
        let usage = usages.of(&name, policy);
        Self(Granted::By { name, proof, address, policy: Arc::clone(policy), usage })
    }

    /// The caller's name and what has shown it; `None` where callers are not identified.
    pub(super) fn identity(&self) -> Option<(&str, &Proof)> {
        match &self.0 {
            Granted::Everything(_) => None,
            Granted::Nothing(name, proof) | Granted::By { name, proof, .. } => Some((name, proof)),
        }
    }

    /// Whether `policy` allows all that was granted.
    pub(super) fn is_within(&self, policy: Option<&Policy>) -> bool {
        match &self.0 {
            Granted::Everything(_) => false,
            Granted::Nothing(..) => true,
            Granted::By { policy: granted, .. } => policy.is_some_and(|policy| policy.includes(granted)),
        }
    }

    /// The caller's name; `None` where callers are not identified.
    pub fn principal(&self) -> Option<&str> {
        self.identity().map(|(name, _)| name)
    }

    /// Where the caller is, where nothing else tells it from others.
    pub fn address(&self) -> Option<IpAddr> {
        match &self.0 {
            Granted::Everything(address) | Granted::By { address, .. } => *address,
            Granted::Nothing(..) => None,
        }
    }

    /// Whether the caller may do this at the backend of this name, which need not exist.
    pub fn allows(&self, right: Right, backend: &str) -> bool {
        match &self.0 {
            Granted::Everything(_) => true,
            Granted::Nothing(..) => false,
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
            Granted::Everything(_) | Granted::Nothing(..) => None,
        }
    }

    fn policy(&self) -> Option<&Policy> {
        match &self.0 {
            Granted::By { policy, .. } => Some(policy),
            Granted::Everything(_) | Granted::Nothing(..) => None,
        }
    }
}

/// Whether a pattern is sure to match all names that `other` matches.
fn includes(pattern: &WildMatch, other: &WildMatch) -> bool {
    let is_plain = |text: &str| !text.contains(['*', '?']);
    let (text, other_text) = (pattern.pattern(), other.pattern());
    let has_prefix =
        || text.strip_suffix('*').is_some_and(|prefix| is_plain(prefix) && other_text.starts_with(prefix));
    pattern == other || is_plain(&other_text) && pattern.matches(&other_text) || has_prefix()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pattern_includes_what_it_is_sure_to_match() {
        let includes = |pattern, other| includes(&WildMatch::new(pattern), &WildMatch::new(other));
        for (pattern, other) in [
            ("a*", "a*"),
            ("a*", "ab"),
            ("a?", "ab"),
            ("*", "a?b*"),
            ("a*", "ab*"),
            ("a*", "a?"),
            ("*b", "ab"),
        ] {
            assert!(includes(pattern, other), "{pattern} {other}");
        }
        for (pattern, other) in
            [("ab*", "a*"), ("a?", "a*"), ("?", "*"), ("a", "a*"), ("a*c", "ab*"), ("ab", "a?")]
        {
            assert!(!includes(pattern, other), "{pattern} {other}");
        }
    }
}
