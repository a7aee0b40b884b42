//! Development tasks: `cargo xtask test | lint`.
fn main() {}
