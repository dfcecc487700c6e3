//! How a command ends.

use std::{io, process::ExitCode};

use crate::{config::InvalidConfig, proto::v1};

/// What a command found out, the better first: with several jobs, the worst
/// counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exit {
    /// The job succeeded, or there was nothing to find out.
    Succeeded,
    /// The job has not ended.
    NotTerminal,
    /// The job ended in another way.
    Unsuccessful,
    /// The call failed, so that nothing is known about the job.
    Failed,
    /// Usage or configuration is wrong.
    Misused,
    /// Nobody reads the output any more.
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

    /// What a status says about the job's end.
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

/// Why a command ends before it found anything out.
#[derive(Debug)]
pub(super) enum Failure {
    /// The command can't mean this.
    Usage(String),
    /// The configuration can't be used.
    Config(InvalidConfig),
    /// The gateway can't be reached.
    Connect(String),
    /// The gateway can't be reached, which was said already.
    Told,
    /// The output can't be written.
    Output(io::Error),
}

impl Failure {
    /// Says so on stderr, where there is something to say.
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
            Self::Connect(message) => {
                eprintln!("error: {message}");
                Exit::Failed
            }
            Self::Told => Exit::Failed,
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
    fn a_jobs_end_is_the_exit_code() {
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
    fn of_several_jobs_the_worst_wins() {
        let by_badness = [Exit::Succeeded, Exit::NotTerminal, Exit::Unsuccessful, Exit::Failed];
        assert!(by_badness.is_sorted());
        assert_eq!(by_badness.map(Exit::code), [0, 4, 1, 3]);
    }
}
