use anymlx_testing::{Random, reference};

use super::{
    super::lanes::{Lanes, Portable, map},
    *,
};
use crate::CpuLevel;

/// Values of one function at each level that this processor has.
macro_rules! at_levels {
    ($function:ident, $x:expr) => {{
        let mut results = vec![("scalar", apply($x, $function::<Portable>))];
        #[cfg(target_arch = "x86_64")]
        {
            use super::super::lanes::{Avx2, Avx512};
            if CpuLevel::Avx2.is_supported() {
                results.push(("avx2", apply($x, $function::<Avx2>)));
            }
            if CpuLevel::Avx512.is_supported() {
                results.push(("avx512", apply($x, $function::<Avx512>)));
            }
        }
        results
    }};
}

fn apply<L: Lanes>(x: &[f32], function: impl Fn(L) -> L) -> Vec<f32> {
    let mut y = vec![0.0; x.len()];
    map!(L, x, &mut y, |value| function(value));
    y
}

/// Largest error in units in the last place of the `f32` nearest to the exact value.
fn worst(x: &[f32], y: &[f32], exact: impl Fn(f64) -> f64) -> (f64, f32) {
    let mut worst = (0.0, 0.0);
    for (&x, &y) in x.iter().zip(y) {
        let exact = exact(x.into());
        let nearest = exact as f32;
        let unit = f64::from(f32::from_bits(nearest.abs().to_bits() + 1)) - f64::from(nearest.abs());
        let error = (f64::from(y) - exact).abs() / unit;
        if error > worst.0 || error.is_nan() {
            worst = (error, x);
        }
    }
    worst
}

fn spread(low: f64, high: f64) -> Vec<f32> {
    let mut values = Random::new(16).uniform_vec(200_003, low..high);
    // Every magnitude, not only the large ones.
    values.extend((0..40_000).map(|i| (f64::from(i) * 0.002 - 80.0).exp2() as f32));
    let small: Vec<f32> = values.iter().rev().take(40_000).map(|value| -value).collect();
    values.extend(small);
    values
}

#[test]
fn exp_is_within_its_error() {
    let x = spread(-87.0, 88.7);
    for (level, y) in at_levels!(exp, &x) {
        let (error, at) = worst(&x, &y, f64::exp);
        println!("exp {level}: {error:.2} units at {at}");
        assert!(error <= 1.5, "{level}: {error} units at {at}");
    }
}

#[test]
fn exp_at_the_ends() {
    let x =
        [f32::NEG_INFINITY, -f32::MAX, -104.0, -100.0, -88.0, 0.0, -0.0, 88.72, 88.73, 1e9, f32::INFINITY, f32::NAN];
    for (level, y) in at_levels!(exp, &x) {
        assert_eq!(y[..3], [0.0; 3], "{level}");
        assert!((f64::from(y[3]) - (-100_f64).exp()).abs() <= 2f64.powi(-149), "{level}: {}", y[3]);
        assert!((f64::from(y[4]) / (-88_f64).exp() - 1.0).abs() <= 1e-6, "{level}: {}", y[4]);
        assert_eq!(y[5..7], [1.0; 2], "{level}");
        assert!(y[7].is_finite(), "{level}");
        assert_eq!(y[8..11], [f32::INFINITY; 3], "{level}");
        assert!(y[11].is_nan(), "{level}");
    }
}

#[test]
fn tanh_is_within_its_error() {
    let x = spread(-12.0, 12.0);
    for (level, y) in at_levels!(tanh, &x) {
        let (error, at) = worst(&x, &y, f64::tanh);
        println!("tanh {level}: {error:.2} units at {at}");
        assert!(error <= 3.0, "{level}: {error} units at {at}");
    }
}

#[test]
fn activations_are_within_their_errors() {
    let x = spread(-6.0, 20.0);
    let check = |name: &str, results: Vec<(&str, Vec<f32>)>, exact: fn(f64) -> f64, units: f64| {
        for (level, y) in results {
            let (error, at) = worst(&x, &y, exact);
            println!("{name} {level}: {error:.2} units at {at}");
            assert!(error <= units, "{name}, {level}: {error} units at {at}");
        }
    };
    check("silu", at_levels!(silu, &x), reference::silu, 4.0);
    // The exponent, of up to 27 here, is rounded four times, and each costs as many half units.
    check("gelu_tanh", at_levels!(gelu_tanh, &x), reference::gelu_tanh, 128.0);
    check("gelu_erf", at_levels!(gelu_erf, &x), reference::gelu_erf, 128.0);
}
