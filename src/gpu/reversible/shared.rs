//! Calls that are bound once, for all layers that are alike.

use super::branch::{Branch, BranchPort};
use super::parameters::ParameterLayout;
use crate::gpu::Kernels;
use crate::gpu::call::Call;
use crate::gpu::scope::allocated;
use crate::{Error, Result};
use std::sync::Arc;

/// A branch that many layers have, each with parameters of its own: its calls are bound once, to one buffer of parameters and one of
/// gradients, and a layer's are copied there and from there on the way. So whatever its calls need beside these, activations and
/// scratch, is there once, whatever the depth; so are its bind groups.
///
/// The price is that a step reads and writes the parameters twice more, and their gradients once: little beside the products over many
/// rows. Where that counts, a [`Branch`] of the caller's binds each layer's buffers itself, and shares what can be shared.
///
/// Clones share it.
#[derive(Debug, Clone)]
pub struct BranchPlan {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    port: BranchPort,
    tensors: BranchTensors,
    calls: BranchCalls,
    kept_bytes: u64,
}

/// Forward and backward calls of a branch.
type BranchCalls = [Vec<Call>; 2];

/// The parameters that the calls of a [`BranchPlan`] read, and the gradients that they store.
#[derive(Debug)]
pub struct BranchTensors {
    layout: ParameterLayout,
    parameters: wgpu::Buffer,
    gradients: wgpu::Buffer,
}

/// A branch of a [`BranchPlan`], with the parameters of one layer: made by [`BranchPlan::branch`].
#[derive(Debug, Clone)]
pub struct LayerBranch {
    plan: BranchPlan,
    parameters: wgpu::Buffer,
    gradients: wgpu::Buffer,
}

/// A buffer of so many f32, which may be bound and copied.
pub(super) fn tensor(kernels: &Kernels, what: &'static str, elements: usize) -> Result<wgpu::Buffer> {
    let (device, bytes) = (kernels.device(), 4 * elements as u64);
    let limits = device.limits();
    let have = limits.max_storage_buffer_binding_size.min(limits.max_buffer_size);
    if bytes > have {
        return Err(Error::limit(what, "max_storage_buffer_binding_size", bytes, have));
    }
    let size = bytes.next_multiple_of(16).max(16);
    let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
    let descriptor = wgpu::BufferDescriptor { label: Some(what), size, usage, mapped_at_creation: false };
    allocated(device, what, bytes, || device.create_buffer(&descriptor))
}

impl BranchTensors {
    fn new(kernels: &Kernels, layout: ParameterLayout) -> Result<Self> {
        let parameters = tensor(kernels, "parameters of a branch", layout.len())?;
        let gradients = tensor(kernels, "gradients of a branch", layout.len())?;
        Ok(Self { layout, parameters, gradients })
    }

    /// Where calls read a parameter.
    ///
    /// # Errors
    /// As [`ParameterLayout::range`].
    pub fn parameter(&self, name: &str) -> Result<wgpu::BufferBinding<'_>> {
        self.binding(&self.parameters, name)
    }

    /// Where calls store its gradient.
    ///
    /// # Errors
    /// As [`ParameterLayout::range`].
    pub fn gradient(&self, name: &str) -> Result<wgpu::BufferBinding<'_>> {
        self.binding(&self.gradients, name)
    }

    fn binding<'a>(&'a self, buffer: &'a wgpu::Buffer, name: &str) -> Result<wgpu::BufferBinding<'a>> {
        let range = self.layout.range(name)?;
        let size = wgpu::BufferSize::new(4 * range.len() as u64);
        Ok(wgpu::BufferBinding { buffer, offset: 4 * range.start as u64, size })
    }
}

impl BranchPlan {
    /// A branch of the caller's own calls: `bind` is given the tensors that they read and store, and returns the calls of
    /// [`Branch::forward`] and those of [`Branch::backward`].
    ///
    /// # Errors
    /// Those of `bind`; [`Error::Limit`] for parameters past the device's binding size, [`Error::OutOfMemory`] where there is no memory
    /// for them.
    ///
    /// ```no_run
    /// use wgpu_attention::{BranchPlan, Kernels, MatmulBuffers, MatmulGradBuffers, MatmulShape, ParameterLayout, Reversible};
    /// use wgpu_attention::wgpu::Buffer;
    ///
    /// /// F(x) = x W.
    /// fn linear(kernels: &Kernels, stack: &Reversible) -> wgpu_attention::Result<BranchPlan> {
    ///     let port = stack.f();
    ///     let shape = MatmulShape::new(port.rows, port.width, port.width);
    ///     let product = kernels.matmul(&shape)?;
    ///     let layout = ParameterLayout::new(&[("weight", port.width * port.width)], &[]);
    ///     BranchPlan::new(kernels, &port, layout, |tensors| {
    ///         let [x, y, dy, dx] = [&port.x, &port.y, &port.dy, &port.dx].map(Buffer::as_entire_buffer_binding);
    ///         let (weight, dweight) = (tensors.parameter("weight")?, tensors.gradient("weight")?);
    ///         let forward = product.bind(MatmulBuffers::new(x.clone(), weight.clone(), y))?;
    ///         let gradients = MatmulGradBuffers::new(x, weight, dy).da(dx).db(dweight);
    ///         Ok([vec![forward], vec![product.backward()?.bind(gradients)?]])
    ///     })
    /// }
    /// ```
    pub fn new(
        kernels: &Kernels,
        port: &BranchPort,
        layout: ParameterLayout,
        bind: impl FnOnce(&BranchTensors) -> Result<BranchCalls>,
    ) -> Result<Self> {
        Self::keeping(kernels, port, layout, 0, bind)
    }

