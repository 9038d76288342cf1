//! Cases on an adapter: each kernel verifies, and a kernel with a fault is never timed.

use crate::cases::{BlockShape, Lanes, Spec, Wanted, Work, pattern};
use crate::ceilings::{Ceilings, KINDS};
use crate::clock::{Interrupted, Stop};
use crate::measure::Bench;
use crate::record::{Case, CeilingKind, Cost, Direction, Kernel, Rules, Status};
use crate::scores::{SCORES, score};
use crate::subject::Subject;
use crate::suites::Suite;
use anyhow::{Context, Result};
use pollster::block_on;
use wgpu_attention::{
    Activation, AddShape, AttentionShape, CacheShape, CacheStorage, DecodeShape, ElementType, EmbedShape,
    FeatureMap, FeedForwardShape, Gpu, IntegerFormat, IntegerType, Kernels, LinearOptions, LinformerOptions,
    LshOptions, MatmulShape, NormKind, NormShape, Options, RecurrentCell, RecurrentShape, RotaryShape,
    ScaleGroups, SoftmaxShape, Storage, WeightOrder, cooperative_features,
};

fn adapter() -> Result<wgpu::Adapter> {
    let adapters = block_on(Gpu::adapters())?;
    adapters.into_iter().next().context("need an adapter: `cargo xtask test` fetches a software adapter")
}

fn gpu() -> Result<Gpu> {
    let token = wgpu_attention_experimental::allowed();
    Ok(block_on(Gpu::on_experimental(&adapter()?, Options::default(), token))?)
}

/// Short and lenient: what is timed here is not the point.
fn rules() -> Rules {
    Rules { min_samples: 3, min_s: 0.0, max_s: 0.2, cold_bytes: 1 << 20, ..Suite::Quick.rules() }
}

fn spec(work: Work) -> Spec {
    Spec { known_as: None, work, lanes: Lanes::Planned }
}

/// Every kind of work, small; more rows than are compared.
fn works(element: ElementType) -> Vec<Work> {
    let shape = AttentionShape::new(1, 2, 300, 16);
    let stored = |shape: AttentionShape| shape.storage(Storage::all(element));
    let of = |name: &str, shape| Work::Attention {
        attention: stored(shape),
        pattern: pattern(name, 300).expect("a pattern"),
    };
    let linear = |map, causal, direction| Work::Linear {
        attention: stored(shape),
        options: LinearOptions::new(map).causal(causal),
        direction,
    };
    let linformer = |direction| Work::Linformer {
        attention: stored(shape),
        options: LinformerOptions::new(400, 24),
        direction,
    };
    let lsh = |direction| Work::Lsh {
        attention: stored(shape),
        options: LshOptions::new(2, 8, 32).causal(true),
        direction,
    };
    let gradients = |attention, wanted| {
        let pattern = pattern("causal", 300).expect("a pattern");
        Work::Backward { attention, pattern, wanted }
    };
    let three = AttentionShape::new(1, 3, 300, 16);
    let mut works = vec![
        linear(FeatureMap::favor(20), true, Direction::Forward),
        linear(FeatureMap::favor(20), true, Direction::Backward),
        linear(FeatureMap::Elu, false, Direction::Forward),
        linear(FeatureMap::Elu, false, Direction::Both),
        linformer(Direction::Forward),
        linformer(Direction::Backward),
        linformer(Direction::Both),
        of("causal", shape),
        of("strided", shape),
        of("document", shape),
        of("full", shape.q_len(1)),
        gradients(stored(shape), Wanted::All),
        gradients(stored(three), Wanted::Queries),
        gradients(stored(three), Wanted::Keys),
        lsh(Direction::Forward),
        lsh(Direction::Backward),
        lsh(Direction::Both),
        Work::Matmul(MatmulShape::new(300, 20, 24).elements(element)),
        Work::FeedForward(FeedForwardShape::new(300, 16, 40, Activation::Silu).elements(element)),
        Work::FeedForward(FeedForwardShape::new(300, 16, 40, Activation::Silu).gated(true).elements(element)),
        Work::Recurrent(RecurrentShape::new(RecurrentCell::Lstm, 3, 100, 12, 20).weight(element)),
        Work::Norm(NormShape::new(NormKind::Layer, 300, 20, 1e-5).bias(true).elements(element)),
        Work::Norm(NormShape::new(NormKind::Rms, 300, 20, 1e-5).elements(element)),
        Work::Softmax(SoftmaxShape::new(300, 20).input(element).output(element)),
        Work::Rotary(RotaryShape::new(2, 3, 100, 16).input(element).output(element)),
        Work::Embed(EmbedShape::new(300, 50, 20).table(element).output(element)),
        Work::Add(AddShape::new(300, 20).input(element).other(element).output(element)),
    ];
    if element == ElementType::F32 {
        let weights = |element, groups, zero_points| {
            let format = IntegerFormat::new(element).groups(groups).zero_points(zero_points);
            Work::Matmul(MatmulShape::new(300, 64, 24).weights(WeightOrder::OutIn).integers(format))
        };
        works.push(weights(IntegerType::I8, ScaleGroups::Rows, false));
        for storage in [element.into(), ElementType::F16.into(), CacheStorage::Int8] {
            // More than a chunk of keys.
            let cache = CacheShape::new(2, 2, 300, 16).value_dim(12).storage(storage);
            works.push(Work::Decode(DecodeShape::new(cache, 4, 3)));
        }
        works.push(weights(IntegerType::U4, ScaleGroups::Groups(32), true));
        let pattern = pattern("fixed", 300).expect("a pattern");
        works.push(Work::Block(BlockShape { len: 300, model_dim: 32, heads: 2, hidden_dim: 64, pattern }));
    }
    works
}

