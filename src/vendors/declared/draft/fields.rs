//! Which members of a job are its times, its progress, its error, its result and so on.

use super::{
    errors,
    moment::{self, Form},
    tree::{Leaf, Node},
    volatile::{self, File, is_url},
};

/// One key of `[status]`, or one file, with the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Guess {
    pub(super) key: &'static str,
    /// In TOML.
    pub(super) value: String,
    /// Empty where the name of the member says it.
    pub(super) why: String,
}

/// What the members of a job are guessed to be.
#[derive(Clone, Debug, Default)]
pub(super) struct Fields {
    /// In the order of the reference.
    pub(super) status: Vec<Guess>,
    pub(super) files: Vec<File>,
}

const TEXTS: [(&str, &[&str]); 3] = [
    (
        "job_type",
        &["job_type", "type", "kind", "run_type", "task_type", "operation_type", "operation", "category"],
    ),
    (
        "description",
        &["description", "display_name", "title", "name", "run_name", "job_name", "task_name", "label"],
    ),
    (
        "owner",
        &[
            "owner",
            "created_by",
            "creator",
            "user",
            "submitted_by",
            "started_by",
            "triggered_by",
            "requested_by",
            "initiator",
            "author",
            "username",
            "user_name",
            "owner_name",
            "creator_user_name",
            "user_email",
            "owner_email",
            "user_id",
            "owner_id",
        ],
    ),
];

/// Of an object that is a person.
const PERSON: [&str; 6] = ["username", "login", "name", "display_name", "email", "id"];

const CREATED: [&str; 9] =
    ["created", "creation", "create", "submitted", "submission", "submit", "queued", "requested", "enqueued"];
const STARTED: [&str; 6] = ["started", "start", "begin", "began", "begun", "launched"];
const ENDED: [&str; 12] = [
    "completed",
    "finished",
    "ended",
    "end",
    "finish",
    "completion",
    "complete",
    "stopped",
    "succeeded",
    "failed",
    "expired",
    "cancelled",
];
/// Words of names whose times are no part of a job's life.
const NO_TIMES: [&str; 17] = [
    "updated",
    "modified",
    "last",
    "next",
    "expires",
    "estimated",
    "expected",
    "scheduled",
    "deadline",
    "timeout",
    "by",
    "duration",
    "id",
    "count",
    "url",
    "steps",
    "date_modified",
];

