//! Which of many numbered things is next, by time.
//!
//! Things of the same time form a list, whose links lie in one vector under their
//! numbers. So a thing costs eight bytes, where a place in a B-tree of times and
//! numbers takes about fifty, and most are put in and taken out without a search:
//! the answers of one request fall due together.

use std::collections::BTreeMap;

use tokio::time::Instant;

/// Numbered things in the order of their times, and those of the same time in the
/// order in which they were put in.
#[derive(Debug, Default)]
pub struct Calendar {
    days: BTreeMap<Instant, Day>,
    links: Vec<Link>,
}

/// The ends of a list.
#[derive(Clone, Copy, Debug)]
struct Day {
    first: u32,
    last: u32,
}

/// The neighbours in a list. A thing that is in none is its own.
#[derive(Clone, Copy, Debug)]
struct Link {
    before: u32,
    behind: u32,
}

/// No neighbour.
const END: u32 = u32::MAX;

impl Calendar {
    /// Puts a thing in that is not.
    pub fn insert(&mut self, at: Instant, thing: usize) {
        let thing = number(thing);
        while self.links.len() <= thing as usize {
            let own = number(self.links.len());
            self.links.push(Link { before: own, behind: own });
        }
        debug_assert_eq!(self.links[thing as usize].before, thing, "a thing is in one list at most");
        let day = self.days.entry(at).or_insert(Day { first: thing, last: END });
        let before = std::mem::replace(&mut day.last, thing);
        self.links[thing as usize] = Link { before, behind: END };
        if before != END {
            self.links[before as usize].behind = thing;
        }
    }

    /// Takes a thing out that was put in for this time, if it still is.
    pub fn remove(&mut self, at: Instant, thing: usize) {
        let thing = number(thing);
        let Some(link) = self.links.get_mut(thing as usize) else { return };
        let Link { before, behind } = *link;
        if before == thing {
            return;
        }
        *link = Link { before: thing, behind: thing };
        if before != END {
            self.links[before as usize].behind = behind;
        }
        if behind != END {
            self.links[behind as usize].before = before;
        }
        match (before, behind) {
            (END, END) => drop(self.days.remove(&at)),
            (END, first) => self.day(at).first = first,
            (last, END) => self.day(at).last = last,
            _ => {}
        }
    }

    /// What is next.
    pub fn first(&self) -> Option<(Instant, usize)> {
        self.days.first_key_value().map(|(at, day)| (*at, day.first as usize))
    }

    /// The last time.
    pub fn end(&self) -> Option<Instant> {
        self.days.last_key_value().map(|(at, _)| *at)
    }

    /// All of it in order.
    pub fn iter(&self) -> impl Iterator<Item = (Instant, usize)> {
        self.days.iter().flat_map(|(at, day)| {
            let behind = |thing: &u32| Some(self.links[*thing as usize].behind).filter(|next| *next != END);
            std::iter::successors(Some(day.first), behind).map(|thing| (*at, thing as usize))
        })
    }

    fn day(&mut self, at: Instant) -> &mut Day {
        self.days.get_mut(&at).expect("a list with a neighbour less is not empty")
    }
}

fn number(thing: usize) -> u32 {
    u32::try_from(thing).ok().filter(|thing| *thing != END).expect("fewer than 2^32 things")
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, time::Duration};

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_holds_what_a_set_of_times_and_things_would(
            steps in proptest::collection::vec((0..40_usize, 0..6_u64), 1..300),
        ) {
            let start = Instant::now();
            let (mut calendar, mut set) = (Calendar::default(), BTreeSet::new());
            let mut times = [None; 40];
            for (thing, millis) in steps {
                let at = start + Duration::from_millis(millis);
                if let Some(before) = times[thing].take() {
                    calendar.remove(before, thing);
                    calendar.remove(before, thing);
                    set.remove(&(before, thing));
                } else {
                    calendar.insert(at, thing);
                    set.insert((at, thing));
                    times[thing] = Some(at);
                }
                let all: Vec<_> = calendar.iter().collect();
                prop_assert!(all.is_sorted_by_key(|(at, _)| *at));
                prop_assert_eq!(all.first().copied(), calendar.first());
                prop_assert_eq!(all.last().map(|(at, _)| *at), calendar.end());
                prop_assert_eq!(all.into_iter().collect::<BTreeSet<_>>(), set.clone());
            }
        }
    }

    #[test]
    #[should_panic(expected = "a thing is in one list at most")]
    fn a_thing_that_is_put_in_twice_is_noticed_by_tests() {
        let now = Instant::now();
        let mut calendar = Calendar::default();
        calendar.insert(now, 1);
        calendar.insert(now + Duration::from_secs(1), 1);
    }

    #[test]
    fn things_of_the_same_time_keep_their_order() {
        let now = Instant::now();
        let mut calendar = Calendar::default();
        for thing in [7, 3, 5] {
            calendar.insert(now, thing);
        }
        calendar.remove(now, 3);
        calendar.insert(now, 3);
        assert_eq!(calendar.iter().map(|(_, thing)| thing).collect::<Vec<_>>(), [7, 5, 3]);
    }
}
