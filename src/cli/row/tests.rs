use super::*;
use crate::{
    cli::job_list::parse_job,
    proto::v1::{Artifact, JobError, Progress},
};

fn row(status: Option<JobStatus>) -> Row {
    let ended = status.as_ref().is_some_and(|status| status.terminal);
    Row { status, ended, ..Row::new(&parse_job("claret/42").unwrap(), "", Timestamp::UNIX_EPOCH) }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn lines(row: &Row, columns: usize) -> Vec<String> {
    let size = BoardSize { columns, name_width: 10, tick: 0, may_wrap: true };
    row.board_lines(&size, at(75), Paint::NONE)
}

fn line(row: &Row) -> String {
    lines(row, 200).concat()
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

fn trouble(is_connection: bool, retry_at: i64) -> Trouble {
    Trouble { is_connection, cause: "UNAVAILABLE: no answer".to_owned(), retry_at: Some(at(retry_at)) }
}

#[test]
fn running_job_shows_bar_steps_and_elapsed_time() {
    assert_eq!(
        line(&row(Some(running()))),
        "⠋ claret/42   RUNNING        1:15  ━━━━━───────────────  1 of 4 steps · staging"
    );
}

#[test]
fn log_line_has_no_spinner_or_bar_and_the_whole_name() {
    let line = row(Some(running())).log_line(4, at(75), Paint::NONE);
    assert_eq!(line, "▶ claret/42  RUNNING        1:15  1 of 4 steps · staging");
}

#[test]
fn details_that_do_not_fit_take_lines_of_their_own() {
    let mut status = running();
    status.error =
        Some(JobError { message: "row 7 was skipped, for it has no sku".into(), ..Default::default() });
    let lines = lines(&row(Some(status)), 79);
    assert_eq!(
        lines,
        [
            "⠋ claret/42   RUNNING        1:15  ━━────────",
            "    1 of 4 steps · staging · row 7 was skipped, for it has no sku",
        ]
    );
}

#[test]
fn job_without_status_shows_spinner() {
    assert_eq!(line(&row(None)), "⠋ claret/42                  1:15");
}

#[test]
fn trouble_is_shown_beside_the_latest_status_with_the_time_left() {
    for (second, shown) in [
        (85, "UNAVAILABLE: no answer · next poll in 10 s"),
        (76, "UNAVAILABLE: no answer · next poll in 1 s"),
        (75, "UNAVAILABLE: no answer"),
    ] {
        let row = Row { trouble: Some(trouble(false, second)), ..row(Some(running())) };
        assert_eq!(
            line(&row),
            format!(
                "! claret/42   RUNNING        1:15  ━━━━━───────────────  {shown} · 1 of 4 steps · staging"
            )
        );
    }
    assert_eq!(trouble(true, 78).text(at(75)), "disconnected; trying again in 3 s");
    assert_eq!(trouble(true, 78).text(at(76)), "disconnected; trying again in 2 s");
    assert_eq!(trouble(true, 78).text(at(78)), "disconnected; trying again");
}

#[test]
fn unknown_state_shows_the_word_of_the_vendor() {
    let status = JobStatus { vendor_state: "PA\u{202e}USED".into(), ..Default::default() };
    assert_eq!(line(&row(Some(status))), "⠋ claret/42   PAUSED         1:15");
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
fn long_name_keeps_both_ends() {
    let job = parse_job(&format!("immuta/{}end", "x".repeat(500))).unwrap();
    let long = [Row::new(&job, "", Timestamp::UNIX_EPOCH)];
    let name = shortened(&long[0].name, name_width(&long, 80));
    assert_eq!(name.chars().count(), 26);
    assert!(name.starts_with("immuta/x") && name.ends_with("xend"));
}

#[test]
fn until_decides_the_exit_code() {
    let is = |state: JobState, terminal, until: &[JobState]| {
        row(Some(JobStatus { state: state.into(), terminal, ..Default::default() })).exit(until).code()
    };
    assert_eq!(is(JobState::Running, false, &[JobState::Running]), 0);
    assert_eq!(is(JobState::Failed, true, &[JobState::Failed]), 0);
    assert_eq!(is(JobState::Succeeded, true, &[JobState::Running]), 0);
    assert_eq!(is(JobState::Failed, true, &[JobState::Running]), 1);
    assert_eq!(is(JobState::Running, false, &[JobState::Succeeded]), 4);
    assert_eq!(is(JobState::Running, false, &[]), 4);
    assert_eq!(row(None).exit(&[]).code(), 4);
}

#[test]
fn bar_has_constant_width_for_any_progress() {
    for percent in [-5.0, 0.0, 50.0, 100.0, 1e300, f64::NAN, f64::INFINITY] {
        let progress = Progress { percent: Some(percent), ..Default::default() };
        if let Some(fraction) = fraction(&progress) {
            assert_eq!(bar(fraction, BAR, Paint::NONE).chars().count(), BAR, "{percent}");
        }
    }
}

#[test]
fn end_of_a_job_is_laid_out_to_the_terminal_without_loss() {
    let message = "no such column: sku in the file that the job has read, which has the columns id and name";
    let status = JobStatus {
        state: JobState::Failed.into(),
        terminal: true,
        error: Some(JobError { message: message.into(), ..Default::default() }),
        end_time: Some(prost_types::Timestamp { seconds: 30, nanos: 0 }),
        ..Default::default()
    };
    let short = row(Some(status));
    let lines = short.history_lines(10, at(75), Paint::NONE.within(79));
    assert_eq!(
        lines,
        [
            "✘ claret/42   FAILED         0:30",
            "    no such column: sku in the file that the job has read, which has the",
            "    columns id and name",
        ]
    );
    let name = format!("immuta/{}", "x".repeat(60));
    let long = Row { name: name.clone(), ..short };
    let lines = long.history_lines(56, at(75), Paint::NONE.within(79));
    assert_eq!(lines[0], format!("✘ {name}"));
    assert_eq!(lines[1], "    FAILED 0:30 no such column: sku in the file that the job has read, which");
    assert_eq!(lines[2], "    has the columns id and name");
    assert_eq!(long.history_lines(56, at(75), Paint::NONE).len(), 1);
}
