//! The three encodings in which Kinetica's records travel.
//!
//! A record is one Avro value. Binary writes it as Avro does; JSON writes the same
//! value in the order of its schema, bytes as one code point each; snappy is binary
//! that the client compressed, and the response is binary.

use std::{
    collections::HashMap,
    fmt::{self, Write},
};

use apache_avro::{
    Schema, reader::datum::GenericDatumReader, types::Value, writer::datum::GenericDatumWriter,
};
use axum::{
    body::Body,
    http::{HeaderMap, StatusCode, header},
    response::Response,
};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{MapAccess, Visitor},
    ser::{Error, SerializeMap},
};
use serde_json::value::RawValue;

use super::records::{Endpoint, LONGS, Record, SCHEMAS, WRAPPER, list, schemas};

/// How a request is encoded, and so its response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    Json,
    Binary,
    Snappy,
}

impl Encoding {
    /// By the Content-Type alone: not every client sends Accept.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let kind = headers.get(header::CONTENT_TYPE)?.to_str().ok()?.to_ascii_lowercase();
        match kind.split(';').next()?.trim() {
            "application/json" => Some(Self::Json),
            "application/octet-stream" => Some(Self::Binary),
            "application/x-snappy" => Some(Self::Snappy),
            _ => None,
        }
    }

    /// The request's record, or why it is none.
    pub(super) fn read(self, endpoint: &Endpoint, body: &[u8]) -> Result<Record, String> {
        let value = match self {
            Self::Json => from_json(endpoint, body)?,
            Self::Binary => from_avro(endpoint, body)?,
            Self::Snappy => {
                let plain = snap::raw::Decoder::new().decompress_vec(body);
                from_avro(endpoint, &plain.map_err(|error| format!("Error decompressing: {error}"))?)?
            }
        };
        Ok(Record(value))
    }

    /// The wrapper around a good response.
    pub(super) fn response(self, endpoint: &Endpoint, fields: Vec<(&'static str, Value)>) -> Response {
        let fields = fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let record = Value::Record(fields);
        let (data, data_str) = match self {
            Self::Json => (Vec::new(), serde_json::to_string(&InOrder(&record)).unwrap_or_default()),
            Self::Binary | Self::Snappy => (to_avro(&schemas(endpoint)[1], record), String::new()),
        };
        let kind = format!("{}_response", endpoint.name);
        self.wrap(StatusCode::OK, "OK", "", &kind, data, data_str)
    }

    /// The wrapper around an error: HTTP 400 whatever the reason.
    pub(super) fn error(self, message: &str) -> Response {
        self.wrap(StatusCode::BAD_REQUEST, "ERROR", message, "none", Vec::new(), String::new())
    }

    fn wrap(
        self,
        code: StatusCode,
        status: &str,
        message: &str,
        data_type: &str,
        data: Vec<u8>,
        data_str: String,
    ) -> Response {
        let texts = [status.to_owned(), message.to_owned(), data_type.to_owned()].map(Value::String);
        let values = texts.into_iter().chain([Value::Bytes(data), Value::String(data_str)]);
        let wrapper = Value::Record(WRAPPER.iter().map(|(name, _)| (*name).to_owned()).zip(values).collect());
        let (kind, body) = match self {
            Self::Json => ("application/json", serde_json::to_vec(&InOrder(&wrapper)).unwrap_or_default()),
            Self::Binary | Self::Snappy => ("application/octet-stream", to_avro(&SCHEMAS.1, wrapper)),
        };
        Response::builder()
            .status(code)
            .header(header::CONTENT_TYPE, kind)
            .header("x-request-time-secs", "0.00042")
            .header(header::ACCESS_CONTROL_ALLOW_ORIGIN, "*")
            .body(Body::from(body))
            .expect("the headers above are all legal")
    }
}

