//! What may be asked of a backend, whoever answers.

use std::{future::Future, pin::Pin, time::Duration};

use super::{Files, Leave};
use crate::{
    adapters::{BackendFault, Changes},
    job::{JobRef, Source},
};

/// Answers about jobs: a vendor's backend, or a script in a test.
pub trait Upstream: Send + Sync + 'static {
    /// Asks. Whatever is sent for that spends the `leave`. Dropping the future gives
    /// the request up.
    fn ask<'a>(&'a self, question: Question<'a>, leave: Leave) -> Asked<'a>;

    /// Ends when what it was rejected for may have been put right: asking again is
    /// worth while then, whatever back-off runs.
    fn put_right(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(std::future::pending())
    }

    /// Where its jobs' files can be had, if they can.
    fn files(&self) -> Option<&dyn Files> {
        None
    }
}

/// What an upstream is asked in one go.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// At most as many as the backend's batch holds.
    pub jobs: &'a [JobRef],
    /// The sources of their newest observations, in the order of `jobs`: what was read
    /// from one of them may be left out.
    pub known: &'a [Option<Source>],
    /// Where it is not zero, the vendor is asked to hold the answer until all jobs have
    /// ended, at most that long, in whole seconds.
    pub wait: Duration,
}

impl<'a> Question<'a> {
    /// Asks for an answer now, whatever is known.
    pub fn about(jobs: &'a [JobRef]) -> Self {
        Self { jobs, known: &[], wait: Duration::ZERO }
    }
}

/// What the vendor's answer says, or why there was none to read.
pub type Asked<'a> = Pin<Box<dyn Future<Output = Result<Changes, BackendFault>> + Send + 'a>>;
