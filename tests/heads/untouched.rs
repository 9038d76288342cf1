//! What a call of some heads leaves alone, and what it shares with a call of all.

use super::{Checked, attention};
use wgpu_attention::reference::Tensors;
use wgpu_attention::{
    Attention, AttentionBuffers, AttentionGradBuffers, AttentionShape, Causal, Gpu, Heads, Options, Pattern,
    Window,
};
use wgpu_attention_testing::{Case, drawn_dout, gpu_with, read, storage};

/// What the outputs hold before.
const BEFORE: f32 = 7.0;

/// out, lse, state, dq, dk, dv of one call over outputs that hold [`BEFORE`].
fn computed(gpu: &Gpu, attention: &Attention, pattern: &dyn Pattern) -> Result<[Vec<f32>; 6], String> {
    let case = Case::new(attention);
    let tensors: Tensors<f32> = case.tensors();
    let inputs = tensors.inputs();
    let (device, queue) = (gpu.device(), gpu.queue());
    let [q, k, v] = [inputs.q, inputs.k, inputs.v].map(|values| storage(device, values));
    let dout = storage(device, &drawn_dout::<f32>(&case));
    let rows = attention.len_lse();
    let lens = [attention.len_out(), rows, 2 * rows, attention.len_q(), attention.len_k(), attention.len_v()];
    let outputs = lens.map(|len| storage(device, &vec![BEFORE; len]));
    let [out, lse, state, dq, dk, dv] = outputs.each_ref().map(wgpu::Buffer::as_entire_buffer_binding);
    let [q, k, v, dout] = [&q, &k, &v, &dout].map(wgpu::Buffer::as_entire_buffer_binding);
    let record = || {
        let plan = gpu.kernels().attention(attention, pattern)?;
        let buffers = AttentionBuffers::new(q.clone(), k.clone(), v.clone(), out.clone());
        let forward = plan.bind(buffers.lse(lse).state(state.clone()))?;
        let gradients = AttentionGradBuffers::new(q, k, v, out, state, dout).dq(dq).dk(dk).dv(dv);
        Ok((forward, plan.backward()?.bind(gradients)?))
    };
    let (forward, backward) = record().map_err(|e: wgpu_attention::Error| e.to_string())?;
    let mut encoder = device.create_command_encoder(&Default::default());
    forward.encode(&mut encoder);
    backward.encode(&mut encoder);
    queue.submit([encoder.finish()]);
    Ok(outputs.map(|buffer| read(device, queue, &buffer)))
}

/// Elements of a tensor by head: those of computed heads are the call's of all heads, the others as before.
pub(crate) fn alone(gpu: &Gpu) -> Checked {
    let some = attention();
    let shape = some.shape;
    let all = computed(gpu, &shape.into(), &Causal)?;
    let got = computed(gpu, &some, &Causal)?;
    let group = shape.heads / shape.kv_heads;
    let query = |head: usize| some.heads.computes(head);
    // Of a key head, all that read it make its gradients: compared where all of them are computed.
    let key = |head: usize| (head * group..(head + 1) * group).filter(|&head| query(head)).count();
    let names = ["out", "lse", "state", "dq", "dk", "dv"];
    for (n, ((name, all), got)) in names.iter().zip(&all).zip(&got).enumerate() {
        let heads = if n < 4 { shape.heads } else { shape.kv_heads };
        let of_head = got.len() / shape.batch / heads;
        for (place, (got, all)) in got.chunks(of_head).zip(all.chunks(of_head)).enumerate() {
            let head = place % heads;
            let computed = if n < 4 { group * usize::from(query(head)) } else { key(head) };
            let right = match computed {
                0 => got.iter().all(|&x| x == BEFORE),
                some if some == group => got == all,
                _ => got.iter().all(|&x| x != BEFORE) && got != all,
            };
            if !right {
                return Err(format!("{name} of head {head}, of which {computed} of {group} are computed"));
            }
        }
    }
    Ok(())
}

#[test]
fn other_heads_stay_as_they_are() {
    alone(&gpu_with(Options::default().splits(1))).unwrap_or_else(|e| panic!("{e}"));
}

#[test]
fn calls_of_different_heads_fill_one_out() {
    let gpu = gpu_with(Options::default());
    let shape = AttentionShape::new(1, 4, 150, 16);
    let near = Window { before: 8, after: 0 };
    let (local, wide) = (Heads::only(&[0, 2]), Heads::without(4, &[0, 2]));
    let case = Case::new(shape);
    let tensors: Tensors<f32> = case.tensors();
    let inputs = tensors.inputs();
    let device = gpu.device();
    let [q, k, v] = [inputs.q, inputs.k, inputs.v].map(|values| storage(device, values));
    let out = storage(device, &vec![BEFORE; inputs.q.len()]);
    let mut encoder = device.create_command_encoder(&Default::default());
    for (heads, pattern) in [(&local, &near as &dyn Pattern), (&wide, &Causal)] {
        let plan = gpu.kernels().attention(shape.heads(heads.clone()), pattern).expect("a good call");
        let [q, k, v, out] = [&q, &k, &v, &out].map(wgpu::Buffer::as_entire_buffer_binding);
        plan.bind(AttentionBuffers::new(q, k, v, out)).expect("good buffers").encode(&mut encoder);
    }
    gpu.queue().submit([encoder.finish()]);
    let got = read(device, gpu.queue(), &out);
    let of = |pattern: &dyn Pattern| -> Vec<f32> {
        gpu.attention(shape, inputs.q, inputs.k, inputs.v, pattern).expect("a good call")
    };
    let (near, far) = (of(&near), of(&Causal));
    let of_head = got.len() / 4;
    for head in 0..4 {
        let want = if local.computes(head) { &near } else { &far };
        assert_eq!(got[head * of_head..][..of_head], want[head * of_head..][..of_head], "head {head}");
    }
    assert_ne!(near[..of_head], far[..of_head]);
}
