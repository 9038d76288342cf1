//! The bound of the gradients against simulated kernels, as wrong as WGSL allows: never exceeded, and not vacuous.

use crate::bound::{Config, times};
use crate::formula::meetings;
use crate::rounding::{Device, Mode};
use crate::simulator::{State, state_of};
use rayon::prelude::*;
use std::collections::BTreeMap;
use wgpu_attention::reference;
use wgpu_attention::{Counter, Element, ElementType, Inputs, LshInputs};

/// Pairs that are summed before they are added to the rest.
const TILE: usize = 16;

/// The kernels as `shaders/backward.wgsl`, `shaders/lsh/` and `shaders/lsh_join.wgsl` have them.
struct Simulated<'a, E> {
    config: &'a Config,
    inputs: Inputs<'a, E>,
    dout: &'a [E],
    met: Vec<Met>,
    storage: ElementType,
}

/// The keys of a row, round by round; and how often it meets each.
type Met = (Vec<Vec<u32>>, BTreeMap<u32, u32>);

/// m, 1 / l, D.
struct Record {
    m: f64,
    over_l: f64,
    d: f64,
}

impl<E: Element> Simulated<'_, E> {
    /// dqk and dv. `centers` is the exact out, for `Mode::Sided`.
    fn run(&self, device: &mut Device, centers: &[f64]) -> [Vec<f64>; 2] {
        let len = self.config.attention.shape.q_len;
        let records: Vec<Record> = (0..len).map(|i| self.record(device, i, centers)).collect();
        let (mut dqk, mut dv) = (vec![], vec![]);
        for i in 0..len {
            let as_query = self.query(device, i, &records[i]);
            let (as_key, value) = self.key(device, i as u32, &records);
            dqk.extend(self.joined(device, i, &as_query, &as_key));
            dv.extend(value);
        }
        let mut stored = |all: Vec<f64>| all.into_iter().map(|x| device.store(x, self.storage)).collect();
        [stored(dqk), stored(dv)]
    }

    fn x(&self, i: usize) -> &[E] {
        let d = self.config.attention.shape.head_dim;
        &self.inputs.q[i * d..][..d]
    }

    fn v(&self, j: u32) -> &[E] {
        let dv = self.config.attention.shape.value_dim;
        &self.inputs.v[j as usize * dv..][..dv]
    }

    fn dout(&self, i: usize) -> &[E] {
        let dv = self.config.attention.shape.value_dim;
        &self.dout[i * dv..][..dv]
    }

    fn record(&self, device: &mut Device, i: usize, centers: &[f64]) -> Record {
        let (config, (parts, times)) = (self.config, &self.met[i]);
        let center = &centers[i * config.attention.shape.value_dim..][..config.attention.shape.value_dim];
        let walk = config.walk(&self.inputs, parts, center);
        let score = |device: &mut Device, j: u32| config.score(device, &self.inputs, (i, j), times[&j]).0;
        let State { m, l, o } = state_of(device, &walk, config.attention.storage.out, |j| self.v(j), score);
        device.push = -1.0;
        let sum = self.dout(i).iter().zip(&o).fold(0.0, |sum, (&dout, &o)| {
            let dout = device.read(dout);
            device.fma(dout, o, sum)
        });
        let over_l = device.div(1.0, l);
        Record { m, over_l, d: device.mul(sum, over_l) }
    }

    /// e, and the slope of the score.
    fn power(&self, device: &mut Device, record: &Record, (i, j): (usize, u32), side: f64) -> (f64, f64) {
        device.push = side;
        let (s, slope) = self.config.score(device, &self.inputs, (i, j), self.met[i].1[&j]);
        let exponent = if self.config.attention.score.is_plain() {
            device.add(s, -record.m).min(0.0)
        } else {
            crate::simulator::halved(device, s, record.m).min(0.0)
        };
        (device.exp2(exponent), slope)
    }

    /// ds times the slope, of a pair; `side`: the sign of what it is multiplied with.
    fn pulled(&self, device: &mut Device, record: &Record, (i, j): (usize, u32), side: f64) -> f64 {
        device.push = side;
        let mut d_p = 0.0;
        for (&dout, &v) in self.dout(i).iter().zip(self.v(j)) {
            let (dout, v) = (device.read(dout), device.read(v));
            d_p = device.fma(dout, v, d_p);
        }
        let d_p = device.mul(record.over_l, d_p);
        let t = device.add(d_p, -record.d);
        let (e, slope) = self.power(device, record, (i, j), side * t.signum());
        device.push = side;
        let ds = device.mul(e, t);
        device.mul(ds, slope)
    }

    fn query(&self, device: &mut Device, i: usize, record: &Record) -> Vec<f64> {
        let scale = f64::from(self.config.attention.scale_value());
        let mut all = vec![0.0; self.x(i).len()];
        for (round, keys) in self.met[i].0.iter().enumerate() {
            let mut own = vec![0.0; all.len()];
            for keys in keys.chunks(TILE) {
                let mut sums = vec![0.0; all.len()];
                for &j in keys {
                    let x: Vec<f64> = self.x(j as usize).iter().map(|&x| device.read(x)).collect();
                    let ds = self.pulled(device, record, (i, j), (scale * x[0]).signum());
                    device.push = scale.signum();
                    sums.iter_mut().zip(&x).for_each(|(sum, x)| *sum = device.fma(ds, *x, *sum));
                }
                own.iter_mut().zip(sums).for_each(|(own, sum)| *own = device.add(*own, sum));
            }
            accumulate(device, &mut all, &own, scale, round > 0);
        }
        all
    }

    /// g and dv of key j, over the queries that meet it, as often as they do.
    fn key(&self, device: &mut Device, j: u32, records: &[Record]) -> (Vec<f64>, Vec<f64>) {
        let scale = f64::from(self.config.attention.scale_value());
        let (mut all, mut values) = (vec![0.0; self.x(0).len()], vec![0.0; self.v(0).len()]);
        for round in 0..self.config.options.rounds {
            let rows = self.met.iter().enumerate().flat_map(|(i, (parts, _))| {
                let times = parts[round].iter().filter(|&&key| key == j).count();
                std::iter::repeat_n(i, times)
            });
            let (mut own, mut own_values) = (vec![0.0; all.len()], vec![0.0; values.len()]);
            for rows in rows.collect::<Vec<_>>().chunks(TILE) {
                let (mut sums, mut value_sums) = (vec![0.0; all.len()], vec![0.0; values.len()]);
                for &i in rows {
                    let x: Vec<f64> = self.x(i).iter().map(|&x| device.read(x)).collect();
                    let dout: Vec<f64> = self.dout(i).iter().map(|&x| device.read(x)).collect();
                    let ds = self.pulled(device, &records[i], (i, j), (scale * x[0]).signum());
                    device.push = scale.signum();
                    sums.iter_mut().zip(&x).for_each(|(sum, x)| *sum = device.fma(ds, *x, *sum));
                    let (e, _) = self.power(device, &records[i], (i, j), dout[0].signum());
                    let p = device.mul(records[i].over_l, e);
                    device.push = 1.0;
                    value_sums.iter_mut().zip(&dout).for_each(|(sum, x)| *sum = device.fma(p, *x, *sum));
                }
                own.iter_mut().zip(sums).for_each(|(own, sum)| *own = device.add(*own, sum));
                own_values.iter_mut().zip(value_sums).for_each(|(own, sum)| *own = device.add(*own, sum));
            }
            accumulate(device, &mut all, &own, scale, round > 0);
            accumulate(device, &mut values, &own_values, 1.0, round > 0);
        }
        (all, values)
    }

    fn joined(&self, device: &mut Device, i: usize, as_query: &[f64], as_key: &[f64]) -> Vec<f64> {
        device.push = 1.0;
        let norm = self.config.norm(device, self.x(i));
        let unit = |device: &mut Device, x: E| {
            let x = device.read(x);
            device.mul(norm, x)
        };
        let along = self.x(i).iter().zip(as_key).fold(0.0, |sum, (&x, g)| {
            let u = unit(device, x);
            device.fma(u, *g, sum)
        });
        let element = |((&x, q), g): ((&E, &f64), &f64)| {
            let u = unit(device, x);
            let lost = device.mul(along, u);
            let key = device.add(*g, -lost);
            device.add(*q, key)
        };
        self.x(i).iter().zip(as_query).zip(as_key).map(element).collect()
    }
}

