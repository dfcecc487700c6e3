//! What the head of a response says, before any adapter and before the body.
//!
//! | status | class |
//! | --- | --- |
//! | 200 to 299, but 204 and 205 | success: the adapter reads the body |
//! | 204, 205, below 200 | no content |
//! | 304 | not modified |
//! | a redirect to the vendor's login page, 419 where the vendor has one | credentials |
//! | other 3xx | redirect |
//! | 401 | credentials |
//! | 407 | a proxy's credentials |
//! | 403 | denied; throttled where it asks for a wait |
//! | 420, 429, 430 | throttled |
//! | 408, 421, 425, 444, 449, 460, 499, 500 and above | transient |
//! | other 4xx | other: the adapter reads what the vendor says |
//!
//! A status above 599, which HTTP does not have, counts as a 5xx (RFC 9110, section 15).
//! 421 is a misdirected request, 425 one that came too early; 460 and 499 are balancers'
//! words for a client that gave up, which this one did not; 444 is one for no response, 449 one
//! for another try, and 430 one for too many requests. Any other 4xx that asks for a wait
//! counts as throttled unless the adapter reads more from its body. No body changes what the head
//! has decided.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, header};
use url::Url;

use super::{BaseUrl, requested_wait, response};
use crate::job::{BackendFault, FaultKind, vendor_message};

/// Longest path that a fault repeats, in bytes.
const LONGEST_PATH: usize = 256;

/// What the head of a response says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The body is the answer.
    Success,
    /// There is no body, where there has to be one.
    NoContent,
    /// The response to a condition that the request did not have.
    NotModified,
    /// The same request may succeed a little later.
    Transient,
    /// Too many requests.
    Throttled,
    /// The vendor does not accept the credentials.
    Credentials,
    /// A proxy does not accept the gateway's credentials for it.
    ProxyCredentials,
    /// The credentials are accepted, and do not permit this.
    Denied,
    /// What was requested is elsewhere, or anything but the API answers.
    Redirect,
    /// The body says what is wrong.
    Other,
}

impl Class {
    /// The class of a status by itself.
    pub fn of(status: StatusCode) -> Self {
        match status.as_u16() {
            204 | 205 | ..200 => Self::NoContent,
            200..300 => Self::Success,
            304 => Self::NotModified,
            300..400 => Self::Redirect,
            401 => Self::Credentials,
            403 => Self::Denied,
            407 => Self::ProxyCredentials,
            420 | 429 | 430 => Self::Throttled,
            408 | 421 | 425 | 444 | 449 | 460 | 499 | 500.. => Self::Transient,
            400..500 => Self::Other,
        }
    }
}

/// What a response was requested with, as far as faults may name it: no query, no header, no
/// body, and no job.
#[derive(Clone, Debug)]
pub struct Asked {
    method: Method,
    uri: Uri,
    template: Option<Arc<str>>,
}

/// The path of a request, with a word in place of what names a job. An extension of the
/// requests whose path names one.
#[derive(Clone, Debug)]
pub(super) struct PathTemplate(pub(super) Arc<str>);

impl Asked {
    /// Of a request.
    pub fn of<B>(request: &Request<B>) -> Self {
        let template = request.extensions().get().map(|PathTemplate(path)| Arc::clone(path));
        Self { method: request.method().clone(), uri: request.uri().clone(), template }
    }

    fn path(&self) -> &str {
        self.template.as_deref().unwrap_or(self.uri.path())
    }

    /// A fault of a request that had no response.
    #[must_use]
    pub fn unanswered(&self, fault: BackendFault) -> BackendFault {
        BackendFault { exchange: Some(self.to_string().into()), ..fault }
    }

    /// A fault of the response with this head.
    #[must_use]
    pub fn answered(&self, fault: BackendFault, head: &Response<Bytes>) -> BackendFault {
        let page = if response::is_page(head) { ", a page in HTML" } else { "" };
        let exchange = format!("{self}: HTTP {}{page}", head.status().as_u16());
        BackendFault { exchange: Some(exchange.into()), ..fault }
    }

