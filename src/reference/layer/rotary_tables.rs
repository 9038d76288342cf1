//! Tables of a rotary embedding.

use super::{Bounded, TINY, U};
use crate::{Result, RotaryAngles};
use std::f64::consts::TAU;

/// cos and sin of `len` positions from `first` on, `[len, r/2]` each, times the attention factor a.
///
/// The kernel has the angle p f as a fraction of a turn in 32 bits, and f as one of 64:
///
/// ```text
/// |error of the angle| <= 2 pi (2^-32 + p 2^-64) + p f 2^-50        what is cut off; what f64 leaves of f, here and there
/// |error|              <= a (|error of the angle| + 5 u)             u = 2^-23
/// ```
///
/// The last term: the number x that the angle becomes has two roundings and that of 2 pi, 2.5 u, which moves cos and sin by at most 2.5 u x sin(x), below 1.4 u
/// for x up to pi / 4; the polynomials, without any fused operation, round to 2.0 u at most and are cut off below 0.02 u; a and its product
/// are 1.5 u.
///
/// # Errors
/// As [`RotaryAngles::check`].
///
/// ```
/// use wgpu_attention::{RotaryAngles, reference::layer::rotary_tables};
/// let [cos, sin] = rotary_tables(&RotaryAngles::new(2, 1e4), 3, 1)?;
/// assert_eq!((cos.out[0], sin.out[0]), (3f64.cos(), 3f64.sin()));
/// assert!(cos.bound[0] < 6e-7);
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
pub fn rotary_tables(angles: &RotaryAngles, first: usize, len: usize) -> Result<[Bounded; 2]> {
    angles.check()?;
    let (frequencies, factor) = (angles.inverse_frequencies(), angles.attention_factor());
    let of = |f: fn(f64) -> f64| {
        let mut table = Bounded::default();
        for p in first..first + len {
            let p = p as f64;
            for &w in &frequencies {
                let off = TAU * (2f64.powi(-32) + p * 2f64.powi(-64)) + p * w * 2f64.powi(-50);
                table.out.push(factor * f(p * w));
                table.bound.push(factor * (off + 5.0 * U) + 4.0 * TINY);
            }
        }
        table
    };
    Ok([f64::cos, f64::sin].map(of))
}
