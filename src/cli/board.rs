//! A live board of jobs on a terminal, one row each. A row's text is a pure function of
//! the job's data; only [`Board`] writes to the terminal.

use std::io::{self, Write};

use console::{Term, truncate_str};
use jiff::Timestamp;
use tonic::Status;

use super::{
    fault,
    render::{Paint, begun, clock, join, one_line, progress, result, sign, time, word},
};
use crate::proto::v1::{JobState, JobStatus};

const SPINNER: [&str; 10] = ["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"];
const BAR: usize = 20;
const LONGEST_NAME: usize = 44;
const SHORTEST_NAME: usize = 16;

/// The data of one job.
#[derive(Debug)]
pub(super) struct Row {
    /// The job's name.
    pub(super) name: String,
    /// What the job is for; may be empty.
    pub(super) title: &'static str,
    /// When the watch started.
    pub(super) since: Timestamp,
    /// The latest status.
    pub(super) status: Option<JobStatus>,
    /// Why the status may be stale.
    pub(super) trouble: Option<String>,
    /// Why the watch failed.
    pub(super) failed: Option<Status>,
}

impl Row {
    /// A job without a status.
    pub(super) fn new(name: &str, title: &'static str, since: Timestamp) -> Self {
        Self { name: one_line(name), title, since, status: None, trouble: None, failed: None }
    }

    /// The row's text, with the name padded to `width`. With a `tick` it has a spinner
    /// and a bar; without one it is a line of a log.
    pub(super) fn line(&self, width: usize, now: Timestamp, tick: Option<usize>, paint: Paint) -> String {
        let spinner = tick.map(|tick| SPINNER[tick % SPINNER.len()]);
        let name = format!("{:width$}", shortened(&self.name, width));
        if let Some(status) = &self.failed {
            let code = format!("{:<10}", "NO STATUS");
            let why = format!("{}: {}", fault::code(status.code()), one_line(status.message()));
            return format!("{} {name}  {}  {:7}  {}", paint.red("✘"), paint.red(&code), "", paint.red(&why));
        }
        let Some(status) = &self.status else {
            let spinner = paint.dim(spinner.unwrap_or(" "));
            let detail = self.trouble.as_deref().map(|trouble| paint.yellow(trouble)).unwrap_or_default();
            return format!("{spinner} {name}  {:<10}  {}  {detail}", "", self.elapsed(None, now))
                .trim_end()
                .to_owned();
        };
        let state = status.state();
        let sign = match state {
            _ if status.terminal => sign(state),
            _ if self.trouble.is_some() => "!",
            JobState::Pending => sign(state),
            _ => spinner.unwrap_or(sign(state)),
        };
        let sign = if self.trouble.is_some() { paint.yellow(sign) } else { paint.state(state, sign) };
        let word = paint.state(state, &format!("{:<10}", word(state)));
        let detail = if status.terminal {
            self.ended_text(status, paint)
        } else {
            self.running_text(status, tick.is_some(), paint)
        };
        format!("{sign} {name}  {word}  {}  {detail}", self.elapsed(Some(status), now)).trim_end().to_owned()
    }

    fn elapsed(&self, status: Option<&JobStatus>, now: Timestamp) -> String {
        let from = status.and_then(begun).unwrap_or(self.since);
        let to = status.filter(|status| status.terminal).map_or(now, |status| {
            time(status.end_time.as_ref()).or_else(|| time(status.observe_time.as_ref())).unwrap_or(now)
        });
        format!("{:>7}", clock(to.duration_since(from)))
    }

    fn running_text(&self, status: &JobStatus, with_bar: bool, paint: Paint) -> String {
        let fraction = status.progress.as_ref().filter(|_| with_bar).and_then(fraction);
        let bar = fraction.map(|fraction| bar(fraction, paint));
        let words = status.progress.as_ref().map(progress).unwrap_or_default();
        let error = status.error.as_ref().map(|error| one_line(&error.message)).unwrap_or_default();
        let trouble = self.trouble.as_deref().unwrap_or_default();
        let detail = join(&[&paint.yellow(trouble), &words, &paint.yellow(&error), &paint.dim(self.title)]);
        match bar {
            Some(bar) => format!("{bar}  {detail}"),
            None => detail,
        }
    }

