//! Rows taken out of a tensor `[batch, heads, rows, dim]`, and added to one.

use std::borrow::Cow;
use std::ops::Range;

/// These rows of each head, where they lie if they are all there are.
pub(crate) fn chosen<'a, T: Copy>(
    from: &'a [T],
    len: usize,
    dim: usize,
    rows: &[Range<usize>],
) -> Cow<'a, [T]> {
    match rows {
        [all] if *all == (0..len) => Cow::Borrowed(from),
        _ => Cow::Owned(take(from, len, dim, rows)),
    }
}

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

/// Sums, rounded, as bytes behind what is there.
pub(crate) fn append_rounded(
    bytes: &mut Vec<u8>,
    from: &[f64],
    len: usize,
    dim: usize,
    rows: &[Range<usize>],
) {
    for_each(from.len(), len, dim, rows, |at| {
        bytes.extend(from[at].iter().flat_map(|x| (*x as f32).to_ne_bytes()));
    });
}

/// Puts what was taken where it belongs, and takes it off the bytes.
pub(crate) fn put<T: bytemuck::Pod>(
    to: &mut [T],
    len: usize,
    dim: usize,
    rows: &[Range<usize>],
    bytes: &mut &[u8],
) {
    for_each(to.len(), len, dim, rows, |at| {
        let size = size_of_val(&to[at.clone()]);
        let (own, rest) = bytes.split_at(size);
        bytemuck::cast_slice_mut(&mut to[at]).copy_from_slice(own);
        *bytes = rest;
    });
}

/// Takes so many numbers off the bytes.
pub(crate) fn read(bytes: &mut &[u8], len: usize) -> Vec<f32> {
    let (own, rest) = bytes.split_at(4 * len);
    *bytes = rest;
    bytemuck::pod_collect_to_vec(own)
}

/// Adds what was taken to where it came from.
pub(crate) fn add(to: &mut [f64], len: usize, dim: usize, rows: &[Range<usize>], taken: &[f32]) {
    let mut taken = taken.iter();
    for_each(to.len(), len, dim, rows, |at| {
        to[at].iter_mut().zip(&mut taken).for_each(|(to, x)| *to += f64::from(*x));
    });
}

/// The stretches of elements that hold these rows of each head, in a tensor of heads of `len` rows.
pub(crate) fn for_each(
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
        let mut back = vec![0.0f32; 16];
        put(&mut back, 4, 2, &rows, &mut &bytes[..]);
        assert_eq!(back[..8], [0., 1., 0., 0., 4., 5., 6., 7.]);
        assert_eq!(
            (read(&mut &bytes[..], 2), chosen(&x, 4, 2, &[0..4])),
            (vec![0., 1.], Cow::Borrowed(&x[..]))
        );
        let mut sums = vec![1.0; 16];
        add(&mut sums, 4, 2, &rows, &taken);
        assert_eq!(sums[..8], [1., 2., 1., 1., 5., 6., 7., 8.]);
        let mut rounded = vec![];
        append_rounded(&mut rounded, &sums, 4, 2, &rows);
        assert_eq!(read(&mut &rounded[..], 4), [1., 2., 5., 6.]);
        assert!(take::<f32>(&[], 0, 2, &[]).is_empty());
    }
}
