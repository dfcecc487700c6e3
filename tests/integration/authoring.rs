//! `jobwatch vendor new` and `vendor schema`, as the author of a definition uses them.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Stdio,
};

use jobwatch::vendors::declared::{Definition, SHIPPED};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::Command,
};

use crate::harness::*;

mod hints;
mod secrets;
mod shapes;

use shapes::{PASTED, Pasted};

/// Runs the program in a folder, with a text on stdin: exit code, stdout and stderr.
async fn run(folder: &Path, args: &[&str], stdin: &str) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_jobwatch"));
    command.args(args).current_dir(folder).env_clear().kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut pipe = child.stdin.take().unwrap();
    // The program may end before it has read everything.
    let _ = guard(pipe.write_all(stdin.as_bytes())).await;
    drop(pipe);
    let output = guard(child.wait_with_output()).await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

#[tokio::test]
async fn pasted_answer_becomes_a_definition_that_is_checked_tested_and_simulated() {
    for pasted in &PASTED {
        let Pasted { name, request, id, answer, filled, guessed, state } = *pasted;
        let folder = TempDir::new().unwrap();
        let mut args = vec!["vendor", "new", name, "--request", request];
        args.extend(id.iter().flat_map(|id| ["--id", id]));
        let (code, out, err) = run(folder.path(), &args, answer).await;
        assert_eq!((code, &*err), (Some(0), ""), "{name}");
        let next = format!(
            "\nNext\n  jobwatch vendor check {name}\n  jobwatch vendor test {name}\n  jobwatch vendor try {name} --base-url https://"
        );
        assert!(out.contains(&next), "{out}");
        let file = folder.path().join(name).join("definition.toml");
        let mut text = fs::read_to_string(&file).unwrap();
        for line in guessed {
            assert!(text.contains(line), "{name}: {line}\n{text}");
        }

        let (code, out, _) = run(folder.path(), &["vendor", "check", name], "").await;
        assert_eq!(code, Some(i32::from(!filled.is_empty())), "{name}: {out}");
        for line in out.lines().filter(|_| !filled.is_empty()) {
            assert!(line.contains("states has nothing that is "), "{name}: {line}");
        }
        for (line, replacement) in filled {
            assert!(text.contains(line), "{name}: {line}\n{text}");
            text = text.replace(line, replacement);
        }
        fs::write(&file, &text).unwrap();
        let (code, out, err) = run(folder.path(), &["vendor", "check", name], "").await;
        assert_eq!(code, Some(0), "{name}: {out}{err}");

        // Words that were filled in have no case yet; nothing else is missing.
        let (_, out, err) = run(folder.path(), &["vendor", "test", name], "").await;
        let cases = folder.path().join(name).join("cases.toml");
        let mut text = fs::read_to_string(&cases).unwrap();
        let to_fill_in = "fill in: a case, or why there is none";
        let is_named = out.contains(&format!("is still to be filled in: {to_fill_in:?}"));
        assert_eq!(is_named, text.contains(to_fill_in), "{name}: {out}\n{text}");
        text = text.replace(to_fill_in, "no answer yet");
        let missing: Vec<&str> = out
            .lines()
            .filter_map(|line| line.split_once("no case covers ")?.1.split_once(';'))
            .map(|(word, _)| word)
            .collect();
        assert!(missing.len() <= filled.len(), "{name}: {out}{err}");
        if !missing.is_empty() && !text.contains("[untested]") {
            text.push_str("[untested]\n");
        }
        for word in missing {
            writeln!(text, "{word:?} = \"no answer yet\"").unwrap();
        }
        fs::write(&cases, &text).unwrap();
        let (code, out, err) = run(folder.path(), &["vendor", "test", name], "").await;
        assert_eq!(code, Some(0), "{name}: {out}{err}\n{text}");
        assert!(text.contains(&format!("= {state:?}")), "{name}: {text}");
        assert!(!text.contains("corp.example"), "{text}");
        simulated(folder.path(), name).await;
    }
}

