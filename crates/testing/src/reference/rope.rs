//! Rotary position embedding and its scalings.

use std::f64::consts::{PI, TAU};

use super::{Real, expect_len, expect_rows};

/// Which two values of a head are rotated together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RopeLayout {
    /// `i` and `i + dims / 2`: GPT-NeoX, Hugging Face models, Gemma and Qwen in GGUF.
    NeoX,
    /// `2 i` and `2 i + 1`: the original paper, Llama in GGUF.
    Interleaved,
}

/// What [`rope`] is told beside its data.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// Values of one head.
    pub head_dim: usize,
    /// Leading values of a head that are rotated, even; the rest pass through.
    pub dims: usize,
    /// Base of the frequencies, `theta` in configurations.
    pub base: f64,
    /// Which values form a pair.
    pub layout: RopeLayout,
    /// Positions are divided by this; 1 for none. With [`Rope::yarn`] it is the factor by which the context was extended.
    pub factor: f64,
    /// Divides the frequency of each pair (`rope_freqs.weight` in GGUF), `[dims / 2]`.
    pub frequency_factors: Option<Vec<f64>>,
    /// Interpolates by frequency instead of for all pairs alike.
    pub yarn: Option<Yarn>,
}

/// Parameters of YaRN (Peng et al., 2023, arXiv 2309.00071).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Yarn {
    /// Context length of the original training.
    pub original_context: f64,
    /// Pairs that turn more often than this within the original context keep their frequency; usually 32.
    pub beta_fast: f64,
    /// Pairs that turn less often than this are interpolated in full; usually 1.
    pub beta_slow: f64,
    /// Share of the extrapolated frequency in pairs that keep it, `ext_factor` in llama.cpp; usually 1.
    pub extrapolation: f64,
    /// Multiplies sine and cosine; `None` for `0.1 ln(factor) + 1`, the value of the paper.
    pub attention_factor: Option<f64>,
}

impl Yarn {
    /// The usual parameters for a model trained with `original_context`.
    pub fn new(original_context: f64) -> Self {
        Yarn { original_context, beta_fast: 32.0, beta_slow: 1.0, extrapolation: 1.0, attention_factor: None }
    }
}

impl Rope {
    /// Rotates whole heads of `head_dim` values, without any scaling.
    pub fn plain(head_dim: usize, base: f64, layout: RopeLayout) -> Self {
        Rope { head_dim, dims: head_dim, base, layout, factor: 1.0, frequency_factors: None, yarn: None }
    }

    /// Radians per position of each pair, `[dims / 2]`: `base^(-2 i / dims)` with all scalings applied.
    ///
    /// YaRN follows `_compute_yarn_parameters` of transformers 5.23 (with `truncate`) and `rope_yarn` of ggml, which agree.
    pub fn frequencies(&self) -> Vec<f64> {
        assert!(
            self.dims.is_multiple_of(2) && self.dims <= self.head_dim,
            "reference rope: {} rotated values in a head of {}: needs an even number within the head",
            self.dims,
            self.head_dim
        );
        if let Some(factors) = &self.frequency_factors {
            expect_len("rope", "frequency_factors", factors.len(), self.dims / 2);
        }
        let mut frequencies = Vec::new();
        for pair in 0..self.dims / 2 {
            let mut frequency = self.base.powf(-2.0 * pair as f64 / self.dims as f64);
            if let Some(factors) = &self.frequency_factors {
                frequency /= factors[pair];
            }
            let kept = self.yarn.map_or(0.0, |yarn| self.share_kept(yarn, pair));
            frequencies.push(frequency * kept + frequency / self.factor * (1.0 - kept));
        }
        frequencies
    }

    /// Multiplies sine and cosine: 1 without YaRN.
    pub fn magnitude(&self) -> f64 {
        match self.yarn {
            None => 1.0,
            Some(yarn) => yarn.attention_factor.unwrap_or(0.1 * self.factor.max(1.0).ln() + 1.0),
        }
    }

