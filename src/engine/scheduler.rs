//! Which jobs are polled next, when there is more to poll than capacity.
//!
//! ```text
//!                      due                      permit
//!   timer queue  ────────────>  ready queues  ──────────>  polled
//!                                 waiting       first, earliest deadline first
//!                                 re-polls      at least every fifth permit while overdue
//!                                 quarantined   at most a tenth of the rate
//! ```
//!
//! A job waits in the timer queue until it is due, and then in the ready queue of its
//! class. Within a class callers take turns, so that one caller with ten thousand jobs
//! does not delay another's single one. Within a caller's turn the job that has been due
//! longest comes first or, where calls wait, the one with the earliest deadline.

use std::collections::{BTreeSet, HashMap};

use slab::Slab;
use tokio::time::Instant;

use super::{
    list::{Links, List},
    timer_queue::TimerQueue,
};
use crate::engine::CallerKey;

/// Permits that waiting calls may take in a row while re-polls are overdue: 80 %.
const WAITING_IN_A_ROW: u32 = 4;

/// Most jobs that one step moves from the timer queue to the ready queues.
const MOVED_AT_ONCE: usize = 4096;

/// Why a job is polled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// A call waits for it, or a watch for its first status.
    Waiting,
    /// Somebody watches it.
    Repoll,
    /// It is quarantined.
    Quarantined,
}

/// How a job that has become due is queued.
#[derive(Clone, Copy, Debug)]
pub(super) struct Due {
    pub(super) class: Class,
    /// On whose behalf.
    pub(super) caller: CallerKey,
    /// By when a waiting call has to be answered.
    pub(super) deadline: Instant,
}

/// Where a job is.
#[derive(Clone, Copy, Debug, Default)]
enum Place {
    #[default]
    Nowhere,
    /// Due at this time.
    Timer(Instant),
    /// Due since this time.
    Ready { since: Instant, class: Class, turn: u32 },
}

/// The jobs of one backend that wait to be polled, by number.
#[derive(Debug, Default)]
pub(super) struct Scheduler {
    links: Links,
    timers: TimerQueue,
    waiting: RoundRobin<Deadlines>,
    repolls: RoundRobin<Fifo>,
    quarantined: RoundRobin<Fifo>,
    places: Vec<Place>,
    waiting_in_a_row: u32,
}

impl Scheduler {
    /// Schedules a job for `at`, wherever it was.
    pub(super) fn schedule(&mut self, job: usize, at: Instant) {
        self.remove(job);
        self.timers.insert(&mut self.links, at, job);
        if self.places.len() <= job {
            self.places.resize(job + 1, Place::Nowhere);
        }
        self.places[job] = Place::Timer(at);
    }

    /// Takes a job out, wherever it is.
    pub(super) fn remove(&mut self, job: usize) {
        let Some(place) = self.places.get_mut(job) else { return };
        match std::mem::take(place) {
            Place::Nowhere => {}
            Place::Timer(at) => self.timers.remove(&mut self.links, at, job),
            Place::Ready { class, turn, .. } => match class {
                Class::Waiting => self.waiting.remove(turn, job, &mut self.links),
                Class::Repoll => self.repolls.remove(turn, job, &mut self.links),
                Class::Quarantined => self.quarantined.remove(turn, job, &mut self.links),
            },
        }
    }

    /// When a scheduled job is or was due.
    pub(super) fn due_at(&self, job: usize) -> Option<Instant> {
        match *self.places.get(job)? {
            Place::Nowhere => None,
            Place::Timer(at) | Place::Ready { since: at, .. } => Some(at),
        }
    }

    /// Whether a job is due.
    pub(super) fn is_ready(&self, job: usize) -> bool {
        matches!(self.places.get(job), Some(Place::Ready { .. }))
    }

    /// Makes a scheduled job ready, or queues it anew for another class, caller or
    /// deadline. One that has been due before stays so.
    pub(super) fn make_ready(&mut self, job: usize, now: Instant, due: Due) {
        if let Some(at) = self.due_at(job) {
            self.remove(job);
            self.queue(job, at.min(now), due);
        }
    }

    /// Moves jobs that have become due to the ready queues.
    pub(super) fn advance(&mut self, now: Instant, mut classify: impl FnMut(usize) -> Due) {
        let mut left = MOVED_AT_ONCE;
        while left > 0
            && let Some((at, mut jobs)) = self.timers.take_due(now)
        {
            while left > 0
                && let Some(job) = jobs.pop_front(&mut self.links)
            {
                self.queue(job, at, classify(job));
                left -= 1;
            }
            self.timers.put_back(at, jobs);
        }
    }

