//! What is fed any bytes at all, and what has to hold whatever they are.
//!
//! Each target is a function that panics where a promise is broken. `fuzz/` feeds
//! them with cargo-fuzz; `cargo test` feeds each with its seeds and some thousand
//! mutations of them.
//!
//! The input of an adapter or an exchange is one byte each for the HTTP status,
//! the content type and the number of jobs, then the body; letters and digits
//! stand for the choices that matter, so that the seeds can be read.

use std::num::NonZeroUsize;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use secrecy::ExposeSecret;
use serde_json::{Value, value::RawValue};

use crate::{
    job::{
        BackendFault, ContentType, FaultKind, Fingerprint, InvalidResumeToken, JobFault, JobRef, Observation,
        Observed, ObserverId, ResumeToken,
    },
    vendors::{
        Adapter, BaseUrl, Claret, ClientAuth, Datasaur, Encoding, Immuta, Kinetica, Observations, Token,
        comparable_fault, comparable_pair, observations,
    },
};

mod declared;
mod same;
mod transfer;

#[cfg(test)]
mod tests;

pub use crate::cluster::fuzzing::session_messages;
pub use declared::{declared, definition};
pub use transfer::{content_coding, requested_wait};

/// A function that takes any bytes and panics where a promise is broken.
pub type Target = fn(&[u8]);

/// Every target by its name.
pub const TARGETS: [(&str, Target); 15] = [
    ("immuta", immuta),
    ("kinetica", kinetica),
    ("kinetica_binary", kinetica_binary),
    ("claret", claret),
    ("datasaur", datasaur),
    ("immuta_token", immuta_token),
    ("claret_token", claret_token),
    ("datasaur_token", datasaur_token),
    ("resume_token", resume_token),
    ("job_ref", job_ref),
    ("requested_wait", transfer::requested_wait),
    ("content_coding", transfer::content_coding),
    ("session_messages", session_messages),
    ("definition", declared::definition),
    ("declared", declared::declared),
];

/// Of the letters a to z; any other byte is a status too.
const STATUSES: [u16; 26] = [
    200, 201, 202, 203, 204, 206, 300, 301, 302, 304, 400, 401, 402, 403, 404, 405, 409, 410, 419, 422, 429,
    500, 502, 503, 504, 999,
];
/// Of the letters a to g; the empty one is none at all.
const CONTENT_TYPES: [&str; 7] = [
    "application/json",
    "",
    "text/html; charset=UTF-8",
    "text/plain",
    "application/problem+json",
    ";",
    "application/octet-stream",
];

/// Immuta's responses.
pub fn immuta(input: &[u8]) {
    poll(&Vendor::immuta(), input);
}

/// Kinetica's responses.
pub fn kinetica(input: &[u8]) {
    poll(&Vendor::kinetica(Encoding::Json), input);
}

/// Kinetica's responses in Avro binary.
pub fn kinetica_binary(input: &[u8]) {
    poll(&Vendor::kinetica(Encoding::Binary), input);
}

/// Claret's responses.
pub fn claret(input: &[u8]) {
    poll(&Vendor::claret(), input);
}

/// Datasaur's responses.
pub fn datasaur(input: &[u8]) {
    poll(&Vendor::datasaur(), input);
}

/// The answer to Immuta's token exchange.
pub fn immuta_token(input: &[u8]) {
    exchange(&Vendor::immuta(), input);
}

/// The answer to Claret's login.
pub fn claret_token(input: &[u8]) {
    exchange(&Vendor::claret(), input);
}

/// The answer to Datasaur's OAuth exchange.
pub fn datasaur_token(input: &[u8]) {
    exchange(&Vendor::datasaur(), input);
}

/// An adapter, and how its jobs are named.
struct Vendor {
    adapter: Box<dyn Adapter>,
    ids: [&'static str; 4],
    /// The member of a job's own object that names the job.
    id_member: Option<&'static str>,
    is_graphql: bool,
    /// The definition that says the same of every response.
    declared: Option<&'static dyn Adapter>,
}

impl Vendor {
    fn immuta() -> Self {
        let adapter = Immuta::new(base_url(), batch(), true);
        Self {
            adapter: Box::new(adapter),
            ids: ["a", "b", "7", "d"],
            id_member: Some("id"),
            is_graphql: false,
            declared: Some(same::immuta()),
        }
    }

    fn kinetica(encoding: Encoding) -> Self {
        let adapter = Kinetica::new(base_url(), encoding);
        Self {
            adapter: Box::new(adapter),
            ids: ["7", "8", "-9", "4611686018427387907"],
            id_member: None,
            is_graphql: false,
            declared: (encoding == Encoding::Json).then(same::kinetica),
        }
    }

    fn claret() -> Self {
        let adapter =
            Claret::new(base_url(), "demo", Some("me@example.com".into())).expect("demo is a good tenant");
        Self {
            adapter: Box::new(adapter),
            ids: ["7", "8", "9", "12345"],
            id_member: Some("job_log_id"),
            is_graphql: false,
            declared: Some(same::claret()),
        }
    }

