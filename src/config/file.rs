//! Turns the file's table into a configuration.

use std::{
    fs::File,
    num::{NonZeroU32, NonZeroUsize},
    path::PathBuf,
    time::Duration,
};

use toml::{Table, Value};

use super::{
    Backend, Config, Environment, InvalidConfig, Limits, Poll, Problem, Server, Tls, Vendor, credentials,
    overrides,
    reader::{Reader, Section},
    schema::{self, FILE},
};
use crate::vendors::{BaseUrl, Encoding};

const HOUR: Duration = Duration::from_hours(1);
const LEAST: Duration = Duration::from_millis(1);
const MOST_STANDBYS: usize = 8;

/// Reads a whole file.
pub(super) fn read(text: &str, env: &Environment) -> Result<Config, InvalidConfig> {
    let mut file: Table = toml::from_str(text).map_err(|error| {
        // The error's own Display quotes the line, which may hold a secret.
        let (line, column) = error.span().map_or((1, 1), |span| position(text, span.start));
        let text = format!("(line {line}, column {column}) is not TOML: {}", error.message());
        InvalidConfig { problems: vec![Problem { subject: "the file".to_owned(), text }] }
    })?;
    let mut problems = Vec::new();
    let origins = overrides::apply(&mut file, env.variables(), &mut problems);
    schema::refuse_unknown("", &file, FILE, &mut problems);

    let mut reader = Reader::new(env, problems);
    let config = reader.config(&file);
    let mut problems = reader.into_problems();
    match config {
        Some(config) if problems.is_empty() => Ok(config),
        _ => {
            for problem in &mut problems {
                if let Some(variable) = origins.get(&problem.subject) {
                    problem.text = format!("(set by {variable}) {}", problem.text);
                }
            }
            Err(InvalidConfig { problems })
        }
    }
}

fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.rsplit('\n').next().unwrap_or_default();
    (before.matches('\n').count() + 1, line.chars().count() + 1)
}

