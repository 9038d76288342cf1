//! Sequences in pieces, each from the state of those before it: rows within their bounds, states that are known exactly.

use super::{Case, good_state, maps};
use wgpu_attention::reference::{self, Kind, Rows};
use wgpu_attention::{
    Attention, AttentionShape, Error, FeatureMap, Gpu, LinearBuffers, LinearInputs, LinearOptions,
    LinearState, Projection, Stabiliser, Storage,
};
use wgpu_attention_testing::{gpu, read, storage};

/// Grouped heads, and as many queries as keys.
fn shape(len: usize) -> AttentionShape {
    AttentionShape::new(2, 4, len, 12).kv_heads(2).value_dim(20)
}

/// Rows `first .. first + len` of every head of `[B, heads, all, width]`.
fn rows<T: Copy>(data: &[T], [heads, all, width]: [usize; 3], first: usize, len: usize) -> Vec<T> {
    let head = |n: usize| &data[(n * all + first) * width..][..len * width];
    (0..heads).flat_map(head).copied().collect()
}

/// A call of some keys of a case, with the last `q_len` of their queries.
fn piece(case: &Case<f32>, first: usize, len: usize, q_len: usize, state: LinearState) -> Case<f32> {
    let shape = &case.attention.shape;
    let (b, all, d, dv) = (shape.batch, shape.kv_len, shape.head_dim, shape.value_dim);
    let own = shape.kv_len(len).q_len(q_len);
    Case {
        attention: own.storage(Storage::default()),
        options: case.options.clone().state(state),
        q: rows(&case.q, [b * shape.heads, all, d], first + len - q_len, q_len),
        k: rows(&case.k, [b * shape.kv_heads, all, d], first, len),
        v: rows(&case.v, [b * shape.kv_heads, all, dv], first, len),
        projection: case.projection.clone(),
        key_mask: case.key_mask.as_ref().map(|mask| rows(mask, [b, all, 1], first, len)),
    }
}

/// The outputs of all steps, `[B, H, L, dv]`, and the last state.
fn in_steps(gpu: &Gpu, case: &Case<f32>, steps: &[usize]) -> Result<(Vec<f32>, Vec<f32>), String> {
    let shape = &case.attention.shape;
    let (all, dv) = (shape.kv_len, shape.value_dim);
    let mut out = vec![f32::NAN; shape.len_out()];
    // What is there does not matter where a state is left.
    let mut state = vec![f32::NAN; case.options.clone().state(LinearState::Left).len_state(shape)];
    let mut first = 0;
    for (n, &len) in steps.iter().enumerate() {
        let kind = if n == 0 { LinearState::Left } else { LinearState::Carried };
        let step = piece(case, first, len, len, kind);
        let got: Vec<f32> = gpu
            .linear_attention_from(&step.attention, &step.options, &step.inputs(), &mut state)
            .map_err(|e| format!("{:?}: {e}", step.options))?;
        for (line, rows) in got.chunks(len * dv).enumerate() {
            out[(line * all + first) * dv..][..len * dv].copy_from_slice(rows);
        }
        first += len;
    }
    Ok((out, state))
}

fn check(gpu: &Gpu, case: &Case<f32>, steps: &[usize]) -> Result<(), String> {
    let (out, _) = in_steps(gpu, case, steps)?;
    let report = reference::verify_linear_steps(
        &case.attention,
        &case.options,
        &case.inputs(),
        steps,
        &out,
        Rows::All,
    )
    .expect("valid");
    match report.pass && report.unspecified == 0 {
        true => Ok(()),
        false => Err(format!("{report}\n{:?} {steps:?}", case.options)),
    }
}

fn case(len: usize, options: LinearOptions) -> Case<f32> {
    Case::new(shape(len), options, Kind::Normal, 5)
}

fn causal(map: FeatureMap) -> LinearOptions {
    LinearOptions::new(map).causal(true)
}

/// What mutants are looked for with: weights, decay, more than one chunk, single tokens.
pub(super) fn steps(gpu: &Gpu) -> Result<(), String> {
    for options in [
        causal(FeatureMap::favor(22)).key_mask(true),
        causal(FeatureMap::Elu).decay(vec![0.9, 0.99]).denominator_eps(0.5),
    ] {
        check(gpu, &case(80, options), &[70, 1, 1, 8])?;
    }
    check(gpu, &case(70, causal(FeatureMap::relu(20))), &[66, 1, 3])?;
    far(gpu)
}

