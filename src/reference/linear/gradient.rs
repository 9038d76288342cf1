//! Gradients of linear attention, and how far a correct kernel may be from them.
//!
//! # 1. Rows
//!
//! w_ij = p_ij s_ij, l_i, o_i as in `bound.rs`, with the features of both sides and what is common to a row's in one error dphi: nothing is taken to
//! cancel. p_ij is relative to the largest weight that a query meets, in every pass: that of a key's sums is taken back by what brings them to the
//! key. A pass is a chain of r = chunks of keys + chunks of queries + 8 exponentials at most, whose exponents add up to x_ij = -ln p_ij, so
//!
//! ```text
//! eps_ij = dlog_j + max dlog + 3 E (r + x_ij + both) + u (r + 8) 2 (max |log| + (Lq + Lk) |ln decay|)        tau = expm1(eps); 0 where keys have no weights
//! dl     = sum_j p (ds (1 + tau) + S tau) + gamma_K (sum_j p (S + ds)(1 + tau) + eps sum |phi|) + eps sum dphi
//! rho    = dl / (|l| - dl), and 5 E more                                                                      of 1 / l
//! a_ic   = do_ic / l:  da = |a| rho          D_i = sum_c do_ic o_ic:  dD = sum |do| B_c + gamma_{dv+3} sum |do| (|o| + B_c)
//! h_i    = -D_i / l:   dh = (dD + |D| rho (1 + ..)) / |l|
//! ```
//!
//! # 2. Pairs
//!
//! t_ij = sum_c a_ic v_jc + h_i is the gradient of a weight; T its terms' sizes, with errors, dt the sum of the errors.
//!
//! ```text
//! dphi(q_i) = sum_j p t phi(k_j) + eps h_i       error sum_j p [ (1 + tau)(dt (|phi| + dphi) + |t| dphi) + tau |t phi| ] + gamma_K sum_j p (1 + tau) T (|phi| + dphi)
//! dphi(k_j) = sum_i p t phi(q_i)                 the same with sides exchanged, over all heads of the group
//! dv_jc     = sum_i p s a_ic                     with ds, S for dt, T, and a for phi
//! K         = terms of the inner product + 2 min(n, C) + 2 chunks + 24 + 6 heads of the group
//! ```
//!
//! The products are summed in another order than here, inner sums last; roundings of every order are within gamma_K of the sum of the sizes. A weight
//! below e^-85 may be lost. Each product may be flushed, which costs 2^-126 times what it is multiplied with.
//!
//! # 3. Back
//!
//! Of a softmax over keys, with shares s of features, dk_jf = s_jf dphi_jf - s_jf C_f, C_f = sum_j s_jf dphi_jf: the same products, added up with
//! gamma_K, once more with three roundings.
//!
//! g_f = dphi_f slope_f, dx = scale P^T g - x / sqrt(d) sum g (FAVOR+), each with its errors and a gamma_{m+8}; then the storage.

use super::back::{back, product};
use super::bound::{products, shares};
use super::call::{Line, LinearCall};
use crate::Position;
use crate::inputs::check_len;
use crate::linear::{Features, Known, LinearInputs, LinearOptions, LinearState};
use crate::reference::call::check_type;
use crate::reference::layer::Bounded;
use crate::reference::rounding::{E, HUGE, TINY, U, gamma, min_normal, promised, written};
use crate::{Attention, Element, ElementType, Error, Result};
use rayon::prelude::*;

/// Gradients of linear attention with the bound on a kernel's, contiguous whatever the layouts.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct BoundedLinearGradients {
    /// dq `[B, H, Lq, d]`.
    pub dq: Bounded,
    /// dk `[B, Hkv, Lk, d]`; 0 where masked.
    pub dk: Bounded,
    /// dv `[B, Hkv, Lk, dv]`; 0 where masked.
    pub dv: Bounded,
}

