//! Relations that hold bit by bit: repeats, factors of 2, what does not matter, what is nothing.

use crate::in_f16::run_in_its_type;
use crate::support::drawn_dout;
use crate::support::{Case, Cut, GradOutcome, cut, gpu_with, picked, run_backward};
use wgpu_attention::reference::Tensors;
use wgpu_attention::{AttentionShape, Causal, Full, Gpu, Parts, Score, Site};

fn shape() -> AttentionShape {
    AttentionShape::new(2, 4, 70, 16).kv_heads(2).kv_len(90).value_dim(8)
}

fn gradients(
    gpu: &Gpu,
    case: &Case,
    tensors: &Tensors<f32, f32>,
    dout: &[f32],
    parts: &Parts,
) -> GradOutcome<f32> {
    run_in_its_type(gpu, case, tensors, dout, parts).unwrap_or_else(|e| panic!("{e}\n{case}"))
}

fn bits(outcome: &GradOutcome<f32>) -> Vec<u32> {
    [&outcome.dq, &outcome.dk, &outcome.dv].into_iter().flatten().map(|x| x.to_bits()).collect()
}

#[test]
fn the_same_call_gives_the_same_bits() {
    let case = Case::new(shape()).pattern(picked("bigbird", &shape().extent(), 1));
    let (tensors, dout, gpu) = (case.tensors(), drawn_dout::<f32>(&case), gpu_with(case.options));
    for how in [Cut::Whole, Cut::Gathers] {
        let parts = cut(&case, how, 1);
        let once = bits(&gradients(&gpu, &case, &tensors, &dout, &parts));
        let again = run_backward(&gpu, &case.attention, &tensors.inputs(), &dout, &parts, 3);
        assert_eq!(once, bits(&again.expect("guards")), "{case}");
    }
}

#[test]
fn a_factor_of_two_of_dout_is_one_of_every_gradient() {
    let case = Case::new(shape().score(Score::new().softcap(5.0))).pattern(Causal);
    let (tensors, dout, gpu) = (case.tensors(), drawn_dout::<f32>(&case), gpu_with(case.options));
    let one = gradients(&gpu, &case, &tensors, &dout, &case.parts());
    let times = |x: &[f32], factor: f32| x.iter().map(|x| factor * x).collect::<Vec<_>>();
    let eight = gradients(&gpu, &case, &tensors, &times(&dout, 8.0), &case.parts());
    assert_eq!(eight.dq, times(&one.dq, 8.0));
    assert_eq!(eight.dk, times(&one.dk, 8.0));
    assert_eq!(eight.dv, times(&one.dv, 8.0));
    let none = gradients(&gpu, &case, &tensors, &times(&dout, 0.0), &case.parts());
    assert!([none.dq, none.dk, none.dv].concat().iter().all(|x| *x == 0.0), "{case}");
}

/// Rows without keys, keys without queries, and sets that a pattern leaves apart, with NaN and infinity wherever they must not matter.
pub(crate) fn nothing_leaks(gpu: &Gpu, case: &Case, parts: &Parts) -> Result<(), String> {
    let shape = case.attention.shape;
    let keeps =
        |batch, head, i, j| case.pattern.as_dyn().keep(&Site { batch, head, extent: shape.extent() }, i, j);
    let (mut tensors, mut dout): (Tensors<f32, f32>, _) = (case.tensors(), drawn_dout::<f32>(case));
    let clean = gradients(gpu, case, &tensors, &dout, parts);
    let (d, dv) = (shape.head_dim, shape.value_dim);
    let strange = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY];
    let mut lost = 0;
    for row in 0..shape.len_lse() {
        let (i, head, batch) =
            (row % shape.q_len, row / shape.q_len % shape.heads, row / shape.q_len / shape.heads);
        if (0..shape.kv_len).all(|j| !keeps(batch, head, i, j)) {
            tensors.q[row * d..][..d].fill(strange[row % 3]);
            dout[row * dv..][..dv].fill(strange[(row + 1) % 3]);
            lost += 1;
            if clean.dq[row * d..][..d].iter().any(|x| *x != 0.0) {
                return Err(format!("dq of row {row}, without keys, is not 0\n{case}"));
            }
        }
    }
    let group = shape.heads / shape.kv_heads;
    for key in 0..shape.len_k() / d {
        let (j, head, batch) = (
            key % shape.kv_len,
            key / shape.kv_len % shape.kv_heads * group,
            key / shape.kv_len / shape.kv_heads,
        );
        if (head..head + group).all(|head| (0..shape.q_len).all(|i| !keeps(batch, head, i, j))) {
            tensors.k[key * d..][..d].fill(strange[key % 3]);
            tensors.v[key * dv..][..dv].fill(strange[(key + 1) % 3]);
            lost += 1;
            let gradients = [&clean.dk[key * d..][..d], &clean.dv[key * dv..][..dv]].concat();
            if gradients.iter().any(|x| *x != 0.0) {
                return Err(format!("dk and dv of key {key}, which no query sees, are not 0\n{case}"));
            }
        }
    }
    assert!(lost > 0, "nothing is left out: {case}");
    match bits(&gradients(gpu, case, &tensors, &dout, parts)) == bits(&clean) {
        true => Ok(()),
        false => Err(format!("what is left out matters\n{case}")),
    }
}

