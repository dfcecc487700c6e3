//! Follows any number of jobs for one caller, over one call.
//!
//! The watches of a call share one [`Mailbox`]: it names those that have news,
//! each once, in the order in which they had it. The reader takes them one by one
//! and looks at each job's newest state. So a busy job can't starve another, and
//! a reader that stalls finds each job's newest state when it comes back; nothing
//! but the number of its watches bounds, and nothing more costs, memory.
//!
//! Requests are taken in by another task than updates are taken out by, so a
//! caller may add all its watches before it reads the first update.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use slab::Slab;
use tokio::{sync::Notify, time::Instant};

use super::{
    Caller, Failure, Hub, Update, WatchOptions,
    inquiry::at,
    watch::{Open, Step},
};
use crate::{
    job::JobRef,
    poller::{Calendar, Mailbox},
};

/// Ends of watches that wait to be read, before no further request is taken in.
const ENDS_WAITING: usize = 1024;

/// The watches of one call. Clones share them.
#[derive(Clone, Debug)]
pub struct Watches {
    hub: Arc<Hub>,
    caller: Caller,
    deadline: Option<Instant>,
    shared: Arc<Shared>,
}

/// What there is to say of one watch.
#[derive(Debug)]
pub enum Outcome {
    /// What a watch of this job alone would have said.
    Update(JobRef, Update),
    /// The watch is over.
    End(End),
}

/// Why a watch is over.
#[derive(Debug, Default)]
pub struct End {
    /// `None` after the terminal status, or at the caller's wish.
    pub failure: Option<Failure>,
    /// The job, where the failure is about one.
    pub job: Option<JobRef>,
}

#[derive(Debug, Default)]
struct Shared {
    mailbox: Arc<Mailbox>,
    table: Mutex<Table>,
    /// There are ends to read, or no more requests will come.
    changed: Notify,
    /// There is room for ends again.
    room: Notify,
}

#[derive(Debug, Default)]
struct Table {
    watches: Slab<One>,
    slots: HashMap<u64, usize>,
    ends: VecDeque<(u64, End)>,
    /// When each watch may have to say that it is alive, at the earliest.
    beats: Calendar,
    /// When the first watch was opened.
    begun: Option<Instant>,
    /// No more requests will come.
    complete: bool,
    /// Why the whole call ends.
    failure: Option<Failure>,
    /// The server stops: so many watches may still say something.
    last_words: Option<usize>,
}

#[derive(Debug)]
struct One {
    id: u64,
    open: Open,
    spoke: Instant,
    beats_at: Instant,
}

impl Hub {
    /// A call without watches yet.
    pub fn watches(self: &Arc<Self>, caller: Caller, deadline: Option<Instant>) -> Watches {
        Watches { hub: Arc::clone(self), caller, deadline, shared: Arc::default() }
    }
}

impl Watches {
    /// Starts a watch. What is wrong with it is that watch's end.
    pub async fn add(&self, id: u64, job: &JobRef, options: &WatchOptions) {
        self.wait_for_room().await;
        let mut guard = self.lock();
        let table = &mut *guard;
        let limit = self.hub.quotas.limits().per_call;
        let slot = table.watches.vacant_key();
        let opened = match u32::try_from(slot) {
            _ if table.slots.contains_key(&id) => Err(Failure::InvalidRequest {
                field: "add.watch_id".into(),
                reason: "is in use by an open watch, which goes on; choose another".into(),
            }),
            Ok(number) if table.watches.len() < limit => {
                self.hub.open(job, self.caller, options, &self.shared.mailbox, number)
            }
            _ => Err(Failure::TooManyWatches { key: "limits.watches_per_call", limit }),
        };
        match opened {
            Ok(open) => {
                let spoke = Instant::now();
                let beats_at = table.beats_at(spoke, open.heartbeat);
                table.watches.insert(One { id, open, spoke, beats_at });
                table.slots.insert(id, slot);
                table.beats.insert(beats_at, slot);
                drop(guard);
                self.post(slot);
            }
            Err(failure) => {
                let end = End { failure: Some(failure), job: Some(job.clone()) };
                table.ends.push_back((id, end));
                drop(guard);
            }
        }
        self.shared.changed.notify_one();
    }

    /// Ends a watch at the caller's wish.
    pub async fn remove(&self, id: u64) {
        self.wait_for_room().await;
        let mut table = self.lock();
        let end = if let Some(&slot) = table.slots.get(&id) {
            table.close(slot);
            End::default()
        } else {
            let (field, reason) = ("remove.watch_id".into(), "is of no open watch".into());
            End { failure: Some(Failure::InvalidRequest { field, reason }), job: None }
        };
        table.ends.push_back((id, end));
        drop(table);
        self.shared.changed.notify_one();
    }

    /// Refuses a watch that could not even be read.
    pub async fn refuse(&self, id: u64, failure: Failure) {
        self.wait_for_room().await;
        self.lock().ends.push_back((id, End { failure: Some(failure), job: None }));
        self.shared.changed.notify_one();
    }

