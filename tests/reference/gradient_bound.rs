//! The bound of the gradients against simulated kernels: never exceeded, never far above what f32 arithmetic can do, and exceeded by
//! kernels with a fault.

use super::backward_simulator::{Backward, Fault};
use super::bound::{Config, LEAST, largest};
use super::rounding::{Device, Mode};
use rayon::prelude::*;
use wgpu_attention::reference::gradient::{BoundOptions, BoundedGradients, bounded};
use wgpu_attention::reference::layer::Bounded;
use wgpu_attention::reference::{self, Counter, Kind, Position, Tensors};
use wgpu_attention::{
    Attention, AttentionShape, BiasStrides, Causal, Element, ElementType, Full, Inputs, KernelPath, Pattern,
    Score, Sinks, Site,
};
use wgpu_attention_testing::typed;

/// The largest error / bound of dq, dk, dv and the sinks' gradient.
type Worst = [f64; 4];

const NAMES: [&str; 4] = ["dq", "dk", "dv", "d sinks"];

fn dout<O: Element>(attention: &Attention, seed: u64) -> Vec<O> {
    let draw = Counter::new(seed, 60);
    (0..attention.len_out()).map(|n| O::from_f64(draw.normal(n as u64))).collect()
}

/// Of every row, the keys of each part that the pattern keeps.
fn kept(attention: &Attention, pattern: &dyn Pattern, walk: &[Vec<u32>]) -> Vec<Vec<Vec<u32>>> {
    let shape = &attention.shape;
    let row = |n: usize| {
        let site = Site {
            batch: n / shape.q_len / shape.heads,
            head: n / shape.q_len % shape.heads,
            extent: shape.extent(),
        };
        let keeps = |j: &u32| pattern.keep(&site, n % shape.q_len, *j as usize);
        walk.iter().map(|part| part.iter().copied().filter(keeps).collect()).collect()
    };
    (0..shape.len_lse()).map(row).collect()
}

fn tensors_of(exact: &BoundedGradients) -> Vec<&Bounded> {
    [&exact.dq, &exact.dk, &exact.dv].into_iter().chain(exact.term("sinks")).collect()
}

/// An element that exceeds its bound is a panic. Also how many elements nothing is promised for.
fn worst<Q: Element, KV: Element, O: Element>(config: &Config, path: KernelPath) -> (Worst, usize) {
    let (tensors, attention): (Tensors<Q, KV>, _) = (config.tensors(), &config.attention);
    let inputs = tensors.inputs();
    let dout = dout::<O>(attention, config.seed);
    let pattern: &dyn Pattern = if config.causal { &Causal } else { &Full };
    let walk = config.walk();
    let order = |_: Position| walk.clone();
    let several = config.parts > 1;
    let storage =
        if several || config.seed.is_multiple_of(2) { ElementType::F32 } else { attention.storage.out };
    let options = BoundOptions::default().order(&order).path(path).storage(storage);
    let exact = bounded(attention, &inputs, &dout, pattern, options).unwrap();
    let centers = reference::attention_with(attention, &inputs, pattern).unwrap().out;
    let keys = kept(attention, pattern, &walk);
    let halves = path == KernelPath::Cooperative;
    let backward = Backward { attention, inputs, dout: &dout, keys: &keys, storage, halves, fault: None };
    let (mut worst, mut unspecified) = ([0.0f64; 4], 0);
    for (mode, flush) in Mode::ALL.into_iter().flat_map(|mode| [(mode, false), (mode, true)]) {
        let got = backward.run(&mut Device::new(mode, flush, config.seed), &centers, config.tile);
        for (n, (exact, got)) in tensors_of(&exact).into_iter().zip(got).enumerate() {
            let found = exact.compare(got, 0.0);
            unspecified += found.unspecified;
            let ratio = found.worst.map_or(0.0, |worst| worst.ratio);
            assert!(found.pass || found.compared == 0, "{}: {found}; {mode:?} {flush} {config:?}", NAMES[n]);
            worst[n] = worst[n].max(ratio);
        }
    }
    (worst, unspecified)
}

fn config(seed: u64) -> Config {
    let mut config = Config::sized(seed, 60, 1 + (seed % 9) as usize);
    let storage = config.attention.storage;
    if storage.q != storage.kv {
        config.attention.storage = storage.out(ElementType::F32);
    }
    config
}

