//! What several tests of models need.

use anymlx_lm::{ActivationPrecision, CacheType, Model, Session, SessionOptions};

/// Nothing is rounded but sums.
pub const EXACT: SessionOptions = SessionOptions {
    context: None,
    chunk: Some(512),
    cache_type: CacheType::F32,
    precision: ActivationPrecision::Full,
};

/// The logits after each of `ids`, one row after the other.
pub fn all_logits(model: &Model, ids: &[u32], options: SessionOptions) -> Vec<f32> {
    let mut session = Session::new(model, options).unwrap();
    let mut logits = Vec::new();
    session
        .logits_from(ids, 0, |position, row| {
            assert_eq!(position * model.config().vocabulary, logits.len());
            logits.extend_from_slice(row);
            Ok(())
        })
        .unwrap();
    logits
}
