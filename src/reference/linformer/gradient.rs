//! Gradients of Linformer, and how far a correct kernel may be from them.
//!
//! # 1. Rows
//!
//! p_ir, its error a, its size P, and D_i = do_i . o_i within b_D are those of attention (`gradient/bound.rs`, sections 1 and 2) over rows K' and
//! V' that are known within dK' and dV', by which delta and B_c grow (`bound.rs`). With t = do . V'_r - D_i:
//!
//! ```text
//! b_dp = gamma_{dv+3} sum_c |do_c| (|V'_rc| + dV'_rc) + sum_c |do_c| dV'_rc        T = |t| + (1 + 2u)(b_dp + b_D)
//! B_ds = a |t| + P (1 + 2u)(b_dp + b_D) + gamma_3 P T + 2^-126 (8 dv + 8 + sum_c (|V'_rc| + dV'_rc) + sum |o_c| + T)
//! ```
//!
//! # 2. Projected rows
//!
//! Of kk keys, of N queries over the heads of a group:
//!
//! ```text
//! B_dq  = |scale| [ sum_r B_ds (|K'| + dK') + |ds| dK' + gamma_{kk+9} sum_r (|ds| + B_ds)(|K'| + dK') ] + (3 kk + 4) 2^-126 (1 + |scale|)
//! B_dK' = |scale| [ sum_i B_ds |q| + gamma_{N+9} sum_i (|ds| + B_ds) |q| ] + (3 N + 4) 2^-126 max(1, |scale|)
//! B_dV' = sum_i a |do| + gamma_{N+9} sum_i P |do| + (3 N + 4) 2^-126
//! ```
//!
//! What is subnormal in its storage may be read as 0: the products that hold it are added.
//!
//! # 3. Back
//!
//! dk = E dK', dE = sum K dK'^T and their like are products of what is known within these bounds (`layer/matmul.rs`), with a rounding more for each that
//! is added to those before; then the storage. Where something is not finite, or may overflow, nothing is promised.

use super::bound::Attended;
use super::call::{LinformerCall, Projected};
use crate::inputs::check_len;
use crate::linformer::{LinformerInputs, LinformerOptions};
use crate::reference::call::check_type;
use crate::reference::gradient::{common_error, weight_within};
use crate::reference::layer::{Bounded, MatmulInputs, matmul};
use crate::reference::rounding::{HUGE, TINY, U, gamma, min_normal, promised, written};
use crate::reference::weights::{Shift, WeightFormat, weight_error};
use crate::{Attention, Combine, Element, ElementType, MatmulShape, Position, Result, WeightOrder};
use rayon::prelude::*;
use std::f64::consts::LOG2_E;

/// Gradients of Linformer with the bound on a kernel's, contiguous whatever the layouts.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct BoundedLinformerGradients {
    /// dq `[B, H, Lq, d]`.
    pub dq: Bounded,
    /// dk `[B, Hkv, Lk, d]`; 0 where masked.
    pub dk: Bounded,
    /// dv `[B, Hkv, Lk, dv]`, where there is a v; 0 where masked.
    pub dv: Option<Bounded>,
    /// dE, as E; 0 in rows behind the last key.
    pub de: Bounded,
    /// dF, as F, where there is an F.
    pub df: Option<Bounded>,
}

