//! What a kernel gave, against the reference or against what another system computed.

use wgpu_attention::reference::{self, Expected, Got, Report, Rows, VerifyOptions, Worst};
use wgpu_attention::{Attention, Element, Inputs, KernelPath, Parts, Pattern, Result};

/// What is compared with.
#[derive(Debug, Clone, Copy)]
pub enum Against<'a> {
    /// The f64 reference on the same inputs.
    Reference,
    /// Expected values, and their own absolute error.
    Expected(Expected<'a>, f64),
}

/// Compares every element of the rows. The bound depends on what the kernel did, if it was one: a little on the order of the
/// keys, that of the parts, on how many tiles they fill, and on how its path keeps weights.
pub fn check<Q: Element, KV: Element, O: Element>(
    attention: &Attention,
    inputs: &Inputs<'_, Q, KV>,
    (pattern, kernel): (&dyn Pattern, Option<(&Parts, KernelPath)>),
    got: Got<'_, O>,
    rows: Rows,
    against: Against<'_>,
) -> Result<Report> {
    let order = |at: reference::Position| {
        kernel.map_or_else(Vec::new, |(parts, _)| parts.key_order(at.batch, at.head, at.i))
    };
    let order: Option<reference::Walk<'_>> = if kernel.is_some() { Some(&order) } else { None };
    let count =
        |at: reference::Position| kernel.map_or(0, |(parts, _)| parts.key_tiles(at.batch, at.head, at.i));
    let tiles: Option<reference::Tiles<'_>> = if kernel.is_some() { Some(&count) } else { None };
    let weights = kernel.map_or_else(Default::default, |(_, path)| reference::WeightFormat::of(path));
    let mut options = VerifyOptions::default().rows(rows).weights(weights);
    (options.order, options.tiles) = (order, tiles);
    match against {
        Against::Reference => reference::verify(attention, inputs, pattern, got, options),
        Against::Expected(expected, allowance) => {
            let options = options.allowance(allowance);
            // Without an expected lse ours is not compared with ours.
            let got = got.lse(got.lse.filter(|_| expected.lse.is_some()));
            reference::compare_expected(attention, inputs, pattern, got, expected, options)
        }
    }
}

/// The element with the largest error / bound, and whether it is of out or of lse.
pub fn worst(report: &Report) -> Option<(&'static str, Worst)> {
    let both = [("out", report.worst_out), ("lse", report.worst_lse)];
    both.into_iter()
        .filter_map(|(name, worst)| worst.map(|worst| (name, worst)))
        .max_by(|a, b| a.1.ratio.total_cmp(&b.1.ratio))
}

/// Where an element is, in a few characters: `out[0, 3, 17, 4]`.
pub fn place((name, worst): &(&'static str, Worst)) -> String {
    let at = worst.position;
    let column = worst.column.map(|column| format!(", {column}")).unwrap_or_default();
    format!("{name}[{}, {}, {}{column}]", at.batch, at.head, at.i)
}
