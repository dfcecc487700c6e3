//! Replicas that share the work: one polls a backend, the others follow it.
//!
//! ```text
//!   lease ──> seat ──> polling                  this replica has the lease
//!               ├────> follower <── link ──> owner     another one has it
//!               └────> isolated                 no session with an owner
//! ```

mod fault;
mod follower;
mod link;
mod member;
mod owner;
mod seat;
mod wire;

pub use member::Member;
pub use seat::{Ownership, Role, Seat};
pub use wire::Wire;

#[cfg(test)]
mod tests;
