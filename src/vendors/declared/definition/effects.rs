//! Keys that mean nothing where they stand: beside another key, in a rule that is never
//! reached, or without anything that reads them.
//!
//! Each key is read as if it stood alone. What it comes to beside the others is checked here,
//! once the whole definition is known.

use super::{Definition, ElementKind, ErrorRule, StatusRules};
use crate::vendors::declared::{
    credentials::{Way, WayKind},
    faults::{FaultRule, Meaning},
    files::FileRule,
    reader::{Log, Node, Section},
    source::Source,
    template::RequestTemplate,
};

mod nothing;
mod twice;

/// Reports every key without effect; `top` is the definition's text, read once more.
pub(super) fn check(definition: &Definition, top: &mut Section<'_>, log: &Log<'_>) {
    answer(definition, top, log);
    batch(definition, top, log);
    faults(definition, top, log);
    if let Some(mut keys) = table(top, "status", log) {
        status(definition, &mut keys, log);
    }
    let files = list(top, "files");
    // Of one that could not be read, the location is a problem already.
    let are_read = files.len() == definition.files.len();
    for node in files {
        if let Some(mut keys) = node.section(log) {
            filter(definition, &mut keys, log);
            if are_read {
                each_of_files(&mut keys, log);
            }
            no_repetition(&mut keys, "by_category", log);
        }
    }
    if is_whole(definition, top) {
        params(definition, top, log);
    }
    ways(definition, top, log);
    twice::check(top, log);
    nothing::empty(top, log);
}

/// Whether everything that may read a parameter could be read.
fn is_whole(definition: &Definition, top: &mut Section<'_>) -> bool {
    let Definition { request, batch, faults, files, ways, .. } = definition;
    let count = |node: Option<Node<'_>>| node.map_or(0, |node| node.list().len());
    let ways_written = table(top, "credentials", &Log::new("")).map_or(0, |keys| keys.entries().len());
    top.get("request").is_some() == request.is_some()
        && top.get("batch").is_some() == batch.is_some()
        && count(top.get("faults")) == faults.len()
        && count(top.get("files")) == files.len()
        && ways_written == ways.len()
}

fn table<'t>(keys: &mut Section<'t>, key: &'static str, log: &Log<'_>) -> Option<Section<'t>> {
    keys.get(key).filter(Node::is_table)?.section(log)
}

fn list<'t>(keys: &mut Section<'t>, key: &'static str) -> Vec<Node<'t>> {
    keys.get(key).map(|node| node.list()).unwrap_or_default()
}

fn answer(definition: &Definition, top: &mut Section<'_>, log: &Log<'_>) {
    let has_request = top.get("request").is_some();
    let Some(mut keys) = table(top, "answer", log) else { return };
    for key in ["states_by_status", "job", "body"] {
        let Some(node) = keys.get(key).filter(|_| !has_request) else { continue };
        let text = match key {
            "states_by_status" => "needs [request]: a batch has one status for all its jobs",
            _ => {
                "has no effect without [request]: batch.jobs says where the jobs of a batch stand; remove it"
            }
        };
        node.report(log, text);
    }
    let is_read = definition.element == ElementKind::Envelope;
    if let Some(node) = keys.get("body").filter(|_| definition.answer.may_be_empty && !is_read) {
        let text = "has no effect: nothing reads http, and an answer without content has nothing else; \
                    read http.status in status.word, or remove it";
        node.report(log, text);
    }
    no_repetition(&mut keys, "states_by_status", log);
}

fn batch(definition: &Definition, top: &mut Section<'_>, log: &Log<'_>) {
    let (Some(batch), Some(node)) = (&definition.batch, top.get("batch")) else { return };
    if definition.element == ElementKind::Envelope {
        let text = "reads http, which a batch has once for all its jobs; read job only";
        log.add(node.span.clone(), "status", text);
    }
    let known: Vec<usize> = definition.status.id.iter().map(|(place, _)| *place).collect();
    let mut names = definition.id.names.iter().enumerate();
    if !batch.by_id
        && let Some((_, name)) = names.find(|(place, _)| !known.contains(place))
    {
        let text = format!(
            "has a list, whose jobs are matched by status.id, which lacks {name}: none would be found; \
             write it there, or by_id = true for an object"
        );
        node.report(log, text);
    }
}

