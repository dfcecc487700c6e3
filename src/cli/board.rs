//! A live board of jobs on a terminal. Jobs that run have a row that changes in place;
//! a job that has ended gets its last line above them, which scrolls into the history.
//! Only [`Board`] writes to the terminal.

use std::io::{self, Write};

use console::{Term, truncate_str};
use jiff::Timestamp;

use super::{
    fault,
    render::{Paint, join},
    row::{BoardSize, Row, longest_name, name_width},
};
use crate::proto::v1::JobState;

/// How many jobs are in which state.
pub(super) fn tally(rows: &[Row], paint: Paint) -> String {
    let count = |is: &dyn Fn(&Row) -> bool| rows.iter().filter(|row| is(row)).count();
    let ended_as = |state: JobState| {
        move |row: &Row| {
            row.failed.is_none()
                && row.status.as_ref().is_some_and(|status| status.terminal && status.state() == state)
        }
    };
    let part = |count: usize, word: &str| if count > 0 { format!("{count} {word}") } else { String::new() };
    let is_over = |row: &Row| row.ended && row.status.as_ref().is_some_and(|status| !status.terminal);
    let running = count(&|row| !row.ended && row.status.is_some());
    let waiting = count(&|row| !row.ended && row.status.is_none());
    let parts = [
        part(running, "open"),
        part(waiting, "without status"),
        part(count(&|row| row.failed.is_none() && is_over(row)), "reached"),
        paint.green(&part(count(&ended_as(JobState::Succeeded)), "succeeded")),
        paint.red(&part(count(&ended_as(JobState::Failed)), "failed")),
        paint.yellow(&part(count(&ended_as(JobState::Cancelled)), "cancelled")),
        paint.red(&part(count(&ended_as(JobState::Expired)), "expired")),
        paint.red(&part(count(&|row| row.failed.is_some()), "with an error")),
    ];
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    format!("{} jobs: {}", rows.len(), join(&parts))
}

/// The lines of the rows that fit into `room` lines, and the number of rows that do not.
fn fitting(
    rows: &[&Row],
    room: usize,
    size: BoardSize,
    now: Timestamp,
    paint: Paint,
) -> (Vec<String>, usize) {
    let lines_of = |row: &Row, may_wrap: bool| row.board_lines(&BoardSize { may_wrap, ..size }, now, paint);
    // Every job has one line, and further lines for its details while there is room. Those
    // in trouble come first.
    let mut lines: Vec<Vec<String>> = rows.iter().map(|row| lines_of(row, false)).collect();
    let mut spare = room.saturating_sub(rows.len());
    let mut order: Vec<usize> = (0..rows.len()).collect();
    order.sort_by_key(|at| rows[*at].trouble.is_none());
    for at in order {
        let wrapped = lines_of(rows[at], true);
        let more = wrapped.len().saturating_sub(1);
        if more <= spare {
            (spare, lines[at]) = (spare - more, wrapped);
        }
    }
    let shown = if lines.len() > room { room.saturating_sub(1) } else { lines.len() };
    let rest = lines.len() - shown;
    (lines.into_iter().take(shown).flatten().collect(), rest)
}

/// The rows on the terminal. They stay there when the board is dropped.
///
/// The cursor rests below the rows, where a terminal may echo a ^C. Each frame is one
/// write over the previous one, so that nothing flickers.
#[derive(Debug)]
pub(super) struct Board {
    /// Whether the end of a row is in the history.
    in_history: Vec<bool>,
    /// Text for the history that is not written yet.
    notes: String,
    /// The number of lines drawn.
    drawn: usize,
    paint: Paint,
}

impl Board {
    /// No rows yet.
    pub(super) fn new() -> Self {
        Self { in_history: Vec::new(), notes: String::new(), drawn: 0, paint: Paint::stdout() }
    }

    /// Adds lines to the history.
    pub(super) fn note(&mut self, text: &str) {
        self.notes.push_str(text);
    }

    /// Draws a frame.
    pub(super) fn draw(&mut self, rows: &[Row], tick: usize) -> io::Result<()> {
        let (height, columns) = Term::stdout().size();
        let text = self.frame(rows, tick, (usize::from(height), usize::from(columns)), Timestamp::now());
        write_out(&text)
    }

    fn frame(
        &mut self,
        rows: &[Row],
        tick: usize,
        (height, columns): (usize, usize),
        now: Timestamp,
    ) -> String {
        // A row that wraps could not be overwritten.
        let columns = columns.saturating_sub(1);
        let mut text = self.back();
        if rows.len() > 1 {
            self.history(rows, columns, now);
        }
        for line in std::mem::take(&mut self.notes).lines() {
            text = text + line + CLEAR_LINE + "\n";
        }
        let open: Vec<&Row> = rows.iter().filter(|row| !row.is_done()).collect();
        let size = BoardSize { columns, name_width: name_width(rows, columns), tick, may_wrap: true };
        let has_tally = rows.len() > 1;
        let room = height.saturating_sub(1 + usize::from(has_tally));
        let (mut lines, rest) = fitting(&open, room, size, now, self.paint);
        if rest > 0 {
            lines.push(self.paint.dim(&format!("  … and {rest} more")));
        }
        if has_tally {
            lines.push(truncate_str(&tally(rows, self.paint), columns, "…").into_owned());
        }
        // On a terminal of two lines the tally remains.
        lines.drain(..lines.len().saturating_sub(height.saturating_sub(1)));
        for line in &lines {
            text = text + line + CLEAR_LINE + "\n";
        }
        self.drawn = lines.len();
        text + CLEAR_BELOW
    }

