//! Integration tests: a real gateway over sockets, in front of simulated vendors.

#![allow(clippy::unwrap_used, reason = "in a test it is an assertion")]

mod access;
mod architecture;
#[cfg(target_os = "linux")]
mod attacks;
mod authoring;
mod batches;
mod check;
mod cli;
mod client_module;
mod clients;
mod cluster;
mod configuration;
mod connections;
mod contract;
mod credentials;
mod deadlines;
mod declared;
mod deployment;
mod documents;
mod download;
mod environment;
mod errors;
mod faults;
mod field;
mod harness;
mod http;
#[cfg(target_os = "linux")]
mod image;
mod languages;
mod long_running;
#[cfg(target_os = "linux")]
mod one_core;
mod operations;
mod outages;
mod packaging;
mod program;
mod proxy;
mod reach;
mod registration;
mod reload;
mod resume;
mod rotation;
mod scarcity;
mod secrets;
mod services;
mod shutdown;
mod simulate;
mod slow_readers;
mod standby;
mod tls;
mod vendors;
mod watch_jobs;
mod watches;
mod web;
