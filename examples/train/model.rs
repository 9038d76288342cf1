//! What a trainer needs of a model, whatever it is made of.

use crate::Error;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

/// What a model is built from.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Config {
    /// `gpt`, `sparse` or `reformer`.
    pub(crate) kind: String,
    pub(crate) vocabulary: usize,
    pub(crate) batch: usize,
    pub(crate) len: usize,
    pub(crate) width: usize,
    pub(crate) heads: usize,
    pub(crate) layers: usize,
    pub(crate) learning_rate: f32,
    pub(crate) seed: u64,
}

/// Some elements of a buffer, in bytes.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) buffer: wgpu::Buffer,
    pub(crate) offset: u64,
}

/// A parameter: f32 values, and their gradient behind a backward pass.
#[derive(Debug, Clone)]
pub(crate) struct Slot {
    pub(crate) name: String,
    pub(crate) len: usize,
    pub(crate) values: Place,
    pub(crate) gradient: Place,
}

/// A piece of a step, by its name, that can be recorded alone.
pub(crate) type Piece<'a> = (String, Box<dyn Fn(&mut wgpu::CommandEncoder) + 'a>);

/// A language model on the device, all calls bound.
pub(crate) trait Model {
    /// The ids `[batch, len]`, u32: written before a step.
    fn tokens(&self) -> &wgpu::Buffer;
    /// The logits `[batch, len, vocabulary]`, f32; for the backward pass, their gradient.
    fn logits(&self) -> &wgpu::Buffer;
    /// The parameters.
    fn slots(&self) -> &[Slot];
    /// From the tokens to the logits.
    fn forward(&self, encoder: &mut wgpu::CommandEncoder);
    /// From the gradient of the logits to those of the parameters.
    fn backward(&self, encoder: &mut wgpu::CommandEncoder);
    /// Both passes in pieces, in their order.
    fn pieces(&self) -> [Vec<Piece<'_>>; 2];
}

impl Config {
    pub(crate) fn rows(&self) -> usize {
        self.batch * self.len
    }

    /// First values, which the seed decides: uniform, of this standard deviation.
    pub(crate) fn first_values(&self) -> impl FnMut(usize, f64) -> Vec<f32> {
        let mut random = StdRng::seed_from_u64(self.seed);
        move |len, deviation| {
            let reach = (3f64.sqrt() * deviation) as f32;
            (0..len).map(|_| random.random_range(-reach..=reach)).collect()
        }
    }

    pub(crate) fn to_json(&self) -> Value {
        json!({
            "model": self.kind, "vocabulary": self.vocabulary, "batch": self.batch, "len": self.len, "width": self.width,
            "heads": self.heads, "layers": self.layers, "learning_rate": self.learning_rate, "seed": self.seed,
        })
    }

    pub(crate) fn from_json(value: &Value) -> Result<Self, Error> {
        let missing = |key: &str| format!("checkpoint `{key}`: need a value that fits, found {}", value[key]);
        let size = |key: &str| value[key].as_u64().map(|size| size as usize).ok_or_else(|| missing(key));
        Ok(Self {
            kind: value["model"].as_str().ok_or_else(|| missing("model"))?.to_owned(),
            vocabulary: size("vocabulary")?,
            batch: size("batch")?,
            len: size("len")?,
            width: size("width")?,
            heads: size("heads")?,
            layers: size("layers")?,
            learning_rate: value["learning_rate"].as_f64().ok_or_else(|| missing("learning_rate"))? as f32,
            seed: value["seed"].as_u64().ok_or_else(|| missing("seed"))?,
        })
    }
}