fn accumulate(device: &mut Device, all: &mut [f64], own: &[f64], scale: f64, add: bool) {
    device.push = 1.0;
    for (all, own) in all.iter_mut().zip(own) {
        let x = if scale == 1.0 { *own } else { device.mul(scale, *own) };
        *all = if add { device.add(x, *all) } else { x };
    }
}

/// The worst error / bound of dqk and dv over all modes, and elements without a promise. An element beyond its bound is a panic.
fn worst<E: Element>(config: &Config) -> ([f64; 2], usize) {
    let (attention, options) = (&config.attention, &config.options);
    let tensors = reference::random::<E, E>(attention, config.kind, config.seed).unwrap();
    let all = tensors.inputs();
    let inputs = all
        .tensors
        .iter()
        .fold(LshInputs::new(all.q, all.v), |inputs, (name, values)| inputs.tensor(name, values));
    let draw = Counter::new(config.seed, 61);
    let dout: Vec<E> = (0..attention.len_out()).map(|n| E::from_f64(draw.normal(n as u64))).collect();
    let storage = if config.seed.is_multiple_of(2) { ElementType::F32 } else { E::TYPE };
    let buckets = reference::lsh_buckets(attention, options, &inputs).unwrap().buckets;
    let centers = reference::lsh_with_buckets(attention, options, &inputs, &buckets).unwrap().out;
    let exact =
        reference::bounded_lsh_gradient(attention, options, &inputs, &dout, &buckets, storage).unwrap();
    let met = (0..attention.shape.q_len).map(|i| {
        let parts = meetings(options, attention.shape.q_len, &buckets, i);
        let times = times(&parts);
        (parts, times)
    });
    let met = met.collect();
    let simulated = Simulated { config, inputs: all, dout: &dout, met, storage };
    let (mut worst, mut unspecified) = ([0.0f64; 2], 0);
    for (mode, flush) in Mode::ALL.into_iter().flat_map(|mode| [(mode, false), (mode, true)]) {
        let got = simulated.run(&mut Device::new(mode, flush, config.seed), &centers);
        for (n, (exact, got)) in [&exact.dqk, &exact.dv].into_iter().zip(got).enumerate() {
            let found = exact.compare(got, 0.0);
            unspecified += found.unspecified;
            let name = ["dqk", "dv"][n];
            assert!(found.pass || found.compared == 0, "{name}: {found}; {mode:?} {flush} {config:?}");
            worst[n] = worst[n].max(found.worst.map_or(0.0, |worst| worst.ratio));
        }
    }
    (worst, unspecified)
}

