//! Several replicas that cost the vendors what one costs.
//!
//! One replica owns each backend: [`lease`] decides which, over a bucket of NATS. [`share`]
//! says how much of a limit each replica may use.

pub mod lease;
pub mod share;
