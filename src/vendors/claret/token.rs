//! `POST /{tenant}/api/v1/tokens/create` exchanges an email and its password, both
//! documented as query parameters, for a token whose end the vendor doesn't say.

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use secrecy::{ExposeSecret, SecretString};

use super::request;
use crate::{
    job::{BackendFault, FaultKind},
    vendors::{BaseUrl, Token, TokenExchange, json::Object, percent_encoded, response},
};

/// The exchange, without the password.
#[derive(Debug)]
pub(super) struct Login {
    base_url: BaseUrl,
    api: String,
    email: String,
}

impl Login {
    pub(super) fn new(base_url: &BaseUrl, api: &str, email: String) -> Self {
        Self { base_url: base_url.clone(), api: api.to_owned(), email }
    }
}

impl TokenExchange for Login {
    fn request(&self, secret: &SecretString) -> Result<Request<Bytes>, BackendFault> {
        let email = percent_encoded(&self.email);
        let password = percent_encoded(secret.expose_secret());
        let path = format!("{}/tokens/create?email={email}&password={password}", self.api);
        let too_long = || FaultKind::Rejected { message: "email and password are too long for a URL".into() };
        let mut request = request(Method::POST, self.base_url.join_any(&path).ok_or_else(too_long)?);
        request.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
        Ok(request)
    }

    fn refusals(&self) -> &'static [StatusCode] {
        &[StatusCode::UNPROCESSABLE_ENTITY]
    }

    fn login_at(&self) -> Option<&BaseUrl> {
        Some(&self.base_url)
    }

    fn read_token(&self, response: &Response<Bytes>) -> Result<Token, BackendFault> {
        let status = response.status();
        let body = Object::parse(response.body());
        if !status.is_success() {
            let words = body.and_then(|body| body.text("message")).unwrap_or_default();
            return Err(response::rejected(&words, status));
        }
        response::check_json(response)?;
        let body = body.ok_or(response::malformed("not an object", status))?;
        response::token(body.text("token"), None)
    }
}
