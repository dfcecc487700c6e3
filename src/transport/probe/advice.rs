//! Which setting a failed probe calls for, from the connection's failure or the head of the
//! response.

use std::fmt;

use bytes::Bytes;
use http::{Response, StatusCode, Uri, header};
use url::Url;

use crate::{
    job::{BackendFault, FaultKind},
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
            Self::Tls => "TLS failure",
            Self::Other => "failure",
        })
    }
}

/// Words of a failed connection, in lower case, and what they mean.
#[rustfmt::skip]
const CONNECTIONS: [(&[&str], Wrong, &str); 9] = [
    (&["unknownissuer", "unknown issuer", "self-signed", "self signed", "selfsigned", "causedasendentity", "badsignature"], Wrong::Tls,
     "the authority of its certificate is not trusted; name a PEM file of the authority in SSL_CERT_FILE, or replace the certificate"),
    (&["not valid for name", "notvalidforname", "notvalidfornamecontext"], Wrong::Tls,
     "its certificate is for another name; write the name of the certificate in base_url"),
    (&["certificate expired", "expired", "not valid after"], Wrong::Tls,
     "its certificate has expired, or the clock of this machine is wrong; have the certificate renewed"),
    (&["not valid yet", "notvalidyet", "not valid before"], Wrong::Tls,
     "its certificate is not valid yet, or the clock of this machine is wrong"),
    (&["no native root", "no valid certificate", "no ca certificate", "root certificates"], Wrong::Tls,
     "there are no CA certificates; install ca-certificates, or set SSL_CERT_FILE"),
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
}

