//! Which setting a failed probe calls for, from the connection's failure or the head of the
//! response.

use std::fmt;

use bytes::Bytes;
use http::{Response, StatusCode, Uri, header};
use url::Url;

use crate::{
    config::Proxies,
    job::{BackendFault, FaultKind},
    transport::connector::AT_PROXY,
    vendors::BaseUrl,
};

/// Which setting is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wrong {
    Address,
    Path,
    Tenant,
    Credentials,
    Permission,
    Proxy,
    Tls,
    Other,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Address => "wrong address",
            Self::Path => "wrong path",
            Self::Tenant => "wrong tenant",
            Self::Credentials => "wrong credentials",
            Self::Permission => "missing permission",
            Self::Proxy => "wrong proxy",
            Self::Tls => "TLS failure",
            Self::Other => "failure",
        })
    }
}

/// Words of a failed connection, in lower case, and what they mean.
#[rustfmt::skip]
const CONNECTIONS: [(&[&str], Wrong, &str); 10] = [
    (&["causedasendentity"], Wrong::Tls,
     "its certificate is an authority's own and not one that an authority issued to a server; have the certificate replaced"),
    (&["unknownissuer", "unknown issuer", "self-signed", "self signed", "selfsigned", "badsignature"], Wrong::Tls,
     "the authority of its certificate is not trusted; write ca = \"FILE\" with a PEM file of the authority, or have the certificate replaced"),
    (&["not valid for name", "notvalidforname", "notvalidfornamecontext"], Wrong::Tls,
     "its certificate is for another name; write the name of the certificate in base_url"),
    (&["certificate expired", "expired", "not valid after"], Wrong::Tls,
     "its certificate has expired, or the clock of this machine is wrong; have the certificate renewed"),
    (&["not valid yet", "notvalidyet", "not valid before"], Wrong::Tls,
     "its certificate is not valid yet, or the clock of this machine is wrong"),
    (&["no native root", "no valid certificate", "no ca certificate", "root certificates"], Wrong::Tls,
     "there are no CA certificates; install ca-certificates, set SSL_CERT_FILE, or write ca = \"FILE\""),
    (&["invalidcontenttype", "corrupt message", "wrong version number"], Wrong::Tls,
     "the port does not speak TLS; write http:// in base_url, or another port"),
    (&["lookup address", "name resolution", "name or service", "nodename", "no such host", "dns error"], Wrong::Address,
     "the host name is unknown; check base_url, and the DNS of this machine"),
    (&["refused"], Wrong::Address,
     "nothing listens there; check host and port of base_url, and whether the vendor is up"),
    (&["connecting took too long", "timed out", "unreachable", "no route"], Wrong::Address,
     "nothing answers there; check host and port of base_url, firewalls and the proxy"),
];

/// Further words of a failed TLS connection.
const TLS: [&str; 5] = ["certificate", "handshake", "fatal alert", "tls", "received fatal"];

/// Words of a response that is no HTTP.
const NO_HTTP: [&str; 4] = ["http version", "invalid http", "parsed", "corrupt"];

/// What the advice of a backend names.
#[derive(Debug)]
pub(in crate::transport) struct Settings {
    pub(in crate::transport) base_url: BaseUrl,
    /// The key that stands in every path behind the base URL, if one does.
    pub(in crate::transport) key_in_path: Option<&'static str>,
    /// Key and place of the secret, if there is one.
    pub(in crate::transport) secret: Option<String>,
    /// The keys or variables that name the proxy.
    pub(in crate::transport) proxy: &'static str,
}

/// The keys or variables to change where the proxy does not work.
pub(in crate::transport) fn proxy_settings(proxies: &Proxies) -> &'static str {
    match proxies {
        Proxies::Own(_) => "proxy and proxy_password of this backend",
        Proxies::None | Proxies::Environment { .. } => {
            "HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY in the environment, or write this backend's proxy"
        }
    }
}

