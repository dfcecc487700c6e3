//! One job as a row: a pure function of the job's data and the time.

use console::truncate_str;
use jiff::Timestamp;
use tonic::Status;

use super::{
    exit::Exit,
    fault,
    render::{Paint, begun, clock, join, name, progress, result, sign, state_word, time},
    text::{columns, one_line, padded, wrapped},
};
use crate::proto::v1::{JobRef, JobState, JobStatus};

const SPINNER: [&str; 10] = ["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"];
const BAR: usize = 20;
/// The bar on a narrow terminal.
const SHORT_BAR: usize = 10;
const NARROW: usize = 110;
/// What stands before details in the history.
const HISTORY_MARGIN: &str = "    ";
/// Most lines of details below a row.
const DETAIL_LINES: usize = 2;
const LONGEST_NAME: usize = 44;
const SHORTEST_NAME: usize = 16;

/// Why a status may be stale.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trouble {
    /// Whether the gateway can't be reached; else it can't poll the vendor.
    pub(super) is_connection: bool,
    /// What happened.
    pub(super) cause: String,
    /// When the next attempt is due.
    pub(super) retry_at: Option<Timestamp>,
}

impl Trouble {
    /// In words, with the time left.
    fn text(&self, now: Timestamp) -> String {
        let left = self.retry_at.map(|at| at.duration_since(now)).filter(jiff::SignedDuration::is_positive);
        // Rounded up: "in 1 s" is followed by the attempt, not by "in 0 s".
        let seconds = left.map(|left| left.as_secs() + i64::from(left.subsec_nanos() > 0));
        match (self.is_connection, seconds) {
            (true, Some(seconds)) => format!("disconnected; trying again in {seconds} s"),
            (true, None) => "disconnected; trying again".to_owned(),
            (false, Some(seconds)) => format!("{} · next poll in {seconds} s", self.cause),
            (false, None) => self.cause.clone(),
        }
    }
}

/// The data of one job.
#[derive(Debug)]
pub(super) struct Row {
    /// The job.
    pub(super) job: JobRef,
    /// The job's name.
    pub(super) name: String,
    /// What the job will do, shown until it has ended; may be empty.
    pub(super) title: &'static str,
    /// When the watch started.
    pub(super) since: Timestamp,
    /// The latest status.
    pub(super) status: Option<JobStatus>,
    /// Why the status may be stale.
    pub(super) trouble: Option<Trouble>,
    /// Why the watch failed.
    pub(super) failed: Option<Status>,
    /// Whether its watch has ended.
    pub(super) ended: bool,
    /// Whether its command of --exec has not ended.
    pub(super) has_command: bool,
    /// Whether it failed with the connection, which is reported once for all jobs.
    pub(super) is_lost: bool,
}

impl Row {
    /// A job without a status.
    pub(super) fn new(job: &JobRef, title: &'static str, since: Timestamp) -> Self {
        let (status, trouble, failed) = (None, None, None);
        Self {
            job: job.clone(),
            name: one_line(&name(job)),
            title,
            since,
            status,
            trouble,
            failed,
            ended: false,
            has_command: false,
            is_lost: false,
        }
    }

    /// Whether there is nothing left to wait for.
    pub(super) fn is_done(&self) -> bool {
        self.ended && !self.has_command
    }

    /// The exit code. With `until`, reaching one of these states is a success, too.
    pub(super) fn exit(&self, until: &[JobState]) -> Exit {
        match (&self.failed, &self.status) {
            (Some(_), _) => Exit::Failed,
            (None, Some(status)) if until.contains(&status.state()) => Exit::Succeeded,
            (None, Some(status)) => Exit::of(status),
            (None, None) => Exit::NotTerminal,
        }
    }

    /// A line of a log, with the whole name padded to `width`.
    pub(super) fn log_line(&self, width: usize, now: Timestamp, paint: Paint) -> String {
        let (head, detail) =
            (self.head(&padded(&self.name, width), now, None, paint), self.detail(now, paint));
        format!("{head}  {detail}").trim_end().to_owned()
    }

