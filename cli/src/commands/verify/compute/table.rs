//! Cases of what is made on the host.

use crate::case::{Made, Table};
use crate::commands::verify::record::Judged;
use anyhow::{Context, Result};
use wgpu_attention::reference::layer::Bounded;

/// What the library makes against the expected values.
pub(super) fn judged(case: &Table) -> Result<Judged> {
    let one = |tensor: &Made| {
        let mut expected = Bounded::exact(&tensor.expected);
        expected.bound =
            expected.out.iter().map(|x| if x.is_finite() { case.error * x.abs() } else { 0.0 }).collect();
        let found = expected.compare(tensor.made.iter().copied(), tensor.allowance);
        Judged::tensor(&tensor.name, &[tensor.made.len()], &found)
    };
    case.tensors.iter().map(one).reduce(Judged::and).context("need at least one tensor")
}
