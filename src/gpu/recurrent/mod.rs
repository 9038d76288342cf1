//! Recurrent networks on the device: the input products of many positions at once, then a dispatch per step.
//!
//! | file | what |
//! |---|---|
//! | `mod.rs` | [`RecurrentPlan`]: the plans of the products, the compiled step |
//! | `bind.rs` | [`RecurrentBuffers`] checked and bound to a plan |
//! | `host.rs` | slices in, `Vec`s out |

mod bind;
mod host;

pub use bind::{RecurrentBuffers, RecurrentScratch, RecurrentWeightBuffers};
pub use host::RecurrentOutput;

use super::kernels::Kernels;
use super::layer::MatmulPlan;
use super::pipeline::{Pipeline, Work};
use crate::wgsl::{RecurrentTile, RecurrentVariant};
use crate::{Error, MatmulShape, RecurrentShape, Result, RowStrides, WeightOrder};
use std::sync::Arc;

/// A recurrent network, planned and compiled: made by [`Kernels::recurrent`]; clones share it.
#[derive(Debug, Clone)]
pub struct RecurrentPlan {
    kernels: Kernels,
    shape: RecurrentShape,
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// The input products of the first layer, and of the others.
    products: Vec<MatmulPlan>,
    step: Arc<Pipeline>,
    tiles: Tiles,
    block: usize,
}

/// How a step is cut into workgroups.
#[derive(Debug, Clone, Copy)]
struct Tiles {
    /// Side by side in an item of the batch.
    across: usize,
    /// Of a step, in whole dispatches.
    all: Work,
}

/// Input products are made for so many positions at most, lest they fill a device's memory.
const PRODUCT_BYTES: u64 = 1 << 26;
/// Steps that share a buffer of parameters at most: each has a slot of it.
const STEPS: usize = 4096;

impl Kernels {
    /// Plans a recurrent network: checks the shape, and compiles what is not compiled yet. See [`RecurrentShape`] for what is computed.
    ///
    /// The products W_ih x of all positions are one matrix product (of blocks of positions where they would take more than 64 MiB); each step then is
    /// one dispatch, which adds W_hh h and computes the cell. A call records them all, for one submission.
    ///
    /// # Errors
    /// As [`RecurrentShape::check`]; [`Error::Limit`] where the device is too small, [`Error::Device`] for what wgpu reports.
    ///
    /// ```no_run
    /// use wgpu_attention::{
    ///     Kernels, Options, RecurrentBuffers, RecurrentCell, RecurrentShape, RecurrentWeightBuffers,
    /// };
    /// # fn example(device: &wgpu::Device, encoder: &mut wgpu::CommandEncoder, buffers: [&wgpu::Buffer; 8])
    /// # -> wgpu_attention::Result<()> {
    /// let kernels = Kernels::new(device, Options::default())?;
    /// let plan = kernels.recurrent(&RecurrentShape::new(RecurrentCell::Lstm, 16, 128, 300, 512))?;
    /// let [x, w_ih, w_hh, b_ih, b_hh, out, h_n, c_n] = buffers.map(wgpu::Buffer::as_entire_buffer_binding);
    /// let weights = RecurrentWeightBuffers::new(w_ih, w_hh).bias_ih(b_ih).bias_hh(b_hh);
    /// let call = plan.bind(RecurrentBuffers::new(x, out, h_n).c_n(c_n).weights([weights]))?; // records nothing
    /// call.encode(encoder);
    /// # Ok(())
    /// # }
    /// ```
    pub fn recurrent(&self, shape: &RecurrentShape) -> Result<RecurrentPlan> {
        shape.check()?;
        let tile = RecurrentTile::choose(shape, self.scalar_tile_kind());
        let block = block(self, shape)?;
        let products =
            (0..shape.layers.min(2)).map(|layer| self.matmul_of_any_rows(&product(shape, layer, block)));
        let products = products.collect::<Result<_>>()?;
        let step = self.pipeline(RecurrentVariant::of(shape, tile).shader())?;
        let inner = Inner { products, step, tiles: self.tiles(shape, tile)?, block };
        Ok(RecurrentPlan { kernels: self.clone(), shape: *shape, inner: Arc::new(inner) })
    }

    /// The workgroups of a step: as many more as the dispatches of one step, if it needs several, all of one size.
    fn tiles(&self, shape: &RecurrentShape, tile: RecurrentTile) -> Result<Tiles> {
        let across = shape.hidden.div_ceil(tile.units());
        let items = shape.batch.div_ceil(tile.items()) as u128 * across as u128;
        let flops = 2.0 * (tile.items() * tile.units() * shape.cell.gates() * shape.hidden) as f64;
        let work = self.work("a recurrent step", items.max(1), flops)?;
        let dispatches = work.items.div_ceil(work.per_dispatch);
        let per_dispatch = work.items.div_ceil(dispatches);
        Ok(Tiles { across, all: Work { items: per_dispatch * dispatches, per_dispatch } })
    }
}

impl RecurrentPlan {
    /// The shape that was planned.
    pub fn shape(&self) -> &RecurrentShape {
        &self.shape
    }

    /// Positions whose input products are made at once.
    pub fn block(&self) -> usize {
        self.inner.block
    }

    /// Floating-point operations of a call's products, two per multiplication and addition.
    pub fn flops(&self) -> f64 {
        self.shape.flops()
    }
}

/// Positions of a block: all of them, or as many as memory and the device's limits allow.
fn block(kernels: &Kernels, shape: &RecurrentShape) -> Result<usize> {
    let limits = kernels.device().limits();
    let most = limits.max_storage_buffer_binding_size.min(limits.max_buffer_size);
    let of_position = 4 * shape.batch.max(1) as u64 * shape.rows() as u64;
    let fit = usize::try_from(most.min(PRODUCT_BYTES) / of_position).unwrap_or(usize::MAX).max(1);
    let block = shape.block.unwrap_or(fit).min(shape.steps);
    let need = of_position.saturating_mul(block as u64);
    if need > most {
        let (what, limit) = ("scratch: input products", "max_storage_buffer_binding_size");
        return Err(Error::limit(what, limit, need, most));
    }
    Ok(block)
}

/// W_ih x of a layer for a block of positions.
fn product(shape: &RecurrentShape, layer: usize, block: usize) -> MatmulShape {
    let (inner, columns) = (shape.input_of(layer), shape.rows());
    let plain = |rows| {
        MatmulShape::new(rows, inner, columns)
            .weights(WeightOrder::OutIn)
            .weight(shape.weight)
            .bias(shape.bias)
    };
    match block < shape.steps && !shape.steps_first {
        // The rows of a block lie apart, item by item.
        true => plain(block)
            .batch(shape.batch)
            .a_strides(RowStrides::contiguous(shape.steps, inner))
            .b_strides(RowStrides::new(0, inner as isize)),
        false => plain(block * shape.batch),
    }
}
