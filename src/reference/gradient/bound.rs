//! How far a correct kernel may be from the gradients, per element.
//!
//! The analysis of the forward pass (`reference/bound.rs`, whose u, E, gamma, delta_ij, x_ij, w+, dw, K, R and B_c are meant here),
//! continued. It asks of a kernel that it computes, from the state (m, l) and the out that the forward pass left,
//!
//! ```text
//! e = exp(min(s - m, 0)) / l       ds = e (do . v - D)       D = do . out            1/l, a common factor, anywhere
//! dq = scale sum ds f k            dk = scale sum ds f q     dv = sum e do           f the slope of the score by scale q . k
//! ```
//!
//! with s and f as the terms of the score have them, in any order of summation, part after part. A pair's score may be another one here
//! than in the forward pass, within delta of the exact one as well: the exponent is kept at most 0, so that no weight is above 1.
//!
//! # 1. The row
//!
//! exp(m) l is the sum of the exact weights but for the errors of the forward pass; 1/l is a division (2.5 ULP), its uses are products:
//!
//! ```text
//! Lambda = max( ln sum_j p e^epsilon, -ln sum_j p e^-epsilon ) + gamma_K / (1 - gamma_K) + 2.5 E + 3 u
//! ```
//!
//! D takes over what is wrong with out. What the weights' errors do to out, they do along t_j = do . v_j - D, not column by column;
//! the rest of out's error, its storage included, counts by column (R_c: B_c without min(B1, B2), and all that is added to it):
//!
//! ```text
//! b_row = min( sum_j dw |t|, max over reachable j of |t| + sum over the others of w+ |t| ) / (1 - gamma_K) + sum_c |do_c| R_c
//! b_D   = (1 + g) b_row + g sum_c |do_c| (|o_c| + B_c),     g = gamma_{dv+3}
//! ```
//!
//! # 2. The pair
//!
//! A computed weight is p exp(lambda + e), |lambda| <= Lambda common to the row and |e| <= epsilon_ij its own, with one exponential:
//!
//! ```text
//! epsilon = (delta + x (2 u + 2 E log2 e + E)) (1 + 2^-10) + 3 E
//! a       = min( p expm1(epsilon + Lambda), 1 + 2^-9 ) + 2^-126          its error
//! P       = min( p exp(epsilon + Lambda), 1 + 2^-9 ) + 2^-126            and itself
//! b_dp    = gamma_{dv+3} sum_c |do_c v_jc|
//! T       = |t| + (1 + 2u)(b_dp + b_D)
//! Z       = 2^-126 (8 dv + 8 + sum_c |v_jc| + sum_c |o_c| + T)           flushes on the way to t
//! B_ds    = a |t| + P (1 + 2u)(b_dp + b_D) + gamma_3 P T + Z
//! B_ds'   = F B_ds + b_f |ds| + u F (|ds| + B_ds) + 2^-125               f within b_f, F = |f| + b_f
//! ```
//!
//! # 3. The sums
//!
//! Of a row with m keys, of a key with N pairs over the heads of its group, of an element of a term's tensor x with n pairs:
//!
//! ```text
//! B_dv = sum a |do_c| + gamma_{N+parts+8} sum P |do_c| + (3N + 4) 2^-126
//! B_dk = |scale| [ sum B_ds' |q_c| + gamma_{N+parts+8} sum (|ds'| + B_ds') |q_c| ] + (3N + 4) 2^-126 max(1, |scale|)
//! B_dx = sum ( B_ds X + |ds| b_x ) + gamma_{n+parts+8} sum (|ds| + B_ds) X + (3n + 4) 2^-126      ds/dx within b_x, X the sum of both
//! B_dq = min( expm1(Lambda) |dq_c| + e^Lambda |scale| sum p expm1(epsilon) |t f k_c|,  |scale| sum a |t f k_c| )
//!      + |scale| b_D ( |sum p f k_c| + sum a |f k_c| )
//!      + |scale| sum P (|f| b_dp + b_f T) |k_c| + |scale| gamma_{m+parts+8} sum P F T |k_c|
//!      + |scale| sum (F Z + 2^-125) |k_c| + (2m + 4) 2^-126 (1 + |scale|)
//! ```
//!
//! With relative rows dq has k + r in place of k, dk q + u in place of q: above, sizes are then |k| + |r| and |q| + |u|, and m and N
//! count twice, for the two may be added up apart. With segments dq has k + e, or k + r + e, and they count once more.
//!
//! Dropout gives each pair a share c, 0 or 1 / (1 - rate), of its value: do . v and sum |do v| are c times as large, with two roundings more, in dv
//! a and P are c (a + gamma_2 P) and c P, and flushes in Z and in dv count 1 / (1 - rate) times.
//!
//! A sink has no value: its row gives ds = -p D, by the pair's formulas with t = -D, do . v and its error 0, and delta 0.
//!
//! In dq the common factor moves the gradient by a share of itself, and D is wrong for all keys alike, so along the mean key. Elements of
//! q, k, v and do that are subnormal in their storage may be read as 0: the products that hold them are added. At the end the storage of
//! the gradient, by its element type. A row without keys, and a key that no query sees, get exactly 0.
//!
//! Infinite, for nothing is promised, where the forward bound is; where |scale| log2(e) |k_c|, sum |do v|, T F, or a sum of sizes above reaches 2^127; and
//! from 2^22 pairs.

