//! Where a job's state stands, and which state the word of the answer is.

use super::{
    tree::{Leaf, Node},
    words::state_of,
};

/// Names of a second part, which says how a job ended.
const OUTCOMES: [&str; 9] = [
    "result_state",
    "conclusion",
    "outcome",
    "result_status",
    "final_status",
    "final_state",
    "completion_status",
    "resolution",
    "result",
];

/// Flags that are true from the end on.
const ENDED: [&str; 7] =
    ["done", "completed", "finished", "is_done", "is_complete", "complete", "is_finished"];

/// Flags that are true until the end.
const OPEN: [&str; 6] = ["building", "running", "in_progress", "is_running", "active", "is_active"];

/// Names of objects that hold a state beside other things.
const HOLDERS: [&str; 2] = ["status", "state"];

/// The word of a job.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Word {
    /// What `status.word` is.
    pub(super) sources: Vec<String>,
    /// Paths of the members that it takes.
    pub(super) paths: Vec<String>,
    /// States with their words, as far as they are known.
    pub(super) states: Vec<(&'static str, String)>,
    /// The word of the answer where it is none of these.
    pub(super) unknown: Option<String>,
    /// The part that the vendor's other words stand in, such as `"{}/*"`.
    pub(super) form: &'static str,
    pub(super) why: String,
    /// Whether the states are all that there are.
    pub(super) is_complete: bool,
}

/// How likely a member is the job's word; 0 for one that is none.
fn rank(leaf: &Leaf<'_>) -> usize {
    let name = &*leaf.name;
    let parent = leaf.parents.last().map(String::as_str).unwrap_or_default();
    let base: usize = match name {
        "life_cycle_state" | "lifecycle_state" => 24,
        "status" | "state" => 20,
        "job_status" | "run_status" | "job_state" | "run_state" => 19,
        "phase" => 18,
        "current" | "name" | "value" | "stage" if HOLDERS.contains(&parent) => 17,
        "stage" => 14,
        _ if OUTCOMES.contains(&name) => 0,
        _ if ["_status", "_state", "_phase"].iter().any(|end| name.ends_with(end)) => 12,
        _ => 0,
    };
    // Labels repeat what an object says elsewhere.
    let is_label = matches!(parent, "labels" | "annotations" | "tags");
    if base == 0 || is_label {
        return 0;
    }
    let known = match leaf.node {
        Node::Text { text, .. } if is_word(text) => 1 + usize::from(state_of(text).is_some()) * 4,
        // A number says nothing to people; its text beside it does.
        Node::Number(number) if matches!(name, "status" | "state") && number.len() < 5 => 0,
        Node::List(list) if matches!(list.first(), Some(Node::Text { text, .. }) if state_of(text).is_some()) => {
            0
        }
        _ => return 0,
    };
    let depth: usize = if HOLDERS.contains(&parent) { leaf.parents.len() } else { 5 * leaf.parents.len() };
    (base + known).saturating_sub(depth)
}

/// Whether a text can be a word of a vocabulary.
fn is_word(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.split_whitespace().count() <= 3
        && !text.contains("://")
        && text.contains(char::is_alphabetic)
}

/// Whether these members have a word, and how likely it is one.
pub(super) fn likelihood(leaves: &[Leaf<'_>]) -> usize {
    let near = || leaves.iter().filter(|leaf| leaf.parents.len() <= 1);
    let best = near().map(rank).max().unwrap_or(0);
    if best > 0 { 6 } else { 3 * usize::from(flag(leaves).is_some()) }
}

fn flag<'l, 'n>(leaves: &'l [Leaf<'n>]) -> Option<(&'l Leaf<'n>, bool)> {
    leaves.iter().filter(|leaf| leaf.parents.is_empty()).find_map(|leaf| {
        let Node::Flag(value) = leaf.node else { return None };
        if ENDED.contains(&&*leaf.name) {
            return Some((leaf, *value));
        }
        OPEN.contains(&&*leaf.name).then_some((leaf, !value))
    })
}

