//! TLS towards vendors: which authorities are trusted, and what is offered.

use std::{
    path::Path,
    sync::{Arc, LazyLock},
};

use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::aws_lc_rs,
        pki_types::{CertificateDer, pem::PemObject},
    },
};

use super::SetupError;

/// The HTTP versions that the handshake offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Offer {
    /// HTTP/2, or else HTTP/1.1.
    All,
    /// None: what follows is not the vendor's.
    Nothing,
}

/// The system's authorities, read once: each has to be parsed.
static SYSTEM: LazyLock<System> = LazyLock::new(System::load);

struct System {
    roots: Arc<RootCertStore>,
    /// Why there are none, as far as it is known.
    error: Option<String>,
}

impl System {
    fn load() -> Self {
        let found = rustls_native_certs::load_native_certs();
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(found.certs);
        let error = found.errors.first().map(ToString::to_string);
        Self { roots: Arc::new(roots), error }
    }
}

/// Connects with the system's authorities, and with those of the file `ca`.
///
/// # Errors
/// The file can't be used, or there is no authority at all.
pub(super) fn connector(ca: Option<&Path>, offer: Offer) -> Result<TlsConnector, SetupError> {
    let roots = match ca {
        None if SYSTEM.roots.is_empty() => return Err(SetupError(missing(SYSTEM.error.as_deref()))),
        None => Arc::clone(&SYSTEM.roots),
        Some(file) => Arc::new(with_file(&SYSTEM.roots, file)?),
    };
    let failed = |error| SetupError(format!("TLS can't be set up: {error}"));
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().map_err(failed)?;
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    let protocols: &[&[u8]] = match offer {
        Offer::All => &[b"h2", b"http/1.1"],
        Offer::Nothing => &[],
    };
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(TlsConnector::from(Arc::new(config)))
}

fn missing(error: Option<&str>) -> String {
    let error = error.map(|error| format!(" ({error})")).unwrap_or_default();
    format!(
        "there are no CA certificates to check the vendor's with{error}; install the package ca-certificates, \
         set SSL_CERT_FILE or SSL_CERT_DIR, or write the backend's ca"
    )
}

fn with_file(system: &RootCertStore, file: &Path) -> Result<RootCertStore, SetupError> {
    let problem = |text: &str| SetupError(format!("ca is the file {}, which {text}", file.display()));
    let certificates = CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| problem(&format!("can't be read as PEM: {error}")))?;
    if certificates.is_empty() {
        return Err(problem("holds no PEM certificate"));
    }
    let mut roots = system.clone();
    for certificate in certificates {
        let unusable = |error| problem(&format!("holds a certificate that can't be used: {error}"));
        roots.add(certificate).map_err(unusable)?;
    }
    Ok(roots)
}
