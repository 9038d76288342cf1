//! The backward kernels as `shaders/backward.wgsl` and `shaders/backward/` have them, on the simulated device; and faults planted in them.

use super::rounding::Device;
use super::scores::{LOWEST, hyperbolic, product, related, relative_rows, term_of_score};
use super::simulator::{State, Walk, attention_state, dropout_factor, eleven_bits, halved};
use std::f64::consts::LOG2_E;
use wgpu_attention::reference::Position;
use wgpu_attention::{Attention, AttentionShape, Element, ElementType, Inputs, Strides, Term};

/// What may be wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    DOmitted,
    DOfNextRow,
    DOfOutInHalf,
    StateOfNextRow,
    NotOverL,
    ScaleOmitted,
    LogTwoEInDk,
    SlopeOmitted,
    BiasNotRead,
    OneHeadOfTheGroup,
    KeyHeadOfAnother,
    LastKeyDropped,
    LastQueryTwice,
    WeightsInBf16,
}

impl Fault {
    pub(crate) const ALL: [Self; 14] = [
        Self::DOmitted,
        Self::DOfNextRow,
        Self::DOfOutInHalf,
        Self::StateOfNextRow,
        Self::NotOverL,
        Self::ScaleOmitted,
        Self::LogTwoEInDk,
        Self::SlopeOmitted,
        Self::BiasNotRead,
        Self::OneHeadOfTheGroup,
        Self::KeyHeadOfAnother,
        Self::LastKeyDropped,
        Self::LastQueryTwice,
        Self::WeightsInBf16,
    ];
}

/// A call, contiguous, with what the forward pass leaves.
pub(crate) struct Backward<'a, Q, KV, O> {
    pub(crate) attention: &'a Attention,
    pub(crate) inputs: Inputs<'a, Q, KV>,
    pub(crate) dout: &'a [O],
    /// Of each row, by parts.
    pub(crate) keys: &'a [Vec<Vec<u32>>],
    pub(crate) storage: ElementType,
    /// P and ds' in f16, scaled by row and tile: `shaders/backward/cooperative.wgsl`.
    pub(crate) halves: bool,
    pub(crate) fault: Option<Fault>,
}

/// m, 1 / l, D.
#[derive(Clone, Copy)]
struct Record {
    m: f64,
    over_l: f64,
    d: f64,
}

/// Which kernel: they multiply with 1 / l in other places.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pass {
    Queries,
    Keys,
}

/// Pairs that are summed before they are added to the rest.
const TILE: usize = 16;

