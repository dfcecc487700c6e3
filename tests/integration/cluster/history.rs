//! What the vendor and the callers of several gateways are promised, as functions of what was
//! recorded.

use std::time::Duration;

use tokio::time::Instant;

/// When a gateway counted a request as sent: the machine's monotonic clock.
pub(super) type SentAt = Duration;

/// The version of a job that has ended.
pub(super) const LAST: u64 = u64::MAX;

/// A status that a watcher was shown.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shown {
    /// Counts up at the vendor.
    pub(super) version: u64,
    pub(super) at: Instant,
    /// The gateway that showed it.
    pub(super) gateway: usize,
}

/// The time of now, by that clock.
pub(super) fn now() -> SentAt {
    sent_at(&format!("permit consumed counted_at={:?}", Instant::now())).expect("the form of a log")
}

/// When each request was sent, as this log of a gateway says.
pub(super) fn sent_in(log: &str) -> Vec<SentAt> {
    log.lines().filter_map(sent_at).collect()
}

/// The instant of a line such as
/// `permit consumed counted_at=Instant { tv_sec: 59594, tv_nsec: 23431 }`.
fn sent_at(line: &str) -> Option<SentAt> {
    let (_, rest) = line.split_once("permit consumed counted_at=")?;
    let number = |field: &str| {
        let (_, rest) = rest.split_once(field)?;
        rest[..rest.find(|c: char| !c.is_ascii_digit())?].parse::<u64>().ok()
    };
    let (seconds, nanos) = number("tv_sec: ").zip(number("tv_nsec: ")).unwrap_or_else(|| panic!("{line}"));
    Some(Duration::from_secs(seconds) + Duration::from_nanos(nanos))
}

/// The most requests in any second, whichever gateway sent them.
pub(super) fn most_in_a_second(sent: &[SentAt]) -> usize {
    let mut sent = sent.to_vec();
    sent.sort_unstable();
    let within =
        |from: usize| sent[from..].iter().take_while(|at| **at < sent[from] + Duration::from_secs(1)).count();
    (0..sent.len()).map(within).max().unwrap_or(0)
}

/// At most `rate` requests in any second.
pub(super) fn check_rate(sent: &[SentAt], rate: usize) -> Vec<String> {
    let most = most_in_a_second(sent);
    if most > rate { vec![format!("{most} requests in a second, of {rate}")] } else { Vec::new() }
}

/// What was wrong with what watchers saw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Wrong {
    /// Watchers without a terminal status.
    pub(super) lost: usize,
    /// Statuses that were shown again, or after the terminal one.
    pub(super) twice: usize,
    /// Statuses that are older than the one before.
    pub(super) older: usize,
}

impl Wrong {
    /// Of one watcher, over all gateways that it was connected to.
    pub(super) fn of(shown: &[Shown]) -> Self {
        let pairs = || shown.windows(2).map(|pair| (pair[0].version, pair[1].version));
        Self {
            lost: usize::from(!shown.iter().any(|shown| shown.version == LAST)),
            twice: pairs().filter(|(before, after)| before == after || *before == LAST).count(),
            older: pairs().filter(|(before, after)| after < before && *before != LAST).count(),
        }
    }

    pub(super) fn add(&mut self, other: Self) {
        let Self { lost, twice, older } = other;
        self.lost += lost;
        self.twice += twice;
        self.older += older;
    }
}

#[test]
fn history_of_a_watcher_that_breaks_a_promise_is_noticed() {
    let at = Instant::now();
    let of = |versions: &[u64]| {
        let shown: Vec<_> =
            versions.iter().map(|version| Shown { version: *version, at, gateway: 0 }).collect();
        let Wrong { lost, twice, older } = Wrong::of(&shown);
        (lost, twice, older)
    };
    assert_eq!(of(&[1, 3, 4, LAST]), (0, 0, 0));
    assert_eq!(of(&[LAST]), (0, 0, 0));
    assert_eq!(of(&[1, 3]), (1, 0, 0), "no terminal status");
    assert_eq!(of(&[]), (1, 0, 0), "nothing at all");
    assert_eq!(of(&[1, 1, LAST]), (0, 1, 0));
    assert_eq!(of(&[1, LAST, LAST]), (0, 1, 0), "two ends");
    assert_eq!(of(&[1, LAST, 2]), (0, 1, 0), "something after the end");
    assert_eq!(of(&[1, 3, 2, LAST]), (0, 0, 1));
}

#[test]
fn second_with_too_many_requests_of_two_gateways_is_noticed() {
    let line = |millis: u64| {
        let (seconds, nanos) = (millis / 1000, millis % 1000 * 1_000_000);
        format!("TRACE permit consumed counted_at=Instant {{ tv_sec: {seconds}, tv_nsec: {nanos} }}\n")
    };
    let log = |times: &[u64]| times.iter().map(|millis| line(*millis)).collect::<String>();
    let one = sent_in(&(log(&[5000, 5400]) + "INFO nothing was sent\n" + &log(&[6000])));
    assert_eq!(one.len(), 3);
    assert_eq!(check_rate(&one, 2), [""; 0], "a second later is another second");
    let other = sent_in(&log(&[5999]));
    let both = [one.clone(), other].concat();
    assert_eq!(check_rate(&both, 3), [""; 0]);
    assert_eq!(check_rate(&both, 2), ["3 requests in a second, of 2"]);
    assert_eq!(check_rate(&[one.clone(), one].concat(), 3), ["4 requests in a second, of 3"]);
}

#[test]
fn instant_is_logged_in_the_form_that_is_read() {
    let now = Instant::now();
    let [at] = sent_in(&format!("permit consumed counted_at={now:?}"))[..] else { panic!("{now:?}") };
    let later = sent_in(&format!("permit consumed counted_at={:?}", now + Duration::from_millis(1500)));
    assert_eq!(later, [at + Duration::from_millis(1500)]);
}
