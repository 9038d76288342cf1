//! How far a kernel may be from what a row and a pair give to the gradients: sections 1 and 2 of the derivation in `bound.rs`.

use super::call::{GradientCall, Pair, Row};
use super::derivatives::{Added, Derivative, Derivatives};
use crate::Result;
use crate::reference::bound::output_errors;
use crate::reference::rounding::{E, HUGE, TINY, U, gamma, min_normal};
use crate::reference::row::walked;
use crate::reference::weights::{RowErrors, Shift, WeightFormat, weight_error};
use crate::reference::{Tiles, Walk};
use crate::score::Known;

/// No weight is above 1: its exponent is at most 0, and 1 is in l. The rest is for roundings.
const MOST: f64 = 1.0 + 1.0 / 512.0;

/// How the forward pass walked the keys of a row.
#[derive(Clone, Copy)]
pub(super) struct Route<'a> {
    pub(super) order: Option<Walk<'a>>,
    pub(super) tiles: Option<Tiles<'a>>,
    pub(super) weights: WeightFormat,
}

/// What is known of a row of queries.
pub(super) enum RowBound {
    /// Within these errors. Boxed, for the others are nothing.
    Known(Box<Common>),
    /// f32 may overflow.
    Nothing,
    /// Something of the row is not finite, and so is every gradient that it takes part in.
    NotFinite,
}

/// What all pairs of a row share.
pub(super) struct Common {
    /// M+.
    top: f64,
    /// Lambda: of ln(exp(m) l), in the weights.
    pub(super) lambda: f64,
    /// b_D.
    pub(super) b_d: f64,
    /// sum |o_c|.
    out_size: f64,
    /// Of the backward pass, which rounds no weight.
    format: WeightFormat,
    base_2: bool,
    /// How many parts the row has.
    pub(super) parts: usize,
    /// The longest chain of additions over its keys.
    pub(super) chain: usize,
}

impl RowBound {
    /// Section 1.
    pub(super) fn new(call: &GradientCall<'_>, row: &Row, route: Route<'_>) -> Result<Self> {
        let (at, inner, exact) = (row.at, &call.call, &row.forward);
        let (parts, chain) = match &row.parts {
            Some(parts) => (parts.clone(), exact.keys.len()),
            None => walked(&exact.keys, at, route.order, route.tiles, route.weights)?,
        };
        let finite = exact.lse.is_finite() && row.dout.iter().all(|x| x.is_finite());
        if !finite {
            return Ok(Self::NotFinite);
        }
        if exact.keys.is_empty() {
            return Ok(Self::Nothing); // and nobody asks
        }
        let deltas = row.pairs.iter().map(|pair| pair.by.score.error).collect();
        let walk = (&parts[..], chain);
        let Some(errors) = RowErrors::of_scores(exact, deltas, inner.attention, walk, route.weights) else {
            return Ok(Self::Nothing);
        };
        let mut shift = Shift::default();
        for (n, pair) in row.pairs.iter().enumerate() {
            shift.add(&errors.weights, n, (pair.dp - row.d).abs());
        }
        if exact.sink.is_some() {
            shift.add(&errors.weights, exact.keys.len(), row.d.abs());
        }
        let storage = inner.attention.storage.out;
        let g = gamma(row.dout.len() + 3);
        let (mut b_row, mut size, mut flushed) = (shift.size() / (1.0 - errors.sum_error), 0.0, 0.0);
        let columns = output_errors(inner.attention, at, exact, &errors, |j| inner.v(at, j));
        for ((error, &o), dout) in columns.iter().zip(&exact.out).zip(&row.dout) {
            let stored = error.stored(storage, o);
            let largest = dout.abs() * (o.abs() + stored);
            // What wrong weights move is in `shift`, along all columns at once.
            b_row += dout.abs() * (stored - error.moved);
            size += largest;
            flushed += if dout.abs() < min_normal(storage) { largest } else { 0.0 };
        }
        let b_d = (1.0 + g) * b_row + g * size + flushed;
        let lambda = common_error(&errors);
        if !(b_d.is_finite() && lambda.is_finite() && size < HUGE) {
            return Ok(Self::Nothing);
        }
        Ok(Self::Known(Box::new(Common {
            top: errors.top,
            lambda,
            b_d,
            out_size: exact.out.iter().map(|o| o.abs()).sum(),
            format: WeightFormat { late: route.weights.late, ..WeightFormat::F32 },
            base_2: inner.attention.score.is_plain(),
            parts: parts.len(),
            chain,
        })))
    }
}

