//! What a case is, and all of them.

mod attention;
mod decode;
mod gradients;
mod integers;
mod layer;
mod layer_gradients;
mod linear;
mod linformer;
mod lsh;
mod recurrent;
mod sort;
mod training;

use std::fmt;

use anyhow::{Result, ensure};
use wgpu_attention::ElementType;

use crate::bench::Bench;

/// Computes a case and gives its worst error / bound.
pub(crate) type Run = Box<dyn Fn(&Bench) -> Result<f64>>;

/// One call of one kernel.
pub(crate) struct Case {
    /// The row of the table.
    pub(crate) kernel: &'static str,
    /// Storage of the tensors.
    pub(crate) element: ElementType,
    /// What is particular.
    pub(crate) name: String,
    /// The smallest set that it is in; the larger ones have it too.
    pub(crate) set: Set,
    /// Computes, and gives the worst error / bound: 0 where the result must be exact. An error where it is wrong.
    pub(crate) run: Run,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.kernel, self.element, self.name)
    }
}

/// Which cases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, clap::ValueEnum)]
pub(crate) enum Set {
    /// Each kernel on a handful of elements: for what takes a second a workgroup.
    Tiny,
    /// Each kernel and each file of shaders once: for each change, and for slow compilers.
    Small,
    /// All.
    #[default]
    Full,
}

impl Set {
    /// For a case that is small, or not.
    pub(crate) fn small_if(small: bool) -> Self {
        if small { Self::Small } else { Self::Full }
    }
}

/// The cases of a set whose text contains `only`; there must be some.
pub(crate) fn of(set: Set, only: &str) -> Result<Vec<Case>> {
    let mut cases = attention::cases();
    cases.extend(decode::cases());
    cases.extend(gradients::cases());
    cases.extend(integers::cases());
    cases.extend(lsh::cases());
    cases.extend(sort::cases());
    cases.extend(layer::cases());
    cases.extend(training::cases());
    cases.extend(layer_gradients::cases());
    cases.extend(linear::cases());
    cases.extend(linformer::cases());
    cases.extend(recurrent::cases());
    cases.retain(|case| case.set <= set && case.to_string().contains(only));
    ensure!(!cases.is_empty(), "no case contains `{only}`");
    Ok(cases)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn names_tell_cases_apart_and_every_kernel_is_in_every_set() {
        let all = of(Set::Full, "").unwrap();
        let names: HashSet<_> = all.iter().map(Case::to_string).collect();
        assert_eq!(names.len(), all.len());
        let kernels = |set| of(set, "").unwrap().iter().map(|case| case.kernel).collect::<HashSet<_>>();
        assert_eq!(kernels(Set::Small), kernels(Set::Full));
        assert_eq!(kernels(Set::Tiny), kernels(Set::Full));
        assert!(of(Set::Full, "no such case").is_err());
    }
}
