//! Dependencies between modules point in one direction. The tests read the sources.

use std::{
    collections::HashSet,
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

/// A line's code without its comment.
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
/// module. An item of the crate's root counts as a module.
fn modules_used(text: &str) -> Vec<(usize, String)> {
    let text: Vec<&str> = text.lines().map(code).collect();
    let text = text.join("\n");
    // A path with `super::` counts as one from the root if it names a module of the table.
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

/// Every module of the crate, lowest first, with the modules that it may use.
const MODULES: &[(&str, &[&str])] = &[
    ("job", &[]),
    ("telemetry", &[]),
    ("vendors", &["job"]),
    ("config", &["telemetry", "vendors"]),
    ("transport", &["job", "telemetry", "vendors", "config"]),
    ("access", &["config", "transport"]),
    ("proto", &[]),
    ("snapshot", &["job", "proto"]),
    // Of the vendors only `FileFault` and `RefusedLocation`, see below.
    ("engine", &["job", "telemetry", "vendors", "transport", "snapshot"]),
    ("cluster", &["job", "config", "transport", "proto", "snapshot", "engine", "vendors"]),
    ("admin", &["job", "telemetry", "transport", "engine", "cluster", "proto"]),
    ("api", &["access", "job", "telemetry", "engine", "cluster", "proto", "snapshot"]),
    ("server", &["access", "admin", "cluster", "config", "telemetry", "transport", "engine", "proto", "api"]),
    ("simulators", &[]),
    ("client", &["proto"]),
    (
        "cli",
        &["access", "client", "cluster", "config", "proto", "server", "simulators", "telemetry", "vendors"],
    ),
    ("fuzzing", &["job", "vendors", "transport", "cluster"]),
];

#[test]
fn job_and_vendors_use_neither_grpc_nor_an_http_client() {
    let foreign = ["tonic", "tonic_types", "prost", "prost_types", "reqwest", "hyper", "hyper_util", "proto"];
    for module in ["job", "vendors"] {
        assert_eq!(lines_that_name(&sources_of(module), &foreign), [""; 0]);
    }
}

#[test]
fn engine_uses_neither_grpc_nor_an_http_client_nor_a_configuration_file() {
    let foreign = [
        "tonic",
        "tonic_types",
        "prost",
        "prost_types",
        "reqwest",
        "hyper",
        "toml",
        "Endpoint",
        "opentelemetry",
        "opentelemetry_sdk",
        "opentelemetry_proto",
    ];
    assert_eq!(lines_that_name(&sources_of("engine"), &foreign), [""; 0]);
}

#[test]
fn opentelemetry_stays_in_the_traces_of_the_telemetry() {
    let foreign = ["opentelemetry", "opentelemetry_sdk", "opentelemetry_proto"];
    let sources = sources(&[""]);
    let others: Vec<_> = sources
        .into_iter()
        .filter(|(path, _)| !path.to_string_lossy().contains("telemetry/traces"))
        .collect();
    assert_eq!(lines_that_name(&others, &foreign), [""; 0]);
}

#[test]
fn client_of_nats_stays_in_its_module() {
    let sources = sources(&[""]);
    let (nats, others): (Vec<_>, Vec<_>) =
        sources.into_iter().partition(|(path, _)| path.to_string_lossy().contains("cluster/nats"));
    assert!(!lines_that_name(&nats, &["async_nats"]).is_empty());
    let mut named = lines_that_name(&others, &["async_nats"]);
    // The filter of the log has its name, too.
    named.retain(|line| !line.contains("\"async_nats\""));
    assert_eq!(named, [""; 0]);
}

#[test]
fn engine_uses_only_the_file_faults_of_the_vendors() {
    let engine: Vec<_> =
        sources_of("engine").into_iter().filter(|(path, _)| !path.components().any(is_tests)).collect();
    let uses: Vec<_> = engine.iter().filter(|(_, text)| text.contains("vendors::")).collect();
    let [(path, text)] = &uses[..] else { panic!("{uses:?}") };
    assert!(path.ends_with("engine/download.rs"), "{}", path.display());
    assert_eq!(text.matches("vendors::").count(), 1);
    assert!(text.contains("vendors::{FileFault, RefusedLocation}"));
}

fn is_tests(part: Component<'_>) -> bool {
    part.as_os_str() == "tests" || part.as_os_str() == "tests.rs"
}

#[test]
fn module_uses_only_modules_below_it() {
    for (at, (module, below)) in MODULES.iter().enumerate() {
        let is_below = |used: &&str| MODULES[..at].iter().any(|(module, _)| module == used);
        assert!(below.iter().all(is_below), "{module} may use only modules below it");
    }
    for module in modules_of_the_crate() {
        assert!(MODULES.iter().any(|(name, _)| *name == module), "{module} is not in the table");
    }
    let mut violations = Vec::new();
    for (module, below) in MODULES {
        let mut used_modules = HashSet::new();
        for (path, text) in sources_of(module) {
            for (line, used) in modules_used(&text) {
                if used != *module && !below.contains(&&*used) {
                    violations.push(format!("{}:{line}: {module} uses {used}", path.display()));
                }
                used_modules.insert(used);
            }
        }
        let unused = below.iter().filter(|used| !used_modules.contains(**used));
        violations
            .extend(unused.map(|used| format!("{module} does not use {used}; remove it from the table")));
    }
    assert_eq!(violations, [""; 0]);
}

/// The sources of one module: its file and its folder.
fn sources_of(module: &str) -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let paths = [format!("{module}.rs"), module.to_owned()];
    let paths: Vec<_> = paths.iter().filter(|path| root.join(path).exists()).map(String::as_str).collect();
    sources(&paths)
}

/// The modules that lie in `src/`.
fn modules_of_the_crate() -> HashSet<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let entries = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path());
    let stems = entries.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned());
    stems.filter(|stem| !matches!(&**stem, "lib" | "main")).collect()
}

