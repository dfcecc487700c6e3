//! How a backend is reached: a proxy, a private certificate authority, extra headers.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use http::{HeaderMap, HeaderName, HeaderValue, Uri, header};
use percent_encoding::percent_decode_str;
use secrecy::ExposeSecret;
use toml::{Table, Value};

use super::{
    Environment, Source,
    credentials::{self, SecretSources},
    problems::{Problems, join},
};

/// How a backend is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Network {
    /// The proxy.
    pub proxy: Proxies,
    /// A PEM file of authorities that are trusted besides the system's.
    pub ca: Option<PathBuf>,
    /// The hash of that file's content.
    pub ca_hash: Option<u64>,
    /// Headers of every request, marked as sensitive.
    pub headers: HeaderMap,
    /// The files that these settings were read from.
    pub files: Vec<PathBuf>,
}

/// The proxies to choose from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Proxies {
    /// Connections are direct.
    #[default]
    None,
    /// The backend's own.
    Own(Proxy),
    /// Those of the environment, which are not used towards this machine.
    Environment {
        /// For `http://` URLs.
        http: Option<Proxy>,
        /// For `https://` URLs.
        https: Option<Proxy>,
        /// Hosts that are reached directly.
        no_proxy: String,
    },
}

/// An HTTP proxy.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    /// Scheme, host and port.
    pub uri: Uri,
    /// The value of Proxy-Authorization, marked as sensitive.
    pub authorization: Option<HeaderValue>,
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy").field("uri", &self.uri).finish_non_exhaustive()
    }
}

/// The keys of a backend's network.
#[derive(Debug, Default)]
pub(super) struct NetworkKeys {
    pub(super) proxy: Option<String>,
    pub(super) proxy_password: Option<Value>,
    pub(super) ca: Option<PathBuf>,
    pub(super) headers: Option<Table>,
}

/// Headers that a request can't do without or that connections are made of.
const OWN_HEADERS: [HeaderName; 18] = [
    header::ACCEPT,
    header::ACCEPT_ENCODING,
    header::CONNECTION,
    header::CONTENT_ENCODING,
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::EXPECT,
    header::HOST,
    header::IF_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_NONE_MATCH,
    header::IF_RANGE,
    header::IF_UNMODIFIED_SINCE,
    header::RANGE,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Checks the keys of the backend at `path`. `None` after a problem was reported.
pub(super) fn check(
    path: &str,
    keys: NetworkKeys,
    environment: &Proxies,
    secrets: &SecretSources<'_>,
    problems: &mut Problems,
) -> Option<Network> {
    let before = problems.len();
    let NetworkKeys { proxy, proxy_password, ca, headers } = keys;
    let mut checker = Checker { path, secrets, problems, files: ca.iter().cloned().collect() };
    let proxy = checker.proxy(proxy.as_deref(), proxy_password, environment);
    let ca_hash = ca.as_deref().and_then(|ca| checker.ca(ca));
    let headers = checker.headers(headers.unwrap_or_default());
    let files = checker.files;
    let network = Network { proxy: proxy?, ca, ca_hash, headers, files };
    (problems.len() == before).then_some(network)
}

struct Checker<'a> {
    path: &'a str,
    secrets: &'a SecretSources<'a>,
    problems: &'a mut Problems,
    files: Vec<PathBuf>,
}

