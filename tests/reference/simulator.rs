//! The kernel of attention on a [`Device`]: blocked online softmax in base 2, or in base e where the score has terms.

use super::rounding::Device;
use super::scores::{DROPPED, scores_of};
use wgpu_attention::reference::Position;
use wgpu_attention::{Attention, Dropout, Element, ElementType, Inputs};

/// 2 log2(e) in f32.
const TWICE_LOG2_E: f64 = (2.0 * std::f32::consts::LOG2_E) as f64;

/// State of a row: maximum, sum and output.
pub(crate) struct State {
    pub(crate) m: f64,
    pub(crate) l: f64,
    pub(crate) o: Vec<f64>,
}

impl State {
    fn lse(&self, device: &mut Device, walk: &Walk<'_>) -> f64 {
        if self.l > 0.0 { walk.log_sum(device, self.m, self.l) } else { DROPPED }
    }
}

/// One row as the kernel of `shaders/attention.wgsl` computes it: out and lse.
pub(crate) fn attention_row<Q: Element, KV: Element>(
    device: &mut Device,
    attention: &Attention,
    inputs: &Inputs<'_, Q, KV>,
    at: Position,
    walk: Walk<'_>,
) -> (Vec<f64>, f64) {
    let score = scores_of(device, attention, inputs, at, walk.base_e);
    row_of(device, walk, attention.storage.out, values_of(attention, inputs, at), score)
}

/// The same with the state that it leaves.
pub(crate) fn attention_state<Q: Element, KV: Element>(
    device: &mut Device,
    attention: &Attention,
    inputs: &Inputs<'_, Q, KV>,
    at: Position,
    walk: &Walk<'_>,
) -> State {
    let score = scores_of(device, attention, inputs, at, walk.base_e);
    state_of(device, walk, attention.storage.out, values_of(attention, inputs, at), score)
}

/// v_j as the row's head sees it.
fn values_of<'a, Q, KV>(
    attention: &Attention,
    inputs: &Inputs<'a, Q, KV>,
    at: Position,
) -> impl Fn(u32) -> &'a [KV] + use<'a, Q, KV> {
    let (strides, kv_head, len) =
        (attention.v_strides(), attention.shape.kv_head(at.head), attention.shape.value_dim);
    let v = inputs.v;
    move |j: u32| &v[strides.at(at.batch, kv_head, j as usize)..][..len]
}

/// Parts of keys, each in tiles.
pub(crate) struct Walk<'a> {
    pub(crate) parts: &'a [Vec<u32>],
    pub(crate) tile: usize,
    /// The output in f64, for [`Mode::Sided`].
    pub(crate) center: &'a [f64],
    /// Weights in f16 times 2^7, and maxima that may be late: `shaders/tile/cooperative.wgsl`.
    pub(crate) halves: bool,
    /// Scores in base e instead of 2: `shaders/lib/online_softmax.wgsl`.
    pub(crate) base_e: bool,
    /// One more logit, without a value: `shaders/score/sinks.wgsl`.
    pub(crate) sink: Option<f64>,
    /// Weights dropped behind l: `shaders/score/dropout_tile.wgsl`.
    pub(crate) dropout: Option<(Dropout, Position)>,
}

impl Walk<'_> {
    /// Whether the weight of a key meets its value.
    fn meets(&self, j: u32) -> bool {
        self.dropout.is_none_or(|(dropout, at)| dropout.keeps(at.batch, at.head, at.i, j as usize))
    }

    /// The factor of the output, times that of dropout.
    fn with_dropout(&self, device: &mut Device, factor: f64) -> f64 {
        self.dropout.map_or(factor, |(dropout, _)| device.mul(dropout_factor(&dropout), factor))
    }

    /// The weight of a score against a maximum.
    fn power(&self, device: &mut Device, s: f64, m: f64) -> f64 {
        let exponent = match self.base_e {
            true => halved(device, s, m),
            false => device.add(s, -m),
        };
        device.exp2(exponent)
    }

    /// The weight of an old maximum against one that is not below it.
    fn shrink(&self, device: &mut Device, old: f64, m: f64) -> f64 {
        if old == m {
            return 1.0;
        }
        let exponent = match self.base_e {
            true => halved(device, old, m),
            false => device.add(old, -m).max(-200.0),
        };
        device.exp2(exponent)
    }

    fn log_sum(&self, device: &mut Device, m: f64, l: f64) -> f64 {
        let log = device.log2(l);
        let ln_2 = f64::from(std::f32::consts::LN_2);
        if self.base_e {
            let ln = device.mul(log, ln_2);
            return device.add(m, ln);
        }
        let sum = device.add(m, log);
        device.mul(sum, ln_2)
    }

    /// How far a score may be above a maximum that stays.
    fn late(&self) -> f64 {
        if self.base_e { 8.0 * std::f64::consts::LN_2 } else { 8.0 }
    }
}

/// 1 / (1 - rate), as the host rounds it.
pub(crate) fn dropout_factor(dropout: &Dropout) -> f64 {
    f64::from((1.0 / (1.0 - f64::from(dropout.rate()))) as f32)
}

/// (s - m) log2(e), by way of halves, which do not overflow.
pub(crate) fn halved(device: &mut Device, s: f64, m: f64) -> f64 {
    let half = device.fma(s, 0.5, -0.5 * m).max(-100.0);
    device.mul(half, TWICE_LOG2_E)
}