/// Keys so long that e^-|k|^2 is nothing: zeros are the state of no key, and not of one of weight 1.
fn far(gpu: &Gpu) -> Result<(), String> {
    let mut case = case(6, causal(FeatureMap::favor(22)));
    case.k.iter_mut().for_each(|k| *k *= 16.0);
    let step = piece(&case, 0, 6, 6, LinearState::Carried);
    let mut state = vec![0.0; step.options.len_state(&step.attention.shape)];
    let run = gpu.linear_attention_from(&step.attention, &step.options, &step.inputs(), &mut state);
    let report = step.report(&run.map_err(|e| e.to_string())?, Rows::All);
    if report.pass && report.unspecified == 0 { Ok(()) } else { Err(format!("far keys: {report}")) }
}

#[test]
fn steps_from_an_empty_state_are_the_whole() {
    for (name, map) in maps().into_iter().filter(|(name, _)| *name != "favor global" && *name != "identity") {
        for steps in [&[70, 1, 1, 8][..], &[64, 64, 2], &[1, 63, 1]] {
            let case = case(steps.iter().sum(), causal(map));
            check(gpu(), &case, steps).unwrap_or_else(|e| panic!("{name}: {e}"));
        }
    }
    steps(gpu()).unwrap();
}

#[test]
fn one_token_after_the_other() {
    for options in [
        causal(FeatureMap::favor(8)),
        causal(FeatureMap::Elu).decay(vec![0.875, 0.5]),
        causal(FeatureMap::Elu).key_mask(true).denominator_eps(0.25),
    ] {
        check(gpu(), &case(40, options), &[1; 40]).unwrap();
    }
}

/// Features and values are small integers: so is every sum.
#[test]
fn a_state_is_the_sums_that_its_layout_says() {
    let shape = AttentionShape::new(2, 2, 75, 6).value_dim(5);
    let mut case = Case::<f32>::new(shape, causal(FeatureMap::Identity).key_mask(true), Kind::Normal, 4);
    let integer = |x: &mut f32| *x = (x.abs() * 2.0).floor();
    case.q.iter_mut().chain(&mut case.k).chain(&mut case.v).for_each(integer);
    let mask = case.key_mask.clone().expect("asked for");
    let (_, state) = in_steps(gpu(), &case, &[66, 1, 8]).unwrap();
    let mut want = vec![];
    for line in 0..4 {
        let sum = |of: &dyn Fn(usize) -> f32| -> f32 {
            (0..75).filter(|j| mask[line / 2 * 75 + j]).map(|j| of(line * 75 + j)).sum()
        };
        for f in 0..8 {
            let phi = |key: usize| if f < 6 { case.k[key * 6 + f] } else { 0.0 };
            want.extend((0..8).map(|c| if c < 5 { sum(&|key| phi(key) * case.v[key * 5 + c]) } else { 0.0 }));
            want.extend([sum(&phi), 0.0, 0.0, 0.0]);
        }
        want.extend([0.0, 1.0, 0.0, 0.0]);
    }
    assert_eq!(state, want);
}

#[test]
fn fewer_queries_than_keys_and_none() {
    let case = case(80, causal(FeatureMap::favor(22)));
    let (all, state) = in_steps(gpu(), &case, &[70, 10]).unwrap();
    let run = |first, len, q_len, kind, state: &mut Vec<f32>| -> Vec<f32> {
        let step = piece(&case, first, len, q_len, kind);
        gpu().linear_attention_from(&step.attention, &step.options, &step.inputs(), state).unwrap()
    };
    let mut own = vec![f32::NAN; state.len()];
    assert!(run(0, 70, 0, LinearState::Left, &mut own).is_empty());
    let last = run(70, 10, 3, LinearState::Carried, &mut own);
    assert_eq!(last, rows(&all, [8, 80, 20], 77, 3));
    assert_eq!(own, state);
    // No key and no query change nothing.
    assert!(run(80, 0, 0, LinearState::Carried, &mut own).is_empty());
    assert_eq!(own, state);
}

/// A recorded call serves every token: the state stays on the device.
#[test]
fn one_call_decodes_every_token() {
    let case = case(5, causal(FeatureMap::favor(22)));
    let (all, _) = in_steps(gpu(), &case, &[1; 5]).unwrap();
    let (device, queue) = (gpu().device(), gpu().queue());
    let token = piece(&case, 0, 1, 1, LinearState::Carried);
    let plan = gpu().kernels().linear_attention(&token.attention, token.options.clone()).unwrap();
    let written = |data: &Vec<f32>| {
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST;
        let size = 4 * data.len() as u64;
        device.create_buffer(&wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false })
    };
    let [q, k, v] = [&token.q, &token.k, &token.v].map(written);
    let state = storage(device, &vec![0.0; token.options.len_state(&token.attention.shape)]);
    let out = storage(device, &vec![-7.0; token.attention.len_out()]);
    let whole = wgpu::Buffer::as_entire_buffer_binding;
    let buffers = LinearBuffers::new(whole(&q), whole(&k), whole(&v), whole(&out)).state(whole(&state));
    let call = plan.bind(buffers).unwrap();
    for n in 0..5 {
        let token = piece(&case, n, 1, 1, LinearState::Carried);
        for (buffer, data) in [(&q, &token.q), (&k, &token.k), (&v, &token.v)] {
            queue.write_buffer(buffer, 0, bytemuck::cast_slice(data));
        }
        let mut encoder = device.create_command_encoder(&Default::default());
        call.encode(&mut encoder);
        queue.submit([encoder.finish()]);
        assert_eq!(read(device, queue, &out), rows(&all, [8, 5, 20], n, 1), "token {n}");
    }
}

