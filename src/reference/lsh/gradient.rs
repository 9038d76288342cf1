//! Gradients of LSH attention in f64, and how far a kernel may be from them.
//!
//! A key is x_j n_j, n_j = 1 / sqrt(|x_j|^2 + eps). Buckets are constants: what the pairs are does not depend on x. With p, D and ds
//! as `reference/gradient` has them, over all that a query meets in all rounds, as often as it meets, and f_ij the derivative of the terms
//! by the product, 0 for a query's own key, whose score is a constant:
//!
//! ```text
//! dq_i = scale sum_j f_ij ds_ij n_j x_j                     x as query
//! g_j  = scale sum_i f_ij ds_ij n_j x_i                     n_j times the gradient by the key
//! dx   = dq + g - u (u . g),  u = n x                       d (n x) / dx = n - n^3 x x^T
//! dv_j = sum_i p_ij do_i
//! ```
//!
//! So dq, g and dv are the gradients of attention whose terms begin with the factor n_j, and have its bound, with the error of n_j in that
//! of the slope. What joins them adds, with b_u = |x| b_n + u |u_c| (all of an element that may be read as 0):
//!
//! ```text
//! b_s  = sum_c ( |u_c| B_g + b_u (|g_c| + B_g) ) + gamma_{d+1} sum_c (|u_c| + b_u)(|g_c| + B_g) + 2 d 2^-126     of s = u . g
//! b_t  = |u_c| b_s + b_u (|s| + b_s) + u (|u_c| + b_u)(|s| + b_s) + 2^-126
//! B_dx = B_dq + B_g + b_t + gamma_2 (|dq| + B_dq + |g| + B_g + |u_c s| + b_t) + 2^-125
//! ```
//!
//! A key that no query sees has g = 0, and no norm then matters.

use super::LshCall;
use super::bound::{LshRow, inverse_norm, product, solve};
use super::meet::Meetings;
use crate::lsh::{LshInputs, LshOptions};
use crate::reference::gradient::{
    BoundOptions, Derivatives, GradientCall, RowSource, Solved, before_storage, derivatives, of_call,
    with_storage,
};
use crate::reference::layer::Bounded;
use crate::reference::rounding::{HUGE, TINY, U, gamma, min_normal, promised};
use crate::score::Known;
use crate::{Attention, Element, ElementType, Full, Inputs, Position, Result};

/// Gradients of LSH attention in f64, contiguous.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct LshGradients {
    /// The gradient by the shared queries and keys, in both their roles, `[B, H, L, d]`.
    pub dqk: Vec<f64>,
    /// The gradient by v, `[B, H, L, dv]`.
    pub dv: Vec<f64>,
}

/// [`LshGradients`] with the largest error of a kernel per element. NaN among the values says that a kernel must give NaN, an infinite
/// bound that nothing is promised.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct BoundedLshGradients {
    /// The gradient by the shared queries and keys, in both their roles, `[B, H, L, d]`.
    pub dqk: Bounded,
    /// The gradient by v, `[B, H, L, dv]`.
    pub dv: Bounded,
}

/// The gradients of sum(out * dout), where out is what [`lsh_with_buckets`](super::lsh_with_buckets) gives for these buckets `[B, H, R, L]`,
/// which are constants; dout `[B, H, L, dv]` in the element type and layout of out. A key's gradient reaches qk through its norm; a zero
/// vector without `norm_eps`, where the norm has no derivative, has none as a key.
///
/// A row without keys gives exactly 0, and so does a key that no query sees.
///
/// # Errors
/// As [`lsh_with_buckets`](super::lsh_with_buckets), and [`Error::Argument`](crate::Error::Argument) for a `dout` of the wrong
/// length or element type, and for a score with a term whose derivative is not known.
///
/// ```
/// use wgpu_attention::{AttentionShape, LshInputs, LshOptions, reference};
/// let shape = AttentionShape::new(1, 1, 3, 2);
/// let (options, buckets) = (LshOptions::new(1, 2, 3), [0; 3]); // all meet
/// let (qk, v) = ([1.0f32, 0.0, 2.0, 0.0, 0.0, 3.0], [1.0f32, 0.0, 2.0, 0.0, 4.0, 0.0]);
/// let inputs = LshInputs::new(&qk, &v);
/// let exact = reference::lsh_gradient(&shape, &options, &inputs, &[1.0f32, 0.0, 0.0, 0.0, 0.0, 0.0], &buckets)?;
/// // Query 0 sees keys 1 and 2, at products 1 and 0: moved along (1, 0), it prefers key 1, whose value is 2 less.
/// let p = 1.0 / (1.0 + (-(0.5f64.sqrt())).exp());
/// assert!((exact.dqk[0] + 0.5f64.sqrt() * p * (1.0 - p) * 2.0).abs() < 1e-7);
/// // As a key, position 1 has the direction of query 0 already.
/// assert_eq!(exact.dqk[2], 0.0);
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
pub fn lsh_gradient<E: Element, O: Element>(
    attention: impl Into<Attention>,
    options: &LshOptions,
    inputs: &LshInputs<'_, E>,
    dout: &[O],
    buckets: &[u32],
) -> Result<LshGradients> {
    let attention = attention.into();
    with_call(&attention, options, inputs, dout, buckets, |call, gradients| {
        let exact = of_call(gradients);
        let zeros = vec![0.0; exact.dq.len()];
        let dqk = joined(call, [&exact.dq, &zeros], [&exact.dk, &zeros]).0;
        Ok(LshGradients { dqk, dv: exact.dv })
    })
}