impl<Q: Element, KV: Element, O: Element> Backward<'_, Q, KV, O> {
    /// dq, dk, dv and, with sinks, theirs. `centers` is the exact out, for `Mode::Sided`.
    pub(crate) fn run(&self, device: &mut Device, centers: &[f64], tile: usize) -> [Vec<f64>; 4] {
        let shape = &self.attention.shape;
        let states: Vec<State> = (0..self.keys.len())
            .map(|row| {
                let walk = Walk {
                    parts: &self.keys[row],
                    tile,
                    center: &centers[row * shape.value_dim..][..shape.value_dim],
                    halves: false,
                    base_e: self.base_e(),
                    sink: self.inputs.get("sinks").map(|sinks| sinks[self.at(row).head].into()),
                    dropout: self.attention.score.dropout_term().map(|dropout| (*dropout, self.at(row))),
                };
                attention_state(device, self.attention, &self.inputs, self.at(row), &walk)
            })
            .collect();
        let mut records: Vec<Record> =
            (0..states.len()).map(|row| self.record(device, row, &states[row])).collect();
        match self.fault {
            Some(Fault::DOfNextRow) => {
                let d: Vec<f64> = records.iter().map(|record| record.d).collect();
                records.iter_mut().zip(d.iter().cycle().skip(1)).for_each(|(record, d)| record.d = *d);
            }
            Some(Fault::StateOfNextRow) => records.rotate_left(1),
            _ => {}
        }
        let dq = (0..records.len()).flat_map(|row| self.query(device, row, &records[row])).collect();
        let (mut dk, mut dv) = (vec![], vec![]);
        for key in 0..shape.batch * shape.kv_heads * shape.kv_len {
            let (k, v) = self.key(device, key, &records);
            dk.extend(k);
            dv.extend(v);
        }
        [dq, dk, dv, self.sinks(device, &records)]
    }

    /// -p D, added up over the rows of each head.
    fn sinks(&self, device: &mut Device, records: &[Record]) -> Vec<f64> {
        let of_head = |(head, &sink): (usize, &f32)| {
            let rows = records.iter().enumerate().filter(|(row, _)| self.at(*row).head == head);
            rows.fold(0.0, |sum, (_, record)| {
                device.push = -sign(record.d);
                let exponent = halved(device, sink.into(), record.m).min(0.0);
                let p = device.exp2(exponent);
                device.push = -1.0;
                device.fma(-p, record.d, sum)
            })
        };
        self.inputs.get("sinks").unwrap_or_default().iter().enumerate().map(of_head).collect()
    }

    fn base_e(&self) -> bool {
        !self.attention.score.is_plain()
    }

    fn is(&self, fault: Fault) -> bool {
        self.fault == Some(fault)
    }

    fn at(&self, row: usize) -> Position {
        let AttentionShape { heads, q_len, .. } = self.attention.shape;
        Position { batch: row / q_len / heads, head: row / q_len % heads, i: row % q_len }
    }

    fn q(&self, at: Position) -> &[Q] {
        slice(
            self.inputs.q,
            self.attention.q_strides(),
            [at.batch, at.head, at.i],
            self.attention.shape.head_dim,
        )
    }

    fn k(&self, at: Position, j: u32) -> &[KV] {
        let place = [at.batch, self.kv_head(at.head), j as usize];
        slice(self.inputs.k, self.attention.k_strides(), place, self.attention.shape.head_dim)
    }

    fn v(&self, at: Position, j: u32) -> &[KV] {
        let place = [at.batch, self.kv_head(at.head), j as usize];
        slice(self.inputs.v, self.attention.v_strides(), place, self.attention.shape.value_dim)
    }

    fn dout(&self, at: Position) -> &[O] {
        let place = [at.batch, at.head, at.i];
        slice(self.dout, self.attention.out_strides(), place, self.attention.shape.value_dim)
    }

    fn kv_head(&self, head: usize) -> usize {
        let shape = &self.attention.shape;
        if self.is(Fault::KeyHeadOfAnother) { head % shape.kv_heads } else { shape.kv_head(head) }
    }

    fn record(&self, device: &mut Device, row: usize, state: &State) -> Record {
        if state.l == 0.0 {
            return Record { m: state.m, over_l: 0.0, d: 0.0 };
        }
        device.push = -1.0;
        let mut sum = 0.0;
        for (&dout, &o) in self.dout(self.at(row)).iter().zip(&state.o) {
            let dout = device.read(dout);
            let o = if self.is(Fault::DOfOutInHalf) { half::f16::from_f64(o).into() } else { o };
            let o = device.flushed(o, f64::from(f32::MIN_POSITIVE));
            sum = device.fma(dout, o, sum);
        }
        let over_l = device.div(1.0, state.l);
        let d = device.mul(sum, over_l);
        match self.fault {
            Some(Fault::DOmitted) => Record { m: state.m, over_l, d: 0.0 },
            _ => Record { m: state.m, over_l, d },
        }
    }

    /// ds times the slope. `side`: the sign of what it is multiplied with, for `Mode::Sided`.
    fn pulled(
        &self,
        device: &mut Device,
        record: &Record,
        (at, j): (Position, u32),
        pass: Pass,
        side: f64,
    ) -> f64 {
        let by_keys = pass == Pass::Keys;
        device.push = side;
        let mut d_p = 0.0;
        for (&dout, &v) in self.dout(at).iter().zip(self.v(at, j)) {
            let (dout, v) = (device.read(dout), device.read(v));
            let dout = if by_keys { dout } else { device.mul(record.over_l, dout) };
            d_p = device.fma(dout, v, d_p);
        }
        if by_keys {
            d_p = device.mul(record.over_l, d_p);
        }
        let d_p = self.met(device, (at, j), d_p);
        let t = device.add(d_p, -record.d);
        let Some((e, slope)) = self.power(device, record, (at, j), side * sign(t)) else { return 0.0 };
        device.push = side;
        let ds = device.mul(e, t);
        if slope == 1.0 || self.is(Fault::SlopeOmitted) { ds } else { device.mul(ds, slope) }
    }

    /// e and the slope of the score, pushed to a side; none where the pair is removed.
    fn power(
        &self,
        device: &mut Device,
        record: &Record,
        (at, j): (Position, u32),
        side: f64,
    ) -> Option<(f64, f64)> {
        device.push = side;
        let (s, slope) = self.score(device, at, j)?;
        let exponent = match self.base_e() {
            true => halved(device, s, record.m).min(0.0),
            false => device.add(s, -record.m).min(0.0),
        };
        let e = device.exp2(exponent);
        Some((if self.is(Fault::WeightsInBf16) { half::bf16::from_f64(e).into() } else { e }, slope))
    }

    /// What relative rows add to k_j in dq, and to q_i in dk; empty without.
    fn related(&self, at: Position, j: u32) -> [&[f32]; 2] {
        match self.attention.score.terms().first() {
            Some(Term::Relative(relative)) => {
                let [r, u, _] = relative_rows(self.attention, &self.inputs, at, relative, j);
                [r, u]
            }
            _ => [&[], &[]],
        }
    }

    /// What segments add to k_j in dq; empty without.
    fn segment(&self, at: Position, j: u32) -> &[f32] {
        let AttentionShape { batch, heads, q_len, kv_len, head_dim: d, .. } = self.attention.shape;
        let Some(all) = self.inputs.get("segments") else { return &[] };
        let ids = &all[3 * heads * d..];
        let same = ids[at.batch * q_len + at.i] == ids[batch * q_len + at.batch * kv_len + j as usize];
        let row = if same { 1 } else { 2 };
        &all[(row * heads + at.head) * d..][..d]
    }

    /// The score and its slope; none where the pair is removed.
    fn score(&self, device: &mut Device, at: Position, j: u32) -> Option<(f64, f64)> {
        let scale = f64::from(self.attention.scale_value());
        let q_scale = f64::from((scale * if self.base_e() { 1.0 } else { LOG2_E }) as f32);
        let q_scale = device.flushed(q_scale, f64::from(f32::MIN_POSITIVE));
        let q: Vec<f64> = self.q(at).iter().map(|&q| device.read(q)).collect();
        let relative = self.attention.score.terms().first();
        let (mut s, mut slope) = match relative {
            Some(Term::Relative(relative)) => {
                (related(device, self.attention, &self.inputs, at, relative, j, (&q, q_scale)), 1.0)
            }
            _ => (product(device, &q, q_scale, self.k(at, j)), 1.0),
        };
        for term in self.attention.score.terms() {
            let own = match term {
                Term::Temperature(_) => {
                    let temperature = self.inputs.get("temperature").expect("a tensor of the score")[at.head];
                    device.div(1.0, temperature.into())
                }
                Term::Softcap(softcap) => {
                    let x = device.div(s, softcap.cap().into());
                    let tanh = hyperbolic(device, x);
                    device.fma(-tanh, tanh, 1.0)
                }
                _ => 1.0,
            };
            slope = if slope == 1.0 { own } else { device.mul(slope, own) };
            let next = term_of_score(device, self.attention, &self.inputs, (at, j), term, s)?;
            s = if self.is(Fault::BiasNotRead) && term.name() == "bias" { s } else { next };
        }
        Some((if self.base_e() { s.max(LOWEST) } else { s }, slope))
    }

    fn query(&self, device: &mut Device, row: usize, record: &Record) -> Vec<f64> {
        let (at, mut all) = (self.at(row), vec![0.0; self.attention.shape.head_dim]);
        let scale = self.scale();
        for (n, keys) in self.keys[row].iter().enumerate() {
            let keys =
                if self.is(Fault::LastKeyDropped) { &keys[..keys.len().saturating_sub(1)] } else { keys };
            let mut own = vec![0.0; all.len()];
            for keys in keys.chunks(TILE) {
                let mut sums = vec![0.0; all.len()];
                let pulled = keys.iter().map(|&j| {
                    let side = sign(scale * device.read(self.k(at, j)[0]));
                    self.pulled(device, record, (at, j), Pass::Queries, side)
                });
                let pulled = pulled.collect();
                for (&j, ds) in keys.iter().zip(self.as_operands(device, pulled)) {
                    let k: Vec<f64> = self.k(at, j).iter().map(|&k| device.read(k)).collect();
                    device.push = sign(scale);
                    sums.iter_mut().zip(&k).for_each(|(sum, k)| *sum = device.fma(ds, *k, *sum));
                    let [r, _] = self.related(at, j);
                    for (sum, r) in sums.iter_mut().zip(r) {
                        *sum = device.fma(ds, device.read(*r), *sum);
                    }
                    // The kernel adds up the weights of each row of e first; here each pair is added up, another order of the same.
                    for (sum, e) in sums.iter_mut().zip(self.segment(at, j)) {
                        *sum = device.fma(ds, device.read(*e), *sum);
                    }
                }
                own.iter_mut().zip(sums).for_each(|(own, sum)| *own = device.add(*own, sum));
            }
            self.write(device, &mut all, &own, scale, n > 0);
        }
        self.stored(device, all)
    }

    /// dk and dv of the n-th row of `[B, Hkv, Lk]`.
    fn key(&self, device: &mut Device, n: usize, records: &[Record]) -> (Vec<f64>, Vec<f64>) {
        let AttentionShape { heads, kv_heads, q_len, kv_len, head_dim, value_dim, .. } = self.attention.shape;
        let (batch, kv_head, j) = (n / kv_len / kv_heads, n / kv_len % kv_heads, (n % kv_len) as u32);
        let group = heads / kv_heads;
        let first = (batch * heads + kv_head * group) * q_len;
        let used = if self.is(Fault::OneHeadOfTheGroup) { q_len } else { group * q_len };
        let parts = self.keys[0].len();
        let (mut all_dk, mut all_dv) = (vec![0.0; head_dim], vec![0.0; value_dim]);
        let scale = self.scale() * if self.is(Fault::LogTwoEInDk) { LOG2_E } else { 1.0 };
        for part in 0..parts {
            let mut rows: Vec<usize> =
                (first..first + used).filter(|&row| self.keys[row][part].contains(&j)).collect();
            rows.extend(rows.last().copied().filter(|_| self.is(Fault::LastQueryTwice)));
            let (mut dk, mut dv) = (vec![0.0; head_dim], vec![0.0; value_dim]);
            for rows in rows.chunks(TILE) {
                let (mut k_sums, mut v_sums) = (vec![0.0; head_dim], vec![0.0; value_dim]);
                let columns = rows.iter().map(|&row| self.column(device, row, j));
                let columns: Vec<_> = columns.collect();
                let pairs = || rows.iter().zip(&columns);
                let pulled = pairs().map(|(&row, (q, _))| {
                    self.pulled(device, &records[row], (self.at(row), j), Pass::Keys, sign(scale * q[0]))
                });
                let pulled = pulled.collect();
                let weights = pairs().map(|(&row, (_, dout))| {
                    self.weight(device, &records[row], (self.at(row), j), sign(dout[0]))
                });
                let weights = weights.collect();
                let [pulled, weights] = [pulled, weights].map(|all| self.as_operands(device, all));
                for ((q, dout), (ds, p)) in columns.iter().zip(pulled.into_iter().zip(weights)) {
                    device.push = sign(scale);
                    k_sums.iter_mut().zip(q).for_each(|(sum, q)| *sum = device.fma(ds, *q, *sum));
                    device.push = 1.0;
                    v_sums.iter_mut().zip(dout).for_each(|(sum, x)| *sum = device.fma(p, *x, *sum));
                }
                device.push = sign(scale);
                dk.iter_mut().zip(k_sums).for_each(|(own, sum)| *own = device.add(*own, sum));
                device.push = 1.0;
                dv.iter_mut().zip(v_sums).for_each(|(own, sum)| *own = device.add(*own, sum));
            }
            self.write(device, &mut all_dk, &dk, scale, part > 0);
            for (all, own) in all_dv.iter_mut().zip(dv) {
                *all = if part > 0 { device.add(own, *all) } else { own };
            }
        }
        (self.stored(device, all_dk), self.stored(device, all_dv))
    }

    /// What the weights of a row and key meet: q with u, and dout.
    fn column(&self, device: &mut Device, row: usize, j: u32) -> (Vec<f64>, Vec<f64>) {
        let at = self.at(row);
        let mut q: Vec<f64> = self.q(at).iter().map(|&q| device.read(q)).collect();
        let [_, u] = self.related(at, j);
        q.iter_mut().zip(u).for_each(|(q, u)| *q = device.add(*q, device.read(*u)));
        (q, self.dout(at).iter().map(|&x| device.read(x)).collect())
    }

    /// What becomes of the weights of a row and a tile before they meet its columns.
    fn as_operands(&self, device: &mut Device, weights: Vec<f64>) -> Vec<f64> {
        let largest = weights.iter().fold(0.0f64, |max, x| max.max(x.abs()));
        if !self.halves || largest == 0.0 {
            return weights;
        }
        // To 2^14 or above, below 2^15.
        let up = 2f64.powi((14 - largest.log2().floor() as i32).min(126));
        let rounded = |x: f64| device.store(eleven_bits(up * x), ElementType::F16) / up;
        weights.into_iter().map(rounded).collect()
    }

    /// p, pushed to a side. The kernel has it from the same e as ds; for each gradient its own is the worst.
    fn weight(&self, device: &mut Device, record: &Record, at: (Position, u32), side: f64) -> f64 {
        let Some((e, _)) = self.power(device, record, at, side) else { return 0.0 };
        let e = self.met(device, at, e);
        if self.is(Fault::NotOverL) { e } else { device.mul(record.over_l, e) }
    }

    /// What dropout leaves of x.
    fn met(&self, device: &mut Device, (at, j): (Position, u32), x: f64) -> f64 {
        match self.attention.score.dropout_term() {
            None => x,
            Some(dropout) if dropout.keeps(at.batch, at.head, at.i, j as usize) => {
                device.mul(dropout_factor(dropout), x)
            }
            Some(_) => 0.0,
        }
    }

    fn scale(&self) -> f64 {
        if self.is(Fault::ScaleOmitted) { 1.0 } else { self.attention.scale_value().into() }
    }

    fn write(&self, device: &mut Device, all: &mut [f64], own: &[f64], scale: f64, accumulate: bool) {
        device.push = 1.0;
        for (all, own) in all.iter_mut().zip(own) {
            let x = device.mul(scale, *own);
            *all = if accumulate { device.add(x, *all) } else { x };
        }
    }

    fn stored(&self, device: &mut Device, all: Vec<f64>) -> Vec<f64> {
        all.into_iter().map(|x| device.store(x, self.storage)).collect()
    }
}

fn sign(x: f64) -> f64 {
    if x < 0.0 { -1.0 } else { 1.0 }
}

fn slice<E>(all: &[E], strides: Strides, [batch, head, row]: [usize; 3], len: usize) -> &[E] {
    let start = strides.at(batch, head, row);
    &all[start..start + len]
}