#[test]
fn no_rounding_exceeds_the_bound_of_the_gradients() {
    let cases: u64 = std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(200);
    let found: Vec<_> = (0..cases)
        .into_par_iter()
        .map(|seed| {
            let config = Config::random(seed);
            let worst = match config.attention.storage.q {
                ElementType::F32 => worst::<f32>(&config),
                ElementType::F16 => worst::<half::f16>(&config),
                ElementType::Bf16 => worst::<half::bf16>(&config),
            };
            (config.attention.storage.q, worst)
        })
        .collect();
    let largest = |n: usize, of: &dyn Fn(ElementType) -> bool| {
        found.iter().filter(|found| of(found.0)).map(|found| found.1.0[n]).fold(0f64, f64::max)
    };
    let unspecified: usize = found.iter().map(|found| found.1.1).sum();
    for (name, least, of) in [
        ("f32", 0.1, &(|of| of == ElementType::F32) as &dyn Fn(ElementType) -> bool),
        ("16 bits", 0.5, &|of| of != ElementType::F32),
    ] {
        let [dqk, dv] = [largest(0, of), largest(1, of)];
        println!("{name}: worst error / bound {dqk:.3}, {dv:.3}; {unspecified} elements without a promise");
        assert!(dqk > least && dv > least, "{name}: a bound that nothing comes near is vacuous");
    }
}
