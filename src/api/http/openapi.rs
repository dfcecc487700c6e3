//! The OpenAPI document of the HTTP interface, made from the descriptors of the contract: its
//! messages and their comments.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::LazyLock,
};

use bytes::Bytes;
use prost_reflect::{EnumDescriptor, FieldDescriptor, FileDescriptor, Kind, MessageDescriptor};
use serde_json::{Value, json};

use crate::proto::json::pool;

/// Messages that the paths use; the others are those that these hold.
const ROOTS: [&str; 5] = [
    "jobwatch.v1.GetJobStatusResponse",
    "jobwatch.v1.BatchGetStatusesRequest",
    "jobwatch.v1.BatchGetStatusesResponse",
    "jobwatch.v1.WatchJobResponse",
    "google.rpc.Status",
];

static DOCUMENT: LazyLock<Bytes> = LazyLock::new(|| {
    let text = serde_json::to_string_pretty(&build()).unwrap_or_default();
    Bytes::from(text + "\n")
});

/// The document.
pub(super) fn document() -> Bytes {
    DOCUMENT.clone()
}

fn build() -> Value {
    let mut schemas = Schemas::default();
    for name in ROOTS {
        if let Some(message) = pool().get_message_by_name(name) {
            schemas.add(&message);
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "jobwatch",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": "The status of asynchronous jobs, over HTTP.",
            "description": "The same calls as jobwatch.v1.JobStatusService, in canonical proto3 JSON.",
            "license": { "name": "Apache License 2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": "/" }],
        "security": [{}, { "bearer": [] }],
        "tags": [{ "name": "jobs", "description": "Jobs of the configured backends." }],
        "paths": paths(&schemas.comments),
        "components": {
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "Where the server has `access` configured.",
                },
            },
            "parameters": parameters(),
            "responses": {
                "Failure": {
                    "description": "The call failed. The HTTP status stands for the code in the body. Retry-After \
                                    says when to call again, where that can help.",
                    "headers": {
                        "Retry-After": { "description": "Seconds.", "schema": { "type": "integer" } },
                    },
                    "content": { "application/json": { "schema": reference("google.rpc.Status") } },
                },
            },
            "schemas": schemas.found,
        },
    })
}

fn paths(comments: &Comments) -> Value {
    let method = |name: &str| comments.of(&format!("jobwatch.v1.JobStatusService.{name}"));
    let content = |name: &str| json!({ "application/json": { "schema": reference(name) } });
    let parameters = |names: &[&str]| -> Value {
        names.iter().map(|name| json!({ "$ref": format!("#/components/parameters/{name}") })).collect()
    };
    let failure = json!({ "$ref": "#/components/responses/Failure" });
    json!({
        "/v1/backends/{backend}/jobs/{job_id}": {
            "get": {
                "operationId": "getJobStatus",
                "tags": ["jobs"],
                "summary": "The status of one job",
                "description": method("GetJobStatus"),
                "parameters": parameters(&["backend", "job_id", "job_tag", "view", "max_age", "wait"]),
                "responses": {
                    "200": { "description": "The status.", "content": content("jobwatch.v1.GetJobStatusResponse") },
                    "4XX": failure,
                    "5XX": failure,
                },
            },
        },
        "/v1/jobs:batchGet": {
            "post": {
                "operationId": "batchGetStatuses",
                "tags": ["jobs"],
                "summary": "The statuses of many jobs",
                "description": method("BatchGetStatuses"),
                "requestBody": { "required": true, "content": content("jobwatch.v1.BatchGetStatusesRequest") },
                "responses": {
                    "200": {
                        "description": "One element for each job.",
                        "content": content("jobwatch.v1.BatchGetStatusesResponse"),
                    },
                    "4XX": failure,
                    "5XX": failure,
                },
            },
        },
        "/v1/backends/{backend}/jobs/{job_id}/events": {
            "get": {
                "operationId": "watchJob",
                "tags": ["jobs"],
                "summary": "The events of one job",
                "description": format!(
                    "{}\n\nServer-sent events. `status`, `heartbeat` and `interruption` have a \
                     jobwatch.v1.WatchJobResponse as their data, `failure` a google.rpc.Status. The id of an event \
                     is its resume token. After a `status` that is terminal the stream ends; a client that \
                     connects again with the id of that event, or of a `failure` that has one, receives 204.",
                    method("WatchJob")
                ),
                "parameters": parameters(&[
                    "backend", "job_id", "job_tag", "view", "resume_token", "last_event_id", "poll_interval",
                    "heartbeat_interval", "state_changes_only",
                ]),
                "responses": {
                    "200": {
                        "description": "The events.",
                        "content": { "text/event-stream": { "schema": { "type": "string" } } },
                    },
                    "204": { "description": "Last-Event-ID or resume_token is the id of the last event." },
                    "4XX": failure,
                    "5XX": failure,
                },
            },
        },
        "/openapi.json": {
            "get": {
                "operationId": "getOpenApi",
                "tags": ["jobs"],
                "summary": "This document",
                "security": [{}],
                "responses": {
                    "200": {
                        "description": "This document.",
                        "content": { "application/json": { "schema": { "type": "object" } } },
                    },
                    "4XX": failure,
                },
            },
        },
    })
}

