//! Attention over `ndarray`'s views (feature `ndarray`).

use std::borrow::Cow;

use ndarray::{Array4, ArrayView4, Axis};

use super::Outputs;
use crate::gpu::host::Gpu;
use crate::pattern::Pattern;
use crate::{
    Attention, AttentionShape, Element, Error, Inputs, Layout, Layouts, Result, Score, Storage, Strides,
};

/// What [`Gpu::attention_backward_arrays`] returns: each gradient as its array.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ArrayGradients {
    /// dq `[B, H, Lq, d]`.
    pub dq: Array4<f32>,
    /// dk `[B, Hkv, Lk, d]`.
    pub dk: Array4<f32>,
    /// dv `[B, Hkv, Lk, dv]`.
    pub dv: Array4<f32>,
}

impl Gpu {
    /// Attention over `ndarray`'s views: q `[B, H, Lq, d]`, k `[B, Hkv, Lk, d]`, v `[B, Hkv, Lk, dv]`; the result is
    /// `[B, H, Lq, dv]`. The sizes are those of the views. Blocks.
    ///
    /// A view is read where it lies if it covers its memory and its last axis is contiguous: `[B, L, H, d]` with permuted axes,
    /// reversed axes. Any other (every second row, a broadcast axis) is copied first. The score may have no tensors of its own;
    /// [`Gpu::run`] takes those.
    ///
    /// # Errors
    /// [`Error::Argument`] where the sizes of the views do not agree, and as [`Gpu::attention`].
    ///
    /// ```no_run
    /// use ndarray::Array4;
    /// use wgpu_attention::{Causal, Gpu, Score};
    /// // [B, L, H, d], as a linear layer leaves it.
    /// let [q, k, v] = [0.1, 0.2, 0.3].map(|x: f32| Array4::from_elem((1, 512, 8, 64), x));
    /// let heads = [0, 2, 1, 3];
    /// let [q, k, v] = [&q, &k, &v].map(|x| x.view().permuted_axes(heads));
    /// let out = Gpu::new()?.attention_arrays(q, k, v, Score::new(), &Causal)?;
    /// assert_eq!(out.dim(), (1, 8, 512, 64));
    /// # Ok::<(), wgpu_attention::Error>(())
    /// ```
    pub fn attention_arrays<Q: Element, KV: Element>(
        &self,
        q: ArrayView4<'_, Q>,
        k: ArrayView4<'_, KV>,
        v: ArrayView4<'_, KV>,
        score: Score,
        pattern: &dyn Pattern,
    ) -> Result<Array4<f32>> {
        let shape = shape(&q, &k, &v)?;
        let (q, k, v) = (Lain::new(q), Lain::new(k), Lain::new(v));
        let layouts = Layouts::default().q(q.layout).k(k.layout).v(v.layout);
        let attention =
            shape.score(score).storage(Storage::default().q(Q::TYPE).kv(KV::TYPE)).layouts(layouts);
        let inputs = Inputs::new(&q.elements, &k.elements, &v.elements);
        let out = self.run(attention, &inputs, pattern, Outputs::default())?.out;
        array("out", (shape.batch, shape.heads, shape.q_len, shape.value_dim), out)
    }

