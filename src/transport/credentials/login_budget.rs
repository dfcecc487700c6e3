//! How often a secret is sent to a vendor that rejects it. A locked account is worse than
//! a late status, so the waits grow to minutes, whatever asks for a login.
//!
//! ```text
//!               accepted                    rejected
//!   unproven ─────────────> proven ──────────────────────┐
//!      │ rejected              ^                          v
//!      └───────────────────────┼───────────────────> paused <──────────┐
//!                              │                        │ pause is over │ rejected
//!                              └────── accepted ───── trial ───────────┘
//! ```
//!
//! A trial is one request: until its outcome is known the budget stays paused for others.
//! A secret that worked before is paused at the second rejection in a row, since one
//! response may be about something else than the secret.
//!
//! Pure state: clocks and dice come in from outside.

use std::time::Duration;

use tokio::time::Instant;

use crate::{
    job::{BackendFault, FaultKind},
    transport::Backoff,
};

/// How the wait grows with each rejection in a row, and the longest wait as a multiple of
/// the first.
const GROWTH: u32 = 3;
const LONGEST: u32 = 60;

/// The most that jitter adds to a wait, as a part of it.
const JITTER: f64 = 0.2;

/// Most logins in a row in place of tokens that worked before; each further one takes as
/// long as the first wait to be allowed.
const RENEWALS: u32 = 3;

/// How long other requests wait for the first one with a secret.
const FIRST_OUTCOME: Duration = Duration::from_secs(1);

/// The login budget of one secret.
#[derive(Debug)]
pub(super) struct LoginBudget {
    /// The wait after the first rejection.
    wait: Duration,
    /// How logins are spaced that fail for other reasons.
    backoff: Backoff,
    first: First,
    is_proven: bool,
    /// Rejections in a row. Requests in flight together count as one.
    rejections: u32,
    rejected_at: Option<Instant>,
    /// Logins in a row that failed for other reasons.
    failures: u32,
    /// Logins in a row whose outcome is not known: they were cancelled.
    unfinished: u32,
    pause: Option<Pause>,
    /// Since when renewals have been counted, and how many there were.
    renewals: Option<(Instant, u32)>,
}

/// Until when the secret is not sent, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pause {
    pub(super) until: Instant,
    pub(super) fault: BackendFault,
}

/// The first request with a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum First {
    NotSent,
    InFlight { sent_at: Instant },
    Over,
}

/// Whether a request with a secret may be sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// It may.
    Granted,
    /// Not before the first one has ended or this time has passed.
    Wait(Instant),
    /// It may not.
    Refused(BackendFault),
}

impl LoginBudget {
    /// The budget of a secret that was not sent yet.
    pub(super) fn new(wait: Duration, backoff: Backoff) -> Self {
        Self {
            wait,
            backoff,
            first: First::NotSent,
            is_proven: false,
            rejections: 0,
            rejected_at: None,
            failures: 0,
            unfinished: 0,
            pause: None,
            renewals: None,
        }
    }

    /// Why no request with the secret may be sent at `now`.
    pub(super) fn pause(&self, now: Instant) -> Option<&Pause> {
        self.pause.as_ref().filter(|pause| pause.until > now)
    }

    /// When the secret was last rejected, and when it is sent again, until it is accepted.
    pub(super) fn rejection(&self) -> Option<(Instant, Instant)> {
        let pause = self.pause.as_ref().filter(|pause| pause.fault.kind == FaultKind::CredentialsRejected)?;
        Some((self.rejected_at?, pause.until))
    }

    /// Admits a request that sends the secret itself, for another purpose than a token.
    pub(super) fn admit(&mut self, now: Instant, dice: f64) -> Admission {
        if let Some(pause) = self.pause(now) {
            return Admission::Refused(pause.fault.clone());
        }
        if self.rejections > 0 {
            self.unfinished = self.unfinished.saturating_add(1);
            self.begin_trial(now, dice);
            return Admission::Granted;
        }
        match self.first {
            First::NotSent => self.first = First::InFlight { sent_at: now },
            First::InFlight { sent_at } if !self.is_proven && now < sent_at + FIRST_OUTCOME => {
                return Admission::Wait(sent_at + FIRST_OUTCOME);
            }
            First::InFlight { .. } | First::Over => self.first = First::Over,
        }
        Admission::Granted
    }

    /// Begins a login. One is in flight at most.
    ///
    /// # Errors
    /// It may not be sent yet.
    pub(super) fn begin_login(&mut self, now: Instant, dice: f64) -> Result<(), BackendFault> {
        if let Some(pause) = self.pause(now) {
            return Err(pause.fault.clone());
        }
        self.unfinished = self.unfinished.saturating_add(1);
        if self.rejections > 0 {
            self.begin_trial(now, dice);
        } else if self.unfinished > 1 {
            let why = "the last requests for a token were cancelled".to_owned();
            let fault = FaultKind::Unavailable { why }.into();
            self.pause = Some(Pause { until: now + self.wait_after(self.unfinished, dice), fault });
        }
        Ok(())
    }

