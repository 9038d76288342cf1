//! Whole models from a safetensors file with Hugging Face's tensor names: how another crate builds on the kernels. `verify` runs
//! them, and the library's examples `encoder` and `decoder`.
//!
//! | file | what |
//! |---|---|
//! | `albert.rs`, `bert.rs`, `bigbird.rs`, `gpt2.rs`, `llama.rs`, `longformer.rs`, `reformer.rs`, `t5.rs`, `transfoxl.rs`, `xlnet.rs` | the families: which operation on which tensors |
//! | `reformer_gradients.rs` | a Reformer's gradients by all its weights, on a device, through reversible layers |
//! | `reformer_exact.rs` | the same in f64 |
//! | `reversible.rs` | cases of reversible feed-forward layers, and their gradients |
//! | `memory.rs` | segments that remember the one before: Transformer-XL and XLNet |
//! | `device.rs`, `pool.rs` | [`Forward`]: the operations on a device, planned and bound once, recorded into one encoder |
//! | `importance.rs` | which heads of a model matter, by their gradients |
//! | `training/` | [`Training`]: a forward pass and, behind it, the gradients of all parameters |
//! | `attend.rs`, `decoder.rs`, `generate/` | [`Generator`]: texts from a GPT-2 or a Llama, token by token, over caches of keys and values; [`Sampler`] |
//! | `exact.rs` | [`Exact`]: the operations in f64 on the CPU |
//! | `features.rs` | features of tokens and texts: hidden states, summed, joined, pooled |
//! | `file.rs` | weights, indices and configuration, in one file or apart |

mod albert;
mod attend;
mod banded;
mod bands;
mod bert;
mod bigbird;
mod decoder;
mod device;
mod exact;
mod features;
mod file;
mod generate;
mod gpt2;
mod importance;
mod llama;
mod longformer;
mod matrices;
mod memory;
mod parameter;
mod pool;
mod reformer;
mod reformer_exact;
mod reformer_gradients;
mod reversible;
mod t5;
mod training;
mod transfoxl;
mod xlnet;

pub use albert::albert;
pub use attend::DecoderSizes;
pub use bert::bert;
pub use bigbird::bigbird;
pub use decoder::{decoder_sizes, logits};
pub use device::Forward;
pub use exact::Exact;
pub use features::{FeatureLayers, Features, Pooling, features};
pub use file::{Error, File};
pub use generate::{Folder, Generator, GeneratorOptions, Sampler, Sampling};
pub use gpt2::gpt2;
pub use importance::head_importance;
pub use llama::llama;
pub use longformer::longformer;
pub use memory::Piece;
pub use parameter::{Integers, Layers, Origin, Pair, Table};
pub use pool::Tensor as DeviceTensor;
pub use reformer::reformer;
pub use reformer_gradients::reformer_gradients;
pub use reversible::reversible;
pub use t5::t5;
pub use training::{Learnt, Training};
pub use transfoxl::{Memory, TransformerXl, transfoxl};
pub use xlnet::xlnet;

use wgpu_attention::reference::layer::{Bounded, Comparison};
use wgpu_attention::{
    Activation, Attention, AttentionShape, AxialShape, EmbedShape, FeedForwardShape, Gpu, Layout, LshOptions,
    MatmulShape, NormKind, NormShape, Pattern, RotaryShape, WeightOrder,
};

/// What a model is written in terms of. Tensors are f32 and contiguous; `out` is never an input, too, but where a shape's
/// combination reads it. A tensor whose last handle is dropped may be another one's memory from then on, so that a model asks
/// for a new one wherever it computes something new: those that gradients are taken of ([`Training`]) keep what they need.
pub trait Machine {
    /// A handle: clones are the same tensor.
    type Tensor: Clone;
    /// A pattern made ready.
    type Mask;

    /// A tensor of these values, which nothing is learnt of.
    fn upload(&mut self, values: &[f32]) -> Self::Tensor;

    /// A tensor that is learnt, and where it stands in the file.
    fn parameter(&mut self, origin: Origin, values: &[f32]) -> Self::Tensor {
        let _ = origin;
        self.upload(values)
    }

    /// A tensor that the model computes.
    fn tensor(&mut self, elements: usize) -> Self::Tensor;

    /// A tensor of zeros, which nothing writes but what it is given to: for operations that leave rows alone, as attention of some heads
    /// does.
    fn zeros(&mut self, elements: usize) -> Self::Tensor;

