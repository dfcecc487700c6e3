//! Bearer tokens that the operator hands out, known by their hashes.
//!
//! A token has 256 random bits, so that a plain hash of it can be neither guessed nor
//! reversed; comparing hashes tells an attacker nothing about how far a guess was right.

use std::{collections::HashMap, fmt};

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};

use crate::config::{self, TokenHash};

/// What every token begins with, so that one in the wrong place is recognized.
const PREFIX: &str = "jobwatch_";

/// The holders of tokens, by their hashes.
pub(super) struct StaticTokens(HashMap<TokenHash, Box<str>>);

impl StaticTokens {
    pub(super) fn new(configured: &config::Access) -> Self {
        let hashes = configured.tokens.iter().flat_map(|(name, token)| {
            let principal = format!("token:{name}");
            token.sha256.iter().map(move |hash| (*hash, principal.as_str().into()))
        });
        Self(hashes.collect())
    }

    /// Whose token it is, and its hash.
    pub(super) fn holder(&self, token: &str) -> Option<(&str, TokenHash)> {
        if self.0.is_empty() {
            return None;
        }
        let hash = hash_token(token);
        self.holder_of(&hash).map(|name| (name, hash))
    }

    /// Whose token it is that has this hash.
    pub(super) fn holder_of(&self, hash: &TokenHash) -> Option<&str> {
        self.0.get(hash).map(|name| &**name)
    }
}

impl fmt::Debug for StaticTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.values()).finish()
    }
}

/// The hash that stands for a token in the configuration.
pub fn hash_token(token: &str) -> TokenHash {
    let hash = digest(&SHA256, token.as_bytes());
    TokenHash(hash.as_ref().try_into().expect("SHA-256 has 32 bytes"))
}

/// A new token.
///
/// # Panics
/// The system has no random numbers.
pub fn generate_token() -> String {
    let mut random = [0; 32];
    aws_lc_rs::rand::fill(&mut random).expect("the system has random numbers");
    format!("{PREFIX}{}", BASE64_URL_SAFE_NO_PAD.encode(random))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_differ_and_are_found_by_their_hash() {
        let (one, other) = (generate_token(), generate_token());
        assert_ne!(one, other);
        assert_eq!(one.len(), PREFIX.len() + 43);
        let text = format!(
            "policies = [{{ principals = [\"token:a\"] }}]\ntokens.a.sha256 = [\"{}\"]",
            hash_token(&one)
        );
        let tokens = StaticTokens::new(&toml::from_str(&text).unwrap());
        assert_eq!(tokens.holder(&one), Some(("token:a", hash_token(&one))));
        assert_eq!(tokens.holder(&other), None);
        assert!(!format!("{tokens:?}").contains(&hash_token(&one).to_string()));
    }
}
