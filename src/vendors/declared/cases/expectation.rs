//! What a case expects of one job.

use serde_json::{Map, Value, json};

use super::{word_of, word_of_job};
use crate::{
    job::{BackendFault, JobFault, Observation, Progress},
    vendors::declared::{
        reader::{Log, Node},
        table::STATES,
    },
};

/// The fields that a case may name.
pub(in crate::vendors::declared) const FIELDS: [&str; 23] = [
    "state",
    "vendor_state",
    "job_type",
    "description",
    "owner",
    "vendor_url",
    "create_time",
    "start_time",
    "end_time",
    "percent",
    "completed_steps",
    "total_steps",
    "current_step",
    "result",
    "content_type",
    "error",
    "details",
    "warnings",
    "files",
    "locations",
    "fault",
    "message",
    "retry_after_s",
];

/// Every fault as cases write it.
const FAULTS: [&str; 9] = [
    "not_found",
    "invalid_id",
    "forbidden",
    "malformed",
    "throttled",
    "unavailable",
    "credentials",
    "rejected",
    "too_large",
];

/// The fields that stand beside a fault.
const OF_FAULTS: [&str; 3] = ["fault", "message", "retry_after_s"];

/// The fields of a token.
pub(in crate::vendors::declared) const TOKEN_FIELDS: [&str; 6] =
    ["token", "expires_in_s", "expires_at", "header", "fault", "message"];

/// Why a field is absent, or why there is a fault, where that is known; and of a field that is
/// there, as the flag says, from where.
pub(super) type Why<'a> = &'a dyn Fn(&str, bool) -> Option<String>;

