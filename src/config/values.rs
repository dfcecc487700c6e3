//! Single values: how they are read, shown and described in the schema.
//!
//! An error says what is wrong with the value and what to write instead. It begins
//! with a verb, because the key's path is put before it. A number, a flag and a list
//! may be written as text, since a variable of the environment holds nothing else.

use std::{borrow::Cow, fmt, marker::PhantomData, time::Duration};

use jiff::{
    SignedDuration,
    fmt::friendly::{SpanParser, SpanPrinter},
};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error, IntoDeserializer, MapAccess, Visitor, value::MapAccessDeserializer},
};
use toml::Value;

use super::schema::FORM;

/// Milliseconds, for the ranges of durations.
pub(super) const SECOND: u64 = 1000;
pub(super) const HOUR: u64 = 3600 * SECOND;
pub(super) const DAY: u64 = 24 * HOUR;

/// For the ranges of sizes.
pub(super) const KIB: u64 = 1 << 10;
pub(super) const MIB: u64 = 1 << 20;
pub(super) const GIB: u64 = 1 << 30;
pub(super) const TIB: u64 = 1 << 40;

/// A duration as configuration and command line write it: `250ms`, `1s`, `1m 30s`.
pub fn parse_duration(text: &str) -> Option<Duration> {
    SpanParser::new().parse_duration(text).ok()?.try_into().ok()
}

/// The same, written back.
pub(super) fn show_duration(duration: Duration) -> String {
    SignedDuration::try_from(duration)
        .map_or_else(|_| format!("{duration:?}"), |signed| SpanPrinter::new().duration_to_string(&signed))
}

/// Units of a size, the largest that divides a size evenly first.
const UNITS: [(&str, u64); 9] = [
    ("TiB", TIB),
    ("GiB", GIB),
    ("MiB", MIB),
    ("KiB", KIB),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1000),
    ("B", 1),
];

/// A size as the configuration writes it: `512 MiB`, `8MB`, `65536`.
fn parse_bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim_start();
    let factor = match unit {
        "" => 1,
        unit => UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit))?.1,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

/// The same, written back in binary units.
pub(super) fn show_bytes(bytes: u64) -> String {
    let binary = UNITS.iter().take(4).find(|(_, factor)| bytes >= *factor && bytes.is_multiple_of(*factor));
    let (name, factor) = binary.unwrap_or(&("B", 1));
    format!("{} {name}", bytes / factor)
}

/// A number from 0.0 to 1.0, for `#[serde(deserialize_with)]`.
pub(super) fn ratio<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    let value = Value::deserialize(deserializer)?;
    let number = match &value {
        Value::Float(number) => Some(*number),
        Value::Integer(0) => Some(0.0),
        Value::Integer(1) => Some(1.0),
        Value::String(text) => text.parse().ok(),
        _ => None,
    };
    number
        .filter(|number| (0.0..=1.0).contains(number))
        .ok_or_else(|| D::Error::custom(format!("is {value}; write a number from 0 to 1, such as 0.05")))
}

/// A whole number from `MIN` to `MAX`, for `#[serde(with)]`.
pub(super) struct Number<const MIN: u64, const MAX: u64>;

impl<const MIN: u64, const MAX: u64> Number<MIN, MAX> {
    pub(super) fn deserialize<'de, D: Deserializer<'de>, N: Deserialize<'de>>(
        deserializer: D,
    ) -> Result<N, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let number = match &value {
            Value::Integer(number) => u64::try_from(*number).ok(),
            Value::String(text) => text.parse().ok(),
            _ => None,
        };
        in_range(number, MIN, MAX)
            .ok_or_else(|| D::Error::custom(format!("is {value}; write a whole number from {MIN} to {MAX}")))
    }

    pub(super) fn serialize<S: Serializer>(
        number: &impl Serialize,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        number.serialize(serializer)
    }
}

impl<const MIN: u64, const MAX: u64> JsonSchema for Number<MIN, MAX> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("NumberFrom{MIN}To{MAX}").into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "integer", "minimum": MIN, "maximum": MAX })
    }
}

/// A number of bytes from `MIN` to `MAX`, with or without a unit, for `#[serde(with)]`.
pub(super) struct Bytes<const MIN: u64, const MAX: u64>;

impl<const MIN: u64, const MAX: u64> Bytes<MIN, MAX> {
    pub(super) fn deserialize<'de, D: Deserializer<'de>, N: Deserialize<'de>>(
        deserializer: D,
    ) -> Result<N, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let number = match &value {
            Value::Integer(number) => u64::try_from(*number).ok(),
            Value::String(text) => parse_bytes(text),
            _ => None,
        };
        in_range(number, MIN, MAX).ok_or_else(|| {
            let (min, max) = (show_bytes(MIN), show_bytes(MAX));
            D::Error::custom(format!(
                "is {value}; write a size from {min} to {max}, such as 65536, \"64 KiB\" or \"8 MB\""
            ))
        })
    }

    /// With the largest unit that divides it evenly.
    pub(super) fn serialize<S: Serializer>(bytes: &impl Serialize, serializer: S) -> Result<S::Ok, S::Error> {
        let number = serde_json::to_value(bytes).ok().and_then(|number| number.as_u64());
        number.map(show_bytes).serialize(serializer)
    }
}

