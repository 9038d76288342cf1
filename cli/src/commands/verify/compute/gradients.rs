//! The gradients of attention cases.

use super::narrow;
use crate::case::{Attention, Gradients};
use crate::commands::verify::record::Judged;
use crate::inputs::Owned;
use anyhow::Result;
use wgpu_attention::reference::gradient::{BoundOptions, BoundedGradients, bounded};
use wgpu_attention::reference::layer::Bounded;
use wgpu_attention::reference::{Position, WeightFormat};
use wgpu_attention::{BlockGrid, Element, ElementType, Gpu, Parts, Storage};

/// The reference against the expected values.
pub(super) fn on_cpu(case: &Attention, gradients: &Gradients) -> Result<Judged> {
    let options = BoundOptions::default();
    let exact = bounded(&case.call, &case.tensors.inputs(), &gradients.dout, &case.pattern, options)?;
    let got = [&exact.dq, &exact.dk, &exact.dv].map(|tensor| narrow(&tensor.out));
    Ok(judged(gradients, &exact, got, true))
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
    let got = gpu.attention_backward(&attention, &inputs, &gradients.dout, pattern)?;
    let parts = Parts::lower(pattern, BlockGrid::from(&attention.shape))?;
    let order = |at: Position| parts.key_order(at.batch, at.head, at.i);
    let tiles = |at: Position| parts.key_tiles(at.batch, at.head, at.i);
    let path = gpu.kernels().attention_parts(&attention, &parts)?.path().path;
    let options = BoundOptions::default().order(&order).tiles(&tiles).weights(WeightFormat::of(path));
    let exact = bounded(&attention, &inputs, &gradients.dout, pattern, options)?;
    let expected = (E::TYPE, KV::TYPE) == (ElementType::F32, ElementType::F32);
    Ok(judged(gradients, &exact, [got.dq, got.dk, got.dv], expected))
}

/// Against the file's values, or against the reference.
fn judged(gradients: &Gradients, exact: &BoundedGradients, got: [Vec<f32>; 3], expected: bool) -> Judged {
    let all = [("dq", &exact.dq), ("dk", &exact.dk), ("dv", &exact.dv)];
    let named = |name: &str| all.iter().position(|(own, _)| *own == name).expect("one of three");
    let each = gradients.each.iter().map(|gradient| {
        let n = named(gradient.name);
        let exact = all[n].1;
        let found = if expected {
            // Where the file does not say how exact its values are, they are rounded to f32.
            let own = |x: f32| gradient.allowance.unwrap_or(f64::from(x.abs()) * 2f64.powi(-24));
            let bounds = exact.bound.iter().zip(&gradient.values).map(|(bound, &x)| bound + own(x));
            let out = gradient.values.iter().map(|&x| x.into()).collect();
            Bounded { out, bound: bounds.collect() }.compare(got[n].iter().copied(), 0.0)
        } else {
            exact.compare(got[n].iter().copied(), 0.0)
        };
        Judged::tensor(gradient.name, &gradient.shape, &found)
    });
    each.reduce(Judged::and).expect("a case with gradients has one")
}
