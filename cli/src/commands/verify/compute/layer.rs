//! Cases of the kernels around attention.

use super::{Done, EXPECTED, REFERENCE, gradients, narrow};
use crate::case::{Gradients, Layer, LayerOp};
use crate::commands::verify::record::Judged;
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use wgpu_attention::reference::layer::{self, Bounded, FeedForwardInputs};
use wgpu_attention::{Element, ElementType, FeedForwardSlices, Gpu, KernelPath};

/// The reference against the expected values.
pub(super) fn on_cpu(case: &Layer) -> Result<Judged> {
    let Ok(tensors) = case.rounded::<f32>() else { anyhow::bail!("f32 does not hold f32") };
    let exact = reference(case, &tensors)?;
    let got = narrow(&exact.out);
    let judged = judged(case, &Bounded { out: expected(case), ..exact }, &got, case.allowance);
    let Some(gradients) = &case.gradients else { return Ok(judged) };
    let exact = exact_gradients(case, gradients)?;
    let got = exact.iter().map(|(name, exact)| (*name, narrow(&exact.out))).collect();
    Ok(judged.and(judged_gradients(gradients, &exact, got)?))
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
    let (exact, against, allowance) = match E::TYPE {
        ElementType::F32 => (Bounded { out: expected(case), ..exact }, EXPECTED, case.allowance),
        _ => (exact, REFERENCE, 0.0),
    };
    let mut judged = judged(case, &exact, &got, allowance);
    // In f32 alone, as those of attention.
    if let (Some(gradients), ElementType::F32) = (&case.gradients, E::TYPE) {
        let (exact, got) = (exact_gradients(case, gradients)?, computed_gradients(gpu, case, gradients)?);
        judged = judged.and(judged_gradients(gradients, &exact, got)?);
    }
    Ok(Done::Compared { path: path.to_string(), against, judged: judged.into() })
}

/// Gradients by their names, and with their bounds.
type Exact = Vec<(&'static str, Bounded)>;
type Got = Vec<(&'static str, Vec<f32>)>;

/// The gradients in f64.
fn exact_gradients(case: &Layer, gradients: &Gradients) -> Result<Exact> {
    let (x, dout) = (Bounded::exact(case.tensor("x")), Bounded::exact(&gradients.dout));
    Ok(match &case.op {
        LayerOp::Activation(shape) => {
            vec![("dx", layer::activation_backward(shape, &x, None, &dout)?.dx)]
        }
        _ => vec![],
    })
}

/// The same on a device.
fn computed_gradients(gpu: &Gpu, case: &Layer, gradients: &Gradients) -> Result<Got> {
    let (x, dout) = (case.tensor("x"), &gradients.dout[..]);
    Ok(match &case.op {
        LayerOp::Activation(shape) => {
            vec![("dx", gpu.activation_backward(shape, x, None, dout)?.dx)]
        }
        _ => vec![],
    })
}

/// Every gradient of the file, against its values.
fn judged_gradients(gradients: &Gradients, exact: &Exact, got: Got) -> Result<Judged> {
    let each = gradients.each.iter().map(|gradient| {
        let missing = || format!("{}: no kernel computes it", gradient.name);
        let exact = exact.iter().find(|(name, _)| *name == gradient.name).with_context(missing)?;
        let got = got.iter().find(|(name, _)| *name == gradient.name).with_context(missing)?;
        gradients::compared(gradient, &exact.1, &got.1, true)
    });
    let each = each.collect::<Result<Vec<_>>>()?;
    Ok(each.into_iter().reduce(Judged::and).expect("a case with gradients has one"))
}

/// The kernel of the case's products; what has none has one kernel.
fn path<E: Element>(gpu: &Gpu, case: &Layer) -> wgpu_attention::Result<KernelPath> {
    match &case.op {
        LayerOp::Norm(_) | LayerOp::Rotary(_) | LayerOp::Activation(_) => Ok(KernelPath::Scalar),
        LayerOp::FeedForward(shape, _) => Ok(gpu.kernels().feed_forward(&shape.elements(E::TYPE))?.path()),
    }
}

fn expected(case: &Layer) -> Vec<f64> {
    case.out.iter().map(|&x| x.into()).collect()
}

fn judged<E: Element>(case: &Layer, expected: &Bounded, got: &[E], allowance: f64) -> Judged {
    Judged::tensor("out", &case.out_shape, &expected.compare(got.iter().copied(), allowance))
}

/// The tensors of a case in one element type.
type Rounded<E> = BTreeMap<&'static str, Vec<E>>;

/// One that the reading of the case made sure of.
fn need<'a, E>(tensors: &'a Rounded<E>, name: &str) -> &'a [E] {
    find(tensors, name).unwrap_or_default()
}

fn find<'a, E>(tensors: &'a Rounded<E>, name: &str) -> Option<&'a [E]> {
    tensors.get(name).map(Vec::as_slice)
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
        LayerOp::Activation(shape) => layer::activate(&shape.input(E::TYPE).output(E::TYPE), &x, None)?,
        LayerOp::FeedForward(shape, norm) => {
            let x = match norm {
                Some(norm) => {
                    let (weight, bias) = (exact("norm_weight"), optional("norm_bias"));
                    layer::norm(&norm.elements(E::TYPE), &x, &weight, bias.as_ref())?
                }
                None => x,
            };
            let [w1, w2] = ["w1", "w2"].map(exact);
            let [b1, b2, w3, b3] = ["b1", "b2", "w3", "b3"].map(optional);
            let inputs = FeedForwardInputs {
                x: &x,
                w1: &w1,
                b1: b1.as_ref(),
                w3: w3.as_ref(),
                b3: b3.as_ref(),
                w2: &w2,
                b2: b2.as_ref(),
                residual: None,
            };
            layer::feed_forward(&shape.elements(E::TYPE), &inputs)?
        }
    })
}

/// The same on a device.
fn compute<E: Element>(gpu: &Gpu, case: &Layer, tensors: &Rounded<E>) -> Result<Vec<E>> {
    let (need, find) = (|name: &str| need(tensors, name), |name: &str| find(tensors, name));
    let x = need("x");
    Ok(match &case.op {
        LayerOp::Norm(shape) => gpu.norm(shape, x, need("weight"), find("bias"))?,
        LayerOp::Rotary(shape) => gpu.rotary(shape, x, case.tensor("cos"), case.tensor("sin"))?,
        LayerOp::Activation(shape) => gpu.activation(shape, x, None)?,
        LayerOp::FeedForward(shape, norm) => {
            let normed: Option<Vec<E>> = match norm {
                Some(norm) => Some(gpu.norm(norm, x, need("norm_weight"), find("norm_bias"))?),
                None => None,
            };
            let slices = (FeedForwardSlices::new(normed.as_deref().unwrap_or(x), need("w1"), need("w2")))
                .b1(find("b1"))
                .b2(find("b2"))
                .w3(find("w3"))
                .b3(find("b3"));
            gpu.feed_forward(shape, slices)?
        }
    })
}
