//! Which keys exist, and what to say about one that does not.

use super::Problem;

/// One key of a table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
}

/// What a key holds.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// Text, durations and addresses included.
    Text,
    /// A number, a boolean or a list.
    Value,
    /// A secret, or where to find it.
    Secret,
    /// A table of these keys.
    Table(&'static [Key]),
    /// Tables by a name that the operator chooses.
    Named(&'static [Key]),
    /// A table of these keys, or one word.
    TableOrText(&'static [Key]),
    /// A key that a later version may have.
    Later,
}

const fn key(name: &'static str, kind: Kind) -> Key {
    Key { name, kind }
}

/// The whole file.
pub(super) const FILE: &[Key] = &[
    key("allow_inline_secrets", Kind::Value),
    key("server", Kind::Table(SERVER)),
    key("limits", Kind::Table(LIMITS)),
    key("backends", Kind::Named(BACKEND)),
    key("admin", Kind::Later),
    key("cluster", Kind::Later),
];

const SERVER: &[Key] = &[
    key("listen", Kind::Text),
    key("tls", Kind::Table(TLS)),
    key("batch_deadline", Kind::Text),
    key("collection_window", Kind::Text),
];

const TLS: &[Key] = &[key("cert", Kind::Text), key("key", Kind::Text), key("client_ca", Kind::Text)];

const LIMITS: &[Key] = &[
    key("watches", Kind::Value),
    key("watches_per_caller", Kind::Value),
    key("watches_per_call", Kind::Value),
    key("batch_size", Kind::Value),
    key("streams_per_connection", Kind::Value),
    key("connections", Kind::Value),
];

const BACKEND: &[Key] = &[
    key("vendor", Kind::Text),
    key("base_url", Kind::Text),
    key("tenant", Kind::Text),
    key("credentials", Kind::TableOrText(CREDENTIALS)),
    key("poll", Kind::Table(POLL)),
    key("encoding", Kind::Text),
    key("standby_urls", Kind::Value),
];

const CREDENTIALS: &[Key] = &[
    key("api_key", Kind::Secret),
    key("exchange", Kind::Value),
    key("bearer", Kind::Secret),
    key("username", Kind::Text),
    key("email", Kind::Text),
    key("password", Kind::Secret),
    key("client_id", Kind::Text),
    key("client_secret", Kind::Secret),
    key("client_auth", Kind::Text),
];

const POLL: &[Key] = &[
    key("min_interval", Kind::Text),
    key("max_interval", Kind::Text),
    key("timeout", Kind::Text),
    key("connect_timeout", Kind::Text),
    key("max_batch", Kind::Value),
    key("max_concurrency", Kind::Value),
    key("requests_per_second", Kind::Value),
    key("not_found_grace", Kind::Text),
    key("max_backoff", Kind::Text),
    key("max_response_bytes", Kind::Value),
    key("long_poll", Kind::Text),
];

/// Where a secret is.
pub(super) const SECRET: &[Key] = &[key("env", Kind::Text), key("file", Kind::Text)];

/// Refuses each key of `table` that does not exist, at any depth.
pub(super) fn refuse_unknown(path: &str, table: &toml::Table, keys: &[Key], problems: &mut Vec<Problem>) {
    for (name, value) in table {
        let path = join(path, name);
        let Some(key) = keys.iter().find(|key| key.name == name) else {
            let text = format!("is not a key here; {}", instead(name, keys.iter().map(|key| key.name)));
            problems.push(Problem { subject: path, text });
            continue;
        };
        match (key.kind, value) {
            (Kind::Later, _) => {
                let text = "is not supported by this version; remove it".to_owned();
                problems.push(Problem { subject: path, text });
            }
            (Kind::Table(keys) | Kind::TableOrText(keys), toml::Value::Table(table)) => {
                refuse_unknown(&path, table, keys, problems);
            }
            (Kind::Named(keys), toml::Value::Table(tables)) => {
                for (name, value) in tables {
                    if let Some(table) = value.as_table() {
                        refuse_unknown(&join(&path, name), table, keys, problems);
                    }
                }
            }
            (Kind::Secret, toml::Value::Table(table)) => refuse_unknown(&path, table, SECRET, problems),
            _ => {}
        }
    }
}

/// A key's path, as TOML would write it.
pub(super) fn join(path: &str, name: &str) -> String {
    let bare = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'));
    let name = if bare { name.to_owned() } else { format!("{name:?}") };
    if path.is_empty() { name } else { format!("{path}.{name}") }
}

/// What to write instead of `name`: the closest of `known`, or all of them.
pub(super) fn instead<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> String {
    let known: Vec<_> = known.collect();
    let lower = name.to_lowercase().replace('-', "_");
    let close = known
        .iter()
        .map(|candidate| (strsim::jaro_winkler(&lower, candidate), candidate))
        .filter(|(similarity, _)| *similarity > 0.8)
        .max_by(|(a, _), (b, _)| a.total_cmp(b));
    match close {
        Some((_, candidate)) => format!("did you mean {candidate}?"),
        None => format!("write one of {}", known.join(", ")),
    }
}
