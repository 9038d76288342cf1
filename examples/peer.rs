//! One dense or causal call, timed in the way of programs that time other libraries: the same arguments, the same JSON line.
//! `benches/peers.sh` runs it beside them.
//!
//!     cargo run --example peer -- --batch 1 --heads 4 --seq 1024 --head-dim 64 [--causal] [--dtype f32|f16] [--backward] --iters 10
//!
//! With `--backward` a launch computes the gradients of q, k and v; the forward pass before it is not timed. A sample is the wall time from the
//! first launch to the device being idle, divided by the launches in it: as many as fill 10 ms. The result of the first launch is held against
//! the f64 reference (of gradients, that of the first head and of the last), and a wrong one is never timed.

use half::f16;
use pollster::block_on;
use std::time::Instant;
use wgpu::util::DeviceExt;
use wgpu_attention::reference::gradient::{BoundOptions, bounded};
use wgpu_attention::reference::{self, Got, Kind, Rows, Tensors, VerifyOptions, WeightFormat};
use wgpu_attention::{
    AttentionBuffers, AttentionShape, Causal, Element, Full, Gpu, Inputs, KernelPath, Options, Pattern,
    Storage,
};
use wgpu_attention_bench::call::Backward;

type Error = Box<dyn std::error::Error>;

/// Seconds that a sample lasts at least.
const SAMPLE_S: f64 = 0.01;

#[derive(Debug, Clone, Copy)]
struct Arguments {
    shape: AttentionShape,
    halves: bool,
    causal: bool,
    backward: bool,
    samples: usize,
}

/// A call that was right, and its samples in seconds, sorted.
struct Measured {
    path: KernelPath,
    worst: f64,
    seconds: Vec<f64>,
}

fn main() -> Result<(), Error> {
    let arguments = arguments()?;
    let adapter = block_on(Gpu::adapters())?.into_iter().next().ok_or("no adapter")?;
    let token = wgpu_attention_experimental::allowed();
    let gpu = block_on(Gpu::on_experimental(&adapter, Options::default(), token))?;
    match arguments.halves {
        true => time::<f16>(&gpu, &arguments),
        false => time::<f32>(&gpu, &arguments),
    }
}

fn arguments() -> Result<Arguments, Error> {
    let (mut batch, mut heads, mut seq, mut head_dim, mut samples) = (1, 4, 1024, 64, 10);
    let (mut causal, mut backward, mut halves) = (false, false, false);
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
            "--backward" => backward = true,
            "--dtype" => match given.next().as_deref() {
                Some("f32") => halves = false,
                Some("f16") => halves = true,
                got => return Err(format!("--dtype: need f32 or f16, got {got:?}").into()),
            },
            _ => return Err(format!("unknown argument `{name}`; the head of this file names them").into()),
        }
    }
    Ok(Arguments {
        shape: AttentionShape::new(batch, heads, seq, head_dim),
        halves,
        causal,
        backward,
        samples,
    })
}

fn time<E: Element>(gpu: &Gpu, arguments: &Arguments) -> Result<(), Error> {
    let Arguments { shape, causal, backward, .. } = *arguments;
    let Measured { path, worst, seconds } =
        if backward { time_backward::<E>(gpu, arguments)? } else { time_forward::<E>(gpu, arguments)? };
    let median = seconds[seconds.len() / 2];
    let flops = 4.0 * (shape.batch * shape.heads * shape.head_dim) as f64 * (shape.q_len as f64).powi(2);
    // Five products where forward has two, as these programs count it.
    let flops = if backward { 2.5 * flops } else { flops };
    let flops = if causal { flops / 2.0 } else { flops };
    let line = serde_json::json!({
        "peer": format!("wgpu-attention {path}"), "version": env!("CARGO_PKG_VERSION"), "adapter": gpu.info().name,
        "batch": shape.batch, "heads": shape.heads, "seq": shape.q_len, "head_dim": shape.head_dim, "causal": causal,
        "dtype": E::TYPE.to_string(), "pass": if backward { "backward" } else { "forward" },
        "median_ms": 1e3 * median, "min_ms": 1e3 * seconds[0], "max_ms": 1e3 * seconds[seconds.len() - 1],
        "gflops": flops / median / 1e9, "max_abs_err": worst,
    });
    println!("{line}");
    Ok(())
}

