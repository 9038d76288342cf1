//! Scratch in which another call's rows lie.

use crate::buffers::{read, storage};
use wgpu_attention::reference::{Kind, random};
use wgpu_attention::{AttentionBuffers, AttentionPlan, AttentionShape, Causal, Error, Full, Gpu, Scratch};

/// A call that leaves splits of short rows empty computes the same bits, whether its scratch is new or has all rows of another call.
///
/// # Errors
/// It does not, or the device refuses a call.
pub fn stale_scratch(gpu: &Gpu) -> Result<(), String> {
    let shape = AttentionShape::new(1, 2, 150, 24);
    let run = || -> Result<_, Error> {
        let (full, causal) =
            (gpu.kernels().attention(shape, &Full)?, gpu.kernels().attention(shape, &Causal)?);
        let new = rows(gpu, &causal, &causal.scratch()?, 1)?;
        let scratch = full.scratch()?;
        rows(gpu, &full, &scratch, 2)?;
        Ok((new, rows(gpu, &causal, &scratch, 1)?))
    };
    let (new, stale) = run().map_err(|error| error.to_string())?;
    if new == stale { Ok(()) } else { Err("what another call left in scratch counts".into()) }
}

/// Output of a call over this scratch.
fn rows(gpu: &Gpu, plan: &AttentionPlan, scratch: &Scratch, seed: u64) -> Result<Vec<f32>, Error> {
    let inputs = random::<f32, f32>(plan.attention(), Kind::Peaky, seed)?;
    let (device, queue) = (gpu.device(), gpu.queue());
    let [q, k, v] = [&inputs.q, &inputs.k, &inputs.v].map(|tensor| storage(device, tensor));
    let out = storage(device, &vec![f32::NAN; plan.attention().len_out()]);
    let whole = wgpu::Buffer::as_entire_buffer_binding;
    let call =
        plan.bind_with(AttentionBuffers::new(whole(&q), whole(&k), whole(&v), whole(&out)), scratch)?;
    let mut encoder = device.create_command_encoder(&Default::default());
    call.encode(&mut encoder);
    queue.submit([encoder.finish()]);
    Ok(read(device, queue, &out))
}
