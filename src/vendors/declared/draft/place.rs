//! Where the job stands in an answer, and which of its members has its id.

use super::{
    tree::{Leaf, Node, leaves, member, snake_case},
    word,
};

/// Most elements of a list that are looked at.
const MOST: usize = 200;

/// The job's own object.
#[derive(Clone, Debug)]
pub(super) struct Place<'n> {
    pub(super) job: &'n Node,
    pub(super) at: At,
}

/// How the object is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum At {
    /// By a path from `body`.
    Path(String),
    /// As an element of a list.
    List { list: String, index: usize, count: usize },
    /// As a member whose name is the id.
    ById { object: String },
}

impl At {
    /// A path from `body` as one from `job` where it leads into the job with this id.
    pub(super) fn path_from_job(&self, path: &str, id: &str) -> String {
        let job = match self {
            Self::Path(job) => job.clone(),
            Self::List { list, index, .. } => format!("{list}[{index}]"),
            Self::ById { object } => member(object, id).unwrap_or_default(),
        };
        match path.strip_prefix(&job).filter(|rest| !job.is_empty() && rest.starts_with(['.', '['])) {
            Some(rest) => format!("job{rest}"),
            None => path.to_owned(),
        }
    }
}

struct Candidate<'n> {
    place: Place<'n>,
    score: i64,
}

/// The object that is most likely the job with this id.
pub(super) fn find<'n>(body: &'n Node, id: Option<&str>) -> Option<Place<'n>> {
    let mut found = Vec::new();
    visit(body, "body", 0, id, &mut found);
    // The first of the best ones, which is the outermost.
    let best = found.into_iter().rev().max_by_key(|candidate| candidate.score)?;
    Some(best.place)
}

fn visit<'n>(node: &'n Node, path: &str, depth: i64, id: Option<&str>, found: &mut Vec<Candidate<'n>>) {
    if depth > 4 {
        return;
    }
    if node.is_object() {
        let place = Place { job: node, at: At::Path(path.to_owned()) };
        found.push(Candidate { score: score(node, id) - depth, place });
    }
    for (name, node) in node.members() {
        if id == Some(name) && node.is_object() {
            let place = Place { job: node, at: At::ById { object: path.to_owned() } };
            found.push(Candidate { score: score(node, id) + 15 - depth, place });
        } else if let Some(path) = member(path, name) {
            visit(node, &path, depth + 1, id, found);
        }
    }
    if let Node::List(nodes) = node {
        for (index, node) in nodes.iter().take(MOST).enumerate().filter(|(_, node)| node.is_object()) {
            let at = At::List { list: path.to_owned(), index, count: nodes.len() };
            found.push(Candidate { score: score(node, id) - depth - 1, place: Place { job: node, at } });
        }
    }
}

fn score(node: &Node, id: Option<&str>) -> i64 {
    let leaves = leaves("job", node);
    let own = || leaves.iter().filter(|leaf| leaf.parents.is_empty());
    let is_asked = |leaf: &Leaf<'_>| id.is_some() && leaf.node.plain() == id;
    let by_id = if own().any(|leaf| is_asked(leaf) && is_id_name(&leaf.name)) {
        20
    } else if own().any(is_asked) {
        8
    } else if leaves.iter().any(|leaf| leaf.parents.len() == 1 && is_asked(leaf) && is_id_name(&leaf.name)) {
        10
    } else if own().any(|leaf| is_id_name(&leaf.name)) {
        4
    } else {
        0
    };
    let times = own().filter(|leaf| super::moment::form(leaf.node).is_some()).count().min(3);
    let word = word::likelihood(&leaves);
    let score = i64::try_from(by_id + word + times).unwrap_or_default();
    // An object with an id and no state is what a job refers to.
    if word == 0 { score - 15 } else { score }
}

fn is_id_name(name: &str) -> bool {
    name == "id" || name.ends_with("_id") || matches!(name, "uuid" | "guid" | "handle" | "name" | "number")
}

/// Names of the member that has the id of the job itself, the likeliest first.
const ID_NAMES: [&str; 21] = [
    "id",
    "job_id",
    "run_id",
    "task_id",
    "execution_id",
    "operation_id",
    "batch_id",
    "export_id",
    "import_id",
    "sync_id",
    "build_id",
    "query_id",
    "request_id",
    "statement_id",
    "statement_handle",
    "report_id",
    "uuid",
    "guid",
    "number",
    "name",
    "key",
];

/// The member that has this id, or that is likely to have one.
pub(super) fn id_member<'l, 'n>(leaves: &'l [Leaf<'n>], id: Option<&str>) -> Option<&'l Leaf<'n>> {
    let rank = |leaf: &Leaf<'_>| {
        let known = ID_NAMES.iter().position(|name| *name == leaf.name);
        let other = if is_id_name(&leaf.name) { ID_NAMES.len() } else { ID_NAMES.len() + 1 };
        (leaf.parents.len(), known.unwrap_or(other))
    };
    let is_id = |leaf: &&Leaf<'_>| match (id, leaf.node.plain()) {
        (Some(id), Some(plain)) => plain == id,
        // Without an id to look for, the name has to say it, and a name of people is none.
        (None, Some(plain)) => {
            leaf.parents.len() <= 1
                && ID_NAMES[..19].contains(&&*leaf.name)
                && (1..=128).contains(&plain.len())
        }
        _ => false,
    };
    leaves.iter().filter(is_id).min_by_key(|leaf| rank(leaf))
}

