//! What must not change when a call is put differently.

use crate::support::{Case, Cut, Draw, cut, failed, gpu, gpu_with, picked, run};
use wgpu_attention::ElementType::{F16, F32};
use wgpu_attention::reference::{Kind, Position, row};
use wgpu_attention::{
    Attention, AttentionShape, BiasStrides, Element, Gpu, Inputs, Options, Parts, Score, Storage,
};

fn outcome<E: Element, O: Element>(
    gpu: &Gpu,
    case: &Case,
    inputs: &Inputs<'_, E>,
    parts: &Parts,
) -> crate::support::Outcome<O> {
    let got = run::<E, E, O>(gpu, &case.attention, inputs, parts, true);
    got.unwrap_or_else(|e| panic!("{}", failed("guards", case, e)))
}

/// Chunks of a tensor in another order.
fn permuted<T: Copy>(data: &[T], order: &[u32]) -> Vec<T> {
    let size = data.len() / order.len();
    order.iter().flat_map(|&n| data[n as usize * size..][..size].iter().copied()).collect()
}

fn heads_permuted<E: Element, O: Element + PartialEq>(attention: impl Into<Attention>, seed: u64) {
    // Batch items and heads together: B H places of [L, D].
    let attention = attention.into();
    let shape = attention.shape;
    let case = Case::new(attention).pattern(picked("causal", &shape.extent(), seed)).seed(seed);
    let order = Draw::new(seed, 19).permutation(shape.batch * shape.heads);
    let tensors = case.tensors::<E, E>();
    let [q, k, v] = [&tensors.q, &tensors.k, &tensors.v].map(|t| permuted(t, &order));
    let moved = Inputs::new(&q, &k, &v);
    for how in [Cut::Whole, Cut::Keys] {
        let parts = cut(&case, how, seed);
        let before = outcome::<E, O>(gpu(), &case, &tensors.inputs(), &parts);
        let after = outcome::<E, O>(gpu(), &case, &moved, &parts);
        let lse = [&before, &after].map(|outcome| outcome.lse.clone().expect("asked for"));
        assert!(permuted(&before.out, &order) == after.out, "out of the order {order:?}\n  {case}");
        assert!(permuted(&lse[0], &order) == lse[1], "lse of the order {order:?}\n  {case}");
    }
}

#[test]
fn permuting_heads_permutes_the_output() {
    for seed in 0..4 {
        let shape = AttentionShape::new(2, 4, 67, 16);
        heads_permuted::<f32, f32>(shape, seed);
        heads_permuted::<half::f16, half::f16>(shape.storage(Storage::all(F16)), seed);
        heads_permuted::<half::f16, half::f16>(
            AttentionShape::new(3, 3, 67, 7).storage(Storage::all(F16)),
            seed,
        );
    }
}

#[test]
fn a_constant_added_to_all_scores_of_a_row_changes_nothing() {
    // The bias is a constant of the row; the output must be that of no bias at all, within the bound of the biased call.
    let plain = AttentionShape::new(1, 2, 67, 16);
    let strides = BiasStrides { head: 67, query: 1, ..Default::default() };
    let biased = plain.score(Score::new().bias(strides));
    for kind in [Kind::Normal, Kind::Peaky, Kind::Rising] {
        for name in ["full", "window"] {
            let case = Case::new(&biased).pattern(picked(name, &plain.extent(), 3)).kind(kind);
            let tensors = case.tensors::<f32, f32>();
            let mut draw = Draw::new(3, 23);
            let shift: Vec<f32> = (0..134).map(|_| draw.pick(&[0.0, 1.0, -30.0, 500.0, -1e5])).collect();
            let unbiased = Inputs::new(&tensors.q, &tensors.k, &tensors.v);
            let inputs = unbiased.clone().tensor("bias", &shift);
            let got = outcome::<f32, f32>(gpu(), &case, &inputs, &case.parts());
            let lse = got.lse.expect("asked for");
            for n in 0..134 {
                let at = Position { batch: 0, head: n / 67, i: n % 67 };
                let pattern = case.pattern.as_dyn();
                let want = row(plain, &unbiased, pattern, at, None).expect("a valid row");
                let bound = row(&biased, &inputs, pattern, at, None).expect("a valid row");
                for c in 0..16 {
                    let (got, want, bound) = (f64::from(got.out[n * 16 + c]), want.out[c], bound.bound[c]);
                    let within = got.is_finite() && (got - want).abs() <= bound;
                    assert!(
                        within,
                        "{at}, column {c}: {got:e}, {want:e} without bias, bound {bound:e}\n  {case}"
                    );
                }
                let want = if want.kept == 0 { want.lse } else { want.lse + f64::from(shift[n]) };
                let (got, bound) = (f64::from(lse[n]), bound.lse_bound);
                let within = got.is_finite() && (got - want).abs() <= bound;
                assert!(within, "lse of {at}: {got:e}, want {want:e}, bound {bound:e}\n  {case}");
            }
        }
    }
}

#[test]
fn many_dispatches_equal_one() {
    let few = gpu_with(Options::default().dispatch_flops(1e18));
    let many = gpu_with(Options::default().dispatch_flops(1.0));
    for element in [F32, F16] {
        let shape = AttentionShape::new(2, 3, 150, 16);
        let attention = shape.storage(Storage::all(element).out(F32));
        for (name, how) in [("causal", Cut::Whole), ("blocks_per_head", Cut::Pairs), ("window", Cut::Gathers)]
        {
            let case = Case::new(&attention).pattern(picked(name, &shape.extent(), 4));
            let parts = cut(&case, how, 4);
            let dispatches = |gpu: &Gpu| {
                let plan = gpu.kernels().attention_parts(&attention, &parts).expect("a plan");
                plan.explain().dispatches
            };
            assert!(dispatches(&many) > dispatches(&few), "{case}");
            if element == F32 {
                let tensors = case.tensors::<f32, f32>();
                let outcomes =
                    [&few, &many].map(|gpu| outcome::<f32, f32>(gpu, &case, &tensors.inputs(), &parts));
                assert!(outcomes[0] == outcomes[1], "{case}; Cut::{how:?}");
            } else {
                let tensors = case.tensors::<half::f16, half::f16>();
                let outcomes =
                    [&few, &many].map(|gpu| outcome::<half::f16, f32>(gpu, &case, &tensors.inputs(), &parts));
                assert!(outcomes[0] == outcomes[1], "{case}; Cut::{how:?}");
            }
        }
    }
}