use super::call::{GradientCall, Row};
use super::errors::{BoundedPair, Common, Route, RowBound};
use super::exact::{elements, gradients, pair as exact_pair, queries};
use crate::pattern::Pattern;
use crate::reference::layer::Bounded;
use crate::reference::rounding::{HUGE, TINY, gamma, min_normal, promised, written};
use crate::reference::{Tiles, Walk, WeightFormat};
use crate::{Attention, Element, ElementType, Inputs, Result};
use rayon::prelude::*;

/// How a kernel computes: what the bound of its gradients depends on.
#[derive(Clone, Copy, Default)]
#[non_exhaustive]
pub struct BoundOptions<'a> {
    /// The order in which the forward pass walked the keys; by default ascending, in one part. See [`Walk`].
    pub order: Option<Walk<'a>>,
    /// In how many tiles it met them; by default as `order` allows. See [`Tiles`].
    pub tiles: Option<Tiles<'a>>,
    /// How it kept the weights; by default in f32, as the scalar path does.
    pub weights: WeightFormat,
    /// How the gradients are stored.
    pub storage: ElementType,
}

impl<'a> BoundOptions<'a> {
    /// Sets the order in which the forward pass walked the keys.
    pub fn order(self, order: Walk<'a>) -> Self {
        Self { order: Some(order), ..self }
    }

    /// Sets in how many tiles it met them.
    pub fn tiles(self, tiles: Tiles<'a>) -> Self {
        Self { tiles: Some(tiles), ..self }
    }

    /// Sets how it kept the weights.
    pub fn weights(self, weights: WeightFormat) -> Self {
        Self { weights, ..self }
    }

    /// Sets how the gradients are stored.
    pub fn storage(self, storage: ElementType) -> Self {
        Self { storage, ..self }
    }
}

