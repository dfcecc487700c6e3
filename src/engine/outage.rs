//! Outages of one backend, for the log: one line when it begins, one when its reason
//! changes, a reminder every minute, and one when it is over.
//!
//! A backend that fails and recovers again and again would fill the log: only so many
//! outages a minute have lines of their own. One that has not is mentioned in the next
//! line, or by its reminder if it lasts.
//!
//! Pure state but for [`Line::write`]: the clock comes in from outside.

use std::time::Duration;

use tokio::time::Instant;
use tracing::{info, warn};

use super::RecentEvent;
use crate::job::{BackendFault, FaultKind};

/// Time between two lines about something that lasts.
pub(super) const REMINDER: Duration = Duration::from_mins(1);

/// Most lines about begins and changed reasons in this time.
const LINES: u32 = 5;

/// What is known of a backend's outages.
#[derive(Debug, Default)]
pub(super) struct OutageLog {
    current: Option<Outage>,
    /// Begin of the present minute, and lines in it.
    minute: Option<(Instant, u32)>,
    /// Outages without a line of their own since the last line.
    unlogged: u32,
}

#[derive(Debug)]
struct Outage {
    since: Instant,
    fault: BackendFault,
    failed_polls: u32,
    logged_at: Option<Instant>,
}

/// What a line says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) what: What,
    pub(super) fault: BackendFault,
    pub(super) down_for: Duration,
    pub(super) failed_polls: u32,
    /// Earlier outages that had no line.
    pub(super) unlogged: u32,
}

/// Why there is a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// The outage has begun.
    Failed,
    /// It has another reason than before.
    ReasonChanged,
    /// It lasts.
    StillFailing,
    /// It is over.
    Recovered,
}

impl OutageLog {
    /// A poll failed for the backend's reasons. Returns what to log, and whether an outage
    /// has begun with this.
    pub(super) fn failed(&mut self, fault: &BackendFault, now: Instant) -> (Option<Line>, bool) {
        let may_log = self.has_line_left(now);
        let Some(outage) = &mut self.current else {
            let fault = fault.clone();
            let logged_at = may_log.then_some(now);
            self.current = Some(Outage { since: now, fault, failed_polls: 1, logged_at });
            return (logged_at.and_then(|_| self.line(What::Failed, now)), true);
        };
        outage.failed_polls = outage.failed_polls.saturating_add(1);
        let changed = reason(&outage.fault) != reason(fault) || outage.fault.http_status != fault.http_status;
        outage.fault = fault.clone();
        if changed && may_log && outage.logged_at.is_some() {
            return (self.line(What::ReasonChanged, now), false);
        }
        (self.remind(now), false)
    }

    /// The backend answered.
    pub(super) fn answered(&mut self, now: Instant) -> Option<Line> {
        let outage = self.current.as_ref()?;
        let line = if outage.logged_at.is_some() {
            self.line(What::Recovered, now)
        } else {
            self.unlogged = self.unlogged.saturating_add(1);
            None
        };
        self.current = None;
        line
    }

    /// A minute after the last line about an outage that lasts, the next one.
    pub(super) fn remind(&mut self, now: Instant) -> Option<Line> {
        let outage = self.current.as_ref()?;
        let last = outage.logged_at.unwrap_or(outage.since);
        (now.saturating_duration_since(last) >= REMINDER).then(|| self.line(What::StillFailing, now))?
    }

    fn line(&mut self, what: What, now: Instant) -> Option<Line> {
        let outage = self.current.as_mut()?;
        outage.logged_at = Some(now);
        if let (Some((_, lines)), What::Failed | What::ReasonChanged) = (&mut self.minute, what) {
            *lines += 1;
        }
        Some(Line {
            what,
            fault: outage.fault.clone(),
            down_for: now.saturating_duration_since(outage.since),
            failed_polls: outage.failed_polls,
            unlogged: std::mem::take(&mut self.unlogged),
        })
    }

    fn has_line_left(&mut self, now: Instant) -> bool {
        match &mut self.minute {
            Some((began, lines)) if now.saturating_duration_since(*began) < REMINDER => *lines < LINES,
            minute => {
                *minute = Some((now, 0));
                true
            }
        }
    }
}

impl Line {
    /// The same for the page of recent events, which has no reminders.
    pub(super) fn event(&self) -> Option<RecentEvent> {
        match self.what {
            What::Failed | What::ReasonChanged => {
                Some(RecentEvent::BackendFailed(self.fault.without_vendor_message()))
            }
            What::StillFailing => None,
            What::Recovered => Some(RecentEvent::BackendRecovered { down_for: self.down_for }),
        }
    }

