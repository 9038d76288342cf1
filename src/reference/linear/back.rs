//! From the gradient by features to that by what they are of: section 3 of `gradient.rs`.

use super::call::LinearCall;
use crate::linear::Known;
use crate::reference::rounding::{TINY, U, gamma, min_normal, promised};
use crate::{ElementType, FeatureMap};

/// The gradient by a row x `[d]`, of one by its features phi.
pub(super) fn back(
    call: &LinearCall<'_>,
    (x, element): (&[f32], ElementType),
    phi: &[Known],
    dphi: &[Known],
) -> Vec<Known> {
    let slopes = call.map.slope(&call.row(x, element), phi);
    let g: Vec<Known> = dphi.iter().zip(&slopes).map(|(d, s)| product(d, s)).collect();
    let Some(projection) = &call.projection else { return g };
    let root = (x.len() as f64).sqrt();
    let scale = root.sqrt().recip();
    let length = matches!(call.options.map, FeatureMap::Favor { .. });
    let total = g.iter().map(|g| g.value).sum::<f64>();
    let total_error = g.iter().map(|g| g.error).sum::<f64>();
    let total_size = g.iter().map(|g| g.value.abs() + g.error).sum::<f64>();
    let relative = gamma(g.len() + 8);
    let of_column = |c: usize| {
        let (mut value, mut error, mut size, mut flushed) = (0.0, 0.0, 0.0, 1.0);
        for (g, p) in g.iter().zip(projection.chunks(x.len())) {
            let p = f64::from(p[c]);
            value += scale * g.value * p;
            error += scale * g.error * p.abs();
            size += scale * (g.value.abs() + g.error) * p.abs();
            flushed += 2.0 + p.abs();
        }
        if length {
            let x = f64::from(x[c]);
            let lost = if x.abs() < min_normal(element) { x.abs() } else { 0.0 };
            value -= total * x / root;
            error += (total_error * x.abs() + lost * total_size) / root;
            size += total_size * x.abs() / root;
            flushed += 2.0 + x.abs() * g.len() as f64;
        }
        Known { value, error: promised(error + relative * size + 2.0 * TINY * flushed) }
    };
    (0..x.len()).map(of_column).collect()
}

/// With three roundings: of the slope's product, of a weight's, of the storage between.
pub(super) fn product(d: &Known, slope: &Known) -> Known {
    let size = (d.value.abs() + d.error) * (slope.value.abs() + slope.error);
    let error = d.error * (slope.value.abs() + slope.error) + d.value.abs() * slope.error;
    Known { value: d.value * slope.value, error: error + 4.0 * U * size + 2.0 * TINY }
}