#[test]
fn every_kernel_verifies() -> Result<()> {
    let gpu = gpu()?;
    for element in [ElementType::F32, ElementType::F16, ElementType::Bf16] {
        for spec in works(element).into_iter().map(spec) {
            let name = spec.name();
            let subject = block_on(Subject::prepare(&gpu, &spec)).with_context(|| name.clone())?;
            let (path, cost) = (subject.path.clone(), subject.cost.clone());
            let (_, verification) = block_on(subject.verify()).with_context(|| name.clone())?;
            assert!(verification.pass, "{name}: {verification:?}");
            // Of gradients every element is compared.
            let most = match spec.kernel() {
                // Those of E and F, too.
                Kernel::Linformer if spec.direction() != Direction::Forward => 1800 + 800,
                _ if spec.direction() != Direction::Forward => 1800,
                // So many of each head.
                Kernel::Linear | Kernel::Linformer => 2 * 256,
                _ => 256,
            };
            assert!((1..=most).contains(&verification.rows) && verification.worst_ratio <= Some(1.0));
            assert!(!path.is_empty() && cost.dispatches > 0 && cost.bytes > 0.0, "{name}: {cost:?}");
            assert!(
                cost.memory_bytes as f64 >= cost.bytes && cost.executed_flop >= cost.useful_flop,
                "{name}"
            );
        }
    }
    Ok(())
}

/// Each against the reference, forward and backward, with its tensors in the bytes and its products in the FLOP.
#[test]
fn every_score_verifies() -> Result<()> {
    let gpu = gpu()?;
    let shape = AttentionShape::new(1, 2, 150, 16);
    let names = SCORES.iter().map(|(name, _)| *name);
    #[cfg(feature = "custom")]
    let names = names.chain([crate::scores::CUSTOM]);
    let plain = |backward: bool| -> Result<Cost> {
        let (attention, pattern) = (shape.into(), pattern("causal", 150).expect("a pattern"));
        let work = match backward {
            false => Work::Attention { attention, pattern },
            true => Work::Backward { attention, pattern, wanted: Wanted::All },
        };
        Ok(block_on(Subject::prepare(&gpu, &spec(work)))?.cost)
    };
    let plain = [plain(false)?, plain(true)?];
    for name in names {
        let scored = shape.score(score(name, &shape).expect("a score"));
        let terms = scored.score.tensors(&shape).iter().map(|term| 4 * term.len).sum::<usize>() as f64;
        let products = [2.0, 4.0].map(|times| match scored.score.term("relative") {
            Some(_) => times * 16.0 * plain[0].kept_pairs.expect("pairs") as f64,
            None => 0.0,
        });
        let pattern = || pattern("causal", 150).expect("a pattern");
        let works = [
            Work::Attention { attention: scored.clone(), pattern: pattern() },
            Work::Backward { attention: scored.clone(), pattern: pattern(), wanted: Wanted::All },
        ];
        for (n, spec) in works.into_iter().map(spec).enumerate() {
            let name = spec.name();
            let subject = block_on(Subject::prepare(&gpu, &spec)).with_context(|| name.clone())?;
            let cost = subject.cost.clone();
            let (_, verification) = block_on(subject.verify()).with_context(|| name.clone())?;
            assert!(verification.pass && verification.worst_ratio <= Some(1.0), "{name}: {verification:?}");
            assert_eq!(cost.useful_flop, plain[n].useful_flop + products[n], "{name}");
            assert_eq!(cost.bytes, plain[n].bytes + terms, "{name}");
            assert!(cost.executed_flop >= cost.useful_flop, "{name}: {cost:?}");
        }
    }
    Ok(())
}

