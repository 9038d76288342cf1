//! The gradients of attention cases.

use super::narrow;
use crate::case::{Attention, Gradient, Gradients, Places};
use crate::commands::verify::record::Judged;
use crate::inputs::Owned;
use anyhow::{Context, Result, ensure};
use wgpu_attention::reference::gradient::{BoundOptions, BoundedGradients, bounded};
use wgpu_attention::reference::layer::Bounded;
use wgpu_attention::reference::{Position, WeightFormat};
use wgpu_attention::{BlockGrid, Element, ElementType, Gpu, Parts, Storage};

/// The reference against the expected values.
pub(super) fn on_cpu(case: &Attention, gradients: &Gradients) -> Result<Judged> {
    let options = BoundOptions::default();
    let exact = bounded(&case.call, &case.tensors.inputs(), &gradients.dout, &case.pattern, options)?;
    let rows = [("dq", &exact.dq), ("dk", &exact.dk), ("dv", &exact.dv)];
    let terms = exact.terms.iter().map(|(name, tensor)| (*name, tensor));
    let got = rows.into_iter().chain(terms).map(|(name, tensor)| (name, narrow(&tensor.out)));
    judged(gradients, &exact, &got.collect::<Vec<_>>(), true)
}

/// The kernels against the expected values; in 16 bits against the reference on the rounded inputs. Gradients of f32.
pub(super) fn on_gpu<E: Element, KV: Element>(
    gpu: &Gpu,
    case: &Attention,
    gradients: &Gradients,
    tensors: &Owned<E, KV>,
) -> Result<Judged> {
    let (pattern, inputs) = (&case.pattern, tensors.inputs());
    let attention = case.call.clone().storage(Storage::all(ElementType::F32).q(E::TYPE).kv(KV::TYPE));
    let mut wanted: Vec<_> =
        gradients.each.iter().filter_map(|it| it.of_term.as_ref().map(|of| of.tensor)).collect();
    wanted.sort_unstable();
    wanted.dedup();
    let got = gpu.attention_backward_with(&attention, &inputs, &gradients.dout, pattern, &wanted)?;
    let parts = Parts::lower(pattern, BlockGrid::from(&attention.shape))?;
    let plan = gpu.kernels().attention_parts(&attention, &parts)?;
    let backward = plan.backward()?;
    let (weights, chains) = (WeightFormat::of(plan.path().path), backward.explain().chains());
    let transposed = parts.transpose()?;
    let order = |at: Position| parts.key_order(at.batch, at.head, at.i);
    let tiles = |at: Position| parts.key_tiles(at.batch, at.head, at.i);
    let query_tiles = |at: Position| transposed.key_tiles(at.batch, at.head, at.i);
    let options = BoundOptions::default().order(&order).tiles(&tiles).query_tiles(&query_tiles);
    let options = options.chains(&chains).weights(weights).path(backward.path().path);
    let exact = bounded(&attention, &inputs, &gradients.dout, pattern, options)?;
    let expected = (E::TYPE, KV::TYPE) == (ElementType::F32, ElementType::F32);
    let rows = [("dq", got.dq), ("dk", got.dk), ("dv", got.dv)];
    judged(gradients, &exact, &rows.into_iter().chain(got.tensors).collect::<Vec<_>>(), expected)
}

/// Against the file's values, or against the reference.
fn judged(
    gradients: &Gradients,
    exact: &BoundedGradients,
    got: &[(&'static str, Vec<f32>)],
    expected: bool,
) -> Result<Judged> {
    let of_gradient = |gradient: &Gradient| -> Result<Judged> {
        let name = gradient.of_term.as_ref().map_or(gradient.name, |of| of.tensor);
        let exact = match name {
            "dq" => Some(&exact.dq),
            "dk" => Some(&exact.dk),
            "dv" => Some(&exact.dv),
            name => exact.term(name),
        };
        let got = got.iter().find(|(own, _)| *own == name).map(|(_, values)| values);
        let missing = || format!("{}: the score has no `{name}`", gradient.name);
        let (exact, got) = (exact.with_context(missing)?, got.with_context(missing)?);
        compared(gradient, exact, got, expected)
    };
    let each = gradients.each.iter().map(of_gradient).collect::<Result<Vec<_>>>()?;
    Ok(each.into_iter().reduce(Judged::and).expect("a case with gradients has one"))
}

/// The gradient by one tensor against the file's values, or against the reference.
pub(super) fn compared(gradient: &Gradient, exact: &Bounded, got: &[f32], expected: bool) -> Result<Judged> {
    let got: Vec<f64> = got.iter().map(|&x| x.into()).collect();
    let [got, exact, bound] = [&got, &exact.out, &exact.bound].map(|values| of_file(gradient, values));
    let (got, exact, bound) = (got?, exact?, bound?);
    let bounded = if expected {
        // Where the file does not say how exact its values are, they are rounded to f32.
        let rounding = |x: f32| if x.is_finite() { f64::from(x.abs()) * 2f64.powi(-24) } else { 0.0 };
        let own = |x: f32| gradient.allowance.unwrap_or(rounding(x));
        let bounds = bound.iter().zip(&gradient.values).map(|(bound, &x)| bound + own(x));
        Bounded { out: gradient.values.iter().map(|&x| x.into()).collect(), bound: bounds.collect() }
    } else {
        Bounded { out: exact, bound }
    };
    Ok(Judged::tensor(gradient.name, &gradient.shape, &bounded.compare(got, 0.0)))
}

/// Of the elements of a tensor of the call, those of the file's tensor; a bound likewise.
fn of_file(gradient: &Gradient, values: &[f64]) -> Result<Vec<f64>> {
    let places = gradient.of_term.as_ref().map_or(&Places::From(0), |of| &of.places);
    let len = gradient.values.len();
    // Of a call without pairs, whose tensor has no elements: nothing reads the file's.
    if values.is_empty() {
        return Ok(vec![0.0; len]);
    }
    let end = match places {
        Places::From(first) => first + len,
        Places::Sums(ranges) => ranges.iter().map(|range| range.end).max().unwrap_or(0),
    };
    ensure!(end <= values.len(), "{}: need {end} elements, got {}", gradient.name, values.len());
    Ok(match places {
        Places::From(first) => values[*first..][..len].to_vec(),
        Places::Sums(ranges) => ranges.iter().map(|range| values[range.clone()].iter().sum()).collect(),
    })
}
