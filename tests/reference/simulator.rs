//! A kernel that is correct by WGSL's rules and as wrong as they allow: blocked online softmax in base 2, or in base e where
//! the score has terms, each operation rounded to a neighbour of our choice. Values are f64 that hold f32 numbers exactly.

use std::f64::consts::LOG2_E;
use wgpu_attention::reference::{Counter, Position};
use wgpu_attention::{
    Attention, AttentionShape, Dropout, Element, ElementType, Inputs, Relative, Slopes, Term,
};

/// Which neighbour an inexact result goes to, and which way the error of exp2, log2 and division points.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Nearest,
    Up,
    Down,
    TowardZero,
    Random,
    /// Against the result: weights of values above the output up, the others down, sums of the output up, of the
    /// weights down.
    Sided,
}

impl Mode {
    pub(crate) const ALL: [Self; 6] =
        [Self::Nearest, Self::Up, Self::Down, Self::TowardZero, Self::Random, Self::Sided];
}

/// The device.
pub(crate) struct Device {
    pub(crate) mode: Mode,
    /// Subnormal numbers become 0.
    pub(crate) flush: bool,
    /// For [`Mode::Sided`]: the direction now wanted.
    pub(crate) push: f64,
    draw: Counter,
    drawn: u64,
}

impl Device {
    pub(crate) fn new(mode: Mode, flush: bool, seed: u64) -> Self {
        Self { mode, flush, push: 1.0, draw: Counter::new(seed, 99), drawn: 0 }
    }

    fn random(&mut self) -> f64 {
        self.drawn += 1;
        2.0 * self.draw.uniform(self.drawn) - 1.0
    }

    /// In [-1, 1]: how much of an allowed error is used, and in which direction.
    fn direction(&mut self, x: f64) -> f64 {
        match self.mode {
            Mode::Nearest => 0.0,
            Mode::Up => 1.0,
            Mode::Down => -1.0,
            Mode::TowardZero => -x.signum(),
            Mode::Random => self.random(),
            Mode::Sided => self.push,
        }
    }

    pub(crate) fn flushed(&self, x: f64, smallest: f64) -> f64 {
        if self.flush && x.abs() < smallest { 0.0 } else { x }
    }

    /// The f32 that stands for the real number x + rest, |rest| below x's last place in f64.
    fn round(&mut self, x: f64, rest: f64) -> f64 {
        let near = x as f32;
        let above = match f64::from(near) - x {
            0.0 if rest == 0.0 => return self.flushed(x, f64::from(f32::MIN_POSITIVE)),
            0.0 => rest < 0.0,
            difference => difference > 0.0,
        };
        let (low, high) = if above { (near.next_down(), near) } else { (near, near.next_up()) };
        let direction = self.direction(x);
        let chosen = match self.mode {
            Mode::Nearest => near,
            _ if direction >= 0.0 => high,
            _ => low,
        };
        self.flushed(f64::from(chosen), f64::from(f32::MIN_POSITIVE))
    }

    pub(crate) fn add(&mut self, a: f64, b: f64) -> f64 {
        let sum = a + b;
        let of_b = sum - a;
        self.round(sum, (a - (sum - of_b)) + (b - of_b))
    }

    pub(crate) fn mul(&mut self, a: f64, b: f64) -> f64 {
        self.round(a * b, 0.0)
    }

    /// Fused or split: WGSL allows both.
    pub(crate) fn fma(&mut self, a: f64, b: f64, c: f64) -> f64 {
        if self.mode == Mode::Nearest {
            return self.add(a * b, c);
        }
        let product = self.mul(a, b);
        self.add(product, c)
    }