#[tokio::test]
async fn tutorial_begins_with_an_answer_and_ends_with_a_tested_definition() {
    let tutorial = fs::read_to_string(repository().join("docs/vendors.md")).unwrap();
    let (_, tutorial) = tutorial.split_once("\n## Tutorial").unwrap();
    let (tutorial, _) = tutorial.split_once("\n## ").unwrap();
    let unindented = |text: &str| {
        text.lines().map(|line| line.strip_prefix("   ").unwrap_or(line)).collect::<Vec<_>>().join("\n")
    };
    let blocks: Vec<String> = tutorial
        .split("```toml\n")
        .skip(1)
        .map(|rest| unindented(rest.split("```").next().unwrap()))
        .collect();
    let [begun, filled, cases] = &blocks[..] else { panic!("{blocks:#?}") };
    let answer = tutorial.lines().find_map(|line| line.strip_prefix('`')?.split('`').next()).unwrap();
    let command = unindented(tutorial)
        .lines()
        .find_map(|line| Some(line.strip_prefix("$ jobwatch ")?.to_owned()))
        .unwrap();
    let (before, request) = command.split_once('"').unwrap();
    let (request, _) = request.split_once('"').unwrap();

    let folder = TempDir::new().unwrap();
    let args: Vec<&str> = before.split_whitespace().chain([request]).collect();
    let (code, out, err) = run(folder.path(), &args, answer).await;
    assert_eq!((code, &*err), (Some(0), ""));
    for line in unindented(tutorial)
        .lines()
        .skip_while(|line| !line.starts_with("exports/definition"))
        .take_while(|line| !line.starts_with("```"))
    {
        assert!(line.trim() == ".." || out.contains(line), "{line}\n{out}");
    }
    let file = folder.path().join("exports/definition.toml");
    let mut text = fs::read_to_string(&file).unwrap();
    for part in begun.trim().split("\n\n") {
        assert!(text.contains(part), "{part}\n{text}");
    }
    // What is filled in replaces the section of its name.
    for part in filled.trim().split("\n\n") {
        let section = part[..part.find(['.', ']']).unwrap()].to_owned();
        let mut sections: Vec<String> = text.split("\n\n").map(str::to_owned).collect();
        match sections.iter().position(|text| text.starts_with(&section)) {
            Some(place) => part.clone_into(&mut sections[place]),
            None => sections.push(part.to_owned()),
        }
        text = sections.join("\n\n");
    }
    fs::write(&file, &text).unwrap();
    let (code, out, _) = run(folder.path(), &["vendor", "check", "exports"], "").await;
    assert_eq!(code, Some(0), "{out}\n{text}");
    let file = folder.path().join("exports/cases.toml");
    let text = fs::read_to_string(&file).unwrap();
    let (kept, _) = text.split_once("\n[untested]").unwrap();
    fs::write(&file, format!("{kept}\n{cases}")).unwrap();
    let (code, out, err) = run(folder.path(), &["vendor", "test", "exports"], "").await;
    assert_eq!(code, Some(0), "{out}{err}");
    assert!(out.contains("exports 0.1.0: 4 of 4 cases passed"), "{out}");
}

/// Simulates the vendor, and polls a job of it to an end.
async fn simulated(folder: &Path, name: &str) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_jobwatch"));
    command.args(["simulate", name, "--queued-for", "0", "--running-for", "0"]).current_dir(folder);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let url = guard(lines.next_line()).await.unwrap().expect("its URL is the first line");
    let cases = fs::read_to_string(folder.join(name).join("cases.toml")).unwrap();
    let cases: toml::Table = toml::from_str(&cases).unwrap();
    let job = cases["case"][0]["ids"][0].as_str().unwrap().to_owned();
    let params = cases.get("params").and_then(toml::Value::as_table).cloned().unwrap_or_default();
    let params: Vec<String> = params.iter().map(|(name, value)| format!("--param={name}={value}")).collect();
    let mut command = Command::new(env!("CARGO_BIN_EXE_jobwatch"));
    command
        .args(["vendor", "try", name, "--base-url", &url, "--job", &job])
        .args(&params)
        .current_dir(folder);
    command.args(["--credential", "bearer=env:SECRET"]).env("SECRET", "simulated-secret");
    let output = guard(command.output()).await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.contains("The answer is read as a status."),
        "{name}: {text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[tokio::test]
