//! The gateway's address on the command line.

use std::fmt;

use http::{Uri, uri::Authority};

/// The address of a gateway. Shown without user information.
#[derive(Debug)]
pub(super) struct Address {
    /// Scheme, host and port.
    pub(super) uri: Uri,
    pub(super) is_tls: bool,
    port: u16,
}

impl Address {
    /// Parses an address; without a scheme it is http://.
    ///
    /// # Errors
    /// The rest of a sentence about it.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
        let is_tls = match &*scheme.to_ascii_lowercase() {
            "http" => false,
            "https" => true,
            _ => return Err(wrong(text, "has another scheme than http:// and https://", "")),
        };
        if rest.contains('@') {
            return Err("has user information; write the address alone, and use --token-file".to_owned());
        }
        let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        if authority.is_empty() {
            return Err(wrong(text, "has no host", ""));
        }
        if authority.matches(':').count() > 1 && !authority.starts_with('[') {
            let example = format!("; write an IPv6 address in brackets, such as {scheme}://[::1]:50051");
            return Err(wrong(text, "has more than one colon", &example));
        }
        if !path.trim_matches('/').is_empty() {
            let why = format!("; gRPC uses no path, write {scheme}://{authority}");
            return Err(wrong(text, "has a path", &why));
        }
        let parsed: Option<Authority> = authority.parse().ok();
        let parsed = parsed.filter(|found| !found.host().is_empty() && found.host() != "[]");
        let Some(authority) = parsed else { return Err(wrong(text, "is not a URL", "")) };
        // http::Uri takes any word for a port.
        let port = match authority.as_str().strip_prefix(authority.host()).unwrap_or_default() {
            "" if is_tls => 443,
            "" => 80,
            port => match port.strip_prefix(':').and_then(|port| port.parse().ok()) {
                Some(0) => return Err(wrong(text, "has port 0, at which nothing listens", "")),
                Some(port) => port,
                None => return Err(wrong(text, "has no valid port", "")),
            },
        };
        let scheme = if is_tls { "https" } else { "http" };
        let uri = Uri::builder().scheme(scheme).authority(authority).path_and_query("/").build();
        let uri = uri.map_err(|_| wrong(text, "is not a URL", ""))?;
        Ok(Self { uri, is_tls, port })
    }

    /// The host, an IPv6 address without its brackets.
    pub(super) fn host(&self) -> &str {
        self.uri.host().unwrap_or_default().trim_matches(['[', ']'])
    }

    pub(super) fn is_loopback(&self) -> bool {
        let host = self.host();
        host == "localhost" || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
    }

    /// The same for plain text, with its port.
    pub(super) fn plain(&self) -> String {
        format!("http://{}:{}", self.uri.host().unwrap_or_default(), self.port)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = self.uri.scheme_str().unwrap_or_default();
        write!(f, "{scheme}://{}:{}", self.uri.host().unwrap_or_default(), self.port)
    }
}

fn wrong(text: &str, why: &str, instead: &str) -> String {
    let text = super::text::one_line(text);
    let instead = if instead.is_empty() { "; write one such as http://127.0.0.1:50051" } else { instead };
    // What precedes an @ may be a password.
    let shown = if text.contains('@') { String::new() } else { format!("{text:?} ") };
    format!("{shown}{why}{instead}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_without_scheme_uses_http_and_the_usual_port() {
        for (text, shown) in [
            ("gateway:50051", "http://gateway:50051"),
            ("[::1]:50051", "http://[::1]:50051"),
            ("HTTPS://gateway/", "https://gateway:443"),
            ("http://gateway", "http://gateway:80"),
        ] {
            assert_eq!(Address::parse(text).unwrap().to_string(), shown);
        }
    }

    #[test]
    fn invalid_address_is_refused_with_what_to_write() {
        for (text, why) in [
            ("", "has no host; write one such as"),
            ("ftp://gateway", "has another scheme than http:// and https://; write one such as"),
            ("unix:///run/jobwatch.sock", "has another scheme than"),
            ("http://", "has no host; write one such as"),
            ("two words", "is not a URL"),
            ("https://gateway/jobs", "has a path; gRPC uses no path, write https://gateway"),
            ("/run/jobwatch.sock", "has no host"),
            ("::1", "write an IPv6 address in brackets, such as http://[::1]:50051"),
            ("gateway:port", "has no valid port"),
            ("gateway:70000", "has no valid port"),
            ("gateway:", "has no valid port"),
            ("gateway:0", "has port 0"),
        ] {
            let error = Address::parse(text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn user_information_is_refused_and_never_shown() {
        for text in [
            "http://me:sesame@gateway",
            "ftp://me:sesame@gateway",
            "http://me:sesame@gateway/a/b",
            "me:sesa/sesame@gateway",
        ] {
            let error = Address::parse(text).unwrap_err();
            assert!(!error.contains("sesame"), "{error}");
        }
    }
}