    /// y with `ulps` of error, used as the mode says.
    pub(crate) fn within(&mut self, y: f64, ulps: f64) -> f64 {
        let near = y as f32;
        let ulp = f64::from(near.abs().next_up()) - f64::from(near.abs());
        let off = y + self.direction(y) * ulps * ulp;
        // Back towards y: conversion to f32 must not leave the interval.
        let stored = off as f32;
        let stored = match (f64::from(stored) - y).abs() > ulps * ulp {
            true if f64::from(stored) > y => stored.next_down(),
            true => stored.next_up(),
            false => stored,
        };
        self.flushed(f64::from(stored), f64::from(f32::MIN_POSITIVE))
    }

    pub(crate) fn exp2(&mut self, x: f64) -> f64 {
        // 6e38 ULP of 0 would be 1e-6.
        if x < -200.0 {
            return 0.0;
        }
        self.within(x.exp2(), 3.0 + 2.0 * x.abs())
    }

    pub(crate) fn div(&mut self, a: f64, b: f64) -> f64 {
        self.within(a / b, 2.5)
    }

    pub(crate) fn log2(&mut self, x: f64) -> f64 {
        if (0.5..=2.0).contains(&x) {
            let off = self.direction(1.0) * 2f64.powi(-21) * 0.99;
            return self.round(x.log2() + off, 0.0);
        }
        self.within(x.log2(), 3.0)
    }

    /// Reads an element from memory.
    pub(crate) fn read<E: Element>(&self, x: E) -> f64 {
        self.flushed(x.into(), smallest(E::TYPE))
    }

    /// Writes an element to memory.
    pub(crate) fn store(&mut self, x: f64, output: ElementType) -> f64 {
        // Grid of the type around |x|: 11 or 8 significant bits.
        let (bits, lowest) = match output {
            ElementType::F32 => return x,
            ElementType::F16 => (11, -24),
            ElementType::Bf16 => (8, -133),
        };
        if x == 0.0 {
            return x;
        }
        let exponent = (x.abs().log2().floor() as i32 - (bits - 1)).max(lowest);
        let step = 2f64.powi(exponent);
        let direction = self.direction(x);
        let steps = match self.mode {
            Mode::Nearest => (x / step).round_ties_even(),
            _ if direction >= 0.0 => (x / step).ceil(),
            _ => (x / step).floor(),
        };
        self.flushed(steps * step, smallest(output))
    }
}

fn smallest(element: ElementType) -> f64 {
    match element {
        ElementType::F16 => 2f64.powi(-14),
        _ => f64::from(f32::MIN_POSITIVE),
    }
}

const DROPPED: f64 = f32::MIN as f64;

/// The lowest score of a pair that is not left out.
pub(crate) const LOWEST: f64 = f32::MIN.next_up() as f64;

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

/// The score of a row's keys, before its terms in base 2 where there are none.
pub(crate) fn scores_of<'a, Q: Element, KV: Element>(
    device: &Device,
    attention: &'a Attention,
    inputs: &'a Inputs<'a, Q, KV>,
    at: Position,
    base_e: bool,
) -> impl FnMut(&mut Device, u32) -> f64 + use<'a, Q, KV> {
    let shape = &attention.shape;
    let base = if base_e { 1.0 } else { LOG2_E };
    let q_scale = (f64::from(attention.scale_value()) * base) as f32;
    let q_scale = device.flushed(f64::from(q_scale), f64::from(f32::MIN_POSITIVE));
    let q_at = attention.q_strides().at(at.batch, at.head, at.i);
    let q: Vec<f64> = inputs.q[q_at..q_at + shape.head_dim].iter().map(|&q| device.read(q)).collect();
    move |device: &mut Device, j: u32| {
        let s = match attention.score.term("relative") {
            Some(Term::Relative(relative)) => {
                related(device, attention, inputs, at, relative, j, (&q, q_scale))
            }
            _ => product(device, &q, q_scale, key(attention, inputs, at, j)),
        };
        terms_of_score(device, attention, inputs, at, j, s)
    }
}