    fn ended_text(&self, status: &JobStatus, paint: Paint) -> String {
        let error = status.error.as_ref().map(|error| one_line(&error.message)).unwrap_or_default();
        let output = status.result.as_ref().map(result).unwrap_or_default();
        let files = match status.artifacts.len() {
            0 => String::new(),
            1 => "1 file".to_owned(),
            count => format!("{count} files"),
        };
        let error = if status.state() == JobState::Failed { paint.red(&error) } else { error };
        join(&[&error, &output, &files, &paint.dim(self.title)])
    }
}

/// The width of the name column: the longest name, but at most a third of `columns`.
pub(super) fn name_width(rows: &[Row], columns: usize) -> usize {
    let longest = rows.iter().map(|row| row.name.chars().count()).max().unwrap_or_default();
    longest.min(LONGEST_NAME).min((columns / 3).max(SHORTEST_NAME))
}

/// Shortens a long name in the middle, since its two ends distinguish it best.
fn shortened(name: &str, width: usize) -> String {
    let count = name.chars().count();
    if count <= width {
        return name.to_owned();
    }
    let end = width / 3;
    let head: String = name.chars().take((width - end).saturating_sub(1)).collect();
    let tail: String = name.chars().skip(count - end).collect();
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

pub(super) fn bar(fraction: f64, paint: Paint) -> String {
    let full = (0..BAR).filter(|column| {
        let column = u32::try_from(*column).unwrap_or(u32::MAX);
        f64::from(column) + 0.5 < fraction * 20.0
    });
    let full = full.count();
    format!("{}{}", paint.cyan(&"━".repeat(full)), paint.dim(&"─".repeat(BAR - full)))
}

/// The rows that fit into `room` lines, running jobs first, and the number of the rest.
fn fitting(rows: &[Row], room: usize) -> (Vec<usize>, usize) {
    let mut chosen: Vec<_> = (0..rows.len()).collect();
    if rows.len() > room {
        let over =
            |row: &Row| row.failed.is_some() || row.status.as_ref().is_some_and(|status| status.terminal);
        chosen.sort_by_key(|at| over(&rows[*at]));
        chosen.truncate(room.saturating_sub(1));
        chosen.sort_unstable();
    }
    let rest = rows.len() - chosen.len();
    (chosen, rest)
}

/// The rows on the terminal. They stay there when the board is dropped.
///
/// The cursor rests below the rows, where a terminal may echo a ^C. Each frame is one
/// write over the previous one, so that nothing flickers.
#[derive(Debug)]
pub(super) struct Board {
    lines: Vec<String>,
    /// The number of lines drawn.
    drawn: usize,
    paint: Paint,
}

impl Board {
    /// No rows yet.
    pub(super) fn new() -> Self {
        Self { lines: Vec::new(), drawn: 0, paint: Paint::stdout() }
    }

    /// Draws a frame.
    pub(super) fn draw(&mut self, rows: &[Row], tick: usize) -> io::Result<()> {
        let (height, columns) = Term::stdout().size();
        // A row that wraps could not be overwritten.
        let columns = usize::from(columns).saturating_sub(1);
        let (width, now) = (name_width(rows, columns), Timestamp::now());
        let line = |row: &Row| row.line(width, now, Some(tick), self.paint);
        self.lines = rows.iter().map(|row| truncate_str(&line(row), columns, "…").into_owned()).collect();
        let (shown, rest) = fitting(rows, usize::from(height).saturating_sub(1));
        let mut text = self.back();
        for at in &shown {
            text = text + &self.lines[*at] + CLEAR_LINE + "\n";
        }
        if rest > 0 {
            text = text + &self.paint.dim(&format!("  … and {rest} more")) + CLEAR_LINE + "\n";
        }
        self.drawn = shown.len() + usize::from(rest > 0);
        write_out(&(text + CLEAR_BELOW))
    }

    /// Removes the rows from the terminal.
    pub(super) fn clear(mut self) {
        self.lines.clear();
    }

    /// Moves the cursor to the beginning of the first row.
    fn back(&self) -> String {
        if self.drawn == 0 { String::new() } else { format!("\x1b[{}A\r", self.drawn) }
    }
}

impl Drop for Board {
    /// Writes all rows, since a frame is limited to the terminal's height.
    fn drop(&mut self) {
        let rows: String = self.lines.iter().flat_map(|line| [line.as_str(), CLEAR_LINE, "\n"]).collect();
        // There is no way to report an error about a closed terminal.
        let _ = write_out(&(self.back() + &rows + CLEAR_BELOW));
    }
}

const CLEAR_LINE: &str = "\x1b[K";
const CLEAR_BELOW: &str = "\x1b[J";

fn write_out(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::v1::{Artifact, JobError, Progress};

    fn row(status: Option<JobStatus>) -> Row {
        Row { status, ..Row::new("claret/42", "", Timestamp::UNIX_EPOCH) }
    }

    fn line(row: &Row) -> String {
        row.line(10, Timestamp::from_second(75).unwrap(), Some(0), Paint::NONE)
    }

    fn running() -> JobStatus {
        JobStatus {
            state: JobState::Running.into(),
            progress: Some(Progress {
                completed_steps: Some(1),
                total_steps: Some(4),
                current_step: "staging".into(),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    #[test]
    fn running_job_shows_bar_steps_and_elapsed_time() {
        assert_eq!(
            line(&row(Some(running()))),
            "⠋ claret/42   RUNNING        1:15  ━━━━━───────────────  1 of 4 steps · staging"
        );
    }

    #[test]
    fn log_line_has_no_spinner_or_bar() {
        let line = row(Some(running())).line(10, Timestamp::from_second(75).unwrap(), None, Paint::NONE);
        assert_eq!(line, "▶ claret/42   RUNNING        1:15  1 of 4 steps · staging");
    }

    #[test]
    fn job_without_status_shows_spinner() {
        assert_eq!(line(&row(None)), "⠋ claret/42                  1:15");
    }

    #[test]
    fn trouble_is_shown_beside_the_latest_status() {
        let row = Row { trouble: Some("can't be polled".to_owned()), ..row(Some(running())) };
        assert_eq!(
            line(&row),
            "! claret/42   RUNNING        1:15  ━━━━━───────────────  can't be polled · 1 of 4 steps · staging"
        );
    }

    #[test]
    fn ended_job_shows_error_and_duration() {
        let status = JobStatus {
            state: JobState::Failed.into(),
            terminal: true,
            error: Some(JobError { message: "no such\ncolumn".into(), ..Default::default() }),
            artifacts: vec![Artifact::default()],
            end_time: Some(prost_types::Timestamp { seconds: 30, nanos: 0 }),
            ..Default::default()
        };
        assert_eq!(line(&row(Some(status))), "✘ claret/42   FAILED         0:30  no such column · 1 file");
    }

    #[test]
    fn failed_watch_shows_its_error() {
        let row = Row { failed: Some(Status::not_found("no such job")), ..row(None) };
        assert_eq!(line(&row), "✘ claret/42   NO STATUS            NOT_FOUND: no such job");
    }

    #[test]
    fn running_jobs_are_shown_first_on_a_short_terminal() {
        let ended = JobStatus { terminal: true, ..running() };
        let rows = [row(Some(ended.clone())), row(None), row(Some(ended)), row(Some(running()))];
        assert_eq!(fitting(&rows, 4), (vec![0, 1, 2, 3], 0));
        assert_eq!(fitting(&rows, 3), (vec![1, 3], 2));
        assert_eq!(fitting(&rows, 0), (vec![], 4));
    }

    #[test]
    fn long_name_keeps_both_ends() {
        let long = [Row::new(&format!("immuta/{}end", "x".repeat(500)), "", Timestamp::UNIX_EPOCH)];
        let name = shortened(&long[0].name, name_width(&long, 80));
        assert_eq!(name.chars().count(), 26);
        assert!(name.starts_with("immuta/x") && name.ends_with("xend"));
    }

    #[test]
    fn bar_has_constant_width_for_any_progress() {
        for percent in [-5.0, 0.0, 50.0, 100.0, 1e300, f64::NAN, f64::INFINITY] {
            let progress = Progress { percent: Some(percent), ..Default::default() };
            if let Some(fraction) = fraction(&progress) {
                assert_eq!(bar(fraction, Paint::NONE).chars().count(), BAR, "{percent}");
            }
        }
    }
}
