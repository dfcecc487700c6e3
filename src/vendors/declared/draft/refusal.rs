//! Answers that are about no job: what was found, and what to paste instead.

use super::{fields::Fields, secrets::Cleaner, tree::Node};

/// Most characters of the vendor's words.
const LONGEST: usize = 120;

/// Members of the answers of errors.
const OF_ERRORS: [&str; 20] = [
    "error",
    "errors",
    "message",
    "messages",
    "msg",
    "detail",
    "details",
    "title",
    "type",
    "code",
    "status",
    "status_code",
    "statuscode",
    "error_code",
    "errorcode",
    "error_description",
    "request_id",
    "requestid",
    "timestamp",
    "documentation_url",
];

/// Why an answer is about no job, where that is plain.
pub(super) fn of(body: &Node) -> Option<String> {
    let errors = body.get("errors").is_some();
    let is_null = |node: &Node| {
        *node == Node::Null
            || node.is_object()
                && !node.members().is_empty()
                && node.members().iter().all(|(_, node)| *node == Node::Null)
    };
    let data = body.get("data");
    if data.is_some_and(is_null) || data.is_none() && errors && !has_word(body) {
        let found = match (data, words(body)) {
            (_, Some(words)) => format!(", and its error says {words:?}"),
            (Some(_), None) if !errors => ": it knows no such job".to_owned(),
            _ => String::new(),
        };
        return Some(format!(
            "is an answer without data, as of GraphQL{found}; correct the query, its variables or the credentials, and \
             paste the answer about a job that exists"
        ));
    }
    None
}

fn has_word(body: &Node) -> bool {
    body.members().iter().any(|(name, _)| matches!(&*name.to_lowercase(), "id" | "state" | "phase"))
}

/// The answer has no object in it.
pub(super) fn no_object(body: &Node) -> String {
    let found = match body {
        Node::Null => "is null: the API knows no such job",
        Node::List(nodes) if nodes.is_empty() => "is an empty list: the API found no job",
        Node::List(_) => "is a list without an object in it",
        Node::Text { .. } => "is a text alone, without the other members of a job",
        Node::Number(_) | Node::Flag(_) => "is one value alone, without the members of a job",
        Node::Object(_) => "has no JSON object",
    };
    format!(
        "{found}; paste the answer about a job that exists, an object such as {{\"id\": 7, \"status\": \"done\"}}"
    )
}

/// Why an answer has no state, where that is plain.
pub(super) fn no_state(body: &Node) -> Option<String> {
    if body.is_object() && body.members().is_empty() {
        return Some(
            "is an empty object, {}; paste the answer about a job that exists, such as {\"id\": 7, \"status\": \"done\"}"
                .to_owned(),
        );
    }
    let is_of_errors = |(name, _): &(String, Node)| OF_ERRORS.contains(&&*name.to_lowercase());
    if body.is_object() && body.members().iter().all(is_of_errors) {
        let says = words(body).map(|words| format!(", which says {words:?}")).unwrap_or_default();
        return Some(format!(
            "is an answer of an error{says}; paste the answer about a job that exists, and add this one to cases.toml later"
        ));
    }
    None
}

/// The first words for people of an error, without secrets.
fn words(body: &Node) -> Option<String> {
    fn within(node: &Node, depth: u8) -> Option<String> {
        if let Some(text) = node.text().filter(|text| !text.trim().is_empty()) {
            return Some(text.to_owned());
        }
        let depth = depth.checked_sub(1)?;
        if let Node::List(nodes) = node {
            return nodes.iter().find_map(|node| within(node, depth));
        }
        let names = ["message", "errors", "error", "error_description", "detail", "msg", "title"];
        names.iter().find_map(|name| within(node.get(name)?, depth))
    }
    let words = within(body, 4)?;
    let line = words.split_whitespace().collect::<Vec<_>>().join(" ");
    let line: String =
        Cleaner::default().text(&line).chars().filter(|c| !c.is_control()).take(LONGEST).collect();
    Some(line)
}

/// What `answer.refusal` is, with the reason: where vendors have the words of a refusal. One of
/// the form of the job's own errors comes first.
pub(super) fn source(fields: &Fields) -> (String, &'static str) {
    const USUAL: &str = "body.message or body.error or body.errors[0] or body[0]";
    let error = fields.status.iter().find(|guess| guess.key == "error");
    let value = error.and_then(|guess| format!("error = {}", guess.value).parse::<toml::Table>().ok());
    let error = value.as_ref().and_then(|value| value.get("error")).and_then(toml::Value::as_table);
    let text = |key: &str| error.and_then(|error| error.get(key)).and_then(toml::Value::as_str);
    let first = match (text("each"), text("message").and_then(|message| message.strip_prefix("item"))) {
        (Some(list), Some(rest)) => list.strip_prefix("job.").map(|list| format!("body.{list}[0]{rest}")),
        (None, _) => text("message")
            .and_then(|message| message.strip_prefix("job."))
            .filter(|path| path.starts_with("error.") && *path != "error.message")
            .map(|path| format!("body.{path}")),
        _ => None,
    };
    // The usual ones have these already.
    let first = first
        .filter(|first| !matches!(&**first, "body.errors[0]" | "body.errors[0].message" | "body[0].message"));
    match first {
        Some(first) => {
            (format!("({first} or {USUAL}) | words"), "in the form of the job's errors, or the usual ones")
        }
        None => (
            format!("({USUAL}) | words"),
            "a text, an object with a message, or the first of a list of these",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Draft, Start};

    #[test]
    fn answer_about_no_job_says_what_was_found_and_what_to_paste() {
        for (answer, found, cure) in [
            ("{}", "is an empty object, {}", "paste the answer about a job that exists"),
            ("[]", "is an empty list: the API found no job", "paste the answer about a job that exists"),
            ("[1, 2]", "is a list without an object in it", "an object such as {\"id\": 7"),
            ("null", "is null: the API knows no such job", "paste"),
            ("\"done\"", "is a text alone", "paste"),
            ("7", "is one value alone", "paste"),
            (
                r#"{"data": null, "errors": [{"message": "no such run, ask ana@corp.example"}]}"#,
                "is an answer without data, as of GraphQL, and its error says \"no such run, ask user@example.com\"",
                "correct the query, its variables or the credentials",
            ),
            (
                r#"{"data": {"run": null}}"#,
                "as of GraphQL: it knows no such job;",
                "paste the answer about a job",
            ),
            (
                r#"{"errors": [{"message": "Syntax Error"}]}"#,
                "its error says \"Syntax Error\"",
                "correct the query",
            ),
            (
                r#"{"error": {"message": "not found", "code": 5}}"#,
                "is an answer of an error, which says \"not found\"",
                "add this one to cases.toml later",
            ),
            (
                r#"{"id": 7}"#,
                "has no member that looks like a state",
                "name it with --word, such as one of job.id",
            ),
            (
                r#"{"a": []}"#,
                "has no member that looks like a state",
                "; paste the answer about one job, with its state",
            ),
        ] {
            let start = Start {
                name: "x",
                answer: answer.as_bytes(),
                request: None,
                id: None,
                word: &[],
                schema: None,
            };
            let error = Draft::begin(&start).unwrap_err().to_string();
            assert!(error.starts_with("--answer ") && error.contains(found), "{answer}: {error}");
            assert!(error.contains(cure), "{answer}: {error}");
        }
    }
}
