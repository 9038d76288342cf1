//! A token takes nothing but its commands.

use crate::model::{Model, text};
use wgpu_attention::{CacheStorage, ElementType, IntegerFormat, IntegerType};
use wgpu_attention_models::{File, Generator, GeneratorOptions, Sampler, Sampling};
use wgpu_attention_testing::{Counted, allocated};

#[test]
fn a_token_takes_nothing_but_its_commands() {
    let counted = Counted::new();
    let gpu = &counted.gpu;
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
        let mut generator = Generator::new(gpu, &file, options).expect("a generator");
        let planned = counted.shaders();
        assert!(planned > 0, "what is counted is there");
        let sampling = Sampling { temperature: 0.8, top_k: Some(20), top_p: Some(0.9), seed: 1 };
        let mut sampler = Sampler::new(sampling).expect("sampling");
        let mut next = sampler.choose(generator.feed(&text(6)).expect("a prompt")).expect("a token");
        let (before, uploads) = (allocated(gpu), generator.uploads());
        for n in 6..32 {
            next = sampler.choose(generator.feed(&[next]).expect("a step")).expect("a token");
            assert_eq!(allocated(gpu), before, "token {n}");
        }
        assert_eq!(generator.uploads(), uploads);
        // A second text, with a chunk and a token per step.
        generator.truncate(0).expect("empty");
        let forgotten = generator.uploads();
        generator.feed(&text(9)).expect("a prompt");
        assert_eq!(allocated(gpu), before, "a second text");
        assert_eq!(
            (generator.uploads(), forgotten),
            (forgotten, uploads + 2),
            "a length per layer, and nothing else"
        );
        assert_eq!(counted.shaders(), planned, "shaders");
    }
}
