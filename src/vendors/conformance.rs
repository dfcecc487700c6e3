//! One suite over all adapters: the ways in which any response can be wrong.
//!
//! To add a vendor, add its row to [`rows`].

use std::{
    num::NonZeroUsize,
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use bytes::Bytes;
use http::{Response, StatusCode, header};
use proptest::{prelude::*, sample::Index};
use secrecy::SecretString;
use serde_json::value::RawValue;

use super::*;
use crate::job::{ContentType, FaultKind, JobError};

mod catalogue;
mod declared_vendors;
mod statuses;
mod texts;

/// A vendor, and a good answer about some of its jobs.
struct Row {
    vendor: &'static str,
    adapter: Box<dyn Adapter>,
    /// The jobs that the answer is about.
    polled: &'static [&'static str],
    /// Jobs that it is not about; none where the vendor's answers don't name
    /// their job.
    strangers: &'static [&'static str],
    /// JSON of a 200.
    answer: &'static str,
    /// Puts an answer in JSON the way the vendor puts it.
    wire: fn(&Response<Bytes>) -> Response<Bytes>,
    media_type: &'static str,
    /// Whether a redirect to a login page means that the session is over.
    has_a_login_page: bool,
    /// Whether a 404 says by itself that the job does not exist.
    bare_404_is_missing: bool,
    /// The adapter that says the same of every response.
    same_as: Option<Box<dyn Adapter>>,
}

const BASE: &str = "https://vendor.example/prefix";

const KINETICA: &str = r#"{"status": "OK", "message": "", "data_type": "get_job_response", "data": "",
    "data_str": "{\"endpoint\":\"/alter/table\",\"job_status\":\"DONE\",\"running\":false,\"progress\":100,\"successful\":true,\"response_encoding\":\"json\",\"job_response\":\"\",\"job_response_str\":\"{\\\"table_name\\\":\\\"t\\\"}\",\"status_map\":{},\"info\":{}}"}"#;

fn rows() -> Vec<Row> {
    let mut rows = built_in();
    rows.extend(declared_vendors::rows());
    rows
}

fn built_in() -> Vec<Row> {
    vec![
        Row {
            vendor: "immuta",
            adapter: Box::new(Immuta::new(base(), NonZeroUsize::new(200).unwrap(), true)),
            polled: &["cefb58a0-cd71-11ec-8e29-81c20d280994", "b", "c"],
            strangers: &["d", "e"],
            answer: r#"{
                "cefb58a0-cd71-11ec-8e29-81c20d280994":
                    {"id": "cefb58a0-cd71-11ec-8e29-81c20d280994", "state": "completed", "output": {"n": [1, "\u00e4"]}},
                "b": {"id": "b", "state": ["active"], "output": null, "pct": 1.5},
                "c": {"id": "c", "state": "failed", "output": {"value": {"message": "boom", "stack": "at x"}}}
            }"#,
            wire: Clone::clone,
            media_type: "application/json",
            has_a_login_page: false,
            bare_404_is_missing: false,
            same_as: None,
        },
        Row {
            vendor: "claret",
            adapter: Box::new(Claret::new(base(), "demo", Some("me@example.com".into())).unwrap()),
            polled: &["12345"],
            strangers: &["12346"],
            answer: r#"{"message": "Job status retrieved successfully", "content": {
                "job_log_id": 12345, "status": "failed", "type": "inventory-import", "description": "Inventory Import",
                "progress": {"completed_steps": 3, "total_steps": 8, "current_step": "staging"},
                "files": {"input": ["/t/download/a.csv"], "output": [], "errors": {"1": "/t/download/e.csv"}},
                "job_status_link": "https://vendor.example/logs/12345",
                "timestamps": {"started_at": "2024-01-01T10:00:00.000000Z", "completed_at": null},
                "user_id": 42, "error": {"message": "bad rows"}}}"#,
            wire: Clone::clone,
            media_type: "application/json",
            has_a_login_page: true,
            bare_404_is_missing: false,
            same_as: None,
        },
        Row {
            vendor: "kinetica",
            adapter: Box::new(Kinetica::new(base(), Encoding::Json)),
            polled: &["4611686018427387907"],
            strangers: &[],
            answer: KINETICA,
            wire: Clone::clone,
            media_type: "application/json",
            has_a_login_page: false,
            bare_404_is_missing: false,
            same_as: None,
        },
        Row {
            vendor: "kinetica in binary",
            adapter: Box::new(Kinetica::new(base(), Encoding::Binary)),
            polled: &["4611686018427387907"],
            strangers: &[],
            answer: KINETICA,
            wire: kinetica::tests::in_binary,
            media_type: "application/octet-stream",
            has_a_login_page: false,
            bare_404_is_missing: false,
            same_as: None,
        },
        Row {
            vendor: "datasaur",
            adapter: Box::new(Datasaur::new(
                base(),
                NonZeroUsize::new(200).unwrap(),
                Some(("id".into(), ClientAuth::Form)),
            )),
            polled: &["AutoLabelQueue:a", "b"],
            strangers: &["c"],
            answer: r#"{"data": {"result": [
                {"id": "AutoLabelQueue:a", "status": "DELIVERED", "progress": 100, "errors": [], "result": {"n": 1}},
                {"id": "b", "status": "FAILED", "progress": 3, "errors": [{"id": "1", "stack": "boom", "args": null}]}
            ]}, "extensions": {}}"#,
            wire: Clone::clone,
            media_type: "application/json",
            has_a_login_page: false,
            bare_404_is_missing: false,
            same_as: None,
        },
    ]
}