/// One row of any score: out and lse.
pub(crate) fn row_of<'v, E: Element>(
    device: &mut Device,
    walk: Walk<'_>,
    output: ElementType,
    v_row: impl Fn(u32) -> &'v [E],
    score: impl FnMut(&mut Device, u32) -> f64,
) -> (Vec<f64>, f64) {
    let state = state_of(device, &walk, output, v_row, score);
    let lse = state.lse(device, &walk);
    (state.o, lse)
}

/// The same with its state.
pub(crate) fn state_of<'v, E: Element>(
    device: &mut Device,
    walk: &Walk<'_>,
    output: ElementType,
    v_row: impl Fn(u32) -> &'v [E],
    mut score: impl FnMut(&mut Device, u32) -> f64,
) -> State {
    let mut all: Option<State> = None;
    for keys in walk.parts {
        let (m, l) = match (&all, walk.sink) {
            (None, Some(sink)) => (device.flushed(sink, f64::from(f32::MIN_POSITIVE)), 1.0),
            _ => (DROPPED, 0.0),
        };
        let begin = State { m, l, o: vec![0.0; walk.center.len()] };
        let new = part_row(device, keys, walk, begin, &v_row, &mut score);
        all = Some(match all {
            None => normalised(device, walk, new),
            Some(old) => merged(device, walk, old, new),
        });
    }
    let Some(State { m, l, o }) = all.filter(|state| state.l > 0.0) else {
        return State { m: DROPPED, l: 0.0, o: vec![0.0; walk.center.len()] };
    };
    State { m, l, o: o.into_iter().map(|o| device.store(o, output)).collect() }
}

fn normalised(device: &mut Device, walk: &Walk<'_>, state: State) -> State {
    if state.l == 0.0 {
        return state;
    }
    device.push = 1.0;
    let factor = device.div(1.0, state.l);
    let factor = walk.with_dropout(device, factor);
    let o = state.o.iter().map(|&o| device.mul(o, factor)).collect();
    State { o, ..state }
}

/// `old.o` is normalised, `new.o` is not.
fn merged(device: &mut Device, walk: &Walk<'_>, old: State, new: State) -> State {
    device.push = 1.0;
    let m = old.m.max(new.m);
    let old_weight = walk.shrink(device, old.m, m);
    let old_weight = device.mul(old.l, old_weight);
    let new_weight = walk.shrink(device, new.m, m);
    let l = device.fma(new.l, new_weight, old_weight);
    if l == 0.0 {
        return State { m, l, o: old.o };
    }
    let factor = device.div(1.0, l);
    let new_factor = walk.with_dropout(device, factor);
    let (new_factor, old_factor) = (device.mul(new_factor, new_weight), device.mul(factor, old_weight));
    let merge = |(&new, &old): (&f64, &f64)| {
        let new = device.mul(new, new_factor);
        device.fma(old, old_factor, new)
    };
    let o = new.o.iter().zip(&old.o).map(merge).collect();
    State { m, l, o }
}

fn part_row<'v, E: Element>(
    device: &mut Device,
    keys: &[u32],
    walk: &Walk<'_>,
    mut state: State,
    v_row: &impl Fn(u32) -> &'v [E],
    score: &mut impl FnMut(&mut Device, u32) -> f64,
) -> State {
    let center = walk.center;
    for keys in keys.chunks(walk.tile) {
        let value = |j: u32| if walk.meets(j) { v_row(j)[0].into() } else { 0.0 };
        let sides: Vec<f64> = keys.iter().map(|&j| if value(j) >= center[0] { 1.0 } else { -1.0 }).collect();
        let mut scores = Vec::with_capacity(keys.len());
        for (&j, &side) in keys.iter().zip(&sides) {
            device.push = side;
            scores.push(score(device, j));
        }
        let mut m = scores.iter().copied().fold(state.m, f64::max);
        if walk.halves && state.m != DROPPED && m * 0.5 - state.m * 0.5 <= 0.5 * walk.late() {
            m = state.m;
        }
        device.push = 1.0;
        let rescale = walk.shrink(device, state.m, m);
        state.m = m;
        // Matrix units add to the sums so far; otherwise a tile is summed by itself, then added.
        let mut sums = State { m, l: 0.0, o: vec![0.0; center.len()] };
        if walk.halves {
            sums.l = device.mul(state.l, rescale);
            sums.o = state.o.iter().map(|&o| device.mul(o, rescale)).collect();
        }
        for ((&j, &side), s) in keys.iter().zip(&sides).zip(scores) {
            device.push = side;
            let p = if s > DROPPED { walk.power(device, s, m) } else { 0.0 };
            let p = if walk.halves { eleven_bits(p) } else { p };
            device.push = -1.0;
            sums.l = device.add(sums.l, p);
            device.push = side;
            let p = if walk.halves { device.store(128.0 * p, ElementType::F16) / 128.0 } else { p };
            let p = if walk.meets(j) { p } else { 0.0 };
            device.push = 1.0;
            for (o, &v) in sums.o.iter_mut().zip(v_row(j)) {
                let v = device.read(v);
                *o = device.fma(p, v, *o);
            }
        }
        if !walk.halves {
            device.push = -1.0;
            sums.l = device.fma(state.l, rescale, sums.l);
            device.push = 1.0;
            for (sum, &o) in sums.o.iter_mut().zip(&state.o) {
                *sum = device.fma(o, rescale, *sum);
            }
        }
        state = sums;
    }
    state
}

/// The nearest number of 11 bits.
pub(crate) fn eleven_bits(x: f64) -> f64 {
    f64::from(f32::from_bits(((x as f32).to_bits() + 0x1000) & 0xffff_e000))
}
