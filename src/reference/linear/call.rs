//! The tensors of a call of linear attention, checked once, and the features of its rows.

use crate::Position;
use crate::linear::{Features, Known, LinearInputs, LinearOptions, Map, Row};
use crate::reference::call::check_type;
use crate::reference::rounding::{TINY, gamma, min_normal};
use crate::{Attention, AttentionShape, Element, ElementType, FeatureMap, Result};
use rayon::prelude::*;
use std::borrow::Cow;

/// A call whose sizes have been checked: nothing below can index past an end.
pub(super) struct LinearCall<'a> {
    pub(super) attention: &'a Attention,
    pub(super) shape: &'a AttentionShape,
    pub(super) options: &'a LinearOptions,
    pub(super) map: Box<dyn Map + Sync>,
    q: Cow<'a, [f32]>,
    k: Cow<'a, [f32]>,
    v: Cow<'a, [f32]>,
    pub(super) projection: Option<Cow<'a, [f32]>>,
    key_mask: Option<&'a [bool]>,
    /// ln of the decay per key head, as the kernel has it.
    pub(super) log_decays: Vec<f32>,
    /// Which chunk of keys each is summed up in, in order: a step begins a chunk.
    chunk_of: Vec<usize>,
}

/// The keys of a batch item and key head.
pub(super) struct Line {
    /// `None` where masked.
    pub(super) keys: Vec<Option<Features>>,
    /// Of each feature, the sum over keys.
    pub(super) sums: Vec<Known>,
    /// Up to and with each chunk, how often the largest weight may have risen.
    pub(super) rises: Vec<usize>,
    /// The largest |log weight|.
    pub(super) largest_log: f64,
}

impl<'a> LinearCall<'a> {
    pub(super) fn new<Q: Element, KV: Element>(
        attention: &'a Attention,
        options: &'a LinearOptions,
        inputs: &LinearInputs<'a, Q, KV>,
    ) -> Result<Self> {
        options.check(attention)?;
        check_type::<Q>("q", attention.storage.q)?;
        check_type::<KV>("k and v", attention.storage.kv)?;
        inputs.check(attention, options)?;
        let seeded = options.seeded_projection(&attention.shape).map(Cow::Owned);
        Ok(Self {
            attention,
            shape: &attention.shape,
            options,
            map: options.exact_map(),
            q: Q::widened(inputs.q),
            k: KV::widened(inputs.k),
            v: KV::widened(inputs.v),
            projection: seeded.or(inputs.projection.map(Cow::Borrowed)),
            key_mask: inputs.key_mask,
            log_decays: options.log_decays(attention.shape.kv_heads),
            chunk_of: chunks_of(&[attention.shape.kv_len]),
        })
    }

    /// The same where the keys come in steps, each from the state of those before it.
    pub(super) fn in_steps(mut self, steps: &[usize]) -> Self {
        self.chunk_of = chunks_of(steps);
        self
    }

    /// The chunk of a key.
    pub(super) fn chunk_of(&self, j: usize) -> usize {
        self.chunk_of.get(j).copied().unwrap_or(0)
    }

    pub(super) fn chunks(&self) -> usize {
        self.chunk_of.last().map_or(0, |last| last + 1)
    }

    pub(super) fn query(&self, at: Position) -> Features {
        self.map.query(&self.row(self.q(at), self.attention.storage.q))
    }

    pub(super) fn q(&self, at: Position) -> &[f32] {
        let start = self.attention.q_strides().at(at.batch, at.head, at.i);
        &self.q[start..start + self.shape.head_dim]
    }

    /// Of a batch item and key head.
    pub(super) fn k(&self, batch: usize, head: usize, j: usize) -> &[f32] {
        let start = self.attention.k_strides().at(batch, head, j);
        &self.k[start..start + self.shape.head_dim]
    }

    /// The keys of every batch item and key head.
    pub(super) fn lines(&self) -> Vec<Line> {
        let lines = self.shape.batch * self.shape.kv_heads;
        (0..lines)
            .into_par_iter()
            .map(|n| self.line_of(n / self.shape.kv_heads, n % self.shape.kv_heads))
            .collect()
    }

