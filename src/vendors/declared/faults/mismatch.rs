//! Why a rule does not apply to a response.

use super::{Answer, FaultRule, Meaning, nouns};
use crate::vendors::{refusal, requested_wait, response};

/// The first condition that a response does not meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::vendors::declared) enum Mismatch {
    Status,
    /// A page in HTML, which may come from a proxy.
    Page,
    /// The response asks for a wait, and the status alone says nothing of a job then.
    Wait,
    Header,
    ContentType,
    /// The answer is no JSON, which is malformed without a rule.
    NoBody,
    When,
    Code,
    /// It is about several jobs.
    Batch,
    NoSuchJob,
    NamesTheId,
}

impl FaultRule {
    /// The first condition that the response does not meet, if there is one.
    pub(in crate::vendors::declared) fn mismatch(&self, answer: &Answer<'_>) -> Option<Mismatch> {
        if !self.is_about(answer.response.status().as_u16()) {
            return Some(Mismatch::Status);
        }
        let is_about_job = self.is_about_job();
        if is_about_job && self.content_type.is_none() && response::is_page(answer.response) {
            return Some(Mismatch::Page);
        }
        let headers = answer.response.headers();
        // What a status alone says of a job is no answer yet where the response asks for a wait.
        let asks_to_wait = || requested_wait::of_head(answer.response.status(), headers).is_some();
        if is_about_job && !self.has_conditions() && asks_to_wait() {
            return Some(Mismatch::Wait);
        }
        let has_header = |(name, value): &(_, Option<String>)| match value {
            None => headers.contains_key(name),
            Some(value) => headers.get_all(name).iter().any(|found| found.as_bytes() == value.as_bytes()),
        };
        if !self.header.iter().all(has_header) {
            return Some(Mismatch::Header);
        }
        if let Some(wanted) = &self.content_type
            && response::content_type(headers).is_none_or(|kind| !kind.contains(wanted.as_str()))
        {
            return Some(Mismatch::ContentType);
        }
        // What is not JSON is malformed without a rule, which says why.
        let is_malformed = self.is == Meaning::Malformed;
        if is_malformed && answer.scope.body.is_none() {
            return Some(Mismatch::NoBody);
        }
        if let Some(when) = &self.when {
            let scope = &answer.scope;
            if !(if is_malformed { when.may_hold(scope) } else { when.holds(scope) }) {
                return Some(Mismatch::When);
            }
        }
        if !self.graphql_codes.is_empty() && !answer.has_code(&self.graphql_codes) {
            return Some(Mismatch::Code);
        }
        let [job] = answer.jobs else {
            let is_of_one = self.says_no_such_job || !self.names_the_id.is_empty();
            return is_of_one.then_some(Mismatch::Batch);
        };
        if self.says_no_such_job
            && !refusal::says_none_of(&self.words(answer), job, &nouns(answer.scope.part_names))
        {
            return Some(Mismatch::NoSuchJob);
        }
        (!self.names_the_id.is_empty() && !self.names(answer, job)).then_some(Mismatch::NamesTheId)
    }

    /// Whether its condition is one of this status by name.
    pub(in crate::vendors::declared) fn lists(&self, status: u16) -> bool {
        self.statuses.contains(&status)
    }
}

impl Mismatch {
    /// For people who write a definition.
    pub(in crate::vendors::declared) fn text(self) -> &'static str {
        match self {
            Self::Status => "has another status",
            Self::Page => {
                "does not take a page in HTML, which may come from a proxy; \
                 write content_type = \"text/html\" in it if it is the vendor's"
            }
            Self::Wait => "leaves an answer that asks for a wait; write another condition beside the status",
            Self::Header => "has a header that the answer lacks, or has with another value",
            Self::ContentType => "has another content_type",
            Self::NoBody => "is not for an answer without JSON, which is malformed in any case",
            Self::When => "has a when that is not true",
            Self::Code => "has a graphql_code that no error has",
            Self::Batch => "has says or names_the_id, which are read for one job alone",
            Self::NoSuchJob => {
                "has says, and the message does not say that the job does not exist; \
                 write when for other sentences"
            }
            Self::NamesTheId => "has names_the_id, whose values do not speak of the id",
        }
    }
}
