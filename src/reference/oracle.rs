//! Two tests that find the wrong set of keys, where the error bound is blind: with peaky scores a dropped key may
//! weigh less than a rounding error.
//!
//! - **count**: q = 0 and v in {0, 1}. Then o_ic is the share of attended keys with v_jc = 1, so it tells the exact
//!   set S, and that each key is met once.
//! - **gather**: keys hold the bits of j as +-1 and the query addresses one key, 26 nats ahead of all others. So each
//!   addressed key is read from its own place, and only if it is attended.
//!
//! ```
//! use wgpu_attention::{AttentionShape, Causal, reference::{self, Got, Rows, oracle}};
//! let shape = AttentionShape::new(1, 2, 40, 16);
//! let count = oracle::count_inputs::<f32, f32>(&shape, 1)?;
//! let exact = reference::attention_with(&shape, &count.inputs(), &Causal)?;
//! let out: Vec<f32> = exact.out.iter().map(|&x| x as f32).collect();
//! let got = Got::new(&out);
//! assert!(oracle::check_count(&shape, &count.inputs(), &Causal, got, Rows::All)?.pass);
//! // A kernel that forgot the mask:
//! assert!(!oracle::check_count(&shape, &count.inputs(), &wgpu_attention::Full, got, Rows::All)?.pass);
//! # Ok::<(), wgpu_attention::Error>(())
//! ```

use super::call::Call;
use super::inputs::Tensors;
use super::rounding::{E, U, gamma};
use super::row::bounded_row;
use super::rows::Rows;
use super::verify::{Got, GotRows, Report};
use super::weights::WeightFormat;
use crate::Counter;
use crate::Position;
use crate::pattern::Pattern;
use crate::score::Rule;
use crate::{Attention, AttentionShape, Element, Error, Inputs, Result, Strides};
use rayon::prelude::*;

/// How far ahead the addressed key is, in nats: exp(-26) = 5e-12.
const LEAD: f64 = 26.0;

/// Inputs of the count test: q = 0, k N(0, 1), v 0 or 1 at random. A bias is 0, and minus infinity in one of eight
/// places, so that removing pairs by the bias is tested too; the tensors of other terms leave scores as they are.
///
/// # Errors
/// What [`Attention::check`] refuses; a term under which weights are not equal, as ALiBi with slopes of its own; types that
/// are not those of the storage.
pub fn count_inputs<Q: Element, KV: Element>(
    attention: impl Into<Attention>,
    seed: u64,
) -> Result<Tensors<Q, KV>> {
    let attention = attention.into();
    check::<Q, KV>(&attention)?;
    let (k, v) = (Counter::new(seed, 0), Counter::new(seed, 1));
    let (k, v) = (|n| k.normal(n as u64), |n| (v.bits(n as u64) & 1) as f64);
    Ok(Tensors::new(&attention, [&|_| 0.0, &k, &v], silent(seed)))
}

/// Checks what a kernel made of [`count_inputs`], and its lse against ln |S_i| if given.
///
/// With n = |S_i| keys, a sink of 0 among them, of which c have a 1 in the column, out must be c / n within
///
/// ```text
/// (2.5 E + u + u_out) c / n  +  min( 2 gamma_{2 n + 2} c, 1/8 ) / n
/// ```
///
/// the final division and the storage of the output; and, since WGSL's exp2(0) need not be 1, what summing n equal
/// numbers that are not quite 1 may cost, but no more than 1/8 of a key: one key too few or too many moves out by
/// about 1 / (2 n) where half of the values are 1. (With exp2(0) = 1 all sums are of integers below 2^24 and
/// exact.) With dropout a key that is kept counts f = 1 / (1 - rate) times, one that is dropped does not; 1/8 is f/8 then, and there is gamma_2
/// more for the factor. An f16 or bf16 output hides single keys in rows of more than 2^9 or 2^6 keys: use shorter rows or an f32
/// output.
///
/// # Errors
/// As [`verify`](super::verify()).
pub fn check_count<Q: Element, KV: Element, O: Element>(
    attention: impl Into<Attention>,
    inputs: &Inputs<'_, Q, KV>,
    pattern: &dyn Pattern,
    got: Got<'_, O>,
    rows: Rows,
) -> Result<Report> {
    let attention = attention.into();
    let shape = &attention.shape;
    let call = Call::new(&attention, inputs, pattern)?;
    let got = GotRows::new(&attention, &got)?;
    let check = |&at: &Position| {
        let keys = call.keys(at);
        let n = keys.len() + usize::from(call.sink(at.head).is_some());
        let mut counts = vec![0.0; shape.value_dim];
        for &j in &keys {
            let share = call.share(at, j);
            counts.iter_mut().zip(call.v(at, j)).for_each(|(count, v)| *count += share * v);
        }
        let out = got.row(at).zip(&counts).map(|(got, count)| match n {
            0 => (got, 0.0, 0.0),
            _ => (got, count / n as f64, count_tolerance(&call, *count, n)),
        });
        let lse = got.lse(at).map(|lse| match n {
            0 => (lse, f64::from(f32::MIN), 0.0),
            _ => (lse, (n as f64).ln(), lse_tolerance(n)),
        });
        Report::of_row(at, out, lse)
    };
    let report = rows.positions(shape).par_iter().map(check).reduce(Report::empty, Report::merge);
    Ok(report.concluded())
}

