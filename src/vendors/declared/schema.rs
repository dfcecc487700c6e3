//! The JSON Schemas of definitions and of their cases, for editors and linters.
//!
//! Words, limits and fields are the reader's own. A test holds the keys of each table to
//! those that the reader asks for, in both directions.

use serde_json::{Value, json};

use super::{
    credentials::{CLIENT_AUTHS, GRANTS, WAYS},
    definition::{FORMAT, FORMS, LARGEST_BATCH},
    id::KINDS,
    table::STATES,
    time::UNITS,
};

mod cases;
mod parts;
mod rules;

pub use cases::cases;
use parts::{
    about, flag, http_status, list, map, path, several, source, table, table_of, template, text,
    text_or_table, word, words_of,
};
use rules::{fault, file};

const DRAFT: &str = "https://json-schema.org/draft/2020-12/schema";

/// JSON Schema, draft 2020-12, of a definition.
pub fn definition() -> Value {
    let mut schema = table(
        "The definition of a vendor, as jobwatch reads it.",
        &["format", "name", "version", "title", "docs", "id", "credentials", "status", "states"],
        [
            ("format", json!({ "const": FORMAT, "description": "The version of the format." })),
            (
                "name",
                about(
                    json!({ "type": "string", "pattern": "^[a-z0-9][a-z0-9-]{0,62}$" }),
                    "The name, in lower case.",
                ),
            ),
            (
                "version",
                about(
                    json!({ "type": "string", "pattern": r"^(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*)){2}$" }),
                    "The definition's own version, such as 1.0.0: a new word is a new minor version, a word that moves to an end or from one a major version.",
                ),
            ),
            ("title", text("The vendor and its kind of jobs, for people.")),
            ("docs", text("The URL of the page that documents the API.")),
            ("notes", text("What to know of the definition.")),
            ("verified", flag("False for what was not written from the vendor's documentation.")),
            (
                "reopens",
                flag("Whether a job can run again after its end; then an end is kept for one poll only."),
            ),
            (
                "headers",
                map(
                    template(""),
                    "Headers of every request to the vendor: polls, files and those for tokens.",
                ),
            ),
            ("params", params()),
            ("id", id()),
            ("credentials", credentials()),
            ("request", request("The request that polls one job.", &[])),
            ("batch", batch()),
            ("answer", answer()),
            ("status", status()),
            ("states", states()),
            (
                "faults",
                list(
                    fault(),
                    "Which responses are no answer about a job, tried in order before anything else is read.",
                ),
            ),
            ("files", list(file(), "Files of a job, which become artifacts.")),
        ],
    );
    schema["anyOf"] = json!([{ "required": ["request"] }, { "required": ["batch"] }]);
    headed(schema, "jobwatch vendor definition")
}

fn headed(mut schema: Value, title: &str) -> Value {
    schema["$schema"] = DRAFT.into();
    schema["title"] = title.into();
    schema
}

fn state_list(what: &str) -> Value {
    several(word(&words_of(&STATES), ""), what)
}

fn params() -> Value {
    let param = table(
        "A parameter of the backend.",
        &[],
        [
            ("type", word(&words_of(&KINDS), "Which values it can have.")),
            ("regex", text("A regular expression that the whole value has to match, in place of type.")),
            (
                "default",
                about(json!({ "type": ["string", "integer"] }), "The value of a backend that sets none."),
            ),
            ("optional", flag("Whether a backend may leave it out; what has its value is left out then.")),
            ("description", text("What it is, for operators.")),
        ],
    );
    map(param, "What the operator sets in params of the backend.")
}

fn id() -> Value {
    let by_regex =
        table("", &["regex"], [("regex", text("A regular expression that the whole part has to match."))]);
    let mut schema = table(
        "The form of job ids.",
        &["pattern"],
        [
            ("pattern", text("The parts in braces, with text between them: \"{dag_id}/{dag_run_id}\".")),
            ("example", text("An id, shown in errors; needed where a part has a regex.")),
        ],
    );
    let kinds = word(&words_of(&KINDS), "");
    schema["additionalProperties"] =
        about(json!({ "anyOf": [kinds, by_regex] }), "The type of the part with this name.");
    schema
}

fn credentials() -> Value {
    let ways = WAYS.iter().map(|(way, _)| ((*way).to_owned(), self::way(way)));
    let mut schema = table_of("The ways to sign in; a backend chooses one by its secret.", &[], ways);
    schema["minProperties"] = 1.into();
    schema
}