fn faults(definition: &Definition, top: &mut Section<'_>, log: &Log<'_>) {
    let nodes = list(top, "faults");
    // Otherwise a rule could not be read, and they can't be matched.
    if nodes.len() != definition.faults.len() {
        return;
    }
    for (node, rule) in nodes.iter().zip(&definition.faults) {
        let Some(mut keys) = node.section(log) else { continue };
        let is = rule.is.name();
        let message = match rule.is {
            Meaning::InvalidId | Meaning::Rejected | Meaning::Unavailable => None,
            Meaning::NotFound if keys.get("says").is_some() => None,
            Meaning::NotFound => Some(
                "has no effect beside is = \"not_found\" without says; write says = \"no_such_job\", or remove message"
                    .to_owned(),
            ),
            _ => {
                Some(format!("has no effect beside is = {is:?}: callers see the gateway's own words; remove it"))
            }
        };
        if let (Some(text), Some(node)) = (message, keys.get("message")) {
            node.report(log, text);
        }
        let waits = matches!(rule.is, Meaning::Unavailable | Meaning::Throttled | Meaning::Credentials);
        for key in ["wait_s", "until"] {
            if let Some(node) = keys.get(key).filter(|_| !waits) {
                let text = format!(
                    "has no effect beside is = {is:?}, for which nothing waits; \
                     remove it, or write is = \"unavailable\" or \"throttled\""
                );
                node.report(log, text);
            }
        }
        for status in definition.answer.states_by_status.iter().filter(|status| rule.takes_all_of(**status)) {
            let text = format!(
                "takes every response with status {status}, which answer.states_by_status has for a word; \
                 remove it from one of them"
            );
            node.report(log, text);
        }
        no_repetition(&mut keys, "status", log);
        no_repetition(&mut keys, "graphql_code", log);
    }
}

fn status(definition: &Definition, keys: &mut Section<'_>, log: &Log<'_>) {
    for key in ["create_time", "start_time", "end_time"] {
        if let Some(mut keys) = table(keys, key, log) {
            time(&mut keys, log);
        }
    }
    for node in [list(keys, "error"), list(keys, "result")].concat() {
        if let Some(mut keys) = Some(node).filter(Node::is_table).and_then(|node| node.section(log)) {
            filter(definition, &mut keys, log);
        }
    }
    let error = definition.status.error.as_ref();
    let reads_item = |rule: &ErrorRule| rule.words.iter().any(|(source, _)| source.needs("item"));
    if error.is_some_and(|rule| rule.each.is_some() && !reads_item(rule))
        && let Some(node) = table(keys, "error", log).and_then(|mut keys| keys.get("each"))
    {
        node.report(log, "has no effect: message does not read item; write one such as \"item.message\"");
    }
    let has_path = |rule: &ErrorRule| rule.words.iter().any(|(source, _)| matches!(source, Source::Path(_)));
    if error.is_some_and(|rule| rule.is_whole && !has_path(rule))
        && let Some(node) = table(keys, "error", log).and_then(|mut keys| keys.get("whole"))
    {
        let text = "has no effect: no message is a plain path, whose value would be the details; \
                    write one such as \"job.error\", or remove it";
        node.report(log, text);
    }
    nothing::repeated(definition, keys, log);
    volatile(&definition.status, keys, log);
}

