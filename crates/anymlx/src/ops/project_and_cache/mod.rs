//! Projections to queries, keys and values, with what happens to them before attention.

pub(super) mod gpu;
#[cfg(test)]
mod tests;

use super::{LayerInput, Projection, RotateAndCache, check::Check, project, rotate_and_cache};
use crate::{CommandEncoder, Result};

/// Operands of [`project_and_cache`].
#[derive(Debug, Clone, Copy)]
pub struct ProjectAndCache<'a> {
    /// What is projected.
    pub input: LayerInput<'a>,
    /// To queries, keys and values.
    pub projections: [Projection<'a>; 3],
    /// Its queries, keys and values are the outputs of the projections, seen as heads.
    pub rotate: RotateAndCache<'a>,
}

/// Projects to queries, keys and values, norms and rotates queries and keys, and writes keys and values into the cache.
///
/// The fusion of [`project()`] and [`rotate_and_cache()`]. What the outputs of keys and values hold afterwards is not
/// specified.
///
/// # Errors
/// As those operations, and `InvalidArgument` where `rotate` does not take what the projections give.
pub fn project_and_cache(encoder: &mut CommandEncoder, operands: ProjectAndCache<'_>) -> Result<()> {
    let check = Check::new("project_and_cache");
    let ProjectAndCache { input, projections, rotate } = operands;
    let rotated = [("queries", rotate.queries), ("keys", rotate.keys), ("values", rotate.values)];
    for ((name, heads), Projection { output, .. }) in rotated.into_iter().zip(&projections) {
        let same = heads.shares_storage_with(output) && heads.range() == output.range();
        check.that(same, format_args!("the {name} that are rotated are not the output of their projection"))?;
    }
    if gpu::project_and_cache(encoder, &operands)? {
        return Ok(());
    }
    project(encoder, input, &projections)?;
    rotate_and_cache(encoder, rotate)
}