    /// Told what attention of a layer gave, `[B, L, H, d]`, before the output projection.
    fn attended(&mut self, context: &Self::Tensor) {
        let _ = context;
    }

    /// A pattern, made ready for such calls.
    fn mask(&mut self, call: &Attention, pattern: impl Pattern + 'static) -> Result<Self::Mask, Error>;

    /// `out (+)= table[ids]`.
    fn embed(
        &mut self,
        shape: &EmbedShape,
        ids: &[u32],
        table: &Table<Self::Tensor>,
        out: &Self::Tensor,
    ) -> Result<(), Error>;

    /// out = x turned by the angles of `[cos, sin]`.
    fn rotary(
        &mut self,
        shape: &RotaryShape,
        x: &Self::Tensor,
        tables: &[Self::Tensor; 2],
        out: &Self::Tensor,
    ) -> Result<(), Error>;

    /// out = x + other, `elements` of each.
    fn add(
        &mut self,
        elements: usize,
        x: &Self::Tensor,
        other: &Self::Tensor,
        out: &Self::Tensor,
    ) -> Result<(), Error>;

    /// out += axial positions of these tables, for each of so many items.
    fn axial(
        &mut self,
        shape: &AxialShape,
        items: usize,
        tables: [&[f32]; 2],
        out: &Self::Tensor,
    ) -> Result<(), Error>;

    /// `[first | second]`: rows of two tensors `[rows, width]` beside each other.
    fn join(&mut self, sizes: [usize; 2], sides: [&Self::Tensor; 2]) -> Result<Self::Tensor, Error>;

    /// out = norm(x), weight and bias as in `pair`.
    fn norm(
        &mut self,
        shape: &NormShape,
        x: &Self::Tensor,
        pair: &Pair<Self::Tensor>,
        out: &Self::Tensor,
    ) -> Result<(), Error>;

    /// A product with one matrix; `shape` says what else it does.
    fn linear(
        &mut self,
        shape: &MatmulShape,
        a: &Self::Tensor,
        pair: &Pair<Self::Tensor>,
        residual: Option<&Self::Tensor>,
        out: &Self::Tensor,
    ) -> Result<(), Error>;

    /// Attention over q, k and v, with the tensors of the score's terms.
    fn attention(
        &mut self,
        call: &Attention,
        mask: &Self::Mask,
        qkv: &[Self::Tensor; 3],
        terms: &[(&'static str, &Self::Tensor)],
        out: &Self::Tensor,
    ) -> Result<(), Error>;

    /// LSH attention over qk and v by these projections; keeps the buckets under the name.
    fn lsh(
        &mut self,
        call: &Attention,
        options: &LshOptions,
        qkv: [&Self::Tensor; 2],
        projections: &[f32],
        out: &Self::Tensor,
        buckets: String,
    ) -> Result<(), Error>;

    /// residual + FF(x).
    fn feed_forward(
        &mut self,
        shape: &FeedForwardShape,
        x: &Self::Tensor,
        layers: Layers<'_, Self::Tensor>,
        residual: &Self::Tensor,
        out: &Self::Tensor,
    ) -> Result<(), Error>;

    /// Keeps a state for the caller.
    fn keep(&mut self, name: String, source: &Self::Tensor);

    /// Keeps rows of several tensors `[batch, len, width]`, one behind the other, for the caller.
    fn keep_rows(&mut self, name: String, sizes: [usize; 2], pieces: &[Piece<Self::Tensor>]);

    /// `weight` and `bias` of a module.
    fn pair(
        &mut self,
        file: &File<'_>,
        name: &str,
        weight: &[usize],
        bias: usize,
    ) -> Result<Pair<Self::Tensor>, Error> {
        let bias = self.learnt(file, &format!("{name}.bias"), &[bias])?;
        Ok(Pair { bias: Some(bias), ..self.weight(file, name, weight)? })
    }

    /// `weight` of a module that has no bias.
    fn weight(&mut self, file: &File<'_>, name: &str, weight: &[usize]) -> Result<Pair<Self::Tensor>, Error> {
        Ok(Pair::new(self.learnt(file, &format!("{name}.weight"), weight)?))
    }

    /// `weight` of a module that multiplies by it: a matrix of these sizes, as the file has it.
    fn product(
        &mut self,
        file: &File<'_>,
        name: &str,
        sizes: [usize; 2],
        order: WeightOrder,
    ) -> Result<Pair<Self::Tensor>, Error> {
        let name = format!("{name}.weight");
        let values = file.tensor(&name, &sizes)?;
        self.matrix(Origin::whole(name), &values, sizes, order)
    }

    /// A matrix of products: packed where this machine packs them, or learnt.
    fn matrix(
        &mut self,
        origin: Origin,
        values: &[f32],
        sizes: [usize; 2],
        order: WeightOrder,
    ) -> Result<Pair<Self::Tensor>, Error> {
        let packed = self.packed(&origin, values, sizes, order)?;
        Ok(packed.unwrap_or_else(|| Pair::new(self.parameter(origin, values))))
    }

    /// A matrix of products as integers, if this machine stores them so. Nothing is learnt of those.
    fn packed(
        &mut self,
        origin: &Origin,
        values: &[f32],
        sizes: [usize; 2],
        order: WeightOrder,
    ) -> Result<Option<Pair<Self::Tensor>>, Error> {
        let _ = (origin, values, sizes, order);
        Ok(None)
    }

    /// Whether q, k and v are wanted as one product, over their matrices one behind the other.
    fn joins(&self) -> bool {
        false
    }

    /// A parameter of the file.
    fn learnt(&mut self, file: &File<'_>, name: &str, shape: &[usize]) -> Result<Self::Tensor, Error> {
        let values = file.tensor(name, shape)?;
        Ok(self.parameter(Origin::whole(name), &values))
    }
}

/// What the families have in common.
#[derive(Debug, Clone, Copy)]
struct Sizes {
    batch: usize,
    len: usize,
    width: usize,
    heads: usize,
    eps: f32,
}

impl Sizes {
    fn rows(&self) -> usize {
        self.batch * self.len
    }

    /// What a table of positions and the heads ask for.
    fn check(&self, positions: usize) -> Result<(), Error> {
        if self.len > positions {
            return Err(format!("input_ids: need at most {positions} positions, found {}", self.len).into());
        }
        if !self.width.is_multiple_of(self.heads) {
            return Err(format!("heads: need a divisor of {}, found {}", self.width, self.heads).into());
        }
        Ok(())
    }

    /// Attention over rows `[B, L, H, d]`, as the projections leave them: heads are strides, not copies.
    fn attention(&self) -> Attention {
        AttentionShape::new(self.batch, self.heads, self.len, self.width / self.heads).layout(Layout::Blhd)
    }

    fn norm(&self) -> NormShape {
        NormShape::new(NormKind::Layer, self.rows(), self.width, self.eps).bias(true)
    }

    fn embed(&self, table_rows: usize) -> EmbedShape {
        EmbedShape::new(self.rows(), table_rows, self.width)
    }

    /// 0 .. len for each batch item.
    fn positions(&self) -> Vec<u32> {
        (0..self.batch).flat_map(|_| 0..self.len as u32).collect()
    }
}

/// The families that [`run`] knows.
pub const FAMILIES: [&str; 10] =
    ["albert", "bert", "bigbird", "gpt2", "llama", "longformer", "reformer", "t5", "transfoxl", "xlnet"];

/// Runs the model of a file, of any of the [families](FAMILIES), on any machine, and keeps its states.
///
/// # Errors
/// A family that is not known; what is missing or different in the file, by name, and what the machine refuses.
pub fn run<M: Machine>(machine: &mut M, file: &File<'_>) -> Result<(), Error> {
    if file.of_case("op") == reversible::OP {
        return reversible(machine, file);
    }
    match file.family()? {
        "albert" => albert(machine, file),
        "bert" => bert(machine, file, wgpu_attention::Full),
        "bigbird" => bigbird(machine, file),
        "gpt2" => gpt2(machine, file, wgpu_attention::Causal),
        "llama" => llama(machine, file),
        "longformer" => longformer(machine, file),
        "reformer" => reformer(machine, file),
        "t5" => t5(machine, file),
        "transfoxl" => transfoxl(machine, file),
        "xlnet" => xlnet(machine, file),
        other => Err(format!("family: need one of {}, found `{other}`", FAMILIES.join(", ")).into()),
    }
}

/// States or gradients, by the names of the file.
pub type Values = Vec<(String, Vec<f32>)>;

/// The gradients that a file expects, by the names that they have there; `None` where it expects none, or where there is no backward pass of its
/// family. On a device, or without one in f64, which Reformers and reversible layers alone have.
///
/// # Errors
/// What is missing or different in the file, by name, and what the device refuses.
pub fn gradients(gpu: Option<&Gpu>, file: &File<'_>) -> Result<Option<Values>, Error> {
    if !file.has_gradients() {
        return Ok(None);
    }
    let is_reversible = file.of_case("op") == reversible::OP;
    match gpu {
        Some(gpu) if is_reversible => reversible::on_device(gpu, file).map(Some),
        None if is_reversible => reversible::in_f64(file).map(Some),
        Some(gpu) if file.family()? == "reformer" => reformer_gradients(gpu, file).map(Some),
        None if file.family()? == "reformer" => reformer_exact::in_f64(file).map(Some),
        Some(gpu) if LEARNING.contains(&file.family()?) => training::gradients(gpu, file).map(Some),
        _ => Ok(None),
    }
}

/// The families whose gradients [`Training`] makes.
pub const LEARNING: [&str; 6] = ["albert", "bert", "bigbird", "gpt2", "llama", "longformer"];

/// An activation by Hugging Face's name.
fn activation(name: &str) -> Result<Activation, Error> {
    match name {
        "relu" => Ok(Activation::Relu),
        "gelu" => Ok(Activation::GeluErf),
        "gelu_new" | "gelu_pytorch_tanh" => Ok(Activation::GeluTanh),
        "silu" | "swish" => Ok(Activation::Silu),
        "tanh" => Ok(Activation::Tanh),
        "quick_gelu" => Ok(Activation::QuickGelu),
        "mish" => Ok(Activation::Mish),
        other => {
            let need = "relu, gelu, gelu_new, silu, tanh, quick_gelu or mish";
            Err(format!("activation: need {need}, found `{other}`").into())
        }
    }
}

/// A state beside the one that the file expects.
pub struct State {
    /// Its name in the file.
    pub name: String,
    /// Its sizes in the file.
    pub shape: Vec<usize>,
    /// How far the computed one is from it.
    pub found: Comparison,
}

/// Every state that the file expects.
pub type States = Vec<State>;

/// Compares states, or gradients, with those that the file expects.
///
/// Every kernel is held to its bound by the tests, given its inputs. Through a whole model worst cases multiply layer by
/// layer and say nothing, so this looks for wrong wiring, which shows as errors of the size of the values: 2^-23 times
/// 1,000 roundings of the largest value, or of the largest of all gradients, beside the expected values' own error.
///
/// # Errors
/// A state that the file does not have.
pub fn compare(file: &File<'_>, states: &[(String, Vec<f32>)]) -> Result<States, Error> {
    // What nearly cancels, as the gradient by a key's bias does, comes of sums of gradients as large as any.
    let is_gradient = |name: &str| name.starts_with("d.");
    let mut largest_gradient = 0f32;
    for (name, _) in states.iter().filter(|state| is_gradient(&state.0)) {
        largest_gradient = file.values(name)?.0.iter().fold(largest_gradient, |most, x| most.max(x.abs()));
    }
    let compare = |(name, got): &(String, Vec<f32>)| -> Result<_, Error> {
        if name.starts_with(BUCKETS) {
            return compare_buckets(file, name, got);
        }
        let (want, shape) = file.values(name)?;
        let least = if is_gradient(name) { largest_gradient } else { 1.0 };
        let finite = want.iter().filter(|x| x.is_finite());
        let largest = finite.fold(least, |largest, x| largest.max(x.abs()));
        let limit = f64::from(f32::EPSILON) * 1000.0 * f64::from(largest) + file.expected_error(name);
        let expected = Bounded { bound: vec![limit; want.len()], ..Bounded::exact(&want) };
        Ok(State { name: name.clone(), shape, found: expected.compare(got.iter().copied(), 0.0) })
    };
    // A file need not say what the buckets are.
    let there = |state: &&(String, Vec<f32>)| !state.0.starts_with(BUCKETS) || file.has(&state.0);
    states.iter().filter(there).map(compare).collect()
}

/// How the names of states begin that are buckets: each f32 has the bits of one.
const BUCKETS: &str = "buckets_";

/// Buckets are demanded as they are. Another one would only be right for a row between two of them.
fn compare_buckets(file: &File<'_>, name: &str, got: &[f32]) -> Result<State, Error> {
    let (want, shape) = file.integers(name, |_| true)?;
    let expected = Bounded::exact(&want);
    let found = expected.compare(got.iter().map(|x| f64::from(x.to_bits())), 0.0);
    Ok(State { name: name.to_owned(), shape, found })
}