/// The word of a job with these members.
pub(super) fn find(leaves: &[Leaf<'_>]) -> Option<Word> {
    let best = leaves.iter().rev().max_by_key(|leaf| rank(leaf)).filter(|leaf| rank(leaf) > 0);
    match best {
        Some(leaf) => Some(of_text(leaf, leaves)),
        None => flag(leaves).map(|(leaf, has_ended)| of_flag(leaf, has_ended, leaves)),
    }
}

/// The word at a path that somebody names.
pub(super) fn at(path: &str, leaves: &[Leaf<'_>]) -> Option<Word> {
    let leaf = leaves.iter().find(|leaf| leaf.path == path || leaf.path == format!("job.{path}"))?;
    match leaf.node {
        Node::Flag(_) | Node::Text { .. } | Node::Number(_) => {
            Some(of_text(leaf, std::slice::from_ref(leaf)))
        }
        _ => None,
    }
}

/// One word of several members that somebody names.
pub(super) fn joined(words: Vec<Word>) -> Word {
    let count = words.len();
    let mut words = words.into_iter();
    let Some(mut all) = words.next() else { return Word::default() };
    if count == 1 {
        return all;
    }
    let shown = |word: &Word| {
        word.unknown.clone().or_else(|| word.states.first().map(|(_, word)| word.clone())).unwrap_or_default()
    };
    let mut whole = shown(&all);
    for word in words {
        whole = format!("{whole}/{}", shown(&word));
        all.sources.extend(word.sources);
        all.paths.extend(word.paths);
    }
    let form = if count == 2 { "{}/*" } else { "{}/*/*" };
    Word { states: Vec::new(), unknown: Some(whole), form, why: "as named".to_owned(), ..all }
}

fn outcome<'l, 'n>(leaf: &Leaf<'_>, leaves: &'l [Leaf<'n>]) -> Option<&'l Leaf<'n>> {
    let beside = |name: &&str| {
        leaves
            .iter()
            .find(|other| other.object == leaf.object && other.name == **name && other.path != leaf.path)
    };
    OUTCOMES.iter().find_map(|name| {
        beside(name).filter(|other| match other.node {
            // What is named result is more often the output.
            Node::Text { text, .. } if *name == "result" => state_of(text).is_some(),
            Node::Text { text, .. } => is_word(text),
            Node::Null => *name != "result" || matches!(leaf.node, Node::Flag(_)),
            _ => false,
        })
    })
}

fn of_text(leaf: &Leaf<'_>, leaves: &[Leaf<'_>]) -> Word {
    if let Node::List(list) = leaf.node
        && let Some(node) = list.first()
    {
        let why = format!("{} is a list; its first word counts; fill in: is that so?", leaf.name);
        let first = Leaf { path: format!("{}[0]", leaf.path), node, ..leaf.clone() };
        return Word { paths: vec![leaf.path.clone()], why, ..of_text(&first, std::slice::from_ref(&first)) };
    }
    let word = match leaf.node {
        Node::Flag(flag) => flag.to_string(),
        node => node.plain().unwrap_or_default().to_owned(),
    };
    let usual = |word: &str, state: Option<&str>| match state {
        Some(state) => format!("{word:?} is {state} at most vendors"),
        None => format!("the state of {word:?} is not known"),
    };
    let Some(outcome) = outcome(leaf, leaves) else {
        // The text beside a number says what it means.
        let beside = |leaf: &&Leaf<'_>| {
            ["humanized", "name", "label", "text"].iter().any(|end| leaf.name.ends_with(end))
        };
        let texts = leaves.iter().filter(|other| {
            matches!(leaf.node, Node::Number(_))
                && other.object == leaf.object
                && other.name.starts_with(&leaf.name)
        });
        let said = texts.filter(beside).find_map(|leaf| leaf.node.text()).unwrap_or(&word);
        let state = state_of(said);
        return Word {
            sources: vec![leaf.path.clone()],
            paths: vec![leaf.path.clone()],
            why: usual(said, state),
            states: state.map(|state| (state, word.clone())).into_iter().collect(),
            unknown: state.is_none().then_some(word),
            form: "{}",
            is_complete: false,
        };
    };
    let (state, shown, said) = if let Some(end) = outcome.node.text() {
        (state_of(end), format!("{word}/{end}"), end.to_owned())
    } else {
        let state = state_of(&word).filter(|state| !is_end(state));
        (state, format!("{word}/{}", if state.is_some() { '*' } else { '-' }), word.clone())
    };
    Word {
        sources: vec![leaf.path.clone(), outcome.path.clone()],
        paths: vec![leaf.path.clone(), outcome.path.clone()],
        why: format!("{} says how a job ended; {}", outcome.name, usual(&said, state)),
        states: state.map(|state| (state, shown.clone())).into_iter().collect(),
        unknown: state.is_none().then_some(shown),
        form: "{}/*",
        is_complete: false,
    }
}

fn is_end(state: &str) -> bool {
    matches!(state, "SUCCEEDED" | "FAILED" | "CANCELLED" | "EXPIRED")
}

/// A flag, with the outcome beside it, or with an error that is there or not.
fn of_flag(leaf: &Leaf<'_>, has_ended: bool, leaves: &[Leaf<'_>]) -> Word {
    let value = matches!(leaf.node, Node::Flag(true));
    let (open, ended) = if value == has_ended { ("false", "true") } else { ("true", "false") };
    if let Some(outcome) = outcome(leaf, leaves) {
        let mut states = vec![("RUNNING", format!("{open}/*"))];
        let end = outcome.node.text().filter(|_| has_ended);
        let known = end.and_then(|end| Some((state_of(end)?, format!("{ended}/{end}"))));
        let unknown = end.filter(|_| known.is_none()).map(|end| format!("{ended}/{end}"));
        states.extend(known);
        return Word {
            sources: vec![leaf.path.clone(), outcome.path.clone()],
            paths: vec![leaf.path.clone(), outcome.path.clone()],
            states,
            unknown,
            form: if ended == "true" { "true/{}" } else { "false/{}" },
            why: format!("a flag; {} says how a job ended", outcome.name),
            is_complete: false,
        };
    }
    let error = leaves.iter().find(|leaf| leaf.parents.is_empty() && leaf.name.starts_with("error"));
    let error = error.map_or_else(|| "job.error".to_owned(), |leaf| leaf.path.clone());
    Word {
        sources: vec![leaf.path.clone(), format!("'error' if {error} else none")],
        paths: vec![leaf.path.clone()],
        states: vec![
            ("RUNNING", format!("{open}/*")),
            ("SUCCEEDED", format!("{ended}/-")),
            ("FAILED", format!("{ended}/error")),
        ],
        unknown: None,
        form: "{}/*",
        why: format!("no word, but a flag; a job that ended with {error} has failed; fill in: is that so?"),
        is_complete: true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vendors::declared::draft::tree::leaves;

    fn word(body: &str) -> Option<Word> {
        let node = Node::parse(body).unwrap();
        find(&leaves("job", &node))
    }

    fn read(body: &str) -> (Vec<String>, Vec<(&'static str, String)>, Option<String>) {
        let word = word(body).unwrap_or_else(|| panic!("{body}"));
        (word.sources, word.states, word.unknown)
    }

    #[test]
    fn word_is_found_by_its_name_and_value() {
        for (body, path, state, pattern) in [
            (r#"{"id": 1, "status": "running"}"#, "job.status", "RUNNING", "running"),
            (r#"{"state": "Succeeded", "status_code": "x"}"#, "job.state", "SUCCEEDED", "Succeeded"),
            (r#"{"phase": "done"}"#, "job.phase", "SUCCEEDED", "done"),
            (r#"{"syncStatus": "FAILED"}"#, "job.syncStatus", "FAILED", "FAILED"),
            (
                r#"{"status": {"stage": "RUNNING", "message": null}}"#,
                "job.status.stage",
                "RUNNING",
                "RUNNING",
            ),
            (r#"{"attributes": {"status": "queued"}}"#, "job.attributes.status", "PENDING", "queued"),
            (r#"{"status": 3, "jobStatus": "Queued"}"#, "job.jobStatus", "PENDING", "Queued"),
            (
                r#"{"metadata": {"labels": {"x.io/phase": "Failed"}}, "status": {"phase": "Running"}}"#,
                "job.status.phase",
                "RUNNING",
                "Running",
            ),
            (r#"{"job_state": ["RUNNING"]}"#, "job.job_state[0]", "RUNNING", "RUNNING"),
            (r#"{"status": 10, "status_humanized": "Success"}"#, "job.status", "SUCCEEDED", "10"),
            (r#"{"tasks": {"status": "done"}, "status": "running"}"#, "job.status", "RUNNING", "running"),
        ] {
            let states = vec![(state, pattern.to_owned())];
            assert_eq!(read(body), (vec![path.to_owned()], states, None), "{body}");
        }
    }

    #[test]
    fn two_members_are_one_word_where_the_second_says_how_it_ended() {
        let both = |one: &str, two: &str| vec![one.to_owned(), two.to_owned()];
        let databricks =
            r#"{"run_id": 1, "state": {"life_cycle_state": "TERMINATED", "result_state": "SUCCESS"}}"#;
        let sources = both("job.state.life_cycle_state", "job.state.result_state");
        assert_eq!(read(databricks), (sources, vec![("SUCCEEDED", "TERMINATED/SUCCESS".to_owned())], None));
        let github = r#"{"id": 1, "status": "in_progress", "conclusion": null}"#;
        let sources = both("job.status", "job.conclusion");
        assert_eq!(read(github), (sources.clone(), vec![("RUNNING", "in_progress/*".to_owned())], None));
        let odd = r#"{"status": "completed", "conclusion": "neutral"}"#;
        assert_eq!(read(odd), (sources, Vec::new(), Some("completed/neutral".to_owned())));
        // An output is no part of the word.
        assert_eq!(read(r#"{"status": "done", "result": "42"}"#).0, ["job.status"]);
    }

    #[test]
    fn flag_is_the_word_where_there_is_none() {
        let google = read(r#"{"name": "operations/1", "done": true, "response": {}}"#);
        assert_eq!(google.0, ["job.done", "'error' if job.error else none"]);
        let states: Vec<&str> = google.1.iter().map(|(_, word)| &**word).collect();
        assert_eq!(states, ["false/*", "true/-", "true/error"]);
        let jenkins = read(r#"{"number": 1, "building": false, "result": "SUCCESS"}"#);
        assert_eq!(jenkins.0, ["job.building", "job.result"]);
        assert_eq!(jenkins.1, [("RUNNING", "true/*".to_owned()), ("SUCCEEDED", "false/SUCCESS".to_owned())]);
    }

    #[test]
    fn words_that_no_vendor_has_are_left_to_people() {
        assert_eq!(
            read(r#"{"status": "zorp"}"#),
            (vec!["job.status".to_owned()], Vec::new(), Some("zorp".to_owned()))
        );
        assert_eq!(read(r#"{"status": 10}"#).2, Some("10".to_owned()));
        for body in [
            "{}",
            r#"{"id": 1, "name": "x"}"#,
            r#"{"status": null}"#,
            r#"{"status": "https://x.example"}"#,
            r#"{"status": "The job has not been started yet"}"#,
        ] {
            assert_eq!(word(body), None, "{body}");
        }
    }

    #[test]
    fn word_may_be_named() {
        let node = Node::parse(r#"{"status": "on", "where": {"now": "busy"}, "list": []}"#).unwrap();
        let leaves = leaves("job", &node);
        assert_eq!(at("where.now", &leaves).unwrap().unknown.as_deref(), Some("busy"));
        assert_eq!(at("job.where.now", &leaves).unwrap().sources, ["job.where.now"]);
        assert_eq!((at("where", &leaves), at("nowhere", &leaves)), (None, None));
    }
}
