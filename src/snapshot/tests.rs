//! Tests of what a snapshot holds.

use super::*;
use crate::job::ContentType;

const INLINE_LIMIT: usize = 1 << 20;

fn snapshot(observation: Observation, keep: Parts) -> Snapshot {
    Snapshot::new(observation, keep, INLINE_LIMIT, &StatusBudget::new(0))
}

fn limited(observation: Observation, inline_limit: usize) -> Snapshot {
    Snapshot::new(observation, Parts::ALL, inline_limit, &StatusBudget::new(0))
}

#[test]
fn timestamp_before_the_epoch_counts_nanoseconds_forward() {
    let time = Timestamp::from_nanosecond(-1).unwrap();
    assert_eq!(timestamp(time), prost_types::Timestamp { seconds: -1, nanos: 999_999_999 });
}

fn full() -> Observation {
    let text = |text: &str| text.to_owned();
    Observation {
        progress: Some(Progress {
            percent: Some(0.0),
            completed_steps: Some(0),
            total_steps: Some(7),
            current_step: text("step"),
        }),
        result: Some(JobResult { data: Bytes::from_static(b"{}"), content_type: ContentType::Json }),
        error: Some(JobError { message: text("message"), details: Bytes::from_static(b"[]") }),
        warnings: vec![text("two rows failed")],
        artifacts: vec![Artifact {
            id: text("id"),
            category: text("category"),
            file_name: text("name"),
            vendor_uri: text("uri"),
            query: HiddenQuery::default(),
        }],
        job_type: text("type"),
        description: text("description"),
        vendor_url: text("url"),
        owner: text("owner"),
        create_time: Some(Timestamp::from_second(1).unwrap()),
        start_time: Some(Timestamp::from_second(2).unwrap()),
        end_time: Some(Timestamp::from_second(3).unwrap()),
        vendor_payload: Bytes::from_static(b"{\"a\":1}"),
        ..Observation::new(JobState::Succeeded, "done")
    }
}

#[test]
fn artifact_is_found_by_id() {
    let snapshot = snapshot(full(), Parts::NONE);
    assert_eq!(snapshot.artifact("id"), full().artifacts.pop());
    assert_eq!(snapshot.artifact("other"), None);
}

const RESULT: Parts = Parts { result: true, payload: false };
const PAYLOAD: Parts = Parts { result: false, payload: true };
const SETS: [Parts; 4] = [Parts::NONE, RESULT, PAYLOAD, Parts::ALL];

fn job() -> JobRef {
    JobRef::new("b", "j").with_tag("t")
}

/// What a caller with this view receives.
fn shown(snapshot: &Arc<Snapshot>, view: View) -> pb::JobStatus {
    let shown = Shown::new(job(), Arc::clone(snapshot), view, Timestamp::from_second(4).unwrap());
    let bytes = shown.encode_to_vec();
    assert_eq!(bytes.len(), shown.encoded_len());
    pb::JobStatus::decode(&*bytes).unwrap()
}

fn seen(observation: Observation, view: View) -> pb::JobStatus {
    shown(&Arc::new(snapshot(observation, Parts::ALL)), view)
}

#[test]
fn every_view_is_a_prefix_of_the_full_one() {
    let all = seen(full(), View::FULL);
    assert_eq!(all.result.as_ref().unwrap().content_type, "application/json");
    assert_eq!(all.vendor_payload, "{\"a\":1}");
    assert_eq!(all.artifacts[0].vendor_uri, "uri");
    assert_eq!(all.progress.as_ref().unwrap().percent, Some(0.0));
    assert_eq!(all.job.as_ref().unwrap().job_tag, "t");
    assert_eq!(all.observe_time.unwrap().seconds, 4);
    assert!(all.terminal);
    let rest = pb::JobStatus { job: None, observe_time: None, ..all.clone() };
    assert_eq!(snapshot(full(), Parts::ALL).status(), rest);

    let standard = seen(full(), View::STANDARD);
    assert_eq!(standard, pb::JobStatus { vendor_payload: Bytes::new(), ..all.clone() });
    let basic = seen(full(), View::BASIC);
    assert_eq!(basic, pb::JobStatus { result: None, ..standard });

    let snapshot = snapshot(full(), Parts::ALL);
    let views = [View::BASIC, View::STANDARD, View::FULL].map(|view| snapshot.shown(view).concat());
    assert!(views[2].starts_with(&views[1]) && views[1].starts_with(&views[0]));
}

