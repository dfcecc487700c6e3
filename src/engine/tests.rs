//! The engine on a paused clock, with a scripted vendor.

pub(crate) mod script;

mod backend;
mod check;
mod isolation;
mod operations;
mod races;
mod retention;
mod scarcity;
mod test_backend;
mod vendor_with_failing_jobs;
