//! Why a poll has no observation: of one job, or of a whole backend.
//!
//! A [`JobFault`] concerns one job of a response that could be read. A [`BackendFault`]
//! concerns the whole request: nothing is known about any of its jobs.

use std::{sync::Arc, time::Duration};

use thiserror::Error;

use super::JobRef;

/// Why a job ref can't name a job at this backend.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{reason}")]
pub struct InvalidJobRef {
    /// `job_id` or `job_tag`.
    pub field: &'static str,
    /// What is wrong and what to write instead; lower case, no full stop.
    pub reason: String,
}

impl InvalidJobRef {
    /// Refuses a tag, which only Kinetica has.
    ///
    /// # Errors
    /// The job has a tag.
    pub fn refuse_tag(job: &JobRef) -> Result<(), Self> {
        match job.tag {
            Some(_) => Err(Self {
                field: "job_tag",
                reason: "must be empty: this backend's jobs have no tags".to_owned(),
            }),
            None => Ok(()),
        }
    }

    /// Refuses an id that is not 1 to 512 bytes of text without control characters,
    /// which is all that is known of an opaque one.
    ///
    /// # Errors
    /// The id is empty, too long, or has a control character.
    pub fn unless_opaque_id(job: &JobRef) -> Result<(), Self> {
        let reason = match job.id.len() {
            0 => "must not be empty",
            1..=512 if job.id.contains(char::is_control) => "must not have control characters",
            1..=512 => return Ok(()),
            _ => "must be at most 512 bytes long",
        };
        Err(Self { field: "job_id", reason: reason.to_owned() })
    }
}

/// Why a response has no observation of one job.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum JobFault {
    /// The vendor does not know the job.
    #[error("the vendor does not know this job")]
    NotFound,
    /// The vendor knows that no job can have this name.
    #[error("the vendor refuses this job id: {message}")]
    Invalid {
        /// The vendor's words, trimmed by [`vendor_message`].
        message: String,
    },
    /// The gateway's account may not see this job; it may see the others.
    #[error("the vendor forbids this job to the gateway's account")]
    Forbidden,
    /// This job's part of the response can't be understood; the others' can.
    #[error("the vendor's response about this job can't be understood: {why}")]
    Malformed {
        /// What is wrong with it; never its content.
        why: &'static str,
    },
    /// The standby that was polled in place of the job's own cluster can't tell.
    #[error(transparent)]
    Standby(#[from] StandbyFault),
}

/// Why a standby can't tell about a job. Says nothing about the job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum StandbyFault {
    /// Job ids are each cluster's own, and the job has no tag. No request was sent.
    #[error("a standby is in use, which knows a job only by its job_tag")]
    NeedsJobTag,
    /// It has not heard of the job, at least not yet.
    #[error("a standby is in use, which does not know this job")]
    DoesNotKnowJob,
}

impl StandbyFault {
    /// The same for programs.
    pub fn detail(self) -> &'static str {
        match self {
            Self::NeedsJobTag => "standby_needs_job_tag",
            Self::DoesNotKnowJob => "standby_does_not_know_job",
        }
    }
}

/// Why a request gave nothing about any of its jobs. Says nothing about the jobs.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{kind}{}", exchange.as_ref().map(|exchange| format!(" ({exchange})")).unwrap_or_default())]
pub struct BackendFault {
    /// What the caller can do about it.
    pub kind: FaultKind,
    /// The vendor's HTTP status, where that was the failure.
    pub http_status: Option<u16>,
    /// A closer reason for programs, where there is one.
    pub detail: Option<&'static str>,
    /// Whether it was the request for a token that failed, which no job has caused.
    pub token_refresh: bool,
    /// The wait that the vendor asked for, if any: longer than zero, at most an hour.
    pub retry_after: Option<Duration>,
    /// The request and what came back, for people: `POST /jobs/statuses: HTTP 404`. The
    /// same for every job.
    pub exchange: Option<Arc<str>>,
}

/// What a caller can do about a [`BackendFault`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FaultKind {
    /// Try again later: no connection could be made (DNS, refused, TLS, connect
    /// time-out). No request was sent.
    #[error("the vendor can't be reached: {why}")]
    Unreachable {
        /// For an operator; names neither URL nor secret.
        why: String,
    },
    /// Try again later: a request was sent and no usable response came (time-out, reset,
    /// 5xx, going away).
    #[error("the vendor gave no usable response: {why}")]
    Unavailable {
        /// For an operator; never the body.
        why: String,
    },
    /// Poll less often.
    #[error("the vendor is throttling")]
    Throttled,
    /// Try again later: the gateway has no room to read the response, since the polls in
    /// flight use all of `limits.response_bytes`.
    #[error("the gateway has no room to read the vendor's response: limits.response_bytes is in use")]
    Overloaded,
    /// Fix the gateway's credentials.
    #[error("the vendor rejects the gateway's credentials")]
    CredentialsRejected,
    /// Give the gateway's account the permission.
    #[error("the vendor forbids this to the gateway's account")]
    Forbidden,
    /// Fix the configuration or the request: refused for a reason that is
    /// neither the job's nor the credentials'.
    #[error("the vendor refuses the request{}{message}", if message.is_empty() { "" } else { ": " })]
    Rejected {
        /// The vendor's words, trimmed by [`vendor_message`]; empty where they were
        /// said of another job.
        message: String,
    },
    /// Larger than the configuration allows; fewer jobs may fit.
    #[error("the vendor's response is larger than max_response_bytes")]
    TooLarge,
    /// Not a response that this version understands.
    #[error("the vendor's response can't be understood: {why}")]
    Malformed {
        /// What is wrong with it; never its content.
        why: &'static str,
    },
}

