//! Times as vendors write them.

use jiff::{
    Timestamp,
    civil::DateTime,
    fmt::strtime,
    tz::{Offset, TimeZone},
};

use super::{
    definition::source,
    reader::{Log, Node},
    source::{Found, Names, Scope, Source},
};

/// Milliseconds before 1973: a smaller number has another unit.
const LEAST_MILLIS: i64 = 100_000_000_000;

/// What a time lacks that could be anywhere.
const NO_ZONE: &str = "names no zone; write zone = \"UTC\", or an offset such as zone = \"+02:00\"";

/// Where a time stands, and how it is written.
#[derive(Debug)]
pub(super) struct TimeRule {
    pub(super) at: Source,
    unit: Option<Unit>,
    zone: Option<Offset>,
    format: Option<String>,
    unset: Vec<String>,
}

pub(super) const UNITS: [(&str, Unit); 5] = [
    ("s", Unit::Seconds),
    ("ms", Unit::Millis),
    ("us", Unit::Micros),
    ("ns", Unit::Nanos),
    ("auto_ms", Unit::AutoMillis),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    Seconds,
    Millis,
    Micros,
    Nanos,
    /// Milliseconds or a text in ISO 8601; a number that would lie before 1973 is absent.
    AutoMillis,
}

impl TimeRule {
    /// A source, or a table with its unit, zone, format and the value that means none.
    pub(super) fn read(node: &Node<'_>, names: &Names<'_>, log: &Log<'_>) -> Option<Self> {
        if !node.is_table() {
            let at = source(node, names, log)?;
            return Some(Self { at, unit: None, zone: None, format: None, unset: Vec::new() });
        }
        let mut keys = node.section(log)?;
        let at = keys.required(log, "at", "where the time stands, such as at = \"job.started_at\"");
        let at = at.and_then(|node| source(&node, names, log));
        let unit = keys.get("unit").and_then(|node| node.word(log, &UNITS));
        let zone = keys.get("zone").and_then(|node| match offset(node.text(log)?) {
            Some(offset) => Some(offset),
            None => node.problem(log, "is no zone; write \"UTC\" or an offset such as \"+02:00\""),
        });
        let format = keys.get("format").and_then(|node| {
            let format = node.text(log)?;
            match strtime::format(format, &Timestamp::UNIX_EPOCH.to_zoned(TimeZone::UTC)) {
                Err(error) => node.problem(log, format!("is no format: {error}")),
                Ok(_) => Some(format.to_owned()),
            }
        });
        let unset = keys.get("unset").map(|node| node.list()).unwrap_or_default();
        let unset = unset.iter().filter_map(|node| {
            node.as_integer().map(|integer| integer.to_string()).or_else(|| node.text(log).map(str::to_owned))
        });
        let unset = unset.collect();
        keys.finish(log);
        Some(Self { at: at?, unit, zone, format, unset })
    }

    /// The time; none where it is absent, unset or not written so.
    pub(super) fn find(&self, scope: &Scope<'_>) -> Option<Timestamp> {
        let found = self.at.find(scope)?;
        let text = found.text()?;
        let text = text.trim();
        if self.is_unset(text) {
            return None;
        }
        match self.unit {
            Some(unit) => match of_number(text, unit) {
                Number::Time(time) => time,
                Number::None => self.of_text(text),
            },
            None => self.of_text(text),
        }
    }

    /// Whether a text means that there is no time.
    pub(super) fn is_unset(&self, text: &str) -> bool {
        text.is_empty() || self.unset.iter().any(|unset| unset == text)
    }

    /// Why a value is no time, if it is none. For people who may see the value.
    pub(super) fn why_none(&self, found: &Found<'_>) -> Option<String> {
        let Some(text) = found.text() else {
            return Some("is a list or an object, and a time is a text or a number".to_owned());
        };
        let text = text.trim();
        if text.is_empty() {
            return Some("is empty".to_owned());
        }
        if self.unset.iter().any(|unset| unset == text) {
            return Some("means none, by unset".to_owned());
        }
        let number = self.unit.map(|unit| of_number(text, unit));
        match (&self.format, number) {
            (_, Some(Number::Time(Some(_)))) => None,
            (_, Some(Number::Time(None))) if self.unit == Some(Unit::AutoMillis) => Some(
                "is before 1973 in milliseconds, which auto_ms reads as none; write unit = \"s\"?".to_owned(),
            ),
            (_, Some(Number::Time(None))) => {
                Some("is out of range in its unit; write another unit".to_owned())
            }
            _ if self.of_text(text).is_some() => None,
            (Some(format), _) => Some(match strtime::parse(format, text) {
                Err(error) => format!("does not fit the format {format:?}: {error}"),
                Ok(_) => NO_ZONE.to_owned(),
            }),
            (None, _) if text.parse::<f64>().is_ok() => {
                let unit = match text.split('.').next().unwrap_or_default().len() {
                    0..=11 => "s",
                    12..=14 => "ms",
                    15..=17 => "us",
                    _ => "ns",
                };
                Some(format!("has no unit; write unit = {unit:?}"))
            }
            (None, _) if text.parse::<DateTime>().is_ok() => Some(NO_ZONE.to_owned()),
            (None, _) => Some("is no time in ISO 8601; write its format".to_owned()),
        }
    }

    fn of_text(&self, text: &str) -> Option<Timestamp> {
        let in_zone = |time: DateTime| self.zone?.to_timestamp(time).ok();
        if let Some(format) = &self.format {
            let parsed = strtime::parse(format, text).ok()?;
            return parsed.to_timestamp().ok().or_else(|| in_zone(parsed.to_datetime().ok()?));
        }
        text.parse::<Timestamp>().ok().or_else(|| in_zone(text.parse().ok()?))
    }
}

