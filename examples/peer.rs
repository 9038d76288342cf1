//! One dense or causal call, timed in the way of programs that time other libraries: the same arguments, the same JSON line.
//! `benches/peers.sh` runs it beside them.
//!
//!     cargo run --example peer -- --batch 1 --heads 4 --seq 1024 --head-dim 64 [--causal] [--dtype f32|f16] --iters 10
//!
//! A sample is the wall time from the first launch to the device being idle, divided by the launches in it: as many as fill
//! 10 ms. The result of the first launch is held against the f64 reference, and a wrong one is never timed.

use half::f16;
use std::time::Instant;
use wgpu::util::DeviceExt;
use wgpu_attention::reference::{self, Got, Kind, Rows, VerifyOptions, WeightFormat};
use wgpu_attention::{
    AttentionBuffers, AttentionShape, Causal, Element, Full, Gpu, Options, Pattern, Storage,
};

type Error = Box<dyn std::error::Error>;

/// Seconds that a sample lasts at least.
const SAMPLE_S: f64 = 0.01;

#[derive(Debug, Clone, Copy)]
struct Arguments {
    shape: AttentionShape,
    halves: bool,
    causal: bool,
    samples: usize,
}

fn main() -> Result<(), Error> {
    let arguments = arguments()?;
    let adapter = pollster::block_on(Gpu::adapters())?.into_iter().next().ok_or("no adapter")?;
    let token = wgpu_attention_experimental::allowed();
    let gpu = pollster::block_on(Gpu::on_experimental(&adapter, Options::default(), token))?;
    match arguments.halves {
        true => time::<f16>(&gpu, arguments),
        false => time::<f32>(&gpu, arguments),
    }
}

fn arguments() -> Result<Arguments, Error> {
    let (mut batch, mut heads, mut seq, mut head_dim, mut samples) = (1, 4, 1024, 64, 10);
    let (mut causal, mut halves) = (false, false);
    let mut given = std::env::args().skip(1);
    while let Some(name) = given.next() {
        let number = |given: &mut dyn Iterator<Item = String>| -> Result<usize, Error> {
            let value = given.next().ok_or_else(|| format!("{name} needs a number"))?;
            Ok(value.parse().map_err(|_| format!("{name}: need a number, got `{value}`"))?)
        };
        match name.as_str() {
            "--batch" => batch = number(&mut given)?,
            "--heads" => heads = number(&mut given)?,
            "--seq" => seq = number(&mut given)?,
            "--head-dim" => head_dim = number(&mut given)?,
            "--iters" => samples = number(&mut given)?.max(1),
            "--causal" => causal = true,
            "--dtype" => match given.next().as_deref() {
                Some("f32") => halves = false,
                Some("f16") => halves = true,
                got => return Err(format!("--dtype: need f32 or f16, got {got:?}").into()),
            },
            _ => return Err(format!("unknown argument `{name}`; the head of this file names them").into()),
        }
    }
    Ok(Arguments { shape: AttentionShape::new(batch, heads, seq, head_dim), halves, causal, samples })
}

fn time<E: Element>(gpu: &Gpu, Arguments { shape, causal, samples, .. }: Arguments) -> Result<(), Error> {
    let attention = shape.storage(Storage::all(E::TYPE));
    let pattern: &dyn Pattern = if causal { &Causal } else { &Full };
    let plan = gpu.kernels().attention(&attention, pattern)?;
    let tensors = reference::random::<E, E>(&attention, Kind::Normal, 1)?;
    let buffer = |data: &[E]| {
        gpu.device().create_buffer_init(&wgpu::util::BufferInitDescriptor {
            label: None,
            contents: bytemuck::cast_slice(data),
            usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC,
        })
    };
    let poison = vec![E::from_f64(-77.0); shape.len_out()];
    let [q, k, v, out] = [&tensors.q, &tensors.k, &tensors.v, &poison].map(|data| buffer(data));
    let [q, k, v, to] = [&q, &k, &v, &out].map(wgpu::Buffer::as_entire_buffer_binding);
    let call = plan.bind(AttentionBuffers::new(q, k, v, to))?;
    let launch = |times: usize| -> Result<f64, Error> {
        let start = Instant::now();
        let mut encoder = gpu.device().create_command_encoder(&Default::default());
        (0..times).for_each(|_| call.encode(&mut encoder));
        gpu.queue().submit([encoder.finish()]);
        gpu.device().poll(wgpu::PollType::wait_indefinitely())?;
        Ok(start.elapsed().as_secs_f64())
    };

    launch(1)?;
    let got: Vec<E> = read(gpu, &out, shape.len_out())?;
    let path = plan.path().path;
    let options =
        VerifyOptions::default().rows(Rows::Sample { count: 16, seed: 0 }).weights(WeightFormat::of(path));
    let report = reference::verify(&attention, &tensors.inputs(), pattern, Got::new(&got), options)?;
    if !report.pass {
        return Err(format!("out of its bound: {report}").into());
    }
    let worst = report.worst_out.map_or(0.0, |worst| (worst.got - worst.expected).abs());

    let once = launch(1)?.max(1e-6);
    let times = (SAMPLE_S / once).ceil().max(1.0) as usize;
    let mut seconds =
        (0..samples).map(|_| Ok(launch(times)? / times as f64)).collect::<Result<Vec<_>, Error>>()?;
    seconds.sort_by(f64::total_cmp);
    let median = seconds[seconds.len() / 2];
    let flops = 4.0 * (shape.batch * shape.heads * shape.head_dim) as f64 * (shape.q_len as f64).powi(2);
    let flops = if causal { flops / 2.0 } else { flops };
    let line = serde_json::json!({
        "peer": format!("wgpu-attention {path}"), "version": env!("CARGO_PKG_VERSION"), "adapter": gpu.info().name,
        "batch": shape.batch, "heads": shape.heads, "seq": shape.q_len, "head_dim": shape.head_dim, "causal": causal,
        "dtype": E::TYPE.to_string(), "pass": "forward", "median_ms": 1e3 * median, "min_ms": 1e3 * seconds[0],
        "max_ms": 1e3 * seconds[seconds.len() - 1], "gflops": flops / median / 1e9, "max_abs_err": worst,
    });
    println!("{line}");
    Ok(())
}

fn read<E: Element>(gpu: &Gpu, from: &wgpu::Buffer, elements: usize) -> Result<Vec<E>, Error> {
    let bytes = (elements * size_of::<E>()) as u64;
    let to = gpu.device().create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size: bytes,
        usage: wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::MAP_READ,
        mapped_at_creation: false,
    });
    let mut encoder = gpu.device().create_command_encoder(&Default::default());
    encoder.copy_buffer_to_buffer(from, 0, &to, 0, bytes);
    gpu.queue().submit([encoder.finish()]);
    to.map_async(wgpu::MapMode::Read, .., |_| {});
    gpu.device().poll(wgpu::PollType::wait_indefinitely())?;
    let mapped = to.get_mapped_range(..)?;
    Ok(bytemuck::pod_collect_to_vec(&mapped))
}
