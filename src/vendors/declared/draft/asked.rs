//! The request that an answer came from, and the template that it becomes.

use percent_encoding::percent_decode_str;
use url::Url;
use uuid::Uuid;

use super::{
    place::part_name,
    secret_names::is_secret_name,
    secrets::{Cleaner, REDACTED},
    tree::{Leaf, snake_case},
};
use crate::vendors::{canonical_integer, percent_encoded};

/// Segments of a path after which the name of an account or a project stands.
const ACCOUNTS: [&str; 22] = [
    "account",
    "accounts",
    "tenant",
    "tenants",
    "workspace",
    "workspaces",
    "org",
    "orgs",
    "organization",
    "organizations",
    "project",
    "projects",
    "subscription",
    "subscriptions",
    "namespace",
    "namespaces",
    "team",
    "teams",
    "site",
    "sites",
    "environment",
    "environments",
];

/// A request, such as `GET https://host/path/123`.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) is_post: bool,
    pub(super) url: Url,
}

/// A part of a job's id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) name: String,
    pub(super) value: String,
}

impl Part {
    /// The type of the part.
    pub(super) fn kind(&self) -> &'static str {
        kind(&self.value)
    }
}

fn kind(value: &str) -> &'static str {
    if canonical_integer(value).is_some() {
        "integer"
    } else if value.parse::<Uuid>().is_ok_and(|uuid| uuid.to_string() == value) {
        "uuid"
    } else {
        "text"
    }
}

/// A template of the request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Template {
    /// Scheme, host and port.
    pub(super) origin: String,
    pub(super) path: String,
    /// Values with `{{ }}`, except for the ones that are an id.
    pub(super) query: Vec<(String, Value)>,
    /// Parameters of the backend with the values of the request.
    pub(super) params: Vec<Part>,
    /// The parameter of the query that has the secret.
    pub(super) secret: Option<String>,
    /// Path and query as they were sent, without the secret.
    pub(super) target: String,
    /// Segments that may be another for other jobs.
    pub(super) doubtful: Vec<String>,
    /// Whether the path has a part of the id.
    pub(super) has_id_in_path: bool,
}

/// A value of a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Literal(String),
    /// The part of the id with this name.
    Part(String),
    /// Several ids with commas between them.
    Parts(String),
}

