//! The bound of LSH attention against a simulated kernel, as wrong as WGSL allows: never exceeded, and not vacuous.

use crate::formula::meetings;
use crate::rounding::{Device, Mode};
use crate::scores::{LOWEST, product, term_of_score};
use crate::simulator::{Walk, row_of};
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::f64::consts::LOG2_E;
use wgpu_attention::reference::{self, Kind, LshGot, Position, Rows};
use wgpu_attention::{
    Attention, AttentionShape, BiasStrides, Buckets, Counter, Element, ElementType, Inputs, LshInputs,
    LshOptions, Score, Sinks, Storage, Temperature,
};

/// A random configuration; `seed` reproduces it.
#[derive(Debug, Clone)]
struct Config {
    seed: u64,
    attention: Attention,
    options: LshOptions,
    kind: Kind,
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
    fn random(seed: u64) -> Self {
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
        let (attention, qk, v) = (&self.attention, inputs.q, inputs.v);
        let (d, dv) = (attention.shape.head_dim, attention.shape.value_dim);
        let parts = meetings(&self.options, attention.shape.q_len, buckets, i);
        let mut times: BTreeMap<u32, u32> = BTreeMap::new();
        parts.iter().flatten().for_each(|&j| *times.entry(j).or_default() += 1);
        let x = |j: u32| &qk[j as usize * d..][..d];
        let q: Vec<f64> = x(i as u32).iter().map(|&q| device.read(q)).collect();
        let base_e = !attention.score.is_plain();
        let [q_base, own_base] =
            if base_e { [1.0; 2] } else { [LOG2_E, f64::from(std::f32::consts::LOG2_E)] };
        let q_scale = f64::from((f64::from(attention.scale_value()) * q_base) as f32);
        let penalty = f64::from(self.options.self_penalty) * own_base;
        let at = Position { batch: 0, head: 0, i };
        let eps = f64::from(self.options.norm_eps);
        let score = |device: &mut Device, j: u32| {
            let mut s = if j as usize == i {
                device.mul(penalty, 1.0)
            } else {
                let mut squares = 0.0;
                for &x in x(j) {
                    let x = device.read(x);
                    squares = device.fma(x, x, squares);
                }
                let squares = device.add(squares, eps);
                let norm = if squares > 0.0 { device.within(1.0 / squares.sqrt(), 2.0) } else { 0.0 };
                let s = product(device, &q, q_scale, x(j));
                let mut s = device.mul(s, norm);
                for term in attention.score.terms() {
                    s = term_of_score(device, attention, inputs, (at, j), term, s)
                        .expect("none removes pairs");
                }
                s
            };
            if self.options.count_once {
                let times = f64::from(times[&j]);
                let meetings = if base_e { device.ln(times) } else { device.log2(times) };
                s = device.add(s, -meetings);
            }
            if base_e { s.max(LOWEST) } else { s }
        };
        let sink =
            attention.score.term("sinks").map(|_| f64::from(inputs.get("sinks").expect("it is there")[0]));
        let v_row = |j: u32| &v[j as usize * dv..][..dv];
        row_of(
            device,
            Walk { parts: &parts, tile: self.tile, center, halves: false, base_e, sink, dropout: None },
            attention.storage.out,
            v_row,
            score,
        )
    }
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
