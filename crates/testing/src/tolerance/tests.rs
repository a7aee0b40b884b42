use super::*;
use crate::Random;

fn limits(abs: f64, rel: f64) -> Tolerance {
    Tolerance::explicit(Limits { abs, rel })
}

fn worst(result: Result<Margin, Mismatch>) -> Vec<Deviation> {
    match result {
        Err(Mismatch::Values { worst, .. }) => worst,
        other => panic!("expected differing values, got {other:?}"),
    }
}

#[test]
fn a_difference_at_the_limit_passes_and_one_above_fails() {
    let tolerance = limits(0.25, 0.5);
    let margin = tolerance.check("edge", &[2.25], &[1.5]).expect("0.75 of 1.0 is allowed");
    assert_eq!((margin.max_difference, margin.share, margin.compared), (0.75, 0.75, 1));
    assert!(tolerance.check("edge", &[2.5], &[1.5]).is_ok());
    assert!(tolerance.check("edge", &[2.500_001], &[1.5]).is_err());
    assert!(tolerance.check("edge", &[0.499_999], &[1.5]).is_err());
    assert!(tolerance.check("negative reference", &[-2.5], &[-1.5]).is_ok());
}

#[test]
fn not_a_number_fails_on_either_side_whatever_is_allowed() {
    let generous = limits(f64::INFINITY, 0.0);
    assert!(generous.check("finite", &[1e30], &[0.0]).is_ok());
    let at = worst(generous.check("actual", &[0.0, f32::NAN], &[0.0, 0.0]));
    assert_eq!((at.len(), at[0].index, at[0].share()), (1, 1, f64::INFINITY));
    assert!(generous.check("reference", &[0.0], &[f64::NAN]).is_err());
    assert!(generous.check("both", &[f32::NAN], &[f64::NAN]).is_err());
}

#[test]
fn an_allowance_that_is_not_a_number_allows_nothing() {
    assert!(limits(f64::NAN, 0.0).check("nan limit", &[1.0], &[1.5]).is_err());
    let undefined_magnitude = Tolerance::for_dtype(DType::F32).with_magnitude(f64::NAN);
    assert!(undefined_magnitude.check("nan magnitude", &[1.0], &[1.5]).is_err());
}

#[test]
fn infinities_match_only_themselves() {
    let tolerance = limits(1.0, 1.0);
    assert!(tolerance.check("same", &[f32::NEG_INFINITY], &[f64::NEG_INFINITY]).is_ok());
    assert!(tolerance.check("sign", &[f32::INFINITY], &[f64::NEG_INFINITY]).is_err());
    assert!(tolerance.check("finite actual", &[3.0], &[f64::INFINITY]).is_err());
    assert!(tolerance.check("finite reference", &[f32::INFINITY], &[3.0]).is_err());
}

#[test]
fn lengths_must_agree() {
    let result = limits(1.0, 1.0).check("logits", &[1.0, 2.0], &[1.0]);
    assert_eq!(result, Err(Mismatch::Length { name: "logits".into(), actual: 2, reference: 1 }));
    assert!(limits(1.0, 1.0).check("empty actual", &[], &[1.0]).is_err());
    let margin = limits(1.0, 1.0).check("empty", &[], &[]).expect("nothing differs");
    assert_eq!(margin.to_string(), "empty ok: nothing to compare");
}

#[test]
fn a_failure_shows_the_five_worst_by_share() {
    let reference = [100.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 10.0];
    let actual = [150.0, 0.1, 2.0, 4.0, 3.0, 6.0, 5.0, 90.0];
    let mismatch = limits(1.0, 1.0).check("op", &actual, &reference).expect_err("seven positions are off");
    let text = mismatch.to_string();
    assert!(
        text.starts_with("op: 6 of 8 values differ by more than allowed; worst:\n  [7] 9e1, reference 1e1"),
        "{text}"
    );
    assert!(text.contains("difference 8.000e1, 727 % of the allowed 1.100e1"), "{text}");
    let order: Vec<usize> = worst(Err(mismatch)).iter().map(|deviation| deviation.index).collect();
    assert_eq!(order, [7, 5, 6, 3, 4]);
}

#[test]
fn success_states_the_margin() {
    let margin = limits(0.01, 0.0).check("rms_norm", &[1.0, 2.0021], &[1.0, 2.0]).expect("within a hundredth");
    assert_eq!(margin.to_string(), "rms_norm ok: max diff 2.1e-3, 21 % of allowed");
}

#[test]
#[should_panic(expected = "silu: 1 of 2 values differ")]
fn assert_close_panics_with_the_mismatch() {
    assert_close("silu", &[1.0, 2.0], &[1.0, 3.0], &limits(0.5, 0.0));
}

#[test]
fn integers_must_be_equal() {
    let tolerance = Tolerance::for_dtype(DType::I32).reduced_over(1 << 20);
    assert!(tolerance.check("argmax", &[3.0, -7.0], &[3.0, -7.0]).is_ok());
    assert!(tolerance.check("argmax", &[3.0], &[3.0 + 1e-9]).is_err());
}