    /// The gradients of sum(dout out) by q, k and v, for [`Gpu::attention_arrays`] of the same arguments; dout is
    /// `[B, H, Lq, dv]`. Computes the forward pass, too. Blocks. Views that are not in standard layout are copied.
    ///
    /// # Errors
    /// [`Error::Argument`] where the sizes of the views do not agree, and as [`Gpu::attention_backward`].
    ///
    /// ```no_run
    /// use ndarray::Array4;
    /// use wgpu_attention::{Causal, Gpu, Score};
    /// let [q, k, v, dout] = [0.1, 0.2, 0.3, 1.0].map(|x: f32| Array4::from_elem((1, 8, 512, 64), x));
    /// let inputs = [q.view(), k.view(), v.view()];
    /// let gradients = Gpu::new()?.attention_backward_arrays(inputs, dout.view(), Score::new(), &Causal)?;
    /// assert_eq!(gradients.dk.dim(), k.dim());
    /// # Ok::<(), wgpu_attention::Error>(())
    /// ```
    pub fn attention_backward_arrays<T: Element>(
        &self,
        inputs: [ArrayView4<'_, T>; 3],
        dout: ArrayView4<'_, T>,
        score: Score,
        pattern: &dyn Pattern,
    ) -> Result<ArrayGradients> {
        let [q, k, v] = &inputs;
        let shape = shape(q, k, v)?;
        let need = (shape.batch, shape.heads, shape.q_len, shape.value_dim);
        agree("dout", need, dout.dim())?;
        let dims = [q.dim(), k.dim(), v.dim()];
        let [q, k, v, dout] = [inputs[0], inputs[1], inputs[2], dout].map(standard);
        let attention: Attention = shape.score(score);
        let found = self.attention_backward(attention, &Inputs::new(&q, &k, &v), &dout, pattern)?;
        Ok(ArrayGradients {
            dq: array("dq", dims[0], found.dq)?,
            dk: array("dk", dims[1], found.dk)?,
            dv: array("dv", dims[2], found.dv)?,
        })
    }
}

/// The sizes that the views have in common.
fn shape<Q, KV>(
    q: &ArrayView4<'_, Q>,
    k: &ArrayView4<'_, KV>,
    v: &ArrayView4<'_, KV>,
) -> Result<AttentionShape> {
    let (batch, heads, q_len, head_dim) = q.dim();
    let (_, kv_heads, kv_len, _) = k.dim();
    let value_dim = v.dim().3;
    agree("k", (batch, kv_heads, kv_len, head_dim), k.dim())?;
    agree("v", (batch, kv_heads, kv_len, value_dim), v.dim())?;
    let sizes = AttentionShape::new(batch, heads, q_len, head_dim);
    Ok(sizes.kv_heads(kv_heads).kv_len(kv_len).value_dim(value_dim))
}

/// The sizes of one view.
type Sizes = (usize, usize, usize, usize);

/// Refuses a view of other sizes.
fn agree(name: &'static str, need: Sizes, got: Sizes) -> Result<()> {
    let words = |(a, b, c, d): Sizes| format!("[{a}, {b}, {c}, {d}]");
    if need == got {
        Ok(())
    } else {
        Err(Error::argument(name, format!("sizes {}", words(need)), words(got)))
    }
}

/// A view as the kernels read it.
struct Lain<'a, T: Clone> {
    elements: Cow<'a, [T]>,
    layout: Layout,
}

impl<'a, T: Clone> Lain<'a, T> {
    /// Where the view lies, or a copy.
    fn new(view: ArrayView4<'a, T>) -> Self {
        let contiguous = view.len_of(Axis(3)) <= 1 || view.strides()[3] == 1;
        match view.to_slice_memory_order() {
            Some(elements) if contiguous && !view.is_empty() => {
                let axes: Vec<_> = view.strides().iter().copied().zip(view.shape().iter().copied()).collect();
                // The memory begins at its lowest element, and the view at the end of each reversed axis.
                let back = |&(stride, len): &(isize, usize)| stride.min(0).unsigned_abs() * (len - 1);
                let strides = Strides::new(axes[0].0, axes[1].0, axes[2].0);
                let strides = strides.offset(axes.iter().map(back).sum());
                Self { elements: Cow::Borrowed(elements), layout: Layout::Strided(strides) }
            }
            _ => Self { elements: standard(view), layout: Layout::Bhld },
        }
    }
}

/// The elements in standard layout.
fn standard<'a, T: Clone>(view: ArrayView4<'a, T>) -> Cow<'a, [T]> {
    view.to_slice().map_or_else(|| Cow::Owned(view.iter().cloned().collect()), Cow::Borrowed)
}

/// A result as an array of these sizes.
fn array(name: &'static str, sizes: Sizes, elements: Vec<f32>) -> Result<Array4<f32>> {
    let len = elements.len();
    Array4::from_shape_vec(sizes, elements).map_err(|error| Error::argument(name, error, len))
}
