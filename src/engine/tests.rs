//! The engine on a paused clock, with a scripted vendor.

mod backend;
mod bytes;
mod calls;
mod check;
mod download;
mod ends;
mod isolation;
mod limits;
mod max_age;
mod model;
mod operations;
mod outages;
mod poll_tasks;
mod pressure;
mod races;
mod reconfigure;
mod replicas;
mod resume;
mod retention;
mod retire;
mod rig;
mod scarcity;
pub(crate) mod script;
mod test_backend;
mod vendor_with_failing_jobs;
mod watch;
mod watch_set;