/// The name of an id's part: that of the member, or of what stands before it in a path.
pub(super) fn part_name(member: Option<&str>, before: Option<&str>) -> String {
    let is_telling =
        |name: &str| !matches!(name, "id" | "uuid" | "guid" | "name" | "key" | "number" | "handle");
    if let Some(name) = member.filter(|name| is_telling(name) && is_name(name)) {
        return if ["_id", "_handle", "_name", "_key", "_number"].iter().any(|end| name.ends_with(end)) {
            name.to_owned()
        } else {
            format!("{name}_id")
        };
    }
    let before = before.map(snake_case).unwrap_or_default();
    let one = match before.strip_suffix("ies") {
        Some(stem) => format!("{stem}y"),
        None => match before.strip_suffix("ches").or_else(|| before.strip_suffix("sses")) {
            Some(_) => before[..before.len() - 2].to_owned(),
            None => before.strip_suffix('s').unwrap_or(&before).to_owned(),
        },
    };
    let is_noun = is_name(&one) && one.len() > 2 && !one.bytes().any(|byte| byte.is_ascii_digit());
    if is_noun && one != "api" && before != "status" { format!("{one}_id") } else { "job_id".to_owned() }
}

fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.len() <= 40
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(body: &str, id: Option<&str>) -> At {
        let node = Node::parse(body).unwrap();
        find(&node, id).unwrap_or_else(|| panic!("{body}")).at
    }

    fn path(path: &str) -> At {
        At::Path(path.to_owned())
    }

    #[test]
    fn job_is_found_within_its_wrappers() {
        for (body, id, expected) in [
            (r#"{"id": 7, "status": "done"}"#, None, "body"),
            (r#"{"status": {"code": 200}, "data": {"id": 7, "status": 10}}"#, Some("7"), "body.data"),
            (r#"{"data": {"run": {"id": 7, "state": "done"}}}"#, None, "body.data.run"),
            (r#"{"data": {"id": "run-7", "attributes": {"status": "applied"}}}"#, Some("run-7"), "body.data"),
            (r#"{"run_id": 7, "state": "done", "tasks": [{"run_id": 8, "state": "done"}]}"#, None, "body"),
            (r#"{"jobReference": {"jobId": "j"}, "status": {"state": "DONE"}}"#, Some("j"), "body"),
            (r#"{"ref": {"id": "j", "owner": "x"}, "result": {"status": "done"}}"#, Some("j"), "body"),
            (r#"{"my-data": {"id": 7, "status": "done"}}"#, None, "body['my-data']"),
        ] {
            assert_eq!(at(body, id), path(expected), "{body}");
        }
    }

    #[test]
    fn job_of_a_list_is_the_one_with_the_id() {
        let body = r#"{"jobs": [{"id": 6, "status": "done"}, {"id": 7, "status": "done"}]}"#;
        let list = |index| At::List { list: "body.jobs".to_owned(), index, count: 2 };
        assert_eq!(at(body, Some("7")), list(1));
        assert_eq!(at(body, None), list(0));
        assert_eq!(
            at(r#"[{"id": 7, "status": "x"}]"#, None),
            At::List { list: "body".to_owned(), index: 0, count: 1 }
        );
        let by_id = r#"{"jobs": {"a": {"status": "done"}, "b": {"status": "done"}}}"#;
        assert_eq!(at(by_id, Some("b")), At::ById { object: "body.jobs".to_owned() });
    }

    #[test]
    fn id_is_the_member_with_its_value_or_its_name() {
        let body = r#"{"job_id": 1, "run_id": 7, "id": "x", "owner": {"id": 7}}"#;
        let node = Node::parse(body).unwrap();
        let leaves = leaves("job", &node);
        assert_eq!(id_member(&leaves, Some("7")).unwrap().path, "job.run_id");
        assert_eq!(id_member(&leaves, None).unwrap().path, "job.id");
        assert!(id_member(&leaves, Some("8")).is_none());
    }

    #[test]
    fn part_of_an_id_is_named_after_its_member_or_its_place() {
        for (member, before, expected) in [
            (Some("run_id"), Some("runs"), "run_id"),
            (Some("id"), Some("exports"), "export_id"),
            (Some("id"), Some("batches"), "batch_id"),
            (Some("id"), Some("queries"), "query_id"),
            (Some("id"), Some("dagRuns"), "dag_run_id"),
            (Some("statement_handle"), None, "statement_handle"),
            (Some("transcription_job_name"), None, "transcription_job_name"),
            (Some("id"), Some("v1"), "job_id"),
            (None, None, "job_id"),
        ] {
            assert_eq!(part_name(member, before), expected, "{member:?} {before:?}");
        }
    }
}