/// Each parameter of a path, the fields of the requests that it stands for.
fn parameters() -> Value {
    let comments = Comments::default();
    let field = |message: &str, name: &str, is_in: &str| {
        let message = pool().get_message_by_name(&format!("jobwatch.v1.{message}"));
        let field = message.and_then(|message| message.get_field_by_name(name));
        let schema = field.as_ref().map_or_else(|| json!({}), schema_of_field);
        let description = field.map(|field| description(&comments, &field)).unwrap_or_default();
        let mut parameter =
            json!({ "name": name, "in": is_in, "description": description, "schema": schema });
        if is_in == "path" {
            parameter["required"] = true.into();
        }
        parameter
    };
    let mut view = field("GetJobStatusRequest", "view", "query");
    view["schema"] =
        json!({ "type": "string", "enum": ["BASIC", "STANDARD", "FULL"], "default": "STANDARD" });
    json!({
        "backend": field("JobRef", "backend", "path"),
        "job_id": field("JobRef", "job_id", "path"),
        "job_tag": field("JobRef", "job_tag", "query"),
        "view": view,
        "max_age": field("GetJobStatusRequest", "max_age", "query"),
        "wait": field("GetJobStatusRequest", "wait", "query"),
        "resume_token": field("WatchJobRequest", "resume_token", "query"),
        "poll_interval": field("WatchJobRequest", "poll_interval", "query"),
        "heartbeat_interval": field("WatchJobRequest", "heartbeat_interval", "query"),
        "state_changes_only": field("WatchJobRequest", "state_changes_only", "query"),
        "last_event_id": {
            "name": "Last-Event-ID",
            "in": "header",
            "description": "The id of the last event received, which browsers send by themselves; in place of \
                            resume_token.",
            "schema": { "type": "string" },
        },
    })
}

/// What the contract says of a field, and its limit over HTTP.
fn description(comments: &Comments, field: &FieldDescriptor) -> String {
    let mut description = comments.of(field.full_name());
    if matches!(field.name(), "wait" | "heartbeat_interval") {
        description.push_str("\n\nOver HTTP, at most 600 seconds (`600s`).");
    }
    description
}

fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

/// The schemas of messages and enums.
#[derive(Default)]
struct Schemas {
    found: BTreeMap<String, Value>,
    seen: BTreeSet<String>,
    comments: Comments,
}

impl Schemas {
    /// Adds a message and all that it holds.
    fn add(&mut self, message: &MessageDescriptor) {
        if well_known(message.full_name()).is_some() || !self.seen.insert(message.full_name().to_owned()) {
            return;
        }
        let mut properties = serde_json::Map::new();
        for field in message.fields() {
            let mut schema = schema_of_field(&field);
            let description = description(&self.comments, &field);
            if !description.is_empty() {
                schema["description"] = description.into();
            }
            properties.insert(field.json_name().to_owned(), schema);
            match field.kind() {
                Kind::Message(held) if held.is_map_entry() => {}
                Kind::Message(held) => self.add(&held),
                Kind::Enum(list) => self.add_enum(&list),
                _ => {}
            }
        }
        let schema = json!({
            "type": "object",
            "description": self.comments.of(message.full_name()),
            "properties": properties,
        });
        self.found.insert(message.full_name().to_owned(), schema);
    }

    fn add_enum(&mut self, list: &EnumDescriptor) {
        let names: Vec<String> = list.values().map(|value| value.name().to_owned()).collect();
        let value = |name: &String| {
            let scope = list.full_name().strip_suffix(list.name()).unwrap_or_default();
            let comment = self.comments.of(&format!("{scope}{name}"));
            format!("- `{name}`: {comment}")
        };
        let values: Vec<String> = names.iter().map(value).collect();
        let description = format!("{}\n\n{}", self.comments.of(list.full_name()), values.join("\n"));
        let schema = json!({ "type": "string", "enum": names, "description": description });
        self.found.insert(list.full_name().to_owned(), schema);
    }
}

fn schema_of_field(field: &FieldDescriptor) -> Value {
    if field.is_map() {
        return match field.kind() {
            Kind::Message(entry) => {
                json!({ "type": "object", "additionalProperties": schema_of(&entry.map_entry_value_field().kind()) })
            }
            _ => json!({ "type": "object" }),
        };
    }
    let schema = schema_of(&field.kind());
    if field.is_list() { json!({ "type": "array", "items": schema }) } else { schema }
}

