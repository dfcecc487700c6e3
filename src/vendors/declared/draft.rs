//! A definition that is begun from one answer of the vendor.
//!
//! What the answer and its request show is guessed, each guess with its reason as a comment:
//! where the id and the word stand, which members are times, what the request is made of.
//! What one answer can't show, such as the vendor's other words, is marked with "fill in:".

use super::SHIPPED;
use crate::vendors::KINDS;

mod asked;
mod errors;
mod fields;
mod graphql;
mod moment;
mod pairs;
mod pasted;
mod place;
mod readable;
pub(super) mod redact;
mod refusal;
mod secret_names;
mod secrets;
mod text_pairs;
mod tree;
mod volatile;
mod word;
mod words;
mod write;
mod write_cases;

use asked::{Asked, Part, Template, Value};
use fields::Fields;
use pasted::Pasted;
use place::At;
use secrets::Cleaner;
use tree::{Leaf, Node};
use word::Word;

/// Longest pasted answer in bytes.
pub const LONGEST_ANSWER: usize = pasted::LONGEST;

/// What a definition is begun from.
#[derive(Clone, Copy, Debug)]
pub struct Start<'a> {
    /// Of the definition.
    pub name: &'a str,
    /// JSON, or a whole response as `curl -i` prints it.
    pub answer: &'a [u8],
    /// Such as `GET https://host/path/123`.
    pub request: Option<&'a str>,
    /// The id of the job that the answer is about.
    pub id: Option<&'a str>,
    /// Paths of the members with the vendor's word.
    pub word: &'a [String],
    /// The schema that editors check the definition with, from its folder.
    pub schema: Option<&'a str>,
}

/// A begun definition with its cases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    /// The text of `definition.toml`.
    pub definition: String,
    /// The text of `cases.toml`.
    pub cases: String,
    /// The id of the job, as callers write it.
    pub job_id: String,
    /// The address of the vendor, if the request names it.
    pub base_url: Option<String>,
    /// The parameters that a backend has to have, with the values of the request.
    pub params: Vec<(String, String)>,
    /// The key of the secret in the credentials of a backend.
    pub secret: &'static str,
    /// The paths of what was redacted, such as `job.env[0].value`.
    pub redacted: Vec<String>,
}

/// Why nothing can be begun: which part of the start, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{part} {text}")]
pub struct Unusable {
    /// An option of the command, or NAME.
    pub part: &'static str,
    /// What is wrong with it.
    pub text: String,
}

/// What was found, before it is written.
#[derive(Debug)]
struct Found {
    pasted: Pasted,
    at: At,
    word: Word,
    fields: Fields,
    parts: Vec<Part>,
    template: Template,
    /// Sources of the parts in the answer.
    id: Vec<(String, String)>,
    has_request: bool,
    content: Content,
    is_batch: bool,
}

/// The content of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Content {
    None,
    Json,
    GraphQl(String),
}

impl Draft {
    /// The paths of what was redacted, for people; the first of many.
    #[must_use]
    pub fn redactions(&self) -> String {
        write_cases::listed(&self.redacted)
    }

    /// Begins a definition.
    ///
    /// # Errors
    /// A part that can't be used.
    pub fn begin(start: &Start<'_>) -> Result<Self, Unusable> {
        let of = |part| move |text| Unusable { part, text };
        check_name(start.name).map_err(of("NAME"))?;
        let mut pasted = Pasted::read(start.answer).map_err(of("--answer"))?;
        let mut asked = start.request.map(Asked::parse).transpose().map_err(of("--request"))?;
        let body = Node::parse(&pasted.body).map_err(of("--answer"))?;
        if let Some(why) = refusal::of(&body) {
            return Err(of("--answer")(why));
        }
        let found = Found::new(start, pasted.clone(), asked.as_ref(), &body)?;
        // What is written is read once more from an answer and a request without secrets.
        let job_id = found.job_id();
        let mut kept: Vec<&str> = found.parts.iter().map(|part| part.value.as_str()).collect();
        kept.push(&job_id);
        let mut cleaner = Cleaner::new(&kept);
        redact::note_secrets(&body, &mut cleaner);
        if let Some(asked) = &asked {
            asked.secrets().iter().for_each(|secret| cleaner.note(secret));
        }
        let (text, redacted) = redact::redacted(&pasted.body, &body, &cleaner);
        let redacted = redacted.iter().map(|path| found.at.path_from_job(path, &job_id)).collect();
        pasted.body = text;
        for (_, value) in &mut pasted.headers {
            *value = cleaner.text(value);
        }
        asked = asked.map(|asked| asked.redacted(&cleaner));
        let body = Node::parse(&pasted.body).map_err(of("--answer"))?;
        let start = &Start { id: Some(start.id.unwrap_or(&job_id)), ..*start };
        let found = Found::new(start, pasted, asked.as_ref(), &body)?;
        Ok(write::draft(start, &found, redacted))
    }
}