    /// The end of a job for the history of a terminal of so many columns, without loss: one line,
    /// or the details below it. A name that leaves no room has a line of its own.
    pub(super) fn history_lines(&self, width: usize, now: Timestamp, paint: Paint) -> Vec<String> {
        let line = self.log_line(width, now, paint);
        let Some(room) = paint.columns() else { return vec![line] };
        if columns(&line) <= room {
            return vec![line];
        }
        let head = self.head(&padded(&self.name, width), now, None, paint);
        let detail = self.detail(now, Paint::NONE);
        let (first, rest) = if columns(head.trim_end()) <= room {
            (head.trim_end().to_owned(), detail)
        } else {
            let (sign, _) = self.around_name(now, None, paint);
            let (_, state) = self.around_name(now, None, Paint::NONE);
            (format!("{sign} {}", self.name), format!("{state}  {detail}"))
        };
        let rest = paint.folded(rest.trim_end(), HISTORY_MARGIN.len());
        let rest = rest.iter().map(|line| format!("{HISTORY_MARGIN}{}", paint.dim(line)));
        std::iter::once(first).chain(rest).collect()
    }

    /// The row on a board of so many columns: one line, and more for details that do not
    /// fit if `may_wrap`.
    pub(super) fn board_lines(&self, board: &BoardSize, now: Timestamp, paint: Paint) -> Vec<String> {
        let name = padded(&shortened(&self.name, board.name_width), board.name_width);
        let mut head = self.head(&name, now, Some(board.tick), paint);
        let fraction = self.status.as_ref().and_then(|status| status.progress.as_ref()).and_then(fraction);
        if let Some(fraction) = fraction.filter(|_| !self.ended) {
            let width = if board.columns < NARROW { SHORT_BAR } else { BAR };
            head = head + "  " + &bar(fraction, width, paint);
        }
        let detail = self.detail(now, paint);
        let line = format!("{head}  {detail}").trim_end().to_owned();
        if columns(&line) <= board.columns || !board.may_wrap {
            return vec![truncate_str(&line, board.columns, "…").into_owned()];
        }
        // Colours would have to be continued on each line.
        let detail = self.detail(now, Paint::NONE);
        let mut details = wrapped(&detail, board.columns.saturating_sub(4));
        if details.len() > DETAIL_LINES {
            details.truncate(DETAIL_LINES);
            details[DETAIL_LINES - 1].push('…');
        }
        let details = details.iter().map(|line| format!("    {}", paint.dim(line)));
        let head = truncate_str(head.trim_end(), board.columns, "…").into_owned();
        std::iter::once(head)
            .chain(details.map(|line| truncate_str(&line, board.columns, "…").into_owned()))
            .collect()
    }

    /// Sign, name, state and time.
    fn head(&self, name: &str, now: Timestamp, tick: Option<usize>, paint: Paint) -> String {
        let (sign, rest) = self.around_name(now, tick, paint);
        format!("{sign} {name}  {rest}")
    }

    /// What stands before the name, and state and time.
    fn around_name(&self, now: Timestamp, tick: Option<usize>, paint: Paint) -> (String, String) {
        let spinner = tick.map(|tick| SPINNER[tick % SPINNER.len()]);
        if self.failed.is_some() {
            let code = format!("{:<10}", "NO STATUS");
            return (paint.red("✘"), format!("{}  {:7}", paint.red(&code), ""));
        }
        let Some(status) = &self.status else {
            let spinner = paint.dim(spinner.unwrap_or(" "));
            return (spinner, format!("{:<10}  {}", "", self.elapsed(None, now)));
        };
        let state = status.state();
        let sign = match state {
            _ if status.terminal => sign(state),
            _ if self.trouble.is_some() => "!",
            JobState::Pending => sign(state),
            _ => spinner.unwrap_or(sign(state)),
        };
        let sign = if self.trouble.is_some() { paint.yellow(sign) } else { paint.state(state, sign) };
        let word = paint.state(state, &padded(&truncate_str(&state_word(status), 20, "…"), 10));
        (sign, format!("{word}  {}", self.elapsed(Some(status), now)))
    }

    fn elapsed(&self, status: Option<&JobStatus>, now: Timestamp) -> String {
        let from = status.and_then(begun).unwrap_or(self.since);
        let to = status.filter(|status| status.terminal).map_or(now, |status| {
            time(status.end_time.as_ref()).or_else(|| time(status.observe_time.as_ref())).unwrap_or(now)
        });
        format!("{:>7}", clock(to.duration_since(from)))
    }

