//! Axes and layouts of a call's tensors.

use crate::buffers::Place;
use burn::backend::fusion::custom::TensorSpec;
use burn::tensor::{DType, Shape};
use wgpu_attention::{Attention, AttentionShape, Gradients, Layout, Layouts, Result};

/// The axes of a call's tensors.
pub(crate) struct Dims {
    /// Of q, k and v, and of their gradients.
    pub(crate) inputs: [[usize; 4]; 3],
    /// Of out.
    pub(crate) out: [usize; 4],
    /// Of (m, l).
    pub(crate) state: [usize; 4],
}

pub(crate) fn dims(shape: &AttentionShape) -> Dims {
    let queries = |dim| [shape.batch, shape.heads, shape.q_len, dim];
    let keys = |dim| [shape.batch, shape.kv_heads, shape.kv_len, dim];
    let inputs = [queries(shape.head_dim), keys(shape.head_dim), keys(shape.value_dim)];
    Dims { inputs, out: queries(shape.value_dim), state: queries(2) }
}

/// What fusion has to know of out before it is computed.
pub(crate) fn out_spec(q: &TensorSpec, attention: &Attention) -> TensorSpec {
    TensorSpec::new(Shape::from(dims(&attention.shape).out), q.dtype)
}

/// What it has to know of the state.
pub(crate) fn state_spec(attention: &Attention) -> TensorSpec {
    TensorSpec::new(Shape::from(dims(&attention.shape).state), DType::F32)
}

/// Of inputs as they lie; out lies in the order of its axes.
pub(crate) fn layouts(q: &Place, k: &Place, v: &Place) -> Layouts {
    Layouts::default().q(q.layout()).k(k.layout()).v(v.layout())
}

/// Gradients of the types of their tensors, in the order of their axes.
pub(crate) fn contiguous(attention: &Attention) -> Gradients {
    let gradients = Gradients::of(attention).dq_layout(Layout::Bhld).dk_layout(Layout::Bhld);
    gradients.dv_layout(Layout::Bhld).dout_layout(Layout::Bhld)
}

/// Where no error can be returned.
pub(crate) fn expect<T>(result: Result<T>) -> T {
    result.unwrap_or_else(|error| panic!("{error}"))
}
