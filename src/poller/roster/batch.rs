//! What becomes of the jobs of one flight: answered, refused, failed, cut short.

use std::{mem, sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    ANSWERS_TO_BE_TRUSTED, BACK_OF_THE_LINE, Entry, Flight, REFUSALS_OF_A_BACKEND, Roster, Stage,
    WITHOUT_LONG_POLLS,
};
use crate::{
    job::{BackendFault, FaultKind, JobFault, JobRef, PayloadHash, StandbyFault::NeedsJobTag},
    poller::{Interruption, Latest, Standing},
    snapshot::Snapshot,
};

/// Jobs taken off the schedule to be asked about together. What is not answered
/// when this is dropped goes back on it.
#[derive(Debug)]
pub struct Batch {
    pub(super) roster: Arc<Roster>,
    pub(super) flight: Arc<Flight>,
    pub(super) open: Vec<Taken>,
    pub(super) began: Instant,
    pub(super) probe: bool,
    /// Jobs that were never asked about, let through while the backend is held for
    /// what it refused: what it says of them does not hold it any longer.
    pub(super) passing: bool,
}

/// What a refusal of a single job says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Nothing: it was refused before.
    Known,
    /// The job is the culprit.
    New,
    /// The backend refuses everything.
    Backends,
}

/// One job of a [`Batch`].
#[derive(Clone, Debug)]
pub struct Taken {
    pub(super) key: usize,
    pub(super) entry: Arc<Entry>,
}

impl Taken {
    /// The job.
    pub fn job(&self) -> &JobRef {
        &self.entry.job
    }

    /// The hash of what its newest observation was read from.
    pub fn payload_hash(&self) -> Option<PayloadHash> {
        self.entry.news().latest.as_ref()?.snapshot.payload_hash
    }
}

impl Batch {
    /// The jobs that are neither answered nor failed yet.
    pub fn open(&self) -> Vec<Taken> {
        self.open.clone()
    }

    /// Leaves out those that nobody follows, or not any more.
    pub fn only_followed(&self, part: &mut Vec<Taken>) {
        let mut table = self.roster.lock();
        part.retain(|taken| table.followed_row(taken).is_some());
    }

    /// Ends when nobody follows any of the jobs any more.
    pub fn given_up(&self) -> CancellationToken {
        self.flight.given_up.clone()
    }

    /// How long the vendor is asked to hold the request; zero for not at all.
    pub fn wait(&self) -> Duration {
        self.flight.wait
    }

    /// Ends when somebody needs an answer before the long poll is over.
    pub fn cut_short(&self) -> CancellationToken {
        self.flight.cut.clone()
    }

    /// The long poll failed, which a proxy that ends long requests may have brought
    /// about: its jobs are asked about in the usual way, and so for a while.
    pub fn long_poll_failed(&mut self) {
        let now = Instant::now();
        let roster = Arc::clone(&self.roster);
        let mut guard = roster.lock();
        let table = &mut *guard;
        table.long_polls_from = Some(now + WITHOUT_LONG_POLLS);
        for taken in mem::take(&mut self.open) {
            if table.followed_row(&taken).is_some() {
                table.schedule(taken.key, now);
            }
        }
    }

    /// The long poll was cut short: its jobs are asked about as if it had not been,
    /// those that somebody needs an answer about at once.
    pub fn cut(&mut self) {
        let now = Instant::now();
        let roster = Arc::clone(&self.roster);
        let mut guard = roster.lock();
        let table = &mut *guard;
        for taken in mem::take(&mut self.open) {
            if let Some(row) = table.followed_row(&taken) {
                let at = if row.cut { now + roster.plan.window } else { row.answer_at };
                row.cut = true;
                table.schedule(taken.key, at);
            }
        }
    }