    fn queue(&mut self, job: usize, since: Instant, due: Due) {
        let Due { class, caller, deadline } = due;
        let turn = match class {
            Class::Waiting => self.waiting.insert(caller, job, deadline, &mut self.links),
            Class::Repoll => self.repolls.insert(caller, job, since, &mut self.links),
            Class::Quarantined => self.quarantined.insert(caller, job, since, &mut self.links),
        };
        self.places[job] = Place::Ready { since, class, turn };
    }

    /// The class that gets the next permit: waiting calls, but for every fifth permit
    /// while re-polls are overdue. `None` where neither is ready.
    pub(super) fn next_class(&mut self) -> Option<Class> {
        match (self.waiting.is_empty(), self.repolls.is_empty()) {
            (true, true) => return None,
            (false, true) => self.waiting_in_a_row = 0,
            (true, false) => {
                self.waiting_in_a_row = 0;
                return Some(Class::Repoll);
            }
            (false, false) if self.waiting_in_a_row >= WAITING_IN_A_ROW => {
                self.waiting_in_a_row = 0;
                return Some(Class::Repoll);
            }
            (false, false) => self.waiting_in_a_row += 1,
        }
        Some(Class::Waiting)
    }

    /// Takes the next job of a class: of the caller whose turn it is. Returns it with
    /// the time since when it has been due.
    pub(super) fn pop(&mut self, class: Class) -> Option<(usize, Instant)> {
        let job = match class {
            Class::Waiting => self.waiting.next(&self.links),
            Class::Repoll => self.repolls.next(&self.links),
            Class::Quarantined => self.quarantined.next(&self.links),
        }?;
        let since = self.due_at(job)?;
        self.remove(job);
        Some((job, since))
    }

    /// Whether any job of this class is ready.
    pub(super) fn has(&self, class: Class) -> bool {
        !match class {
            Class::Waiting => self.waiting.is_empty(),
            Class::Repoll => self.repolls.is_empty(),
            Class::Quarantined => self.quarantined.is_empty(),
        }
    }

    /// Every ready job, in no particular order.
    pub(super) fn ready(&self) -> impl Iterator<Item = usize> {
        let waiting = self.waiting.jobs(&self.links);
        waiting.chain(self.repolls.jobs(&self.links)).chain(self.quarantined.jobs(&self.links))
    }

    /// Jobs that are not due yet, with their times, soonest first.
    pub(super) fn timers(&self) -> impl Iterator<Item = (Instant, usize)> {
        self.timers.iter(&self.links)
    }

    /// When the next job becomes due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| at)
    }

    /// Jobs of waiting calls that are ready.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len
    }

    /// Quarantined jobs that are ready.
    pub(super) fn quarantined(&self) -> usize {
        self.quarantined.len
    }

    /// How many jobs of this caller's waiting calls are ready.
    pub(super) fn waiting_of(&self, caller: CallerKey) -> usize {
        self.waiting.len_of(caller)
    }

    /// Waiting jobs that come before a new one of `caller` with this deadline, itself
    /// included.
    pub(super) fn waiting_position(&self, caller: CallerKey, deadline: Instant) -> usize {
        let own = self.waiting.queue(caller).map_or(0, |queue| queue.before(deadline));
        let others = self.waiting.turns.iter().filter(|(_, turn)| turn.caller != caller);
        1 + own + others.map(|(_, turn)| turn.len.min(own + 1)).sum::<usize>()
    }

    /// The class in whose ready queue a job is.
    #[cfg(test)]
    pub(super) fn ready_class(&self, job: usize) -> Option<Class> {
        match *self.places.get(job)? {
            Place::Ready { class, .. } => Some(class),
            Place::Nowhere | Place::Timer(_) => None,
        }
    }

    /// Since when the job has been due that has been due longest, quarantined ones apart.
    pub(super) fn overdue_since(&self) -> Option<Instant> {
        let firsts = self.repolls.turns.iter().filter_map(|(_, turn)| turn.queue.first(&self.links));
        // Those of waiting calls are in the order of their deadlines; the first is near
        // enough.
        let waiting = self.waiting.turns.iter().filter_map(|(_, turn)| turn.queue.first(&self.links));
        firsts.chain(waiting).filter_map(|job| self.due_at(job)).min()
    }
}

/// The ready jobs of one class: a queue for each caller, which take turns.
#[derive(Debug)]
struct RoundRobin<Q> {
    turns: Slab<Turn<Q>>,
    by_caller: HashMap<CallerKey, usize>,
    order: List,
    order_links: Links,
    len: usize,
    /// The turn that was looked up last, which is often the next one, too.
    last: usize,
}

