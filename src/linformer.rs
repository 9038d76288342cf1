//! What a call of Linformer computes beside its sizes.

use crate::construct::constructed;
use crate::layout::check_u32;
use crate::lsh::check_optional;
use crate::{Attention, AttentionShape, Error, Result};

/// Attention to keys and values that are projected along the sequence (Wang 2020, *Linformer: Self-Attention with Linear Complexity*, eq. 7):
///
/// ```text
/// K' = E[:Lk]^T K      V' = F[:Lk]^T V      out = softmax( scale Q K'^T ) V'
/// ```
///
/// with E and F `[n, kk]`, learned, n at least Lk: kk rows take the place of Lk keys, so that time and memory are linear in the length. E and F serve
/// all key heads or are [per head](Self::per_head) (the paper's *headwise sharing* or not); one matrix may serve as both
/// ([`value_projection`](Self::value_projection) `false`: *key-value sharing*), and keys may be the values, too ([`values`](Self::values) `false`). There is no causal form:
/// each projected row is of all keys.
///
/// ```
/// use wgpu_attention::{AttentionShape, LinformerOptions};
/// let shape = AttentionShape::new(1, 8, 4096, 64);
/// let options = LinformerOptions::new(8192, 256).per_head(true);
/// options.check(shape)?;
/// assert_eq!(options.len_projection(&shape), 8 * 8192 * 256);
/// let longer = options.check(shape.kv_len(10_000)).unwrap_err().to_string();
/// assert!(longer.contains("kv_len") && longer.contains("8192"));
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct LinformerOptions {
    /// n, the rows of E and F: the longest sequence of keys.
    pub rows: usize,
    /// kk, their columns: the rows that are attended.
    pub projected: usize,
    /// Whether each key head has an E and an F of its own, `[Hkv, n, kk]`. The default is no.
    pub per_head: bool,
    /// Whether there is an F; without one F = E. The default is yes.
    pub value_projection: bool,
    /// Whether there is a v; without one v = k. The default is yes.
    pub values: bool,
    /// Whether there is a key mask `[B, Lk]`: masked keys and their values count as 0, whatever they hold.
    pub key_mask: bool,
}

macro_rules! setters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        $($(#[$doc])* pub fn $name(mut self, $name: bool) -> Self { self.$name = $name; self })*
    };
}

impl LinformerOptions {
    /// E and F `[rows, projected]` of all heads, v, no mask.
    pub fn new(rows: usize, projected: usize) -> Self {
        let (per_head, value_projection, values, key_mask) = (false, true, true, false);
        Self { rows, projected, per_head, value_projection, values, key_mask }
    }

    setters! {
        /// Sets whether each key head has projections of its own.
        per_head,
        /// Sets whether there is an F.
        value_projection,
        /// Sets whether there is a v.
        values,
        /// Sets whether there is a key mask.
        key_mask,
    }

    /// Elements of E, and of F where there is one: `[n, kk]` or `[Hkv, n, kk]`.
    pub fn len_projection(&self, shape: &AttentionShape) -> usize {
        let heads = if self.per_head { shape.kv_heads } else { 1 };
        heads.saturating_mul(self.rows).saturating_mul(self.projected)
    }

    /// Elements of the key mask `[B, Lk]`.
    pub fn len_key_mask(&self, shape: &AttentionShape) -> usize {
        if self.key_mask { shape.batch * shape.kv_len } else { 0 }
    }

    /// Whether V' is K'.
    #[cfg(feature = "gpu")]
    pub(crate) fn one_product(&self) -> bool {
        !self.values && !self.value_projection
    }

    /// The attention over projected keys and values, f32 and contiguous.
    pub(crate) fn attended(&self, attention: &Attention) -> Attention {
        let mut attended = attention.clone();
        attended.shape = attention.shape.kv_len(self.projected);
        attended.storage = attention.storage.kv(crate::ElementType::F32);
        attended.layouts = attention.layouts.k(crate::Layout::Bhld).v(crate::Layout::Bhld);
        attended
    }