impl Settings {
    /// What to do about a fault of a request to the backend's own address, or for a token.
    pub(in crate::transport) fn advice(&self, fault: &BackendFault) -> String {
        let (_, advice) = self.of_fault(&self.base_url, fault);
        advice
    }

    /// What a fault means that the head of a response says nothing more of.
    pub(super) fn of_fault(&self, base_url: &BaseUrl, fault: &BackendFault) -> (Wrong, String) {
        match &fault.kind {
            FaultKind::Unreachable { why } if why.contains(AT_PROXY) => {
                (Wrong::Proxy, format!("check {}", self.proxy))
            }
            FaultKind::Unreachable { why } | FaultKind::Unavailable { why, .. } if !has_answered(fault) => {
                let (wrong, advice) = of_connection(base_url, why);
                (wrong, advice.to_owned())
            }
            FaultKind::Unavailable { .. } if fault.http_status.is_none() => {
                let advice = "the vendor answers, but not to the end; try again later, or raise poll.timeout";
                (Wrong::Other, advice.to_owned())
            }
            FaultKind::CredentialsRejected => (Wrong::Credentials, self.credentials()),
            FaultKind::Forbidden => {
                (Wrong::Permission, "give the gateway's account the permission to read jobs".to_owned())
            }
            FaultKind::Throttled => (Wrong::Other, again(fault)),
            FaultKind::TooLarge => {
                let advice = "check that base_url is this vendor's API, or raise poll.max_response_bytes";
                (Wrong::Other, advice.to_owned())
            }
            _ => (Wrong::Other, format!("{}, and ask the vendor if it does not end", again(fault))),
        }
    }

    /// What the head of the response to a request to `uri` means.
    pub(super) fn of_head(&self, base_url: &BaseUrl, uri: &Uri, head: &Response<Bytes>) -> (Wrong, String) {
        let status = head.status();
        let text = |name| head.headers().get(name).and_then(|value: &http::HeaderValue| value.to_str().ok());
        let is_page =
            text(header::CONTENT_TYPE).is_some_and(|kind| kind.to_ascii_lowercase().contains("html"));
        if status.is_redirection() {
            return self.of_redirect(base_url, uri, text(header::LOCATION).unwrap_or_default());
        }
        let page = if is_page { "an HTML page came, not the API; " } else { "" };
        let needs_tls = matches!(status.as_u16(), 426 | 497) || status == StatusCode::BAD_REQUEST && is_page;
        match status {
            _ if needs_tls && !base_url.is_https() => {
                (Wrong::Tls, format!("{page}the port may speak TLS only; write https:// in base_url"))
            }
            StatusCode::PROXY_AUTHENTICATION_REQUIRED => (Wrong::Proxy, format!("check {}", self.proxy)),
            StatusCode::UNAUTHORIZED => (Wrong::Credentials, self.credentials()),
            StatusCode::FORBIDDEN if !is_page => {
                (Wrong::Permission, "give the gateway's account the permission to read jobs".to_owned())
            }
            StatusCode::FORBIDDEN => {
                (Wrong::Other, format!("{page}a firewall or a proxy may refuse the gateway"))
            }
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED | StatusCode::GONE => {
                let (wrong, advice) = self.of_path(base_url, uri);
                (wrong, format!("{page}{advice}"))
            }
            // A page at any status but that of a missing path says nothing about the path.
            _ if is_page => {
                let advice =
                    "check base_url, and whether a firewall or a login page of the network is between";
                (Wrong::Address, format!("{page}{advice}"))
            }
            _ => (Wrong::Other, "check that base_url is this vendor's API, and its version".to_owned()),
        }
    }

