//! An importance matrix from a model that reads a text.

use crate::{LmError, Result, Session, quantize::ImportanceMatrix, taps::Taps};

/// Sums the squares of what every matrix of the layers is multiplied with, while the model reads `ids` in chunks of `context`
/// tokens; an incomplete last chunk is left out. `bos`, if given, takes the place of each chunk's first token.
///
/// `each` hears after every chunk how many of how many are done.
///
/// # Errors
/// `InvalidArgument` for a context below 2 or beyond the session's, or fewer tokens than one chunk.
pub fn importance_matrix(
    session: &mut Session,
    ids: &[u32],
    context: usize,
    bos: Option<u32>,
    mut each: impl FnMut(usize, usize),
) -> Result<ImportanceMatrix> {
    const OPERATION: &str = "imatrix";
    if context < 2 || context > session.capacity() {
        let message = format!("a context of {context} tokens given, needed 2..={}", session.capacity());
        return Err(LmError::invalid(OPERATION, message));
    }
    let total = ids.len() / context;
    if total == 0 {
        let message = format!("the text has {} tokens, needed at least one chunk of {context}", ids.len());
        return Err(LmError::invalid(OPERATION, message));
    }
    let taps = Taps::new(session.model(), session.chunk())?;
    let mut matrix = ImportanceMatrix::new();
    for (done, chunk) in ids.chunks_exact(context).enumerate() {
        let mut chunk = chunk.to_vec();
        if let Some(bos) = bos {
            chunk[0] = bos;
        }
        session.truncate(0)?;
        session.feed_tapped(&chunk, &taps, |name, columns, inputs| matrix.add(&name, columns, inputs))?;
        each(done + 1, total);
    }
    Ok(matrix)
}
