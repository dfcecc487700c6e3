//! The tables and keys of a file: how serde reads them, and their schema.

use std::{collections::BTreeMap, fmt, path::PathBuf, time::Duration};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, Visitor, value::MapAccessDeserializer},
};
use serde_json::{Map, Value as Json, json};
use toml::{Table, Value};

use super::{
    Access, Admin, Limits, Log, Poll, Protocol, Server,
    cluster_keys::{self, ClusterKeys},
    problems::{BEARER, example},
    schema::{self, properties, required_of, strip_null},
    values::{self, Milliseconds, SECOND},
};
use crate::vendors::{
    self, BaseUrl, KINDS, VendorKind,
    declared::{SHIPPED, Shipped},
};

/// The configuration of a jobwatch gateway.
#[derive(Deserialize, Default, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(title = "jobwatch", extend("required" = ["backends"]))]
pub(super) struct Keys {
    /// Whether this file may hold secrets.
    #[serde(deserialize_with = "vendors::flag")]
    pub(super) allow_inline_secrets: bool,
    /// The gRPC server.
    #[serde(deserialize_with = "values::table")]
    pub(super) server: Server,
    /// The HTTP server for operators: probes, metrics, log level.
    #[serde(deserialize_with = "values::table")]
    pub(super) admin: Admin,
    /// The log, on standard error.
    #[serde(deserialize_with = "values::table")]
    pub(super) log: Log,
    /// The export of traces by OTLP. Variables of OpenTelemetry come first.
    #[serde(deserialize_with = "values::table")]
    pub(super) traces: TracesKeys,
    /// Who may call, and what each caller may do. Without it everybody may do everything.
    #[serde(deserialize_with = "values::table")]
    pub(super) access: Access,
    /// The most that callers may use, and the most that the gateway holds for them.
    #[serde(deserialize_with = "values::table")]
    pub(super) limits: Limits,
    /// Replicas that share the work over NATS. Without it each replica works by itself.
    #[serde(deserialize_with = "cluster_keys::table")]
    pub(super) cluster: Option<ClusterKeys>,
    /// The backends by their names, which callers write in JobRef.backend. A backend is one
    /// deployment of a vendor.
    #[serde(deserialize_with = "values::table")]
    #[schemars(schema_with = "backends")]
    pub(super) backends: BTreeMap<String, BackendTable>,
}

