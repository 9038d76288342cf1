//! Weights of integers: against a twin in f64 of the numbers that they stand for.

use crate::model::{Model, text};
use crate::tokens::{check_by, judge};
use wgpu_attention::{
    CacheStorage, ElementType, Gpu, IntegerFormat, IntegerType, Options, QuantizeRule, QuantizeShape,
    ScaleGroups,
};
use wgpu_attention_models::{File, Generator, GeneratorOptions};
use wgpu_attention_testing::allocated;

fn int8() -> IntegerFormat {
    IntegerFormat::new(IntegerType::I8)
}

fn int4() -> IntegerFormat {
    IntegerFormat::new(IntegerType::I4).groups(ScaleGroups::Groups(32))
}

/// A Llama whose rows are all multiples of 32.
fn llama() -> Model {
    let mut model = Model::llama().with("intermediate_size", 64.into());
    for (part, sizes) in [("gate_proj", [64, 32]), ("up_proj", [64, 32]), ("down_proj", [32, 64])] {
        for layer in 0..2u16 {
            let value = |n: u16| (f32::from(n) * 0.37 + f32::from(layer)).sin() * 0.3;
            let name = format!("model.layers.{layer}.mlp.{part}.weight");
            model.set(&name, &sizes, &(0..64 * 32).map(value).collect::<Vec<_>>());
        }
    }
    model
}

/// How a matrix of products lies in the file: `[out, in]` or `[in, out]`. None for tables, norms and biases.
fn is_turned(name: &str) -> Option<bool> {
    let is = |ends: &[&str]| ends.iter().any(|end| name.ends_with(end));
    if is(&["c_attn.weight", "c_proj.weight", "c_fc.weight"]) {
        return Some(true);
    }
    is(&["_proj.weight", "lm_head.weight"]).then_some(false)
}

fn transposed(x: &[f32], width: usize) -> Vec<f32> {
    (0..width).flat_map(|n| x[n..].iter().step_by(width).copied()).collect()
}

/// The head is a matrix of its own, in models that take the table of tokens, too.
fn with_own_head(model: &Model) -> Model {
    let mut own = model.clone().with("tie_word_embeddings", false.into());
    if let Some(table) = own.tensors.get("transformer.wte.weight").cloned() {
        own.tensors.entry("lm_head.weight".into()).or_insert(table);
    }
    own
}

/// The numbers that the integers of a model's matrices stand for, and the bytes of all its weights.
fn twin(model: &Model, format: IntegerFormat) -> (Model, u64) {
    let (mut twin, mut bytes) = (with_own_head(model), 0);
    for (name, (_, shape, data)) in twin.tensors.clone() {
        let values: Vec<f32> =
            data.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        let Some(is_turned) = is_turned(&name) else {
            bytes += data.len() as u64;
            continue;
        };
        let (rows, inner) = if is_turned { (shape[1], shape[0]) } else { (shape[0], shape[1]) };
        let numbers = if is_turned { transposed(&values, rows) } else { values };
        let made = QuantizeShape::new(rows, inner, format, QuantizeRule::Symmetric).quantize(&numbers);
        let numbers = made.expect("integers").dequantized();
        twin.set(&name, &shape, &if is_turned { transposed(&numbers, inner) } else { numbers });
        bytes += format.bytes(rows, inner) as u64;
    }
    (twin, bytes)
}

#[test]
fn logits_are_those_of_the_numbers_that_integers_stand_for() {
    for format in [int8(), int4(), int8().groups(ScaleGroups::Groups(32))] {
        for (model, capacity) in [(Model::gpt2(), 32), (with_own_head(&Model::gpt2()), 32), (llama(), 90)] {
            let (twin, _) = twin(&model, format);
            let options = GeneratorOptions::new(capacity).weights(format);
            check_by(&twin, &model, options, &text(5), 20);
            check_by(&twin, &model, options.chunk(4), &text(23), 3);
            check_by(&twin, &model, options.chunk(7).cache(CacheStorage::Int8), &text(20), 10);
        }
    }
    // Rows of 48 take bytes.
    let model = Model::llama();
    check_by(&twin(&model, int8()).0, &model, GeneratorOptions::new(100).weights(int8()), &text(70), 9);
}

