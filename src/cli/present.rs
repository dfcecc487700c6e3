//! Presents the updates of watched jobs in the format that fits the output.

use std::{
    io::{self, IsTerminal, Write},
    time::Duration,
};

use jiff::Timestamp;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tonic::Status;

use super::{
    board::Board,
    exit::Exit,
    fault,
    hook::{HookEnd, Hooks},
    json::{self, Data},
    render::{Paint, name},
    row::{Row, Trouble, longest_name},
};
use crate::{
    client::{Follow, Update},
    proto::v1::{Interruption, JobState, WatchJobResponse, watch_job_response::Event},
};

/// The output's format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// Every response as proto-JSON, for programs.
    Json(Data),
    /// Rows that change in place, on a terminal.
    Board,
    /// A line of text for each change, in a file, in a pipe, and on a terminal that can't
    /// move its cursor.
    Log,
    /// The name of each job when it has ended.
    Names,
    /// Nothing; the caller prints the last statuses.
    Silent,
}

/// How to present watches, and when to stop.
#[derive(Debug)]
pub(super) struct Presentation {
    pub(super) format: Format,
    /// Whether errors are objects on standard output.
    pub(super) json_errors: bool,
    /// States that end a watch with success.
    pub(super) until: Vec<JobState>,
    /// When to stop waiting.
    pub(super) timeout: Option<Duration>,
    /// What to run when a job has ended.
    pub(super) hooks: Option<Hooks>,
    /// The gateway's address, and how long to try to reconnect, for messages.
    pub(super) gateway: (String, Duration),
    /// Why the gateway is given up.
    pub(super) gave_up: Option<String>,
}

/// What is waited for, and what has come of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Watching,
    /// Every watch has ended.
    Watched,
    TimedOut,
    Interrupted,
}

impl Presentation {
    /// Without any options.
    #[cfg(feature = "demo")]
    pub(super) fn of(format: Format) -> Self {
        Self {
            format,
            json_errors: false,
            until: Vec::new(),
            timeout: None,
            hooks: None,
            gateway: (String::new(), Duration::ZERO),
            gave_up: None,
        }
    }

    /// Updates the rows until all watches and commands have ended, or for --timeout, or until Ctrl-C.
    /// Returns the worst exit code.
    pub(super) async fn run(mut self, updates: Follow, rows: &mut [Row]) -> io::Result<Exit> {
        let mut board = (self.format == Format::Board).then(Board::new);
        let shown = self.show(updates, rows, &mut board).await;
        let ended_commands = match &mut self.hooks {
            Some(hooks) => hooks.end().await,
            None => 0,
        };
        let (phase, hooks_failed) = shown?;
        if phase == Phase::TimedOut {
            note(&mut board, &timed_out(rows, ended_commands));
        }
        for row in rows.iter_mut() {
            row.has_command = false;
        }
        match board {
            // What follows includes the row of a single job.
            Some(board) if rows.len() == 1 => board.clear()?,
            Some(mut board) => board.draw(rows, 0)?,
            None => {}
        }
        if phase == Phase::Interrupted {
            return Ok(Exit::Interrupted);
        }
        let mut exit = rows.iter().map(|row| row.exit(&self.until)).max().unwrap_or(Exit::Succeeded);
        if ended_commands > 0 {
            exit = exit.max(Exit::NotTerminal);
        }
        Ok(if hooks_failed { exit.max(Exit::Failed) } else { exit })
    }

