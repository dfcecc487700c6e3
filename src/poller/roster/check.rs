//! What always holds of a roster, for tests.

use std::{collections::HashMap, sync::Arc, sync::atomic::Ordering};

use super::{Roster, Stage, Table};
use crate::{job::JobRef, poller::Latest};

impl Roster {
    /// Holds the roster to what always holds of it. Not while an answer is taken in on
    /// another thread.
    pub(crate) fn check(&self) {
        self.lock().check();
    }

    /// What is known of a job, which counts as no question about it.
    pub(crate) fn known(&self, job: &JobRef) -> Option<Latest> {
        let table = self.lock();
        let row = &table.rows[table.find(job)?];
        row.entry.news().latest.clone()
    }
}

impl Table {
    fn check(&self) {
        let mut due: HashMap<usize, _> = HashMap::new();
        for (at, key) in self.due.iter() {
            assert!(due.insert(key, at).is_none(), "a row is due once");
        }
        let (mut kept, mut followed) = (Vec::new(), 0);
        let mut flights = HashMap::new();
        for (key, row) in &self.rows {
            assert_eq!(self.find(&row.entry.job), Some(key), "a row is found by its job");
            let has_followers = row.followers.iter().count() > 0;
            assert_eq!(has_followers, !row.followers.is_empty());
            followed += usize::from(has_followers);
            let place = due.remove(&key);
            match &row.stage {
                Stage::Due(at) => {
                    assert_eq!(place, Some(*at), "what is due is in the calendar, at its time");
                    assert!(has_followers, "what is due has somebody who waits for it");
                    continue;
                }
                Stage::Asked(flight) => {
                    let (_, count) = flights.entry(Arc::as_ptr(flight)).or_insert((flight, 0));
                    *count += usize::from(has_followers);
                }
                Stage::Kept => {
                    assert!(!has_followers, "what is kept is kept for those who may come");
                    kept.push(key);
                }
                Stage::Ended => assert!(has_followers, "what has ended stays for its followers"),
            }
            assert_eq!(place, None, "what is not due is not in the calendar");
        }
        assert!(due.is_empty(), "what is in the calendar is a row");
        for (flight, count) in flights.into_values() {
            assert_eq!(flight.followed.load(Ordering::Relaxed), count, "who waits for a flight");
        }
        assert_eq!(self.followed, followed, "the followed rows");
        assert_eq!(self.keys.len(), self.rows.len());
        self.check_kept(&kept);
    }
}
