//! The name in a client certificate.

use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// The caller's name in a verified client certificate, in DER: its SPIFFE id, its first DNS
/// name, or its subject. Each begins in its own way, so that none can be taken for another.
pub fn names_of_certificate(der: &[u8]) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let names = certificate.subject_alternative_name().ok().flatten();
    let names = names.map(|names| names.value.general_names.as_slice()).unwrap_or_default();
    let spiffe = names.iter().find_map(|name| match name {
        GeneralName::URI(uri) if uri.starts_with("spiffe://") => Some((*uri).to_owned()),
        _ => None,
    });
    let dns = || {
        names.iter().find_map(|name| match name {
            GeneralName::DNSName(name) => Some(format!("dns:{}", name.to_ascii_lowercase())),
            _ => None,
        })
    };
    let subject = || match certificate.subject().to_string() {
        subject if subject.is_empty() => None,
        subject => Some(format!("subject:{subject}")),
    };
    spiffe.or_else(dns).or_else(subject)
}