    /// Checks the options, and the shape that they are for.
    ///
    /// # Errors
    /// [`Error::Argument`] for no projected row, no key, more keys than E has rows, a score with terms, values of another size than keys where keys are
    /// the values; [`Error::Limit`] where an index would pass 32 bits.
    pub fn check(&self, attention: impl Into<Attention>) -> Result<()> {
        let attention = attention.into();
        let shape = &attention.shape;
        attention.check()?;
        shape.check_narrow("Linformer")?;
        attention.heads.check_all("Linformer")?;
        if !attention.score.is_plain() {
            let need = "scale q . k alone: projected keys have no positions";
            return Err(Error::argument("score", need, "terms"));
        }
        for (name, size) in [("projected", self.projected), ("kv_len", shape.kv_len)] {
            if size == 0 {
                return Err(Error::argument(name, "at least 1", 0));
            }
        }
        if shape.kv_len > self.rows {
            let need = format!("at most {}, the rows of the projections", self.rows);
            return Err(Error::argument("kv_len", need, shape.kv_len));
        }
        if !self.values && shape.value_dim != shape.head_dim {
            let need = format!("{}, as head_dim, where keys are the values", shape.head_dim);
            return Err(Error::argument("value_dim", need, shape.value_dim));
        }
        check_u32("projections", self.len_projection(shape) as u128)?;
        let lines = (shape.batch * shape.kv_heads) as u128;
        let width = shape.head_dim.max(shape.value_dim).next_multiple_of(4) as u128;
        check_u32("projected keys and values", lines * self.projected as u128 * width)?;
        check_u32("keys and values", lines * shape.kv_len as u128 * width)?;
        self.attended(&attention).check()
    }
}

/// The tensors of one call of Linformer, q, k and v lying as the shape says.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct LinformerInputs<'a, Q, KV = Q> {
    /// q `[B, H, Lq, d]`.
    pub q: &'a [Q],
    /// k `[B, Hkv, Lk, d]`.
    pub k: &'a [KV],
    /// E `[n, kk]`, or `[Hkv, n, kk]` where it is per head.
    pub e: &'a [f32],
    /// v `[B, Hkv, Lk, dv]`, if and only if [`LinformerOptions::values`].
    pub v: Option<&'a [KV]>,
    /// F, as E, if and only if [`LinformerOptions::value_projection`].
    pub f: Option<&'a [f32]>,
    /// `[B, Lk]`, true where a key counts; if and only if [`LinformerOptions::key_mask`].
    pub key_mask: Option<&'a [bool]>,
}

constructed! {
    LinformerInputs ['a, Q, KV] { q: &'a [Q], k: &'a [KV], e: &'a [f32] } { v: &'a [KV], f: &'a [f32], key_mask: &'a [bool] }
}

impl<Q, KV> LinformerInputs<'_, Q, KV> {
    /// Checks the lengths.
    ///
    /// # Errors
    /// [`Error::Argument`] naming the tensor.
    pub fn check(&self, attention: &Attention, options: &LinformerOptions) -> Result<()> {
        let (shape, layouts) = (&attention.shape, attention.layouts);
        crate::inputs::check_len("q", self.q.len(), attention.len_q(), layouts.q)?;
        crate::inputs::check_len("k", self.k.len(), attention.len_k(), layouts.k)?;
        match (self.v, options.values) {
            (Some(v), true) => crate::inputs::check_len("v", v.len(), attention.len_v(), layouts.v)?,
            (v, values) => check_optional("v", values, v.map(<[_]>::len), attention.len_v())?,
        }
        let need = options.len_projection(shape);
        check_optional("e", true, Some(self.e.len()), need)?;
        check_optional("f", options.value_projection, self.f.map(<[_]>::len), need)?;
        check_optional(
            "key_mask",
            options.key_mask,
            self.key_mask.map(<[_]>::len),
            options.len_key_mask(shape),
        )
    }
}
