//! The suite over every answer of every shipped definition, as its cases have them.
//!
//! What a definition says itself about a status, by a fault rule or as a word, is its own
//! matter: its cases hold it to that. Whatever it leaves open is held to the suite.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, LazyLock},
};

use super::{
    declared::{Definition, SHIPPED, cases::Cases},
    texts::{NO_JSON, Places, VALUES, spliced},
    *,
};
use crate::job::JobState;

/// Members whose absence or presence alone decides how a job ended, as the vendor documents it:
/// the definition, the member, and why.
const DECIDES_BY_PRESENCE: &[(&str, &str, &str)] = &[
    ("anthropic-batches", "canceled", "a count; a batch that has no such requests was not cancelled"),
    ("anthropic-batches", "expired", "a count; a batch that has no such requests did not expire"),
    ("anthropic-batches", "succeeded", "a count; a batch that has no such requests failed as a whole"),
    ("azure-arm", "status", "a 200 without a status is the resource itself, which is there then"),
    ("bigquery", "errorResult", "present exactly where a job failed"),
    ("bigquery", "reason", "of the failure: 'stopped' is a cancellation"),
    ("census", "canceled", "a flag beside the word"),
    ("circleci", "stopped_at", "tells a workflow that never ran from one that has not begun"),
    ("elasticsearch-tasks", "error", "present exactly where a task failed"),
    ("elasticsearch-tasks", "failures", "ends a task early"),
    ("elasticsearch-tasks", "response", "holds the failures"),
    ("elasticsearch-tasks", "completed", "the word itself, a boolean"),
    ("fivetran", "failed_at", "the later of the two times is how the last sync ended"),
    ("fivetran", "succeeded_at", "the later of the two times is how the last sync ended"),
    ("google-operations", "done", "the word itself, a boolean"),
    ("google-operations", "error", "present exactly where an operation failed"),
    ("google-operations", "code", "of the failure: 1 is a cancellation, 4 a deadline"),
    ("power-bi", "extendedStatus", "says more of a failure"),
    ("prefect", "state_name", "says more of a failure"),
];

struct Vendor {
    name: &'static str,
    cases: Cases,
}

/// A good answer: one in which every job that was asked for is observed.
struct Good {
    vendor: &'static Vendor,
    case: &'static str,
    jobs: Vec<JobRef>,
    response: Response<Bytes>,
    text: String,
    seen: Vec<Observation>,
}

static VENDORS: LazyLock<Vec<Vendor>> = LazyLock::new(|| {
    let vendor = |shipped: &declared::Shipped| {
        let definition = Arc::new(Definition::parse(shipped.definition).unwrap());
        Vendor { name: shipped.name, cases: Cases::parse(definition, shipped.cases).unwrap() }
    };
    SHIPPED.iter().map(vendor).collect()
});

/// Every good answer of every definition.
fn good() -> impl Iterator<Item = Good> {
    VENDORS.iter().flat_map(|vendor| {
        vendor.cases.cases.iter().filter_map(move |case| {
            let response = case.response.clone()?;
            let text = String::from_utf8(response.body().to_vec()).ok()?;
            let jobs: Vec<JobRef> = case.ids.iter().map(|id| JobRef::new("case", id.as_str())).collect();
            let seen = vendor.read(&jobs, &response).ok()?.into_iter().collect::<Result<_, _>>().ok()?;
            let is_json = serde_json::from_str::<&RawValue>(&text).is_ok();
            is_json.then_some(Good { vendor, case: &case.name, jobs, response, text, seen })
        })
    })
}

/// The longest good answer of every definition.
fn longest() -> Vec<Good> {
    let mut longest: Vec<Good> = Vec::new();
    for good in good() {
        match longest.last_mut().filter(|last| last.vendor.name == good.vendor.name) {
            Some(last) if last.text.len() >= good.text.len() => {}
            Some(last) => *last = good,
            None => longest.push(good),
        }
    }
    longest
}

