//! How fast a model makes tokens, and what the host does for one: `cargo run --release --example generate_speed -- --layers 12`.
//!
//! The model is a made GPT-2 (random weights: no file is needed), by default of GPT-2 small's sizes. Tokens per second are measured behind texts of several
//! lengths: nothing is planned, compiled or allocated on the way, so they fall only as keys are attended.

use clap::Parser;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};
use std::time::Instant;
use wgpu_attention::{CacheStorage, ElementType, Gpu, IntegerFormat, IntegerType, ScaleGroups, wgpu};
use wgpu_attention_models::{Error, File, Generator, GeneratorOptions, Sampler, Sampling};

#[derive(Parser)]
struct Sizes {
    #[arg(long, default_value_t = 12)]
    layers: usize,
    #[arg(long, default_value_t = 768)]
    width: usize,
    #[arg(long, default_value_t = 12)]
    heads: usize,
    #[arg(long, default_value_t = 50257)]
    vocabulary: usize,
    /// Tokens per measurement.
    #[arg(long, default_value_t = 24)]
    tokens: usize,
    /// Storage of matrices.
    #[arg(long, value_parser = ["f32", "int8", "int4"], default_value = "f32")]
    weights: String,
    /// Storage of keys and values.
    #[arg(long, value_parser = ["f32", "f16", "bf16", "int8"], default_value = "f32")]
    cache: String,
}

impl Sizes {
    fn options(&self) -> GeneratorOptions {
        let weights = match self.weights.as_str() {
            "int8" => Some(IntegerFormat::new(IntegerType::I8)),
            "int4" => Some(IntegerFormat::new(IntegerType::I4).groups(ScaleGroups::Groups(32))),
            _ => None,
        };
        let cache = match self.cache.as_str() {
            "f16" => ElementType::F16.into(),
            "bf16" => ElementType::Bf16.into(),
            "int8" => CacheStorage::Int8,
            _ => ElementType::F32.into(),
        };
        GeneratorOptions::new(POSITIONS).weights(weights).cache(cache)
    }
}

const POSITIONS: usize = 1024;

fn main() -> Result<(), Error> {
    let sizes = Sizes::parse();
    let bytes = weights(&sizes)?;
    let gpu = Gpu::new()?;
    let start = Instant::now();
    let file = File::of_model(&config(&sizes), &[&bytes])?;
    let mut generator = Generator::new(&gpu, &file, sizes.options())?;
    println!("on {}: planned in {:.1} s", gpu.info().name, start.elapsed().as_secs_f64());
    let mb = |bytes: u64| bytes as f64 / 1e6;
    println!(
        "weights of {:.1} MB, a cache of {:.1} MB; a token takes {} dispatches",
        mb(generator.weight_bytes()),
        mb(generator.cache_bytes()),
        generator.dispatches()
    );
    let alone = Alone::new(&gpu, generator.dispatches());
    println!(
        "so many dispatches that do nothing: {:.0} us to record, again and again",
        alone.again_and_again(&gpu)
    );
    let sampling = Sampling { temperature: 1.0, top_k: Some(50), ..Default::default() };
    let mut sampler = Sampler::new(sampling)?;
    println!(
        "| behind | tokens/s of the prompt | tokens/s | recorded per token | submitted | chosen | recorded ahead | nothing, between tokens |"
    );
    println!("|---:|---:|---:|---:|---:|---:|---:|---:|");
    for length in [16, 128, 512, POSITIONS - sizes.tokens] {
        generator.truncate(0)?;
        let prompt: Vec<u32> = (0..length).map(|n| (n * 31 % sizes.vocabulary) as u32).collect();
        let start = Instant::now();
        let mut next = sampler.choose(generator.feed(&prompt)?)?;
        let prefill = start.elapsed();
        let (recorded, ahead, submitted) =
            (generator.recording(), generator.recording_ahead(), generator.submitting());
        let (mut choosing, mut nothing, start) = (0.0, 0.0, Instant::now());
        for _ in 0..sizes.tokens {
            let logits = generator.feed(&[next])?;
            let start = Instant::now();
            next = sampler.choose(logits)?;
            choosing += start.elapsed().as_secs_f64();
            nothing += alone.record(&gpu);
        }
        let per = |seconds: f64| 1e6 * seconds / sizes.tokens as f64;
        println!(
            "| {length} | {:.1} | {:.2} | {:.0} us | {:.0} us | {:.0} us | {:.0} us | {:.0} us |",
            length as f64 / prefill.as_secs_f64(),
            sizes.tokens as f64 / (start.elapsed().as_secs_f64() - nothing),
            per((generator.recording() - recorded).as_secs_f64()),
            per((generator.submitting() - submitted).as_secs_f64()),
            per(choosing),
            per((generator.recording_ahead() - ahead).as_secs_f64()),
            per(nothing)
        );
    }
    Ok(())
}

/// Dispatches of wgpu alone that do nothing, bound as those of a layer are, with no more buffers than these: pipelines that all layers have, and per dispatch a bind group, of a
/// buffer of its own, of one that all have, of what the dispatch before wrote, and of what the next one reads.
struct Alone(Vec<(wgpu::ComputePipeline, wgpu::BindGroup)>);

/// Pipelines of a layer.
const PIPELINES: usize = 11;

const NOTHING: &str = "
@group(0) @binding(0) var<uniform> wanted: vec4<u32>;
@group(0) @binding(1) var<storage, read> first: array<u32>;
@group(0) @binding(2) var<storage, read> second: array<u32>;
@group(0) @binding(3) var<storage, read> before: array<u32>;
@group(0) @binding(4) var<storage, read_write> out: array<u32>;
@compute @workgroup_size(1) fn nothing() { if (wanted.x == 1u) { out[0] = first[0] + second[0] + before[0]; } }";

