//! The distribution from which the next token is drawn.

use super::{Real, selection, softmax};

/// Filters of [`sampling_probabilities`], applied in the order of the fields. A field that is `None` changes nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Filters {
    /// Divides the logits; over 0.
    pub temperature: Option<f64>,
    /// Keeps tokens whose logit is at least the `k`-th largest: more than `k` when several equal it.
    pub top_k: Option<usize>,
    /// Keeps the smallest set of most likely tokens whose probabilities sum to at least this; always the most likely one.
    pub top_p: Option<f64>,
    /// Keeps tokens at least this fraction as likely as the most likely one.
    pub min_p: Option<f64>,
}

/// The probability of every token after the filters of Hugging Face `transformers`, in its order: temperature, top-k,
/// top-p, min-p, each seeing the renormalised result of the one before (`generation/utils.py` and
/// `generation/logits_process.py` of version 5.23).
///
/// Which of several equally likely tokens a top-p limit cuts off is left open there; here the lower ids stay.
pub fn sampling_probabilities<X: Real>(logits: &[X], filters: Filters) -> Vec<f64> {
    let mut logits: Vec<f64> = logits.iter().map(|&logit| logit.into()).collect();
    if let Some(temperature) = filters.temperature {
        assert!(temperature > 0.0, "reference sampling: temperature {temperature} is not above 0");
        logits.iter_mut().for_each(|logit| *logit /= temperature);
    }
    if let Some(k) = filters.top_k {
        assert!(k > 0, "reference sampling: top-k of 0 keeps nothing");
        let last = *selection::top_k(&logits, k).last().expect("at least one logit");
        let threshold = logits[last];
        remove(&mut logits, |_, logit| logit < threshold);
    }
    if let Some(p) = filters.top_p {
        let probabilities = softmax(&logits, logits.len());
        let mut kept = vec![false; logits.len()];
        let mut before = 0.0;
        for (rank, index) in selection::top_k(&logits, logits.len()).into_iter().enumerate() {
            kept[index] = rank == 0 || before < p;
            before += probabilities[index];
        }
        remove(&mut logits, |index, _| !kept[index]);
    }
    if let Some(fraction) = filters.min_p {
        let probabilities = softmax(&logits, logits.len());
        let threshold = fraction * probabilities.iter().fold(0.0, |max: f64, &p| max.max(p));
        remove(&mut logits, |index, _| probabilities[index] < threshold);
    }
    softmax(&logits, logits.len())
}

fn remove(logits: &mut [f64], removed: impl Fn(usize, f64) -> bool) {
    for (index, logit) in logits.iter_mut().enumerate() {
        if removed(index, *logit) {
            *logit = f64::NEG_INFINITY;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGITS: [f64; 7] = [2.0, 1.0, 0.5, 0.5, -1.0, -3.0, 1.5];

    fn assert_probabilities(filters: Filters, expected: [f64; 7]) {
        let actual = sampling_probabilities(&LOGITS, filters);
        for (actual, expected) in actual.iter().zip(expected) {
            assert!((actual - expected).abs() < 1e-14, "{filters:?}: {actual:?}, {expected:?}");
        }
    }

    /// transformers 5.23 in f64, except where noted.
    #[test]
    fn filters_match_transformers() {
        let none = Filters::default();
        assert_probabilities(
            none,
            [
                0.40368231962899054,
                0.1485064261559046,
                0.09007370062790629,
                0.09007370062790629,
                0.020098159246266456,
                0.002719990074128017,
                0.2448457036388978,
            ],
        );
        assert_probabilities(
            Filters { temperature: Some(0.7), ..none },
            [
                0.5054627111056963,
                0.12113466259915001,
                0.05930046375865948,
                0.05930046375865948,
                0.006957080957168271,
                0.0003995633818270363,
                0.2474450544388393,
            ],
        );
        // The fourth largest logit occurs twice: five tokens stay.
        assert_probabilities(
            Filters { top_k: Some(4), ..none },
            [
                0.4131086955291275,
                0.15197419605431894,
                0.09217700939212314,
                0.09217700939212314,
                0.0,
                0.0,
                0.2505630896323071,
            ],
        );
        // The same values, but of the two equal tokens transformers keeps the other one.
        assert_probabilities(
            Filters { top_p: Some(0.8), ..none },
            [0.45505423392341116, 0.1674050972784433, 0.10153632409155178, 0.0, 0.0, 0.0, 0.2760043447065936],
        );
        assert_probabilities(
            Filters { min_p: Some(0.3), ..none },
            [0.506480391055654, 0.1863237232258476, 0.0, 0.0, 0.0, 0.0, 0.3071958857184984],
        );
        assert_probabilities(
            Filters { temperature: Some(1.3), top_k: Some(5), top_p: Some(0.9), min_p: Some(0.25) },
            [
                0.3603701888134695,
                0.16698450708021692,
                0.1136684242974228,
                0.1136684242974228,
                0.0,
                0.0,
                0.24530845551146804,
            ],
        );
    }

    #[test]
    fn the_most_likely_token_always_stays() {
        let only_the_first = [1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0];
        assert_probabilities(Filters { top_p: Some(1e-6), ..Filters::default() }, only_the_first);
        assert_probabilities(Filters { top_p: Some(0.0), ..Filters::default() }, only_the_first);
        assert_probabilities(Filters { top_k: Some(1), ..Filters::default() }, only_the_first);
        assert_probabilities(Filters { min_p: Some(1.0), ..Filters::default() }, only_the_first);
    }

    #[test]
    fn filters_that_allow_everything_change_nothing() {
        let open = Filters { temperature: Some(1.0), top_k: Some(100), top_p: Some(1.0), min_p: Some(0.0) };
        assert_eq!(sampling_probabilities(&LOGITS, open), sampling_probabilities(&LOGITS, Filters::default()));
    }
}
