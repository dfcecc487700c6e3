//! Several replicas that cost the vendors what one costs.
//!
//! ```text
//!   lease ──> seat ──> polling                  this replica has the lease
//!               ├────> follower <── link ──> owner     another one has it
//!               └────> isolated                 no session with an owner
//! ```
//!
//! One replica owns each backend: [`lease`] decides which, and [`election`] keeps the lease in a
//! bucket of [`nats`]. [`share`] says how much of a limit each replica may use. [`wire`] is what
//! the rest sees of the connection, and [`status`] what operators see.

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

pub mod election;
mod fault;
mod follower;
pub mod lease;
mod link;
mod member;
#[cfg(test)]
mod mutants;
pub mod nats;
mod owner;
mod replica;
mod seat;
#[cfg(test)]
mod seeds;
pub mod share;
pub mod status;
pub mod wire;

pub use member::Member;
pub use replica::Replica;
pub use seat::{Limits, Role, Seat};
pub use status::ReplicaStatus;
pub use wire::Wire;

#[cfg(test)]
mod tests;
