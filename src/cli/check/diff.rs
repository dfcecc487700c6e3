//! `jobwatch check --diff`: what a reload would do.

use std::io::{self, Write};

use crate::{
    cli::{
        Configuration,
        exit::{Exit, Failure},
    },
    config::{BackendChange, Change, Config, Diff, InvalidConfig},
    server,
};

/// Prints what differs. The new configuration is checked as a reload would do it.
pub(super) fn run(old: &Configuration, new: &Configuration) -> Result<Exit, Failure> {
    let (old, new) = (load("OLD", old)?, load("NEW", new)?);
    for warning in new.warnings() {
        eprintln!("warning: {warning}");
    }
    let set_up = server::set_up_backends(&new);
    let failures: Vec<String> = set_up
        .into_iter()
        .filter_map(|(name, outcome)| Some(format!("backends.{name} can't be set up: {}", outcome.err()?)))
        .chain(server::check_access(&new).err().map(|error| error.to_string()))
        .collect();
    let (diff, _) = Diff::between(&old, new);
    let mut out = io::stdout().lock();
    for line in lines(&diff) {
        writeln!(out, "{line}")?;
    }
    for failure in &failures {
        eprintln!("error: {failure}; a reload would be refused");
    }
    Ok(if failures.is_empty() { Exit::Succeeded } else { Exit::Failed })
}

fn load(which: &str, configuration: &Configuration) -> Result<Config, Failure> {
    configuration.load().map_err(|InvalidConfig { mut problems }| {
        for problem in &mut problems {
            problem.subject = format!("{which}: {}", problem.subject);
        }
        InvalidConfig { problems }.into()
    })
}

/// One line for each thing that changes.
fn lines(diff: &Diff) -> Vec<String> {
    let Diff { added, removed, changed, settings, restart } = diff;
    if diff.is_empty() {
        return vec!["nothing changes".to_owned()];
    }
    let removed = removed
        .iter()
        .map(|name| format!("removed  backends.{name}: its calls and watches end with UNKNOWN_BACKEND"));
    let added = added.iter().map(|name| format!("added    backends.{name}"));
    let changed = changed.iter().map(changed_backend);
    let settings = settings.iter().map(changed_setting);
    let restart = restart.iter().map(|change| format!("restart  {change}: takes effect after a restart"));
    removed.chain(added).chain(changed).chain(settings).chain(restart).collect()
}

fn changed_backend(BackendChange { name, changes, moves }: &BackendChange) -> String {
    let changes: Vec<String> = changes.iter().map(Change::to_string).collect();
    let known = if *moves { ", and what is known of its jobs is forgotten" } else { "" };
    format!("changed  backends.{name}: {}; its watches go on{known}", changes.join(", "))
}

fn changed_setting(change: &Change) -> String {
    let ends = if change.key.starts_with("access.") {
        "; open calls of callers that may do less end with ACCESS_CHANGED"
    } else {
        ""
    };
    format!("changed  {change}{ends}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const DB: &str = "[backends.db]\nvendor = \"kinetica\"\nbase_url = \"http://127.0.0.1:9191\"\n";

    fn shown(old: &str, new: &str) -> Vec<String> {
        let [old, new] = [old, new].map(|text| Config::parse(text, []).unwrap());
        lines(&Diff::between(&old, new).0)
    }

    #[test]
    fn every_change_has_one_line() {
        assert_eq!(shown(DB, DB), ["nothing changes"]);
        let old = format!("{DB}{}", DB.replace("backends.db", "backends.old"));
        let new = format!(
            "[server]\nlisten = \"127.0.0.1:1\"\n[limits]\nbatch_size = 10\n{}poll.timeout = \"1s\"\n{}",
            DB.replace("9191", "9192"),
            DB.replace("backends.db", "backends.new")
        );
        let expected = [
            "removed  backends.old: its calls and watches end with UNKNOWN_BACKEND",
            "added    backends.new",
            "changed  backends.db: base_url http://127.0.0.1:9191/ -> http://127.0.0.1:9192/, poll.timeout 15s -> 1s, \
             poll.connect_timeout 5s -> 1s; its watches go on, and what is known of its jobs is forgotten",
            "changed  limits.batch_size 1000 -> 10",
            "restart  server.listen 127.0.0.1:50051 -> 127.0.0.1:1: takes effect after a restart",
        ];
        assert_eq!(shown(&old, &new), expected);
        let access = |backend: &str| {
            format!("{DB}[access]\npolicies = [{{ principals = [\"*\"], backends = [\"{backend}\"] }}]")
        };
        assert_eq!(
            shown(&access("a"), &access("b")),
            ["changed  access.policies[0]; open calls of callers that may do less end with ACCESS_CHANGED"]
        );
        let faster = format!("{DB}poll.min_interval = \"2s\"");
        assert_eq!(
            shown(DB, &faster),
            ["changed  backends.db: poll.min_interval 1s -> 2s; its watches go on"]
        );
    }
}
