//! How gradients are stored, and where they lie.

use crate::{Attention, AttentionShape, ElementType, Layout, Result, Strides};

/// How the gradients of a call are stored and where they lie. Sums are f32 whatever the storage.
///
/// ```
/// use wgpu_attention::{AttentionShape, ElementType, Gradients, Storage};
/// // f16 tensors, an out in f32 (from which the gradients lose least), gradients in f32.
/// let storage = Storage::all(ElementType::F16).out(ElementType::F32);
/// let attention = AttentionShape::new(1, 8, 1024, 64).storage(storage);
/// let gradients = Gradients::of(&attention).storage(ElementType::F32);
/// assert_eq!((gradients.dq, gradients.dkv, gradients.dout), (ElementType::F32, ElementType::F32, ElementType::F32));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Gradients {
    /// Storage of dq.
    pub dq: ElementType,
    /// Storage of dk and dv.
    pub dkv: ElementType,
    /// Storage of the gradient of out, an input.
    pub dout: ElementType,
    /// Where dq lies.
    pub dq_layout: Layout,
    /// Where dk lies.
    pub dk_layout: Layout,
    /// Where dv lies.
    pub dv_layout: Layout,
    /// Where the gradient of out lies.
    pub dout_layout: Layout,
}

impl Gradients {
    /// Each as its tensor.
    pub fn of(attention: &Attention) -> Self {
        let (storage, layouts) = (attention.storage, attention.layouts);
        Self {
            dq: storage.q,
            dkv: storage.kv,
            dout: storage.out,
            dq_layout: layouts.q,
            dk_layout: layouts.k,
            dv_layout: layouts.v,
            dout_layout: layouts.out,
        }
    }

    /// Sets the storage of dq, dk and dv.
    pub fn storage(self, element: ElementType) -> Self {
        Self { dq: element, dkv: element, ..self }
    }

    /// Sets the storage of the gradient of out.
    pub fn dout(self, dout: ElementType) -> Self {
        Self { dout, ..self }
    }

    /// Sets where dq lies.
    pub fn dq_layout(self, dq_layout: Layout) -> Self {
        Self { dq_layout, ..self }
    }

    /// Sets where dk lies.
    pub fn dk_layout(self, dk_layout: Layout) -> Self {
        Self { dk_layout, ..self }
    }

    /// Sets where dv lies.
    pub fn dv_layout(self, dv_layout: Layout) -> Self {
        Self { dv_layout, ..self }
    }

    /// Sets where the gradient of out lies.
    pub fn dout_layout(self, dout_layout: Layout) -> Self {
        Self { dout_layout, ..self }
    }

    /// Of dq, dk, dv and of the gradient of out.
    pub(in crate::gpu) fn strides(&self, shape: &AttentionShape) -> [Strides; 4] {
        let queries = |layout: Layout, dim| layout.strides(shape.heads, shape.q_len, dim);
        let keys = |layout: Layout, dim| layout.strides(shape.kv_heads, shape.kv_len, dim);
        [
            queries(self.dq_layout, shape.head_dim),
            keys(self.dk_layout, shape.head_dim),
            keys(self.dv_layout, shape.value_dim),
            queries(self.dout_layout, shape.value_dim),
        ]
    }

    /// Elements of the same, from the start to the end of the row that lies last.
    pub(in crate::gpu) fn lens(&self, shape: &AttentionShape) -> [usize; 4] {
        let (queries, keys) = (shape.query_rows(), shape.key_rows());
        let [dq, dk, dv, dout] = self.strides(shape);
        [
            dq.extent(queries, shape.head_dim),
            dk.extent(keys, shape.head_dim),
            dv.extent(keys, shape.value_dim),
            dout.extent(queries, shape.value_dim),
        ]
    }

    /// Rows may not be too wide, offsets must fit 32 bits, and rows that are written may not meet.
    pub(in crate::gpu) fn check(&self, attention: &Attention) -> Result<()> {
        let shape = &attention.shape;
        shape.check_narrow("gradients")?;
        let (queries, keys) = (shape.query_rows(), shape.key_rows());
        let [dq, dk, dv, _] = self.strides(shape);
        for (name, layout, strides, rows, dim) in [
            ("dq_layout", self.dq_layout, dq, queries, shape.head_dim),
            ("dk_layout", self.dk_layout, dk, keys, shape.head_dim),
            ("dv_layout", self.dv_layout, dv, keys, shape.value_dim),
        ] {
            layout.check(name, rows, dim)?;
            strides.check_no_overlap(name, rows, dim)?;
        }
        self.dout_layout.check("dout_layout", queries, shape.value_dim)
    }
}
