//! What the documents say of the tests is true.

use std::{collections::HashSet, fs, path::Path};

use crate::faults::names_of_faults;

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
            assert_eq!(cells(line), 5, "{line}");
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
        let tests: Vec<_> = row[4].split(", ").map(|test| test.trim_matches('`')).collect();
        let missing: Vec<_> = tests.iter().filter(|test| !known.contains(**test)).collect();
        assert!(missing.is_empty(), "{}: there is no test {missing:?}", row[0]);
    }

    let described: HashSet<_> = rows.iter().map(|row| row[0]).collect();
    assert_eq!(described.len(), rows.len(), "a fault stands twice");
    let names: Vec<_> = names_of_faults().collect();
    assert!(text.contains(&format!("\n{} faults of an answer", names.len())), "there are {}", names.len());
    for name in names {
        assert!(described.contains(name), "{name} has no row");
    }
}