/// Guesses for the members of a job, without those that have its id and its word.
pub(super) fn find(leaves: &[Leaf<'_>], taken: &[String]) -> Fields {
    let free = |leaf: &&Leaf<'_>| !taken.contains(&leaf.path);
    let leaves: Vec<&Leaf<'_>> = leaves.iter().filter(free).collect();
    let mut fields = Fields::default();
    let mut used: Vec<String> = Vec::new();
    for (key, names) in TEXTS {
        let Some((path, why)) = text(&leaves, names, key == "owner") else { continue };
        used.push(path.clone());
        fields.status.push(Guess { key, value: quoted(&path), why });
    }
    if let Some(leaf) = vendor_url(&leaves) {
        used.push(leaf.path.clone());
        fields.status.push(Guess { key: "vendor_url", value: quoted(&leaf.path), why: String::new() });
    }
    let mut known: Option<Form> = None;
    for (key, words) in [("create_time", &CREATED[..]), ("start_time", &STARTED), ("end_time", &ENDED)] {
        let Some(guess) = time(&leaves, key, words, &mut known) else { continue };
        fields.status.push(guess);
    }
    fields.status.extend(progress(&leaves));
    fields.status.extend(result(&leaves));
    fields.status.extend(errors::guess(&leaves));
    fields.files = volatile::files(&leaves, &used);
    let volatile = volatile::members(&leaves, &used);
    if !volatile.paths.is_empty() {
        let list: Vec<String> = volatile.paths.iter().map(|path| quoted(path)).collect();
        let value = format!("[{}]", list.join(", "));
        fields.status.push(Guess { key: "volatile", value, why: volatile.why() });
    }
    fields
}

/// A text in quotes on one line, as TOML writes it, so that it can stand in a comment too.
pub(super) fn quoted(text: &str) -> String {
    if !text.contains(char::is_control) {
        return toml::Value::from(text).to_string();
    }
    let escaped = text.chars().map(|c| match c {
        '"' | '\\' => format!("\\{c}"),
        c if c.is_control() => format!("\\u{:04X}", u32::from(c)),
        c => c.to_string(),
    });
    format!("\"{}\"", escaped.collect::<String>())
}

/// The first member with one of the names; `depth` is how many objects it may stand in.
pub(super) fn named<'l, 'n>(
    leaves: &[&'l Leaf<'n>],
    names: &[&str],
    depth: usize,
    is: impl Fn(&Node) -> bool,
) -> Option<&'l Leaf<'n>> {
    let rank = |leaf: &Leaf<'_>| names.iter().position(|name| *name == leaf.name);
    let fitting = leaves.iter().filter(|leaf| leaf.parents.len() <= depth && is(leaf.node));
    fitting
        .filter_map(|leaf| Some(((leaf.parents.len(), rank(leaf)?), *leaf)))
        .min_by_key(|(rank, _)| *rank)
        .map(|(_, leaf)| leaf)
}

fn text(leaves: &[&Leaf<'_>], names: &[&str], may_be_person: bool) -> Option<(String, String)> {
    let is_text = |node: &Node| {
        node.text().is_some_and(|text| !text.is_empty() && !is_url(text)) || may_be_person && node.is_object()
    };
    let leaf = named(leaves, names, 0, is_text)?;
    if !leaf.node.is_object() {
        return Some((leaf.path.clone(), String::new()));
    }
    let person = PERSON.iter().find(|name| leaf.node.get(name).is_some_and(|node| node.plain().is_some()))?;
    Some((format!("{}.{person}", leaf.path), String::new()))
}

fn vendor_url<'l, 'n>(leaves: &[&'l Leaf<'n>]) -> Option<&'l Leaf<'n>> {
    const NAMES: [&str; 12] = [
        "html_url",
        "web_url",
        "run_page_url",
        "page_url",
        "ui_url",
        "web",
        "permalink",
        "dashboard_url",
        "url",
        "href",
        "link",
        "self",
    ];
    let is_page = |node: &Node| node.text().is_some_and(|text| is_url(text) && !text.contains('?'));
    named(leaves, &NAMES, 0, is_page).or_else(|| named(leaves, &NAMES[..8], 1, is_page))
}

fn time(leaves: &[&Leaf<'_>], key: &'static str, words: &[&str], known: &mut Option<Form>) -> Option<Guess> {
    let rank = |leaf: &Leaf<'_>| {
        let tokens: Vec<&str> = leaf.name.split('_').collect();
        if tokens.iter().any(|token| NO_TIMES.contains(token)) {
            return None;
        }
        let word = words
            .iter()
            .position(|word| tokens.contains(word) || word == &"cancelled" && tokens.contains(&"canceled"))?;
        let says_time =
            tokens.iter().any(|token| matches!(*token, "at" | "time" | "date" | "on" | "timestamp" | "ts"));
        let is_time = moment::form(leaf.node).is_some()
            || moment::is_unset(leaf.node) && (says_time || tokens.len() == 1);
        let is_set = moment::form(leaf.node).is_some();
        // A time of one kind of end that never came says nothing.
        (is_time && (is_set || word < 8 || kinds_of_end(leaf, leaves))).then_some((
            leaf.parents.len(),
            tokens.len() > 3,
            !is_set && word > 7,
            word,
            tokens.len(),
        ))
    };
    let mut fitting: Vec<_> = leaves.iter().filter_map(|leaf| Some((rank(leaf)?, *leaf))).collect();
    fitting.sort_by_key(|(rank, _)| *rank);
    let (_, leaf) = fitting.first()?;
    // An end of each kind has a time of its own at some vendors.
    let kinds = KINDS_OF_END;
    let each: Vec<&&Leaf<'_>> = fitting
        .iter()
        .map(|(_, leaf)| leaf)
        .filter(|other| key == "end_time" && other.object == leaf.object && kinds.contains(&&*other.name))
        .collect();
    let (at, set) = if each.len() > 1 && kinds.contains(&&*leaf.name) {
        let paths: Vec<&str> = each.iter().map(|leaf| &*leaf.path).collect();
        (paths.join(" or "), each.iter().find_map(|leaf| moment::form(leaf.node)))
    } else {
        (leaf.path.clone(), moment::form(leaf.node))
    };
    let (form, mut why) = match set {
        Some(form) => (Some(form.clone()), form.why),
        None => match &known {
            Some(form) => (
                known.clone(),
                if form.keys.is_empty() {
                    String::new()
                } else {
                    "not set here; in the form of the other times".to_owned()
                },
            ),
            None => (None, "not set here; fill in: its form".to_owned()),
        },
    };
    if known.is_none() {
        known.clone_from(&form);
    }
    let mut keys = form.map(|form| form.keys).unwrap_or_default();
    let unset = match leaf.node {
        Node::Number(number) if moment::is_unset(leaf.node) => Some(number.clone()),
        Node::Text { text, .. } if moment::is_unset(leaf.node) && !text.is_empty() => Some(quoted(text)),
        _ => None,
    };
    if let Some(unset) = unset {
        keys = if keys.is_empty() { format!("unset = {unset}") } else { format!("{keys}, unset = {unset}") };
    }
    if each.len() > 1 && why.is_empty() {
        "one for each kind of end".clone_into(&mut why);
    }
    let value = if keys.is_empty() { quoted(&at) } else { format!("{{ at = {}, {keys} }}", quoted(&at)) };
    Some(Guess { key, value, why })
}

const KINDS_OF_END: [&str; 6] =
    ["completed_at", "failed_at", "expired_at", "cancelled_at", "canceled_at", "succeeded_at"];

/// Whether other kinds of end have their times beside this one.
fn kinds_of_end(leaf: &Leaf<'_>, leaves: &[&Leaf<'_>]) -> bool {
    leaves.iter().any(|other| {
        other.object == leaf.object && other.path != leaf.path && KINDS_OF_END.contains(&&*other.name)
    })
}

fn progress(leaves: &[&Leaf<'_>]) -> Option<Guess> {
    const PERCENT: [&str; 8] = [
        "percent",
        "percent_complete",
        "progress_percent",
        "percentage",
        "progress_percentage",
        "completion_percentage",
        "percent_done",
        "progress",
    ];
    const DONE: [&str; 9] = [
        "completed_steps",
        "completed",
        "processed",
        "done",
        "succeeded",
        "records_processed",
        "processed_count",
        "completed_count",
        "rows_processed",
    ];
    const TOTAL: [&str; 7] =
        ["total_steps", "total", "total_count", "total_records", "record_count", "total_rows", "total_items"];
    const STEP: [&str; 5] = ["current_step", "current_stage", "current_task", "step_name", "step"];
    let whole = |node: &Node| node.number().is_some_and(|number| number.fract() == 0.0 && number >= 0.0);
    let mut keys = Vec::new();
    let mut why = String::new();
    if let Some(leaf) =
        named(leaves, &PERCENT, 1, |node| node.number().is_some_and(|number| (0.0..=100.0).contains(&number)))
    {
        let number = leaf.node.number().unwrap_or_default();
        let is_part = number > 0.0 && number < 1.0;
        let source = if is_part { format!("{} * 100", leaf.path) } else { leaf.path.clone() };
        if is_part {
            "below 1, so it is taken for a part of 1; fill in: is it?".clone_into(&mut why);
        } else if number <= 1.0 {
            "fill in: is it up to 100, or up to 1? Then write * 100".clone_into(&mut why);
        }
        keys.push(format!("percent = {}", quoted(&source)));
    }
    let total = named(leaves, &TOTAL, 1, whole);
    let done =
        named(leaves, &DONE, 1, whole).filter(|done| total.is_none_or(|total| total.object == done.object));
    if let (Some(done), Some(total)) = (done, total) {
        keys.push(format!("completed_steps = {}", quoted(&done.path)));
        keys.push(format!("total_steps = {}", quoted(&total.path)));
    }
    if let Some(step) = named(leaves, &STEP, 1, |node| node.text().is_some_and(|text| !text.is_empty())) {
        keys.push(format!("current_step = {}", quoted(&step.path)));
    }
    (!keys.is_empty()).then(|| Guess { key: "progress", value: format!("{{ {} }}", keys.join(", ")), why })
}

fn result(leaves: &[&Leaf<'_>]) -> Option<Guess> {
    const NAMES: [&str; 8] =
        ["result", "results", "output", "outputs", "response", "result_data", "return_value", "output_data"];
    let is_output = |node: &Node| match node {
        Node::Null | Node::Object(_) => true,
        Node::Text { text, .. } => !is_url(text),
        // Of locations, each is a file.
        Node::List(list) => !list.iter().any(|node| node.text().is_some_and(is_url)),
        _ => false,
    };
    let leaf = named(leaves, &NAMES, 0, is_output)?;
    let value = format!("{{ at = {}, in = [\"SUCCEEDED\"] }}", quoted(&leaf.path));
    Some(Guess { key: "result", value, why: String::new() })
}

#[cfg(test)]
mod tests;