fn pattern(causal: bool) -> &'static dyn Pattern {
    if causal { &Causal } else { &Full }
}

/// So many samples, sorted, of a launch that gives the seconds of as many calls as it is asked for.
fn samples(count: usize, launch: impl Fn(usize) -> Result<f64, Error>) -> Result<Vec<f64>, Error> {
    let once = launch(1)?.max(1e-6);
    let times = (SAMPLE_S / once).ceil().max(1.0) as usize;
    let mut seconds =
        (0..count).map(|_| Ok(launch(times)? / times as f64)).collect::<Result<Vec<_>, Error>>()?;
    seconds.sort_by(f64::total_cmp);
    Ok(seconds)
}

fn time_forward<E: Element>(gpu: &Gpu, arguments: &Arguments) -> Result<Measured, Error> {
    let shape = arguments.shape;
    let attention = shape.storage(Storage::all(E::TYPE));
    let pattern = pattern(arguments.causal);
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
    Ok(Measured { path, worst, seconds: samples(arguments.samples, launch)? })
}

fn time_backward<E: Element>(gpu: &Gpu, arguments: &Arguments) -> Result<Measured, Error> {
    let shape = arguments.shape;
    let attention = shape.storage(Storage::all(E::TYPE));
    let pattern = pattern(arguments.causal);
    let plan = gpu.kernels().attention(&attention, pattern)?;
    let tensors = reference::random::<E, E>(&attention, Kind::Normal, 1)?;
    // As large as q, and drawn apart.
    let dout = reference::random::<E, E>(&attention, Kind::Normal, 2)?.q;
    let inputs = tensors.inputs();
    let call = block_on(Backward::upload(gpu, (&plan, &plan.backward()?), &inputs, &dout, [true; 3]))?;
    let launch = |times: usize| -> Result<f64, Error> {
        let start = Instant::now();
        block_on(call.compute(times))?;
        Ok(start.elapsed().as_secs_f64())
    };

    launch(1)?;
    let got = block_on(call.read::<E>())?.map(|gradient| gradient.expect("all three are wanted"));
    let path = plan.path().path;
    let options = BoundOptions::default().weights(WeightFormat::of(path)).storage(E::TYPE);
    let mut worst = 0.0f64;
    for head in [0, shape.batch * shape.heads - 1] {
        worst = worst.max(largest_error(arguments, head, &tensors, &dout, &got, options)?);
    }
    Ok(Measured { path, worst, seconds: samples(arguments.samples, launch)? })
}

/// Of all gradients of one head of all batch items', none of which may be out of its bound.
fn largest_error<E: Element>(
    arguments: &Arguments,
    head: usize,
    tensors: &Tensors<E, E>,
    dout: &[E],
    got: &[Vec<E>; 3],
    options: BoundOptions<'_>,
) -> Result<f64, Error> {
    let shape = AttentionShape::new(1, 1, arguments.shape.q_len, arguments.shape.head_dim);
    let own = head * shape.len_q()..(head + 1) * shape.len_q();
    let Tensors { q, k, v, .. } = tensors;
    let inputs = Inputs::new(&q[own.clone()], &k[own.clone()], &v[own.clone()]);
    let attention = shape.storage(Storage::all(E::TYPE));
    let exact = bounded(&attention, &inputs, &dout[own.clone()], pattern(arguments.causal), options)?;
    let mut worst = 0.0f64;
    for (name, exact, got) in
        [("dq", exact.dq, &got[0]), ("dk", exact.dk, &got[1]), ("dv", exact.dv, &got[2])]
    {
        let got = got[own.clone()].iter().copied();
        let compared = exact.compare(got.clone(), 0.0);
        if !compared.pass {
            return Err(format!("{name} of head {head} is out of its bound: {:?}", compared.worst).into());
        }
        let errors = got.zip(&exact.out).map(|(got, exact)| (got.into() - exact).abs());
        worst = errors.fold(worst, f64::max);
    }
    Ok(worst)
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
