//! Files, configurations and calls that are wrong.

use crate::model::{Model, text, unlike};
use safetensors::Dtype;
use serde_json::{Value, json};
use wgpu_attention::{IntegerFormat, IntegerType, ScaleGroups};
use wgpu_attention_models::{Generator, GeneratorOptions};

fn error(model: &Model) -> String {
    model.generator(GeneratorOptions::new(32)).err().expect("wrong").to_string()
}

#[test]
fn tensors_that_are_missing_or_different() {
    let mut model = Model::gpt2();
    model.tensors.remove("transformer.h.1.mlp.c_fc.weight");
    assert_eq!(
        error(&model),
        "tensor `transformer.h.1.mlp.c_fc.weight`: need [32, 128], found none of this name"
    );
    let mut model = Model::llama();
    model.set("model.layers.0.self_attn.k_proj.weight", &[32, 32], &[0.0; 1024]);
    let wrong = "tensor `layers.0.self_attn.k_proj.weight`: need F32 [16, 32], found F32 [32, 32]";
    assert_eq!(error(&model), wrong);
    let mut model = Model::llama();
    let bytes = vec![0; 8 * 32];
    model.tensors.insert("model.norm.weight".into(), (Dtype::I64, vec![32], bytes));
    assert_eq!(error(&model), "tensor `norm.weight`: need F32 [32], found I64 [32]");
    let mut model = Model::llama();
    model.tensors.remove("lm_head.weight");
    let wrong =
        "tensor `lm_head.weight`: need [50, 32], or `tie_word_embeddings` in the config, found neither";
    assert_eq!(error(&model), wrong);
    let untied = Model::gpt2().with("tie_word_embeddings", false.into());
    assert_eq!(error(&untied), "tensor `lm_head.weight`: need [50, 32], found none of this name");
}

#[test]
fn tensors_that_the_configuration_knows_nothing_of() {
    let mut model = Model::llama();
    model.set("model.layers.0.self_attn.q_proj.bias", &[32], &[0.0; 32]);
    let wrong = "tensor `model.layers.0.self_attn.q_proj.bias`: need none of this name in this model";
    assert_eq!(error(&model), wrong);
    let fewer = Model::gpt2().with("n_layer", 1.into());
    assert!(error(&fewer).starts_with("tensor `transformer.h.1."), "{}", error(&fewer));
    // Hugging Face's own files have these beside the weights; names may go without the model's own.
    let mut model = Model::gpt2();
    model.set("transformer.h.0.attn.bias", &[1, 1, 32, 32], &[1.0; 1024]);
    model.set("transformer.h.0.attn.masked_bias", &[1], &[-1e4]);
    model.tensors = model
        .tensors
        .into_iter()
        .map(|(name, tensor)| (name.trim_start_matches("transformer.").to_owned(), tensor))
        .collect();
    assert!(model.generator(GeneratorOptions::new(32)).is_ok());
}

#[test]
fn configurations_that_are_not_there() {
    let gpt2 = |key: &str, value: Value| error(&Model::gpt2().with(key, value));
    let llama = |key: &str, value: Value| error(&Model::llama().with(key, value));
    assert_eq!(gpt2("model_type", "mamba".into()), "config `model_type`: need gpt2 or llama, found `mamba`");
    assert_eq!(gpt2("model_type", Value::Null), "config `model_type`: need a name, found null");
    assert!(gpt2("activation_function", "swiglu".into()).ends_with("or mish, found `swiglu`"));
    assert_eq!(
        gpt2("scale_attn_weights", false.into()),
        "config `scale_attn_weights`: need true, found false"
    );
    let key = "scale_attn_by_inverse_layer_idx";
    assert_eq!(gpt2(key, true.into()), format!("config `{key}`: need none, found true"));
    assert_eq!(
        gpt2("add_cross_attention", true.into()),
        "config `add_cross_attention`: need none, found true"
    );
    let wrong = llama("rope_scaling", unlike());
    assert!(
        wrong.starts_with("config `rope_scaling`: need none, or rope_type `default`, found {"),
        "{wrong}"
    );
    let wrong = llama("rope_parameters", unlike());
    assert!(wrong.starts_with("config `rope_parameters`: need none, or rope_type `default`"), "{wrong}");
    assert!(llama("hidden_act", "tiny".into()).starts_with("activation: need relu"));
    assert_eq!(llama("attention_bias", true.into()), "config `attention_bias`: need none, found true");
    assert_eq!(llama("sliding_window", 4096.into()), "config `sliding_window`: need none, found 4096");
    let wrong = llama("quantization_config", json!({ "bits": 4 }));
    assert_eq!(wrong, "config `quantization_config`: need none, found {\"bits\":4}");
    assert_eq!(
        llama("partial_rotary_factor", 0.5.into()),
        "config `partial_rotary_factor`: need 1, found 0.5"
    );
    assert_eq!(
        llama("rope_theta", "big".into()),
        "config `rope_theta`: need a number of at least 1, found \"big\""
    );
    assert_eq!(llama("rms_norm_eps", Value::Null), "config `layer_norm_eps`: need a number, found null");
}