    fn datasaur() -> Self {
        let adapter = Datasaur::new(base_url(), batch(), Some(("id".into(), ClientAuth::Form)));
        Self {
            adapter: Box::new(adapter),
            ids: ["a", "b", "7", "Queue:d"],
            id_member: Some("id"),
            is_graphql: true,
            declared: Some(same::datasaur()),
        }
    }

    /// Reads the response to a poll of `jobs`, and holds it to what is true of every one.
    fn read(&self, jobs: &[JobRef], response: &Response<Bytes>) -> Observations {
        let observations = observations(&*self.adapter, jobs, response);
        let most = self.adapter.capabilities().max_batch.get();
        // A poll is of one job at least.
        if let Some(declared) = self.declared.filter(|_| (1..=most).contains(&jobs.len())) {
            let said = super::vendors::observations(declared, jobs, response);
            let [by_hand, declared] = comparable_pair(observations.clone(), said);
            assert_eq!(declared, by_hand, "the definition says the same");
        }
        match &observations {
            Err(fault) => check_fault(fault, response.status()),
            Ok(answers) => {
                assert_eq!(answers.len(), jobs.len(), "one answer a job");
                for (job, answer) in jobs.iter().zip(answers) {
                    match answer {
                        Ok(observation) => {
                            let status = response.status();
                            // GraphQL has data beside its errors.
                            let has_data = self.is_graphql && status.is_client_error();
                            assert!(status.is_success() || has_data, "a refusal is no observation");
                            self.check_observation(job, observation);
                        }
                        Err(JobFault::Invalid { message }) => check_message(message),
                        Err(
                            JobFault::NotFound
                            | JobFault::Forbidden
                            | JobFault::Malformed { .. }
                            | JobFault::Standby(_),
                        ) => {}
                    }
                }
            }
        }
        observations
    }

