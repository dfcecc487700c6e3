//! The login, and what says that a session is over.

use secrecy::{ExposeSecret, SecretString};

use super::*;
use crate::vendors::Token;

fn redirect(status: u16, location: &str) -> Response<Bytes> {
    let mut response = html(status);
    response.headers_mut().insert(header::LOCATION, location.parse().unwrap());
    response
}

#[test]
fn vendors_own_login_page_is_a_matter_of_credentials() {
    for location in [
        "https://plan.claret.app/demo/login",
        "http://plan.claret.app/login",
        "https://PLAN.claret.app:443/login/?from=x",
        "/demo/login",
        "/demo/Login/#x",
        "login",
        "//plan.claret.app/login",
    ] {
        let fault = read(&redirect(302, location)).unwrap_err();
        assert_eq!(fault, FaultKind::CredentialsRejected.with_status(302_u16), "{location}");
    }
    for response in [json(401, "{}"), html(401), html(419), json(419, "{}")] {
        assert_eq!(read(&response).unwrap_err().kind, FaultKind::CredentialsRejected, "{response:?}");
    }
}

#[test]
fn what_leads_elsewhere_or_is_a_page_says_nothing_about_credentials() {
    for location in [
        "https://elsewhere.example/login",
        "https://plan.claret.app.elsewhere.example/login",
        "https://plan.claret.app:8443/login",
        "https://plan.claret.app@elsewhere.example/login",
        "ftp://plan.claret.app/login",
        "https://plan.claret.app/demo/api/v1/imports/status/7",
        "/demo/nologin",
        "/login/7",
        "",
    ] {
        let fault = read(&redirect(302, location)).unwrap_err().kind;
        assert!(matches!(fault, FaultKind::Rejected { .. }), "{location}: {fault:?}");
    }
    let bare_page = answer(200, "", "\n<!DOCTYPE html>");
    for response in [html(200), html(404), html(403), html(422), bare_page] {
        assert_ne!(read(&response).unwrap_err().kind, FaultKind::CredentialsRejected, "{response:?}");
    }
}

fn log_in(response: &Response<Bytes>) -> Result<Token, BackendFault> {
    let base = "https://plan.claret.app".parse().unwrap();
    let claret = Claret::new(base, "demo", Some("me@example.com".into())).unwrap();
    claret.token_exchange().unwrap().interpret(response)
}

#[test]
fn login_carries_email_and_password_as_query_parameters() {
    assert!(claret().token_exchange().is_none());
    let base = "https://plan.claret.app".parse().unwrap();
    let claret = Claret::new(base, "demo", Some("me+x@example.com".into())).unwrap();
    let request = claret.token_exchange().unwrap().request(&SecretString::from("p&w =ä%#")).unwrap();
    assert_eq!(request.method(), Method::POST);
    assert_eq!(request.uri().path(), "/demo/api/v1/tokens/create");
    let query = request.uri().query().unwrap();
    assert_eq!(query, "email=me%2Bx%40example.com&password=p%26w%20%3D%C3%A4%25%23");
    assert_eq!(request.headers()[header::ACCEPT], "application/json");
    assert_eq!(request.headers()["x-requested-with"], "XMLHttpRequest");
    assert_eq!(request.headers()[header::CONTENT_LENGTH], "0");
    assert!(request.body().is_empty());
}

#[test]
fn token_may_hold_a_bar_and_has_no_end() {
    let body = r#"{"token":"1|abcDEF0123456789"}"#;
    let token = log_in(&json(200, body)).unwrap();
    assert_eq!(token.value.expose_secret(), "1|abcDEF0123456789");
    assert_eq!(token.expiry, None);
}

#[test]
fn refused_login_is_a_matter_of_credentials() {
    for response in [json(401, "{}"), json(422, "{}"), json(403, ""), redirect(302, "/login"), html(419)] {
        assert_eq!(log_in(&response).unwrap_err().kind, FaultKind::CredentialsRejected, "{response:?}");
    }
    for (status, body) in [(404, r#"{"message":"no"}"#), (400, "x"), (405, "{}")] {
        assert!(matches!(log_in(&json(status, body)).unwrap_err().kind, FaultKind::Rejected { .. }));
    }
}

#[test]
fn password_that_no_url_can_hold_is_a_clear_fault() {
    let login = |password: String| {
        let base = format!("{:x<2048}", "https://plan.claret.app/").parse().unwrap();
        let claret = Claret::new(base, &"ä".repeat(127), Some("me@example.com".into())).unwrap();
        claret.token_exchange().unwrap().request(&SecretString::from(password))
    };
    assert!(login("ä".repeat(10_000)).is_ok());
    for password in ["ä".repeat(11_000), "x".repeat(65_534), "\0".repeat(1 << 20)] {
        let message = "email and password are too long for a URL".to_owned();
        assert_eq!(login(password).unwrap_err(), FaultKind::Rejected { message }.into());
    }
}