    /// There is no API at the path of `uri`.
    fn of_path(&self, base_url: &BaseUrl, uri: &Uri) -> (Wrong, String) {
        let has_path = Url::parse(base_url.as_str()).is_ok_and(|url| url.path().len() > 1);
        match self.key_in_path {
            Some(key) if !has_path => {
                let value = uri.path().split('/').nth(1).unwrap_or_default();
                let advice = format!(
                    "check {key}, which is {value:?}, and base_url: in a browser, {key} is the first part of the path"
                );
                (Wrong::Tenant, advice)
            }
            _ if has_path => (
                Wrong::Path,
                "base_url has a path; write the address without it, or with the right one".to_owned(),
            ),
            _ => (
                Wrong::Path,
                "check base_url: this address has no such API; a path may be missing".to_owned(),
            ),
        }
    }

    /// The vendor sends the gateway to `location`. Only its origin and path are shown.
    fn of_redirect(&self, base_url: &BaseUrl, uri: &Uri, location: &str) -> (Wrong, String) {
        let asked = Url::parse(&uri.to_string()).ok();
        let target = asked.as_ref().and_then(|asked| asked.join(location).ok());
        let (Some(asked), Some(mut target)) = (asked, target) else {
            return (Wrong::Path, "a redirect without a target; check base_url".to_owned());
        };
        target.set_query(None);
        target.set_fragment(None);
        // Neither fails for a URL with a host; a user name may be a secret.
        let _ = target.set_username("");
        let _ = target.set_password(None);
        let is_same_origin = target.origin() == asked.origin();
        if is_same_origin && target.path().trim_end_matches('/').ends_with("/login") {
            let advice = format!("it leads to the login page {target}; {}", self.credentials());
            return (Wrong::Credentials, advice);
        }
        let own_path = Url::parse(base_url.as_str()).map(|url| url.path().trim_end_matches('/').to_owned());
        let api_path = own_path.ok().and_then(|own| asked.path().strip_prefix(&*own).map(str::to_owned));
        let suggestion = api_path.and_then(|api| {
            let target = target.as_str().trim_end_matches('/');
            target.strip_suffix(api.trim_end_matches('/')).map(str::to_owned)
        });
        let wrong = if is_same_origin { Wrong::Path } else { Wrong::Address };
        match suggestion {
            Some(base_url) => (wrong, format!("it redirects to {target}; write base_url = {base_url:?}")),
            None if asked.scheme() == "http" && target.scheme() == "https" => {
                (wrong, format!("it redirects to {target}; write https:// in base_url"))
            }
            None => (wrong, format!("it redirects to {target}; write the address of the API in base_url")),
        }
    }

    fn credentials(&self) -> String {
        match &self.secret {
            Some(secret) => format!("replace {secret}, and check the account and the way to sign in"),
            None => "the vendor asks for credentials; write them in credentials".to_owned(),
        }
    }
}

/// Whether the head of a response had come.
pub(in crate::transport) fn has_answered(fault: &BackendFault) -> bool {
    fault.http_status.is_some()
        || fault.exchange.as_ref().is_some_and(|exchange| exchange.contains(": HTTP "))
}

fn again(fault: &BackendFault) -> String {
    match fault.retry_after {
        Some(wait) => format!("try again in {} s", wait.as_secs_f64().ceil()),
        None => "try again later".to_owned(),
    }
}

/// What a connection that failed says of the settings.
fn of_connection(base_url: &BaseUrl, why: &str) -> (Wrong, &'static str) {
    let why = why.to_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| why.contains(word));
    let known = CONNECTIONS.iter().find(|(words, ..)| says(words));
    if let Some((_, wrong, advice)) = known {
        return (*wrong, advice);
    }
    if !base_url.is_https() && says(&NO_HTTP) {
        return (Wrong::Tls, "the port does not speak HTTP without TLS; write https:// in base_url");
    }
    if base_url.is_https() && says(&TLS) {
        return (
            Wrong::Tls,
            "the TLS handshake failed; check that the port speaks TLS 1.2 or 1.3, or else write http:// in base_url",
        );
    }
    if !base_url.is_https() {
        return (
            Wrong::Address,
            "check base_url, also whether it needs https://, and whether the vendor is up",
        );
    }
    (Wrong::Address, "check base_url, and whether the vendor is up")
}

#[cfg(test)]
mod tests;