    /// Logs it, with how many jobs wait for the backend and when it is polled next.
    pub(super) fn write(self, backend: &str, waiting_jobs: usize, retry_in: Option<Duration>) {
        let Self { what, fault, down_for, failed_polls, unlogged } = self;
        let (reason, http_status) = (reason(&fault), fault.http_status);
        let (down_for_ms, retry_in_ms) = (millis(down_for), retry_in.map(millis));
        macro_rules! log {
            ($text:literal) => {
                warn!(
                    backend, reason, http_status, down_for_ms, waiting_jobs, retry_in_ms, failed_polls,
                    unlogged_outages = (unlogged > 0).then_some(unlogged), error = %fault, $text
                )
            };
        }
        let rejected = fault.kind == FaultKind::CredentialsRejected;
        match what {
            What::Failed | What::ReasonChanged if rejected => log!("credentials rejected"),
            What::Failed => log!("backend failed"),
            What::ReasonChanged => log!("backend fails for another reason"),
            What::StillFailing => log!("backend still fails"),
            What::Recovered => {
                info!(
                    backend,
                    reason, http_status, down_for_ms, waiting_jobs, failed_polls, "backend recovered"
                );
            }
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The fault as one word, for logs and metrics.
pub(super) fn reason(fault: &BackendFault) -> &'static str {
    match fault.kind {
        FaultKind::Unreachable { .. } => "unreachable",
        FaultKind::Unavailable { .. } => "unavailable",
        FaultKind::Throttled => "throttled",
        FaultKind::Overloaded => "overloaded",
        FaultKind::CredentialsRejected => "credentials_rejected",
        FaultKind::Forbidden => "forbidden",
        FaultKind::Rejected { .. } => "rejected",
        FaultKind::TooLarge => "too_large",
        FaultKind::Malformed { .. } => "malformed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn down() -> BackendFault {
        FaultKind::Unavailable { why: "down".into() }.into()
    }

    fn what(line: Option<Line>) -> Option<What> {
        line.map(|line| line.what)
    }

    #[test]
    fn outage_has_a_begin_a_reminder_a_minute_and_an_end_with_its_duration() {
        let (mut log, start) = (OutageLog::default(), Instant::now());
        assert_eq!(log.answered(start), None);
        let (line, began) = log.failed(&down(), start);
        assert_eq!((what(line), began), (Some(What::Failed), true));
        let mut reminders = 0;
        for second in 1..=150 {
            let at = start + second * SECOND;
            let line = if second % 10 == 0 { log.failed(&down(), at).0 } else { log.remind(at) };
            if let Some(line) = line {
                assert_eq!(line.what, What::StillFailing);
                reminders += 1;
            }
        }
        assert_eq!(reminders, 2);
        let end = log.answered(start + 151 * SECOND).unwrap();
        assert_eq!((end.what, end.down_for, end.failed_polls), (What::Recovered, 151 * SECOND, 16));
        assert_eq!((log.answered(start + 152 * SECOND), log.remind(start + 999 * SECOND)), (None, None));
    }

    #[test]
    fn changed_reason_or_http_status_is_a_line() {
        let (mut log, now) = (OutageLog::default(), Instant::now());
        log.failed(&down(), now);
        let rejected: BackendFault = FaultKind::CredentialsRejected.into();
        let line = log.failed(&rejected, now + SECOND).0.unwrap();
        assert_eq!((line.what, reason(&line.fault)), (What::ReasonChanged, "credentials_rejected"));
        assert_eq!(log.failed(&rejected, now + SECOND).0, None);
        let with_status = BackendFault { http_status: Some(401), ..rejected };
        assert_eq!(what(log.failed(&with_status, now + SECOND).0), Some(What::ReasonChanged));
    }

    #[test]
    fn backend_that_fails_and_recovers_again_and_again_has_few_lines() {
        let (mut log, start) = (OutageLog::default(), Instant::now());
        let (mut begins, mut ends) = (0, 0);
        for half in 0..100 {
            let at = start + half * SECOND / 2;
            if half % 2 == 0 {
                begins += u32::from(log.failed(&down(), at).0.is_some());
            } else {
                ends += u32::from(log.answered(at).is_some());
            }
        }
        assert_eq!((begins, ends), (LINES, LINES));
        let line = log.failed(&down(), start + 2 * REMINDER).0.unwrap();
        assert_eq!((line.what, line.unlogged), (What::Failed, 50 - LINES));
    }

    #[test]
    fn outage_without_a_line_has_one_after_a_minute_and_then_an_end() {
        let (mut log, start) = (OutageLog::default(), Instant::now());
        for _ in 0..LINES {
            log.failed(&down(), start);
            log.answered(start);
        }
        assert_eq!(log.failed(&down(), start), (None, true));
        assert_eq!(log.failed(&down(), start + 30 * SECOND).0, None);
        assert_eq!(what(log.remind(start + 60 * SECOND)), Some(What::StillFailing));
        assert_eq!(what(log.answered(start + 61 * SECOND)), Some(What::Recovered));
    }
}
