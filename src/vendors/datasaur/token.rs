//! How a client id and secret are exchanged for an access token: the OAuth 2.0
//! client credentials grant, RFC 6749 section 4.4.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use schemars::JsonSchema;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use url::form_urlencoded;

use crate::{
    job::{BackendFault, FaultKind},
    vendors::{
        BaseUrl, Expiry, Token, TokenExchange,
        json::{self, Object, Value},
        response,
    },
};

/// How the client id and secret are sent for a token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ClientAuth {
    /// In the form body.
    #[default]
    Form,
    /// As HTTP Basic credentials.
    Basic,
}

/// A registered client; its secret is passed in with every exchange.
#[derive(Debug)]
pub(super) struct Client {
    url: http::Uri,
    id: String,
    auth: ClientAuth,
}

impl Client {
    pub(super) fn new(base_url: &BaseUrl, id: String, auth: ClientAuth) -> Self {
        Self { url: base_url.join("/api/oauth/token"), id, auth }
    }
}

impl TokenExchange for Client {
    fn request(&self, secret: &SecretString) -> Result<Request<Bytes>, BackendFault> {
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(self.url.clone())
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(header::ACCEPT, "application/json");
        let mut form = form_urlencoded::Serializer::new(String::new());
        match self.auth {
            ClientAuth::Form => {
                form.append_pair("client_id", &self.id).append_pair("client_secret", secret.expose_secret());
            }
            ClientAuth::Basic => {
                // RFC 6749 section 2.3.1 would form-encode both first. Datasaur's own
                // sample does not, and a server that decoded them would break it.
                let pair = STANDARD.encode(format!("{}:{}", self.id, secret.expose_secret()));
                let mut value = HeaderValue::try_from(format!("Basic {pair}")).expect("base64 is ASCII");
                value.set_sensitive(true);
                request = request.header(header::AUTHORIZATION, value);
            }
        }
        form.append_pair("grant_type", "client_credentials");
        Ok(request.body(form.finish().into()).expect("constant headers are valid"))
    }

    fn read_token(&self, response: &Response<Bytes>) -> Result<Token, BackendFault> {
        read_oauth_token(response)
    }
}

/// Reads the answer of a token endpoint, RFC 6749 section 5.
pub(in crate::vendors) fn read_oauth_token(response: &Response<Bytes>) -> Result<Token, BackendFault> {
    let status = response.status();
    if status.is_success() {
        response::check_json(response)?;
    }
    let body = Object::parse(response.body()).and_then(Object::unambiguous);
    if let Some((body, error)) = body.as_ref().and_then(|body| Some((body, body.get("error")?))) {
        return Err(refused(error, body.text("error_description"), status));
    }
    if !status.is_success() {
        return Err(response::rejected("", status));
    }
    let body = body.ok_or(response::malformed("not a token response", status))?;
    // RFC 6749 section 7.1: a token of a type that isn't understood isn't used.
    if body.text("token_type").is_some_and(|kind| !kind.eq_ignore_ascii_case("bearer")) {
        return Err(response::malformed("not a bearer token", status));
    }
    response::token(body.text("access_token"), body.get("expires_in").and_then(lifetime))
}

/// Seconds, as number or text. None that can be used is none at all.
fn lifetime(expires_in: Value<'_>) -> Option<Expiry> {
    let seconds = json::plain(expires_in).trim().parse().ok().filter(|seconds| *seconds > 0.0)?;
    Duration::try_from_secs_f64(seconds).ok().map(Expiry::After)
}

