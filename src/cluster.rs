//! Several replicas that cost the vendors what one costs.
//!
//! One replica owns each backend: [`lease`] decides which, and [`election`] keeps the lease in a
//! bucket of [`nats`]. [`share`] says how much of a limit each replica may use. [`wire`] is what
//! the rest sees of the connection.

pub mod election;
pub mod lease;
pub mod nats;
pub mod share;
pub mod wire;
