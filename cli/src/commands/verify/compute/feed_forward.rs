//! Cases of the feed-forward layer, with its norm and its residual.

use super::tensors::{Rounded, Tensors, find, need};
use crate::case::NormPlace;
use anyhow::Result;
use wgpu_attention::reference::layer::{self, Bounded, FeedForwardInputs};
use wgpu_attention::{
    AddShape, Element, ElementType, FeedForwardShape, FeedForwardSlices, Gpu, NormShape, RowGradients,
};

/// A norm, and where it is.
type Norm = Option<(NormShape, NormPlace)>;

/// The tensors of a case in f64.
struct Exact {
    x: Bounded,
    weights: [Bounded; 2],
    others: [Option<Bounded>; 4],
    norm: (Bounded, Option<Bounded>),
}

impl Exact {
    fn new<E: Element>(tensors: &Rounded<E>) -> Self {
        let exact = |name: &str| Bounded::exact(need(tensors, name));
        let optional = |name: &str| find(tensors, name).map(Bounded::exact);
        Self {
            x: exact("x"),
            weights: ["w1", "w2"].map(exact),
            others: ["b1", "b2", "w3", "b3"].map(optional),
            norm: (exact("norm_weight"), optional("norm_bias")),
        }
    }

    /// The layer's inputs, x perhaps behind a norm; the residual is the case's own.
    fn inputs<'a>(&'a self, shape: &FeedForwardShape, x: &'a Bounded) -> FeedForwardInputs<'a> {
        let [b1, b2, w3, b3] = self.others.each_ref().map(Option::as_ref);
        let [w1, w2] = &self.weights;
        FeedForwardInputs { x, w1, b1, w3, b3, w2, b2, residual: shape.residual.then_some(&self.x) }
    }

    fn normed(&self, norm: &NormShape, x: &Bounded) -> Result<Bounded> {
        Ok(layer::norm(norm, x, &self.norm.0, self.norm.1.as_ref())?)
    }
}

/// f64, with the bound of kernels that have these inputs and store in E.
pub(super) fn exact<E: Element>(
    shape: &FeedForwardShape,
    norm: Norm,
    tensors: &Rounded<E>,
) -> Result<Bounded> {
    let (exact, shape) = (Exact::new(tensors), shape.elements(E::TYPE));
    let norm = norm.map(|(norm, place)| (norm.elements(E::TYPE), place));
    match norm {
        Some((norm, NormPlace::Before)) => {
            let x = exact.normed(&norm, &exact.x)?;
            Ok(layer::feed_forward(&shape, &exact.inputs(&shape, &x))?)
        }
        Some((norm, NormPlace::Behind)) => {
            let y = layer::feed_forward(&shape, &exact.inputs(&shape, &exact.x))?;
            exact.normed(&norm, &y)
        }
        None => Ok(layer::feed_forward(&shape, &exact.inputs(&shape, &exact.x))?),
    }
}

fn slices<'a, E: Element>(
    shape: &FeedForwardShape,
    tensors: &'a Rounded<E>,
    x: &'a [E],
) -> FeedForwardSlices<'a, E, E, E> {
    FeedForwardSlices::new(x, need(tensors, "w1"), need(tensors, "w2"))
        .b1(find(tensors, "b1"))
        .b2(find(tensors, "b2"))
        .w3(find(tensors, "w3"))
        .b3(find(tensors, "b3"))
        .residual(shape.residual.then(|| need(tensors, "x")))
}

/// The same on a device.
pub(super) fn computed<E: Element>(
    gpu: &Gpu,
    shape: &FeedForwardShape,
    norm: Norm,
    tensors: &Rounded<E>,
) -> Result<Vec<E>> {
    let x = need(tensors, "x");
    let normed = |norm: &NormShape, x: &[E]| {
        gpu.norm(norm, x, need(tensors, "norm_weight"), find(tensors, "norm_bias"))
    };
    Ok(match norm {
        Some((norm, NormPlace::Before)) => {
            let x: Vec<E> = normed(&norm, x)?;
            gpu.feed_forward(shape, slices(shape, tensors, &x))?
        }
        Some((norm, NormPlace::Behind)) => {
            let y: Vec<E> = gpu.feed_forward(shape, slices(shape, tensors, x))?;
            normed(&norm, &y)?
        }
        None => gpu.feed_forward(shape, slices(shape, tensors, x))?,
    })
}