/// The schema of a value in canonical JSON.
fn schema_of(kind: &Kind) -> Value {
    match kind {
        Kind::Double => json!({ "type": "number", "format": "double" }),
        Kind::Float => json!({ "type": "number", "format": "float" }),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => json!({ "type": "integer", "format": "int32" }),
        Kind::Uint32 | Kind::Fixed32 => json!({ "type": "integer", "format": "uint32", "minimum": 0 }),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => json!({ "type": "string", "format": "int64" }),
        Kind::Uint64 | Kind::Fixed64 => json!({ "type": "string", "format": "uint64" }),
        Kind::Bool => json!({ "type": "boolean" }),
        Kind::String => json!({ "type": "string" }),
        Kind::Bytes => json!({ "type": "string", "contentEncoding": "base64" }),
        Kind::Message(message) => {
            well_known(message.full_name()).unwrap_or_else(|| reference(message.full_name()))
        }
        Kind::Enum(list) => reference(list.full_name()),
    }
}

/// The schema of a message that has a form of its own in JSON.
fn well_known(name: &str) -> Option<Value> {
    Some(match name {
        "google.protobuf.Timestamp" => json!({ "type": "string", "format": "date-time" }),
        "google.protobuf.Duration" => {
            json!({ "type": "string", "pattern": r"^-?[0-9]+(\.[0-9]{1,9})?s$", "examples": ["30s", "1.5s"] })
        }
        "google.protobuf.Any" => json!({
            "type": "object",
            "properties": { "@type": { "type": "string" } },
            "required": ["@type"],
            "additionalProperties": true,
        }),
        _ => return None,
    })
}

/// The comments of the contract, by the full names of what they are about.
struct Comments(BTreeMap<String, String>);

impl Comments {
    fn of(&self, name: &str) -> String {
        self.0.get(name).cloned().unwrap_or_default()
    }
}

impl Default for Comments {
    fn default() -> Self {
        let mut comments = BTreeMap::new();
        for file in pool().files().filter(|file| file.package_name() == "jobwatch.v1") {
            read_comments(&file, &mut comments);
        }
        Self(comments)
    }
}

/// Collects the comments of a file.
fn read_comments(file: &FileDescriptor, into: &mut BTreeMap<String, String>) {
    let locations = file.file_descriptor_proto().source_code_info.iter().flat_map(|info| &info.location);
    let by_path: BTreeMap<&[i32], &str> = locations
        .filter_map(|location| Some((&*location.path, location.leading_comments.as_deref()?)))
        .collect();
    let mut add = |path: &[i32], name: &str| {
        if let Some(text) = by_path.get(path) {
            let lines: Vec<&str> = text.lines().map(str::trim).collect();
            into.insert(
                name.to_owned(),
                lines.join("\n").trim().replace("\n\n", "\0").replace('\n', " ").replace('\0', "\n\n"),
            );
        }
    };
    for message in file.messages() {
        add(message.path(), message.full_name());
        for field in message.fields() {
            add(field.path(), field.full_name());
        }
    }
    for list in file.enums() {
        add(list.path(), list.full_name());
        for value in list.values() {
            add(value.path(), value.full_name());
        }
    }
    for service in file.services() {
        for method in service.methods() {
            add(method.path(), method.full_name());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn document_has_every_field_with_its_comment() {
        let document = build();
        let schemas = document["components"]["schemas"].as_object().unwrap();
        for name in ["JobStatus", "JobState", "JobStatusResult", "Heartbeat", "CallError", "JobStatusView"] {
            let description = schemas[&format!("jobwatch.v1.{name}")]["description"].as_str().unwrap();
            assert!(!description.is_empty(), "{name}");
        }
        let status = &schemas["jobwatch.v1.JobStatus"]["properties"];
        assert_eq!(status["vendorPayloadSizeBytes"]["type"], "string", "64 bits are text in JSON");
        assert_eq!(status["observeTime"]["format"], "date-time");
        let words = "The vendor's word for the state, verbatim: \"DELIVERED\", \"in_progress\", ...";
        assert_eq!(status["vendorState"]["description"], words);
        assert_eq!(
            schemas["jobwatch.v1.CallError"]["properties"]["metadata"]["additionalProperties"]["type"],
            "string"
        );
        let words = schemas["jobwatch.v1.JobState"]["description"].as_str().unwrap();
        assert!(words.contains("`JOB_STATE_PENDING`: Accepted, not started."), "{words}");
        let parameters = document["components"]["parameters"].as_object().unwrap();
        assert!(parameters.values().all(|parameter| parameter["description"].as_str().unwrap().len() > 10));
    }

    #[test]
    fn every_reference_leads_somewhere() {
        fn check(value: &Value, document: &Value) {
            match value {
                Value::Object(fields) => {
                    if let Some(Value::String(target)) = fields.get("$ref") {
                        let pointer = target.strip_prefix('#').unwrap();
                        assert!(document.pointer(pointer).is_some(), "{target}");
                    }
                    fields.values().for_each(|field| check(field, document));
                }
                Value::Array(items) => items.iter().for_each(|item| check(item, document)),
                _ => {}
            }
        }
        let document = build();
        check(&document, &document);
    }
}
