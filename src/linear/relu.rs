//! Generalised ReLU features.

use super::map::{Features, Known, Map, Row, TINY, U, plus};

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

    /// Near 0 a kernel may have either: it sees whether y + eps is above eps.
    fn slope(&self, row: &Row, _: &[Known]) -> Vec<Known> {
        let slope = |y: &Known| {
            let near = y.value.abs() <= y.error + 2.0 * U * (f64::from(self.eps) + y.value.abs()) + TINY;
            Known::new(if y.value > 0.0 { 1.0 } else { 0.0 }, if near { 1.0 } else { 0.0 })
        };
        row.y.iter().map(slope).collect()
    }
}
