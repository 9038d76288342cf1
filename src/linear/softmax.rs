//! Softmax of queries over features and of keys over positions.

use super::map::{Features, Known, Map, Row, U, exp};

/// Efficient attention (Shen 2018): softmax of q over its elements, softmax of each element of k over all keys; exp(k) where
/// causal.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Softmax {
    pub(super) causal: bool,
}

/// exp of y less a top that is one of them.
fn below(y: &Known, top: f64) -> Known {
    let x = y.value - top;
    exp(x, y.error + U * x.abs())
}

impl Map for Softmax {
    fn query(&self, row: &Row) -> Features {
        let top = row.top();
        let exps: Vec<Known> = row.y.iter().map(|y| below(y, top)).collect();
        let sum: f64 = exps.iter().map(|e| e.value).sum();
        let of_sum = exps.iter().map(|e| e.error).sum::<f64>() / sum + (exps.len() as f64 + 4.0) * U;
        let share = |e: &Known| {
            let value = e.value / sum;
            Known::new(value, (e.error / sum + value * (of_sum + 3.5 * U)) / (1.0 - of_sum))
        };
        Features::plain(exps.iter().map(share).collect())
    }

    /// A factor of all of a query's features cancels, so that the sum over them in a softmax's derivative is 0; of keys this is exp, where causal.
    fn slope(&self, _: &Row, phi: &[Known]) -> Vec<Known> {
        phi.to_vec()
    }

    /// The factor of each feature's softmax, 1 / the sum over keys, is left to whoever sums them up.
    fn keys(&self, rows: &[Row]) -> Vec<Features> {
        let width = rows.first().map_or(0, |row| row.y.len());
        let top = |f: usize| rows.iter().map(|row| row.y[f].value).fold(f64::NEG_INFINITY, f64::max);
        let tops: Vec<f64> = (0..width).map(|f| if self.causal { 0.0 } else { top(f) }).collect();
        let key = |row: &Row| row.y.iter().zip(&tops).map(|(y, &top)| below(y, top)).collect();
        rows.iter().map(|row| Features::plain(key(row))).collect()
    }
}
