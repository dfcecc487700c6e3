//! Faults of TLS in plain words: what is wrong, and what to change.

use std::{error, io};

use jiff::Timestamp;
use tokio_rustls::rustls::{
    AlertDescription as Alert, CertificateError as Fault, Error, ExtendedKeyPurpose as Purpose,
    InvalidMessage, PeerIncompatible, pki_types::UnixTime,
};

use super::text::one_line;

/// What the connection uses, by the names of its options.
#[derive(Clone, Debug)]
pub(super) struct Used {
    /// The option of the address.
    pub(super) server: String,
    /// The option of the authorities, if it is set.
    pub(super) ca: Option<String>,
    /// The option of the caller's certificate, if it is set.
    pub(super) cert: Option<String>,
}

impl Used {
    /// An error of a connection, if it is one of TLS.
    pub(super) fn explain(&self, error: &(dyn error::Error + 'static)) -> Option<String> {
        let fault = find(error)?;
        match fault {
            Error::InvalidCertificate(certificate) => Some(self.certificate(certificate)),
            Error::AlertReceived(alert) => Some(self.alert(*alert)),
            Error::InvalidMessage(InvalidMessage::InvalidContentType) => Some(format!(
                "the server sent plain text; since it does not speak TLS, write an http:// URL for {}",
                self.server
            )),
            Error::NoApplicationProtocol => Some(NO_HTTP2.to_owned()),
            Error::PeerIncompatible(
                PeerIncompatible::ServerDoesNotSupportTls12Or13
                | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig,
            ) => Some(VERSIONS.to_owned()),
            Error::PeerIncompatible(_) => {
                Some("the server and this program have no TLS algorithms in common".to_owned())
            }
            Error::NoCertificatesPresented => Some("the server presents no certificate".to_owned()),
            Error::FailedToGetCurrentTime => Some("this machine does not know the time".to_owned()),
            Error::InappropriateMessage { .. }
            | Error::InappropriateHandshakeMessage { .. }
            | Error::InvalidMessage(_)
            | Error::PeerMisbehaved(_)
            | Error::DecryptError
            | Error::PeerSentOversizedRecord => {
                Some(format!("the server does not speak TLS correctly ({})", one_line(&fault.to_string())))
            }
            other => Some(one_line(&other.to_string())),
        }
    }

    /// A server that refuses a client may close the connection without an alert.
    pub(super) fn closed_after_handshake(&self) -> String {
        let hint = match &self.cert {
            Some(cert) => format!("it may refuse the certificate of {cert}"),
            None => "if it requires a client certificate, name its files with --cert and --key".to_owned(),
        };
        format!("the server closed the connection after the TLS handshake; {hint}")
    }

    fn certificate(&self, fault: &Fault) -> String {
        match fault {
            Fault::BadSignature => {
                let place = match &self.ca {
                    None => "of this machine".to_owned(),
                    Some(ca) => format!("in the file of {ca}"),
                };
                format!(
                    "the server's certificate is not signed by the authority {place}, which has the same name but \
                     another key; name the file of the authority that issued it with --ca"
                )
            }
            Fault::UnknownIssuer => match &self.ca {
                None => "the server's certificate is from an authority that this machine does not trust; \
                         name the file of that authority with --ca"
                    .to_owned(),
                Some(ca) => format!(
                    "the server's certificate is not from an authority in the file of {ca}; name the file of the \
                     authority that issued it"
                ),
            },
            Fault::NotValidForName => {
                format!("the server's certificate is for another name; correct {}", self.server)
            }
            Fault::NotValidForNameContext { expected, presented } => {
                let expected = expected.to_str();
                let names: Vec<_> = presented.iter().map(|name| bare(name)).collect();
                let names = if names.is_empty() { "no name".to_owned() } else { names.join(", ") };
                format!(
                    "the server's certificate is for {names}, not for {expected}; write one of its names for {}",
                    self.server
                )
            }
            other => format!("the server's certificate {}", words(other)),
        }
    }

    /// What the server says with an alert.
    fn alert(&self, alert: Alert) -> String {
        let refused = |why: &str| match &self.cert {
            Some(cert) => format!("the server refuses the certificate of {cert}: {why}"),
            None => format!("the server refuses the connection: {why}"),
        };
        match alert {
            Alert::CertificateRequired | Alert::NoCertificate => {
                "the server requires a client certificate; name its files with --cert and --key".to_owned()
            }
            Alert::UnknownCA => refused("it is not from an authority that the server trusts for clients"),
            Alert::CertificateExpired => refused("it has expired, or is not valid yet"),
            Alert::CertificateRevoked => refused("it is revoked"),
            Alert::BadCertificate | Alert::UnsupportedCertificate | Alert::CertificateUnknown => {
                refused("it is not valid for a client of this server")
            }
            Alert::AccessDenied => refused("it gives no access"),
            Alert::DecryptError => refused("its signature is wrong"),
            Alert::ProtocolVersion => VERSIONS.to_owned(),
            Alert::NoApplicationProtocol => NO_HTTP2.to_owned(),
            Alert::UnrecognisedName => {
                format!("the server does not know this name; correct {}", self.server)
            }
            Alert::HandshakeFailure | Alert::InsufficientSecurity => match &self.cert {
                Some(cert) => format!(
                    "the server and this program could not agree on TLS; the server may refuse the certificate \
                     of {cert}"
                ),
                None => {
                    "the server and this program could not agree on TLS; if the server requires a client \
                         certificate, name its files with --cert and --key"
                        .to_owned()
                }
            },
            other => format!("the server ended TLS with the alert {other:?}"),
        }
    }
}

const NO_HTTP2: &str = "the server does not offer HTTP/2, which gRPC needs; check the address and port";
const VERSIONS: &str = "the server speaks neither TLS 1.2 nor TLS 1.3";

/// The error of rustls among the causes of an error.
fn find<'a>(error: &'a (dyn error::Error + 'static)) -> Option<&'a Error> {
    let mut next = Some(error);
    while let Some(cause) = next {
        if let Some(found) = cause.downcast_ref::<Error>() {
            return Some(found);
        }
        // An io::Error passes over what it holds to the source of that.
        let held = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = match held {
            Some(held) => Some(held),
            None => cause.source(),
        };
    }
    None
}

/// What is wrong with a certificate, if that is the error.
pub(super) fn certificate(error: &Error) -> Option<String> {
    match error {
        Error::InvalidCertificate(fault) => Some(format!("it {}", words(fault))),
        _ => None,
    }
}

/// What is wrong with a certificate, as the rest of a sentence.
fn words(fault: &Fault) -> String {
    let text = match fault {
        Fault::BadEncoding => "is not a valid X.509 certificate",
        Fault::Expired => "has expired; have it renewed",
        Fault::ExpiredContext { not_after, .. } => {
            return format!("has expired on {}; have it renewed", date(*not_after));
        }
        Fault::NotValidYet => "is not valid yet; check the clock of this machine",
        Fault::NotValidYetContext { not_before, .. } => {
            return format!("is not valid before {}; check the clock of this machine", date(*not_before));
        }
        Fault::Revoked => "is revoked",
        Fault::UnhandledCriticalExtension => "has a critical extension that this program does not know",
        Fault::UnknownIssuer => "is from an unknown authority",
        Fault::UnknownRevocationStatus => "may be revoked: its revocation status is unknown",
        Fault::ExpiredRevocationList | Fault::ExpiredRevocationListContext { .. } => {
            "may be revoked: the list of revoked certificates has expired"
        }
        Fault::BadSignature => "has a wrong signature",
        #[allow(deprecated, reason = "older verifiers report it")]
        Fault::UnsupportedSignatureAlgorithm
        | Fault::UnsupportedSignatureAlgorithmContext { .. }
        | Fault::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            "is signed with an algorithm that this program does not support"
        }
        Fault::NotValidForName | Fault::NotValidForNameContext { .. } => "is for another name",
        Fault::InvalidPurpose | Fault::InvalidPurposeContext { required: Purpose::ServerAuth, .. } => {
            "is not for servers; have one issued with the extended key usage serverAuth"
        }
        Fault::InvalidPurposeContext { .. } => "has no extended key usage for this purpose",
        Fault::InvalidOcspResponse => "comes with an invalid OCSP response",
        Fault::ApplicationVerificationFailure => "was refused",
        Fault::Other(other) if format!("{other:?}").contains("CaUsedAsEndEntity") => {
            "is that of an authority (CA:TRUE); have the server use one that the authority has issued"
        }
        other => return format!("can't be used ({})", one_line(&other.to_string())),
    };
    text.to_owned()
}

fn date(time: UnixTime) -> String {
    let second = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    Timestamp::from_second(second).map_or_else(|_| "a distant day".to_owned(), |time| time.to_string())
}

/// A name of a certificate, which comes as `DnsName("gateway.test")` or `IpAddress(127.0.0.1)`.
fn bare(name: &str) -> String {
    let inner = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')')).unwrap_or(name);
    one_line(inner.trim_matches('"'))
}

#[cfg(test)]
mod tests;
