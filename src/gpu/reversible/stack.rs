//! Reversible layers over two streams.

use super::branch::{Branch, BranchPort};
use super::shared::tensor;
use crate::gpu::Kernels;
use crate::gpu::bindings::{Access, check_aliasing, checked_binding, whole};
use crate::gpu::call::Call;
use crate::{AddShape, ElementType, Error, Result};

/// The tensors that all layers of a [`Reversible`] share, each `[rows, width]` f32, with `BufferUsages::STORAGE`, all of them different.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ReversibleBuffers {
    /// The first stream: x1 before a layer, y1 behind it.
    pub x1: wgpu::Buffer,
    /// The second stream.
    pub x2: wgpu::Buffer,
    /// What a branch gives.
    pub y: wgpu::Buffer,
    /// The gradient by the first stream.
    pub dx1: wgpu::Buffer,
    /// The gradient by the second stream.
    pub dx2: wgpu::Buffer,
    /// The gradient by a branch's input, through the branch.
    pub dx: wgpu::Buffer,
}

impl ReversibleBuffers {
    /// x1, x2, y, dx1, dx2 and dx.
    pub fn new([x1, x2, y, dx1, dx2, dx]: [wgpu::Buffer; 6]) -> Self {
        Self { x1, x2, y, dx1, dx2, dx }
    }

    fn named(&self) -> [(&'static str, &wgpu::Buffer); 6] {
        let Self { x1, x2, y, dx1, dx2, dx } = self;
        [("x1", x1), ("x2", x2), ("y", y), ("dx1", dx1), ("dx2", dx2), ("dx", dx)]
    }
}

/// A stack of reversible residual layers (Gomez 2017, section 3.2; Kitaev 2020, section 3), made by [`Kernels::reversible`].
///
/// ```text
/// forward     y1 = x1 + F(x2)      y2 = x2 + G(y1)
/// inverse     x2 = y2 - G(y1)      x1 = y1 - F(x2)
/// backward    x2 = y2 - G(y1)      d1 = dy1 + G'(y1)^T dy2       x1 = y1 - F(x2)      dx1 = d1      dx2 = dy2 + F'(x2)^T d1
/// ```
///
/// Both streams are changed in place, layer by layer. A backward pass begins with the streams as the forward pass left them, makes each
/// layer's input anew from its output, and ends with the streams that the stack began with, and the gradient by them. So no layer
/// keeps an activation: a stack of any depth has the six tensors of [`ReversibleBuffers`], and what one F and one G need. The price is one
/// more forward pass: F and G are computed twice.
///
/// In f32 an inverse is not exact: x1 + F(x2), less F(x2), is x1 but for the rounding of the sum, and what F makes of the other
/// stream's. `docs/reversible.md` has how that grows with the depth.
///
/// ```no_run
/// use wgpu_attention::wgpu::{Buffer, CommandEncoder};
/// use wgpu_attention::{
///     Activation, AttentionBranch, AttentionShape, FeedForwardBranch, FeedForwardShape, Kernels, LshOptions, NormKind, NormShape,
/// };
///
/// /// A Reformer's layers; each has a buffer of parameters and one of gradients for either branch.
/// fn train(kernels: &Kernels, encoder: &mut CommandEncoder, layers: &[[Buffer; 4]]) -> wgpu_attention::Result<()> {
///     let (len, width) = (16384, 512);
///     let mut stack = kernels.reversible(len, width)?;
///     let norm = NormShape::new(NormKind::Layer, len, width, 1e-12).bias(true);
///     let attention = AttentionBranch::new(norm, AttentionShape::new(1, 8, len, 64));
///     let f = attention.lsh(kernels, &stack.f(), LshOptions::new(4, 256, 64).causal(true))?;
///     let feed_forward = FeedForwardShape::new(len, width, 2048, Activation::GeluErf).chunk(Some(512));
///     let g = FeedForwardBranch::new(norm, feed_forward).plan(kernels, &stack.g())?;
///     for [parameters_f, gradients_f, parameters_g, gradients_g] in layers {
///         stack.push(f.branch(parameters_f, gradients_f)?, g.branch(parameters_g, gradients_g)?)?;
///     }
///     // x1 and x2 hold the embedding,
///     stack.forward(encoder);
///     // dx1 and dx2 the gradient of the loss by both streams:
///     stack.backward(encoder);
///     Ok(())
/// }
/// ```
pub struct Reversible {
    pub(super) kernels: Kernels,
    rows: usize,
    width: usize,
    buffers: ReversibleBuffers,
    moves: Moves,
    layers: Vec<[Box<dyn Branch>; 2]>,
}

impl std::fmt::Debug for Reversible {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { rows, width, buffers, layers, .. } = self;
        let mut all = f.debug_struct("Reversible");
        all.field("rows", rows).field("width", width).field("buffers", buffers);
        all.field("layers", &layers.len()).finish_non_exhaustive()
    }
}

