//! What an error of GraphQL is about, by its extensions.
//!
//! The specification fixes no codes, and servers write them in several places: `code`
//! (Apollo), `type` (Datasaur's own client reads it), `classification` (graphql-java),
//! `errorType` (DGS, AppSync), and the HTTP status of what failed behind the server. Some
//! write them beside `message` instead of in the extensions, or in the objects that describe
//! what failed behind the server.

use http::StatusCode;

use crate::vendors::{
    classification::Class,
    json::{self, Object, Value},
};

/// What an error is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ErrorClass {
    /// The token is not accepted.
    Credentials,
    /// The account may not do this.
    Forbidden,
    /// Too many requests.
    Throttled,
    /// The server, or one behind it, is not well.
    Unavailable,
    /// Anything failed in the server: what a resolver throws is called so, too.
    Internal,
    /// What was requested does not exist.
    NotFound,
    /// Anything else.
    Other,
}

const WORDS: &[(&str, ErrorClass)] = &[
    ("unauthenticated", ErrorClass::Credentials),
    ("unauthorized", ErrorClass::Credentials),
    ("authentication", ErrorClass::Credentials),
    ("authenticationrequired", ErrorClass::Credentials),
    ("authenticationfailed", ErrorClass::Credentials),
    ("notauthenticated", ErrorClass::Credentials),
    ("invalidtoken", ErrorClass::Credentials),
    ("tokenexpired", ErrorClass::Credentials),
    ("expiredtoken", ErrorClass::Credentials),
    ("forbidden", ErrorClass::Forbidden),
    ("authorization", ErrorClass::Forbidden),
    ("permissiondenied", ErrorClass::Forbidden),
    ("accessdenied", ErrorClass::Forbidden),
    ("ratelimited", ErrorClass::Throttled),
    ("ratelimit", ErrorClass::Throttled),
    ("ratelimitexceeded", ErrorClass::Throttled),
    ("ratelimitreached", ErrorClass::Throttled),
    ("requestratelimited", ErrorClass::Throttled),
    ("throttled", ErrorClass::Throttled),
    ("throttling", ErrorClass::Throttled),
    ("throttle", ErrorClass::Throttled),
    ("requestthrottled", ErrorClass::Throttled),
    ("toomanyrequests", ErrorClass::Throttled),
    ("limitexceeded", ErrorClass::Throttled),
    ("quotaexceeded", ErrorClass::Throttled),
    ("resourceexhausted", ErrorClass::Throttled),
    ("serviceunavailable", ErrorClass::Unavailable),
    ("servicetemporarilyunavailable", ErrorClass::Unavailable),
    ("temporarilyunavailable", ErrorClass::Unavailable),
    ("unavailable", ErrorClass::Unavailable),
    ("timeout", ErrorClass::Unavailable),
    ("timedout", ErrorClass::Unavailable),
    ("gatewaytimeout", ErrorClass::Unavailable),
    ("requesttimeout", ErrorClass::Unavailable),
    ("querytimeout", ErrorClass::Unavailable),
    ("executiontimeout", ErrorClass::Unavailable),
    ("operationtimeout", ErrorClass::Unavailable),
    ("upstreamtimeout", ErrorClass::Unavailable),
    ("deadlineexceeded", ErrorClass::Unavailable),
    ("badgateway", ErrorClass::Unavailable),
    ("gateway", ErrorClass::Unavailable),
    ("overloaded", ErrorClass::Unavailable),
    ("serveroverloaded", ErrorClass::Unavailable),
    ("downstreamservice", ErrorClass::Unavailable),
    ("upstream", ErrorClass::Unavailable),
    ("subrequesthttp", ErrorClass::Unavailable),
    ("maintenance", ErrorClass::Unavailable),
    ("internalserver", ErrorClass::Internal),
    ("internal", ErrorClass::Internal),
    ("server", ErrorClass::Internal),
    ("executionaborted", ErrorClass::Internal),
    ("notfound", ErrorClass::NotFound),
];

/// What a word about an outage has in it or at its end, whatever stands before: the list of
/// words is open.
const THROTTLES: &[&str] = &["ratelimit", "throttl", "toomanyrequests", "quotaexceeded"];
const OUTAGES: &[&str] = &["timeout", "timedout", "unavailable", "overloaded", "unreachable"];
/// What Node.js says of a connection to a server behind this one.
const SOCKETS: &[&str] = &["econnrefused", "econnreset", "econnaborted", "ehostunreach", "epipe", "eaiagain"];

/// The objects in `extensions` that may hold a code or an HTTP status.
const ANSWERS: &[&str] = &["http", "exception", "response", "originalError", "error", "cause", "details"];
const STATUSES: &[&str] = &["status", "statusCode", "status_code", "httpStatus", "httpStatusCode"];
const CODES: &[&str] = &["code", "type", "classification", "errorType", "errorCode"];

