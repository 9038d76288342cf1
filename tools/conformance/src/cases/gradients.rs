//! Cases of the gradients by q, k and v, for each kind of tile and on cooperative matrices: every element within its bound. In parts with orders.

use anyhow::{Error, Result};
use wgpu_attention::ElementType::{Bf16, F16, F32};
use wgpu_attention::wgsl::TileKind;
use wgpu_attention::{
    Attention, AttentionShape, BiasStrides, Causal, Element, Heads, KernelPath, Options, Score, Storage,
};
use wgpu_attention_testing::{
    BiasValues, BoundBackward, Case, Cut, cut, drawn_dout, gradient_bounds, gradients_within, picked,
};

use crate::bench::Bench;
use crate::cases::{self, Set};

/// All of them.
pub(crate) fn cases() -> Vec<cases::Case> {
    let options = Options::default();
    let matrices = KernelPath::Cooperative;
    let kinds = [
        ("gradients, staged", options.tile_kind(TileKind::Staged), calls()),
        ("gradients, direct", options.tile_kind(TileKind::Direct), calls()),
        ("gradients, cooperative", options.path(matrices).gradient_path(matrices), calls_in_f16()),
    ];
    let of_kind = |(row, options, calls): (&'static str, Options, Vec<(Set, &'static str, Case)>)| {
        let with_options = move |(set, name, case): (Set, &str, Case)| {
            let case = case.options(options);
            cases::Case {
                kernel: row,
                element: case.attention.storage.q,
                name: name.into(),
                set,
                run: Box::new(move |bench| run(bench, &case)),
            }
        };
        calls.into_iter().map(with_options)
    };
    kinds.into_iter().flat_map(of_kind).collect()
}

/// What is computed, with the smallest set that it is in.
fn calls() -> Vec<(Set, &'static str, Case)> {
    let few = AttentionShape::new(1, 1, 9, 8).kv_len(37);
    let shape = AttentionShape::new(2, 4, 70, 16).kv_heads(2).kv_len(150).value_dim(8);
    let sized = |d, dv| AttentionShape::new(1, 2, 70, d).kv_heads(1).kv_len(90).value_dim(dv);
    let score = Score::new().softcap(2.0).bias(BiasStrides::broadcast([2, 4, 70, 150]));
    let causal = |shape: AttentionShape| Case::new(shape).pattern(Causal);
    let stored = |element| Case::new(sized(64, 64).storage(Storage::all(element))).pattern(Causal);
    vec![
        (Set::Tiny, "9 queries, causal", causal(few)),
        (Set::Small, "d 64, causal", stored(F32)),
        (Set::Small, "d 64, causal", stored(F16)),
        (Set::Full, "d 64, causal", stored(Bf16)),
        (Set::Full, "d 7, dv 5, causal", causal(sized(7, 5))),
        (Set::Full, "d 128, causal", causal(sized(128, 128))),
        (Set::Full, "d 256, causal", causal(sized(256, 256))),
        (Set::Small, "softcap, bias", Case::new(shape.score(score)).bias(BiasValues::Holes)),
        (Set::Full, "ALiBi, causal", Case::new(shape.score(Score::new().alibi())).pattern(Causal)),
        (Set::Small, "bigbird", Case::new(shape).pattern(picked("bigbird", &shape.extent(), 1))),
        (Set::Small, "heads 1 and 3 of 4", Case::new(shape.heads(Heads::only(&[1, 3]))).pattern(Causal)),
        (Set::Full, "mask_of_all", Case::new(shape).pattern(picked("mask_of_all", &shape.extent(), 1))),
    ]
}

/// What matrices multiply.
fn calls_in_f16() -> Vec<(Set, &'static str, Case)> {
    let sized = |d, dv| AttentionShape::new(1, 2, 70, d).kv_heads(1).kv_len(90).value_dim(dv);
    let score = Score::new().softcap(2.0).bias(BiasStrides::broadcast([1, 2, 70, 90]));
    let of = |attention: Attention| Case::new(attention.storage(Storage::all(F16)));
    let bigbird = of(sized(64, 64).into()).pattern(picked("bigbird", &sized(64, 64).extent(), 1));
    vec![
        (Set::Tiny, "d 64, causal", of(sized(64, 64).into()).pattern(Causal)),
        (Set::Full, "d 7, dv 33, causal", of(sized(7, 33).into()).pattern(Causal)),
        (Set::Full, "softcap, bias", of(sized(20, 12).score(score)).bias(BiasValues::Holes)),
        (Set::Full, "bigbird", bigbird),
    ]
}

fn run(bench: &Bench, case: &Case) -> Result<f64> {
    wgpu_attention_testing::typed!(case.attention.storage, of_types(bench, case))
}

fn of_types<Q: Element, KV: Element, O: Element>(bench: &Bench, case: &Case) -> Result<f64> {
    if case.options.path == Some(KernelPath::Cooperative) {
        bench.has_matrices()?;
    }
    if case.options.tile_kind == Some(TileKind::Direct) {
        bench.compiles_direct_gradients()?;
    }
    let tensors = case.tensors::<Q, KV>();
    let (inputs, dout, gpu) = (tensors.inputs(), drawn_dout::<O>(case), bench.with(case.options)?);
    let parts = cut(case, Cut::Gathers, 1);
    let bound = BoundBackward::new(&gpu, &case.attention, &inputs, &dout, &parts, &[]);
    let written: Vec<_> = bound.written().iter().map(|tensor| &tensor.buffer).collect();
    let record = |encoder: &mut wgpu::CommandEncoder| {
        bound.forward.encode(encoder);
        bound.backward.encode(encoder);
    };
    let bytes = bench.run(record, &written)?;
    let got = bound.take::<O>(&bytes).map_err(Error::msg)?;
    let exact = gradient_bounds(case, &inputs, &dout, (&parts, &[]));
    let ratios = gradients_within(case, &exact, &got).map_err(Error::msg)?;
    Ok(ratios.into_iter().fold(0.0, f64::max))
}
