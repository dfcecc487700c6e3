//! Statuses as text: pure functions of the status, the time and the colour setting.

use std::fmt::Write;

use console::Term;
use indicatif::DecimalBytes;
use jiff::{SignedDuration, Timestamp};

use super::text::{clean, columns, folded, one_line, padded};
use crate::proto::v1::{Artifact, JobRef, JobResult, JobState, JobStatus, Progress};

/// The artifact ids of a job's result and its vendor payload, see `DownloadArtifactRequest`.
pub(super) const RESULT: &str = "jobwatch:result";
pub(super) const VENDOR_PAYLOAD: &str = "jobwatch:vendor_payload";

/// Longest preview of a result, an error's details or a payload.
const PREVIEW_LINES: usize = 12;
const PREVIEW_CHARS: usize = 1000;

/// How text looks where it goes: its colours, if they are enabled, and the width it is laid out to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Paint {
    has_colours: bool,
    /// Columns of the terminal; elsewhere lines have any length.
    columns: Option<usize>,
}

impl Paint {
    /// No colours at all.
    pub(super) const NONE: Self = Self { has_colours: false, columns: None };

    pub(super) fn stdout() -> Self {
        Self::of(&Term::stdout())
    }

    pub(super) fn stderr() -> Self {
        Self::of(&Term::stderr())
    }

    fn of(terminal: &Term) -> Self {
        let is_terminal = terminal.is_term();
        let size = terminal.size_checked().filter(|_| is_terminal);
        let columns = size.map(|(_, columns)| usize::from(columns)).filter(|columns| *columns > 0);
        Self { has_colours: is_terminal && Self::allowed(), columns }
    }

    /// The same for so many columns.
    pub(super) fn within(self, columns: usize) -> Self {
        Self { columns: Some(columns), ..self }
    }

    /// Lines that fit after a margin of so many columns.
    pub(super) fn folded(self, text: &str, margin: usize) -> Vec<String> {
        folded(text, self.columns.map(|columns| columns.saturating_sub(margin)))
    }

    /// Columns of the terminal; elsewhere lines have any length.
    pub(super) fn columns(self) -> Option<usize> {
        self.columns
    }

    /// Whether the terminal may be sent more than plain lines; see <https://no-color.org>.
    pub(super) fn allowed() -> bool {
        std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
            && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
    }

    fn with(self, code: &str, text: &str) -> String {
        if self.has_colours && !text.is_empty() {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }

    pub(super) fn bold(self, text: &str) -> String {
        self.with("1", text)
    }

    pub(super) fn dim(self, text: &str) -> String {
        self.with("2", text)
    }

    pub(super) fn red(self, text: &str) -> String {
        self.with("31", text)
    }

    pub(super) fn green(self, text: &str) -> String {
        self.with("32", text)
    }

    pub(super) fn yellow(self, text: &str) -> String {
        self.with("33", text)
    }

    pub(super) fn cyan(self, text: &str) -> String {
        self.with("36", text)
    }

    /// The colour of a state.
    pub(super) fn state(self, state: JobState, text: &str) -> String {
        match state {
            JobState::Succeeded => self.green(text),
            JobState::Failed | JobState::Expired => self.red(text),
            JobState::Cancelled | JobState::Cancelling | JobState::Retrying => self.yellow(text),
            JobState::Running => self.cyan(text),
            JobState::Pending | JobState::Unspecified => self.dim(text),
        }
    }
}

/// `BACKEND/JOB_ID`, as it is written on the command line.
pub(super) fn name(job: &JobRef) -> String {
    format!("{}/{}", job.backend, job.job_id)
}

/// The state in one word.
pub(super) fn word(state: JobState) -> &'static str {
    match state {
        JobState::Unspecified => "UNKNOWN",
        state => state.as_str_name().trim_start_matches("JOB_STATE_"),
    }
}

/// The state in one word; of a state that this version does not know, the vendor's word.
pub(super) fn state_word(status: &JobStatus) -> String {
    match (status.state(), one_line(&status.vendor_state)) {
        (JobState::Unspecified, vendor_state) if !vendor_state.is_empty() => vendor_state,
        (state, _) => word(state).to_owned(),
    }
}

