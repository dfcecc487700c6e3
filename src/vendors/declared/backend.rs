//! How a backend of a declared vendor is configured: parameters, credentials, and origins
//! that the operator allows.

use std::{
    num::NonZeroUsize,
    sync::{Arc, Mutex, PoisonError},
};

use schemars::json_schema;
use toml::{Table, Value};

use super::{
    Declared, Definition,
    credentials::{OAuth2, TokenUrl, Way, WayKind},
    id::Params,
    origin_of,
    reader::{join, remedy},
    source::Scope,
};
use crate::vendors::{
    AllowedOrigin, BaseUrl, BuildError, Clusters, Key, KeyProblem, OwnCredentials, SecretForm, SignIn,
    UnusableKeys, VendorConfig, VendorKind,
};

/// The keys of a backend that only declared vendors have.
pub const KEYS: [&str; 3] = ["vendor_file", "params", "allow_origins"];

static OWN_KEYS: [Key; 3] = [
    Key::new("vendor_file", "the path of a definition, such as \"/etc/jobwatch/my-vendor.toml\""),
    Key::new("params", "a table of the definition's parameters"),
    Key::new("allow_origins", "a list of origins, such as [\"https://login.example\"]"),
];

/// The configuration of one backend of a declared vendor.
#[derive(Clone, Debug)]
pub struct DeclaredConfig {
    definition: Name,
    kind: &'static VendorKind,
    params: Params,
    way: Option<usize>,
    fields: Vec<(String, String)>,
    allowed: Vec<AllowedOrigin>,
}

/// A definition, shown by name and hash.
#[derive(Clone)]
struct Name(Arc<Definition>);

impl std::fmt::Debug for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({:x})", self.0.label(), self.0.hash)
    }
}

/// The way of a definition by which a backend signs in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen {
    pub(super) way: Option<usize>,
    /// The key of the secret, and the characters that it may have.
    pub secret: Option<(String, SecretForm)>,
    /// The key of another secret, which is sent with it.
    pub second_secret: Option<&'static str>,
}

/// No credentials at all, for cases.
pub fn without_credentials() -> Chosen {
    Chosen { way: None, secret: None, second_secret: None }
}

/// A way to sign in.
#[derive(Debug)]
pub struct WayKeys<'a> {
    /// The key of its secret.
    pub secret: &'a str,
    /// The key of another secret that it may have.
    pub second_secret: Option<&'static str>,
    /// Its other keys.
    pub fields: &'a [String],
}

/// The ways to sign in that need a secret.
pub fn sign_ins(definition: &Definition) -> Vec<WayKeys<'_>> {
    let ways = definition.ways.iter();
    let keys = ways.filter_map(|way| {
        let secret = way.secret.as_deref()?;
        Some(WayKeys { secret, second_secret: way.second_secret(), fields: &way.fields })
    });
    keys.collect()
}

