//! Quantiser of the layouts of 256 elements with scale only: `x ~ d s q` in groups.

use super::fit::{self, Lattice};
use super::{HalfBytes, K_BLOCK_LEN};

/// Ranges of such a layout.
#[derive(Clone, Copy)]
pub(super) struct SymmetricRanges {
    /// Elements that share one scale.
    pub group_len: usize,
    /// What codes `q` may be.
    pub codes: Lattice,
    /// Scales `s` lie in `-factor..factor`.
    pub factor: i32,
}

/// A block before packing; only the first `256 / group_len` scales are used.
#[derive(Clone)]
pub(super) struct SymmetricBlock {
    pub scale: HalfBytes,
    pub scales: [i8; 16],
    pub codes: [i8; K_BLOCK_LEN],
}

/// Searches a block with a small weighted squared error; large elements weigh more than small ones.
///
/// Each group is fitted alone; the groups' scales are then put on the block's lattice; last, block scale and group scales
/// are improved in turn while the error falls.
///
/// `importance` multiplies the weights.
pub(super) fn quantize(
    values: &[f32; K_BLOCK_LEN],
    importance: Option<&[f32; K_BLOCK_LEN]>,
    ranges: SymmetricRanges,
) -> SymmetricBlock {
    let search = Search::new(values, importance, ranges);
    let mut scales = [0.0; 16];
    let mut scale_weights = [0.0; 16];
    for (group, (values, weights)) in search.groups().enumerate() {
        let scale = fit::linear(values, weights, ranges.codes);
        scales[group] = scale;
        // A group's error grows with `sum w q^2` in its scale.
        scale_weights[group] =
            values.iter().zip(weights).map(|(&x, w)| w * f64::from(search.code(x, scale)).powi(2)).sum();
    }
    let lattice = Lattice::Range { low: -ranges.factor, high: ranges.factor - 1 };
    let scale = half(fit::linear(&scales, &scale_weights, lattice));
    let unit = f64::from(scale.to_f32());
    let factors = scales.map(|scale| if unit == 0.0 { 0 } else { lattice.nearest(scale / unit) });
    let (mut best, mut best_error) = search.assign(scale, factors);
    for _ in 0..4 {
        let (candidate, error) = search.assign(search.refit(&best), best.scales.map(i32::from));
        if error.is_nan() || error >= best_error {
            break;
        }
        (best, best_error) = (candidate, error);
    }
    best
}

fn half(value: f64) -> HalfBytes {
    HalfBytes::from_f32(value as f32)
}

struct Search {
    ranges: SymmetricRanges,
    values: [f64; K_BLOCK_LEN],
    weights: [f64; K_BLOCK_LEN],
}

impl Search {
    fn new(values: &[f32; K_BLOCK_LEN], importance: Option<&[f32; K_BLOCK_LEN]>, ranges: SymmetricRanges) -> Self {
        let values = values.map(f64::from);
        let weights = fit::weights(&values, importance, ranges.group_len);
        Self { ranges, values, weights }
    }

    fn groups(&self) -> impl Iterator<Item = (&[f64], &[f64])> {
        self.values.chunks(self.ranges.group_len).zip(self.weights.chunks(self.ranges.group_len))
    }

    fn code(&self, x: f64, scale: f64) -> i32 {
        if scale == 0.0 { 0 } else { self.ranges.codes.nearest(x / scale) }
    }

    /// The best group scales next to `factors`, with the nearest codes; and the weighted squared error.
    fn assign(&self, scale: HalfBytes, factors: [i32; 16]) -> (SymmetricBlock, f64) {
        let mut block = SymmetricBlock { scale, scales: [0; 16], codes: [0; K_BLOCK_LEN] };
        let unit = f64::from(scale.to_f32());
        let mut total = 0.0;
        for (group, (values, weights)) in self.groups().enumerate() {
            let mut best_error = f64::INFINITY;
            for factor in factors[group] - 1..=factors[group] + 1 {
                if !(-self.ranges.factor..self.ranges.factor).contains(&factor) {
                    continue;
                }
                let scale = unit * f64::from(factor);
                let error: f64 = values
                    .iter()
                    .zip(weights)
                    .map(|(&x, w)| w * (scale * f64::from(self.code(x, scale)) - x).powi(2))
                    .sum();
                if error < best_error {
                    best_error = error;
                    block.scales[group] = factor as i8;
                }
            }
            total += best_error;
            let scale = unit * f64::from(block.scales[group]);
            for (code, &x) in block.codes[group * self.ranges.group_len..].iter_mut().zip(values) {
                *code = self.code(x, scale) as i8;
            }
        }
        (block, total)
    }

    /// Least squares for the block scale at fixed group scales and codes.
    fn refit(&self, block: &SymmetricBlock) -> HalfBytes {
        let (mut aa, mut ax) = (0.0, 0.0);
        for (i, (&x, &w)) in self.values.iter().zip(&self.weights).enumerate() {
            let a = f64::from(block.scales[i / self.ranges.group_len]) * f64::from(block.codes[i]);
            aa += w * a * a;
            ax += w * a * x;
        }
        if aa > 0.0 { half(ax / aa) } else { block.scale }
    }
}
