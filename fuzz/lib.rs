//! What the fuzz targets run: the checks of `crates/formats/tests/hostile` and `crates/lm/tests/hostile`, where they are run on a
//! bounded number of inputs.

#[path = "../crates/formats/tests/hostile/allocation.rs"]
pub mod allocation;
#[cfg(feature = "models")]
#[path = "../crates/lm/tests/hostile/targets.rs"]
pub mod model_targets;
#[cfg(feature = "models")]
#[path = "../crates/lm/tests/hostile/records.rs"]
mod records;
#[path = "../crates/formats/tests/hostile/targets.rs"]
pub mod targets;
