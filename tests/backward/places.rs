//! Gradients that lie elsewhere than their tensors do, a gradient of out that does, and plans that are run on slices; buffers that may
//! not be one.

use crate::support::{Case, drawn_dout, gpu_with, storage};
use half::f16;
use wgpu_attention::wgpu::Buffer;
use wgpu_attention::{
    AttentionGradBuffers, AttentionGradients, AttentionShape, Causal, Gradients, Inputs, Layout, Outputs,
    Score, Strides, Temperature,
};

/// The elements of a tensor, row by row, wherever they lie; and how many others of the slice are not 0.
fn gathered(values: &[f32], strides: Strides, [batch, heads, rows, dim]: [usize; 4]) -> (Vec<f32>, usize) {
    let mut own = vec![false; values.len()];
    let mut gathered = vec![];
    for row in 0..batch * heads * rows {
        let at = strides.at(row / rows / heads, row / rows % heads, row % rows);
        gathered.extend(&values[at..at + dim]);
        own[at..at + dim].fill(true);
    }
    (gathered, values.iter().zip(own).filter(|(value, own)| !own && **value != 0.0).count())
}

/// Padded rows, rows by heads, rows that go backwards: other places for each, none of them that of its tensor.
#[test]
fn gradients_lie_where_they_are_wanted() {
    let shape = AttentionShape::new(2, 4, 30, 8).kv_heads(2).kv_len(45).value_dim(12);
    let case = Case::new(shape).pattern(Causal);
    let (tensors, dout, gpu) = (case.tensors::<f32, f32>(), drawn_dout::<f32>(&case), gpu_with(case.options));
    let inputs = tensors.inputs();
    let plan = gpu.kernels().attention(shape, &Causal).expect("a good call");
    let outputs = Outputs::default().state();
    let forward = gpu.run_plan::<_, _, f32>(&plan, &inputs, outputs).expect("a good call");
    let of_forward = (&forward.out[..], &forward.state.as_ref().expect("asked for")[..]);
    let run = |gradients: Gradients, dout: &[f32]| -> AttentionGradients<f32> {
        let backward = plan.backward_with(gradients).expect("good places");
        gpu.run_backward_plan(&backward, &inputs, of_forward, dout).expect("a good call")
    };
    let usual = Gradients::of(plan.attention());
    let straight = run(usual, &dout);
    let slices = gpu.attention_backward::<_, _, _, f32>(shape, &inputs, &dout, &Causal).expect("a good call");
    assert!(straight == slices, "a plan that is run on slices gives what the slices give");

    let by_rows = Strides::new(30 * 4 * 8, 8, 4 * 8);
    let padded = Strides { offset: 5, ..Strides::new(2 * 45 * 11, 45 * 11, 11) };
    let backwards = Strides { offset: 44 * 12, ..Strides::new(2 * 45 * 12, 45 * 12, -12) };
    let wide = Strides { offset: 3, ..Strides::new(4 * 30 * 13, 30 * 13, 13) };
    let mut moved_dout = vec![f32::NAN; 3 + 2 * 4 * 30 * 13];
    for (row, values) in dout.chunks(12).enumerate() {
        let at = wide.at(row / 120, row / 30 % 4, row % 30);
        moved_dout[at..at + 12].copy_from_slice(values);
    }
    moved_dout.truncate(wide.at(1, 3, 29) + 12);
    let gradients = usual
        .dq_layout(Layout::Strided(by_rows))
        .dk_layout(Layout::Strided(padded))
        .dv_layout(Layout::Strided(backwards))
        .dout_layout(Layout::Strided(wide));
    let moved = run(gradients, &moved_dout);
    for (name, moved, strides, sizes, straight) in [
        ("dq", &moved.dq, by_rows, [2, 4, 30, 8], &straight.dq),
        ("dk", &moved.dk, padded, [2, 2, 45, 8], &straight.dk),
        ("dv", &moved.dv, backwards, [2, 2, 45, 12], &straight.dv),
    ] {
        let (own, strange) = gathered(moved, strides, sizes);
        assert!(&own == straight, "{name} in its place");
        assert_eq!(strange, 0, "{name}: elements between the rows were written");
    }
}