    fn share_kept(&self, yarn: Yarn, pair: usize) -> f64 {
        // The pair (not rounded) that turns `turns` times within the original context.
        let pair_with =
            |turns: f64| self.dims as f64 * (yarn.original_context / (turns * 2.0 * PI)).ln() / (2.0 * self.base.ln());
        let low = pair_with(yarn.beta_fast).floor().max(0.0);
        let high = pair_with(yarn.beta_slow).ceil().min(self.dims as f64 - 1.0);
        let ramp = (pair as f64 - low) / (high - low).max(0.001);
        (1.0 - ramp.clamp(0.0, 1.0)) * yarn.extrapolation
    }
}

/// Rotates every head of `x [tokens, heads, head_dim]` by the angles of its token's position (Su et al., 2021, arXiv
/// 2104.09864): a pair `(a, b)` becomes `(a cos t - b sin t, a sin t + b cos t)`, `t = position * frequency`.
pub fn rope<X: Real>(x: &[X], positions: &[u32], params: &Rope) -> Vec<f64> {
    let mut y: Vec<f64> = x.iter().map(|&value| value.into()).collect();
    if positions.is_empty() {
        expect_len("rope", "x", x.len(), 0);
        return y;
    }
    expect_rows("rope", "x", x.len(), positions.len() * params.head_dim);
    let token = x.len() / positions.len();
    let (frequencies, magnitude) = (params.frequencies(), params.magnitude());
    for (values, &position) in y.chunks_exact_mut(token).zip(positions) {
        for head in values.chunks_exact_mut(params.head_dim) {
            for (pair, frequency) in frequencies.iter().enumerate() {
                let (first, second) = match params.layout {
                    RopeLayout::NeoX => (pair, pair + params.dims / 2),
                    RopeLayout::Interleaved => (2 * pair, 2 * pair + 1),
                };
                let (sine, cosine) = (f64::from(position) * frequency).sin_cos();
                let (a, b) = (head[first], head[second]);
                head[first] = magnitude * (a * cosine - b * sine);
                head[second] = magnitude * (a * sine + b * cosine);
            }
        }
    }
    y
}

/// Parameters of the frequency scaling of Llama 3.1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Llama3Scaling {
    /// Divides the lowest frequencies.
    pub factor: f64,
    /// Wavelengths above `original_context / low` are divided in full.
    pub low_frequency_factor: f64,
    /// Wavelengths below `original_context / high` are kept.
    pub high_frequency_factor: f64,
    /// Context length of the original training.
    pub original_context: f64,
}