/// The gradients of sum(dout out) in f64 by the formula, with how far a kernel's may be off that stores those by q, k and v in `storage` and those by E and F
/// in f32. Those of what is shared are sums over all that share it.
///
/// # Errors
/// As [`linformer`](super::linformer()), and [`Error::Argument`](crate::Error::Argument) for a `dout` of the wrong length or type.
///
/// ```
/// use wgpu_attention::{AttentionShape, ElementType, LinformerInputs, LinformerOptions, reference};
/// // One projected row is attended alone, so that out is the sum of the values.
/// let shape = AttentionShape::new(1, 1, 2, 1);
/// let (x, v, e, dout) = ([0.5f32; 2], [3.0f32, 5.0], [1.0f32, 2.0], [1.0f32, 10.0]);
/// let options = LinformerOptions::new(2, 1).value_projection(false);
/// let inputs = LinformerInputs::new(&x, &x, &e).v(&v[..]);
/// let gradients = reference::linformer_gradient(&shape, &options, &inputs, &dout, ElementType::F32)?;
/// assert_eq!(gradients.dv.unwrap().out, [11.0, 22.0]);
/// assert_eq!((gradients.de.out, gradients.dk.out), (vec![33.0, 55.0], vec![0.0; 2]));
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
pub fn linformer_gradient<Q: Element, KV: Element, O: Element>(
    attention: impl Into<Attention>,
    options: &LinformerOptions,
    inputs: &LinformerInputs<'_, Q, KV>,
    dout: &[O],
    storage: ElementType,
) -> Result<BoundedLinformerGradients> {
    let attention = attention.into();
    let call = LinformerCall::new(&attention, options, inputs)?;
    check_type::<O>("dout", attention.storage.out)?;
    check_len("dout", dout.len(), attention.len_out(), attention.layouts.out)?;
    let (dout, projected) = (O::widened(dout), call.lines()?);
    let of_line = |(n, line): (usize, &Projected)| LineGradient::new(&call, &dout, line, n);
    let lines: Vec<LineGradient> = projected.par_iter().enumerate().map(of_line).collect::<Result<_>>()?;
    let back = Back { call: &call, lines: &lines, storage };
    let dq = lines.iter().flat_map(|line| line.dq.out.iter().zip(&line.dq.bound));
    let (out, bound) = dq.map(|(&out, &bound)| (out, kept(storage, out, bound))).unzip();
    Ok(BoundedLinformerGradients {
        dq: Bounded { out, bound },
        dk: back.rows(false)?,
        dv: options.values.then(|| back.rows(true)).transpose()?,
        de: back.projection(false)?,
        df: options.value_projection.then(|| back.projection(true)).transpose()?,
    })
}

/// A bound with the storage.
fn kept(storage: ElementType, out: f64, bound: f64) -> f64 {
    if bound.is_finite() { written(storage, out.abs(), bound) } else { f64::INFINITY }
}

/// A sum of products: its value, the errors of its terms, their sizes.
#[derive(Clone, Copy, Default)]
struct Sum {
    value: f64,
    error: f64,
    size: f64,
}

impl Sum {
    /// Adds x y, of which x is at most `most`, and which are known within errors.
    fn add(&mut self, [x, error_x, most]: [f64; 3], [y, error_y]: [f64; 2]) {
        let largest = y.abs() + error_y;
        self.value += x * y;
        self.error += error_x * largest + x.abs() * error_y;
        self.size += most * largest;
    }

    fn known(self, factor: f64, roundings: usize, flushed: f64) -> (f64, f64) {
        let error = factor.abs() * (self.error + gamma(roundings) * self.size) + flushed;
        let fits = factor.abs() * self.size < HUGE;
        (factor * self.value, if fits { promised(error) } else { f64::INFINITY })
    }
}

/// What a pair gives to the gradients.
struct Pair {
    /// p, a, P.
    weight: [f64; 3],
    /// ds, B_ds, the sum of both sizes.
    score: [f64; 3],
}

/// The gradients of a line's queries, and of its projected rows.
struct LineGradient {
    dq: Bounded,
    /// dK' `[kk, d]` and dV' `[kk, dv]`.
    projected: [Bounded; 2],
}

impl LineGradient {
    /// Of line n: (batch item, key head).
    fn new(call: &LinformerCall<'_>, dout: &[f32], line: &Projected, n: usize) -> Result<Self> {
        let (shape, kk) = (&call.attention.shape, call.options.projected);
        let (batch, kv_head) = (n / shape.kv_heads, n % shape.kv_heads);
        let group = shape.heads / shape.kv_heads;
        let scale = f64::from(call.attended.scale_value());
        let [d, dv] = [shape.head_dim, shape.value_dim];
        let mut sums = [vec![Sum::default(); kk * d], vec![Sum::default(); kk * dv]];
        let mut dq = Bounded::default();
        let storage = call.attention.storage;
        // What may be read as 0 is off by itself.
        let input = |x: f64, element| [x, if x.abs() < min_normal(element) { x.abs() } else { 0.0 }];
        for (head, i) in
            (0..group * shape.q_len).map(|n| (kv_head * group + n / shape.q_len, n % shape.q_len))
        {
            let at = Position { batch, head, i };
            let start = call.attention.out_strides().at(batch, head, i);
            let dout: Vec<f64> = dout[start..start + dv].iter().map(|&x| x.into()).collect();
            let (q, pairs) = pairs(call, line, at, &dout)?;
            for c in 0..d {
                let mut sum = Sum::default();
                for (r, pair) in pairs.iter().enumerate() {
                    let k = [line.k.out[r * d + c], line.k.bound[r * d + c]];
                    let k = [k[0], k[1] + if k[0].abs() < TINY { k[0].abs() } else { 0.0 }];
                    sum.add(pair.score, k);
                    sums[0][r * d + c].add(pair.score, input(q[c], storage.q));
                }
                let flushed = (3 * kk + 4) as f64 * TINY * (1.0 + scale.abs());
                let (out, bound) = sum.known(scale, kk + 9, flushed);
                dq.out.push(out);
                dq.bound.push(bound);
            }
            for (r, pair) in pairs.iter().enumerate() {
                for (c, &x) in dout.iter().enumerate() {
                    sums[1][r * dv + c].add(pair.weight, input(x, storage.out));
                }
            }
        }
        let count = group * shape.q_len;
        let flushed = |factor: f64| (3 * count + 4) as f64 * TINY * factor.abs().max(1.0);
        let [dk, dv] = sums;
        let projected = [(dk, scale), (dv, 1.0)].map(|(sums, factor)| {
            let known = sums.into_iter().map(|sum| sum.known(factor, count + 9, flushed(factor)));
            let (out, bound) = known.unzip();
            Bounded { out, bound }
        });
        Ok(Self { dq, projected })
    }
}

