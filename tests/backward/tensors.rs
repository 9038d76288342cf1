//! Gradients of the tensors of the score's terms, each element against the formula in f64.

use crate::counts::bits;
use crate::gradients::{KINDS, gpus_in_turn};
use crate::support::{
    BiasValues, Case, Cut, cut, drawn_dout, gpu_with, gradient_bounds, picked, run_backward_with, storage,
};
use wgpu_attention::reference::Tensors;
use wgpu_attention::reference::gradient::attention_gradient;
use wgpu_attention::{
    Alibi, AttentionGradBuffers, AttentionShape, Bias, BiasStrides, Buckets, Causal, Full, Gpu, Inputs,
    Parts, Relative, Score, Segments, Sinks, Site, Slopes, Strides, Temperature, Term,
};

/// Grouped heads, several tiles and blocks each way, short last blocks.
pub(crate) fn shape() -> AttentionShape {
    AttentionShape::new(2, 4, 70, 8).kv_heads(2).kv_len(150).value_dim(8)
}

/// All gradients of tensors, each element within a share of the root of the mean square.
pub(crate) fn tensors_on(gpu: &Gpu, case: &Case, parts: &Parts) -> Result<(), String> {
    let tensors: Tensors<f32> = case.tensors();
    let dout = drawn_dout::<f32>(case);
    let wanted: Vec<_> = case.attention.score.tensors(&case.attention.shape).iter().map(|t| t.name).collect();
    assert!(!wanted.is_empty());
    let got = run_backward_with(gpu, &case.attention, &tensors.inputs(), &dout, parts, 2, &wanted);
    let got = got.map_err(|e| format!("{e}\n{case}"))?;
    let promised = gradient_bounds(case, &tensors.inputs(), &dout, (parts, &got.chains));
    for (name, got) in &got.tensors {
        let promised = promised.term(name).expect("the reference has all");
        let found = promised.compare(got.iter().copied(), 0.0);
        if !found.pass || found.unspecified > 0 {
            return Err(format!("d {name}: {found}\n{case}"));
        }
        println!("d {name}: worst error/bound {:.4}", found.worst.as_ref().map_or(0.0, |worst| worst.ratio));
        let exact = &promised.out;
        // Sums of ds, which cancel: of the size of the largest, rather.
        let scale = exact.iter().fold(0.0f64, |max, x| max.max(x.abs()));
        assert!(scale > 1e-3, "{name} is all but 0\n{case}");
        for (n, (got, exact)) in got.iter().zip(exact).enumerate() {
            let error = (f64::from(*got) - exact).abs();
            if error.is_nan() || error > 1e-4 * scale || *exact == 0.0 && *got != 0.0 && error > 1e-6 * scale
            {
                return Err(format!("d {name}[{n}] is {got:e}, not {exact:e}, of up to {scale:e}\n{case}"));
            }
        }
    }
    Ok(())
}

pub(crate) fn scored(term: impl Into<Term>) -> Case {
    Case::new(shape().score(Score::new().with(term))).pattern(Causal)
}

/// Whatever the tile: under those that are the turn of the caller's cases.
#[track_caller]
fn close(case: &Case, parts: &Parts) {
    for gpu in gpus_in_turn(case) {
        let kind = gpu.kernels().options().tile_kind;
        tensors_on(&gpu, case, parts).unwrap_or_else(|e| panic!("{kind:?}: {e}"));
    }
}

/// Per pair, broadcast along each axis, over the distance, reversed.
pub(crate) fn biases() -> Vec<BiasStrides> {
    let sizes = [[2, 4, 70, 150], [1, 1, 70, 150], [1, 4, 1, 150], [2, 1, 1, 150], [1, 1, 1, 150]];
    let reversed = BiasStrides { offset: 69 * 160 + 3, batch: 0, head: 0, query: -160, key: 1 };
    let others = [BiasStrides::toeplitz(70, 150), reversed];
    sizes.into_iter().map(BiasStrides::broadcast).chain(others).collect()
}

