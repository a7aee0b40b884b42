//! Scaled dot-product attention.

use super::{Real, expect_len, softcap, softmax};

/// What [`attention`] is told beside its data.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Attention {
    /// Query heads, a multiple of `kv_heads`.
    pub heads: usize,
    /// Key and value heads; query head `h` reads key head `h / (heads / kv_heads)` (Ainslie et al., 2023).
    pub kv_heads: usize,
    /// Values of one query, key or value head.
    pub head_dim: usize,
    /// Position of the first query among the keys: the number of cached tokens before it.
    pub first_position: usize,
    /// Multiplies query times key, usually `1 / sqrt(head_dim)`.
    pub scale: f64,
    /// A query at position `i` sees only keys `j <= i`.
    pub causal: bool,
    /// A query at position `i` sees only keys with `i - j < window`, itself among them.
    pub window: Option<usize>,
    /// Scores become `cap * tanh(score / cap)` before the mask.
    pub softcap: Option<f64>,
}

impl Attention {
    /// Plain causal attention without a window or cap, with the usual scale, from position 0.
    pub fn causal(heads: usize, kv_heads: usize, head_dim: usize) -> Self {
        Attention {
            heads,
            kv_heads,
            head_dim,
            first_position: 0,
            scale: 1.0 / (head_dim as f64).sqrt(),
            causal: true,
            window: None,
            softcap: None,
        }
    }

    /// Whether the query at position `query` may look at the key at position `key`.
    pub fn sees(&self, query: usize, key: usize) -> bool {
        let not_ahead = !self.causal || key <= query;
        let in_window = self.window.is_none_or(|window| query < key + window);
        not_ahead && in_window
    }
}

/// `softmax(scale * q k^T, capped and masked) v`.
///
/// `q [queries, heads, head_dim]`; `k` and `v [keys, kv_heads, head_dim]`; result `[queries, heads, head_dim]`.
///
/// # Panics
/// When a query sees no key at all, which has no defined result.
pub fn attention<Q: Real, K: Real, V: Real>(q: &[Q], k: &[K], v: &[V], params: Attention) -> Vec<f64> {
    let Attention { heads, kv_heads, head_dim, .. } = params;
    assert!(
        kv_heads > 0 && heads.is_multiple_of(kv_heads),
        "reference attention: {heads} query heads are not a multiple of {kv_heads} key heads"
    );
    let queries = q.len() / (heads * head_dim);
    let keys = k.len() / (kv_heads * head_dim);
    expect_len("attention", "q", q.len(), queries * heads * head_dim);
    expect_len("attention", "k", k.len(), keys * kv_heads * head_dim);
    expect_len("attention", "v", v.len(), k.len());
    let mut result = vec![0.0; q.len()];
    for query in 0..queries {
        let position = params.first_position + query;
        let visible: Vec<usize> = (0..keys).filter(|&key| params.sees(position, key)).collect();
        assert!(!visible.is_empty(), "reference attention: the query at position {position} sees none of {keys} keys");
        for head in 0..heads {
            let kv_head = head / (heads / kv_heads);
            let query_at = (query * heads + head) * head_dim;
            let mut scores = Vec::new();
            for &key in &visible {
                let key_at = (key * kv_heads + kv_head) * head_dim;
                let mut dot = 0.0;
                for i in 0..head_dim {
                    dot += q[query_at + i].into() * k[key_at + i].into();
                }
                scores.push(dot * params.scale);
            }
            if let Some(cap) = params.softcap {
                scores = softcap(&scores, cap);
            }
            for (&key, weight) in visible.iter().zip(softmax(&scores, scores.len())) {
                let value_at = (key * kv_heads + kv_head) * head_dim;
                for i in 0..head_dim {
                    result[query_at + i] += weight * v[value_at + i].into();
                }
            }
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Random;

    /// With equal scores the result is the mean of the visible values, which shows exactly what is visible.
    fn means(params: Attention, queries: usize, keys: usize) -> Vec<f64> {
        let q = vec![0.0f32; queries * params.heads];
        let v: Vec<f32> = (0..keys * params.kv_heads).map(|i| i as f32).collect();
        attention(&q, &vec![1.0f32; v.len()], &v, params)
    }

    #[test]
    fn the_mask_decides_what_is_averaged() {
        let causal = Attention::causal(1, 1, 1);
        let close =
            |a: Vec<f64>, b: &[f64]| assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-14), "{a:?} {b:?}");
        close(means(causal, 4, 4), &[0.0, 0.5, 1.0, 1.5]);
        close(means(Attention { causal: false, ..causal }, 2, 4), &[1.5, 1.5]);
        close(means(Attention { window: Some(2), ..causal }, 4, 4), &[0.0, 0.5, 1.5, 2.5]);
        close(means(Attention { window: Some(1), ..causal }, 3, 3), &[0.0, 1.0, 2.0]);
        close(means(Attention { first_position: 3, ..causal }, 1, 4), &[1.5]);
        close(means(Attention { first_position: 3, window: Some(3), ..causal }, 2, 5), &[2.0, 3.0]);
    }

    #[test]
    fn query_heads_share_key_heads_in_order() {
        let params = Attention::causal(4, 2, 1);
        assert_eq!(means(params, 1, 1), [0.0, 0.0, 1.0, 1.0]);
    }

    #[test]
    fn scale_and_cap_act_on_scores() {
        let params = Attention { scale: 0.5, causal: false, ..Attention::causal(1, 1, 2) };
        let (q, k, v) = ([2.0f32, 1.0], [1.0f32, 1.0, -1.0, 0.0], [1.0f32, 0.0, 0.0, 1.0]);
        let expect = |scores: [f64; 2]| {
            let first = 1.0 / (1.0 + (scores[1] - scores[0]).exp());
            [first, 1.0 - first]
        };
        let close =
            |a: &[f64], b: [f64; 2]| assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-14), "{a:?} {b:?}");
        close(&attention(&q, &k, &v, params), expect([1.5, -1.0]));
        let capped = Attention { softcap: Some(0.7), ..params };
        close(&attention(&q, &k, &v, capped), expect([0.7 * (1.5f64 / 0.7).tanh(), 0.7 * (-1.0f64 / 0.7).tanh()]));
    }

    #[test]
    fn one_query_at_a_time_gives_the_rows_of_the_whole() {
        let mut random = Random::new(3);
        let (tokens, params) = (7, Attention { window: Some(3), ..Attention::causal(4, 2, 5) });
        let q = random.normal_vec(tokens * 20);
        let (k, v) = (random.normal_vec(tokens * 10), random.normal_vec(tokens * 10));
        let whole = attention(&q, &k, &v, params);
        for token in 0..tokens {
            let seen = ..(token + 1) * 10;
            let step = Attention { first_position: token, ..params };
            let row = attention(&q[token * 20..(token + 1) * 20], &k[seen], &v[seen], step);
            assert_eq!(row, whole[token * 20..(token + 1) * 20]);
        }
    }

    #[test]
    #[should_panic(expected = "sees none of 1 keys")]
    fn a_query_that_sees_nothing_has_no_result() {
        means(Attention { first_position: 5, window: Some(2), ..Attention::causal(1, 1, 1) }, 1, 1);
    }
}
