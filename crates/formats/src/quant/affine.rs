//! Quantiser of the `_K` layouts with scale and minimum: `x ~ d s q - dmin m` per group.

use super::fit::{self, Lattice};
use super::packing::pack_k4_scale_min;
use super::{HalfBytes, K_BLOCK_LEN};

/// Ranges of such a layout.
#[derive(Clone, Copy)]
pub(super) struct AffineRanges {
    /// Elements that share one scale and minimum.
    pub group_len: usize,
    /// Largest code `q`.
    pub code: i32,
    /// Largest scale `s` and minimum `m`.
    pub factor: i32,
}

/// A block before packing; only the first `256 / group_len` scales and minima are used.
#[derive(Clone)]
pub(super) struct AffineBlock {
    pub scale: HalfBytes,
    pub min: HalfBytes,
    pub scales: [u8; 16],
    pub mins: [u8; 16],
    pub codes: [u8; K_BLOCK_LEN],
}

impl AffineBlock {
    /// The first eight scales and minima as `Q4_K` and `Q5_K` store them.
    pub fn packed_k4_factors(&self) -> [u8; 12] {
        let [scales, mins] = [self.scales, self.mins].map(|factors| std::array::from_fn(|group| factors[group]));
        pack_k4_scale_min(&scales, &mins)
    }
}

/// Searches a block with a small weighted squared error; large elements weigh more than small ones.
///
/// Each group is fitted alone; the groups' scales and minima are then put on the block's two lattices; last, block scales
/// and group factors are improved in turn while the error falls.
///
/// `importance` multiplies the weights.
pub(super) fn quantize(
    values: &[f32; K_BLOCK_LEN],
    importance: Option<&[f32; K_BLOCK_LEN]>,
    ranges: AffineRanges,
) -> AffineBlock {
    let search = Search::new(values, importance, ranges);
    let fits: Vec<(f64, f64)> =
        search.groups().map(|(values, weights)| fit::affine(values, weights, ranges.code)).collect();
    let scales: Vec<f64> = fits.iter().map(|fit| fit.0).collect();
    let mins: Vec<f64> = fits.iter().map(|fit| fit.1).collect();
    // A group's error grows with `sum w q^2` in its scale and with `sum w` in its minimum.
    let (scale_weights, min_weights): (Vec<f64>, Vec<f64>) = search
        .groups()
        .zip(&fits)
        .map(|((values, weights), &(scale, min))| {
            let curvature = |&x: &f64| f64::from(fit::nearest((x + min) / scale, 0, ranges.code)).powi(2);
            let by_scale = if scale > 0.0 { weighted_sum(weights, values.iter().map(curvature)) } else { 0.0 };
            (by_scale, weights.iter().sum::<f64>())
        })
        .unzip();
    let factor_lattice = Lattice::Range { low: 0, high: ranges.factor };
    let scale = fit::linear(&scales, &scale_weights, factor_lattice);
    let min = fit::linear(&mins, &min_weights, factor_lattice);

    let factors = |values: &[f64], unit: HalfBytes| -> Vec<i32> {
        let unit = f64::from(unit.to_f32());
        let on_lattice = |&x: &f64| if unit > 0.0 { fit::nearest(x / unit, 0, ranges.factor) } else { 0 };
        values.iter().map(on_lattice).collect()
    };
    let (scale, min) = (half(scale), half(min));
    let (mut best, mut best_error) = search.assign(scale, min, &factors(&scales, scale), &factors(&mins, min));
    for _ in 0..4 {
        let Some((scale, min)) = search.refit(&best) else { break };
        let around = |factors: &[u8; 16]| factors.iter().map(|&factor| i32::from(factor)).collect::<Vec<_>>();
        let (candidate, error) = search.assign(scale, min, &around(&best.scales), &around(&best.mins));
        if error >= best_error {
            break;
        }
        (best, best_error) = (candidate, error);
    }
    best
}