/// One sign for the state, one column wide.
pub(super) fn sign(state: JobState) -> &'static str {
    match state {
        JobState::Succeeded => "✔",
        JobState::Failed | JobState::Expired => "✘",
        JobState::Cancelled => "■",
        JobState::Cancelling => "□",
        JobState::Retrying => "↻",
        JobState::Running => "▶",
        JobState::Pending => "·",
        JobState::Unspecified => "?",
    }
}

/// A duration as `h:mm:ss` or `m:ss`.
pub(super) fn clock(duration: SignedDuration) -> String {
    let seconds = duration.as_secs().max(0);
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes}:{seconds:02}") }
}

/// A valid timestamp of the contract.
pub(super) fn time(timestamp: Option<&prost_types::Timestamp>) -> Option<Timestamp> {
    timestamp.and_then(|timestamp| Timestamp::new(timestamp.seconds, timestamp.nanos).ok())
}

/// When the job started or was created, if the vendor reports it.
pub(super) fn begun(status: &JobStatus) -> Option<Timestamp> {
    time(status.start_time.as_ref()).or_else(|| time(status.create_time.as_ref()))
}

/// Progress in words: "step 3 of 5", "40 %".
pub(super) fn progress(progress: &Progress) -> String {
    let steps = match (progress.completed_steps, progress.total_steps) {
        (Some(done), Some(total)) => format!("{done} of {total} steps"),
        (Some(done), None) => format!("{done} steps"),
        (None, Some(total)) => format!("of {total} steps"),
        (None, None) => String::new(),
    };
    let percent = progress.percent.map(|percent| format!("{percent:.0} %")).unwrap_or_default();
    join(&[&percent, &steps, &one_line(&progress.current_step)])
}

/// A job's result in words: "application/json, 120 bytes", "application/json, 3.20 MB left
/// out".
pub(super) fn result(result: &JobResult) -> String {
    let kind = if result.content_type.is_empty() { "bytes" } else { &result.content_type };
    if result.omitted {
        return format!("{}, {}", one_line(kind), left_out(result.size_bytes));
    }
    let count = result.data.len();
    format!("{}, {count} {}", one_line(kind), if count == 1 { "byte" } else { "bytes" })
}

/// The size of a part that the gateway omitted.
fn left_out(size_bytes: i64) -> String {
    format!("{} left out", DecimalBytes(size_bytes.max(0).unsigned_abs()))
}

/// The command that downloads an omitted part of a job.
fn download_command(job: &str, artifact_id: &str) -> String {
    format!("jobwatch download {} {artifact_id}", shell_word(job))
}