#[test]
fn other_integers_are_found() {
    for model in [Model::gpt2(), llama()] {
        for (format, other) in [(int8(), int4()), (int4(), int8())] {
            let mut generator =
                model.generator(GeneratorOptions::new(32).weights(format)).expect("a generator");
            let got = generator.feed(&text(9)).expect("logits").to_vec();
            let want = |model: &Model| model.exact(&text(9)).pop().expect("logits");
            assert!(judge(&got, &want(&twin(&model, format).0), ElementType::F32).is_ok());
            assert!(judge(&got, &want(&twin(&model, other).0), ElementType::F32).is_err(), "{other}");
            let numbers = want(&model);
            assert!(judge(&got, &numbers, ElementType::F32).is_err(), "{format} is no f32");
            let lost = got.iter().zip(&numbers).fold(0f32, |most, (got, want)| most.max((got - want).abs()));
            let largest = numbers.iter().fold(0f32, |most, x| most.max(x.abs()));
            // What quantisation loses is told, not judged.
            eprintln!("{} as {format}: logits up to {largest} move by {lost}", model.config["model_type"]);
        }
    }
}

#[test]
fn bytes_fall_as_the_format_says() {
    // A device of its own: other tests allocate on theirs.
    let adapters = pollster::block_on(Gpu::adapters()).expect("an adapter");
    let gpu = pollster::block_on(Gpu::on(&adapters[0], Options::default())).expect("a device");
    for model in [Model::gpt2(), llama()] {
        let bytes = model.bytes();
        let file = File::of_model(&model.config, &[&bytes]).expect("a model");
        let numbers: u64 = model.tensors.values().map(|(_, _, data)| data.len() as u64).sum();
        let new = |weights: Option<IntegerFormat>| {
            let before = allocated(&gpu).0;
            let options = GeneratorOptions::new(32).weights(weights);
            let generator = Generator::new(&gpu, &file, options).expect("a generator");
            (allocated(&gpu).0 - before, generator)
        };
        let (all, generator) = new(None);
        assert_eq!(generator.weight_bytes(), numbers);
        let mut kept = vec![generator];
        for (format, of_8) in [(int8(), 5), (int4(), 4)] {
            let (fewer, generator) = new(Some(format));
            assert_eq!(generator.weight_bytes(), twin(&model, format).1, "{format}");
            assert!(8 * generator.weight_bytes() < of_8 * numbers, "{format}: {}", generator.weight_bytes());
            let saved = numbers - generator.weight_bytes();
            // The allocator rounds up what a buffer asks for; all else that a generator has is the same.
            let fallen = all - fewer;
            assert!(10 * fallen > 9 * saved && 10 * fallen < 11 * saved, "{format}: {fallen}, not {saved}");
            assert_eq!(generator.dispatches(), kept[0].dispatches(), "integers take no dispatch more");
            kept.push(generator);
        }
    }
}

#[test]
fn bytes_of_keys_and_values() {
    // 2 layers, keys and values, 2 heads of 16 in 30 positions.
    let elements = 2 * 2 * 2 * 30 * 16;
    for (cache, bytes) in [
        (ElementType::F32.into(), 4 * elements),
        (ElementType::F16.into(), 2 * elements),
        // A scale per row of 16.
        (CacheStorage::Int8, elements / 16 * (16 + 4)),
    ] {
        let generator = Model::gpt2().generator(GeneratorOptions::new(30).cache(cache)).expect("a generator");
        assert_eq!(generator.cache_bytes(), bytes, "{cache}");
    }
}