fn count_tolerance(call: &Call<'_>, count: f64, n: usize) -> f64 {
    let factor = gamma(call.share_roundings());
    let rounding = (2.5 * E + U + call.attention.storage.out.rounding() + factor) * count;
    (rounding + (2.0 * gamma(2 * n + 2) * count).min(0.125 * call.most_share())) / n as f64
}

/// lse = ln(n exp2(0)) with sums, log and products, but never half a key.
fn lse_tolerance(n: usize) -> f64 {
    let ln = (n as f64).ln();
    (4.0 * E + 3.0 * U * ln + 3.0 * E * ln) + (gamma(2 * n + 2) + 3.0 * E).min(0.25 / n as f64 + 3.0 * E)
}

/// Inputs of the gather test, and which key each row addresses.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Gather<Q, KV = Q> {
    /// The inputs.
    pub tensors: Tensors<Q, KV>,
    /// `[B, H, Lq]`: the key that each row addresses.
    pub targets: Vec<u32>,
}

/// Inputs of the gather test: key j of each batch item and key/value head is a code of j in +-1, repeated as often
/// as it fits into d (with zeros behind), the query is the code of its target times a factor that puts the target
/// at least 26 nats ahead of every other key. With a softcap one more column, 1 in all keys, moves the scores so
/// that the target and the next keys lie on both sides of 0, where the cap bends least. Values are the digits of j
/// in base 128, shifted by batch item and head, so that each key has values of its own wherever dv is at least the
/// number of digits (1 up to 128 keys, 2 up to 16,384).
///
/// Three of four rows address a key that `pattern` attends (if there is one), the others any key. A bias is as in
/// [`count_inputs`].
///
/// # Errors
/// What [`Attention::check`] refuses; a head_dim that is smaller than the number of bits of `kv_len - 1` (one
/// more with a softcap): the codes do not fit; no key; a term that always changes scores, as ALiBi with slopes of its own; a
/// scale of 0, or so small that the queries pass the element type's range; a softcap below 14, which leaves no 26 nats;
/// strides of q, k or v under which rows share elements; types that are not those of the storage.
pub fn gather_inputs<Q: Element, KV: Element>(
    attention: impl Into<Attention>,
    pattern: &dyn Pattern,
    seed: u64,
) -> Result<Gather<Q, KV>> {
    let attention = attention.into();
    let shape = &attention.shape;
    check::<Q, KV>(&attention)?;
    pattern.check(&shape.extent())?;
    let code = Code::new(&attention)?;
    // Rounding to Q may lose one part in 2^8 of the lead; LEAD has that to spare.
    let largest: f64 = Q::from_f64(code.query_shift.abs().max(code.amplitude.abs())).into();
    let smallest: f64 = Q::from_f64(code.amplitude).into();
    if !(largest.is_finite() && smallest.abs() > 0.99 * code.amplitude.abs()) {
        let need = format!("a factor for which queries of {:e} fit {}", code.amplitude, Q::TYPE);
        return Err(Error::argument("scale", need, attention.scale_value()));
    }

    let mut tensors = Tensors::<Q, KV>::new(&attention, [&|_| 0.0; 3], silent(seed));
    let targets = {
        let inputs = tensors.inputs();
        targets(&Call::new(&attention, &inputs, pattern)?, seed)
    };
    let (kv, q) = ([shape.batch, shape.kv_heads, shape.kv_len], [shape.batch, shape.heads, shape.q_len]);
    fill("k_layout", &mut tensors.k, attention.k_strides(), kv, shape.head_dim, |batch, head, j, c| {
        if code.is_shift(c) { 1.0 } else { code.element(batch, head, j, c) }
    })?;
    fill("v_layout", &mut tensors.v, attention.v_strides(), kv, shape.value_dim, |batch, head, j, c| {
        value(shape, batch, head, j, c)
    })?;
    fill("q_layout", &mut tensors.q, attention.q_strides(), q, shape.head_dim, |batch, head, i, c| {
        let target = targets[Position { batch, head, i }.row(shape)] as usize;
        let element = code.amplitude * code.element(batch, shape.kv_head(head), target, c);
        if code.is_shift(c) { code.query_shift } else { element }
    })?;
    Ok(Gather { tensors, targets })
}

