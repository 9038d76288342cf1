//! Out and lse of calls of some heads, each element within its bound.

use super::{Checked, attention};
use wgpu_attention::reference::{Got, Rows, Tensors, VerifyOptions, verify};
use wgpu_attention::{
    Alibi, AttentionShape, BiasStrides, Causal, Element, ElementType, Gpu, Heads, Options, Outputs, Parts,
    Relative, Score, Sinks, Slopes, Storage,
};
use wgpu_attention_testing::{Case, Cut, bound, count, cut, gather, gpu_with, picked};

/// A call against the reference, for which heads that are left out have rows without keys.
pub(crate) fn within<O: Element>(gpu: &Gpu, case: &Case, parts: &Parts) -> Checked {
    let tensors: Tensors<O, O> = case.tensors();
    let inputs = tensors.inputs();
    let got = gpu.run_parts::<O, O, O>(&case.attention, &inputs, parts.clone(), Outputs::default().lse());
    let got = got.map_err(|e| format!("{e}\n{case}"))?;
    let order = |at: wgpu_attention::Position| parts.key_order(at.batch, at.head, at.i);
    let tiles = |at: wgpu_attention::Position| parts.key_tiles(at.batch, at.head, at.i);
    let options = VerifyOptions::default().rows(Rows::All).order(&order).tiles(&tiles);
    let got = Got::new(&got.out).lse(got.lse.as_deref());
    let report = verify(&case.attention, &inputs, case.pattern.as_dyn(), got, options);
    let report = report.map_err(|e| format!("{e}\n{case}"))?;
    match report.pass && report.rows_checked == case.attention.len_lse() {
        true => Ok(()),
        false => Err(format!("{report}\n{case}")),
    }
}

/// What differs from head to head: the pattern, slopes, biases, sinks, dropout.
pub(crate) fn by_head(gpu: &Gpu) -> Checked {
    let plain = || Case::new(attention());
    let blocks = picked("blocks_per_head", &attention().shape.extent(), 3);
    let bias = Score::new().bias(BiasStrides::default());
    let cases = [
        plain().pattern(blocks),
        plain().score(Score::new().with(Alibi::new(Slopes::Given))).pattern(Causal),
        plain().score(bias.softcap(3.0)),
        plain().score(Score::new().with(Sinks)).pattern(Causal),
        plain().score(Score::new().dropout(0.3, 5)),
    ];
    cases.iter().try_for_each(|case| within::<f32>(gpu, case, &case.parts()))
}

/// Parts that merge, in f32 and in 16 bits; splits that merge.
pub(crate) fn merged(gpu: &Gpu) -> Checked {
    let case = Case::new(attention()).pattern(Causal);
    within::<f32>(gpu, &case, &cut(&case, Cut::Gathers, 1))?;
    let half = case.storage(Storage::all(ElementType::F16));
    within::<half::f16>(gpu, &half, &cut(&half, Cut::Keys, 1))
}

/// Few queries: the keys are split, and grouped heads are not packed.
fn split(options: Options) -> Checked {
    let shape = AttentionShape::new(2, 6, 3, 16).kv_heads(2).kv_len(700);
    let case = Case::new(shape.heads(Heads::without(6, &[0, 3, 4]))).options(options.splits(3));
    within::<f32>(&gpu_with(case.options), &case, &case.parts())
}

#[test]
fn rows_are_within_the_bound() {
    let gpu = gpu_with(Options::default());
    by_head(&gpu).and_then(|()| merged(&gpu)).unwrap_or_else(|e| panic!("{e}"));
}

#[test]
fn splits_are_within_the_bound() {
    split(Options::default()).unwrap_or_else(|e| panic!("{e}"));
}

#[test]
fn relative_rows_go_by_the_head() {
    let relative = Score::new().with(Relative::new(69, 139).u(true).w(true));
    let case = Case::new(attention().score(relative));
    within::<f32>(&gpu_with(case.options), &case, &case.parts()).unwrap_or_else(|e| panic!("{e}"));
}

#[test]
fn any_choice_of_heads() {
    let gpu = gpu_with(Options::default());
    for (kv_heads, heads) in [(5, vec![4]), (1, vec![0, 3]), (5, vec![0, 1, 2, 3, 4]), (1, vec![2, 1, 4])] {
        let shape = AttentionShape::new(3, 5, 66, 7).kv_heads(kv_heads);
        let case = Case::new(shape.heads(Heads::only(&heads))).pattern(Causal);
        within::<f32>(&gpu, &case, &case.parts()).unwrap_or_else(|e| panic!("{e}"));
    }
}

/// With poison around the rows of computed heads.
#[test]
fn guards_and_sets() {
    let shape = attention().shape;
    for name in ["causal", "blocks_per_head", "mask_of_all"] {
        let case = Case::new(attention()).pattern(picked(name, &shape.extent(), 2));
        for check in [bound, count, gather] {
            check(&case).unwrap_or_else(|e| panic!("{e}"));
        }
    }
}
