//! Relative rows: in dq by r, in dk by u.

use crate::gradients::dout;
use crate::support::{Case, Cut, cut, gpu_with, run_backward};
use wgpu_attention::reference::Tensors;
use wgpu_attention::reference::gradient::attention_gradient;
use wgpu_attention::{AttentionShape, Causal, Full, Gpu, Parts, Relative, Score, Strides, Temperature};

fn shape(head_dim: usize) -> AttentionShape {
    AttentionShape::new(2, 4, 70, head_dim).kv_heads(2).kv_len(150).value_dim(8)
}

/// All distances of the shape; a few, clipped, in one tensor for all heads.
fn rows(head_dim: usize) -> [Relative; 3] {
    let all = Relative::new(149, 220);
    let shared = Strides { offset: 3, batch: 0, head: 0, row: head_dim as isize + 1 };
    [all, all.u(true).w(true), Relative::new(9, 25).clip(true).strides(shared).w(true)]
}

/// Every element within a share of its tensor's size: relative rows have no bound yet.
fn near_on(gpu: &Gpu, case: &Case, parts: &Parts) -> Result<(), String> {
    let tensors: Tensors<f32, f32> = case.tensors();
    let (inputs, dout) = (tensors.inputs(), dout::<f32>(case));
    let got =
        run_backward(gpu, &case.attention, &inputs, &dout, parts, 1).map_err(|e| format!("{e}\n{case}"))?;
    let exact = attention_gradient(&case.attention, &inputs, &dout, case.pattern.as_dyn());
    let exact = exact.unwrap_or_else(|e| panic!("{e}\n{case}"));
    for (name, got, exact) in
        [("dq", &got.dq, &exact.dq), ("dk", &got.dk, &exact.dk), ("dv", &got.dv, &exact.dv)]
    {
        assert_eq!(got.len(), exact.len(), "{name}");
        let size = (exact.iter().map(|x| x * x).sum::<f64>() / exact.len() as f64).sqrt();
        let distance = |(got, exact): (&f32, &f64)| (f64::from(*got) - exact).abs();
        let worst =
            got.iter().zip(exact).map(distance).fold(0.0, |a: f64, b| if b.is_nan() { b } else { a.max(b) });
        if worst.is_nan() || worst > 2e-4 * size {
            return Err(format!("{name} is off by {worst:e}, its size is {size:e}\n{case}"));
        }
    }
    Ok(())
}

pub(crate) fn relative_on(gpu: &Gpu) -> Result<(), String> {
    for relative in rows(16) {
        let case = Case::new(shape(16).score(Score::new().with(relative))).pattern(Causal);
        near_on(gpu, &case, &case.parts())?;
    }
    Ok(())
}

#[test]
fn relative_rows() {
    relative_on(&gpu_with(Default::default())).unwrap_or_else(|e| panic!("{e}"));
}

#[test]
fn odd_sizes_parts_and_terms_above() {
    let check = |case: &Case, how| {
        near_on(&gpu_with(case.options), case, &cut(case, how, 1)).unwrap_or_else(|e| panic!("{e}"));
    };
    for (head_dim, relative) in [7, 7, 7, 16].into_iter().zip(rows(7).into_iter().chain([rows(16)[1]])) {
        let case = Case::new(shape(head_dim).score(Score::new().with(relative))).pattern(Causal);
        check(&case, Cut::Whole);
        check(&case, Cut::Gathers);
    }
    // u, w and a temperature would be a buffer more than every device has.
    for relative in [rows(16)[1], rows(16)[0]] {
        let score = Score::new().scale(0.3).with(relative).softcap(3.0);
        let score = if relative.has_u() { score } else { score.with(Temperature) };
        check(&Case::new(shape(16).score(score)).pattern(Full), Cut::Whole);
    }
}
