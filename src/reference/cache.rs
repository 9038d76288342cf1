//! Rows of a cache of int8: what they must be, and how far they may be from what was appended.
//!
//! ```text
//! scale = max |x| / 127, rounded to 16 significant bits        x = scale round(x / scale)
//! ```
//!
//! The device finds the same scale: its product rounds correctly, and so does the rest by bits. Its quotient x / scale may be off by 2.5 units in
//! the last place (WGSL), which is less than 2^-14 for numbers up to 127, so that it may round to the other neighbour next to a tie.

/// How far x may be from what is stored, in steps of the row's scale: half of one, and what the quotient's rounding may add.
pub const INT8_STEPS: f64 = 0.5 + 1.0 / 4096.0;

/// The scale of a row that is appended to a cache of [`Int8`](crate::CacheStorage::Int8); NaN where the row holds what is not finite.
///
/// ```
/// use wgpu_attention::reference::int8_scale;
/// assert_eq!(int8_scale(&[3.0, -127.0]), 1.0);
/// assert_eq!(int8_scale(&[0.0; 4]), 2f32.powi(-100));
/// ```
pub fn int8_scale(row: &[f32]) -> f32 {
    if row.iter().any(|x| !x.is_finite()) {
        return f32::NAN;
    }
    let most = row.iter().fold(0f32, |most, x| most.max(x.abs()));
    // The largest is 127 times what still leaves f32 its range.
    let largest = f32::from_bits(0x7c01_0200);
    let scale = (most * (1.0 / 127.0)).clamp(2f32.powi(-100), largest);
    f32::from_bits((scale.to_bits() + 0x80) & 0xffff_ff00)
}

/// A row of `dim` elements as its words in a cache of [`Int8`](crate::CacheStorage::Int8) have it: its scale, and the elements, exactly.
///
/// ```
/// use wgpu_attention::reference::int8_row;
/// assert_eq!(int8_row(&[0.5f32.to_bits(), 0x7f_02_fe_81], 3), (0.5, vec![-63.5, -1.0, 1.0]));
/// ```
///
/// # Panics
/// Fewer words than a row of `dim` elements has: 1 and one per 4 elements.
pub fn int8_row(words: &[u32], dim: usize) -> (f32, Vec<f32>) {
    let scale = f32::from_bits(words[0]);
    let element = |n: usize| f32::from((words[1 + n / 4] >> (8 * (n % 4))) as u8 as i8);
    (scale, (0..dim).map(|n| scale * element(n)).collect())
}

/// The words of a row that is appended, quantised in f64 by the formula: what [`int8_row`] reads.
///
/// ```
/// use wgpu_attention::reference::{int8_row, int8_words};
/// let words = int8_words(&[63.5, -31.8, 0.1]);
/// assert_eq!(int8_row(&words, 3), (0.5, vec![63.5, -32.0, 0.0]));
/// ```
pub fn int8_words(row: &[f32]) -> Vec<u32> {
    let scale = int8_scale(row);
    let element = |x: f32| (f64::from(x) / f64::from(scale)).round_ties_even() as i8 as u8;
    let bytes: Vec<u8> = row.iter().map(|&x| element(x)).collect();
    let word = |four: &[u8]| four.iter().rev().fold(0, |word, &byte| word << 8 | u32::from(byte));
    std::iter::once(scale.to_bits()).chain(bytes.chunks(4).map(word)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Counter;

    #[test]
    fn rows_are_within_half_a_step_and_stay_when_quantised_again() {
        let draw = Counter::new(1, 0);
        for (n, size) in [1e-36, 1e-30, 1e-3, 1.0, 3e4, 1e30, 3e38].into_iter().enumerate() {
            for row in 0..200u64 {
                let x = |c: u64| {
                    let x = draw.normal(1000 * n as u64 + 7 * row + c) * size / 4.0;
                    x.clamp(-f64::from(f32::MAX), f64::from(f32::MAX)) as f32
                };
                let row: Vec<f32> = (0..7).map(x).collect();
                let (scale, stored) = int8_row(&int8_words(&row), 7);
                for (x, got) in row.iter().zip(&stored) {
                    let off = (f64::from(*x) - f64::from(*got)).abs();
                    assert!(got.is_finite() && off <= 0.5 * f64::from(scale), "{x} is {got}, {scale}");
                }
                let most = row.iter().fold(0f32, |most, x| most.max(x.abs()));
                let exact = f64::from(most) / 127.0;
                let near = (f64::from(scale) / exact - 1.0).abs() < 2f64.powi(-15);
                assert!(near || scale == 2f32.powi(-100), "{scale} is not {exact}");
                assert_eq!(int8_row(&int8_words(&stored), 7), (scale, stored));
            }
        }
    }

    #[test]
    fn the_largest_number_and_what_is_none() {
        let (scale, stored) = int8_row(&int8_words(&[f32::MAX, -f32::MAX]), 2);
        assert!(stored[0].is_finite() && stored[0] == -stored[1] && stored[0] == 127.0 * scale);
        assert!(int8_scale(&[1.0, f32::NEG_INFINITY]).is_nan() && int8_scale(&[f32::NAN]).is_nan());
    }
}
