//! Exit codes and failures of commands.

use std::{io, process::ExitCode};

use crate::{config::InvalidConfig, proto::v1};

/// The result of a command, from best to worst. With several jobs, the worst counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exit {
    /// The job succeeded, or the command did.
    Succeeded,
    /// The job has not ended.
    NotTerminal,
    /// The job ended in another state.
    Unsuccessful,
    /// The call failed, so the job's state is unknown.
    Failed,
    /// Usage or configuration is wrong.
    Misused,
    /// The reader of the output closed it.
    Unread,
    /// Ctrl-C.
    Interrupted,
}

impl Exit {
    /// The process's exit code.
    pub fn code(self) -> u8 {
        match self {
            Self::Succeeded => 0,
            Self::Unsuccessful => 1,
            Self::Misused => 2,
            Self::Failed => 3,
            Self::NotTerminal => 4,
            Self::Interrupted => 130,
            // What a shell reports for SIGPIPE.
            Self::Unread => 141,
        }
    }

    /// The exit code for a job's status.
    pub(super) fn of(status: &v1::JobStatus) -> Self {
        match (status.terminal, status.state()) {
            (false, _) => Self::NotTerminal,
            (true, v1::JobState::Succeeded) => Self::Succeeded,
            (true, _) => Self::Unsuccessful,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        exit.code().into()
    }
}

/// Why a command failed before it had a result.
#[derive(Debug)]
pub(super) enum Failure {
    /// The command line is wrong, or the command can't start.
    Usage(String),
    /// The configuration can't be used.
    Config(InvalidConfig),
    /// The vendor answers with a fault.
    Fault(String),
    /// The gateway can't be reached.
    Connect(String),
    /// The gateway can't be reached, which was already reported.
    Reported,
    /// The output can't be written.
    Output(io::Error),
}

impl Failure {
    /// Prints the failure on stderr, unless it was reported.
    pub(super) fn report(self) -> Exit {
        match self {
            Self::Usage(message) => {
                eprintln!("error: {message}");
                Exit::Misused
            }
            Self::Config(invalid) => {
                for problem in invalid.problems {
                    eprintln!("error: {problem}");
                }
                Exit::Misused
            }
            Self::Fault(message) => {
                eprintln!("error: {message}");
                Exit::Unsuccessful
            }
            Self::Connect(message) => {
                eprintln!("error: {message}");
                Exit::Failed
            }
            Self::Reported => Exit::Failed,
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Unread,
            Self::Output(error) => {
                eprintln!("error: can't write the output: {error}");
                Exit::Failed
            }
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

impl From<InvalidConfig> for Failure {
    fn from(invalid: InvalidConfig) -> Self {
        Self::Config(invalid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(state: v1::JobState, terminal: bool) -> v1::JobStatus {
        v1::JobStatus { state: state.into(), terminal, ..Default::default() }
    }

    #[test]
    fn job_state_maps_to_exit_code() {
        for (state, terminal, code) in [
            (v1::JobState::Succeeded, true, 0),
            (v1::JobState::Failed, true, 1),
            (v1::JobState::Cancelled, true, 1),
            (v1::JobState::Expired, true, 1),
            (v1::JobState::Running, false, 4),
            (v1::JobState::Unspecified, false, 4),
        ] {
            assert_eq!(Exit::of(&status(state, terminal)).code(), code, "{state:?}");
        }
    }

    #[test]
    fn exit_codes_are_ordered_from_best_to_worst() {
        let by_badness = [Exit::Succeeded, Exit::NotTerminal, Exit::Unsuccessful, Exit::Failed];
        assert!(by_badness.is_sorted());
        assert_eq!(by_badness.map(Exit::code), [0, 4, 1, 3]);
    }
}
