//! Logits and greedy tokens of every step.

use crate::model::{Model, golden, text};
use safetensors::Dtype;
use wgpu_attention::{CacheStorage, ElementType};
use wgpu_attention_models::{File, GeneratorOptions, Sampler, Sampling};

/// How far logits may lie from those of f64: 1,000 roundings of the largest, as whole models are judged (`compare`), and where keys and values
/// are rounded to 16 bits, or to steps of 1/127 of a row's largest, 4 of those roundings.
fn limit(want: &[f32], cache: CacheStorage) -> f32 {
    let largest = want.iter().fold(1f32, |largest, x| largest.max(x.abs()));
    let epsilon = match cache {
        CacheStorage::Elements(ElementType::F16) => 4.0 * 2f32.powi(-10),
        CacheStorage::Elements(ElementType::Bf16) => 4.0 * 2f32.powi(-7),
        CacheStorage::Int8 => 4.0 / 127.0,
        _ => 1000.0 * f32::EPSILON,
    };
    epsilon * largest
}

pub(crate) fn judge(got: &[f32], want: &[f32], cache: impl Into<CacheStorage>) -> Result<(), String> {
    let limit = limit(want, cache.into());
    assert_eq!(got.len(), want.len());
    // A NaN is not near.
    let is_near = |(got, want): (&f32, &f32)| (got - want).abs() <= limit;
    match got.iter().zip(want).position(|pair| !is_near(pair)) {
        Some(n) => Err(format!("logit {n}: {} is not {} within {limit}", got[n], want[n])),
        None => Ok(()),
    }
}

/// The largest logit's id, and how far the next one is.
fn top(logits: &[f32]) -> (u32, f32) {
    let mut order: Vec<u32> = (0..logits.len() as u32).collect();
    order.sort_by(|&a, &b| logits[b as usize].total_cmp(&logits[a as usize]));
    (order[0], logits[order[0] as usize] - logits[order[1] as usize])
}

/// A text made greedily, with the logits of every step.
fn greedy(
    model: &Model,
    options: GeneratorOptions,
    prompt: &[u32],
    tokens: usize,
) -> (Vec<u32>, Vec<Vec<f32>>) {
    let mut generator = model.generator(options).expect("a generator");
    let mut sampler = Sampler::new(Sampling::default()).expect("greedy");
    let mut ids = prompt.to_vec();
    let mut steps = vec![generator.feed(prompt).expect("the prompt").to_vec()];
    for _ in 0..tokens {
        let next = sampler.choose(&steps[steps.len() - 1]).expect("a token");
        ids.push(next);
        steps.push(generator.feed(&[next]).expect("a step").to_vec());
    }
    assert_eq!(generator.len(), ids.len());
    (ids, steps)
}

/// Every step against a whole pass in f64 over the text, whose row t is what the first t + 1 ids say: no id sees a later one.
fn check(model: &Model, options: GeneratorOptions, prompt: &[u32], tokens: usize) {
    check_by(model, model, options, prompt, tokens);
}

/// The same against a twin, whose weights are those that the device computes with.
pub(crate) fn check_by(
    twin: &Model,
    model: &Model,
    options: GeneratorOptions,
    prompt: &[u32],
    tokens: usize,
) {
    let (ids, steps) = greedy(model, options, prompt, tokens);
    let exact = twin.exact(&ids);
    for (n, got) in steps.iter().enumerate() {
        let at = prompt.len() - 1 + n;
        let want = &exact[at];
        judge(got, want, options.cache).unwrap_or_else(|e| panic!("behind id {at}, {options:?}: {e}"));
        let (best, ahead) = top(want);
        if ahead <= 2.0 * limit(want, options.cache) {
            eprintln!(
                "behind id {at}: the two likeliest ids differ by {ahead}, less than the bound tells apart"
            );
        } else if let Some(next) = ids.get(at + 1).filter(|_| n < tokens) {
            assert_eq!(*next, best, "behind id {at}");
        }
    }
}

#[test]
fn greedy_tokens_are_those_of_a_whole_pass() {
    check(&Model::gpt2(), GeneratorOptions::new(32), &text(5), 27);
    check(&Model::llama(), GeneratorOptions::new(300), &text(9), 40);
}

