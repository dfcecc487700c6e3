//! Members that differ in every answer, and members that say where a file is.

use url::Url;

use super::{
    secret_names::is_secret_name,
    tree::{Leaf, Node},
};

/// Words of names of members that change while a job's state does not.
const WORDS: [&str; 15] = [
    "duration",
    "durations",
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

/// What `status.volatile` lists: paths whose last name is plain.
pub(super) fn members(leaves: &[&Leaf<'_>], used: &[String]) -> Vec<String> {
    let is_volatile = |leaf: &&&Leaf<'_>| {
        let mut tokens = leaf.name.split('_');
        let by_name = tokens.any(|token| WORDS.contains(&token))
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
    let mut found: Vec<String> = Vec::new();
    for leaf in fitting {
        let within = found.contains(&leaf.object);
        // A quoted name stands there without its quotes.
        let path = match leaf.path.strip_suffix("']").and_then(|path| path.split_once("['")) {
            Some((object, name)) => format!("{object}.{name}"),
            None => leaf.path.clone(),
        };
        let name = path.rsplit('.').next().unwrap_or_default();
        let is_plain = name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'));
        if !within && is_plain && !path.contains('[') && found.len() < 16 {
            found.push(path);
        }
    }
    found
}

/// The members with locations of files, each with a name for the file.
pub(super) fn files(leaves: &[&Leaf<'_>], used: &[String]) -> Vec<(String, String)> {
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
    own.filter(location).take(4).map(|leaf| (leaf.path.clone(), file_name(leaf))).collect()
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