fn base() -> BaseUrl {
    BASE.parse().unwrap()
}

/// Jobs of these ids at one backend.
pub(super) fn jobs(ids: &[&str]) -> Vec<JobRef> {
    ids.iter().map(|id| JobRef::new("backend", *id)).collect()
}

/// An answer with a content type, or without one where it is empty.
pub(super) fn answer(status: u16, content_type: &str, body: impl Into<Bytes>) -> Response<Bytes> {
    let mut response = Response::new(body.into());
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    if !content_type.is_empty() {
        response.headers_mut().insert(header::CONTENT_TYPE, content_type.parse().unwrap());
    }
    response
}

/// An answer of type application/json.
pub(super) fn json(status: u16, body: impl Into<Bytes>) -> Response<Bytes> {
    answer(status, "application/json; charset=utf-8", body)
}

/// An answer that is a page for people.
pub(super) fn html(status: u16) -> Response<Bytes> {
    answer(status, "text/html; charset=UTF-8", "<!DOCTYPE html><html><body>{}</body></html>")
}

/// The same answer with `Retry-After`.
pub(super) fn retry_after(response: Response<Bytes>, seconds: &str) -> Response<Bytes> {
    with(response, "retry-after", seconds)
}

/// The same answer with a header.
fn with(mut response: Response<Bytes>, name: &'static str, value: &str) -> Response<Bytes> {
    response.headers_mut().insert(name, value.parse().unwrap());
    response
}

impl Row {
    fn read(&self, response: &Response<Bytes>) -> Observations {
        self.read_for(self.polled, response)
    }

    /// Reads a response, and holds the adapter to what is true of every one.
    fn read_for(&self, ids: &[&str], response: &Response<Bytes>) -> Observations {
        let jobs = jobs(ids);
        let wired = (self.wire)(response);
        let read = || observations(&*self.adapter, &jobs, &wired);
        let Ok(observations) = catch_unwind(AssertUnwindSafe(read)) else {
            let body = &response.body()[..response.body().len().min(4096)];
            panic!("{}: HTTP {}, {}", self.vendor, response.status(), body.escape_ascii());
        };
        // The fuel of an expression is not enough for a text of a megabyte.
        if let Some(same_as) = self.same_as.as_ref().filter(|_| response.body().len() < 256 << 10) {
            let by_hand = super::observations(&**same_as, &jobs, &wired);
            let [expected, found] = comparable_pair(by_hand, observations.clone());
            let body = &response.body()[..response.body().len().min(4096)];
            assert_eq!(
                found,
                expected,
                "{}: HTTP {}, {}",
                self.vendor,
                response.status(),
                body.escape_ascii()
            );
        }
        match &observations {
            Ok(answers) => {
                assert_eq!(answers.len(), jobs.len(), "{}: one answer a job", self.vendor);
                for observation in answers.iter().flatten() {
                    assert!(response.status().is_success(), "{}: {}", self.vendor, response.status());
                    assert_is_well_formed(self.vendor, observation);
                }
            }
            Err(fault) => {
                let status = response.status();
                let is_the_failure = matches!(status.as_u16(), 300..=399 | 401 | 403 | 404 | 429 | 500..=599);
                assert!(
                    fault.http_status == Some(status.as_u16())
                        || fault.http_status.is_none() && !is_the_failure,
                    "{}: HTTP {status} gave {fault:?}",
                    self.vendor
                );
            }
        }
        observations
    }

    fn fault(&self, response: &Response<Bytes>) -> FaultKind {
        match self.read(response) {
            Err(fault) => fault.kind,
            Ok(answers) => panic!("{}: HTTP {} gave {answers:?}", self.vendor, response.status()),
        }
    }