/// The gradients of sum(dout out) in f64 by the formula, pair by pair, with how far a kernel's may be off that stores them in `storage`. The stabiliser of
/// FAVOR+ is a constant.
///
/// # Errors
/// As [`linear_attention`](super::linear_attention), and [`Error::Argument`] for a `dout` of the wrong length or type, and a state.
///
/// ```
/// use wgpu_attention::{AttentionShape, ElementType, FeatureMap, LinearInputs, LinearOptions, reference};
/// // Features that are all 1: means, so that each value gets its share of every query's gradient.
/// let shape = AttentionShape::new(1, 1, 2, 1);
/// let (ones, v, dout) = ([1.0f32; 2], [3.0f32, 5.0], [1.0f32, 4.0]);
/// let options = LinearOptions::new(FeatureMap::Identity).causal(true);
/// let inputs = LinearInputs::new(&ones, &ones, &v);
/// let gradients = reference::linear_gradient(&shape, &options, &inputs, &dout, ElementType::F32)?;
/// assert_eq!(gradients.dv.out, [1.0 + 4.0 / 2.0, 4.0 / 2.0]);
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
pub fn linear_gradient<Q: Element, KV: Element, O: Element>(
    attention: impl Into<Attention>,
    options: &LinearOptions,
    inputs: &LinearInputs<'_, Q, KV>,
    dout: &[O],
    storage: ElementType,
) -> Result<BoundedLinearGradients> {
    let attention = attention.into();
    let call = LinearCall::new(&attention, options, inputs)?;
    check_type::<O>("dout", attention.storage.out)?;
    check_len("dout", dout.len(), attention.len_out(), attention.layouts.out)?;
    if options.state != LinearState::Absent {
        return Err(Error::argument("state", "none", format!("{:?}", options.state)));
    }
    let dout = O::widened(dout);
    let shape = &attention.shape;
    let of_line = |(n, line): (usize, &Line)| {
        let (batch, kv_head) = (n / shape.kv_heads, n % shape.kv_heads);
        LineGradient::new(&call, &dout, line, batch, kv_head).finished()
    };
    let lines: Vec<[Vec<Known>; 3]> = call.lines().par_iter().enumerate().map(of_line).collect();
    let tensor = |n: usize| {
        let each = lines.iter().flat_map(|line| &line[n]);
        let bound = |x: &Known| match promised(x.error) {
            bound if bound.is_finite() => written(storage, x.value.abs(), bound),
            bound => bound,
        };
        Bounded { out: each.clone().map(|x| x.value).collect(), bound: each.map(bound).collect() }
    };
    Ok(BoundedLinearGradients { dq: tensor(0), dk: tensor(1), dv: tensor(2) })
}

/// A sum over pairs: its value, the error of its terms, their sizes.
#[derive(Clone, Copy, Default)]
struct Sum {
    value: f64,
    error: f64,
    size: f64,
}

impl Sum {
    /// Adds p a b, where p may be off by a factor 1 + tau, or lost.
    fn add(&mut self, pair: &Pair, a: Measured, b: Known) {
        let most = b.value.abs() + b.error;
        let apart = a.error * most + a.value.abs() * b.error;
        self.value += pair.p * a.value * b.value;
        self.error += pair.p * ((1.0 + pair.tau) * apart + pair.tau * (a.value * b.value).abs());
        self.error += pair.lost * a.size * most;
        self.size += pair.p * (1.0 + pair.tau) * a.size * most;
    }

    fn known(self, relative: f64, flushed: f64) -> Known {
        let error = self.error + relative * self.size + flushed;
        Known { value: self.value, error: if self.size < HUGE { promised(error) } else { f64::INFINITY } }
    }
}

/// A number with its error, and the sizes of its terms, errors included.
#[derive(Clone, Copy)]
struct Measured {
    value: f64,
    error: f64,
    size: f64,
}

/// What a pair's weight has beside the product of its features.
struct Pair {
    j: usize,
    p: f64,
    tau: f64,
    lost: f64,
}

/// What a query brings to its pairs.
struct Row {
    phi: Vec<Known>,
    pairs: Vec<Pair>,
    /// a, then h.
    vector: Vec<Known>,
}

/// The gradients of a key head with the queries of its group.
struct LineGradient<'c> {
    call: &'c LinearCall<'c>,
    line: &'c Line,
    batch: usize,
    kv_head: usize,
    keys: Vec<Option<Features>>,
    dq: Vec<Known>,
    dk: Vec<Sum>,
    dv: Vec<Sum>,
    /// The largest of what may multiply a flushed product.
    largest: f64,
}

