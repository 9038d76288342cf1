//! Plans of the last calls on slices.

use super::AttentionPlan;
use crate::Attention;
use crate::pattern::Pattern;
use std::sync::{Mutex, PoisonError};

/// The plans of the last calls, the newest last.
#[derive(Debug, Default)]
pub(in crate::gpu) struct PlanCache {
    plans: Mutex<Vec<(Box<dyn Pattern>, AttentionPlan)>>,
}

impl PlanCache {
    /// Plans kept: a few models' layers.
    const MOST: usize = 16;

    pub(super) fn get(&self, attention: &Attention, pattern: &dyn Pattern) -> Option<AttentionPlan> {
        let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        let same = |(own, plan): &(Box<dyn Pattern>, AttentionPlan)| {
            plan.attention() == attention && **own == *pattern
        };
        let found = plans.iter().position(same)?;
        let entry = plans.remove(found);
        let plan = entry.1.clone();
        plans.push(entry);
        Some(plan)
    }

    pub(super) fn put(&self, pattern: &dyn Pattern, plan: &AttentionPlan) {
        let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        if plans.len() == Self::MOST {
            plans.remove(0);
        }
        plans.push((pattern.identity().to_pattern(), plan.clone()));
    }
}
