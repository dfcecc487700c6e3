//! TLS of the server: reads its files, and reads them again when they change.
//!
//! New connections use the newest files; open ones finish with those that they began with.
//! If the new files can't be used, the ones in use stay, and one warning has the reason.

use std::{
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use arc_swap::ArcSwap;
use tokio::{
    task::spawn_blocking,
    time::{MissedTickBehavior, interval},
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        RootCertStore, ServerConfig,
        crypto::aws_lc_rs,
        pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, pem::PemObject},
        server::WebPkiClientVerifier,
    },
};
use tracing::{info, warn};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::config;

/// How often the files are read.
const INTERVAL: Duration = Duration::from_secs(2);

/// How long before its end a certificate is warned of, and how often.
const WARN_BEFORE: Duration = Duration::from_hours(24 * 30);
const WARN_EVERY: Duration = Duration::from_hours(24);

/// A file can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("server.tls.{key} {problem}")]
pub struct TlsError {
    key: &'static str,
    problem: String,
}

/// The content of the files.
#[derive(Clone, PartialEq, Eq)]
struct Files {
    cert: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
    client_crl: Option<Vec<u8>>,
}

/// The server's TLS.
pub(super) struct Tls {
    configured: config::Tls,
    acceptor: ArcSwap<TlsAcceptor>,
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// One of them can't be used.
    pub(super) fn new(configured: &config::Tls) -> Result<(Arc<Self>, TlsFiles), TlsError> {
        let files = Files::read(configured)?;
        let (acceptor, ends) = files.acceptor()?;
        let tls =
            Arc::new(Self { configured: configured.clone(), acceptor: ArcSwap::from_pointee(acceptor) });
        Ok((Arc::clone(&tls), TlsFiles { tls, files, ends, warned: AtomicBool::new(false) }))
    }

    /// For the next connection.
    pub(super) fn acceptor(&self) -> Arc<TlsAcceptor> {
        self.acceptor.load_full()
    }
}

/// Whether the files can be used now.
///
/// # Errors
/// The first problem.
pub(super) fn check(configured: &config::Tls) -> Result<Vec<String>, TlsError> {
    let (_, ends) = Files::read(configured)?.acceptor()?;
    Ok(expiry_warning(ends, now()).into_iter().collect())
}

/// Keeps the files in use current.
pub(super) struct TlsFiles {
    tls: Arc<Tls>,
    files: Files,
    /// When the certificate ends, in seconds since 1970.
    ends: i64,
    warned: AtomicBool,
}

impl TlsFiles {
    /// Reads the files again and again, until it is dropped.
    pub(super) async fn run(mut self) {
        let mut ticks = interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut warned_at: Option<tokio::time::Instant> = None;
        loop {
            let now = ticks.tick().await;
            if warned_at.is_none_or(|at| now.saturating_duration_since(at) >= WARN_EVERY) {
                warned_at = Some(now);
                if let Some(warning) = expiry_warning(self.ends, self::now()) {
                    warn!("{warning}");
                }
            }
            let configured = self.tls.configured.clone();
            // This fails only when the runtime shuts down.
            let Ok(files) = spawn_blocking(move || Files::read(&configured)).await else { return };
            self.take(files);
        }
    }

    fn take(&mut self, files: Result<Files, TlsError>) {
        let acceptor = match files {
            Ok(files) if files == self.files => {
                self.warned.store(false, Relaxed);
                return;
            }
            Ok(files) => files.acceptor().map(|acceptor| (files, acceptor)),
            Err(error) => Err(error),
        };
        match acceptor {
            Ok((files, (acceptor, ends))) => {
                self.tls.acceptor.store(Arc::new(acceptor));
                (self.files, self.ends) = (files, ends);
                self.warned.store(false, Relaxed);
                info!("TLS files replaced");
            }
            Err(error) => {
                if !self.warned.swap(true, Relaxed) {
                    warn!(%error, "TLS files not replaced; the previous ones stay in use");
                }
            }
        }
    }
}

