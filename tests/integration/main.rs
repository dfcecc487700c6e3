//! Integration tests.

mod cli;
mod clients;