/// q, and sections 1: all pairs of a row.
fn pairs(
    call: &LinformerCall<'_>,
    line: &Projected,
    at: Position,
    dout: &[f64],
) -> Result<(Vec<f64>, Vec<Pair>)> {
    let Attended { q, exact, deltas, errors } = Attended::new(call, line, at)?;
    let finite = exact.lse.is_finite() && dout.iter().all(|x| x.is_finite());
    let (Some((errors, columns)), true) = (errors, finite) else {
        let unknown = [0.0, f64::INFINITY, f64::INFINITY];
        let pair = |_| Pair { weight: unknown, score: unknown };
        return Ok((q, (0..call.options.projected).map(pair).collect()));
    };
    let (width, storage) = (dout.len(), call.attention.storage);
    let values = |r: usize| line.v.out[r * width..][..width].iter().zip(&line.v.bound[r * width..][..width]);
    let of_dout = |x: f64| if x.abs() < min_normal(storage.out) { x.abs() } else { 0.0 };
    let max = exact.scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let log_l = exact.scores.iter().map(|s| (s - max).exp()).sum::<f64>().ln();
    let logs: Vec<f64> = exact.scores.iter().map(|s| s - max - log_l).collect();
    let dp = |r: usize| dout.iter().zip(values(r)).map(|(x, (v, _))| x * v).sum::<f64>();
    let dp: Vec<f64> = (0..logs.len()).map(dp).collect();
    let d: f64 = dp.iter().zip(&logs).map(|(dp, log)| dp * log.exp()).sum();
    // b_D, of an out in f32.
    let mut shift = Shift::default();
    dp.iter().enumerate().for_each(|(r, dp)| shift.add(&errors.weights, r, (dp - d).abs()));
    let g = gamma(width + 3);
    let (mut b_row, mut size, mut flushed) = (shift.size() / (1.0 - errors.sum_error), 0.0, 0.0);
    for ((error, &o), &x) in columns.iter().zip(&exact.out).zip(dout) {
        let stored = error.stored(ElementType::F32, o);
        b_row += x.abs() * (stored - error.moved);
        size += x.abs() * (o.abs() + stored);
        flushed += of_dout(x) * (o.abs() + stored);
    }
    let b_d = (1.0 + g) * b_row + g * size + flushed;
    let lambda = common_error(&errors);
    let out_size: f64 = exact.out.iter().map(|o| o.abs()).sum();
    let scale = f64::from(call.attended.scale_value()).abs();
    let pair = |r: usize| {
        let p = logs[r].exp();
        let epsilon = weight_error(errors.top - exact.scores[r], deltas[r], 0, WeightFormat::F32, true);
        let [a, most] = weight_within(p, logs[r], epsilon + lambda);
        let (mut sizes, mut moved, mut sum, mut largest) = (0.0, 0.0, 0.0, 0.0f64);
        for (x, (v, dv)) in dout.iter().zip(values(r)) {
            let most = v.abs() + dv;
            sizes += x.abs() * most;
            moved += x.abs() * dv + of_dout(*x) * most + if v.abs() < TINY { x.abs() * v.abs() } else { 0.0 };
            sum += most;
        }
        for k in &line.k.out[r * q.len()..][..q.len()] {
            largest = largest.max(k.abs());
        }
        let t = dp[r] - d;
        let moved = (1.0 + 2.0 * U) * (g * sizes + moved + b_d);
        let t_most = t.abs() + moved;
        let flushes = TINY * (8.0 * width as f64 + 8.0 + sum + out_size + t_most);
        let error = a * t.abs() + most * moved + gamma(3) * most * t_most + flushes;
        let fits = sizes < HUGE && t_most < HUGE && scale * LOG2_E * largest < HUGE;
        let error = if fits { promised(error) } else { f64::INFINITY };
        let ds = p * t;
        Pair { weight: [p, a, most], score: [ds, error, ds.abs() + error] }
    };
    let pairs = (0..logs.len()).map(pair).collect();
    Ok((q, pairs))
}

