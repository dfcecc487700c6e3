//! Which jobs a request asks for: the templates of a definition, read backwards.
//!
//! It is a guess, for simulations: the caller writes the request for the jobs that were
//! found, and compares.

use http::Request;
use percent_encoding::percent_decode_str;
use serde_json::Value;
use url::form_urlencoded;

use super::{
    definition::Definition,
    source::{Scope, Source},
    template::{Body, Piece, RequestTemplate, Target, Text, Tree},
};

/// The values of parts, and the lists of whole ids, that a request holds.
#[derive(Debug, Default)]
struct Found {
    parts: Vec<(usize, String)>,
    ids: Vec<String>,
}

/// The ids that a request of this template asks for; `None` where it is another request.
pub(super) fn ids(
    definition: &Definition,
    template: &RequestTemplate,
    base_path: &str,
    scope: &Scope<'_>,
    request: &Request<bytes::Bytes>,
) -> Option<Vec<String>> {
    let mut found = Found::default();
    let uri = request.uri();
    match &template.target {
        Target::Location(source) => {
            let location = uri.path_and_query()?.as_str().strip_prefix(base_path)?;
            let (before, after) = around(definition, source, scope)?;
            let part = location.strip_prefix(before.as_str())?.strip_suffix(after.as_str())?;
            found.parts.push((0, part.to_owned()));
        }
        Target::Path(path) => {
            let own = canonical(uri.path().strip_prefix(base_path)?);
            text(path, &own, true, scope, &mut found)?;
        }
    }
    let pairs: Vec<(String, String)> =
        form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()).into_owned().collect();
    fields(&template.query, &pairs, scope, &mut found)?;
    match &template.body {
        None => {}
        Some(Body::Json(tree)) => {
            let body: Value = serde_json::from_slice(request.body()).ok()?;
            walk(tree, &body, scope, &mut found)?;
        }
        Some(Body::Form(form)) => {
            let pairs: Vec<(String, String)> = form_urlencoded::parse(request.body()).into_owned().collect();
            fields(form, &pairs, scope, &mut found)?;
        }
    }
    if !found.ids.is_empty() {
        return found.ids.into_iter().map(|id| definition.id.assemble(&[id])).collect();
    }
    let part =
        |place: usize| found.parts.iter().find(|(found, _)| *found == place).map(|(_, text)| text.clone());
    let parts: Option<Vec<String>> = (0..definition.id.names.len()).map(part).collect();
    Some(vec![definition.id.assemble(&parts?)?])
}

/// A path, or a part of one, with everything percent-encoded that can be: a client may send
/// `'` or `*` as they are.
pub(super) fn canonical(path: &str) -> String {
    let segment = |segment: &str| match percent_decode_str(segment).decode_utf8() {
        Ok(decoded) => crate::vendors::percent_encoded(&decoded).into_owned(),
        Err(_) => segment.to_owned(),
    };
    path.split('/').map(segment).collect::<Vec<_>>().join("/")
}

/// What a value puts before and after the first part of an id.
fn around(definition: &Definition, source: &Source, scope: &Scope<'_>) -> Option<(String, String)> {
    const MARK: &str = "0a1b2c3d4e5f";
    if let Source::Part(_) = source {
        return Some((String::new(), String::new()));
    }
    let parts = vec![MARK.to_owned(); definition.id.names.len()];
    let marked = source.text(&Scope { part_names: &definition.id.names, id: &parts, ..*scope })?;
    let (before, after) = marked.split_once(MARK)?;
    Some((before.to_owned(), after.to_owned()))
}

fn fields(
    template: &[(String, Text)],
    pairs: &[(String, String)],
    scope: &Scope<'_>,
    found: &mut Found,
) -> Option<()> {
    for (name, value) in template {
        let Some((_, given)) = pairs.iter().find(|(known, _)| known == name) else {
            if value.is_left_out(scope) {
                continue;
            }
            return None;
        };
        text(value, given, false, scope, found)?;
    }
    Some(())
}

/// Takes a text apart by the literals of its template.
fn text(template: &Text, given: &str, is_encoded: bool, scope: &Scope<'_>, found: &mut Found) -> Option<()> {
    let decoded = |text: &str| {
        if is_encoded {
            percent_decode_str(text).decode_utf8().ok().map(std::borrow::Cow::into_owned)
        } else {
            Some(text.to_owned())
        }
    };
    let (mut rest, mut open): (&str, Option<&Source>) = (given, None);
    for piece in template.pieces() {
        let literal = match piece {
            Piece::Literal(literal) if is_encoded => canonical(literal),
            Piece::Literal(literal) => literal.clone(),
            Piece::Value { source, .. } if is_of_jobs(source) => {
                open = Some(source);
                continue;
            }
            Piece::Value { source, .. } => {
                let value = source.text(scope)?;
                if is_encoded { crate::vendors::percent_encoded(&value).into_owned() } else { value }
            }
        };
        let (before, after) = rest.split_once(literal.as_str())?;
        match open.take() {
            Some(source) => value(source, &Value::from(decoded(before)?), found),
            None if before.is_empty() => {}
            None => return None,
        }
        rest = after;
    }
    match open {
        Some(source) => value(source, &Value::from(decoded(rest)?), found),
        None if rest.is_empty() => {}
        None => return None,
    }
    Some(())
}

fn walk(template: &Tree, given: &Value, scope: &Scope<'_>, found: &mut Found) -> Option<()> {
    match template {
        Tree::Text(template) => text(template, given.as_str()?, false, scope, found)?,
        Tree::Value(source) if is_of_jobs(source) => value(source, given, found),
        Tree::Value(_) | Tree::Literal(_) => {}
        Tree::List(items) => {
            for (item, given) in items.iter().zip(given.as_array()?) {
                walk(item, given, scope, found)?;
            }
        }
        Tree::Object(members) => {
            for (name, template) in members {
                walk(template, given.get(name)?, scope, found)?;
            }
        }
    }
    Some(())
}

fn is_of_jobs(source: &Source) -> bool {
    source.needs("id") || source.needs("ids")
}

/// Notes what stands at a value of the ids.
fn value(source: &Source, given: &Value, found: &mut Found) {
    let plain = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    };
    match (source, given) {
        (Source::Part(place), given) => found.parts.extend(plain(given).map(|text| (*place, text))),
        (_, Value::Array(items)) => found.ids.extend(items.iter().filter_map(plain)),
        (source, given) if source.needs("ids") => {
            let text = plain(given).unwrap_or_default();
            found.ids.extend(text.split(',').filter(|id| !id.is_empty()).map(str::to_owned));
        }
        // An expression on a single id: a number made of a text, most likely.
        (_, given) => found.parts.extend(plain(given).map(|text| (0, text))),
    }
}
