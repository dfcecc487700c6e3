//! The `jobwatch` program.
fn main() {}