/// All that a kernel may have given a row's features as one.
fn widened(features: Features) -> Features {
    let wide = |phi: &Known| {
        let factor = features.common.exp_m1();
        Known { value: phi.value, error: phi.error * (1.0 + factor) + phi.value.abs() * factor }
    };
    Features { phi: features.phi.iter().map(wide).collect(), common: 0.0, ..features }
}

impl<'c> LineGradient<'c> {
    fn new(call: &'c LinearCall<'c>, dout: &[f32], line: &'c Line, batch: usize, kv_head: usize) -> Self {
        let shape = call.shape;
        let of_key = |key: &Features| widened(if call.by_column() { shares(line, key) } else { key.clone() });
        let keys: Vec<Option<Features>> = line.keys.iter().map(|key| key.as_ref().map(of_key)).collect();
        let features = call.options.map.features(shape.head_dim);
        let group = shape.heads / shape.kv_heads;
        let mut gradient = Self {
            call,
            line,
            batch,
            kv_head,
            keys,
            dq: vec![],
            dk: vec![Sum::default(); shape.kv_len * features],
            dv: vec![Sum::default(); shape.kv_len * shape.value_dim],
            largest: 1.0,
        };
        for head in kv_head * group..(kv_head + 1) * group {
            for i in 0..shape.q_len {
                gradient.query(dout, Position { batch, head, i });
            }
        }
        gradient
    }

    /// Chunks of so many rows, and the most additions within one.
    fn chain(len: usize) -> usize {
        2 * len.min(LinearOptions::CHUNK) + 2 * len.div_ceil(LinearOptions::CHUNK) + 24
    }

    fn query(&mut self, dout: &[f32], at: Position) {
        let (call, shape) = (self.call, self.call.shape);
        let row = self.row(dout, at);
        let dv = shape.value_dim;
        let h = row.vector[dv];
        let eps = f64::from(call.options.denominator_eps);
        let of_eps =
            Sum { value: eps * h.value, error: eps * h.error, size: eps * (h.value.abs() + h.error) };
        let mut dphi = vec![of_eps; row.phi.len()];
        let largest = |list: &[Known]| list.iter().map(|x| x.value.abs() + x.error).fold(1.0, f64::max);
        let mut most = largest(&row.phi) * largest(&row.vector);
        for pair in &row.pairs {
            let Some(key) = &self.keys[pair.j] else { continue };
            let v = call.v(at, pair.j);
            let t = slope_of_weight(&row.vector, v, call.attention.storage.kv);
            let (s, size, error) = products(&plain(&row.phi), key);
            let s = Measured { value: s, error, size: size + error };
            for (f, (q, k)) in row.phi.iter().zip(&key.phi).enumerate() {
                dphi[f].add(pair, t, *k);
                self.dk[pair.j * row.phi.len() + f].add(pair, t, *q);
            }
            for (c, a) in row.vector[..dv].iter().enumerate() {
                self.dv[pair.j * dv + c].add(pair, s, *a);
            }
            most =
                most.max(largest(&key.phi) * largest(&row.vector) * largest(&row.phi) * (1.0 + size_of(v)));
        }
        self.largest = self.largest.max(most);
        let relative = gamma(dv + 1 + Self::chain(shape.kv_len));
        let flushed = 8.0 * TINY * (row.pairs.len() + 1) as f64 * (dv + 2) as f64 * most;
        let dphi: Vec<Known> = dphi.into_iter().map(|sum| sum.known(relative, flushed)).collect();
        self.dq.extend(back(call, (call.q(at), call.attention.storage.q), &row.phi, &dphi));
    }

    /// dq of all queries, dk, dv.
    fn finished(self) -> [Vec<Known>; 3] {
        let (call, shape) = (self.call, self.call.shape);
        let (features, group) = (call.options.map.features(shape.head_dim), shape.heads / shape.kv_heads);
        let chain = Self::chain(shape.q_len) + 6 * group;
        let flushed =
            |terms: usize| 8.0 * TINY * (shape.q_len * group + 1) as f64 * (terms + 2) as f64 * self.largest;
        let (mut dk, mut dv) = (vec![], vec![]);
        for j in 0..shape.kv_len {
            let Some(key) = &self.keys[j] else {
                dk.extend(vec![Known::default(); shape.head_dim]);
                dv.extend(vec![Known::default(); shape.value_dim]);
                continue;
            };
            let relative = gamma(shape.value_dim + 1 + chain);
            let sums = self.dk[j * features..(j + 1) * features].iter();
            let dphi: Vec<Known> =
                sums.map(|sum| sum.known(relative, flushed(shape.value_dim + 1))).collect();
            let k = (call.k(self.batch, self.kv_head, j), call.attention.storage.kv);
            match call.by_column() {
                true => dk.extend(dphi.iter().zip(&key.phi).map(|(d, s)| product(d, s))),
                false => dk.extend(back(call, k, &key.phi, &dphi)),
            }
            let relative = gamma(features + chain + 4);
            let sums = self.dv[j * shape.value_dim..(j + 1) * shape.value_dim].iter();
            dv.extend(sums.map(|sum| sum.known(relative, flushed(features))));
        }
        if call.by_column() {
            self.less_sums(&mut dk);
        }
        [self.dq, dk, dv]
    }

