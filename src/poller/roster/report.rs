//! How a backend is doing, for operators.

use jiff::Timestamp;
use tokio::time::Instant;

use super::Roster;
use crate::{job::BackendFault, pacing::Admission};

/// How a backend is doing.
#[derive(Clone, Debug)]
pub struct Report {
    /// Whether it answers.
    pub health: Health,
    /// What the last request failed with, if it failed.
    pub last_fault: Option<BackendFault>,
    /// When it last answered.
    pub last_answer: Option<Timestamp>,
    /// Jobs followed now.
    pub followed: usize,
}

/// Whether a backend answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Nothing has been asked yet.
    Unknown,
    /// It answers.
    Healthy,
    /// Some requests fail, or it is throttling.
    Degraded,
    /// Its circuit is open.
    Unavailable,
}

impl Roster {
    /// How the backend is doing at `now`.
    pub fn report(&self, now: Instant) -> Report {
        let table = self.lock();
        let health = match table.gate.admission(now) {
            _ if table.gate.is_broken() => Health::Unavailable,
            Admission::Open if table.gate.failures() == 0 && table.last_fault.is_none() => {
                table.last_answer.map_or(Health::Unknown, |_| Health::Healthy)
            }
            _ => Health::Degraded,
        };
        Report {
            health,
            last_fault: table.last_fault.clone(),
            last_answer: table.last_answer,
            followed: table.followed,
        }
    }
}
