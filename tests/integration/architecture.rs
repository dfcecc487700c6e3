//! Arrows between modules point down. Held by reading the sources.

use std::{
    fs,
    path::{Component, Path, PathBuf},
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

/// The first names of a use-tree or a path. A glob's is `*`.
fn first_names(tree: &str) -> Vec<&str> {
    let tree = tree.trim_start();
    let Some(group) = tree.strip_prefix('{') else {
        let end = tree.find(|c| !is_part_of_a_word(c) && c != '*').unwrap_or(tree.len());
        return (end > 0).then_some(&tree[..end]).into_iter().collect();
    };
    let (mut found, mut depth, mut begin) = (Vec::new(), 0, 0);
    for (at, c) in group.char_indices() {
        match c {
            ',' | '}' if depth == 0 => {
                found.extend(first_names(&group[begin..at]));
                begin = at + 1;
                if c == '}' {
                    break;
                }
            }
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
    }
    found
}

/// Each path of this source that leads to a module of the crate: its line, and the
/// module. What the root itself holds counts as one.
fn modules_used(text: &str) -> Vec<(usize, String)> {
    let text: Vec<&str> = text.lines().map(code).collect();
    let text = text.join("\n");
    // A path that climbs is taken to end at the root if it then names what lies there.
    let climbs_to = |name: &str| MODULES.iter().any(|(module, _)| *module == name);
    let mut found = Vec::new();
    for (at, root) in text.match_indices("crate::").chain(text.match_indices("super::")) {
        if text[..at].ends_with(is_part_of_a_word) {
            continue;
        }
        let line = 1 + text[..at].matches('\n').count();
        let names = first_names(&text[at + root.len()..]).into_iter();
        let names = names.filter(|name| root == "crate::" || climbs_to(name));
        found.extend(names.map(|name| (line, name.to_owned())));
    }
    found
}

/// Every module of the crate, from the bottom up, with those that it may use.
const MODULES: &[(&str, &[&str])] = &[
    ("job", &[]),
    ("adapters", &["job"]),
    ("pacing", &["adapters"]),
    ("config", &["adapters"]),
    ("transport", &["job", "adapters", "pacing", "config"]),
    ("proto", &[]),
    ("snapshot", &["job", "proto"]),
    ("poller", &["job", "adapters", "pacing", "transport", "snapshot"]),
    ("hub", &["job", "adapters", "pacing", "config", "transport", "poller"]),
    ("grpc", &["job", "adapters", "proto", "snapshot", "poller", "hub"]),
    ("server", &["config", "transport", "proto", "hub", "grpc"]),
    ("simulators", &[]),
    ("telemetry", &[]),
    ("cli", &["config", "proto", "server", "simulators", "telemetry"]),
    ("fuzzing", &["job", "adapters"]),
];

const JOBS: &[&str] = &["job.rs", "job", "pacing.rs"];
const ADAPTERS: &[&str] = &["adapters.rs", "adapters"];
const ENGINE: &[&str] = &["poller.rs", "poller", "hub.rs", "hub"];

#[test]
fn job_pacing_and_adapters_use_neither_grpc_nor_http_client() {
    for roots in [JOBS, ADAPTERS] {
        let foreign =
            ["tonic", "tonic_types", "prost", "prost_types", "reqwest", "hyper", "hyper_util", "proto"];
        assert_eq!(lines_that_name(&sources(roots), &foreign), [""; 0]);
    }
}

#[test]
fn engine_uses_neither_grpc_nor_http_client() {
    let foreign = ["tonic", "tonic_types", "prost", "prost_types", "reqwest", "hyper", "Endpoint"];
    assert_eq!(lines_that_name(&sources(ENGINE), &foreign), [""; 0]);
}

#[test]
fn module_dependencies_point_down() {
    for (at, (module, below)) in MODULES.iter().enumerate() {
        let lies_below = |used: &&str| MODULES[..at].iter().any(|(module, _)| module == used);
        assert!(below.iter().all(lies_below), "{module} may use only what lies below it");
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut against = Vec::new();
    for (path, text) in sources(&["."]) {
        let place = path.strip_prefix(&root).unwrap().components().find_map(|part| match part {
            Component::Normal(name) => Path::new(name).file_stem()?.to_str(),
            _ => None,
        });
        let module = place.unwrap();
        if matches!(module, "lib" | "main") {
            continue;
        }
        let (_, below) = MODULES.iter().find(|(name, _)| *name == module).expect(module);
        let is_against = |used: &str| used != module && !below.contains(&used);
        let found = modules_used(&text).into_iter().filter(|(_, used)| is_against(used));
        against.extend(found.map(|(line, used)| format!("{}:{line}: {module} uses {used}", path.display())));
    }
    assert_eq!(against, [""; 0]);
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
fn source_scanner_finds_imports() {
    assert!(names("use tonic::Status;", "tonic") && names("crate::job::JobRef", "crate::job"));
    assert!(
        !names("tonics", "tonic") && !names("crate::jobs", "crate::job") && !names("iron_tonic", "tonic")
    );
    assert_eq!((code("    /// tonic"), code("a // tonic")), ("", "a"));
    for (text, modules) in [
        ("use crate::hub;", "1 hub"),
        ("let hub: crate::hub::Hub = $crate::job::f();", "1 hub, 1 job"),
        (
            "// crate::hub\nuse crate::{\n    job::{JobRef, Source},\n    hub::{a::{b, c}, d}, transport::Files,\n};",
            "2 job, 2 hub, 2 transport",
        ),
        ("pub(crate) use crate::{{job, hub as it}, *};", "1 job, 1 hub, 1 *"),
        ("use super::{super::transport::File, names, poller};", "1 poller, 1 transport"),
        ("use super::*; use the_crate::hub;", ""),
    ] {
        let found: Vec<_> =
            modules_used(text).into_iter().map(|(line, module)| format!("{line} {module}")).collect();
        assert_eq!(found.join(", "), modules, "{text}");
    }
}