/// [`lsh_gradient`] with the bound on what a kernel may give for it, which stores it so: from the inputs and the buckets alone.
///
/// # Errors
/// As [`lsh_gradient`].
///
/// ```
/// use wgpu_attention::{AttentionShape, ElementType, LshInputs, LshOptions, reference};
/// let shape = AttentionShape::new(1, 1, 3, 2);
/// let (options, buckets) = (LshOptions::new(1, 2, 3), [0; 3]);
/// let (qk, v) = ([1.0f32, 0.5, 2.0, 0.0, 0.0, 3.0], [1.0f32, 0.0, 2.0, 0.0, 4.0, 0.0]);
/// let inputs = LshInputs::new(&qk, &v);
/// let exact = reference::bounded_lsh_gradient(&shape, &options, &inputs, &[1.0f32; 6], &buckets, ElementType::F32)?;
/// // A kernel's gradients: here the exact ones, rounded.
/// assert!(exact.dqk.compare(exact.dqk.out.iter().map(|&x| x as f32), 0.0).pass);
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
pub fn bounded_lsh_gradient<E: Element, O: Element>(
    attention: impl Into<Attention>,
    options: &LshOptions,
    inputs: &LshInputs<'_, E>,
    dout: &[O],
    buckets: &[u32],
    storage: ElementType,
) -> Result<BoundedLshGradients> {
    let attention = attention.into();
    with_call(&attention, options, inputs, dout, buckets, |call, gradients| {
        let (exact, bounds) = before_storage(gradients, BoundOptions::default())?;
        let (dqk, bound) = joined(call, [&exact.dq, &bounds.dq], [&exact.dk, &bounds.dk]);
        Ok(BoundedLshGradients {
            dqk: with_storage(dqk, bound, storage),
            dv: with_storage(exact.dv, bounds.dv, storage),
        })
    })
}

/// What `then` makes of a call whose sizes have been checked.
fn with_call<E: Element, O: Element, R>(
    attention: &Attention,
    options: &LshOptions,
    inputs: &LshInputs<'_, E>,
    dout: &[O],
    buckets: &[u32],
    then: impl FnOnce(&LshCall<'_>, &GradientCall<'_>) -> Result<R>,
) -> Result<R> {
    let call = LshCall::new(attention, options, inputs)?;
    let rows = LshRows { lines: call.meetings(buckets)?, call: &call };
    let mut tensors = Inputs::new(inputs.qk, inputs.qk, inputs.v);
    tensors.tensors.clone_from(&inputs.tensors);
    let gradients = GradientCall::new(attention, &tensors, dout, &Full)?.over(&rows);
    then(&call, &gradients)
}

/// Rows of LSH attention as the gradients take them.
struct LshRows<'a> {
    call: &'a LshCall<'a>,
    lines: Vec<Meetings>,
}

