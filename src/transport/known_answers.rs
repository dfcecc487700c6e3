//! What a vendor has answered whose responses do not name their job.
//!
//! HTTP/1.1 has nothing but their order to match responses with requests. A vendor or
//! proxy that sends one response too many shifts all that follow on the connection. The
//! HTTP client closes a connection on which bytes arrive while it is idle; a response that
//! comes after the next request was sent looks like the response to that. So an answer
//! over a connection that was used before counts only if it is the same, byte for byte,
//! as the latest answer to the same request over a connection of its own: then it says
//! nothing new, whichever request it belongs to; or if it names the job after all. Any other
//! answer is asked for once more over a new connection.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use bytes::Bytes;
use http::{Request, Response};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Requests in one of the two halves of the memory: near 9 MiB in all.
const HALF: usize = 1 << 17;

/// The latest verified answers, by request.
#[derive(Debug)]
pub(super) struct KnownAnswers {
    seed: u64,
    halves: Mutex<Halves>,
}

/// The older half is forgotten as soon as the newer one is full.
#[derive(Debug, Default)]
struct Halves {
    newer: HashMap<u64, Known>,
    older: HashMap<u64, Known>,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    answer: AnswerHash,
    /// It was the same as the answer before, or is the first.
    is_stable: bool,
}

/// Stands for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RequestKey(u64);

/// Stands for the status and the body of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AnswerHash(u64);

impl KnownAnswers {
    pub(super) fn new() -> Self {
        Self { seed: rand::random(), halves: Mutex::default() }
    }

    pub(super) fn key(&self, request: &Request<Bytes>) -> RequestKey {
        let uri = request.uri();
        let path = uri.path_and_query().map_or("", |path| path.as_str());
        RequestKey(xxh3_64_with_seed(request.body(), xxh3_64_with_seed(path.as_bytes(), self.seed)))
    }

    pub(super) fn hash(&self, answer: &Response<Bytes>) -> AnswerHash {
        AnswerHash(xxh3_64_with_seed(answer.body(), self.seed ^ u64::from(answer.status().as_u16())))
    }

    /// The answer to expect; `None` if another one is as likely.
    pub(super) fn expected(&self, RequestKey(key): RequestKey) -> Option<AnswerHash> {
        let halves = &mut *self.halves.lock().unwrap_or_else(PoisonError::into_inner);
        let known = if let Some(known) = halves.newer.get(&key) {
            *known
        } else {
            let known = halves.older.remove(&key)?;
            halves.insert(key, known);
            known
        };
        known.is_stable.then_some(known.answer)
    }

    /// Remembers an answer that came over a connection of its own.
    pub(super) fn verified(&self, RequestKey(key): RequestKey, answer: AnswerHash) {
        let halves = &mut *self.halves.lock().unwrap_or_else(PoisonError::into_inner);
        let before = halves.newer.get(&key).or_else(|| halves.older.get(&key));
        let is_stable = before.is_none_or(|before| before.answer == answer);
        halves.insert(key, Known { answer, is_stable });
    }
}

impl Halves {
    fn insert(&mut self, key: u64, known: Known) {
        if self.newer.len() >= HALF && !self.newer.contains_key(&key) {
            self.older = std::mem::take(&mut self.newer);
        }
        self.newer.insert(key, known);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answer_is_expected_once_it_is_verified_and_does_not_change_at_each_poll() {
        let known = KnownAnswers::new();
        let answer = |body: &'static str| known.hash(&Response::new(Bytes::from(body)));
        let key = known.key(&Request::new(Bytes::from("a")));
        assert_eq!(known.expected(key), None);
        known.verified(key, answer("1"));
        assert_eq!(known.expected(key), Some(answer("1")));
        known.verified(key, answer("2"));
        assert_eq!(known.expected(key), None, "it may change again");
        known.verified(key, answer("2"));
        assert_eq!(known.expected(key), Some(answer("2")));
        assert_eq!(known.expected(known.key(&Request::new(Bytes::from("b")))), None);
    }

    #[test]
    fn known_answers_are_bounded_and_those_in_use_are_kept() {
        let known = KnownAnswers::new();
        let answer = AnswerHash(1);
        let used = RequestKey(u64::MAX);
        known.verified(used, answer);
        for key in 0..3 * HALF as u64 {
            known.verified(RequestKey(key), answer);
            assert_eq!(known.expected(used), Some(answer));
        }
        assert_eq!(known.expected(RequestKey(0)), None);
        let halves = known.halves.lock().unwrap();
        assert!(halves.newer.len() <= HALF && halves.older.len() <= HALF);
    }
}