#[test]
fn states_that_cannot_be_are_refused_one_by_one() {
    let refused = |attention: Attention, options: LinearOptions, words: &[&str]| {
        let error = gpu().kernels().linear_attention(attention, options).expect_err("refused");
        let text = error.to_string();
        assert!(matches!(error, Error::Argument { .. }), "{text}");
        assert!(words.iter().all(|word| text.contains(word)), "{text}: {words:?}");
    };
    let (shape, carried) = (shape(8), LinearState::Carried);
    refused(shape.into(), good_state().causal(false), &["state", "causal", "Carried"]);
    let (projection, stabiliser) = (Projection::Given, Stabiliser::Global);
    let global = FeatureMap::Favor { features: 8, eps: 1e-4, stabiliser, projection };
    for state in [LinearState::Left, carried] {
        refused(shape.into(), causal(global).state(state), &["stabiliser", "Running", "Global"]);
    }
    refused(shape.kv_len(5).into(), good_state(), &["q_len", "5 new keys", "8"]);
    good_state().state(LinearState::Left).check(shape.kv_len(5)).unwrap();
    let data = vec![0.5f32; shape.len_q()];
    let (k, v) = (&data[..shape.len_k()], vec![0.5; shape.len_v()]);
    let inputs = LinearInputs::new(&data, k, &v);
    let error = gpu().linear_attention::<f32, f32, f32>(shape, &good_state(), &inputs).unwrap_err();
    assert!(error.to_string().contains("state") && error.to_string().contains("linear_attention_from"));
    let need = good_state().len_state(&shape);
    for (options, len) in [(good_state(), need - 1), (good_state(), 0), (causal(FeatureMap::Elu), 4)] {
        let mut state = vec![0.0; len];
        let run = gpu().linear_attention_from::<f32, f32, f32>(shape, &options, &inputs, &mut state);
        assert!(matches!(run, Err(Error::Argument { name, .. }) if name == "state"), "{len}");
    }
}

#[test]
fn buffers_of_states_are_checked() {
    let device = gpu().device();
    let shape = shape(8);
    let [q, k, v, out] = [shape.len_q(), shape.len_k(), shape.len_v(), shape.len_out()]
        .map(|len| storage(device, &vec![0.0; len]));
    let need = good_state().len_state(&shape);
    let [state, small] = [need.max(shape.len_out()), need - 1].map(|len| storage(device, &vec![0.0; len]));
    let whole = wgpu::Buffer::as_entire_buffer_binding;
    let buffers = || LinearBuffers::new(whole(&q), whole(&k), whole(&v), whole(&out));
    let with = gpu().kernels().linear_attention(shape, good_state()).unwrap();
    let without = gpu().kernels().linear_attention(shape, causal(FeatureMap::Elu)).unwrap();
    with.bind(buffers().state(whole(&state))).unwrap();
    for (plan, buffers) in [
        (&with, buffers()),
        (&with, buffers().state(whole(&small))),
        (&with, buffers().state(whole(&state)).v(whole(&state))),
        (&with, buffers().state(whole(&state)).out(whole(&state))),
        (&without, buffers().state(whole(&state))),
    ] {
        let error = plan.bind(buffers).expect_err("refused").to_string();
        assert!(error.contains("state"), "{error}");
    }
}

#[test]
fn steps_that_are_not_the_sequence_are_refused() {
    let case = case(8, causal(FeatureMap::Elu));
    let out = vec![0.0f32; case.attention.len_out()];
    let verify = |attention: &Attention, steps: &[usize], name: &str| {
        let inputs = case.inputs();
        let run = reference::verify_linear_steps(attention, &case.options, &inputs, steps, &out, Rows::All);
        assert!(matches!(run, Err(Error::Argument { name: got, .. }) if got == name), "{name}");
    };
    verify(&case.attention, &[4, 3], "steps");
    verify(&shape(8).kv_len(9).into(), &[9], "q_len");
}