/// Gradients in f64, contiguous, with the largest error of a kernel per element. NaN among the values says that a kernel must give
/// NaN, an infinite bound that nothing is promised: see [`Bounded`].
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct BoundedGradients {
    /// By q, `[B, H, Lq, d]`.
    pub dq: Bounded,
    /// By k, `[B, Hkv, Lk, d]`.
    pub dk: Bounded,
    /// By v, `[B, Hkv, Lk, dv]`.
    pub dv: Bounded,
    /// By each tensor that the caller gives for a term of the score: see [`Gradients::terms`](super::Gradients::terms).
    pub terms: Vec<(&'static str, Bounded)>,
}

impl BoundedGradients {
    /// By the tensor of a term.
    pub fn term(&self, name: &str) -> Option<&Bounded> {
        self.terms.iter().find(|(own, _)| *own == name).map(|(_, values)| values)
    }
}

/// [`attention_gradient`](super::attention_gradient) with the bound on what a kernel may give for it: from the inputs alone, not
/// from what the device's forward pass left.
///
/// # Errors
/// As [`attention_gradient`](super::attention_gradient); for an order that does not meet each
/// attended key exactly once.
///
/// ```
/// use wgpu_attention::{AttentionShape, Causal, reference};
/// let shape = AttentionShape::new(1, 2, 48, 16);
/// let tensors = reference::random::<f32, f32>(&shape, reference::Kind::Normal, 7)?;
/// let dout = vec![1.0f32; 2 * 48 * 16];
/// let options = reference::gradient::BoundOptions::default();
/// let exact = reference::gradient::bounded(&shape, &tensors.inputs(), &dout, &Causal, options)?;
/// // A kernel's gradients: here the exact ones, rounded.
/// let got = exact.dq.out.iter().map(|&x| x as f32);
/// assert!(exact.dq.compare(got, 0.0).pass);
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
pub fn bounded<Q: Element, KV: Element, O: Element>(
    attention: impl Into<Attention>,
    inputs: &Inputs<'_, Q, KV>,
    dout: &[O],
    pattern: &dyn Pattern,
    options: BoundOptions<'_>,
) -> Result<BoundedGradients> {
    let attention = attention.into();
    let call = GradientCall::new(&attention, inputs, dout, pattern)?;
    let BoundOptions { order, tiles, weights, storage } = options;
    let rows = call.rows();
    let of_row = |row| RowBound::new(&call, row, Route { order, tiles, weights });
    let bounds = rows.par_iter().map(of_row).collect::<Result<Vec<_>>>()?;
    let known = bounds.iter().filter_map(|bound| match bound {
        RowBound::Known(common) => Some(common.parts),
        _ => None,
    });
    // Transposing may put an empty part before the others.
    let all = Rows { parts: 1 + known.max().unwrap_or(1), call: &call, rows: &rows, bounds: &bounds };

    let exact = gradients(&call, &rows);
    let dq: Vec<f64> = (0..rows.len()).into_par_iter().flat_map_iter(|n| all.query(n, &exact.dq)).collect();
    let keys = attention.shape.key_rows().iter().product::<usize>();
    let (dk, dv): (Vec<_>, Vec<_>) = (0..keys).into_par_iter().map(|n| all.key(n)).unzip();
    let mut terms = vec![];
    let bounds = attention.score.tensors(&attention.shape).into_iter().zip(all.terms());
    let bounds: Vec<_> = bounds.map(|(tensor, bound)| (tensor.name, bound)).collect();
    for (name, out) in exact.terms {
        let own = bounds.iter().find(|(own, _)| *own == name);
        let bound = own.map_or_else(|| vec![f64::INFINITY; out.len()], |(_, bound)| bound.clone());
        terms.push((name, with_storage(out, bound, ElementType::F32)));
    }
    Ok(BoundedGradients {
        dq: with_storage(exact.dq, dq, storage),
        dk: with_storage(exact.dk, dk.concat(), storage),
        dv: with_storage(exact.dv, dv.concat(), storage),
        terms,
    })
}

/// Exactly 0 stays so; a bound of NaN says that something of the element's rows is not finite.
fn with_storage(mut out: Vec<f64>, mut bound: Vec<f64>, storage: ElementType) -> Bounded {
    for (out, bound) in out.iter_mut().zip(&mut bound) {
        if bound.is_nan() {
            (*out, *bound) = (f64::NAN, 0.0);
        } else if *bound > 0.0 {
            *bound = written(storage, out.abs(), *bound);
        }
    }
    Bounded { out, bound }
}

/// All rows, with what is known of them.
struct Rows<'a> {
    call: &'a GradientCall<'a>,
    rows: &'a [Row],
    bounds: &'a [RowBound],
    /// In how many parts a gradient is added up.
    parts: usize,
}

