//! Replicas in one process, on a paused clock: real engines and sessions, a scripted vendor,
//! and a wire that loses what a test says.

mod checks;
mod ending;
mod following;
mod half_dead;
mod memory;
mod replicas;
mod simulation;
