//! Gradients under dropout: within their bound, and of exactly the pairs that the forward pass keeps.

use crate::gradients::{KINDS, close, close_by_turns};
use crate::support::{
    Case, Cut, PATTERNS, cut, drawn_dout, gpu, gpu_with, gradient_bounds, gradients_within, picked, read,
    run_backward, storage,
};
use crate::tensors::tensors_on;
use wgpu_attention::ElementType::{Bf16, F16};
use wgpu_attention::reference::Tensors;
use wgpu_attention::wgpu::Buffer;
use wgpu_attention::{
    Alibi, AttentionBuffers, AttentionGradBuffers, AttentionShape, BiasStrides, Causal, Dropout, Full, Gpu,
    Score, Sinks, Site, Slopes, Storage, Window,
};

fn shape() -> AttentionShape {
    AttentionShape::new(2, 4, 70, 16).kv_heads(2).kv_len(150).value_dim(8)
}

fn dropped(rate: f32) -> Case {
    Case::new(shape().score(Score::new().dropout(rate, 21)))
}

#[test]
fn every_pattern() {
    for (n, (name, _)) in PATTERNS.iter().enumerate() {
        let rate = [0.1, 0.5, 0.9][n % 3];
        let case = dropped(rate).pattern(picked(name, &shape().extent(), n as u64)).seed(n as u64);
        close(&case, &case.parts());
    }
}

#[test]
fn parts() {
    let case = dropped(0.3).pattern(picked("blocks_per_head", &shape().extent(), 3));
    for how in Cut::ALL {
        close(&case, &cut(&case, how, 1));
    }
}

/// Types and terms know nothing of weights.
#[test]
fn types_and_terms() {
    for (n, storage) in [Storage::all(F16), Storage::all(Bf16)].into_iter().enumerate() {
        let case = dropped(0.3).storage(storage).pattern(Causal);
        close_by_turns(n, &case, &case.parts());
    }
    let scores = [Score::new().softcap(2.0), Score::new().with(Sinks), Score::new().alibi()];
    for (n, score) in scores.into_iter().enumerate() {
        let case = dropped(0.3).score(score.dropout(0.3, 1)).pattern(Causal);
        close_by_turns(n, &case, &case.parts());
    }
}

#[test]
fn nearly_all_weights_are_dropped() {
    let case = dropped(1.0 - 1.0 / 4096.0).pattern(Causal);
    close(&case, &case.parts());
}

/// The passes over the tensors of the terms.
pub(crate) fn tensors_close(gpu: &Gpu) -> Result<(), String> {
    let bias = BiasStrides::broadcast([1, 4, 70, 150]);
    for score in [Score::new().bias(bias), Score::new().with(Alibi::new(Slopes::Given)).with(Sinks)] {
        let case = dropped(0.4).score(score.dropout(0.4, 3)).pattern(Causal);
        tensors_on(gpu, &case, &case.parts())?;
    }
    Ok(())
}

#[test]
fn tensors_of_terms() {
    tensors_close(gpu()).unwrap_or_else(|e| panic!("{e}"));
}

/// q = k = 0 and dout the unit vectors: dv_jc n (1 - rate) is keep of query c and key j, pair by pair, against the generator.
pub(crate) fn pairs_on(gpu: &Gpu) -> Result<(), String> {
    let queries = 60;
    let shape = AttentionShape::new(2, 2, queries, 4).kv_len(90).value_dim(queries);
    let dropout = Dropout::new(0.37, 77 << 32);
    let case = Case::new(shape.score(Score::new().with(dropout))).pattern(Causal);
    let mut tensors: Tensors<f32, f32> = case.tensors();
    tensors.q.fill(0.0);
    tensors.k.fill(0.0);
    let unit = |n: usize| f32::from(u8::from(n % queries == n / queries % queries));
    let dout: Vec<f32> = (0..shape.len_out()).map(unit).collect();
    let got = run_backward(gpu, &case.attention, &tensors.inputs(), &dout, &case.parts(), 1)?;
    for (n, dv) in got.dv.iter().enumerate() {
        let (batch, head, j, i) = (n / queries / 90 / 2, n / queries / 90 % 2, n / queries % 90, n % queries);
        // The last query sees all 90 keys.
        let seen = case.pattern.as_dyn().keep(&Site { batch, head, extent: shape.extent() }, i, j);
        let want = seen && dropout.keeps(batch, head, i, j);
        let share = dv * (i + 31) as f32 * (1.0 - 0.37);
        if (share - f32::from(u8::from(want))).abs() > 1e-5 {
            return Err(format!("batch {batch}, head {head}, query {i}, key {j}: {share}, not {want}"));
        }
    }
    Ok(())
}

#[test]
fn each_pair_by_itself() {
    for kind in KINDS {
        let options = Case::new(shape()).options.tile_kind(kind);
        pairs_on(&gpu_with(options)).unwrap_or_else(|e| panic!("{kind:?}: {e}"));
    }
}

