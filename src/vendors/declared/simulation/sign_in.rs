//! What a simulated vendor accepts as credentials, and the tokens that it gives.

use std::{num::NonZeroUsize, sync::Arc};

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use toml::Table;

use super::{answers, path_of};
use crate::vendors::{
    Adapter, BaseUrl, Scheme, TokenExchange,
    declared::{
        Declared, Definition, backend,
        credentials::{Placement, Way, WayKind},
        path::Step,
        source::Source,
    },
};

/// The secret that a simulated vendor accepts, whatever the way to sign in.
pub const SECRET: &str = "simulated-secret";

/// The text of every other key of `credentials`.
const FIELD: &str = "simulated";

const TOKEN: &str = "simulated-token";

/// One way to sign in.
#[derive(Debug)]
pub(super) struct SignedBy {
    /// The `credentials` of a backend.
    pub(super) written: String,
    adapter: Declared,
    credential: Option<HeaderValue>,
    /// The request for a token, and what it gets.
    pub(super) exchange: Option<(Request<Bytes>, Response<Bytes>)>,
}

/// The ways that can be simulated; a token from another origin can't.
pub(super) fn ways(definition: &Arc<Definition>, base_url: &BaseUrl, keys: &Table) -> Vec<SignedBy> {
    let signed = (0..definition.ways.len()).filter_map(|way| signed(definition, way, base_url, keys));
    signed.collect()
}

fn signed(definition: &Arc<Definition>, place: usize, base_url: &BaseUrl, keys: &Table) -> Option<SignedBy> {
    let way = &definition.ways[place];
    let fields: Vec<(String, String)> =
        way.fields.iter().map(|field| (field.clone(), FIELD.to_owned())).collect();
    let chosen = backend::without_credentials();
    let plain = backend::read(definition, &chosen, keys).ok()?.adapter(base_url, NonZeroUsize::MAX);
    let adapter = Declared::new(
        Arc::clone(definition),
        base_url.clone(),
        plain.params.clone(),
        NonZeroUsize::MAX,
        (Some(place), &fields),
        &[],
    );
    let mut token = None;
    let exchange = match adapter.token_exchange() {
        None => None,
        Some(exchange) if exchange.elsewhere().is_some() => return None,
        Some(exchange) => {
            let request = exchange.request(&SecretString::from(SECRET)).ok()?;
            let response = token_response(way)?;
            token = exchange.read_token(&response).ok().map(|token| token.value);
            token.as_ref()?;
            Some((request, response))
        }
    };
    let word = adapter.token_exchange().map(|exchange| exchange.scheme().to_owned()).unwrap_or_default();
    let text = match way.sign_in(&fields).scheme {
        _ if way.secret.is_none() => None,
        Scheme::Bare => Some(SECRET.to_owned()),
        Scheme::Bearer => Some(format!("Bearer {SECRET}")),
        Scheme::Word(word) => Some(format!("{word} {SECRET}")),
        Scheme::BasicUsername => Some(format!("Basic {}", BASE64_STANDARD.encode(format!("{SECRET}:")))),
        Scheme::Basic { username } => {
            Some(format!("Basic {}", BASE64_STANDARD.encode(format!("{username}:{SECRET}"))))
        }
        Scheme::Exchange => {
            let token = token?;
            let space = if word.is_empty() { "" } else { " " };
            Some(format!("{word}{space}{}", token.expose_secret()))
        }
    };
    let credential = match text {
        Some(text) => Some(HeaderValue::from_str(&text).ok()?),
        None => None,
    };
    Some(SignedBy { written: written(way), adapter, credential, exchange })
}

fn written(way: &Way) -> String {
    let Some(secret) = &way.secret else { return "\"none\"".to_owned() };
    let fields = way.fields.iter().map(|field| format!("{field} = {FIELD:?}"));
    let all: Vec<String> = fields.chain([format!("{secret} = {SECRET:?}")]).collect();
    format!("{{ {} }}", all.join(", "))
}

