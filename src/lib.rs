#![doc = include_str!("../README.md")]

pub mod adapters;
pub mod api;
pub mod cli;
pub mod config;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
pub mod hub;
pub mod job;
pub mod pacing;
pub mod poller;
pub mod proto;
pub mod server;
#[cfg(feature = "demo")]
pub mod simulators;
pub mod snapshot;
pub mod telemetry;
pub mod transport;