impl<Q> Default for RoundRobin<Q> {
    fn default() -> Self {
        Self {
            turns: Slab::new(),
            by_caller: HashMap::new(),
            order: List::default(),
            order_links: Links::default(),
            len: 0,
            last: 0,
        }
    }
}

#[derive(Debug)]
struct Turn<Q> {
    caller: CallerKey,
    queue: Q,
    len: usize,
}

/// The ready jobs of one caller and class.
trait JobQueue: Default {
    fn insert(&mut self, job: usize, order: Instant, links: &mut Links);
    fn remove(&mut self, job: usize, links: &mut Links);
    fn first(&self, links: &Links) -> Option<usize>;
    fn jobs<'a>(&'a self, links: &'a Links) -> impl Iterator<Item = usize> + 'a;
}

impl<Q: JobQueue> RoundRobin<Q> {
    fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn len_of(&self, caller: CallerKey) -> usize {
        self.by_caller.get(&caller).map_or(0, |turn| self.turns[*turn].len)
    }

    fn queue(&self, caller: CallerKey) -> Option<&Q> {
        self.by_caller.get(&caller).map(|turn| &self.turns[*turn].queue)
    }

    fn insert(&mut self, caller: CallerKey, job: usize, order: Instant, links: &mut Links) -> u32 {
        if self.turns.get(self.last).is_none_or(|turn| turn.caller != caller) {
            self.last = *self.by_caller.entry(caller).or_insert_with(|| {
                let number = self.turns.insert(Turn { caller, queue: Q::default(), len: 0 });
                self.order.push_back(&mut self.order_links, number);
                number
            });
        }
        let number = u32::try_from(self.last).expect("fewer than 2^32 callers");
        let turn = &mut self.turns[self.last];
        turn.queue.insert(job, order, links);
        turn.len += 1;
        self.len += 1;
        number
    }

    fn remove(&mut self, number: u32, job: usize, links: &mut Links) {
        let turn = &mut self.turns[number as usize];
        turn.queue.remove(job, links);
        turn.len -= 1;
        self.len -= 1;
        if turn.len == 0 {
            let caller = self.turns.remove(number as usize).caller;
            self.by_caller.remove(&caller);
            self.order.remove(&mut self.order_links, number as usize);
        }
    }

    /// The next job of the caller whose turn it is. The next turn is another caller's.
    fn next(&mut self, links: &Links) -> Option<usize> {
        let number = self.order.first()?;
        self.order.remove(&mut self.order_links, number);
        self.order.push_back(&mut self.order_links, number);
        self.turns[number].queue.first(links)
    }

    fn jobs<'a>(&'a self, links: &'a Links) -> impl Iterator<Item = usize> + 'a {
        self.turns.iter().flat_map(|(_, turn)| turn.queue.jobs(links))
    }
}

/// In the order in which they became due.
#[derive(Debug, Default)]
struct Fifo(List);

impl JobQueue for Fifo {
    fn insert(&mut self, job: usize, _: Instant, links: &mut Links) {
        self.0.push_back(links, job);
    }

    fn remove(&mut self, job: usize, links: &mut Links) {
        self.0.remove(links, job);
    }

    fn first(&self, _: &Links) -> Option<usize> {
        self.0.first()
    }

    fn jobs<'a>(&'a self, links: &'a Links) -> impl Iterator<Item = usize> + 'a {
        self.0.iter(links)
    }
}

/// Earliest deadline first.
#[derive(Debug, Default)]
struct Deadlines {
    order: BTreeSet<(Instant, usize)>,
    of_job: HashMap<usize, Instant>,
}

impl Deadlines {
    fn before(&self, deadline: Instant) -> usize {
        self.order.range(..=(deadline, usize::MAX)).count()
    }
}

impl JobQueue for Deadlines {
    fn insert(&mut self, job: usize, deadline: Instant, _: &mut Links) {
        self.order.insert((deadline, job));
        self.of_job.insert(job, deadline);
    }

    fn remove(&mut self, job: usize, _: &mut Links) {
        if let Some(deadline) = self.of_job.remove(&job) {
            self.order.remove(&(deadline, job));
        }
    }

    fn first(&self, _: &Links) -> Option<usize> {
        self.order.first().map(|(_, job)| *job)
    }

    fn jobs<'a>(&'a self, _: &'a Links) -> impl Iterator<Item = usize> + 'a {
        self.order.iter().map(|(_, job)| *job)
    }
}

#[cfg(test)]
mod tests;
