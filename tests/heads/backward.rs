//! Gradients of calls of some heads, each element within its bound: those by what only other heads read are 0.

use super::{Checked, attention};
use wgpu_attention::reference::Tensors;
use wgpu_attention::{
    Alibi, BiasStrides, Causal, ElementType, Gpu, Options, Relative, Score, Sinks, Slopes, Storage,
};
use wgpu_attention_testing::{
    Case, GradOutcome, drawn_dout, gpu_with, gradient_bounds, gradients_within, picked,
};

/// All gradients of a case in one part.
pub(crate) fn within(gpu: &Gpu, case: &Case) -> Checked {
    let tensors: Tensors<f32> = case.tensors();
    let inputs = tensors.inputs();
    let dout = drawn_dout::<f32>(case);
    let attention = &case.attention;
    let wanted: Vec<_> = attention.score.tensors(&attention.shape).iter().map(|tensor| tensor.name).collect();
    let refused = |e| format!("{e}\n{case}");
    let plan = gpu.kernels().attention_parts(attention, case.parts()).map_err(refused)?;
    let chains = plan.backward().map_err(refused)?.explain().chains();
    let pattern = case.pattern.as_dyn();
    let got = gpu.attention_backward_with::<f32, f32, f32, f32>(attention, &inputs, &dout, pattern, &wanted);
    let got = got.map_err(refused)?;
    let promised = gradient_bounds(case, &inputs, &dout, (&case.parts(), &chains));
    let rows = GradOutcome {
        dq: got.dq.clone(),
        dk: got.dk.clone(),
        dv: got.dv.clone(),
        tensors: vec![],
        chains: vec![],
    };
    gradients_within(case, &promised, &rows)?;
    for (name, values) in &got.tensors {
        let found = promised.term(name).ok_or("no such tensor")?.compare(values.iter().copied(), 0.0);
        if !found.pass {
            return Err(format!("d {name}: {found}\n{case}"));
        }
    }
    left_out_is_zero(case, &got.dq, &got.dk)
}

/// Exactly: dq of heads that are left out, dk of the key head that none of the others reads.
fn left_out_is_zero(case: &Case, dq: &[f32], dk: &[f32]) -> Checked {
    let (attention, shape) = (&case.attention, &case.attention.shape);
    let head = |n: usize, len: usize, heads: usize| n / shape.head_dim / len % heads;
    let of_query =
        |(n, x): (usize, &f32)| *x != 0.0 && !attention.heads.computes(head(n, shape.q_len, shape.heads));
    let read = |kv_head| (0..shape.heads).any(|h| attention.heads.computes(h) && shape.kv_head(h) == kv_head);
    let of_key = |(n, x): (usize, &f32)| *x != 0.0 && !read(head(n, shape.kv_len, shape.kv_heads));
    if dq.iter().enumerate().any(of_query) || dk.iter().enumerate().any(of_key) {
        return Err(format!("a gradient of what is left out is not 0\n{case}"));
    }
    Ok(())
}

pub(crate) fn by_head(gpu: &Gpu) -> Checked {
    let plain = || Case::new(attention());
    let bias = Score::new().bias(BiasStrides::default());
    let shared = Score::new().bias(BiasStrides::broadcast([1, 1, 70, 70]));
    let cases = [
        plain().pattern(picked("blocks_per_head", &attention().shape.extent(), 3)),
        plain().score(Score::new().with(Alibi::new(Slopes::Given))).pattern(Causal),
        plain().score(bias),
        plain().score(shared),
        plain().score(Score::new().with(Sinks)).pattern(Causal),
        plain().score(Score::new().dropout(0.3, 5)),
    ];
    cases.iter().try_for_each(|case| within(gpu, case))
}

#[test]
fn gradients_are_within_the_bound() {
    by_head(&gpu_with(Options::default())).unwrap_or_else(|e| panic!("{e}"));
}

#[test]
fn relative_rows_go_by_the_head() {
    let relative = Score::new().with(Relative::new(69, 139).u(true).w(true));
    let case = Case::new(attention().score(relative));
    within(&gpu_with(case.options), &case).unwrap_or_else(|e| panic!("{e}"));
}

#[test]
fn gradients_in_16_bits() {
    let case = Case::new(attention().storage(Storage::all(ElementType::F16))).pattern(Causal);
    let tensors: Tensors<half::f16> = case.tensors();
    let dout = drawn_dout::<half::f16>(&case);
    let gpu = gpu_with(case.options);
    let pattern = case.pattern.as_dyn();
    let got =
        gpu.attention_backward::<_, _, _, half::f16>(&case.attention, &tensors.inputs(), &dout, pattern);
    let got = got.unwrap_or_else(|e| panic!("{e}"));
    let promised = gradient_bounds(&case, &tensors.inputs(), &dout, (&case.parts(), &[]));
    let rows = GradOutcome { dq: got.dq, dk: got.dk, dv: got.dv, tensors: vec![], chains: vec![] };
    gradients_within(&case, &promised, &rows).unwrap_or_else(|e| panic!("{e}"));
}
