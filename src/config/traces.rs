//! Where traces go, and which of them.

use std::{collections::BTreeMap, fs::File, path::PathBuf, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue};
use schemars::JsonSchema;
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use super::{
    Proxies,
    credentials::{self, SecretSources},
    network,
    problems::{Problems, join},
    tables::TracesKeys,
};
use crate::vendors::BaseUrl;

/// Where OTLP over HTTP takes traces, unless the endpoint has a path.
const PATH: &str = "/v1/traces";

/// Longest text of an attribute.
const LONGEST_TEXT: usize = 1024;

/// The export of traces.
#[derive(Clone, Debug, PartialEq)]
pub struct Traces {
    /// The collector: a whole URL for HTTP; scheme, host and port for gRPC.
    pub endpoint: BaseUrl,
    /// What it speaks.
    pub protocol: Protocol,
    /// Headers of each request, marked as sensitive.
    pub headers: HeaderMap,
    /// A PEM file of authorities that are trusted besides the system's.
    pub ca: Option<PathBuf>,
    /// Those on the way to a collector that speaks HTTP.
    pub proxies: Proxies,
    /// Longest wait for a response.
    pub timeout: Duration,
    /// Share of the traces without a caller's decision that are sampled.
    pub sample_ratio: f64,
    /// Whether a caller's decision holds.
    pub parent_based: bool,
    /// Whether vendors are sent `traceparent`.
    pub propagate: bool,
    /// The `service.name` of the traces.
    pub service_name: String,
    /// Further attributes of the process.
    pub attributes: BTreeMap<String, String>,
}

/// Protocols of OTLP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Protobuf over HTTP.
    #[default]
    Http,
    /// gRPC.
    Grpc,
}

impl TracesKeys {
    /// Checks the keys. `None` where traces are off, or after a problem was reported.
    pub(super) fn check(self, secrets: &SecretSources<'_>, problems: &mut Problems) -> Option<Traces> {
        let before = problems.len();
        let headers = headers(self.headers.unwrap_or_default(), secrets, problems);
        if let Some(Err(error)) = self.ca.as_ref().map(File::open) {
            let text = format!("is a file that can't be read: {error}; write the path of a PEM file");
            problems.add("traces.ca", text);
        }
        let mut attributes = self.attributes;
        let named = self.service_name.or_else(|| attributes.get("service.name").cloned());
        attributes.remove("service.name");
        let service_name = named.unwrap_or_else(|| "jobwatch".to_owned());
        check_text("traces.service_name", &service_name, problems);
        for (name, value) in &attributes {
            check_text(&join("traces.attributes", name), value, problems);
        }
        let endpoint = match endpoint(&self.endpoint?, self.protocol) {
            Ok(endpoint) => endpoint,
            Err(text) => return problems.report("traces.endpoint", text),
        };
        let proxies = network::environment(secrets.env, problems);
        let traces = Traces {
            endpoint,
            protocol: self.protocol,
            headers,
            ca: self.ca,
            proxies,
            timeout: self.timeout,
            sample_ratio: self.sample_ratio,
            parent_based: self.parent_based,
            propagate: self.propagate,
            service_name,
            attributes,
        };
        (problems.len() == before).then_some(traces)
    }
}

fn check_text(key: &str, text: &str, problems: &mut Problems) {
    if text.is_empty() || text.len() > LONGEST_TEXT {
        problems.add(key, format!("has {} bytes; write 1 to {LONGEST_TEXT}", text.len()));
    }
}

/// The URL of the requests.
fn endpoint(text: &str, protocol: Protocol) -> Result<BaseUrl, &'static str> {
    const EXAMPLE: &str = "can't be used; write a URL such as \"http://collector.example:4318\", without user, query and fragment";
    let url: BaseUrl = text.parse().map_err(|_| EXAMPLE)?;
    let has_path = !matches!(url.join("").path(), "" | "/");
    match protocol {
        Protocol::Grpc if has_path => Err(
            "has a path, which gRPC has no use for; write one such as \"http://collector.example:4317\", or \
                 protocol = \"http\"",
        ),
        Protocol::Http if !has_path => url.join(PATH).to_string().parse().map_err(|_| EXAMPLE),
        Protocol::Grpc | Protocol::Http => Ok(url),
    }
}

fn headers(table: Table, secrets: &SecretSources<'_>, problems: &mut Problems) -> HeaderMap {
    const PARENT: &str = "traces.headers";
    let mut headers = HeaderMap::new();
    for (name, value) in table {
        let key = join(PARENT, &name);
        let Ok(parsed) = HeaderName::from_bytes(name.as_bytes()) else {
            problems.add(key, "is not the name of a header; write one such as X-Tenant");
            continue;
        };
        if network::is_set_by_the_gateway(&parsed) || parsed.as_str().starts_with("grpc-") {
            problems.add(key, "is set by the gateway; remove it");
            continue;
        }
        let value = match value {
            Value::String(literal) => Some(literal),
            place @ Value::Table(_) => credentials::secret(PARENT, &name, place, secrets, problems)
                .map(|secret| secret.value().expose_secret().to_owned()),
            _ => problems.report(key.clone(), "is no text; write it in quotes"),
        };
        let Some(value) = value else { continue };
        match HeaderValue::from_str(&value) {
            Ok(mut value) => {
                value.set_sensitive(true);
                headers.insert(parsed, value);
            }
            Err(_) => problems.add(key, "holds a character that a header can't; remove it"),
        }
    }
    headers
}

#[cfg(test)]
mod tests;
