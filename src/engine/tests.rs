//! The engine on a paused clock, with a scripted vendor.

pub(crate) mod script;
