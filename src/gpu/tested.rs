//! What a self-test takes: plans of several kinds.

use super::attention::{AttentionPlan, BackwardPlan, Pipelines};
use super::decode::{DecodePlan, PackedPlan};
use super::lsh::{LshBackwardPlan, LshPlan};
use crate::{Attention, KernelPath, Result};

/// A plan that [`Gpu::self_test`](crate::Gpu::self_test) can judge: attention, LSH attention, the gradients of either, decoding, packed
/// sequences. A reference to one is made to this by itself.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum TestedPlan<'a> {
    /// Attention.
    Attention(&'a AttentionPlan),
    /// Its gradients.
    Backward(&'a BackwardPlan),
    /// LSH attention.
    Lsh(&'a LshPlan),
    /// Its gradients.
    LshBackward(&'a LshBackwardPlan),
    /// A step of decoding with a key cache.
    Decode(&'a DecodePlan),
    /// Packed sequences.
    Packed(&'a PackedPlan),
}

macro_rules! tested {
    ($($name:ident: $plan:ty),*) => {
        $(impl<'a> From<&'a $plan> for TestedPlan<'a> {
            fn from(plan: &'a $plan) -> Self {
                Self::$name(plan)
            }
        })*
    };
}

tested!(
    Attention: AttentionPlan, Backward: BackwardPlan, Lsh: LshPlan, LshBackward: LshBackwardPlan, Decode: DecodePlan,
    Packed: PackedPlan
);

impl TestedPlan<'_> {
    /// What was planned.
    pub(crate) fn attention(&self) -> &Attention {
        match self {
            Self::Attention(plan) => plan.attention(),
            Self::Backward(plan) => plan.attention(),
            Self::Lsh(plan) => plan.attention(),
            Self::LshBackward(plan) => plan.attention(),
            Self::Decode(plan) => plan.attention(),
            Self::Packed(plan) => plan.attention(),
        }
    }

    /// The pipelines that are judged.
    pub(in crate::gpu) fn pipelines(self) -> Result<Pipelines> {
        match self {
            Self::Attention(plan) => plan.pipelines(),
            Self::Backward(plan) => plan.pipelines(),
            Self::Lsh(plan) => plan.tested(),
            Self::LshBackward(plan) => plan.tested(),
            Self::Decode(plan) => Ok(plan.tested()),
            Self::Packed(plan) => Ok(plan.tested()),
        }
    }

    /// The names of their shaders.
    #[cfg(feature = "serde")]
    pub(crate) fn shaders(self) -> Result<Vec<String>> {
        Ok(self.pipelines()?.labels())
    }

    /// The plan in words, for a message.
    pub(crate) fn what(self) -> String {
        match self {
            Self::Attention(plan) => format!("the {} kernel", plan.path().path),
            Self::Backward(plan) if plan.path().path == KernelPath::Cooperative => {
                "the cooperative kernels of gradients".into()
            }
            Self::Backward(_) => "the kernels of gradients".into(),
            Self::Lsh(_) => "the kernels of LSH attention".into(),
            Self::LshBackward(_) => "the kernels of gradients of LSH attention".into(),
            Self::Decode(_) => "the kernels of decoding".into(),
            Self::Packed(_) => "the kernels of packed sequences".into(),
        }
    }
}
