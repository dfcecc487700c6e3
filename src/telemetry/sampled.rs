//! Log lines of which there could be very many.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// Lets some lines a second through, and counts the others.
#[derive(Debug)]
pub struct Sampled {
    per_second: u32,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    second: Option<Instant>,
    lines: u32,
    left_out: u64,
}

impl Sampled {
    /// At most so many lines a second.
    pub const fn new(per_second: u32) -> Self {
        Self { per_second, state: Mutex::new(State { second: None, lines: 0, left_out: 0 }) }
    }

    /// How many lines were left out since the last one, if there is to be a line now.
    pub fn next_line(&self) -> Option<u64> {
        self.next_line_at(Instant::now())
    }

    fn next_line_at(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.second.is_none_or(|second| now.saturating_duration_since(second) >= Duration::from_secs(1)) {
            (state.second, state.lines) = (Some(now), 0);
        }
        if state.lines >= self.per_second {
            state.left_out += 1;
            return None;
        }
        state.lines += 1;
        Some(std::mem::take(&mut state.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_beyond_those_of_a_second_are_counted() {
        let (sampled, now) = (Sampled::new(3), Instant::now());
        let lines: Vec<_> = (0..10).filter_map(|_| sampled.next_line_at(now)).collect();
        assert_eq!(lines, [0, 0, 0]);
        assert_eq!(sampled.next_line_at(now + Duration::from_secs(1)), Some(7));
    }
}
