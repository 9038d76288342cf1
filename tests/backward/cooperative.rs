//! Gradients on cooperative matrices: tensors and the gradient of out in f16, out and what is written in f32, so that nothing but the kernels rounds.
//!
//! Each variant takes a second to compile, so the cases share few of them.

use crate::counts::{self, Of, count_on};
use crate::in_f16::{options, run_in_f16};
use crate::relations::{holes, nothing_leaks, strange_values_show};
use crate::support::{
    BiasValues, Case, Cut, PATTERNS, Placement, cooperative, cut, drawn_dout, gradient_bounds,
    gradients_within, picked,
};
use half::f16;
use wgpu_attention::ElementType::{Bf16, F16, F32};
use wgpu_attention::reference::{Kind, Tensors};
use wgpu_attention::wgsl::TileKind;
use wgpu_attention::{
    Alibi, Attention, AttentionShape, BiasStrides, Buckets, Causal, Full, Gpu, Gradients, Heads, KernelPath,
    Kernels, Options, Parts, Relative, Score, Segments, Sinks, Slopes, Storage, Temperature, Window,
};

fn case(attention: impl Into<Attention>) -> Case {
    Case::new(attention).storage(Storage::all(F16).out(F32)).options(options())
}

/// Grouped heads, several tiles and blocks each way, short last ones; elements that fill no matrix.
fn shape() -> AttentionShape {
    AttentionShape::new(2, 4, 70, 20).kv_heads(2).kv_len(150).value_dim(12)
}

/// Every element within its bound.
pub(crate) fn close_on_matrices(gpu: &Gpu, case: &Case, parts: &Parts) -> Result<(), String> {
    let tensors: Tensors<f16, f16> = case.tensors();
    close_with(gpu, case, &tensors, &drawn_dout::<f16>(case), parts)
}

fn close_with(
    gpu: &Gpu,
    case: &Case,
    tensors: &Tensors<f16, f16>,
    dout: &[f16],
    parts: &Parts,
) -> Result<(), String> {
    let inputs = tensors.inputs();
    let wide: Vec<f32> = dout.iter().map(|x| x.to_f32()).collect();
    let exact = gradient_bounds(case, &inputs, &wide, (parts, &[]));
    let got = run_in_f16(gpu, &case.attention, &inputs, dout, parts).map_err(|e| format!("{e}\n{case}"))?;
    let worst = gradients_within(case, &exact, &got)?;
    println!("cooperative: worst error / bound of dq, dk, dv: {worst:.4?}, {case}");
    Ok(())
}

#[track_caller]
fn close(case: &Case) {
    close_on_matrices(&cooperative(case.options), case, &case.parts()).unwrap_or_else(|e| panic!("{e}"));
}

#[test]
fn kinds_and_lengths() {
    for kind in Kind::ALL {
        close(&case(shape()).pattern(Causal).kind(kind));
    }
    for (q_len, kv_len) in [(32, 40), (64, 64), (65, 130), (129, 33)] {
        close(&case(AttentionShape::new(1, 2, q_len, 20).kv_len(kv_len).value_dim(12)));
    }
}

#[test]
fn every_pattern() {
    for (n, (name, _)) in PATTERNS.iter().enumerate() {
        close(&case(shape()).pattern(picked(name, &shape().extent(), n as u64)).seed(n as u64));
    }
}

/// Matrices of columns to spare, of none, and so wide that dk and dv take a pass each; groups of 4 that are not whole.
#[test]
fn dimensions() {
    for (head_dim, value_dim) in [(64, 64), (7, 33), (16, 8), (40, 80), (1, 1)] {
        let shape = AttentionShape::new(1, 2, 70, head_dim).kv_heads(1).kv_len(99).value_dim(value_dim);
        close(&case(shape).pattern(Causal));
    }
}

#[test]
fn terms() {
    let bias = BiasStrides::broadcast([2, 4, 70, 150]);
    for score in [
        Score::new().softcap(2.0),
        Score::new().with(Temperature),
        Score::new().with(Sinks),
        Score::new().with(Buckets::new(8, 20).bidirectional(true)),
        Score::new().with(Alibi::new(Slopes::Given)),
        Score::new().scale(-0.7).softcap(3.0).bias(bias),
    ] {
        close(&case(shape().score(score)).pattern(Causal).bias(BiasValues::Holes));
    }
}

