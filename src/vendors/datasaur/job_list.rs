//! Which element of the list is which job's, and what it means that a job has
//! none.

use std::collections::HashMap;

use bytes::Bytes;

use super::{GraphqlErrors, Place};
use crate::{
    job::{BackendFault, JobFault, JobRef},
    vendors::{
        Elements,
        elements::CONTRADICTED,
        json::{self, Object, Value},
    },
};

/// The list that came back, by id.
pub(in crate::vendors) struct JobList<'a> {
    by_id: HashMap<String, Result<Value<'a>, JobFault>>,
    /// The id at each position; none where the element is null.
    ids: Vec<Option<String>>,
    /// Whether there is an element that is neither null nor has an id.
    unreadable: bool,
}

impl<'a> JobList<'a> {
    /// Reads the list; `own_id` finds an element's id.
    pub(in crate::vendors) fn read(
        list: Vec<Value<'a>>,
        own_id: impl Fn(Value<'a>) -> Option<String>,
    ) -> Self {
        let mut jobs = Self { by_id: HashMap::new(), ids: Vec::new(), unreadable: false };
        for element in list {
            let id = own_id(element);
            jobs.unreadable |= id.is_none() && !json::is_null(element);
            jobs.ids.push(id.clone());
            let Some(id) = id else { continue };
            let first = jobs.by_id.entry(id).or_insert(Ok(element));
            if first.as_ref().is_ok_and(|first| first.get() != element.get()) {
                // Nothing says which of the two is right.
                *first = Err(CONTRADICTED);
            }
        }
        jobs
    }

    /// The element of each job; `body` is what the list was read from.
    pub(in crate::vendors) fn split(
        &self,
        jobs: &[JobRef],
        errors: &GraphqlErrors,
        body: &Bytes,
    ) -> Result<Elements, BackendFault> {
        // A null has no id, but where all others stand at their job's position,
        // it stands at its own.
        let in_order = self.ids.len() == jobs.len()
            && self.ids.iter().zip(jobs).all(|(id, job)| id.as_ref().is_none_or(|id| **id == *job.id));
        // An error in place of an element that is there counts the positions of another list,
        // such as one that nulls were left out of.
        let speaks_for = |index: usize, place: &Place| match *place {
            Place::Position { position, .. } if in_order => position == index,
            Place::Position { position, is_last } => {
                is_last || self.ids.get(position).is_none_or(Option::is_none)
            }
            Place::Id { .. } => false,
        };
        // Credentials that show one job are valid: those that do not show another lack
        // the permission.
        let has_data = jobs.iter().any(|job| self.by_id.contains_key(&*job.id));
        let was_polled = |id: &String| jobs.iter().any(|job| *job.id == **id);
        let strange = self.by_id.keys().any(|id| !was_polled(id));
        Elements::try_for_each(jobs, |index, job| {
            match self.by_id.get(&*job.id) {
                Some(Ok(element)) => return Ok(Ok(json::part(body, *element))),
                Some(Err(fault)) => return Ok(Err(fault.clone())),
                None => {}
            }
            // Only called missing where nothing else can explain it.
            let explained = errors.of_one(|place| speaks_for(index, place), job, has_data)?;
            Ok(Err(match explained {
                Some(fault) => fault,
                None if self.unreadable => JobFault::Malformed { why: "an element has no readable id" },
                // It may be the response to another request.
                None if strange => JobFault::Malformed { why: "the answer is about other jobs" },
                None => JobFault::NotFound,
            }))
        })
    }
}

/// The element's id. Of two, nothing says which is right.
pub(super) fn own_id(element: Value<'_>) -> Option<String> {
    let element = Object::of(element)?;
    let mut ids = element.members().filter(|(name, _)| *name == "id");
    match (ids.next(), ids.next()) {
        (Some((_, id)), None) => json::text(id),
        _ => None,
    }
}