#[test]
fn gradients_that_overlap_are_refused_each_by_its_name() {
    let gpu = gpu_with(Default::default());
    let plan = gpu.kernels().attention(AttentionShape::new(1, 2, 40, 16), &Causal).expect("a good call");
    let (usual, shared) = (Gradients::of(plan.attention()), Layout::Strided(Strides::new(0, 0, 16)));
    for (name, gradients) in [
        ("dq_layout", usual.dq_layout(shared)),
        ("dk_layout", usual.dk_layout(shared)),
        ("dv_layout", usual.dv_layout(shared)),
    ] {
        let text = plan.backward_with(gradients).expect_err("rows that meet").to_string();
        assert!(text.starts_with(&format!("{name}: need rows that do not overlap")), "{text}");
    }
    // It is read alone: rows of it may be one.
    plan.backward_with(usual.dout_layout(shared)).expect("a good place");
}

#[test]
fn slices_of_other_types_than_the_plans_are_refused() {
    let gpu = gpu_with(Default::default());
    let shape = AttentionShape::new(1, 1, 4, 4);
    let backward = gpu.kernels().attention(shape, &Causal).and_then(|plan| plan.backward()).expect("good");
    let (x, y, state) = (vec![0f32; 16], vec![f16::ZERO; 16], [0f32; 8]);
    let wrong_q =
        gpu.run_backward_plan::<_, _, _, _, f32>(&backward, &Inputs::new(&y, &x, &x), (&x, &state), &x);
    let wrong_dq =
        gpu.run_backward_plan::<_, _, _, _, f16>(&backward, &Inputs::new(&x, &x, &x), (&x, &state), &x);
    for text in [wrong_q.expect_err("f16").to_string(), wrong_dq.expect_err("f16").to_string()] {
        assert!(
            text.starts_with("inputs: need slices of the plan's types (q, kv, out, dout, dq, dkv)"),
            "{text}"
        );
    }
    let short =
        gpu.run_backward_plan::<_, _, _, _, f32>(&backward, &Inputs::new(&x, &x, &x), (&x, &state[1..]), &x);
    assert_eq!(short.expect_err("short").to_string(), "state: need 8 elements, got 7 elements");
}

/// What a call reads and what it writes are different buffers, whichever they are.
#[test]
fn a_gradient_in_a_buffer_that_is_read_is_refused() {
    let gpu = gpu_with(Default::default());
    let shape = AttentionShape::new(1, 8, 16, 16);
    let attention = shape.score(Score::new().with(Temperature));
    let plan = gpu.kernels().attention(attention, &Causal).expect("a good call");
    let backward = plan.backward().expect("a good call");
    let make = || storage(gpu.device(), &vec![0f32; shape.len_q()]);
    let names = ["q", "k", "v", "out", "state", "dout", "temperature"];
    let (read, written) = (names.map(|_| make()), [make(), make()]);
    let whole = Buffer::as_entire_buffer_binding;
    let buffers = || {
        let [q, k, v, out, state, dout, temperature] = read.each_ref().map(whole);
        AttentionGradBuffers::new(q, k, v, out, state, dout).tensor("temperature", temperature)
    };
    let message = |buffers| backward.bind(buffers).expect_err("one buffer for two tensors").to_string();
    for (name, one) in names.iter().zip(&read) {
        for (gradient, buffers) in [
            ("dq", buffers().dq(whole(one))),
            ("dk", buffers().dk(whole(one))),
            ("dv", buffers().dv(whole(one))),
            ("gradient of temperature", buffers().tensor_gradient("temperature", whole(one))),
        ] {
            let text = message(buffers);
            assert!(text.contains(gradient) && text.contains(&format!("that of {name}")), "{text}");
        }
    }
    let [one, other] = written.each_ref().map(whole);
    let text = message(buffers().dq(one.clone()).dv(one.clone()));
    assert!(text.contains("dq") && text.contains("dv"), "{text}");
    let text = message(buffers().dk(one.clone()).tensor_gradient("temperature", one.clone()));
    assert!(text.contains("dk") && text.contains("gradient of temperature"), "{text}");
    backward.bind(buffers().dq(one).tensor_gradient("temperature", other)).expect("each its own");
}