#[test]
fn layouts_heads_and_types() {
    for placement in [Placement::Blhd, Placement::Gap(3), Placement::Offset(4)] {
        close(&case(placement.apply(shape())).pattern(Causal));
    }
    close(&case(shape().heads(Heads::only(&[1, 3]))).pattern(Window { before: 40, after: 3 }));
    // Written in f16, too, behind an out of f16.
    let case = case(shape()).storage(Storage::all(F16)).pattern(Causal);
    crate::gradients::close_on(&cooperative(case.options), &case, &case.parts())
        .unwrap_or_else(|e| panic!("{e}"));
}

#[test]
fn parts_and_orders() {
    let case = case(shape()).pattern(picked("blocks_per_head", &shape().extent(), 3));
    for how in [Cut::Keys, Cut::Gathers, Cut::EmptyFirst] {
        let closed = close_on_matrices(&cooperative(case.options), &case, &cut(&case, how, 1));
        closed.unwrap_or_else(|e| panic!("{how:?}: {e}"));
    }
}

/// Behind attention on the ordinary units, whose maxima are never late.
#[test]
fn behind_the_scalar_kernel() {
    let options = Options::default().path(KernelPath::Scalar).gradient_path(KernelPath::Cooperative);
    close(&case(shape()).options(options).pattern(Causal).kind(Kind::Peaky));
}

/// Weights and derivatives of every size come to lie where f16 has all its digits: values and gradients of out that are tiny, large, or
/// 2^20 apart from row to row.
pub(crate) fn sizes_on(gpu: &Gpu) -> Result<(), String> {
    let case = case(shape()).pattern(Causal);
    let drawn = drawn_dout::<f16>(&case);
    for (of_v, of_dout) in [(-8, -8), (11, 11), (-8, 11)] {
        let mut tensors: Tensors<f16, f16> = case.tensors();
        let scaled = |x: f16, power: i32| f16::from_f32(x.to_f32() * 2f32.powi(power));
        tensors.v.iter_mut().for_each(|v| *v = scaled(*v, of_v));
        let rows = drawn.chunks(shape().value_dim).enumerate();
        let dout = rows.flat_map(|(row, dout)| {
            let power = if row % 3 == 0 { -9 } else { of_dout };
            dout.iter().map(move |x| scaled(*x, power))
        });
        let dout: Vec<f16> = dout.collect();
        close_with(gpu, &case, &tensors, &dout, &case.parts())?;
    }
    Ok(())
}

#[test]
fn sizes_that_f16_does_not_have() {
    sizes_on(&cooperative(options())).unwrap_or_else(|e| panic!("{e}"));
}

/// Few enough keys that all of a count is exact in f16.
fn counted() -> Case {
    let shape = AttentionShape::new(2, 4, 70, 8).kv_heads(2).kv_len(45).value_dim(4);
    Case::new(shape.score(Score::new().scale(0.5))).options(options())
}

pub(crate) fn counts_on(gpu: &Gpu) -> Result<(), String> {
    let case = counted();
    for name in ["causal", "blocks_per_head"] {
        let case = case.clone().pattern(picked(name, &case.attention.shape.extent(), 3));
        for of in [Of::Dq, Of::Dk, Of::Dv] {
            count_on(gpu, &case, &case.parts(), of)?;
        }
    }
    Ok(())
}

#[test]
fn integers_are_exact() {
    counts_on(&cooperative(options())).unwrap_or_else(|e| panic!("{e}"));
    // A constant bias of -2^30, and a part by itself.
    let case = Case { attention: counted().attention.score(counts::biased()), ..counted() };
    let parts = cut(&case, Cut::Gathers, 1);
    for of in [Of::Dq, Of::Dk, Of::Dv] {
        count_on(&cooperative(options()), &case, &parts, of).unwrap_or_else(|e| panic!("{e}"));
    }
}

pub(crate) fn leaks_on(gpu: &Gpu) -> Result<(), String> {
    let case = holes().options(options());
    nothing_leaks(gpu, &case, &case.parts())
}

#[test]
fn what_is_left_out_does_not_matter() {
    leaks_on(&cooperative(options())).unwrap_or_else(|e| panic!("{e}"));
}

#[test]
fn what_is_not_finite_shows_where_it_is_attended() {
    strange_values_show(&cooperative(options())).unwrap_or_else(|e| panic!("{e}"));
}

