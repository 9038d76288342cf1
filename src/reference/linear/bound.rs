//! One row of linear attention, and how far a correct kernel may be from it.
//!
//! With s_j = sum_f q_f k_jf, S_j = sum_f |q_f k_jf|, weights p_j = exp(log_j + D ln decay - top) (1 where keys have none), the denominator
//! l = sum_j p_j s_j + eps sum_f q_f and u = 2^-23, gamma_k = k u / (1 - k u), E = 2^-23:
//!
//! ```text
//! ds_j  = sum_f ( dq_f |k_jf| + |q_f| dk_jf + dq_f dk_jf )        dq, dk: what the feature map says (src/linear/)
//! t_j   = expm1(eps_j)                                            the weight's relative error, below
//! dw_j  = p_j ( ds_j (1 + t_j) + S_j t_j )
//! w+_j  = p_j ( S_j + ds_j ) (1 + t_j)
//! K     = m + 2 min(n, C) + 2 T + 16                              a sum over features, over a chunk of C keys in its state, over T chunks, over
//!                                                                 the query's own chunk; products between them
//! B_c   = [ sum_j dw_j |v_jc - o_c| + gamma_K ( sum_j w+_j |v_jc| + |o_c| ( sum_j w+_j + eps sum_f |q_f| ) ) + |o_c| dl ] / ( |l| - its error )
//! dl    = eps sum_f ( dq_f + |q_f| expm1(c + max_j eps_j) )       c: a factor that is common to a query's features
//! ```
//!
//! Numerator and denominator add up the *same* computed weights: an error of one moves o by its distance from v_j, not by v_j.
//! What they round apart is in gamma_K. A weight is a chain of r exponentials, one where its chunk's top is subtracted, one wherever the top rises (with
//! decay at every chunk), one at the end, whose exponents add up to X_j = top - log_j - D ln decay:
//!
//! ```text
//! eps_j = dlog_j + 3 E r + 3 E (X_j + dlog_j) + u (r + 4) ( max |log| + D |ln decay| )
//! ```
//!
//! the last for the roundings of exponents and of tops. Below e^-85 a weight may be 0 or e^-100. Each product may be flushed to 0, which
//! costs 2^-126. A chunk is C keys, or what a step has; where keys come in steps, T counts the chunks of all (`LinearState`). Then the division and the storage, as for attention. Nothing is promised where the denominator's error reaches
//! it, unless all is exactly 0.

use super::call::{Line, LinearCall};
use crate::Position;
use crate::linear::{Features, Known, LinearOptions};
use crate::reference::compare::BoundedRow;
use crate::reference::rounding::{E, HUGE, TINY, U, gamma, promised, stored};

/// A key as one query sees it.
struct Weight {
    j: usize,
    /// p s.
    weight: f64,
    /// dw.
    common: f64,
    /// w+.
    most: f64,
}

pub(super) fn solve(call: &LinearCall<'_>, line: &Line, at: Position) -> BoundedRow {
    let q = call.query(at);
    let (weights, worst) = weights(call, line, at, &q);
    let eps = f64::from(call.options.denominator_eps);
    let sum_q: f64 = q.phi.iter().map(|q| q.value).sum();
    let size_q: f64 = q.phi.iter().map(|q| q.value.abs()).sum();
    let error_q: f64 = q.phi.iter().map(|q| q.error).sum();
    let l = weights.iter().map(|w| w.weight).sum::<f64>() + eps * sum_q;
    let total = |of: fn(&Weight) -> f64| weights.iter().map(of).sum::<f64>();
    let (common, most) = (total(|w| w.common), total(|w| w.most));
    let chunk = LinearOptions::CHUNK;
    let relative = gamma(q.phi.len() + 2 * weights.len().min(chunk) + 2 * call.chunks() + 16);
    let of_eps = eps * (error_q + size_q * (q.common + worst).exp_m1());
    let flushes = (weights.len() * q.phi.len() + 1) as f64 * 4.0 * TINY * (1.0 + size_q);
    let low = l.abs() - (common + relative * (most + eps * size_q) + of_eps + flushes);
    let nothing = most == 0.0 && eps * size_q == 0.0;

    let mut row = BoundedRow { out: vec![], bound: vec![] };
    for c in 0..call.shape.value_dim {
        let v = |j: usize| f64::from(call.v(at, j)[c]);
        let o = if l == 0.0 { 0.0 } else { weights.iter().map(|w| w.weight * v(w.j)).sum::<f64>() / l };
        let [mut apart, mut size, mut largest] = [0.0, 0.0, 0.0f64];
        for w in &weights {
            apart += w.common * (v(w.j) - o).abs();
            size += w.most * v(w.j).abs();
            largest = largest.max(v(w.j).abs());
        }
        let rounded = relative * (size + o.abs() * (most + eps * size_q));
        let error = (apart + rounded + o.abs() * (of_eps + flushes) + flushes * largest) / low;
        let bound = match (nothing, low > 0.0 && size.max(most) < HUGE) {
            (true, _) => 0.0,
            (false, true) => stored(call.attention.storage.out, o.abs(), error),
            (false, false) => f64::INFINITY,
        };
        row.out.push(o);
        row.bound.push(promised(bound));
    }
    row
}

