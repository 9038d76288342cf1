//! A branch of a norm and a feed-forward layer.

use super::branch::BranchPort;
use super::parameters::ParameterLayout;
use super::shared::{BranchPlan, BranchTensors, tensor};
use crate::gpu::Kernels;
use crate::gpu::bindings::whole;
use crate::gpu::call::Call;
use crate::gpu::layer::{
    FeedForwardBuffers, FeedForwardGradBuffers, FeedForwardPlan, NormBuffers, NormGradBuffers, NormPlan,
};
use crate::{ElementType, Error, FeedForwardShape, NormShape, Result};

/// F(x) = FF(norm(x)): the feed-forward half of a pre-norm layer, in chunks, without a residual of its own. All f32.
///
/// Its parameters are `norm_weight`, `w1`, `w2`, and as the shapes have them `norm_bias`, `b1`, `b2`, `w3`, `b3`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FeedForwardBranch {
    norm: NormShape,
    feed_forward: FeedForwardShape,
}

impl FeedForwardBranch {
    /// A norm, and the layer behind it.
    pub fn new(norm: NormShape, feed_forward: FeedForwardShape) -> Self {
        Self { norm, feed_forward }
    }

    /// Plans it, and binds it to a stack's port.
    ///
    /// # Errors
    /// [`Error::Argument`] for sizes other than the port's, tensors that are not f32 or have rows apart, and a residual, which is the
    /// stack's; as [`Kernels::norm`], [`Kernels::feed_forward`] and [`BranchPlan::new`].
    ///
    /// ```no_run
    /// use wgpu_attention::{Activation, FeedForwardBranch, FeedForwardShape, Kernels, NormKind, NormShape, Reversible};
    /// # fn example(kernels: &Kernels, stack: &Reversible) -> wgpu_attention::Result<()> {
    /// let norm = NormShape::new(NormKind::Layer, 16384, 512, 1e-12).bias(true);
    /// let layer = FeedForwardShape::new(16384, 512, 2048, Activation::GeluErf).bias(true).chunk(Some(512));
    /// let plan = FeedForwardBranch::new(norm, layer).plan(kernels, &stack.g())?;
    /// assert!(plan.layout().len() >= 2 * 512 * 2048);
    /// # Ok(())
    /// # }
    /// ```
    pub fn plan(&self, kernels: &Kernels, port: &BranchPort) -> Result<BranchPlan> {
        let Self { norm, feed_forward: shape } = self;
        check_norm(norm, port)?;
        let f32 = ElementType::F32;
        for (name, found, wanted) in
            [("rows", shape.rows, port.rows), ("model_dim", shape.model_dim, port.width)]
        {
            if found != wanted {
                return Err(Error::argument(name, format!("{wanted}, as the port has"), found));
            }
        }
        for (name, found) in [("input", shape.input), ("weight", shape.weight), ("output", shape.output)] {
            if found != f32 {
                return Err(Error::argument(name, "f32 in a branch", found));
            }
        }
        if shape.residual {
            return Err(Error::argument("residual", "none: the stack adds it", "one"));
        }
        let plans = (kernels.norm(norm)?, kernels.feed_forward(shape)?);
        let kept = 4 * port.len() as u64;
        BranchPlan::keeping(kernels, port, self.layout(), kept, |tensors| {
            self.bind(kernels, port, &plans, tensors)
        })
    }

    fn layout(&self) -> ParameterLayout {
        let FeedForwardShape { model_dim: model, hidden_dim: hidden, bias, gated, .. } = self.feed_forward;
        let weights = self.feed_forward.len_weight();
        let all = [
            ("norm_weight", model, true),
            ("norm_bias", model, self.norm.bias),
            ("w1", weights, true),
            ("b1", hidden, bias),
            ("w3", weights, gated),
            ("b3", hidden, gated && bias),
            ("w2", weights, true),
            ("b2", model, bias),
        ];
        let there: Vec<_> = all.into_iter().filter(|it| it.2).map(|(name, len, _)| (name, len)).collect();
        ParameterLayout::new(&there, &[])
    }

