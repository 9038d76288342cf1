//! Attention over slices, and proof that it is right: `cargo run --example slices`.
//!
//! A device of the crate's own: nothing to know of wgpu. Two calls of different kinds, each compared with the f64 reference,
//! element by element, within a bound that is computed from the inputs.

use wgpu_attention::reference::{self, Got, VerifyOptions};
use wgpu_attention::{AttentionShape, Causal, Gpu, Inputs, Outputs, Score, Window};

pub(crate) fn main() -> wgpu_attention::Result<()> {
    let gpu = Gpu::new()?;
    println!("on {}", gpu.info().name);

    // 8 query heads share 2 key heads by fours, as in Llama 3; 384 positions.
    let shape = AttentionShape::new(1, 8, 384, 64).kv_heads(2);
    let wave = |len: usize, step: f32| (0..len).map(|n| (n as f32 * step).sin()).collect::<Vec<f32>>();
    let (q, k, v) = (wave(shape.len_q(), 0.37), wave(shape.len_k(), 0.61), wave(shape.len_v(), 0.23));

    // The short way: out alone.
    let out: Vec<f32> = gpu.attention(shape, &q, &k, &v, &Causal)?;
    println!("causal: out[0] = {:?} ...", &out[..4]);

    // With a score of your choice, and lse: a window of 128 keys under ALiBi, scores capped as in Gemma 2.
    let attention = shape.score(Score::new().softcap(50.0).alibi());
    let window = Window { before: 127, after: 0 };
    let inputs = Inputs::new(&q, &k, &v);
    let result = gpu.run::<f32, f32, f32>(&attention, &inputs, &window, Outputs::default().lse())?;

    let got = Got::new(&result.out).lse(result.lse.as_deref());
    let report = reference::verify(&attention, &inputs, &window, got, VerifyOptions::default())?;
    println!("window: {report}");
    assert!(report.pass);
    Ok(())
}
