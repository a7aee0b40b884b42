//! What the fuzz targets run: the checks of `crates/formats/tests/hostile`, where they are run on a bounded number of inputs.

#[path = "../crates/formats/tests/hostile/allocation.rs"]
pub mod allocation;
#[path = "../crates/formats/tests/hostile/targets.rs"]
pub mod targets;