#[test]
fn snapshot_with_any_parts_shows_what_it_holds_and_has_the_same_fingerprint() {
    let all = Arc::new(snapshot(full(), Parts::ALL));
    for keep in SETS {
        let made = Arc::new(snapshot(full(), keep));
        let reduced = Arc::new(all.without(Parts::ALL.difference(keep)));
        assert_eq!(made, reduced, "{keep:?}");
        assert_eq!(made.held(), keep);
        for view in [View::BASIC, View::STANDARD, View::FULL] {
            assert_eq!(made.fingerprint(view), all.fingerprint(view));
        }
        assert!(!made.differs_from(&all));
        for parts in SETS {
            assert_eq!(made.holds(parts), keep.contains(parts), "{keep:?} {parts:?}");
            if made.holds(parts) {
                let view = View { result: parts.result, payload: parts.payload, progress: true };
                assert_eq!(shown(&made, view), shown(&all, view), "{keep:?} {parts:?}");
                assert_eq!(made.encoded_len(view), all.encoded_len(view));
            }
        }
        for parts in SETS {
            assert_eq!(made.without(parts), snapshot(full(), keep.difference(parts)));
        }
    }
}

#[test]
fn part_that_the_job_does_not_have_counts_as_held() {
    let bare = snapshot(Observation::new(JobState::Running, "active"), Parts::NONE);
    assert!(bare.holds(Parts::ALL));
    assert_eq!(bare.held(), Parts::NONE);
    let empty = JobResult { data: Bytes::new(), content_type: ContentType::Text };
    let observation = Observation { result: Some(empty), ..Observation::new(JobState::Running, "active") };
    assert!(!snapshot(observation, Parts::NONE).holds(RESULT), "an empty result is a result");
}

#[test]
#[should_panic(expected = "shows a part that was dropped")]
#[cfg(debug_assertions)]
fn view_of_a_dropped_part_panics() {
    snapshot(full(), RESULT).encoded_len(View::FULL);
}

#[test]
fn snapshot_charges_its_bytes_until_it_is_dropped() {
    let budget = StatusBudget::new(1);
    let all = Snapshot::new(full(), Parts::ALL, INLINE_LIMIT, &budget);
    let encoded = all.encoded_len(View::FULL) as u64;
    assert_eq!(budget.used(), all.charged_bytes());
    assert!((encoded + mem::size_of::<Snapshot>() as u64..encoded + 1024).contains(&budget.used()));
    let reduced = all.without(Parts::ALL);
    assert_eq!(budget.used(), all.charged_bytes() + reduced.charged_bytes());
    let saved = all.encoded_len(View::FULL) - all.encoded_len(View::BASIC);
    assert_eq!(all.charged_bytes() - reduced.charged_bytes(), saved as u64);
    drop(all);
    assert_eq!(budget.used(), reduced.charged_bytes());
    drop(reduced);
    assert_eq!(budget.used(), 0);
}

fn large(size: usize) -> Observation {
    let data = || Bytes::from(vec![b'x'; size]);
    Observation {
        result: Some(JobResult { data: data(), content_type: ContentType::Text }),
        error: Some(JobError { message: "no".into(), details: data() }),
        vendor_payload: data(),
        ..Observation::new(JobState::Failed, "failed")
    }
}

#[test]
fn data_above_the_inline_limit_is_replaced_by_its_size() {
    let seen = |size| shown(&Arc::new(limited(large(size), 1000)), View::FULL);
    let inlined = seen(1000);
    let (result, error) = (inlined.result.unwrap(), inlined.error.unwrap());
    assert_eq!((result.data.len(), result.size_bytes, result.omitted), (1000, 0, false));
    assert_eq!((error.details.len(), error.details_size_bytes, error.details_omitted), (1000, 0, false));
    assert_eq!((inlined.vendor_payload.len(), inlined.vendor_payload_size_bytes), (1000, 0));
    assert!(!inlined.vendor_payload_omitted);

    let left_out = seen(1001);
    let (result, error) = (left_out.result.unwrap(), left_out.error.unwrap());
    assert_eq!((result.data.len(), result.size_bytes, result.omitted), (0, 1001, true));
    assert_eq!(result.content_type, ContentType::Text.as_str());
    assert_eq!((error.details.len(), error.details_size_bytes, error.details_omitted), (0, 1001, true));
    assert_eq!((left_out.vendor_payload.len(), left_out.vendor_payload_size_bytes), (0, 1001));
    assert!(left_out.vendor_payload_omitted);
}