/// Section 3.
struct Back<'c> {
    call: &'c LinformerCall<'c>,
    lines: &'c [LineGradient],
    storage: ElementType,
}

impl Back<'_> {
    /// dk, or dv: E dK', F dV', or both.
    fn rows(&self, second: bool) -> Result<Bounded> {
        let (call, shape) = (self.call, &self.call.attention.shape);
        let both = !call.options.values;
        let sides = if both { vec![false, true] } else { vec![second] };
        let of_line = |n: usize| -> Result<Bounded> {
            let (batch, head) = (n / shape.kv_heads, n % shape.kv_heads);
            let dim = if second { shape.value_dim } else { shape.head_dim };
            let product = MatmulShape::new(shape.kv_len, call.options.projected, dim);
            let mut sum: Option<Bounded> = None;
            for &values in &sides {
                let matrix = if values { call.f } else { call.e };
                let a = Bounded::exact(call.of_head(matrix, head));
                sum = Some(added(product, [&a, &self.lines[n].projected[usize::from(values)]], sum)?);
            }
            let mut sum = sum.expect("a side");
            for j in (0..shape.kv_len).filter(|&j| !call.counts(batch, j)) {
                sum.out[j * dim..][..dim].fill(0.0);
                sum.bound[j * dim..][..dim].fill(0.0);
            }
            Ok(sum)
        };
        let each = (0..self.lines.len()).into_par_iter().map(of_line).collect::<Result<Vec<_>>>()?;
        let each = each.iter().flat_map(|line| line.out.iter().zip(&line.bound));
        // Masked rows are 0, exactly.
        let stored = |out: f64, bound: f64| if bound == 0.0 { 0.0 } else { kept(self.storage, out, bound) };
        let (out, bound) = each.map(|(&out, &bound)| (out, stored(out, bound))).unzip();
        Ok(Bounded { out, bound })
    }

    /// dE, or dF: sums of K dK'^T, of V dV'^T, or of both.
    fn projection(&self, second: bool) -> Result<Bounded> {
        let (call, shape, options) = (self.call, &self.call.attention.shape, &self.call.options);
        let sides = if options.value_projection { vec![second] } else { vec![false, true] };
        let heads = if options.per_head { shape.kv_heads } else { 1 };
        let of_head = |own: usize| -> Result<Bounded> {
            let mut sum: Option<Bounded> = None;
            for &values in &sides {
                let tensor = call.projected(values);
                let product =
                    MatmulShape::new(shape.kv_len, tensor.2, options.projected).weights(WeightOrder::OutIn);
                let mine = |n: &usize| heads == 1 || n % heads == own;
                for n in (0..self.lines.len()).filter(mine) {
                    let rows = call.rows(tensor, n / shape.kv_heads, n % shape.kv_heads);
                    sum = Some(added(product, [&rows, &self.lines[n].projected[usize::from(values)]], sum)?);
                }
            }
            // Rows behind the last key are of nothing.
            let mut sum = sum.unwrap_or_default();
            sum.out.resize(options.rows * options.projected, 0.0);
            sum.bound.resize(options.rows * options.projected, 0.0);
            Ok(sum)
        };
        let each = (0..heads).into_par_iter().map(of_head).collect::<Result<Vec<_>>>()?;
        let (out, bound) = each.into_iter().map(|one| (one.out, one.bound)).unzip::<_, _, Vec<_>, Vec<_>>();
        Ok(Bounded { out: out.concat(), bound: bound.concat() })
    }
}

/// A product, added to those before.
fn added(shape: MatmulShape, [a, b]: [&Bounded; 2], before: Option<Bounded>) -> Result<Bounded> {
    let combine = if before.is_some() { Combine::AddInto } else { Combine::Store };
    matmul(&shape.combine(combine), &MatmulInputs { a, b, bias: None, other: before.as_ref() })
}
