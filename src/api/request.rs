//! Request validation. An error names the field, the problem and the remedy.

use std::{sync::Arc, time::Duration};

use crate::{
    engine::Failure,
    job::{JobRef, View},
    proto::v1 as pb,
};

/// Longest duration; longer ones are reduced to it.
const LONGEST: Duration = Duration::from_hours(24 * 365);

/// A field of a request that can't be used.
#[derive(Debug)]
pub(super) struct InvalidField {
    /// Path of the field.
    pub(super) field: String,
    /// The problem, and what to write instead.
    pub(super) reason: String,
}

/// Why a request is refused before anything is done for it.
#[derive(Debug)]
pub(super) enum Refusal {
    /// A field can't be used.
    Invalid(InvalidField),
    /// The caller may not do this at the job's backend.
    NotAllowed(JobRef),
}

impl From<InvalidField> for Refusal {
    fn from(invalid: InvalidField) -> Self {
        Self::Invalid(invalid)
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Invalid(invalid) => invalid.into(),
            Refusal::NotAllowed(_) => Self::NotAllowed,
        }
    }
}

impl InvalidField {
    pub(super) fn new(field: impl Into<String>, reason: &str) -> Self {
        Self { field: field.into(), reason: reason.to_owned() }
    }

    /// The same field of a message whose path is `at`, which ends in a dot if it is
    /// not empty.
    pub(super) fn below(self, at: &str) -> Self {
        Self { field: format!("{at}{}", self.field), ..self }
    }
}

impl From<InvalidField> for Failure {
    fn from(InvalidField { field, reason }: InvalidField) -> Self {
        Self::InvalidRequest { field, reason }
    }
}

/// The job. Shares the backend's name if it is configured. An empty tag is none.
pub(super) fn job(job: pb::JobRef, backend: Option<Arc<str>>) -> JobRef {
    let pb::JobRef { backend: name, job_id, job_tag } = job;
    let job = JobRef::new(backend.unwrap_or_else(|| name.into()), job_id);
    if job_tag.is_empty() { job } else { job.with_tag(job_tag) }
}

/// The view with this number in the contract.
pub(super) fn view(view: i32) -> Result<View, InvalidField> {
    use pb::JobStatusView as Requested;
    match Requested::try_from(view) {
        Ok(Requested::Basic) => Ok(View::BASIC),
        Ok(Requested::Unspecified | Requested::Standard) => Ok(View::STANDARD),
        Ok(Requested::Full) => Ok(View::FULL),
        Err(_) => {
            let reason = "is not a JobStatusView; write JOB_STATUS_VIEW_BASIC, _STANDARD or _FULL";
            Err(InvalidField::new("view", reason))
        }
    }
}

/// A duration that may be zero.
pub(super) fn duration(
    duration: Option<prost_types::Duration>,
    field: &'static str,
) -> Result<Option<Duration>, InvalidField> {
    let Some(given) = duration else { return Ok(None) };
    let duration = Duration::try_from(given)
        .map_err(|_| InvalidField::new(field, "is negative; write zero or more, or leave it out"))?;
    Ok(Some(duration.min(LONGEST)))
}

/// A duration that may not be zero.
pub(super) fn positive_duration(
    given: Option<prost_types::Duration>,
    field: &'static str,
) -> Result<Option<Duration>, InvalidField> {
    match duration(given, field)? {
        Some(Duration::ZERO) => {
            Err(InvalidField::new(field, "is zero; write more than zero, or leave it out"))
        }
        given => Ok(given),
    }
}

/// Reads a `grpc-timeout` header: at most eight digits and a unit.
pub(super) fn grpc_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_timeout_without_digits_or_unit_is_ignored() {
        assert_eq!(grpc_timeout("250m"), Some(Duration::from_millis(250)));
        assert_eq!(grpc_timeout("99999999H"), Some(Duration::from_hours(99_999_999)));
        for text in ["", "S", "1", "-1S", "1.5S", "123456789S", "1x", "1é"] {
            assert_eq!(grpc_timeout(text), None, "{text}");
        }
    }

    #[test]
    fn view_of_each_number_is_that_of_the_contract() {
        for (number, expected) in
            [(0, View::STANDARD), (1, View::BASIC), (2, View::STANDARD), (3, View::FULL)]
        {
            assert_eq!(view(number).unwrap(), expected);
        }
        assert_eq!(view(9).unwrap_err().field, "view");
    }

    #[test]
    fn invalid_duration_is_refused_with_its_field() {
        let given = |seconds, nanos| Some(prost_types::Duration { seconds, nanos });
        assert_eq!(duration(given(1, 500_000_000), "wait").unwrap(), Some(Duration::from_millis(1500)));
        assert_eq!(duration(None, "wait").unwrap(), None);
        assert_eq!(duration(given(i64::MAX, 0), "wait").unwrap(), Some(LONGEST));
        assert_eq!(duration(given(-1, 0), "wait").unwrap_err().field, "wait");
        assert_eq!(positive_duration(given(0, 0), "poll_interval").unwrap_err().field, "poll_interval");
    }
}
