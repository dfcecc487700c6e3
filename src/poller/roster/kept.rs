//! Jobs that nobody follows, and that somebody is likely to ask about again.
//!
//! Whoever asks with a `max_age` is content with what others were told, so it is
//! kept for as long as that, and as long again. In that time it costs no request of
//! its own. But a request that is sent anyway takes along what is older than half of
//! its `max_age`, oldest first, as far as it has room: the next to ask would have it
//! asked about. So jobs that many ask about at different times share requests as
//! those do that are followed. Where such a request is refused, what it took along is
//! given up, since that may be the reason.

use std::{collections::BTreeSet, mem, time::Duration};

use tokio::time::Instant;

use super::{LOOKED_AT, Roster, Row, Stage, Table};
use crate::{
    job::{JobRef, View},
    poller::{Latest, Standing},
};

/// Most jobs that a backend keeps. Beyond it, those go that would go first.
const KEPT: usize = 1 << 16;

/// Most bytes that what is known of them may take. Beyond it, the same.
const KEPT_BYTES: usize = 64 << 20;

/// Longest `max_age` for which an observation is kept.
const LONGEST: Duration = Duration::from_mins(5);

/// The rows that nobody follows and no request asks about.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// By the time at which the next to ask would have them asked about.
    stale: BTreeSet<(Instant, usize)>,
    /// By the time at which they are given up.
    until: BTreeSet<(Instant, usize)>,
    /// What is known of them takes so much.
    bytes: usize,
}

/// For how long a row is kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Keep {
    /// What its last observation is good for.
    max_age: Duration,
    /// Counted from when it was last asked for.
    until: Instant,
}

/// What decides where a row is among those that are kept.
struct Place {
    stale: Instant,
    until: Instant,
    bytes: usize,
}

impl Kept {
    /// When there is something to give up.
    pub(super) fn gives_up_at(&self) -> Option<Instant> {
        self.until.first().map(|(until, _)| *until)
    }
}

impl Roster {
    /// What is known of a job, if it is at most so old.
    pub fn recent(&self, job: &JobRef, max_age: Duration) -> Option<Latest> {
        let mut table = self.lock();
        let key = table.find(job)?;
        table.recent(key, max_age, Instant::now())
    }
}

impl Table {
    /// Keeps a row that nobody follows any more, until then in no calendar. Ends it
    /// where there is nothing to keep, or nobody to keep it for.
    pub(super) fn keep(&mut self, key: usize, now: Instant) {
        let Some(Place { stale, until, bytes }) = self.rows[key].place().filter(|place| place.until > now)
        else {
            self.remove(key);
            return;
        };
        self.rows[key].stage = Stage::Kept;
        self.kept.stale.insert((stale, key));
        self.kept.until.insert((until, key));
        self.kept.bytes += bytes;
        while (self.kept.until.len() > KEPT || self.kept.bytes > KEPT_BYTES)
            && let Some(&(_, first)) = self.kept.until.first()
        {
            self.let_go(first);
            self.remove(first);
        }
    }

    /// Gives up what was kept long enough.
    pub(super) fn give_up(&mut self, now: Instant) {
        while let Some(&(until, key)) = self.kept.until.first()
            && until <= now
        {
            self.let_go(key);
            self.remove(key);
        }
    }

    /// Takes a row out of those that are kept, for another stage.
    pub(super) fn let_go(&mut self, key: usize) {
        if let Some(Place { stale, until, bytes }) = self.rows[key].place() {
            self.kept.stale.remove(&(stale, key));
            self.kept.until.remove(&(until, key));
            self.kept.bytes -= bytes;
        }
    }

    /// What is known of a job, if it is at most so old. It is kept a while longer.
    fn recent(&mut self, key: usize, max_age: Duration, now: Instant) -> Option<Latest> {
        let row = &self.rows[key];
        let latest = row.undenied()?;
        if now.saturating_duration_since(latest.at) > max_age {
            return None;
        }
        let is_kept = matches!(row.stage, Stage::Kept);
        if is_kept {
            self.let_go(key);
        }
        self.rows[key].asked_for(max_age, now);
        if is_kept {
            self.keep(key, now);
        }
        Some(latest)
    }

    /// At most `room` rows for a request that is sent anyway.
    pub(super) fn take_along(&mut self, room: usize, now: Instant) -> Vec<usize> {
        let worth_while = |&&(stale, key): &&(Instant, usize)| {
            let max_age = self.rows[key].keep.as_ref().map_or(Duration::ZERO, |keep| keep.max_age);
            stale <= now + max_age / 2 && self.rows[key].alone == 0
        };
        let soon = |(stale, _): &&(Instant, usize)| *stale <= now + LONGEST / 2;
        let first = self.kept.stale.iter().take_while(soon).take(LOOKED_AT);
        let keys: Vec<usize> = first.filter(worth_while).map(|(_, key)| *key).take(room).collect();
        for key in &keys {
            self.let_go(*key);
        }
        keys
    }
}

impl Row {
    /// Somebody asked for it who is content with what is at most so old.
    pub(super) fn asked_for(&mut self, max_age: Duration, now: Instant) {
        let max_age = max_age.min(LONGEST);
        let until = now + 2 * max_age;
        match &mut self.keep {
            _ if max_age.is_zero() => {}
            // What suits the one who wants it younger suits the other.
            Some(keep) if keep.until > now => {
                **keep = Keep { max_age: keep.max_age.min(max_age), until: keep.until.max(until) };
            }
            keep => *keep = Some(Box::new(Keep { max_age, until })),
        }
    }

    /// Its last observation, unless the vendor has denied the job since. That it could
    /// not be asked takes nothing from what it said.
    fn undenied(&self) -> Option<Latest> {
        let news = self.entry.news();
        match news.standing {
            Standing::Missing { .. } | Standing::Invalid(_) => None,
            Standing::Unasked | Standing::Observed | Standing::Interrupted(_) => news.latest.clone(),
        }
    }

    fn place(&self) -> Option<Place> {
        let Keep { max_age, until } = **self.keep.as_ref()?;
        let latest = self.undenied()?;
        let bytes = mem::size_of::<Self>() + latest.snapshot.encoded_len(View::FULL);
        Some(Place { stale: latest.at + max_age, until, bytes })
    }
}

#[cfg(test)]
impl Table {
    /// Holds the index to the rows that are kept.
    pub(super) fn check_kept(&self, kept: &[usize]) {
        assert!(kept.len() <= KEPT);
        assert!(self.kept.bytes <= KEPT_BYTES);
        let place = |key: &usize| self.rows[*key].place().expect("what is kept has a place");
        let stale: BTreeSet<_> = kept.iter().map(|key| (place(key).stale, *key)).collect();
        let until: BTreeSet<_> = kept.iter().map(|key| (place(key).until, *key)).collect();
        assert_eq!((&self.kept.stale, &self.kept.until), (&stale, &until), "the index of what is kept");
        assert_eq!(self.kept.bytes, kept.iter().map(|key| place(key).bytes).sum::<usize>());
    }
}
