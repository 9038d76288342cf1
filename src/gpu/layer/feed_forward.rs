//! The chunked feed-forward layer.

use super::matmul::{Cut, MatmulPlan, Operands, Start};
use crate::construct::constructed;
use crate::gpu::Kernels;
use crate::gpu::bindings::{Access, check_aliasing, checked_binding, optional_binding, scratch};
use crate::gpu::call::Call;
use crate::{ElementType, Error, FeedForwardShape, KernelPath, Result};

/// A planned feed-forward layer: made by [`Kernels::feed_forward`].
#[derive(Debug, Clone)]
pub struct FeedForwardPlan {
    kernels: Kernels,
    shape: FeedForwardShape,
    chunk: usize,
    /// The chunk that would be chosen: tiles are those of so many rows.
    default_chunk: usize,
    first: MatmulPlan,
    gate: Option<MatmulPlan>,
    second: MatmulPlan,
}

/// The buffers of a feed-forward layer. All need `BufferUsages::STORAGE`; out and scratch may not be buffers that are
/// also read.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct FeedForwardBuffers<'a> {
    /// x `[rows, model_dim]`.
    pub x: wgpu::BufferBinding<'a>,
    /// W1 `[model_dim, hidden_dim]` or its transpose.
    pub w1: wgpu::BufferBinding<'a>,
    /// b1 `[hidden_dim]`, if and only if the shape has biases.
    pub b1: Option<wgpu::BufferBinding<'a>>,
    /// W3 `[model_dim, hidden_dim]` or its transpose, if and only if the shape is gated.
    pub w3: Option<wgpu::BufferBinding<'a>>,
    /// b3 `[hidden_dim]`, if and only if the shape is gated and has biases.
    pub b3: Option<wgpu::BufferBinding<'a>>,
    /// W2 `[hidden_dim, model_dim]` or its transpose.
    pub w2: wgpu::BufferBinding<'a>,
    /// b2 `[model_dim]`, if and only if the shape has biases.
    pub b2: Option<wgpu::BufferBinding<'a>>,
    /// The residual `[rows, model_dim]`, if and only if the shape has one; may be the buffer of x.
    pub residual: Option<wgpu::BufferBinding<'a>>,
    /// y `[rows, model_dim]`.
    pub out: wgpu::BufferBinding<'a>,
    /// [`FeedForwardPlan::scratch_bytes`], so that several layers share them; `None` allocates.
    pub scratch: Option<wgpu::BufferBinding<'a>>,
}

