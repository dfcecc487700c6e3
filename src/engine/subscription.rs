//! Who wants to know of a job.
//!
//! A watch, and a call that waits, hold a [`Subscription`]. Its subscriber is notified
//! through the reader's queue and then looks at the job's record.

use std::{sync::Arc, time::Duration};

use slab::Slab;
use tokio::time::Instant;

use super::{
    CallerKey, NotificationQueue, Pause,
    backend::Backend,
    job_table::{JobRecord, SharedJob},
};
use crate::job::{JobRef, Parts};

/// Who subscribes, and why.
#[derive(Debug)]
pub struct Interest {
    /// Where the reader is notified.
    pub queue: Arc<NotificationQueue>,
    /// Which of the queue's slots stands for this job.
    pub slot: u32,
    /// Whose turn a poll counts for.
    pub caller: CallerKey,
    /// The parts of a status that the reader is shown.
    pub parts: Parts,
    /// A call or a watch.
    pub purpose: Purpose,
}

/// Why somebody subscribes.
#[derive(Clone, Copy, Debug)]
pub enum Purpose {
    /// A call, notified of every poll. It needs a poll unless the latest status is at most
    /// `max_age` old.
    Call {
        /// Oldest status that will do; `None` for one whose poll has yet to begin or end.
        max_age: Option<Duration>,
        /// By when it has to be answered.
        deadline: Instant,
    },
    /// A watch, notified of changes.
    Watch {
        /// Longest interval between two polls that it accepts.
        interval: Option<Duration>,
    },
    /// Another replica, for its own subscribers; notified of every poll.
    Replica {
        /// Longest interval between two polls that they accept.
        interval: Option<Duration>,
        /// They wait for a poll.
        asks: bool,
        /// When the job is polled next, where it is not polled yet and nobody waits.
        due: Instant,
        /// Since when it has not changed.
        unchanged_since: Instant,
    },
}

/// One subscriber of a job.
#[derive(Debug)]
pub(super) struct Subscriber {
    pub(super) queue: Arc<NotificationQueue>,
    pub(super) caller: CallerKey,
    pub(super) slot: u32,
    /// In milliseconds; zero for no wish.
    interval: u32,
    pub(super) parts: Parts,
    /// Notified after every poll, whether or not anything changed.
    pub(super) every_poll: bool,
}

impl From<Interest> for Subscriber {
    fn from(Interest { queue, slot, caller, parts, purpose }: Interest) -> Self {
        let interval = match purpose {
            Purpose::Watch { interval: Some(interval) }
            | Purpose::Replica { interval: Some(interval), .. } => {
                u32::try_from(interval.as_millis()).unwrap_or(u32::MAX).max(1)
            }
            _ => 0,
        };
        let every_poll = matches!(purpose, Purpose::Call { .. } | Purpose::Replica { .. });
        Self { queue, caller, slot, interval, parts, every_poll }
    }
}

impl Subscriber {
    /// Longest interval between two polls that it accepts.
    pub(super) fn interval(&self) -> Option<Duration> {
        (self.interval > 0).then(|| Duration::from_millis(self.interval.into()))
    }
}

/// The subscribers of one job, each under a number. A single one takes no memory of its
/// own.
#[derive(Debug, Default)]
pub(super) enum Subscribers {
    #[default]
    None,
    /// Number 0.
    One(Subscriber),
    Many(Box<Slab<Subscriber>>),
}

impl Subscribers {
    pub(super) fn insert(&mut self, subscriber: Subscriber) -> usize {
        match std::mem::take(self) {
            Self::None => {
                *self = Self::One(subscriber);
                0
            }
            Self::One(first) => {
                let mut many = Slab::with_capacity(2);
                many.insert(first);
                let number = many.insert(subscriber);
                *self = Self::Many(Box::new(many));
                number
            }
            Self::Many(mut many) => {
                let number = many.insert(subscriber);
                *self = Self::Many(many);
                number
            }
        }
    }

    pub(super) fn get(&self, number: usize) -> Option<&Subscriber> {
        match self {
            Self::None => None,
            Self::One(subscriber) => (number == 0).then_some(subscriber),
            Self::Many(many) => many.get(number),
        }
    }

    pub(super) fn remove(&mut self, number: usize) {
        match self {
            Self::Many(many) if many.len() > 1 => drop(many.remove(number)),
            _ => *self = Self::None,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        matches!(self, Self::None)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Subscriber> {
        let (one, many) = match self {
            Self::None => (None, None),
            Self::One(subscriber) => (Some(subscriber), None),
            Self::Many(many) => (None, Some(many.iter().map(|(_, subscriber)| subscriber))),
        };
        one.into_iter().chain(many.into_iter().flatten())
    }

    /// The caller whose turn a poll counts for; another one each time where there are
    /// several.
    pub(super) fn caller(&self, turn: u8) -> Option<CallerKey> {
        match self {
            Self::None => None,
            Self::One(subscriber) => Some(subscriber.caller),
            Self::Many(many) => {
                many.iter().nth(usize::from(turn) % many.len()).map(|(_, subscriber)| subscriber.caller)
            }
        }
    }
}

/// Subscribes to a job until dropped.
#[derive(Debug)]
pub struct Subscription {
    pub(super) backend: Arc<Backend>,
    pub(super) shared: Arc<SharedJob>,
    pub(super) number: usize,
    pub(super) subscriber: usize,
    pub(super) paused: Option<Box<Pause>>,
    /// The `max_age` of a call.
    pub(super) max_age: Option<Box<Duration>>,
}

impl Subscription {
    /// The job.
    pub fn job(&self) -> &JobRef {
        &self.shared.job
    }

    /// What is known now.
    pub fn record(&self) -> JobRecord {
        self.look(JobRecord::clone)
    }

    /// Looks at what is known now, without a copy of it.
    pub fn look<T>(&self, look: impl FnOnce(&JobRecord) -> T) -> T {
        look(&self.shared.record())
    }

    /// Why the backend was not polled when this began, if it was not.
    pub fn paused(&self) -> Option<&Pause> {
        self.paused.as_deref()
    }

    /// Has the job polled at once, unless a poll is in flight, and notifies this
    /// subscriber of the answer even if nothing has changed.
    pub fn poll_now(&self) {
        self.backend.poll_now(self.number, self.subscriber);
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.backend.unsubscribe(self.number, self.subscriber, self.max_age.as_deref().copied());
    }
}