/// `WGPU_ATTENTION_BOUND_CASES` runs more.
#[test]
fn no_rounding_exceeds_the_bound_of_the_gradients() {
    let cases = std::env::var("WGPU_ATTENTION_BOUND_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(300);
    let configs: Vec<Config> = (0..cases).map(config).collect();
    let results: Vec<(Worst, usize)> = configs.par_iter().map(scalar).collect();
    println!("{cases} configurations, 12 rounding behaviours each: worst error / bound of dq, dk, dv");
    let show = |name: &str, is: &dyn Fn(&Config) -> bool| {
        let of = |n: usize| {
            largest(
                configs.iter().zip(&results).filter(|(config, _)| is(config)).map(|(_, result)| result.0[n]),
            )
        };
        let [dq, dk, dv] = [of(0), of(1), of(2)];
        println!("  {name:12} {dq:.4} {dk:.4} {dv:.4}");
        assert!(
            [dq, dk, dv].iter().all(|ratio| *ratio > LEAST),
            "{name}: a bound that nothing comes near is vacuous"
        );
    };
    for kind in Kind::ALL {
        show(&format!("{kind:?}"), &|config| config.kind == kind);
    }
    for term in ["softcap", "temperature", "alibi", "bias", "buckets", "relative", "segments", "dropout"] {
        show(term, &|config| config.has(term));
    }
    show("parts", &|config| config.parts > 1);
    show("all f32", &|config| config.attention.storage == Default::default());
    show("f32, 32 keys", &|config| {
        config.attention.storage == Default::default() && config.attention.shape.kv_len >= 32
    });
    let with_sinks = configs.iter().zip(&results).filter(|(config, _)| config.has("sinks"));
    let sinks = largest(with_sinks.map(|(_, result)| result.0[3]));
    println!("  d sinks      {sinks:.4}");
    assert!(sinks > LEAST, "the bound of the sinks' gradient is vacuous");
    let unspecified: usize = results.iter().map(|result| result.1).sum();
    println!("  elements without a promise: {unspecified}");
    assert_eq!(unspecified, 0, "finite inputs of ordinary size always have a bound");
}

fn scalar(config: &Config) -> (Worst, usize) {
    typed!(config.attention.storage, worst(config, KernelPath::Scalar))
}

fn cooperative(config: &Config) -> (Worst, usize) {
    typed!(config.attention.storage, worst(config, KernelPath::Cooperative))
}

/// Weights and derivatives in f16, as cooperative matrices multiply them; of tensors of any type, whose own rounding is less then.
#[test]
fn no_rounding_exceeds_the_bound_of_gradients_in_matrices() {
    let configs: Vec<Config> = (0..120).map(config).collect();
    let results: Vec<(Worst, usize)> = configs.par_iter().map(cooperative).collect();
    for kind in Kind::ALL {
        let of = |n: usize| {
            let own = configs.iter().zip(&results).filter(|(config, _)| config.kind == kind);
            largest(own.map(|(_, result)| result.0[n]))
        };
        let ratios = [of(0), of(1), of(2)];
        println!("  in matrices, {kind:?}: {ratios:.4?}");
        assert!(
            ratios.iter().all(|ratio| *ratio > LEAST),
            "{kind:?}: a bound that nothing comes near is vacuous"
        );
    }
    assert_eq!(results.iter().map(|result| result.1).sum::<usize>(), 0, "finite inputs always have a bound");
}

/// Grouped heads, several tiles each way.
fn planted(score: Score, kind: Kind) -> (Attention, Tensors<f32>) {
    let attention = AttentionShape::new(1, 4, 70, 8).kv_heads(2).q_len(45).value_dim(4).score(score);
    let tensors = reference::random(&attention, kind, 3).unwrap();
    (attention, tensors)
}

/// The share of elements beyond their bounds, over all three gradients.
fn rejected(attention: &Attention, inputs: Inputs<'_, f32>, fault: Option<Fault>) -> f64 {
    let dout = dout::<f32>(attention, 9);
    let keys = kept(attention, &Full, &[(0..attention.shape.kv_len as u32).collect()]);
    let exact = bounded(attention, &inputs, &dout, &Full, BoundOptions::default()).unwrap();
    let centers = reference::attention_with(attention, &inputs, &Full).unwrap().out;
    let (storage, halves) = (ElementType::F32, false);
    let backward = Backward { attention, inputs, dout: &dout, keys: &keys, storage, halves, fault };
    let got = backward.run(&mut Device::new(Mode::Nearest, false, 1), &centers, 64);
    let (mut beyond, mut all) = (0, 0);
    for (exact, got) in tensors_of(&exact).into_iter().zip(got) {
        all += got.len();
        let each = got.iter().zip(&exact.out).zip(&exact.bound);
        beyond += each.filter(|((got, exact), bound)| (*got - *exact).abs() > **bound).count();
    }
    f64::from(beyond as u32) / f64::from(all as u32)
}

#[test]
fn faults_exceed_the_bound_of_the_gradients() {
    let bias = Score::new().bias(BiasStrides::broadcast([1, 4, 45, 70]));
    for kind in [Kind::Normal, Kind::Peaky] {
        for fault in Fault::ALL {
            let score = match fault {
                Fault::SlopeOmitted => Score::new().softcap(3.0),
                Fault::BiasNotRead => bias.clone(),
                Fault::DOmitted => Score::new().with(Sinks),
                _ => Score::new(),
            };
            let (attention, tensors) = planted(score, kind);
            let share = rejected(&attention, tensors.inputs(), Some(fault));
            println!("{kind:?}, {fault:?}: {:.1} % of the elements are beyond their bounds", 100.0 * share);
            assert!(share > 0.0, "{kind:?}: the bound lets {fault:?} pass");
            assert_eq!(rejected(&attention, tensors.inputs(), None), 0.0, "{kind:?}");
        }
    }
}
