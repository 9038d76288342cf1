//! Training steps on the device: attention, its gradients and AdamW in one submission per step: `cargo run --example train_step`.
//!
//! What is learnt here is the simplest thing that has all the parts: tensors q, k and v whose attention gives a wanted out. In a
//! model they are products of weights, whose gradients `Kernels::matmul` gives (see `examples/train`).

use wgpu_attention::wgpu::util::DeviceExt;
use wgpu_attention::wgpu::{self, Buffer, BufferUsages};
use wgpu_attention::{
    AddShape, AttentionBuffers, AttentionGradBuffers, AttentionShape, Gpu, OptimizerBuffers, OptimizerRule,
    OptimizerShape, OptimizerStep, Window,
};

const STEPS: u32 = 60;

pub(crate) fn main() -> Result<(), Box<dyn std::error::Error>> {
    let gpu = Gpu::new()?;
    let (device, queue, kernels) = (gpu.device(), gpu.queue(), gpu.kernels());
    let shape = AttentionShape::new(1, 2, 256, 32);
    let len = shape.len_q(); // q, k, v and out are of one size here
    let wave = |step: f32| (0..len).map(|n| (n as f32 * step).sin()).collect::<Vec<_>>();
    let storage = |label, values: &[f32]| {
        device.create_buffer_init(&wgpu::util::BufferInitDescriptor {
            label: Some(label),
            contents: bytemuck::cast_slice(values),
            usage: BufferUsages::STORAGE | BufferUsages::COPY_SRC,
        })
    };
    let zeros = vec![0.0; len];
    let parameters = [("q", 0.37), ("k", 0.73), ("v", 1.19)].map(|(name, step)| storage(name, &wave(step)));
    let gradients = ["dq", "dk", "dv"].map(|name| storage(name, &zeros));
    let [first, second] = [(); 2].map(|_| ["q", "k", "v"].map(|name| storage(name, &zeros)));
    let (out, state) = (storage("out", &zeros), storage("state", &vec![0.0; 2 * shape.len_lse()]));
    let dout = storage("dout", &zeros);
    // The gradient of half the squared distance is out - wanted.
    let minus_wanted = storage("-wanted", &wave(0.11).iter().map(|x| -0.5 * x).collect::<Vec<_>>());
    let back = device.create_buffer(&wgpu::BufferDescriptor {
        label: Some("back"),
        size: dout.size(),
        usage: BufferUsages::MAP_READ | BufferUsages::COPY_DST,
        mapped_at_creation: false,
    });

    // Once: plans compile, and bound calls may be recorded again and again.
    let whole = Buffer::as_entire_buffer_binding;
    let [q, k, v] = &parameters;
    let [dq, dk, dv] = &gradients;
    let plan = kernels.attention(shape, &Window { before: 15, after: 0 })?;
    let forward = AttentionBuffers::new(whole(q), whole(k), whole(v), whole(&out)).state(whole(&state));
    let forward = plan.bind(forward)?;
    let backward =
        AttentionGradBuffers::new(whole(q), whole(k), whole(v), whole(&out), whole(&state), whole(&dout));
    let backward = plan.backward()?.bind(backward.dq(whole(dq)).dk(whole(dk)).dv(whole(dv)))?;
    let difference =
        kernels.add(&AddShape::new(len / 32, 32))?.bind(whole(&out), whole(&minus_wanted), whole(&dout))?;
    let adamw = kernels.optimizer(&OptimizerShape::new(len, OptimizerRule::ADAMW))?;

    let mut losses = vec![];
    for step in 1..=STEPS {
        let mut encoder = device.create_command_encoder(&Default::default());
        forward.encode(&mut encoder);
        difference.encode(&mut encoder);
        backward.encode(&mut encoder);
        for n in 0..3 {
            let tensors = OptimizerBuffers::new(whole(&parameters[n]), whole(&gradients[n]));
            let tensors = tensors.first(whole(&first[n])).second(whole(&second[n]));
            adamw.bind(tensors, OptimizerStep::new(step, 0.05))?.encode(&mut encoder);
        }
        encoder.copy_buffer_to_buffer(&dout, 0, &back, 0, dout.size());
        queue.submit([encoder.finish()]);
        losses.push(half_square(device, &back)?);
        if step % 10 == 1 {
            println!("step {step}: loss {:.4}", losses[losses.len() - 1]);
        }
    }
    let (begin, end) = (losses[0], losses[losses.len() - 1]);
    println!("after {STEPS} steps: loss {end:.4}, at the start {begin:.4}");
    assert!(end < 0.1 * begin, "the loss fell from {begin} only to {end}");
    Ok(())
}

/// Half the sum of squares of what was copied, per element.
fn half_square(device: &wgpu::Device, back: &Buffer) -> Result<f64, Box<dyn std::error::Error>> {
    back.map_async(wgpu::MapMode::Read, .., |result| result.expect("the copy is mapped"));
    device.poll(wgpu::PollType::wait_indefinitely())?;
    let values: Vec<f32> = bytemuck::pod_collect_to_vec(&back.get_mapped_range(..)?);
    back.unmap();
    Ok(values.iter().map(|x| f64::from(x * x)).sum::<f64>() / (2.0 * values.len() as f64))
}
