//! The encoder: burn's modules, and attention by whatever function is handed in.

use burn::module::Module;
use burn::nn::{Embedding, EmbeddingConfig, LayerNorm, LayerNormConfig, Linear, LinearConfig};
use burn::tensor::activation::gelu;
use burn::tensor::{Device, Int, Tensor};

/// q, k, v `[B, H, L, d]` to out `[B, H, L, d]`.
pub(crate) type Attend = dyn Fn(Tensor<4>, Tensor<4>, Tensor<4>) -> Tensor<4>;

/// Sizes of the encoder.
pub(crate) const WIDTH: usize = 32;
pub(crate) const HEADS: usize = 2;
pub(crate) const VOCABULARY: usize = 64;
const LAYERS: usize = 2;

/// Classifies a text by the mean of its positions.
#[derive(Module, Debug)]
pub(crate) struct Encoder {
    tokens: Embedding,
    places: Embedding,
    layers: Vec<Layer>,
    norm: LayerNorm,
    classes: Linear,
}

/// Attention and a feed-forward part, each behind a norm and beside what it reads.
#[derive(Module, Debug)]
pub(crate) struct Layer {
    norm: LayerNorm,
    qkv: Linear,
    heads: Linear,
    norm_wide: LayerNorm,
    wide: Linear,
    narrow: Linear,
}

impl Encoder {
    pub(crate) fn new(len: usize, classes: usize, device: &Device) -> Self {
        Self {
            tokens: EmbeddingConfig::new(VOCABULARY, WIDTH).init(device),
            places: EmbeddingConfig::new(len, WIDTH).init(device),
            layers: (0..LAYERS).map(|_| Layer::new(device)).collect(),
            norm: LayerNormConfig::new(WIDTH).init(device),
            classes: LinearConfig::new(WIDTH, classes).init(device),
        }
    }

    /// Texts `[B, L]` to logits `[B, classes]`.
    pub(crate) fn forward(&self, texts: Tensor<2, Int>, attend: &Attend) -> Tensor<2> {
        let [batch, len] = texts.dims();
        let places = Tensor::arange(0..len as i64, &texts.device()).unsqueeze::<2>();
        let mut x = self.tokens.forward(texts) + self.places.forward(places);
        for layer in &self.layers {
            x = layer.forward(x, attend);
        }
        self.classes.forward(self.norm.forward(x).mean_dim(1).reshape([batch, WIDTH]))
    }
}

impl Layer {
    fn new(device: &Device) -> Self {
        let linear = |from, to| LinearConfig::new(from, to).init(device);
        let norm = || LayerNormConfig::new(WIDTH).init(device);
        Self {
            norm: norm(),
            qkv: linear(WIDTH, 3 * WIDTH),
            heads: linear(WIDTH, WIDTH),
            norm_wide: norm(),
            wide: linear(WIDTH, 4 * WIDTH),
            narrow: linear(4 * WIDTH, WIDTH),
        }
    }

    fn forward(&self, x: Tensor<3>, attend: &Attend) -> Tensor<3> {
        let [batch, len, _] = x.dims();
        let qkv = self.qkv.forward(self.norm.forward(x.clone()));
        // Views: [B, L, H, d], seen as [B, H, L, d].
        let [q, k, v] = [0, 1, 2].map(|n| {
            let part = qkv.clone().narrow(2, n * WIDTH, WIDTH);
            part.reshape([batch, len, HEADS, WIDTH / HEADS]).swap_dims(1, 2)
        });
        let out = attend(q, k, v).swap_dims(1, 2).reshape([batch, len, WIDTH]);
        let x = x + self.heads.forward(out);
        let wide = gelu(self.wide.forward(self.norm_wide.forward(x.clone())));
        x + self.narrow.forward(wide)
    }
}