impl RowBound {
    /// ds of the row's sink, -p D: 0 without keys, where D is, or without a sink.
    pub(super) fn sink(&self, row: &Row) -> Known {
        let (Some(sink), false) = (row.forward.sink, row.keys().is_empty()) else {
            return Known { score: 0.0, error: 0.0 };
        };
        let common = match self {
            Self::Known(common) => common,
            Self::Nothing => return Known { score: 0.0, error: f64::INFINITY },
            Self::NotFinite => return Known { score: 0.0, error: f64::NAN },
        };
        let p = row.weight(sink);
        let (a, most, _) = common.weight(row, p, sink, 0.0);
        let moved = (1.0 + 2.0 * U) * common.b_d;
        let t_most = row.d.abs() + moved;
        let flushes = TINY * (8.0 * row.dout.len() as f64 + 8.0 + common.out_size + t_most);
        let error = a * row.d.abs() + most * moved + gamma(3) * most * t_most + flushes;
        Known { score: -p * row.d, error: if t_most < HUGE { error } else { f64::INFINITY } }
    }
}

impl Common {
    /// Of a logit of the row within delta, whose weight is p: a, P, epsilon.
    fn weight(&self, row: &Row, p: f64, score: f64, delta: f64) -> (f64, f64, f64) {
        let epsilon = weight_error(self.top - score, delta, 0, self.format, self.base_2);
        let [a, most] = weight_within(p, row.log_weight(score), epsilon + self.lambda);
        (a, most, epsilon)
    }
}

/// Lambda: of ln(exp(m) l), in the weights.
pub(in crate::reference) fn common_error(errors: &RowErrors) -> f64 {
    errors.weights.lse_error + errors.sum_error / (1.0 - errors.sum_error) + 2.5 * E + 3.0 * U
}

/// a and P of a weight p whose logarithm is known within so much.
pub(in crate::reference) fn weight_within(p: f64, log: f64, error: f64) -> [f64; 2] {
    let most = (log + error).exp();
    let a = if error < 1.0 { p * error.exp_m1() } else { most };
    [a.min(MOST) + TINY, most.min(MOST) + TINY]
}

/// How far a kernel may be from what a pair gives: section 2.
pub(super) struct PairErrors {
    /// expm1(epsilon).
    pub(super) own: f64,
    /// a: |p^ - p|.
    pub(super) a: f64,
    /// P: the largest p^.
    pub(super) most: f64,
    /// a and P of p as it meets dout: as often as the value counts.
    pub(super) met: [f64; 2],
    /// t = dp - D.
    pub(super) t: f64,
    /// T: the largest |t^|.
    pub(super) t_most: f64,
    /// b_dp.
    pub(super) b_dp: f64,
    /// Z: flushes in ds.
    pub(super) flushes: f64,
    /// ds = p t.
    pub(super) ds: Known,
    /// ds' = ds f.
    pub(super) pulled: Known,
}

