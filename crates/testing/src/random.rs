//! Deterministic test data: the same seed gives the same values on every machine and in every release.

use std::ops::Range;

use half::{bf16, f16};

/// A small seeded generator: xoshiro256++ (Blackman and Vigna, "Scrambled linear pseudorandom number generators", 2021),
/// its state filled by SplitMix64 (Steele, Lea and Flood, 2014). For tests, not for secrets.
#[derive(Clone, Debug)]
pub struct Random {
    state: [u64; 4],
    spare_normal: Option<f64>,
}

fn split_mix_64(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

impl Random {
    /// A generator whose whole sequence is fixed by `seed`.
    pub fn new(seed: u64) -> Self {
        let mut mixer = seed;
        Random { state: std::array::from_fn(|_| split_mix_64(&mut mixer)), spare_normal: None }
    }

    /// The next 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        let [a, b, c, d] = &mut self.state;
        let result = a.wrapping_add(*d).rotate_left(23).wrapping_add(*a);
        let shifted = *b << 17;
        *c ^= *a;
        *d ^= *b;
        *b ^= *c;
        *a ^= *d;
        *c ^= shifted;
        *d = d.rotate_left(45);
        result
    }

    /// Uniform in `0.0..1.0`, with 53 bits.
    pub fn unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// Uniform in `range`.
    pub fn uniform(&mut self, range: Range<f64>) -> f64 {
        range.start + (range.end - range.start) * self.unit()
    }

    /// Uniform in `0..limit`, by multiplication (the bias of at most `limit / 2^64` is immaterial in tests).
    ///
    /// # Panics
    /// When `limit` is 0.
    pub fn below(&mut self, limit: usize) -> usize {
        assert!(limit > 0, "a random index below 0 does not exist");
        ((u128::from(self.next_u64()) * limit as u128) >> 64) as usize
    }

    /// Normal with mean 0 and standard deviation 1 (Box and Muller, 1958).
    pub fn normal(&mut self) -> f64 {
        if let Some(spare) = self.spare_normal.take() {
            return spare;
        }
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        let (sine, cosine) = (std::f64::consts::TAU * self.unit()).sin_cos();
        self.spare_normal = Some(radius * sine);
        radius * cosine
    }

    /// `count` values uniform in `range`.
    pub fn uniform_vec(&mut self, count: usize, range: Range<f64>) -> Vec<f32> {
        (0..count).map(|_| self.uniform(range.clone()) as f32).collect()
    }

    /// `count` normal values with mean 0 and standard deviation 1.
    pub fn normal_vec(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.normal() as f32).collect()
    }

    /// [`Random::normal_vec`] rounded to `f16`.
    pub fn normal_f16(&mut self, count: usize) -> Vec<f16> {
        (0..count).map(|_| f16::from_f64(self.normal())).collect()
    }

    /// [`Random::normal_vec`] rounded to `bf16`.
    pub fn normal_bf16(&mut self, count: usize) -> Vec<bf16> {
        (0..count).map(|_| bf16::from_f64(self.normal())).collect()
    }

    /// `count` values uniform in `range`, rounded to `f16`.
    pub fn uniform_f16(&mut self, count: usize, range: Range<f64>) -> Vec<f16> {
        (0..count).map(|_| f16::from_f64(self.uniform(range.clone()))).collect()
    }

    /// `count` values uniform in `range`, rounded to `bf16`.
    pub fn uniform_bf16(&mut self, count: usize, range: Range<f64>) -> Vec<bf16> {
        (0..count).map(|_| bf16::from_f64(self.uniform(range.clone()))).collect()
    }

    /// `count` token ids or row indices in `0..limit`.
    ///
    /// # Panics
    /// When `limit` is 0 or over 2^32.
    pub fn indices(&mut self, count: usize, limit: usize) -> Vec<u32> {
        (0..count).map(|_| u32::try_from(self.below(limit)).expect("an index limit of at most 2^32")).collect()
    }

    /// `count` random bytes.
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| (self.next_u64() >> 56) as u8).collect()
    }

    /// Puts `values` into a random order (Fisher and Yates).
    pub fn shuffle<T>(&mut self, values: &mut [T]) {
        for last in (1..values.len()).rev() {
            let chosen = self.below(last + 1);
            values.swap(last, chosen);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values published with the generator's C source (seed 1234567).
    #[test]
    fn split_mix_gives_the_published_sequence() {
        let mut state = 1_234_567;
        let first: Vec<u64> = (0..3).map(|_| split_mix_64(&mut state)).collect();
        assert_eq!(first, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }

    /// Worked by hand from the published update with state 1, 2, 3, 4.
    #[test]
    fn xoshiro_gives_the_published_sequence() {
        let mut random = Random { state: [1, 2, 3, 4], spare_normal: None };
        let first: Vec<u64> = (0..3).map(|_| random.next_u64()).collect();
        assert_eq!(first, [41_943_041, 58_720_359, 3_588_806_011_781_223]);
    }

    #[test]
    fn the_seed_decides_everything() {
        assert_eq!(Random::new(5).normal_vec(33), Random::new(5).normal_vec(33));
        assert_ne!(Random::new(5).normal_vec(33), Random::new(6).normal_vec(33));
    }

    #[test]
    fn uniform_values_fill_their_range() {
        let values = Random::new(1).uniform_vec(20_000, -3.0..5.0);
        assert!(values.iter().all(|value| (-3.0..=5.0).contains(value)));
        let mean = values.iter().map(|&value| f64::from(value)).sum::<f64>() / 20_000.0;
        assert!((mean - 1.0).abs() < 0.1, "mean {mean}");
        assert!(values.iter().any(|&value| value < -2.9) && values.iter().any(|&value| value > 4.9));
    }

    #[test]
    fn normal_values_have_unit_variance_and_tails() {
        let values = Random::new(2).normal_vec(20_001);
        let mean = values.iter().map(|&value| f64::from(value)).sum::<f64>() / 20_001.0;
        let variance = values.iter().map(|&value| (f64::from(value) - mean).powi(2)).sum::<f64>() / 20_000.0;
        assert!(mean.abs() < 0.03 && (variance - 1.0).abs() < 0.05, "mean {mean}, variance {variance}");
        let beyond_two = values.iter().filter(|value| value.abs() > 2.0).count();
        assert!((700..1_150).contains(&beyond_two), "{beyond_two} of 20001 beyond two deviations, expected about 910");
    }

    #[test]
    fn indices_reach_both_ends_and_no_further() {
        let indices = Random::new(3).indices(1_000, 7);
        let mut seen: Vec<u32> = indices.clone();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen, [0, 1, 2, 3, 4, 5, 6]);
        assert_eq!(Random::new(3).indices(4, 1), [0; 4]);
    }

    #[test]
    fn a_shuffle_keeps_every_value() {
        let mut values: Vec<u32> = (0..50).collect();
        Random::new(4).shuffle(&mut values);
        assert!(values.iter().enumerate().any(|(index, &value)| index as u32 != value));
        values.sort_unstable();
        assert!(values.into_iter().eq(0..50));
    }
}
