//! One poll of one job, with what was sent and how the answer was read, for people who
//! write a definition.

use bytes::Bytes;
use http::{Request, Response, Uri, header};

use super::{Endpoint, Permit, credentials::Purpose, probe::has_answered, redaction};
use crate::{
    job::{BackendFault, FaultKind, JobRef},
    vendors::Reading,
};

const REDACTED: &str = "[redacted]";

/// Most characters of the content of a request.
const LONGEST: usize = 400;

/// Most characters of a value.
const LONGEST_VALUE: usize = 120;

/// A poll, without the backend's secrets.
#[derive(Clone, Debug)]
pub struct Trial {
    /// The request: its first line, then its headers, then its content.
    pub request: Vec<String>,
    /// The status line of the answer, and what its head says of the content.
    pub response: String,
    /// How each field is read.
    pub readings: Vec<Reading>,
    /// Whether the answer is a status with a known word.
    pub is_understood: bool,
}

/// Why a trial shows nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TrialFailure {
    /// No request was sent: there is no such backend or job id, or the vendor is built in.
    Usage(String),
    /// The vendor answers, and not with anything that could be read.
    Fault(String),
    /// The vendor does not answer.
    NoAnswer(String),
}

impl Endpoint {
    /// Polls a job once, at the first cluster. Consumes `permit`.
    ///
    /// # Errors
    /// Why there is no answer, for people.
    pub async fn try_poll(&self, job_id: &str, mut permit: Permit) -> Result<Trial, TrialFailure> {
        let job = &JobRef::new("try", job_id);
        if let Err(invalid) = self.adapter.check(job) {
            let text = format!("{:?} is no id of a job: it {invalid}", job.id);
            return Err(TrialFailure::Usage(text));
        }
        let (adapter, http) = (&*self.adapter, &*self.http);
        let authorization = self.credentials.authorization(adapter, http, Purpose::Poll, &mut permit).await;
        let authorization =
            authorization.map_err(|fault| self.trial_failure("no credentials to send: ", &fault))?;
        let plain = adapter.request(std::slice::from_ref(job));
        let mut request = plain.clone();
        let header = authorization.header.clone();
        if let Some(value) = header {
            adapter.authorize(&mut request, value);
        }
        let mut shown = shown(&plain, &request);
        let (response, _room) =
            http.send(request, &mut permit).await.map_err(|fault| self.trial_failure("", &fault))?;
        let Some((mut readings, is_understood)) = adapter.readings(job, &response) else {
            let text = "this vendor is built in and has no definition to read the answer by";
            return Err(TrialFailure::Usage(text.to_owned()));
        };
        let secrets = authorization.secrets();
        let mut head = head(&response);
        for line in shown.iter_mut().chain([&mut head]) {
            redaction::text(line, &secrets);
        }
        // Whole values, before they are cut: the beginning of a secret is one, too.
        for found in readings.iter_mut().filter_map(|reading| reading.found.as_mut()) {
            redaction::json(found, &secrets);
            *found = shortened(found);
        }
        Ok(Trial { request: shown, response: head, readings, is_understood })
    }

    /// A fault with what to do about it.
    fn trial_failure(&self, what: &str, fault: &BackendFault) -> TrialFailure {
        let advice = self.settings.advice(fault);
        let text = format!("{what}{fault}; {advice}");
        let has_answered = has_answered(fault);
        match fault.kind {
            FaultKind::Unreachable { .. } | FaultKind::Overloaded => TrialFailure::NoAnswer(text),
            FaultKind::Unavailable { .. } if !has_answered => TrialFailure::NoAnswer(text),
            _ => TrialFailure::Fault(text),
        }
    }
}

/// A request, with names in place of the credentials.
fn shown(plain: &Request<Bytes>, sent: &Request<Bytes>) -> Vec<String> {
    let origin = |uri: &Uri| {
        let port = uri.port_u16().map(|port| format!(":{port}")).unwrap_or_default();
        format!("{}://{}{port}", uri.scheme_str().unwrap_or("http"), uri.host().unwrap_or_default())
    };
    let target = plain.uri().path_and_query().map_or("/", |target| target.as_str());
    let mut lines = vec![format!("{} {target} at {}", plain.method(), origin(plain.uri()))];
    for (name, value) in plain.headers() {
        let value = if value.is_sensitive() { REDACTED } else { value.to_str().unwrap_or(REDACTED) };
        lines.push(format!("{name}: {value}"));
    }
    for name in sent.headers().keys().filter(|name| !plain.headers().contains_key(*name)) {
        lines.push(format!("{name}: {REDACTED}"));
    }
    if plain.uri() != sent.uri() {
        lines.push(format!("a parameter of the query: {REDACTED}"));
    }
    if !plain.body().is_empty() {
        lines.push(String::from_utf8_lossy(plain.body()).chars().take(LONGEST).collect());
    }
    lines
}

/// One line of a value, without what changes the direction of a text.
fn shortened(text: &str) -> String {
    let turns =
        |c: char| matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let line = text.chars().map(|c| if c.is_control() || turns(c) { ' ' } else { c });
    let line: String = line.take(LONGEST_VALUE).collect();
    if line.chars().count() < text.chars().count() { format!("{line}..") } else { line }
}

fn head(response: &Response<Bytes>) -> String {
    let kind = response.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    format!(
        "HTTP {}, {}, {} bytes",
        response.status().as_u16(),
        kind.unwrap_or("no content type"),
        response.body().len()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_value_is_shortened_to_one_line() {
        assert_eq!(shortened(&"a\n".repeat(100)), format!("{}..", "a ".repeat(60)));
        assert_eq!(shortened("a\u{202e}b"), "a b");
    }
}