/// The gradients in f64, by their names.
pub(super) fn exact_gradients(
    shape: &FeedForwardShape,
    norm: Norm,
    tensors: &Rounded<f32>,
    dout: &Bounded,
) -> Result<Tensors<Bounded>> {
    let exact = Exact::new(tensors);
    let behind = |norm: &NormShape, x: &Bounded, dout: &Bounded| {
        let stored = RowGradients::of_norm(norm);
        layer::backward::norm_backward(norm, &stored, x, &exact.norm.0, dout, None)
    };
    let before = match &norm {
        Some((norm, NormPlace::Before)) => Some(exact.normed(norm, &exact.x)?),
        _ => None,
    };
    let inputs = exact.inputs(shape, before.as_ref().unwrap_or(&exact.x));
    let mut of_norm = match &norm {
        Some((norm, NormPlace::Behind)) => Some(behind(norm, &layer::feed_forward(shape, &inputs)?, dout)?),
        _ => None,
    };
    let dy = of_norm.as_ref().map_or(dout, |of| &of.dx).clone();
    let all = layer::backward::feed_forward_backward(shape, &inputs, &dy)?;
    let mut dx = all.dx;
    if let Some((norm, NormPlace::Before)) = &norm {
        let of = behind(norm, &exact.x, &dx)?;
        dx = of.dx.clone();
        of_norm = Some(of);
    }
    if shape.residual {
        dx = layer::add(&dx, &dy, ElementType::F32)?;
    }
    let mut list = vec![("dx", dx), ("dw1", all.dw1), ("dw2", all.dw2)];
    let others = [("db1", all.db1), ("db2", all.db2), ("dw3", all.dw3), ("db3", all.db3)];
    list.extend(others.into_iter().filter_map(|(name, tensor)| Some((name, tensor?))));
    if let Some(of) = of_norm {
        list.extend([("dnorm_weight", of.dweight), ("dnorm_bias", of.dbias)]);
    }
    Ok(list)
}

/// The same on a device.
pub(super) fn gradients(
    gpu: &Gpu,
    shape: &FeedForwardShape,
    norm: Norm,
    tensors: &Rounded<f32>,
    dout: &[f32],
) -> Result<Tensors<Vec<f32>>> {
    let (x, weight) = (need(tensors, "x"), need(tensors, "norm_weight"));
    let before: Option<Vec<f32>> = match &norm {
        Some((norm, NormPlace::Before)) => Some(gpu.norm(norm, x, weight, find(tensors, "norm_bias"))?),
        _ => None,
    };
    let slices = slices(shape, tensors, before.as_deref().unwrap_or(x));
    let mut of_norm = match &norm {
        Some((norm, NormPlace::Behind)) => {
            let y: Vec<f32> = gpu.feed_forward(shape, slices)?;
            Some(gpu.norm_backward::<_, _, _, f32>(norm, &y, weight, dout)?)
        }
        _ => None,
    };
    let dy = of_norm.as_ref().map_or(dout, |of| &of.dx).to_vec();
    let all = gpu.feed_forward_backward(shape, slices, &dy)?;
    let mut dx = all.dx;
    if let Some((norm, NormPlace::Before)) = &norm {
        let of = gpu.norm_backward::<_, _, _, f32>(norm, x, weight, &dx)?;
        dx = of.dx.clone();
        of_norm = Some(of);
    }
    if shape.residual {
        dx = gpu.add(&AddShape::new(shape.rows, shape.model_dim), &dx, &dy)?;
    }
    let mut list = vec![("dx", dx), ("dw1", all.dw1), ("dw2", all.dw2)];
    let others = [("db1", all.db1), ("db2", all.db2), ("dw3", all.dw3), ("db3", all.db3)];
    list.extend(others.into_iter().filter_map(|(name, tensor)| Some((name, tensor?))));
    if let Some(of) = of_norm {
        list.push(("dnorm_weight", of.dweight));
        list.extend(of.dbias.map(|dbias| ("dnorm_bias", dbias)));
    }
    Ok(list)
}