impl Files {
    fn read(configured: &config::Tls) -> Result<Self, TlsError> {
        let config::Tls { cert, key, client_ca, client_crl } = configured;
        let read = |name: &'static str, path: &Path| {
            let unreadable = |error: io::Error| problem(name, format!("can't be read: {error}"));
            let content = std::fs::read(path).map_err(unreadable)?;
            if content.trim_ascii().is_empty() {
                return Err(problem(name, "is empty".to_owned()));
            }
            Ok(content)
        };
        let optional = |name, path: &Option<std::path::PathBuf>| {
            path.as_deref().map(|path| read(name, path)).transpose()
        };
        Ok(Self {
            cert: read("cert", cert)?,
            key: read("key", key)?,
            client_ca: optional("client_ca", client_ca)?,
            client_crl: optional("client_crl", client_crl)?,
        })
    }

    /// What accepts connections with these files, and when their certificate ends.
    fn acceptor(&self) -> Result<(TlsAcceptor, i64), TlsError> {
        let chain = certificates("cert", &self.cert)?;
        let ends = check_validity("cert", &chain)?;
        let key = PrivateKeyDer::from_pem_slice(&self.key)
            .map_err(|_| problem("key", "has no private key in PEM".to_owned()))?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| problem("cert", format!("can't be used: {error}")))?;
        let builder = match &self.client_ca {
            None => builder.with_no_client_auth(),
            Some(authorities) => {
                let authorities = certificates("client_ca", authorities)?;
                check_validity("client_ca", &authorities)?;
                let unusable =
                    |key, error: &dyn std::fmt::Display| problem(key, format!("can't be used: {error}"));
                let mut roots = RootCertStore::empty();
                for authority in authorities {
                    roots.add(authority).map_err(|error| unusable("client_ca", &error))?;
                }
                let mut verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                if let Some(list) = &self.client_crl {
                    verifier = verifier.with_crls(revocations(list)?).allow_unknown_revocation_status();
                }
                let verifier = verifier.build().map_err(|error| unusable("client_crl", &error))?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let mut config = builder.with_single_cert(chain, key).map_err(|error| {
            problem("key", format!("does not fit the certificate of server.tls.cert: {error}"))
        })?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok((TlsAcceptor::from(Arc::new(config)), ends))
    }
}

fn problem(key: &'static str, problem: String) -> TlsError {
    TlsError { key, problem }
}

fn certificates(key: &'static str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => Err(problem(key, "has no certificate in PEM".to_owned())),
    }
}

fn revocations(pem: &[u8]) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => Err(problem("client_crl", "has no certificate revocation list in PEM".to_owned())),
    }
}

/// When the first certificate ends.
fn check_validity(key: &'static str, chain: &[CertificateDer<'_>]) -> Result<i64, TlsError> {
    let now = now();
    let mut ends = i64::MAX;
    for der in chain {
        let (_, certificate) = X509Certificate::from_der(der)
            .map_err(|error| problem(key, format!("has a certificate that can't be read: {error}")))?;
        let validity = certificate.validity();
        let (from, to) = (validity.not_before, validity.not_after);
        if now < from.timestamp() {
            return Err(problem(key, format!("is not valid before {from}; check the machine's clock")));
        }
        if now > to.timestamp() {
            return Err(problem(key, format!("has expired on {to}; write another certificate")));
        }
        ends = ends.min(to.timestamp());
    }
    Ok(ends)
}

fn expiry_warning(ends: i64, now: i64) -> Option<String> {
    let left = u64::try_from(ends.saturating_sub(now)).unwrap_or_default();
    let days = left / (24 * 60 * 60);
    (left < WARN_BEFORE.as_secs()).then(|| {
        format!(
            "server.tls.cert expires in {days} days; replace the file, which is read again when it changes"
        )
    })
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
