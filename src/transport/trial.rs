//! One poll of one job, with what was sent and how the answer was read, for people who
//! write a definition.

use bytes::Bytes;
use http::{HeaderName, Request, Response, Uri, header};

use super::{
    Endpoint, Permit,
    credentials::Purpose,
    probe::has_answered,
    redaction,
    response_body::{CORRUPT, Partial},
};
use crate::{
    job::{BackendFault, FaultKind, JobRef},
    vendors::Reading,
};

const REDACTED: &str = "[redacted]";

/// Most characters of the content of a request.
const LONGEST: usize = 400;

/// Fewest characters of a secret that can be kept out of what is shown: a shorter one stands
/// within other words, where what is left of them gives it away.
const SHORTEST_SECRET: usize = 4;

/// Fewest characters of the value of a header that is redacted wherever it stands.
const SHORTEST_VALUE: usize = 8;

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
        if self.credentials.has_secret_below(SHORTEST_SECRET) {
            let text = format!(
                "a secret of credentials has fewer than {SHORTEST_SECRET} characters, too few to keep it out of what \
                 is shown; give a longer one, since words with gaps would show it"
            );
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
        let mut secrets = authorization.secrets();
        let own = http.own_headers().filter_map(|(_, value)| value.to_str().ok());
        secrets.extend(own.filter(|value| value.len() >= SHORTEST_VALUE));
        let clean = |text: &str| {
            let mut text = text.to_owned();
            redaction::text(&mut text, &secrets);
            text
        };
        let shown = shown(&plain, &request, http.own_headers().map(|(name, _)| name), &clean);
        let (response, _room) =
            http.send(request, &mut permit).await.map_err(|fault| self.trial_failure("", &fault))?;
        let Some((mut readings, is_understood)) = adapter.readings(job, &response) else {
            let text = "this vendor is built in and has no definition to read the answer by";
            return Err(TrialFailure::Usage(text.to_owned()));
        };
        let head = head(&response, &clean);
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
            // A head whose body does not come is no answer either.
            FaultKind::Unavailable { ref why }
                if !has_answered || fault.http_status.is_none() && why != CORRUPT =>
            {
                TrialFailure::NoAnswer(text)
            }
            _ => TrialFailure::Fault(text),
        }
    }
}

/// A request, with names in place of the credentials and of the values of the backend's own
/// headers. `clean` redacts what may hold a secret; the words of this program hold none.
fn shown<'a>(
    plain: &Request<Bytes>,
    sent: &Request<Bytes>,
    own: impl Iterator<Item = &'a HeaderName>,
    clean: &dyn Fn(&str) -> String,
) -> Vec<String> {
    let origin = |uri: &Uri| {
        let port = uri.port_u16().map(|port| format!(":{port}")).unwrap_or_default();
        format!("{}://{}{port}", uri.scheme_str().unwrap_or("http"), uri.host().unwrap_or_default())
    };
    let target = plain.uri().path_and_query().map_or("/", |target| target.as_str());
    let mut lines = vec![format!("{} {} at {}", plain.method(), clean(target), clean(&origin(plain.uri())))];
    for (name, value) in plain.headers() {
        let value = value.to_str().ok().filter(|_| !value.is_sensitive());
        lines.push(format!("{name}: {}", value.map_or(REDACTED.to_owned(), clean)));
    }
    let added = sent.headers().keys().filter(|name| !plain.headers().contains_key(*name));
    lines.extend(added.map(|name| format!("{name}: {REDACTED}")));
    // Those of the request come first.
    let own = own.filter(|name| !sent.headers().contains_key(*name));
    lines.extend(own.map(|name| format!("{name}: {REDACTED} (headers of the backend)")));
    if plain.uri() != sent.uri() {
        lines.push(format!("a parameter of the query: {REDACTED}"));
    }
    if !plain.body().is_empty() {
        // The whole, before it is cut: the beginning of a secret is one, too.
        lines.push(clean(&String::from_utf8_lossy(plain.body())).chars().take(LONGEST).collect());
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

/// What the head of an answer says of its content, and how much of that is read.
fn head(response: &Response<Bytes>, clean: &dyn Fn(&str) -> String) -> String {
    let kind = response.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let kind = kind.map_or("no content type".to_owned(), clean);
    let bytes = match response.extensions().get::<Partial>() {
        None => format!("{} bytes", response.body().len()),
        Some(partial) => {
            format!("{} bytes are read of its content: {}", response.body().len(), partial.text())
        }
    };
    format!("HTTP {}, {kind}, {bytes}", response.status().as_u16())
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