    fn check_observation(&self, job: &JobRef, observation: &Observation) {
        let is_json = |bytes: &[u8]| serde_json::from_slice::<&RawValue>(bytes).is_ok();
        assert!(is_json(&observation.vendor_payload), "a payload is JSON");
        if let Some(result) = &observation.result {
            let is_text = std::str::from_utf8(&result.data).is_ok();
            assert!(is_text || result.content_type == ContentType::Avro, "a result is UTF-8 or Avro");
        }
        if let Some(error) = &observation.error {
            assert!(error.details.is_empty() || is_json(&error.details), "details are JSON");
        }
        // Read by other code than the adapter's, which knows less: no deep nesting,
        // no lone surrogates, no integers past 64 bits.
        let payload: Option<Value> = serde_json::from_slice(&observation.vendor_payload).ok();
        let own = self.id_member.and_then(|name| payload?.get(name).cloned());
        match own {
            Some(Value::String(own)) => assert_eq!(*own, *job.id, "a job's answer is its own"),
            Some(Value::Number(own)) if !own.is_f64() => {
                assert_eq!(own.to_string(), *job.id, "a job's answer is its own");
            }
            _ => {}
        }
    }
}

fn poll(vendor: &Vendor, input: &[u8]) {
    let Some((response, count)) = response(input) else { return };
    let mut jobs: Vec<JobRef> = vendor.ids[..count].iter().map(|id| JobRef::new("backend", *id)).collect();
    let there = vendor.read(&jobs, &response);
    if vendor.adapter.capabilities().max_batch.get() < jobs.len() {
        return;
    }
    // What is said of a job rests on the response, not on what else was polled.
    jobs.reverse();
    let back = vendor.read(&jobs, &response);
    let (Ok(there), Ok(back)) = (there, back) else { return };
    for (one, other) in there.iter().zip(back.iter().rev()) {
        assert_eq!(one.as_ref().ok(), other.as_ref().ok(), "the order of the jobs changes nothing");
    }
}

fn exchange(vendor: &Vendor, input: &[u8]) {
    let Some((response, _)) = response(input) else { return };
    let exchange = vendor.adapter.token_exchange().expect("this vendor was given something to trade");
    let token = exchange.interpret(&response);
    if let Some(exchange) = vendor.declared.and_then(|declared| declared.token_exchange()) {
        let parts = |token: &Result<Token, BackendFault>| match token {
            Ok(Token { value, expiry }) => Ok((value.expose_secret().to_owned(), *expiry)),
            Err(fault) => Err(comparable_fault(fault.clone())),
        };
        assert_eq!(parts(&exchange.interpret(&response)), parts(&token), "the definition says the same");
    }
    match token {
        Ok(token) => {
            assert!(response.status().is_success(), "a refusal has no token");
            let header = format!("Bearer {}", token.value.expose_secret());
            assert!(header.len() > 7 && HeaderValue::from_str(&header).is_ok(), "a token fits into a header");
        }
        Err(fault) => check_fault(&fault, response.status()),
    }
}

/// A resume token that is not as it was issued is refused, whatever was done to
/// it. Input: fingerprint, observer, sequence, then pairs of an index in the token
/// and the byte to write there, or a whole text to read.
pub fn resume_token(input: &[u8]) {
    let job = JobRef::new("backend", "job").with_tag("tag");
    let other = JobRef::new("backend", "job");
    let read = |text: &str| match ResumeToken::decode(text, &job) {
        Ok(token) => {
            let written = token.encode(&job);
            assert_eq!(ResumeToken::decode(&written, &job), Ok(token));
            // Tokens of version 1 have no observer, and are written in version 2.
            assert!(token.observed.is_none() || written == text, "only what was written can be read");
            assert_eq!(ResumeToken::decode(text, &other), Err(InvalidResumeToken::OtherJob));
        }
        Err(InvalidResumeToken::Unreadable | InvalidResumeToken::OtherJob) => {}
    };
    if let Ok(text) = std::str::from_utf8(input) {
        read(text);
    }
    let Some((fingerprint, rest)) = input.split_first_chunk() else { return };
    let Some((observer, rest)) = rest.split_first_chunk() else { return };
    let Some((sequence, changes)) = rest.split_first_chunk() else { return };
    let observer = ObserverId(u64::from_le_bytes(*observer));
    let token = ResumeToken {
        fingerprint: Fingerprint(u64::from_le_bytes(*fingerprint)),
        observed: Some(Observed { observer, sequence: u64::from_le_bytes(*sequence) }),
    };
    let mut text = token.encode(&job).into_bytes();
    assert_eq!(ResumeToken::decode(&String::from_utf8_lossy(&text), &job), Ok(token));
    for change in changes.chunks_exact(2) {
        let at = usize::from(change[0]) % text.len();
        text[at] = change[1];
    }
    read(&String::from_utf8_lossy(&text));
}

/// A job ref that passes a vendor's check is asked for exactly as it is. Input: a
/// byte for the length of the tag (0 is none), the tag, the id.
pub fn job_ref(input: &[u8]) {
    let Some((length, rest)) = input.split_first() else { return };
    let (tag, id) = rest.split_at(usize::from(*length).min(rest.len()));
    let mut job = JobRef::new("backend", &*String::from_utf8_lossy(id));
    if *length > 0 {
        job = job.with_tag(&*String::from_utf8_lossy(tag));
    }
    for vendor in [Vendor::immuta(), Vendor::kinetica(Encoding::Json), Vendor::claret(), Vendor::datasaur()] {
        if let Err(invalid) = vendor.adapter.check(&job) {
            assert!(matches!(invalid.field, "job_id" | "job_tag"));
            assert!(!invalid.reason.is_empty());
            continue;
        }
        assert!((1..=512).contains(&job.id.len()) && !job.id.contains(char::is_control));
        let request = vendor.adapter.request(std::slice::from_ref(&job));
        let path = request.uri().path();
        assert!(request.uri().query().is_none() && path.starts_with("/base/"));
        let asked = match serde_json::from_slice::<Value>(request.body()) {
            Ok(body) => [&body["jobIds"][0], &body["job_id"], &body["variables"]["jobIds"][0]]
                .into_iter()
                .find(|id| !id.is_null())
                .map(|id| id.as_str().map_or_else(|| id.to_string(), str::to_owned)),
            Err(_) => path.rsplit('/').next().map(str::to_owned),
        };
        assert_eq!(asked.as_deref(), Some(&*job.id), "what is asked for is what was named");
    }
}

/// What the bytes stand for: an answer, and how many jobs it answers for.
fn response(input: &[u8]) -> Option<(Response<Bytes>, usize)> {
    let ([status, kind, count], body) = input.split_first_chunk()?;
    let status = match status {
        b'a'..=b'z' => STATUSES[usize::from(status - b'a')],
        other => 100 + u16::from(*other) * 3,
    };
    let mut response = Response::new(Bytes::copy_from_slice(body));
    *response.status_mut() = StatusCode::from_u16(status).expect("100 to 999 is a status");
    let kind = CONTENT_TYPES[usize::from(kind.wrapping_sub(b'a')) % CONTENT_TYPES.len()];
    if !kind.is_empty() {
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    }
    Some((response, usize::from(count.wrapping_sub(b'0')) % 5))
}

fn check_fault(fault: &BackendFault, status: StatusCode) {
    assert!(fault.http_status.is_none_or(|own| own == status.as_u16()), "a fault has the answer's status");
    match &fault.kind {
        FaultKind::Rejected { message: text }
        | FaultKind::Unreachable { why: text }
        | FaultKind::Unavailable { why: text, .. } => {
            check_message(text);
        }
        FaultKind::Throttled
        | FaultKind::Overloaded
        | FaultKind::CredentialsRejected
        | FaultKind::Forbidden
        | FaultKind::TooLarge
        | FaultKind::Malformed { .. } => {}
    }
}

fn check_message(message: &str) {
    assert!(message.chars().count() <= 512 && !message.contains(char::is_control), "a message is one line");
}

fn base_url() -> BaseUrl {
    "https://vendor.example/base".parse().expect("a constant URL is a URL")
}

fn batch() -> NonZeroUsize {
    NonZeroUsize::MIN.saturating_add(199)
}