/// An answer with a token, where the definition reads it.
fn token_response(way: &Way) -> Option<Response<Bytes>> {
    let mut body = json!({});
    match &way.kind {
        WayKind::OAuth2(_) => {
            body = json!({ "access_token": TOKEN, "token_type": "Bearer", "expires_in": 3600 });
        }
        WayKind::Exchange(exchange) => {
            for steps in paths_of_body(&exchange.token) {
                answers::set(&mut body, &steps, TOKEN.into());
            }
            if let Some(path) = exchange.expires_in.as_ref().and_then(path_of) {
                answers::set(&mut body, path.steps(), 3600.into());
            }
        }
        _ => return None,
    }
    Some(answers::json(StatusCode::OK, &body))
}

/// The paths from `body` that a value is read or made from.
fn paths_of_body(source: &Source) -> Vec<Vec<Step>> {
    match source {
        Source::Expression(expression) => expression.paths("body"),
        source => path_of(source).map(|path| path.steps().to_vec()).into_iter().collect(),
    }
}

impl SignedBy {
    /// The response to a request for a token; `None` where it is another request.
    pub(super) fn token(&self, request: &Request<Bytes>) -> Option<Response<Bytes>> {
        let (expected, response) = self.exchange.as_ref()?;
        if expected.method() != request.method() || expected.uri().path() != request.uri().path() {
            return None;
        }
        let authorization = |request: &Request<Bytes>| request.headers().get(header::AUTHORIZATION).cloned();
        let json = |request: &Request<Bytes>| serde_json::from_slice::<Value>(request.body()).ok();
        let is_same = expected.uri().query() == request.uri().query()
            && (expected.body() == request.body()
                || json(expected).is_some() && json(expected) == json(request))
            && (authorization(expected).is_none() || authorization(expected) == authorization(request));
        if is_same {
            return Some(response.clone());
        }
        let refusals = self.adapter.token_exchange().map(TokenExchange::refusals).unwrap_or_default();
        let status = refusals.first().copied().unwrap_or(StatusCode::UNAUTHORIZED);
        Some(answers::json(status, &json!({ "error": "invalid_client" })))
    }

    /// Puts these credentials into a request.
    #[cfg(test)]
    pub(super) fn sign(&self, request: &mut Request<Bytes>) {
        if let Some(credential) = &self.credential {
            self.adapter.authorize(request, credential.clone());
        }
    }

    /// Whether a request has these credentials.
    pub(super) fn accepts(&self, request: &Request<Bytes>) -> bool {
        let Some(credential) = &self.credential else { return true };
        match &self.adapter.placement {
            Placement::Authorization => request.headers().get(header::AUTHORIZATION) == Some(credential),
            Placement::Header(name) => request.headers().get(name) == Some(credential),
            Placement::Query(name) => {
                let query = request.uri().query().unwrap_or_default();
                let mut pairs = url::form_urlencoded::parse(query.as_bytes());
                pairs.any(|(key, value)| key == *name && value.as_bytes() == credential.as_bytes())
            }
        }
    }
}

/// The request without credentials in its query.
pub(super) fn without_credentials(ways: &[SignedBy], request: &Request<Bytes>) -> Request<Bytes> {
    let mut request = request.clone();
    for way in ways {
        let Placement::Query(name) = &way.adapter.placement else { continue };
        let Some(query) = request.uri().query() else { continue };
        let begin = format!("{}=", crate::vendors::percent_encoded(name));
        let kept: Vec<&str> = query.split('&').filter(|pair| !pair.starts_with(&begin)).collect();
        let mark = if kept.is_empty() { "" } else { "?" };
        if let Ok(uri) = format!("{}{mark}{}", request.uri().path(), kept.join("&")).parse() {
            *request.uri_mut() = uri;
        }
    }
    request
}