    fn bind(
        &self,
        kernels: &Kernels,
        port: &BranchPort,
        (norm, layer): &(NormPlan, FeedForwardPlan),
        tensors: &BranchTensors,
    ) -> Result<[Vec<Call>; 2]> {
        let FeedForwardShape { bias, gated, .. } = self.feed_forward;
        let some = |is: bool, name| is.then(|| tensors.parameter(name)).transpose();
        let some_gradient = |is: bool, name| is.then(|| tensors.gradient(name)).transpose();
        let normed = tensor(kernels, "normalised rows", port.len())?;
        let dnormed = tensor(kernels, "gradient by normalised rows", port.len())?;
        let [w1, w2] = [tensors.parameter("w1")?, tensors.parameter("w2")?];
        let forward = FeedForwardBuffers::new(whole(&normed), w1.clone(), w2.clone(), whole(&port.y))
            .b1(some(bias, "b1")?)
            .w3(some(gated, "w3")?)
            .b3(some(gated && bias, "b3")?)
            .b2(some(bias, "b2")?);
        let gradients = FeedForwardGradBuffers::new(whole(&normed), w1, w2, whole(&port.dy))
            .b1(some(bias, "b1")?)
            .w3(some(gated, "w3")?)
            .b3(some(gated && bias, "b3")?)
            .dx(whole(&dnormed))
            .dw1(tensors.gradient("w1")?)
            .db1(some_gradient(bias, "b1")?)
            .dw2(tensors.gradient("w2")?)
            .db2(some_gradient(bias, "b2")?)
            .dw3(some_gradient(gated, "w3")?)
            .db3(some_gradient(gated && bias, "b3")?);
        let [of_norm, of_its_gradients] = norm_calls(norm, port, tensors, [&normed, &dnormed])?;
        Ok([vec![of_norm, layer.bind(forward)?], vec![layer.backward()?.bind(gradients)?, of_its_gradients]])
    }
}

/// A norm over the rows of a port.
pub(super) fn check_norm(norm: &NormShape, port: &BranchPort) -> Result<()> {
    for (name, found, wanted) in [("norm.rows", norm.rows, port.rows), ("norm.width", norm.width, port.width)]
    {
        if found != wanted {
            return Err(Error::argument(name, format!("{wanted}, as the port has"), found));
        }
    }
    for (name, found) in
        [("norm.input", norm.input), ("norm.weight", norm.weight), ("norm.output", norm.output)]
    {
        if found != ElementType::F32 {
            return Err(Error::argument(name, "f32 in a branch", found));
        }
    }
    for (name, row) in [("norm.x_row", norm.x_row), ("norm.out_row", norm.out_row)] {
        if row.is_some_and(|row| row != port.width) {
            return Err(Error::argument(name, "contiguous rows in a branch", format!("{row:?}")));
        }
    }
    Ok(())
}

/// The norm of a port's x, and its gradients, of which dx is the port's.
pub(super) fn norm_calls(
    norm: &NormPlan,
    port: &BranchPort,
    tensors: &BranchTensors,
    [normed, dnormed]: [&wgpu::Buffer; 2],
) -> Result<[Call; 2]> {
    let (weight, has_bias) = (tensors.parameter("norm_weight")?, norm.shape().bias);
    let bias = has_bias.then(|| tensors.parameter("norm_bias")).transpose()?;
    let dbias = has_bias.then(|| tensors.gradient("norm_bias")).transpose()?;
    let forward = NormBuffers::new(whole(&port.x), weight.clone(), whole(normed)).bias(bias);
    let gradients = NormGradBuffers::new(whole(&port.x), weight, whole(dnormed), whole(&port.dx))
        .dweight(tensors.gradient("norm_weight")?)
        .dbias(dbias);
    Ok([norm.bind(forward)?, norm.backward()?.bind(gradients)?])
}
