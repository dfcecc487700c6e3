//! Watches any number of jobs for one caller, over one call.
//!
//! The watches of a call share one [`NotificationQueue`]: it names those that have a new
//! status, each once, in the order in which they had it. The reader takes them one by one
//! and looks at each job's newest status. So a busy job can't starve another, and a reader
//! that stalls finds each job's newest status when it comes back; memory is bounded by the
//! number of its watches.
//!
//! One task takes in requests and another takes out updates, so a caller may add all its
//! watches before it reads the first update.

use std::{
    collections::{HashMap, VecDeque},
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use slab::Slab;
use tokio::{sync::Notify, time::Instant};

use super::{
    Caller, Engine, Failure, MissedDeadline, NotificationQueue, Update, WatchOptions,
    get::at,
    list::Links,
    timer_queue::TimerQueue,
    watch::{OpenWatch, Step},
};
use crate::job::JobRef;

/// Ends of watches that wait to be read; beyond it no further request is taken in.
const ENDS_WAITING: usize = 1024;

/// The watches of one call. Clones share them.
#[derive(Clone, Debug)]
pub struct WatchSet {
    engine: Arc<Engine>,
    caller: Caller,
    deadline: Option<Instant>,
    shared: Arc<Shared>,
}

/// What one watch of a call sends.
#[derive(Debug)]
pub enum Outcome {
    /// What a watch of this job alone would have sent.
    Update(JobRef, Update),
    /// The watch is over.
    End(End),
    /// A request was refused. No watch began or ended with it.
    Rejected(Failure),
}

/// Why a watch is over.
#[derive(Debug, Default)]
pub struct End {
    /// `None` after the terminal status, or where the caller removed the watch.
    pub failure: Option<Failure>,
    /// The job, where the failure is about one.
    pub job: Option<JobRef>,
}

#[derive(Debug, Default)]
struct Shared {
    queue: Arc<NotificationQueue>,
    table: Mutex<Table>,
    /// There are ends to read, or no more requests will come.
    changed: Notify,
    /// There is room for ends again.
    room: Notify,
}

#[derive(Debug, Default)]
struct Table {
    watches: Slab<Member>,
    slots: HashMap<u64, usize>,
    /// Only ends and rejections.
    ends: VecDeque<(u64, Outcome)>,
    /// When each watch may have to send a heartbeat, at the earliest.
    heartbeats: TimerQueue,
    links: Links,
    /// When the first watch was opened.
    began: Option<Instant>,
    /// No more requests will come.
    complete: bool,
    /// Why the whole call ends.
    failure: Option<Failure>,
    /// The call's connection is too old.
    connection_expired: bool,
    /// The call ends: so many watches may still send something.
    last_updates: Option<usize>,
}

#[derive(Debug)]
struct Member {
    id: u64,
    open: OpenWatch,
    sent_at: Instant,
    heartbeat_at: Instant,
}

impl WatchSet {
    /// A call without watches yet.
    pub(super) fn new(engine: &Arc<Engine>, caller: Caller, deadline: Option<Instant>) -> Self {
        let shared =
            Shared { queue: Arc::new(NotificationQueue::of_call(caller.key())), ..Shared::default() };
        Self { engine: Arc::clone(engine), caller, deadline, shared: Arc::new(shared) }
    }

    /// Starts a watch. What is wrong with it is that watch's end.
    pub async fn add(&self, id: u64, job: &JobRef, options: &WatchOptions) {
        self.wait_for_room().await;
        let mut guard = self.lock();
        let table = &mut *guard;
        let limit = self.engine.quotas.limits().per_call;
        let slot = table.watches.vacant_key();
        if table.slots.contains_key(&id) {
            let reason = "is in use by an open watch, which goes on; choose another".into();
            let failure = Failure::InvalidRequest { field: "add.watch_id".into(), reason };
            table.ends.push_back((id, Outcome::Rejected(failure)));
            drop(guard);
            return self.shared.changed.notify_one();
        }
        let opened = match u32::try_from(slot) {
            Ok(number) if table.watches.len() < limit => {
                self.engine.open(job, self.caller, options, &self.shared.queue, number)
            }
            _ => Err(Failure::TooManyWatches { key: "limits.watches_per_call", limit }),
        };
        match opened {
            Ok(open) => {
                let sent_at = Instant::now();
                let heartbeat_at = table.heartbeat_at(sent_at, open.heartbeat);
                table.watches.insert(Member { id, open, sent_at, heartbeat_at });
                table.slots.insert(id, slot);
                table.heartbeats.insert(&mut table.links, heartbeat_at, slot);
                drop(guard);
                self.notify(slot);
            }
            Err(failure) => {
                let end = End { failure: Some(failure), job: Some(job.clone()) };
                table.ends.push_back((id, Outcome::End(end)));
                drop(guard);
            }
        }
        self.shared.changed.notify_one();
    }

    /// Ends a watch that the caller removes.
    pub async fn remove(&self, id: u64) {
        self.wait_for_room().await;
        let mut table = self.lock();
        let end = if let Some(&slot) = table.slots.get(&id) {
            table.close(slot);
            Outcome::End(End::default())
        } else {
            let (field, reason) = ("remove.watch_id".into(), "is of no open watch".into());
            Outcome::Rejected(Failure::InvalidRequest { field, reason })
        };
        table.ends.push_back((id, end));
        drop(table);
        self.shared.changed.notify_one();
    }

    /// Refuses a watch that could not even be read: it has ended, unless the identifier is
    /// that of another one.
    pub async fn refuse(&self, id: u64, failure: Failure) {
        self.wait_for_room().await;
        let mut table = self.lock();
        let outcome = if table.slots.contains_key(&id) {
            Outcome::Rejected(failure)
        } else {
            Outcome::End(End { failure: Some(failure), job: None })
        };
        table.ends.push_back((id, outcome));
        drop(table);
        self.shared.changed.notify_one();
    }

    /// Refuses a request that names no watch.
    pub async fn reject(&self, failure: Failure) {
        self.wait_for_room().await;
        self.lock().ends.push_back((0, Outcome::Rejected(failure)));
        self.shared.changed.notify_one();
    }

    /// The call can't go on.
    pub fn fail(&self, failure: Failure) {
        self.lock().failure = Some(failure);
        self.shared.changed.notify_one();
    }

    /// Ends the call with [`Failure::ConnectionExpired`], after the newest status of each
    /// watch.
    pub fn expire(&self) {
        let was_expired = mem::replace(&mut self.lock().connection_expired, true);
        if !was_expired {
            self.shared.changed.notify_one();
        }
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
                if let Some(outcome) = table.ends.pop_front() {
                    self.shared.room.notify_one();
                    return Some(Ok(outcome));
                }
                if self.deadline.is_some_and(|deadline| deadline <= now) {
                    return Some(Err(Failure::Deadline(MissedDeadline::Watch)));
                }
                let is_shutdown = self.engine.shutdown.is_cancelled();
                if (is_shutdown || table.connection_expired) && table.last_updates.is_none() {
                    // Each watch with a new status sends it, and no other.
                    table.last_updates = Some(self.shared.queue.len());
                }
                while table.last_updates != Some(0)
                    && let Some(slot) = self.shared.queue.try_next()
                {
                    table.last_updates = table.last_updates.map(|left| left - 1);
                    if let Some(sent) = self.step(&mut table, slot as usize, now) {
                        return Some(Ok(sent));
                    }
                }
                if table.last_updates.is_some() {
                    let expired = Failure::ConnectionExpired;
                    return Some(Err(if is_shutdown { Failure::ShuttingDown } else { expired }));
                }
                if let Some(failure) = table.failure.take() {
                    return Some(Err(failure));
                }
                if table.complete && table.watches.is_empty() {
                    return None;
                }
                if let Some(sent) = table.heartbeat(now) {
                    return Some(Ok(sent));
                }
                table.heartbeats.first().map(|(at, _)| at).into_iter().chain(self.deadline).min()
            };
            tokio::select! {
                () = self.shared.queue.notified() => {}
                () = self.shared.changed.notified() => {}
                () = self.engine.shutdown.cancelled() => {}
                () = at(wake) => {}
            }
        }
    }

    /// Lets one watch send its next event, if it has one.
    fn step(&self, table: &mut Table, slot: usize, now: Instant) -> Option<(u64, Outcome)> {
        let watch = table.watches.get_mut(slot)?;
        match watch.open.step(now) {
            Step::Send { event, more } => {
                watch.sent_at = now;
                let sent = (watch.id, Outcome::Update(watch.open.job().clone(), watch.open.update(event)));
                if more || watch.open.is_retired() {
                    // After all others.
                    self.notify(slot);
                }
                Some(sent)
            }
            Step::End(failure) => Some(table.end(slot, failure)),
            _ if watch.open.is_retired() && !self.engine.shutdown.is_cancelled() => {
                let failure = watch.open.retirement();
                Some(table.end(slot, Some(failure)))
            }
            Step::Wait | Step::Poll => None,
        }
    }

    fn notify(&self, slot: usize) {
        if let Ok(slot) = u32::try_from(slot) {
            self.shared.queue.notify(slot);
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
    /// When a watch that sent something then has to send a heartbeat, in whole
    /// milliseconds: so thousands share a place in the timer queue.
    fn heartbeat_at(&mut self, sent_at: Instant, heartbeat: Duration) -> Instant {
        let began = *self.began.get_or_insert(sent_at);
        let silence = sent_at.saturating_duration_since(began).saturating_add(heartbeat);
        let millis = u64::try_from(silence.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX);
        began + Duration::from_millis(millis)
    }

    fn close(&mut self, slot: usize) -> Member {
        let watch = self.watches.remove(slot);
        self.slots.remove(&watch.id);
        self.heartbeats.remove(&mut self.links, watch.heartbeat_at, slot);
        watch
    }

    /// Ends a watch.
    fn end(&mut self, slot: usize, failure: Option<Failure>) -> (u64, Outcome) {
        let Member { id, open, .. } = self.close(slot);
        (id, Outcome::End(End { failure, job: Some(open.job().clone()) }))
    }

    /// Lets a watch that has been silent for its interval send a heartbeat. A watch that
    /// has sent something since it was queued is queued again.
    fn heartbeat(&mut self, now: Instant) -> Option<(u64, Outcome)> {
        while let Some((at, slot)) = self.heartbeats.first().filter(|(at, _)| *at <= now) {
            self.heartbeats.remove(&mut self.links, at, slot);
            let watch = &mut self.watches[slot];
            let is_silent = watch.sent_at + watch.open.heartbeat <= now;
            if is_silent {
                watch.sent_at = now;
            }
            let (sent_at, heartbeat) = (watch.sent_at, watch.open.heartbeat);
            let heartbeat_at = self.heartbeat_at(sent_at, heartbeat);
            self.heartbeats.insert(&mut self.links, heartbeat_at, slot);
            let watch = &mut self.watches[slot];
            watch.heartbeat_at = heartbeat_at;
            if is_silent {
                let update = watch.open.update(watch.open.heartbeat_event());
                return Some((watch.id, Outcome::Update(watch.open.job().clone(), update)));
            }
        }
        None
    }
}
