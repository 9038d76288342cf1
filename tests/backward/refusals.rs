//! Bad input one by one: what the messages say; and gradients that are asked for alone.

use crate::support::drawn_dout;
use crate::support::{Case, gpu_with, run_backward, storage};
use wgpu_attention::{
    AttentionGradBuffers, AttentionShape, BlockGrid, Causal, Full, Gradients, Inputs, Layout, Parts, Score,
    Strides,
};

#[test]
fn bad_gradients_say_what_is_wrong() {
    let gpu = gpu_with(Default::default());
    let shape = AttentionShape::new(1, 2, 40, 16);
    let plan = gpu.kernels().attention(shape, &Causal).expect("a good call");
    let gradients = Gradients::of(plan.attention());
    let message = |gradients| plan.backward_with(gradients).expect_err("a bad one").to_string();
    let shared = Layout::Strided(Strides::new(0, 0, 16));
    assert_eq!(
        message(gradients.dk_layout(shared)),
        "dk_layout: need rows that do not overlap: 16 apart, got a stride of 0 (batch 0, head 0, row 16)"
    );
}

/// The forward call takes them; on slices nothing is computed before they are refused.
#[test]
fn rows_wider_than_gradients_take_are_refused() {
    let gpu = gpu_with(Default::default());
    let of = |head_dim, value_dim| AttentionShape::new(1, 1, 4, head_dim).value_dim(value_dim);
    for (shape, message) in [
        (of(257, 16), "head_dim: need 1 to 256 for gradients, got 257"),
        (of(16, 512), "value_dim: need 1 to 256 for gradients, got 512"),
    ] {
        let plan = gpu.kernels().attention(shape, &Causal).expect("a good call");
        assert_eq!(plan.backward().expect_err("too wide").to_string(), message);
        let (q, v) = (vec![1f32; shape.len_q()], vec![1f32; shape.len_v()]);
        let inputs = Inputs::new(&q, &q, &v);
        let slices = gpu.attention_backward::<_, _, _, f32>(&shape, &inputs, &v, &Causal);
        assert_eq!(slices.expect_err("too wide").to_string(), message);
    }
}

#[test]
fn bad_buffers_say_what_is_wrong() {
    let gpu = gpu_with(Default::default());
    let shape = AttentionShape::new(1, 2, 40, 16);
    let plan = gpu.kernels().attention(shape, &Full).expect("a good call");
    let backward = plan.backward().expect("a good call");
    let tensor = |len: usize| storage(gpu.device(), &vec![0f32; len]);
    let (tensor, state, small) = (tensor(shape.len_q()), tensor(2 * shape.len_lse()), tensor(100));
    let dq = storage(gpu.device(), &vec![0f32; shape.len_q()]);
    let whole = wgpu_attention::wgpu::Buffer::as_entire_buffer_binding;
    let t = || tensor.as_entire_buffer_binding();
    let buffers = || AttentionGradBuffers::new(t(), t(), t(), t(), state.as_entire_buffer_binding(), t());
    let message = |buffers| backward.bind(buffers).expect_err("a bad one").to_string();
    assert_eq!(
        message(buffers()),
        "gradients: need a buffer for at least one of dq, dk, dv and the tensors of the score, got none"
    );
    assert_eq!(message(buffers().dq(t())), "dq: need a buffer other than that of q, got the same buffer");
    assert!(
        message(buffers().dk(whole(&small)))
            .starts_with("dk: need 5120 bytes (1280 elements of f32), got 400")
    );
    let mut short = buffers();
    short.state = whole(&small);
    assert!(
        message(short.dq(whole(&dq))).starts_with("state: need 640 bytes (160 elements of f32), got 400")
    );
    let text = message(buffers().dq(whole(&dq)).tensor("bias", whole(&small)));
    assert_eq!(text, "bias: need none, since the score has no such term, got a tensor");
    let text = message(buffers().tensor_gradient("bias", whole(&small)));
    assert_eq!(text, "gradient of bias: need none, since no tensor of the score has one, got another name");
    backward.bind(buffers().dq(whole(&dq))).expect("dq alone");
}

#[test]
fn bad_slices_say_what_is_wrong() {
    let gpu = gpu_with(Default::default());
    let shape = AttentionShape::new(1, 2, 40, 16);
    let x = vec![0f32; shape.len_q()];
    let error = gpu.attention_backward::<_, _, _, f32>(shape, &Inputs::new(&x, &x, &x), &x[1..], &Full);
    assert_eq!(error.unwrap_err().to_string(), "dout: need 1280 elements, got 1279 elements");
}

/// On slices, with the three gradients in f32 from 16-bit tensors; and with a term, whose tensor is a buffer more: dk and dv are
/// then two passes.
#[test]
fn slices_and_buffers_agree() {
    let shape = AttentionShape::new(1, 2, 40, 16);
    let case = Case::new(shape.score(Score::new().alibi())).pattern(Causal);
    let (tensors, dout, gpu) = (case.tensors::<f32, f32>(), drawn_dout::<f32>(&case), gpu_with(case.options));
    let slices = gpu.attention_backward::<_, _, _, f32>(&case.attention, &tensors.inputs(), &dout, &Causal);
    let slices = slices.expect("a good call");
    // As slices lower it: blocks of another size take columns of other numbers at once, and round otherwise.
    let parts = Parts::lower(&Causal, BlockGrid::from(&shape)).expect("a good pattern");
    let buffers = run_backward(&gpu, &case.attention, &tensors.inputs(), &dout, &parts, 1).expect("guards");
    assert_eq!((slices.dq, slices.dk, slices.dv), (buffers.dq, buffers.dk, buffers.dv));
    let explained = |score: Score| {
        let plan = gpu.kernels().attention(shape.score(score), &Causal).expect("a good call");
        plan.backward().expect("a good call").explain().clone()
    };
    let (plain, alibi) = (explained(Score::new()), explained(Score::new().alibi()));
    assert_eq!((plain.dispatches, plain.scratch_bytes, plain.kept), (3, 16 * 2 * 40, 2 * 40 * 41 / 2));
    assert!(alibi.dispatches >= plain.dispatches);
}
