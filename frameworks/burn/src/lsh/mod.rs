//! LSH attention.
//!
//! | file | what |
//! |---|---|
//! | `mod.rs` | [`lsh_attention`]: checks, plans |
//! | `ops.rs` | the operations, as burn's backends have them |

mod ops;

use crate::attention::contiguous;
use crate::check::{Checked, checked};
use crate::device::OnDevice;
use burn::backend::Dispatch;
use burn::tensor::Tensor;
use ops::LshOps;
use std::sync::{Arc, OnceLock};
use wgpu_attention::{Attention, Error, Layouts, LshBackwardPlan, LshOptions, LshPlan, Projections, Result};

/// LSH attention (Reformer; [`LshOptions`]) over shared queries and keys qk `[B, H, L, d]` and v `[B, H, L, dv]`: out `[B, H, L, dv]`, of the
/// type of qk. The device hashes and sorts.
///
/// Tensors, buffers, gradients and plans are as for [`attention`](crate::attention()).
///
/// # Errors
/// [`Error::Argument`] for shapes, types and devices that do not fit, and for options that ask for more tensors than qk and v; as
/// [`Kernels::lsh`](wgpu_attention::Kernels::lsh) and, on a device with autodiff, [`LshPlan::backward`].
///
/// # Panics
/// As [`attention`](crate::attention()).
///
/// ```no_run
/// use burn::tensor::{Distribution, Tensor};
/// use wgpu_attention_burn::wgpu_attention::LshOptions;
/// use wgpu_attention_burn::{device, lsh_attention};
///
/// let device = device()?;
/// let [qk, v] = [0; 2].map(|_| Tensor::<4>::random([1, 8, 16_384, 64], Distribution::Default, &device));
/// let out = lsh_attention(qk, v, LshOptions::new(4, 256, 64).causal(true))?;
/// # Ok::<(), wgpu_attention_burn::Error>(())
/// ```
pub fn lsh_attention(qk: Tensor<4>, v: Tensor<4>, options: LshOptions) -> Result<Tensor<4>> {
    let Checked { on, attention, autodiff } = checked(&qk, &qk, &v)?;
    if options.key_mask {
        return Err(Error::argument("options.key_mask", "none", "one"));
    }
    if let Projections::Given { .. } = options.projections {
        return Err(Error::argument("options.projections", "seeded ones", "some that are given"));
    }
    let call = LshCall { on, attention, options };
    let plans = call.plans(Layouts::default())?;
    if autodiff {
        plans.backward()?;
    }
    Ok(Tensor::from_dispatch(Dispatch::wgpu_lsh(qk.into_dispatch(), v.into_dispatch(), call)))
}

/// A call, but for its tensors.
#[derive(Debug, Clone)]
pub(crate) struct LshCall {
    on: Arc<OnDevice>,
    attention: Attention,
    options: LshOptions,
}

impl LshCall {
    /// What computes it over tensors that lie so.
    fn plans(&self, layouts: Layouts) -> Result<Arc<LshPlans>> {
        let attention = self.attention.clone().layouts(layouts);
        let same = |own: &LshPlans| *own.plan.attention() == attention && *own.plan.options() == self.options;
        self.on.plans.get(same, || {
            let plan = self.on.kernels.lsh(&attention, self.options.clone())?;
            Ok(LshPlans { plan, backward: OnceLock::new() })
        })
    }
}

/// A plan and, where it was asked for, that of its gradients.
pub(crate) struct LshPlans {
    plan: LshPlan,
    backward: OnceLock<LshBackwardPlan>,
}

impl LshPlans {
    /// Of gradients that lie in the order of their axes.
    fn backward(&self) -> Result<&LshBackwardPlan> {
        if let Some(backward) = self.backward.get() {
            return Ok(backward);
        }
        let backward = self.plan.backward_with(contiguous(self.plan.attention()))?;
        Ok(self.backward.get_or_init(|| backward))
    }
}