    fn assert_malformed(&self, response: &Response<Bytes>) {
        let fault = self.fault(response);
        assert!(matches!(fault, FaultKind::Malformed { .. }), "{}: {fault:?}", self.vendor);
    }

    fn states(&self, response: &Response<Bytes>) -> Vec<Option<crate::job::JobState>> {
        let answers = self.read(response).unwrap_or_default();
        answers.into_iter().map(|answer| answer.ok().map(|observation| observation.state)).collect()
    }
}

fn assert_is_well_formed(vendor: &str, observation: &Observation) {
    let is_json = |bytes: &[u8]| serde_json::from_slice::<&RawValue>(bytes).is_ok();
    assert!(is_json(&observation.vendor_payload), "{vendor}: the payload is JSON");
    if let Some(result) = &observation.result {
        // Whether JSON in a text is JSON is the vendor's matter: it is passed on.
        let is_utf8 = std::str::from_utf8(&result.data).is_ok();
        assert!(is_utf8 || result.content_type == ContentType::Avro, "{vendor}: the result is UTF-8");
    }
    if let Some(JobError { details, .. }) = &observation.error {
        assert!(details.is_empty() || is_json(details), "{vendor}: details are JSON");
    }
}

#[test]
fn good_response_has_an_observation_of_every_job() {
    for row in rows() {
        for content_type in ["application/json", "application/json; charset=utf-8", ""] {
            let answers = row.read(&answer(200, content_type, row.answer)).unwrap();
            assert!(answers.iter().all(Result::is_ok), "{}: {answers:?}", row.vendor);
        }
    }
}

#[test]
fn request_goes_below_the_base_url_and_holds_no_credentials() {
    for row in rows() {
        let jobs = jobs(row.polled);
        assert!(row.adapter.capabilities().max_batch.get() >= jobs.len());
        let request = row.adapter.request(&jobs);
        assert!(request.uri().to_string().starts_with(BASE), "{}", row.vendor);
        assert!(!request.headers().contains_key(header::AUTHORIZATION), "{}", row.vendor);
        assert_eq!(request.headers()[header::ACCEPT], row.media_type, "{}", row.vendor);
    }
}

#[test]
fn name_that_no_vendor_could_know_is_refused_with_its_field() {
    let long = "1".repeat(513);
    for row in rows() {
        for job in jobs(row.polled) {
            assert_eq!(row.adapter.check(&job), Ok(()), "{}", row.vendor);
        }
        for id in ["", "1\n", "1\u{7f}", "\u{0}", &long] {
            let invalid = row.adapter.check(&JobRef::new("backend", id)).unwrap_err();
            assert_eq!(invalid.field, "job_id", "{}", row.vendor);
            assert!(!invalid.reason.is_empty() && !invalid.reason.ends_with('.'), "{}", row.vendor);
        }
        let tagged = JobRef::new("backend", row.polled[0]).with_tag("t1");
        let field = row.adapter.check(&tagged).err().map(|invalid| invalid.field);
        let has_tags = matches!(row.vendor, "kinetica" | "kinetica in binary");
        assert_eq!(field, (!has_tags).then_some("job_tag"), "{}", row.vendor);
    }
}

#[test]
fn an_answer_that_is_not_a_json_object_is_malformed() {
    let bombs = ["[".repeat(1 << 20), "{\"a\":".repeat(1 << 18), format!("{0}[]{0}", "[".repeat(1 << 16))];
    for row in rows() {
        for body in ["", " ", "null", "[]", "\"x\"", "1", "true", "{", "{]", "x", "\u{feff}", "{}{}"] {
            row.assert_malformed(&json(200, body));
        }
        for bomb in &bombs {
            row.assert_malformed(&json(200, bomb.clone()));
        }
        row.assert_malformed(&json(200, vec![b'a'; 4 << 20]));
        row.assert_malformed(&json(200, vec![0xff; 64]));
        row.assert_malformed(&answer(200, "", ""));
        row.assert_malformed(&json(204, ""));
        row.assert_malformed(&answer(204, "", ""));
        row.assert_malformed(&json(101, row.answer));
    }
}

#[test]
fn an_answer_cut_at_any_byte_is_malformed() {
    for row in rows() {
        for end in 0..row.answer.len() {
            row.assert_malformed(&json(200, row.answer.as_bytes()[..end].to_vec()));
        }
    }
}

#[test]
fn big_response_is_read_like_a_small_one() {
    for row in rows() {
        let padded = format!("{0}{1}{0}", " ".repeat(2 << 20), row.answer);
        assert_eq!(row.states(&json(200, padded)), row.states(&json(200, row.answer)), "{}", row.vendor);
    }
}