/// RFC 6749 section 5.2: the code says whether it is the client that is refused.
fn refused(error: Value<'_>, description: Option<String>, status: StatusCode) -> BackendFault {
    let code = json::text(error).unwrap_or_default();
    if matches!(code.as_str(), "invalid_client" | "invalid_grant" | "unauthorized_client" | "access_denied") {
        return response::judged(FaultKind::CredentialsRejected, status);
    }
    let description = description.filter(|text| !text.trim().is_empty());
    response::rejected(&description.unwrap_or(code), status)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "618f4778263fdcf5e9345e5aeaad05ac54ef2818";

    fn client(auth: ClientAuth) -> Client {
        Client::new(&"https://app.datasaur.ai".parse().unwrap(), "a b&c".into(), auth)
    }

    fn answer(status: u16, body: &str) -> Result<Token, BackendFault> {
        let response = Response::builder().status(status).header("Content-Type", "application/json");
        client(ClientAuth::Form).interpret(&response.body(body.to_owned().into()).unwrap())
    }

    fn kind(status: u16, body: &str) -> FaultKind {
        answer(status, body).unwrap_err().kind
    }

    #[test]
    fn secret_goes_into_the_form_or_into_basic_credentials() {
        let secret = SecretString::from("p+w=ä");
        let request = client(ClientAuth::Form).request(&secret).unwrap();
        assert_eq!(request.method(), Method::POST);
        assert_eq!(request.uri(), "https://app.datasaur.ai/api/oauth/token");
        assert_eq!(request.headers()["content-type"], "application/x-www-form-urlencoded");
        assert!(!request.headers().contains_key("authorization"));
        let form = "client_id=a+b%26c&client_secret=p%2Bw%3D%C3%A4&grant_type=client_credentials";
        assert_eq!(request.body(), form);

        let request = client(ClientAuth::Basic).request(&secret).unwrap();
        assert_eq!(request.headers()["authorization"], format!("Basic {}", STANDARD.encode("a b&c:p+w=ä")));
        assert!(request.headers()["authorization"].is_sensitive());
        assert_eq!(request.body(), "grant_type=client_credentials");
    }

    #[test]
    fn recorded_response_gives_the_token_and_its_lifetime() {
        let token =
            answer(200, &format!(r#"{{"access_token":"{TOKEN}","token_type":"bearer","expires_in":3600}}"#))
                .unwrap();
        assert_eq!(token.value.expose_secret(), TOKEN);
        assert_eq!(token.expiry, Some(Expiry::After(Duration::from_hours(1))));
        assert!(!format!("{token:?}").contains(TOKEN));
    }

    #[test]
    fn lifetime_is_a_number_or_its_text_or_none() {
        let hour = Some(Expiry::After(Duration::from_hours(1)));
        for (expires_in, expiry) in [
            ("\"3600\"", hour),
            ("3600.0", hour),
            ("null", None),
            ("0", None),
            ("-5", None),
            ("1e300", None),
            ("1e999", None),
            ("\"NaN\"", None),
            ("\"soon\"", None),
            ("[]", None),
        ] {
            let body =
                format!(r#"{{"access_token":"{TOKEN}","token_type":"Bearer","expires_in":{expires_in}}}"#);
            assert_eq!(answer(200, &body).unwrap().expiry, expiry, "{expires_in}");
        }
        assert_eq!(answer(200, &format!(r#"{{"access_token":"{TOKEN}"}}"#)).unwrap().expiry, None);
    }

    #[test]
    fn refused_client_is_a_rejected_credential() {
        let recorded =
            r#"{"code":400,"error":"invalid_client","error_description":"Client credentials are invalid"}"#;
        let fault = answer(400, recorded).unwrap_err();
        assert_eq!(fault, FaultKind::CredentialsRejected.with_status(StatusCode::BAD_REQUEST));
        assert_eq!(kind(200, recorded), FaultKind::CredentialsRejected);
        for status in [401, 403] {
            for body in ["", "<html>", r#"{"error":"server_error"}"#] {
                assert_eq!(kind(status, body), FaultKind::CredentialsRejected);
            }
        }
    }

    #[test]
    fn another_refusal_is_in_the_vendors_words() {
        for (status, body, message) in [
            (
                400,
                r#"{"error":"invalid_request","error_description":"Missing grant_type"}"#,
                "Missing grant_type",
            ),
            (400, r#"{"error":"unsupported_grant_type"}"#, "unsupported_grant_type"),
            (400, r#"{"error":{"a":1}}"#, "HTTP 400"),
            (404, "<html>", "HTTP 404"),
            (302, "", "a redirect (HTTP 302) without a location"),
        ] {
            assert_eq!(kind(status, body), FaultKind::Rejected { message: message.into() });
        }
    }

    #[test]
    fn outage_or_a_throttle_is_not_a_rejected_credential() {
        assert!(matches!(kind(503, r#"{"error":"invalid_client"}"#), FaultKind::Unavailable { .. }));
        assert!(matches!(kind(429, ""), FaultKind::Throttled));
    }

    #[test]
    fn response_without_a_token_that_can_be_sent_is_malformed() {
        for body in [
            "",
            "[]",
            "{}",
            r#"["x"]"#,
            r#"{"access_token":7}"#,
            r#"{"access_token":null}"#,
            r#"{"access_token":""}"#,
            r#"{"access_token":"a\nb"}"#,
            r#"{"access_token":"a","access_token":"b"}"#,
            r#"{"access_token":"a","token_type":"mac"}"#,
        ] {
            assert!(matches!(kind(200, body), FaultKind::Malformed { .. }), "{body}");
        }
    }
}