/// Some queries see no key, some keys are seen by no query, in blocks that others meet in.
pub(crate) fn holes() -> Case {
    let holes = wgpu_attention::PairPredicate::new(|i, j| i % 7 != 3 && j % 5 != 1 && (i + j) % 3 != 0);
    Case::new(shape()).pattern(holes)
}

#[test]
fn what_is_left_out_does_not_matter() {
    for case in [
        holes(),
        holes().pattern(picked("key_lengths", &shape().extent(), 1)),
        Case::new(shape().q_len(150)).pattern(Causal),
    ] {
        for how in [Cut::Whole, Cut::Gathers] {
            let checked = nothing_leaks(&gpu_with(case.options), &case, &cut(&case, how, 1));
            checked.unwrap_or_else(|e| panic!("{e}"));
        }
    }
}

/// A value that is not finite shows in the gradients of the rows that attend it, and in those of no others.
pub(crate) fn strange_values_show(gpu: &Gpu) -> Result<(), String> {
    let documents = wgpu_attention::PairPredicate::new(|i, j| i / 10 == j / 10);
    let case = Case::new(AttentionShape::new(1, 2, 70, 16).kv_heads(1)).pattern(documents);
    let case = case.options(*gpu.kernels().options());
    let clean: Tensors<f32, f32> = case.tensors();
    let finite = gradients(gpu, &case, &clean, &drawn_dout::<f32>(&case), &case.parts());
    // Query, key, value or dout 23, of head 1 or of both, is strange: rows and keys of document 2 are.
    for tensor in 0..4 {
        let (mut tensors, mut dout) = (clean.clone(), drawn_dout::<f32>(&case));
        let all: [&mut [f32]; 4] =
            [&mut tensors.q[70 * 16..], &mut tensors.k, &mut tensors.v, &mut dout[70 * 16..]];
        all.into_iter().nth(tensor).expect("one of four")[23 * 16 + 5] = f32::NAN;
        let got = gradients(gpu, &case, &tensors, &dout, &case.parts());
        let alike = |name: &str, got: &[f32], finite: &[f32], strange: std::ops::Range<usize>| {
            let mut rows = got.chunks(16).zip(finite.chunks(16)).enumerate();
            rows.try_for_each(|(row, (got, finite))| {
                let right =
                    if strange.contains(&row) { got.iter().all(|x| x.is_nan()) } else { got == finite };
                if right {
                    Ok(())
                } else {
                    Err(format!("{name}, row {row}, tensor {tensor}: {got:?}\n{case}"))
                }
            })
        };
        // Of head 1 the row itself, or the rows of its document.
        let rows = if [0, 3].contains(&tensor) { 93..94 } else { 90..100 };
        alike("dq of head 1", &got.dq[70 * 16..], &finite.dq[70 * 16..], rows.start - 70..rows.end - 70)?;
        alike("dk", &got.dk, &finite.dk, 20..30)?;
        alike("dv", &got.dv, &finite.dv, 20..30)?;
    }
    Ok(())
}

#[test]
fn what_is_not_finite_shows_where_it_is_attended() {
    strange_values_show(&gpu_with(Default::default())).unwrap_or_else(|e| panic!("{e}"));
}

#[test]
fn lengths_of_zero_and_one() {
    for (q_len, kv_len) in [(0, 5), (5, 0), (1, 1), (1, 70), (70, 1)] {
        let shape = AttentionShape::new(1, 2, q_len, 8).kv_len(kv_len);
        let case = Case::new(shape).pattern(Full);
        let (tensors, dout, gpu) = (case.tensors(), drawn_dout::<f32>(&case), gpu_with(case.options));
        let got = gradients(&gpu, &case, &tensors, &dout, &case.parts());
        assert_eq!((got.dq.len(), got.dk.len()), (shape.len_q(), shape.len_k()));
        let all = [got.dq, got.dk, got.dv].concat();
        assert!(all.iter().all(|x| x.is_finite()), "{case}");
        assert!(q_len > 0 && kv_len > 0 || all.iter().all(|x| *x == 0.0), "{case}");
        let slices = gpu.attention_backward::<_, _, _, f32>(shape, &tensors.inputs(), &dout, &Full);
        assert_eq!(slices.expect("a good call").dk.len(), shape.len_k());
    }
}
