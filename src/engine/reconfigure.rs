//! Jobs take over new settings of their backend.

use tokio::time::Instant;

use super::{
    Check, KnownJobs,
    backend::Backend,
    batching::BatchLimit,
    isolation::Isolation,
    job_table::{PollOutcome, Stage},
    quarantine::Quarantine,
    state::{PollPlan, State},
};

impl Backend {
    /// Has all jobs polled with these settings. No poll is in flight.
    pub(super) fn reconfigure(&self, plan: PollPlan, check: &Check, known: KnownJobs) {
        self.rate_limiter().set_per_second(plan.requests_per_second);
        self.state().reconfigure(plan, check, known, Instant::now());
        if known == KnownJobs::Others {
            self.memory().cache.forget_backend(self.name());
        }
        self.changed();
    }
}

impl State {
    /// What was learned about the backend may hold no longer: it begins as a new one, with
    /// the jobs of the old.
    fn reconfigure(&mut self, plan: PollPlan, check: &Check, known: KnownJobs, now: Instant) {
        self.plan = plan;
        self.quarantine = Quarantine::new(plan.requests_per_second, plan.max_concurrency);
        self.isolation = Isolation::default();
        self.batch_limit = BatchLimit::new(plan.max_batch.get());
        self.breaker.restart(plan.backoff, known);
        self.forget_failures();
        if known == KnownJobs::Others {
            while self.evict_first() {}
        }
        let numbers: Vec<usize> = self.jobs.iter().map(|(number, _)| number).collect();
        for number in numbers {
            self.take_over(number, check, known, now);
        }
    }

    fn take_over(&mut self, number: usize, check: &Check, known: KnownJobs, now: Instant) {
        match self.jobs[number].stage {
            Stage::Retained => return,
            // Its subscribers have yet to read its terminal status. A new one begins anew.
            Stage::Ended => {
                if known == KnownJobs::Others {
                    self.jobs.detach(number);
                }
                return;
            }
            Stage::Scheduled | Stage::InFlight(_) | Stage::Isolating => {}
        }
        let entry = &mut self.jobs[number];
        (entry.quarantined, entry.suspect, entry.failures) = (false, false, 0);
        if known == KnownJobs::Others {
            entry.polled_at = None;
            let mut record = entry.shared.record();
            (record.latest, record.outcome) = (None, PollOutcome::NotPolled);
        }
        if let Err(invalid) = check(&entry.shared.job) {
            // It can't be polled: calls and watches end with that.
            entry.invalid(invalid.reason);
            entry.stage = Stage::Ended;
            self.scheduler.remove(number);
            return;
        }
        self.schedule(number, now);
    }
}
