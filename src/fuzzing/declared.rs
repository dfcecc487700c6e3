//! Definitions of vendors, and answers read with the shipped ones.

use std::sync::LazyLock;

use bytes::Bytes;
use http::Response;

use super::{check_fault, response};
use crate::{
    job::{JobRef, Observation},
    vendors::{
        declared::{Definition, SHIPPED, cases::Cases},
        observations,
    },
};

/// A definition, its text any bytes. It is read or refused with the place of each problem.
pub fn definition(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    match Definition::parse(&text) {
        Ok(definition) => {
            assert!(definition.describe().starts_with("name "), "a definition can be shown");
            assert!(!definition.name.is_empty() && !definition.version.is_empty());
        }
        Err(invalid) => {
            assert!(!invalid.problems.is_empty(), "a refusal has a reason");
            let lines = text.matches('\n').count() + 1;
            for problem in &invalid.problems {
                assert!((1..=lines).contains(&problem.line) && problem.column >= 1, "a problem has a place");
                assert!(!problem.text.is_empty());
            }
        }
    }
}

/// A shipped definition, and two jobs that it could be asked for.
struct Fed {
    name: &'static str,
    cases: Cases,
    ids: [String; 2],
    /// Whether the vendor is asked otherwise for the other job: a part of an id may be for the
    /// reader alone.
    is_distinguished: bool,
}

static FED: LazyLock<Vec<Fed>> = LazyLock::new(|| {
    let fed = SHIPPED.iter().map(|shipped| {
        let definition = Definition::parse(shipped.definition).expect("a shipped definition has no problem");
        let cases = Cases::parse(definition.into(), shipped.cases).expect("its cases have none either");
        let mut ids: Vec<String> = cases.cases.iter().flat_map(|case| case.ids.clone()).collect();
        let other = cases.adapter().probe_id(uuid::Uuid::from_u128(7));
        ids.retain(|id| *id != other);
        let one = ids.first().cloned().expect("a case has an id");
        let asked = |id: &String| {
            let request = cases.adapter().request(&[JobRef::new("backend", id.as_str())]);
            (request.uri().clone(), request.into_body())
        };
        let is_distinguished = asked(&one) != asked(&other);
        Fed { name: shipped.name, cases, ids: [one, other], is_distinguished }
    });
    fed.collect()
});

/// An answer, read with a shipped definition. Input: the definition's name, a line break,
/// then as for an adapter.
pub fn declared(input: &[u8]) {
    let at = input.iter().position(|byte| *byte == b'\n').unwrap_or_default();
    let (name, rest) = input.split_at(at);
    let place = FED.iter().position(|fed| fed.name.as_bytes() == name);
    let fed =
        &FED[place.unwrap_or_else(|| name.iter().map(|byte| usize::from(*byte)).sum::<usize>() % FED.len())];
    let Some((response, _)) = response(rest.strip_prefix(b"\n").unwrap_or(rest)) else { return };
    let adapter = fed.cases.adapter();
    let jobs = fed.ids.each_ref().map(|id| JobRef::new("backend", id.as_str()));
    let alone = jobs.each_ref().map(|job| fed.observed(job, &response));
    if let [Some(one), Some(other)] = &alone
        && adapter.capabilities().identifies_jobs
        && fed.is_distinguished
    {
        assert_ne!(one.vendor_payload, other.vendor_payload, "{}: an answer is about one job", fed.name);
    }
    if adapter.capabilities().max_batch.get() >= jobs.len()
        && let Ok(answers) = observations(adapter, &jobs, &response)
    {
        assert_eq!(answers.len(), jobs.len(), "{}: one answer a job", fed.name);
    }
}

impl Fed {
    /// What an answer says of a job, held to what is true of every definition.
    fn observed(&self, job: &JobRef, response: &Response<Bytes>) -> Option<Observation> {
        let adapter = self.cases.adapter();
        let elements = match adapter.split(std::slice::from_ref(job), response) {
            Ok(elements) => elements,
            Err(fault) => {
                check_fault(&fault, response.status());
                return None;
            }
        };
        let element = elements.as_slice().first().expect("one element a job").as_ref().ok()?;
        let observation = adapter.observe(job, element).ok()?;
        let is_known = self.cases.has_known_word(job, element);
        assert!(is_known || !observation.state.is_terminal(), "{}: an unknown word ends no job", self.name);
        Some(observation)
    }
}

/// The answers of every case, as inputs.
#[cfg(test)]
pub(super) fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for fed in FED.iter() {
        for case in &fed.cases.cases {
            let Some(response) = &case.response else { continue };
            let status = super::STATUSES.iter().position(|status| *status == response.status().as_u16());
            let Some(status) = status.and_then(|status| u8::try_from(status).ok()) else { continue };
            let head = [fed.name.as_bytes(), b"\n", &[b'a' + status], b"a1"].concat();
            seeds.push([&head[..], response.body()].concat());
        }
    }
    seeds
}
