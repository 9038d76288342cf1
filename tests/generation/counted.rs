//! A token takes nothing but its commands.

use crate::model::{Model, text};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use wgpu_attention::{CacheStorage, ElementType, Gpu, IntegerFormat, IntegerType, Options};
use wgpu_attention_models::{File, Generator, GeneratorOptions, Sampler, Sampling};

/// Bytes and pieces that the device's allocator has given out, staging memory of uploads among them.
pub(crate) fn memory(gpu: &Gpu) -> (u64, usize) {
    gpu.device().poll(wgpu_attention::wgpu::PollType::wait_indefinitely()).expect("polling");
    let report = gpu.device().generate_allocator_report().expect("wgpu's own allocator");
    (report.total_allocated_bytes, report.allocations.len())
}

#[test]
fn a_token_takes_nothing_but_its_commands() {
    // A device of its own: other tests allocate on theirs.
    let adapters = pollster::block_on(Gpu::adapters()).expect("an adapter");
    let gpu = pollster::block_on(Gpu::on(&adapters[0], Options::default())).expect("a device");
    let shaders = Arc::new(AtomicUsize::new(0));
    let counted = shaders.clone();
    let kernels = gpu.kernels().edited(move |text| {
        counted.fetch_add(1, Ordering::Relaxed);
        text.to_owned()
    });
    let gpu = gpu.with_kernels(kernels);
    let int8 = IntegerFormat::new(IntegerType::I8);
    for (model, cache, weights) in [
        (Model::gpt2(), ElementType::F32.into(), None),
        (Model::llama(), ElementType::F16.into(), None),
        (Model::gpt2(), CacheStorage::Int8, Some(int8)),
        (Model::llama(), CacheStorage::Int8, Some(int8)),
    ] {
        let bytes = model.bytes();
        let file = File::of_model(&model.config, &[&bytes]).expect("a model");
        let options = GeneratorOptions::new(32).chunk(4).cache(cache).weights(weights);
        let mut generator = Generator::new(&gpu, &file, options).expect("a generator");
        let planned = shaders.load(Ordering::Relaxed);
        assert!(planned > 0, "what is counted is there");
        let sampling = Sampling { temperature: 0.8, top_k: Some(20), top_p: Some(0.9), seed: 1 };
        let mut sampler = Sampler::new(sampling).expect("sampling");
        let mut next = sampler.choose(generator.feed(&text(6)).expect("a prompt")).expect("a token");
        let (before, uploads) = (memory(&gpu), generator.uploads());
        for n in 6..32 {
            next = sampler.choose(generator.feed(&[next]).expect("a step")).expect("a token");
            assert_eq!(memory(&gpu), before, "token {n}");
        }
        assert_eq!(generator.uploads(), uploads);
        // A second text, with a chunk and a token per step.
        generator.truncate(0).expect("empty");
        let forgotten = generator.uploads();
        generator.feed(&text(9)).expect("a prompt");
        assert_eq!(memory(&gpu), before, "a second text");
        assert_eq!(
            (generator.uploads(), forgotten),
            (forgotten, uploads + 2),
            "a length per layer, and nothing else"
        );
        assert_eq!(shaders.load(Ordering::Relaxed), planned, "shaders");
    }
}
