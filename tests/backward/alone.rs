//! Gradients that are asked for one by one: the passes of dk and of dv are then others than the one that has both.

use crate::support::{Case, drawn_dout, gpu_with, read, storage};
use wgpu_attention::wgpu::Buffer;
use wgpu_attention::{AttentionBuffers, AttentionGradBuffers, AttentionShape, Causal, Gpu};

/// dq, dk and dv, those that are wanted, of 40 queries over 30 keys: the first 10 queries see no key; in the first head
/// their gradients of out are no numbers, in the second they themselves.
fn gradients(gpu: &Gpu, wanted: [bool; 3]) -> [Vec<f32>; 3] {
    let shape = AttentionShape::new(1, 2, 40, 8).kv_len(30);
    let case = Case::new(shape).pattern(Causal);
    let (mut tensors, mut dout) = (case.tensors::<f32, f32>(), drawn_dout::<f32>(&case));
    // One of the two in each head: either must be looked for.
    dout[..80].fill(f32::INFINITY);
    tensors.q[320..][..80].fill(f32::NAN);
    let (device, whole) = (gpu.device(), Buffer::as_entire_buffer_binding);
    let zeros = |len: usize| storage(device, &vec![0f32; len]);
    let [q, k, v, dout] = [&tensors.q, &tensors.k, &tensors.v, &dout].map(|values| storage(device, values));
    let (out, state) = (zeros(shape.len_out()), zeros(2 * shape.len_lse()));
    let written = [shape.len_q(), shape.len_k(), shape.len_v()].map(zeros);
    let plan = gpu.kernels().attention(shape, &Causal).expect("a good call");
    let forward = AttentionBuffers::new(whole(&q), whole(&k), whole(&v), whole(&out)).state(whole(&state));
    let mut buffers =
        AttentionGradBuffers::new(whole(&q), whole(&k), whole(&v), whole(&out), whole(&state), whole(&dout));
    let [dq, dk, dv] = &written;
    buffers.dq = wanted[0].then(|| whole(dq));
    buffers.dk = wanted[1].then(|| whole(dk));
    buffers.dv = wanted[2].then(|| whole(dv));
    let mut encoder = device.create_command_encoder(&Default::default());
    plan.bind(forward).expect("good buffers").encode(&mut encoder);
    let backward = plan.backward().expect("a good call");
    backward.bind(buffers).expect("good buffers").encode(&mut encoder);
    gpu.queue().submit([encoder.finish()]);
    written.map(|buffer| read(device, gpu.queue(), &buffer))
}

#[test]
fn each_gradient_alone_is_that_of_all_together() {
    let gpu = gpu_with(Default::default());
    let all = gradients(&gpu, [true; 3]);
    for n in 0..3 {
        let alone = gradients(&gpu, [n == 0, n == 1, n == 2]);
        for (m, (alone, all)) in alone.iter().zip(&all).enumerate() {
            let largest = all.iter().fold(0f32, |most, x| most.max(x.abs()));
            assert!(largest > 0.0 && all.iter().all(|x| x.is_finite()), "gradient {m} of all");
            // The shaders differ, and a compiler may round them otherwise.
            let close = |(x, y): (&f32, &f32)| (x - y).abs() <= 1e-5 * largest;
            let right =
                if m == n { alone.iter().zip(all).all(close) } else { alone.iter().all(|x| *x == 0.0) };
            assert!(right, "gradient {m}, where {n} alone was asked for");
        }
    }
}
