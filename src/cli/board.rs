//! Jobs on a terminal, one row each: what a row says is a pure function of what
//! is known about its job, and only [`Board`] touches the terminal.

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
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

/// What is known about one job.
#[derive(Debug)]
pub(super) struct Row {
    /// The job's name.
    pub(super) name: String,
    /// What the job is for; may be empty.
    pub(super) title: &'static str,
    /// When it was first asked for.
    pub(super) since: Timestamp,
    /// What was said last.
    pub(super) status: Option<JobStatus>,
    /// Why that may be out of date.
    pub(super) trouble: Option<String>,
    /// Why there will be no status any more.
    pub(super) failed: Option<Status>,
}

impl Row {
    /// A job that nothing is known about yet.
    pub(super) fn new(name: &str, title: &'static str, since: Timestamp) -> Self {
        Self { name: one_line(name), title, since, status: None, trouble: None, failed: None }
    }

    /// The row, with its columns aligned to names of `width`.
    pub(super) fn line(&self, width: usize, now: Timestamp, tick: usize, paint: Paint) -> String {
        let name = format!("{:width$}", shortened(&self.name));
        if let Some(status) = &self.failed {
            let code = format!("{:<10}", "NO STATUS");
            let why = format!("{}: {}", fault::code(status.code()), one_line(status.message()));
            return format!("{} {name}  {}  {:7}  {}", paint.red("✘"), paint.red(&code), "", paint.red(&why));
        }
        let Some(status) = &self.status else {
            let spinner = paint.dim(SPINNER[tick % SPINNER.len()]);
            let said = self.trouble.as_deref().map(|trouble| paint.yellow(trouble)).unwrap_or_default();
            return format!("{spinner} {name}  {:<10}  {}  {said}", "", self.elapsed(None, now))
                .trim_end()
                .to_owned();
        };
        let state = status.state();
        let sign = match state {
            _ if status.terminal => sign(state),
            _ if self.trouble.is_some() => "!",
            JobState::Pending => sign(state),
            _ => SPINNER[tick % SPINNER.len()],
        };
        let sign = if self.trouble.is_some() { paint.yellow(sign) } else { paint.state(state, sign) };
        let word = paint.state(state, &format!("{:<10}", word(state)));
        let said = if status.terminal { self.ending(status, paint) } else { self.going(status, paint) };
        format!("{sign} {name}  {word}  {}  {said}", self.elapsed(Some(status), now)).trim_end().to_owned()
    }

    fn elapsed(&self, status: Option<&JobStatus>, now: Timestamp) -> String {
        let from = status.and_then(begun).unwrap_or(self.since);
        let to = status.filter(|status| status.terminal).map_or(now, |status| {
            time(status.end_time.as_ref()).or_else(|| time(status.observe_time.as_ref())).unwrap_or(now)
        });
        format!("{:>7}", clock(to.duration_since(from)))
    }

    fn going(&self, status: &JobStatus, paint: Paint) -> String {
        let bar = status.progress.as_ref().and_then(fraction).map(|fraction| bar(fraction, paint));
        let words = status.progress.as_ref().map(progress).unwrap_or_default();
        let error = status.error.as_ref().map(|error| one_line(&error.message)).unwrap_or_default();
        let trouble = self.trouble.as_deref().unwrap_or_default();
        let said = join(&[&words, &paint.yellow(&error), &paint.yellow(trouble), &paint.dim(self.title)]);
        match bar {
            Some(bar) => format!("{bar}  {said}"),
            None => said,
        }
    }

