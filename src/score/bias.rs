//! An additive tensor.

use super::fields::{Fields, Written};
use super::rule::{Known, Pair, Rule, TensorGradient, Tensors, TermTensor, added};
use crate::uniform::{Block, uniform};
use crate::{AttentionShape, BiasStrides, Result};
use std::borrow::Cow;

/// Adds an f32 tensor, `bias`, broadcast over any of `[B, H, Lq, Lk]` by zero strides. An element of minus infinity removes
/// its pair from S. Large negative numbers are ordinary biases: the crate's own masks are exact. Two that meet below f32's range are one at
/// its end: see [`Score`](super::Score).
///
/// A score may have two, of which the [second](Self::second) has the tensor `second_bias`: one that all heads share and one by
/// distance, say, of which neither is copied to the size of the other. Their numbers are added to each other first, then to the score: -1e9 and 1e9
/// leave it as it is. Each is a buffer: gradients with two take 9 in a stage, and so do
/// some outputs with more terms, one more than WebGPU promises. `Gpu` asks for as many as the adapter has.
///
/// ```
/// use wgpu_attention::{AttentionShape, Bias, BiasStrides, Score};
/// let shape = AttentionShape::new(2, 8, 64, 32);
/// let padding = BiasStrides::broadcast([2, 1, 1, 64]);
/// let score = Score::new().bias(padding).with(Bias::second(BiasStrides::toeplitz(64, 64)));
/// let tensors: Vec<_> = score.tensors(&shape).into_iter().map(|tensor| (tensor.name, tensor.len)).collect();
/// assert_eq!(tensors, [("bias", 2 * 64), ("second_bias", 8 * (64 + 64 - 1))]);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Bias {
    strides: BiasStrides,
    second: bool,
}

uniform! {
    /// Of `shaders/score/bias.wgsl`.
    BiasParams { offset: u32, batch: u32, head: u32, query: u32, key: u32 }
    /// The same of the second bias.
    SecondBiasParams { offset: u32, batch: u32, head: u32, query: u32, key: u32 }
}

/// The term, its tensor and its parameters.
const FIRST: &str = "bias";
const SECOND: &str = "second_bias";

impl Bias {
    /// A bias with these strides.
    pub fn new(strides: BiasStrides) -> Self {
        Self { strides, second: false }
    }

    /// A bias beside the first one, with these strides.
    pub fn second(strides: BiasStrides) -> Self {
        Self { strides, second: true }
    }

    /// Of a text that begins with the name of either.
    pub(super) fn read(fields: &Fields<'_>) -> Result<Self, String> {
        fields.only(&["offset", "batch", "head", "query", "key"])?;
        let stride = |name| Ok::<isize, String>(fields.find(name, "a whole number")?.unwrap_or(0));
        let strides = BiasStrides {
            offset: fields.find("offset", "a whole number of at least 0")?.unwrap_or(0),
            batch: stride("batch")?,
            head: stride("head")?,
            query: stride("query")?,
            key: stride("key")?,
        };
        Ok(Self { strides, second: fields.term == SECOND })
    }

    /// The strides.
    pub fn strides(&self) -> BiasStrides {
        self.strides
    }

    fn value(&self, at: &Pair<'_>, tensors: &Tensors<'_>) -> f64 {
        f64::from(tensors[0][self.strides.at(at.batch, at.head, at.i, at.j)])
    }
}

fn sizes(shape: &AttentionShape) -> [usize; 4] {
    [shape.batch, shape.heads, shape.q_len, shape.kv_len]
}

impl Rule for Bias {
    fn name(&self) -> &'static str {
        if self.second { SECOND } else { FIRST }
    }

    fn fields(&self) -> Written {
        let BiasStrides { offset, batch, head, query, key } = self.strides;
        let strides = [("batch", batch), ("head", head), ("query", query), ("key", key)];
        let offset = (offset != 0).then_some(("offset", offset as isize));
        let said = offset.into_iter().chain(strides.into_iter().filter(|(_, stride)| *stride != 0));
        said.fold(Written::default(), |written, (name, value)| written.with(name, value))
    }

    fn check(&self, shape: &AttentionShape) -> Result<()> {
        self.strides.check(self.name(), sizes(shape))
    }

    fn tensors(&self, shape: &AttentionShape) -> Vec<TermTensor> {
        vec![TermTensor { name: self.name(), len: self.strides.extent(sizes(shape)), strided: true }]
    }

    fn keeps(&self, at: &Pair<'_>, tensors: &Tensors<'_>) -> bool {
        self.value(at, tensors) != f64::NEG_INFINITY
    }

    fn may_remove(&self) -> bool {
        true
    }

    fn score(&self, before: f64, at: &Pair<'_>, tensors: &Tensors<'_>) -> f64 {
        before + self.value(at, tensors)
    }

    fn error(&self, before: Known, after: f64, _: &Pair<'_>, _: &Tensors<'_>) -> f64 {
        added(before, after)
    }

    fn number(&self, at: &Pair<'_>, tensors: &Tensors<'_>) -> Option<f64> {
        Some(self.value(at, tensors))
    }

    fn is_number(&self) -> bool {
        true
    }

    /// 1.
    fn element(&self, _: Known, at: &Pair<'_>, _: &Tensors<'_>) -> Option<(usize, Known)> {
        Some((self.strides.at(at.batch, at.head, at.i, at.j), Known { score: 1.0, error: 0.0 }))
    }

    fn gradient(&self, _: &str, shape: &AttentionShape) -> Option<TensorGradient> {
        let [batch, head, query, _] = self.strides.apart(sizes(shape));
        Some(TensorGradient { apart: [batch, head, query], ..Default::default() })
    }

    fn drawn(&self, normal: f64) -> f32 {
        2.0 * normal as f32
    }

    /// Minus infinity in one of eight places.
    fn silent(&self, bits: u64) -> Option<f32> {
        Some(if bits & 7 == 0 { f32::NEG_INFINITY } else { 0.0 })
    }

    fn shader(&self) -> Cow<'static, str> {
        let text = include_str!("../../shaders/score/bias.wgsl");
        if !self.second {
            return text.into();
        }
        // A shader may hold both: each name in it is there once.
        text.replace("BiasParams", "SecondBiasParams").replace(FIRST, SECOND).into()
    }

    fn scales(&self) -> bool {
        false
    }

    fn params(&self, _: &AttentionShape) -> Option<Block> {
        let BiasStrides { offset, batch, head, query, key } = self.strides;
        let [batch, head, query, key] = [batch, head, query, key].map(|stride| stride as u32);
        let offset = offset as u32;
        Some(match self.second {
            false => Block::new(FIRST, BiasParams { offset, batch, head, query, key }),
            true => Block::new(SECOND, SecondBiasParams { offset, batch, head, query, key }),
        })
    }
}

// The order of terms is that of their kinds; of two biases the second is the later one.
impl PartialOrd for Bias {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Bias {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let key = |bias: &Self| {
            let BiasStrides { offset, batch, head, query, key } = bias.strides;
            (bias.second, offset, batch, head, query, key)
        };
        key(self).cmp(&key(other))
    }
}
