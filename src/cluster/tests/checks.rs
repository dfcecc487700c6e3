//! What callers are promised, as functions of what was recorded.

use tokio::time::Instant;

/// A poll of one job.
#[derive(Clone, Debug)]
pub(super) struct Poll {
    pub(super) job: String,
    /// What the vendor had when it looked.
    pub(super) version: u64,
    pub(super) ended: Instant,
}

/// A status that a watcher was shown.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shown {
    pub(super) version: u64,
    pub(super) is_terminal: bool,
    pub(super) at: Instant,
}

/// The answer to a call without `max_age`.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) job: String,
    pub(super) version: u64,
    pub(super) began: Instant,
    pub(super) is_terminal: bool,
}

/// Of one watcher, over all replicas: nothing older, nothing twice in a row, the terminal
/// status once and last.
pub(super) fn check_watch(who: &str, shown: &[Shown], last: u64) -> Vec<String> {
    let mut wrong = Vec::new();
    for pair in shown.windows(2) {
        let [before, after] = pair else { continue };
        if after.version < before.version {
            wrong.push(format!("{who}: {} after {} at {:?}", after.version, before.version, after.at));
        }
        if after.version == before.version {
            wrong.push(format!("{who}: {} twice at {:?}", after.version, after.at));
        }
        if before.is_terminal {
            wrong.push(format!("{who}: {} after the terminal status", after.version));
        }
    }
    if shown.last().is_none_or(|shown| !shown.is_terminal || shown.version != last) {
        wrong.push(format!("{who}: its terminal status {last} is missing; last {:?}", shown.last()));
    }
    wrong
}

/// Each answer is of a poll that ended after the call began. A terminal status may be older,
/// since it can't change.
pub(super) fn check_answers(answers: &[Answer], polls: &[Poll]) -> Vec<String> {
    let is_of = |answer: &Answer, poll: &Poll| {
        poll.job == answer.job && poll.version == answer.version && poll.ended >= answer.began
    };
    let stale = |answer: &&Answer| !answer.is_terminal && !polls.iter().any(|poll| is_of(answer, poll));
    answers.iter().filter(stale).map(|answer| format!("stale: {answer:?}")).collect()
}

#[test]
fn checks_find_what_is_wrong_with_doctored_histories() {
    let at = Instant::now();
    let later = at + std::time::Duration::from_secs(1);
    let shown = |versions: &[u64], last: u64| -> Vec<Shown> {
        versions
            .iter()
            .map(|version| Shown { version: *version, is_terminal: *version == last, at })
            .collect()
    };
    assert_eq!(check_watch("a", &shown(&[1, 3, 4], 4), 4), [""; 0]);
    for wrong in [&[1, 3, 2, 4][..], &[1, 1, 4], &[1, 4, 4], &[1, 3], &[]] {
        assert_ne!(check_watch("a", &shown(wrong, 4), 4), [""; 0], "{wrong:?}");
    }
    let answer = |version, began, is_terminal| Answer { job: "a".into(), version, began, is_terminal };
    let polls =
        [Poll { job: "a".into(), version: 1, ended: at }, Poll { job: "b".into(), version: 2, ended: later }];
    assert_eq!(check_answers(&[answer(1, at, false), answer(9, later, true)], &polls), [""; 0]);
    assert_eq!(check_answers(&[answer(1, later, false)], &polls).len(), 1, "of a poll before the call");
    assert_eq!(check_answers(&[answer(2, at, false)], &polls).len(), 1, "of another job");
}
