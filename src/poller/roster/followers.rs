//! Who follows one job. Most jobs are followed once, which takes no memory of its own.

use slab::Slab;

use super::Interest;

/// Those who follow a job, each under a number.
#[derive(Debug, Default)]
pub(super) enum Followers {
    #[default]
    Nobody,
    /// Number 0.
    One(Interest),
    Many(Box<Slab<Interest>>),
}

impl Followers {
    pub(super) fn insert(&mut self, interest: Interest) -> usize {
        match std::mem::take(self) {
            Self::Nobody => {
                *self = Self::One(interest);
                0
            }
            Self::One(first) => {
                let mut many = Slab::with_capacity(2);
                many.insert(first);
                let number = many.insert(interest);
                *self = Self::Many(Box::new(many));
                number
            }
            Self::Many(mut many) => {
                let number = many.insert(interest);
                *self = Self::Many(many);
                number
            }
        }
    }

    pub(super) fn remove(&mut self, number: usize) {
        match self {
            Self::Many(many) if many.len() > 1 => drop(many.remove(number)),
            _ => *self = Self::Nobody,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        matches!(self, Self::Nobody)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Interest> {
        let (one, many) = match self {
            Self::Nobody => (None, None),
            Self::One(interest) => (Some(interest), None),
            Self::Many(many) => (None, Some(many.iter().map(|(_, interest)| interest))),
        };
        one.into_iter().chain(many.into_iter().flatten())
    }
}