impl Vendor {
    /// Reads a response, and holds the definition to what is true of every one.
    fn read(&self, jobs: &[JobRef], response: &Response<Bytes>) -> Observations {
        let adapter = self.cases.adapter();
        let read = || -> Observations {
            let elements = adapter.split(jobs, response)?;
            let elements = jobs.iter().zip(elements.as_slice());
            let read = |(job, element): (_, &Result<Bytes, JobFault>)| {
                adapter.observe(job, element.as_ref().map_err(Clone::clone)?)
            };
            Ok(elements.map(read).collect())
        };
        let Ok(observations) = catch_unwind(AssertUnwindSafe(read)) else {
            let body = &response.body()[..response.body().len().min(4096)];
            panic!("{}: HTTP {}, {}", self.name, response.status(), body.escape_ascii());
        };
        if let Ok(answers) = &observations {
            assert_eq!(answers.len(), jobs.len(), "{}: one answer a job", self.name);
            for observation in answers.iter().flatten() {
                assert_is_well_formed(self.name, observation);
            }
        }
        observations
    }

    /// Whether the definition leaves the meaning of a status to the gateway.
    fn leaves_open(&self, jobs: &[JobRef], response: &Response<Bytes>) -> bool {
        !self.cases.decides(jobs, response)
    }
}

impl Good {
    fn name(&self) -> String {
        format!("{}, {}", self.vendor.name, self.case)
    }

    /// The same answer with another body.
    fn with(&self, body: impl Into<Bytes>) -> Response<Bytes> {
        let (head, _) = self.response.clone().into_parts();
        Response::from_parts(head, body.into())
    }

    fn read(&self, response: &Response<Bytes>) -> Observations {
        self.vendor.read(&self.jobs, response)
    }

    /// That no job is observed in a body.
    fn assert_unseen(&self, body: impl Into<Bytes>) {
        let response = self.with(body);
        if let Ok(answers) = self.read(&response) {
            let shown = &response.body()[..response.body().len().min(400)];
            assert!(
                answers.iter().all(Result::is_err),
                "{}: {}: {answers:?}",
                self.name(),
                shown.escape_ascii()
            );
        }
    }

    /// Whether a member's presence alone decides how a job ended.
    fn decides_by_presence(&self, (start, end): (usize, usize)) -> bool {
        let member = &self.text[start..end];
        let name = |(vendor, name, _): &(&str, &str, &str)| {
            *vendor == self.vendor.name && member.starts_with(&format!("\"{name}\""))
        };
        DECIDES_BY_PRESENCE.iter().any(name)
    }

    /// Which jobs have ended, or ended otherwise, by a change of the answer.
    fn ended(&self, body: impl Into<Bytes>, change: &str) -> Vec<String> {
        let answers = self.read(&self.with(body)).unwrap_or_default();
        let changes = answers.iter().zip(&self.seen).filter_map(|(answer, before)| {
            let now = answer.as_ref().ok()?;
            (now.state.is_terminal() && now.state != before.state).then(|| {
                let (was, is, word) = (before.state, now.state, &now.vendor_state);
                format!("{}: {change} made {is:?} of {was:?}, with {word:?} for its word\n", self.name())
            })
        });
        changes.collect()
    }
}

#[test]
fn every_definition_has_good_answers() {
    let names: Vec<&str> = longest().iter().map(|good| good.vendor.name).collect();
    let all: Vec<&str> = SHIPPED.iter().map(|shipped| shipped.name).collect();
    assert_eq!(names, all);
    assert!(good().any(|good| good.seen.iter().any(|seen| seen.state == JobState::Succeeded)));
}

#[test]
fn definitions_answer_that_is_cut_is_no_observation() {
    for good in good() {
        for end in 1..good.text.trim_end().len() {
            good.assert_unseen(good.text.as_bytes()[..end].to_vec());
        }
    }
}

#[test]
fn definitions_answer_that_is_no_object_is_no_observation() {
    for good in longest() {
        for body in ["null", "[]", "\"x\"", "1", "true", "{", "{]", "x", "\u{feff}", "{}{}", "[[]]", "[null]"]
        {
            good.assert_unseen(body);
        }
        for bomb in ["[".repeat(1 << 20), "{\"a\":".repeat(1 << 18)] {
            good.assert_unseen(bomb);
        }
        good.assert_unseen(vec![0xff; 64]);
    }
}

