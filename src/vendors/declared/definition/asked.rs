//! What is asked of a vendor, for one job or for several, and where the job stands in the
//! answer.

use std::num::NonZeroUsize;

use super::{Answer, Batch, LARGEST_BATCH, Question, request, section_of, source};
use crate::vendors::declared::{
    id::IdPattern,
    place::Place,
    reader::{Log, Node, Section},
    source::{Names, Source},
};

/// What is asked.
pub(super) struct Asked {
    pub(super) question: Option<Question>,
    pub(super) batch: Option<Batch>,
    pub(super) has_batch: bool,
}

impl Asked {
    pub(super) fn read(top: &mut Section<'_>, names: &Names<'_>, log: &Log<'_>) -> Self {
        let (single, several) = (top.get("request"), top.get("batch"));
        let has_batch = several.is_some();
        if single.is_none() && !has_batch {
            log.add(0..0, "request", "is missing; write [request] with path, or [batch] with path and jobs");
        }
        let question = section_of(log, single).and_then(|mut keys| {
            let question = request(&mut keys, &Names { roots: &["id", "params"], ..*names }, log);
            keys.finish(log);
            question
        });
        let in_batch = Names { roots: &["ids", "params"], ..*names };
        let batch = section_of(log, several).and_then(|keys| batch(keys, &in_batch, log));
        Self { question, batch, has_batch }
    }

    /// Each part of an id has to be a part of what is asked.
    pub(super) fn check_parts(&self, id: &IdPattern, node: &Node<'_>, log: &Log<'_>) {
        let batch = self.batch.as_ref().map(|batch| &batch.question);
        for (key, question) in [("request", self.question.as_ref()), ("batch", batch)] {
            let Some(question) = question else { continue };
            let sources = question.request.sources();
            for (place, name) in id.names.iter().enumerate() {
                if !sources.iter().any(|source| uses_part(source, place, name)) {
                    let such_as = if key == "batch" {
                        format!(", such as {{{{ ids | map(attribute='{name}') | join(',') }}}}")
                    } else {
                        String::new()
                    };
                    let text = format!(
                        "has the part {name}, which [{key}] does not use; use it there{such_as}, or remove it"
                    );
                    node.report(log, text);
                }
            }
        }
    }
}

fn uses_part(source: &Source, place: usize, name: &str) -> bool {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    match source {
        Source::Part(used) => *used == place,
        Source::Expression(expression) => {
            let written = &expression.written;
            let is_whole = |at: usize| {
                !written[..at].ends_with(is_word) && !written[at + name.len()..].starts_with(is_word)
            };
            expression.roots.iter().any(|root| root == "ids" || root == "id")
                && written.match_indices(name).any(|(at, _)| is_whole(at))
        }
        _ => false,
    }
}

fn batch(mut keys: Section<'_>, names: &Names<'_>, log: &Log<'_>) -> Option<Batch> {
    let jobs = keys.required(log, "jobs", "where the jobs stand, such as jobs = \"body.items\"");
    let jobs = jobs.and_then(|node| Place::read(&node, log));
    let max = keys.get("max").map_or(Some(200), |node| match node.integer(log)? {
        max @ 2..=LARGEST_BATCH => Some(max),
        max => node.problem(log, format!("is {max}; write 2 to {LARGEST_BATCH}")),
    });
    let by_id = keys.get("by_id").and_then(|node| node.flag(log)).unwrap_or(false);
    let question = request(&mut keys, names, log);
    keys.finish(log);
    let max = NonZeroUsize::new(usize::try_from(max?).ok()?)?;
    Some(Batch { question: question?, jobs: jobs?, by_id, max })
}

/// Reads `[answer]`.
pub(super) fn answer(keys: Option<Section<'_>>, names: &Names<'_>, log: &Log<'_>) -> Option<Answer> {
    let Some(mut keys) = keys else {
        return Some(Answer {
            job: Place::whole(),
            states_by_status: Vec::new(),
            may_be_empty: false,
            refusal: None,
            speaks_plain_text: true,
            has_login_page: false,
        });
    };
    let job = keys.get("job").map_or_else(|| Some(Place::whole()), |node| Place::read(&node, log));
    let mut states_by_status = Vec::new();
    for node in keys.get("states_by_status").map(|node| node.list()).unwrap_or_default() {
        match node.integer(log).map(u16::try_from) {
            Some(Ok(status @ 200..=599)) if !matches!(status, 300..=399 | 401 | 407 | 429) => {
                states_by_status.push(status);
            }
            Some(_) => node.report(log, "is no status that can be a word; write one such as 202 or 422"),
            None => {}
        }
    }
    let may_be_empty =
        keys.get("body").and_then(|node| node.word(log, &[("optional", true), ("required", false)]))
            == Some(true);
    let refusal = keys.get("refusal").and_then(|node| source(&node, names, log));
    let speaks_plain_text = keys.get("plain_text").and_then(|node| node.flag(log)).unwrap_or(true);
    let has_login_page = keys.get("login_page").and_then(|node| node.flag(log)).unwrap_or(false);
    keys.finish(log);
    Some(Answer { job: job?, states_by_status, may_be_empty, refusal, speaks_plain_text, has_login_page })
}
