//! What relative rows cost beside plain attention of the same shape, on each scalar tile: `cargo run --release --example relative_cost`.
//!
//! Calls of both kinds by turns, the least time of each; 3 products instead of 2 are 1.5 times the arithmetic.

use std::time::{Duration, Instant};
use wgpu_attention::wgsl::TileKind;
use wgpu_attention::{
    AttentionPlan, AttentionShape, Causal, Full, Gpu, Inputs, Kernels, Options, Outputs, Pattern, Relative,
    Result, Score, Window,
};

const ROUNDS: usize = 5;

fn main() -> Result<()> {
    let gpu = Gpu::new()?;
    println!("on {}", gpu.info().name);
    println!("{:32} {:>10} {:>10} {:>6}", "", "plain", "relative", "ratio");
    for kind in [TileKind::Staged, TileKind::Direct] {
        let kernels = Kernels::new(gpu.device(), Options::default().tile_kind(kind))?;
        let gpu = gpu.with_kernels(kernels);
        let window = Window { before: 256, after: 0 };
        for len in [1024, 2048] {
            compare(&gpu, format!("{kind:?}, full, n = {len}"), len, &Full)?;
            compare(&gpu, format!("{kind:?}, causal, n = {len}"), len, &Causal)?;
        }
        compare(&gpu, format!("{kind:?}, window 256, n = 4096"), 4096, &window)?;
    }
    Ok(())
}

fn compare(gpu: &Gpu, name: String, len: usize, pattern: &dyn Pattern) -> Result<()> {
    let shape = AttentionShape::new(1, 2, len, 64);
    let relative = Relative::new(len as i32 - 1, 2 * len - 1).u(true).w(true);
    let wave = |len: usize, step: f32| (0..len).map(|n| (n as f32 * step).sin()).collect::<Vec<f32>>();
    let [q, k, v] = [0.37, 0.61, 0.23].map(|step| wave(shape.len_q(), step));
    let (r, uw) = (wave(2 * (2 * len - 1) * 64, 0.41), wave(2 * 2 * 64, 0.73));
    let plain = gpu.kernels().attention(shape, pattern)?;
    let scored = gpu.kernels().attention(shape.score(Score::new().with(relative)), pattern)?;
    let inputs = Inputs::new(&q, &k, &v);
    let with_rows = inputs.clone().tensor("relative_rows", &r).tensor("relative_biases", &uw);
    let [mut least, mut least_scored] = [Duration::MAX; 2];
    for _ in 0..ROUNDS {
        least = least.min(time(gpu, &plain, &inputs)?);
        least_scored = least_scored.min(time(gpu, &scored, &with_rows)?);
    }
    let ratio = least_scored.as_secs_f64() / least.as_secs_f64();
    println!("{name:32} {:>7.1} ms {:>7.1} ms {ratio:>6.2}", ms(least), ms(least_scored));
    Ok(())
}

fn time(gpu: &Gpu, plan: &AttentionPlan, inputs: &Inputs<'_, f32>) -> Result<Duration> {
    let start = Instant::now();
    gpu.run_plan::<f32, f32, f32>(plan, inputs, Outputs::default())?;
    Ok(start.elapsed())
}

fn ms(time: Duration) -> f64 {
    1e3 * time.as_secs_f64()
}
