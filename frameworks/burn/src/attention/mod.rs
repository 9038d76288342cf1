//! Attention over a pattern.
//!
//! | file | what |
//! |---|---|
//! | `mod.rs` | [`attention`]: checks, plans |
//! | `ops.rs` | the operations, as burn's backends have them: on buffers, deferred (fusion), with gradients (autodiff) |
//! | `sizes.rs` | axes and layouts; linear and LSH attention use it, too |

mod ops;
mod sizes;

pub(crate) use sizes::{contiguous, dims, expect, layouts, out_spec, state_spec};

use crate::check::{Checked, checked};
use crate::device::OnDevice;
use burn::backend::Dispatch;
use burn::tensor::Tensor;
use ops::AttentionOps;
use std::sync::{Arc, OnceLock};
use wgpu_attention::pattern::Pattern;
use wgpu_attention::{Attention, AttentionPlan, BackwardPlan, Error, Layouts, Outputs, Result, Score};

/// Options of [`attention`]. The default is softmax(q k^T / sqrt(d)) over the pattern's pairs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct AttentionOptions {
    /// The score of a pair: its scale, and terms without tensors (a cap, [ALiBi](wgpu_attention::Alibi) with its own slopes, dropout).
    pub score: Score,
}

impl AttentionOptions {
    /// Sets the score.
    pub fn score(self, score: Score) -> Self {
        Self { score }
    }

    /// Sets the factor of q . k.
    pub fn scale(self, scale: f32) -> Self {
        Self { score: self.score.scale(scale) }
    }
}

/// softmax(score) v over the pairs of a pattern: out `[B, H, Lq, dv]`, of the type of q.
///
/// q is `[B, H, Lq, d]`, k `[B, Hkv, Lk, d]`, v `[B, Hkv, Lk, dv]`, all f32 or all f16, where H is a multiple of Hkv: query head h reads key head
/// h / (H / Hkv). Sums are f32. A query without a key gives 0.
///
/// The kernels read the tensors' own buffers, in any order of axes whose last is contiguous (so `swap_dims(1, 2)` of `[B, L, H, d]` costs
/// nothing), and write a tensor of burn's, on burn's queue: nothing is copied and no one waits. On a device with
/// [`autodiff`](burn::tensor::Device::autodiff), gradients by q, k and v come from the crate's own backward pass, which keeps (m, l) per
/// query and never a score.
///
/// Plans are kept per device: up to 128 of the last shapes, patterns and options.
///
/// # Errors
/// [`Error::Argument`] for shapes, types and devices that do not fit, and a score with tensors; as
/// [`Kernels::attention`](wgpu_attention::Kernels::attention) and, on a device with autodiff,
/// [`AttentionPlan::backward`].
///
/// # Panics
/// In what burn defers there is no one to return an error to: where the device has no memory left, or is lost, it panics as burn's own
/// operations do.
///
/// ```no_run
/// use burn::tensor::{Distribution, Tensor};
/// use wgpu_attention_burn::pattern::BigBird;
/// use wgpu_attention_burn::{AttentionOptions, attention, device};
///
/// let device = device()?;
/// let [q, k, v] = [0; 3].map(|_| Tensor::<4>::random([1, 8, 4096, 64], Distribution::Default, &device));
/// let pattern = BigBird::new(64, 3, 2, 3, 0)?;
/// let out = attention(q, k, v, &pattern, AttentionOptions::default())?;
/// assert_eq!(out.dims(), [1, 8, 4096, 64]);
/// # Ok::<(), wgpu_attention_burn::Error>(())
/// ```
pub fn attention(
    q: Tensor<4>,
    k: Tensor<4>,
    v: Tensor<4>,
    pattern: &dyn Pattern,
    options: AttentionOptions,
) -> Result<Tensor<4>> {
    let Checked { on, attention, autodiff } = checked(&q, &k, &v)?;
    if let Some(tensor) = options.score.tensors(&attention.shape).first() {
        return Err(Error::argument(
            "options.score",
            "terms without tensors",
            format!("one that reads `{}`", tensor.name),
        ));
    }
    let attention = attention.score(options.score);
    let call = AttentionCall { on, attention, pattern: pattern.identity().to_pattern().into() };
    // What can be wrong is found here, where an error can be returned.
    let plans = call.plans(Layouts::default())?;
    if autodiff {
        plans.plan.prepare(Outputs::default().state())?;
        plans.backward()?;
    }
    let out = Dispatch::wgpu_attention(q.into_dispatch(), k.into_dispatch(), v.into_dispatch(), call);
    Ok(Tensor::from_dispatch(out))
}