impl Asked {
    /// Reads a method and a URL, or a URL alone.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        const EXAMPLE: &str = "write it as \"GET https://api.example/v1/jobs/123\"";
        if text.contains(['{', '}', '<', '>']) {
            return Err(format!(
                "has a placeholder; write the request for one job, with its id in place: {EXAMPLE}"
            ));
        }
        let words: Vec<&str> = text.split_whitespace().collect();
        let (method, url) = match words[..] {
            [url] => ("GET", url),
            [method, url] => (method, url),
            _ => return Err(format!("is no method with a URL; {EXAMPLE}")),
        };
        let is_post = match &*method.to_uppercase() {
            "GET" => false,
            "POST" => true,
            _ => return Err(format!("has the method {method}, and a poll is GET or POST; {EXAMPLE}")),
        };
        if url.starts_with('/') {
            return Err(format!(
                "has a path alone; write the vendor's address before it, such as \"GET https://api.example{url}\""
            ));
        }
        let url =
            Url::parse(url).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        let url = url.ok_or_else(|| format!("has no URL of http or https; {EXAMPLE}"))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err("has a user name or a password in its URL; leave them out".to_owned());
        }
        Ok(Self { is_post, url })
    }

    /// The values of its query that are secrets by their names.
    pub(super) fn secrets(&self) -> Vec<String> {
        let pairs = self.url.query_pairs().filter(|(name, value)| is_secret(name, value));
        pairs.map(|(_, value)| value.into_owned()).collect()
    }

    /// The same request without secrets by their form. Those by their names stay: the template
    /// tells from them how the API is signed in to.
    pub(super) fn redacted(mut self, cleaner: &Cleaner) -> Self {
        let plain: Vec<String> = self.segments().into_iter().map(str::to_owned).collect();
        let shown = plain.iter().map(|segment| {
            let text = decoded(segment);
            let shown = cleaner.value("", &text);
            if shown == text { segment.clone() } else { percent_encoded(&shown).into_owned() }
        });
        let path = shown.collect::<Vec<_>>().join("/");
        self.url.set_path(&path);
        self.url.set_fragment(None);
        let pairs: Vec<(String, String)> = self.url.query_pairs().into_owned().collect();
        let shown = pairs.iter().map(|(name, value)| {
            if is_secret(name, value) {
                (name.clone(), value.clone())
            } else {
                (cleaner.text(name), cleaner.value(name, value))
            }
        });
        let shown: Vec<(String, String)> = shown.collect();
        if shown != pairs {
            self.url.query_pairs_mut().clear().extend_pairs(&shown);
        }
        self
    }

    /// The segments of the path, with their escapes.
    fn segments(&self) -> Vec<&str> {
        self.url.path().trim_start_matches('/').split('/').collect()
    }

    /// The value that is most likely an id, where none is named.
    pub(super) fn likely_id(&self, leaves: &[Leaf<'_>]) -> Option<String> {
        let segments: Vec<String> = self.segments().iter().map(|segment| decoded(segment)).collect();
        let values: Vec<(String, String)> = self.url.query_pairs().into_owned().collect();
        let is_named = |value: &str| {
            leaves.iter().any(|leaf| leaf.node.plain() == Some(value) && leaf.name.ends_with("id"))
        };
        let all = || segments.iter().rev().chain(values.iter().map(|(_, value)| value));
        let looks_like_id = |segment: &&String| {
            let is_version = segment
                .strip_prefix('v')
                .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()) && rest.len() <= 3);
            segment.bytes().any(|byte| byte.is_ascii_digit()) && !is_version && !segment.contains('.')
        };
        all()
            .find(|value| is_named(value))
            .or_else(|| {
                values.iter().find(|(name, _)| snake_case(name).ends_with("id")).map(|(_, value)| value)
            })
            .or_else(|| segments.iter().rev().take(2).find(looks_like_id))
            .cloned()
    }

    /// The parts of the id of a job, in the order of the request, and its template.
    /// `member` is the name of the member that has the id.
    pub(super) fn template(
        &self,
        id: &str,
        member: Option<&str>,
        leaves: &[Leaf<'_>],
    ) -> (Vec<Part>, Template) {
        let segments = self.segments();
        let plain: Vec<String> = segments.iter().map(|segment| decoded(segment)).collect();
        let pairs: Vec<(String, String)> = self.url.query_pairs().into_owned().collect();
        let is_whole = plain.iter().any(|segment| segment == id)
            || pairs.iter().any(|(_, value)| ids_of(value).any(|one| one == id))
            || !id.contains('/');
        let pieces: Vec<&str> = if is_whole { vec![id] } else { id.split('/').collect() };
        let last = pieces.last().copied().unwrap_or(id);
        let of_answer = |value: &str| {
            member_with(value, leaves, |leaf| leaf.parents.is_empty() && leaf.name.ends_with("_id"))
        };
        // Such as the namespace that a member names.
        let account_of_answer = |value: &str| {
            member_with(value, leaves, |leaf| {
                leaf.parents.len() <= 1 && ACCOUNTS.contains(&leaf.name.trim_end_matches("_id"))
            })
        };
        let mut parts: Vec<Part> = Vec::new();
        let mut template =
            Template { origin: self.url.origin().ascii_serialization(), ..Template::default() };
        let mut path = String::new();
        // Of equal segments the last one is the job's.
        let place = plain.iter().rposition(|segment| segment == last);
        for (index, (written, segment)) in segments.iter().zip(&plain).enumerate() {
            path.push('/');
            let before = index.checked_sub(1).map(|before| plain[before].as_str());
            if Some(index) == place {
                let name = unique(part_name(member, collection(&plain[..index])), &parts);
                path = path + "{{ id." + &name + " }}";
                parts.push(Part { name, value: segment.clone() });
                template.has_id_in_path = true;
                continue;
            }
            let is_account = before.is_some_and(|before| ACCOUNTS.contains(&&*before.to_lowercase()))
                || account_of_answer(segment).is_some();
            if is_account && !segment.is_empty() {
                let name = account_of_answer(segment).unwrap_or_else(|| part_name(None, before));
                if !template.params.iter().any(|param| param.name == name) {
                    template.params.push(Part { name: name.clone(), value: segment.clone() });
                    path = path + "{{ params." + &name + " }}";
                    continue;
                }
            }
            let named = of_answer(segment).or_else(|| {
                pieces.contains(&&**segment).then(|| part_name(None, before)).filter(|_| pieces.len() > 1)
            });
            let is_new =
                |name: &String| parts.iter().all(|part| part.name != *name) && Some(&**name) != member;
            if let Some(name) = named.filter(is_new) {
                path = path + "{{ id." + &name + " }}";
                parts.push(Part { name, value: segment.clone() });
                template.has_id_in_path = true;
                continue;
            }
            let is_of_a_list = before.is_some_and(|before| before.len() > 3 && before.ends_with('s'));
            if is_of_a_list && index > 1 && place.is_some_and(|place| index < place) {
                template.doubtful.push(segment.clone());
            }
            path.push_str(written);
        }
        template.path = path;
        let mut kept = Vec::new();
        for (name, value) in pairs {
            if is_secret(&name, &value) && !ids_of(&value).any(|one| one == last) {
                template.secret = Some(name);
                continue;
            }
            kept.push((name.clone(), value.clone()));
            let is_id = ids_of(&value).any(|one| one == last);
            let value = if is_id {
                let known = parts.iter().find(|part| part.value == last).map(|part| part.name.clone());
                let part = known.unwrap_or_else(|| {
                    // What the request calls it says more than "id" does.
                    let own = snake_case(&name);
                    let own = own.strip_suffix("ids").map(|stem| format!("{stem}id")).unwrap_or(own);
                    let named = member.filter(|member| *member != "id").unwrap_or(&own);
                    let part = unique(part_name(Some(named), None), &parts);
                    parts.push(Part { name: part.clone(), value: last.to_owned() });
                    part
                });
                let is_plural = snake_case(&name).ends_with("ids") || value.contains(',');
                if is_plural { Value::Parts(part) } else { Value::Part(part) }
            } else {
                Value::Literal(value)
            };
            template.query.push((name, value));
        }
        let mut sent = self.url.clone();
        sent.set_query(None);
        if !kept.is_empty() {
            sent.query_pairs_mut().extend_pairs(&kept);
        }
        template.target =
            format!("{}{}", sent.path(), sent.query().map(|query| format!("?{query}")).unwrap_or_default());
        (parts, template)
    }
}

