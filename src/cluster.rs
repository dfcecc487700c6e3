//! Several replicas that cost the vendors what one costs.
//!
//! ```text
//!   lease ──> seat ──> polling                  this replica has the lease
//!               ├────> follower <── link ──> owner     another one has it
//!               └────> isolated                 no session with an owner
//! ```
//!
//! One replica owns each backend: [`lease`] decides which, over a bucket of NATS. [`share`]
//! says how much of a limit each replica may use.

/// Whether a test leaves out a rule, to see whether the checks notice.
macro_rules! leaves_out {
    ($mutant:ident) => {{
        #[cfg(test)]
        let is_left_out = crate::cluster::mutants::leaves_out(crate::cluster::mutants::Mutant::$mutant);
        #[cfg(not(test))]
        let is_left_out = false;
        is_left_out
    }};
}

mod fault;
mod follower;
pub mod lease;
mod link;
mod member;
#[cfg(test)]
mod mutants;
mod owner;
mod seat;
pub mod share;
mod wire;

pub use member::Member;
pub use seat::{Limits, Role, Seat};
pub use wire::Wire;

#[cfg(test)]
mod tests;
