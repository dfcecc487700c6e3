//! The exit codes of each command, as its help text lists them. [`super::Exit`] has the numbers.

pub(super) const PROGRAM: &str = "Exit codes:
  0    all jobs have succeeded, the file is complete, or the command is done
  1    a job ended in another state
  2    wrong usage or configuration
  3    the call failed, or a command of watch --exec
  4    a job has not ended (get, batch, watch --timeout)
  130  interrupted
  141  the reader of the output has closed it";

pub(super) const GET: &str = "Exit codes:
  0    all jobs have succeeded
  1    a job ended in another state
  2    wrong usage
  3    the call failed, for at least one job
  4    a job has not ended
  130  interrupted";

pub(super) const WATCH: &str = "Exit codes:
  0    all jobs have succeeded, or have reached a state of --until
  1    a job ended in another state
  2    wrong usage
  3    a watch or a command of --exec failed, or the gateway rejects the caller
  4    a job or a command of --exec has not ended within --timeout
  130  interrupted";

pub(super) const CALL: &str = "Exit codes:
  0    done
  2    wrong usage
  3    the call failed
  130  interrupted";

pub(super) const DOWNLOAD: &str = "Exit codes:
  0    the file is complete
  2    wrong usage
  3    the download failed
  130  interrupted";

pub(super) const CLUSTER_STATUS: &str = "Exit codes:
  0    each backend has one owner, and all replicas poll or follow
  1    a replica is isolated or not connected to NATS, or the replicas disagree
  2    wrong usage
  3    an address does not answer, or its gateway has no [cluster]
  130  interrupted";

pub(super) const CHECK: &str = "Exit codes:
  0    valid; with --connect, every backend answers
  2    wrong usage or configuration
  3    with --connect, a backend does not answer";

pub(super) const VENDOR: &str = "Exit codes:
  0    done; no problem was found
  1    the definition has a problem, or a case failed or is missing
  2    wrong usage";

pub(super) const VENDOR_NEW: &str = "Exit codes:
  0    the definition is begun
  2    wrong usage: an answer, a request or a name that can't be used, or a file that is there already";

pub(super) const VENDOR_DIFF: &str = "Exit codes:
  0    done; the version says what has changed
  1    a definition has a problem, or the version has to be another
  2    wrong usage";

pub(super) const VENDOR_TRY: &str = "Exit codes:
  0    the answer is a status with a known word
  1    a fault of the vendor, such as a rejected secret or an answer that is
       too large, or an unknown word
  2    wrong usage or configuration: also an id that can't be one, a
       definition with a problem, or a built-in vendor
  3    the vendor does not answer";

pub(super) const HEALTHCHECK: &str = "Exit codes:
  0    the gateway accepts calls
  1    it does not, or can't be reached
  2    wrong usage";

pub(super) const SERVER: &str = "Exit codes:
  0    stopped by a signal
  2    wrong usage or configuration, or it can't listen
  130  ended at once by a second signal";

pub(super) const TOOL: &str = "Exit codes:
  0    done
  2    wrong usage or configuration";

#[cfg(test)]
mod tests {
    use clap::{Command, CommandFactory};

    use crate::cli::Cli;

    fn walk<'a>(command: &'a Command, path: &str, found: &mut Vec<(String, &'a Command)>) {
        for command in command.get_subcommands() {
            let path = format!("{path} {}", command.get_name());
            found.push((path.clone(), command));
            walk(command, &path, found);
        }
    }

    #[test]
    fn every_command_lists_its_exit_codes_in_both_help_texts() {
        let program = Cli::command();
        let mut commands = vec![("jobwatch".to_owned(), &program)];
        walk(&program, "jobwatch", &mut commands);
        assert!(commands.iter().any(|(path, _)| path == "jobwatch config schema"));
        for (path, command) in commands {
            let short = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(short.contains("Exit codes:\n  0    "), "{path}: {short}");
            assert!(short.contains("\n  2    wrong usage"), "{path}: {short}");
            let long = command.get_after_long_help().map_or(short, ToString::to_string);
            assert!(long.contains("Exit codes:\n  0    "), "{path}: {long}");
        }
    }
}
