//! Golden models as files of their own, and whole passes over a text.

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use wgpu_attention_models::{Error, Exact, File, Generator, GeneratorOptions, logits};
use wgpu_attention_testing::gpu;

/// A model's configuration and weights, to be changed.
#[derive(Debug, Clone)]
pub(crate) struct Model {
    pub(crate) config: Value,
    pub(crate) tensors: BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>,
}

pub(crate) fn golden(name: &str) -> Vec<u8> {
    let path = format!("{}/golden/{name}.safetensors", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

impl Model {
    /// The weights of a golden model, by the names that Hugging Face's files have.
    fn of_golden(name: &str, prefix: &str) -> Self {
        let bytes = golden(name);
        let case = File::parse(&bytes).expect("a golden file");
        let config = case.of_case("config").clone();
        let file = SafeTensors::deserialize(&bytes).expect("safetensors");
        let weight = |(name, view): (&str, TensorView<'_>)| {
            let name = name.strip_prefix("w.")?;
            Some((format!("{prefix}{name}"), (view.dtype(), view.shape().to_vec(), view.data().to_vec())))
        };
        Self { config, tensors: file.iter().filter_map(weight).collect() }
    }

    /// 2 layers, 2 heads, 50 ids, 32 positions.
    pub(crate) fn gpt2() -> Self {
        let mut model = Self::of_golden("e2e_gpt2", "");
        model.config["model_type"] = "gpt2".into();
        model
    }

    /// 2 layers, 4 heads on 2, 50 ids, 300 positions, a head of its own.
    pub(crate) fn llama() -> Self {
        let mut model = Self::of_golden("e2e_llama", "model.");
        model.config["model_type"] = "llama".into();
        model.config["max_position_embeddings"] = 300.into();
        let head: Vec<f32> = (0..50 * 32u16).map(|n| (f32::from(n) * 0.7).sin() * 0.5).collect();
        model.set("lm_head.weight", &[50, 32], &head);
        model
    }

    pub(crate) fn set(&mut self, name: &str, shape: &[usize], values: &[f32]) {
        let data = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        self.tensors.insert(name.into(), (Dtype::F32, shape.to_vec(), data));
    }

    /// All weights in 16 bits, and the same values in 32.
    pub(crate) fn narrowed(&self, dtype: Dtype) -> [Self; 2] {
        use wgpu_attention::half::{bf16, f16};
        let (mut narrow, mut wide) = (self.clone(), self.clone());
        for (name, (_, shape, data)) in &self.tensors {
            let values = data.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
            let (words, values): (Vec<[u8; 2]>, Vec<f32>) = values
                .map(|x| match dtype {
                    Dtype::F16 => (f16::from_f32(x).to_le_bytes(), f16::from_f32(x).to_f32()),
                    _ => (bf16::from_f32(x).to_le_bytes(), bf16::from_f32(x).to_f32()),
                })
                .unzip();
            narrow.tensors.insert(name.clone(), (dtype, shape.clone(), words.concat()));
            wide.set(name, shape, &values);
        }
        [narrow, wide]
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let views = self.tensors.iter().map(|(name, (dtype, shape, data))| {
            (name.as_str(), TensorView::new(*dtype, shape.clone(), data).expect("a tensor"))
        });
        safetensors::serialize(views, None).expect("a file")
    }

    pub(crate) fn generator(&self, options: GeneratorOptions) -> Result<Generator, Error> {
        Generator::new(gpu(), &File::of_model(&self.config, &[&self.bytes()])?, options)
    }

    /// The logits behind each id of a text, in f64.
    pub(crate) fn exact(&self, ids: &[u32]) -> Vec<Vec<f32>> {
        let bytes = self.bytes();
        let file = File::of_model(&self.config, &[&bytes]).expect("a model");
        let mut exact = Exact::default();
        logits(&mut exact, &file, ids).expect("a pass");
        let (_, last) = exact.states.pop().expect("logits");
        last.chunks(last.len() / ids.len()).map(<[f32]>::to_vec).collect()
    }

    /// Config with another value.
    pub(crate) fn with(mut self, key: &str, value: Value) -> Self {
        self.config[key] = value;
        self
    }
}

/// A text of ids below 50.
pub(crate) fn text(len: usize) -> Vec<u32> {
    (0..len as u32).map(|n| (n * n * 7 + n * 3 + 11) % 50).collect()
}

/// One expected: no model has it.
pub(crate) fn unlike() -> Value {
    json!({ "rope_type": "llama3", "factor": 8.0 })
}