/// Whether a parameter of the query has a secret.
fn is_secret(name: &str, value: &str) -> bool {
    is_secret_name(name)
        || matches!(&*snake_case(name), "key" | "auth")
        || snake_case(name) == "code" && Cleaner::default().value(name, value) == REDACTED
}

impl Template {
    /// The type of a parameter.
    pub(super) fn kind(param: &Part) -> &'static str {
        match kind(&param.value) {
            "uuid" => "uuid",
            "integer" => "integer",
            _ => "text",
        }
    }
}

/// The name of a member of some kind that has this value.
fn member_with(value: &str, leaves: &[Leaf<'_>], is: impl Fn(&Leaf<'_>) -> bool) -> Option<String> {
    let has = |leaf: &&Leaf<'_>| leaf.node.plain() == Some(value) && is(leaf);
    leaves.iter().find(has).map(|leaf| leaf.name.clone())
}

/// What the segments before an id name: the last one in the plural, or the last one.
fn collection(before: &[String]) -> Option<&str> {
    let is_plural = |segment: &&String| segment.len() > 3 && segment.ends_with('s');
    let near = before.iter().rev().take(2).find(is_plural);
    near.or(before.last()).map(String::as_str)
}

fn ids_of(value: &str) -> impl Iterator<Item = &str> {
    value.split(',').map(str::trim).chain(value.contains(',').then_some(value))
}

fn decoded(segment: &str) -> String {
    percent_decode_str(segment).decode_utf8_lossy().into_owned()
}

/// The name, or one with a number where a part has it.
fn unique(name: String, parts: &[Part]) -> String {
    if parts.iter().all(|part| part.name != name) {
        return name;
    }
    let mut unique = name.clone();
    let mut count = 1;
    while parts.iter().any(|part| part.name == unique) {
        count += 1;
        unique = format!("{name}_{count}");
    }
    unique
}

#[cfg(test)]
mod tests;