/// A time is a number with a unit, or a text with a format and a zone.
fn time(keys: &mut Section<'_>, log: &Log<'_>) {
    let (unit, format, zone) = (keys.get("unit"), keys.get("format"), keys.get("zone"));
    let has_offset = format.as_ref().and_then(Node::as_text).is_some_and(|text| text.contains("%z"));
    if let (Some(unit), Some(_)) = (&unit, &format) {
        unit.report(log, "stands beside format: a number has a unit, and a text a format; keep one of them");
    }
    if let Some(format) = &format
        && let Some(text) = format.as_text()
    {
        if !text.contains('%') {
            format.report(log, "is no format of strftime; write one such as \"%Y-%m-%d %H:%M:%S\"");
        } else if zone.is_none() && !["%z", "%:z", "%Q", "%s"].iter().any(|part| text.contains(part)) {
            format.report(log, "reads no zone, so that no time is known; add zone = \"UTC\", or an offset");
        }
    }
    let counts = unit.as_ref().and_then(Node::as_text).is_some_and(|unit| unit != "auto_ms");
    if let Some(zone) = &zone {
        if has_offset {
            zone.report(log, "has no effect beside format, whose %z reads the zone; remove it");
        } else if counts && format.is_none() {
            zone.report(log, "has no effect beside unit: a number since 1970 has no zone; remove it");
        }
    }
}

/// States in which a value is looked for.
fn filter(definition: &Definition, keys: &mut Section<'_>, log: &Log<'_>) {
    let (only, never) = (keys.get("in"), keys.get("not_in"));
    if let (Some(_), Some(never)) = (&only, &never) {
        never.report(log, "stands beside in, which lists the only states; keep one of them");
    }
    let occurs = |node: &Node<'_>| {
        let states = node.list();
        let can_be = |state: &Node<'_>| definition.states.can_be(state.as_text().unwrap_or_default());
        states.is_empty() || states.iter().any(can_be)
    };
    if let Some(only) = only.filter(|only| !occurs(only)) {
        only.report(
            log,
            "has states that no word of [states] is, so nothing is ever read; write one that occurs",
        );
    }
    if let Some(never) = never.filter(|never| !occurs(never)) {
        never.report(log, "has no effect: no word of [states] is one of these; remove it");
    }
    no_repetition(keys, "in", log);
    no_repetition(keys, "not_in", log);
}

/// Each element of a list has to be a file of its own.
fn each_of_files(keys: &mut Section<'_>, log: &Log<'_>) {
    let Some(each) = keys.get("each") else { return };
    let mut nodes: Vec<Node<'_>> = ["path", "url"].into_iter().filter_map(|key| keys.get(key)).collect();
    if let Some(query) = table(keys, "query", log) {
        nodes.extend(query.entries().into_iter().map(|(_, _, node)| node));
    }
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let reads_item = |text: &str| {
        let values = text.split("{{").skip(1).map(|rest| rest.split("}}").next().unwrap_or_default());
        values.flat_map(|value| value.split(|c| !is_word(c))).any(|word| word == "item")
    };
    if !nodes.iter().filter_map(Node::as_text).any(reads_item) {
        let text = "gives every element the same location, which does not read item; \
                    write {{ item }} there, or when in place of each";
        each.report(log, text);
    }
}

/// What changes in every answer causes no events, so nothing that may change alone can stand
/// there.
fn volatile(rules: &StatusRules, keys: &mut Section<'_>, log: &Log<'_>) {
    let nodes = list(keys, "volatile");
    if nodes.len() != rules.volatile.len() {
        return;
    }
    let mut read: Vec<(&str, &Source, bool)> =
        rules.word.iter().map(|source| ("word", source, true)).collect();
    read.extend(rules.id.iter().map(|(_, source)| ("id", source, true)));
    let progress = rules.progress.values();
    read.extend(progress.into_iter().filter_map(|(key, source)| Some((key, source?, true))));
    // An expression may read it in some states only.
    read.extend(rules.texts().into_iter().filter_map(|(key, source)| Some((key, source?, false))));
    read.extend(rules.times().into_iter().filter_map(|(key, rule)| Some((key, &rule?.at, false))));
    for (place, (node, member)) in nodes.iter().zip(&rules.volatile).enumerate() {
        let reads = |source: &Source, within: bool| {
            let is_plain = matches!(source, Source::Path(_));
            (is_plain || within) && source.paths_of_job().iter().any(|steps| member.holds(steps))
        };
        if let Some((key, ..)) = read.iter().find(|(_, source, within)| reads(source, *within)) {
            let text = format!(
                "is read by status.{key}, whose changes nobody would see; remove it here, or read another member"
            );
            node.report(log, text);
        }
        let mut wider = rules.volatile.iter().enumerate();
        if wider.any(|(other, rule)| other != place && rule.includes(member, other < place)) {
            node.report(log, "stands in the list already, as it is or by a *; keep one");
        }
    }
}