/// A query that is not finite shows in the gradients of every key that it attends, dropped or not, and in no others.
pub(crate) fn strange_on(gpu: &Gpu) -> Result<(), String> {
    let window = Window { before: 30, after: 2 };
    for case in [dropped(0.5).pattern(window), dropped(0.5).pattern(Full)] {
        for in_dout in [true, false] {
            let mut tensors: Tensors<f32, f32> = case.tensors();
            let mut dout = drawn_dout::<f32>(&case);
            // Of head 1, query 33; of key head 0, key 100.
            let x = if in_dout { &mut dout[(70 + 33) * 8 + 2] } else { &mut tensors.v[100 * 8 + 1] };
            *x = f32::NAN;
            let inputs = tensors.inputs();
            let got = run_backward(gpu, &case.attention, &inputs, &dout, &case.parts(), 1)?;
            let finite = got.dv.iter().filter(|x| x.is_finite()).count();
            if finite == 0 || finite == got.dv.len() {
                return Err(format!("{finite} elements of dv are finite\n{case}"));
            }
            gradients_within(&case, &gradient_bounds(&case, &inputs, &dout, (&case.parts(), &[])), &got)?;
        }
    }
    Ok(())
}

#[test]
fn strange_values_show_though_they_are_dropped() {
    for kind in KINDS {
        let options = Case::new(shape()).options.tile_kind(kind);
        strange_on(&gpu_with(options)).unwrap_or_else(|e| panic!("{kind:?}: {e}"));
    }
}

/// out, dq, dk, dv of a plan, with this seed in the buffers.
fn trained(score: Score, seed: Option<u64>) -> Result<Vec<Vec<f32>>, wgpu_attention::Error> {
    let (device, queue) = (gpu().device(), gpu().queue());
    let case = Case::new(shape().score(score)).pattern(Causal);
    let tensors: Tensors<f32, f32> = case.tensors();
    let [q, k, v] = [&tensors.q, &tensors.k, &tensors.v].map(|data| storage(device, data));
    let dout = storage(device, &drawn_dout::<f32>(&case));
    let empty = |len: usize| storage(device, &vec![0.0; len]);
    let shape = shape();
    let (out, state) = (empty(shape.len_out()), empty(2 * shape.len_lse()));
    let [dq, dk, dv] = [shape.len_q(), shape.len_k(), shape.len_v()].map(empty);
    let whole = Buffer::as_entire_buffer_binding;
    let plan = gpu().kernels().attention(&case.attention, &Causal)?;
    let mut forward =
        AttentionBuffers::new(whole(&q), whole(&k), whole(&v), whole(&out)).state(whole(&state));
    let mut backward =
        AttentionGradBuffers::new(whole(&q), whole(&k), whole(&v), whole(&out), whole(&state), whole(&dout));
    backward = backward.dq(whole(&dq)).dk(whole(&dk)).dv(whole(&dv));
    if let Some(seed) = seed {
        (forward, backward) = (forward.dropout_seed(seed), backward.dropout_seed(seed));
    }
    let mut encoder = device.create_command_encoder(&Default::default());
    // The backward call refuses what the forward call does, by itself.
    let (forward, backward) = (plan.bind(forward), plan.backward()?.bind(backward));
    assert_eq!(forward.as_ref().err(), backward.as_ref().err());
    forward?.encode(&mut encoder);
    backward?.encode(&mut encoder);
    queue.submit([encoder.finish()]);
    Ok([&out, &dq, &dk, &dv].map(|buffer| read(device, queue, buffer)).into())
}

#[test]
fn a_call_may_have_another_seed_than_its_plan() {
    let score = |seed| Score::new().dropout(0.4, seed);
    let of_plan = trained(score(8), None).expect("a good call");
    assert_eq!(trained(score(1), Some(8)).expect("a good call"), of_plan);
    assert_ne!(trained(score(1), None).expect("a good call"), of_plan);
    let text = trained(Score::new().softcap(2.0), Some(8)).expect_err("no dropout").to_string();
    assert_eq!(text, "dropout_seed: need none, since the plan's score has no dropout, got 8");
}

/// With all of the weights dropped nothing is left: every gradient is 0.
#[test]
fn a_row_that_loses_every_weight_has_no_gradients() {
    let shape = AttentionShape::new(1, 1, 64, 4).kv_len(2);
    let dropout = Dropout::new(0.9, 1);
    let case = Case::new(shape.score(Score::new().with(dropout))).pattern(Full);
    let tensors: Tensors<f32, f32> = case.tensors();
    let dout = drawn_dout::<f32>(&case);
    let got =
        run_backward(gpu(), &case.attention, &tensors.inputs(), &dout, &case.parts(), 1).expect("guards");
    let lost = |i: usize| (0..2).all(|j| !dropout.keeps(0, 0, i, j));
    assert!((0..64).filter(|&i| lost(i)).count() > 30);
    for i in (0..64).filter(|&i| lost(i)) {
        assert!(got.dq[4 * i..][..4].iter().all(|x| *x == 0.0), "query {i}: {:?}", &got.dq[4 * i..][..4]);
    }
}
