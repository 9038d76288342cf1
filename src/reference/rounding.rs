//! What f32 arithmetic may do to a number, by what WGSL promises: shared by all bounds.

use crate::ElementType;

/// One rounding of f32 to either neighbour.
pub(super) const U: f64 = 1.0 / 8_388_608.0;
/// One unit in the last place of f32, relative.
pub(super) const E: f64 = U;
/// The smallest normal f32, 2^-126: what a flush may lose.
pub(super) const TINY: f64 = f32::MIN_POSITIVE as f64;
/// 2^127: what no intermediate value may reach.
pub(super) const HUGE: f64 = 1.7014118346046923e38;

/// gamma_k = k u / (1 - k u): the relative error of k roundings in any order; infinite from k u = 1/2, where a sum's worst case
/// is of the size of its terms.
pub(super) fn gamma(k: usize) -> f64 {
    let x = k as f64 * U;
    if x < 0.5 { x / (1.0 - x) } else { f64::INFINITY }
}

/// The smallest normal number of a type: what is below may be read, or written, as 0.
pub(super) fn min_normal(element: ElementType) -> f64 {
    match element {
        ElementType::F16 => 2f64.powi(-14),
        ElementType::F32 | ElementType::Bf16 => TINY,
    }
}

/// The largest finite number of a type.
pub(super) fn max_finite(element: ElementType) -> f64 {
    match element {
        ElementType::F32 => f64::from(f32::MAX),
        ElementType::F16 => 65504.0,
        ElementType::Bf16 => (2.0 - 2f64.powi(-7)) * HUGE,
    }
}

/// Adds the last division and the storage of an element of size `o` that is known within `bound`.
pub(super) fn stored(output: ElementType, o: f64, bound: f64) -> f64 {
    written(output, o, bound + (2.5 * E + U) * (o + bound))
}

/// Adds the storage alone.
pub(super) fn written(output: ElementType, o: f64, bound: f64) -> f64 {
    let largest = o + bound;
    let mut total = bound + output.rounding() * largest + 2.0 * TINY;
    if output == ElementType::F16 && o - bound < min_normal(output) {
        total += largest.min(min_normal(output)) + 2f64.powi(-24);
    }
    if o + total >= max_finite(output) { f64::INFINITY } else { promised(total) }
}

/// Infinity for whatever is not a number.
pub(super) fn promised(bound: f64) -> f64 {
    if bound.is_finite() { bound } else { f64::INFINITY }
}