/// k_j as the row's head sees it.
fn key<'a, Q, KV>(attention: &Attention, inputs: &Inputs<'a, Q, KV>, at: Position, j: u32) -> &'a [KV] {
    let k_at = attention.k_strides().at(at.batch, attention.shape.kv_head(at.head), j as usize);
    &inputs.k[k_at..k_at + attention.shape.head_dim]
}

/// (q_scale (q + u)) . k + (q_scale (q + w)) . r, as `shaders/score/relative.wgsl` has it, for contiguous r.
pub(crate) fn related<Q: Element, KV: Element>(
    device: &mut Device,
    attention: &Attention,
    inputs: &Inputs<'_, Q, KV>,
    at: Position,
    relative: &Relative,
    j: u32,
    (q, q_scale): (&[f64], f64),
) -> f64 {
    let [r, u, w] = relative_rows(attention, inputs, at, relative, j);
    let with = |device: &mut Device, bias: &[f32]| -> Vec<f64> {
        let add = |(c, &q): (usize, &f64)| {
            let bias = bias.get(c).map_or(0.0, |&bias| device.read(bias));
            device.add(q, bias)
        };
        q.iter().enumerate().map(add).collect()
    };
    let u = with(device, u);
    let w = with(device, w);
    let s = product(device, &u, q_scale, key(attention, inputs, at, j));
    product_from(device, s, &w, q_scale, r)
}

/// r of a pair, and u and w of its head, empty where there are none; r contiguous.
pub(crate) fn relative_rows<'a, Q, KV>(
    attention: &Attention,
    inputs: &Inputs<'a, Q, KV>,
    at: Position,
    relative: &Relative,
    j: u32,
) -> [&'a [f32]; 3] {
    let (d, shape) = (attention.shape.head_dim, &attention.shape);
    let position = (at.i + shape.kv_len) as i64 - shape.q_len as i64;
    let [lowest, first] = relative.distances().expect("not clipped");
    let t = (first - (position - i64::from(j))) as usize;
    let rows = inputs.get("relative_rows").expect("the inputs have r");
    let r = &rows[(at.head * (first - lowest + 1) as usize + t) * d..][..d];
    let biases = inputs.get("relative_biases").unwrap_or(&[]);
    let bias = |has: bool, n: usize| if has { &biases[(n * shape.heads + at.head) * d..][..d] } else { &[] };
    [r, bias(relative.has_u(), 0), bias(relative.has_w(), relative.has_u().into())]
}

/// (q_scale q) . k.
pub(crate) fn product<E: Element>(device: &mut Device, q: &[f64], q_scale: f64, k: &[E]) -> f64 {
    product_from(device, 0.0, q, q_scale, k)
}

