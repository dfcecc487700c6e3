use std::{sync::Arc, time::Duration};

use tokio_rustls::rustls::{OtherError, pki_types::ServerName};

use super::*;

fn used(ca: Option<&str>, cert: Option<&str>) -> Used {
    Used { server: "JOBWATCH_SERVER".to_owned(), ca: ca.map(str::to_owned), cert: cert.map(str::to_owned) }
}

/// As a connection reports it: within an `io::Error`.
fn explain(used: &Used, error: Error) -> String {
    used.explain(&io::Error::other(error)).unwrap()
}

fn at(second: u64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(second))
}

fn name() -> ServerName<'static> {
    ServerName::try_from("gateway.test").unwrap()
}

#[test]
fn every_fault_of_a_certificate_is_explained_in_words() {
    let (time, other) = (at(1_700_000_100), at(1_700_000_000));
    #[allow(deprecated, reason = "older verifiers report it")]
    let faults = [
        (Fault::BadEncoding, "is not a valid X.509 certificate"),
        (Fault::Expired, "has expired"),
        (
            Fault::ExpiredContext { time, not_after: other },
            "has expired on 2023-11-14T22:13:20Z; have it renewed",
        ),
        (Fault::NotValidYet, "is not valid yet"),
        (
            Fault::NotValidYetContext { time: other, not_before: time },
            "is not valid before 2023-11-14T22:15:00Z",
        ),
        (Fault::Revoked, "is revoked"),
        (Fault::UnhandledCriticalExtension, "has a critical extension"),
        (Fault::UnknownIssuer, "is from an authority that this machine does not trust; name the file"),
        (Fault::UnknownRevocationStatus, "may be revoked"),
        (Fault::ExpiredRevocationList, "may be revoked"),
        (Fault::ExpiredRevocationListContext { time, next_update: other }, "may be revoked"),
        (Fault::BadSignature, "is not signed by the authority of this machine, which has the same name"),
        (Fault::UnsupportedSignatureAlgorithm, "is signed with an algorithm"),
        (
            Fault::UnsupportedSignatureAlgorithmContext {
                signature_algorithm_id: vec![1],
                supported_algorithms: Vec::new(),
            },
            "is signed with an algorithm",
        ),
        (
            Fault::UnsupportedSignatureAlgorithmForPublicKeyContext {
                signature_algorithm_id: vec![1],
                public_key_algorithm_id: vec![2],
            },
            "is signed with an algorithm",
        ),
        (Fault::NotValidForName, "is for another name; correct JOBWATCH_SERVER"),
        (Fault::InvalidPurpose, "is not for servers"),
        (
            Fault::InvalidPurposeContext { required: Purpose::ServerAuth, presented: Vec::new() },
            "is not for servers",
        ),
        (Fault::InvalidOcspResponse, "comes with an invalid OCSP response"),
        (Fault::ApplicationVerificationFailure, "was refused"),
    ];
    for (fault, words) in faults {
        let variant = format!("{fault:?}");
        let variant = variant.split([' ', '(', '{']).next().unwrap();
        let text = explain(&used(None, None), Error::InvalidCertificate(fault.clone()));
        assert!(text.starts_with("the server's certificate ") && text.contains(words), "{variant}: {text}");
        assert!(!text.contains(variant), "{variant}: {text}");
    }
}

#[test]
fn wrong_name_is_shown_with_the_names_of_the_certificate() {
    let presented = vec![r#"DnsName("a.test")"#.to_owned(), "IpAddress(10.0.0.1)".to_owned()];
    let fault = Fault::NotValidForNameContext { expected: name(), presented };
    assert_eq!(
        explain(&used(None, None), Error::InvalidCertificate(fault)),
        "the server's certificate is for a.test, 10.0.0.1, not for gateway.test; write one of its names for \
         JOBWATCH_SERVER"
    );
    let fault = Fault::NotValidForNameContext { expected: name(), presented: Vec::new() };
    let text = explain(&used(None, None), Error::InvalidCertificate(fault));
    assert!(text.contains("is for no name, not for gateway.test"), "{text}");
}

#[test]
fn unknown_authority_names_the_option_that_is_set() {
    let text = explain(&used(Some("JOBWATCH_CA"), None), Error::InvalidCertificate(Fault::UnknownIssuer));
    assert!(text.contains("not from an authority in the file of JOBWATCH_CA"), "{text}");
}

#[test]
fn alerts_about_client_certificates_name_the_options() {
    let (none, some) = (used(None, None), used(None, Some("JOBWATCH_CERT")));
    let required = explain(&none, Error::AlertReceived(Alert::CertificateRequired));
    assert_eq!(required, "the server requires a client certificate; name its files with --cert and --key");
    for alert in [
        Alert::UnknownCA,
        Alert::CertificateExpired,
        Alert::CertificateRevoked,
        Alert::BadCertificate,
        Alert::UnsupportedCertificate,
        Alert::CertificateUnknown,
        Alert::AccessDenied,
        Alert::DecryptError,
    ] {
        let text = explain(&some, Error::AlertReceived(alert));
        assert!(text.starts_with("the server refuses the certificate of JOBWATCH_CERT: it"), "{text}");
    }
    let text = explain(&none, Error::AlertReceived(Alert::HandshakeFailure));
    assert!(text.contains("if the server requires a client certificate"), "{text}");
}

#[test]
fn other_faults_have_words_of_their_own_or_those_of_rustls() {
    let used = used(None, None);
    for (error, words) in [
        (Error::AlertReceived(Alert::ProtocolVersion), VERSIONS),
        (Error::PeerIncompatible(PeerIncompatible::ServerDoesNotSupportTls12Or13), VERSIONS),
        (Error::AlertReceived(Alert::NoApplicationProtocol), NO_HTTP2),
        (Error::NoApplicationProtocol, NO_HTTP2),
        (Error::AlertReceived(Alert::UnrecognisedName), "the server does not know this name"),
        (
            Error::InvalidMessage(InvalidMessage::InvalidContentType),
            "the server sent plain text; since it does not speak TLS, write an http:// URL for JOBWATCH_SERVER",
        ),
        (Error::InvalidMessage(InvalidMessage::MessageTooShort), "the server does not speak TLS correctly ("),
        (Error::General("out of luck".to_owned()), "unexpected error: out of luck"),
    ] {
        let text = explain(&used, error);
        assert!(text.contains(words), "{text}");
    }
    let other = Fault::Other(OtherError(Arc::new(io::Error::other("a new rule"))));
    let text = explain(&used, Error::InvalidCertificate(other));
    assert!(
        text.starts_with("the server's certificate can't be used (") && text.contains("a new rule"),
        "{text}"
    );
    assert_eq!(used.explain(&io::Error::other("no TLS at all")), None);
}