impl ErrorClass {
    /// Of one error's message and members.
    pub(super) fn of(message: &str, error: &Object<'_>) -> Self {
        match message.trim() {
            "Unauthorized" => return Self::Credentials,
            "Forbidden" => return Self::Forbidden,
            _ => {}
        }
        let extensions = error.get("extensions").and_then(Object::of);
        let extension = |name: &&str| extensions.as_ref()?.get(name);
        let within: Vec<Object<'_>> = ANSWERS.iter().filter_map(extension).filter_map(Object::of).collect();
        let places = || extensions.iter().chain([error]).chain(&within);
        let of = |names: &'static [&'static str]| {
            places().flat_map(move |place| names.iter().filter_map(|name| place.get(name)))
        };
        let all = of(CODES).map(Self::of_code).chain(of(STATUSES).map(Self::of_status));
        all.min_by_key(|class| class.vagueness()).unwrap_or_else(|| Self::of_phrase(message))
    }

    /// The most telling of several places counts, the first of equals.
    fn vagueness(self) -> u8 {
        match self {
            Self::Other => 2,
            Self::Internal => 1,
            _ => 0,
        }
    }

    /// A word in any case, or a number that is an HTTP status. graphql-java's classification
    /// may be an object that has it as its `type`.
    fn of_code(code: Value<'_>) -> Self {
        let code = match Object::of(code) {
            Some(object) => object.text("type").unwrap_or_default(),
            None => json::plain(code),
        };
        let word: String = code.chars().filter(char::is_ascii_alphanumeric).collect();
        let word = word.to_ascii_lowercase();
        if let Ok(status) = word.parse::<u16>() {
            return Self::of_number(status);
        }
        let stem =
            ["exception", "error", "err"].iter().find_map(|end| word.strip_suffix(end)).unwrap_or(&word);
        match WORDS.iter().find(|(known, _)| *known == stem) {
            Some((_, class)) => *class,
            None if THROTTLES.iter().any(|part| stem.contains(part)) => Self::Throttled,
            None if OUTAGES.iter().any(|end| stem.ends_with(end)) || SOCKETS.contains(&&*word) => {
                Self::Unavailable
            }
            None => Self::Other,
        }
    }

    /// A message that is nothing but the reason phrase of an outage, where no code is.
    fn of_phrase(message: &str) -> Self {
        const PHRASES: &[&str] = &[
            "too many requests",
            "rate limit exceeded",
            "internal server error",
            "bad gateway",
            "service unavailable",
            "gateway timeout",
            "request timeout",
        ];
        let phrase = message.trim().trim_end_matches(['.', '!']).to_ascii_lowercase();
        if PHRASES.contains(&&*phrase) {
            let word: String = phrase.split(' ').collect();
            let stem = word.strip_suffix("error").unwrap_or(&word);
            return WORDS.iter().find(|(known, _)| *known == stem).map_or(Self::Other, |(_, class)| *class);
        }
        Self::Other
    }

    fn of_status(status: Value<'_>) -> Self {
        json::plain(status).trim().parse().map_or(Self::Other, Self::of_number)
    }

    fn of_number(status: u16) -> Self {
        let Ok(status) = StatusCode::from_u16(status) else { return Self::Other };
        match Class::of(status) {
            Class::Credentials => Self::Credentials,
            Class::Denied => Self::Forbidden,
            Class::Throttled => Self::Throttled,
            Class::Transient if status == StatusCode::INTERNAL_SERVER_ERROR => Self::Internal,
            Class::Transient => Self::Unavailable,
            _ if status == StatusCode::NOT_FOUND => Self::NotFound,
            _ => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(error: &str) -> ErrorClass {
        let error = Object::of(Value::new(error)).unwrap();
        ErrorClass::of(&error.text("message").unwrap_or_default(), &error)
    }

    fn of_extensions(extensions: &str) -> ErrorClass {
        class(&format!(r#"{{"message":"x","extensions":{extensions}}}"#))
    }

    #[test]
    fn code_in_any_case_and_form_has_its_class() {
        for (code, expected) in [
            ("INTERNAL_SERVER_ERROR", ErrorClass::Internal),
            ("InternalServerError", ErrorClass::Internal),
            ("SERVICE_UNAVAILABLE", ErrorClass::Unavailable),
            ("service-unavailable", ErrorClass::Unavailable),
            ("ServiceUnavailableException", ErrorClass::Unavailable),
            ("TIMEOUT", ErrorClass::Unavailable),
            ("TimeoutError", ErrorClass::Unavailable),
            ("Gateway Timeout", ErrorClass::Unavailable),
            ("BAD_GATEWAY", ErrorClass::Unavailable),
            ("RATE_LIMITED", ErrorClass::Throttled),
            ("rate_limited", ErrorClass::Throttled),
            ("THROTTLED", ErrorClass::Throttled),
            ("TOO_MANY_REQUESTS", ErrorClass::Throttled),
            ("UNAUTHENTICATED", ErrorClass::Credentials),
            ("AuthenticationError", ErrorClass::Credentials),
            ("FORBIDDEN", ErrorClass::Forbidden),
            ("AuthorizationError", ErrorClass::Forbidden),
            ("NOT_FOUND", ErrorClass::NotFound),
            ("NotFoundError", ErrorClass::NotFound),
            ("RATE_LIMIT_HIT", ErrorClass::Throttled),
            ("API_THROTTLED_REQUEST", ErrorClass::Throttled),
            ("ThrottledException", ErrorClass::Throttled),
            ("DATABASE_TIMEOUT", ErrorClass::Unavailable),
            ("BACKEND_UNAVAILABLE", ErrorClass::Unavailable),
            ("UPSTREAM_TIMED_OUT", ErrorClass::Unavailable),
            ("ECONNREFUSED", ErrorClass::Unavailable),
            ("ETIMEDOUT", ErrorClass::Unavailable),
            ("EAI_AGAIN", ErrorClass::Unavailable),
            ("503", ErrorClass::Unavailable),
            ("429", ErrorClass::Throttled),
            ("401", ErrorClass::Credentials),
            ("500", ErrorClass::Internal),
            ("BAD_USER_INPUT", ErrorClass::Other),
            ("GRAPHQL_VALIDATION_FAILED", ErrorClass::Other),
            ("", ErrorClass::Other),
        ] {
            for name in CODES {
                let member = format!(r#""{name}":"{code}""#);
                assert_eq!(of_extensions(&format!("{{{member}}}")), expected, "{member}");
                assert_eq!(class(&format!(r#"{{"message":"x",{member}}}"#)), expected, "{member}");
                for place in ANSWERS {
                    assert_eq!(
                        of_extensions(&format!(r#"{{"{place}":{{{member}}}}}"#)),
                        expected,
                        "{member}"
                    );
                }
            }
        }
    }

    #[test]
    fn status_of_what_failed_behind_the_server_counts() {
        for (extensions, expected) in [
            (r#"{"http":{"status":503}}"#, ErrorClass::Unavailable),
            (r#"{"http":{"status":"429"}}"#, ErrorClass::Throttled),
            (r#"{"exception":{"status":502}}"#, ErrorClass::Unavailable),
            (r#"{"exception":{"statusCode":401}}"#, ErrorClass::Credentials),
            (r#"{"response":{"status":504,"body":"x"}}"#, ErrorClass::Unavailable),
            (r#"{"statusCode":403}"#, ErrorClass::Forbidden),
            (r#"{"code":503}"#, ErrorClass::Unavailable),
            (r#"{"code":"INTERNAL_SERVER_ERROR","http":{"status":429}}"#, ErrorClass::Throttled),
            (r#"{"code":"INTERNAL_SERVER_ERROR","exception":{"status":400}}"#, ErrorClass::Internal),
            (r#"{"classification":{"type":"ServiceUnavailable"}}"#, ErrorClass::Unavailable),
            (r#"{"http":{"status":200}}"#, ErrorClass::Other),
            (r#"{"http":503,"code":[],"type":{}}"#, ErrorClass::Other),
            ("[]", ErrorClass::Other),
        ] {
            assert_eq!(of_extensions(extensions), expected, "{extensions}");
        }
        assert_eq!(class(r#"{"message":"Unauthorized"}"#), ErrorClass::Credentials);
        assert_eq!(class(r#"{"errorType":"ThrottlingException"}"#), ErrorClass::Throttled);
        assert_eq!(class(r#"{"message":"x","status":503}"#), ErrorClass::Unavailable);
    }

    #[test]
    fn message_without_a_code_counts_if_it_is_a_reason_phrase() {
        for (message, expected) in [
            ("Too Many Requests", ErrorClass::Throttled),
            ("Rate limit exceeded.", ErrorClass::Throttled),
            ("Internal server error", ErrorClass::Internal),
            ("Service Unavailable", ErrorClass::Unavailable),
            ("502 Bad Gateway of job 7", ErrorClass::Other),
            ("timeout", ErrorClass::Other),
            ("Not Found", ErrorClass::Other),
        ] {
            assert_eq!(class(&format!(r#"{{"message":"{message}"}}"#)), expected, "{message}");
        }
        assert_eq!(
            class(r#"{"message":"Service Unavailable","extensions":{"code":"BAD_USER_INPUT"}}"#),
            ErrorClass::Other
        );
    }
}
