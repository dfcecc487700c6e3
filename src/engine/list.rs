//! Doubly linked lists of small numbers, whose links lie in one vector.
//!
//! A number is in one list at most. A place costs eight bytes, where one in a B-tree
//! of times and numbers takes about fifty, and it is taken out without a search.

/// The links of all numbers, whichever list they are in.
#[derive(Debug, Default)]
pub(super) struct Links(Vec<Link>);

/// The neighbours in a list. A number that is in no list is its own neighbour.
#[derive(Clone, Copy, Debug)]
struct Link {
    previous: u32,
    next: u32,
}

/// The ends of a list.
#[derive(Clone, Copy, Debug)]
pub(super) struct List {
    first: u32,
    last: u32,
}

/// No neighbour.
const END: u32 = u32::MAX;

impl Default for List {
    fn default() -> Self {
        Self { first: END, last: END }
    }
}

impl List {
    pub(super) fn is_empty(self) -> bool {
        self.first == END
    }

    pub(super) fn first(self) -> Option<usize> {
        (self.first != END).then_some(self.first as usize)
    }

    /// Appends a number that is in no list.
    pub(super) fn push_back(&mut self, links: &mut Links, number: usize) {
        let number = u32::try_from(number).ok().filter(|number| *number != END);
        let number = number.expect("fewer than 2^32 jobs");
        links.reach(number);
        debug_assert_eq!(links.0[number as usize].previous, number, "a number is in one list at most");
        let previous = std::mem::replace(&mut self.last, number);
        links.0[number as usize] = Link { previous, next: END };
        if previous == END {
            self.first = number;
        } else {
            links.0[previous as usize].next = number;
        }
    }

    /// Takes out the first number.
    pub(super) fn pop_front(&mut self, links: &mut Links) -> Option<usize> {
        let first = self.first()?;
        self.remove(links, first);
        Some(first)
    }

    /// Takes out a number that is in this list.
    pub(super) fn remove(&mut self, links: &mut Links, number: usize) {
        let own = u32::try_from(number).unwrap_or(END);
        let Link { previous, next } = links.0[number];
        debug_assert_ne!(previous, own, "only what is in a list is taken out");
        links.0[number] = Link { previous: own, next: own };
        match previous {
            END => self.first = next,
            previous => links.0[previous as usize].next = next,
        }
        match next {
            END => self.last = previous,
            next => links.0[next as usize].previous = previous,
        }
    }

    /// The numbers in their order.
    pub(super) fn iter(self, links: &Links) -> impl Iterator<Item = usize> {
        let next = |number: &u32| Some(links.0[*number as usize].next).filter(|next| *next != END);
        let first = (self.first != END).then_some(self.first);
        std::iter::successors(first, next).map(|number| number as usize)
    }
}

impl Links {
    fn reach(&mut self, number: u32) {
        while self.0.len() <= number as usize {
            let own = u32::try_from(self.0.len()).unwrap_or(END);
            self.0.push(Link { previous: own, next: own });
        }
    }
}
