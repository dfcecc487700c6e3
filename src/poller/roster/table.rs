//! The rows under the lock: what is due, what is taken together, what is told.

use std::{
    hash::BuildHasher,
    mem,
    sync::{Arc, Mutex},
    time::Duration,
};

use jiff::Timestamp;
use tokio::time::Instant;

use super::{
    ANSWERS_TO_BE_TRUSTED, ANSWERS_TO_RAISE_THE_CEILING, CULPRITS_REMEMBERED, Entry, FEW_JOBS, Followers,
    Interest, LOOKED_AT, Plan, Row, Stage, TOLERANCE, Table, Taken,
};
use crate::{
    adapters::{BackendFault, FaultKind},
    job::{JobRef, View},
    pacing::Backoff,
    poller::{Interruption, Latest, Standing},
    snapshot::Snapshot,
};

impl Table {
    /// The row of a job, if somebody follows it.
    pub(super) fn find(&self, job: &JobRef) -> Option<usize> {
        let hash = self.hasher.hash_one(job);
        self.keys.find(hash, |key| self.rows[*key].entry.job == *job).copied()
    }

    /// Begins a row for a job that has none, to be asked about at `soon`.
    pub(super) fn insert(&mut self, job: &JobRef, soon: Instant, now: Instant) -> usize {
        let entry = Arc::new(Entry { job: job.clone(), news: Mutex::default() });
        let key = self.rows.insert(Row {
            entry,
            followers: Followers::default(),
            stage: Stage::Due(soon),
            asked_at: None,
            answer_at: soon,
            cut: false,
            ask_anew: false,
            changed_at: now,
            failures: 0,
            alone: if self.culprits.contains(job) { ANSWERS_TO_BE_TRUSTED } else { 0 },
            keep: None,
        });
        self.due.insert(soon, key);
        let (rows, hasher) = (&self.rows, &self.hasher);
        self.keys.insert_unique(hasher.hash_one(job), key, |key| hasher.hash_one(&rows[*key].entry.job));
        key
    }

    /// Has somebody follow a row again that nobody does. Whoever asks goes on from what
    /// is known; a watch begins anew, since that may be older than any watch is told.
    pub(super) fn revive(&mut self, key: usize, interest: &Interest, soon: Instant, now: Instant) -> usize {
        match &self.rows[key].stage {
            Stage::Asked(flight) if interest.eager && flight.joined() => {
                self.rows[key].begins_anew();
                return key;
            }
            Stage::Kept => {
                self.let_go(key);
                if interest.eager {
                    let row = &mut self.rows[key];
                    row.begins_anew();
                    // As little as a new one does it share in what others were refused for.
                    row.asked_at = None;
                    self.schedule(key, soon);
                    return key;
                }
            }
            _ => {}
        }
        let Row { entry, keep, .. } = self.remove(key);
        let key = self.insert(&entry.job, soon, now);
        self.rows[key].keep = keep;
        key
    }

    /// The row of a taken job, unless nobody follows it: then it is given up.
    pub(super) fn followed_row(&mut self, taken: &Taken) -> Option<&mut Row> {
        if self.asked(taken)?.followers.is_empty() {
            self.remove(taken.key);
            return None;
        }
        self.asked(taken)
    }

    /// Ends a row.
    pub(super) fn remove(&mut self, key: usize) -> Row {
        let row = self.rows.remove(key);
        if let Ok(found) = self.keys.find_entry(self.hasher.hash_one(&row.entry.job), |other| *other == key) {
            found.remove();
        }
        row
    }

    /// One job that is due: any one that was not refused before, so that one job
    /// that is always refused can't keep the circuit open for the others.
    pub(super) fn next_probe(&self, now: Instant, dice: f64) -> Vec<(Instant, usize)> {
        let due = || self.due.iter().take_while(|(at, _)| *at <= now).take(LOOKED_AT);
        let unsuspected = || due().filter(|(_, key)| self.rows[*key].alone == 0);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
        let pick = (unsuspected().count() as f64 * dice) as usize;
        unsuspected().nth(pick).or_else(|| due().next()).into_iter().collect()
    }

    /// Due jobs that nobody has asked about yet.
    pub(super) fn never_asked(&self, now: Instant) -> Vec<(Instant, usize)> {
        let due = self.due.iter().take_while(|(at, _)| *at <= now).take(LOOKED_AT);
        due.filter(|(_, key)| self.rows[*key].asked_at.is_none()).take(self.ceiling).collect()
    }

    pub(super) fn next_batch(&self, now: Instant, plan: &Plan) -> Vec<(Instant, usize)> {
        let mut keys = Vec::new();
        let mut passed_over = 0;
        for (at, key) in self.due.iter().take(LOOKED_AT) {
            let row = &self.rows[key];
            if row.alone > 0 {
                if at <= now && keys.is_empty() {
                    return vec![(at, key)];
                }
                continue;
            }
            // Half of its wait is over, or it is new and waits for company.
            let soon = match row.asked_at {
                None => at <= now + plan.window,
                Some(asked) => at.saturating_duration_since(now) <= now.saturating_duration_since(asked),
            };
            if at <= now || soon && !keys.is_empty() {
                keys.push((at, key));
            } else if keys.is_empty() || at > now + plan.cadence.max || passed_over == plan.max_batch {
                break;
            } else {
                passed_over += 1;
            }
            if keys.len() == self.ceiling {
                break;
            }
        }
        keys
    }

