//! Members that differ in every answer, and members that say where a file is.

use url::Url;

use super::{
    moment,
    secret_names::is_secret_name,
    tree::{Leaf, Node},
};

/// Words of names of members that change while a job's state does not.
const WORDS: [&str; 13] = [
    "elapsed",
    "runtime",
    "uptime",
    "age",
    "eta",
    "remaining",
    "heartbeat",
    "humanized",
    "modified",
    "etag",
    "estimated",
    "usage",
    "metrics",
];

/// Names of how long a run takes, which a unit may follow.
const RUN_TIMES: [&str; 7] = [
    "running_time",
    "run_time",
    "execution_time",
    "processing_time",
    "time_taken",
    "time_spent",
    "wall_time",
];

/// Words beside `duration` that make it that of a run.
const OF_RUN: [&str; 24] = [
    "run",
    "runs",
    "running",
    "execution",
    "exec",
    "executing",
    "job",
    "task",
    "build",
    "sync",
    "query",
    "step",
    "queue",
    "queued",
    "wait",
    "waiting",
    "pending",
    "process",
    "processing",
    "setup",
    "startup",
    "wall",
    "cpu",
    "billed",
];

/// Words beside `duration` that make it that of a file, or a limit.
const OF_INPUT: [&str; 31] = [
    "media",
    "audio",
    "video",
    "input",
    "output",
    "source",
    "clip",
    "track",
    "tracks",
    "file",
    "asset",
    "recording",
    "song",
    "call",
    "content",
    "subtitle",
    "speech",
    "sound",
    "music",
    "image",
    "stream",
    "playback",
    "max",
    "maximum",
    "min",
    "minimum",
    "limit",
    "allowed",
    "requested",
    "target",
    "timeout",
];

/// Words of names of members that say where a file is.
const FILES: [&str; 10] =
    ["download", "result", "results", "output", "file", "report", "artifact", "export", "logs", "log"];

/// Whether a text is a URL of http or https.
pub(super) fn is_url(text: &str) -> bool {
    (text.starts_with("https://") || text.starts_with("http://")) && !text.contains(char::is_whitespace)
}

/// Whether a URL is signed: it has another secret in every answer.
fn is_signed(text: &str) -> bool {
    is_url(text)
        && Url::parse(text).is_ok_and(|url| {
            url.query_pairs().any(|(name, _)| {
                is_secret_name(&name)
                    || matches!(&*name.to_lowercase(), "expires" | "signature" | "x-amz-date")
            })
        })
}

/// Whether a name says when something was updated, and not how many things were.
fn is_update(name: &str) -> bool {
    let rest = ["updated", "update"].iter().find_map(|word| name.strip_prefix(word));
    rest.is_some_and(|rest| matches!(rest, "" | "_at" | "_on" | "_time" | "_date" | "_timestamp" | "_by"))
}

/// What `status.volatile` lists.
#[derive(Debug, Default)]
pub(super) struct Members {
    /// Paths whose last name is plain.
    pub(super) paths: Vec<String>,
    /// Those that may be the length of a file.
    doubtful: Vec<String>,
}

impl Members {
    /// The reason, for people.
    pub(super) fn why(&self) -> String {
        let reason = "they change while nothing else does, by their names";
        match &self.doubtful[..] {
            [] => reason.to_owned(),
            doubtful => {
                let paths = doubtful.join(" and ");
                let ask = format!("fill in: is {paths} of the run? Remove it if it is the length of a file");
                if doubtful.len() == self.paths.len() { ask } else { format!("{reason}; {ask}") }
            }
        }
    }
}

/// What a duration is of, by its name and those of the objects around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Duration {
    Run,
    Input,
    Unclear,
}

fn duration(leaf: &Leaf<'_>) -> Option<Duration> {
    let own = || leaf.name.split('_');
    own().find(|token| matches!(*token, "duration" | "durations"))?;
    let mut beside = own().chain(leaf.parents.iter().flat_map(|parent| parent.split('_')));
    let known = beside.find_map(|token| match token {
        _ if OF_RUN.contains(&token) => Some(Duration::Run),
        _ if OF_INPUT.contains(&token) => Some(Duration::Input),
        _ => None,
    });
    Some(known.unwrap_or(Duration::Unclear))
}