    fn ending(&self, status: &JobStatus, paint: Paint) -> String {
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

/// The columns that the rows' names need.
pub(super) fn name_width(rows: &[Row]) -> usize {
    rows.iter().map(|row| shortened(&row.name).chars().count()).max().unwrap_or_default()
}

/// The two ends of a long name, which tell names apart best.
fn shortened(name: &str) -> String {
    let count = name.chars().count();
    if count <= LONGEST_NAME {
        return name.to_owned();
    }
    let end = LONGEST_NAME / 3;
    let head: String = name.chars().take(LONGEST_NAME - end - 1).collect();
    let tail: String = name.chars().skip(count - end).collect();
    format!("{head}…{tail}")
}

/// How far a job is, 0 to 1, where the vendor says so.
fn fraction(progress: &crate::proto::v1::Progress) -> Option<f64> {
    #[allow(clippy::cast_precision_loss, reason = "a bar has 20 columns")]
    let steps = || match (progress.completed_steps, progress.total_steps) {
        (Some(done), Some(total)) if total > 0 => Some(done as f64 / total as f64),
        _ => None,
    };
    progress.percent.map(|percent| percent / 100.0).or_else(steps).filter(|fraction| fraction.is_finite())
}

fn bar(fraction: f64, paint: Paint) -> String {
    let full = (0..BAR).filter(|column| {
        let column = u32::try_from(*column).unwrap_or(u32::MAX);
        f64::from(column) + 0.5 < fraction * 20.0
    });
    let full = full.count();
    format!("{}{}", paint.cyan(&"━".repeat(full)), paint.dim(&"─".repeat(BAR - full)))
}

/// The rows on the terminal.
#[derive(Debug)]
pub(super) struct Board {
    area: MultiProgress,
    bars: Vec<ProgressBar>,
    paint: Paint,
}

impl Board {
    /// Room for so many rows, below what stands there.
    pub(super) fn new(rows: usize) -> Self {
        let area = MultiProgress::with_draw_target(ProgressDrawTarget::stdout());
        let style =
            ProgressStyle::with_template("{wide_msg}").unwrap_or_else(|_| ProgressStyle::default_bar());
        let bars = (0..rows).map(|_| area.add(ProgressBar::no_length().with_style(style.clone()))).collect();
        Self { area, bars, paint: Paint::stdout() }
    }

    /// Shows all rows as they are now.
    pub(super) fn draw(&self, rows: &[Row], tick: usize) {
        let (width, now) = (name_width(rows), Timestamp::now());
        for (bar, row) in self.bars.iter().zip(rows) {
            bar.set_message(row.line(width, now, tick, self.paint));
        }
    }

    /// Leaves the rows where they are and ends.
    pub(super) fn leave(self, rows: &[Row]) {
        self.draw(rows, 0);
        for bar in &self.bars {
            bar.abandon();
        }
    }

    /// Takes the rows away and ends.
    pub(super) fn clear(self) {
        for bar in &self.bars {
            bar.finish_and_clear();
        }
        // A terminal that can't be cleared shows the last rows, which are true.
        let _ = self.area.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::v1::{Artifact, JobError, Progress};

    fn row(status: Option<JobStatus>) -> Row {
        Row { status, ..Row::new("claret/42", "", Timestamp::UNIX_EPOCH) }
    }

    fn line(row: &Row) -> String {
        row.line(10, Timestamp::from_second(75).unwrap(), 0, Paint::NONE)
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
    fn a_running_job_shows_bar_steps_and_elapsed_time() {
        assert_eq!(
            line(&row(Some(running()))),
            "⠋ claret/42   RUNNING        1:15  ━━━━━───────────────  1 of 4 steps · staging"
        );
    }

    #[test]
    fn a_job_without_a_status_yet_shows_that_it_is_being_asked_for() {
        assert_eq!(line(&row(None)), "⠋ claret/42                  1:15");
    }

    #[test]
    fn trouble_is_shown_beside_the_last_status() {
        let row = Row { trouble: Some("can't be asked".to_owned()), ..row(Some(running())) };
        assert_eq!(
            line(&row),
            "! claret/42   RUNNING        1:15  ━━━━━───────────────  1 of 4 steps · staging · can't be asked"
        );
    }

    #[test]
    fn an_ended_job_shows_how_and_after_how_long() {
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
    fn a_job_that_cant_be_followed_says_why() {
        let row = Row { failed: Some(Status::not_found("no such job")), ..row(None) };
        assert_eq!(line(&row), "✘ claret/42   NO STATUS            NOT_FOUND: no such job");
    }

    #[test]
    fn a_long_name_keeps_both_its_ends() {
        let name = shortened(&format!("immuta/{}end", "x".repeat(500)));
        assert_eq!(name.chars().count(), LONGEST_NAME);
        assert!(name.starts_with("immuta/x") && name.ends_with("xend"));
    }

    #[test]
    fn no_progress_makes_a_bar_too_long() {
        for percent in [-5.0, 0.0, 50.0, 100.0, 1e300, f64::NAN, f64::INFINITY] {
            let progress = Progress { percent: Some(percent), ..Default::default() };
            if let Some(fraction) = fraction(&progress) {
                assert_eq!(bar(fraction, Paint::NONE).chars().count(), BAR, "{percent}");
            }
        }
    }
}
