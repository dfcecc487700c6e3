//! What differs between two versions of a definition, and whether its version says so.
//!
//! A word that moves to an end or from one is a major change, and so is what callers or
//! operators have to follow: ids, parameters, credentials. Any other change of what is
//! asked or read is minor; texts for people are a patch.

use std::fmt;

use toml::{Table, Value};

use super::{
    Definition,
    reader::join,
    table::{STATES, StateTable},
};
use crate::job::JobState;

/// The part of a version that has to grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Grade {
    /// Texts for people.
    Patch,
    /// More is understood, or something is read otherwise.
    Minor,
    /// Jobs end otherwise, or callers or operators have to change something.
    Major,
}

impl fmt::Display for Grade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Patch => "patch",
            Self::Minor => "minor",
            Self::Major => "major",
        })
    }
}

/// Every difference, in the order of the reference.
#[derive(Debug, Default)]
pub struct Differences {
    /// Each with what it asks of the version.
    pub changes: Vec<(Grade, String)>,
    /// What is wrong with the version, if it does not agree.
    pub version_problem: Option<String>,
}

impl Differences {
    /// What all changes together ask of the version; `None` for no change.
    pub fn grade(&self) -> Option<Grade> {
        self.changes.iter().map(|(grade, _)| *grade).max()
    }

    fn add(&mut self, grade: Grade, text: String) {
        self.changes.push((grade, text));
    }
}

impl Definition {
    /// What differs in the later version. The texts are those of the definitions.
    pub fn differences(&self, text: &str, later: &Self, later_text: &str) -> Differences {
        let mut found = Differences::default();
        let table = |text: &str| toml::from_str::<Table>(text).unwrap_or_default();
        let (old, new) = (table(text), table(later_text));
        words(&self.states, &later.states, &mut found);
        for section in ["name", "id", "params", "credentials"] {
            leaves(section, old.get(section), new.get(section), &mut |path, one, other| {
                let grade = grade_of(section, path, one, other);
                found.add(grade, changed(path, one, other));
            });
        }
        self.compare_ways(later, &mut found);
        for section in ["headers", "request", "batch", "answer", "status"] {
            leaves(section, old.get(section), new.get(section), &mut |path, one, other| {
                found.add(Grade::Minor, changed(path, one, other));
            });
        }
        let in_states =
            |table: &Table, key: &str| table.get("states").and_then(|states| states.get(key)).cloned();
        for key in ["otherwise", "no_failure"] {
            let (one, other) = (in_states(&old, key), in_states(&new, key));
            if one != other {
                let grade = if key == "otherwise" { Grade::Minor } else { Grade::Patch };
                found.add(grade, changed(&join("states", key), one.as_ref(), other.as_ref()));
            }
        }
        for section in ["faults", "files"] {
            rules(section, old.get(section), new.get(section), &mut found);
        }
        for section in ["format", "title", "docs", "notes", "verified"] {
            if old.get(section) != new.get(section) {
                found.add(Grade::Patch, format!("{section}: differs"));
            }
        }
        if old.get("reopens") != new.get("reopens") {
            found.add(Grade::Minor, changed("reopens", old.get("reopens"), new.get("reopens")));
        }
        found.version_problem = version_problem(&self.version, &later.version, found.grade());
        found
    }
}

/// Whether an operator or a caller has to follow a change there.
fn grade_of(section: &str, path: &str, old: Option<&Value>, new: Option<&Value>) -> Grade {
    let last = path.rsplit('.').next().unwrap_or_default();
    let is_true = |value: Option<&Value>| value.and_then(Value::as_bool) == Some(true);
    let has_default = |param: Option<&Value>| {
        param.is_some_and(|param| param.get("default").is_some() || is_true(param.get("optional")))
    };
    match section {
        "id" if last == "example" => Grade::Patch,
        "params" if last == "description" => Grade::Patch,
        "params" if last == "default" && new.is_some() => Grade::Minor,
        "params" if last == "optional" && is_true(new) => Grade::Minor,
        "params" if old.is_none() && (has_default(new) || path.matches('.').count() > 1) => Grade::Minor,
        "credentials" if old.is_none() && !matches!(last, "secret" | "secret_as" | "fields") => Grade::Minor,
        "credentials"
            if path.matches('.').count() > 1
                && !matches!(last, "secret" | "fields" | "token_url" | "grant") =>
        {
            Grade::Minor
        }
        _ => Grade::Major,
    }
}

