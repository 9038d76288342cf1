//! Generalised ReLU features.

use super::map::{Features, Known, Map, Row, plus};

/// max(y, 0) + eps with y = d^(-1/4) P x, or x itself (Choromanski 2020, section 4.2).
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Relu {
    pub(super) eps: f32,
}

impl Map for Relu {
    fn query(&self, row: &Row) -> Features {
        let feature = |y: &Known| plus(Known::new(y.value.max(0.0), y.error), self.eps.into());
        Features::plain(row.y.iter().map(feature).collect())
    }
}
