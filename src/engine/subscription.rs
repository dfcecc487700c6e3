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
    pub(super) slot: u32,
    /// In milliseconds; zero for no wish.
    interval: u32,
    pub(super) parts: Parts,
    /// Notified after every poll, whether or not anything changed.
    pub(super) every_poll: bool,
}

impl From<Interest> for Subscriber {
    fn from(Interest { queue, slot, parts, purpose }: Interest) -> Self {
        let interval = match purpose {
            Purpose::Watch { interval: Some(interval) }
            | Purpose::Replica { interval: Some(interval), .. } => {
                u32::try_from(interval.as_millis()).unwrap_or(u32::MAX).max(1)
            }
            _ => 0,
        };
        let every_poll = matches!(purpose, Purpose::Call { .. } | Purpose::Replica { .. });
        Self { queue, slot, interval, parts, every_poll }
    }
}

impl Subscriber {
    /// Longest interval between two polls that it accepts.
    pub(super) fn interval(&self) -> Option<Duration> {
        (self.interval > 0).then(|| Duration::from_millis(self.interval.into()))
    }
}

/// The subscribers of one job, each under a number. A single one takes no memory of its
/// own, and a few take no more than they need.
#[derive(Debug, Default)]
pub(super) enum Subscribers {
    #[default]
    None,
    /// Number 0.
    One(Subscriber),
    /// Each at its number.
    Few(Vec<Option<Subscriber>>),
    Many(Box<Slab<Subscriber>>),
}

const _: () = assert!(size_of::<Option<Subscriber>>() <= 24 && size_of::<Subscribers>() <= 32);

/// Most subscribers that are few.
const FEW: usize = 4;

impl Subscribers {
    pub(super) fn insert(&mut self, subscriber: Subscriber) -> usize {
        match std::mem::take(self) {
            Self::None => {
                *self = Self::One(subscriber);
                0
            }
            Self::One(first) => {
                let mut few = Vec::with_capacity(2);
                few.extend([Some(first), Some(subscriber)]);
                *self = Self::Few(few);
                1
            }
            Self::Few(mut few) => {
                let number = few.iter().position(Option::is_none).unwrap_or(few.len());
                if number == FEW {
                    let mut many: Slab<_> = few.into_iter().flatten().enumerate().collect();
                    let number = many.insert(subscriber);
                    *self = Self::Many(Box::new(many));
                    return number;
                }
                if number == few.len() {
                    few.reserve_exact(1);
                    few.push(None);
                }
                few[number] = Some(subscriber);
                *self = Self::Few(few);
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
            Self::Few(few) => few.get(number)?.as_ref(),
            Self::Many(many) => many.get(number),
        }
    }

    pub(super) fn remove(&mut self, number: usize) {
        match self {
            Self::Many(many) if many.len() > 1 => drop(many.remove(number)),
            Self::Few(few) => {
                few[number] = None;
                if few.iter().all(Option::is_none) {
                    *self = Self::None;
                }
            }
            _ => *self = Self::None,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        matches!(self, Self::None)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Subscriber> {
        let one = if let Self::One(subscriber) = self { Some(subscriber) } else { None };
        let few = if let Self::Few(few) = self { &few[..] } else { &[] };
        let many = if let Self::Many(many) = self { Some(many) } else { None };
        let many = many.into_iter().flat_map(|many| many.iter().map(|(_, subscriber)| subscriber));
        one.into_iter().chain(few.iter().flatten()).chain(many)
    }

    /// The caller whose turn a poll counts for; another one each time where there are
    /// several.
    pub(super) fn caller(&self, turn: u8) -> Option<CallerKey> {
        let count = match self {
            Self::None => return None,
            Self::One(_) => 1,
            Self::Few(few) => few.iter().flatten().count(),
            Self::Many(many) => many.len(),
        };
        self.iter().nth(usize::from(turn) % count).map(|subscriber| subscriber.queue.caller())
    }
}

/// Subscribes to a job until dropped.
#[derive(Debug)]
pub struct Subscription {
    pub(super) backend: Arc<Backend>,
    pub(super) shared: Arc<SharedJob>,
    /// The job's number in the table, and the subscriber's among those of the job.
    pub(super) number: u32,
    pub(super) subscriber: u32,
    pub(super) at_begin: Option<Box<AtBegin>>,
}

/// What most subscriptions do without.
#[derive(Debug)]
pub(super) struct AtBegin {
    pub(super) paused: Option<Pause>,
    /// The `max_age` of a call.
    pub(super) max_age: Option<Duration>,
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
        self.at_begin.as_ref()?.paused.as_ref()
    }

    /// Has the job polled at once, unless a poll is in flight, and notifies this
    /// subscriber of the answer even if nothing has changed.
    pub fn poll_now(&self) {
        self.backend.poll_now(self.number as usize, self.subscriber as usize);
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let max_age = self.at_begin.as_ref().and_then(|at_begin| at_begin.max_age);
        self.backend.unsubscribe(self.number as usize, self.subscriber as usize, max_age);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn subscriber(slot: u32) -> Subscriber {
        let queue = Arc::new(NotificationQueue::new(CallerKey(u64::from(slot))));
        Subscriber::from(Interest {
            queue,
            slot,
            parts: Parts::NONE,
            purpose: Purpose::Watch { interval: None },
        })
    }

    proptest! {
        /// Each keeps its number while others come and leave, and all take turns.
        #[test]
        fn subscribers_that_come_and_leave_keep_their_numbers(steps in prop::collection::vec(0_usize..12, 0..60)) {
            let mut subscribers = Subscribers::default();
            let mut expected = BTreeMap::new();
            for (slot, step) in (0..).zip(steps) {
                // Every other step removes one, as far as there is one.
                let leaves = expected.keys().nth(step / 2).copied().filter(|_| step % 2 == 1);
                if let Some(number) = leaves {
                    subscribers.remove(number);
                    expected.remove(&number);
                } else {
                    prop_assert_eq!(expected.insert(subscribers.insert(subscriber(slot)), slot), None);
                }
                prop_assert_eq!(subscribers.is_empty(), expected.is_empty());
                for (number, slot) in &expected {
                    prop_assert_eq!(subscribers.get(*number).map(|found| found.slot), Some(*slot));
                }
                let mut found: Vec<u32> = subscribers.iter().map(|found| found.slot).collect();
                found.sort_unstable();
                let mut turns: Vec<u64> = (0..u8::try_from(expected.len()).unwrap())
                    .map(|turn| subscribers.caller(turn).unwrap().0)
                    .collect();
                turns.sort_unstable();
                prop_assert!(turns.into_iter().eq(found.iter().map(|slot| u64::from(*slot))));
                let mut all: Vec<u32> = expected.values().copied().collect();
                all.sort_unstable();
                prop_assert_eq!(found, all);
            }
        }
    }
}