impl Definition {
    /// What operators have to write otherwise for a way to sign in that stays.
    fn compare_ways(&self, later: &Self, found: &mut Differences) {
        for (place, way) in self.ways.iter().enumerate() {
            let Some(new_place) = later.ways.iter().position(|new| new.name == way.name) else { continue };
            let new = &later.ways[new_place];
            if way.secret != new.secret || way.fields != new.fields {
                found.add(Grade::Major, format!("credentials.{}: takes other keys of a backend", way.name));
            }
            let origin = later.token_origin(Some(new_place));
            if let Some(origin) =
                origin.filter(|origin| self.token_origin(Some(place)).as_ref() != Some(origin))
            {
                let text = format!(
                    "credentials.{}: asks for tokens at {origin}, which backends have to allow",
                    way.name
                );
                found.add(Grade::Major, text);
            }
        }
    }
}

fn words(old: &StateTable, new: &StateTable, found: &mut Differences) {
    let state_of = |name: &str| {
        STATES.iter().find(|(known, _)| *known == name).map_or(JobState::Unknown, |(_, state)| *state)
    };
    let about = |from: JobState, to: JobState| match (from.is_terminal(), to.is_terminal()) {
        (false, true) => (Grade::Major, ", which is an end"),
        (true, false) => (Grade::Major, ", from an end"),
        (true, true) => (Grade::Minor, ", both ends"),
        (false, false) => (Grade::Minor, ""),
    };
    let of = |table: &StateTable, word: &str| {
        table.patterns().find(|(_, pattern)| pattern == word).map(|(state, _)| state)
    };
    for (from, word) in old.patterns() {
        match of(new, &word) {
            Some(to) if to != from => {
                let (grade, end) = about(state_of(from), state_of(to));
                found.add(grade, format!("states: {word:?} moves from {from} to {to}{end}"));
            }
            Some(_) => {}
            None => {
                let is_end = state_of(from).is_terminal();
                let (grade, end) =
                    if is_end { (Grade::Major, ", which is an end") } else { (Grade::Minor, "") };
                found.add(grade, format!("states: {word:?} goes from {from}{end}"));
            }
        }
    }
    for (to, word) in new.patterns() {
        if of(old, &word).is_some() {
            continue;
        }
        // Another entry may have had it before.
        let parts = new.words().into_iter().find(|(_, parts)| super::table::shown(parts) == word);
        let before = parts.map(|(_, parts)| old.state(&parts)).filter(|(_, pattern)| pattern.is_some());
        match before {
            Some((from, Some(pattern))) if from != state_of(to) => {
                let (grade, end) = about(from, state_of(to));
                found.add(grade, format!("states: {word:?} is new in {to}; {pattern:?} had it before{end}"));
            }
            _ => found.add(Grade::Minor, format!("states: {word:?} is new in {to}")),
        }
    }
}

/// Calls `report` for each key whose value differs.
fn leaves<'v>(
    path: &str,
    old: Option<&'v Value>,
    new: Option<&'v Value>,
    report: &mut impl FnMut(&str, Option<&'v Value>, Option<&'v Value>),
) {
    match (old, new) {
        (Some(Value::Table(one)), Some(Value::Table(other))) => {
            let added = other.keys().filter(|key| !one.contains_key(*key));
            for key in one.keys().chain(added) {
                leaves(&join(path, key), one.get(key), other.get(key), report);
            }
        }
        (old, new) if old != new => report(path, old, new),
        _ => {}
    }
}