/// Fields with their values, in JSON.
#[derive(Debug)]
pub(super) struct Expectation(Vec<(&'static str, Value)>);

impl Expectation {
    /// What is expected of a job.
    pub(super) fn read(node: &Node<'_>, log: &Log<'_>) -> Option<Self> {
        Self::of(node, &FIELDS, log)
    }

    /// What is expected of an answer with a token.
    pub(super) fn of_token(node: &Node<'_>, log: &Log<'_>) -> Option<Self> {
        Self::of(node, &TOKEN_FIELDS, log)
    }

    /// The first of the known fields, or a fault, has to be there.
    fn of(node: &Node<'_>, known: &[&'static str], log: &Log<'_>) -> Option<Self> {
        let mut keys = node.section(log)?;
        let mut fields = Vec::new();
        for &field in known {
            let Some(node) = keys.get(field) else { continue };
            let states: Vec<&str> = STATES.iter().map(|(name, _)| *name).chain(["UNSPECIFIED"]).collect();
            if field == "state" && !node.as_text().is_some_and(|text| states.contains(&text)) {
                node.report(log, format!("is no state; write one of {}", states.join(", ")));
            }
            if field == "fault" && !node.as_text().is_some_and(|text| FAULTS.contains(&text)) {
                node.report(log, format!("is no fault; write one of {}", FAULTS.join(", ")));
            }
            let value = match (node.as_text(), node.json_number()) {
                (Some(text), _) => Value::from(text),
                (None, Some(number)) => serde_json::from_str(&number).ok()?,
                _ if node.is_array() => {
                    node.list().iter().filter_map(|node| node.text(log)).map(Value::from).collect()
                }
                _ => return node.problem(log, "is neither a text, a number nor a list of texts"),
            };
            fields.push((field, value));
        }
        let main = known.first().copied().unwrap_or_default();
        if !fields.iter().any(|(field, _)| *field == main || *field == "fault") {
            keys.report(log, format!("has neither {main} nor fault; write one of them"));
        }
        let has_fault = fields.iter().any(|(field, _)| *field == "fault");
        for &(field, _) in &fields {
            if has_fault == OF_FAULTS.contains(&field) {
                continue;
            }
            let Some(node) = keys.get(field) else { continue };
            let text = if has_fault {
                "stands beside fault, which leaves nothing else to read; keep one of them"
            } else {
                "is what a fault has, and no fault is expected; write fault, or remove it"
            };
            node.report(log, text);
        }
        keys.finish(log);
        Some(Self(fields))
    }

    pub(super) fn of_backend_fault(&self, fault: &BackendFault, why: Why<'_>) -> Vec<String> {
        self.differences(&found_fault(fault), why)
    }

    pub(super) fn of_job(&self, observed: &Result<Observation, JobFault>, why: Why<'_>) -> Vec<String> {
        self.differences(&found_job(observed), why)
    }

    /// Whether it says which files there are.
    pub(super) fn names_files(&self) -> bool {
        self.0.iter().any(|(field, _)| matches!(*field, "files" | "locations"))
    }

    /// Every field that is another one than expected, or the fault that is the cause of them all.
    pub(super) fn differences(&self, found: &Map<String, Value>, why: Why<'_>) -> Vec<String> {
        let because =
            |field: &str, is_there| why(field, is_there).map(|why| format!(": {why}")).unwrap_or_default();
        let expected_fault = self.0.iter().find(|(field, _)| *field == "fault").map(|(_, fault)| fault);
        match (expected_fault, found.get("fault")) {
            (None, Some(fault)) => {
                let words = found.get("message").and_then(Value::as_str).unwrap_or_default();
                return vec![format!("there is the fault {fault}: {words}{}", because("fault", false))];
            }
            (Some(expected), fault) if fault != Some(expected) => {
                let found = match (fault, found.get("state")) {
                    (Some(fault), _) => fault.to_string(),
                    (None, Some(state)) => format!("absent, and the state is {state}"),
                    (None, None) => "absent".to_owned(),
                };
                return vec![format!("fault is {found}, expected {expected}{}", because("fault", false))];
            }
            _ => {}
        }
        let mut differences = Vec::new();
        for (field, expected) in &self.0 {
            let value = found.get(*field);
            let is_same = match (*field, value) {
                // The vendor's words stand within those of the gateway.
                ("message", Some(Value::String(text))) => {
                    expected.as_str().is_some_and(|part| text.contains(part))
                }
                (_, Some(value)) if value.is_number() => value.as_f64() == expected.as_f64(),
                (_, Some(value)) => value == expected,
                // Absent and empty are one.
                (_, None) => expected.as_str() == Some("") || expected.as_array().is_some_and(Vec::is_empty),
            };
            if !is_same {
                let is_empty =
                    |value: &Value| value.as_str() == Some("") || value.as_array().is_some_and(Vec::is_empty);
                let value = value.filter(|value| !is_empty(value));
                let shown = value.map_or_else(|| "absent".to_owned(), ToString::to_string);
                let expected = match *field {
                    "message" => format!("expected one with {expected}"),
                    _ => format!("expected {expected}"),
                };
                let because = because(field, value.is_some());
                differences.push(format!("{field} is {shown}, {expected}{because}"));
            }
        }
        differences
    }
}

/// A fault of the backend as `expect` writes it.
pub(super) fn of_backend_fault(fault: &BackendFault) -> Vec<(&'static str, Value)> {
    ordered(&found_fault(fault))
}

/// An observation, or the fault of a job, as `expect` writes it.
pub(super) fn of_job(observed: &Result<Observation, JobFault>) -> Vec<(&'static str, Value)> {
    ordered(&found_job(observed))
}

fn ordered(found: &Map<String, Value>) -> Vec<(&'static str, Value)> {
    FIELDS.iter().filter_map(|field| Some((*field, found.get(*field)?.clone()))).collect()
}

fn found_fault(fault: &BackendFault) -> Map<String, Value> {
    let mut found = Map::new();
    found.insert("fault".to_owned(), word_of(fault).into());
    found.insert("message".to_owned(), fault.kind.to_string().into());
    if let Some(wait) = fault.retry_after {
        found.insert("retry_after_s".to_owned(), json!(wait.as_secs_f64()));
    }
    found
}

fn found_job(observed: &Result<Observation, JobFault>) -> Map<String, Value> {
    match observed {
        Ok(observation) => fields(observation),
        Err(fault) => {
            let mut found = Map::new();
            found.insert("fault".to_owned(), word_of_job(fault).into());
            found.insert("message".to_owned(), fault.to_string().into());
            found
        }
    }
}

fn fields(observation: &Observation) -> Map<String, Value> {
    let mut found = Map::new();
    let mut put = |name: &str, value: Value| drop(found.insert(name.to_owned(), value));
    let state =
        STATES.iter().find(|(_, state)| *state == observation.state).map_or("UNSPECIFIED", |(name, _)| name);
    put("state", state.into());
    put("vendor_state", observation.vendor_state.as_str().into());
    put("job_type", observation.job_type.as_str().into());
    put("description", observation.description.as_str().into());
    put("owner", observation.owner.as_str().into());
    put("vendor_url", observation.vendor_url.as_str().into());
    for (name, time) in [
        ("create_time", observation.create_time),
        ("start_time", observation.start_time),
        ("end_time", observation.end_time),
    ] {
        if let Some(time) = time {
            put(name, time.to_string().into());
        }
    }
    if let Some(Progress { percent, completed_steps, total_steps, current_step }) = &observation.progress {
        if let Some(percent) = percent {
            put("percent", json!(percent));
        }
        for (name, steps) in [("completed_steps", completed_steps), ("total_steps", total_steps)] {
            if let Some(steps) = steps {
                put(name, json!(steps));
            }
        }
        put("current_step", current_step.as_str().into());
    }
    if let Some(result) = &observation.result {
        put("result", String::from_utf8_lossy(&result.data).into());
        put("content_type", result.content_type.as_str().into());
    }
    if let Some(error) = &observation.error {
        put("error", error.message.as_str().into());
        put("details", String::from_utf8_lossy(&error.details).into());
    }
    put("warnings", observation.warnings.iter().map(String::as_str).collect());
    put("files", observation.artifacts.iter().map(|artifact| artifact.id.as_str()).collect());
    put("locations", observation.artifacts.iter().map(|artifact| artifact.vendor_uri.as_str()).collect());
    found
}
