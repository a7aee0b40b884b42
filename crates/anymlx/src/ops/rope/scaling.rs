//! Frequencies, and the ways in which models trained on short contexts are stretched.

/// How frequencies are changed to reach beyond the context of the original training.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum RopeScaling {
    /// Not at all.
    #[default]
    None,
    /// Positions are divided by `factor` (Chen et al. 2023, <https://arxiv.org/abs/2306.15595>).
    Linear {
        /// The divisor.
        factor: f32,
    },
    /// The frequency of each pair is divided by a number of its own: Llama 3, `rope_freqs.weight` in
    /// GGUF. One for each pair.
    Factors(Vec<f32>),
    /// Interpolation by frequency (Peng et al. 2023, <https://arxiv.org/abs/2309.00071>).
    Yarn {
        /// By how much the context was extended.
        factor: f32,
        /// Context length of the original training, in tokens.
        original_context: usize,
        /// Pairs that turn more often than this within the original context keep their frequency;
        /// usually 32.
        beta_fast: f32,
        /// Pairs that turn less often than this are divided by `factor`; usually 1.
        beta_slow: f32,
        /// Share of the kept frequency, `ext_factor` in llama.cpp; usually 1.
        extrapolation: f32,
        /// Multiplies sine and cosine; `None` for `0.1 ln(factor) + 1`.
        attention_factor: Option<f32>,
    },
}

/// Radians per position of each pair, `base^(-2 i / rotary_dims)` with the scaling applied:
/// `rotary_dims / 2` values, or as many as there are [`RopeScaling::Factors`].
///
/// YaRN rounds the bounds of its ramp to whole pairs, as `transformers` (`truncate`) and llama.cpp do.
pub fn frequencies(base: f32, rotary_dims: usize, scaling: &RopeScaling) -> Vec<f32> {
    let base = f64::from(base);
    let dims = rotary_dims as f64;
    let plain = |pair: usize| base.powf(-2.0 * pair as f64 / dims);
    let pairs = 0..rotary_dims / 2;
    match scaling {
        RopeScaling::None => pairs.map(|pair| plain(pair) as f32).collect(),
        RopeScaling::Linear { factor } => pairs.map(|pair| (plain(pair) / f64::from(*factor)) as f32).collect(),
        RopeScaling::Factors(factors) => {
            let divided = factors.iter().enumerate();
            divided.map(|(pair, factor)| (plain(pair) / f64::from(*factor)) as f32).collect()
        }
        RopeScaling::Yarn { factor, original_context, beta_fast, beta_slow, extrapolation, .. } => {
            // The pair, not rounded, that turns `turns` times within the original context.
            let pair_that_turns = |turns: f32| {
                let wavelength = *original_context as f64 / f64::from(turns);
                dims * (wavelength / std::f64::consts::TAU).ln() / (2.0 * base.ln())
            };
            let low = pair_that_turns(*beta_fast).floor().max(0.0);
            let high = pair_that_turns(*beta_slow).ceil().min(dims - 1.0);
            let frequency = |pair: usize| {
                let ramp = ((pair as f64 - low) / (high - low).max(0.001)).clamp(0.0, 1.0);
                let kept = (1.0 - ramp) * f64::from(*extrapolation);
                plain(pair) * (kept + (1.0 - kept) / f64::from(*factor))
            };
            pairs.map(|pair| frequency(pair) as f32).collect()
        }
    }
}

/// What sine and cosine are multiplied with: 1 except for YaRN.
pub fn magnitude(scaling: &RopeScaling) -> f32 {
    match scaling {
        RopeScaling::Yarn { factor, attention_factor, .. } => {
            attention_factor.unwrap_or_else(|| 0.1 * factor.max(1.0).ln() + 1.0)
        }
        _ => 1.0,
    }
}
