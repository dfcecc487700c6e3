//! Integration tests: a real gateway over sockets, in front of simulated vendors.

#![allow(clippy::unwrap_used, reason = "in a test it is an assertion")]

mod batches;
mod cli;
mod credentials;
mod errors;
mod harness;
mod outages;
mod resume;
mod slow_readers;
mod vendors;
mod watches;