fn way(name: &str) -> Value {
    let mut keys = vec![
        ("fields", several(text(""), "Further keys of credentials, which are not secret.")),
        ("headers", map(template(""), "Headers of every request.")),
    ];
    if name != "none" {
        keys.push(("secret", text("The key of the secret in credentials.")));
    }
    let scheme = text("The word before the secret.");
    let (what, required): (&str, &[&str]) = match name {
        "none" => ("No credentials.", &[]),
        "bearer" => {
            keys.push(("scheme", scheme));
            ("A bearer token, or another word in place of Bearer.", &[])
        }
        "header" => {
            keys.extend([("name", text("The header's name.")), ("scheme", scheme)]);
            ("A secret in a header.", &["name"])
        }
        "query" => {
            keys.push(("name", text("The parameter's name.")));
            ("A secret in the query.", &["name"])
        }
        "basic" => {
            let what = "Where the secret stands; username for a key without a password.";
            keys.push(("secret_as", word(&["password", "username"], what)));
            ("User name and password.", &[])
        }
        "oauth2" => {
            keys.extend([
                ("token_path", template("The token endpoint, behind base_url.")),
                (
                    "token_url",
                    template("The token endpoint at another origin, which the operator has to allow."),
                ),
                ("client_auth", word(&words_of(&CLIENT_AUTHS), "How the client's secret is sent.")),
                ("grant", word(&words_of(&GRANTS), "The grant type.")),
                ("form", map(pair(), "Further fields of the form.")),
            ]);
            ("An access token of OAuth 2.0.", &[])
        }
        _ => return exchange(keys),
    };
    let keys = keys.into_iter().map(|(key, schema)| (key.to_owned(), schema));
    let mut way = table_of(what, required, keys);
    if name == "oauth2" {
        way["oneOf"] = json!([{ "required": ["token_path"] }, { "required": ["token_url"] }]);
    }
    way
}

