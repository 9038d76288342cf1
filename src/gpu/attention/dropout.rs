//! The seed of a call's dropout, where it is another than its plan's.

use crate::gpu::params::Params;
use crate::{Attention, Error, Result};

/// A seed needs dropout.
pub(super) fn check(attention: &Attention, seed: Option<u64>) -> Result<()> {
    match (seed, attention.score.dropout_term()) {
        (Some(seed), None) => {
            Err(Error::argument("dropout_seed", "none, since the plan's score has no dropout", seed))
        }
        _ => Ok(()),
    }
}

/// The parameters of a part, with this seed.
pub(super) fn reseeded(params: Params, attention: &Attention, seed: Option<u64>) -> Params {
    match (seed, attention.score.dropout_term()) {
        (Some(seed), Some(dropout)) => params.replaced("dropout", dropout.with_seed(seed).values()),
        _ => params,
    }
}