impl Checker<'_> {
    fn secret(&mut self, path: &str, key: &str, place: Value) -> Option<String> {
        let secret = credentials::secret(path, key, place, self.secrets, self.problems);
        let secret = secret?;
        if let Source::File(file) = secret.source() {
            self.files.push(file.clone());
        }
        Some(secret.expose_secret().to_owned())
    }

    fn proxy(
        &mut self,
        proxy: Option<&str>,
        password: Option<Value>,
        environment: &Proxies,
    ) -> Option<Proxies> {
        let key = join(self.path, "proxy");
        let password_key = join(self.path, "proxy_password");
        let url = match proxy {
            Some(url) if url != "none" => url,
            is_none => {
                if password.is_some() {
                    let text = format!("is set, but {key} names no user; write a URL such as {EXAMPLE}");
                    return self.problems.report(password_key, text);
                }
                return Some(if is_none.is_some() { Proxies::None } else { environment.clone() });
            }
        };
        let address = match Address::parse(url) {
            Ok(address) => address,
            Err(text) => return self.problems.report(key, format!("{text}; or write \"none\"")),
        };
        if address.password.is_some() {
            let text = "holds a password; write it as proxy_password = { env = \"NAME\" }";
            return self.problems.report(key, text);
        }
        let password = match password {
            None => None,
            Some(_) if address.user.is_none() => {
                let text = format!("is set, but {key} names no user; write a URL such as {EXAMPLE}");
                return self.problems.report(password_key, text);
            }
            Some(place) => Some(self.secret(self.path, "proxy_password", place)?),
        };
        Some(Proxies::Own(Address { password, ..address }.proxy()))
    }

    /// The hash of the file's content.
    fn ca(&mut self, file: &Path) -> Option<u64> {
        let key = join(self.path, "ca");
        if file.as_os_str().is_empty() {
            return self.problems.required(&key, None);
        }
        match std::fs::read(file) {
            Ok(content) => Some(xxhash_rust::xxh3::xxh3_64(&content)),
            Err(error) => {
                let text = format!("is the file {}, which can't be read: {error}", file.display());
                self.problems.report(key, text)
            }
        }
    }

    fn headers(&mut self, table: Table) -> HeaderMap {
        let path = join(self.path, "headers");
        let mut headers = HeaderMap::new();
        for (name, value) in table {
            let key = join(&path, &name);
            let Ok(parsed) = HeaderName::from_bytes(name.as_bytes()) else {
                self.problems.add(key, "is not the name of a header; write one such as X-Tenant");
                continue;
            };
            if let Some(text) = refused(&parsed) {
                self.problems.add(key, text);
                continue;
            }
            if headers.contains_key(&parsed) {
                self.problems.add(key, "is set twice: case makes no difference; remove one");
                continue;
            }
            let value = match value {
                Value::String(literal) => literal,
                Value::Integer(_)
                | Value::Float(_)
                | Value::Boolean(_)
                | Value::Datetime(_)
                | Value::Array(_) => {
                    self.problems.add(key, "is no text; write it in quotes");
                    continue;
                }
                place @ Value::Table(_) => match self.secret(&path, &name, place) {
                    Some(secret) => secret,
                    None => continue,
                },
            };
            match sensitive(&value) {
                Some(value) => drop(headers.insert(parsed, value)),
                None => self.problems.add(key, "holds a character that a header can't; remove it"),
            }
        }
        headers
    }
}

/// Why a header can't be configured.
/// Whether each request has its own value of this header.
pub(super) fn is_set_by_the_gateway(name: &HeaderName) -> bool {
    matches!(name.as_str(), "keep-alive" | "proxy-connection") || OWN_HEADERS.contains(name)
}

fn refused(name: &HeaderName) -> Option<&'static str> {
    match name.as_str() {
        "authorization" => Some("is set from credentials; remove it"),
        "proxy-authorization" => Some("is set from proxy and proxy_password; remove it"),
        _ => is_set_by_the_gateway(name).then_some("is set by the gateway; remove it"),
    }
}