    pub(super) fn line<'l>(&self, lines: &'l [Line], at: Position) -> &'l Line {
        &lines[at.batch * self.shape.kv_heads + self.shape.kv_head(at.head)]
    }

    pub(super) fn v(&self, at: Position, j: usize) -> &[f32] {
        let start = self.attention.v_strides().at(at.batch, self.shape.kv_head(at.head), j);
        &self.v[start..start + self.shape.value_dim]
    }

    fn line_of(&self, batch: usize, head: usize) -> Line {
        let seen = |j: &usize| self.key_mask.is_none_or(|mask| mask[batch * self.shape.kv_len + j]);
        let row = |j: usize| self.row(self.k(batch, head, j), self.attention.storage.kv);
        let rows: Vec<Row> = (0..self.shape.kv_len).filter(seen).map(row).collect();
        let features = self.map.keys(&rows);
        let logs = features.iter().map(|key| key.log_weight.value.abs() + key.log_weight.error);
        let largest_log = logs.fold(0.0, f64::max);
        let sums = sums(&features);
        let mut features = features.into_iter();
        let keys = (0..self.shape.kv_len).map(|j| if seen(&j) { features.next() } else { None });
        let keys: Vec<_> = keys.collect();
        Line { rises: rises(&keys, &self.chunk_of), keys, sums, largest_log }
    }

    /// y and |x|^2 / (2 sqrt d).
    pub(super) fn row(&self, x: &[f32], element: ElementType) -> Row {
        let x: Vec<f64> = x.iter().map(|&x| x.into()).collect();
        let root = (x.len() as f64).sqrt();
        // A subnormal may be read as 0.
        let lost = |x: f64| if x.abs() < min_normal(element) { x.abs() } else { 0.0 };
        let relative = gamma(x.len() + 4);
        let half = x.iter().map(|x| x * x).sum::<f64>() / (2.0 * root);
        let half_lost = x.iter().map(|&x| lost(x) * x.abs()).sum::<f64>() / root;
        let half = Known { value: half, error: relative * half + half_lost + x.len() as f64 * 2.0 * TINY };
        let y = match &self.projection {
            None => x.iter().map(|&x| Known { value: x, error: lost(x) }).collect(),
            Some(projection) => projection
                .chunks(x.len())
                .map(|p| product(p, &x, root.sqrt().recip(), relative, &lost))
                .collect(),
        };
        Row { y, half }
    }
}

/// scale p . x with d + 4 roundings.
fn product(p: &[f32], x: &[f64], scale: f64, relative: f64, lost: &dyn Fn(f64) -> f64) -> Known {
    let mut y = Known::default();
    let mut flushed = 2.0 * x.len() as f64;
    for (&p, &x) in p.iter().zip(x) {
        let p = f64::from(p);
        y.value += scale * p * x;
        y.error += scale * (relative * (p * x).abs() + lost(x) * p.abs());
        flushed += x.abs();
    }
    y.error += TINY * (1.0 + flushed);
    y
}

fn sums(features: &[Features]) -> Vec<Known> {
    let width = features.first().map_or(0, |key| key.phi.len());
    let sum = |f: usize| {
        let add = |sum: Known, key: &Features| {
            let phi = key.phi[f];
            Known { value: sum.value + phi.value, error: sum.error + phi.error }
        };
        features.iter().fold(Known::default(), add)
    };
    (0..width).map(sum).collect()
}

/// How often the largest weight rises from chunk to chunk, where rounding may make a rise of a tie.
fn rises(keys: &[Option<Features>], chunk_of: &[usize]) -> Vec<usize> {
    let mut top = f64::NEG_INFINITY;
    let (mut count, mut start) = (0, 0);
    let of_chunk = |chunk: &[usize]| {
        let (mut high, mut low) = (f64::NEG_INFINITY, f64::NEG_INFINITY);
        let own = keys[start..start + chunk.len()].iter().flatten();
        start += chunk.len();
        for log in own.map(|key| key.log_weight) {
            high = f64::max(high, log.value + log.error);
            low = f64::max(low, log.value - log.error);
        }
        if high > top {
            count += 1;
        }
        top = top.max(low);
        count
    };
    chunk_of.chunk_by(|a, b| a == b).map(of_chunk).collect()
}

/// The chunk of each key, where each step begins one.
fn chunks_of(steps: &[usize]) -> Vec<usize> {
    let mut first = 0;
    let mut list = vec![];
    for &len in steps {
        list.extend((0..len).map(|j| first + j / LinearOptions::CHUNK));
        first += len.div_ceil(LinearOptions::CHUNK);
    }
    list
}

impl LinearCall<'_> {
    /// Features of keys are divided by their sums over keys.
    pub(super) fn by_column(&self) -> bool {
        matches!(self.options.map, FeatureMap::Softmax) && !self.options.causal
    }
}