constructed! {
    FeedForwardBuffers ['a] { x: wgpu::BufferBinding<'a>, w1: wgpu::BufferBinding<'a>, w2: wgpu::BufferBinding<'a>, out: wgpu::BufferBinding<'a> } { b1: wgpu::BufferBinding<'a>, w3: wgpu::BufferBinding<'a>, b3: wgpu::BufferBinding<'a>, b2: wgpu::BufferBinding<'a>, residual: wgpu::BufferBinding<'a>, scratch: wgpu::BufferBinding<'a> }
}

impl Kernels {
    /// Plans a feed-forward layer, and compiles its products unless they are compiled already. Each product takes its own path:
    /// the first by x and W1, the second by W2 and what is between the products, whose storage is
    /// [`FeedForwardShape::hidden`]. Where that is f32, the second is scalar on every device.
    ///
    /// # Errors
    /// As [`FeedForwardShape::check`]; [`Error::Limit`] for a chunk whose scratch passes the device's binding size,
    /// [`Error::Device`] for what wgpu reports while compiling.
    ///
    /// ```no_run
    /// use wgpu_attention::{Activation, FeedForwardBuffers, FeedForwardShape, Kernels};
    /// # fn example(kernels: &Kernels, encoder: &mut wgpu::CommandEncoder, buffers: [&wgpu::Buffer; 5])
    /// # -> wgpu_attention::Result<()> {
    /// let shape = FeedForwardShape::new(65536, 1024, 4096, Activation::Silu).gated(true).chunk(Some(512));
    /// let plan = kernels.feed_forward(&shape)?;
    /// assert_eq!(plan.scratch_bytes(), 512 * 4096 * 4); // not 65536 x 4096 x 4
    /// let [x, w1, w3, w2, out] = buffers.map(wgpu::Buffer::as_entire_buffer_binding);
    /// plan.bind(FeedForwardBuffers::new(x, w1, w2, out).w3(w3))?.encode(encoder);
    /// # Ok(())
    /// # }
    /// ```
    pub fn feed_forward(&self, shape: &FeedForwardShape) -> Result<FeedForwardPlan> {
        shape.check()?;
        let limits = self.device().limits();
        let most_bytes = limits.max_storage_buffer_binding_size.min(limits.max_buffer_size);
        let row_bytes = hidden_bytes(shape, 1);
        let default = default_chunk(shape, most_bytes / row_bytes);
        let chunk = shape.chunk.unwrap_or(default).min(shape.rows.max(1));
        let scratch_bytes = hidden_bytes(shape, chunk);
        if scratch_bytes > most_bytes {
            let limit = "max_storage_buffer_binding_size";
            return Err(Error::limit(
                "scratch for a chunk of the feed-forward layer",
                limit,
                scratch_bytes,
                most_bytes,
            ));
        }
        // The tile does not follow the caller's chunk, so that one pipeline computes every element whatever the chunk.
        let plan = |path, of: &dyn Fn(usize) -> crate::MatmulShape| {
            of(chunk).check()?;
            MatmulPlan::new(self, &of(chunk), self.product_tile(&of(default), path)?)
        };
        let path = self.options().path;
        let halves = (shape.hidden, shape.weight) == (ElementType::F16, ElementType::F16);
        Ok(FeedForwardPlan {
            kernels: self.clone(),
            shape: *shape,
            chunk,
            default_chunk: default,
            first: plan(path, &|rows| shape.first(rows, false))?,
            gate: shape.gated.then(|| plan(path, &|rows| shape.first(rows, true))).transpose()?,
            // A path that the caller forces is that of products of f16.
            second: plan(if halves { path } else { Some(KernelPath::Scalar) }, &|rows| shape.second(rows))?,
        })
    }
}

/// Bytes of what is between the products, of so many rows: whole words.
fn hidden_bytes(shape: &FeedForwardShape, rows: usize) -> u64 {
    (shape.hidden.size_bytes() as u64 * rows as u64 * shape.hidden_dim as u64).next_multiple_of(4)
}

/// As few rows as still give a large GPU enough tiles of 64 x 64 in the narrower product (512), if their scratch can be
/// bound; never more than there are.
fn default_chunk(shape: &FeedForwardShape, most_rows: u64) -> usize {
    let column_tiles = shape.model_dim.min(shape.hidden_dim).div_ceil(64);
    let rows = 64 * 512usize.div_ceil(column_tiles);
    let most = usize::try_from(most_rows).unwrap_or(usize::MAX).max(1);
    rows.max(256).min(most).min(shape.rows.max(1))
}

impl FeedForwardPlan {
    /// The shape that was planned.
    pub fn shape(&self) -> &FeedForwardShape {
        &self.shape
    }

    /// The kernels that it was planned on.
    pub(super) fn kernels(&self) -> &Kernels {
        &self.kernels
    }

    /// Tiles are those of so many rows.
    pub(super) fn default_chunk(&self) -> usize {
        self.default_chunk
    }

    /// The kernel of the first product, and of the gate.
    pub fn path(&self) -> KernelPath {
        self.first.tile().path()
    }

    /// The kernel of the second product: cooperative where [`FeedForwardShape::hidden`] and the weights are f16 and the device has matrices
    /// of them, or they are forced.
    pub fn second_path(&self) -> KernelPath {
        self.second.tile().path()
    }

    /// The names of the shaders that a call runs: the first product, the gate if there is one, the second product.
    pub fn shaders(&self) -> Vec<String> {
        [Some(&self.first), self.gate.as_ref(), Some(&self.second)]
            .into_iter()
            .flatten()
            .map(MatmulPlan::shader)
            .collect()
    }

    /// Rows of a chunk.
    pub fn chunk(&self) -> usize {
        self.chunk
    }

    /// Bytes between the products: chunk x `hidden_dim` elements of [`FeedForwardShape::hidden`], rounded up to a whole word.
    pub fn scratch_bytes(&self) -> u64 {
        hidden_bytes(&self.shape, self.chunk)
    }

    /// Checks the buffers and binds them: nothing is recorded yet.
    ///
    /// # Errors
    /// As [`MatmulPlan::bind`].
    pub fn bind(&self, buffers: FeedForwardBuffers<'_>) -> Result<Call> {
        let rows_in_all = self.shape.rows;
        if rows_in_all == 0 {
            return Ok(Call::new("feed-forward", []));
        }
        let own = match &buffers.scratch {
            Some(_) => None,
            None => {
                let device = self.kernels.device();
                Some(scratch(device, "a chunk of the feed-forward layer", self.scratch_bytes())?)
            }
        };
        let given = buffers.scratch.clone().or(own.as_ref().map(wgpu::Buffer::as_entire_buffer_binding));
        let Products { first, gate, second } = self.checked(&buffers, given)?;
        let mut steps = vec![];
        for start in (0..rows_in_all).step_by(self.chunk) {
            let rows = self.chunk.min(rows_in_all - start);
            let from_x = Cut { rows, a: Start::row(start), ..Cut::all(self.first.shape()) };
            steps.push(self.first.step(&first, from_x)?);
            if let (Some(plan), Some(gate)) = (&self.gate, &gate) {
                steps.push(plan.step(gate, from_x)?);
            }
            let to_y = Cut { rows, out: Start::row(start), ..Cut::all(self.second.shape()) };
            steps.push(self.second.step(&second, to_y)?);
        }
        Ok(Call::of_steps("feed-forward", steps))
    }

    /// The buffers, each checked and cut to its tensor, as operands.
    fn checked<'a>(
        &self,
        buffers: &FeedForwardBuffers<'a>,
        given: Option<wgpu::BufferBinding<'a>>,
    ) -> Result<Products<'a>> {
        let (shape, limits) = (&self.shape, self.kernels.device().limits());
        let (len, weights, gated) = (shape.len_x(), shape.len_weight(), shape.gated);
        let optional = |name, binding, wanted, elements, element| {
            optional_binding(&limits, name, binding, wanted, elements, element)
        };
        let x = checked_binding(&limits, "x", &buffers.x, len, shape.input)?;
        let w1 = checked_binding(&limits, "w1", &buffers.w1, weights, shape.weight)?;
        let b1 = optional("b1", &buffers.b1, shape.bias, shape.hidden_dim, shape.weight)?;
        let w3 = optional("w3", &buffers.w3, gated, weights, shape.weight)?;
        let b3 = optional("b3", &buffers.b3, gated && shape.bias, shape.hidden_dim, shape.weight)?;
        let w2 = checked_binding(&limits, "w2", &buffers.w2, weights, shape.weight)?;
        let b2 = optional("b2", &buffers.b2, shape.bias, shape.model_dim, shape.weight)?;
        let residual = optional("residual", &buffers.residual, shape.residual, len, shape.output)?;
        let out = checked_binding(&limits, "out", &buffers.out, len, shape.output)?;
        let elements = self.chunk * shape.hidden_dim;
        let scratch = optional("scratch", &given, true, elements, shape.hidden)?.unwrap_or(out.clone());
        let named = [
            ("x", Some(&x), Access::Read),
            ("w1", Some(&w1), Access::Read),
            ("b1", b1.as_ref(), Access::Read),
            ("w3", w3.as_ref(), Access::Read),
            ("b3", b3.as_ref(), Access::Read),
            ("w2", Some(&w2), Access::Read),
            ("b2", b2.as_ref(), Access::Read),
            ("residual", residual.as_ref(), Access::Read),
            ("out", Some(&out), Access::Write),
            ("scratch", Some(&scratch), Access::Both),
        ];
        check_aliasing(&named, self.kernels.options().shared_buffers)?;

        let first = Operands { a: x, b: w1, bias: b1, residual: None, out: scratch.clone() };
        let gate = w3.map(|w3| Operands { b: w3, bias: b3, ..first.clone() });
        let second = Operands { a: scratch, b: w2, bias: b2, residual, out };
        Ok(Products { first, gate, second })
    }
}

/// The operands of the products of a layer.
struct Products<'a> {
    first: Operands<'a>,
    gate: Option<Operands<'a>>,
    second: Operands<'a>,
}
