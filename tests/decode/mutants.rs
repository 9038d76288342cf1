//! Faults planted in the shader text: the checks must find them.

use crate::oracles::{Case, Oracle, small};
use crate::{Checked, int8, latent, own_keys, packed, pages, rotary, strange};
use wgpu_attention::reference::Kind;
use wgpu_attention::{CacheShape, DecodeShape, ElementType, Gpu, RotaryPairs};
use wgpu_attention_testing::gpu;
use wgpu_attention_testing::mutants::{Edit, Suite};

#[path = "../mutants/table/decode.rs"]
mod table;

/// Few cases, so that few shaders are compiled.
const SUITE: Suite<Gpu> = Suite {
    mutants: table::MUTANTS,
    subject,
    checks: &[
        ("steps", steps),
        ("long", long),
        ("pages", paged),
        ("forks", pages::forks),
        ("window", window),
        ("strange", strange::spread),
        ("hidden", strange::hidden),
        ("words", strange::wrong_words),
        ("int8", int8::quantized),
        ("packed", packed::shared),
        ("latent", latent::parts_of_keys),
        ("own keys", own_keys::shared),
        ("rotary", |gpu| {
            rotary::check::<f32>(gpu, ElementType::F32.into(), 6, RotaryPairs::HalfSplit, Some(4))
        }),
    ],
};

fn subject(edit: Edit) -> Gpu {
    gpu().with_kernels(gpu().kernels().edited(move |text| edit(text)))
}

fn all(gpu: &Gpu, case: &Case) -> Checked {
    [Oracle::Count, Oracle::Gather, Oracle::Bound(Kind::Normal), Oracle::Bound(Kind::Rising)]
        .iter()
        .try_for_each(|&oracle| case.check_on(gpu, oracle))
}

/// Grouped heads, sequences of different lengths.
fn steps(gpu: &Gpu) -> Checked {
    let steps = vec![vec![5, 2], vec![1, 0], vec![4, 5], vec![0, 3], vec![5, 4]];
    all(gpu, &Case { steps, ..Case::new(small().counts(true), &[]) })
}

/// Several chunks per split, several splits.
fn long(gpu: &Gpu) -> Checked {
    let options = gpu.kernels().options().splits(2);
    let gpu = gpu.with_kernels(gpu.kernels().with_options(options).map_err(|e| e.to_string())?);
    let shape = DecodeShape::new(CacheShape::new(1, 2, 1024, 16), 4, 64).counts(true);
    let case = Case::new(shape, &[64, 64, 64, 64, 1, 64, 64, 64, 64, 64, 64, 7]);
    all(&gpu, &case)?;
    case.check_on(&gpu, Oracle::Bound(Kind::Peaky))
}

fn paged(gpu: &Gpu) -> Checked {
    let shape = DecodeShape::new(CacheShape::new(2, 2, 64, 12).paged(4, 32), 4, 7);
    all(gpu, &Case::new(shape, &[7, 7, 7, 7]))
}

fn window(gpu: &Gpu) -> Checked {
    let shape =
        DecodeShape::new(CacheShape::new(1, 1, 768, 12), 2, 40).counts(true).window(Some(20)).sinks(5);
    all(gpu, &Case::new(shape, &[40, 7, 40, 40, 40, 40, 40, 40, 40, 40, 40, 40, 40, 40, 40]))
}

#[test]
fn the_checks_pass_without_faults() {
    SUITE.pass_without_faults();
}

#[test]
fn the_checks_find_the_faults() {
    SUITE.kill_the_mutants();
}
