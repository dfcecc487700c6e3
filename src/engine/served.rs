//! Which calls a poll serves, for traces.

use super::job_table::{JobEntry, Stage};
use crate::telemetry::traces::PollSpan;

impl JobEntry {
    /// A poll of the job begins: notes it with the calls that wait for it, and with watches
    /// whose first status it brings.
    pub(super) fn serve_waiters(&self, poll: &PollSpan) {
        let since = self.waiting.as_ref().map(|waiting| waiting.since);
        let is_first = self.polled_at.is_none();
        for subscriber in self.subscribers.iter() {
            if let Some(waiter) = subscriber.queue.waiter().filter(|_| subscriber.every_poll || is_first) {
                poll.serves(waiter, since);
            }
        }
    }

    /// A subscriber that needs a poll joins the one in flight, if there is one.
    pub(super) fn join_poll(&self, subscriber: usize) {
        if let Stage::InFlight(poll) = &self.stage
            && let Some(span) = poll.span()
            && let Some(waiter) = self.subscribers.get(subscriber).and_then(|of| of.queue.waiter())
        {
            span.serves(waiter, None);
        }
    }
}