    /// Whether the next request may be a long poll.
    pub(super) fn may_long_poll(&self, now: Instant) -> bool {
        !self.long_polling
            && self.long_polls_from.is_none_or(|from| from <= now)
            && self.gate.failures() == 0
            && self.followed <= FEW_JOBS.min(self.ceiling)
            && self.due.iter().all(|(_, key)| !self.rows[key].cut && self.rows[key].alone == 0)
    }

    /// Everything that is due at some time, and for how long to hold the request:
    /// the whole seconds until the first of it needs an answer. What is left of
    /// that time is waited for before.
    pub(super) fn next_long_poll(&mut self, now: Instant) -> (Vec<(Instant, usize)>, Duration) {
        let keys: Vec<(Instant, usize)> = self.due.iter().collect();
        let Some(answer_at) = keys.iter().map(|(_, key)| self.rows[*key].answer_at).min() else {
            return (keys, Duration::ZERO);
        };
        let wait = whole_seconds(answer_at.saturating_duration_since(now));
        let begin = answer_at.checked_sub(wait).unwrap_or(now);
        if begin <= now + TOLERANCE {
            return (keys, wait);
        }
        for (_, key) in keys {
            let answer_at = self.rows[key].answer_at;
            self.reschedule(key, begin);
            self.rows[key].answer_at = answer_at;
        }
        (Vec::new(), Duration::ZERO)
    }

    /// Has what is due only for a long poll wait on, where that can't be. With more
    /// than a few jobs there is nothing of the kind: see [`Table::outgrows_long_polls`].
    pub(super) fn put_off_long_polls(&mut self, now: Instant) {
        if self.followed <= FEW_JOBS {
            self.put_off(now);
        }
    }

    /// There are just too many jobs for long polls: no row waits for one any more.
    pub(super) fn outgrows_long_polls(&mut self, now: Instant) {
        let all = self.due.end().unwrap_or(now);
        self.put_off(all);
    }

    /// Has those wait on whose long poll would begin until `begin`.
    fn put_off(&mut self, begin: Instant) {
        let waiting: Vec<usize> = self
            .due
            .iter()
            .take_while(|(at, _)| *at <= begin)
            .filter_map(|(at, key)| (self.rows[key].answer_at > at).then_some(key))
            .collect();
        for key in waiting {
            self.reschedule(key, self.rows[key].answer_at);
        }
    }

    /// Remembers a job that was refused, so that who asks about it again and again
    /// brings no news of the backend.
    pub(super) fn remember(&mut self, job: &JobRef) {
        if self.culprits.len() == CULPRITS_REMEMBERED {
            self.culprits.clear();
        }
        self.culprits.insert(job.clone());
    }

    /// Whether a followed job's last attempt was answered, as far as a short look tells.
    pub(super) fn any_is_answered(&self) -> bool {
        let mut followed = self.rows.iter().filter(|(_, row)| !row.followers.is_empty()).take(LOOKED_AT);
        followed.any(|(_, row)| row.is_answered())
    }

    /// Asks at once about what was put off while the backend was held.
    pub(super) fn resume(&mut self, now: Instant) {
        let put_off = |key: &usize| {
            let row = &self.rows[*key];
            row.alone == 0 && row.failures == 0 && row.is_interrupted()
        };
        let waiting: Vec<usize> =
            self.due.iter().map(|(_, key)| key).filter(put_off).take(LOOKED_AT).collect();
        for key in waiting {
            self.reschedule(key, now);
        }
    }

    /// Dares a little more in one request after many answers.
    pub(super) fn raise_ceiling(&mut self, jobs: usize, plan: &Plan) {
        self.answered += 1;
        self.fits = self.fits.max(jobs);
        if self.ceiling < plan.max_batch && self.answered >= ANSWERS_TO_RAISE_THE_CEILING {
            self.ceiling = (self.ceiling + self.ceiling.div_ceil(8)).min(plan.max_batch);
            self.answered = 0;
        }
    }

    /// The row of a taken job, unless its followers have left since.
    pub(super) fn asked(&mut self, taken: &Taken) -> Option<&mut Row> {
        let row = self.rows.get_mut(taken.key)?;
        Arc::ptr_eq(&row.entry, &taken.entry).then_some(row)
    }

    /// Has a job that is not due asked about at `at`.
    pub(super) fn schedule(&mut self, key: usize, at: Instant) {
        self.rows[key].stage = Stage::Due(at);
        self.rows[key].answer_at = at;
        self.due.insert(at, key);
    }

    /// Has a job that is due asked about at another time.
    pub(super) fn reschedule(&mut self, key: usize, at: Instant) {
        if let Stage::Due(before) = self.rows[key].stage {
            self.due.remove(before, key);
            self.schedule(key, at);
        }
    }