#[test]
fn every_kind_of_bias() {
    for strides in biases() {
        let case = Case::new(shape().score(Score::new().bias(strides))).pattern(Causal);
        close(&case, &case.parts());
    }
    let case = Case::new(shape().score(Score::new().softcap(2.0).bias(biases()[0]))).pattern(Causal);
    close(&case.clone().bias(BiasValues::Holes), &case.parts());
    // The second one alone: beside the first it takes more buffers than these devices have (`biases.rs` of the command line's tests).
    let score = Score::new().with(Bias::second(BiasStrides::toeplitz(70, 150)));
    let case = Case::new(shape().score(score)).pattern(Causal);
    close(&case, &case.parts());
}

#[test]
fn terms_by_head_and_by_distance() {
    let relative = Relative::new(149, 220);
    let shared = Strides { offset: 3, batch: 0, head: 0, row: 9 };
    for term in [
        Alibi::new(Slopes::Given).into(),
        Alibi::new(Slopes::Given).symmetric(true).into(),
        Temperature.into(),
        Buckets::new(8, 20).bidirectional(true).into(),
        relative.into(),
        relative.u(true).w(true).into(),
        Term::from(Relative::new(9, 25).clip(true).strides(shared).w(true)),
        Sinks.into(),
        Segments.into(),
    ] {
        let case = scored(term);
        close(&case, &case.parts());
    }
}

#[test]
fn terms_under_others() {
    for score in [
        Score::new().softcap(2.0).with(Temperature),
        Score::new().softcap(2.0).with(Alibi::new(Slopes::Given)).with(Sinks),
        Score::new().softcap(3.0).with(Relative::new(149, 220).u(true)),
    ] {
        let case = Case::new(shape().score(score)).pattern(Full);
        close(&case, &case.parts());
    }
}

#[test]
fn parts_and_orders() {
    let slopes = Term::from(Alibi::new(Slopes::Given));
    for term in [slopes, Relative::new(149, 220).u(true).into(), Sinks.into(), Segments.into()] {
        let case = scored(term).pattern(picked("blocks_per_head", &shape().extent(), 3));
        close(&case, &cut(&case, Cut::Gathers, 1));
    }
    let case = Case::new(shape().score(Score::new().bias(biases()[1])));
    close(&case, &cut(&case, Cut::Gathers, 1));
}

/// Scores of 0: v_j = a_j e_0, do_i = n_i^2 e_0, a in {0, 1}, n_i the keys of query i. Then ds_ij = n_i a_j - A_i is an integer, and so is
/// every sum of them; with q in {0, 1}, twice d r is one at a scale of 1/2.
pub(crate) fn count_on(gpu: &Gpu, case: &Case, parts: &Parts) -> Result<(), String> {
    let shape = case.attention.shape;
    let mut tensors: Tensors<f32> = case.tensors();
    tensors.q = bits(shape.len_q(), case.seed, 1);
    tensors.k.fill(0.0);
    tensors.v.fill(0.0);
    let a = bits(shape.len_k() / shape.head_dim, case.seed, 3);
    tensors.v.chunks_mut(shape.value_dim).zip(&a).for_each(|(v, a)| v[0] = *a);
    tensors.terms.iter_mut().for_each(|(_, values)| values.fill(0.0));
    let mut dout = vec![0.0; shape.len_out()];
    for (row, dout) in dout.chunks_mut(shape.value_dim).enumerate() {
        let (i, head, batch) =
            (row % shape.q_len, row / shape.q_len % shape.heads, row / shape.q_len / shape.heads);
        let site = Site { batch, head, extent: shape.extent() };
        let keys = (0..shape.kv_len).filter(|&j| case.pattern.as_dyn().keep(&site, i, j)).count() as f32;
        dout[0] = if head % 2 == 0 { keys * keys } else { -keys * keys };
    }
    let exact = attention_gradient(&case.attention, &tensors.inputs(), &dout, case.pattern.as_dyn());
    let exact = exact.unwrap_or_else(|e| panic!("{e}\n{case}"));
    let wanted: Vec<_> = exact.terms.iter().map(|(name, _)| *name).collect();
    let got = run_backward_with(gpu, &case.attention, &tensors.inputs(), &dout, parts, 1, &wanted)?;
    for ((name, got), (_, exact)) in got.tensors.iter().zip(&exact.terms) {
        let unit = if name.starts_with("relative") { 0.5 } else { 1.0 };
        assert!(exact.iter().any(|x| x.abs() >= unit), "{name} is 0\n{case}");
        for (n, (got, exact)) in got.iter().zip(exact).enumerate() {
            let (got, want) = (f64::from(*got) / unit, (exact / unit).round());
            assert!((exact / unit - want).abs() < 1e-6, "{name}[{n}]: {exact} is no integer\n{case}");
            if got.is_nan() || (got - want).abs() >= 0.25 {
                return Err(format!("d {name}[{n}] is {got}, not {want}\n{case}"));
            }
        }
    }
    Ok(())
}