/// What happens between branches: each changes the stream, or the gradient, that is named.
#[derive(Debug)]
struct Moves {
    /// `[x1, x2] += y`.
    add: [Call; 2],
    /// `[x1, x2] -= y`.
    subtract: [Call; 2],
    /// `[dx1, dx2] += dx`.
    gradient: [Call; 2],
}

impl Moves {
    fn new(kernels: &Kernels, rows: usize, width: usize, buffers: &ReversibleBuffers) -> Result<Self> {
        let in_place = AddShape::new(rows, width).in_place(true);
        let (add, subtract) = (kernels.add(&in_place)?, kernels.add(&in_place.subtract(true))?);
        let ReversibleBuffers { x1, x2, y, dx1, dx2, dx } = buffers;
        let both = |plan: &crate::AddPlan, streams: [&wgpu::Buffer; 2], other| {
            let [first, second] = streams.map(|stream| plan.bind_in_place(whole(stream), whole(other)));
            Ok([first?, second?])
        };
        Ok(Self {
            add: both(&add, [x1, x2], y)?,
            subtract: both(&subtract, [x1, x2], y)?,
            gradient: both(&add, [dx1, dx2], dx)?,
        })
    }
}

impl Kernels {
    /// A stack without layers over `[rows, width]` streams, with six tensors of its own, which are 0 at first.
    ///
    /// # Errors
    /// As [`reversible_over`](Self::reversible_over); [`Error::OutOfMemory`] where there is no memory for the tensors.
    pub fn reversible(&self, rows: usize, width: usize) -> Result<Reversible> {
        AddShape::new(rows, width).check()?;
        let tensor = |what| tensor(self, what, rows * width);
        let buffers = ReversibleBuffers {
            x1: tensor("x1 of reversible layers")?,
            x2: tensor("x2 of reversible layers")?,
            y: tensor("y of reversible layers")?,
            dx1: tensor("dx1 of reversible layers")?,
            dx2: tensor("dx2 of reversible layers")?,
            dx: tensor("dx of reversible layers")?,
        };
        self.reversible_over(rows, width, buffers)
    }

    /// A stack without layers over the caller's tensors.
    ///
    /// # Errors
    /// As [`AddShape::check`]; [`Error::Argument`] for a buffer that is too small, lacks the usage, or is given twice;
    /// [`Error::Limit`] for one past the device's binding size; [`Error::Device`] for what wgpu reports while compiling.
    pub fn reversible_over(
        &self,
        rows: usize,
        width: usize,
        buffers: ReversibleBuffers,
    ) -> Result<Reversible> {
        AddShape::new(rows, width).check()?;
        let limits = self.device().limits();
        let bindings = buffers.named().map(|(name, buffer)| (name, whole(buffer)));
        for (name, binding) in &bindings {
            checked_binding(&limits, name, binding, rows * width, ElementType::F32)?;
        }
        let named = bindings.each_ref().map(|(name, binding)| (*name, Some(binding), Access::Write));
        check_aliasing(&named, false)?;
        let moves = Moves::new(self, rows, width, &buffers)?;
        Ok(Reversible { kernels: self.clone(), rows, width, buffers, moves, layers: vec![] })
    }
}

impl Reversible {
    /// Rows of a stream.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Elements of a row of a stream.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The streams, and what else the layers share.
    pub fn buffers(&self) -> &ReversibleBuffers {
        &self.buffers
    }

    /// Layers.
    pub fn len(&self) -> usize {
        self.layers.len()
    }

    /// Whether there are no layers.
    pub fn is_empty(&self) -> bool {
        self.layers.is_empty()
    }

    /// Where F reads and writes: x is the second stream, dy the gradient by the first.
    pub fn f(&self) -> BranchPort {
        let ReversibleBuffers { x2, y, dx1, dx, .. } = &self.buffers;
        BranchPort::new(self.rows, self.width, [x2, y, dx1, dx].map(Clone::clone))
    }

    /// Where G reads and writes: x is the first stream, dy the gradient by the second.
    pub fn g(&self) -> BranchPort {
        let ReversibleBuffers { x1, y, dx2, dx, .. } = &self.buffers;
        BranchPort::new(self.rows, self.width, [x1, y, dx2, dx].map(Clone::clone))
    }