impl RowSource for LshRows<'_> {
    fn solve(&self, at: Position) -> Solved {
        let call = self.call;
        let LshRow { exact, rounds, errors, .. } =
            solve(call, &self.lines[at.row(call.shape) / call.shape.q_len], at);
        // From the order in which they are met to that of the keys.
        let mut met: Vec<usize> = (0..exact.keys.len()).collect();
        met.sort_by_key(|&n| (exact.keys[n], n));
        let mut place = vec![0; met.len()];
        met.iter().enumerate().for_each(|(to, &n)| place[n] = to);
        let parts = rounds.into_iter().map(|round| round.into_iter().map(|n| place[n]).collect()).collect();

        let q = call.x(at, at.i);
        let by = met.iter().map(|&n| {
            let score = Known { score: exact.scores[n], error: errors[n] };
            derivatives_of(call, at, &q, exact.keys[n] as usize, score)
        });
        let by = by.collect();
        let sorted = |all: &[f64]| met.iter().map(|&n| all[n]).collect();
        let (products, scores) = (sorted(&exact.products), sorted(&exact.scores));
        let keys = met.iter().map(|&n| exact.keys[n]).collect();
        Solved {
            forward: crate::reference::exact::Exact { keys, products, scores, ..exact },
            by,
            parts: Some(parts),
        }
    }
}

/// Of a pair whose score is known, terms, penalty, count and all.
fn derivatives_of(call: &LshCall<'_>, at: Position, q: &[f64], j: usize, score: Known) -> Derivatives {
    if at.i == j {
        let slope = Known { score: 0.0, error: 0.0 };
        return Derivatives { score, slope, elements: vec![], products: vec![] };
    }
    let (x, eps) = (call.x(at, j), f64::from(call.options.norm_eps));
    let product = product(call.attention, eps, q, &x).known;
    let unit = inverse_norm(call.attention, eps, &x);
    Derivatives { score, ..derivatives(&call.terms, &call.pair(at, j), product, unit) }
}

/// dqk of all rows and its bound, from dq and g, each with its own.
fn joined(call: &LshCall<'_>, dq: [&[f64]; 2], g: [&[f64]; 2]) -> (Vec<f64>, Vec<f64>) {
    let (shape, d) = (call.shape, call.shape.head_dim);
    let (mut dqk, mut bound) = (dq[0].to_vec(), dq[1].to_vec());
    for (n, (dqk, bound)) in dqk.chunks_mut(d).zip(bound.chunks_mut(d)).enumerate() {
        let g = g.map(|all| &all[n * d..][..d]);
        if g.iter().all(|g| g.iter().all(|&g| g == 0.0)) {
            continue; // no query sees the key
        }
        let at = Position::of_row(shape, n);
        Projection::new(call, at, g).add(g, dqk, bound);
    }
    (dqk, bound)
}

/// u and u . g of a key, with their errors.
struct Projection {
    u: Vec<Known>,
    s: Known,
}

impl Projection {
    fn new(call: &LshCall<'_>, at: Position, [g, bound]: [&[f64]; 2]) -> Self {
        let x = call.x(at, at.i);
        let (attention, smallest) = (call.attention, min_normal(call.attention.storage.q));
        let norm = inverse_norm(attention, call.options.norm_eps.into(), &x);
        let unit = |x: &f64| {
            let u = x * norm.score;
            let flushed = if x.abs() < smallest { u.abs() } else { 0.0 };
            Known { score: u, error: x.abs() * norm.error + U * u.abs() + flushed + TINY }
        };
        let u: Vec<Known> = x.iter().map(unit).collect();
        let (mut s, mut error, mut size) = (0.0, 0.0, 0.0);
        for ((u, g), b) in u.iter().zip(g).zip(bound) {
            s += u.score * g;
            error += u.score.abs() * b + u.error * (g.abs() + b);
            size += (u.score.abs() + u.error) * (g.abs() + b);
        }
        let error = error + gamma(x.len() + 1) * size + TINY * (2 * x.len()) as f64;
        Self { u, s: Known { score: s, error: if size < HUGE { error } else { f64::INFINITY } } }
    }

    /// Adds g - u s to dq.
    fn add(&self, [g, b_g]: [&[f64]; 2], dq: &mut [f64], bound: &mut [f64]) {
        let s = self.s;
        for (c, (dq, bound)) in dq.iter_mut().zip(bound).enumerate() {
            let (u, strange) = (self.u[c], bound.is_nan() || b_g[c].is_nan());
            let t = u.score * s.score;
            let moved = u.score.abs() * s.error
                + u.error * (s.score.abs() + s.error)
                + U * (u.score.abs() + u.error) * (s.score.abs() + s.error)
                + TINY;
            let size = dq.abs() + *bound + g[c].abs() + b_g[c] + t.abs() + moved;
            let sum = *bound + b_g[c] + moved + gamma(2) * size + 2.0 * TINY;
            *dq += g[c] - t;
            *bound = if strange { f64::NAN } else { promised(sum) };
        }
    }
}