    /// Where a redirect leads: origin and path, with the same word in place of the job.
    fn target(&self, location: &Location) -> String {
        let Ok(url) = Url::parse(&self.uri.to_string()).and_then(|own| own.join(location.0)) else {
            return "an invalid location".to_owned();
        };
        let path = url.path().replace(self.uri.path(), self.path());
        let origin = url.origin();
        if origin.is_tuple() {
            format!("{}{}", origin.ascii_serialization(), cut(&path))
        } else {
            format!("a location with the scheme {}", cut(url.scheme()))
        }
    }
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, cut(self.path()))
    }
}

fn cut(path: &str) -> &str {
    let end = (0..=LONGEST_PATH.min(path.len())).rev().find(|end| path.is_char_boundary(*end));
    &path[..end.unwrap_or(0)]
}

/// Where a redirect leads, as the vendor wrote it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Location<'a>(&'a str);

impl<'a> Location<'a> {
    /// Of these headers; an empty one leads nowhere.
    pub(super) fn of(headers: &'a HeaderMap) -> Option<Self> {
        let location = headers.get(header::LOCATION)?.to_str().ok()?.trim();
        (!location.is_empty()).then_some(Self(location))
    }

    /// Whether it is a login page at the place of `base_url`: the scheme may differ, since a
    /// server behind TLS may not know that it is.
    pub(super) fn is_login_page(self, base_url: &BaseUrl) -> bool {
        let Ok(base) = Url::parse(base_url.as_str()) else { return false };
        let Ok(url) = base.join(self.0) else { return false };
        let is_same_port =
            url.port() == base.port() || url.port_or_known_default() == base.port_or_known_default();
        let last = url.path().trim_end_matches('/').rsplit('/').next().unwrap_or_default();
        let is_login = ["login", "signin", "sign-in", "sign_in", "log-in", "log_in"]
            .iter()
            .any(|name| last.eq_ignore_ascii_case(name));
        matches!(url.scheme(), "http" | "https") && url.host() == base.host() && is_same_port && is_login
    }
}

/// What is the vendor's own about the heads of its responses.
#[derive(Clone, Copy, Default)]
pub(super) struct HeadRules<'a> {
    /// The vendor, where it redirects those who are not logged in to a login page of its own.
    /// 419, a page that has expired, counts as such a redirect.
    pub(super) login_at: Option<&'a BaseUrl>,
    /// Of the exchange of a secret for a token: the statuses that refuse the secret, beside
    /// 401 and 403. A page in HTML does not speak for the vendor's API.
    pub(super) secret_refusals: Option<&'a [StatusCode]>,
}