#[test]
fn a_coarser_type_and_a_longer_reduction_allow_more() {
    let types = [DType::F64, DType::F32, DType::F16, DType::BF16];
    for pair in types.windows(2) {
        let (finer, coarser) = (Tolerance::for_dtype(pair[0]), Tolerance::for_dtype(pair[1]));
        assert!(finer.abs() < coarser.abs() && finer.rel() < coarser.rel(), "{pair:?}");
    }
    let (short, long) =
        (Tolerance::for_dtype(DType::F32).reduced_over(16), Tolerance::for_dtype(DType::F32).reduced_over(4096));
    assert!(short.abs() < long.abs() && short.rel() < long.rel());
    assert!(short.accumulated_in(DType::F16).abs() > short.abs());
    assert_eq!(short.with_magnitude(-10.0).abs(), short.abs() * 10.0);
}

#[test]
fn the_sum_of_two_tolerances_allows_both() {
    let sum = limits(1.0, 0.25) + limits(0.5, 0.5);
    assert_eq!((sum.abs(), sum.rel()), (1.5, 0.75));
    let (left, right) = (Tolerance::for_dtype(DType::BF16).reduced_over(9), Tolerance::for_dtype(DType::F32));
    assert!(((left + right).abs() - (left.abs() + right.abs())).abs() < 1e-18);
    assert_eq!(left.times(3.0).allowed(0.0), left.abs() * 3.0);
}

/// Sums of every length in `f32`, sequentially: the model must cover them and stay near them.
#[test]
fn sequential_f32_dot_products_use_a_fair_share_of_the_allowance() {
    let mut random = Random::new(7);
    for k in [1, 33, 640, 16384] {
        for (case, offset, lost) in [("mixed signs", 0.0f32, 0.02f32), ("one sign", 2.0, 2.0)] {
            let mut actual = Vec::new();
            let mut reference = Vec::new();
            for _ in 0..64 {
                let x: Vec<f32> = random.uniform_vec(k, -1.0..1.0).iter().map(|value| value + offset).collect();
                let w = random.uniform_vec(k, 0.5..1.5);
                actual.push(x.iter().zip(&w).fold(0.0f32, |sum, (x, w)| sum + x * w));
                reference.push(x.iter().zip(&w).map(|(&x, &w)| f64::from(x) * f64::from(w)).sum::<f64>());
            }
            let tolerance = Tolerance::for_dtype(DType::F32).reduced_over(k);
            let margin = tolerance.check(case, &actual, &reference).unwrap_or_else(|error| panic!("k {k}: {error}"));
            assert!(margin.share > 0.002, "k {k}, {case}: the allowance is far too wide: {margin}");
            actual[5] += lost;
            assert!(tolerance.check(case, &actual, &reference).is_err(), "k {k}, {case}: a lost term of {lost} passes");
        }
    }
}

/// A plain int8 block product must pass, and the same product with one block lost must not.
#[test]
fn quantised_activations_are_covered_and_a_lost_block_is_not() {
    const BLOCK: usize = 32;
    let mut random = Random::new(11);
    for k in [32, 96, 1024] {
        let x = random.normal_vec(k);
        let w = random.normal_vec(k * 16);
        let mut actual = Vec::new();
        let mut reference = Vec::new();
        for row in w.chunks_exact(k) {
            let mut sum = 0.0f32;
            for (x, w) in x.chunks_exact(BLOCK).zip(row.chunks_exact(BLOCK)) {
                let amax = x.iter().fold(0.0f32, |max, value| max.max(value.abs()));
                let scale = half::f16::from_f32(amax / 127.0).to_f32();
                sum += x.iter().zip(w).map(|(x, w)| (x / scale).round().clamp(-127.0, 127.0) * scale * w).sum::<f32>();
            }
            actual.push(sum);
            reference.push(x.iter().zip(row).map(|(&x, &w)| f64::from(x) * f64::from(w)).sum());
        }
        let measured = QuantizedActivations::measure(8, k, &x, &w);
        let tolerance = Tolerance::for_quantized_activations(&measured);
        let margin =
            tolerance.check("int8 product", &actual, &reference).unwrap_or_else(|error| panic!("k {k}: {error}"));
        assert!(margin.share > 0.05, "k {k}: {margin}");
        let lost: f64 = x[..BLOCK].iter().zip(&w).map(|(&x, &w)| f64::from(x) * f64::from(w)).sum();
        actual[0] -= lost as f32;
        assert!(tolerance.check("lost block", &actual, &reference).is_err(), "k {k}");
        let four_bits = QuantizedActivations { bits: 4, ..measured };
        assert!(Tolerance::for_quantized_activations(&four_bits).abs() > 5.0 * tolerance.abs());
    }
}

#[test]
#[should_panic(expected = "rows of 7 do not divide")]
fn quantised_activations_need_whole_rows() {
    QuantizedActivations::measure(8, 7, &[0.0; 8], &[0.0; 14]);
}