/// Checks what a kernel made of [`gather_inputs`]: where the target is attended, out is its value, less a sink's share and as often as dropout lets it count, within
///
/// ```text
/// (2.5 E + u + u_out) |v_tc|  +  min( 2 gamma_{2 Lk + 2} |v_tc|, 1/4 )  +  128 (Lk - 1) exp(-25)
/// ```
///
/// the division and storage; adding the others' small weights and rescaling, in numerator and denominator, but no
/// more than a quarter of the distance of two values; the others' weights. Where it is not attended, out is what
/// the other keys give, under the bound of [`row_of_format`](super::row_of_format()) for `weights`; this is compared in at
/// most 256 rows, for it costs O(Lk d) per row.
///
/// # Errors
/// As [`verify`](super::verify()), and for `targets` of another call.
pub fn check_gather<Q: Element, KV: Element, O: Element>(
    attention: impl Into<Attention>,
    gather: &Gather<Q, KV>,
    pattern: &dyn Pattern,
    got: Got<'_, O>,
    rows: Rows,
    weights: WeightFormat,
) -> Result<Report> {
    let attention = attention.into();
    let shape = &attention.shape;
    let inputs = gather.tensors.inputs();
    let call = Call::new(&attention, &inputs, pattern)?;
    let got = GotRows::new(&attention, &got)?;
    if gather.targets.len() != shape.len_lse() || gather.targets.iter().any(|&t| t as usize >= shape.kv_len) {
        return Err(Error::argument(
            "targets",
            format!("{} keys of this call", shape.len_lse()),
            "another call's",
        ));
    }
    let attended = |at: &Position| call.keeps(*at, gather.targets[at.row(shape)] as usize);
    let (hits, mut misses): (Vec<_>, Vec<_>) = rows.positions(shape).into_iter().partition(attended);
    let step = misses.len().div_ceil(256).max(1);
    misses = misses.into_iter().step_by(step).collect();

    let others = 128.0 * (shape.kv_len - 1) as f64 * (1.0 - LEAD).exp();
    let (relative, sums) =
        (2.5 * E + U + attention.storage.out.rounding(), 2.0 * gamma(2 * shape.kv_len + 2));
    let (most, factor) = (call.most_share(), gamma(call.share_roundings()));
    let tolerance =
        |v: f64| (relative + factor) * v.abs() + (sums * v.abs()).min(0.25 * most) + most * others;
    let hit = |&at: &Position| {
        let target = gather.targets[at.row(shape)];
        // What a sink leaves to the target.
        let score = || call.score(call.product(&call.q(at), at, target), at, target);
        let share = call.sink(at.head).map_or(1.0, |sink| 1.0 / (1.0 + (sink - score()).exp()));
        let met = call.share(at, target);
        let values = call.v(at, target).map(|v| met * v);
        let out = got.row(at).zip(values).map(|(got, v)| (got, share * v, tolerance(v)));
        Report::of_row(at, out, None)
    };
    let miss = |&at: &Position| {
        let row = bounded_row(&call, at, None, None, weights)?;
        let out =
            got.row(at).zip(row.out).zip(row.bound).map(|((got, expected), bound)| (got, expected, bound));
        Ok(Report::of_row(at, out, None))
    };
    let hits = hits.par_iter().map(hit).reduce(Report::empty, Report::merge);
    let misses = misses.par_iter().map(miss).try_reduce(Report::empty, |a, b| Ok(a.merge(b)))?;
    Ok(hits.merge(misses).concluded())
}

fn check<Q: Element, KV: Element>(attention: &Attention) -> Result<()> {
    attention.check()?;
    super::call::check_type::<Q>("q", attention.storage.q)?;
    super::call::check_type::<KV>("k and v", attention.storage.kv)?;
    match attention.score.rules().find(|rule| rule.silent(0).is_none()) {
        Some(rule) => {
            Err(Error::argument(rule.name(), "none: the oracle's scores leave no room for it", "one"))
        }
        None => Ok(()),
    }
}

/// Elements of the terms' tensors under which scores stay as they are.
fn silent(seed: u64) -> impl Fn(&dyn Rule, usize) -> f32 {
    let draw = Counter::new(seed, 2);
    move |rule, n| rule.silent(draw.bits(n as u64)).unwrap_or(0.0)
}

/// Bits that tell `kv_len` keys apart.
fn code_bits(kv_len: usize) -> usize {
    (usize::BITS - (kv_len - 1).leading_zeros()).max(1) as usize
}

