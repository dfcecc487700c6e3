#![doc = include_str!("../README.md")]

pub mod cli;
pub mod config;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
pub mod grpc;
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
pub mod vendors;
