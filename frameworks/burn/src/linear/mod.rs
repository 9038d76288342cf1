//! Linear attention.
//!
//! | file | what |
//! |---|---|
//! | `mod.rs` | [`linear_attention`]: checks, plans |
//! | `ops.rs` | the operations, as burn's backends have them |

mod ops;

use crate::attention::contiguous;
use crate::check::{Checked, checked};
use crate::device::OnDevice;
use burn::backend::Dispatch;
use burn::tensor::Tensor;
use ops::LinearOps;
use std::sync::{Arc, OnceLock};
use wgpu_attention::{
    Attention, Error, FeatureMap, Layouts, LinearBackwardPlan, LinearOptions, LinearPlan, LinearState,
    Projection, Result,
};

/// Attention without a softmax over keys, in time linear in the length ([`LinearOptions`]): out `[B, H, Lq, dv]`, of the type of q.
///
/// Tensors, buffers, gradients and plans are as for [`attention`](crate::attention()).
///
/// # Errors
/// [`Error::Argument`] for shapes, types and devices that do not fit, and for options that ask for more tensors than q, k and v; as
/// [`Kernels::linear_attention`](wgpu_attention::Kernels::linear_attention) and, on a device with autodiff, [`LinearPlan::backward`].
///
/// # Panics
/// As [`attention`](crate::attention()).
///
/// ```no_run
/// use burn::tensor::{Distribution, Tensor};
/// use wgpu_attention_burn::wgpu_attention::{FeatureMap, LinearOptions};
/// use wgpu_attention_burn::{device, linear_attention};
///
/// let device = device()?;
/// let [q, k, v] = [0; 3].map(|_| Tensor::<4>::random([1, 8, 16_384, 64], Distribution::Default, &device));
/// let out = linear_attention(q, k, v, LinearOptions::new(FeatureMap::favor(128)).causal(true))?;
/// # Ok::<(), wgpu_attention_burn::Error>(())
/// ```
pub fn linear_attention(
    q: Tensor<4>,
    k: Tensor<4>,
    v: Tensor<4>,
    options: LinearOptions,
) -> Result<Tensor<4>> {
    let Checked { on, attention, autodiff } = checked(&q, &k, &v)?;
    check_tensors(&options)?;
    let call = LinearCall { on, attention, options };
    let plans = call.plans(Layouts::default())?;
    if autodiff {
        plans.backward()?;
    }
    let out = Dispatch::wgpu_linear(q.into_dispatch(), k.into_dispatch(), v.into_dispatch(), call);
    Ok(Tensor::from_dispatch(out))
}

/// Those that a call here does not have.
fn check_tensors(options: &LinearOptions) -> Result<()> {
    use FeatureMap::{Favor, Relu};
    let given = Projection::Given;
    if matches!(options.map, Favor { projection, .. } | Relu { projection, .. } if projection == given) {
        return Err(Error::argument("options.map", "a seeded projection", "one that is given"));
    }
    if options.key_mask {
        return Err(Error::argument("options.key_mask", "none", "one"));
    }
    if options.state != LinearState::Absent {
        return Err(Error::argument("options.state", "none", format!("{:?}", options.state)));
    }
    Ok(())
}

/// A call, but for its tensors.
#[derive(Debug, Clone)]
pub(crate) struct LinearCall {
    on: Arc<OnDevice>,
    attention: Attention,
    options: LinearOptions,
}

impl LinearCall {
    /// What computes it over tensors that lie so.
    fn plans(&self, layouts: Layouts) -> Result<Arc<LinearPlans>> {
        let attention = self.attention.clone().layouts(layouts);
        let same =
            |own: &LinearPlans| *own.plan.attention() == attention && *own.plan.options() == self.options;
        self.on.plans.get(same, || {
            let plan = self.on.kernels.linear_attention(&attention, self.options.clone())?;
            Ok(LinearPlans { plan, backward: OnceLock::new() })
        })
    }
}

/// A plan and, where it was asked for, that of its gradients.
pub(crate) struct LinearPlans {
    plan: LinearPlan,
    backward: OnceLock<LinearBackwardPlan>,
}

impl LinearPlans {
    /// Of gradients that lie in the order of their axes.
    fn backward(&self) -> Result<&LinearBackwardPlan> {
        if let Some(backward) = self.backward.get() {
            return Ok(backward);
        }
        let backward = self.plan.backward_with(contiguous(self.plan.attention()))?;
        Ok(self.backward.get_or_init(|| backward))
    }
}
