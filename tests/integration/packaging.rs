//! What packages contain beside the program: completions and manual pages.

use std::{
    collections::BTreeSet,
    fs,
    process::{Command, Output},
};

use tempfile::TempDir;

fn jobwatch(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_jobwatch"));
    command.args(arguments).env_clear().output().unwrap()
}

fn text(output: Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The commands that `--help` lists.
fn commands() -> BTreeSet<String> {
    let help = text(jobwatch(&["--help"]));
    let (_, commands) = help.split_once("Commands:\n").unwrap();
    let lines = commands.lines().take_while(|line| !line.is_empty());
    lines
        .filter_map(|line| Some(line.strip_prefix("  ")?.split(' ').next()?.to_owned()))
        .filter(|name| !name.is_empty() && name != "help")
        .collect()
}

#[test]
fn completion_script_knows_every_command() {
    for shell in ["bash", "zsh", "fish"] {
        let script = text(jobwatch(&["completions", shell]));
        for command in commands() {
            assert!(script.contains(&command), "{shell}: {command}");
        }
        assert!(!script.contains(env!("CARGO_MANIFEST_DIR")));
    }
}

#[test]
fn completion_script_is_valid_bash() {
    let script = text(jobwatch(&["completions", "bash"]));
    let complete = "source /dev/stdin; COMP_WORDS=(jobwatch wat); COMP_CWORD=1; \
                    _jobwatch jobwatch wat jobwatch; echo \"${COMPREPLY[@]}\"";
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("jobwatch");
    fs::write(&file, script).unwrap();
    let output =
        Command::new("bash").args(["-euc", complete]).stdin(fs::File::open(&file).unwrap()).output().unwrap();
    assert_eq!(text(output).trim(), "watch");
}

#[test]
fn every_command_has_a_manual_page() {
    let directory = TempDir::new().unwrap();
    let out = directory.path().join("man1");
    text(jobwatch(&["man", "--out", out.to_str().unwrap()]));
    let page = |name: &str| {
        let text = fs::read_to_string(out.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(text.contains(".SH NAME") && text.contains(".SH SYNOPSIS"), "{name}");
        text
    };
    assert!(page("jobwatch.1").contains("Exit codes"));
    for command in commands() {
        page(&format!("jobwatch-{command}.1"));
    }
    assert!(page("jobwatch-serve.1").contains("config"));
}

#[test]
fn manual_pages_need_a_directory_that_can_be_written() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    let output = jobwatch(&["man", "--out", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr).unwrap().contains("can't be written"));
}