impl Rows<'_> {
    fn scale(&self) -> f64 {
        self.call.scale().abs()
    }

    /// gamma of a sum of n pairs, each with one product, and one more for relative rows and for segments each.
    fn sum_error(&self, n: usize) -> f64 {
        gamma(self.products() * n + self.parts + 8)
    }

    fn products(&self) -> usize {
        1 + self.call.call.attention.score.rules().filter(|rule| rule.in_product()).count()
    }

    /// B_dq of the n-th row; `dq` is all of dq.
    fn query(&self, n: usize, dq: &[f64]) -> Vec<f64> {
        let (row, dim) = (&self.rows[n], self.call.shape().head_dim);
        let common = match &self.bounds[n] {
            _ if row.keys.is_empty() => return vec![0.0; dim],
            RowBound::Known(common) => common,
            RowBound::Nothing => return vec![f64::INFINITY; dim],
            RowBound::NotFinite => return vec![f64::NAN; dim],
        };
        let smallest = min_normal(self.call.call.attention.storage.kv);
        let mut columns = vec![Column::default(); dim];
        for &j in &row.keys {
            let pair = BoundedPair::new(self.call, row, common, j);
            let factors = Factors::new(&pair);
            for (c, (column, k)) in columns.iter_mut().zip(self.call.call.k(row.at, j)).enumerate() {
                let added = pair.added(|added| &added.products.q, self.call.scale(), c);
                column.add(&factors, k, added, smallest);
            }
        }
        let (scale, m) = (self.scale(), row.keys.len());
        let finish = |(column, dq): (&Column, &f64)| {
            let bound = column.bound(common, scale, dq.abs(), self.sum_error(m));
            let flushes = (2 * self.products() * m + 4) as f64 * TINY * (1.0 + scale);
            checked(bound + flushes, column.size * scale.max(1.0))
        };
        columns.iter().zip(&dq[n * dim..]).map(finish).collect()
    }

    /// B_dk and B_dv of the n-th row of `[B, Hkv, Lk]`.
    fn key(&self, n: usize) -> (Vec<f64>, Vec<f64>) {
        let shape = self.call.shape();
        let mut dk = vec![Sum::default(); shape.head_dim];
        let mut dv = vec![Sum::default(); shape.value_dim];
        let mut pairs = 0;
        let everywhere = |x: f64| (vec![x; shape.head_dim], vec![x; shape.value_dim]);
        let storage = self.call.call.attention.storage;
        let [smallest_q, smallest_dout] = [storage.q, storage.out].map(min_normal);
        let mut promised = true;
        for (row, j) in queries(self.call, self.rows, n) {
            let common = match &self.bounds[row.at.row(shape)] {
                RowBound::Known(common) => common,
                RowBound::NotFinite => return everywhere(f64::NAN),
                RowBound::Nothing => {
                    promised = false;
                    continue;
                }
            };
            pairs += 1;
            let pair = BoundedPair::new(self.call, row, common, j);
            let (pulled, most) = (pair.pulled.error, pair.pulled.score.abs() + pair.pulled.error);
            for (c, (sum, q)) in dk.iter_mut().zip(&row.q).enumerate() {
                let (_, u) = pair.added(|added| &added.products.k, self.call.scale(), c);
                sum.add(pulled, most, q.abs(), smallest_q);
                sum.add(pulled, most, u, TINY);
            }
            for (sum, x) in dv.iter_mut().zip(&row.dout) {
                sum.add(pair.met[0], pair.met[1], x.abs(), smallest_dout);
            }
        }
        if !promised {
            return everywhere(f64::INFINITY);
        }
        if pairs == 0 {
            return everywhere(0.0);
        }
        let finish = |sums: &[Sum], scale: f64, factor: f64| {
            let (g, flushes) = (
                self.sum_error(pairs),
                (3 * self.products() * pairs + 4) as f64 * TINY * scale.max(1.0) * factor,
            );
            let bound = |sum: &Sum| checked(scale * sum.bound(g) + flushes, sum.size * scale.max(1.0));
            sums.iter().map(bound).collect()
        };
        (finish(&dk, self.scale(), 1.0), finish(&dv, 1.0, self.call.call.most_share()))
    }

    /// B_dx of each term's tensor.
    fn terms(&self) -> Vec<Vec<f64>> {
        let tensors = self.call.call.attention.score.tensors(self.call.shape());
        let mut sums: Vec<_> = tensors.iter().map(|tensor| vec![(Sum::default(), 0); tensor.len]).collect();
        if sums.is_empty() {
            return vec![];
        }
        for (row, bound) in self.rows.iter().zip(self.bounds) {
            for &j in &row.keys {
                let mut add = |tensor: usize, n: usize, error: f64, most: f64| {
                    let (sum, pairs) = &mut sums[tensor][n];
                    (sum.error, sum.size, *pairs) = (sum.error + error, sum.size + most, *pairs + 1);
                };
                let RowBound::Known(common) = bound else {
                    let x = if matches!(bound, RowBound::Nothing) { f64::INFINITY } else { f64::NAN };
                    let (_, _, by) = exact_pair(self.call, row, j);
                    elements(&by).for_each(|(tensor, n, _)| add(tensor, n, x, 0.0));
                    continue;
                };
                let pair = BoundedPair::new(self.call, row, common, j);
                let ds = pair.ds;
                for by in pair.read(row, self.call.scale()) {
                    let largest = by.by.score.abs() + by.by.error;
                    let error = ds.error * largest + ds.score.abs() * by.by.error;
                    add(by.tensor, by.n, error, (ds.score.abs() + ds.error) * largest);
                }
            }
        }
        if let Some(own) = tensors.iter().position(|tensor| tensor.name == "sinks") {
            for (row, bound) in self.rows.iter().zip(self.bounds) {
                let (sum, rows) = &mut sums[own][row.at.head];
                let ds = bound.sink(row);
                (sum.error, sum.size) = (sum.error + ds.error, sum.size + ds.score.abs() + ds.error);
                *rows += usize::from(!row.keys.is_empty());
            }
        }
        let bound = |(sum, pairs): (Sum, usize)| match pairs {
            0 => 0.0,
            _ if sum.error.is_nan() => f64::NAN,
            _ => checked(sum.bound(self.sum_error(pairs)) + (3 * pairs + 4) as f64 * TINY, sum.size),
        };
        sums.into_iter().map(|sums| sums.into_iter().map(bound).collect()).collect()
    }
}

