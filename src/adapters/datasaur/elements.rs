//! Which element of the list is which job's, and what it means that a job has
//! none.

use std::collections::HashMap;

use serde_json::value::RawValue;

use super::{GraphqlErrors, observe};
use crate::{
    adapters::{
        Changes, JobFault,
        json::{self, Object},
        unless_known,
    },
    job::{JobRef, Source},
};

/// The list that came back, by id.
pub(super) struct Elements<'a> {
    by_id: HashMap<String, Result<&'a RawValue, JobFault>>,
    /// The id at each position; none where the element is null.
    ids: Vec<Option<String>>,
    /// Whether there is an element that is neither null nor has an id.
    unreadable: bool,
}

impl<'a> Elements<'a> {
    pub(super) fn read(list: Vec<&'a RawValue>) -> Self {
        let mut elements = Self { by_id: HashMap::new(), ids: Vec::new(), unreadable: false };
        for element in list {
            let id = own_id(element);
            elements.unreadable |= id.is_none() && !json::is_null(element);
            elements.ids.push(id.clone());
            let Some(id) = id else { continue };
            let first = elements.by_id.entry(id).or_insert(Ok(element));
            if first.as_ref().is_ok_and(|first| first.get() != element.get()) {
                // Nothing says which of the two is right.
                *first = Err(JobFault::Malformed { why: "it came twice and differs" });
            }
        }
        elements
    }

    pub(super) fn answers(
        &self,
        jobs: &[JobRef],
        known: &[Option<Source>],
        errors: &GraphqlErrors,
    ) -> Changes {
        // A null has no id, but where all others stand at their job's position,
        // it stands at its own.
        let in_order = self.ids.len() == jobs.len()
            && self.ids.iter().zip(jobs).all(|(id, job)| id.as_ref().is_none_or(|id| **id == *job.id));
        let speaks_for = |index: usize, position: Option<usize>| match position {
            None => true,
            Some(position) if in_order => position == index,
            Some(position) => self.ids.get(position).is_none_or(Option::is_none),
        };
        let was_asked_for = |id: &String| jobs.iter().any(|job| *job.id == **id);
        let strange = self.by_id.keys().any(|id| !was_asked_for(id));
        let answer = |(index, job): (usize, &JobRef)| match self.by_id.get(&*job.id) {
            Some(Ok(element)) => Ok(unless_known(known, index, element.get(), || observe(element))),
            Some(Err(fault)) => Ok(Err(fault.clone())),
            // Only called missing where nothing else can explain it.
            None => Ok(Err(match errors.of_one(|position| speaks_for(index, position), job)? {
                Some(fault) => fault,
                None if self.unreadable => JobFault::Malformed { why: "an element has no readable id" },
                // It may be the answer to another question.
                None if strange => JobFault::Malformed { why: "the answer is about other jobs" },
                None => JobFault::NotFound,
            })),
        };
        jobs.iter().enumerate().map(answer).collect()
    }
}

/// The element's id. Of two, nothing says which is right.
fn own_id(element: &RawValue) -> Option<String> {
    let element = Object::of(element)?;
    let mut ids = element.members().filter(|(name, _)| *name == "id");
    match (ids.next(), ids.next()) {
        (Some((_, id)), None) => json::text(id),
        _ => None,
    }
}