#[test]
fn prompts_in_chunks_of_any_length() {
    let model = Model::llama();
    for (chunk, len) in [(1, 20), (7, 7), (7, 8), (7, 20), (64, 64), (64, 65), (64, 150), (50, 149)] {
        check(&model, GeneratorOptions::new(200).chunk(chunk), &text(len), 3);
    }
    let model = Model::gpt2();
    for chunk in [1, 3, 31, 32, 64] {
        check(&model, GeneratorOptions::new(32).chunk(chunk), &text(31), 1);
    }
}

#[test]
fn keys_and_values_in_16_bits_and_in_8() {
    for cache in [ElementType::F16.into(), ElementType::Bf16.into(), CacheStorage::Int8] {
        check(&Model::gpt2(), GeneratorOptions::new(32).cache(cache), &text(5), 20);
        check(&Model::llama(), GeneratorOptions::new(100).cache(cache), &text(70), 20);
    }
}

#[test]
fn logits_are_hugging_faces() {
    let bytes = golden("e2e_gpt2");
    let file = File::parse(&bytes).expect("a golden file");
    let (ids, [_, len]) = file.tokens("input_ids", 50).expect("ids");
    let want = file.tensor("last", &[2, len, 50]).expect("logits");
    let mut generator = Model::gpt2().generator(GeneratorOptions::new(32).chunk(8)).expect("a generator");
    for (ids, want) in ids.chunks(len).zip(want.chunks(len * 50)) {
        for count in [1, 2, 8, 9, len] {
            generator.truncate(0).expect("empty");
            let got = generator.feed(&ids[..count]).expect("logits");
            judge(got, &want[(count - 1) * 50..][..50], ElementType::F32)
                .unwrap_or_else(|e| panic!("{count}: {e}"));
        }
    }
}

#[test]
fn a_tied_head_is_the_token_table() {
    let mut tied = Model::llama().with("tie_word_embeddings", true.into());
    check(&tied, GeneratorOptions::new(40), &text(9), 8);
    // As in files that have it twice: the configuration decides.
    let head = tied.tensors.remove("lm_head.weight").expect("a head");
    check(&tied, GeneratorOptions::new(40), &text(9), 8);
    let mut own = Model::gpt2().with("tie_word_embeddings", false.into());
    own.tensors.insert("lm_head.weight".into(), head);
    check(&own, GeneratorOptions::new(32), &text(9), 8);
    let logits = |model: &Model| model.exact(&text(4));
    assert_ne!(logits(&own), logits(&Model::gpt2()));
}

#[test]
fn what_was_forgotten_does_not_count() {
    let mut generator = Model::llama().generator(GeneratorOptions::new(64).chunk(5)).expect("a generator");
    let (ids, other) = (text(20), text(40));
    let want = generator.feed(&ids).expect("logits").to_vec();
    generator.append(&other[20..33]).expect("other ids");
    generator.truncate(15).expect("shorter");
    assert_eq!(generator.feed(&ids[15..]).expect("logits"), want, "the same calls give the same bits");
    assert!(generator.truncate(21).is_err());
}

#[test]
fn weights_in_16_bits_are_the_same_numbers() {
    for dtype in [Dtype::F16, Dtype::BF16] {
        for model in [Model::gpt2(), Model::llama()] {
            let [narrow, wide] = model.narrowed(dtype).map(|model| {
                let mut generator = model.generator(GeneratorOptions::new(32)).expect("a generator");
                generator.feed(&text(20)).expect("logits").to_vec()
            });
            assert_eq!(narrow, wide, "{dtype:?}");
        }
    }
}

#[test]
fn a_fault_is_found() {
    // Another id, the same ids elsewhere, other angles: each is far outside the bound.
    let found = |model: &Model, ids: &[u32], other: &Model, others: &[u32]| {
        let mut generator = other.generator(GeneratorOptions::new(32)).expect("a generator");
        let got = generator.feed(others).expect("logits");
        judge(got, &model.exact(ids)[ids.len() - 1], ElementType::F16).is_err()
    };
    for model in [Model::gpt2(), Model::llama()] {
        let ids = text(12);
        assert!(!found(&model, &ids, &model, &ids));
        let mut others = ids.clone();
        others.swap(2, 3);
        assert!(found(&model, &ids, &model, &others), "two ids that changed places");
        assert!(found(&model, &ids, &model, &ids[1..]), "an id less");
    }
    let turned = Model::llama().with("rope_theta", 100.into());
    assert!(found(&Model::llama(), &text(30), &turned, &text(30)), "other angles");
}
