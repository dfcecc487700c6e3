//! Headers, query parameters and form fields that would be sent twice, or of which one would
//! replace the other. Only headers at the top can be replaced, by those of a request or a way to
//! sign in.

use super::{list, table};
use crate::vendors::declared::reader::{Log, Node, Section};

/// A table of what is sent: its path, and its entries.
struct Sent<'t> {
    path: String,
    entries: Vec<(&'t str, Node<'t>)>,
}

/// Reports each of them; `top` is the definition's text.
pub(super) fn check(top: &mut Section<'_>, log: &Log<'_>) {
    let every_request: Vec<Sent<'_>> = sent(top, "headers").into_iter().collect();
    let polls: Vec<Sent<'_>> = ["request", "batch"]
        .into_iter()
        .filter_map(|key| sent(&mut table(top, key, log)?, "headers"))
        .collect();
    let mut queries: Vec<Sent<'_>> = ["request", "batch"]
        .into_iter()
        .filter_map(|key| sent(&mut table(top, key, log)?, "query"))
        .collect();
    for node in list(top, "files") {
        queries.extend(node.section(log).and_then(|mut keys| sent(&mut keys, "query")));
    }
    // Headers have no case.
    let same_header = |name: &str, other: &str| name.eq_ignore_ascii_case(other);
    let Some(ways) = table(top, "credentials", log) else { return };
    for (way, _, node) in ways.entries() {
        let Some(mut keys) = node.section(log) else { continue };
        let own: Vec<Sent<'_>> = sent(&mut keys, "headers").into_iter().collect();
        let in_polls = || every_request.iter().chain(&polls);
        match way {
            "exchange" => {
                let header = table(&mut keys, "send_as", log).and_then(|mut keys| keys.get("header"));
                credential(header.as_ref(), in_polls(), same_header, log);
            }
            "header" => credential(keys.get("name").as_ref(), in_polls().chain(&own), same_header, log),
            "query" => {
                credential(keys.get("name").as_ref(), queries.iter(), |name, other| name == other, log);
            }
            "oauth2" => form(&mut keys, log),
            _ => {}
        }
        // Those of an exchange are its own request's.
        if way != "exchange" {
            for headers in &own {
                report(headers, &polls, same_header, log);
            }
        }
    }
}

fn sent<'t>(keys: &mut Section<'t>, key: &'static str) -> Option<Sent<'t>> {
    let section = keys.get(key)?.section(&Log::new(""))?;
    let entries = section.entries().into_iter().map(|(name, _, node)| (name, node)).collect();
    Some(Sent { path: section.path, entries })
}

/// Names that stand in other tables too.
fn report(own: &Sent<'_>, others: &[Sent<'_>], is_same: fn(&str, &str) -> bool, log: &Log<'_>) {
    for (name, node) in &own.entries {
        let has_it = |other: &&Sent<'_>| other.entries.iter().any(|(other, _)| is_same(name, other));
        if let Some(other) = others.iter().find(has_it) {
            node.report(log, format!("stands in {} too; keep one of them", other.path));
        }
    }
}

/// What carries the secret, and is written elsewhere too.
fn credential<'s, 't: 's>(
    node: Option<&Node<'t>>,
    mut others: impl Iterator<Item = &'s Sent<'t>>,
    is_same: fn(&str, &str) -> bool,
    log: &Log<'_>,
) {
    let Some((node, name)) = node.and_then(|node| Some((node, node.as_text()?))) else { return };
    if let Some(other) = others.find(|other| other.entries.iter().any(|(other, _)| is_same(name, other))) {
        node.report(log, format!("is {name:?}, which stands in {} too; remove it there", other.path));
    }
}

/// Fields of OAuth 2.0 that the gateway writes itself.
fn form(keys: &mut Section<'_>, log: &Log<'_>) {
    let is = |node: Option<Node<'_>>, word| node.and_then(|node| node.as_text()) == Some(word);
    let is_basic = is(keys.get("client_auth"), "basic");
    let refreshes = is(keys.get("grant"), "refresh_token");
    let Some(form) = sent(keys, "form") else { return };
    for (name, node) in form.entries {
        let is_own = match name {
            "grant_type" => true,
            "client_id" | "client_secret" => !is_basic,
            "refresh_token" => refreshes,
            _ => false,
        };
        if !is_own {
            continue;
        }
        let written = if refreshes { "refresh_token" } else { "client_credentials" };
        let is_other_grant = name == "grant_type" && node.as_text().is_some_and(|grant| grant != written);
        let cure =
            if is_other_grant { "for another grant write [credentials.exchange]" } else { "remove it" };
        node.report(log, format!("is written by the gateway; {cure}"));
    }
}