    /// Adds a layer behind those that are there.
    ///
    /// # Errors
    /// [`Error::Argument`] for a branch whose port is not this stack's [`f`](Self::f) or [`g`](Self::g): of other sizes, or with another
    /// buffer anywhere.
    pub fn push(&mut self, f: impl Branch + 'static, g: impl Branch + 'static) -> Result<()> {
        check_port(["f.rows", "f.width", "f.x", "f.y", "f.dy", "f.dx"], f.port(), &self.f(), ["x2", "dx1"])?;
        check_port(["g.rows", "g.width", "g.x", "g.y", "g.dy", "g.dx"], g.port(), &self.g(), ["x1", "dx2"])?;
        self.layers.push([Box::new(f), Box::new(g)]);
        Ok(())
    }

    /// Records all layers: the streams, which hold the stack's input, then hold its output.
    pub fn forward(&self, encoder: &mut wgpu::CommandEncoder) {
        (0..self.len()).for_each(|layer| self.forward_layer(encoder, layer));
    }

    /// Records all layers backwards: the streams, which hold the stack's output, then hold its input, but for rounding.
    pub fn inverse(&self, encoder: &mut wgpu::CommandEncoder) {
        (0..self.len()).rev().for_each(|layer| self.inverse_layer(encoder, layer));
    }

    /// Records the gradients of all layers: dx1 and dx2, which hold the gradient by the stack's output, then hold that by its input, and
    /// each branch has the gradients of its parameters. The streams are inverted on the way.
    pub fn backward(&self, encoder: &mut wgpu::CommandEncoder) {
        (0..self.len()).rev().for_each(|layer| self.backward_layer(encoder, layer));
    }

    /// Records one layer of [`forward`](Self::forward).
    ///
    /// # Panics
    /// There is no such layer.
    pub fn forward_layer(&self, encoder: &mut wgpu::CommandEncoder, layer: usize) {
        let ([f, g], Moves { add: [add_to_x1, add_to_x2], .. }) = (&self.layers[layer], &self.moves);
        f.forward(encoder);
        add_to_x1.encode(encoder);
        g.forward(encoder);
        add_to_x2.encode(encoder);
    }

    /// Records one layer of [`inverse`](Self::inverse).
    ///
    /// # Panics
    /// There is no such layer.
    pub fn inverse_layer(&self, encoder: &mut wgpu::CommandEncoder, layer: usize) {
        let ([f, g], Moves { subtract: [of_x1, of_x2], .. }) = (&self.layers[layer], &self.moves);
        g.forward(encoder);
        of_x2.encode(encoder);
        f.forward(encoder);
        of_x1.encode(encoder);
    }

    /// Records one layer of [`backward`](Self::backward).
    ///
    /// # Panics
    /// There is no such layer.
    pub fn backward_layer(&self, encoder: &mut wgpu::CommandEncoder, layer: usize) {
        let ([f, g], Moves { subtract: [of_x1, of_x2], gradient: [by_x1, by_x2], .. }) =
            (&self.layers[layer], &self.moves);
        g.forward(encoder);
        of_x2.encode(encoder);
        g.backward(encoder);
        by_x1.encode(encoder);
        f.forward(encoder);
        of_x1.encode(encoder);
        f.backward(encoder);
        by_x2.encode(encoder);
    }
}

/// A branch must read and write where the stack has it.
fn check_port(
    names: [&'static str; 6],
    found: &BranchPort,
    wanted: &BranchPort,
    [stream, gradient]: [&str; 2],
) -> Result<()> {
    let sizes = [(names[0], found.rows, wanted.rows), (names[1], found.width, wanted.width)];
    for (name, found, wanted) in sizes {
        if found != wanted {
            return Err(Error::argument(name, format!("{wanted}, as the stack has"), found));
        }
    }
    if found.y == found.x || found.dx == found.x {
        let name = if found.y == found.x { names[3] } else { names[5] };
        return Err(Error::argument(
            name,
            "a buffer other than the branch's input, which is read again",
            "the same",
        ));
    }
    for (name, found, wanted, what) in [
        (names[2], &found.x, &wanted.x, stream),
        (names[3], &found.y, &wanted.y, "y"),
        (names[4], &found.dy, &wanted.dy, gradient),
        (names[5], &found.dx, &wanted.dx, "dx"),
    ] {
        if found != wanted {
            return Err(Error::argument(name, format!("the stack's {what}"), "another buffer"));
        }
    }
    Ok(())
}
