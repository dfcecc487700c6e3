//! The public keys of an issuer, as a JWK set (RFC 7517) in a file or behind a URL.
//!
//! They are read again from time to time, and when a token names a key that is not among
//! them. Where that fails, the keys that were read last stay for a day.

use std::{path::PathBuf, sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;
use jsonwebtoken::{
    Algorithm, DecodingKey,
    jwk::{AlgorithmParameters, Jwk, JwkSet, PublicKeyUse},
};
use tokio::{sync::Mutex, time::Instant};
use tracing::{info, warn};

use super::AccessError;
use crate::{config, transport::Document};

/// How often a file and a URL are read.
const FILE_INTERVAL: Duration = Duration::from_secs(2);
const URL_INTERVAL: Duration = Duration::from_mins(5);

/// How often a URL is read that has not answered yet.
const RETRY_INTERVAL: Duration = Duration::from_secs(10);

/// How long after one read the keys are read again because a token names one that is missing.
/// Such tokens wait meanwhile, and all of them share the next read.
const LEAST_INTERVAL: Duration = Duration::from_secs(1);

/// How long keys are used that can't be read again.
const LONGEST_USE: Duration = Duration::from_hours(24);

/// Longest wait for the URL's answer, its largest size, and the most keys that are used.
const TIMEOUT: Duration = Duration::from_secs(5);
const MAX_BYTES: usize = 256 << 10;
const MAX_KEYS: usize = 64;

/// An issuer's keys.
#[derive(Debug)]
pub(super) struct IssuerKeys {
    source: Source,
    current: ArcSwapOption<Keys>,
    /// When the last read began; held while they are read.
    read_at: Mutex<Option<Instant>>,
    failing: std::sync::atomic::AtomicBool,
}

#[derive(Debug)]
enum Source {
    File(PathBuf),
    Url(Box<Document>),
}

/// The keys that were read last.
#[derive(Debug)]
pub(super) struct Keys {
    signing: Vec<Key>,
    text: Vec<u8>,
    read_at: Instant,
}

struct Key {
    id: Option<String>,
    algorithm: Option<String>,
    public: DecodingKey,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key").field("id", &self.id).finish_non_exhaustive()
    }
}

impl IssuerKeys {
    /// Reads a file at once; a URL is read later.
    pub(super) fn new(configured: &config::Jwt) -> Result<Self, AccessError> {
        let (source, current) = match (&configured.jwks_file, &configured.jwks_url) {
            (Some(file), _) => {
                let read = std::fs::read(file).map_err(|error| error.to_string()).and_then(Keys::parse);
                let keys = read.map_err(|why| {
                    AccessError(format!("access.jwt.jwks_file is the file {}: {why}", file.display()))
                })?;
                (Source::File(file.clone()), Some(Arc::new(keys)))
            }
            (None, Some(url)) => {
                let document = Document::new(url, &configured.proxies, MAX_BYTES, TIMEOUT);
                let document = document
                    .map_err(|error| AccessError(format!("access.jwt.jwks_url can't be used: {error}")))?;
                (Source::Url(Box::new(document)), None)
            }
            (None, None) => return Err(AccessError("access.jwt has neither jwks_file nor jwks_url".into())),
        };
        Ok(Self {
            source,
            current: ArcSwapOption::from(current),
            read_at: Mutex::default(),
            failing: false.into(),
        })
    }

    /// The keys, unless they are too old or were never read.
    pub(super) fn current(&self) -> Option<Arc<Keys>> {
        self.current.load_full().filter(|keys| keys.read_at.elapsed() < LONGEST_USE)
    }

    /// Reads the keys at an interval until it is dropped.
    pub(super) async fn refresh(&self) {
        loop {
            self.read_again().await;
            let interval = match self.source {
                Source::File(_) => FILE_INTERVAL,
                Source::Url(_) if self.current().is_none() => RETRY_INTERVAL,
                Source::Url(_) => URL_INTERVAL,
            };
            tokio::time::sleep(interval).await;
        }
    }

    /// Returns after a read that began after this call. At most one begins in
    /// [`LEAST_INTERVAL`], however many tokens name keys that do not exist.
    pub(super) async fn look_again(&self) {
        let asked_at = Instant::now();
        let mut read_at = self.read_at.lock().await;
        if let Some(began) = *read_at {
            if began > asked_at {
                return;
            }
            tokio::time::sleep_until(began + LEAST_INTERVAL).await;
        }
        self.read(&mut read_at).await;
    }

    async fn read_again(&self) {
        self.read(&mut *self.read_at.lock().await).await;
    }

    async fn read(&self, read_at: &mut Option<Instant>) {
        use std::sync::atomic::Ordering::Relaxed;
        *read_at = Some(Instant::now());
        let text = match &self.source {
            Source::File(file) => tokio::fs::read(file).await.map_err(|error| error.to_string()),
            Source::Url(document) => document.fetch().await.map(Vec::from),
        };
        match text.and_then(Keys::parse) {
            Ok(keys) => {
                let known = self.current.load();
                if known.as_ref().is_none_or(|known| known.text != keys.text) {
                    info!(keys = keys.signing.len(), "the issuer's keys were read");
                }
                drop(known);
                self.current.store(Some(Arc::new(keys)));
                self.failing.store(false, Relaxed);
            }
            Err(why) => {
                if !self.failing.swap(true, Relaxed) {
                    warn!(
                        why,
                        in_use = self.current().is_some(),
                        "the issuer's keys can't be read; those read before stay in use"
                    );
                }
            }
        }
    }
}

impl Keys {
    /// Those keys of a set that sign; others are left out.
    fn parse(text: Vec<u8>) -> Result<Self, String> {
        let set: JwkSet = serde_json::from_slice(&text).map_err(|_| "it is not a JWK set".to_owned())?;
        let signing: Vec<Key> = set.keys.iter().filter_map(Key::of).take(MAX_KEYS).collect();
        if signing.is_empty() {
            return Err("it holds no public key for signatures".to_owned());
        }
        Ok(Self { signing, text, read_at: Instant::now() })
    }

    /// The keys that can have signed a token with this header.
    pub(super) fn candidates<'a>(
        &'a self,
        id: Option<&'a str>,
        algorithm: Algorithm,
    ) -> impl Iterator<Item = &'a DecodingKey> {
        let matching = self.signing.iter().filter(move |key| {
            id.is_none_or(|id| key.id.as_deref() == Some(id))
                && key.algorithm.as_ref().is_none_or(|own| *own == format!("{algorithm:?}"))
                && key.public.family() == algorithm.family()
        });
        matching.map(|key| &key.public)
    }
}

impl Key {
    fn of(jwk: &Jwk) -> Option<Self> {
        let signs = !matches!(jwk.common.public_key_use, Some(PublicKeyUse::Encryption));
        // A shared secret is not public.
        let public = !matches!(jwk.algorithm, AlgorithmParameters::OctetKey(_));
        (signs && public).then_some(())?;
        Some(Self {
            id: jwk.common.key_id.clone(),
            algorithm: jwk.common.key_algorithm.map(|algorithm| algorithm.to_string()),
            public: DecodingKey::from_jwk(jwk).ok()?,
        })
    }
}
