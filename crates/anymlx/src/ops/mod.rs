//! Operations of transformer models.
//!
//! Every operation takes the encoder, its buffers and a struct of named parameters, checks shapes,
//! dtypes and aliasing, and records commands. Activations are `f32` and row-major, one row for each
//! token unless said otherwise.

mod check;
pub mod increment;
pub mod rms_norm;
#[cfg(test)]
mod test_devices;

pub use increment::increment;
pub use rms_norm::{RmsNormParams, rms_norm, rms_norm_in_place};