    /// From products of shares and their gradients to the gradient by keys.
    fn less_sums(&self, dk: &mut [Known]) {
        let d = self.call.shape.head_dim;
        let relative = gamma(Self::chain(self.call.shape.kv_len));
        for f in 0..d {
            let column = || dk.iter().skip(f).step_by(d);
            let value = column().map(|p| p.value).sum::<f64>();
            let error = column().map(|p| p.error + relative * (p.value.abs() + p.error)).sum::<f64>();
            let sum = Known { value, error: error + 2.0 * TINY };
            for (p, key) in dk.iter_mut().skip(f).step_by(d).zip(&self.keys) {
                let Some(key) = key else { continue };
                let part = product(&sum, &key.phi[f]);
                let size = p.value.abs() + p.error + part.value.abs() + part.error;
                *p = Known { value: p.value - part.value, error: p.error + part.error + 2.0 * U * size };
            }
        }
    }

    /// Section 1.
    fn row(&self, dout: &[f32], at: Position) -> Row {
        let (call, shape) = (self.call, self.call.shape);
        let phi = widened(call.query(at)).phi;
        let pairs = self.pairs(at);
        let eps = f64::from(call.options.denominator_eps);
        let size_q: f64 = phi.iter().map(|q| q.value.abs() + q.error).sum();
        let (mut l, mut common, mut most) =
            (eps * phi.iter().map(|q| q.value).sum::<f64>(), 0.0, eps * size_q);
        common += eps * phi.iter().map(|q| q.error).sum::<f64>();
        let mut weights = vec![];
        for pair in &pairs {
            let Some(key) = &self.keys[pair.j] else { continue };
            let (s, size, error) = products(&plain(&phi), key);
            let apart = pair.p * (error * (1.0 + pair.tau) + size * pair.tau) + pair.lost * (size + error);
            let large = pair.p * (size + error) * (1.0 + pair.tau) + pair.lost * (size + error);
            (l, common, most) = (l + pair.p * s, common + apart, most + large);
            weights.push((pair.j, pair.p * s, apart, large));
        }
        let relative = gamma(phi.len() + Self::chain(shape.kv_len));
        let flushes = (pairs.len() * phi.len() + 1) as f64 * 4.0 * TINY * (1.0 + size_q);
        let error = common + relative * most + flushes;
        let none = vec![Known::default(); shape.value_dim + 1];
        if l == 0.0 && most == 0.0 {
            // No key, or none of any weight: nothing depends on anything.
            return Row { phi, pairs, vector: none };
        }
        let low = l.abs() - error;
        if low <= 0.0 || !error.is_finite() {
            let unknown = Known { value: 0.0, error: f64::INFINITY };
            return Row { phi, pairs, vector: vec![unknown; shape.value_dim + 1] };
        }
        let o = |c: usize| {
            let v = |j: usize| f64::from(call.v(at, j)[c]);
            let o = weights.iter().map(|(j, w, ..)| w * v(*j)).sum::<f64>() / l;
            let apart: f64 = weights.iter().map(|(j, _, apart, _)| apart * (v(*j) - o).abs()).sum();
            let size: f64 = weights.iter().map(|(j, .., large)| large * v(*j).abs()).sum();
            let largest = weights.iter().map(|(j, ..)| v(*j).abs()).fold(0.0, f64::max);
            let own = o.abs() * (error + flushes) + flushes * (1.0 + largest);
            let lost = weights
                .iter()
                .map(|(j, .., large)| large * lost(v(*j), call.attention.storage.kv))
                .sum::<f64>();
            let error = (apart + relative * (size + o.abs() * most) + own + lost) / low;
            Known { value: o, error: error + 5.0 * E * (o.abs() + error) + 2.0 * TINY }
        };
        let rho = (error / low) * (1.0 + 8.0 * E) + 6.0 * E;
        let start = call.attention.out_strides().at(at.batch, at.head, at.i);
        let mut vector = vec![];
        let (mut product, mut apart, mut size) = (0.0, 0.0, 0.0);
        for (c, &x) in dout[start..start + shape.value_dim].iter().enumerate() {
            let (x, o) = (f64::from(x), o(c));
            let lost = lost(x, call.attention.storage.out);
            let a = x / l;
            vector.push(Known {
                value: a,
                error: a.abs() * rho + lost / low * (1.0 + rho) + 2.0 * TINY * (1.0 + x.abs()),
            });
            product += x * o.value;
            apart += x.abs() * o.error + lost * (o.value.abs() + o.error) + 2.0 * TINY * (1.0 + x.abs());
            size += x.abs() * (o.value.abs() + o.error);
        }
        let apart = apart + gamma(shape.value_dim + 3) * size;
        let h = -product / l;
        let error = apart / l.abs() * (1.0 + rho) + h.abs() * rho + 2.0 * TINY * (1.0 + product.abs());
        vector.push(Known { value: h, error });
        Row { phi, pairs, vector }
    }

