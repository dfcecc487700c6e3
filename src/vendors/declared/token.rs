//! A secret of a declared vendor for a short-lived token: OAuth 2.0, or a request of the
//! vendor's own.

use std::{sync::Arc, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use secrecy::SecretString;
use url::form_urlencoded;

use super::{
    Definition,
    credentials::{Exchange, OAuth2, TokenUrl, Way, WayKind, with_secret},
    id::Params,
    source::Scope,
};
use crate::{
    job::{BackendFault, FaultKind},
    vendors::{
        BaseUrl, ClientAuth, Expiry, Token, TokenExchange,
        datasaur::read_oauth_token,
        json::{self, Value},
        percent_encoded, response, secrets_in,
    },
};

/// The exchange of one backend, without its secret.
#[derive(Debug)]
pub(super) struct DeclaredExchange {
    definition: Arc<Definition>,
    way: usize,
    base_url: BaseUrl,
    params: Params,
    fields: Vec<(String, String)>,
    /// Where the token is given, if that is at another origin.
    elsewhere: Option<BaseUrl>,
}

impl DeclaredExchange {
    /// `None` where the way has no exchange.
    pub(super) fn new(
        definition: &Arc<Definition>,
        way: usize,
        base_url: &BaseUrl,
        params: &Params,
        fields: &[(String, String)],
    ) -> Option<Self> {
        let elsewhere = match &definition.ways.get(way)?.kind {
            WayKind::OAuth2(OAuth2 { url: TokenUrl::Elsewhere(url), .. }) => {
                let scope = Scope { params: Some(params), variables: fields, ..Scope::default() };
                Some(url.render(&scope, percent_encoded)?.parse().ok()?)
            }
            WayKind::OAuth2(_) | WayKind::Exchange(_) => None,
            _ => return None,
        };
        Some(Self {
            definition: Arc::clone(definition),
            way,
            base_url: base_url.clone(),
            params: params.clone(),
            fields: fields.to_vec(),
            elsewhere,
        })
    }

    fn way(&self) -> &Way {
        &self.definition.ways[self.way]
    }

    fn scope<'a>(&'a self, variables: &'a [(String, String)]) -> Scope<'a> {
        Scope { params: Some(&self.params), variables, ..Scope::default() }
    }

    /// The headers that every request to the vendor has.
    fn headers(&self) -> Option<HeaderMap> {
        let scope = self.scope(&self.fields);
        let mut headers = HeaderMap::new();
        for (name, value) in &self.definition.request_headers {
            if let Some(value) = value.unless_left_out(&scope).ok()? {
                headers.insert(name, HeaderValue::from_str(&value).ok()?);
            }
        }
        Some(headers)
    }

    fn oauth2(&self, oauth2: &OAuth2, secret: &SecretString) -> Option<Request<Bytes>> {
        let scope = self.scope(&self.fields);
        let uri: Uri = match (&oauth2.url, &self.elsewhere) {
            (_, Some(elsewhere)) => elsewhere.as_str().parse().ok()?,
            (TokenUrl::Path(path) | TokenUrl::Elsewhere(path), None) => {
                self.base_url.join_any(&path.render(&scope, percent_encoded)?)?
            }
        };
        let client_id =
            self.fields.iter().find(|(name, _)| name == "client_id").map(|(_, id)| id.as_str())?;
        let mut request = Request::new(Bytes::new());
        *request.method_mut() = Method::POST;
        *request.uri_mut() = uri;
        let headers = request.headers_mut();
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        // Another origin is not the vendor whose headers these are.
        if self.elsewhere.is_none() {
            headers.extend(self.headers()?);
        }
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        let mut form = form_urlencoded::Serializer::new(String::new());
        let mut secrets = secrets_in(secret);
        let refresh_token = if oauth2.refreshes { secrets.next() } else { None };
        match (oauth2.client_auth, secrets.next()) {
            // A public client has no secret.
            (_, None) => {
                form.append_pair("client_id", client_id);
            }
            (ClientAuth::Form, Some(secret)) => {
                form.append_pair("client_id", client_id).append_pair("client_secret", secret);
            }
            (ClientAuth::Basic, Some(secret)) => {
                let pair = BASE64_STANDARD.encode(format!("{client_id}:{secret}"));
                let mut value = HeaderValue::try_from(format!("Basic {pair}")).ok()?;
                value.set_sensitive(true);
                headers.insert(header::AUTHORIZATION, value);
            }
        }
        match refresh_token {
            Some(token) => {
                form.append_pair("grant_type", "refresh_token").append_pair("refresh_token", token);
            }
            None => {
                form.append_pair("grant_type", "client_credentials");
            }
        }
        for (name, value) in &oauth2.form {
            if let Some(value) = value.unless_left_out(&scope).ok()? {
                form.append_pair(name, &value);
            }
        }
        *request.body_mut() = form.finish().into();
        Some(request)
    }
}

impl TokenExchange for DeclaredExchange {
    fn request(&self, secret: &SecretString) -> Result<Request<Bytes>, BackendFault> {
        let way = self.way();
        let request = match &way.kind {
            WayKind::OAuth2(oauth2) => self.oauth2(oauth2, secret),
            WayKind::Exchange(exchange) => {
                let variables = with_secret(way, &self.fields, secret);
                let scope = self.scope(&variables);
                self.headers().and_then(|headers| exchange.request.write(&self.base_url, &headers, &scope))
            }
            _ => None,
        };
        let message = "no request for a token can hold the credentials".to_owned();
        request.ok_or_else(|| FaultKind::Rejected { message }.into())
    }

    fn refusals(&self) -> &[StatusCode] {
        match &self.way().kind {
            WayKind::Exchange(exchange) => &exchange.refused_status,
            _ => &[],
        }
    }

    fn login_at(&self) -> Option<&BaseUrl> {
        self.definition.answer.has_login_page.then_some(&self.base_url)
    }

    fn read_token(&self, response: &Response<Bytes>) -> Result<Token, BackendFault> {
        match &self.way().kind {
            WayKind::Exchange(exchange) if response.status().is_success() => read(exchange, response),
            WayKind::Exchange(_) => {
                Err(response::rejected(&self.definition.refusal_words(response), response.status()))
            }
            _ => read_oauth_token(response),
        }
    }

    fn scheme(&self) -> &str {
        match &self.way().kind {
            WayKind::Exchange(exchange) => &exchange.word,
            _ => "Bearer",
        }
    }

    fn elsewhere(&self) -> Option<&BaseUrl> {
        self.elsewhere.as_ref()
    }
}

fn read(exchange: &Exchange, response: &Response<Bytes>) -> Result<Token, BackendFault> {
    let status = response.status();
    response::check_json(response)?;
    let body = Value::parse(response.body()).ok_or(response::malformed("not JSON", status))?;
    let scope = Scope { body: Some(body), ..Scope::default() };
    if exchange
        .refused
        .as_ref()
        .is_some_and(|refused| refused.find(&scope).is_some_and(|found| found.is_true()))
    {
        return Err(FaultKind::CredentialsRejected.into());
    }
    let seconds = |text: String| text.trim().parse::<f64>().ok().filter(|seconds| *seconds > 0.0);
    let after = |seconds: f64| Duration::try_from_secs_f64(seconds).ok().map(Expiry::After);
    let expires_in =
        exchange.expires_in.as_ref().and_then(|source| source.text(&scope)).and_then(seconds).and_then(after);
    let expires_at = || exchange.expires_at.as_ref().and_then(|rule| rule.find(&scope)).map(Expiry::At);
    let lifetime = || exchange.lifetime_s.map(|seconds| Expiry::After(Duration::from_secs(seconds)));
    let expiry = expires_in.or_else(expires_at).or_else(lifetime);
    let token = exchange.token.find(&scope).and_then(|found| match found {
        super::source::Found::Json(value) => json::text(value),
        found => found.text(),
    });
    response::token(token, expiry)
}