fn exchange(more: Vec<(&'static str, Value)>) -> Value {
    let send_as = table(
        "Where the token stands; Authorization with Bearer unless set.",
        &[],
        [("header", text("The header's name.")), ("scheme", text("The word before the token."))],
    );
    let own = vec![
        ("token", source("Where the token stands in the answer.")),
        ("expires_in", source("Seconds for which it is good.")),
        ("expires_at", time("When it expires.")),
        (
            "lifetime_s",
            about(json!({ "type": "integer", "minimum": 1 }), "Seconds for which every token is good."),
        ),
        ("send_as", send_as),
        ("refused", source("True where the answer refuses the secret.")),
        (
            "refused_status",
            several(
                json!({ "type": "integer", "minimum": 400, "maximum": 499 }),
                "Statuses that refuse the secret.",
            ),
        ),
    ];
    let keys: Vec<(&str, Value)> = more.into_iter().filter(|(key, _)| *key != "headers").chain(own).collect();
    let mut schema = request("A request of the vendor's own that gives a token for the secret.", &keys);
    schema["required"] = json!(["token"]);
    schema
}

/// A text or a number in a query or a form.
fn pair() -> Value {
    json!({ "type": ["string", "integer", "number"] })
}

fn request(what: &str, more: &[(&str, Value)]) -> Value {
    let graphql = table(
        "A query of GraphQL.",
        &["query"],
        [
            ("query", text("The query.")),
            ("variables", about(json!({}), "Its variables; a text that is one whole {{ }} keeps its type.")),
            ("operation", text("The name of the operation.")),
        ],
    );
    let own = [
        ("path", template("The path, behind that of base_url.")),
        ("location", text("A whole location of the backend's own, as one value in {{ }}, in place of path.")),
        ("query", map(pair(), "The query; values stand in {{ }}.")),
        ("headers", map(template(""), "Headers; not those that carry credentials.")),
        ("method", word(&["GET", "POST"], "The method; POST where there is content.")),
        ("json", about(json!({}), "Content in JSON; a text that is one whole {{ }} keeps its type.")),
        ("form", map(pair(), "Content as a form.")),
        ("graphql", graphql),
    ];
    let keys = own.into_iter().chain(more.iter().cloned()).map(|(key, schema)| (key.to_owned(), schema));
    let mut schema = table_of(what, &[], keys);
    schema["oneOf"] = json!([{ "required": ["path"] }, { "required": ["location"] }]);
    schema
}

fn batch() -> Value {
    let max = json!({ "type": "integer", "minimum": 2, "maximum": LARGEST_BATCH });
    let own = [
        (
            "jobs",
            text(
                "Where the jobs stand: a list, or an object. A plain path such as body.items, or body.text | json.",
            ),
        ),
        ("by_id", flag("Whether jobs is an object that has them by id.")),
        ("max", about(max, "The most jobs in one request; 200 unless set.")),
    ];
    let mut schema = request("A request that polls several jobs.", &own);
    schema["required"] = json!(["jobs"]);
    schema
}

fn answer() -> Value {
    table(
        "How the answer is taken apart.",
        &[],
        [
            (
                "job",
                text(
                    "Where the job's object stands; body unless set. A plain path such as body.data, or body.text | json.",
                ),
            ),
            ("states_by_status", several(http_status(), "HTTP statuses that are words and not faults.")),
            ("body", word(&["optional", "required"], "Whether an answer may be without content.")),
            ("refusal", source("Where the vendor's words for a refusal are.")),
            (
                "plain_text",
                flag("Whether a refusal in plain text is in the vendor's own words; true unless set."),
            ),
            ("login_page", flag("Whether those who are not signed in are sent to a login page.")),
        ],
    )
}

fn time(what: &str) -> Value {
    text_or_table(table(
        &format!("{what} A path or an expression, or a table with its form."),
        &["at"],
        [
            ("at", source("Where the time stands.")),
            ("unit", word(&words_of(&UNITS), "The unit of a number since 1970; ISO 8601 without it.")),
            ("zone", text("The zone of times that have none: UTC, or an offset such as +02:00.")),
            ("format", text("Its format, as of strftime.")),
            ("unset", several(json!({ "type": ["string", "integer"] }), "Values that mean none.")),
        ],
    ))
}

fn status() -> Value {
    let only = state_list("The only states in which it is looked for.");
    let never = state_list("States in which it is not looked for.");
    let progress = table(
        "How far the job is.",
        &[],
        [
            ("percent", source("Percent, from 0 to 100.")),
            ("completed_steps", source("How many steps are done.")),
            ("total_steps", source("How many steps there are.")),
            ("current_step", source("The step that runs.")),
        ],
    );
    let when = |what: &str| source(&format!("True where there is {what}."));
    let result = text_or_table(table(
        "A plain path, or a table.",
        &["at"],
        [
            (
                "at",
                text(
                    "Where the output stands. A plain path such as job.output, also with json, latin1 or base64 behind it, such as job.output | base64.",
                ),
            ),
            ("when", when("an output there")),
            (
                "content_type",
                word(
                    &words_of(&FORMS),
                    "The form of the output; auto takes a text for text, anything else for JSON. Avro is for bytes.",
                ),
            ),
            ("in", only.clone()),
            ("not_in", never.clone()),
        ],
    ));
    let error = table(
        "Why the job failed.",
        &[],
        [
            ("message", several(source(""), "The vendor's words; the first with any counts.")),
            ("words", several(source(""), "The same, also within an object.")),
            ("each", path("A list of errors, each of which is item.")),
            ("details", path("Everything that the vendor says of the error.")),
            ("whole", flag("Whether the details are the value that had the words.")),
            ("when", when("an error")),
            ("in", only),
            ("not_in", never),
        ],
    );
    let id = json!({ "type": ["string", "object"], "minLength": 1, "additionalProperties": text("") });
    table(
        "Which values of a job are what.",
        &["word"],
        [
            ("id", about(id, "The id in the answer; a table by part for ids of several parts.")),
            ("word", several(source(""), "The vendor's word for the state, or a list of up to four values.")),
            ("vendor_state", source("Another text to show for the state.")),
            ("job_type", source("The kind of the job.")),
            ("description", source("The job in a few words.")),
            ("owner", source("Whose job it is.")),
            ("vendor_url", source("The page of the job at the vendor.")),
            ("create_time", time("When the job was created.")),
            ("start_time", time("When it started.")),
            ("end_time", time("When it ended.")),
            ("progress", progress),
            ("result", several(result, "The output of the job; of several rules the first that finds one.")),
            ("error", error),
            ("warnings", several(source(""), "What did not go well in a job that succeeded.")),
            ("volatile", several(text(""), "Members that differ in every answer, such as job.*_duration.")),
        ],
    )
}

fn states() -> Value {
    let part = json!({ "type": ["string", "integer", "boolean"] });
    let entry = json!({ "anyOf": [part.clone(), { "type": "array", "items": part }] });
    let words = STATES.iter().map(|(state, _)| {
        ((*state).to_owned(), several(entry.clone(), &format!("The vendor's words for {state}.")))
    });
    let open: Vec<&str> =
        STATES.iter().filter(|(_, state)| !state.is_terminal()).map(|(name, _)| *name).collect();
    let others = [
        (
            "otherwise".to_owned(),
            word(
                &open,
                "The state of words that the table does not have, where the vendor documents its vocabulary as open.",
            ),
        ),
        ("no_failure".to_owned(), text("Why no word says that a job failed.")),
    ];
    table_of(
        "Which words are which states. Parts of a word have / between them; * is any part, - an absent one.",
        &[],
        words.chain(others),
    )
}

#[cfg(test)]
mod tests;
