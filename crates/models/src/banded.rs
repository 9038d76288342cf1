//! Lookups and products of a pass on a device, band by band of what is past a binding.

use crate::bands::{Band, bands, cut, of_product, row_words};
use crate::device::{Forward, whole};
use crate::pool::Tensor;
use crate::{Error, Pair};
use wgpu_attention::{Combine, EmbedShape, MatmulBuffers, MatmulShape, ScaleGroups};

/// The buffer from a byte on.
fn from(buffer: &wgpu::Buffer, offset: usize) -> wgpu::BufferBinding<'_> {
    wgpu::BufferBinding { buffer, offset: offset as u64, size: None }
}

impl Forward {
    /// The embedding of ids, and for each band the ids as its own numbers.
    pub(crate) fn embed_bands(
        &mut self,
        shape: &EmbedShape,
        ids: &[u32],
        table: &Tensor,
        out: &Tensor,
    ) -> Result<Vec<(Tensor, Band)>, Error> {
        let row_bytes = 4 * shape.width;
        let mut stored = vec![];
        for band in bands("a table", shape.table_rows, row_bytes, self.most_bytes())? {
            // A row of another band is one of 0, and is added by that.
            let numbers: Vec<u32> = ids.iter().map(|&id| band.number(id)).collect();
            let mut part = shape.combine(if band.first == 0 { shape.combine } else { Combine::AddInto });
            part.table_rows = band.rows;
            let numbers = self.store(&numbers);
            let plan = self.gpu().kernels().embed(&part)?;
            self.push(plan.bind(whole(&numbers), from(table, band.first * row_bytes), whole(out))?)?;
            stored.push((numbers, band));
        }
        Ok(stored)
    }

    /// A product, band by band of its columns.
    pub(crate) fn linear_bands(
        &mut self,
        shape: &MatmulShape,
        a: &Tensor,
        pair: &Pair<Tensor>,
        residual: Option<&Tensor>,
        out: &Tensor,
    ) -> Result<(), Error> {
        let [words, scales] = row_words(shape);
        for band in of_product(shape, self.most_bytes())? {
            let weight = from(&pair.weight, 4 * band.first * words);
            let buffers = MatmulBuffers::new(whole(a), weight, whole(out))
                .scales(pair.integers.as_ref().map(|integers| {
                    let shared = integers.format.groups == ScaleGroups::Tensor;
                    from(&integers.scales, if shared { 0 } else { 4 * band.first * scales })
                }))
                .bias(pair.bias.as_deref().map(|bias| from(bias, 4 * band.first)))
                .residual(residual.map(|residual| whole(residual)));
            let plan = self.gpu().kernels().matmul(&cut(shape, band))?;
            self.push(plan.bind(buffers)?)?;
        }
        Ok(())
    }
}