/// A word for a POSIX shell, quoted if necessary.
pub(super) fn shell_word(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/-_.:@%+=,".contains(c);
    if word.chars().all(is_plain) { word.to_owned() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

/// The parts that are not empty.
pub(super) fn join(parts: &[&str]) -> String {
    let parts: Vec<_> = parts.iter().filter(|part| !part.is_empty()).copied().collect();
    parts.join(" · ")
}

/// All parts of a status in several lines, each with a line break.
pub(super) fn details(status: &JobStatus, paint: Paint) -> String {
    let job = status.job.as_ref().map(name).unwrap_or_default();
    let state = status.state();
    let head = paint.state(state, &format!("{} {}", sign(state), state_word(status)));
    let mut block = Block { text: format!("{head}  {}", paint.bold(&one_line(&job))), paint };
    if one_line(&status.vendor_state) != state_word(status) {
        block.text += &paint.dim(&format!("  {}", one_line(&status.vendor_state)));
    }
    block.text.push('\n');

    block.row("job", &join(&[&one_line(&status.job_type), &one_line(&status.description)]));
    block.row("progress", &status.progress.as_ref().map(progress).unwrap_or_default());
    let (create, start, end) =
        (time(status.create_time.as_ref()), time(status.start_time.as_ref()), time(status.end_time.as_ref()));
    let shown = |time: Option<Timestamp>| time.map(|time| format!("{time:.0}")).unwrap_or_default();
    block.row("created", &shown(create));
    block.row("started", &shown(start));
    let took =
        end.zip(begun(status)).map(|(end, begun)| format!("after {}", clock(end.duration_since(begun))));
    block.row("ended", &join(&[&shown(end), &took.unwrap_or_default()]));
    block.row("owner", &one_line(&status.owner));
    block.row("link", &one_line(&status.vendor_url));
    if let Some(error) = &status.error {
        let message = if error.message.is_empty() { "(the vendor gives no message)" } else { &error.message };
        block.lines("error", message, |line| paint.red(line));
        block.preview("", &error.details);
        if error.details_omitted {
            let command = download_command(&job, VENDOR_PAYLOAD);
            block.row("", &format!("details: {}; {command}", left_out(error.details_size_bytes)));
        }
    }
    block.lines("warnings", &status.warnings.join("\n"), str::to_owned);
    if let Some(output) = &status.result {
        let command = output.omitted.then(|| format!("; {}", download_command(&job, RESULT)));
        block.row("result", &(result(output) + &command.unwrap_or_default()));
        if output.content_type != "avro/binary" {
            block.preview("", &output.data);
        }
    }
    let ids = || status.artifacts.iter().map(|artifact| one_line(&artifact.artifact_id));
    let width = ids().map(|id| columns(&id)).max().unwrap_or(0);
    // `jobwatch download` takes the id; Claret's contains category and name.
    for (n, (id, Artifact { artifact_id: _, category: _, file_name: _, vendor_uri })) in
        ids().zip(&status.artifacts).enumerate()
    {
        let label = if n == 0 { "files" } else { "" };
        block.row(label, &format!("{}  {}", padded(&id, width), paint.dim(&one_line(vendor_uri))));
    }
    block.preview("payload", &status.vendor_payload);
    if status.vendor_payload_omitted {
        let command = download_command(&job, VENDOR_PAYLOAD);
        block.row("payload", &format!("{}; {command}", left_out(status.vendor_payload_size_bytes)));
    }
    block.text
}

/// Where the values of a block begin.
const MARGIN: usize = 13;

/// Labelled lines below a heading.
struct Block {
    text: String,
    paint: Paint,
}

impl Block {
    fn row(&mut self, label: &str, value: &str) {
        self.painted(label, value, str::to_owned);
    }

    /// A value in as many lines as it needs, each painted.
    fn painted(&mut self, label: &str, value: &str, paint: impl Fn(&str) -> String) {
        if value.is_empty() {
            return;
        }
        for (n, line) in self.paint.folded(value, MARGIN).iter().enumerate() {
            let label = self.paint.dim(&format!("{:<9}", if n == 0 { label } else { "" }));
            writeln!(self.text, "  {label}  {}", paint(line)).expect("a String takes any text");
        }
    }

    fn lines(&mut self, label: &str, text: &str, paint: impl Fn(&str) -> String) {
        for (n, line) in text.lines().filter(|line| !line.trim().is_empty()).take(PREVIEW_LINES).enumerate() {
            self.painted(if n == 0 { label } else { "" }, &clean(line), &paint);
        }
    }

    /// The beginning of a text or JSON document, the latter laid out.
    fn preview(&mut self, label: &str, data: &[u8]) {
        let Ok(text) = std::str::from_utf8(data) else { return };
        let laid_out = serde_json::from_str::<serde_json::Value>(text)
            .ok()
            .filter(|_| text.len() <= PREVIEW_CHARS)
            .and_then(|json| serde_json::to_string_pretty(&json).ok());
        let text =
            laid_out.filter(|json| json.lines().count() <= PREVIEW_LINES).unwrap_or_else(|| text.to_owned());
        let start: String = text.chars().take(PREVIEW_CHARS).collect();
        self.lines(label, &start, str::to_owned);
        if start.len() < text.len() || text.lines().count() > PREVIEW_LINES {
            let rest = format!("… {} bytes in all; -o jsonl shows them", text.len());
            let paint = self.paint;
            self.painted("", &rest, |line| paint.dim(line));
        }
    }
}

#[cfg(test)]
mod tests;
