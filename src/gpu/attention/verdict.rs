//! What a self-test says.

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