fn product_from<E: Element>(device: &mut Device, mut s: f64, q: &[f64], q_scale: f64, k: &[E]) -> f64 {
    for (&q, &k) in q.iter().zip(k) {
        let scaled = device.mul(q, q_scale);
        let k = device.read(k);
        s = device.fma(scaled, k, s);
    }
    s
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
fn state_of<'v, E: Element>(
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
fn eleven_bits(x: f64) -> f64 {
    f64::from(f32::from_bits(((x as f32).to_bits() + 0x1000) & 0xffff_e000))
}

/// The terms of the score, as `shaders/score/` has them.
fn terms_of_score<Q: Element, KV: Element>(
    device: &mut Device,
    attention: &Attention,
    inputs: &Inputs<'_, Q, KV>,
    at: Position,
    j: u32,
    product: f64,
) -> f64 {
    let mut s = product;
    for term in attention.score.terms() {
        match term_of_score(device, attention, inputs, (at, j), term, s) {
            Some(next) => s = next,
            None => return DROPPED,
        }
    }
    if attention.score.is_plain() { s } else { s.max(LOWEST) }
}

/// (q_scale (q + s)) . e, as `shaders/score/segments.wgsl` has it.
fn segments_of_row<Q: Element, KV: Element>(
    device: &mut Device,
    attention: &Attention,
    inputs: &Inputs<'_, Q, KV>,
    at: Position,
    j: u32,
) -> f64 {
    let AttentionShape { batch, heads, q_len, kv_len, head_dim: d, .. } = attention.shape;
    let tensor = inputs.get("segments").expect("the inputs have the tensors of the score");
    let row = |n: usize| &tensor[(n * heads + at.head) * d..][..d];
    let ids = &tensor[3 * heads * d..];
    let same = ids[at.batch * q_len + at.i] == ids[batch * q_len + at.batch * kv_len + j as usize];
    let q_at = attention.q_strides().at(at.batch, at.head, at.i);
    let with_s: Vec<f64> = (0..d)
        .map(|c| {
            let (q, s) = (device.read(inputs.q[q_at + c]), device.read(row(0)[c]));
            device.add(q, s)
        })
        .collect();
    let q_scale = device.flushed(f64::from(attention.scale_value()), f64::from(f32::MIN_POSITIVE));
    product(device, &with_s, q_scale, row(if same { 1 } else { 2 }))
}

/// One term; `None` for a pair that it removes.
pub(crate) fn term_of_score<Q: Element, KV: Element>(
    device: &mut Device,
    attention: &Attention,
    inputs: &Inputs<'_, Q, KV>,
    (at, j): (Position, u32),
    term: &Term,
    s: f64,
) -> Option<f64> {
    let shape = &attention.shape;
    let tensor = |name: &str| inputs.get(name).expect("the inputs have the tensors of the score");
    let distance = (at.i + shape.kv_len) as i64 - shape.q_len as i64 - i64::from(j);
    Some(match term {
        Term::Temperature(_) => device.div(s, tensor("temperature")[at.head].into()),
        Term::Softcap(softcap) => {
            let cap = softcap.cap().into();
            let x = device.div(s, cap);
            let tanh = hyperbolic(device, x);
            device.mul(cap, tanh)
        }
        Term::Alibi(_) => {
            let slopes = Slopes::Paper.values(shape.heads).expect("not the caller's");
            let term = device.mul(slopes[at.head].into(), distance as f64);
            device.add(s, -term)
        }
        Term::Bias(bias) => match tensor("bias")[bias.strides().at(at.batch, at.head, at.i, j as usize)] {
            f32::NEG_INFINITY => return None,
            b => device.add(s, b.into()),
        },
        Term::Buckets(buckets) => {
            let at = buckets.bucket(distance) * shape.heads + at.head;
            device.add(s, tensor("bucket_table")[at].into())
        }
        Term::Relative(_) | Term::Sinks(_) | Term::Dropout(_) => s, // in the product; in the row; in the weights
        Term::Segments(_) => {
            let own = segments_of_row(device, attention, inputs, at, j);
            device.add(s, own)
        }
        other => panic!("{} is not simulated", other.name()),
    })
}

/// tanh x, as `shaders/lib/hyperbolic.wgsl` has it.
pub(crate) fn hyperbolic(device: &mut Device, x: f64) -> f64 {
    let y = x.abs();
    if y < 0.25 {
        let square = device.mul(x, x);
        let series = [0.021869488f32, -0.053968254, 0.13333333, -0.33333334, 1.0];
        let p = series[1..].iter().fold(f64::from(series[0]), |p, &c| device.fma(square, p, f64::from(c)));
        return device.mul(x, p);
    }
    // The error of z is to move the score as the rounding of the score does: towards `push`, whatever the sign of x.
    let side = device.push;
    device.push = -side * x.signum();
    let exponent = (2.0 * y).min(80.0);
    let z = device.within((-exponent).exp(), 3.0 + 2.0 * exponent);
    let above = device.add(1.0, z);
    device.push = side * x.signum();
    let below = device.add(1.0, -z);
    let tanh = device.div(below, above) * x.signum();
    device.push = side;
    tanh
}