fn sensitive(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// The proxies that the environment names, as curl reads them.
pub(super) fn environment(environment: &Environment, problems: &mut Problems) -> Proxies {
    let variables = environment.variables();
    // A CGI server sets HTTP_PROXY from a header of the request.
    if variables.contains_key("REQUEST_METHOD") {
        return Proxies::None;
    }
    let mut proxy = |names: [&'static str; 2]| {
        let (name, value) = names.into_iter().find_map(|name| Some((name, variables.get(name)?)))?;
        match unquoted(value).and_then(|value| (!value.is_empty()).then(|| Address::parse(value)).transpose())
        {
            Ok(address) => address.map(Address::proxy),
            Err(text) => problems.report(name, text),
        }
    };
    let all = proxy(["ALL_PROXY", "all_proxy"]);
    let http = proxy(["HTTP_PROXY", "http_proxy"]).or_else(|| all.clone());
    let https = proxy(["HTTPS_PROXY", "https_proxy"]).or(all);
    let no_proxy = ["NO_PROXY", "no_proxy"].into_iter().find_map(|name| Some((name, variables.get(name)?)));
    if let Some((name, value)) = no_proxy
        && let Err(text) = unquoted(value.trim())
    {
        problems.add(name, text);
    }
    let no_proxy = no_proxy.map(|(_, value)| value.clone()).unwrap_or_default();
    Proxies::Environment { http, https, no_proxy }
}

/// Refuses what a reader of environment files has left around a value.
fn unquoted(value: &str) -> Result<&str, String> {
    if value.starts_with(['"', '\'']) || value.ends_with(['"', '\'']) {
        return Err("begins or ends with a quote, which is a part of its value; remove the quotes".to_owned());
    }
    if value.trim() != value {
        return Err("has white space around its value; remove it".to_owned());
    }
    Ok(value)
}

const EXAMPLE: &str = "\"http://user@proxy.example:3128\"";

/// The URL of a proxy.
#[derive(Debug)]
struct Address {
    uri: Uri,
    user: Option<String>,
    password: Option<String>,
}

impl Address {
    /// The error never shows the text, which may hold a password.
    fn parse(text: &str) -> Result<Self, String> {
        let wrong = |what: &str| Err(format!("{what}; write a URL such as {EXAMPLE}"));
        if text.is_empty() {
            return wrong("is empty");
        }
        if text
            .chars()
            .any(|c| c.is_whitespace() || c.is_control() || matches!(c, '"' | '\'' | '<' | '>' | '\\'))
        {
            return wrong("holds white space, a quote or another character that a URL can't");
        }
        let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
        let scheme = scheme.to_ascii_lowercase();
        if !matches!(&*scheme, "http" | "https") {
            return wrong("is not the URL of an HTTP proxy, which begins with http:// or https://");
        }
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains(['/', '?', '#']) {
            return wrong(
                "has a path, or a '/', '?' or '#' in its user name or password, for which %2F, %3F or %23 has to be written",
            );
        }
        let (login, host) = match rest.rsplit_once('@') {
            None => (None, rest),
            Some((login, _)) if login.contains('@') => {
                return wrong("holds more than one '@': write %40 for one in the user name or password");
            }
            Some((login, host)) => (Some(login), host),
        };
        let url = url::Url::parse(&format!("{scheme}://{host}"));
        let is_host = url.is_ok_and(|url| url.has_host() && url.username().is_empty());
        let uri = format!("{scheme}://{host}/").parse::<Uri>();
        let (true, Ok(uri)) = (is_host, uri) else { return wrong("has no valid host and port") };
        let (user, password) = match login.map(|login| {
            login.split_once(':').map_or((login, None), |(user, password)| (user, Some(password)))
        }) {
            None => (None, None),
            Some(("", _)) => return wrong("has an empty user name before the '@'"),
            Some((user, password)) => (Some(decoded(user)?), password.map(decoded).transpose()?),
        };
        Ok(Self { uri, user, password })
    }

    fn proxy(self) -> Proxy {
        let authorization = self.user.map(|user| {
            let password = self.password.unwrap_or_default();
            let login = BASE64_STANDARD.encode(format!("{user}:{password}"));
            sensitive(&format!("Basic {login}")).expect("a header can hold base64")
        });
        Proxy { uri: self.uri, authorization }
    }
}

/// Undoes the escapes of a user name or password.
fn decoded(text: &str) -> Result<String, String> {
    let is_escape = |rest: &str| rest.len() >= 2 && rest.bytes().take(2).all(|byte| byte.is_ascii_hexdigit());
    if text.split('%').skip(1).any(|rest| !is_escape(rest)) {
        return Err("holds a '%' that escapes nothing; write %25 for it".to_owned());
    }
    let decoded = percent_decode_str(text).decode_utf8();
    decoded.map(Into::into).map_err(|_| "has escapes that are not UTF-8; write them as UTF-8".to_owned())
}

#[cfg(test)]
mod tests;
