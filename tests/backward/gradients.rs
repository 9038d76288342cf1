//! Every element of dq, dk and dv against the formula in f64, within its bound.

use crate::support::{
    BiasValues, Case, Cut, Draw, PATTERNS, Placement, cooperative, cut, drawn_dout, gpu_with,
    gradient_bounds, gradients_within, kinds_of_tile, picked, run_backward,
};
use wgpu_attention::ElementType::{Bf16, F16, F32};
use wgpu_attention::reference::{Kind, Tensors};
use wgpu_attention::wgsl::TileKind;
use wgpu_attention::{
    AttentionShape, BiasStrides, Buckets, Causal, Element, Full, Gpu, KernelPath, Options, Parts, Score,
    Segments, Sinks, Storage, Temperature, Window,
};
use wgpu_attention_testing::typed;

/// The kinds of tiles that the passes have.
pub(crate) const KINDS: [TileKind; 2] = [TileKind::Staged, TileKind::Direct];

/// Forward and backward over these parts, every element within its bound.
pub(crate) fn close_on(gpu: &Gpu, case: &Case, parts: &Parts) -> Result<(), String> {
    close_on_each(std::slice::from_ref(gpu), case, parts)
}

/// The same on several kernels, for which the bound is one.
fn close_on_each(gpus: &[Gpu], case: &Case, parts: &Parts) -> Result<(), String> {
    typed!(case.attention.storage, close_typed(gpus, case, parts))
}

fn close_typed<Q: Element, KV: Element, O: Element>(
    gpus: &[Gpu],
    case: &Case,
    parts: &Parts,
) -> Result<(), String> {
    let tensors: Tensors<Q, KV> = case.tensors();
    let (inputs, dout) = (tensors.inputs(), drawn_dout::<O>(case));
    let exact = gradient_bounds(case, &inputs, &dout, (parts, &[]));
    for gpu in gpus {
        let got = run_backward(gpu, &case.attention, &inputs, &dout, parts, 1);
        let named = |e: String| format!("{:?}: {e}", gpu.kernels().options().tile_kind);
        let got = got.map_err(|e| named(format!("{e}\n{case}")))?;
        let worst = gradients_within(case, &exact, &got).map_err(named)?;
        println!("worst error / bound of dq, dk, dv: {worst:.4?}, {case}");
    }
    Ok(())
}

/// Under one kind of tile, the n-th of them by turns: where what is tried is a text of its own, which both kinds of tile take in.
pub(crate) fn close_by_turns(n: usize, case: &Case, parts: &Parts) {
    let kind = KINDS[n % KINDS.len()];
    close_on(&gpu_with(case.options.tile_kind(kind)), case, parts).unwrap_or_else(|e| panic!("{e}"));
}

/// Whatever the tile: under those that are the turn of the caller's cases.
#[track_caller]
pub(crate) fn close(case: &Case, parts: &Parts) {
    close_on_each(&gpus_in_turn(case), case, parts).unwrap_or_else(|e| panic!("{e}"));
}

/// Kernels of the kinds of tile whose turn it is for the caller's case.
#[track_caller]
pub(crate) fn gpus_in_turn(case: &Case) -> Vec<Gpu> {
    let variant = case.variant().map(|variant| format!("{}: {variant}", std::panic::Location::caller()));
    let kinds = kinds_of_tile(variant.as_deref()).into_iter();
    kinds.map(|kind| gpu_with(case.options.tile_kind(kind))).collect()
}

fn shape() -> AttentionShape {
    AttentionShape::new(2, 4, 70, 16).kv_heads(2).kv_len(150).value_dim(8)
}

#[test]
fn plain() {
    for kind in Kind::ALL {
        let case = Case::new(shape()).pattern(Causal).kind(kind);
        close(&case, &case.parts());
    }
}

#[test]
fn every_pattern() {
    for seed in 0..2 {
        for (name, _) in PATTERNS {
            let case = Case::new(shape()).pattern(picked(name, &shape().extent(), seed)).seed(seed);
            close(&case, &case.parts());
        }
    }
}

#[test]
fn parts_and_orders() {
    for shape in [shape(), shape().q_len(150).kv_len(70)] {
        for pattern in ["causal", "blocks_per_head", "mask_of_all"] {
            let case = Case::new(shape).pattern(picked(pattern, &shape.extent(), 3));
            for how in Cut::ALL {
                close(&case, &cut(&case, how, 1));
            }
        }
        let case = Case::new(shape).pattern(picked("strided", &shape.extent(), 1));
        let lowered = Parts::lower(case.pattern.as_dyn(), case.grid()).expect("a pattern of the crate");
        close(&case, &lowered);
    }
}

