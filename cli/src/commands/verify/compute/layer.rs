//! Cases of the kernels around attention.

use super::feed_forward;
use super::gradients::compared;
use super::tensors::{Rounded, Tensors, find, need};
use super::{Done, EXPECTED, REFERENCE, narrow};
use crate::case::{Gradient, Gradients, Layer, LayerOp};
use crate::commands::verify::record::Judged;
use anyhow::{Context, Result};
use wgpu_attention::reference::layer::{self, Bounded};
use wgpu_attention::{Element, ElementType, Gpu, KernelPath, RowGradients};

/// The reference against the expected values.
pub(super) fn on_cpu(case: &Layer) -> Result<Judged> {
    let Ok(tensors) = case.rounded::<f32>() else { anyhow::bail!("f32 does not hold f32") };
    let exact = reference(case, &tensors)?;
    let got = narrow(&exact.out);
    let judged = judged(case, &Bounded { out: expected(case), ..exact }, &got, case.allowance);
    let Some(gradients) = &case.gradients else { return Ok(judged) };
    let exact = exact_gradients(case, gradients, &tensors)?;
    let got = exact.iter().map(|(name, tensor)| (*name, narrow(&tensor.out))).collect::<Vec<_>>();
    Ok(judged.and(judged_gradients(gradients, &exact, &got)?))
}

/// The kernel against the expected values; in 16 bits against the reference on the rounded inputs.
pub(super) fn on_gpu<E: Element>(gpu: &Gpu, case: &Layer) -> Result<Done> {
    let tensors = match case.rounded::<E>() {
        Ok(tensors) => tensors,
        Err(reason) => return Ok(Done::Unsupported(reason)),
    };
    let path = match path::<E>(gpu, case) {
        Ok(path) => path,
        // What was forced is not there for this case.
        Err(error) if gpu.kernels().options().path.is_some() => {
            return Ok(Done::Unsupported(error.to_string()));
        }
        Err(error) => return Err(error.into()),
    };
    let got = compute(gpu, case, &tensors)?;
    let exact = reference(case, &tensors)?;
    // In f32 alone: in other types the expected values say nothing.
    let gradients = match (&case.gradients, E::TYPE) {
        (Some(gradients), ElementType::F32) => Some(gradients_on_gpu(gpu, case, gradients)?),
        _ => None,
    };
    let (exact, against, allowance) = match E::TYPE {
        ElementType::F32 => (Bounded { out: expected(case), ..exact }, EXPECTED, case.allowance),
        _ => (exact, REFERENCE, 0.0),
    };
    let judged = judged(case, &exact, &got, allowance);
    let judged = gradients.into_iter().fold(judged, Judged::and).into();
    Ok(Done::Compared { path: path.to_string(), against, judged })
}

/// The kernels' gradients against the expected ones.
fn gradients_on_gpu(gpu: &Gpu, case: &Layer, gradients: &Gradients) -> Result<Judged> {
    let Ok(tensors) = case.rounded::<f32>() else { anyhow::bail!("f32 does not hold f32") };
    let (x, dout) = (need(&tensors, "x"), &gradients.dout);
    let got: Tensors<Vec<f32>> = match &case.op {
        LayerOp::Norm(shape) => {
            let got = gpu.norm_backward(shape, x, need(&tensors, "weight"), dout)?;
            let bias = got.dbias.map(|dbias| ("dbias", dbias));
            [("dx", got.dx), ("dweight", got.dweight)].into_iter().chain(bias).collect()
        }
        LayerOp::Rotary(shape) => {
            let back = shape.inverse(true);
            vec![("dx", gpu.rotary(&back, dout, case.tensor("cos"), case.tensor("sin"))?)]
        }
        LayerOp::Axial(shape) => {
            let [first, second] = gpu.axial_backward(shape, dout)?;
            vec![("dweight0", first), ("dweight1", second)]
        }
        LayerOp::Activation(shape) => {
            vec![("dx", gpu.activation_backward(shape, x, None, dout)?.dx)]
        }
        LayerOp::FeedForward(shape, norm) => feed_forward::gradients(gpu, shape, *norm, &tensors, dout)?,
    };
    judged_gradients(gradients, &exact_gradients(case, gradients, &tensors)?, &got)
}