    /// Notes the jobs that have ended since the last frame.
    fn history(&mut self, rows: &[Row], columns: usize, now: Timestamp) {
        self.in_history.resize(rows.len(), false);
        // Names are whole. One that is too long for this column moves only its own line.
        let width = longest_name(rows).min(columns.saturating_sub(OTHER_COLUMNS));
        let paint = self.paint.within(columns);
        for (row, is_noted) in rows.iter().zip(&mut self.in_history) {
            if !row.is_done() || std::mem::replace(is_noted, true) {
                continue;
            }
            let line = match &row.failed {
                Some(status) if !row.is_lost => fault::render(&row.name, status, paint),
                _ => row.history_lines(width, now, paint).join("\n") + "\n",
            };
            self.notes.push_str(&line);
        }
    }

    /// Removes the rows from the terminal.
    pub(super) fn clear(self) -> io::Result<()> {
        write_out(&(self.back() + &self.notes + CLEAR_BELOW))
    }

    /// Moves the cursor to the beginning of the first row.
    fn back(&self) -> String {
        if self.drawn == 0 { String::new() } else { format!("\x1b[{}A\r", self.drawn) }
    }
}

/// Columns of a line in the history besides the name: sign, state, time and the gaps between them.
const OTHER_COLUMNS: usize = 23;

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
    use crate::{cli::job_list::parse_job, proto::v1::JobStatus};

    fn rows(count: usize) -> Vec<Row> {
        let row = |n| {
            let job = parse_job(&format!("immuta/{n}")).unwrap();
            let status = Some(JobStatus { state: JobState::Running.into(), ..Default::default() });
            Row { status, ..Row::new(&job, "", Timestamp::UNIX_EPOCH) }
        };
        (0..count).map(row).collect()
    }

    fn board() -> Board {
        Board { in_history: Vec::new(), notes: String::new(), drawn: 0, paint: Paint::NONE }
    }

    fn end(row: &mut Row) {
        row.ended = true;
        row.status =
            Some(JobStatus { state: JobState::Succeeded.into(), terminal: true, ..Default::default() });
    }

    #[test]
    fn frame_never_exceeds_the_height() {
        for height in 2..30 {
            let mut board = board();
            let text = board.frame(&rows(20), 0, (height, 80), Timestamp::UNIX_EPOCH);
            assert_eq!(text.lines().count(), board.drawn + 1);
            assert!(board.drawn < height, "{height}: {text}");
            assert!(text.contains("20 jobs: 20 open"), "{text}");
        }
    }

    #[test]
    fn details_of_a_job_in_trouble_have_the_first_spare_lines() {
        let mut rows = rows(3);
        let cause =
            "UNAVAILABLE: the vendor has not answered within the time-out of thirty seconds".to_owned();
        for row in &mut rows {
            row.status.as_mut().unwrap().error =
                Some(crate::proto::v1::JobError { message: "x".repeat(60), ..Default::default() });
        }
        rows[2].trouble = Some(crate::cli::row::Trouble { is_connection: false, cause, retry_at: None });
        let text = board().frame(&rows, 0, (7, 80), Timestamp::UNIX_EPOCH);
        assert!(
            text.contains("within the time-out of thirty") && text.contains("    seconds · xxx"),
            "{text}"
        );
        assert_eq!(text.lines().count(), 7, "{text}");
    }

    #[test]
    fn ended_job_is_written_once_above_the_open_ones() {
        let (mut board, mut rows) = (board(), rows(3));
        board.frame(&rows, 0, (24, 80), Timestamp::UNIX_EPOCH);
        end(&mut rows[1]);
        let text = board.frame(&rows, 0, (24, 80), Timestamp::UNIX_EPOCH);
        let lines: Vec<_> = text.lines().map(|line| line.trim_end_matches(CLEAR_LINE)).collect();
        assert!(lines[0].contains("✔ immuta/1  SUCCEEDED"), "{text}");
        assert!(lines[1].contains("immuta/0") && lines[2].contains("immuta/2"), "{text}");
        assert_eq!(lines[3], "3 jobs: 2 open · 1 succeeded");
        let text = board.frame(&rows, 0, (24, 80), Timestamp::UNIX_EPOCH);
        assert!(!text.contains("immuta/1"), "{text}");
    }
}
