//! Jobs that nobody follows, and that somebody is likely to ask about again.
//!
//! Whoever asks with a `max_age` is content with what others were told, so it is
//! kept for as long as that, and as long again. In that time it costs no request of
//! its own. But a request that is sent anyway takes along what is older than half of
//! its `max_age`, oldest first, as far as it has room: the next to ask would have it
//! asked about. So jobs that many ask about at different times share requests as
//! those do that are followed.

use std::{collections::BTreeSet, time::Duration};

use tokio::time::Instant;

use super::{LOOKED_AT, Row, Stage, Table};
use crate::poller::{Latest, Standing};

/// Most jobs that a backend keeps. Beyond it, those go that would go first.
const KEPT: usize = 1 << 16;

/// Longest `max_age` for which an observation is kept.
const LONGEST: Duration = Duration::from_mins(5);

/// The rows that nobody follows and no request asks about.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// By the time at which the next to ask would have them asked about.
    stale: BTreeSet<(Instant, usize)>,
    /// By the time at which they are given up.
    until: BTreeSet<(Instant, usize)>,
}

/// For how long a row is kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Keep {
    /// What its last observation is good for.
    max_age: Duration,
    /// Counted from when it was last asked for.
    until: Instant,
}

impl Keep {
    pub(super) fn new(max_age: Duration, now: Instant) -> Self {
        let max_age = max_age.min(LONGEST);
        Self { max_age, until: now + 2 * max_age }
    }
}

impl Kept {
    pub(super) fn len(&self) -> usize {
        self.until.len()
    }
}

impl Table {
    /// Jobs that somebody follows, or that are in a request.
    pub(super) fn followed(&self) -> usize {
        self.rows.len() - self.kept.len()
    }

    /// When there is something to give up.
    pub(super) fn gives_up_at(&self) -> Option<Instant> {
        self.kept.until.first().map(|(until, _)| *until)
    }

    /// Keeps a row that nobody follows. Gives it up where there is nothing to keep.
    pub(super) fn keep(&mut self, key: usize) {
        let Some((stale, until)) = self.rows[key].kept_times() else {
            self.remove(key);
            return;
        };
        self.rows[key].stage = Stage::Kept;
        self.kept.stale.insert((stale, key));
        self.kept.until.insert((until, key));
        if self.kept.len() > KEPT
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
        if let Some((stale, until)) = self.rows[key].kept_times() {
            self.kept.stale.remove(&(stale, key));
            self.kept.until.remove(&(until, key));
        }
    }

    /// What is known of a job, if it is at most so old. It is kept a while longer.
    pub(super) fn recent(&mut self, key: usize, max_age: Duration, now: Instant) -> Option<Latest> {
        let news = self.rows[key].entry.news();
        let latest = news.latest.as_ref()?;
        let age = now.saturating_duration_since(latest.at);
        if age > max_age || news.standing != Standing::Observed {
            return None;
        }
        let latest = latest.clone();
        drop(news);
        if matches!(self.rows[key].stage, Stage::Kept) {
            self.let_go(key);
            self.rows[key].keep = Some(Box::new(Keep::new(max_age, now)));
            self.keep(key);
        }
        Some(latest)
    }

    /// At most `room` rows for a request that is sent anyway.
    pub(super) fn take_along(&mut self, room: usize, now: Instant) -> Vec<usize> {
        let worth_while = |&&(stale, key): &&(Instant, usize)| {
            let max_age = self.rows[key].keep.as_ref().map_or(Duration::ZERO, |keep| keep.max_age);
            stale <= now + max_age / 2 && self.rows[key].alone == 0
        };
        let first = self.kept.stale.iter().take(LOOKED_AT);
        let keys: Vec<usize> = first.filter(worth_while).map(|(_, key)| *key).take(room).collect();
        for key in &keys {
            self.let_go(*key);
        }
        keys
    }
}

impl Row {
    /// When what is known of it is too old, and when it is given up.
    fn kept_times(&self) -> Option<(Instant, Instant)> {
        let keep = self.keep.as_ref()?;
        let at = self.entry.news().latest.as_ref()?.at;
        Some((at + keep.max_age, keep.until))
    }
}
