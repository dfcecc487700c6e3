//! Kinetica's endpoints and the records that go to and fro.

use std::sync::LazyLock;

use apache_avro::{Schema, types::Value};

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
pub(super) const LONGS: &str = "array of long";
const STRINGS: &str = "array of string";

pub(super) type Fields = &'static [(&'static str, &'static str)];

/// One endpoint and its two records.
#[derive(Debug)]
pub(super) struct Endpoint {
    pub(super) path: &'static str,
    pub(super) name: &'static str,
    pub(super) request: Fields,
    pub(super) response: Fields,
}

pub(super) const WRAPPER: Fields = &[
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
pub(super) static SCHEMAS: LazyLock<(Vec<[Schema; 2]>, Schema)> = LazyLock::new(|| {
    let pair = |of: &Endpoint| [schema("request", of.request), schema("response", of.response)];
    (ENDPOINTS.iter().map(pair).collect(), schema("gpudb_response", WRAPPER))
});

pub(super) fn schemas(endpoint: &Endpoint) -> &'static [Schema; 2] {
    let index = ENDPOINTS.iter().position(|other| other.path == endpoint.path);
    &SCHEMAS.0[index.expect("every endpoint is one of ENDPOINTS")]
}

/// What a client sent.
#[derive(Debug)]
pub(super) struct Record(pub(super) Value);

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
