//! Faults planted in the shader text: the checks must find them.

use super::{Case, gpu};
use wgpu_attention::reference::{Kind, Rows};
use wgpu_attention::{AttentionShape, BiasStrides, Buckets, Gpu, LshOptions, Score, Sinks, SortShape};
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
        ("terms", |gpu| attention(gpu, &terms())),
        ("nearness", |gpu| attention(gpu, &nearness())),
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

/// A cap, a bias and a sink, under pairs that meet more than once; the bias of one's own key is by turns a number, none, and minus infinity.
fn terms() -> Case<f32> {
    let bias = BiasStrides::broadcast([2, 2, 70, 70]);
    let score = Score::new().softcap(0.5).bias(bias).with(Sinks);
    let options = LshOptions::new(2, 4, 24).count_once(true).self_penalty(-0.5);
    let case = Case::<f32>::new(shape().score(score), options, Kind::Normal, 11);
    let own = |(n, &bias): (usize, &f32)| match (n % 70 == n / 70 % 70, n % 3) {
        (true, 0) => f32::NAN,
        (true, 1) => f32::NEG_INFINITY,
        _ => bias,
    };
    let bias = case.tensor("bias").iter().enumerate().map(own).collect();
    case.with_tensor("bias", bias)
}

/// Slopes, and buckets of which only one's own key has the first: it holds no number.
fn nearness() -> Case<f32> {
    let score = Score::new().alibi().with(Buckets::new(8, 20).bidirectional(true));
    let options = LshOptions::new(2, 8, 24).self_penalty(-0.5);
    let case = Case::<f32>::new(shape().score(score), options, Kind::Normal, 11);
    let mut table = case.tensor("bucket_table").to_vec();
    table[..2].fill(f32::NAN);
    case.with_tensor("bucket_table", table)
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
