//! The engine on a paused clock, with a scripted vendor.

pub(crate) mod script;

mod backend;
mod check;
mod isolation;
mod operations;
mod retention;
mod test_backend;
