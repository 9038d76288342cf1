//! A plan's own pipelines on a small problem, before what they compute is trusted: compilers and drivers have faults.
//!
//! The kernels know nothing of the reference. So a [`Gpu`] is given its judge where it is opened, and asks it when it has a new plan.
//!
//! | file | what |
//! |---|---|
//! | `mod.rs` | the entry, by the element types of a call |
//! | `subject.rs` | a call on the device against the reference; tuning uses it too |

mod subject;

use half::{bf16, f16};

pub(crate) use subject::Subject;

use crate::gpu::{Judge, Small};
use crate::reference::Kind;
use crate::score::Rule;
use crate::{AttentionPlan, Element, ElementType, Error, Gpu, Result, SelfTest};

/// What a device that this crate opens judges its plans by.
pub(crate) const JUDGE: Judge = |gpu, plan| Box::pin(gpu.self_test_async(plan));

impl Gpu {
    /// Runs the very pipelines of a plan on a small problem, with whole blocks, blocks with holes and rows without keys, on two kinds
    /// of random inputs, and compares 16 rows of each with the f64 reference under its bound. Blocks.
    ///
    /// [`Gpu::attention`] and [`Gpu::run`] do this by themselves when they plan a call whose pipelines were not tested yet, unless
    /// [`Gpu::self_tests`] said no: a kernel of cooperative matrices that fails gives way to the scalar one, whose
    /// [`path`](AttentionPlan::path) says why, and one that fails with nothing in its place is an [`Error::Device`]. Plans that a caller
    /// makes from [`Kernels`](crate::Kernels), which have no queue, are for the caller to test. A score with terms of the caller's own
    /// is not tested: its reference is the caller's, too.
    ///
    /// # Errors
    /// [`Error`] where the device fails.
    ///
    /// ```no_run
    /// use wgpu_attention::{AttentionShape, Causal, Gpu, SelfTest};
    /// let gpu = Gpu::new()?;
    /// let plan = gpu.kernels().attention(AttentionShape::new(1, 12, 8192, 64), &Causal)?;
    /// assert_eq!(gpu.self_test(&plan)?, SelfTest::Passed);
    /// # Ok::<(), wgpu_attention::Error>(())
    /// ```
    pub fn self_test(&self, plan: &AttentionPlan) -> Result<SelfTest> {
        pollster::block_on(self.self_test_async(plan))
    }

    /// [`Gpu::self_test`] without blocking the caller's executor.
    ///
    /// # Errors
    /// As [`Gpu::self_test`].
    pub async fn self_test_async(&self, plan: &AttentionPlan) -> Result<SelfTest> {
        self.check_alive()?;
        let shape = &plan.attention().shape;
        if let Some(custom) = plan.attention().score.customs().next() {
            return Ok(SelfTest::NotTested(format!("the term `{}` is the caller's own", custom.name())));
        }
        if shape.is_empty() || shape.kv_len == 0 {
            return Ok(SelfTest::NotTested("there is nothing to compute".into()));
        }
        let small = match Small::of(plan) {
            Ok(small) => small,
            Err(error @ (Error::DeviceLost(_) | Error::Device { .. })) => return Err(self.or_lost(error)),
            Err(error) => return Ok(SelfTest::NotTested(error.to_string())),
        };
        match plan.attention().storage.q {
            ElementType::F32 => self.judge_q::<f32>(&small).await,
            ElementType::F16 => self.judge_q::<f16>(&small).await,
            ElementType::Bf16 => self.judge_q::<bf16>(&small).await,
        }
    }

    async fn judge_q<Q: Element>(&self, small: &Small) -> Result<SelfTest> {
        match small.plan.attention().storage.kv {
            ElementType::F32 => self.judge_kv::<Q, f32>(small).await,
            ElementType::F16 => self.judge_kv::<Q, f16>(small).await,
            ElementType::Bf16 => self.judge_kv::<Q, bf16>(small).await,
        }
    }

    async fn judge_kv<Q: Element, KV: Element>(&self, small: &Small) -> Result<SelfTest> {
        match small.plan.attention().storage.out {
            ElementType::F32 => self.judge::<Q, KV, f32>(small).await,
            ElementType::F16 => self.judge::<Q, KV, f16>(small).await,
            ElementType::Bf16 => self.judge::<Q, KV, bf16>(small).await,
        }
    }

    async fn judge<Q: Element, KV: Element, O: Element>(&self, small: &Small) -> Result<SelfTest> {
        let (attention, pattern) = (small.plan.attention(), small.pattern());
        for kind in [Kind::Normal, Kind::Peaky] {
            let subject = Subject::<Q, KV, O>::new(self, attention, &pattern, small.parts(), kind)?;
            if let (_, Some(found)) = subject.judge(&small.plan).await? {
                return Ok(SelfTest::Failed(found));
            }
        }
        Ok(SelfTest::Passed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{AttentionShape, Full, KernelPath, Options, Storage};

    #[test]
    fn matrices_that_compute_wrong_results_give_way() {
        let need = "an adapter with cooperative matrices: run by `cargo xtask test`, which fetches one";
        let adapters = pollster::block_on(Gpu::adapters()).expect(need);
        let has = |adapter: &&wgpu::Adapter| !crate::cooperative_features(adapter).is_empty();
        let token = wgpu_attention_experimental::allowed();
        let adapter = adapters.iter().find(has).expect(need);
        let gpu = pollster::block_on(Gpu::on_experimental(adapter, Options::default(), token)).expect(need);
        // A software adapter takes the scalar path unless it is forced to; the plan of the forced kernels stands for a GPU's own choice.
        let options = gpu.kernels().options().path(KernelPath::Cooperative);
        let forced = gpu.kernels().with_options(options).unwrap();
        let shape = AttentionShape::new(1, 2, 256, 64).storage(Storage::all(ElementType::F16));
        let plan = forced.attention(&shape, &Full).unwrap();
        assert_eq!(gpu.self_test(&plan).unwrap(), SelfTest::Passed);
        assert_eq!(pollster::block_on(gpu.trusted(plan)).unwrap().path().path, KernelPath::Cooperative);

        // Where only sums that live on in matrices are wrong, lanes take them over.
        let lost = forced.edited(|text| {
            text.replace("write_patch(share, upper, lower);", "write_patch(share, lower, upper);")
        });
        let plan = lost.attention(&shape, &Full).unwrap();
        let other = pollster::block_on(gpu.trusted(plan)).unwrap();
        let choice = other.path();
        assert!(choice.path == KernelPath::Cooperative && choice.why.contains("sums in lanes"), "{choice:?}");
        assert!(other.explain().tile.to_string().contains("sums-in-lanes"), "{}", other.explain().tile);

        let wrong = forced
            .edited(|text| text.replace("o10 = coopMultiplyAdd(p1, v0,", "o10 = coopMultiplyAdd(p0, v0,"));
        let plan = wrong.attention(&shape, &Full).unwrap();
        let other = pollster::block_on(gpu.trusted(plan)).unwrap();
        let choice = other.path();
        assert!(
            choice.path == KernelPath::Scalar && choice.why.contains("failed its self-test"),
            "{choice:?}"
        );
    }
}
