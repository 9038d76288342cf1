//! elu + 1 features.

use super::map::{Features, Known, Map, Row, exp, plus};

/// elu(x) + 1: x + 1 above 0, exp(x) below (Katharopoulos 2020, *Transformers are RNNs*, eq. 7).
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Elu;

impl Map for Elu {
    fn query(&self, row: &Row) -> Features {
        let feature = |y: &Known| if y.value > 0.0 { plus(*y, 1.0) } else { exp(y.value, y.error) };
        Features::plain(row.y.iter().map(feature).collect())
    }

    fn slope(&self, _: &Row, phi: &[Known]) -> Vec<Known> {
        phi.iter().map(|phi| Known::new(phi.value.min(1.0), phi.error)).collect()
    }
}
