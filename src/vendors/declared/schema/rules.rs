//! The schemas of fault rules and of file rules.

use serde_json::{Value, json};

use super::{
    pair,
    parts::{about, flag, http_status, map, several, source, table, template, text, word, words_of},
    state_list,
};
use crate::vendors::declared::faults::MEANINGS;

pub(super) fn fault() -> Value {
    let header = json!({ "type": ["string", "object"], "minLength": 1, "additionalProperties": text("") });
    let seconds =
        about(json!({ "type": ["string", "number"], "minLength": 1 }), "Seconds to wait, or where they are.");
    table(
        "A rule: conditions, and what a response means that meets them.",
        &["is"],
        [
            ("status", several(http_status(), "HTTP statuses.")),
            ("header", about(header, "A header that is there, or a table of headers with their values.")),
            ("content_type", text("A part of the content type.")),
            ("when", source("True where the rule applies.")),
            ("graphql_code", several(text(""), "Codes of GraphQL errors.")),
            ("says", word(&["no_such_job"], "The message says that the job does not exist.")),
            ("names_the_id", several(source(""), "Values that speak of the id.")),
            ("is", word(&words_of(&MEANINGS), "What the response means.")),
            ("message", source("Where the vendor's words are.")),
            ("wait_s", seconds),
            ("until", source("A time to wait for.")),
        ],
    )
}

pub(super) fn file() -> Value {
    let mut schema = table(
        "A kind of files.",
        &["name"],
        [
            ("each", text("A list, or one value, whose elements are item. A plain path such as job.files.")),
            (
                "by_category",
                several(
                    text(""),
                    "Where each is an object of lists by category: the categories that come first.",
                ),
            ),
            ("when", source("True where there is a file.")),
            ("in", state_list("The only states in which there is a file.")),
            ("not_in", state_list("States in which there is none.")),
            ("name", template("The file's name.")),
            ("category", template("The file's category.")),
            ("path", template("Its path, behind that of base_url.")),
            ("query", map(pair(), "The query of the path.")),
            ("url", template("A location that the vendor gives.")),
            (
                "origin",
                several(
                    text(""),
                    "The other origins that the URL may lead to, such as https://files.example.",
                ),
            ),
            ("redirects_to", several(text(""), "The other origins to which the vendor redirects.")),
            ("with_credentials", flag("Whether the other origin needs the backend's credentials.")),
        ],
    );
    schema["oneOf"] = json!([{ "required": ["path"] }, { "required": ["url"] }]);
    schema
}