#[test]
fn the_same_call_twice_gives_the_same_bits() {
    let case = case(shape()).pattern(picked("bigbird", &shape().extent(), 1));
    let (tensors, dout): (Tensors<f16, f16>, _) = (case.tensors(), drawn_dout::<f16>(&case));
    let gpu = cooperative(case.options);
    let once = || run_in_f16(&gpu, &case.attention, &tensors.inputs(), &dout, &case.parts()).expect("guards");
    assert_eq!(once(), once());
}

/// Which path gradients have, and why, under these options.
fn choice(
    options: Options,
    attention: &Attention,
    gradients: impl Fn(Gradients) -> Gradients,
) -> Result<(KernelPath, String), String> {
    let kernels: Kernels = cooperative(options).kernels().clone();
    let plan = kernels.attention(attention, &Full).map_err(|e| e.to_string())?;
    let backward = plan.backward_with(gradients(Gradients::of(attention))).map_err(|e| e.to_string())?;
    assert_eq!(backward.explain().choice, *backward.path());
    Ok((backward.path().path, backward.path().why.clone()))
}

#[test]
fn the_choice_of_a_path_is_explained() {
    let halves = shape().storage(Storage::all(F16));
    let as_it_is = |gradients: Gradients| gradients;
    let on_matrices = Options::default().path(KernelPath::Cooperative);
    let scalar = Options::default().path(KernelPath::Scalar);
    let chosen = |options, attention: &Attention| choice(options, attention, as_it_is).expect("a plan");

    // As attention itself, unless the caller says otherwise.
    let forced = "as attention itself: the caller forced it";
    assert_eq!(chosen(on_matrices, &halves), (KernelPath::Cooperative, forced.into()));
    assert_eq!(chosen(scalar, &halves), (KernelPath::Scalar, forced.into()));
    let other = chosen(on_matrices.gradient_path(KernelPath::Scalar), &halves);
    assert_eq!(other, (KernelPath::Scalar, "the caller forced it".into()));
    let other = chosen(scalar.gradient_path(KernelPath::Cooperative), &halves);
    assert_eq!(other, (KernelPath::Cooperative, "the caller forced it".into()));

    // What they do not take: by itself on the other path, forced an error.
    let segmented = halves.clone().score(Score::new().with(Segments));
    let wide = AttentionShape::new(1, 1, 64, 256).storage(Storage::all(F16));
    let few = shape().kv_len(5).storage(Storage::all(F16));
    for (attention, dout, what) in [
        (&halves, F32, "gradients.dout"),
        (&halves, Bf16, "gradients.dout"),
        (&segmented, F16, "score"),
        (&wide, F16, "max_compute_workgroup_storage_size"),
        (&few, F16, "kv_len"),
    ] {
        let of_dout = |gradients: Gradients| gradients.dout(dout);
        if let Ok((path, why)) = choice(on_matrices, attention, of_dout) {
            assert!(path == KernelPath::Scalar && why.contains(what), "{path}: {why}");
        }
        let error = choice(on_matrices.gradient_path(KernelPath::Cooperative), attention, of_dout);
        let error = error.expect_err("it cannot run");
        assert!(error.contains(what) || error.contains("smallest"), "{error}");
    }
    let relative = halves.clone().score(Score::new().with(Relative::new(149, 219)));
    let error = choice(scalar.gradient_path(KernelPath::Cooperative), &relative, as_it_is);
    assert!(error.expect_err("it cannot run").contains("score"));
}

/// The tensors of terms have gradients beside those in matrices, by a pass of their own.
#[test]
fn gradients_of_tensors_go_beside() {
    let attention = shape().score(Score::new().with(Temperature)).storage(Storage::all(F16));
    let kernels = cooperative(options()).kernels().clone();
    let backward = kernels.attention(&attention, &Full).and_then(|plan| plan.backward()).expect("a plan");
    assert_eq!(backward.path().path, KernelPath::Cooperative);
    assert_eq!(backward.explain().tensors.len(), 1);
    let staged = kernels.with_options(Options::default().tile_kind(TileKind::Staged)).expect("valid options");
    let backward = staged.attention(&attention, &Full).and_then(|plan| plan.backward()).expect("a plan");
    assert_eq!(backward.path().path, KernelPath::Scalar);
}
