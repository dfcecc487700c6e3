//! `POST /bim/apikey/authenticate` exchanges an API key for a token that expires.

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;

use super::words;
use crate::{
    job::{BackendFault, FaultKind},
    vendors::{BaseUrl, Expiry, Token, TokenExchange, json::Object, response},
};

/// The exchange, without the API key.
#[derive(Debug)]
pub(super) struct ApiKeyExchange {
    base_url: BaseUrl,
}

impl ApiKeyExchange {
    pub(super) fn new(base_url: &BaseUrl) -> Self {
        Self { base_url: base_url.clone() }
    }
}

impl TokenExchange for ApiKeyExchange {
    fn request(&self, secret: &SecretString) -> Result<Request<Bytes>, BackendFault> {
        Ok(self.base_url.post("/bim/apikey/authenticate", &json!({ "apikey": secret.expose_secret() })))
    }

    fn refusals(&self) -> &'static [StatusCode] {
        &[StatusCode::BAD_REQUEST]
    }

    fn read_token(&self, response: &Response<Bytes>) -> Result<Token, BackendFault> {
        let status = response.status();
        if !status.is_success() {
            return Err(response::rejected(&words(response), status));
        }
        response::check_json(response)?;
        let body = Object::parse(response.body()).ok_or(response::malformed("not an object", status))?;
        if body.get("authenticated").is_some_and(|value| value.get() == "false") {
            return Err(FaultKind::CredentialsRejected.into());
        }
        let expiry = body.text("tokenExpiration").and_then(|time| time.parse().ok()).map(Expiry::At);
        response::token(body.text("token"), expiry)
    }
}
