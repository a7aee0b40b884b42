//! One file for each command.

pub mod bench;
pub mod devices;
pub mod generate;
pub mod inspect;
pub mod perplexity;
pub mod pull;
pub mod tokenize;
