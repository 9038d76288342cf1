//! Matrices of products, as the host makes them ready.

use wgpu_attention::{IntegerFormat, QuantizeRule, QuantizeShape, Quantized, WeightOrder};

/// `[in, out]` as `[out, in]`.
pub(crate) fn transposed(values: &[f32], columns: usize) -> Vec<f32> {
    (0..columns).flat_map(|n| values[n..].iter().step_by(columns).copied()).collect()
}

/// A matrix of these sizes as integers `[out, in]`.
pub(crate) fn quantized(
    values: &[f32],
    [rows, inner]: [usize; 2],
    order: WeightOrder,
    format: IntegerFormat,
) -> wgpu_attention::Result<Quantized> {
    let quantize = |rows, inner, values: &[f32]| {
        QuantizeShape::new(rows, inner, format, QuantizeRule::Symmetric).quantize(values)
    };
    match order {
        WeightOrder::OutIn => quantize(rows, inner, values),
        WeightOrder::InOut => quantize(inner, rows, &transposed(values, inner)),
    }
}