impl HeadRules<'_> {
    fn class(self, head: &Response<Bytes>, wait: bool) -> Class {
        let status = head.status();
        let speaks_of_secret = |status| {
            let refusals = self.secret_refusals.filter(|_| !response::is_page(head));
            refusals.is_some_and(|refusals| status == StatusCode::FORBIDDEN || refusals.contains(&status))
        };
        let is_login = |base_url: &BaseUrl| match Class::of(status) {
            Class::Redirect => {
                let location = Location::of(head.headers());
                location.is_some_and(|location| location.is_login_page(base_url))
            }
            _ => status.as_u16() == 419,
        };
        match Class::of(status) {
            Class::Denied if wait => Class::Throttled,
            Class::Denied | Class::Other if speaks_of_secret(status) => Class::Credentials,
            _ if self.login_at.is_some_and(is_login) => Class::Credentials,
            class => class,
        }
    }

    /// The fault that the head tells, whatever the body says. `Ok` where the adapter reads
    /// the body.
    pub(super) fn judge(self, head: &Response<Bytes>) -> Result<(), BackendFault> {
        let status = head.status();
        if Class::of(status) == Class::Success {
            return Ok(());
        }
        let wait = requested_wait::of_head(status, head.headers());
        let kind = match self.class(head, wait.is_some()) {
            Class::Success | Class::Other => return Ok(()),
            Class::NoContent => FaultKind::Malformed { why: "no content" },
            Class::NotModified => {
                FaultKind::Malformed { why: "HTTP 304 though the request had no condition" }
            }
            Class::Transient => {
                FaultKind::Unavailable { why: format!("it answered HTTP {}", status.as_u16()) }
            }
            Class::Throttled => FaultKind::Throttled,
            Class::Credentials => FaultKind::CredentialsRejected,
            Class::ProxyCredentials => {
                let why = "the proxy: it rejects the gateway's credentials for it (HTTP 407)";
                FaultKind::Unreachable { why: why.to_owned() }
            }
            Class::Denied => FaultKind::Forbidden,
            Class::Redirect => FaultKind::Rejected { message: redirect(head) },
        };
        Err(kind.with_status(status).with_retry_after(wait))
    }

    /// Reads a response: the head first, then the body with `read`. Every fault has the wait
    /// that the vendor asks for, and names what was asked and what came back.
    pub(super) fn read<T>(
        self,
        response: &Response<Bytes>,
        read: impl FnOnce() -> Result<T, BackendFault>,
    ) -> Result<T, BackendFault> {
        let outcome = self.judge(response).and_then(|()| read());
        outcome.map_err(|fault| in_context(fault, response))
    }
}

/// The fault of a response, with the wait that it asks for and what was asked.
pub fn in_context(mut fault: BackendFault, response: &Response<Bytes>) -> BackendFault {
    let (status, headers) = (response.status(), response.headers());
    // An answer that is not ready yet: RFC 9110, section 15.3.3.
    if status == StatusCode::ACCEPTED && matches!(fault.kind, FaultKind::Malformed { .. }) {
        fault.kind = FaultKind::Unavailable { why: "it answered HTTP 202 without an answer yet".to_owned() };
    }
    // What the body says counts as if the status said it.
    let meant = match fault.kind {
        FaultKind::Throttled => StatusCode::TOO_MANY_REQUESTS,
        FaultKind::Unavailable { .. } => StatusCode::SERVICE_UNAVAILABLE,
        FaultKind::Forbidden => StatusCode::FORBIDDEN,
        _ => status,
    };
    let of_head = || requested_wait::of_head(meant, headers);
    fault.retry_after = fault.retry_after.or_else(of_head);
    if fault.retry_after.is_none() {
        fault.retry_after = requested_wait::of_body(headers, response.body());
    }
    // A vendor that asks for a wait says that the same request may succeed after it.
    let is_refused = match fault.kind {
        FaultKind::Forbidden => true,
        FaultKind::Rejected { .. } => !status.is_redirection(),
        _ => false,
    };
    if is_refused && fault.retry_after.is_some() {
        fault.kind = FaultKind::Throttled;
    }
    match response.extensions().get::<Asked>() {
        Some(asked) => asked.answered(fault, response),
        None => fault,
    }
}

/// A redirect in words: the status, and where it leads.
fn redirect<B>(head: &Response<B>) -> String {
    let status = head.status().as_u16();
    let target = match (Location::of(head.headers()), head.extensions().get::<Asked>()) {
        (None, _) => return format!("a redirect (HTTP {status}) without a location"),
        (Some(location), Some(asked)) => asked.target(&location),
        (Some(location), None) => match Url::parse(location.0) {
            Ok(url) if url.origin().is_tuple() => {
                format!("{}{}", url.origin().ascii_serialization(), cut(url.path()))
            }
            Ok(_) => "another scheme".to_owned(),
            Err(_) => cut(location.0.split(['?', '#']).next().unwrap_or_default()).to_owned(),
        },
    };
    vendor_message(&format!("a redirect (HTTP {status}) to {target}"))
}

#[cfg(test)]
mod tests;
