//! The log: transitions, the access log, the level, and a reader that stalls.
