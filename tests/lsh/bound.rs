//! The bound of LSH attention against a simulated kernel, as wrong as WGSL allows: never exceeded, and not vacuous.

use crate::formula::meetings;
use crate::rounding::{Device, Mode};
use crate::scores::{LOWEST, hyperbolic, product, term_of_score};
use crate::simulator::{Walk, row_of};
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::f64::consts::LOG2_E;
use wgpu_attention::reference::{self, Kind, LshGot, Position, Rows};
use wgpu_attention::{
    Attention, AttentionShape, BiasStrides, Buckets, Counter, Element, ElementType, Inputs, LshInputs,
    LshOptions, Score, Sinks, Storage, Temperature, Term,
};

/// A random configuration; `seed` reproduces it.
#[derive(Debug, Clone)]
pub(super) struct Config {
    pub(super) seed: u64,
    pub(super) attention: Attention,
    pub(super) options: LshOptions,
    pub(super) kind: Kind,
    tile: usize,
}

fn pick<T: Copy>(draw: &Counter, n: u64, list: &[T]) -> T {
    list[(draw.bits(n) % list.len() as u64) as usize]
}

/// A score with a scale, and three times in four with terms.
fn random_score(draw: &Counter, len: usize) -> Score {
    let some = |n: u64| draw.bits(n).is_multiple_of(5);
    let mut score = Score::new().scale(pick(draw, 4, &[0.125, 1.0, 1.0, 6.0]));
    score = if some(20) { score.softcap(pick(draw, 21, &[0.5, 4.0])) } else { score };
    score = if some(22) { score.alibi() } else { score };
    score = if some(23) { score.with(Buckets::new(4, 9)) } else { score };
    score = if some(24) { score.with(Temperature) } else { score };
    score = if some(25) { score.with(Sinks) } else { score };
    if some(26) { score.bias(BiasStrides::toeplitz(len, len)) } else { score }
}

impl Config {
    pub(super) fn random(seed: u64) -> Self {
        let draw = Counter::new(seed, 60);
        let len = pick(&draw, 0, &[1, 2, 9, 24, 40]);
        let types = [ElementType::F32, ElementType::F32, ElementType::F16, ElementType::Bf16];
        let attention = AttentionShape::new(1, 1, len, pick(&draw, 1, &[1, 3, 16, 64]))
            .value_dim(pick(&draw, 2, &[1, 3]))
            .storage(Storage::all(pick(&draw, 3, &types)))
            .score(random_score(&draw, len));
        let options =
            LshOptions::new(pick(&draw, 5, &[1, 2, 4]), pick(&draw, 6, &[2, 4, 8]), pick(&draw, 7, &[4, 16]))
                .causal(draw.bits(8).is_multiple_of(2))
                .chain_rounds(draw.bits(9).is_multiple_of(2))
                .within_bucket(draw.bits(10).is_multiple_of(4))
                .count_once(draw.bits(11).is_multiple_of(2))
                .self_penalty(pick(&draw, 12, &[-1e5, -1e5, -3.0]))
                .norm_eps(pick(&draw, 13, &[0.0, 1e-5, 0.3]));
        let kind = pick(&draw, 14, &Kind::ALL);
        Self { seed, attention, options, kind, tile: pick(&draw, 15, &[1, 4, 16]) }
    }

    /// Worst error / bound over all modes, and the elements of which something is promised.
    fn worst<E: Element>(&self) -> (f64, usize) {
        let Self { attention, options, .. } = self;
        let shape = &attention.shape;
        let tensors = reference::random::<E, E>(attention, self.kind, self.seed).unwrap();
        let all = tensors.inputs();
        let (qk, v) = (all.q, all.v);
        let inputs = all
            .tensors
            .iter()
            .fold(LshInputs::new(qk, v), |inputs, (name, values)| inputs.tensor(name, values));
        let buckets = reference::lsh_buckets(attention, options, &inputs).unwrap().buckets;
        let exact = reference::lsh_with_buckets(attention, options, &inputs, &buckets).unwrap();
        let (mut worst, mut promised) = (0f64, 0);
        for mode in Mode::ALL {
            for flush in [false, true] {
                let (mut out, mut lse): (Vec<E>, Vec<f32>) = (vec![], vec![]);
                for i in 0..shape.q_len {
                    let mut device = Device::new(mode, flush, self.seed);
                    let center = &exact.out[i * shape.value_dim..][..shape.value_dim];
                    let row = self.row(&mut device, &all, &buckets, i, center);
                    out.extend(row.0.into_iter().map(E::from_f64));
                    lse.push(row.1 as f32);
                }
                let got = LshGot::new(&out, &buckets).lse(&lse[..]);
                let report =
                    reference::verify_lsh(attention, options, &inputs, got, Rows::All, None).unwrap();
                assert!(report.pass, "{mode:?}, flush {flush}: {report}\n{self:?}");
                worst = worst.max(report.attention.ratio());
                promised += out.len() + lse.len() - report.attention.unspecified;
            }
        }
        (worst, promised)
    }

    /// One row: `shaders/score/lsh.wgsl`, the norms of `shaders/lsh_hash.wgsl`, and the terms. Of the inputs, q are the keys, too.
    fn row<E: Element>(
        &self,
        device: &mut Device,
        inputs: &Inputs<'_, E>,
        buckets: &[u32],
        i: usize,
        center: &[f64],
    ) -> (Vec<f64>, f64) {
        let parts = meetings(&self.options, self.attention.shape.q_len, buckets, i);
        let times = times(&parts);
        let score = |device: &mut Device, j: u32| self.score(device, inputs, (i, j), times[&j]).0;
        let dv = self.attention.shape.value_dim;
        let v_row = |j: u32| &inputs.v[j as usize * dv..][..dv];
        row_of(device, self.walk(inputs, &parts, center), self.attention.storage.out, v_row, score)
    }

