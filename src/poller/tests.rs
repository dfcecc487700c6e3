//! Tests of poller.