#[derive(Deserialize)]
pub(super) struct BackendTable(#[serde(deserialize_with = "values::table")] pub(super) BackendKeys);

/// The keys of `[traces]`.
#[derive(Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Traces", description = "The export of traces by OTLP.")]
pub(super) struct TracesKeys {
    /// URL of the collector; traces are off without it. Without a path it is /v1/traces.
    pub(super) endpoint: Option<String>,
    /// What the collector speaks.
    pub(super) protocol: Protocol,
    /// Headers of each request.
    #[schemars(schema_with = "schema::headers")]
    pub(super) headers: Option<Table>,
    /// PEM file of authorities that are trusted besides the system's.
    pub(super) ca: Option<PathBuf>,
    /// Longest wait for a response of the collector.
    #[serde(with = "Milliseconds::<1, { 60 * SECOND }>")]
    pub(super) timeout: Duration,
    /// Share of the traces without a caller's decision that are sampled.
    #[serde(deserialize_with = "values::ratio")]
    #[schemars(range(min = 0, max = 1))]
    pub(super) sample_ratio: f64,
    /// Whether a caller's traceparent decides whether its call is sampled.
    #[serde(deserialize_with = "vendors::flag")]
    pub(super) parent_based: bool,
    /// Whether vendors are sent traceparent.
    #[serde(deserialize_with = "vendors::flag")]
    pub(super) propagate: bool,
    /// The service.name of the traces; "jobwatch" unless set.
    pub(super) service_name: Option<String>,
    /// Further attributes of the process.
    pub(super) attributes: BTreeMap<String, String>,
}

impl Default for TracesKeys {
    fn default() -> Self {
        Self {
            endpoint: None,
            protocol: Protocol::default(),
            headers: None,
            ca: None,
            timeout: Duration::from_secs(10),
            sample_ratio: 1.0,
            parent_based: true,
            propagate: false,
            service_name: None,
            attributes: BTreeMap::new(),
        }
    }
}

/// The keys of a backend.
#[derive(Deserialize, Default, JsonSchema)]
#[serde(default)]
pub(super) struct BackendKeys {
    #[serde(deserialize_with = "vendor")]
    #[schemars(skip)]
    pub(super) vendor: Option<VendorKey>,
    /// The URL below which the vendor's API is.
    pub(super) base_url: Option<BaseUrl>,
    #[schemars(skip)]
    pub(super) credentials: Option<CredentialKeys>,
    /// How the backend is polled.
    #[serde(deserialize_with = "values::table")]
    pub(super) poll: Poll,
    /// URL of an HTTP proxy in place of the environment's, such as
    /// "http://user@proxy.example:3128"; "none" for none.
    pub(super) proxy: Option<String>,
    /// Password of the user in proxy.
    #[schemars(schema_with = "schema::secret")]
    pub(super) proxy_password: Option<Value>,
    /// PEM file of authorities that are trusted besides the system's.
    pub(super) ca: Option<PathBuf>,
    /// Headers of every request.
    #[schemars(schema_with = "schema::headers")]
    pub(super) headers: Option<Table>,
    /// All others, which have to be the vendor's own.
    #[serde(flatten)]
    #[schemars(skip)]
    pub(super) own: Table,
}

/// The value of `vendor`.
#[derive(Clone, Copy)]
pub(super) enum VendorKey {
    BuiltIn(&'static VendorKind),
    Shipped(&'static Shipped),
}

/// The value of `credentials`.
pub(super) enum CredentialKeys {
    /// The word `none`.
    None,
    /// Another word, which may be a secret.
    OtherWord,
    /// A table.
    Table(Table),
}

fn vendor<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<VendorKey>, D::Error> {
    let value = Value::deserialize(deserializer)?;
    let name = value.as_str().unwrap_or_default();
    if let Some(kind) = VendorKind::of(name) {
        return Ok(Some(VendorKey::BuiltIn(kind)));
    }
    if let Some(shipped) = Shipped::find(name) {
        return Ok(Some(VendorKey::Shipped(shipped)));
    }
    let shipped = SHIPPED.iter().map(|shipped| shipped.name);
    let known: Vec<&str> = KINDS.iter().map(|kind| kind.key).chain(shipped).collect();
    Err(D::Error::custom(match values::closest(name, &known) {
        Some(close) => format!("is {value}; did you mean {close}?"),
        None => format!("is {value}; write {}", example("vendor")),
    }))
}

impl<'de> Deserialize<'de> for CredentialKeys {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Keys;

        impl<'de> Visitor<'de> for Keys {
            type Value = CredentialKeys;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table of credentials")
            }

            fn visit_str<E: Error>(self, word: &str) -> Result<CredentialKeys, E> {
                Ok(if word == "none" { CredentialKeys::None } else { CredentialKeys::OtherWord })
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<CredentialKeys, A::Error> {
                Table::deserialize(MapAccessDeserializer::new(map)).map(CredentialKeys::Table)
            }
        }

        deserializer.deserialize_any(Keys)
    }
}

/// The table of backends: a name, and the keys of one of the vendors.
fn backends(generator: &mut SchemaGenerator) -> Schema {
    let common = properties(BackendKeys::json_schema(generator).as_value());
    let kinds: Vec<Json> = KINDS
        .iter()
        .map(|kind| {
            let name = format!("{}Backend", kind.name);
            let schema = backend(kind, common.clone(), generator);
            generator.definitions_mut().insert(name.clone(), schema);
            json!({ "$ref": format!("#/$defs/{name}") })
        })
        .collect();
    let declared = declared_backend(common);
    generator.definitions_mut().insert("DeclaredBackend".to_owned(), declared);
    let declared = json!({ "$ref": "#/$defs/DeclaredBackend" });
    let kinds: Vec<Json> = kinds.into_iter().chain([declared]).collect();
    json_schema!({
        "type": "object",
        "minProperties": 1,
        "propertyNames": { "pattern": "^[a-z0-9][a-z0-9._-]{0,62}$" },
        "additionalProperties": { "oneOf": kinds },
    })
}

/// A backend of a vendor that a definition describes.
fn declared_backend(mut properties: Map<String, Json>) -> Json {
    let names: Vec<&str> = SHIPPED.iter().map(|shipped| shipped.name).collect();
    let place = || json!({ "$ref": "#/$defs/SecretPlace", "description": "The secret." });
    let text = || json!({ "type": "string", "description": "A value beside the secret." });
    let mut sign_in = Map::new();
    for secret in ["access_token", "api_key", "bearer", "client_secret", "password", "refresh_token"] {
        sign_in.insert(secret.to_owned(), place());
    }
    for field in ["client_id", "username"] {
        sign_in.insert(field.to_owned(), text());
    }
    let own = [
        ("vendor", json!({ "enum": names, "description": "A definition that is part of the program." })),
        (
            "vendor_file",
            json!({ "type": "string", "description": "The path of a definition, in place of vendor." }),
        ),
        (
            "params",
            json!({
                "type": "object",
                "description": "The definition's parameters.",
                "additionalProperties": { "description": "A parameter.", "oneOf": [{ "type": "string" }, { "type": "integer" }] },
            }),
        ),
        (
            "allow_origins",
            json!({
                "type": "array",
                "description": "Origins beside that of base_url which the definition may use.",
                "items": {
                    "description": "An origin.",
                    "oneOf": [
                        { "type": "string" },
                        {
                            "type": "object",
                            "properties": {
                                "origin": { "type": "string", "description": "The origin." },
                                "with_credentials": {
                                    "type": "boolean",
                                    "description": "Whether downloads there have the backend's credentials.",
                                },
                            },
                            "required": ["origin"],
                            "additionalProperties": false,
                        },
                    ],
                },
            }),
        ),
        (
            "credentials",
            json!({
                "description": "The gateway's credentials, by one of the definition's ways.",
                "oneOf": [
                    { "type": "object", "description": "A way of the definition's.", "properties": sign_in },
                    { "const": "none", "description": "No credentials." },
                ],
            }),
        ),
    ];
    properties.extend(own.map(|(name, schema)| (name.to_owned(), schema)));
    json!({
        "type": "object",
        "description": "One deployment of a vendor that a definition describes.",
        "properties": properties,
        "required": ["base_url"],
        "oneOf": [{ "required": ["vendor"] }, { "required": ["vendor_file"] }],
        "additionalProperties": false,
    })
}

fn backend(
    kind: &VendorKind,
    mut properties_of_all: Map<String, Json>,
    generator: &mut SchemaGenerator,
) -> Json {
    let own = Json::from((kind.schema)(generator));
    let mut required = vec![json!("vendor"), json!("base_url")];
    let mut own_properties = properties(&own);
    let mut sign_in = own_properties.remove("credentials").unwrap_or_default();
    required.extend(required_of(&own));
    properties_of_all.append(&mut own_properties);
    properties_of_all.insert("vendor".to_owned(), json!({ "const": kind.key, "description": "The vendor." }));
    strip_null(&mut sign_in);
    properties_of_all.insert("credentials".to_owned(), credentials(kind, &sign_in));
    if !kind.credentials.optional {
        required.push(json!("credentials"));
    }
    json!({
        "type": "object",
        "description": format!("One deployment of {}.", kind.name),
        "properties": properties_of_all,
        "required": required,
        "additionalProperties": false,
    })
}

/// The gateway's credentials: a token from elsewhere, or the vendor's own way to sign in.
fn credentials(kind: &VendorKind, sign_in: &Json) -> Json {
    let own = &kind.credentials;
    let place = || json!({ "$ref": "#/$defs/SecretPlace", "description": "The secret." });
    let mut keys = properties(sign_in);
    keys.insert(own.secret.to_owned(), place());
    let mut required = vec![json!(own.secret)];
    required.extend(required_of(sign_in));
    let mut ways = vec![
        json!({
            "type": "object",
            "description": format!("As {} signs in.", kind.name),
            "properties": keys,
            "required": required,
            "additionalProperties": false,
        }),
        json!({
            "type": "object",
            "description": "A token from elsewhere, sent as it is.",
            "properties": { BEARER: place() },
            "required": [BEARER],
            "additionalProperties": false,
        }),
    ];
    if own.optional {
        ways.push(json!({ "const": "none", "description": "No credentials." }));
    }
    json!({ "oneOf": ways, "description": format!("The gateway's credentials, such as {}.", own.example) })
}