fn to_avro(schema: &Schema, value: Value) -> Vec<u8> {
    let writer = GenericDatumWriter::builder(schema).build();
    let written = writer.and_then(|writer| writer.write_value_to_vec(value));
    written.expect("the response has the fields of its schema")
}

fn from_avro(endpoint: &Endpoint, mut body: &[u8]) -> Result<Value, String> {
    let reader = GenericDatumReader::builder(&schemas(endpoint)[0]).build();
    let value = reader.and_then(|reader| reader.read_value(&mut body));
    value.map_err(|error| format!("Error decoding Avro: {error}"))
}

/// Reads the fields as a server does that wants them all, and in order.
fn from_json(endpoint: &Endpoint, body: &[u8]) -> Result<Value, String> {
    let bad = |error| format!("Error decoding JSON: {error}");
    let Ordered(given) = serde_json::from_slice(body).map_err(bad)?;
    let mut given = given.into_iter();
    let mut fields = Vec::new();
    for (name, kind) in endpoint.request {
        let value = given.next().filter(|(key, _)| key == name).map(|(_, value)| value);
        let value = value.ok_or_else(|| format!("Error decoding JSON: expected field {name}"))?;
        let text = value.get();
        let value = match *kind {
            "long" => serde_json::from_str(text).map(Value::Long),
            "string" => serde_json::from_str(text).map(Value::String),
            "bytes" => serde_json::from_str(text).map(|text: String| Value::Bytes(one_byte_each(&text))),
            LONGS => serde_json::from_str(text).map(|longs: Vec<i64>| list(longs, Value::Long)),
            _ => serde_json::from_str(text).map(|map: HashMap<String, String>| {
                Value::Map(map.into_iter().map(|(key, value)| (key, Value::String(value))).collect())
            }),
        };
        fields.push(((*name).to_owned(), value.map_err(|error| format!("Error decoding {name}: {error}"))?));
    }
    Ok(Value::Record(fields))
}

fn one_byte_each(text: &str) -> Vec<u8> {
    text.chars().map(|code_point| u8::try_from(code_point).unwrap_or(b'?')).collect()
}

/// A JSON object as it came.
struct Ordered(Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Ordered {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Ordered;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Ordered, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Ordered(entries))
            }
        }
        from.deserialize_map(Entries)
    }
}

/// A JSON string of one code point a byte, in ASCII: its own Python client reads
/// the body as Latin-1 and so gets every byte right.
fn escaped(bytes: &[u8]) -> serde_json::Result<Box<RawValue>> {
    let plain = |byte: u8| (byte.is_ascii_graphic() || byte == b' ') && !b"\"\\".contains(&byte);
    let mut text = String::from('"');
    for byte in bytes {
        if plain(*byte) {
            text.push(char::from(*byte));
        } else {
            // A String takes everything.
            let _ = write!(text, "\\u{byte:04x}");
        }
    }
    text.push('"');
    RawValue::from_string(text)
}

/// Writes a record's fields in its order, and bytes as one code point each.
struct InOrder<'a>(&'a Value);

impl Serialize for InOrder<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Boolean(value) => to.serialize_bool(*value),
            Value::Int(value) => to.serialize_i32(*value),
            Value::Long(value) => to.serialize_i64(*value),
            Value::String(value) => to.serialize_str(value),
            Value::Bytes(bytes) => escaped(bytes).map_err(S::Error::custom)?.serialize(to),
            Value::Array(items) => to.collect_seq(items.iter().map(InOrder)),
            Value::Map(map) => {
                let mut entries: Vec<_> = map.iter().collect();
                entries.sort_by_key(|(key, _)| *key);
                to.collect_map(entries.into_iter().map(|(key, value)| (key, InOrder(value))))
            }
            Value::Record(fields) => {
                let mut map = to.serialize_map(Some(fields.len()))?;
                for (name, value) in fields {
                    map.serialize_entry(name, &InOrder(value))?;
                }
                map.end()
            }
            _ => Err(S::Error::custom("no record has a field of this type")),
        }
    }
}
