//! What tests of this workspace share. Development only: nothing that ships depends on this crate.
//!
//! * [`Tolerance`] says how far a kernel may be from its reference, and why.
//! * [`Random`] makes the same data from the same seed everywhere.
//! * [`reference`](mod@reference) holds the plainest `f64` loop of every operation.
//! * [`golden`] loads recorded results of other implementations.
//!
//! Unlike library code, everything here panics on misuse: a wrong length in a test is a mistake in the test.

pub mod golden;
mod random;
pub mod reference;
pub mod tolerance;

pub use random::Random;
pub use tolerance::{Limits, Margin, Mismatch, QuantizedActivations, Tolerance, assert_close};
