//! The schema of `cases.toml`.

use serde_json::{Value, json};

use super::{
    headed,
    parts::{about, http_status, list, map, several, table, table_of, text, word, words_of},
};
use crate::vendors::declared::{
    cases::expectation::{FIELDS, TOKEN_FIELDS},
    faults::MEANINGS,
    table::STATES,
};

/// JSON Schema, draft 2020-12, of the cases of a definition.
pub fn cases() -> Value {
    let request = table(
        "What the request has to be.",
        &[],
        [
            ("method", word(&["GET", "POST"], "The method.")),
            ("target", text("Path and query.")),
            ("url", text("The whole URL.")),
            ("headers", map(text(""), "Headers that the request has to have.")),
            ("body", text("The content; JSON is compared as JSON.")),
        ],
    );
    let case = table(
        "A response with what it has to be read as, or a request, or both.",
        &["ids"],
        [
            ("name", text("The case in a few words.")),
            ("source", text("Where the response is from.")),
            ("ids", several(text(""), "The ids of the jobs that are polled.")),
            ("status", about(http_status(), "The HTTP status; 200 unless set.")),
            ("headers", map(text(""), "Headers of the response.")),
            ("body", about(json!({ "type": "string" }), "The content of the response.")),
            ("expect", expectation()),
            ("request", request.clone()),
        ],
    );
    let mut case = case;
    case["anyOf"] = json!([{ "required": ["expect"] }, { "required": ["request"] }]);
    let schema = table(
        "The cases of a definition, as jobwatch reads them.",
        &["case"],
        [
            ("base_url", text("The address of the vendor.")),
            ("params", map(json!({ "type": ["string", "integer"] }), "The parameters of the backend.")),
            ("case", list(case, "The cases.")),
            ("token", list(token(request), "Cases of requests for a token.")),
            ("untested", map(text(""), "Words, fault rules and file rules without a case, with the reason.")),
        ],
    );
    headed(schema, "jobwatch vendor cases")
}

fn token(request: Value) -> Value {
    let keys = TOKEN_FIELDS.map(|field| {
        let schema = match field {
            "fault" => word(&faults(), "The fault in place of a token."),
            // "" expects none.
            "expires_in_s" => json!({ "type": ["number", "string"] }),
            _ => json!({ "type": "string" }),
        };
        (field.to_owned(), schema)
    });
    let mut expect = table_of("What the answer has to be read as.", &[], keys);
    expect["anyOf"] = json!([{ "required": ["token"] }, { "required": ["fault"] }]);
    let credentials = map(text(""), "The keys of a backend's credentials, with placeholders for secrets.");
    let mut case = table(
        "A request for a token, its answer, or both.",
        &["credentials"],
        [
            ("name", text("The case in a few words.")),
            ("source", text("Where the answer is from.")),
            ("credentials", credentials),
            ("status", about(http_status(), "The HTTP status; 200 unless set.")),
            ("headers", map(text(""), "Headers of the answer.")),
            ("body", about(json!({ "type": "string" }), "The content of the answer.")),
            ("expect", expect),
            ("request", request),
        ],
    );
    case["anyOf"] = json!([{ "required": ["expect"] }, { "required": ["request"] }]);
    case
}

fn expectation() -> Value {
    let states: Vec<&str> = words_of(&STATES).into_iter().chain(["UNSPECIFIED"]).collect();
    let keys = FIELDS.map(|field| {
        let schema = match field {
            "state" => word(&states, "The state."),
            "fault" => word(&faults(), "The fault in place of a status."),
            "percent" | "completed_steps" | "total_steps" | "retry_after_s" => {
                json!({ "type": ["number", "string"] })
            }
            "warnings" | "files" | "locations" => {
                json!({ "type": ["array", "string"], "items": { "type": "string" } })
            }
            _ => json!({ "type": "string" }),
        };
        (field.to_owned(), schema)
    });
    let invalid_id = text("A part of the reason for which the id is refused.");
    let keys = keys.into_iter().chain([("invalid_id".to_owned(), invalid_id)]);
    let mut one = table_of("What a job has to be read as; \"\" and [] expect nothing there.", &[], keys);
    one["anyOf"] =
        json!([{ "required": ["state"] }, { "required": ["fault"] }, { "required": ["invalid_id"] }]);
    several(one, "What each job has to be read as: for all ids, or a list with one for each.")
}

/// The words for faults.
fn faults() -> Vec<&'static str> {
    words_of(&MEANINGS).into_iter().chain(["too_large"]).collect()
}