#[test]
fn definitions_answer_with_a_word_that_is_not_json_is_no_observation() {
    for good in good() {
        for place in Places::of(&good.text).values {
            for word in NO_JSON {
                good.assert_unseen(spliced(&good.text, place, word));
            }
        }
    }
}

#[test]
fn definitions_answer_with_another_value_ends_no_job() {
    let mut ended = Vec::new();
    for good in good().filter(|good| good.seen.iter().all(|seen| !seen.state.is_terminal())) {
        let places = Places::of(&good.text);
        let decisive: Vec<(usize, usize)> =
            places.members.iter().filter(|place| good.decides_by_presence(**place)).copied().collect();
        for (start, end) in places.values {
            // The member's own value, or a value that holds the member.
            if decisive.iter().any(|(name, last)| end == *last || start <= *name && *last <= end) {
                continue;
            }
            for value in VALUES {
                let what = format!("{value} for {:?} at byte {start}", &good.text[start..end]);
                ended.extend(good.ended(spliced(&good.text, (start, end), value), &what));
            }
        }
    }
    assert!(ended.is_empty(), "{}", ended.concat());
}

#[test]
fn definitions_answer_without_a_member_ends_no_job() {
    let mut ended = Vec::new();
    for good in good() {
        for (start, end) in Places::of(&good.text).members {
            if good.decides_by_presence((start, end)) {
                continue;
            }
            let what = format!("no {}", &good.text[start..end]);
            ended.extend(good.ended(spliced(&good.text, (start, end), "\"other\": 1"), &what));
        }
    }
    assert!(ended.is_empty(), "{}", ended.concat());
}

#[test]
fn definitions_answer_with_a_member_twice_changes_nothing_or_spoils_its_job() {
    for good in good() {
        for (start, end) in Places::of(&good.text).members {
            let member = &good.text[start..end];
            let twice = good.with(spliced(&good.text, (start, end), &format!("{member}, {member}")));
            for (now, before) in good.read(&twice).unwrap_or_default().iter().flatten().zip(&good.seen) {
                assert_eq!(now.state, before.state, "{}: {member}", good.name());
            }
        }
    }
}

#[test]
fn definitions_answer_of_any_size_and_depth_is_survived() {
    let long = format!("\"{}\"", "x".repeat(1 << 20));
    let deep = format!("{}{}", "[".repeat(3000), "]".repeat(3000));
    for good in longest() {
        for (start, end) in Places::of(&good.text).values {
            for value in [&long, &deep] {
                let _ = good.read(&good.with(spliced(&good.text, (start, end), value)));
            }
        }
        let padded = format!("{0}{1}{0}", " ".repeat(2 << 20), good.text);
        let states = |body: &str| {
            let answers = good.read(&good.with(body.to_owned())).unwrap();
            answers.into_iter().map(|answer| answer.unwrap().state).collect::<Vec<_>>()
        };
        assert_eq!(states(&padded), states(&good.text), "{}", good.name());
    }
}

#[test]
fn definitions_answer_that_is_not_utf8_never_reaches_an_observation() {
    for good in longest() {
        for at in 0..good.text.len() {
            let mut body = good.text.as_bytes().to_vec();
            body.insert(at, 0xff);
            let _ = good.read(&good.with(body));
        }
    }
}

#[test]
fn definitions_answer_about_another_job_says_nothing_of_the_one_asked_for() {
    let mut count = 0;
    for good in good().filter(|good| good.vendor.cases.adapter().capabilities().identifies_jobs) {
        let adapter = good.vendor.cases.adapter();
        let stranger = JobRef::new("case", adapter.probe_id(Uuid::from_u128(7)));
        assert_eq!(adapter.check(&stranger), Ok(()), "{}", good.name());
        let asked = |jobs: &[JobRef]| {
            let request = adapter.request(jobs);
            (request.uri().clone(), request.into_body())
        };
        // A part of an id may be for the reader alone.
        if good.jobs.len() > 1 || asked(&good.jobs) == asked(std::slice::from_ref(&stranger)) {
            continue;
        }
        count += 1;
        if let Ok(answers) = good.vendor.read(&[stranger], &good.response) {
            assert!(answers.iter().all(Result::is_err), "{}: {answers:?}", good.name());
        }
    }
    assert!(count > 100, "{count}");
}