/// A call, but for its tensors.
#[derive(Debug, Clone)]
pub(crate) struct AttentionCall {
    on: Arc<OnDevice>,
    attention: Attention,
    pattern: Arc<dyn Pattern>,
}

impl AttentionCall {
    /// What computes it over tensors that lie so.
    fn plans(&self, layouts: Layouts) -> Result<Arc<AttentionPlans>> {
        let attention = self.attention.clone().layouts(layouts);
        let same = |own: &AttentionPlans| *own.plan.attention() == attention && *own.pattern == *self.pattern;
        self.on.plans.get(same, || {
            let plan = self.on.kernels.attention(&attention, &*self.pattern)?;
            Ok(AttentionPlans { pattern: self.pattern.clone(), plan, backward: OnceLock::new() })
        })
    }
}

/// A plan and, where it was asked for, that of its gradients.
pub(crate) struct AttentionPlans {
    pattern: Arc<dyn Pattern>,
    plan: AttentionPlan,
    backward: OnceLock<BackwardPlan>,
}

impl AttentionPlans {
    /// Of gradients that lie in the order of their axes.
    fn backward(&self) -> Result<&BackwardPlan> {
        if let Some(backward) = self.backward.get() {
            return Ok(backward);
        }
        let backward = self.plan.backward_with(contiguous(self.plan.attention()))?;
        Ok(self.backward.get_or_init(|| backward))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffers::tests::{BOUND, place_of};
    use burn::backend::DispatchDevice;
    use burn::backend::ops::FloatTensorOps;
    use burn::backend::tensor::FloatTensor;
    use burn::tensor::{Device, TensorData};
    use burn_cubecl::CubeBackend;
    use burn_cubecl::tensor::CubeTensor;
    use std::sync::LazyLock;
    use wgpu_attention::AttentionShape;
    use wgpu_attention::pattern::{Causal, Full};

    static DEVICE: LazyLock<Device> = LazyLock::new(|| crate::device().expect("an adapter"));

    fn tensor(dims: [usize; 4]) -> FloatTensor<CubeBackend> {
        let DispatchDevice::Cube(device) = DEVICE.as_dispatch() else { panic!("a device of cubecl's") };
        let values: Vec<f32> = (0..dims.iter().product()).map(|n: usize| (n as f32).sin()).collect();
        CubeBackend::float_from_data(TensorData::new(values, dims), device)
    }

    fn call(shape: AttentionShape, pattern: &dyn Pattern) -> AttentionCall {
        let on = crate::device::on("device", &DEVICE).expect("an attached device");
        AttentionCall { on, attention: shape.into(), pattern: pattern.identity().to_pattern().into() }
    }

    #[test]
    fn kernels_read_and_write_the_tensors_own_buffers() {
        // [B, L, H, d], as a layer's projections lie, seen as [B, H, L, d].
        let lying = [0; 3].map(|_| tensor([2, 32, 3, 16]));
        let [q, k, v] = lying.clone().map(|tensor| CubeBackend::float_swap_dims(tensor, 1, 2));
        let call = call(AttentionShape::new(2, 3, 32, 16), &Causal);
        BOUND.take();
        let (out, state) = CubeBackend::wgpu_attention_state(q.clone(), k.clone(), v.clone(), call.clone());
        let [q_at, k_at, v_at] = lying.each_ref().map(place_of);
        let forward = vec![q_at.clone(), k_at.clone(), v_at.clone(), place_of(&out), place_of(&state)];
        assert_eq!(BOUND.take(), forward);

        let dout = tensor([2, 3, 32, 16]);
        let dout_at = place_of(&dout);
        let (dq, dk, dv) =
            CubeBackend::wgpu_attention_gradients(q, k, v, out.clone(), state.clone(), dout, call);
        let read = [q_at, k_at, v_at, place_of(&out), place_of(&state), dout_at];
        let written = [&dq, &dk, &dv].map(place_of);
        assert_eq!(BOUND.take(), [read.as_slice(), &written].concat());
    }

    #[test]
    fn a_tensor_may_start_anywhere_in_its_buffer() {
        let values = |tensor| {
            let data = burn::tensor::read_sync(CubeBackend::float_into_data(tensor)).expect("data");
            data.try_to_vec::<f32>().expect("f32")
        };
        let (dims, call) = ([1, 1, 32, 16], call(AttentionShape::new(1, 1, 32, 16), &Causal));
        let longer = tensor([1, 1, 33, 16]);
        // One element on: no device's alignment.
        let mut view = longer.clone();
        view.handle = view.handle.offset_start(4).offset_end(15 * 4);
        view.meta.shape_mut()[2] = 32;
        let all = values(longer);
        let DispatchDevice::Cube(device) = DEVICE.as_dispatch() else { panic!("a device of cubecl's") };
        let copy = CubeBackend::float_from_data(TensorData::new(all[1..513].to_vec(), dims), device);
        BOUND.take();
        let attend = |x: &CubeTensor| {
            let out = CubeBackend::wgpu_attention(x.clone(), x.clone(), x.clone(), call.clone());
            values(out)
        };
        let (got, want) = (attend(&view), attend(&copy));
        assert!(BOUND.take()[0].1 < place_of(&view).1, "the binding starts before the tensor");
        assert!(got.iter().zip(&want).all(|(got, want)| (got - want).abs() < 1e-6), "{got:?} {want:?}");
        assert!(want.iter().any(|x| x.abs() > 0.1));
    }

    #[test]
    fn only_rows_that_are_not_contiguous_are_copied() {
        let lying = tensor([1, 2, 16, 32]);
        let transposed = CubeBackend::float_swap_dims(lying.clone(), 2, 3);
        BOUND.take();
        let call = call(AttentionShape::new(1, 2, 32, 16), &Full);
        CubeBackend::wgpu_attention(transposed, tensor([1, 2, 32, 16]), tensor([1, 2, 32, 16]), call);
        assert_ne!(BOUND.take()[0], place_of(&lying));
    }

    #[test]
    fn plans_are_kept_by_layout_pattern_and_options() {
        let shape = AttentionShape::new(1, 2, 48, 16);
        let plans = |call: &AttentionCall, layouts| call.plans(layouts).expect("a plan");
        let first = plans(&call(shape, &Causal), Layouts::default());
        assert!(Arc::ptr_eq(&first, &plans(&call(shape, &Causal), Layouts::default())));
        let swapped = Layouts::default().q(wgpu_attention::Layout::Blhd);
        let scaled =
            AttentionCall { attention: shape.score(Score::new().scale(0.3)), ..call(shape, &Causal) };
        for (call, layouts) in [
            (call(shape, &Full), Layouts::default()),
            (call(shape, &Causal), swapped),
            (call(shape.kv_len(50), &Causal), Layouts::default()),
            (scaled, Layouts::default()),
        ] {
            assert!(!Arc::ptr_eq(&first, &plans(&call, layouts)));
        }
        // Those of the gradients are made once, too.
        let backward: *const BackwardPlan = first.backward().expect("a plan");
        assert!(std::ptr::eq(backward, first.backward().expect("a plan")));
    }

    #[test]
    fn a_graph_of_cubecls_refuses_it() {
        let [q, k, v] = [0; 3].map(|_| tensor([1, 2, 32, 16]));
        let call = call(AttentionShape::new(1, 2, 32, 16), &Full);
        // On a stream of its own.
        let thread = std::thread::spawn(move || {
            let client = q.client.clone();
            client.graph_prepare().expect("a stream that no one captures");
            let run = std::panic::AssertUnwindSafe(|| CubeBackend::wgpu_attention(q, k, v, call));
            let outcome = std::panic::catch_unwind(run).map(|_| ());
            let _ = client.stop_capture();
            outcome.expect_err("refused").downcast_ref::<&str>().map(ToString::to_string)
        });
        let message = thread.join().expect("a message").expect("words");
        assert!(message.contains("captured"), "{message}");
    }
}