    /// [`new`](Self::new), where forward leaves so many bytes that backward reads.
    pub(super) fn keeping(
        kernels: &Kernels,
        port: &BranchPort,
        layout: ParameterLayout,
        kept_bytes: u64,
        bind: impl FnOnce(&BranchTensors) -> Result<BranchCalls>,
    ) -> Result<Self> {
        let tensors = BranchTensors::new(kernels, layout)?;
        let calls = bind(&tensors)?;
        Ok(Self { inner: Arc::new(Inner { port: port.clone(), tensors, calls, kept_bytes }) })
    }

    /// How the parameters of a layer lie in their buffer, and the gradients in theirs.
    pub fn layout(&self) -> &ParameterLayout {
        &self.inner.tensors.layout
    }

    /// Bytes that forward leaves and backward reads, beside the input: once per stack where it is reversible, once per layer where it is
    /// not. 0 for the caller's own calls, whose buffers are not known.
    pub fn kept_bytes(&self) -> u64 {
        self.inner.kept_bytes
    }

    /// The branch of one layer. Both buffers hold the [layout](Self::layout)'s elements, and belong to this layer alone; `COPY_SRC` is needed
    /// of the parameters, `COPY_DST` of the gradients, which each backward pass overwrites.
    ///
    /// # Errors
    /// [`Error::Argument`] for a buffer that is too small, lacks the usage, or is given for both.
    pub fn branch(&self, parameters: &wgpu::Buffer, gradients: &wgpu::Buffer) -> Result<LayerBranch> {
        let need = 4 * self.layout().len() as u64;
        let copied = [
            ("parameters", parameters, wgpu::BufferUsages::COPY_SRC),
            ("gradients", gradients, wgpu::BufferUsages::COPY_DST),
        ];
        for (name, buffer, usage) in copied {
            if buffer.size() < need {
                let need = format!("{need} bytes ({} elements of f32)", self.layout().len());
                return Err(Error::argument(name, need, format!("{} bytes", buffer.size())));
            }
            if !buffer.usage().contains(usage) {
                return Err(Error::argument(
                    name,
                    format!("a buffer with {usage:?}"),
                    format!("{:?}", buffer.usage()),
                ));
            }
        }
        let BranchTensors { parameters: own, gradients: of_own, .. } = &self.inner.tensors;
        for (name, buffer, others) in
            [("parameters", parameters, [own, of_own]), ("gradients", gradients, [parameters, of_own])]
        {
            if others.contains(&buffer) {
                return Err(Error::argument(
                    name,
                    "a buffer of this layer alone",
                    "one that is there for another use",
                ));
            }
        }
        Ok(LayerBranch { plan: self.clone(), parameters: parameters.clone(), gradients: gradients.clone() })
    }
}

impl LayerBranch {
    /// The plan that it is of.
    pub fn plan(&self) -> &BranchPlan {
        &self.plan
    }

    /// The parameters of its layer.
    pub fn parameters(&self) -> &wgpu::Buffer {
        &self.parameters
    }

    /// Their gradients, once a backward pass has run.
    pub fn gradients(&self) -> &wgpu::Buffer {
        &self.gradients
    }

    fn copy(&self, encoder: &mut wgpu::CommandEncoder, source: &wgpu::Buffer, target: &wgpu::Buffer) {
        let bytes = 4 * self.plan.layout().len() as u64;
        if bytes > 0 {
            encoder.copy_buffer_to_buffer(source, 0, target, 0, bytes);
        }
    }
}

impl Branch for LayerBranch {
    fn port(&self) -> &BranchPort {
        &self.plan.inner.port
    }

    fn forward(&self, encoder: &mut wgpu::CommandEncoder) {
        let Inner { tensors, calls, .. } = &*self.plan.inner;
        self.copy(encoder, &self.parameters, &tensors.parameters);
        calls[0].iter().for_each(|call| call.encode(encoder));
    }

    fn backward(&self, encoder: &mut wgpu::CommandEncoder) {
        // The parameters are still those that forward copied.
        let Inner { tensors, calls, .. } = &*self.plan.inner;
        calls[1].iter().for_each(|call| call.encode(encoder));
        self.copy(encoder, &tensors.gradients, &self.gradients);
    }
}