/// The members that cause no events.
pub(super) fn members(leaves: &[&Leaf<'_>], used: &[String]) -> Members {
    let is_volatile = |leaf: &&&Leaf<'_>| {
        let mut tokens = leaf.name.split('_');
        let by_name = tokens.any(|token| WORDS.contains(&token))
            || duration(leaf).is_some_and(|duration| duration != Duration::Input)
            || RUN_TIMES.iter().any(|name| leaf.name.contains(name)) && moment::form(leaf.node).is_none()
            || leaf.name.starts_with("last_")
            || is_update(&leaf.name);
        let signed = match leaf.node {
            Node::List(list) => list.iter().any(|node| node.text().is_some_and(is_signed)),
            node => node.text().is_some_and(is_signed),
        };
        by_name && !matches!(leaf.node, Node::Flag(_)) || signed
    };
    let fitting = leaves
        .iter()
        .filter(|leaf| leaf.parents.len() <= 1 && !used.contains(&leaf.path))
        .filter(is_volatile);
    let mut found = Members::default();
    for leaf in fitting {
        let within = found.paths.contains(&leaf.object);
        // A quoted name stands there without its quotes.
        let path = match leaf.path.strip_suffix("']").and_then(|path| path.split_once("['")) {
            Some((object, name)) => format!("{object}.{name}"),
            None => leaf.path.clone(),
        };
        let name = path.rsplit('.').next().unwrap_or_default();
        let is_plain = name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'));
        if !within && is_plain && !path.contains('[') && found.paths.len() < 16 {
            if duration(leaf) == Some(Duration::Unclear) {
                found.doubtful.push(path.clone());
            }
            found.paths.push(path);
        }
    }
    found
}

/// A member with the location of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct File {
    pub(super) path: String,
    /// Of the file.
    pub(super) name: String,
    /// Where its locations are, each once.
    pub(super) origins: Vec<String>,
}

/// The members with locations of files.
pub(super) fn files(leaves: &[&Leaf<'_>], used: &[String]) -> Vec<File> {
    let location = |leaf: &&&Leaf<'_>| {
        let tokens: Vec<&str> = leaf.name.split('_').collect();
        let is_named = tokens.iter().any(|token| FILES.contains(token));
        let says_url = tokens.iter().any(|token| matches!(*token, "url" | "urls" | "uri" | "link" | "href"));
        match leaf.node {
            Node::Text { text, .. } => is_named && is_url(text),
            Node::List(list) => is_named && list.iter().any(|node| node.text().is_some_and(is_url)),
            Node::Null => is_named && says_url,
            _ => false,
        }
    };
    let own = leaves.iter().filter(|leaf| leaf.parents.len() <= 1 && !used.contains(&leaf.path));
    let file = |leaf: &&Leaf<'_>| File {
        path: leaf.path.clone(),
        name: file_name(leaf),
        origins: origins(leaf.node),
    };
    own.filter(location).take(4).map(file).collect()
}

fn origins(node: &Node) -> Vec<String> {
    let texts = match node {
        Node::List(list) => list.iter().filter_map(Node::text).collect(),
        node => Vec::from_iter(node.text()),
    };
    let mut found = Vec::new();
    for url in texts.into_iter().filter_map(|text| Url::parse(text).ok()) {
        let origin = url.origin().ascii_serialization();
        if url.has_host() && !found.contains(&origin) {
            found.push(origin);
        }
    }
    found
}

/// `result_url` with a location that ends in `.csv` is `result.csv`.
fn file_name(leaf: &Leaf<'_>) -> String {
    let tokens =
        leaf.name.split('_').filter(|token| !matches!(*token, "url" | "urls" | "uri" | "link" | "href"));
    let name: Vec<&str> = tokens.collect();
    let text = match leaf.node {
        Node::List(list) => list.iter().find_map(Node::text),
        node => node.text(),
    };
    let path =
        text.and_then(|text| Url::parse(text).ok()).map(|url| url.path().to_owned()).unwrap_or_default();
    let extension =
        path.rsplit('/').next().and_then(|file| file.rsplit_once('.')).map(|(_, extension)| extension);
    let is_extension =
        |text: &&str| (1..=5).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    match extension.filter(is_extension) {
        Some(extension) => format!("{}.{extension}", name.join("_")),
        None => name.join("_"),
    }
}
