//! The `OTEL_` variables that OpenTelemetry defines for traces.
//!
//! They set keys of `[traces]`. Where a variable for traces alone is set, that for all
//! signals has no effect; an empty one counts as not set.
//! <https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/>

use std::collections::BTreeMap;

use percent_encoding::percent_decode_str;
use toml::{Table, Value};

use super::problems::Problems;

/// Where a collector is unless something else is configured.
const DEFAULT_ENDPOINT: &str = "http://localhost:4318";

/// A key of `[traces]` that a variable sets.
#[derive(Debug)]
pub(super) struct Setting {
    pub(super) variable: &'static str,
    pub(super) key: &'static str,
    pub(super) value: Value,
}

/// What the variables set. `None` if they turn traces off.
pub(super) fn settings(
    variables: &BTreeMap<String, String>,
    problems: &mut Problems,
) -> Option<Vec<Setting>> {
    let mut reader = Reader { variables, problems, settings: Vec::new() };
    let is_off = reader.exporter();
    reader.endpoint();
    reader.protocol();
    reader.pairs(["OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS"], "headers");
    reader.text(["OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "OTEL_EXPORTER_OTLP_CERTIFICATE"], "ca");
    reader.timeout();
    reader.text(["OTEL_SERVICE_NAME"], "service_name");
    reader.pairs(["OTEL_RESOURCE_ATTRIBUTES"], "attributes");
    reader.sampler();
    (!is_off).then_some(reader.settings)
}

struct Reader<'a> {
    variables: &'a BTreeMap<String, String>,
    problems: &'a mut Problems,
    settings: Vec<Setting>,
}

impl<'a> Reader<'a> {
    /// The first of these variables that is set.
    fn find<const N: usize>(&self, names: [&'static str; N]) -> Option<(&'static str, &'a str)> {
        let set = |name| self.variables.get(name).map(|value| (name, value.trim()));
        names.into_iter().filter_map(set).find(|(_, value)| !value.is_empty())
    }

    fn set(&mut self, variable: &'static str, key: &'static str, value: impl Into<Value>) {
        self.settings.push(Setting { variable, key, value: value.into() });
    }

    fn text<const N: usize>(&mut self, names: [&'static str; N], key: &'static str) {
        if let Some((name, value)) = self.find(names) {
            self.set(name, key, value);
        }
    }

    /// Whether traces are off.
    fn exporter(&mut self) -> bool {
        let is_disabled = match self.find(["OTEL_SDK_DISABLED"]) {
            Some((_, value)) if value.eq_ignore_ascii_case("true") => true,
            Some((_, value)) if value.eq_ignore_ascii_case("false") => false,
            Some((name, value)) => {
                self.problems.add(name, format!("is {value:?}; write true or false"));
                false
            }
            None => false,
        };
        let name = "OTEL_TRACES_EXPORTER";
        match self.find([name]) {
            None => is_disabled,
            Some((_, "none")) => true,
            Some((_, "otlp")) => {
                self.set(name, "endpoint", DEFAULT_ENDPOINT);
                is_disabled
            }
            Some((_, value)) => {
                self.problems.add(name, format!("is {value:?}; write otlp or none"));
                is_disabled
            }
        }
    }

    /// Requests go to `/v1/traces` below the endpoint of all signals. Where that is all of
    /// the path, it is the default of `traces.endpoint`.
    fn endpoint(&mut self) {
        let (own, shared) = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT");
        if let Some((name, value)) = self.find([own]) {
            self.set(name, "endpoint", value);
        } else if let Some((name, value)) = self.find([shared]) {
            let value = value.trim_end_matches('/');
            let has_path = value.split_once("://").is_some_and(|(_, rest)| rest.contains('/'));
            self.set(
                name,
                "endpoint",
                if has_path { format!("{value}/v1/traces") } else { value.to_owned() },
            );
        }
    }

    fn protocol(&mut self) {
        match self.find(["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"]) {
            None => {}
            Some((name, "grpc")) => self.set(name, "protocol", "grpc"),
            Some((name, "http/protobuf")) => self.set(name, "protocol", "http"),
            Some((name, value)) => {
                self.problems.add(name, format!("is {value:?}; write grpc or http/protobuf"));
            }
        }
    }

    /// Milliseconds.
    fn timeout(&mut self) {
        let Some((name, value)) =
            self.find(["OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT"])
        else {
            return;
        };
        match value.parse::<u32>() {
            Ok(milliseconds) => self.set(name, "timeout", format!("{milliseconds}ms")),
            Err(_) => self.problems.add(name, format!("is {value:?}; write milliseconds, such as 10000")),
        }
    }

    /// A list of `key=value`, which may be secrets.
    fn pairs<const N: usize>(&mut self, names: [&'static str; N], key: &'static str) {
        let Some((variable, list)) = self.find(names) else { return };
        let mut table = Table::new();
        for pair in list.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
            let decoded = pair.split_once('=').filter(|(name, _)| !name.trim().is_empty()).and_then(|pair| {
                let (name, value) = (pair.0.trim(), pair.1.trim());
                let value = percent_decode_str(value).decode_utf8().ok()?.into_owned();
                Some((percent_decode_str(name).decode_utf8().ok()?.into_owned(), value))
            });
            let Some((name, value)) = decoded else {
                let text = "holds something else than name=value pairs with commas between them; write \
                            such as a=1,b=2, with %2C for a comma";
                return self.problems.add(variable, text);
            };
            table.insert(name, Value::String(value));
        }
        self.set(variable, key, table);
    }

    fn sampler(&mut self) {
        let Some((name, sampler)) = self.find(["OTEL_TRACES_SAMPLER"]) else { return };
        let (kind, is_parent_based) = match sampler.strip_prefix("parentbased_") {
            Some(kind) => (kind, true),
            None => (sampler, false),
        };
        let ratio = match kind {
            "always_on" => Some((name, Value::Float(1.0))),
            "always_off" => Some((name, Value::Float(0.0))),
            "traceidratio" => {
                let argument = self.find(["OTEL_TRACES_SAMPLER_ARG"]);
                Some(argument.map_or((name, Value::Float(1.0)), |(name, ratio)| (name, ratio.into())))
            }
            _ => {
                let text = format!(
                    "is {sampler:?}; write always_on, always_off or traceidratio, each also with parentbased_ \
                     before it"
                );
                return self.problems.add(name, text);
            }
        };
        if let Some((variable, ratio)) = ratio {
            self.set(variable, "sample_ratio", ratio);
        }
        self.set(name, "parent_based", is_parent_based);
    }
}