impl Found {
    fn new(start: &Start<'_>, pasted: Pasted, asked: Option<&Asked>, body: &Node) -> Result<Self, Unusable> {
        let unusable = |part, text: String| Unusable { part, text };
        if start.id.is_some_and(|id| id.is_empty() || id.len() > 512 || id.contains(char::is_control)) {
            return Err(unusable(
                "--id",
                "is no id; write 1 to 512 bytes without control characters".to_owned(),
            ));
        }
        let everything = tree::leaves("body", body);
        let hint = start.id.map(str::to_owned).or_else(|| asked?.likely_id(&everything));
        let last = hint.as_deref().map(|id| id.rsplit('/').next().unwrap_or(id));
        let place = place::find(body, hint.as_deref()).and_then(|place| {
            let is_there =
                |id: &str| tree::leaves("job", place.job).iter().any(|leaf| leaf.node.plain() == Some(id));
            if hint.as_deref().is_some_and(is_there) { Some(place) } else { place::find(body, last) }
        });
        let Some(place) = place else {
            return Err(unusable("--answer", refusal::no_object(body)));
        };
        let leaves = tree::leaves("job", place.job);
        let word = find_word(start, &leaves, body)?;
        let member = place::id_member(&leaves, hint.as_deref())
            .or_else(|| place::id_member(&leaves, last).filter(|_| last.is_some()));
        let job_id = hint.or_else(|| member.and_then(|leaf| leaf.node.plain()).map(str::to_owned));
        let Some(job_id) = job_id else {
            let text = "is missing: neither the request nor a member of the answer says which job it is about; write --id with its id";
            return Err(unusable("--id", text.to_owned()));
        };
        let member_name = member.map(|leaf| leaf.name.as_str());
        let (mut parts, mut template) =
            asked.map(|asked| asked.template(&job_id, member_name, &leaves)).unwrap_or_default();
        let content = content(asked, &template, body, &place.at);
        let in_query = |value: &(String, Value)| !matches!(value.1, Value::Literal(_));
        let names_several = template.query.iter().any(|(_, value)| matches!(value, Value::Parts(_)));
        let is_named = template.has_id_in_path || template.query.iter().any(in_query);
        let is_batch = match &place.at {
            At::ById { .. } => true,
            At::List { .. } => {
                asked.is_some() && (names_several || !is_named) || matches!(content, Content::GraphQl(_))
            }
            At::Path(_) => false,
        };
        if let Some(asked) = asked
            && !is_named
            && !is_batch
            && !asked.is_post
        {
            let text =
                format!("does not have the id {job_id:?}; write the request for this job, or another --id");
            return Err(unusable("--request", text));
        }
        if parts.is_empty() {
            parts.push(Part { name: place::part_name(member_name, None), value: job_id });
        }
        if asked.is_none() {
            template.path = format!("/fill-in/{{{{ id.{} }}}}", parts[0].name);
        }
        let id = id_sources(&parts, member, &leaves);
        let mut taken: Vec<String> =
            word.paths.iter().chain(id.iter().map(|(_, path)| path)).cloned().collect();
        taken.extend(leaves.iter().filter(|leaf| leaf.name == "typename").map(|leaf| leaf.path.clone()));
        let fields = fields::find(&leaves, &taken);
        let has_request = asked.is_some();
        Ok(Self { pasted, at: place.at, word, fields, parts, template, id, has_request, content, is_batch })
    }

