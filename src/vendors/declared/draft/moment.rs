//! How a time is written: its unit, zone or format.

use jiff::{Timestamp, civil::DateTime, fmt::strtime};

use super::tree::Node;

/// Formats beside ISO 8601, all without a zone that can be read.
const FORMATS: [&str; 4] =
    ["%a, %d %b %Y %H:%M:%S GMT", "%Y-%m-%dT%H:%M:%S%.fGMT", "%Y/%m/%d %H:%M:%S", "%Y-%m-%d %H:%M:%S UTC"];

/// How a time is written, as `[status]` says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Form {
    /// Keys beside `at`, such as `unit = "ms"`.
    pub(super) keys: String,
    /// What was concluded, for people; empty for what needs no reason.
    pub(super) why: String,
}

/// The form of a value that is a time; `None` for anything else.
pub(super) fn form(node: &Node) -> Option<Form> {
    let of = |keys: &str, why: &str| Some(Form { keys: keys.to_owned(), why: why.to_owned() });
    let text = node.plain()?.trim();
    if let Some(unit) = unit(text) {
        let name = match unit {
            "s" => "seconds",
            "ms" => "milliseconds",
            "us" => "microseconds",
            _ => "nanoseconds",
        };
        return of(&format!("unit = {unit:?}"), &format!("{name} since 1970, by its size"));
    }
    node.text()?;
    if text.parse::<Timestamp>().is_ok() {
        return of("", "");
    }
    if text.len() >= 16 && text.parse::<DateTime>().is_ok() {
        return of("zone = \"UTC\"", "it has no zone; fill in: UTC is a guess");
    }
    let format = FORMATS.iter().find(|format| strtime::parse(format, text).is_ok())?;
    of(&format!("format = {format:?}, zone = \"UTC\""), "")
}

/// The unit of a number that is a time between 2001 and 2286.
fn unit(text: &str) -> Option<&'static str> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let is_number = !whole.is_empty() && (whole.to_owned() + fraction).bytes().all(|c| c.is_ascii_digit());
    match whole.len() {
        _ if !is_number => None,
        10 => Some("s"),
        13 => Some("ms"),
        16 => Some("us"),
        19 => Some("ns"),
        _ => None,
    }
}

/// Values by which vendors say that there is no time yet.
pub(super) fn is_unset(node: &Node) -> bool {
    match node {
        Node::Null => true,
        Node::Number(number) => number.parse() == Ok(0.0) || number == "-1",
        Node::Text { text, .. } => text.is_empty() || text.starts_with("0001-01-01") || text == "0",
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(json: &str) -> Option<String> {
        form(&Node::parse(json).unwrap()).map(|form| form.keys)
    }

    #[test]
    fn unit_follows_from_the_size_of_a_number() {
        for (json, unit) in [
            ("1767323045", "s"),
            ("1767323045.25", "s"),
            ("\"1767323045\"", "s"),
            ("1767323045000", "ms"),
            ("\"1767323045000\"", "ms"),
            ("1767323045000000", "us"),
            ("1767323045000000000", "ns"),
        ] {
            assert_eq!(keys(json), Some(format!("unit = \"{unit}\"")), "{json}");
        }
        for json in ["0", "60000", "-1767323045", "17", "true", "null", "\"\"", "\"soon\"", "\"2026\"", "[]"]
        {
            assert_eq!(keys(json), None, "{json}");
        }
    }

    #[test]
    fn texts_are_read_as_iso_with_a_zone_where_they_have_none() {
        for (json, expected) in [
            ("\"2026-01-02T03:04:05Z\"", ""),
            ("\"2026-01-02T03:04:05.123+01:00\"", ""),
            ("\"2026-01-02T03:04:05.000+0000\"", ""),
            ("\"2026-01-02T03:04:05\"", "zone = \"UTC\""),
            ("\"2026-01-02 03:04:05.25\"", "zone = \"UTC\""),
            ("\"Fri, 02 Jan 2026 03:04:05 GMT\"", "format = \"%a, %d %b %Y %H:%M:%S GMT\", zone = \"UTC\""),
            ("\"2026/01/02 03:04:05\"", "format = \"%Y/%m/%d %H:%M:%S\", zone = \"UTC\""),
        ] {
            assert_eq!(keys(json).as_deref(), Some(expected), "{json}");
        }
    }

    #[test]
    fn values_that_mean_no_time_are_known() {
        for json in ["null", "0", "-1", "\"\"", "\"0001-01-01T00:00:00Z\""] {
            assert!(is_unset(&Node::parse(json).unwrap()), "{json}");
        }
        assert!(!is_unset(&Node::parse("1767323045").unwrap()));
    }
}