    /// Returns what ended it, and whether a command has failed.
    async fn show(
        &mut self,
        mut updates: Follow,
        rows: &mut [Row],
        board: &mut Option<Board>,
    ) -> io::Result<(Phase, bool)> {
        let mut ticks = interval(Duration::from_millis(100));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut tick = 0;
        let end = self.timeout.map(|timeout| Instant::now() + timeout);
        let interrupted = tokio::signal::ctrl_c();
        tokio::pin!(interrupted);
        let mut hooks_failed = false;
        let mut phase = Phase::Watching;
        while phase == Phase::Watching || self.hooks.as_ref().is_some_and(|hooks| !hooks.is_idle()) {
            let hook_end = async {
                match &mut self.hooks {
                    Some(hooks) => hooks.ended().await,
                    None => std::future::pending().await,
                }
            };
            let is_late = async {
                match end {
                    Some(end) => sleep_until(end).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                update = updates.next(), if phase == Phase::Watching => match update {
                    Some(update) => self.apply(update, rows, board)?,
                    None => phase = Phase::Watched,
                },
                HookEnd { at, text, is_success } = hook_end => {
                    hooks_failed |= !is_success;
                    if let Some(row) = at.and_then(|at| rows.get_mut(at)) {
                        row.has_command = false;
                    }
                    note(board, &text);
                }
                () = is_late => return Ok((Phase::TimedOut, hooks_failed)),
                Ok(()) = &mut interrupted => return Ok((Phase::Interrupted, hooks_failed)),
                _ = ticks.tick(), if board.is_some() => {
                    tick += 1;
                    if let Some(board) = board {
                        board.draw(rows, tick)?;
                    }
                }
            }
        }
        Ok((phase, hooks_failed))
    }

    fn apply(&mut self, update: Update, rows: &mut [Row], board: &mut Option<Board>) -> io::Result<()> {
        let width = longest_name(rows);
        match update {
            Update::Response(at, response) => {
                if let Format::Json(data) = self.format {
                    json::print_event(&rows[at].job, &response, data)?;
                }
                let before = headline(&rows[at]);
                apply_response(&mut rows[at], *response);
                if self.format == Format::Log && headline(&rows[at]) != before {
                    log(&rows[at], width)?;
                }
            }
            Update::Disconnected { cause, retry_in } => {
                let open = || rows.iter().filter(|row| !row.ended);
                let subject = subject(open());
                let cause = fault::cause(&cause);
                self.report_lost(&subject, &cause, retry_in);
                let trouble = lost(cause, retry_in);
                for row in rows.iter_mut().filter(|row| !row.ended) {
                    row.trouble = Some(trouble.clone());
                }
            }
            Update::Restarting { at, cause, retry_in } => {
                let cause = fault::cause(&cause);
                self.report_lost(&rows[at].name, &cause, retry_in);
                rows[at].trouble = Some(lost(cause, retry_in));
            }
            Update::Reconnected => {
                if self.notes_on_stderr() {
                    eprintln!("{}: connected again", subject(rows.iter().filter(|row| !row.ended)));
                }
                for row in rows.iter_mut() {
                    row.trouble.take_if(|trouble| trouble.is_connection);
                }
            }
            Update::GaveUp { cause } => {
                let (address, reconnect) = &self.gateway;
                let cause = fault::cause(&cause);
                let text = format!(
                    "lost the gateway at {address}: {cause}; not back within --reconnect {reconnect:?}"
                );
                if !self.json_errors {
                    note(board, &format!("{} {text}\n", Paint::stderr().red("error:")));
                }
                self.gave_up = Some(text);
            }
            Update::Ended(at, end) => {
                let row = &mut rows[at];
                (row.trouble, row.ended, row.failed) = (None, true, end.err().map(|status| *status));
                if let (Some(failed), Some(text)) = (&mut row.failed, &self.gave_up) {
                    *failed = Status::new(failed.code(), text.as_str());
                    row.is_lost = true;
                }
                self.report_end(row)?;
                if let Some(hooks) = &mut self.hooks {
                    hooks.start(at, row);
                }
            }
        }
        Ok(())
    }

    /// Whether the state of the connection goes to standard error: a board shows it itself.
    fn notes_on_stderr(&self) -> bool {
        self.format != Format::Board || !io::stderr().is_terminal()
    }

    fn report_lost(&self, subject: &str, cause: &str, retry_in: Duration) {
        if self.notes_on_stderr() {
            let retry_in = fault::seconds(retry_in);
            eprintln!("{subject}: disconnected; trying again in {retry_in} ({cause})");
        }
    }

    /// Prints what a job ended with, unless the board has it in its history.
    fn report_end(&self, row: &Row) -> io::Result<()> {
        match (&row.failed, self.format) {
            (None, Format::Names) => {
                let mut out = io::stdout().lock();
                writeln!(out, "{}", name(&row.job))?;
                out.flush()
            }
            // A board notes every end in its history, or is followed by that of its only job.
            (None, _) | (Some(_), Format::Silent | Format::Board) => Ok(()),
            (Some(_), _) if row.is_lost && !self.json_errors => Ok(()),
            (Some(status), _) => report_failure(self.json_errors, Some(row), status),
        }
    }
}

/// Text for the history of the board, or for standard error.
fn note(board: &mut Option<Board>, text: &str) {
    match board {
        Some(board) => board.note(&super::text::clean_lines(text)),
        None => eprint!("{text}"),
    }
}

fn timed_out(rows: &[Row], ended_commands: usize) -> String {
    let open = rows.iter().filter(|row| !row.ended).count();
    let jobs = format!("{open} of {} jobs have not ended", rows.len());
    let commands = match ended_commands {
        1 => "1 command of --exec had not ended and was killed".to_owned(),
        count => format!("{count} commands of --exec had not ended and were killed"),
    };
    match (open, ended_commands) {
        (_, 0) => format!("timeout: {jobs}\n"),
        (0, _) => format!("timeout: {commands}\n"),
        _ => format!("timeout: {jobs}; {commands}\n"),
    }
}

/// Reports a failed watch: as text on stderr, or as an object on stdout.
pub(super) fn report_failure(as_json: bool, row: Option<&Row>, status: &Status) -> io::Result<()> {
    if as_json {
        return json::print_failure(row.map(|row| &row.job), status);
    }
    let subject = row.map_or("watch", |row| &row.name);
    eprint!("{}", fault::render(subject, status, Paint::stderr()));
    Ok(())
}

/// The name of one job, or the number of several.
fn subject<'a>(open: impl Iterator<Item = &'a Row>) -> String {
    let open: Vec<_> = open.collect();
    match &open[..] {
        [row] => row.name.clone(),
        rows => format!("{} jobs", rows.len()),
    }
}

