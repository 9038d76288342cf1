//! Gradients of the chunked feed-forward layer: the plan.

use super::products::{SummedProduct, SummedRows};
use super::shapes::flipped;
use crate::gpu::Kernels;
use crate::gpu::layer::activation::ActivationKernel;
use crate::gpu::layer::feed_forward::FeedForwardPlan;
use crate::gpu::layer::matmul::MatmulPlan;
use crate::wgsl::ActivationPass;
use crate::{
    AOrder, ActivationShape, Combine, ElementType, Error, FeedForwardShape, MatmulShape, Result, RowStrides,
    WeightOrder,
};

/// The gradients of a feed-forward layer: made by [`FeedForwardPlan::backward`].
///
/// With s = x W1 + b1, g = x W3 + b3 where gated, h = act(s) or act(s) g, and y = h W2 + b2,
///
/// ```text
/// dh = dy W2^T      ds = dh act'(s), or dh g act'(s)      dg = dh act(s)
/// dW2 = h^T dy      db2 = sum of dy                       dW1 = x^T ds      db1 = sum of ds      dW3, db3 by dg
/// dx = ds W1^T + dg W3^T
/// ```
///
/// Nothing is kept of the forward pass but its inputs. Hidden values are computed again in f32, whatever the shape's
/// [`hidden`](FeedForwardShape::hidden). Rows are processed a chunk at a time, so that what is between the products
/// takes 2 tensors of chunk x `hidden_dim` f32, 3 where gated, whatever the rows. All gradients are f32. The gradient by a
/// residual is dy itself.
///
/// The same call gives the same bits: sums go in the order of the rows, without atomics. dx and db2 have the same bits for every
/// chunk. The other gradients of weights and biases add up chunk by chunk, and so follow the chunk in their last digits.
#[derive(Debug, Clone)]
pub struct FeedForwardBackwardPlan {
    pub(super) kernels: Kernels,
    pub(super) shape: FeedForwardShape,
    pub(super) chunk: usize,
    /// None without rows.
    pub(super) steps: Option<ChunkSteps>,
}

/// What a chunk takes.
#[derive(Debug, Clone)]
pub(super) struct ChunkSteps {
    /// s, and g.
    pub(super) argument: MatmulPlan,
    pub(super) dhidden: MatmulPlan,
    /// h, ds and dg in the places of s, g and dh.
    pub(super) slopes: ActivationKernel,
    pub(super) dx: SummedProduct,
    /// Of W1, and of W3.
    pub(super) into_hidden: SummedProduct,
    pub(super) out_of_hidden: SummedProduct,
    /// Of ds, and of dg.
    pub(super) hidden_bias: Option<SummedRows>,
    /// Of all rows at once.
    pub(super) output_bias: Option<SummedRows>,
}

impl FeedForwardPlan {
    /// Plans the gradients of this layer by x, its weights and its biases, and compiles their kernels. The chunk is the plan's own, or
    /// smaller where that was not the caller's and two or three scratch tensors would be too large.
    ///
    /// # Errors
    /// [`Error::Limit`] for a chunk whose scratch passes the device's binding size, [`Error::Device`] for what wgpu reports while
    /// compiling.
    ///
    /// ```no_run
    /// use wgpu_attention::{Activation, FeedForwardGradBuffers, FeedForwardShape, Kernels};
    /// # fn example(kernels: &Kernels, encoder: &mut wgpu::CommandEncoder, buffers: [&wgpu::Buffer; 7])
    /// # -> wgpu_attention::Result<()> {
    /// let shape = FeedForwardShape::new(65536, 1024, 4096, Activation::GeluErf).chunk(Some(512));
    /// let plan = kernels.feed_forward(&shape)?.backward()?;
    /// assert_eq!(plan.scratch_bytes(), 2 * 512 * 4096 * 4); // not 65536 x 4096 x 4
    /// let [x, w1, w2, dy, dx, dw1, dw2] = buffers.map(wgpu::Buffer::as_entire_buffer_binding);
    /// plan.bind(FeedForwardGradBuffers::new(x, w1, w2, dy).dx(dx).dw1(dw1).dw2(dw2))?.encode(encoder);
    /// # Ok(())
    /// # }
    /// ```
    pub fn backward(&self) -> Result<FeedForwardBackwardPlan> {
        let (kernels, shape) = (self.kernels().clone(), *self.shape());
        let limits = kernels.device().limits();
        let most = limits.max_storage_buffer_binding_size.min(limits.max_buffer_size);
        let bytes = |chunk| part_bytes(&shape, chunk) * parts(&shape);
        let mut chunk = self.chunk();
        while shape.chunk.is_none() && chunk > 1 && bytes(chunk) > most {
            chunk = chunk.div_ceil(2);
        }
        if bytes(chunk) > most {
            let what = "scratch for a chunk of the feed-forward layer's gradients";
            return Err(Error::limit(what, "max_storage_buffer_binding_size", bytes(chunk), most));
        }
        let like = self.default_chunk();
        let steps = (shape.rows > 0).then(|| ChunkSteps::new(&kernels, &shape, chunk, like)).transpose()?;
        Ok(FeedForwardBackwardPlan { kernels, shape, chunk, steps })
    }
}