    /// The vendor answered about `part`. Returns whether that ended a series of
    /// failures of the backend.
    pub fn answered(
        &mut self,
        part: &[Taken],
        answers: Vec<Result<Option<Snapshot>, JobFault>>,
        dice: f64,
    ) -> bool {
        let (now, time) = (Instant::now(), Timestamp::now());
        let roster = Arc::clone(&self.roster);
        let mut guard = roster.lock();
        let table = &mut *guard;
        // A job that the backend was not asked about says nothing of the backend.
        let heard = |answer: &Result<_, JobFault>| !matches!(answer, Err(JobFault::Standby(NeedsJobTag)));
        let recovered = if answers.iter().any(heard) {
            table.refused = 0;
            table.raise_ceiling(part.len(), &roster.plan);
            (table.last_fault, table.last_answer) = (None, Some(time));
            table.gate.succeeded()
        } else {
            table.last_fault = Some(NeedsJobTag.into());
            false
        };
        let backoff = table.gate.backoff();
        let mut ended = Vec::new();
        let mut followed = 0;
        // What was to be held counts as answered when it was to be, even if sooner.
        let took = now.saturating_duration_since(self.began);
        let answered_at = if took < self.flight.wait { self.began + self.flight.wait + took } else { now };
        for (taken, answer) in part.iter().zip(answers) {
            let Some(row) = table.asked(taken) else {
                // Nobody asks any more, but whoever asks next shall know the end.
                if let Ok(Some(snapshot)) = answer
                    && snapshot.is_terminal()
                {
                    let latest = Latest { snapshot: Arc::new(snapshot), time, at: now };
                    ended.push((taken.job().clone(), latest));
                }
                continue;
            };
            if row.followers.is_empty() {
                let Ok(snapshot) = answer else {
                    table.remove(taken.key);
                    continue;
                };
                let last = row.observed(snapshot, now, time);
                if last.is_some() {
                    table.remove(taken.key);
                } else {
                    table.keep(taken.key, now);
                }
                ended.extend(last.map(|last| (taken.job().clone(), last)));
                continue;
            }
            followed += 1;
            let next = match answer {
                Ok(snapshot) => {
                    let trusted = row.alone == 0;
                    if let Some(last) = row.observed(snapshot, now, time) {
                        row.stage = Stage::Ended;
                        ended.push((taken.job().clone(), last));
                    } else {
                        let interval = roster.interval(row, answered_at);
                        if !trusted {
                            table.culprits.remove(taken.job());
                        }
                        table.schedule_after(taken.key, answered_at, interval, &roster.plan);
                    }
                    continue;
                }
                Err(JobFault::NotFound) => {
                    row.failures = 0;
                    row.missing();
                    now + roster.plan.cadence.min
                }
                Err(JobFault::Invalid { message }) => {
                    row.stands(Standing::Invalid(message.into()));
                    now + roster.plan.cadence.max
                }
                Err(JobFault::Forbidden) => row.failed(FaultKind::Forbidden.into(), &backoff, now, dice),
                Err(JobFault::Malformed { why }) => {
                    row.failed(FaultKind::Malformed { why }.into(), &backoff, now, dice)
                }
                Err(JobFault::Standby(fault)) => row.failed(fault.into(), &backoff, now, dice),
            };
            table.schedule(taken.key, next);
        }
        if recovered {
            table.resume(now);
        }
        drop(guard);
        self.close(part, followed);
        for (job, last) in ended {
            roster.ended.insert(job, last);
        }
        recovered
    }