/// Infinite where a sum of that size may overflow.
fn checked(bound: f64, size: f64) -> f64 {
    if size < HUGE { promised(bound) } else { f64::INFINITY }
}

/// A sum of products with the elements of a row.
#[derive(Clone, Copy, Default)]
struct Sum {
    error: f64,
    size: f64,
}

impl Sum {
    /// A factor of size `most` at most, known within `error`, times x.
    fn add(&mut self, error: f64, most: f64, x: f64, smallest: f64) {
        self.error += error * x + if x < smallest { most * x } else { 0.0 };
        self.size += most * x;
    }

    fn bound(&self, sum_error: f64) -> f64 {
        self.error + sum_error * self.size
    }
}

/// What a pair gives to B_dq, but for |k_c|.
struct Factors {
    /// |t f| p expm1(epsilon), and |t f| a.
    own: f64,
    all: f64,
    /// p f, with its sign, and a |f|.
    mean: f64,
    off_mean: f64,
    /// P (|f| b_dp + b_f T) + F Z + 2^-125.
    pair: f64,
    /// P F T.
    size: f64,
    /// |ds'| + B_ds'.
    most: f64,
}

impl Factors {
    fn new(pair: &BoundedPair) -> Self {
        let (f, b_f) = (pair.slope.score.abs(), pair.slope.error);
        let tf = (pair.t * f).abs();
        Self {
            own: tf * pair.p * pair.own,
            all: tf * pair.a,
            mean: pair.p * pair.slope.score,
            off_mean: pair.a * f,
            pair: pair.most * (f * pair.b_dp + b_f * pair.t_most) + (f + b_f) * pair.flushes + 2.0 * TINY,
            size: pair.most * (f + b_f) * pair.t_most,
            most: pair.pulled.score.abs() + pair.pulled.error,
        }
    }
}

/// The sums of [`Factors`] over the keys, for one column of k.
#[derive(Clone, Copy, Default)]
struct Column {
    own: f64,
    all: f64,
    mean: f64,
    off_mean: f64,
    pair: f64,
    size: f64,
}

impl Column {
    /// Adds a pair with an element of k, and with what relative rows add to it, that and its size.
    fn add(&mut self, by: &Factors, k: f64, (added, size): (f64, f64), smallest: f64) {
        let x = k.abs() + size;
        self.own += by.own * (k + added).abs();
        self.all += by.all * (k + added).abs();
        self.mean += by.mean * (k + added);
        self.off_mean += by.off_mean * x;
        let lost = if k.abs() < smallest { k.abs() } else { 0.0 } + if size < TINY { size } else { 0.0 };
        self.pair += by.pair * x + by.most * lost;
        // Infinite where a pair is.
        self.size += by.size.max(by.most) * x;
    }

    fn bound(&self, common: &Common, scale: f64, dq: f64, sum_error: f64) -> f64 {
        let own = common.lambda.exp_m1() * dq + common.lambda.exp() * scale * self.own;
        // NaN where a weight is 0 and its error infinite; `min` then takes the other.
        let weights = own.min(scale * self.all);
        let rest = common.b_d * (self.mean.abs() + self.off_mean) + self.pair + sum_error * self.size;
        weights + scale * rest
    }
}