pub(crate) fn counted() -> Vec<Case> {
    let pattern = || picked("blocks_per_head", &shape().extent(), 3);
    let half = |term: Term| Case::new(shape().score(Score::new().scale(0.5).with(term))).pattern(pattern());
    let bias = |strides| Case::new(shape().score(Score::new().scale(0.5).bias(strides))).pattern(pattern());
    let table = Buckets::new(8, 20).bidirectional(true);
    let [keys, distances] = [biases()[2], biases()[5]];
    vec![bias(keys), bias(distances), half(table.into()), half(Relative::new(149, 220).into())]
}

#[test]
fn sums_that_are_integers() {
    for case in counted() {
        for how in [Cut::Whole, Cut::Gathers] {
            for kind in KINDS {
                let gpu = gpu_with(case.options.tile_kind(kind));
                count_on(&gpu, &case, &cut(&case, how, 1)).unwrap_or_else(|e| panic!("{kind:?}: {e}"));
            }
        }
    }
}

#[test]
fn the_same_call_gives_the_same_bits() {
    let cases = [scored(Alibi::new(Slopes::Given)), scored(Relative::new(149, 220).u(true))];
    for (case, kind) in cases.iter().flat_map(|case| KINDS.map(|kind| (case, kind))) {
        let (tensors, dout): (Tensors<f32>, _) = (case.tensors(), drawn_dout::<f32>(case));
        let wanted: Vec<_> = tensors.terms.iter().map(|(name, _)| *name).collect();
        let run = |times| {
            let (gpu, parts) = (gpu_with(case.options.tile_kind(kind)), case.parts());
            let got =
                run_backward_with(&gpu, &case.attention, &tensors.inputs(), &dout, &parts, times, &wanted);
            let got = got.unwrap_or_else(|e| panic!("{e}\n{case}"));
            got.tensors.iter().flat_map(|(_, x)| x.iter().map(|x| x.to_bits())).collect::<Vec<_>>()
        };
        assert_eq!(run(1), run(3), "{case}");
    }
}

