//! The snippets of docs/clients.md: run as they are, or parts of examples that are.

use std::{fs, path::Path, process::Output};

use jobwatch::simulators::{Plan, Simulator, Vendor};
use tokio::process::Command;

use super::{
    build_tools,
    programs::{output, run, text},
    root,
};
use crate::{harness::*, program::Program};

fn page() -> String {
    fs::read_to_string(root().join("docs/clients.md")).unwrap()
}

/// The blocks of code in one language.
fn blocks(language: &str) -> Vec<String> {
    let page = page();
    let begin = format!("\n```{language}\n");
    let found = page.split(&*begin).skip(1).map(|rest| rest.split("\n```").next().unwrap().to_owned());
    let found: Vec<_> = found.collect();
    assert!(!found.is_empty(), "there is no block in {language}");
    found
}

/// A gateway with the backend and the jobs that the page names.
struct Shown {
    program: Program,
    _simulator: Simulator,
}

impl Shown {
    async fn start() -> Self {
        let simulator = simulator(Vendor::Immuta).await;
        for id in ["42", "43"] {
            simulator.start_job(Plan { id: Some(id.to_owned()), ..Plan::default() });
        }
        let program = Program::start([Backend::of(&simulator).named("immuta-prod")], "info").await;
        Self { program, _simulator: simulator }
    }

    /// With the gateway's address in place of the page's.
    fn adapt(&self, code: &str) -> String {
        code.replace("127.0.0.1:50051", self.program.address())
    }
}

/// What the snippets of the helpers print about the two jobs and an unknown one.
fn shows_the_jobs(printed: &str, state: &str) {
    assert!(printed.starts_with(state), "{printed}");
    for line in [format!("42 {state}"), format!("43 {state}")] {
        assert!(printed.lines().any(|printed| printed == line), "{line} is not in {printed}");
    }
    assert!(printed.contains("JOB_NOT_FOUND"), "{printed}");
}

/// All snippets in Python, as one program.
pub(crate) async fn python_runs(built: &Path) {
    let gateway = Shown::start().await;
    let file = built.join("page.py");
    fs::write(&file, gateway.adapt(&blocks("python").join("\n\n"))).unwrap();
    let mut python = Command::new(root().join(".tools/python/bin/python"));
    python.arg("-B").arg(file).env("PYTHONPATH", built.join("site"));
    shows_the_jobs(&run(python).await, "JOB_STATE_SUCCEEDED");
}

/// All snippets in TypeScript, as one program.
pub(crate) async fn typescript_runs(built: &Path) {
    let gateway = Shown::start().await;
    let app = built.join("app");
    // The clients of the page are not closed.
    let code = blocks("typescript").join("\n\n") + "\nprocess.exit();\n";
    fs::write(app.join("page.ts"), gateway.adapt(&code)).unwrap();
    let mut compiler = Command::new(root().join(".tools/node/node_modules/.bin/tsc"));
    compiler.args(["--strict", "--target", "es2022", "--module", "nodenext", "--types", "node", "page.ts"]);
    compiler.current_dir(&app);
    run(compiler).await;
    let mut node = Command::new("node");
    node.arg(app.join("page.js"));
    shows_the_jobs(&run(node).await, "SUCCEEDED");
}

#[tokio::test]
async fn commands_of_the_page_show_the_job() {
    build_tools();
    let gateway = Shown::start().await;
    let programs =
        [Path::new(env!("CARGO_BIN_EXE_jobwatch")).parent().unwrap(), &root().join(".tools/python/bin")];
    let path = std::env::join_paths(programs.into_iter().chain([Path::new("/usr/bin"), Path::new("/bin")]));
    let path = path.unwrap();
    let blocks = blocks("sh");
    assert_eq!(blocks.len(), 3);
    for block in blocks {
        let mut shell = Command::new("sh");
        shell.args(["-euc", &gateway.adapt(&block)]).env("PATH", &path);
        shell.env("JOBWATCH_SERVER", format!("http://{}", gateway.program.address()));
        let Output { status, stdout, stderr } = output(shell).await;
        assert!(status.success(), "{block}: {}", text(&stderr));
        assert!(text(&stdout).contains("JOB_STATE_SUCCEEDED"), "{block}: {}", text(&stdout));
    }
}

const EXAMPLES: [(&str, &str); 5] = [
    ("cpp", "examples/cpp/client.cc"),
    ("go", "examples/go/main.go"),
    ("java", "examples/java/Client.java"),
    ("ruby", "examples/ruby/client.rb"),
    ("rust", "examples/client.rs"),
];