fn lost(cause: String, retry_in: Duration) -> Trouble {
    let retry_at = Timestamp::now().checked_add(retry_in).ok();
    Trouble { is_connection: true, cause, retry_at }
}

fn apply_response(row: &mut Row, response: WatchJobResponse) {
    match response.event {
        Some(Event::Status(status)) => {
            row.status = Some(status);
            row.trouble = None;
        }
        Some(Event::Interruption(Interruption { cause, observe_time: _, retry_time })) => {
            let cause = fault::line(&Status::from(&cause.unwrap_or_default()));
            let retry_at = super::render::time(retry_time.as_ref());
            row.trouble = Some(Trouble { is_connection: false, cause, retry_at });
        }
        // The gateway repeats an interruption that lasts, so a heartbeat means that the
        // vendor answers.
        Some(Event::Heartbeat(_)) => row.trouble = None,
        None => {}
    }
}

/// The parts of a row whose change is logged. The percentage is not one of them, nor is the
/// connection, whose loss is logged once for all jobs.
fn headline(row: &Row) -> impl PartialEq + use<> {
    let status = row.status.as_ref();
    let step =
        status.and_then(|status| status.progress.as_ref()).map(|progress| progress.current_step.clone());
    let trouble = row.trouble.as_ref().filter(|trouble| !trouble.is_connection);
    (status.map(|status| status.state), step, trouble.map(|trouble| trouble.cause.clone()))
}

fn log(row: &Row, width: usize) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{}", row.log_line(width, Timestamp::now(), Paint::stdout()))?;
    out.flush()
}
