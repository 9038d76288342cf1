//! Which plans were judged, and what becomes of one whose pipelines fail: slices in, nothing wrong out.

use std::sync::PoisonError;

use super::{AttentionPlan, SelfTest, forced};
use crate::gpu::host::Gpu;
use crate::{Error, KernelPath, Result};

impl Gpu {
    /// The plan, or one whose matrices hold no sums, or one on another path, once its pipelines have passed.
    pub(crate) async fn trusted(&self, mut plan: AttentionPlan) -> Result<AttentionPlan> {
        if !self.tests_plans {
            return Ok(plan);
        }
        loop {
            let SelfTest::Failed(found) = self.found(&plan).await? else { return Ok(plan) };
            let path = plan.path().path;
            let why = format!("the {path} kernel failed its self-test: {found}");
            if let Some(other) = plan.with_sums_in_lanes(&why)? {
                plan = other;
                continue;
            }
            if path == KernelPath::Scalar || forced(self.kernels().options())?.is_some() {
                let message = format!("this device computes wrong results by the {path} kernel: {found}");
                return Err(Error::Device { what: "self-test".into(), message });
            }
            plan = plan.on_scalar(why)?;
        }
    }

    /// Takes what was found before, by another process.
    #[cfg(feature = "serde")]
    pub(crate) fn remember(&self, plan: &AttentionPlan, found: &SelfTest) -> Result<()> {
        let mut known = self.tests.found.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(plan.pipelines()?, found.clone());
        Ok(())
    }

    /// What was found for a plan's pipelines, now or before.
    async fn found(&self, plan: &AttentionPlan) -> Result<SelfTest> {
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
