//! Rows taken out of a tensor `[batch, heads, rows, dim]`, and added to one.

use std::ops::Range;

/// These rows of each head, one head after the other.
pub(crate) fn take<T: Copy>(from: &[T], len: usize, dim: usize, rows: &[Range<usize>]) -> Vec<T> {
    let mut taken = Vec::new();
    for_each(from.len(), len, dim, rows, |at| taken.extend_from_slice(&from[at]));
    taken
}

/// The same, as bytes behind what is there.
pub(crate) fn append<T: bytemuck::Pod>(
    bytes: &mut Vec<u8>,
    from: &[T],
    len: usize,
    dim: usize,
    rows: &[Range<usize>],
) {
    for_each(from.len(), len, dim, rows, |at| bytes.extend_from_slice(bytemuck::cast_slice(&from[at])));
}

/// Adds what was taken to where it came from.
pub(crate) fn add(to: &mut [f64], len: usize, dim: usize, rows: &[Range<usize>], taken: &[f32]) {
    let mut taken = taken.iter();
    for_each(to.len(), len, dim, rows, |at| {
        to[at].iter_mut().zip(&mut taken).for_each(|(to, x)| *to += f64::from(*x));
    });
}

/// The stretches of elements that hold these rows of each head, in a tensor of heads of `len` rows.
fn for_each(
    elements: usize,
    len: usize,
    dim: usize,
    rows: &[Range<usize>],
    mut stretch: impl FnMut(Range<usize>),
) {
    let head = len * dim;
    for first in (0..elements).step_by(head.max(1)) {
        for rows in rows {
            stretch(first + rows.start * dim..first + rows.end * dim);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_goes_back() {
        // Two heads of 4 rows of 2.
        let x: Vec<f32> = (0..16).map(|x| x as f32).collect();
        let rows = [0..1, 2..4];
        let taken = take(&x, 4, 2, &rows);
        assert_eq!(taken, [0., 1., 4., 5., 6., 7., 8., 9., 12., 13., 14., 15.]);
        let mut bytes = vec![];
        append(&mut bytes, &x, 4, 2, &rows);
        assert_eq!(bytemuck::pod_collect_to_vec::<u8, f32>(&bytes), taken);
        let mut sums = vec![1.0; 16];
        add(&mut sums, 4, 2, &rows, &taken);
        assert_eq!(sums[..8], [1., 2., 1., 1., 5., 6., 7., 8.]);
        assert!(take::<f32>(&[], 0, 2, &[]).is_empty());
    }
}
