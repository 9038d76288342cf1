//! FAVOR+: positive features whose products are, in the mean over random projections, exp(q . k / sqrt(d)).

use super::map::{Features, Known, Map, Row, U, exp, less, plus};

/// FAVOR+ (Choromanski 2020, *Rethinking Attention with Performers*): with y = d^(-1/4) P x,
///
/// ```text
/// phi(x) = m^(-1/2) ( exp(y - |x|^2 / (2 sqrt d) - c) + eps )
/// ```
///
/// for P `[m, d]` with normal rows; c, the [`Stabiliser`], keeps exp within f32 and cancels but for eps.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Favor {
    pub(super) features: usize,
    pub(super) eps: f32,
    pub(super) stabiliser: Stabiliser,
}

/// What FAVOR+ subtracts from its exponents, so that they stay within f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Stabiliser {
    /// Each key's own: c = max y - |x|^2 / (2 sqrt d), so that the largest feature of each row is 1 + eps. What a key is worth
    /// beside others, e^c, is kept as a logarithm, and sums are rescaled along the scan. A query sees nothing of later keys. eps
    /// is relative to the row's own largest feature, the denominator's eps to the largest weight that a query meets.
    #[default]
    Running,
    /// As in the published code: c = max y of a query's own features; of keys, of all features of *all* keys of the batch item and
    /// head, so that causal attention sees something of later keys: how small its own are beside eps.
    Global,
}

impl Map for Favor {
    fn query(&self, row: &Row) -> Features {
        match self.stabiliser {
            Stabiliser::Running => self.running(row),
            Stabiliser::Global => self.global(row, row.top(), row.most_error()),
        }
    }

    fn keys(&self, rows: &[Row]) -> Vec<Features> {
        let top = rows.iter().map(Row::top).fold(f64::NEG_INFINITY, f64::max);
        let error = rows.iter().map(Row::most_error).fold(0.0, f64::max);
        let key = |row| match self.stabiliser {
            Stabiliser::Running => self.running(row),
            Stabiliser::Global => self.global(row, top, error),
        };
        rows.iter().map(key).collect()
    }

    fn slope(&self, _: &Row, phi: &[Known]) -> Vec<Known> {
        let root = (self.features as f64).sqrt().recip();
        less(phi, f64::from(self.eps) * if self.stabiliser == Stabiliser::Global { root } else { 1.0 })
    }
}

impl Favor {
    /// e^(y - top) e^(top - half): an error of top cancels, but for eps.
    fn running(&self, row: &Row) -> Features {
        let (top, common) = (row.top(), row.most_error());
        let eps = f64::from(self.eps);
        let feature = |y: &Known| {
            let x = y.value - top;
            let phi = plus(exp(x, y.error + U * (x.abs() + y.error + common)), eps);
            Known::new(phi.value, phi.error + eps * common.exp_m1())
        };
        let weight = top - row.half.value;
        let error = row.half.error + U * (weight.abs() + row.half.error + common);
        let phi = row.y.iter().map(feature).collect();
        Features { phi, log_weight: Known::new(weight, error), common }
    }

    fn global(&self, row: &Row, top: f64, of_top: f64) -> Features {
        let root = (self.features as f64).sqrt().recip();
        let feature = |y: &Known| {
            let (near, x) = (y.value - row.half.value, y.value - row.half.value - top);
            let given = y.error + row.half.error + of_top;
            let phi = plus(exp(x, given + U * (near.abs() + x.abs() + 2.0 * given)), self.eps.into());
            Known::new(root * phi.value, root * (phi.error + 2.5 * U * (phi.value + phi.error)))
        };
        Features::plain(row.y.iter().map(feature).collect())
    }
}
