#![doc = include_str!("../README.md")]

pub mod access;
pub mod admin;
pub mod api;
pub mod cli;
pub mod client;
pub mod cluster;
pub mod config;
pub mod engine;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
pub mod job;
pub mod proto;
pub mod server;
#[cfg(feature = "demo")]
pub mod simulators;
pub mod snapshot;
pub mod telemetry;
pub mod transport;
pub mod vendors;
