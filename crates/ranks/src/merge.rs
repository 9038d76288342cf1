//! Results of disjoint sets of keys, merged by their states.
//!
//! ```text
//! m = max_s m_s     w_s = l_s e^(m_s - m)     l = sum_s w_s     o = sum_s w_s o_s / l
//! ```
//!
//! As `shaders/merge.wgsl` has it, in f64: what a merge adds to the error of the parts is one rounding to f32 at the end.

use crate::rows;
use std::ops::Range;

/// Rows that grow by one part after the other.
pub(crate) struct Merged {
    /// The largest score of each row, as f32 holds it.
    m: Vec<f64>,
    /// The sum of the weights against it; 0: no key yet.
    l: Vec<f64>,
    /// The weighted sum of the values.
    o: Vec<f64>,
    dim: usize,
    /// Whether m is in units of ln 2.
    base_2: bool,
}

impl Merged {
    pub(crate) fn new(rows: usize, dim: usize, base_2: bool) -> Self {
        Self { m: vec![0.0; rows], l: vec![0.0; rows], o: vec![0.0; rows * dim], dim, base_2 }
    }

    /// Adds a part: some rows of each head of `len` rows, and their states (m, l).
    pub(crate) fn add(&mut self, len: usize, places: &[Range<usize>], out: &[f32], state: &[f32]) {
        let mut parts = out.chunks_exact(self.dim).zip(state.chunks_exact(2));
        rows::for_each(self.m.len(), len, 1, places, |rows| {
            rows.zip(&mut parts).for_each(|(row, (part, state))| self.add_row(row, part, state));
        });
    }

    fn add_row(&mut self, row: usize, part: &[f32], state: &[f32]) {
        let power = |x: f64| if self.base_2 { x.exp2() } else { x.exp() };
        let (m, l) = (&mut self.m[row], &mut self.l[row]);
        let (part_m, part_l) = (f64::from(state[0]), f64::from(state[1]));
        if part_l == 0.0 {
            return;
        }
        let most = if *l == 0.0 { part_m } else { m.max(part_m) };
        let (old, new) = (if *l == 0.0 { 0.0 } else { power(*m - most) }, part_l * power(part_m - most));
        for (o, part) in self.o[row * self.dim..][..self.dim].iter_mut().zip(part) {
            *o = *o * old + new * f64::from(*part);
        }
        (*m, *l) = (most, *l * old + new);
    }

    /// out and the state of some rows of each head of `len` rows, rounded: what [`add`](Self::add) takes.
    pub(crate) fn rounded(&self, len: usize, places: &[Range<usize>]) -> [Vec<f32>; 2] {
        let (mut out, mut state) = (vec![], vec![]);
        rows::for_each(self.m.len(), len, 1, places, |rows| {
            for row in rows {
                let l = self.l[row];
                let o = &self.o[row * self.dim..][..self.dim];
                out.extend(o.iter().map(|o| (if l == 0.0 { *o } else { o / l }) as f32));
                state.extend([self.m[row] as f32, l as f32]);
            }
        });
        [out, state]
    }

    /// out, the state, and lse: `f32::MIN` for a row without a key.
    pub(crate) fn finish(self) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
        let Self { m, l, mut o, dim, base_2 } = self;
        let unit = if base_2 { std::f64::consts::LN_2 } else { 1.0 };
        for (o, l) in o.chunks_exact_mut(dim).zip(&l).filter(|(_, l)| **l != 0.0) {
            o.iter_mut().for_each(|o| *o /= l);
        }
        let states = m.iter().zip(&l);
        let lse = |(m, l): (&f64, &f64)| if *l == 0.0 { f32::MIN } else { (m * unit + l.ln()) as f32 };
        (
            o.into_iter().map(|o| o as f32).collect(),
            states.clone().flat_map(|(m, l)| [*m as f32, *l as f32]).collect(),
            states.map(lse).collect(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_merge_by_their_weights() {
        let mut merged = Merged::new(3, 2, true);
        // Scores in units of ln 2: weights 2^3 and 2^1 twice; then a part without keys.
        merged.add(3, &[0..3], &[1.0, 2.0, 5.0, 6.0, 0.0, 0.0], &[3.0, 1.0, -900.0, 2.0, 0.0, 0.0]);
        merged.add(3, &[0..3], &[6.0, 7.0, 9.0, 9.0, 0.0, 0.0], &[1.0, 2.0, 0.0, 0.0, 0.0, 0.0]);
        // Parts that are rounded on their way merge like any others: here they lose nothing.
        let [part, of] = merged.rounded(3, &[1..2]);
        assert_eq!((&part[..], &of[..]), (&[5.0, 6.0][..], &[-900.0, 2.0][..]));
        let mut there = Merged::new(2, 2, true);
        there.add(2, &[1..2], &part, &of);
        assert_eq!(there.finish().0, [0.0, 0.0, 5.0, 6.0]);
        let (out, state, lse) = merged.finish();
        let w = [8.0f64, 4.0];
        let o = |a: f64, b: f64| ((w[0] * a + w[1] * b) / 12.0) as f32;
        assert_eq!(out, [o(1.0, 6.0), o(2.0, 7.0), 5.0, 6.0, 0.0, 0.0]);
        assert_eq!(state, [3.0, 1.5, -900.0, 2.0, 0.0, 0.0]);
        assert_eq!(lse[2], f32::MIN);
        assert!((lse[0] - 12f32.ln()).abs() < 1e-6, "{lse:?}");
    }

    #[test]
    fn what_is_not_finite_stays_so() {
        let mut merged = Merged::new(1, 1, false);
        merged.add(1, &[0..1], &[1.0], &[0.0, 1.0]);
        merged.add(1, &[0..1], &[f32::NAN], &[0.0, 1.0]);
        merged.add(1, &[0..1], &[1.0], &[0.0, 1.0]);
        assert!(merged.finish().0[0].is_nan());
    }
}