#[test]
fn an_answer_about_other_jobs_says_nothing_of_the_one_asked_for() {
    for row in rows() {
        for stranger in row.strangers {
            match row.read_for(&[stranger], &json(200, row.answer)) {
                Ok(answers) => assert!(
                    matches!(answers[..], [Err(JobFault::Malformed { .. })]),
                    "{}: {answers:?}",
                    row.vendor
                ),
                Err(fault) => assert!(matches!(fault.kind, FaultKind::Malformed { .. }), "{}", row.vendor),
            }
        }
    }
}

#[test]
fn more_or_fewer_elements_than_asked_for_change_no_answer() {
    for row in rows().into_iter().filter(|row| row.adapter.capabilities().max_batch.get() > 1) {
        let response = json(200, row.answer);
        let whole = row.read(&response).unwrap();
        let all: Vec<&str> = [row.polled, row.strangers].concat();
        for (chosen, backwards) in (1..1_u32 << all.len()).flat_map(|set| [(set, false), (set, true)]) {
            let is_chosen = |at: &usize| chosen & 1 << at != 0;
            let mut places: Vec<usize> = (0..all.len()).filter(is_chosen).collect();
            if backwards {
                places.reverse();
            }
            let ids: Vec<&str> = places.iter().map(|place| all[*place]).collect();
            for (place, answer) in places.iter().zip(row.read_for(&ids, &response).unwrap()) {
                match whole.get(*place) {
                    Some(known) => assert_eq!(answer, *known, "{}: {ids:?}", row.vendor),
                    // Where all of it was polled, the rest is missing.
                    None if row.polled.iter().all(|id| ids.contains(id)) => {
                        assert_eq!(answer, Err(JobFault::NotFound), "{}: {ids:?}", row.vendor);
                    }
                    None => assert!(
                        matches!(answer, Err(JobFault::Malformed { .. })),
                        "{}: {ids:?}: {answer:?}",
                        row.vendor
                    ),
                }
            }
        }
    }
}

#[test]
fn response_with_too_few_or_too_many_elements_has_one_element_for_each_job() {
    for row in rows().into_iter().filter(|row| row.adapter.capabilities().max_batch.get() > 1) {
        let response = json(200, row.answer);
        let found = |ids: &[&str]| {
            let elements = row.adapter.split(&jobs(ids), &response).unwrap();
            elements.as_slice().iter().map(Result::is_ok).collect::<Vec<_>>()
        };
        let few = [row.polled, row.strangers].concat();
        let expected: Vec<bool> = few.iter().map(|id| row.polled.contains(id)).collect();
        assert_eq!(found(&few), expected, "{}", row.vendor);
        assert_eq!(found(&row.polled[..1]), [true], "{}", row.vendor);
        let twice = [row.polled, row.polled].concat();
        assert_eq!(found(&twice), vec![true; twice.len()], "{}", row.vendor);
        assert_eq!(found(&[]), [false; 0], "{}", row.vendor);
    }
}

fn any_response() -> impl Strategy<Value = Response<Bytes>> {
    let types = vec!["", "application/json", "text/html", "text/plain", "application/octet-stream", ";"];
    let status = prop_oneof![4 => Just(200_u16), 2 => 400_u16..430, 1 => 100_u16..=999];
    let body = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..256),
        "\\PC{0,128}".prop_map(String::into_bytes),
        "[\\[\\]{}\",:0-9a-z\\\\ .-]{0,128}".prop_map(String::into_bytes),
    ];
    (status, proptest::sample::select(types), body)
        .prop_map(|(status, content_type, body)| answer(status, content_type, body))
}

proptest! {
    #[test]
    fn any_bytes_at_any_status_give_an_answer_for_each_job_or_one_fault(response in any_response()) {
        for row in rows() {
            let _ = row.read(&response);
            if let Some(exchange) = row.adapter.token_exchange() {
                let _ = exchange.interpret(&response);
            }
        }
    }

    #[test]
    fn a_good_answer_with_some_bytes_changed_is_survived(
        status in prop_oneof![3 => Just(200_u16), 1 => 400_u16..430],
        changes in proptest::collection::vec((any::<Index>(), any::<u8>()), 1..6),
    ) {
        for row in rows() {
            let mut body = row.answer.as_bytes().to_vec();
            for (at, byte) in &changes {
                let at = at.index(body.len());
                body[at] = *byte;
            }
            let _ = row.read(&json(status, body));
        }
    }
}