/// A parameter that nothing reads would have to be set for nothing.
fn params(definition: &Definition, top: &mut Section<'_>, log: &Log<'_>) {
    let Some(keys) = table(top, "params", log) else { return };
    let Definition { ways, request_headers, request, batch, status, faults, files, .. } = definition;
    let questions = request.iter().chain(batch.iter().map(|batch| &batch.question));
    let requests: Vec<&RequestTemplate> = questions.map(|question| &question.request).collect();
    let mut sources: Vec<&Source> = requests.iter().flat_map(|request| request.sources()).collect();
    let required = requests.iter().flat_map(|request| request.required());
    let required: Vec<&Source> = required.chain(ways.iter().flat_map(Way::required)).collect();
    sources.extend(ways.iter().flat_map(Way::sources));
    sources.extend(request_headers.iter().flat_map(|(_, text)| text.sources()));
    sources.extend(status.sources());
    sources.extend(faults.iter().flat_map(FaultRule::sources));
    sources.extend(files.iter().flat_map(FileRule::sources));
    for (name, _, node) in keys.entries() {
        let Some(param) = definition.params.iter().find(|param| param.name == name) else { continue };
        let is_optional = param.optional;
        let is_plain = |source: &&Source| matches!(source, Source::Param(own) if own == name);
        if is_optional && required.iter().any(is_plain) {
            let text = "is optional, and a path or JSON can't leave it out; write default in place of optional, \
                        or use it in query, headers or form only";
            node.report(log, text);
        }
        if !sources.iter().any(|source| source.uses_param(name)) {
            let text = format!("is not used; write {{{{ params.{name} }}}} where it belongs, or remove it");
            node.report(log, text);
        }
    }
}

fn ways(definition: &Definition, top: &mut Section<'_>, log: &Log<'_>) {
    let Some(mut section) = table(top, "credentials", log) else { return };
    for way in &definition.ways {
        let Some(mut keys) = table(&mut section, way.name, log) else { continue };
        let sources = way.sources();
        let is_used = |name: &str| sources.iter().any(|source| source.needs(name));
        for node in list(&mut keys, "fields") {
            let Some(field) = node.as_text() else { continue };
            if way.secret.is_none() {
                node.report(log, "has no effect: a backend without credentials can't set it; remove it");
            } else if !is_used(field) {
                node.report(
                    log,
                    format!("is not used; write {{{{ {field} }}}} in the request, or remove it"),
                );
            }
        }
        no_repetition(&mut keys, "fields", log);
        no_repetition(&mut keys, "refused_status", log);
        if let WayKind::Exchange(exchange) = &way.kind {
            let secret = way.secret.as_deref().unwrap_or_default();
            if !uses(&exchange.request, secret) {
                let text = format!("does not send its secret; write {{{{ {secret} }}}} in the request");
                log.add(keys.span.clone(), &keys.path, text);
            }
            if let Some(node) = keys.get("send_as").filter(is_empty) {
                node.report(log, "has no effect; write header or scheme in it, or remove it");
            }
            if let Some(mut keys) = table(&mut keys, "expires_at", log) {
                time(&mut keys, log);
            }
        }
    }
}

fn is_empty(node: &Node<'_>) -> bool {
    node.section(&Log::new("")).is_some_and(|section| section.entries().is_empty())
}

fn uses(request: &RequestTemplate, variable: &str) -> bool {
    request.sources().iter().any(|source| source.needs(variable))
}

/// An element of a list that stands there twice.
fn no_repetition(keys: &mut Section<'_>, key: &'static str, log: &Log<'_>) {
    let value = |node: &Node<'_>| {
        node.as_text().map(str::to_owned).or_else(|| node.as_integer().map(|integer| integer.to_string()))
    };
    let mut known = Vec::new();
    for node in list(keys, key) {
        let Some(value) = value(&node) else { continue };
        if known.contains(&value) {
            node.report(log, format!("is {value:?}, which stands in the list twice; keep one"));
        }
        known.push(value);
    }
}