    /// The vendor refused to answer about `taken` alone: from now on it is asked
    /// about alone. Says whether that is known by now to be this job's own fault, or
    /// news of it, or whether so many were refused, with no answer in between, that
    /// the backend has to be the reason.
    pub fn refused(&mut self, taken: &Taken, fault: &BackendFault, dice: f64) -> Refusal {
        let now = Instant::now();
        let roster = Arc::clone(&self.roster);
        let mut guard = roster.lock();
        let table = &mut *guard;
        table.last_fault = Some(fault.without_words());
        let backoff = table.gate.backoff();
        let mut refusal = Refusal::Known;
        let mut followed = 0;
        let mut was_answered = false;
        if let Some(row) = table.followed_row(taken) {
            followed = 1;
            let first = row.alone == 0;
            was_answered = row.is_answered();
            row.alone = ANSWERS_TO_BE_TRUSTED;
            let at = row.failed(fault.clone(), &backoff, now, dice);
            table.schedule(taken.key, at);
            if first {
                table.refused += 1;
                refusal = Refusal::New;
                table.remember(taken.job());
            }
        }
        let so_many = refusal == Refusal::New && table.refused > REFUSALS_OF_A_BACKEND;
        // As long as others are answered, the jobs are the reason.
        let all_around = || was_answered || !table.any_is_answered();
        if !self.passing && (self.probe || so_many && all_around()) {
            refusal = Refusal::Backends;
        }
        drop(guard);
        self.close(std::slice::from_ref(taken), followed);
        refusal
    }

    /// Whether so many jobs were refused that one of a refused batch is better asked
    /// about before the batch is split.
    pub fn is_suspicious(&self) -> bool {
        !self.passing && self.roster.lock().refused > REFUSALS_OF_A_BACKEND
    }

    /// The answer about `jobs` jobs was too large: fewer are asked about at once.
    pub fn too_large(&self, jobs: usize) {
        let mut table = self.roster.lock();
        if table.fits >= jobs {
            table.fits = 0;
        }
        table.ceiling = table.ceiling.min(table.fits.max(jobs.div_ceil(2)));
        table.answered = 0;
    }

    /// The backend failed: it said nothing about the jobs that are still open.
    /// Returns how often it has failed in a row.
    pub fn failed(&mut self, fault: &BackendFault, dice: f64) -> u32 {
        let now = Instant::now();
        let roster = Arc::clone(&self.roster);
        let mut guard = roster.lock();
        let table = &mut *guard;
        let at = table.gate.failed(fault, self.began, now, dice);
        table.last_fault = Some(fault.clone());
        let interruption = Interruption::until(fault.clone(), at, now);
        for taken in mem::take(&mut self.open) {
            let Some(row) = table.asked(&taken) else { continue };
            if row.followers.is_empty() {
                table.keep(taken.key, now);
            } else {
                row.held(&interruption);
                table.schedule(taken.key, at + BACK_OF_THE_LINE);
            }
        }
        table.gate.failures()
    }

    /// These jobs are done with; `followed` of them still had followers.
    fn close(&mut self, part: &[Taken], followed: usize) {
        for _ in 0..followed {
            self.flight.left();
        }
        if part.len() == self.open.len() {
            self.open.clear();
        } else {
            self.open.retain(|open| !part.iter().any(|taken| Arc::ptr_eq(&taken.entry, &open.entry)));
            self.roster.changed.notify_one();
        }
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        // Open jobs are left only by a poll that was given up or has panicked.
        let now = Instant::now();
        let mut guard = self.roster.lock();
        let table = &mut *guard;
        if self.probe {
            table.gate.probe_ends();
        }
        if !self.flight.wait.is_zero() {
            table.long_polling = false;
        }
        let at = now + self.roster.plan.cadence.max;
        let given_up = self.flight.given_up.is_cancelled();
        for taken in mem::take(&mut self.open) {
            let Some(row) = table.asked(&taken) else { continue };
            match (row.followers.is_empty(), given_up) {
                (true, true) => table.keep(taken.key, now),
                (true, false) => drop(table.remove(taken.key)),
                // Somebody joined just as the last of the others had left.
                (false, true) => table.schedule(taken.key, now),
                (false, false) => {
                    let fault = FaultKind::Malformed { why: "it broke the gateway's reading of it" };
                    row.interrupted(Interruption::until(fault.into(), at, now));
                    table.schedule(taken.key, at);
                }
            }
        }
        drop(guard);
        self.roster.changed.notify_one();
    }
}
