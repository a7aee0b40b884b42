//! The `anymlx` program.
fn main() {}