/// The modules of `folder` that each of them uses.
fn uses_within(folder: &str) -> Vec<(String, Vec<String>)> {
    let stem = |path: &Path| path.file_stem().unwrap().to_str().unwrap().to_owned();
    let sources = sources(&[folder]);
    let modules: Vec<String> = sources.iter().map(|(path, _)| stem(path)).collect();
    let uses = sources.iter().map(|(path, text)| {
        let text = text.lines().map(code).collect::<Vec<_>>().join("\n");
        let found =
            text.match_indices("super::").flat_map(|(at, root)| first_names(&text[at + root.len()..]));
        let mut found: Vec<String> = found.map(str::to_owned).filter(|name| modules.contains(name)).collect();
        found.sort_unstable();
        found.dedup();
        (stem(path), found)
    });
    uses.collect()
}

/// Removes modules that use none of the others, until only circles are left.
fn circles(mut uses: Vec<(String, Vec<String>)>) -> Vec<String> {
    loop {
        let left: Vec<String> = uses.iter().map(|(module, _)| module.clone()).collect();
        let before = uses.len();
        uses.retain(|(_, used)| used.iter().any(|used| left.contains(used)));
        if uses.len() == before {
            return left;
        }
    }
}

#[test]
fn modules_of_config_and_cli_have_no_import_circle() {
    for folder in ["config", "cli"] {
        let uses = uses_within(folder);
        assert!(uses.iter().any(|(_, used)| !used.is_empty()), "{folder}: no import was found");
        assert_eq!(circles(uses), [""; 0], "{folder}");
    }
    let uses = |module: &str, used: &str| (module.to_owned(), vec![used.to_owned()]);
    let circle = vec![uses("a", "b"), uses("b", "c"), uses("c", "b"), uses("d", "e")];
    assert_eq!(circles(circle), ["a", "b", "c"]);
}

#[test]
fn only_one_module_builds_a_status_with_details() {
    // The command line is a client: it reads such a status and sends none. So do the clients
    // that read an element's error as a status.
    // A checkout may lie in a folder of any name, such as `cli`.
    let within = |path: &Path| path.strip_prefix(env!("CARGO_MANIFEST_DIR")).map(Path::to_owned);
    let (status, others): (Vec<_>, Vec<_>) = sources(&["."])
        .into_iter()
        .map(|(path, text)| (within(&path).unwrap(), text))
        .filter(|(path, _)| !path.components().any(|part| part.as_os_str() == "cli"))
        .filter(|(path, _)| !path.ends_with("proto/call_error.rs"))
        .partition(|(path, _)| {
            path.ends_with("api/status.rs") || path.to_string_lossy().contains("/api/status/")
        });
    let rich = ["ErrorDetails", "with_error_details", "with_details", "with_error_details_vec"];
    assert!(!lines_that_name(&status, &rich).is_empty());
    assert_eq!(lines_that_name(&others, &rich), [""; 0]);
}

#[test]
fn source_reader_finds_names_and_module_paths() {
    assert!(names("use tonic::Status;", "tonic") && names("crate::job::JobRef", "crate::job"));
    assert!(
        !names("tonics", "tonic") && !names("crate::jobs", "crate::job") && !names("iron_tonic", "tonic")
    );
    assert_eq!((code("    /// tonic"), code("a // tonic")), ("", "a"));
    for (text, modules) in [
        ("use crate::engine;", "1 engine"),
        ("let e: crate::engine::Engine = $crate::job::f();", "1 engine, 1 job"),
        (
            "// crate::engine\nuse crate::{\n    job::{JobRef, View},\n    engine::{a::{b, c}, d}, transport::Files,\n};",
            "2 job, 2 engine, 2 transport",
        ),
        ("pub(crate) use crate::{{job, engine as it}, *};", "1 job, 1 engine, 1 *"),
        ("use super::{super::transport::File, names, engine};", "1 engine, 1 transport"),
        ("use super::*; use the_crate::engine;", ""),
    ] {
        let found: Vec<_> =
            modules_used(text).into_iter().map(|(line, module)| format!("{line} {module}")).collect();
        assert_eq!(found.join(", "), modules, "{text}");
    }
}
