//! Which plans were judged, and what becomes of one whose pipelines fail: slices in, nothing wrong out.

use std::sync::PoisonError;

use super::{AttentionPlan, BackwardPlan, Gradients, SelfTest, forced};
use crate::gpu::host::Gpu;
use crate::gpu::tested::TestedPlan;
use crate::{Error, KernelPath, Result};

impl Gpu {
    /// The plan, or one whose matrices hold no sums, or one on another path, once its pipelines have passed.
    pub(crate) async fn trusted(&self, mut plan: AttentionPlan) -> Result<AttentionPlan> {
        while let Some(found) = self.fault(&plan).await? {
            plan = self.instead(&plan, TestedPlan::from(&plan), &found)?;
        }
        Ok(plan)
    }

    /// A plan's gradients, once their pipelines have passed: those of the plan, or the same on the scalar path, or of a plan on another path, if it is
    /// the path that they differ by.
    pub(crate) async fn trusted_backward(
        &self,
        mut plan: AttentionPlan,
        gradients: Gradients,
    ) -> Result<(AttentionPlan, BackwardPlan)> {
        loop {
            let mut backward = plan.backward_with(gradients).map_err(|e| self.or_lost(e))?;
            let mut fault = self.fault(&backward).await?;
            if let (Some(found), KernelPath::Cooperative) = (&fault, backward.path().path) {
                backward = self.gradients_instead(&backward, found)?;
                fault = self.fault(&backward).await?;
            }
            let Some(found) = fault else { return Ok((plan, backward)) };
            plan = self.instead(&plan, TestedPlan::from(&backward), &found)?;
            plan = self.trusted(plan).await?;
        }
    }

    /// Refuses a plan whose pipelines fail their [self-test](Gpu::self_test), unless [`Gpu::self_tests`] said no. What was found of pipelines is kept,
    /// and they are not tested again. For plans made from [`Kernels`](crate::Kernels), which have no queue to test them with. Blocks.
    ///
    /// # Errors
    /// [`Error::Device`] with the evidence, and as [`Gpu::self_test`].
    ///
    /// ```no_run
    /// use wgpu_attention::{CacheShape, DecodeShape, Gpu};
    /// let gpu = Gpu::new()?;
    /// let plan = gpu.kernels().decode(&DecodeShape::new(CacheShape::new(1, 8, 8192, 128), 32, 1))?;
    /// gpu.check_plan(&plan)?;
    /// # Ok::<(), wgpu_attention::Error>(())
    /// ```
    pub fn check_plan<'a>(&self, plan: impl Into<TestedPlan<'a>>) -> Result<()> {
        pollster::block_on(self.check_plan_async(plan))
    }

    /// [`Gpu::check_plan`] without blocking the caller's executor.
    ///
    /// # Errors
    /// As [`Gpu::check_plan`].
    pub async fn check_plan_async<'a>(&self, plan: impl Into<TestedPlan<'a>>) -> Result<()> {
        let plan = plan.into();
        self.fault(plan).await?.map_or(Ok(()), |found| Err(refused(plan, &found)))
    }

    /// The gradients by the scalar kernels, behind the same forward pass, if they may have them.
    fn gradients_instead(&self, failed: &BackwardPlan, found: &str) -> Result<BackwardPlan> {
        if self.kernels().options().gradient_path.is_some() {
            return Err(refused(failed.into(), found));
        }
        let what = TestedPlan::from(failed).what();
        failed.on_scalar(format!("the self-test of {what} failed: {found}"))
    }

    /// The call with its sums in lanes, where matrices lose them; else by the scalar kernel, if it may have it and had another.
    fn instead(&self, plan: &AttentionPlan, failed: TestedPlan<'_>, found: &str) -> Result<AttentionPlan> {
        let why = format!("the self-test of {} failed: {found}", failed.what());
        // Gradients have theirs there already.
        if matches!(failed, TestedPlan::Attention(_))
            && let Some(other) = plan.with_sums_in_lanes(&why)?
        {
            return Ok(other);
        }
        if plan.path().path == KernelPath::Scalar || forced(self.kernels().options())?.is_some() {
            return Err(refused(failed, found));
        }
        plan.on_scalar(why)
    }

    /// What is wrong with a plan's pipelines, if that is known or found now, and wanted to be known.
    async fn fault<'a>(&self, plan: impl Into<TestedPlan<'a>>) -> Result<Option<String>> {
        if !self.tests_plans {
            return Ok(None);
        }
        match self.found(plan.into()).await? {
            SelfTest::Failed(found) => Ok(Some(found)),
            _ => Ok(None),
        }
    }

    /// Takes what was found before, by another process.
    #[cfg(feature = "serde")]
    pub(crate) fn remember(&self, plan: TestedPlan<'_>, found: &SelfTest) -> Result<()> {
        let mut known = self.tests.found.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(plan.pipelines()?, found.clone());
        Ok(())
    }

    /// What was found for a plan's pipelines, now or before.
    async fn found(&self, plan: TestedPlan<'_>) -> Result<SelfTest> {
        let tests = &self.tests;
        let key = plan.pipelines()?;
        let lock = || tests.found.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = lock().get(&key) {
            return Ok(found.clone());
        }
        // Outside the lock: two threads that test the same lose only time.
        let found = (tests.judge)(self, plan).await?;
        lock().insert(key, found.clone());
        Ok(found)
    }
}

fn refused(plan: TestedPlan<'_>, found: &str) -> Error {
    let message = format!("this device computes wrong results by {}: {found}", plan.what());
    Error::Device { what: "self-test".into(), message }
}
