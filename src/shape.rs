//! Sizes of the calls: what is computed, and how many elements each tensor has.

use crate::layout::check_u32;
use crate::{Error, Extent, Result};

/// The sizes of one attention call.
///
/// With B = `batch`, H = `heads`, Hkv = `kv_heads`, Lq = `q_len`, Lk = `kv_len`, d = `head_dim`,
/// dv = `value_dim`, the tensors are q `[B, H, Lq, d]`, k `[B, Hkv, Lk, d]`, v `[B, Hkv, Lk, dv]`,
/// out `[B, H, Lq, dv]` and lse `[B, H, Lq]`. Query head h reads key/value head h / (H / Hkv) (grouped-query attention,
/// Ainslie 2023).
///
/// With [`score`](Self::score), [`storage`](Self::storage) or [`layout`](Self::layout) it becomes an
/// [`Attention`](crate::Attention), which says all that a call computes but for the mask.
///
/// ```
/// use wgpu_attention::AttentionShape;
/// let llama = AttentionShape::new(4, 32, 2048, 128).kv_heads(8);
/// assert_eq!(llama.len_k(), 4 * 8 * 2048 * 128);
/// llama.check()?;
/// assert!(llama.kv_heads(5).check().unwrap_err().to_string().contains("kv_heads"));
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct AttentionShape {
    /// Batch items, B. May be 0: then nothing is written.
    pub batch: usize,
    /// Query heads, H.
    pub heads: usize,
    /// Key and value heads, Hkv: a divisor of `heads`.
    pub kv_heads: usize,
    /// Queries, Lq. May be 0: then nothing is written.
    pub q_len: usize,
    /// Keys, Lk. May be 0: then every row is empty, 0 with an lse of `f32::MIN`.
    pub kv_len: usize,
    /// Elements of a query and of a key, d: 1 to [`MAX_HEAD_DIM`](Self::MAX_HEAD_DIM); for gradients, LSH, linear attention and Linformer 1 to
    /// [`MAX_DIM`](Self::MAX_DIM).
    pub head_dim: usize,
    /// Elements of a value and of an output row, dv: 1 to [`MAX_VALUE_DIM`](Self::MAX_VALUE_DIM); for gradients, LSH, linear attention and
    /// Linformer 1 to [`MAX_DIM`](Self::MAX_DIM).
    pub value_dim: usize,
}

