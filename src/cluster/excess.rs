//! Notices that more replicas run than `cluster.replicas` says.
//!
//! Each replica opens a session with the owner of each backend, whether it has callers or not. An
//! owner of any backend therefore knows of all replicas that are configured like itself. One that
//! owns nothing knows of itself only.

use std::time::Duration;

use tokio::time::Instant;

use super::link::SILENCE;

/// A replica that was killed is known for [`SILENCE`], and may have been started again meanwhile.
const LASTS: Duration = SILENCE.saturating_mul(3);

/// How often it is looked at.
pub(super) const LOOK: Duration = Duration::from_secs(1);

/// Whether there are too many replicas, and whether it was said.
#[derive(Debug, Default)]
pub(super) struct Excess {
    since: Option<Instant>,
    is_said: bool,
}

/// What there is to say, each once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// There are too many.
    Begins,
    /// There are no longer.
    Ends,
}

impl Excess {
    /// Takes in how many replicas are `known`, of `most` at most.
    pub(super) fn look(&mut self, now: Instant, known: usize, most: u32) -> Option<News> {
        if known <= usize::try_from(most).unwrap_or(usize::MAX) {
            self.since = None;
            return std::mem::take(&mut self.is_said).then_some(News::Ends);
        }
        let since = *self.since.get_or_insert(now);
        let begins = !self.is_said && now.saturating_duration_since(since) >= LASTS;
        self.is_said |= begins;
        begins.then_some(News::Begins)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn excess_that_lasts_is_said_once_and_so_is_its_end() {
        let (mut excess, began) = (Excess::default(), Instant::now());
        let mut look = |seconds, known| excess.look(began + Duration::from_secs(seconds), known, 3);
        assert_eq!((look(0, 1), look(1, 3)), (None, None));
        // One that was killed and started again.
        assert_eq!((look(2, 4), look(5, 4), look(6, 3)), (None, None, None));
        assert_eq!(
            (look(10, 4), look(18, 5), look(19, 4), look(20, 4)),
            (None, None, Some(News::Begins), None)
        );
        assert_eq!((look(21, 3), look(22, 3)), (Some(News::Ends), None));
        assert_eq!((look(30, 4), look(39, 4)), (None, Some(News::Begins)));
    }
}
