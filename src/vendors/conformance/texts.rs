//! Good answers with a part of their text changed.

use super::*;

/// What is not JSON, and looks like it.
pub(super) const NO_JSON: [&str; 11] =
    ["NaN", "Infinity", "-Infinity", "undefined", "01", "+1", ".5", "'x'", "[1,]", "1 /**/", "\"\t\""];

/// Short values of every kind.
pub(super) const VALUES: [&str; 19] = [
    "null",
    "true",
    "[]",
    "{}",
    "[null]",
    "[\"completed\"]",
    "{\"0\": [\"x\"]}",
    "\"\"",
    "\"x\"",
    r#""\ud800""#,
    r#""\udc00\ud800""#,
    r#"{"\ud800": 1}"#,
    r#""\u0000""#,
    "-1",
    "0",
    "1.5",
    "1e999",
    "9223372036854775808",
    "123456789012345678901234567890",
];

/// Where each value of a JSON text begins and ends, and each member of an object.
#[derive(Default)]
pub(super) struct Places {
    pub(super) values: Vec<(usize, usize)>,
    pub(super) members: Vec<(usize, usize)>,
}

impl Places {
    pub(super) fn of(text: &str) -> Self {
        let mut places = Self::default();
        places.visit(text, super::json::Value::new(text));
        places
    }

    fn visit(&mut self, text: &str, value: super::json::Value<'_>) {
        let start = value.get().as_ptr() as usize - text.as_ptr() as usize;
        let end = start + value.get().len();
        self.values.push((start, end));
        if let Some(object) = super::json::Object::of(value) {
            for (name, member) in object.members() {
                self.visit(text, member);
                let at = member.get().as_ptr() as usize - text.as_ptr() as usize;
                let name = text[..at].rfind(&format!("\"{name}\"")).unwrap();
                self.members.push((name, at + member.get().len()));
            }
        } else {
            for element in super::json::elements(value) {
                self.visit(text, element);
            }
        }
    }
}

pub(super) fn spliced(text: &str, (start, end): (usize, usize), new: &str) -> String {
    [&text[..start], new, &text[end..]].concat()
}

#[test]
fn a_word_that_is_not_json_spoils_the_whole_answer() {
    for row in rows() {
        for place in Places::of(row.answer).values {
            for word in NO_JSON {
                row.assert_malformed(&json(200, spliced(row.answer, place, word)));
            }
        }
    }
}

#[test]
fn any_value_in_the_place_of_another_is_survived() {
    let long = format!("\"{}\"", "x".repeat(1 << 20));
    let deep = format!("{}{}", "[".repeat(3000), "]".repeat(3000));
    let deep_objects = format!("{}1{}", "{\"value\":".repeat(3000), "}".repeat(3000));
    let values = VALUES.into_iter().chain([&*long, &*deep, &*deep_objects]);
    for row in rows() {
        for place in Places::of(row.answer).values {
            for value in values.clone() {
                let _ = row.read(&json(200, spliced(row.answer, place, value)));
            }
        }
    }
}

#[test]
fn bytes_that_are_not_utf8_never_reach_an_observation() {
    for row in rows() {
        for at in 0..row.answer.len() {
            let mut body = row.answer.as_bytes().to_vec();
            body.insert(at, 0xff);
            let _ = row.read(&json(200, body));
        }
    }
}

#[test]
fn a_repeated_member_changes_nothing_or_spoils_its_job() {
    for row in rows() {
        let good = row.states(&json(200, row.answer));
        for (start, end) in Places::of(row.answer).members {
            let member = &row.answer[start..end];
            let twice = spliced(row.answer, (start, end), &format!("{member}, {member}"));
            for (now, before) in row.states(&json(200, twice)).iter().zip(&good) {
                assert!(now.is_none() || now == before, "{}: {member}", row.vendor);
            }
        }
    }
}

#[test]
fn a_missing_member_is_survived() {
    for row in rows() {
        for place in Places::of(row.answer).members {
            let _ = row.read(&json(200, spliced(row.answer, place, "\"other\": 1")));
        }
    }
}