impl BackendFault {
    /// Whether the fault is about the backend by its nature, whatever jobs were polled.
    /// So is one with which the vendor asks for a wait. Otherwise one job of the batch may
    /// have caused it.
    pub fn concerns_backend(&self) -> bool {
        if self.token_refresh || self.retry_after.is_some() {
            return true;
        }
        match self.kind {
            FaultKind::Unreachable { .. }
            | FaultKind::Throttled
            | FaultKind::Overloaded
            | FaultKind::CredentialsRejected => true,
            FaultKind::Unavailable { .. }
            | FaultKind::Forbidden
            | FaultKind::Rejected { .. }
            | FaultKind::TooLarge
            | FaultKind::Malformed { .. } => false,
        }
    }

    /// Whether the vendor can be reached and accepts the credentials, but refuses the
    /// request or answers it unreadably, without asking for a wait.
    pub fn is_refusal(&self) -> bool {
        self.retry_after.is_none() && self.kind.is_refusal()
    }

    /// The same with the wait that the vendor asked for.
    #[must_use]
    pub fn with_retry_after(self, retry_after: Option<Duration>) -> Self {
        Self { retry_after, ..self }
    }

    /// The same for the subscribers of other jobs: the vendor's words may name the job
    /// that they were said of.
    #[must_use]
    pub fn without_vendor_message(&self) -> Self {
        match self.kind {
            FaultKind::Rejected { .. } => {
                Self { kind: FaultKind::Rejected { message: String::new() }, ..self.clone() }
            }
            _ => self.clone(),
        }
    }
}

impl From<FaultKind> for BackendFault {
    fn from(kind: FaultKind) -> Self {
        Self {
            kind,
            http_status: None,
            detail: None,
            token_refresh: false,
            retry_after: None,
            exchange: None,
        }
    }
}

impl From<StandbyFault> for BackendFault {
    fn from(fault: StandbyFault) -> Self {
        let kind = FaultKind::Unavailable { why: fault.to_string() };
        Self { detail: Some(fault.detail()), ..kind.into() }
    }
}

impl FaultKind {
    /// Whether the vendor can be reached and accepts the credentials, but refuses the
    /// request or answers it unreadably.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Rejected { .. } | Self::Malformed { .. } | Self::TooLarge | Self::Forbidden)
    }

    /// Whether the same request may succeed a little later without anybody's doing.
    pub fn is_temporary(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. } | Self::Unavailable { .. } | Self::Throttled | Self::Overloaded
        )
    }

    /// The same fault, with the HTTP status that was the failure.
    #[must_use]
    pub fn with_status(self, status: impl Into<u16>) -> BackendFault {
        BackendFault { http_status: Some(status.into()), ..self.into() }
    }
}

/// A vendor's words, fit for an error: one line, no control characters, at most
/// 512 characters.
pub fn vendor_message(text: &str) -> String {
    let mut words = String::new();
    for word in text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty()) {
        if !words.is_empty() {
            words.push(' ');
        }
        words.push_str(word);
        if words.len() > 4 * 512 {
            break;
        }
    }
    if let Some((end, _)) = words.char_indices().nth(512) {
        words.truncate(end);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vendor_message_of_any_text_is_one_short_line() {
        assert_eq!(vendor_message(" a\n\tb\u{7} c "), "a b c");
        assert_eq!(vendor_message(&"ä".repeat(9000)).chars().count(), 512);
        assert_eq!(vendor_message(&"ä ".repeat(9000)).chars().count(), 512);
    }

    #[test]
    fn fault_that_one_job_may_cause_does_not_concern_the_backend() {
        for (kind, concerns_backend) in [
            (FaultKind::Unreachable { why: String::new() }, true),
            (FaultKind::Throttled, true),
            (FaultKind::Overloaded, true),
            (FaultKind::CredentialsRejected, true),
            (FaultKind::Unavailable { why: String::new() }, false),
            (FaultKind::Forbidden, false),
            (FaultKind::Rejected { message: String::new() }, false),
            (FaultKind::TooLarge, false),
            (FaultKind::Malformed { why: "" }, false),
        ] {
            let fault = BackendFault::from(kind);
            assert_eq!(fault.concerns_backend(), concerns_backend, "{fault:?}");
            let waits = fault.clone().with_retry_after(Some(Duration::from_secs(1)));
            assert!(waits.concerns_backend() && !waits.is_refusal(), "{waits:?}");
            let refresh = BackendFault { token_refresh: true, ..fault };
            assert!(refresh.concerns_backend(), "{refresh:?}");
        }
    }
}