#[test]
fn definitions_status_that_says_nothing_of_jobs_is_read_like_any_vendors() {
    let mut counts = [0; 4];
    for good in longest() {
        let vendor = good.vendor;
        let fault = |response: Response<Bytes>| {
            if !vendor.leaves_open(&good.jobs, &response) {
                return None;
            }
            let status = response.status();
            match good.read(&response) {
                Err(fault) => Some(fault),
                Ok(answers) => panic!("{}: HTTP {status} gave {answers:?}", good.name()),
            }
        };
        for body in ["", "{}", r#"{"message": "Unauthenticated."}"#, &good.text] {
            for (status, place) in [(401, 0), (429, 1), (500, 2), (502, 2), (503, 2), (504, 2), (302, 3)] {
                let wait = retry_after(json(status, body.to_owned()), "7");
                let Some(fault) = fault(wait) else { continue };
                counts[place] += 1;
                assert_eq!(fault.retry_after, Some(Duration::from_secs(7)), "{}: HTTP {status}", good.name());
                let is_right = matches!(
                    (&fault.kind, status),
                    (FaultKind::CredentialsRejected, 401)
                        | (FaultKind::Throttled, 429)
                        | (FaultKind::Unavailable { .. }, 500..)
                        | (FaultKind::Rejected { .. }, 302)
                );
                assert!(is_right, "{}: HTTP {status} gave {fault:?}", good.name());
            }
        }
        for status in [200, 400, 404, 422] {
            let Some(fault) = fault(html(status)) else { continue };
            assert!(
                match fault.kind {
                    FaultKind::Malformed { .. } => status == 200,
                    FaultKind::Rejected { .. } => status != 200,
                    _ => false,
                },
                "{}: HTTP {status} gave {fault:?}",
                good.name()
            );
        }
    }
    assert!(counts.iter().all(|count| *count >= 4 * 30), "{counts:?}");
}

#[test]
fn definitions_id_that_no_vendor_could_know_is_refused_with_its_field() {
    let long = "1".repeat(513);
    for vendor in &*VENDORS {
        for id in ["", "1\n", "1\u{7f}", "\u{0}", &long] {
            let invalid = vendor.cases.adapter().check(&JobRef::new("case", id)).unwrap_err();
            assert_eq!(invalid.field, "job_id", "{}", vendor.name);
            assert!(!invalid.reason.is_empty(), "{}", vendor.name);
        }
    }
}

#[test]
fn definitions_request_stays_below_its_base_url_whatever_the_id() {
    let hostile = [
        "../../x",
        "..",
        "a/../b",
        "a?b=c",
        "a#b",
        "{{ 1 }}",
        "a\"b",
        "%2e%2e",
        "a b",
        "é",
        "//x.example/y",
        "@x",
    ];
    for good in longest() {
        let adapter = good.vendor.cases.adapter();
        let origin = adapter.request(&good.jobs).uri().authority().cloned();
        for id in hostile {
            for id in [id.to_owned(), format!("{}/{id}", good.jobs[0].id), good.jobs[0].id.replace('/', id)] {
                let job = JobRef::new("case", id);
                if adapter.check(&job).is_err() {
                    continue;
                }
                let request = adapter.request(std::slice::from_ref(&job));
                assert_eq!(request.uri().authority().cloned(), origin, "{}: {}", good.vendor.name, job.id);
                let path = request.uri().path();
                let climbs =
                    path.split('/').any(|part| matches!(&*part.to_lowercase(), ".." | "%2e%2e" | "."));
                assert!(!climbs, "{}: {} gave {path}", good.vendor.name, job.id);
                assert!(!request.headers().contains_key(header::AUTHORIZATION), "{}", good.vendor.name);
            }
        }
    }
}