/// A sink takes -p D of its rows: of one key of score 0 and value 2 beside a sink of 0, p is 1/2 and D is do, so that it gets -do / 2. Nothing
/// comes of a sink of minus infinity, of a row without keys, whatever its dout; what is not finite shows in its head alone.
#[test]
fn sinks_by_hand() {
    let shape = AttentionShape::new(2, 3, 40, 4).kv_len(40);
    let attention = shape.score(Score::new().with(Sinks));
    let (q, k, mut v, mut dout) = (
        vec![0.0; shape.len_q()],
        vec![0.0; shape.len_k()],
        vec![0.0; shape.len_k()],
        vec![0.0; shape.len_out()],
    );
    v.iter_mut().step_by(4).for_each(|v| *v = 2.0);
    for (row, dout) in dout.chunks_mut(4).enumerate() {
        dout[0] = if row % 40 == 7 { f32::NAN } else { (row % 40) as f32 };
    }
    // Query 7 sees nothing, every other itself.
    let own = wgpu_attention::PairPredicate::new(|i, j| i == j && i != 7);
    let sinks = |dout: &[f32], sinks: [f32; 3]| {
        let inputs = Inputs::new(&q, &k, &v).tensor("sinks", &sinks);
        let gpu = gpu_with(Default::default());
        let got = gpu.attention_backward_with::<_, _, _, f32>(&attention, &inputs, dout, &own, &["sinks"]);
        let got = got.unwrap_or_else(|e| panic!("{e}")).tensor("sinks").expect("it was asked for").to_vec();
        let exact = attention_gradient(&attention, &inputs, dout, &own).unwrap_or_else(|e| panic!("{e}"));
        for (got, exact) in got.iter().zip(exact.term("sinks").expect("the reference has it")) {
            assert!(
                got.is_nan() && exact.is_nan() || (f64::from(*got) - exact).abs() < 1e-2,
                "{got} {exact}"
            );
        }
        got
    };
    let all = 2.0 * (780.0 - 7.0);
    let got = sinks(&dout, [0.0, f32::NEG_INFINITY, 0.0]);
    assert!((got[0] + all / 2.0).abs() < 1e-2 && got[1] == 0.0, "{got:?}");
    dout[4 * (3 * 40 - 1)] = f32::NAN;
    let got = sinks(&dout, [0.0, 0.0, 0.0]);
    assert!(got[0].is_finite() && got[1].is_finite() && got[2].is_nan(), "{got:?}");
}

/// NaN in rows without keys, in r that no pair reads, and in what the pattern leaves out.
pub(crate) fn nothing_leaks(gpu: &Gpu) -> Result<(), String> {
    let holes =
        wgpu_attention::PairPredicate::new(|i, j| i % 7 != 3 && j % 5 != 1 && (i + 80).abs_diff(j) > 3);
    let case = scored(Relative::new(149, 220).u(true).w(true)).pattern(holes);
    let (clean, mut dout): (Tensors<f32>, _) = (case.tensors(), drawn_dout::<f32>(&case));
    let mut strange = clean.clone();
    strange.q.chunks_mut(8).enumerate().filter(|(n, _)| n % 70 % 7 == 3).for_each(|(_, q)| q.fill(f32::NAN));
    strange.k.chunks_mut(8).enumerate().filter(|(n, _)| n % 150 % 5 == 1).for_each(|(_, k)| k.fill(f32::NAN));
    let rows = strange.term_mut("relative_rows").expect("a tensor").chunks_mut(8).enumerate();
    rows.filter(|(n, _)| (149 - (n % 220) as i64).abs() <= 3).for_each(|(_, r)| r.fill(f32::INFINITY));
    let gradients = |tensors: &Tensors<f32>, dout: &[f32]| {
        let (parts, wanted) = (case.parts(), ["relative_rows", "relative_biases"]);
        run_backward_with(gpu, &case.attention, &tensors.inputs(), dout, &parts, 1, &wanted)
    };
    let exact = gradients(&clean, &dout)?;
    dout.chunks_mut(8).enumerate().filter(|(n, _)| n % 70 % 7 == 3).for_each(|(_, x)| x.fill(f32::NAN));
    if exact != gradients(&strange, &dout)? {
        return Err(format!("what is left out changes a gradient\n{case}"));
    }
    // Rows of r that no pair reads have exactly 0.
    let rows = exact.tensors[0].1.chunks(8).enumerate();
    let mut unread = rows.filter(|(n, _)| (149 - (n % 220) as i64).abs() <= 3).flat_map(|(_, r)| r);
    if unread.all(|x| *x == 0.0) { Ok(()) } else { Err(format!("a row that no pair reads is not 0\n{case}")) }
}

#[test]
fn what_is_left_out_does_not_matter() {
    for kind in KINDS {
        let gpu = gpu_with(wgpu_attention::Options::default().tile_kind(kind));
        nothing_leaks(&gpu).unwrap_or_else(|e| panic!("{kind:?}: {e}"));
    }
}