#[test]
fn angles_by_either_key() {
    let first = |model: &Model| {
        let mut generator = model.generator(GeneratorOptions::new(32)).expect("a generator");
        generator.feed(&text(9)).expect("logits").to_vec()
    };
    let newer = json!({ "rope_type": "default", "rope_theta": 500.0 });
    let newer = Model::llama().with("rope_theta", Value::Null).with("rope_parameters", newer);
    assert_eq!(first(&newer), first(&Model::llama().with("rope_theta", 500.0.into())));
    assert_ne!(first(&newer), first(&Model::llama()));
    assert_eq!(first(&Model::llama().with("rope_theta", Value::Null)), first(&Model::llama()));
}

#[test]
fn calls_that_are_wrong() {
    let wrong = |options| Model::gpt2().generator(options).err().expect("wrong").to_string();
    assert_eq!(wrong(GeneratorOptions::new(33)), "capacity: need 1 to 32, found 33");
    assert_eq!(wrong(GeneratorOptions::new(0)), "capacity: need 1 to 32, found 0");
    assert_eq!(wrong(GeneratorOptions::new(9).chunk(0)), "chunk: need 1 to 64, found 0");
    assert_eq!(wrong(GeneratorOptions::new(9).chunk(65)), "chunk: need 1 to 64, found 65");
    let mut generator = Model::gpt2().generator(GeneratorOptions::new(8).chunk(3)).expect("a generator");
    generator.append(&text(5)).expect("ids");
    let mut wrong = |ids: &[u32]| {
        let error = generator.feed(ids).expect_err("wrong").to_string();
        assert_eq!(length(&generator), 5, "nothing is appended");
        error
    };
    assert_eq!(wrong(&[]), "ids: need at least 1, found none");
    assert_eq!(wrong(&[49, 50]), "ids: need some below 50, found 50");
    assert_eq!(wrong(&text(4)), "ids: need at most 3 more of 8, found 4");
    assert!(generator.append(&[]).is_ok() && generator.feed(&text(3)).is_ok());
    assert_eq!(generator.feed(&[0]).expect_err("full").to_string(), "ids: need at most 0 more of 8, found 1");
}

#[test]
fn weights_that_cannot_be_quantised() {
    let wrong = |model: &Model, format| {
        model.generator(GeneratorOptions::new(32).weights(format)).err().expect("wrong").to_string()
    };
    let nibbles = IntegerFormat::new(IntegerType::I4).groups(ScaleGroups::Groups(32));
    // 48 is no multiple of 32.
    let at = "tensor `layers.0.mlp.down_proj.weight` as i4 groups of 32";
    let need = format!("{at}: groups: need a divisor of inner (48), got 32");
    assert_eq!(wrong(&Model::llama(), nibbles), need);
    for (format, need) in [
        (IntegerFormat::new(IntegerType::U8), "u8 rows: format.element: need a signed one"),
        (
            IntegerFormat::new(IntegerType::I8).zero_points(true),
            "i8 rows zero points: format.zero_points: need none",
        ),
        (nibbles.groups(ScaleGroups::Groups(24)), "i4 groups of 24: groups: need 32, 64 or 128 elements"),
    ] {
        let found = wrong(&Model::gpt2(), format);
        assert!(found.contains(need), "{found}");
        assert!(found.starts_with("tensor `transformer."), "{found}");
    }
    let mut model = Model::gpt2();
    model.set("transformer.h.1.mlp.c_proj.weight", &[128, 32], &[f32::NAN; 128 * 32]);
    let found = wrong(&model, IntegerFormat::new(IntegerType::I8));
    assert!(found.starts_with("tensor `transformer.h.1.mlp.c_proj.weight` as i8 rows: x: need"), "{found}");
}

fn length(generator: &Generator) -> usize {
    generator.len()
}