fn changed(path: &str, old: Option<&Value>, new: Option<&Value>) -> String {
    match (old, new) {
        (None, Some(new)) => format!("{path}: {} is new", shown(new)),
        (Some(old), None) => format!("{path}: {} goes", shown(old)),
        (Some(old), Some(new)) => format!("{path}: {} becomes {}", shown(old), shown(new)),
        (None, None) => path.to_owned(),
    }
}

/// On one line.
fn shown(value: &Value) -> String {
    value.to_string().split_whitespace().collect::<Vec<_>>().join(" ")
}

fn rules(section: &str, old: Option<&Value>, new: Option<&Value>, found: &mut Differences) {
    let list = |value: Option<&Value>| value.and_then(Value::as_array).cloned().unwrap_or_default();
    let (old, new) = (list(old), list(new));
    for (place, rule) in old.iter().enumerate().filter(|(_, rule)| !new.contains(rule)) {
        found.add(Grade::Minor, format!("{section}[{place}]: {} goes", shown(rule)));
    }
    for (place, rule) in new.iter().enumerate().filter(|(_, rule)| !old.contains(rule)) {
        found.add(Grade::Minor, format!("{section}[{place}]: {} is new", shown(rule)));
    }
    let (mut kept, mut still) = (old.clone(), new.clone());
    kept.retain(|rule| new.contains(rule));
    still.retain(|rule| old.contains(rule));
    if kept != still {
        found.add(Grade::Minor, format!("{section}: in another order"));
    }
}

/// What the later version has to be, where it is less.
fn version_problem(old: &str, new: &str, grade: Option<Grade>) -> Option<String> {
    let Some(before) = numbers(old) else {
        return Some(format!("version {old:?} has not the form 1.0.0"));
    };
    let Some(found) = numbers(new) else { return Some(format!("version {new:?} has not the form 1.0.0")) };
    let [major, minor, patch] = before;
    let [x, y, z] = match grade {
        None => before,
        Some(Grade::Patch) => [major, minor, patch.saturating_add(1)],
        Some(Grade::Minor) => [major, minor.saturating_add(1), 0],
        Some(Grade::Major) => [major.saturating_add(1), 0, 0],
    };
    if found < before {
        return Some(format!("version goes down from {old} to {new}; write {x}.{y}.{z}"));
    }
    (found < [x, y, z]).then(|| format!("version is {new}; write {x}.{y}.{z}"))
}