#[test]
fn omitted_part_is_held_for_any_parts() {
    let all = limited(large(1001), 1000);
    assert_eq!(all.held(), Parts::NONE, "no part remains to drop");
    assert_eq!(all.without(Parts::ALL), all);
    let none = Snapshot::new(large(1001), Parts::NONE, 1000, &StatusBudget::new(0));
    assert_eq!(none, all);
    assert!(none.holds(Parts::ALL));
    assert!(none.encoded_len(View::FULL) < 200);
}

#[test]
fn change_of_omitted_data_changes_the_fingerprint() {
    let mut other = large(1001);
    other.result.as_mut().unwrap().data = Bytes::from(vec![b'y'; 1001]);
    let (one, other) = (limited(large(1001), 1000), limited(other, 1000));
    assert_eq!(one.status(), other.status(), "both show the same size");
    assert!(one.differs_from(&other));
    assert_ne!(one.fingerprint(View::STANDARD), other.fingerprint(View::STANDARD));
    assert_eq!(one.fingerprint(View::BASIC), other.fingerprint(View::BASIC));
}

#[test]
fn long_text_is_truncated_at_a_character_with_an_ellipsis() {
    let truncated = |text: &str| {
        let error = Some(JobError { message: text.to_owned(), details: Bytes::new() });
        let observation = Observation { error, ..Observation::new(JobState::Failed, "failed") };
        snapshot(observation, Parts::ALL).status().error.unwrap().message
    };
    let longest = "x".repeat(MAX_TEXT_BYTES);
    assert_eq!(truncated(&longest), longest);
    assert_eq!(truncated(&format!("{longest}x")), format!("{}…", "x".repeat(MAX_TEXT_BYTES - 3)));
    for text in ["ä".repeat(MAX_TEXT_BYTES), format!("x{}", "ä".repeat(MAX_TEXT_BYTES))] {
        let truncated = truncated(&text);
        assert!(
            (MAX_TEXT_BYTES - 1..=MAX_TEXT_BYTES).contains(&truncated.len()),
            "{} bytes",
            truncated.len()
        );
        assert!(text.starts_with(truncated.strip_suffix('…').unwrap()));
    }
}

#[test]
fn status_of_large_texts_and_data_is_bounded() {
    let text = || "x".repeat(8 << 20);
    let mut observation = Observation {
        job_type: text(),
        description: text(),
        owner: text(),
        progress: Some(Progress { current_step: text(), ..Progress::default() }),
        ..large(INLINE_LIMIT)
    };
    observation.vendor_state = text();
    observation.error.as_mut().unwrap().message = text();
    let len = snapshot(observation, Parts::ALL).encoded_len(View::FULL);
    assert!(len <= 3 * INLINE_LIMIT + 6 * MAX_TEXT_BYTES + 1024, "{len} bytes");
}

#[test]
fn job_ref_is_encoded_as_its_message() {
    let snapshot = Arc::new(snapshot(Observation::new(JobState::Running, ""), Parts::ALL));
    for (backend, id, tag) in [("b", "j", "t"), ("b", "j", ""), ("", "", ""), ("b", &*"j".repeat(300), "")] {
        let job = JobRef::new(backend, id);
        let job = if tag.is_empty() { job } else { job.with_tag(tag) };
        let shown = Shown::new(job, Arc::clone(&snapshot), View::FULL, Timestamp::UNIX_EPOCH);
        let bytes = shown.encode_to_vec();
        assert_eq!(bytes.len(), shown.encoded_len());
        let expected = pb::JobRef { backend: backend.into(), job_id: id.into(), job_tag: tag.into() };
        assert_eq!(pb::JobStatus::decode(&*bytes).unwrap().job, Some(expected));
    }
}

#[test]
fn field_that_the_vendor_did_not_send_is_absent() {
    let bare = seen(Observation::new(JobState::Unknown, ""), View::FULL);
    let job = pb::JobRef { backend: "b".into(), job_id: "j".into(), job_tag: "t".into() };
    let observe_time = bare.observe_time;
    assert_eq!(bare, pb::JobStatus { job: Some(job), observe_time, ..Default::default() });
}