/// The keys that a query sees, and the largest error of an exponent.
fn weights(call: &LinearCall<'_>, line: &Line, at: Position, q: &Features) -> (Vec<Weight>, f64) {
    let shape = call.shape;
    let position = at.i as i64 + shape.kv_len as i64 - shape.q_len as i64;
    let decay = f64::from(call.log_decays[shape.kv_head(at.head)]);
    let sees = |j: usize| !call.options.causal || j as i64 <= position;
    let age = |j: usize| if call.options.causal { (position - j as i64) as f64 * decay } else { 0.0 };
    let keys = || {
        line.keys.iter().enumerate().filter(|(j, _)| sees(*j)).filter_map(|(j, key)| Some((j, key.as_ref()?)))
    };
    let top = keys().map(|(j, key)| key.log_weight.value + age(j)).fold(f64::NEG_INFINITY, f64::max);
    let mut worst = 0.0f64;
    let of_key = |(j, key): (usize, &Features)| {
        let (s, size, error) = match call.by_column() {
            true => products(q, &shares(line, key)),
            false => products(q, key),
        };
        if !call.options.weighted() {
            return Weight { j, weight: s, common: error, most: size + error };
        }
        let x = top - key.log_weight.value - age(j);
        let exponent = exponent_error(call, line, key, position, j, x, age(j).abs());
        worst = worst.max(exponent);
        let (p, t) = ((-x).exp(), exponent.exp_m1());
        let lost = if x > 85.0 { (p + 1e-37) * (size + error) } else { 0.0 };
        let common = p * (error * (1.0 + t) + size * t) + lost;
        Weight { j, weight: p * s, common, most: p * (size + error) * (1.0 + t) + lost }
    };
    let list = keys().map(of_key).collect();
    (list, worst)
}

/// q . k, the sum of its terms' sizes, and the error that the features' make.
pub(super) fn products(q: &Features, key: &Features) -> (f64, f64, f64) {
    let (mut s, mut size, mut error) = (0.0, 0.0, 0.0);
    for (q, k) in q.phi.iter().zip(&key.phi) {
        s += q.value * k.value;
        size += (q.value * k.value).abs();
        error += q.error * k.value.abs() + q.value.abs() * k.error + q.error * k.error;
    }
    (s, size, error)
}

/// The features of a key over their sums over all keys.
pub(super) fn shares(line: &Line, key: &Features) -> Features {
    let each = key.phi.iter().zip(&line.sums);
    Features { phi: each.map(|(k, sum)| shared(*k, *sum, line.keys.len())).collect(), ..key.clone() }
}

/// A feature over its sum over n keys.
fn shared(k: Known, sum: Known, n: usize) -> Known {
    let value = k.value / sum.value;
    let of_sum = sum.error / sum.value + gamma(n.min(LinearOptions::CHUNK) + n / LinearOptions::CHUNK + 4);
    let error = (k.error / sum.value + value * (of_sum + 3.5 * E)) / (1.0 - of_sum);
    Known { value, error }
}

fn exponent_error(
    call: &LinearCall<'_>,
    line: &Line,
    key: &Features,
    position: i64,
    j: usize,
    x: f64,
    aged: f64,
) -> f64 {
    let chunk_of = |j: usize| call.chunk_of(j);
    let last = if call.options.causal { chunk_of(position as usize) } else { line.rises.len() - 1 };
    let risen = match call.options.decay {
        Some(_) => last - chunk_of(j),
        None => line.rises[last] - line.rises[chunk_of(j)],
    };
    let r = risen as f64 + 3.0;
    let given = key.log_weight.error;
    given + 3.0 * E * (r + x + given) + U * (r + 4.0) * (line.largest_log + aged)
}