impl ChunkSteps {
    /// Tiles are those of `like` rows, so that one pipeline computes every element whatever the chunk.
    fn new(kernels: &Kernels, shape: &FeedForwardShape, chunk: usize, like: usize) -> Result<Self> {
        let (rows, model, hidden) = (shape.rows, shape.model_dim, shape.hidden_dim);
        let several = chunk < rows;
        let f32 = ElementType::F32;
        let plan =
            |of: &dyn Fn(usize) -> MatmulShape| MatmulPlan::of_gradient(kernels, &of(chunk), &of(like));
        let argument = |rows| MatmulShape {
            activation: None,
            combine: Combine::Store,
            ..shape.hidden(f32).first(rows, false)
        };
        let dhidden = |rows| {
            MatmulShape::new(rows, model, hidden)
                .weights(flipped(shape.weights))
                .input(shape.output)
                .weight(shape.weight)
        };
        let dx =
            |rows| MatmulShape::new(rows, hidden, model).weights(flipped(shape.weights)).weight(shape.weight);
        let into = of_weight(shape.weights, [model, hidden], chunk, [shape.input, f32]);
        let out_of = of_weight(shape.weights, [hidden, model], chunk, [f32, shape.output]);
        let slopes = ActivationShape::new(chunk * hidden, shape.activation).gated(shape.gated);
        let rows_of = |sizes: [usize; 2], element, several| {
            let strides = RowStrides::contiguous(sizes[0], sizes[1]);
            SummedRows::new(kernels, sizes, element, strides, several)
        };
        let has_bias = |sums: Result<SummedRows>| if shape.bias { sums.map(Some) } else { Ok(None) };
        Ok(Self {
            argument: plan(&argument)?,
            dhidden: plan(&dhidden)?,
            slopes: ActivationKernel::new(kernels, &slopes, ActivationPass::InPlace)?,
            dx: SummedProduct::like(kernels, &dx(chunk), &dx(like), shape.gated)?,
            into_hidden: SummedProduct::new(kernels, &into, several)?,
            out_of_hidden: SummedProduct::new(kernels, &out_of, several)?,
            hidden_bias: has_bias(rows_of([chunk, hidden], f32, several))?,
            output_bias: has_bias(rows_of([rows, model], shape.output, false))?,
        })
    }
}

/// left^T right, or right^T left where the weight is stored transposed: rows of `widths` elements of `types`.
fn of_weight(
    order: WeightOrder,
    [left, right]: [usize; 2],
    chunk: usize,
    [of_left, of_right]: [ElementType; 2],
) -> MatmulShape {
    let (rows, columns, input, weight) = match order {
        WeightOrder::InOut => (left, right, of_left, of_right),
        WeightOrder::OutIn => (right, left, of_right, of_left),
    };
    MatmulShape::new(rows, chunk, columns).a_order(AOrder::InnerRows).input(input).weight(weight)
}

/// Scratch tensors: s and dh, and g where gated.
pub(super) fn parts(shape: &FeedForwardShape) -> u64 {
    if shape.gated { 3 } else { 2 }
}

/// Bytes of one, from one to the next: a multiple of every device's offset alignment.
pub(super) fn part_bytes(shape: &FeedForwardShape, chunk: usize) -> u64 {
    (4 * chunk as u64 * shape.hidden_dim as u64).next_multiple_of(256)
}

impl FeedForwardBackwardPlan {
    /// The shape of the layer.
    pub fn shape(&self) -> &FeedForwardShape {
        &self.shape
    }

    /// Rows of a chunk.
    pub fn chunk(&self) -> usize {
        self.chunk
    }

    /// Bytes between the products: 2 tensors of chunk x `hidden_dim` f32, 3 where gated, each rounded up to 256 bytes.
    pub fn scratch_bytes(&self) -> u64 {
        parts(&self.shape) * part_bytes(&self.shape, self.chunk)
    }
}
