//! Faults planted in the shader text: the checks must find them.

use super::{Case, gpu};
use wgpu_attention::reference::{Kind, Rows};
use wgpu_attention::{AttentionShape, Gpu, LshOptions, SortShape};
use wgpu_attention_testing::mutants::{Edit, Suite};

#[path = "../mutants/table/lsh.rs"]
mod table;

/// Few cases, so that few shaders are compiled, with as many options in each as can be told apart.
const SUITE: Suite<Gpu> = Suite {
    mutants: table::MUTANTS,
    subject,
    checks: &[
        ("rounds", |gpu| attention(gpu, &case(shape(), LshOptions::new(2, 8, 24)))),
        ("factors", |gpu| {
            let options = LshOptions::new(2, 2, 24).buckets(vec![4, 40]).wrap(false).chain_rounds(false);
            attention(gpu, &case(AttentionShape::new(2, 2, 70, 40), options.key_mask(true)))
        }),
        ("once", once),
        ("one round", |gpu| attention(gpu, &case(shape(), LshOptions::new(1, 8, 70).causal(true)))),
        ("three rounds", |gpu| {
            attention(gpu, &case(shape(), LshOptions::new(3, 4, 24).count_once(true).look_ahead(1)))
        }),
        ("unit keys", super::attention::unit_keys),
        ("sort", sort),
    ],
};

fn shape() -> AttentionShape {
    AttentionShape::new(2, 2, 70, 16)
}

fn subject(edit: Edit) -> Gpu {
    gpu().with_kernels(gpu().kernels().edited(move |text| edit(text)))
}

fn case(shape: AttentionShape, options: LshOptions) -> Case<f32> {
    Case::new(shape, options, Kind::Normal, 11)
}

/// Positions with q = 0, whose hash is a tie. Far enough back to meet the same bucket of the round before.
fn once(gpu: &Gpu) -> Result<(), String> {
    let options = LshOptions::new(2, 4, 24).look_back(3).within_bucket(true).count_once(true);
    let mut zeros = case(shape(), options);
    zeros.qk[..32].fill(0.0);
    attention(gpu, &zeros)
}

/// Buckets that there are, ties to the lowest, every row within its bound.
fn attention(gpu: &Gpu, case: &Case<f32>) -> Result<(), String> {
    let got = gpu.lsh(&case.attention, &case.options, &case.inputs()).map_err(|e| e.to_string())?;
    if case.options.count_once && case.options.within_bucket && got.buckets[..2] != [0, 0] {
        return Err("a tie does not go to the lowest index".into());
    }
    let most = case.options.bucket_count() as u32 - u32::from(!case.options.key_mask);
    if got.buckets.iter().any(|&bucket| bucket > most) {
        return Err("a bucket past the last".into());
    }
    let report = case.verify(&got, Rows::All);
    if report.pass { Ok(()) } else { Err(report.to_string()) }
}

fn sort(gpu: &Gpu) -> Result<(), String> {
    let shape = SortShape::new(2, 5000).key_bits(12);
    let keys: Vec<u32> = (0..10_000u32).map(|n| n.wrapping_mul(2_654_435_761) >> 21).collect();
    let got = gpu.sort(&shape, &keys, None).map_err(|e| e.to_string())?;
    let mut places: Vec<u32> = (0..10_000).map(|n| n % 5000).collect();
    for (segment, keys) in places.chunks_mut(5000).zip(keys.chunks(5000)) {
        segment.sort_by_key(|&place| keys[place as usize]);
    }
    if got.values == places { Ok(()) } else { Err("order".into()) }
}

#[test]
fn the_checks_pass_without_faults() {
    SUITE.pass_without_faults();
}

#[test]
fn the_checks_find_the_faults() {
    SUITE.kill_the_mutants();
}
