//! Faults planted in the shader text: the checks must find them.

use super::{Case, counts, gradients, linformer, shape, state};
use wgpu_attention::reference::Kind;
use wgpu_attention::{AttentionShape, FeatureMap, Gpu, LinearOptions, Projection, Stabiliser};
use wgpu_attention_testing::gpu;
use wgpu_attention_testing::mutants::{Edit, Suite};

#[path = "../mutants/table/linear.rs"]
mod table;

/// Few cases, so that few shaders are compiled.
const SUITE: Suite<Gpu> = Suite {
    mutants: table::MUTANTS,
    subject,
    checks: &[
        ("means", counts::means),
        ("single keys", |gpu| counts::single_keys(gpu, shape(), true)),
        ("favor", |gpu| bound(gpu, causal(FeatureMap::favor(22)).key_mask(true))),
        ("retention", |gpu| bound(gpu, causal(FeatureMap::Elu).decay(vec![0.9, 0.99]).denominator_eps(0.5))),
        ("published", published),
        ("relu", |gpu| bound(gpu, causal(FeatureMap::relu(20)))),
        ("softmax", |gpu| bound(gpu, LinearOptions::new(FeatureMap::Softmax))),
        ("strange", strange),
        ("steps", state::steps),
        ("shares", gradients::counts),
        ("gradients", gradients::bound),
        ("projections", linformer::counts),
        ("projected keys", linformer::gathered),
        ("behind", linformer::strange),
        ("linformer", linformer::bound),
        ("projected gradients", linformer::gradients::counts),
        ("gradients behind", linformer::gradients::strange),
        ("linformer gradients", linformer::gradients::bound),
    ],
};

fn causal(map: FeatureMap) -> LinearOptions {
    LinearOptions::new(map).causal(true)
}

fn subject(edit: Edit) -> Gpu {
    gpu().with_kernels(gpu().kernels().edited(move |text| edit(text)))
}

fn bound(gpu: &Gpu, options: LinearOptions) -> Result<(), String> {
    case(gpu, shape(), options)
}

fn case(gpu: &Gpu, shape: AttentionShape, options: LinearOptions) -> Result<(), String> {
    Case::<f32>::new(shape, options, Kind::Normal, 11).check_on(gpu).map(drop)
}

/// Several tiles of keys, the largest in the last.
fn published(gpu: &Gpu) -> Result<(), String> {
    let projection = Projection::Seeded { seed: 3 };
    let map = FeatureMap::Favor { features: 6, eps: 0.05, stabiliser: Stabiliser::Global, projection };
    let shape = AttentionShape::new(1, 2, 40, 12).kv_len(600);
    let mut case = Case::<f32>::new(shape, LinearOptions::new(map).key_mask(true), Kind::Normal, 11);
    case.k
        .chunks_mut(12)
        .enumerate()
        .filter(|(j, _)| j % 600 > 500)
        .flat_map(|(_, k)| k)
        .for_each(|x| *x *= 3.0);
    case.check_on(gpu).map(drop)
}

/// Infinite values of a key in a chunk's middle: the rows before it stay as they are.
fn strange(gpu: &Gpu) -> Result<(), String> {
    let mut case =
        Case::<f32>::new(AttentionShape::new(1, 1, 100, 8), causal(FeatureMap::Elu), Kind::Normal, 2);
    let before = case.run_on(gpu)?;
    case.v[90 * 8..91 * 8].fill(f32::INFINITY);
    let after = case.run_on(gpu)?;
    if before[..90 * 8] == after[..90 * 8] { Ok(()) } else { Err("a row sees a later value".into()) }
}

#[test]
fn the_checks_pass_without_faults() {
    SUITE.pass_without_faults();
}

#[test]
fn the_checks_find_the_faults() {
    SUITE.kill_the_mutants();
}