enum Number {
    Time(Option<Timestamp>),
    /// It is no number.
    None,
}

fn of_number(text: &str, unit: Unit) -> Number {
    if let Ok(number) = text.parse::<i64>() {
        return Number::Time(match unit {
            Unit::Seconds => Timestamp::from_second(number).ok(),
            Unit::AutoMillis if number < LEAST_MILLIS => None,
            Unit::Millis | Unit::AutoMillis => Timestamp::from_millisecond(number).ok(),
            Unit::Micros => Timestamp::from_microsecond(number).ok(),
            Unit::Nanos => Timestamp::from_nanosecond(number.into()).ok(),
        });
    }
    let per_second = match unit {
        Unit::Seconds => 1.0,
        Unit::Millis => 1e3,
        Unit::Micros => 1e6,
        Unit::Nanos => 1e9,
        Unit::AutoMillis => return Number::None,
    };
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() => {
            let micros = number / per_second * 1e6;
            let within = micros.abs() < 1e17;
            #[expect(clippy::cast_possible_truncation, reason = "it lies within")]
            let micros = if within { Some(micros.round() as i64) } else { None };
            Number::Time(micros.and_then(|micros| Timestamp::from_microsecond(micros).ok()))
        }
        _ => Number::None,
    }
}

fn offset(text: &str) -> Option<Offset> {
    if text.eq_ignore_ascii_case("utc") || text == "Z" {
        return Some(Offset::UTC);
    }
    let (sign, rest) = match text.split_at_checked(1)? {
        ("+", rest) => (1, rest),
        ("-", rest) => (-1, rest),
        _ => return None,
    };
    let (hours, minutes) = rest.split_once(':')?;
    let (hours, minutes): (i32, i32) = (hours.parse().ok()?, minutes.parse().ok()?);
    Offset::from_seconds(sign * (hours * 3600 + minutes * 60)).ok().filter(|_| (0..60).contains(&minutes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, unit: Option<Unit>, zone: Option<&str>, format: Option<&str>) -> Option<String> {
        let names = Names { roots: &["job"], parts: &[], params: &[], variables: &[], secrets: &[] };
        let at = Source::parse("job.t", &names).unwrap();
        let zone = zone.map(|zone| offset(zone).unwrap());
        let rule =
            TimeRule { at, unit, zone, format: format.map(str::to_owned), unset: vec!["0".to_owned()] };
        let job = format!("{{\"t\": {text}}}");
        let job = crate::vendors::json::Value::parse(job.as_bytes()).unwrap();
        rule.find(&Scope { job: Some(job), ..Scope::default() }).map(|time| time.to_string())
    }

    #[test]
    fn time_is_read_in_its_unit() {
        for (text, unit, time) in [
            ("1700000000", Unit::Seconds, "2023-11-14T22:13:20Z"),
            ("1700000000.25", Unit::Seconds, "2023-11-14T22:13:20.25Z"),
            ("\"1700000000\"", Unit::Seconds, "2023-11-14T22:13:20Z"),
            ("1700000000123", Unit::Millis, "2023-11-14T22:13:20.123Z"),
            ("1700000000000001", Unit::Micros, "2023-11-14T22:13:20.000001Z"),
            ("1700000000000000001", Unit::Nanos, "2023-11-14T22:13:20.000000001Z"),
            ("\"1700000000123\"", Unit::AutoMillis, "2023-11-14T22:13:20.123Z"),
            ("\"2023-11-14T22:13:20Z\"", Unit::AutoMillis, "2023-11-14T22:13:20Z"),
        ] {
            assert_eq!(read(text, Some(unit), None, None).as_deref(), Some(time), "{text}");
        }
        for (text, unit) in [
            ("0", Unit::Millis),
            ("1700000000", Unit::AutoMillis),
            ("1e300", Unit::Seconds),
            ("\"soon\"", Unit::Seconds),
            ("9223372036854775807", Unit::Seconds),
        ] {
            assert_eq!(read(text, Some(unit), None, None), None, "{text}");
        }
    }

    #[test]
    fn text_without_a_zone_needs_one_from_the_definition() {
        assert_eq!(read("\"2026-01-02 03:04:05\"", None, None, None), None);
        assert_eq!(
            read("\"2026-01-02 03:04:05\"", None, Some("UTC"), None).as_deref(),
            Some("2026-01-02T03:04:05Z")
        );
        assert_eq!(
            read("\"2026-01-02T03:04:05\"", None, Some("+02:00"), None).as_deref(),
            Some("2026-01-02T01:04:05Z")
        );
        assert_eq!(
            read("\"2026-01-02 03:04:05+00:00\"", None, None, None).as_deref(),
            Some("2026-01-02T03:04:05Z")
        );
        assert_eq!(read("1700000000", None, None, None), None);
    }

    #[test]
    fn format_reads_what_iso_does_not() {
        let format = Some("%Y-%m-%dT%H:%M:%S.%fGMT");
        assert_eq!(
            read("\"2026-01-02T03:04:05.678GMT\"", None, Some("UTC"), format).as_deref(),
            Some("2026-01-02T03:04:05.678Z")
        );
        assert_eq!(
            read("\"2026-01-02T03:04:05+0000\"", None, None, Some("%Y-%m-%dT%H:%M:%S%z")).as_deref(),
            Some("2026-01-02T03:04:05Z")
        );
        assert_eq!(read("\"x\"", None, None, format), None);
    }
}
