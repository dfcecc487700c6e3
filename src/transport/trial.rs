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
    vendors::{LONGEST_FILE_NAME, Reading, part_of_name},
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

/// Most characters of a sentence, which says at its end what to do. The words of a vendor in it
/// have a limit of their own.
const LONGEST_SENTENCE: usize = 2000;

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
        for reading in &mut readings {
            redact(reading, &secrets);
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

/// Leaves secrets out of what is found, and what is too long.
fn redact(reading: &mut Reading, secrets: &[&str]) {
    let Reading { key, found: Some(found), is_value, .. } = reading else { return };
    let in_names: Vec<String> = if key == "files" {
        let is_cut = found.chars().count() >= LONGEST_FILE_NAME;
        secrets.iter().flat_map(|secret| in_names(secret, is_cut)).collect()
    } else {
        Vec::new()
    };
    let all: Vec<&str> = secrets.iter().copied().chain(in_names.iter().map(String::as_str)).collect();
    redaction::json(found, &all);
    *found = shortened(found, if *is_value { LONGEST_VALUE } else { LONGEST_SENTENCE });
}

/// A secret as names of files have it, and its beginnings where a name may end within it.
fn in_names(secret: &str, is_cut: bool) -> Vec<String> {
    let whole = part_of_name(secret);
    let ends = whole.char_indices().map(|(end, _)| end).filter(|end| is_cut && *end >= SHORTEST_SECRET);
    let mut all: Vec<String> = ends.map(|end| whole[..end].to_owned()).collect();
    all.push(whole);
    all
}

/// One line of a value, without what changes the direction of a text.
fn shortened(text: &str, longest: usize) -> String {
    let turns =
        |c: char| matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let line = text.chars().map(|c| if c.is_control() || turns(c) { ' ' } else { c });
    let line: String = line.take(longest).collect();
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
        assert_eq!(shortened(&"a\n".repeat(100), 120), format!("{}..", "a ".repeat(60)));
        assert_eq!(shortened("a\u{202e}b", 120), "a b");
    }

    fn shown(key: &str, found: &str, is_value: bool) -> String {
        let (key, from, found) = (key.to_owned(), String::new(), Some(found.to_owned()));
        let mut reading = Reading { key, from, found, is_value, lines: Vec::new() };
        redact(&mut reading, &["hush-secret/val+77"]);
        reading.found.unwrap()
    }

    #[test]
    fn sentence_is_shown_to_its_end_and_a_value_is_not() {
        let long = "a word ".repeat(70) + "; write another";
        assert_eq!(shown("faults", &long, false), long);
        assert_eq!(shown("status.word", &long, true).chars().count(), LONGEST_VALUE + 2);
    }

    #[test]
    fn secret_in_the_name_of_a_file_is_redacted_as_the_name_has_it() {
        for secret in ["hush-secret/val+77", "hush-secret_val+77"] {
            let found = shown("files", &format!("{secret}.csv at /files/{secret}"), false);
            assert!(found.starts_with("[redacted].csv at /files/"), "{found}");
            assert!(!found.contains("hush"), "{found}");
        }
        let name: String = ("x".repeat(240) + "hush-secret_val+77").chars().take(LONGEST_FILE_NAME).collect();
        let found = shown("files", &format!("{name}#2 at /x"), false);
        assert_eq!(found, format!("{}[redacted]#2 at /x", "x".repeat(240)));
    }
}