#[test]
fn a_fault_in_a_term_is_found_before_it_is_timed() -> Result<()> {
    let gpu = gpu()?;
    let shape = AttentionShape::new(1, 2, 150, 16);
    let fault = |text: &str| text.replace("return s - slope * ", "return s + slope * ");
    let kernels = Kernels::with_edited_shaders(gpu.device(), Options::default(), fault)?;
    let gpu = gpu.with_kernels(kernels);
    for (name, found) in [("alibi", true), ("t5", false)] {
        let attention = shape.score(score(name, &shape).expect("a score"));
        let options = LshOptions::new(2, 4, 32).causal(true);
        let works = [
            Work::Attention {
                attention: attention.clone(),
                pattern: pattern("causal", 150).expect("a pattern"),
            },
            Work::Lsh { attention, options, direction: Direction::Forward },
        ];
        for work in works {
            let (case, _) = measured(&gpu, work, Stop::default())?;
            assert_eq!(case.status == Status::Failed, found, "{case:?}");
            assert_eq!(case.hot.is_none(), found, "{case:?}");
            assert_eq!(case.score.as_deref(), Some(name));
        }
    }
    Ok(())
}

fn measured(gpu: &Gpu, work: Work, stop: Stop) -> Result<(Case, Result<(), Interrupted>)> {
    let spec = spec(work);
    let bench = block_on(Bench::open(gpu, rules(), stop))?;
    let mut case = Case::new(&spec);
    let ended = block_on(case.measure(&bench, &spec));
    Ok((case, ended))
}

#[test]
fn a_right_kernel_is_timed_and_one_with_a_fault_is_not() -> Result<()> {
    let gpu = gpu()?;
    let work = || Work::Add(AddShape::new(300, 20));
    let (case, ended) = measured(&gpu, work(), Stop::default())?;
    assert!(ended.is_ok() && [Status::Measured, Status::Unconverged].contains(&case.status), "{case:?}");
    assert!(case.hot.is_some() && case.cold.is_some());

    let fault = |text: &str| text.replace("y += other;", "y -= other;");
    let kernels = Kernels::with_edited_shaders(gpu.device(), Options::default(), fault)?;
    let (case, _) = measured(&gpu.with_kernels(kernels), work(), Stop::default())?;
    assert_eq!(case.status, Status::Failed, "{case:?}");
    assert!(case.why.as_ref().is_some_and(|why| why.starts_with("out of its bound: out[")), "{case:?}");
    assert!(case.verification.as_ref().is_some_and(|it| !it.pass && it.worst_ratio > Some(1.0)), "{case:?}");
    assert!(case.hot.is_none() && case.cold.is_none() && case.rates.is_none(), "a failure is never timed");
    Ok(())
}

#[test]
fn what_does_not_fit_says_why() -> Result<()> {
    let gpu = gpu()?;
    let rows = gpu.device().limits().max_storage_buffer_binding_size as usize / 4 / 1024 + 1;
    let (case, ended) = measured(&gpu, Work::Add(AddShape::new(rows, 1024)), Stop::default())?;
    assert!(ended.is_ok());
    assert_eq!(case.status, Status::CannotRun, "{case:?}");
    assert!(case.why.as_ref().is_some_and(|why| !why.is_empty()), "{case:?}");
    Ok(())
}

#[test]
fn an_interruption_is_no_failure() -> Result<()> {
    let stop = Stop::default();
    assert!(!stop.set() && stop.set(), "the second time it was set before");
    let (case, ended) = measured(&gpu()?, Work::Add(AddShape::new(300, 20)), stop)?;
    assert!(ended.is_err());
    assert_eq!((case.status, case.hot), (Status::Interrupted, None));
    Ok(())
}

/// Their results are compared in `probes.rs`: a wrong one is an error here.
#[test]
fn every_ceiling_is_measured_or_says_why() -> Result<()> {
    let adapter = adapter()?;
    let features = adapter.features();
    let ceilings = block_on(Ceilings::open(&adapter, Rules { max_s: 0.05, ..rules() }, Stop::default()))?;
    for kind in KINDS {
        let there = match kind {
            CeilingKind::FmaF16 => features.contains(wgpu::Features::SHADER_F16),
            CeilingKind::MatrixF16 => !cooperative_features(&adapter).is_empty(),
            _ => true,
        };
        match block_on(ceilings.measure(kind))? {
            Ok(probe) => {
                assert!(there && probe.value.is_finite() && probe.value > 0.0, "{kind:?}: {probe:?}")
            }
            Err(why) => assert!(!there && !why.is_empty(), "{kind:?}: {why}"),
        }
    }
    Ok(())
}
