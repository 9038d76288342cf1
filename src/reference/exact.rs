//! One row of attention by the formula, in f64.

use super::call::{Call, Position};
/// A row in f64, with what it was made from.
pub(super) struct Exact {
    /// S_i, ascending.
    pub(super) keys: Vec<u32>,
    /// scale q_i . k_j for each of `keys`.
    pub(super) products: Vec<f64>,
    /// score(i, j) for each of `keys`.
    pub(super) scores: Vec<f64>,
    /// o_i, `[dv]`.
    pub(super) out: Vec<f64>,
    pub(super) lse: f64,
}

/// Two passes over S_i: the scores with their maximum M, then
/// l = sum exp(s_j - M), o = sum exp(s_j - M) v_j / l, lse = M + ln l. A score, or an attended
/// value, that is NaN or infinite makes all of the row NaN.
pub(super) fn solve(call: &Call<'_>, at: Position) -> Exact {
    let keys = call.keys(at);
    let mut out = vec![0.0; call.shape.value_dim];
    if keys.is_empty() {
        return Exact { keys, products: Vec::new(), scores: Vec::new(), out, lse: f64::from(f32::MIN) };
    }
    let q = call.q(at);
    let products: Vec<f64> = keys.iter().map(|&j| call.product(&q, at, j)).collect();
    let scores: Vec<f64> =
        keys.iter().zip(&products).map(|(&j, &product)| call.score(product, at, j)).collect();
    // f64::max would skip a NaN.
    if products.iter().chain(&scores).any(|score| !score.is_finite()) {
        out.fill(f64::NAN);
        return Exact { keys, products, scores, out, lse: f64::NAN };
    }
    let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);

    let mut l = 0.0;
    for (&j, score) in keys.iter().zip(&scores) {
        let p = (score - max).exp();
        l += p;
        for (o, v) in out.iter_mut().zip(call.v(at, j)) {
            *o += p * v;
        }
    }
    if keys.iter().any(|&j| call.v(at, j).any(|v| !v.is_finite())) {
        out.fill(f64::NAN);
        return Exact { keys, products, scores, out, lse: f64::NAN };
    }
    out.iter_mut().for_each(|o| *o /= l);
    Exact { keys, products, scores, out, lse: max + f64::ln(l) }
}