async fn start_that_can_not_be_used_is_refused_and_nothing_is_written() {
    let folder = TempDir::new().unwrap();
    let good = r#"{"id": 7, "status": "done"}"#;
    for (args, answer, expected) in [
        (&["x"][..], "<html><body>Sign in</body></html>", "error: --answer is a page in HTML, not JSON"),
        (
            &["x"],
            "HTTP/1.1 404 Not Found\n\n{}",
            "error: --answer is HTTP 404, which is about no job; paste the answer about a job that exists",
        ),
        (&["x"], "", "error: --answer is empty; paste what the API answers about a job, in JSON"),
        (
            &["x"],
            "{\"id\": 7",
            "error: --answer is JSON that ends too early, at line 1, column 8; paste all of it",
        ),
        (&["x"], r#"{"id": 7}"#, "error: --answer has no member that looks like a state"),
        (&["x"], r#"{"status": "done"}"#, "error: --id is missing: neither the request nor a member"),
        (&["Data Bricks"], good, "error: NAME is \"Data Bricks\"; write 1 to 63 of a-z, 0-9 and '-'"),
        (&["dbt-cloud"], good, "error: NAME is dbt-cloud, which jobwatch has already"),
        (&["x", "--request", "DELETE https://a.example/7"], good, "error: --request has the method DELETE"),
        (
            &["x", "--request", "https://a.example/8", "--id", "7"],
            good,
            "error: --request does not have the id \"7\"",
        ),
        (
            &["x", "--answer", "missing.json"],
            good,
            "error: --answer missing.json can't be read: No such file",
        ),
        (
            &["x", "--word", "job.no"],
            good,
            "error: --word job.no is no text, number or flag of the job; write one of job.id, job.status",
        ),
    ] {
        let args = [&["vendor", "new"], args].concat();
        let (code, out, err) = run(folder.path(), &args, answer).await;
        assert_eq!((code, &*out), (Some(2), ""), "{args:?}: {err}");
        assert!(err.contains(expected), "{args:?}: {err}");
    }
    let long = format!("{{\"id\": 7, \"status\": \"done\", \"log\": \"{}\"}}", "x".repeat(600 << 10));
    let (code, _, err) = run(folder.path(), &["vendor", "new", "x"], &long).await;
    assert_eq!(code, Some(2));
    assert!(err.contains("error: --answer is longer than 512 KiB; shorten its lists and texts"), "{err}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn file_that_is_there_is_never_overwritten() {
    let folder = TempDir::new().unwrap();
    let good = r#"{"id": 7, "status": "done"}"#;
    let out = folder.path().join("vendors");
    fs::create_dir_all(out.join("mine")).unwrap();
    fs::write(out.join("mine/cases.toml"), "mine").unwrap();
    let args = ["vendor", "new", "mine", "--out", "vendors"];
    let (code, _, err) = run(folder.path(), &args, good).await;
    assert_eq!(code, Some(2));
    assert!(
        err.contains(
            "error: vendors/mine/cases.toml is there already; write another NAME or --out, or remove it"
        ),
        "{err}"
    );
    assert_eq!(fs::read_to_string(out.join("mine/cases.toml")).unwrap(), "mine");
    assert!(!out.join("mine/definition.toml").exists());

    fs::remove_file(out.join("mine/cases.toml")).unwrap();
    fs::write(folder.path().join("answer.json"), good).unwrap();
    fs::write(out.join("definition.schema.json"), "{}").unwrap();
    let (code, _, err) = run(folder.path(), &[&args[..], &["--answer", "answer.json"]].concat(), "").await;
    assert_eq!((code, &*err), (Some(0), ""));
    let text = fs::read_to_string(out.join("mine/definition.toml")).unwrap();
    assert!(text.starts_with("#:schema ../definition.schema.json\n"), "{text}");
}

/// The schema that the program prints.
async fn schema(args: &[&str]) -> Value {
    let (code, out, err) = run(Path::new("."), &[&["vendor", "schema"], args].concat(), "").await;
    assert_eq!((code, &*err), (Some(0), ""));
    serde_json::from_str(&out).unwrap()
}

/// Validates texts with another program's reader of JSON Schema; each is valid or not.
async fn validate(schema: &Value, files: &[(String, String, bool)]) {
    let python = repository().join(".tools/python/bin/python");
    assert!(python.exists(), "{} is missing: run `make tools`", python.display());
    let files: Vec<Value> = files
        .iter()
        .map(|(name, text, valid)| json!({ "name": name, "text": text, "valid": valid }))
        .collect();
    let mut command = Command::new(python);
    command.arg("-B").arg(repository().join("tests/clients/config_schema.py"));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.kill_on_drop(true).spawn().unwrap();
    let input = json!({ "schema": schema, "files": files }).to_string();
    let mut stdin = child.stdin.take().unwrap();
    guard(stdin.write_all(input.as_bytes())).await.unwrap();
    drop(stdin);
    let output = guard(child.wait_with_output()).await.unwrap();
    let out = String::from_utf8_lossy(&output.stdout);
    assert!(out.ends_with("all good\n"), "{out}{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(out.lines().filter(|line| line.starts_with("ok ")).count(), files.len(), "{out}");
}

#[tokio::test]
async fn schema_of_definitions_accepts_the_shipped_ones_and_refuses_faulty_ones_as_the_reader_does() {
    let schema = schema(&[]).await;
    let mut files: Vec<(String, String, bool)> = SHIPPED
        .iter()
        .map(|shipped| (shipped.name.to_owned(), shipped.definition.to_owned(), true))
        .collect();
    for name in ["immuta", "datasaur"] {
        let path = repository().join(format!("src/vendors/declared/tests/{name}.toml"));
        files.push((name.to_owned(), fs::read_to_string(path).unwrap(), true));
    }
    let source = SHIPPED.iter().find(|shipped| shipped.name == "databricks").unwrap().definition;
    for (part, replacement) in [
        ("verified = true", "verified = \"yes\""),
        ("verified = true", "verify = true"),
        ("format   = 1", "format = 2"),
        ("name     = \"databricks\"", "name = \"Data Bricks\""),
        ("docs ", "#"),
        ("pattern = ", "form = "),
        ("run_id  = \"integer\"", "run_id = \"number\""),
        ("[credentials.bearer]", "[credentials.token]"),
        ("client_auth = \"basic\"", "client_auth = \"digest\""),
        ("token_path ", "# "),
        ("path  = \"/api/2.2/jobs/runs/get\"", "paths = \"/api\""),
        ("word        = [", "words = ["),
        ("unit = \"ms\" }", "unit = \"min\" }"),
        ("unit = \"ms\" }", "units = \"ms\" }"),
        ("at = \"job.start_time\", ", ""),
        ("in = [\"FAILED\", \"EXPIRED\"]", "in = [\"BROKEN\"]"),
        ("SUCCEEDED = [", "SUCEEDED = ["),
        ("EXPIRED   = [\"TERMINATED/TIMEDOUT\"]", "EXPIRED = [[[\"TERMINATED/TIMEDOUT\"]]]"),
        ("status = 400", "status = \"400\""),
        ("status = 400", "status = 99"),
        ("is     = \"not_found\"", "is = \"missing\""),
        ("is     = \"not_found\"", ""),
        ("name     = \"{{ item.task_key }}.json\"", ""),
        ("category = \"output\"", "kind = \"output\""),
        ("[request]", "[batch]\nmax = 1"),
        ("[request]", "[batch]\njobs = \"body.jobs\"\nby_id = 1"),
    ] {
        assert!(source.contains(part), "{part}");
        let text = source.replacen(part, replacement, 1);
        let name = format!("{part} -> {replacement}").replace('\n', " ");
        assert!(Definition::parse(&text).is_err(), "the reader accepts: {name}");
        files.push((name, text, false));
    }
    validate(&schema, &files).await;
}

#[tokio::test]
async fn schema_of_cases_accepts_the_shipped_ones_and_refuses_faulty_ones() {
    let schema = schema(&["--cases"]).await;
    let mut files: Vec<(String, String, bool)> =
        SHIPPED.iter().map(|shipped| (shipped.name.to_owned(), shipped.cases.to_owned(), true)).collect();
    for text in [
        "[[case]]\nids = [\"7\"]\n",
        "[[case]]\nexpect = { state = \"FAILED\" }\n",
        "[[case]]\nids = [\"7\"]\nexpect = { description = \"x\" }\n",
        "[[case]]\nids = [\"7\"]\nexpect = { state = \"BROKEN\" }\n",
        "[[case]]\nids = [\"7\"]\nexpects = { state = \"FAILED\" }\nrequest = {}\n",
        "[[case]]\nids = [\"7\"]\nstatus = 1000\nexpect = { state = \"FAILED\" }\n",
        "[untested]\nx = \"y\"\n",
        "[[case]]\nids = [7]\nrequest = {}\n",
    ] {
        files.push((text.replace('\n', " "), text.to_owned(), false));
    }
    validate(&schema, &files).await;
}

#[tokio::test]
async fn schemas_in_the_repository_are_what_the_program_prints_and_taplo_reads_them() {
    let taplo = repository().join(".tools/python/bin/taplo");
    assert!(taplo.exists(), "{} is missing: run `make tools`", taplo.display());
    let folder = TempDir::new().unwrap();
    let faulty = folder.path().join("definition.toml");
    fs::write(&faulty, SHIPPED[0].definition.replace("SUCCEEDED", "SUCEEDED")).unwrap();
    for (args, file) in [(&[][..], "definition"), (&["--cases"], "cases")] {
        let path = repository().join(format!("vendors/{file}.schema.json"));
        let printed = format!("{:#}\n", schema(args).await);
        let hint = format!("run: jobwatch vendor schema {} > vendors/{file}.schema.json", args.join(" "));
        assert!(fs::read_to_string(&path).is_ok_and(|text| text == printed), "{hint}");
        let lint = async |files: Vec<PathBuf>| {
            let mut command = Command::new(&taplo);
            command.args(["lint", "--no-auto-config", "--schema", &format!("file://{}", path.display())]);
            let output =
                guard(command.args(files).stdin(Stdio::null()).kill_on_drop(true).output()).await.unwrap();
            (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
        };
        let files =
            SHIPPED.iter().map(|shipped| repository().join(format!("vendors/{}/{file}.toml", shipped.name)));
        let (good, text) = lint(files.collect()).await;
        assert!(good, "{text}");
        let (good, text) = lint(vec![faulty.clone()]).await;
        assert!(!good && text.contains("Additional properties are not allowed"), "{text}");
    }
}