impl Settings {
    /// What a fault means that the head of a response says nothing more of.
    pub(super) fn of_fault(&self, base_url: &BaseUrl, fault: &BackendFault) -> (Wrong, String) {
        match &fault.kind {
            FaultKind::Unreachable { why } | FaultKind::Unavailable { why, .. }
                if fault.http_status.is_none() =>
            {
                let (wrong, advice) = of_connection(base_url, why);
                (wrong, advice.to_owned())
            }
            FaultKind::CredentialsRejected => (Wrong::Credentials, self.credentials()),
            FaultKind::Forbidden => {
                (Wrong::Permission, "give the gateway's account the permission to read jobs".to_owned())
            }
            FaultKind::Throttled => (Wrong::Other, "try again later".to_owned()),
            _ => (Wrong::Other, "try again later, and ask the vendor if it stays".to_owned()),
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
            StatusCode::PROXY_AUTHENTICATION_REQUIRED => {
                (Wrong::Credentials, "the proxy asks for a user name and a password".to_owned())
            }
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
            _ if is_page => {
                let (wrong, advice) = self.of_path(base_url, uri);
                (wrong, format!("{page}{advice}"))
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
                let advice =
                    format!("check {key}, which is {value:?}: write the first part of the path in a browser");
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

    /// The vendor sends the gateway to `location`. Only its origin and path are told.
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
        return (Wrong::Tls, "the TLS handshake failed; check that the port speaks TLS 1.2 or 1.3");
    }
    (Wrong::Address, "check base_url, and whether the vendor is up")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(base_url: &str, key_in_path: Option<&'static str>) -> Settings {
        let secret = Some("credentials.password from the variable P".to_owned());
        Settings { base_url: base_url.parse().unwrap(), key_in_path, secret }
    }

    pub(super) fn of_head(
        base_url: &str,
        path: &str,
        status: u16,
        headers: &[(&str, &str)],
    ) -> (Wrong, String) {
        let settings = settings(base_url, path.starts_with("/demo/").then_some("tenant"));
        let uri = settings.base_url.join(path);
        let mut head = Response::builder().status(status);
        for (name, value) in headers {
            head = head.header(*name, *value);
        }
        settings.of_head(&settings.base_url, &uri, &head.body(Bytes::new()).unwrap())
    }

    #[test]
    fn redirect_is_told_with_its_target_and_the_address_to_write() {
        for (base_url, location, wrong, expected) in [
            (
                "http://v.example",
                "https://v.example/jobs",
                Wrong::Address,
                "write base_url = \"https://v.example\"",
            ),
            (
                "http://v.example/x/",
                "https://v.example/x/jobs/",
                Wrong::Address,
                "write base_url = \"https://v.example/x\"",
            ),
            (
                "https://v.example",
                "https://www.v.example/jobs?a=hush",
                Wrong::Address,
                "write base_url = \"https://www.v.example\"",
            ),
            ("http://v.example", "https://v.example/", Wrong::Address, "write https:// in base_url"),
            (
                "https://v.example",
                "/app",
                Wrong::Path,
                "it redirects to https://v.example/app; write the address",
            ),
            (
                "https://v.example",
                "/login?next=hush",
                Wrong::Credentials,
                "it leads to the login page https://v.example/login; replace",
            ),
            (
                "https://v.example",
                "https://me:hush@sso.example/login",
                Wrong::Address,
                "it redirects to https://sso.example/login;",
            ),
            ("https://v.example", "", Wrong::Path, "write base_url"),
        ] {
            let (told, advice) = of_head(base_url, "/jobs", 302, &[("location", location)]);
            assert_eq!(told, wrong, "{location}: {advice}");
            assert!(advice.contains(expected) && !advice.contains("hush"), "{location}: {advice}");
        }
    }

    #[test]
    fn missing_path_is_the_tenant_where_one_stands_in_it() {
        let page = [("content-type", "text/html; charset=utf-8")];
        for (base_url, path, status, headers, wrong, expected) in [
            (
                "https://v.example",
                "/demo/api",
                404,
                &[][..],
                Wrong::Tenant,
                "check tenant, which is \"demo\"",
            ),
            ("https://v.example/api", "/demo/api", 404, &[], Wrong::Path, "base_url has a path"),
            ("https://v.example", "/jobs", 404, &[], Wrong::Path, "check base_url"),
            ("https://v.example", "/jobs", 405, &[], Wrong::Path, "check base_url"),
            ("https://v.example", "/jobs", 200, &page, Wrong::Path, "an HTML page came"),
            ("https://v.example", "/jobs", 403, &page, Wrong::Other, "a firewall or a proxy"),
            ("https://v.example", "/jobs", 403, &[], Wrong::Permission, "the permission"),
            (
                "https://v.example",
                "/jobs",
                401,
                &[],
                Wrong::Credentials,
                "credentials.password from the variable P",
            ),
            ("https://v.example", "/jobs", 407, &[], Wrong::Credentials, "the proxy asks"),
            ("http://v.example", "/jobs", 400, &page, Wrong::Tls, "write https:// in base_url"),
            (
                "https://v.example",
                "/jobs",
                400,
                &[],
                Wrong::Other,
                "check that base_url is this vendor's API",
            ),
        ] {
            let (told, advice) = of_head(base_url, path, status, headers);
            assert_eq!(told, wrong, "{base_url} {status}: {advice}");
            assert!(advice.contains(expected), "{base_url} {status}: {advice}");
        }
    }

    #[test]
    fn failed_connection_is_told_by_its_reason() {
        for (base_url, why, wrong) in [
            ("https://v", "no connection: Connection refused (os error 111)", Wrong::Address),
            (
                "https://v",
                "no connection: failed to lookup address information: Name or service not known",
                Wrong::Address,
            ),
            ("https://v", "connecting took too long", Wrong::Address),
            ("https://v", "no connection: invalid peer certificate: UnknownIssuer", Wrong::Tls),
            (
                "https://v",
                "no connection: invalid peer certificate: certificate not valid for name \"v\"",
                Wrong::Tls,
            ),
            ("https://v", "no connection: invalid peer certificate: certificate expired: ...", Wrong::Tls),
            ("https://v", "no connection: received corrupt message of type InvalidContentType", Wrong::Tls),
            ("https://v", "no connection: received fatal alert: HandshakeFailure", Wrong::Tls),
            ("http://v", "the connection broke: invalid HTTP version parsed", Wrong::Tls),
            ("http://v", "the connection broke: connection closed", Wrong::Address),
        ] {
            assert_eq!(of_connection(&base_url.parse().unwrap(), why).0, wrong, "{why}");
        }
    }
}
