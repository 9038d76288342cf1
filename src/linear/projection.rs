//! Random projections.

use crate::Counter;

/// Where the projection `[m, d]`, which all heads share, comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Projection {
    /// Orthogonal rows of a seed: see [`Projection::orthogonal`]. Another seed redraws them.
    Seeded {
        /// The seed.
        seed: u64,
    },
    /// The caller gives it with the tensors.
    Given,
}

impl Projection {
    /// The rows that a seed gives, `[features, head_dim]`, each normal by itself (Choromanski 2020, section 2.4).
    ///
    /// G, with element n in memory [`Counter::normal`]`(n)` of stream 0 of the seed, is cut into blocks of `head_dim` rows, the last of which may
    /// be short; the rows of a block are made orthonormal, in their order, by Gram and Schmidt, twice, in f64. Row n then gets the
    /// length of row n of another such G, of stream 1, and is rounded to f32.
    ///
    /// ```
    /// use wgpu_attention::Projection;
    /// let rows = Projection::orthogonal(7, 3, 2);
    /// let dot = |a: usize, b: usize| rows[2 * a] * rows[2 * b] + rows[2 * a + 1] * rows[2 * b + 1];
    /// assert!(dot(0, 1).abs() < 1e-6 && dot(0, 2).abs() > 1e-6); // the third row is of the next block
    /// ```
    pub fn orthogonal(seed: u64, features: usize, head_dim: usize) -> Vec<f32> {
        let row = |draw: Counter, n: usize| -> Vec<f64> {
            (0..head_dim).map(|c| draw.normal((n * head_dim + c) as u64)).collect()
        };
        let mut rows: Vec<Vec<f64>> = Vec::with_capacity(features);
        for n in 0..features {
            let mut own = row(Counter::new(seed, 0), n);
            for _ in 0..2 {
                for other in &rows[n / head_dim * head_dim..] {
                    let dot = product(&own, other);
                    own.iter_mut().zip(other).for_each(|(x, y)| *x -= dot * y);
                }
                let length = product(&own, &own).sqrt();
                own.iter_mut().for_each(|x| *x /= length);
            }
            rows.push(own);
        }
        let lengths = |n: usize| {
            let other = row(Counter::new(seed, 1), n);
            product(&other, &other).sqrt()
        };
        rows.iter()
            .enumerate()
            .flat_map(|(n, row)| {
                let length = lengths(n);
                row.iter().map(move |x| (length * x) as f32).collect::<Vec<_>>()
            })
            .collect()
    }
}

fn product(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}