    /// Should the outcome never be known, the next trial waits as after a rejection.
    fn begin_trial(&mut self, now: Instant, dice: f64) {
        let until = now + self.wait_after(self.rejections.saturating_add(self.unfinished), dice);
        let fault = self.pause.take().map_or(FaultKind::CredentialsRejected.into(), |pause| pause.fault);
        self.pause = Some(Pause { until, fault });
    }

    /// The login gave a token, which is not accepted yet.
    pub(super) fn logged_in(&mut self) {
        (self.unfinished, self.failures, self.pause) = (0, 0, None);
    }

    /// The login failed for another reason than the secret.
    pub(super) fn login_failed(&mut self, fault: &BackendFault, now: Instant, dice: f64) {
        self.unfinished = 0;
        self.failures = self.failures.saturating_add(1);
        // As a failed poll, the first one alone keeps nobody from trying again.
        let failures = if self.rejections > 0 { self.failures } else { self.failures - 1 };
        let wait = (failures > 0).then(|| self.backoff.wait(failures, dice));
        let wait = wait.max(fault.retry_after.map(|wait| wait.min(crate::transport::LONGEST_RETRY_AFTER)));
        self.pause = wait.map(|wait| Pause { until: now + wait, fault: fault.clone() });
    }

    /// A request with the secret ended without saying anything of it.
    pub(super) fn undecided(&mut self, now: Instant) {
        (self.first, self.unfinished) = (First::Over, 0);
        if let Some(pause) = self.pause.as_mut().filter(|_| self.rejections > 0) {
            pause.until = now;
        }
    }

    /// The vendor rejects the secret, or a token that was just given for it, in a request
    /// that was authorized at `began`. With `tolerates_first`, the first rejection in a row
    /// causes no pause. Returns the wait that it begins to cause.
    pub(super) fn rejected(
        &mut self,
        fault: &BackendFault,
        tolerates_first: bool,
        (began, now): (Instant, Instant),
        dice: f64,
    ) -> Option<Duration> {
        self.first = First::Over;
        if self.rejected_at.is_some_and(|rejected_at| began < rejected_at) {
            return None;
        }
        // A cancelled login may have been rejected, too.
        self.rejections = self.rejections.saturating_add(self.unfinished.max(1));
        self.unfinished = 0;
        self.rejected_at = Some(now);
        if tolerates_first && self.rejections == 1 {
            return None;
        }
        self.is_proven = false;
        let requested = fault.retry_after.unwrap_or_default().min(crate::transport::LONGEST_RETRY_AFTER);
        let wait = self.wait_after(self.rejections, dice).max(requested);
        self.pause = Some(Pause { until: now + wait, fault: fault.clone() });
        Some(wait)
    }

    /// The vendor accepts the secret, or a token that it gave for it at `began`. Returns
    /// whether that is news: it says nothing of a rejection after `began`.
    pub(super) fn accepted(&mut self, began: Instant) -> bool {
        let is_outdated = self.rejected_at.is_some_and(|rejected_at| began < rejected_at);
        let is_settled = self.is_proven && self.rejections == 0 && self.pause.is_none();
        if is_outdated || is_settled {
            return false;
        }
        (self.first, self.is_proven) = (First::Over, true);
        (self.rejections, self.failures, self.unfinished) = (0, 0, 0);
        (self.rejected_at, self.pause) = (None, None);
        true
    }

    /// Whether the vendor accepted the secret and has not rejected it since.
    pub(super) fn is_proven(&self) -> bool {
        self.is_proven
    }

    /// Whether a token may be replaced that worked before and is rejected now.
    pub(super) fn take_renewal(&mut self, now: Instant) -> bool {
        let (since, taken) = self.renewals.unwrap_or((now, 0));
        let wait = self.wait.max(Duration::from_nanos(1));
        let returned = now.saturating_duration_since(since).as_nanos() / wait.as_nanos();
        let returned = u32::try_from(returned).unwrap_or(u32::MAX);
        let left = taken.saturating_sub(returned);
        let since = if left == 0 { now } else { since + wait * returned };
        let is_allowed = left < RENEWALS;
        self.renewals = Some((since, left + u32::from(is_allowed)));
        is_allowed
    }