/// The numbers of a version such as 1.0.0, without leading zeros.
pub(super) fn numbers(version: &str) -> Option<[u64; 3]> {
    let number = |part: &str| {
        let is_plain =
            part.bytes().all(|byte| byte.is_ascii_digit()) && (part == "0" || !part.starts_with('0'));
        part.parse().ok().filter(|_| is_plain)
    };
    let numbers: Option<Vec<u64>> = version.split('.').map(number).collect();
    numbers?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = r#"
format = 1
name = "exports"
version = "1.2.0"
title = "Exports"
docs = "https://api.example/docs"
[params]
region = { type = "text", default = "eu" }
[id]
pattern = "{export_id}"
[credentials.bearer]
[request]
path = "/v1/exports/{{ id.export_id }}"
headers = { X-Region = "{{ params.region }}" }
[status]
id = "job.id"
word = "job.phase"
[states]
PENDING = ["waiting"]
RUNNING = ["working", "stopped"]
SUCCEEDED = ["done"]
FAILED = ["broken"]
[[faults]]
status = 404
is = "not_found"
"#;

    fn differences(changes: &[(&str, &str)]) -> Differences {
        let mut new = OLD.to_owned();
        for (from, to) in changes {
            assert!(new.contains(from), "{from}");
            new = new.replace(from, to);
        }
        let parsed = |text: &str| Definition::parse(text).unwrap_or_else(|error| panic!("{error}"));
        parsed(OLD).differences(OLD, &parsed(&new), &new)
    }

    #[test]
    fn same_definition_has_no_difference() {
        let found = differences(&[]);
        assert!(found.changes.is_empty() && found.version_problem.is_none());
    }

    #[test]
    fn word_that_moves_to_or_from_an_end_is_major() {
        for (changes, text) in [
            (
                [("\"working\", \"stopped\"", "\"working\""), ("[\"broken\"]", "[\"broken\", \"stopped\"]")],
                "states: \"stopped\" moves from RUNNING to FAILED, which is an end",
            ),
            (
                [("[\"broken\"]", "[\"failed\"]"), ("[\"waiting\"]", "[\"waiting\", \"broken\"]")],
                "states: \"broken\" moves from FAILED to PENDING, from an end",
            ),
        ] {
            let found = differences(&changes);
            assert_eq!(found.changes[0], (Grade::Major, text.to_owned()));
            assert_eq!(found.version_problem.as_deref(), Some("version is 1.2.0; write 2.0.0"));
        }
    }

    #[test]
    fn new_and_removed_words_are_named() {
        let found = differences(&[("[\"waiting\"]", "[\"queued\"]"), ("1.2.0", "1.3.0")]);
        let texts = [
            (Grade::Minor, "states: \"waiting\" goes from PENDING".to_owned()),
            (Grade::Minor, "states: \"queued\" is new in PENDING".to_owned()),
        ];
        assert_eq!(found.changes, texts);
        assert_eq!(found.version_problem, None);
        let found = differences(&[("[\"broken\"]", "[\"failed\"]")]);
        assert_eq!(found.changes[0].0, Grade::Major);
        assert_eq!(found.changes[0].1, "states: \"broken\" goes from FAILED, which is an end");
    }

    #[test]
    fn word_that_another_entry_had_is_a_move() {
        let old = OLD.replace("word = \"job.phase\"", "word = [\"job.phase\", \"job.result\"]");
        let old = old
            .replace("[\"waiting\"]", "[\"waiting/*\"]")
            .replace("\"working\", \"stopped\"", "\"stopped/*\"");
        let old = old.replace("[\"done\"]", "[\"done/*\"]").replace("[\"broken\"]", "[\"broken/*\"]");
        let new = old.replace("[\"done/*\"]", "[\"done/*\", \"waiting/late\"]");
        let parsed = |text: &str| Definition::parse(text).unwrap_or_else(|error| panic!("{error}"));
        let found = parsed(&old).differences(&old, &parsed(&new), &new);
        let text =
            "states: \"waiting/late\" is new in SUCCEEDED; \"waiting/*\" had it before, which is an end";
        assert_eq!(found.changes, [(Grade::Major, text.to_owned())]);
    }

    #[test]
    fn change_that_operators_or_callers_have_to_follow_is_major() {
        for (change, grade, text) in [
            (
                ("{export_id}\"", "exports/{export_id}\""),
                Grade::Major,
                "id.pattern: \"{export_id}\" becomes \"exports/{export_id}\"",
            ),
            (("[credentials.bearer]", "[credentials.basic]"), Grade::Major, "credentials.bearer: {} goes"),
            (("\"eu\"", "\"us\""), Grade::Minor, "params.region.default: \"eu\" becomes \"us\""),
            (
                ("/v1/", "/v2/"),
                Grade::Minor,
                "request.path: \"/v1/exports/{{ id.export_id }}\" becomes \"/v2/exports/{{ id.export_id }}\"",
            ),
            (("docs =", "reopens = true\ndocs ="), Grade::Minor, "reopens: true is new"),
            (
                ("docs =", "headers = { x-api = \"2\" }\ndocs ="),
                Grade::Minor,
                "headers: { x-api = \"2\" } is new",
            ),
            (
                ("[status]", "[answer]\nlogin_page = true\n[status]"),
                Grade::Minor,
                "answer: { login_page = true } is new",
            ),
            (("= 404", "= [404, 410]"), Grade::Minor, "faults[0]: { is = \"not_found\", status = 404 } goes"),
            (("\"Exports\"", "\"Example exports\""), Grade::Patch, "title: differs"),
        ] {
            let found = differences(&[change]);
            assert_eq!(found.changes.first(), Some(&(grade, text.to_owned())));
            assert_eq!(found.grade(), Some(grade));
        }
    }

    #[test]
    fn parameter_that_has_to_be_set_is_major() {
        let used = ("params.region }}", "params.region }}{{ params.tenant }}");
        for (keys, grade) in [
            ("type = \"text\"", Grade::Major),
            ("type = \"text\", default = \"a\"", Grade::Minor),
            ("type = \"text\", optional = true", Grade::Minor),
        ] {
            let found = differences(&[("[params]", &format!("[params]\ntenant = {{ {keys} }}")), used]);
            assert_eq!(found.grade(), Some(grade), "{keys}: {:?}", found.changes);
        }
    }

    #[test]
    fn way_to_sign_in_that_takes_other_keys_is_a_major_change() {
        let graded = |old: &str, new: &str| {
            let [old, new] = [old, new].map(|way| OLD.replace("[credentials.bearer]", way));
            let parsed = |text: &str| Definition::parse(text).unwrap_or_else(|error| panic!("{error}"));
            parsed(&old).differences(&old, &parsed(&new), &new)
        };
        let oauth2 = "[credentials.oauth2]\ntoken_path = \"/t\"";
        let refreshing = format!("{oauth2}\ngrant = \"refresh_token\"");
        let elsewhere = "[credentials.oauth2]\ntoken_url = \"https://login.example/t\"";
        let (basic, by_key) = ("[credentials.basic]", "[credentials.basic]\nsecret_as = \"username\"");
        let keys = |way: &str| format!("credentials.{way}: takes other keys of a backend");
        let origin =
            "credentials.oauth2: asks for tokens at https://login.example, which backends have to allow";
        for (old, new, change) in [
            (oauth2, &*refreshing, keys("oauth2")),
            (oauth2, elsewhere, origin.to_owned()),
            (basic, by_key, keys("basic")),
        ] {
            let found = graded(old, new);
            assert_eq!(found.grade(), Some(Grade::Major), "{new}: {:?}", found.changes);
            assert!(found.changes.iter().any(|(_, text)| *text == change), "{new}: {:?}", found.changes);
        }
        let same = graded(oauth2, &format!("{oauth2}\nclient_auth = \"basic\""));
        assert_eq!(same.grade(), Some(Grade::Minor), "{:?}", same.changes);
    }

    #[test]
    fn version_that_goes_down_is_a_problem_with_and_without_changes() {
        let found = differences(&[("1.2.0", "1.1.9")]);
        assert_eq!(found.grade(), None);
        let text = "version goes down from 1.2.0 to 1.1.9; write 1.2.0";
        assert_eq!(found.version_problem.as_deref(), Some(text));
        let found = differences(&[("\"Exports\"", "\"E\""), ("1.2.0", "0.9.0")]);
        let text = "version goes down from 1.2.0 to 0.9.0; write 1.2.1";
        assert_eq!(found.version_problem.as_deref(), Some(text));
        assert_eq!(differences(&[("1.2.0", "2.0.0")]).version_problem, None);
    }

    #[test]
    fn version_has_three_numbers() {
        assert_eq!(numbers("1.20.3"), Some([1, 20, 3]));
        for version in ["one", "1", "1.0", "1.0.0.0", "1.0.x", "01.0.0", "+1.0.0", "1.0.0-rc1", "", "1..0"] {
            assert_eq!(numbers(version), None, "{version}");
            let text = OLD.replace("1.2.0", version);
            let found = Definition::parse(&text).unwrap_err().to_string();
            let problem = format!("version is {version:?}; write three numbers, such as \"1.0.0\"");
            assert!(found.contains(&problem) || version.is_empty(), "{found}");
        }
    }
}