    /// How a row is walked.
    pub(super) fn walk<'a, E>(
        &self,
        inputs: &Inputs<'_, E>,
        parts: &'a [Vec<u32>],
        center: &'a [f64],
    ) -> Walk<'a> {
        let has_sink = self.attention.score.term("sinks").is_some();
        let sink = has_sink.then(|| f64::from(inputs.get("sinks").expect("it is there")[0]));
        let base_e = !self.attention.score.is_plain();
        Walk { parts, tile: self.tile, center, halves: false, base_e, sink, dropout: None }
    }

    /// 1 / |x|. The hash scales by a power of two where squares would leave f32; which changes nothing where they would not.
    pub(super) fn norm<E: Element>(&self, device: &mut Device, x: &[E]) -> f64 {
        let eps = f64::from(self.options.norm_eps);
        let x: Vec<f64> = x.iter().map(|&x| device.read(x)).collect();
        let largest = x.iter().fold(eps.sqrt(), |largest, x| largest.max(x.abs()));
        if largest == 0.0 {
            return 0.0;
        }
        let scale = largest.log2().floor().exp2().recip();
        let squares = x.iter().fold(0.0, |squares, x| device.fma(x * scale, x * scale, squares));
        let squares = device.add(squares, eps * scale * scale);
        device.within(1.0 / squares.sqrt(), 2.0) * scale
    }

    /// The score of a pair that meets so often, and its slope by scale q . x.
    pub(super) fn score<E: Element>(
        &self,
        device: &mut Device,
        inputs: &Inputs<'_, E>,
        (i, j): (usize, u32),
        times: u32,
    ) -> (f64, f64) {
        let base_e = !self.attention.score.is_plain();
        let (mut s, slope) = if j as usize == i {
            let own_base = if base_e { 1.0 } else { f64::from(std::f32::consts::LOG2_E) };
            (device.mul(f64::from(self.options.self_penalty) * own_base, 1.0), 0.0)
        } else {
            self.with_terms(device, inputs, (i, j), if base_e { 1.0 } else { LOG2_E })
        };
        if self.options.count_once {
            let times = f64::from(times);
            let meetings = if base_e { device.ln(times) } else { device.log2(times) };
            s = device.add(s, -meetings);
        }
        (if base_e { s.max(LOWEST) } else { s }, slope)
    }

    /// Of another key than the query's own, before it is counted once.
    fn with_terms<E: Element>(
        &self,
        device: &mut Device,
        inputs: &Inputs<'_, E>,
        (i, j): (usize, u32),
        base: f64,
    ) -> (f64, f64) {
        let (attention, d) = (&self.attention, self.attention.shape.head_dim);
        let x = |j: usize| &inputs.q[j * d..][..d];
        let q: Vec<f64> = x(i).iter().map(|&q| device.read(q)).collect();
        let q_scale = f64::from((f64::from(attention.scale_value()) * base) as f32);
        let norm = self.norm(device, x(j as usize));
        let s = product(device, &q, q_scale, x(j as usize));
        let (mut s, mut slope) = (device.mul(s, norm), norm);
        let at = Position { batch: 0, head: 0, i };
        for term in attention.score.terms() {
            let own = match term {
                Term::Temperature(_) => {
                    device.div(1.0, inputs.get("temperature").expect("it is there")[0].into())
                }
                Term::Softcap(softcap) => {
                    let t = device.div(s, softcap.cap().into());
                    let tanh = hyperbolic(device, t);
                    device.fma(-tanh, tanh, 1.0)
                }
                _ => 1.0,
            };
            slope = if own == 1.0 { slope } else { device.mul(slope, own) };
            s = term_of_score(device, attention, inputs, (at, j), term, s).expect("none removes pairs");
        }
        (s, slope)
    }
}

/// How often a query meets each key.
pub(super) fn times(parts: &[Vec<u32>]) -> BTreeMap<u32, u32> {
    let mut times = BTreeMap::new();
    parts.iter().flatten().for_each(|&j| *times.entry(j).or_default() += 1);
    times
}

#[test]
fn no_rounding_exceeds_the_bound() {
    let cases: u64 = std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(256);
    let worst = |seed| {
        let config = Config::random(seed);
        let found = match config.attention.storage.q {
            ElementType::F32 => config.worst::<f32>(),
            ElementType::F16 => config.worst::<half::f16>(),
            ElementType::Bf16 => config.worst::<half::bf16>(),
        };
        (config.attention.storage.q, found)
    };
    let found: Vec<_> = (0..cases).into_par_iter().map(worst).collect();
    // Storing 16 bits is most of their bound: a directed rounding takes nearly all of it.
    for (element, vacuous) in [(ElementType::F32, 0.05), (ElementType::F16, 0.5), (ElementType::Bf16, 0.5)] {
        let found = || found.iter().filter(|found| found.0 == element).map(|found| found.1);
        let worst = found().fold(0f64, |worst, found| worst.max(found.0));
        let (configs, promised) = (found().count(), found().map(|found| found.1).sum::<usize>());
        println!("{element}: {configs} configurations, {promised} elements, worst error/bound {worst:.3}");
        assert!(promised > 200 * configs && worst > vacuous, "{element}: {promised} elements, worst {worst}");
    }
}