fn source(file: &str) -> String {
    fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

fn trimmed(code: &str) -> Vec<&str> {
    code.lines().map(str::trim).collect()
}

/// Whether the lines of `part` stand one after the other in `whole`.
fn contains(whole: &str, part: &[&str]) -> bool {
    trimmed(whole).windows(part.len()).any(|lines| lines == part)
}

#[test]
fn snippets_in_other_languages_are_parts_of_the_examples() {
    for (language, file) in EXAMPLES {
        let example = source(file);
        for block in blocks(language) {
            assert!(contains(&example, &trimmed(&block)), "{file} does not contain\n{block}");
        }
    }
    assert!(!contains("a\nb\nc", &["a", "c"]) && contains("a\n  b\nc", &["b", "c"]));
}

#[test]
fn service_config_is_the_same_in_all_places() {
    let text = source("examples/service_config.json");
    let config: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(config["methodConfig"][0]["retryPolicy"]["maxAttempts"], 5);
    assert_eq!(blocks("json"), [text.trim()]);
    let lines = trimmed(&text);
    for (language, file) in EXAMPLES.into_iter().filter(|(language, _)| *language != "rust") {
        assert!(contains(&source(file), &lines[1..lines.len() - 1]), "{file}: {language}");
    }
}

/// Lines of code of a function, without comments.
fn lines_of(code: &str, signature: &str) -> usize {
    let lines: Vec<_> = code.lines().collect();
    let indent = |line: &str| line.len() - line.trim_start().len();
    let begin = lines.iter().position(|line| line.trim_start().starts_with(signature));
    let begin = begin.unwrap_or_else(|| panic!("there is no {signature}"));
    let depth = indent(lines[begin]);
    let ends = |line: &&str| !line.trim().is_empty() && indent(line) <= depth;
    let body: Vec<_> = lines[begin + 1..].iter().take_while(|line| !ends(line)).collect();
    let last =
        lines.get(begin + 1 + body.len()).is_some_and(|line| ["}", "end", "};"].contains(&line.trim()));
    let is_code = |line: &&&str| {
        let line = line.trim();
        !line.is_empty() && !["//", "#", "\"\"\"", "/*", "*"].iter().any(|comment| line.starts_with(comment))
    };
    1 + body.iter().filter(|line| is_code(line)).count() + usize::from(last)
}

#[test]
fn table_of_lines_counts_the_examples() {
    // Language, the block's language, and the functions of a loop of one's own.
    let loops: [(&str, &str, &str, &[&str]); 5] = [
        ("Python", "python", "examples/watch.py", &["def watch("]),
        ("Go", "go", "examples/go/main.go", &["func watch(", "func resumes(", "func details("]),
        (
            "Java",
            "java",
            "examples/java/Client.java",
            &[
                "static void watch(",
                "static boolean resumes(",
                "static long requestedMillis(",
                "static <T extends com.google.protobuf.Message> T detail(",
            ],
        ),
        (
            "C++",
            "cpp",
            "examples/cpp/client.cc",
            &["grpc::Status watch(", "bool resumes(", "struct Details {", "Details details("],
        ),
        (
            "Ruby",
            "ruby",
            "examples/ruby/client.rb",
            &["def watch(", "def resumes?(", "def requested_wait(", "def detail("],
        ),
    ];
    let mut rows: Vec<_> = loops
        .iter()
        .map(|(name, language, file, functions)| {
            let code = source(file);
            let own: usize = functions.iter().map(|function| lines_of(&code, function)).sum();
            format!("| {name} | {own} | {} |", wait_lines(language))
        })
        .collect();
    for (name, language) in [("TypeScript", "typescript"), ("Rust", "rust")] {
        rows.push(format!("| {name} | in the helper | {} |", wait_lines(language)));
    }
    let page = page();
    for row in rows {
        assert!(page.contains(&row), "the page does not contain {row}");
    }
}

/// Lines that wait, in the first block of a language: without imports and output.
fn wait_lines(language: &str) -> usize {
    let block = blocks(language).remove(0);
    let is_other = |line: &str| {
        ["import ", "from ", "print(", "println!(", "console.log("]
            .iter()
            .any(|begin| line.starts_with(begin))
    };
    trimmed(&block).iter().filter(|line| !line.is_empty() && !is_other(line)).count()
}
