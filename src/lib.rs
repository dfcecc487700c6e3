#![doc = include_str!("../README.md")]

pub mod adapters;
pub mod cli;
pub mod config;
pub mod job;
pub mod proto;
pub mod server;
#[cfg(feature = "demo")]
pub mod simulators;
pub mod telemetry;