/// Chooses the way by the keys of `credentials`; `None` for no credentials.
///
/// # Errors
/// Every problem, with the key's path in the backend's table.
pub fn choose(definition: &Definition, keys: Option<&Table>) -> Result<Chosen, Vec<KeyProblem>> {
    let examples: Vec<String> = definition.ways.iter().map(Way::example).collect();
    let examples = examples.join(", or ");
    let problem = |path: String, text: String| KeyProblem { path, text };
    let Some(keys) = keys else {
        return match definition.ways.iter().position(|way| way.secret.is_none()) {
            Some(way) => Ok(Chosen { way: Some(way), secret: None, second_secret: None }),
            None => Err(vec![problem("credentials".to_owned(), format!("is missing; write {examples}"))]),
        };
    };
    let is_named = |way: &&Way| way.secret.as_ref().is_some_and(|secret| keys.contains_key(secret));
    let named: Vec<_> = definition.ways.iter().filter(is_named).collect();
    let way = match named[..] {
        [way] => way,
        [] => {
            let text = if keys.is_empty() { "is empty" } else { "has no secret of this vendor's" };
            return Err(vec![problem("credentials".to_owned(), format!("{text}; write {examples}"))]);
        }
        [one, other, ..] => {
            let (one, other) =
                (one.secret.as_deref().unwrap_or_default(), other.secret.as_deref().unwrap_or_default());
            let text = format!("holds both {one} and {other}; keep one way to sign in");
            return Err(vec![problem("credentials".to_owned(), text)]);
        }
    };
    let secret = way.secret.clone().unwrap_or_default();
    let second = way.second_secret();
    let known: Vec<&str> = way.fields.iter().map(String::as_str).chain([&*secret]).chain(second).collect();
    let mut problems = Vec::new();
    for key in keys.keys().filter(|key| !known.contains(&key.as_str())) {
        problems
            .push(problem(join("credentials", key), format!("is not a key here; {}", remedy(key, &known))));
    }
    for field in &way.fields {
        match keys.get(field) {
            Some(Value::String(text)) if !text.is_empty() && !text.contains(char::is_control) => {}
            Some(_) => problems
                .push(problem(join("credentials", field), "is no text; write it in quotes".to_owned())),
            None => problems
                .push(problem(join("credentials", field), format!("is missing; write {}", way.example()))),
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let way_index = definition.ways.iter().position(|other| other.name == way.name);
    let second_secret = second.filter(|key| keys.contains_key(*key));
    Ok(Chosen { way: way_index, secret: Some((secret, way.form())), second_secret })
}

/// Reads the backend's own keys.
///
/// # Errors
/// Every problem, with the key's path in the backend's table.
pub fn read(
    definition: &Arc<Definition>,
    chosen: &Chosen,
    keys: &Table,
) -> Result<DeclaredConfig, Vec<KeyProblem>> {
    let mut problems = Vec::new();
    let params = params(definition, keys.get("params"), &mut problems);
    let way = chosen.way.and_then(|way| definition.ways.get(way));
    let credentials = keys.get("credentials").and_then(Value::as_table);
    let field = |name: &String| Some((name.clone(), credentials?.get(name)?.as_str()?.to_owned()));
    let fields: Vec<(String, String)> =
        way.map(|way| way.fields.iter().filter_map(field).collect()).unwrap_or_default();
    let allowed = definition.read_allowed(keys.get("allow_origins"), &mut problems);
    if problems.is_empty() {
        not_in_headers(definition, way, &params, &fields, &mut problems);
    }
    if let Some(WayKind::OAuth2(OAuth2 { url: TokenUrl::Elsewhere(_), .. })) = way.map(|way| &way.kind)
        && let Some(origin) = definition.token_origin(chosen.way)
        && !allowed.all.contains(&origin)
    {
        let text = format!(
            "does not hold {origin:?}, where {} asks for tokens with the backend's secret; write allow_origins = [{origin:?}]",
            definition.name
        );
        problems.push(KeyProblem { path: "allow_origins".to_owned(), text });
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let kind = kind(definition, chosen);
    let definition = Name(Arc::clone(definition));
    Ok(DeclaredConfig { definition, kind, params, way: chosen.way, fields, allowed: allowed.files })
}

fn params(definition: &Definition, value: Option<&Value>, problems: &mut Vec<KeyProblem>) -> Params {
    let mut problem = |path: String, text: String| problems.push(KeyProblem { path, text });
    let empty = Table::new();
    let given = match value {
        None => &empty,
        Some(Value::Table(table)) => table,
        Some(_) => {
            problem("params".to_owned(), "is not a table; write params = { name = \"..\" }".to_owned());
            return Params::new();
        }
    };
    let known: Vec<&str> = definition.params.iter().map(|param| param.name.as_str()).collect();
    // A variable of the environment can't hold an underscore of its own.
    let folded = |key: &str| key.replace('-', "_");
    for key in given.keys().filter(|key| !known.contains(&&*folded(key))) {
        let text = if known.is_empty() {
            format!("is not a parameter of {}, which has none; remove it", definition.name)
        } else {
            format!("is not a parameter of {}; {}", definition.name, remedy(key, &known))
        };
        problem(join("params", key), text);
    }
    let mut params = Params::new();
    for param in &definition.params {
        let path = join("params", &param.name);
        let value = given.iter().find(|(key, _)| folded(key) == param.name).map(|(_, value)| value);
        let text = match value {
            None => param.default.clone(),
            Some(Value::String(text)) => Some(text.clone()),
            Some(Value::Integer(integer)) => Some(integer.to_string()),
            Some(_) => {
                problem(path, format!("is no text; write {}", param.example()));
                continue;
            }
        };
        let Some(text) = text else {
            if param.optional {
                continue;
            }
            let about =
                if param.description.is_empty() { String::new() } else { format!(": {}", param.description) };
            problem(path, format!("is missing; write {}{about}", param.example()));
            continue;
        };
        if let Some(wrong) = param.problem(&text) {
            problem(path, format!("can't be used: it {wrong}"));
            continue;
        }
        params.insert(param.name.clone(), param.json(text));
    }
    params
}

/// Values of the backend that a header of the definition can't carry. No request could be
/// written with one.
fn not_in_headers(
    definition: &Definition,
    way: Option<&Way>,
    params: &Params,
    fields: &[(String, String)],
    problems: &mut Vec<KeyProblem>,
) {
    let Definition { request, batch, request_headers, .. } = definition;
    let questions = request.iter().chain(batch.iter().map(|batch| &batch.question));
    let headers = questions.flat_map(|question| &question.request.headers).chain(request_headers);
    let headers = headers.chain(way.into_iter().flat_map(Way::request_headers));
    let scope = Scope { params: Some(params), variables: fields, ..Scope::default() };
    let is_carried = |text: &str| text.chars().all(|c| c.is_ascii_graphic() || c == ' ');
    for (header, text) in headers {
        for source in text.sources().filter(|source| !source.needs("id") && !source.needs("ids")) {
            if source.text(&scope).is_none_or(|text| is_carried(&text)) {
                continue;
            }
            let own = params.keys().filter(|name| source.uses_param(name));
            let own = own.map(|name| join("params", name));
            let of_way = fields.iter().map(|(name, _)| name).filter(|name| source.needs(name));
            for path in own.chain(of_way.map(|name| join("credentials", name))) {
                let text = format!(
                    "has characters beside those of visible ASCII, which the header {header} can't carry"
                );
                let problem = KeyProblem { path, text };
                if !problems.contains(&problem) {
                    problems.push(problem);
                }
            }
        }
    }
}

impl Definition {
    /// The other origins where it asks for tokens.
    pub fn token_origins(&self) -> Vec<String> {
        let mut origins: Vec<String> =
            (0..self.ways.len()).filter_map(|way| self.token_origin(Some(way))).collect();
        origins.sort();
        origins.dedup();
        origins
    }

    /// Whether a backend can do without credentials.
    pub fn needs_no_secret(&self) -> bool {
        self.ways.iter().any(|way| way.secret.is_none())
    }

    /// The origin where this way asks for tokens, if it is another one than the backend's.
    pub(super) fn token_origin(&self, way: Option<usize>) -> Option<String> {
        match &self.ways.get(way?)?.kind {
            WayKind::OAuth2(OAuth2 { url: TokenUrl::Elsewhere(url), .. }) => origin_of(&url.shown()),
            _ => None,
        }
    }
}

/// What the rest of the program knows of a vendor. There is one for each definition and way
/// that was ever configured, which a reload does not multiply.
fn kind(definition: &Definition, chosen: &Chosen) -> &'static VendorKind {
    static KINDS: Mutex<Vec<&'static VendorKind>> = Mutex::new(Vec::new());
    let name = format!("{} {}", definition.title, definition.version);
    let secret = chosen.secret.as_ref().map_or("", |(secret, _)| secret);
    let way = chosen.way.and_then(|way| definition.ways.get(way));
    let fields = way.map(|way| way.fields.clone()).unwrap_or_default();
    let batches = definition.batch.is_some();
    let mut kinds = KINDS.lock().unwrap_or_else(PoisonError::into_inner);
    let is_same = |kind: &&&'static VendorKind| {
        let own = &kind.credentials;
        kind.key == definition.name
            && kind.name == name
            && kind.batches == batches
            && own.secret == secret
            && own.keys.iter().map(|key| key.name).eq(fields.iter().map(String::as_str))
    };
    if let Some(kind) = kinds.iter().find(is_same) {
        return kind;
    }
    let leaked = |text: &str| -> &'static str { Box::leak(text.to_owned().into_boxed_str()) };
    let keys: Vec<Key> = fields.iter().map(|field| Key::new(leaked(field), "a text")).collect();
    let kind = VendorKind {
        name: leaked(&name),
        key: leaked(&definition.name),
        batches,
        keys: &OWN_KEYS,
        credentials: OwnCredentials {
            secret: leaked(secret),
            form: chosen.secret.as_ref().map_or(SecretForm::Text, |(_, form)| *form),
            keys: Box::leak(keys.into_boxed_slice()),
            optional: definition.ways.iter().any(|way| way.secret.is_none()),
            example: leaked(&way.map(Way::example).unwrap_or_default()),
        },
        read: |_, _| Err(UnusableKeys::Invalid(Vec::new())),
        schema: |_| json_schema!({ "type": "object" }),
    };
    let kind: &'static VendorKind = Box::leak(Box::new(kind));
    kinds.push(kind);
    kind
}

impl DeclaredConfig {
    /// The adapter at this address.
    pub(super) fn adapter(&self, base_url: &BaseUrl, max_batch: NonZeroUsize) -> Declared {
        let definition = Arc::clone(&self.definition.0);
        let way = (self.way, &*self.fields);
        Declared::new(definition, base_url.clone(), self.params.clone(), max_batch, way, &self.allowed)
    }
}

impl VendorConfig for DeclaredConfig {
    fn kind(&self) -> &'static VendorKind {
        self.kind
    }

    fn definition_version(&self) -> Option<&str> {
        Some(&self.definition.0.version)
    }

    fn reopens(&self) -> bool {
        self.definition.0.reopens
    }

    fn sign_in(&self) -> SignIn {
        let way = self.way.and_then(|way| self.definition.0.ways.get(way));
        way.map_or(SignIn { scheme: crate::vendors::Scheme::Bare, description: "no credentials" }, |way| {
            way.sign_in(&self.fields)
        })
    }

    fn file_origins(&self) -> &[AllowedOrigin] {
        &self.allowed
    }

    fn build(&self, base_url: &BaseUrl, max_batch: NonZeroUsize) -> Result<Clusters, BuildError> {
        Ok(Clusters::single(self.adapter(base_url, max_batch)))
    }
}
