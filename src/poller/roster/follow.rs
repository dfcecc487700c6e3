//! What a follower holds, and what it can ask for.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{Entry, Roster, Stage};
use crate::{job::JobRef, pacing::Hold, poller::News};

/// Follows a job until dropped.
#[derive(Debug)]
pub struct Follow {
    pub(super) roster: Arc<Roster>,
    pub(super) entry: Arc<Entry>,
    pub(super) key: usize,
    pub(super) follower: usize,
    pub(super) held: Option<Box<Hold>>,
    /// What the follower was content with, if that is so old.
    pub(super) max_age: Option<Box<Duration>>,
}

impl Follow {
    /// The job.
    pub fn job(&self) -> &JobRef {
        &self.entry.job
    }

    /// What is known now.
    pub fn news(&self) -> News {
        self.look(News::clone)
    }

    /// Looks at what is known now, without a copy of it.
    pub fn look<T>(&self, look: impl FnOnce(&News) -> T) -> T {
        look(&self.entry.news())
    }

    /// Like [`hurry`](Self::hurry), and has this follower told of the answer even if
    /// it is the same as before.
    pub fn ask_anew(&self) {
        self.roster.lock().rows[self.key].ask_anew = true;
        self.hurry();
    }

    /// Has the job asked about at once, as if its cadence had run out, unless a
    /// request about it is under way. A long poll is cut short.
    pub fn hurry(&self) {
        let soon = Instant::now() + self.roster.plan.window;
        let mut table = self.roster.lock();
        match &table.rows[self.key].stage {
            Stage::Due(_) if soon < table.rows[self.key].answer_at => {
                table.reschedule(self.key, soon);
                table.rows[self.key].cut = true;
                drop(table);
                self.roster.changed.notify_one();
            }
            Stage::Asked(flight) if !flight.wait.is_zero() => {
                flight.cut.cancel();
                table.rows[self.key].cut = true;
            }
            _ => {}
        }
    }

    /// Has what is known kept for those who ask again and are content with what is so
    /// old, when nobody follows the job any more.
    pub fn keep(&mut self, max_age: Duration) {
        self.max_age = Some(Box::new(max_age));
    }

    /// Why the backend was left alone when this began, if it was.
    pub fn held(&self) -> Option<&Hold> {
        self.held.as_deref()
    }
}

impl Drop for Follow {
    fn drop(&mut self) {
        self.roster.leave(self.key, self.follower, self.max_age.as_deref().copied());
    }
}

impl Roster {
    fn leave(&self, key: usize, follower: usize, max_age: Option<Duration>) {
        let now = Instant::now();
        let mut guard = self.lock();
        let table = &mut *guard;
        let row = &mut table.rows[key];
        row.followers.remove(follower);
        if let Some(max_age) = max_age {
            row.asked_for(max_age, now);
        }
        if !row.followers.is_empty() {
            return;
        }
        table.followed -= 1;
        match &row.stage {
            Stage::Due(at) => {
                table.due.remove(*at, key);
                let first = table.kept.gives_up_at();
                table.keep(key, now);
                let earlier = table.kept.gives_up_at() != first;
                drop(guard);
                if earlier {
                    self.changed.notify_one();
                }
                return;
            }
            Stage::Asked(flight) => flight.left(),
            Stage::Kept | Stage::Ended => {}
        }
        table.remove(key);
    }
}
