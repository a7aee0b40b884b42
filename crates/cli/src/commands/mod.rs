//! One file for each command.

pub mod bench;
pub mod convert;
pub mod devices;
pub mod generate;
pub mod imatrix;
pub mod inspect;
pub mod perplexity;
pub mod pull;
pub mod quantize;
pub mod tokenize;
