//! Which of many jobs is due next.
//!
//! Jobs that are due at the same time form a list, since the answers of one poll
//! schedule all their jobs for the same time.

use std::collections::BTreeMap;

use tokio::time::Instant;

use super::list::{Links, List};

/// Numbers in the order of their times, and those of the same time in the order in
/// which they were put in. The links belong to the caller.
#[derive(Debug, Default)]
pub(super) struct TimerQueue {
    times: BTreeMap<Instant, List>,
}

impl TimerQueue {
    /// Puts in a number that is in no list.
    pub(super) fn insert(&mut self, links: &mut Links, at: Instant, number: usize) {
        self.times.entry(at).or_default().push_back(links, number);
    }

    /// Takes out a number that was put in for this time.
    pub(super) fn remove(&mut self, links: &mut Links, at: Instant, number: usize) {
        if let Some(list) = self.times.get_mut(&at) {
            list.remove(links, number);
            if list.is_empty() {
                self.times.remove(&at);
            }
        }
    }

    /// Takes out all numbers of the earliest time that has come.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<(Instant, List)> {
        let first = self.times.first_entry().filter(|first| *first.key() <= now)?;
        Some(first.remove_entry())
    }

    /// Puts back what is left of those numbers.
    pub(super) fn put_back(&mut self, at: Instant, numbers: List) {
        if !numbers.is_empty() {
            self.times.insert(at, numbers);
        }
    }

    /// The earliest time with a number.
    pub(super) fn first(&self) -> Option<(Instant, usize)> {
        let (at, list) = self.times.first_key_value()?;
        Some((*at, list.first()?))
    }

    /// All numbers in order.
    pub(super) fn iter<'a>(&'a self, links: &'a Links) -> impl Iterator<Item = (Instant, usize)> + 'a {
        self.times.iter().flat_map(|(at, list)| list.iter(links).map(|number| (*at, number)))
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, time::Duration};

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn timer_queue_holds_what_a_set_of_times_and_numbers_holds(
            steps in proptest::collection::vec((0..40_usize, 0..6_u64), 1..300),
        ) {
            let start = Instant::now();
            let (mut links, mut queue, mut set) = (Links::default(), TimerQueue::default(), BTreeSet::new());
            let mut times = [None; 40];
            for (number, millis) in steps {
                let at = start + Duration::from_millis(millis);
                if let Some(before) = times[number].take() {
                    queue.remove(&mut links, before, number);
                    set.remove(&(before, number));
                } else {
                    queue.insert(&mut links, at, number);
                    set.insert((at, number));
                    times[number] = Some(at);
                }
                let all: Vec<_> = queue.iter(&links).collect();
                prop_assert!(all.is_sorted_by_key(|(at, _)| *at));
                prop_assert_eq!(all.first().copied(), queue.first());
                prop_assert_eq!(all.into_iter().collect::<BTreeSet<_>>(), set.clone());
            }
        }
    }

    #[test]
    fn numbers_of_the_same_time_keep_their_order() {
        let now = Instant::now();
        let (mut links, mut queue) = (Links::default(), TimerQueue::default());
        for number in [7, 3, 5] {
            queue.insert(&mut links, now, number);
        }
        queue.remove(&mut links, now, 3);
        queue.insert(&mut links, now, 3);
        assert_eq!(queue.iter(&links).map(|(_, number)| number).collect::<Vec<_>>(), [7, 5, 3]);
    }
}
