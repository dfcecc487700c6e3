//! Which sites in browsers may call, and by which names.

use http::Uri;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::problems::Problems;

/// Browsers: gRPC-Web and HTTP.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Web {
    /// The sites in browsers that may call, such as `https://app.example.com`. Programs need
    /// none.
    pub origins: Vec<String>,
    /// Names by which HTTP requests may reach this address without TLS and without
    /// credentials, beside IP addresses and localhost.
    pub hosts: Vec<String>,
}

impl Web {
    /// Reports what can't be used.
    pub(super) fn check(&self, problems: &mut Problems) {
        for origin in self.origins.iter().filter(|origin| !is_origin(origin)) {
            let text = format!(
                "has {origin:?}; write scheme, host and port as a browser does, such as \"https://app.example.com\" \
                 or \"http://localhost:5173\", without a path"
            );
            problems.add("server.web.origins", text);
        }
        check_hosts("server.web.hosts", &self.hosts, problems);
    }
}

/// Reports what is no name of a host.
pub(super) fn check_hosts(key: &str, hosts: &[String], problems: &mut Problems) {
    for host in hosts {
        let is_in_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
        if host.is_empty() || !host.chars().all(is_in_name) {
            let text = format!(
                "has {host:?}; write the name without scheme and port, such as \"jobwatch.internal\""
            );
            problems.add(key, text);
        }
    }
}

/// Whether this is an origin in the form in which browsers send it.
fn is_origin(text: &str) -> bool {
    let Some((scheme @ ("http" | "https"), rest)) = text.split_once("://") else { return false };
    let Ok(uri) = text.parse::<Uri>() else { return false };
    let usual = if scheme == "https" { 443 } else { 80 };
    let host = uri.host().unwrap_or_default();
    let written = match uri.port_u16() {
        Some(port) if port == usual => return false,
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    };
    !host.is_empty() && written == rest && !text.bytes().any(|byte| byte.is_ascii_uppercase())
}

#[cfg(test)]
mod tests {
    use crate::config::Config;

    const BACKEND: &str = "[backends.db]\nvendor = \"kinetica\"\nbase_url = \"http://127.0.0.1:9191\"\n";

    fn parse(web: &str) -> Result<Config, String> {
        Config::parse(&format!("[server.web]\n{web}\n{BACKEND}"), []).map_err(|error| error.to_string())
    }

    #[test]
    fn origins_are_none_by_default_and_read_as_browsers_send_them() {
        assert_eq!(Config::parse(BACKEND, []).unwrap().server.web, super::Web::default());
        let config = parse(
            "origins = [\"https://app.example.com\", \"http://localhost:5173\", \"http://[::1]:8080\"]",
        );
        assert_eq!(config.unwrap().server.web.origins.len(), 3);
    }

    #[test]
    fn origin_that_no_browser_sends_is_refused() {
        for origin in [
            "*",
            "null",
            "",
            "app.example.com",
            "https://",
            "https://app.example.com/",
            "https://app.example.com/path",
            "https://App.example.com",
            "https://app.example.com:443",
            "https://app.example.com:80801",
            "https://app.example.com:",
            "https://user@app.example.com",
            "ftp://app.example.com",
        ] {
            let wanted = format!(
                "server.web.origins has {origin:?}; write scheme, host and port as a browser does, such as \
                 \"https://app.example.com\" or \"http://localhost:5173\", without a path"
            );
            assert_eq!(parse(&format!("origins = [{origin:?}]")).unwrap_err(), wanted);
        }
        let error = parse("hosts = [\"http://jobwatch.internal\"]").unwrap_err();
        assert!(
            error.starts_with("server.web.hosts has \"http://jobwatch.internal\"; write the name"),
            "{error}"
        );
    }
}