    /// The keys that a query sees.
    fn pairs(&self, at: Position) -> Vec<Pair> {
        let (call, shape) = (self.call, self.call.shape);
        let position = at.i as i64 + shape.kv_len as i64 - shape.q_len as i64;
        let decay = f64::from(call.log_decays[self.kv_head]);
        let age = |j: usize| if call.options.causal { (position - j as i64) as f64 * decay } else { 0.0 };
        let seen = (0..shape.kv_len).filter(|&j| !call.options.causal || j as i64 <= position);
        let logs: Vec<(usize, Known)> =
            seen.filter_map(|j| self.keys[j].as_ref().map(|key| (j, key.log_weight))).collect();
        let top = logs.iter().map(|(j, log)| log.value + age(*j)).fold(f64::NEG_INFINITY, f64::max);
        let most_error = logs.iter().map(|(_, log)| log.error).fold(0.0, f64::max);
        let chunks = |len: usize| len.div_ceil(LinearOptions::CHUNK);
        let r = (chunks(shape.kv_len) + chunks(shape.q_len) + 8) as f64;
        let size = 2.0 * (self.line.largest_log + (shape.q_len + shape.kv_len) as f64 * decay.abs());
        let pair = |(j, log): &(usize, Known)| {
            if !call.options.weighted() {
                return Pair { j: *j, p: 1.0, tau: 0.0, lost: 0.0 };
            }
            let x = top - log.value - age(*j);
            let given = log.error + most_error;
            let exponent = given + 3.0 * E * (r + x + given) + U * (r + 8.0) * size;
            let p = (-x).exp();
            Pair { j: *j, p, tau: exponent.exp_m1(), lost: if x > 85.0 { p + 1e-37 } else { 0.0 } }
        };
        logs.iter().map(pair).collect()
    }
}

/// t and its terms' sizes.
fn slope_of_weight(vector: &[Known], v: &[f32], element: ElementType) -> Measured {
    let (h, vector) = vector.split_last().expect("h");
    let mut t = Measured { value: h.value, error: h.error, size: h.value.abs() + h.error };
    for (a, &v) in vector.iter().zip(v) {
        let v = f64::from(v);
        t.value += a.value * v;
        t.error += a.error * v.abs() + (a.value.abs() + a.error) * lost(v, element);
        t.size += (a.value.abs() + a.error) * v.abs();
    }
    t
}

/// What of a number in storage may be read as 0.
fn lost(x: f64, element: ElementType) -> f64 {
    if x.abs() < min_normal(element) { x.abs() } else { 0.0 }
}

fn size_of(v: &[f32]) -> f64 {
    v.iter().fold(0.0, |max: f64, v| max.max(f64::from(v.abs())))
}

fn plain(phi: &[Known]) -> Features {
    Features { phi: phi.to_vec(), log_weight: Known::default(), common: 0.0 }
}