    /// The id as callers write it.
    fn job_id(&self) -> String {
        let values: Vec<&str> = self.parts.iter().map(|part| part.value.as_str()).collect();
        values.join("/")
    }
}

fn check_name(name: &str) -> Result<(), String> {
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if !(1..=63).contains(&name.len()) || name.starts_with('-') || !name.chars().all(is_plain) {
        return Err(format!("is {name:?}; write 1 to 63 of a-z, 0-9 and '-'"));
    }
    if KINDS.iter().any(|kind| kind.key == name) {
        return Err(format!("is {name}, which is built in; write another name"));
    }
    if SHIPPED.iter().any(|shipped| shipped.name == name) {
        return Err(format!(
            "is {name}, which jobwatch has already: see jobwatch vendor show {name}; to begin another one, write \
             another name"
        ));
    }
    Ok(())
}

fn find_word(start: &Start<'_>, leaves: &[Leaf<'_>], body: &Node) -> Result<Word, Unusable> {
    let names = || {
        let own =
            leaves.iter().filter(|leaf| leaf.node.plain().is_some() || matches!(leaf.node, Node::Flag(_)));
        own.take(12).map(|leaf| leaf.path.as_str()).collect::<Vec<_>>().join(", ")
    };
    if start.word.is_empty() {
        return word::find(leaves).ok_or_else(|| {
            let text = refusal::no_state(body).unwrap_or_else(|| {
                let names = names();
                let cure = if names.is_empty() {
                    "paste the answer about one job, with its state".to_owned()
                } else {
                    format!("name it with --word, such as one of {names}")
                };
                format!("has no member that looks like a state, such as status, state or phase; {cure}")
            });
            Unusable { part: "--answer", text }
        });
    }
    let parts: Result<Vec<Word>, Unusable> = start
        .word
        .iter()
        .map(|path| {
            word::at(path, leaves).ok_or_else(|| Unusable {
                part: "--word",
                text: format!("{path} is no text, number or flag of the job; write one of {}", names()),
            })
        })
        .collect();
    Ok(word::joined(parts?))
}

fn content(asked: Option<&Asked>, template: &Template, body: &Node, at: &At) -> Content {
    let many = matches!(at, At::List { .. });
    let is_one_field = body.get("data").is_some_and(|data| {
        data.members().len() == 1
            && data.members().iter().all(|(_, node)| matches!(node, Node::Object(_) | Node::List(_)))
    });
    let only_graphql =
        body.members().iter().all(|(name, _)| matches!(name.as_str(), "data" | "errors" | "extensions"));
    let is_graphql = match asked {
        Some(asked) => {
            template.path.to_lowercase().contains("graphql") || asked.is_post && is_one_field && only_graphql
        }
        None => is_one_field && only_graphql,
    };
    match graphql::query(body, many).filter(|_| is_graphql) {
        Some(query) => Content::GraphQl(query),
        None if asked.is_some_and(|asked| asked.is_post) => Content::Json,
        None => Content::None,
    }
}

/// Where the parts of the id stand in the answer.
fn id_sources(parts: &[Part], member: Option<&Leaf<'_>>, leaves: &[Leaf<'_>]) -> Vec<(String, String)> {
    let source = |part: &Part| {
        let own = |leaf: &&Leaf<'_>| {
            leaf.parents.len() <= 1 && leaf.node.plain() == Some(&*part.value) && leaf.name.ends_with("id")
        };
        let member = member.filter(|leaf| leaf.node.plain() == Some(&*part.value));
        let leaf = member.or_else(|| leaves.iter().find(own))?;
        Some((part.name.clone(), leaf.path.clone()))
    };
    parts.iter().filter_map(source).collect()
}

#[cfg(test)]
mod tests;