#[test]
fn without_pairs_a_gradient_is_0() {
    for (batch, q_len, kv_len) in [(1, 0, 5), (1, 5, 0), (0, 5, 5)] {
        let shape = AttentionShape::new(batch, 2, q_len, 8).kv_len(kv_len);
        let attention = shape.score(Score::new().with(Alibi::new(Slopes::Given)).with(Sinks));
        let (q, k, dout) = (vec![1.0; shape.len_q()], vec![1.0; shape.len_k()], vec![1.0; shape.len_out()]);
        let inputs = Inputs::new(&q, &k, &k).tensor("slopes", &[1.0, 2.0]).tensor("sinks", &[0.5, 1.0]);
        let got = gpu_with(Default::default()).attention_backward_with::<_, _, _, f32>(
            &attention,
            &inputs,
            &dout,
            &Full,
            &["slopes", "sinks"],
        );
        let got = got.unwrap_or_else(|e| panic!("{batch} {q_len} {kv_len}: {e}"));
        for name in ["slopes", "sinks"] {
            assert_eq!(got.tensor(name), Some(&[0.0, 0.0][..]), "{name} {batch} {q_len} {kv_len}");
        }
    }
}

#[test]
fn slices_and_buffers_agree_and_bad_ones_are_refused() {
    let strides = BiasStrides::broadcast([1, 4, 70, 150]);
    let case = Case::new(shape().score(Score::new().bias(strides))).pattern(Causal);
    let (tensors, dout, gpu): (Tensors<f32>, _, _) =
        (case.tensors(), drawn_dout::<f32>(&case), gpu_with(case.options));
    let slices = |names: &[&str]| {
        let inputs = tensors.inputs();
        gpu.attention_backward_with::<_, _, _, f32>(&case.attention, &inputs, &dout, &Causal, names)
    };
    let buffers =
        run_backward_with(&gpu, &case.attention, &tensors.inputs(), &dout, &case.parts(), 1, &["bias"]);
    assert_eq!(slices(&["bias"]).expect("a good call").tensors, buffers.expect("guards").tensors);
    let text = slices(&["slopes"]).expect_err("no such tensor").to_string();
    assert_eq!(text, "gradient of slopes: need a tensor of the score that has one: bias, got another name");

    let plan = gpu.kernels().attention(&case.attention, &Causal).expect("a good call");
    let backward = plan.backward().expect("a good call");
    let cost = &backward.explain().tensors;
    assert_eq!((cost[0].name, cost[0].copies, cost[0].scratch_bytes), ("bias", 2, 2 * 4 * 4 * 70 * 150));
    let tensor = |len: usize| storage(gpu.device(), &vec![0f32; len]);
    let (x, y, state, bias) = (tensor(9600), tensor(9600), tensor(1120), tensor(4 * 70 * 150));
    let (gradient, whole) = (tensor(4 * 70 * 150), wgpu_attention::wgpu::Buffer::as_entire_buffer_binding);
    let buffers = || {
        let (x, bias) = (|| whole(&x), whole(&bias));
        AttentionGradBuffers::new(x(), x(), x(), x(), whole(&state), x()).tensor("bias", bias)
    };
    let message = |buffers| backward.bind(buffers).expect_err("a bad one").to_string();
    let of_bias = |binding| buffers().tensor_gradient("bias", binding);
    assert!(
        message(of_bias(whole(&y)))
            .starts_with("gradient of bias: need 168000 bytes (42000 elements of f32), got")
    );
    assert_eq!(
        message(of_bias(whole(&bias))),
        "gradient of bias: need a buffer other than that of bias, got the same buffer"
    );
    let twice = of_bias(whole(&gradient)).tensor_gradient("bias", whole(&gradient));
    assert_eq!(message(twice), "gradient of bias: need one buffer, got 2 of them");
    let text = message(buffers().tensor_gradient("temperature", whole(&gradient)));
    assert!(
        text.starts_with("gradient of temperature: need a tensor of the score that has one: bias"),
        "{text}"
    );
    backward.bind(of_bias(whole(&gradient))).expect("the bias alone");
}