impl Reader<'_> {
    fn config(&mut self, file: &Table) -> Option<Config> {
        let file = Section::new(String::new(), file);
        self.allow_inline_secrets = self.flag(&file, "allow_inline_secrets").unwrap_or_default();
        let server = self.section(&file, "server").and_then(|section| self.server(&section));
        let limits = self.section(&file, "limits").and_then(|section| self.limits(&section));
        let backends = self.backends(&file);
        Some(Config { server: server?, limits: limits?, backends: backends? })
    }

    fn server(&mut self, section: &Section<'_>) -> Option<Server> {
        let default = Server::default();
        let example = "an IP address and a port, such as \"127.0.0.1:50051\"";
        let listen = match self.text(section, "listen", example) {
            None => None,
            Some(None) => Some(default.listen),
            Some(Some(text)) => match text.parse() {
                Ok(listen) => Some(listen),
                Err(_) => self.problem(section.path_of("listen"), format!("is {text:?}; write {example}")),
            },
        };
        let tls = match section.get("tls") {
            None => Some(None),
            Some(_) => self.section(section, "tls").and_then(|tls| self.tls(&tls)).map(Some),
        };
        let batch_deadline = self.duration(section, "batch_deadline", default.batch_deadline, LEAST..=HOUR);
        let window = Duration::ZERO..=Duration::from_secs(1);
        let collection_window =
            self.duration(section, "collection_window", default.collection_window, window);
        Some(Server {
            listen: listen?,
            tls: tls?,
            batch_deadline: batch_deadline?,
            collection_window: collection_window?,
        })
    }

    fn tls(&mut self, section: &Section<'_>) -> Option<Tls> {
        let cert = self.required(section, "cert", "the path of the PEM certificate chain");
        let key = self.required(section, "key", "the path of the PEM private key");
        let client_ca = self.text(section, "client_ca", "the path of a PEM file");
        let mut openable = |key: &str, file: String| match File::open(&file) {
            Ok(_) => Some(PathBuf::from(file)),
            Err(error) => self
                .problem(section.path_of(key), format!("is the file {file}, which can't be read: {error}")),
        };
        let cert = cert.and_then(|file| openable("cert", file));
        let key = key.and_then(|file| openable("key", file));
        let client_ca = match client_ca? {
            None => None,
            Some(file) => Some(openable("client_ca", file)?),
        };
        Some(Tls { cert: cert?, key: key?, client_ca })
    }

    fn limits(&mut self, section: &Section<'_>) -> Option<Limits> {
        let default = Limits::default();
        let watches = self.number(section, "watches", default.watches, 1..=1_000_000_000);
        let watches_per_caller =
            self.number(section, "watches_per_caller", default.watches_per_caller, 1..=1_000_000_000);
        let watches_per_call =
            self.number(section, "watches_per_call", default.watches_per_call, 1..=1_000_000_000);
        let batch_size = self.number(section, "batch_size", default.batch_size, 1..=1000);
        let streams =
            self.number(section, "streams_per_connection", default.streams_per_connection, 1..=1_000_000);
        let connections = self.number(section, "connections", default.connections, 1..=1_000_000);
        Some(Limits {
            watches: watches?,
            watches_per_caller: watches_per_caller?,
            watches_per_call: watches_per_call?,
            batch_size: batch_size?,
            streams_per_connection: streams?,
            connections: connections?,
        })
    }

    fn backends(&mut self, file: &Section<'_>) -> Option<Vec<Backend>> {
        let section = self.section(file, "backends")?;
        let backends: Vec<_> = section.entries().collect();
        if backends.is_empty() {
            let text = "is missing; write at least one backend, such as [backends.immuta-prod]".to_owned();
            return self.problem(section.path, text);
        }
        // Every backend is read before the first faulty one ends this.
        let backends: Vec<_> =
            backends.into_iter().map(|(name, value)| self.backend(&section, name, value)).collect();
        backends.into_iter().collect()
    }

    fn backend(&mut self, backends: &Section<'_>, name: &str, value: &Value) -> Option<Backend> {
        let path = backends.path_of(name);
        let named = is_backend_name(name);
        if !named {
            let text = "is not a name for a backend; write 1 to 63 of a-z, 0-9, '.', '_' and '-', \
                        beginning with a letter or digit";
            self.problem::<()>(path.clone(), text.to_owned());
        }
        let Some(table) = value.as_table() else {
            return self.problem(path.clone(), format!("is not a table; write [{path}]"));
        };
        let section = Section::new(path, table);
        let vendor = self.vendor(&section);
        let base_url = self.required(&section, "base_url", "a URL such as \"https://vendor.example\"");
        let base_url = base_url.and_then(|text| match text.parse::<BaseUrl>() {
            Ok(base_url) => Some(base_url),
            Err(error) => self.problem(section.path_of("base_url"), error.to_string()),
        });
        let credentials = vendor.as_ref().and_then(|vendor| credentials::read(self, &section, vendor));
        let poll = self.section(&section, "poll").and_then(|poll| self.poll(&poll, vendor.as_ref()));
        Some(Backend {
            name: named.then(|| name.into())?,
            vendor: vendor?,
            base_url: base_url?,
            credentials: credentials?,
            poll: poll?,
        })
    }

    /// Even with a wrong key of its own, which is reported, so that the credentials
    /// are looked at too.
    fn vendor(&mut self, section: &Section<'_>) -> Option<Vendor> {
        const VENDORS: [&str; 4] = ["immuta", "kinetica", "claret", "datasaur"];
        let vendor = match &*self.required(section, "vendor", "one of immuta, kinetica, claret, datasaur")? {
            "immuta" => Vendor::Immuta,
            "kinetica" => Vendor::Kinetica {
                encoding: self.encoding(section).unwrap_or_default(),
                standby_urls: self.standby_urls(section).unwrap_or_default(),
            },
            "claret" => Vendor::Claret { tenant: self.tenant(section).unwrap_or_default() },
            "datasaur" => Vendor::Datasaur,
            other => {
                let text = format!("is {other:?}; {}", schema::instead(other, VENDORS.into_iter()));
                return self.problem(section.path_of("vendor"), text);
            }
        };
        for (key, owner) in [("tenant", "Claret"), ("encoding", "Kinetica"), ("standby_urls", "Kinetica")] {
            if section.get(key).is_some() && vendor.name() != owner {
                let text = format!("is only for {owner}, not for {}; remove it", vendor.name());
                self.problem::<()>(section.path_of(key), text);
            }
        }
        Some(vendor)
    }

    fn tenant(&mut self, section: &Section<'_>) -> Option<String> {
        let example = "the tenant's name, the first path segment, such as \"demo\"";
        let tenant = self.required(section, "tenant", example)?;
        if tenant.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_')) {
            return Some(tenant);
        }
        let text = format!("is {tenant:?}; write {example}, of letters, digits, '-' and '_'");
        self.problem(section.path_of("tenant"), text)
    }

    fn encoding(&mut self, section: &Section<'_>) -> Option<Encoding> {
        let example = "\"json\" or \"binary\"";
        match self.text(section, "encoding", example)?.as_deref() {
            None => Some(Encoding::default()),
            Some("json") => Some(Encoding::Json),
            Some("binary") => Some(Encoding::Binary),
            Some(other) => {
                self.problem(section.path_of("encoding"), format!("is {other:?}; write {example}"))
            }
        }
    }

    fn standby_urls(&mut self, section: &Section<'_>) -> Option<Vec<BaseUrl>> {
        let path = section.path_of("standby_urls");
        let Some(value) = section.get("standby_urls") else { return Some(Vec::new()) };
        let texts = value.as_array().filter(|urls| urls.len() <= MOST_STANDBYS);
        let texts: Option<Vec<&str>> = texts.and_then(|urls| urls.iter().map(Value::as_str).collect());
        let Some(texts) = texts else {
            let text = format!(
                "is not a list of URLs; write at most {MOST_STANDBYS}, such as [\"http://standby.example:9191\"]"
            );
            return self.problem(path, text);
        };
        // What is wrong with base_url is reported with that key.
        let first = section.get("base_url").and_then(Value::as_str).and_then(|text| text.parse().ok());
        let mut known: Vec<BaseUrl> = Vec::from_iter(first);
        let mut standbys = Vec::new();
        for (at, text) in texts.into_iter().enumerate() {
            match text.parse::<BaseUrl>() {
                Err(error) => return self.problem(format!("{path}[{at}]"), error.to_string()),
                Ok(url) if known.iter().any(|other| other.is_same_place(&url)) => {
                    let text = "is a cluster that the backend has already; remove it".to_owned();
                    return self.problem(format!("{path}[{at}]"), text);
                }
                Ok(url) => {
                    known.push(url.clone());
                    standbys.push(url);
                }
            }
        }
        Some(standbys)
    }

    fn poll(&mut self, section: &Section<'_>, vendor: Option<&Vendor>) -> Option<Poll> {
        let default = Poll::default();
        let day = LEAST..=24 * HOUR;
        let min_interval = self.duration(section, "min_interval", default.min_interval, day.clone());
        // A longest wait that is not set is never shorter than the shortest.
        let least = min_interval.unwrap_or(LEAST);
        let longest = least..=24 * HOUR;
        let max_interval =
            self.duration(section, "max_interval", default.max_interval.max(least), longest.clone());
        let max_backoff = self.duration(section, "max_backoff", default.max_backoff.max(least), longest);
        let timeout = self.duration(section, "timeout", default.timeout, LEAST..=HOUR);
        let connect_timeout =
            self.duration(section, "connect_timeout", default.connect_timeout, LEAST..=HOUR);
        let not_found_grace =
            self.duration(section, "not_found_grace", default.not_found_grace, Duration::ZERO..=24 * HOUR);
        let max_batch = match vendor {
            Some(vendor) if !vendor.batches() => {
                let given = self.number(section, "max_batch", 1, 0..=i64::MAX)?;
                if given != 1 {
                    let text = format!(
                        "is {given}, but {} is asked for one job at a time; remove it",
                        vendor.name()
                    );
                    return self.problem(section.path_of("max_batch"), text);
                }
                Some(NonZeroUsize::MIN)
            }
            _ => self
                .number(section, "max_batch", default.max_batch.get(), 1..=1000)
                .and_then(NonZeroUsize::new),
        };
        let max_concurrency =
            self.number(section, "max_concurrency", default.max_concurrency.get(), 1..=10_000);
        let per_second =
            self.number(section, "requests_per_second", default.requests_per_second.get(), 1..=1_000_000);
        let bytes = self.number(section, "max_response_bytes", default.max_response_bytes, 1..=1 << 30);
        let long_poll = self.long_poll(section, vendor);
        Some(Poll {
            min_interval: min_interval?,
            max_interval: max_interval?,
            timeout: timeout?,
            connect_timeout: connect_timeout?,
            max_batch: max_batch?,
            max_concurrency: max_concurrency.and_then(NonZeroUsize::new)?,
            requests_per_second: per_second.and_then(NonZeroU32::new)?,
            not_found_grace: not_found_grace?,
            max_backoff: max_backoff?,
            max_response_bytes: bytes?,
            long_poll: long_poll?,
        })
    }

    fn long_poll(&mut self, section: &Section<'_>, vendor: Option<&Vendor>) -> Option<bool> {
        let vendor = vendor?;
        let Some(wanted) = self.text(section, "long_poll", "\"auto\" or \"off\"")? else {
            return Some(*vendor == Vendor::Immuta);
        };
        if *vendor != Vendor::Immuta {
            let text = format!("is only for Immuta, not for {}; remove it", vendor.name());
            return self.problem(section.path_of("long_poll"), text);
        }
        match wanted.as_str() {
            "auto" => Some(true),
            "off" => Some(false),
            _ => {
                let text = format!("is \"{wanted}\"; write \"auto\" or \"off\"");
                self.problem(section.path_of("long_poll"), text)
            }
        }
    }
}

fn is_backend_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    name.len() <= 63
        && name.starts_with(plain)
        && name.chars().all(|c| plain(c) || matches!(c, '.' | '_' | '-'))
}