    fn detail(&self, now: Timestamp, paint: Paint) -> String {
        let command = if self.ended && self.has_command { "--exec runs" } else { "" };
        join(&[&paint.dim(command), &self.job_detail(now, paint)])
    }

    fn job_detail(&self, now: Timestamp, paint: Paint) -> String {
        if let Some(status) = &self.failed {
            if self.is_lost {
                return paint.red("lost with the gateway");
            }
            return paint.red(&format!("{}: {}", fault::code(status.code()), one_line(status.message())));
        }
        let trouble = self.trouble.as_ref().map(|trouble| trouble.text(now)).unwrap_or_default();
        match &self.status {
            None => paint.yellow(&trouble),
            Some(status) if status.terminal => ended_text(status, paint),
            Some(status) => {
                let words = status.progress.as_ref().map(progress).unwrap_or_default();
                let error = status.error.as_ref().map(|error| one_line(&error.message)).unwrap_or_default();
                join(&[&paint.yellow(&trouble), &words, &paint.yellow(&error), &paint.dim(self.title)])
            }
        }
    }
}

fn ended_text(status: &JobStatus, paint: Paint) -> String {
    let error = status.error.as_ref().map(|error| one_line(&error.message)).unwrap_or_default();
    let output = status.result.as_ref().map(result).unwrap_or_default();
    let files = match status.artifacts.len() {
        0 => String::new(),
        1 => "1 file".to_owned(),
        count => format!("{count} files"),
    };
    let error = if status.state() == JobState::Failed { paint.red(&error) } else { error };
    join(&[&error, &output, &files])
}

/// The room of one row on a board.
#[derive(Clone, Copy, Debug)]
pub(super) struct BoardSize {
    /// Columns of the terminal.
    pub(super) columns: usize,
    /// Columns of the names.
    pub(super) name_width: usize,
    /// Counts the frames, for the spinner.
    pub(super) tick: usize,
    /// Whether details may take lines of their own.
    pub(super) may_wrap: bool,
}

/// The width of the longest name.
pub(super) fn longest_name(rows: &[Row]) -> usize {
    rows.iter().map(|row| columns(&row.name)).max().unwrap_or_default()
}

/// The width of the name column: the longest name, but at most a third of `columns`.
pub(super) fn name_width(rows: &[Row], columns: usize) -> usize {
    longest_name(rows).min(LONGEST_NAME).min((columns / 3).max(SHORTEST_NAME))
}

/// Shortens a long name in the middle, since its two ends distinguish it best.
fn shortened(name: &str, width: usize) -> String {
    if columns(name) <= width {
        return name.to_owned();
    }
    let end = width / 3;
    let head = truncate_str(name, (width - end).saturating_sub(1), "").into_owned();
    let mut tail = String::new();
    for c in name.chars().rev() {
        let longer = format!("{c}{tail}");
        if columns(&longer) > end {
            break;
        }
        tail = longer;
    }
    format!("{head}…{tail}")
}

/// The job's progress from 0 to 1, if the vendor reports it.
fn fraction(progress: &crate::proto::v1::Progress) -> Option<f64> {
    #[allow(clippy::cast_precision_loss, reason = "a bar has 20 columns")]
    let steps = || match (progress.completed_steps, progress.total_steps) {
        (Some(done), Some(total)) if total > 0 => Some(done as f64 / total as f64),
        _ => None,
    };
    progress.percent.map(|percent| percent / 100.0).or_else(steps).filter(|fraction| fraction.is_finite())
}

fn bar(fraction: f64, width: usize, paint: Paint) -> String {
    let columns = f64::from(u32::try_from(width).unwrap_or(u32::MAX));
    let is_full = |column: &usize| {
        let column = u32::try_from(*column).unwrap_or(u32::MAX);
        f64::from(column) + 0.5 < fraction * columns
    };
    let full = (0..width).filter(is_full).count();
    format!("{}{}", paint.cyan(&"━".repeat(full)), paint.dim(&"─".repeat(width - full)))
}

#[cfg(test)]
mod tests;
