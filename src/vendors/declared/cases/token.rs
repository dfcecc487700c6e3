//! Cases of token exchanges: the request for a token, and how its answer is read. The secrets
//! in them are placeholders.

use std::{num::NonZeroUsize, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Request, Response};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value, json};
use toml::Table;

use super::{Golden, answer, expectation::Expectation, word_of};
use crate::vendors::{
    Adapter, BaseUrl, Expiry, Token, TokenExchange,
    declared::{
        Declared, Definition, backend,
        reader::{Log, Node, join},
    },
};

/// One request for a token, or one answer.
#[derive(Debug)]
pub(super) struct TokenCase {
    pub(super) name: String,
    pub(super) line: usize,
    adapter: Declared,
    secret: SecretString,
    request: Option<Golden>,
    response: Option<(Response<Bytes>, Expectation)>,
}

impl TokenCase {
    /// Reads a case; `own` is its table, whose credentials choose the way to sign in.
    pub(super) fn read(
        number: usize,
        node: &Node<'_>,
        (line, own): (usize, &Table),
        (definition, base_url, params): (&Arc<Definition>, &BaseUrl, &Table),
        log: &Log<'_>,
    ) -> Option<Self> {
        let mut keys = node.section(log)?;
        let name = keys.get("name").and_then(|node| node.text(log));
        let name = name.map_or_else(|| format!("token {number}"), str::to_owned);
        keys.get("source").and_then(|node| node.text(log));
        let example = "those of a backend with placeholders, such as { password = \"SECRET\" }";
        let credentials = keys.required(log, "credentials", example);
        let request = keys.get("request").and_then(|node| Golden::read(&node, log));
        let has_request = keys.get("request").is_some();
        let answer = answer(&mut keys, log);
        let expect = keys.get("expect");
        let expectation = expect.as_ref().and_then(|node| Expectation::of_token(node, log));
        if expect.is_none() && !has_request {
            return keys.problem(log, "has neither expect nor request; write one of them");
        }
        keys.finish(log);
        let (credentials, given) = (credentials?, own.get("credentials").and_then(toml::Value::as_table));
        let (adapter, secret) = signed(&credentials, given, (definition, base_url, params), log)?;
        if adapter.token_exchange().is_none() {
            let text = "is for a way to sign in that has no request for a token; write the keys of oauth2 or exchange";
            return credentials.problem(log, text);
        }
        let response = expectation.map(|expectation| (answer, expectation));
        Some(Self { name, line, adapter, secret, request, response })
    }

    /// Every difference from what the case expects.
    pub(super) fn differences(&self) -> Vec<String> {
        let Some(exchange) = self.adapter.token_exchange() else { return Vec::new() };
        let mut differences = Vec::new();
        if let Some(golden) = &self.request {
            match exchange.request(&self.secret) {
                Ok(request) => differences.extend(golden.differences(&request)),
                Err(fault) => differences.push(format!("there is no request: {}", fault.kind)),
            }
        }
        if let Some((response, expectation)) = &self.response {
            differences.extend(expectation.differences(&self.found(exchange, response), &|_, _| None));
        }
        differences
    }

    /// What an answer is read as.
    fn found(&self, exchange: &dyn TokenExchange, response: &Response<Bytes>) -> Map<String, Value> {
        let mut found = Map::new();
        match exchange.interpret(response) {
            Err(fault) => {
                found.insert("fault".to_owned(), word_of(&fault).into());
                found.insert("message".to_owned(), fault.kind.to_string().into());
            }
            Ok(Token { value, expiry }) => {
                let token = value.expose_secret();
                found.insert("token".to_owned(), token.into());
                match expiry {
                    Some(Expiry::After(after)) => {
                        found.insert("expires_in_s".to_owned(), json!(Duration::as_secs_f64(&after)));
                    }
                    Some(Expiry::At(at)) => {
                        found.insert("expires_at".to_owned(), at.to_string().into());
                    }
                    None => {}
                }
                let space = if exchange.scheme().is_empty() { "" } else { " " };
                let sent = HeaderValue::from_str(&format!("{}{space}{token}", exchange.scheme()));
                found.extend(sent.ok().and_then(|sent| self.header(sent)));
            }
        }
        found
    }

    /// The header of a poll that has the token.
    fn header(&self, sent: HeaderValue) -> Option<(String, Value)> {
        let mut poll = Request::new(Bytes::new());
        self.adapter.authorize(&mut poll, sent);
        let (name, value) = poll.headers().iter().next()?;
        Some(("header".to_owned(), format!("{name}: {}", value.to_str().ok()?).into()))
    }
}

/// The adapter of a backend with these credentials, and their secret.
fn signed(
    node: &Node<'_>,
    given: Option<&Table>,
    (definition, base_url, params): (&Arc<Definition>, &BaseUrl, &Table),
    log: &Log<'_>,
) -> Option<(Declared, SecretString)> {
    let case = node.path.strip_suffix("credentials").unwrap_or_default();
    let report = |problems: Vec<crate::vendors::KeyProblem>| {
        for problem in problems {
            log.add(node.span.clone(), &format!("{case}{}", problem.path), problem.text);
        }
    };
    let chosen = backend::choose(definition, Some(given?)).map_err(report).ok()?;
    let secret = chosen.secret.as_ref().and_then(|(secret, _)| Some((secret, given?.get(secret)?.as_str())));
    let secret = match secret {
        Some((_, Some(secret))) => SecretString::from(secret),
        Some((name, None)) => {
            let path = join(&node.path, name);
            log.add(node.span.clone(), &path, "is no text; write a placeholder, such as \"SECRET\"");
            return None;
        }
        None => return node.problem(log, "has no secret; write a placeholder, such as \"SECRET\""),
    };
    let second = chosen.second_secret.and_then(|name| given?.get(name)?.as_str());
    let secret = match second {
        Some(second) => format!("{}\n{second}", secret.expose_secret()).into(),
        None => secret,
    };
    let mut keys = params.clone();
    keys.insert("credentials".to_owned(), given?.clone().into());
    let origins: Vec<toml::Value> = definition.token_origin(chosen.way).into_iter().map(Into::into).collect();
    keys.insert("allow_origins".to_owned(), origins.into());
    let config = backend::read(definition, &chosen, &keys).map_err(report).ok()?;
    Some((config.adapter(base_url, NonZeroUsize::MAX), secret))
}
