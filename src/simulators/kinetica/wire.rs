//! Kinetica's records, and the three encodings in which they travel.
//!
//! A record is one Avro value. Binary writes it as Avro does; JSON writes the same
//! value in the order of its schema, bytes as one code point each; snappy is binary
//! that the client compressed, and it is answered in binary.

use std::{collections::HashMap, fmt, sync::LazyLock};

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

/// Endpoints, each with the fields of its request and of its response.
pub(super) const ENDPOINTS: [Endpoint; 6] = [
    Endpoint {
        path: "/get/job",
        name: "get_job",
        request: &[("job_id", "long"), ("options", MAP)],
        response: &[
            ("endpoint", "string"),
            ("job_status", "string"),
            ("running", "boolean"),
            ("progress", "int"),
            ("successful", "boolean"),
            ("response_encoding", "string"),
            ("job_response", "bytes"),
            ("job_response_str", "string"),
            ("status_map", MAP),
            ("info", MAP),
        ],
    },
    Endpoint {
        path: "/create/job",
        name: "create_job",
        request: &[
            ("endpoint", "string"),
            ("request_encoding", "string"),
            ("data", "bytes"),
            ("data_str", "string"),
            ("options", MAP),
        ],
        response: &[("job_id", "long"), ("info", MAP)],
    },
    Endpoint {
        path: "/admin/alter/jobs",
        name: "admin_alter_jobs",
        request: &[("job_ids", LONGS), ("action", "string"), ("options", MAP)],
        response: &[("job_ids", LONGS), ("action", "string"), ("status", STRINGS), ("info", MAP)],
    },
    Endpoint {
        path: "/admin/show/jobs",
        name: "admin_show_jobs",
        request: &[("options", MAP)],
        response: &[
            ("job_id", LONGS),
            ("status", STRINGS),
            ("endpoint_name", STRINGS),
            ("time_received", LONGS),
            ("auth_id", STRINGS),
            ("source_ip", STRINGS),
            ("query_text", STRINGS),
            ("user_data", STRINGS),
            ("flags", STRINGS),
            ("info", MAP),
        ],
    },
    Endpoint {
        path: "/show/system/status",
        name: "show_system_status",
        request: &[("options", MAP)],
        response: &[("status_map", MAP), ("info", MAP)],
    },
    Endpoint {
        path: "/show/system/properties",
        name: "show_system_properties",
        request: &[("options", MAP)],
        response: &[("property_map", MAP), ("info", MAP)],
    },
];

const MAP: &str = "map of string";
const LONGS: &str = "array of long";
const STRINGS: &str = "array of string";

type Fields = &'static [(&'static str, &'static str)];

/// One endpoint and its two records.
#[derive(Debug)]
pub(super) struct Endpoint {
    pub(super) path: &'static str,
    pub(super) name: &'static str,
    request: Fields,
    response: Fields,
}

const WRAPPER: Fields = &[
    ("status", "string"),
    ("message", "string"),
    ("data_type", "string"),
    ("data", "bytes"),
    ("data_str", "string"),
];

fn schema(name: &str, fields: Fields) -> Schema {
    let kind = |kind: &str| match kind.split_once(" of ") {
        Some(("map", values)) => serde_json::json!({ "type": "map", "values": values }),
        Some((_, items)) => serde_json::json!({ "type": "array", "items": items }),
        None => kind.into(),
    };
    let fields: Vec<_> =
        fields.iter().map(|(name, of)| serde_json::json!({ "name": name, "type": kind(of) })).collect();
    let record = serde_json::json!({ "type": "record", "name": name, "fields": fields });
    Schema::parse(&record).expect("the tables above name Avro's own types")
}

/// The schemas of [`ENDPOINTS`], in its order, and of the wrapper.
static SCHEMAS: LazyLock<(Vec<[Schema; 2]>, Schema)> = LazyLock::new(|| {
    let pair = |of: &Endpoint| [schema("request", of.request), schema("response", of.response)];
    (ENDPOINTS.iter().map(pair).collect(), schema("gpudb_response", WRAPPER))
});

fn schemas(endpoint: &Endpoint) -> &'static [Schema; 2] {
    let index = ENDPOINTS.iter().position(|other| other.path == endpoint.path);
    &SCHEMAS.0[index.expect("every endpoint is one of ENDPOINTS")]
}

/// How a request is encoded, and so its answer.
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

    /// The wrapper around a good answer.
    pub(super) fn answer(self, endpoint: &Endpoint, fields: Vec<(&'static str, Value)>) -> Response {
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

/// What a client sent.
#[derive(Debug)]
pub(super) struct Record(Value);

impl Record {
    fn field(&self, name: &str) -> Option<&Value> {
        let Value::Record(fields) = &self.0 else { return None };
        fields.iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    pub(super) fn long(&self, name: &str) -> Option<i64> {
        self.field(name).and_then(as_long)
    }

    pub(super) fn longs(&self, name: &str) -> Vec<i64> {
        match self.field(name) {
            Some(Value::Array(items)) => items.iter().filter_map(as_long).collect(),
            _ => Vec::new(),
        }
    }

    pub(super) fn text(&self, name: &str) -> &str {
        self.field(name).and_then(as_text).unwrap_or_default()
    }

    pub(super) fn bytes(&self, name: &str) -> &[u8] {
        match self.field(name) {
            Some(Value::Bytes(bytes)) => bytes,
            _ => &[],
        }
    }

    pub(super) fn option(&self, name: &str) -> Option<&str> {
        match self.field("options") {
            Some(Value::Map(options)) => options.get(name).and_then(as_text),
            _ => None,
        }
    }
}

fn as_long(value: &Value) -> Option<i64> {
    if let Value::Long(long) = value { Some(*long) } else { None }
}

fn as_text(value: &Value) -> Option<&str> {
    if let Value::String(text) = value { Some(text) } else { None }
}

/// A map of strings, as Kinetica likes them.
pub(super) fn map<const N: usize>(entries: [(&str, String); N]) -> Value {
    Value::Map(entries.into_iter().map(|(key, value)| (key.to_owned(), Value::String(value))).collect())
}

/// A list of anything.
pub(super) fn list<T>(items: impl IntoIterator<Item = T>, of: impl Fn(T) -> Value) -> Value {
    Value::Array(items.into_iter().map(of).collect())
}

fn to_avro(schema: &Schema, value: Value) -> Vec<u8> {
    let writer = GenericDatumWriter::builder(schema).build();
    let written = writer.and_then(|writer| writer.write_value_to_vec(value));
    written.expect("the answer has the fields of its schema")
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
            text.push_str(&format!("\\u{byte:04x}"));
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
