//! Integration tests.
#![allow(clippy::unwrap_used, reason = "these are tests, helpers included")]

mod cli;
mod download;
