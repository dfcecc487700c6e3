//! The engine on a paused clock, with a scripted vendor.

mod bytes;
mod calls;
mod download;
mod ends;
mod limits;
mod max_age;
mod model;
mod outages;
mod poll_tasks;
mod pressure;
mod replicas;
mod resume;
mod retire;
mod rig;
pub(crate) mod script;
mod watch;
mod watch_set;
