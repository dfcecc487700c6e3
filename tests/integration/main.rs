//! Integration tests: a real gateway over sockets, in front of simulated vendors.

#![allow(clippy::unwrap_used, reason = "in a test it is an assertion")]

mod architecture;
mod batches;
mod cli;
mod clients;
mod credentials;
mod deadlines;
mod documents;
mod download;
mod errors;
mod faults;
mod harness;
mod outages;
mod program;
mod proxy;
mod resume;
mod secrets;
mod services;
mod shutdown;
mod slow_readers;
mod vendors;
mod watches;