macro_rules! setters {
    ($($(#[$doc:meta])* $name:ident: $type:ty),* $(,)?) => {
        $($(#[$doc])* pub fn $name(mut self, $name: $type) -> Self { self.$name = $name; self })*
    };
}

impl AttentionShape {
    /// Largest `head_dim` and `value_dim` of gradients, of LSH, linear attention and Linformer.
    pub const MAX_DIM: usize = 256;
    /// Largest `head_dim` of all other calls ([`Kernels::attention`](crate::Kernels::attention), [`Kernels::decode`](crate::Kernels::decode),
    /// [`Kernels::packed_sequences`](crate::Kernels::packed_sequences)) and of the [reference](crate::reference): a latent row of 512 elements
    /// and 64 that turn (DeepSeek 2024).
    pub const MAX_HEAD_DIM: usize = 576;
    /// Largest `value_dim` there.
    pub const MAX_VALUE_DIM: usize = 512;

    /// Self-attention of `heads` heads over `len` positions.
    pub fn new(batch: usize, heads: usize, len: usize, head_dim: usize) -> Self {
        Self { batch, heads, kv_heads: heads, q_len: len, kv_len: len, head_dim, value_dim: head_dim }
    }

    setters! {
        /// Sets the number of key and value heads (grouped-query attention).
        kv_heads: usize,
        /// Sets the number of keys (cross-attention, or queries behind a key cache).
        kv_len: usize,
        /// Sets the number of queries.
        q_len: usize,
        /// Sets the size of a value row.
        value_dim: usize,
    }

    /// The key/value head that a query head reads.
    pub fn kv_head(&self, head: usize) -> usize {
        head / (self.heads / self.kv_heads)
    }

    /// Elements of a contiguous q: B H Lq d.
    pub fn len_q(&self) -> usize {
        self.query_rows().iter().product::<usize>() * self.head_dim
    }

    /// Elements of a contiguous k: B Hkv Lk d.
    pub fn len_k(&self) -> usize {
        self.key_rows().iter().product::<usize>() * self.head_dim
    }

    /// Elements of a contiguous v: B Hkv Lk dv.
    pub fn len_v(&self) -> usize {
        self.key_rows().iter().product::<usize>() * self.value_dim
    }

    /// Elements of a contiguous out: B H Lq dv.
    pub fn len_out(&self) -> usize {
        self.query_rows().iter().product::<usize>() * self.value_dim
    }

    /// Elements of lse: B H Lq.
    pub fn len_lse(&self) -> usize {
        self.query_rows().iter().product()
    }

    /// [B, H, Lq].
    pub(crate) fn query_rows(&self) -> [usize; 3] {
        [self.batch, self.heads, self.q_len]
    }

    /// [B, Hkv, Lk].
    pub(crate) fn key_rows(&self) -> [usize; 3] {
        [self.batch, self.kv_heads, self.kv_len]
    }

    /// Whether there is nothing to compute: no batch item or no query.
    pub fn is_empty(&self) -> bool {
        self.batch == 0 || self.q_len == 0
    }

    /// Floating-point operations for a number of attended (or visited) pairs: 2 (d + dv) per pair.
    pub fn flops(&self, pairs: u64) -> f64 {
        2.0 * (self.head_dim + self.value_dim) as f64 * pairs as f64
    }

    /// The lengths that a [`Pattern`](crate::Pattern) is asked about.
    pub fn extent(&self) -> Extent {
        Extent { batch: self.batch, heads: self.heads, q_len: self.q_len, kv_len: self.kv_len }
    }

    /// Checks everything that can be said without a device.
    ///
    /// # Errors
    /// [`Error::Argument`] for no head, a head count that is no multiple, a dimension past [`MAX_HEAD_DIM`](Self::MAX_HEAD_DIM) or
    /// [`MAX_VALUE_DIM`](Self::MAX_VALUE_DIM); [`Error::Limit`] where an index would pass 32 bits.
    pub fn check(&self) -> Result<()> {
        let most = [Self::MAX_HEAD_DIM, Self::MAX_VALUE_DIM];
        self.check_dims(most, |most| format!("1 to {most}"))?;
        self.check_counts()
    }

    /// Whether `what`, which takes no rows wider than [`MAX_DIM`](Self::MAX_DIM), takes these.
    pub(crate) fn check_narrow(&self, what: &str) -> Result<()> {
        self.check_dims([Self::MAX_DIM; 2], |most| format!("1 to {most} for {what}"))
    }

    fn check_dims(&self, most: [usize; 2], need: impl Fn(usize) -> String) -> Result<()> {
        let dims = [("head_dim", self.head_dim), ("value_dim", self.value_dim)];
        let wrong = dims.into_iter().zip(most).find(|((_, dim), most)| !(1..=*most).contains(dim));
        wrong.map_or(Ok(()), |((name, dim), most)| Err(Error::argument(name, need(most), dim)))
    }

    fn check_counts(&self) -> Result<()> {
        for (name, size) in [("heads", self.heads), ("kv_heads", self.kv_heads)] {
            if size == 0 {
                return Err(Error::argument(name, "at least 1", 0));
            }
        }
        if !self.heads.is_multiple_of(self.kv_heads) {
            let need = format!("a divisor of heads ({})", self.heads);
            return Err(Error::argument("kv_heads", need, self.kv_heads));
        }
        let rows = self.query_rows().iter().fold(1u128, |all, &n| all.saturating_mul(n as u128));
        check_u32("lse", rows)?;
        check_u32("kv_len", self.kv_len as u128)
    }
}

// Behind the macro that they share.
mod activation;
mod axial;
mod cross_entropy;
mod distillation;
mod feed_forward;
mod matmul;
mod optimizer;
mod rotary;
mod rotary_scaling;
mod row_gradients;
mod rows;
mod sinusoidal;

pub(crate) use activation::MishTerms;
pub use activation::{Activation, ActivationShape};
pub use axial::AxialShape;
pub use cross_entropy::{CrossEntropyShape, LossGradient};
pub use distillation::DistillationShape;
pub use feed_forward::FeedForwardShape;
pub use matmul::{AOrder, Combine, MatmulShape, RowStrides, WeightOrder};
pub use optimizer::{ClipShape, OptimizerRule, OptimizerShape, OptimizerStep};
pub use rotary::{RotaryPairs, RotaryShape, rotary_tables};
pub use rotary_scaling::{RotaryAngles, RotaryScaling, Yarn};
pub use row_gradients::{EmbedGradients, RowGradients};
pub use rows::{AddShape, EmbedShape, NormKind, NormShape, SoftmaxShape};
pub use sinusoidal::{
    SinusoidalFrequencies, SinusoidalLayout, sinusoidal_positions, sinusoidal_positions_with,
};
