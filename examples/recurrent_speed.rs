//! What a recurrent network takes beside its matrix products alone: `cargo run --release --example recurrent_speed`.
//!
//! The products alone are what the call records before its steps, and a product `[batch, hidden] x [hidden, gates hidden]` of `Kernels::matmul` per
//! step, one after the other. What the network takes more is the cells, and that a step waits for the one before it. By turns, the least time of each.

use std::time::{Duration, Instant};
use wgpu_attention::wgpu::{Buffer, BufferUsages, ComputePass, PollType, util::DeviceExt};
use wgpu_attention::{
    Gpu, MatmulBuffers, MatmulShape, RecurrentBuffers, RecurrentCell, RecurrentShape, RecurrentWeightBuffers,
    Result, Stage, WeightOrder,
};

const ROUNDS: usize = 7;

fn main() -> Result<()> {
    let gpu = Gpu::new()?;
    println!("on {}", gpu.info().name);
    println!("{:44} {:>10} {:>10} {:>10} {:>8}", "", "network", "products", "a step", "share");
    for (cell, batch, steps, width) in [
        (RecurrentCell::Lstm, 16, 64, 512),
        (RecurrentCell::Lstm, 1, 256, 512),
        (RecurrentCell::Lstm, 4, 64, 512),
        (RecurrentCell::Lstm, 64, 16, 512),
        (RecurrentCell::Lstm, 16, 64, 1024),
        (RecurrentCell::Lstm, 16, 128, 128),
        (RecurrentCell::Gru, 16, 64, 512),
        (RecurrentCell::RnnTanh, 16, 64, 512),
    ] {
        compare(&gpu, &RecurrentShape::new(cell, batch, steps, width, width))?;
    }
    Ok(())
}

/// Both by turns, after one call of each.
fn compare(gpu: &Gpu, shape: &RecurrentShape) -> Result<()> {
    let (width, rows, batch) = (shape.hidden, shape.rows(), shape.batch);
    let plan = gpu.kernels().recurrent(shape)?;
    let [x, w_ih, w_hh, b_ih, b_hh, out, h_n, c_n] = [
        wave(gpu, shape.len_x(), 1.0),
        wave(gpu, shape.len_weight_ih(0), 0.04),
        wave(gpu, shape.len_weight_hh(), 0.04),
        wave(gpu, rows, 0.04),
        wave(gpu, rows, 0.04),
        wave(gpu, shape.len_out(), 0.0),
        wave(gpu, shape.len_state(), 0.0),
        wave(gpu, shape.len_state(), 0.0),
    ];
    let whole = Buffer::as_entire_buffer_binding;
    let weights = RecurrentWeightBuffers::new(whole(&w_ih), whole(&w_hh)).bias_ih(whole(&b_ih));
    let buffers = RecurrentBuffers::new(whole(&x), whole(&out), whole(&h_n));
    let buffers = buffers.c_n(shape.cell.has_c().then(|| whole(&c_n)));
    let network = plan.bind(buffers.weights([weights.bias_hh(whole(&b_hh))]))?;
    let product = MatmulShape::new(batch, width, rows).weights(WeightOrder::OutIn);
    let gates = wave(gpu, batch * rows, 0.0);
    let product = gpu.kernels().matmul(&product)?;
    let product = product.bind(MatmulBuffers::new(whole(&out), whole(&w_hh), whole(&gates)))?;
    let of_network = |pass: &mut ComputePass<'_>| network.dispatch(pass);
    let of_products = |pass: &mut ComputePass<'_>| {
        network.dispatch_stage(pass, Stage::Prepare);
        (0..shape.steps).for_each(|_| product.dispatch(pass));
    };
    let mut least = [Duration::MAX; 2];
    for _ in 0..=ROUNDS {
        let times = [time(gpu, &of_network), time(gpu, &of_products)];
        least = [least[0].min(times[0]), least[1].min(times[1])];
    }
    let [network, products] = least.map(|time| 1e3 * time.as_secs_f64());
    println!(
        "{:44} {network:>7.2} ms {products:>7.2} ms {:>7.3} ms {:>7.0}%",
        format!("{}, batch {batch}, {} steps, width {width}", shape.cell, shape.steps),
        network / shape.steps as f64,
        100.0 * products / network
    );
    Ok(())
}

fn wave(gpu: &Gpu, len: usize, size: f32) -> Buffer {
    let bytes: Vec<u8> = (0..len).flat_map(|n| (size * (n as f32 * 0.37).sin()).to_le_bytes()).collect();
    gpu.device().create_buffer_init(&wgpu_attention::wgpu::util::BufferInitDescriptor {
        label: None,
        contents: &bytes,
        usage: BufferUsages::STORAGE,
    })
}

fn time(gpu: &Gpu, record: &dyn Fn(&mut ComputePass<'_>)) -> Duration {
    let start = Instant::now();
    let mut encoder = gpu.device().create_command_encoder(&Default::default());
    record(&mut encoder.begin_compute_pass(&Default::default()));
    gpu.queue().submit([encoder.finish()]);
    gpu.device().poll(PollType::wait_indefinitely()).expect("the device answers");
    start.elapsed()
}
