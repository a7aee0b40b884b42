//! `anymlx pull`.

use std::io::Write;

use crate::{
    arguments::Pull,
    failure::{Failure, Outcome},
    models,
};

pub fn run(options: &Pull) -> Outcome {
    let path = models::pull(&options.name)?;
    writeln!(std::io::stdout().lock(), "{}", path.display()).map_err(Failure::output)
}