/// Parts add up in f32, and the sum is rounded once.
#[test]
fn parts_in_16_bits() {
    for (n, (element, dim)) in [(F16, 16), (Bf16, 7), (F16, 7), (Bf16, 16)].into_iter().enumerate() {
        let shape = AttentionShape::new(2, 4, 70, dim).kv_heads(2).kv_len(150).value_dim(8);
        let placed = if n < 2 { Placement::Gap(3).apply(shape) } else { shape.into() };
        let case = Case::new(placed).pattern(Causal).storage(Storage::all(element));
        close_by_turns(n, &case, &cut(&case, Cut::Gathers, 1));
    }
}

#[test]
fn sizes() {
    let mut draw = Draw::new(1, 31);
    let dims = [(1, 1), (7, 5), (4, 64), (64, 3), (130, 64), (256, 256)];
    for (n, (head_dim, value_dim)) in dims.into_iter().enumerate() {
        let heads = draw.pick(&[1, 2, 6]);
        let (q_len, kv_len) = (1 + draw.below(90), 1 + draw.below(140));
        let shape = AttentionShape::new(1, heads, q_len, head_dim).value_dim(value_dim).kv_len(kv_len);
        let case = Case::new(shape.kv_heads(1)).pattern(Causal);
        close(&case, &case.parts());
        // What other blocks change knows nothing of dimensions.
        let case = case.pattern(Full).blocks(16, 32);
        close_by_turns(n, &case, &case.parts());
    }
}

#[test]
fn terms() {
    let sizes = [2, 4, 70, 150];
    let bias = BiasStrides::broadcast(sizes);
    for score in [
        Score::new().softcap(2.0),
        Score::new().with(Temperature),
        Score::new().alibi(),
        Score::new().with(Buckets::new(8, 20).bidirectional(true)),
        Score::new().bias(bias),
        Score::new().with(Sinks),
        Score::new().softcap(2.0).with(Sinks),
        Score::new().with(Segments),
        Score::new().softcap(2.0).with(Segments),
        Score::new().scale(-0.7).softcap(3.0).bias(bias),
    ] {
        let case = Case::new(shape().score(score)).pattern(Causal);
        close(&case, &case.parts());
        close(&case.clone().bias(BiasValues::Holes), &case.parts());
    }
    let case = Case::new(shape().score(Score::new().softcap(2.0).bias(bias)));
    close(&case, &cut(&case, Cut::Gathers, 1));
}

/// Every type under both kinds of tile, and in rows of both alignments, which are read and written by texts of their own.
#[test]
fn element_types() {
    let storages = [
        Storage::all(F16),
        Storage::all(Bf16),
        Storage::all(F16).out(F32),
        Storage::all(Bf16).out(F32),
        Storage::default().kv(F16),
    ];
    for (n, storage) in storages.into_iter().enumerate() {
        for (m, dim) in [16, 7].into_iter().enumerate() {
            let shape = AttentionShape::new(1, 4, 70, dim).kv_heads(2).kv_len(90);
            let case = Case::new(shape).pattern(Window { before: 40, after: 3 }).storage(storage);
            close_by_turns(n + m, &case, &case.parts());
        }
    }
}

#[test]
fn layouts() {
    for placement in [
        Placement::Blhd,
        Placement::PackedQkv,
        Placement::Gap(3),
        Placement::Offset(5),
        Placement::Reversed(2),
    ] {
        let shape = AttentionShape::new(2, 2, 40, 8);
        let case = Case::new(placement.apply(shape)).pattern(Causal);
        close(&case, &case.parts());
    }
}

/// The forward pass on cooperative matrices leaves maxima that scores may be above.
#[test]
fn after_cooperative_matrices() {
    let options = Options::default().path(KernelPath::Cooperative);
    let gpu = cooperative(options);
    let shape = AttentionShape::new(1, 4, 70, 16).kv_heads(2).kv_len(200);
    for kind in [Kind::Normal, Kind::Peaky, Kind::Rising] {
        for score in [Score::new(), Score::new().softcap(20.0).alibi()] {
            let case = Case::new(shape.score(score)).storage(Storage::all(F16).out(F32)).kind(kind);
            let case = case.pattern(Causal).options(options);
            close_on(&gpu, &case, &case.parts()).unwrap_or_else(|e| panic!("{e}"));
        }
    }
}
