//! Arrows between modules point down. Held by reading the sources.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Every source file that one of `roots` names: a file, or all below a folder.
fn sources(roots: &[&str]) -> Vec<(PathBuf, String)> {
    fn collect(path: PathBuf, into: &mut Vec<(PathBuf, String)>) {
        if path.is_dir() {
            for entry in fs::read_dir(path).unwrap() {
                collect(entry.unwrap().path(), into);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            into.push((path, text));
        }
    }
    let mut found = Vec::new();
    for root in roots {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(root);
        let before = found.len();
        collect(path, &mut found);
        assert!(found.len() > before, "there is no src/{root}");
    }
    found
}

/// A line's code, without what a comment says.
fn code(line: &str) -> &str {
    match line.trim_start() {
        comment if comment.starts_with("//") => "",
        _ => line.split(" // ").next().unwrap_or(line),
    }
}

fn is_part_of_a_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Whether `text` has `name` as a word, or several with `::` between them.
fn names(text: &str, name: &str) -> bool {
    text.match_indices(name).any(|(at, _)| {
        !text[..at].ends_with(is_part_of_a_word) && !text[at + name.len()..].starts_with(is_part_of_a_word)
    })
}

/// Lines of these sources that name one of `names`.
fn lines_that_name(sources: &[(PathBuf, String)], wanted: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for (path, text) in sources {
        for (number, line) in text.lines().enumerate() {
            if wanted.iter().any(|name| names(code(line), name)) {
                found.push(format!("{}:{}: {}", path.display(), number + 1, line.trim()));
            }
        }
    }
    found
}

const JOBS: &[&str] = &["job.rs", "job", "pacing.rs"];
const ADAPTERS: &[&str] = &["adapters.rs", "adapters"];
const SIMULATORS: &[&str] = &["simulators.rs", "simulators"];

#[test]
fn jobs_pacing_and_adapters_know_neither_grpc_nor_an_http_client() {
    for roots in [JOBS, ADAPTERS] {
        let foreign =
            ["tonic", "tonic_types", "prost", "prost_types", "reqwest", "hyper", "hyper_util", "proto"];
        assert_eq!(lines_that_name(&sources(roots), &foreign), [""; 0]);
    }
}

#[test]
fn the_layers_below_know_nothing_of_those_above() {
    for (roots, above) in [
        (JOBS, &["hub", "poller", "transport", "grpc", "server", "cli", "config"][..]),
        (ADAPTERS, &["hub", "poller", "pacing", "transport", "grpc", "server", "cli", "config"]),
        (&["transport.rs", "transport"], &["hub", "grpc", "server", "cli"]),
        (&["poller.rs", "poller"], &["hub", "grpc", "server", "cli", "transport"]),
        (&["hub.rs", "hub"], &["grpc", "server", "cli", "transport"]),
        (&["grpc.rs", "grpc"], &["server", "cli", "transport"]),
    ] {
        let uses = |name: &&str| [format!("crate::{name}"), format!("    {name}::")];
        for name in above.iter().flat_map(uses) {
            let found = lines_that_name(&sources(roots), &[name.as_str()]);
            // `{name}::` stands for a line in a list that begins with `crate::`.
            assert_eq!(found, [""; 0], "{roots:?} uses {name}");
        }
    }
}

#[test]
fn only_one_module_builds_a_status_with_details() {
    // The command line is a client: it reads such a status and answers nobody.
    let (status, others): (Vec<_>, Vec<_>) = sources(&["."])
        .into_iter()
        .filter(|(path, _)| !path.components().any(|part| part.as_os_str() == "cli"))
        .partition(|(path, _)| path.ends_with("grpc/status.rs"));
    let rich = ["ErrorDetails", "with_error_details", "with_details", "with_error_details_vec"];
    assert!(!lines_that_name(&status, &rich).is_empty());
    assert_eq!(lines_that_name(&others, &rich), [""; 0]);
}

#[test]
fn simulators_and_the_rest_of_the_crate_know_nothing_of_each_other() {
    let foreign = ["adapters", "job", "hub", "poller", "pacing", "transport", "grpc", "proto", "config"];
    let foreign = foreign.map(|name| format!("crate::{name}"));
    let foreign: Vec<_> = foreign.iter().map(String::as_str).collect();
    assert_eq!(lines_that_name(&sources(SIMULATORS), &foreign), [""; 0]);
    let others = [JOBS, ADAPTERS].concat();
    let rest =
        ["transport.rs", "transport", "poller.rs", "poller", "hub.rs", "hub", "grpc.rs", "grpc", "server.rs"];
    assert_eq!(lines_that_name(&sources(&[&others, &rest[..]].concat()), &["simulators"]), [""; 0]);
}

#[test]
fn the_reader_of_sources_finds_what_it_looks_for() {
    assert!(names("use tonic::Status;", "tonic") && names("crate::job::JobRef", "crate::job"));
    assert!(
        !names("tonics", "tonic") && !names("crate::jobs", "crate::job") && !names("iron_tonic", "tonic")
    );
    assert_eq!((code("    /// tonic"), code("a // tonic")), ("", "a"));
}