fn exact_gradients(case: &Layer, gradients: &Gradients, tensors: &Rounded<f32>) -> Result<Tensors<Bounded>> {
    // Axial positions have no x.
    let [x, dout] = [need(tensors, "x"), &gradients.dout].map(Bounded::exact);
    Ok(match &case.op {
        LayerOp::Norm(shape) => {
            let (stored, weight) = (RowGradients::of_norm(shape), Bounded::exact(need(tensors, "weight")));
            let all = layer::backward::norm_backward(shape, &stored, &x, &weight, &dout, None)?;
            vec![("dx", all.dx), ("dweight", all.dweight), ("dbias", all.dbias)]
        }
        LayerOp::Rotary(shape) => {
            let [cos, sin] = ["cos", "sin"].map(|name| Bounded::exact(case.tensor(name)));
            vec![("dx", layer::rotary(&shape.inverse(true), &dout, &cos, &sin)?)]
        }
        LayerOp::Axial(shape) => {
            let [first, second] = layer::axial_backward(shape, &dout)?;
            vec![("dweight0", first), ("dweight1", second)]
        }
        LayerOp::Activation(shape) => {
            vec![("dx", layer::backward::activation_backward(shape, &x, None, &dout)?.dx)]
        }
        LayerOp::FeedForward(shape, norm) => feed_forward::exact_gradients(shape, *norm, tensors, &dout)?,
    })
}

/// Against the file's values.
fn judged_gradients(
    gradients: &Gradients,
    exact: &Tensors<Bounded>,
    got: &Tensors<Vec<f32>>,
) -> Result<Judged> {
    fn find<'a, T>(tensors: &'a Tensors<T>, name: &str) -> Result<&'a T> {
        let found = tensors.iter().find(|(own, _)| *own == name);
        found.map(|(_, tensor)| tensor).with_context(|| format!("{name}: the operation has no such gradient"))
    }
    let of_gradient = |gradient: &Gradient| {
        compared(gradient, find(exact, gradient.name)?, find(got, gradient.name)?, true)
    };
    let each = gradients.each.iter().map(of_gradient).collect::<Result<Vec<_>>>()?;
    Ok(each.into_iter().reduce(Judged::and).expect("a case with gradients has one"))
}

/// The kernel of the case's products; what has none has one kernel.
fn path<E: Element>(gpu: &Gpu, case: &Layer) -> wgpu_attention::Result<KernelPath> {
    match &case.op {
        LayerOp::Norm(_) | LayerOp::Rotary(_) | LayerOp::Axial(_) | LayerOp::Activation(_) => {
            Ok(KernelPath::Scalar)
        }
        LayerOp::FeedForward(shape, _) => Ok(gpu.kernels().feed_forward(&shape.elements(E::TYPE))?.path()),
    }
}

fn expected(case: &Layer) -> Vec<f64> {
    case.out.iter().map(|&x| x.into()).collect()
}

fn judged<E: Element>(case: &Layer, expected: &Bounded, got: &[E], allowance: f64) -> Judged {
    Judged::tensor("out", &case.out_shape, &expected.compare(got.iter().copied(), allowance))
}

/// f64, with the bound of a kernel that has these inputs and stores in E.
fn reference<E: Element>(case: &Layer, tensors: &Rounded<E>) -> Result<Bounded> {
    let exact = |name: &str| Bounded::exact(need(tensors, name));
    let optional = |name: &str| find(tensors, name).map(Bounded::exact);
    let x = exact("x");
    Ok(match &case.op {
        LayerOp::Norm(shape) => {
            layer::norm(&shape.elements(E::TYPE), &x, &exact("weight"), optional("bias").as_ref())?
        }
        LayerOp::Rotary(shape) => {
            let [cos, sin] = ["cos", "sin"].map(|name| Bounded::exact(case.tensor(name)));
            layer::rotary(&shape.input(E::TYPE).output(E::TYPE), &x, &cos, &sin)?
        }
        LayerOp::Axial(shape) => {
            let [first, second] = ["weight0", "weight1"].map(exact);
            layer::axial_positions(&shape.table(E::TYPE).output(E::TYPE), [&first, &second])?
        }
        LayerOp::Activation(shape) => layer::activate(&shape.input(E::TYPE).output(E::TYPE), &x, None)?,
        LayerOp::FeedForward(shape, norm) => feed_forward::exact::<E>(shape, *norm, tensors)?,
    })
}

/// The same on a device.
fn compute<E: Element>(gpu: &Gpu, case: &Layer, tensors: &Rounded<E>) -> Result<Vec<E>> {
    let (need, find) = (|name: &str| need(tensors, name), |name: &str| find(tensors, name));
    let x = need("x");
    Ok(match &case.op {
        LayerOp::Norm(shape) => gpu.norm(shape, x, need("weight"), find("bias"))?,
        LayerOp::Rotary(shape) => gpu.rotary(shape, x, case.tensor("cos"), case.tensor("sin"))?,
        LayerOp::Axial(shape) => gpu.axial_positions(shape, [need("weight0"), need("weight1")])?,
        LayerOp::Activation(shape) => gpu.activation(shape, x, None)?,
        LayerOp::FeedForward(shape, norm) => feed_forward::computed(gpu, shape, *norm, tensors)?,
    })
}