impl<const MIN: u64, const MAX: u64> JsonSchema for Bytes<MIN, MAX> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("BytesFrom{MIN}To{MAX}").into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let form = format!(
            "A size from {} to {}: a number of bytes, or a text such as \"64 KiB\" or \"8 MB\".",
            show_bytes(MIN),
            show_bytes(MAX)
        );
        json_schema!({
            "anyOf": [
                { "type": "integer", "minimum": MIN, "maximum": MAX },
                { "type": "string", "pattern": "^ *[0-9]+ *([KMGTkmgt][Ii]?)?[Bb] *$|^ *[0-9]+ *$" },
            ],
            FORM: form,
        })
    }
}

fn in_range<'de, N: Deserialize<'de>>(number: Option<u64>, min: u64, max: u64) -> Option<N> {
    let number = number.filter(|number| (min..=max).contains(number))?;
    let deserializer: serde::de::value::U64Deserializer<serde::de::value::Error> = number.into_deserializer();
    N::deserialize(deserializer).ok()
}

/// A duration from `MIN` to `MAX` milliseconds, for `#[serde(with)]`.
pub(super) struct Milliseconds<const MIN: u64, const MAX: u64>;

impl<const MIN: u64, const MAX: u64> Milliseconds<MIN, MAX> {
    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let (min, max) = (Duration::from_millis(MIN), Duration::from_millis(MAX));
        let text = match value.as_str().and_then(parse_duration) {
            Some(duration) if (min..=max).contains(&duration) => return Ok(duration),
            Some(_) => {
                format!("is {value}; write a duration from {} to {}", show_duration(min), show_duration(max))
            }
            None => format!("is {value}; write a duration such as \"250ms\", \"1s\" or \"1m 30s\""),
        };
        Err(D::Error::custom(text))
    }

    pub(super) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        show_duration(*duration).serialize(serializer)
    }
}

impl<const MIN: u64, const MAX: u64> JsonSchema for Milliseconds<MIN, MAX> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("MillisecondsFrom{MIN}To{MAX}").into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let [min, max] = [MIN, MAX].map(|millis| show_duration(Duration::from_millis(millis)));
        json_schema!({
            "type": "string",
            // What the parser takes, but for its rarer forms.
            "pattern": "^ *[0-9]+([.][0-9]+)? *[a-z]+([, ]*[0-9]+([.][0-9]+)? *[a-z]+)* *$",
            FORM: format!("A duration from {min} to {max}, such as \"250ms\", \"1s\" or \"1m 30s\"."),
        })
    }
}

/// A table, not a list: derived code takes a list for the fields in their order.
pub(super) fn table<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    struct Map<T>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>> Visitor<'de> for Map<T> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a table")
        }

        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
            T::deserialize(MapAccessDeserializer::new(map))
        }
    }

    deserializer.deserialize_map(Map(PhantomData))
}

/// The same for a table that may be missing.
pub(super) fn optional_table<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    table(deserializer).map(Some)
}

/// The one of `known` that `name` was probably meant to be.
pub(super) fn closest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let lower = name.to_lowercase().replace('-', "_");
    known
        .iter()
        .map(|candidate| (strsim::jaro_winkler(&lower, candidate), *candidate))
        .filter(|(similarity, _)| *similarity > 0.8)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn size_with_unit_is_read_in_bytes() {
        for (text, expected) in [
            ("0", Some(0)),
            ("65536", Some(65536)),
            ("512 MiB", Some(512 << 20)),
            ("64KiB", Some(64 << 10)),
            ("8MB", Some(8_000_000)),
            (" 1 tib ", Some(1 << 40)),
            ("3 B", Some(3)),
            ("1.5 GiB", None),
            ("-1", None),
            ("MiB", None),
            ("", None),
            ("1 MiB/s", None),
            ("99999999999 TiB", None),
        ] {
            assert_eq!(parse_bytes(text), expected, "{text:?}");
        }
    }

    #[test]
    fn size_is_shown_in_the_largest_even_unit() {
        for (bytes, expected) in
            [(0, "0 B"), (1000, "1000 B"), (1024, "1 KiB"), (1536 << 10, "1536 KiB"), (1 << 30, "1 GiB")]
        {
            assert_eq!(show_bytes(bytes), expected);
            assert_eq!(parse_bytes(expected), Some(bytes));
        }
    }
}
