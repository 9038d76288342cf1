//! What a self-test says, and of what.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use crate::gpu::pipeline::Pipeline;

/// Pipelines of a plan, the same as others where they are the very ones. They are kept: another that comes to lie at the place of one
/// that is gone would pass for it.
#[derive(Debug, Clone)]
pub(in crate::gpu) struct Pipelines(pub(in crate::gpu) Vec<Arc<Pipeline>>);

impl Pipelines {
    /// The shaders' names.
    #[cfg(feature = "serde")]
    pub(in crate::gpu) fn labels(&self) -> Vec<String> {
        self.0.iter().map(|pipeline| pipeline.label().into()).collect()
    }

    fn places(&self) -> impl Iterator<Item = *const Pipeline> {
        self.0.iter().map(Arc::as_ptr)
    }
}

impl PartialEq for Pipelines {
    fn eq(&self, other: &Self) -> bool {
        self.places().eq(other.places())
    }
}

impl Eq for Pipelines {}

impl Hash for Pipelines {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.places().for_each(|place| place.hash(state));
    }
}

/// What the self-test of a plan's pipelines found: see [`Gpu::self_test`](crate::Gpu::self_test).
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum SelfTest {
    /// Every element that was compared is within its bound.
    Passed,
    /// An element is not: which, and by how much.
    Failed(String),
    /// There is no small problem for such a call: why.
    NotTested(String),
}