    fn wait_after(&self, rejections: u32, dice: f64) -> Duration {
        let factor = GROWTH.saturating_pow(rejections.saturating_sub(1)).min(LONGEST);
        (self.wait * factor).mul_f64(1.0 + JITTER * dice.clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const BACKOFF: Backoff = Backoff { min: SECOND, max: Duration::from_secs(30) };

    fn budget() -> LoginBudget {
        LoginBudget::new(10 * SECOND, BACKOFF)
    }

    fn no() -> BackendFault {
        FaultKind::CredentialsRejected.with_status(401_u16)
    }

    fn down() -> BackendFault {
        FaultKind::Unavailable { why: "down".into() }.into()
    }

    proptest! {
        /// Something asks for a login every `every`; all are rejected or cancelled.
        #[test]
        fn wrong_secret_is_sent_three_times_in_a_minute_and_ten_times_in_an_hour(
            every in 1..5000_u64,
            dice in 0.0..1.0_f64,
            cancelled in proptest::collection::vec(any::<bool>(), 64),
        ) {
            let (mut budget, begin) = (budget(), Instant::now());
            let mut sent = Vec::new();
            let mut now = begin;
            while now < begin + 3600 * SECOND {
                if budget.begin_login(now, dice).is_ok() {
                    if !cancelled[sent.len() % 64] {
                        budget.rejected(&no(), false, (now, now), dice);
                    }
                    sent.push(now);
                }
                now += Duration::from_millis(every);
            }
            let within = |limit: Duration| sent.iter().filter(|at| **at < begin + limit).count();
            prop_assert!(within(60 * SECOND) <= 3 && within(3600 * SECOND) <= 10, "{sent:?}");
            prop_assert!(within(3600 * SECOND) >= 5, "it is tried again");
        }
    }

    #[test]
    fn secret_is_tried_by_one_request_after_each_pause() {
        let (mut budget, now) = (budget(), Instant::now());
        assert_eq!(budget.admit(now, 0.0), Admission::Granted);
        assert_eq!(budget.admit(now, 0.0), Admission::Wait(now + FIRST_OUTCOME));
        assert_eq!(budget.rejected(&no(), false, (now, now), 0.0), Some(10 * SECOND));
        assert_eq!(budget.rejected(&no(), false, (now - SECOND, now), 0.0), None, "sent together");
        assert_eq!(budget.admit(now + 9 * SECOND, 0.0), Admission::Refused(no()));
        let trial = now + 10 * SECOND;
        assert_eq!(budget.admit(trial, 0.0), Admission::Granted);
        assert_eq!(budget.admit(trial, 0.0), Admission::Refused(no()));
        budget.undecided(trial);
        assert_eq!(budget.admit(trial, 0.0), Admission::Granted);
        assert_eq!(budget.rejected(&no(), false, (trial, trial), 1.0), Some(36 * SECOND));
        let trial = trial + 36 * SECOND;
        assert_eq!(budget.admit(trial, 0.0), Admission::Granted);
        assert!(budget.accepted(trial) && !budget.accepted(trial));
        assert_eq!((budget.admit(trial, 0.0), budget.rejection()), (Admission::Granted, None));
    }

    #[test]
    fn first_request_delays_others_for_a_second_at_most() {
        let (mut budget, now) = (budget(), Instant::now());
        assert_eq!(budget.admit(now, 0.0), Admission::Granted);
        assert_eq!(budget.admit(now + FIRST_OUTCOME, 0.0), Admission::Granted);
        assert_eq!(budget.admit(now, 0.0), Admission::Granted);
    }

    #[test]
    fn secret_that_worked_is_paused_at_the_second_rejection() {
        let (mut budget, now) = (budget(), Instant::now());
        budget.accepted(now);
        assert!(budget.is_proven());
        assert_eq!(budget.rejected(&no(), true, (now, now), 0.0), None);
        assert_eq!((budget.pause(now), budget.rejection()), (None, None));
        assert_eq!(budget.rejected(&no(), true, (now, now), 0.0), Some(30 * SECOND));
        assert!(!budget.is_proven());
        assert!(!budget.accepted(now - SECOND));
        assert!(budget.pause(now).is_some(), "an older success says nothing");
    }

    #[test]
    fn login_that_fails_otherwise_backs_off_as_polls_do() {
        let (mut budget, now) = (budget(), Instant::now());
        budget.begin_login(now, 0.0).unwrap();
        budget.login_failed(&down(), now, 0.0);
        budget.begin_login(now, 0.0).unwrap();
        budget.login_failed(&down(), now, 1.0);
        assert_eq!(budget.begin_login(now + SECOND, 0.0), Err(down()));
        assert_eq!(budget.rejection(), None);
        budget.begin_login(now + 2 * SECOND, 0.0).unwrap();
        budget.logged_in();
        assert_eq!(budget.pause(now), None);
    }

    #[test]
    fn renewals_are_three_in_a_row_and_then_one_a_wait() {
        let (mut budget, now) = (budget(), Instant::now());
        let taken = |budget: &mut LoginBudget, at| (0..9).filter(|_| budget.take_renewal(at)).count();
        assert_eq!(taken(&mut budget, now), 3);
        assert_eq!(taken(&mut budget, now + 9 * SECOND), 0);
        assert_eq!(taken(&mut budget, now + 11 * SECOND), 1);
        assert_eq!(taken(&mut budget, now + 300 * SECOND), 3);
    }
}