/// How keys and queries are written: columns 0 .. coded hold `bits` bits again and again; then, with a softcap, the
/// shift.
struct Code {
    bits: usize,
    coded: usize,
    shifted: bool,
    /// Of a query's elements.
    amplitude: f64,
    /// The query's element in the shift column.
    query_shift: f64,
}

impl Code {
    /// A matching bit scores x and another -x, so h wrong bits score x (bits - 2 h): without softcap a lead of 2 x.
    /// With it, scores are moved to x (1 - 2 h), which leads by 2 c tanh(x / c).
    fn new(attention: &Attention) -> Result<Self> {
        let (shape, scale) = (&attention.shape, f64::from(attention.scale_value()));
        if shape.kv_len == 0 {
            return Err(Error::argument("kv_len", "at least 1: there is no key to address", 0));
        }
        if scale == 0.0 {
            return Err(Error::argument("scale", "not 0", 0));
        }
        let cap = attention.score.softcap_value().map(f64::from);
        let (bits, shifted) = (code_bits(shape.kv_len), cap.is_some());
        let columns = shape.head_dim - usize::from(shifted);
        let repeats = columns / bits;
        if repeats == 0 {
            let need = format!("at least {}, the bits of a key's code", bits + usize::from(shifted));
            return Err(Error::argument("head_dim", need, shape.head_dim));
        }
        let x = match cap {
            Some(cap) if cap < 14.0 => {
                return Err(Error::argument("softcap", format!("at least 14, to hold {LEAD} nats"), cap));
            }
            Some(cap) => cap * (LEAD / 2.0 / cap).atanh(),
            None => LEAD / 2.0,
        };
        let query_shift = if shifted { -x * (bits as f64 - 1.0) / scale } else { 0.0 };
        Ok(Self {
            bits,
            coded: repeats * bits,
            shifted,
            amplitude: x / (repeats as f64 * scale),
            query_shift,
        })
    }

    fn is_shift(&self, c: usize) -> bool {
        self.shifted && c == self.coded
    }

    /// Column c of key j: a bit of j as +-1. Batch items and heads flip some bits, so that no head can be taken for
    /// another.
    fn element(&self, batch: usize, head: usize, j: usize, c: usize) -> f64 {
        if c >= self.coded {
            return 0.0;
        }
        let flip = Counter::new(batch as u64, head as u64).bits(0) as usize;
        if ((j ^ flip) >> (c % self.bits)) & 1 == 1 { 1.0 } else { -1.0 }
    }
}

/// Digits of j in base 128, shifted by batch item and head: integers below 128, exact in every element type.
fn value(shape: &AttentionShape, batch: usize, head: usize, j: usize, c: usize) -> f64 {
    let digits = code_bits(shape.kv_len).div_ceil(7);
    let digit = j >> (7 * (c % digits));
    ((digit + 31 * batch + 17 * head + 5 * c) % 128) as f64
}

/// `[B, H, Lq]`. Three of four rows take the first attended key from a random one on, the others any key.
fn targets(call: &Call<'_>, seed: u64) -> Vec<u32> {
    let (draw, shape) = (Counter::new(seed, 3), call.shape);
    (0..shape.len_lse())
        .into_par_iter()
        .map(|n| {
            let bits = draw.bits(n as u64);
            let start = (bits >> 8) as usize % shape.kv_len;
            let at = Position::of_row(shape, n);
            let attended =
                || (0..shape.kv_len).map(|step| (start + step) % shape.kv_len).find(|&j| call.keeps(at, j));
            let target = if bits & 3 == 0 { start } else { attended().unwrap_or(start) };
            target as u32
        })
        .collect()
}

/// Writes `element(batch, head, row, column)` to each place, and refuses a layout in which one place gets two values.
fn fill<T: Element>(
    name: &'static str,
    tensor: &mut [T],
    strides: Strides,
    [batches, heads, rows]: [usize; 3],
    dim: usize,
    element: impl Fn(usize, usize, usize, usize) -> f64,
) -> Result<()> {
    let each = |place: &mut dyn FnMut(usize, T) -> bool| {
        for (batch, head) in (0..batches).flat_map(|batch| (0..heads).map(move |head| (batch, head))) {
            for (row, c) in (0..rows).flat_map(|row| (0..dim).map(move |c| (row, c))) {
                let value = T::from_f64(element(batch, head, row, c));
                if !place(strides.at(batch, head, row) + c, value) {
                    return Err(Error::argument(name, "rows that share no element", format!("{strides:?}")));
                }
            }
        }
        Ok(())
    };
    each(&mut |n, value| {
        tensor[n] = value;
        true
    })?;
    each(&mut |n, value| tensor[n].into() == value.into())
}