    /// The call can't go on.
    pub fn fail(&self, failure: Failure) {
        self.lock().failure = Some(failure);
        self.shared.changed.notify_one();
    }

    /// No more requests will come: the call ends with its last watch.
    pub fn complete(&self) {
        self.lock().complete = true;
        self.shared.changed.notify_one();
    }

    /// What there is to say next, and of which watch; `None` when the last watch
    /// of a complete call has ended.
    ///
    /// # Errors
    /// The whole call's: its deadline, or the server's shutdown, after the newest
    /// state of each watch.
    pub async fn next(&self) -> Option<Result<(u64, Outcome), Failure>> {
        loop {
            let now = Instant::now();
            let wake = {
                let mut table = self.lock();
                if let Some((id, end)) = table.ends.pop_front() {
                    self.shared.room.notify_one();
                    return Some(Ok((id, Outcome::End(end))));
                }
                if self.deadline.is_some_and(|deadline| deadline <= now) {
                    return Some(Err(Failure::Deadline));
                }
                if self.hub.shutdown.is_cancelled() && table.last_words.is_none() {
                    // Each watch that has news says it once more, and no other.
                    table.last_words = Some(self.shared.mailbox.waiting());
                }
                while table.last_words != Some(0)
                    && let Some(slot) = self.shared.mailbox.try_next()
                {
                    table.last_words = table.last_words.map(|left| left - 1);
                    if let Some(said) = self.look(&mut table, slot as usize, now) {
                        return Some(Ok(said));
                    }
                }
                if table.last_words.is_some() {
                    return Some(Err(Failure::ShuttingDown));
                }
                if let Some(failure) = table.failure.take() {
                    return Some(Err(failure));
                }
                if table.complete && table.watches.is_empty() {
                    return None;
                }
                if let Some(said) = table.beat(now) {
                    return Some(Ok(said));
                }
                table.beats.first().map(|(at, _)| at).into_iter().chain(self.deadline).min()
            };
            tokio::select! {
                () = self.shared.mailbox.arrived() => {}
                () = self.shared.changed.notified() => {}
                () = self.hub.shutdown.cancelled() => {}
                () = at(wake) => {}
            }
        }
    }

    /// Lets one watch say the next thing, if it has one to say.
    fn look(&self, table: &mut Table, slot: usize, now: Instant) -> Option<(u64, Outcome)> {
        let one = table.watches.get_mut(slot)?;
        match one.open.step(now) {
            Step::Say { event, more } => {
                one.spoke = now;
                let said = (one.id, Outcome::Update(one.open.job().clone(), one.open.update(event)));
                if more {
                    // After everybody else.
                    self.post(slot);
                }
                Some(said)
            }
            Step::End(failure) => {
                let id = one.id;
                let job = one.open.job().clone();
                table.close(slot);
                Some((id, Outcome::End(End { failure, job: Some(job) })))
            }
            Step::Wait => None,
        }
    }

    fn post(&self, slot: usize) {
        if let Ok(slot) = u32::try_from(slot) {
            self.shared.mailbox.post(slot);
        }
    }

    async fn wait_for_room(&self) {
        while self.lock().ends.len() >= ENDS_WAITING {
            self.shared.room.notified().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.shared.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// When a watch that spoke then has to say that it is alive, in whole milliseconds:
    /// so thousands share a place in the calendar.
    fn beats_at(&mut self, spoke: Instant, heartbeat: Duration) -> Instant {
        let begun = *self.begun.get_or_insert(spoke);
        let silence = spoke.saturating_duration_since(begun).saturating_add(heartbeat);
        let millis = u64::try_from(silence.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX);
        begun + Duration::from_millis(millis)
    }

    fn close(&mut self, slot: usize) {
        let one = self.watches.remove(slot);
        self.slots.remove(&one.id);
        self.beats.remove(one.beats_at, slot);
    }

    /// Lets a watch that has been silent for its heartbeat say that it is alive.
    /// A watch that spoke since it was put in line is put in again.
    fn beat(&mut self, now: Instant) -> Option<(u64, Outcome)> {
        while let Some((at, slot)) = self.beats.first().filter(|(at, _)| *at <= now) {
            self.beats.remove(at, slot);
            let one = &mut self.watches[slot];
            let silent = one.spoke + one.open.heartbeat <= now;
            if silent {
                one.spoke = now;
            }
            let (spoke, heartbeat) = (one.spoke, one.open.heartbeat);
            let beats_at = self.beats_at(spoke, heartbeat);
            self.beats.insert(beats_at, slot);
            let one = &mut self.watches[slot];
            one.beats_at = beats_at;
            if silent {
                let update = one.open.update(one.open.alive());
                return Some((one.id, Outcome::Update(one.open.job().clone(), update)));
            }
        }
        None
    }
}
