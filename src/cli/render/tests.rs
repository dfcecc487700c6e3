use prost_types::Timestamp as Time;

use super::*;
use crate::proto::v1::{JobError, JobRef};

fn at(seconds: i64) -> Time {
    Time { seconds, nanos: 0 }
}

#[test]
fn details_show_every_known_field() {
    let status = JobStatus {
        job: Some(JobRef { backend: "claret".into(), job_id: "42".into(), ..Default::default() }),
        state: JobState::Failed.into(),
        vendor_state: "failed".into(),
        terminal: true,
        progress: Some(Progress { completed_steps: Some(2), total_steps: Some(5), ..Default::default() }),
        error: Some(JobError { message: "no such column: sku\nin row 7".into(), ..Default::default() }),
        result: Some(JobResult {
            data: "{\"a\":1}".into(),
            content_type: "application/json".into(),
            ..Default::default()
        }),
        artifacts: vec![Artifact {
            category: "errors".into(),
            file_name: "e.csv".into(),
            vendor_uri: "s3://b/e.csv".into(),
            artifact_id: "errors/e.csv".into(),
        }],
        job_type: "import".into(),
        description: "Stock".into(),
        create_time: Some(at(1_700_000_000)),
        start_time: Some(at(1_700_000_001)),
        end_time: Some(at(1_700_000_063)),
        ..Default::default()
    };
    let expected = "\
✘ FAILED  claret/42  failed
  job        import · Stock
  progress   2 of 5 steps
  created    2023-11-14T22:13:20Z
  started    2023-11-14T22:13:21Z
  ended      2023-11-14T22:14:23Z · after 1:02
  error      no such column: sku
             in row 7
  result     application/json, 7 bytes
             {
               \"a\": 1
             }
  files      errors/e.csv  s3://b/e.csv
";
    assert_eq!(details(&status, Paint::NONE), expected);
}

#[test]
fn omitted_parts_show_their_size_and_the_download_command() {
    let job = |id: &str| Some(JobRef { backend: "immuta".into(), job_id: id.into(), ..Default::default() });
    let status = JobStatus {
        job: job("42"),
        error: Some(JobError {
            message: "no".into(),
            details_omitted: true,
            details_size_bytes: 2_000_000,
            ..Default::default()
        }),
        result: Some(JobResult {
            content_type: "application/json".into(),
            omitted: true,
            size_bytes: 3_200_000,
            ..Default::default()
        }),
        vendor_payload_omitted: true,
        vendor_payload_size_bytes: 5_000_000_000,
        ..Default::default()
    };
    let expected = "
  error      no
             details: 2.00 MB left out; jobwatch download immuta/42 jobwatch:vendor_payload
  result     application/json, 3.20 MB left out; jobwatch download immuta/42 jobwatch:result
  payload    5.00 GB left out; jobwatch download immuta/42 jobwatch:vendor_payload
";
    let text = details(&status, Paint::NONE);
    assert!(text.ends_with(expected), "{text}");

    let text = details(&JobStatus { job: job("it's; $x"), ..status }, Paint::NONE);
    assert!(text.contains(r"download 'immuta/it'\''s; $x' jobwatch:result"), "{text}");
}

#[test]
fn warnings_of_a_job_that_succeeded_have_a_line_each() {
    let warnings = vec!["2 of 7 rows failed".into(), "step \x1b[2Jload\tskipped".into()];
    let status = JobStatus { state: JobState::Succeeded.into(), warnings, ..Default::default() };
    let text = details(&status, Paint::NONE);
    assert!(text.contains("  warnings   2 of 7 rows failed\n"), "{text}");
    assert!(
        text.lines().last().is_some_and(|line| line.trim().starts_with("step") && line.ends_with("skipped"))
    );
    assert!(!text.contains('\x1b'));
}

#[test]
fn control_characters_of_a_vendor_are_removed() {
    let status = JobStatus {
        description: "a\x1b[2Jb\r\nc\u{9b}1m".into(),
        error: Some(JobError { message: "x\x1b]0;t\x07\n\x1b[1A".into(), ..Default::default() }),
        result: Some(JobResult {
            data: "\x1b[2J".into(),
            content_type: "text/\x1bplain".into(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let text = details(&status, Paint::NONE);
    assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
}

#[test]
fn long_result_is_truncated_with_a_note() {
    let data = "line\n".repeat(100);
    let result =
        Some(JobResult { data: data.into(), content_type: "text/plain".into(), ..Default::default() });
    let text = details(&JobStatus { result, ..Default::default() }, Paint::NONE);
    assert!(text.lines().count() < 20);
    assert!(text.ends_with("… 500 bytes in all; -o jsonl shows them\n"), "{text}");
}

#[test]
fn clock_shows_hours_only_from_one_hour() {
    for (seconds, shown) in [(-3, "0:00"), (7, "0:07"), (62, "1:02"), (3662, "1:01:02")] {
        assert_eq!(clock(SignedDuration::from_secs(seconds)), shown);
    }
}

#[test]
fn state_sign_is_one_column_wide() {
    for number in 0..=8 {
        let state = JobState::try_from(number).unwrap();
        assert_eq!(sign(state).chars().count(), 1);
        assert!(word(state).len() <= 10);
    }
}
