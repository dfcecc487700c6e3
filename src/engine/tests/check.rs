//! The invariants of a backend's state.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use crate::{
    engine::{
        Backend, LatestStatus,
        job_table::{JobEntry, Stage},
        scheduler::Class,
        state::State,
    },
    job::JobRef,
};

impl Backend {
    /// Checks the invariants. Not while an answer is being published on another thread.
    pub(super) fn check(&self) {
        let state = self.state();
        state.check();
        assert_eq!(self.memory().jobs(), state.jobs.len(), "every entry is counted once");
    }

    /// The latest status of a job; does not count as a call for it.
    pub(super) fn known(&self, job: &JobRef) -> Option<LatestStatus> {
        let state = self.state();
        let entry = &state.jobs[state.jobs.find(job)?];
        entry.shared.record().latest.clone()
    }
}

impl State {
    /// Every job is in exactly one place, and the indexes agree.
    fn check(&self) {
        let mut scheduled: BTreeMap<usize, &str> = BTreeMap::new();
        let timers = self.scheduler.timers().map(|(_, number)| (number, "timer queue"));
        let ready = self.scheduler.ready().map(|number| (number, "ready queue"));
        for (number, place) in timers.chain(ready) {
            let other = scheduled.insert(number, place);
            assert_eq!(other, None, "a job is scheduled once");
        }
        let mut isolating = BTreeSet::new();
        for taken in self.isolation.jobs() {
            let is_current = |entry: &JobEntry| Arc::ptr_eq(&entry.shared, &taken.shared);
            if self.jobs.get(taken.number).is_some_and(is_current) {
                assert!(isolating.insert(taken.number), "a job is in one part of a failed batch");
            }
        }
        let (mut retained, mut subscribed, mut polls) = (Vec::new(), 0, HashMap::new());
        let mut waiting = 0;
        for (number, entry) in self.jobs.iter() {
            let job = &entry.shared.job;
            assert_eq!(self.jobs.find(job), Some(number), "an entry is found by its job");
            let has_subscribers = !entry.subscribers.is_empty();
            assert_eq!(has_subscribers, entry.subscribers.iter().count() > 0);
            subscribed += usize::from(has_subscribers);
            assert!(has_subscribers || entry.waiting.is_none(), "only subscribers wait");
            if entry.quarantined {
                assert!(self.quarantine.contains(job), "{job:?} can leave the quarantine");
            }
            let place = scheduled.remove(&number);
            let is_isolating = isolating.remove(&number);
            let (in_scheduler, in_isolation) = match &entry.stage {
                Stage::Scheduled => {
                    assert!(has_subscribers, "what is scheduled has subscribers");
                    if let Some(class) = self.scheduler.ready_class(number) {
                        assert_eq!(class, entry.class(), "a job is in the ready queue of its class");
                    }
                    let class = self.scheduler.ready_class(number);
                    waiting += usize::from(class == Some(Class::Waiting));
                    (true, false)
                }
                Stage::InFlight(poll) => {
                    let (_, count) = polls.entry(Arc::as_ptr(poll)).or_insert((poll, 0));
                    *count += usize::from(has_subscribers);
                    (false, false)
                }
                Stage::Isolating => {
                    assert!(has_subscribers, "what is being isolated has subscribers");
                    (false, true)
                }
                Stage::Retained => {
                    assert!(!has_subscribers, "what is retained has no subscribers");
                    let retained_job = entry.as_retained().expect("there is a status to retain");
                    retained.push((number, retained_job));
                    (false, false)
                }
                Stage::Ended => {
                    assert!(has_subscribers, "what has ended stays for its subscribers");
                    (false, false)
                }
            };
            assert_eq!(place.is_some(), in_scheduler, "{:?} in the {place:?}", entry.stage);
            assert_eq!(is_isolating, in_isolation, "{:?}", entry.stage);
        }
        assert!(scheduled.is_empty(), "what is scheduled has an entry");
        for (poll, count) in polls.into_values() {
            assert_eq!(poll.subscribed(), count, "the subscribed jobs of a poll");
        }
        assert_eq!(self.scheduler.waiting(), waiting, "the jobs of waiting calls");
        assert_eq!(self.stats.subscribed, subscribed, "the subscribed jobs");
        assert_eq!(self.jobs.numbers(), self.jobs.len());
        self.retained.check(&retained);
    }
}