impl Alone {
    fn new(gpu: &Gpu, dispatches: usize) -> Self {
        let device = gpu.device();
        let source = wgpu::ShaderSource::Wgsl(NOTHING.into());
        let module = device.create_shader_module(wgpu::ShaderModuleDescriptor { label: None, source });
        let layout = layout(device);
        let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: None,
            bind_group_layouts: &[Some(&layout)],
            immediate_size: 0,
        });
        let pipeline = |_| {
            device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: None,
                layout: Some(&pipeline_layout),
                module: &module,
                entry_point: None,
                compilation_options: Default::default(),
                cache: None,
            })
        };
        let pipelines: Vec<_> = (0..PIPELINES).map(pipeline).collect();
        // Written when they are made, as those of a generator are.
        let buffer = |usage| {
            let descriptor =
                wgpu::BufferDescriptor { label: None, size: 256, usage, mapped_at_creation: true };
            let buffer = device.create_buffer(&descriptor);
            buffer.unmap();
            buffer
        };
        let storage = || buffer(wgpu::BufferUsages::STORAGE);
        let (uniform, scratch, turns) =
            (buffer(wgpu::BufferUsages::UNIFORM), storage(), [storage(), storage()]);
        let step = |n: usize| {
            let bound = [&uniform, &storage(), &scratch, &turns[n % 2], &turns[(n + 1) % 2]];
            let size = wgpu::BufferSize::new(16);
            let entries: Vec<_> = (0u32..)
                .zip(bound)
                .map(|(binding, buffer)| wgpu::BindGroupEntry {
                    binding,
                    resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding { buffer, offset: 0, size }),
                })
                .collect();
            let group = wgpu::BindGroupDescriptor { label: None, layout: &layout, entries: &entries };
            (pipelines[n % PIPELINES].clone(), device.create_bind_group(&group))
        };
        Self((0..dispatches).map(step).collect())
    }

    /// Seconds to record all of them in one pass.
    fn record(&self, gpu: &Gpu) -> f64 {
        let start = Instant::now();
        let mut encoder = gpu.device().create_command_encoder(&Default::default());
        let mut pass = encoder.begin_compute_pass(&Default::default());
        for (pipeline, group) in &self.0 {
            pass.set_pipeline(pipeline);
            pass.set_bind_group(0, group, &[0]);
            pass.dispatch_workgroups(1, 1, 1);
        }
        drop(pass);
        let commands = encoder.finish();
        let seconds = start.elapsed().as_secs_f64();
        drop(commands);
        seconds
    }

    /// Microseconds where nothing is between, so that all is in the caches: the median of 200 times.
    fn again_and_again(&self, gpu: &Gpu) -> f64 {
        let mut times: Vec<f64> = (0..200).map(|_| 1e6 * self.record(gpu)).collect();
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    }
}

fn layout(device: &wgpu::Device) -> wgpu::BindGroupLayout {
    let entry = |binding: u32| {
        let ty = match binding {
            0 => wgpu::BufferBindingType::Uniform,
            _ => wgpu::BufferBindingType::Storage { read_only: binding < 4 },
        };
        wgpu::BindGroupLayoutEntry {
            binding,
            visibility: wgpu::ShaderStages::COMPUTE,
            ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset: binding == 0, min_binding_size: None },
            count: None,
        }
    };
    let entries = [0, 1, 2, 3, 4].map(entry);
    device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: None, entries: &entries })
}

fn config(sizes: &Sizes) -> Value {
    json!({
        "model_type": "gpt2", "n_layer": sizes.layers, "n_embd": sizes.width, "n_head": sizes.heads,
        "vocab_size": sizes.vocabulary, "n_positions": POSITIONS, "layer_norm_epsilon": 1e-5
    })
}

/// A safetensors file of random weights, small enough that hidden states stay of one size.
fn weights(sizes: &Sizes) -> Result<Vec<u8>, Error> {
    let (width, hidden) = (sizes.width, 4 * sizes.width);
    let mut shapes = vec![
        ("transformer.wte.weight".to_owned(), vec![sizes.vocabulary, width]),
        ("transformer.wpe.weight".to_owned(), vec![POSITIONS, width]),
    ];
    let mut module = |name: &str, weight: Vec<usize>| {
        shapes.push((format!("transformer.{name}.bias"), weight[weight.len() - 1..].to_vec()));
        shapes.push((format!("transformer.{name}.weight"), weight));
    };
    for n in 0..sizes.layers {
        module(&format!("h.{n}.ln_1"), vec![width]);
        module(&format!("h.{n}.attn.c_attn"), vec![width, 3 * width]);
        module(&format!("h.{n}.attn.c_proj"), vec![width, width]);
        module(&format!("h.{n}.ln_2"), vec![width]);
        module(&format!("h.{n}.mlp.c_fc"), vec![width, hidden]);
        module(&format!("h.{n}.mlp.c_proj"), vec![hidden, width]);
    }
    module("ln_f", vec![width]);
    let mut random = StdRng::seed_from_u64(1);
    let mut tensor = |shape: &[usize]| -> Vec<u8> {
        let elements: usize = shape.iter().product();
        (0..elements).flat_map(|_| (0.04 * (random.random::<f32>() - 0.5)).to_le_bytes()).collect()
    };
    let data: Vec<_> = shapes.iter().map(|(_, shape)| tensor(shape)).collect();
    let views = shapes
        .iter()
        .zip(&data)
        .map(|((name, shape), data)| Ok((name.as_str(), TensorView::new(Dtype::F32, shape.clone(), data)?)));
    let views = views.collect::<Result<Vec<_>, Error>>()?;
    Ok(safetensors::serialize(views, None)?)
}
