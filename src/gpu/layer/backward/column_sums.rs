//! Sums of columns: the gradient of whatever is broadcast over rows.

use crate::gpu::Kernels;
use crate::gpu::bindings::{Bindings, scratch};
use crate::gpu::params::{ColumnSumParams, Params, PlainTermParams};
use crate::gpu::pipeline::{Pipeline, Step, Work};
use crate::wgsl::{ColumnSumsVariant, SumTerms};
use crate::{ElementType, Result};
use std::sync::Arc;

/// A planned sum of columns of a matrix of so many rows: a level per 256 rows of a block, the last of which writes `out`.
#[derive(Debug, Clone)]
pub(in crate::gpu::layer) struct ColumnSums {
    kernels: Kernels,
    columns: usize,
    levels: Vec<Level>,
}

/// Blocks of rows, each added up to one.
#[derive(Debug, Clone)]
struct Level {
    rows: usize,
    pipeline: Arc<Pipeline>,
    work: Work,
}

impl ColumnSums {
    /// The sum over `rows` rows, at least one, of `columns` columns each. The variant's `input` and `aligned` are those of what is read, its `output` and `into` of what is written.
    pub(in crate::gpu::layer) fn new(
        kernels: &Kernels,
        variant: ColumnSumsVariant,
        rows: usize,
        columns: usize,
    ) -> Result<Self> {
        let whole = columns.is_multiple_of(4);
        let (mut levels, mut left, mut next) = (vec![], rows, variant);
        loop {
            let blocks = left.div_ceil(ColumnSumsVariant::BLOCK);
            let last = blocks <= 1;
            let level = match last {
                true => next,
                false => ColumnSumsVariant { output: ElementType::F32, into: false, ..next },
            };
            let shader = level.shader();
            let tiles = blocks as u128 * columns.div_ceil(ColumnSumsVariant::COLUMNS) as u128;
            let flops = (ColumnSumsVariant::BLOCK * ColumnSumsVariant::COLUMNS) as f64 * 8.0;
            let work = kernels.work(shader.entry, tiles, flops)?;
            levels.push(Level { rows: left, pipeline: kernels.pipeline(shader)?, work });
            if last {
                return Ok(Self { kernels: kernels.clone(), columns, levels });
            }
            left = blocks;
            next = ColumnSumsVariant {
                terms: SumTerms::Plain,
                input: ElementType::F32,
                aligned: whole,
                ..variant
            };
        }
    }

    /// The steps: `inputs` and `terms` (under the member `terms`) are what the first level's provider reads; the sums come to `out` from element `out_at` on.
    pub(in crate::gpu::layer) fn steps(
        &self,
        inputs: &Bindings<'_>,
        terms: &Params,
        out: wgpu::BufferBinding<'_>,
        out_at: usize,
    ) -> Result<Vec<Step>> {
        let device = self.kernels.device();
        let mut steps = vec![];
        let mut before: Option<wgpu::Buffer> = None;
        for (n, level) in self.levels.iter().enumerate() {
            let last = n + 1 == self.levels.len();
            let blocks = level.rows.div_ceil(ColumnSumsVariant::BLOCK);
            let sums = match last {
                true => None,
                false => Some(scratch(device, "column sums", 4 * (blocks * self.columns) as u64)?),
            };
            let kernel = ColumnSumParams {
                column_tiles: self.columns.div_ceil(ColumnSumsVariant::COLUMNS) as u32,
                rows: level.rows as u32,
                columns: self.columns as u32,
                out_at: if last { out_at as u32 } else { 0 },
                ..Default::default()
            };
            let (bindings, params) = match &before {
                None => (inputs.clone(), terms.clone()),
                Some(sums) => (
                    Bindings::default().with("x", sums.as_entire_buffer_binding()),
                    plain_terms(0, self.columns),
                ),
            };
            let to = sums.as_ref().map_or(out.clone(), wgpu::Buffer::as_entire_buffer_binding);
            let (params, bindings) = (params.with("kernel", kernel), bindings.with("out", to));
            steps.push(Step::new(device, &level.pipeline, &params, level.work, &bindings)?);
            before = sums;
        }
        Ok(steps)
    }
}

/// The parameters of a matrix in memory: its first element, and from row to row.
pub(in crate::gpu::layer) fn plain_terms(at: usize, row: usize) -> Params {
    Params::default().with("terms", PlainTermParams { x_at: at as u32, x_row: row as u32 })
}