    /// Has a job asked about after `interval`, by a long poll if that can be.
    pub(super) fn schedule_after(&mut self, key: usize, now: Instant, interval: Duration, plan: &Plan) {
        let answer_at = now + interval;
        self.schedule(key, answer_at);
        let row = &mut self.rows[key];
        let cut = mem::take(&mut row.cut);
        if plan.long_poll && !cut && row.alone == 0 && self.followed <= FEW_JOBS.min(self.ceiling) {
            self.reschedule(key, now + interval.saturating_sub(whole_seconds(interval)));
            self.rows[key].answer_at = answer_at;
        }
    }
}

/// What a vendor can be asked to hold a request for.
fn whole_seconds(time: Duration) -> Duration {
    Duration::from_secs((time + TOLERANCE).as_secs())
}

impl Row {
    /// Publishes what was observed; `None` for the same as before. Returns it if it
    /// is the last.
    pub(super) fn observed(
        &mut self,
        snapshot: Option<Snapshot>,
        now: Instant,
        time: Timestamp,
    ) -> Option<Latest> {
        let mut guard = self.entry.news();
        let news = &mut *guard;
        let (mut changed, mut shown) = (false, false);
        match (&mut news.latest, snapshot) {
            (Some(latest), snapshot) => {
                if let Some(snapshot) = snapshot
                    && latest.snapshot.differs_from(&snapshot)
                {
                    changed = true;
                    // What a vendor changes beside what it documents does not speed polls up.
                    let seen = |snapshot: &Snapshot| snapshot.fingerprint(View::STANDARD);
                    shown = seen(&latest.snapshot) != seen(&snapshot);
                    latest.snapshot = Arc::new(snapshot);
                }
                (latest.time, latest.at) = (time, now);
            }
            (None, Some(snapshot)) => {
                (changed, shown) = (true, true);
                news.latest = Some(Latest { snapshot: Arc::new(snapshot), time, at: now });
            }
            // Nothing was known that could be the same.
            (None, None) => {}
        }
        let recovered = mem::replace(&mut news.standing, Standing::Observed) != Standing::Observed;
        news.attempts += 1;
        news.answers += 1;
        let last = news.latest.as_ref().filter(|latest| latest.snapshot.is_terminal()).cloned();
        drop(guard);
        self.failures = 0;
        self.alone = self.alone.saturating_sub(1);
        if shown {
            self.changed_at = now;
        }
        let everybody = mem::take(&mut self.ask_anew) || changed || recovered;
        self.tell(everybody);
        last
    }

    pub(super) fn missing(&mut self) {
        let times = match self.entry.news().standing {
            Standing::Missing { times } => times,
            _ => 0,
        };
        self.stands(Standing::Missing { times: times.saturating_add(1) });
    }

    /// It failed for itself. Returns when it is asked about again.
    pub(super) fn failed(
        &mut self,
        fault: BackendFault,
        backoff: &Backoff,
        now: Instant,
        dice: f64,
    ) -> Instant {
        self.failures = self.failures.saturating_add(1);
        let at = now + backoff.wait(self.failures, dice);
        self.interrupted(Interruption::until(fault, at, now));
        at
    }

    /// Somebody follows it again: what is known is what was told before that.
    fn begins_anew(&self) {
        self.entry.news().standing = Standing::Unasked;
    }

    /// Whether its last attempt was answered.
    pub(super) fn is_answered(&self) -> bool {
        self.entry.news().standing == Standing::Observed
    }

    /// Whether it could not be asked about.
    pub(super) fn is_interrupted(&self) -> bool {
        matches!(self.entry.news().standing, Standing::Interrupted(_))
    }

    /// Whether it waits because the gateway's credentials were rejected.
    pub(super) fn is_rejected(&self) -> bool {
        matches!(&self.entry.news().standing, Standing::Interrupted(interruption)
            if interruption.fault.kind == FaultKind::CredentialsRejected)
    }

    /// It can't be asked about, as the others can't. What the vendor said of it alone
    /// stays.
    pub(super) fn held(&mut self, interruption: &Arc<Interruption>) {
        let own = match &self.entry.news().standing {
            Standing::Interrupted(own) if own.fault.without_words() == interruption.fault => {
                Some(Arc::new(Interruption { fault: own.fault.clone(), ..(**interruption).clone() }))
            }
            _ => None,
        };
        self.interrupted(own.unwrap_or_else(|| Arc::clone(interruption)));
    }

    pub(super) fn interrupted(&mut self, interruption: Arc<Interruption>) {
        self.stands(Standing::Interrupted(interruption));
    }

    pub(super) fn stands(&mut self, standing: Standing) {
        let mut news = self.entry.news();
        news.standing = standing;
        news.attempts += 1;
        drop(news);
        self.tell(true);
    }

    pub(super) fn tell(&self, everyone: bool) {
        for follower in self.followers.iter() {
            if everyone || follower.eager {
                follower.mailbox.post(follower.slot);
            }
        }
    }
}
