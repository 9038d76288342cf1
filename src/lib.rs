//! placeholder crate docs (the lead writes them)
mod element;
mod error;
#[cfg(feature = "gpu")]
pub mod gpu;
mod inputs;
pub mod mask;
pub mod pattern;
mod shape;
pub mod wgsl;

pub use element::{Element, ElementType};
pub use error::{Error, Result};
#[cfg(feature = "gpu")]
pub use gpu::{
    AttentionBuffers, AttentionCall, AttentionOutput, AttentionPlan, Explanation, Gpu, KernelPath, Kernels,
    Options, PathChoice, recommended_features, recommended_limits,
};
pub use inputs::Inputs;
pub use mask::{BlockGrid, BlockMask, PackedMask, Part, Parts, Row, Run, RunKind};
pub use pattern::{Causal, Extent, Full, Pattern, Site, Span, Varies, Window};
pub use shape::{AttentionShape, BiasStrides, Layout, Strides};

impl AttentionShape {
    /// The lengths that a [`Pattern`] is asked about.
    pub fn extent(&self) -> Extent {
        Extent { batch: self.batch, heads: self.heads, q_len: self.q_len, kv_len: self.kv_len }
    }
}