fn half(value: f64) -> HalfBytes {
    HalfBytes::from_f32(value as f32)
}

fn weighted_sum(weights: &[f64], values: impl Iterator<Item = f64>) -> f64 {
    weights.iter().zip(values).map(|(w, x)| w * x).sum()
}

struct Search {
    ranges: AffineRanges,
    values: [f64; K_BLOCK_LEN],
    weights: [f64; K_BLOCK_LEN],
}

impl Search {
    fn new(values: &[f32; K_BLOCK_LEN], importance: Option<&[f32; K_BLOCK_LEN]>, ranges: AffineRanges) -> Self {
        let values = values.map(f64::from);
        let weights = fit::weights(&values, importance, ranges.group_len);
        Self { ranges, values, weights }
    }

    fn groups(&self) -> impl Iterator<Item = (&[f64], &[f64])> {
        self.values.chunks(self.ranges.group_len).zip(self.weights.chunks(self.ranges.group_len))
    }

    /// The best factors next to `scales` and `mins`, with the nearest codes; and the weighted squared error.
    fn assign(&self, scale: HalfBytes, min: HalfBytes, scales: &[i32], mins: &[i32]) -> (AffineBlock, f64) {
        let mut block = AffineBlock { scale, min, scales: [0; 16], mins: [0; 16], codes: [0; K_BLOCK_LEN] };
        let (unit_scale, unit_min) = (f64::from(scale.to_f32()), f64::from(min.to_f32()));
        let in_range = |factor: &i32| (0..=self.ranges.factor).contains(factor);
        let mut total = 0.0;
        for (group, (values, weights)) in self.groups().enumerate() {
            let mut best_error = f64::INFINITY;
            for s in (scales[group] - 1..=scales[group] + 1).filter(in_range) {
                for m in (mins[group] - 1..=mins[group] + 1).filter(in_range) {
                    let (scale, min) = (unit_scale * f64::from(s), unit_min * f64::from(m));
                    let squares =
                        values.iter().map(|&x| (scale * f64::from(self.code(x, scale, min)) - min - x).powi(2));
                    let error = weighted_sum(weights, squares);
                    if error < best_error {
                        best_error = error;
                        (block.scales[group], block.mins[group]) = (s as u8, m as u8);
                    }
                }
            }
            total += best_error;
            let scale = unit_scale * f64::from(block.scales[group]);
            let min = unit_min * f64::from(block.mins[group]);
            let first = group * self.ranges.group_len;
            for (code, &x) in block.codes[first..].iter_mut().zip(values) {
                *code = self.code(x, scale, min) as u8;
            }
        }
        (block, total)
    }

    fn code(&self, x: f64, scale: f64, min: f64) -> i32 {
        if scale > 0.0 { fit::nearest((x + min) / scale, 0, self.ranges.code) } else { 0 }
    }

    /// Least squares for the two block scales at fixed factors and codes.
    fn refit(&self, block: &AffineBlock) -> Option<(HalfBytes, HalfBytes)> {
        let (mut aa, mut ab, mut bb, mut ax, mut bx) = (0.0, 0.0, 0.0, 0.0, 0.0);
        for (i, (&x, &w)) in self.values.iter().zip(&self.weights).enumerate() {
            let group = i / self.ranges.group_len;
            let a = f64::from(block.scales[group]) * f64::from(block.codes[i]);
            let b = -f64::from(block.mins[group]);
            aa += w * a * a;
            ab += w * a * b;
            bb += w * b * b;
            ax += w * a * x;
            bx += w * b * x;
        }
        let determinant = aa * bb - ab * ab;
        let (scale, min) = if determinant > 0.0 {
            ((ax * bb - bx * ab) / determinant, (bx * aa - ax * ab) / determinant)
        } else {
            (ax / aa, 0.0)
        };
        (scale > 0.0 && min >= 0.0).then(|| (half(scale), half(min)))
    }
}
