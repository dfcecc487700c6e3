//! TLS towards the gateway: the authorities that are trusted, and the caller's certificate.

use std::{path::Path, sync::Arc};

use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, Error, RootCertStore,
        crypto::aws_lc_rs,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    },
};

use super::tls_fault;

/// A file and the option that names it.
pub(super) type Named<'a> = (&'a str, &'a Path);

/// Trusts the authorities of the file `ca`, or else the system's, and presents a certificate.
///
/// # Errors
/// A file can't be used, as a text that names its option.
pub(super) fn connector(
    ca: Option<Named<'_>>,
    identity: Option<(Named<'_>, Named<'_>)>,
) -> Result<TlsConnector, String> {
    let roots = match ca {
        Some(ca) => authorities(ca)?,
        None => system()?,
    };
    let failed = |error: Error| format!("TLS can't be set up: {error}");
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(failed)?
        .with_root_certificates(roots);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some((cert, key)) => {
            let chain = certificates(cert)?;
            let private = PrivateKeyDer::from_pem_file(key.1).map_err(|_| no_key(key))?;
            builder.with_client_auth_cert(chain, private).map_err(|error| unusable(cert, key, &error))?
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

fn system() -> Result<RootCertStore, String> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let why = "this machine has no certificates of authorities; name a file of them with --ca, \
                   or install the package ca-certificates";
        return Err(why.to_owned());
    }
    Ok(roots)
}

fn authorities(ca: Named<'_>) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(ca)? {
        roots.add(certificate).map_err(|error| {
            let why = tls_fault::certificate(&error).unwrap_or_else(|| error.to_string());
            format!("{} {} holds a certificate that can't be used: {why}", ca.0, ca.1.display())
        })?;
    }
    Ok(roots)
}

fn certificates((option, file): Named<'_>) -> Result<Vec<CertificateDer<'static>>, String> {
    let text =
        std::fs::read(file).map_err(|error| format!("{option} {} can't be read: {error}", file.display()))?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match found {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(format!(
            "{option} {} holds no certificate in PEM, which begins with -----BEGIN CERTIFICATE-----",
            file.display()
        )),
    }
}

fn no_key((option, file): Named<'_>) -> String {
    match std::fs::metadata(file).and_then(|_| std::fs::read(file)) {
        Err(error) => format!("{option} {} can't be read: {error}", file.display()),
        Ok(text) if text.windows(21).any(|part| part == b"BEGIN ENCRYPTED PRIVA") => {
            format!("{option} {} is encrypted; write the key without a passphrase", file.display())
        }
        Ok(_) => format!(
            "{option} {} holds no private key in PEM, which begins with -----BEGIN PRIVATE KEY-----",
            file.display()
        ),
    }
}

fn unusable((cert, cert_file): Named<'_>, (key, key_file): Named<'_>, error: &Error) -> String {
    let why = match error {
        Error::InconsistentKeys(_) => "the key is not that of the certificate".to_owned(),
        Error::InvalidCertificate(_) => tls_fault::certificate(error).unwrap_or_else(|| error.to_string()),
        other => other.to_string(),
    };
    format!("{cert} {} and {key} {} can't be used together: {why}", cert_file.display(), key_file.display())
}
