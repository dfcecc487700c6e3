//! The documents' statements about the tests are true.

use std::{
    collections::{HashMap, HashSet},
    fs,
    path::Path,
    process::Command,
};

use crate::{faults::named_faults, field::named_rows};

/// Names of functions in all sources below `folder`.
fn functions(folder: &Path, into: &mut HashSet<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            functions(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(path).unwrap();
            let name = |rest: &str| rest.split(['(', '<']).next().unwrap().to_owned();
            into.extend(text.split("fn ").skip(1).map(name));
        }
    }
}

/// The cells of every row of the tables.
fn rows(text: &str) -> Vec<Vec<&str>> {
    let cells = |line: &'_ str| line.trim_matches('|').split('|').map(str::trim).count();
    let tables = text.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| fault |"));
    tables
        .map(|line| {
            assert_eq!(cells(line), 6, "{line}");
            line.trim_matches('|').split('|').map(str::trim).collect()
        })
        .collect()
}

#[test]
fn every_fault_has_a_row_and_every_row_a_test() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("docs/faults.md")).unwrap();
    let rows = rows(&text);
    assert!(text.contains(&format!(" {} faults are tried", rows.len())), "there are {}", rows.len());

    let mut known = HashSet::new();
    functions(&root.join("src"), &mut known);
    functions(&root.join("tests"), &mut known);
    for row in &rows {
        let tests: Vec<_> = row[5].split(", ").map(|test| test.trim_matches('`')).collect();
        let missing: Vec<_> = tests.iter().filter(|test| !known.contains(**test)).collect();
        assert!(missing.is_empty(), "{}: there is no test {missing:?}", row[0]);
    }

    let described: HashSet<_> = rows.iter().map(|row| row[0]).collect();
    assert_eq!(described.len(), rows.len(), "a fault stands twice");
    let by_hand: HashMap<_, _> = rows.iter().map(|row| (row[0], row[1])).collect();
    for (name, effect) in named_faults() {
        let Some(effect) = effect else { continue };
        assert_eq!(by_hand.get(name), Some(&&*format!("`{effect}`")), "{name}");
    }

    let names: Vec<_> = named_faults().map(|(name, _)| name).collect();
    assert!(text.contains(&format!("\n{} faults of a response", names.len())), "there are {}", names.len());
    for name in names {
        assert!(described.contains(name), "{name} has no row");
    }
    let tests: HashMap<_, _> = rows.iter().map(|row| (row[0], row[5])).collect();
    for (name, test) in named_rows() {
        let its_tests = tests.get(name).unwrap_or_else(|| panic!("{name} has no row"));
        assert!(its_tests.contains(&format!("`{test}`")), "the row {name} is without its test {test}");
    }
}

#[test]
fn faults_to_inject_by_hand_are_in_the_help() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("docs/faults.md")).unwrap();
    for command in ["simulate", "demo"] {
        let help = Command::new(env!("CARGO_BIN_EXE_jobwatch")).args([command, "--help"]).output().unwrap();
        let help = String::from_utf8(help.stdout).unwrap();
        let words: HashSet<_> = help.split(|part: char| !part.is_alphanumeric() && part != '_').collect();
        for row in rows(&text) {
            for name in row[1].split('`').skip(1).step_by(2) {
                assert!(words.contains(name), "{}: {command} --help is without {name}", row[0]);
            }
        }
    }
}

/// The names in backquotes of the last column of every row.
#[test]
fn every_claim_of_the_security_policy_has_tests_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut known = HashSet::new();
    functions(&root.join("src"), &mut known);
    functions(&root.join("tests"), &mut known);
    let text = fs::read_to_string(root.join("SECURITY.md")).unwrap();
    let (_, defended) = text.split_once("| claim | tests |").expect("there is a table of claims");
    let rows: Vec<_> = defended.lines().skip(2).take_while(|line| line.starts_with('|')).collect();
    assert!(rows.len() > 10, "{rows:?}");
    for row in rows {
        let (claim, tests) = row.trim_matches('|').split_once('|').unwrap();
        let mut named = tests.split('`').skip(1).step_by(2).peekable();
        assert!(named.peek().is_some(), "{claim}: it names no test");
        for test in named {
            let exists = if test.contains('/') { root.join(test).is_file() } else { known.contains(test) };
            assert!(exists, "{claim}: there is no test {test}");
        }
    }
}

#[test]
fn reasons_why_a_file_is_not_fetched_are_the_same_in_code_and_documents() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |file: &str| fs::read_to_string(root.join(file)).unwrap();
    let known: HashSet<&str> = jobwatch::vendors::FILE_DETAILS.into_iter().collect();
    let quoted = |text: &'static str| -> HashSet<&'static str> {
        text.split('`').skip(1).step_by(2).filter(|word| !word.contains(['.', ' ', ':', '"', '/'])).collect()
    };
    let readme = read("README.md").leak();
    let row = readme.lines().find(|line| line.starts_with("| `ARTIFACT_NOT_FOUND`")).unwrap();
    let (_, listed) = row.split_once("has the reason:").unwrap();
    let mut listed = quoted(listed);
    assert!(listed.remove("not_ended"));
    assert_eq!(listed, known, "README.md");

    let vendors = read("docs/vendors.md").leak();
    let (_, table) = vendors.split_once("| `detail` | why |").unwrap();
    let (table, _) = table.split_once("\n\n").unwrap();
    let first = |line: &'static str| line.split('|').nth(1).map(quoted).unwrap_or_default();
    let listed: HashSet<&str> = table.lines().flat_map(first).collect();
    assert_eq!(listed, known, "docs/vendors.md");
}