impl PairErrors {
    /// Of the row's pair with key j.
    pub(super) fn new(call: &GradientCall<'_>, row: &Row, common: &Common, j: u32, pair: &Pair) -> Self {
        let (at, inner) = (row.at, &call.call);
        let (p, slope, score) = (pair.p, pair.by.slope, pair.by.score);
        let (a, most, epsilon) = common.weight(row, p, score.score, score.error);

        let values = Values::new(call, row, j);
        let share = values.share;
        let b_dp = gamma(row.dout.len() + 3 + inner.share_roundings()) * values.size + values.flushed;
        let t = values.dp - row.d;
        let moved = (1.0 + 2.0 * U) * (b_dp + common.b_d);
        let t_most = t.abs() + moved;
        let count = row.dout.len() as f64;
        let factor = inner.most_share();
        let flushes = TINY * (factor * (8.0 * count + 8.0 + values.sum) + common.out_size + t_most);
        let ds = p * t;
        let ds_error = a * t.abs() + most * moved + gamma(3) * most * t_most + flushes;
        let f_most = slope.score.abs() + slope.error;
        let pulled_error =
            f_most * ds_error + slope.error * ds.abs() + U * f_most * (ds.abs() + ds_error) + 2.0 * TINY;
        // The pass over the keys has the factor in k.
        let scaled = call.scale().abs() * std::f64::consts::LOG2_E * call.largest_k(at, j);
        let overflows = values.size >= HUGE || f_most.max(1.0) * t_most >= HUGE || scaled >= HUGE;
        let known = |error: f64| if overflows { f64::INFINITY } else { error };
        Self {
            own: epsilon.exp_m1(),
            a,
            most,
            met: [share * (a + gamma(inner.share_roundings()) * most), share * most],
            t,
            t_most,
            b_dp,
            flushes,
            ds: Known { score: ds, error: known(ds_error) },
            pulled: Known { score: ds * slope.score, error: known(pulled_error) },
        }
    }
}

/// What terms add beside k_j in dq (r of relative rows, e of segments), or beside q_i in dk (u), and its size, in column c.
pub(super) fn added(by: &Derivatives, of: impl Fn(&Added) -> &[f64], scale: f64, c: usize) -> (f64, f64) {
    // Relative rows and segments come before all other terms, so that f is the slope of what they add, too.
    let terms = by.products.iter().map(|added| if scale == 0.0 { 0.0 } else { of(added)[c] / scale });
    terms.fold((0.0, 0.0), |(sum, size), x| (sum + x, size + x.abs()))
}

/// The elements of the terms' tensors that a pair reads, those of rows last.
pub(super) fn read<'a>(
    by: &'a Derivatives,
    row: &'a Row,
    scale: f64,
) -> impl Iterator<Item = Derivative> + 'a {
    let of_rows = by.products.iter().flat_map(move |added| {
        added.products.rows.iter().flat_map(move |(tensor, first, values)| {
            values.iter().enumerate().map(move |(n, value)| {
                // q + w, in one sum or in two.
                let size = value.abs() + 2.0 * (scale * row.q[n]).abs();
                let score = added.slope.score * value;
                let error = added.slope.error * size + gamma(4) * added.slope.score.abs() * size + TINY;
                Derivative { tensor: added.first_tensor + tensor, n: first + n, by: Known { score, error } }
            })
        })
    });
    by.elements.iter().copied().chain(of_rows)
}

/// Sums over the columns of do_i and v_j.
struct Values {
    dp: f64,
    /// sum |do v|.
    size: f64,
    /// The same over what is subnormal in its storage and may be read as 0.
    flushed: f64,
    /// sum |v|.
    sum: f64,
    /// How often the value counts, which is in the first three.
    share: f64,
}

impl Values {
    fn new(call: &GradientCall<'_>, row: &Row, j: u32) -> Self {
        let storage = call.call.attention.storage;
        let [smallest_dout, smallest_v] = [storage.out, storage.kv].map(min_normal);
        let share = call.call.share(row.at, j);
        let mut sums = Self { dp: 0.0, size: 0.0, flushed: 0.0, sum: 0.0, share };
        for (&dout, v) in row.dout.iter().zip(call.call.v(row.at, j)) {
            let product = share * dout * v;
            sums.dp += product;
            sums.size += product.abs();
            sums.sum += v.abs();
            if dout.abs() < smallest_dout || v.abs() < smallest_v {
                sums.flushed += product.abs();
            }
        }
        sums
    }
}