/// The divisors of Llama 3.1's scaling for `dims` rotated values, `[dims / 2]`: what GGUF stores as `rope_freqs.weight` and
/// [`Rope::frequency_factors`] takes. As in llama.cpp's converter and transformers' `_compute_llama3_parameters`.
pub fn llama3_frequency_factors(dims: usize, base: f64, scaling: Llama3Scaling) -> Vec<f64> {
    let Llama3Scaling { factor, low_frequency_factor: low, high_frequency_factor: high, original_context } = scaling;
    let mut factors = Vec::new();
    for pair in 0..dims / 2 {
        let wavelength = TAU * base.powf(2.0 * pair as f64 / dims as f64);
        factors.push(if wavelength < original_context / high {
            1.0
        } else if wavelength > original_context / low {
            factor
        } else {
            let smooth = (original_context / wavelength - low) / (high - low);
            1.0 / ((1.0 - smooth) / factor + smooth)
        });
    }
    factors
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Random;

    fn assert_frequencies(params: &Rope, expected: &[f64]) {
        let actual = params.frequencies();
        assert_eq!(actual.len(), expected.len());
        for (actual, expected) in actual.iter().zip(expected) {
            assert!((actual / expected - 1.0).abs() < 1e-6, "{params:?}: {actual:e}, {expected:e}");
        }
    }

    /// `ROPE_INIT_FUNCTIONS` of transformers 5.23, in f32.
    #[test]
    fn frequencies_match_transformers() {
        let plain = Rope::plain(16, 10_000.0, RopeLayout::NeoX);
        let yarn = Rope { factor: 4.0, yarn: Some(Yarn::new(1024.0)), ..plain.clone() };
        assert_frequencies(
            &yarn,
            &[
                1.0,
                0.316227764,
                0.0812500045,
                0.0197642371,
                0.00437500002,
                0.000790569466,
                0.000250000012,
                7.90569466e-05,
            ],
        );
        assert!((yarn.magnitude() - 1.138629436111989).abs() < 1e-14);
        let short = Yarn { beta_fast: 16.0, beta_slow: 2.0, ..Yarn::new(64.0) };
        let short = Rope { factor: 8.0, yarn: Some(short), ..Rope::plain(12, 500_000.0, RopeLayout::NeoX) };
        assert_frequencies(&short, &[1.0, 0.0140307741, 0.00157490105, 0.000176776681, 1.98425078e-05, 2.22724748e-06]);
        assert!((short.magnitude() - 1.2079441541679836).abs() < 1e-14);
        let scaling = Llama3Scaling {
            factor: 8.0,
            low_frequency_factor: 1.0,
            high_frequency_factor: 4.0,
            original_context: 64.0,
        };
        let factors = llama3_frequency_factors(16, 10_000.0, scaling);
        assert_frequencies(
            &Rope { frequency_factors: Some(factors), ..plain },
            &[
                1.0,
                0.244384587,
                0.0130422562,
                0.00395284733,
                0.00124999997,
                0.000395284733,
                0.000125000006,
                3.95284733e-05,
            ],
        );
        let linear = Rope { factor: 8.0, ..Rope::plain(8, 10_000.0, RopeLayout::NeoX) };
        assert_frequencies(&linear, &[0.125, 0.0125000002, 0.00124999997, 0.000125000006]);
    }

    #[test]
    fn position_zero_changes_nothing_and_lengths_are_kept() {
        let x = Random::new(1).normal_vec(3 * 2 * 10);
        for layout in [RopeLayout::NeoX, RopeLayout::Interleaved] {
            let params = Rope { dims: 6, ..Rope::plain(10, 100.0, layout) };
            let y = rope(&x, &[0, 5, 1000], &params);
            assert_eq!(y[..20], super::super::to_f64(&x[..20]));
            for (before, after) in x.chunks_exact(10).zip(y.chunks_exact(10)) {
                let squares = |values: &[f64]| values.iter().map(|value| value * value).sum::<f64>();
                assert!((squares(&super::super::to_f64(before)) - squares(after)).abs() < 1e-12);
                assert_eq!(super::super::to_f64(&before[6..]), after[6..]);
            }
        }
    }

    #[test]
    fn pairs_are_where_the_layout_says() {
        let quarter_turn = PI / 2.0;
        let turned = |layout, x: &[f32]| {
            let params = Rope { factor: 1.0 / quarter_turn, ..Rope::plain(4, 1.0, layout) };
            rope(x, &[1], &params).iter().map(|value| value.round()).collect::<Vec<f64>>()
        };
        assert_eq!(turned(RopeLayout::NeoX, &[1.0, 2.0, 3.0, 4.0]), [-3.0, -4.0, 1.0, 2.0]);
        assert_eq!(turned(RopeLayout::Interleaved, &[1.0, 2.0, 3.0, 4.0]), [-2.0, 1.0, -4.0, 3.0]);
    }

    /// llama.cpp's converter permutes Llama's rows so that interleaved rotation gives what NeoX gives on the original.
    #[test]
    fn the_layouts_are_permutations_of_each_other() {
        let x = Random::new(2).normal_vec(12);
        let interleaved: Vec<f32> = (0..12).map(|i| x[i % 2 * 6 + i / 2]).collect();
        let neox = rope(&x, &[7], &Rope::plain(12, 10_000.0, RopeLayout::NeoX));
        let other = rope(&interleaved, &[7], &Rope::plain(12, 10_000.0, RopeLayout::Interleaved));
        for i in 0..12 {
            assert_eq!(other[i], neox[i % 2 * 6 + i / 2]);
        }
    }

    #[test]
    fn linear_scaling_stretches_positions() {
        let x = Random::new(3).normal_vec(8);
        let plain = Rope::plain(8, 10_000.0, RopeLayout::NeoX);
        let stretched = rope(&x, &[24], &Rope { factor: 8.0, ..plain.clone() });
        for (stretched, near) in stretched.iter().zip(rope(&x, &[3], &plain)) {
            assert!((stretched - near).abs() < 1e-14);
        }
    }

    #[test]
    #[should_panic(expected = "5 rotated values in a head of 8")]
    fn an_odd_number_of_values_cannot_be_paired() {
        rope(&[0.0f32; 8], &[0], &Rope { dims: 5, ..Rope::plain(8, 1e4, RopeLayout::NeoX) });
    }
}
