//! Sums of products over batch items or chunks: what gradients are made of.

use crate::gpu::Kernels;
use crate::gpu::bindings::Bindings;
use crate::gpu::layer::backward::column_sums::{ColumnSums, plain_terms};
use crate::gpu::layer::matmul::{Cut, MatmulPlan, Operands};
use crate::gpu::pipeline::Step;
use crate::wgsl::{ColumnSumsVariant, SumTerms};
use crate::{Combine, ElementType, MatmulShape, Result, RowStrides};

/// A product that may be the sum of several, in their order: the first is stored, the others are added to it, in f32.
#[derive(Debug, Clone)]
pub(super) struct SummedProduct {
    stored: MatmulPlan,
    added: Option<MatmulPlan>,
}

impl SummedProduct {
    pub(super) fn new(kernels: &Kernels, shape: &MatmulShape, several: bool) -> Result<Self> {
        Self::like(kernels, shape, shape, several)
    }

    /// With the tile of another shape.
    pub(super) fn like(
        kernels: &Kernels,
        shape: &MatmulShape,
        like: &MatmulShape,
        several: bool,
    ) -> Result<Self> {
        let added = || MatmulPlan::of_gradient(kernels, &shape.combine(Combine::AddInto), like);
        Ok(Self {
            stored: MatmulPlan::of_gradient(kernels, shape, like)?,
            added: several.then(added).transpose()?,
        })
    }

    /// All of the product at once.
    pub(super) fn whole(&self) -> Cut {
        Cut::all(self.stored.shape())
    }

    /// The step of one of the parts.
    pub(super) fn step(&self, operands: &Operands<'_>, cut: Cut, is_first: bool) -> Result<Step> {
        let plan = if is_first { None } else { self.added.as_ref() };
        plan.unwrap_or(&self.stored).step(operands, cut)
    }
}

/// The sum of columns of a matrix, or of several, one after the other.
#[derive(Debug, Clone)]
pub(super) struct SummedRows {
    kernels: Kernels,
    variant: ColumnSumsVariant,
    columns: usize,
    most: usize,
    /// Of `most` rows.
    stored: ColumnSums,
    added: Option<ColumnSums>,
}

/// Rows whose columns are added up.
#[derive(Debug, Clone, Copy)]
pub(super) struct RowsOf {
    pub(super) rows: usize,
    /// Index of the first element, in two's complement, as strides are.
    pub(super) at: usize,
    pub(super) row: isize,
}

impl SummedRows {
    /// Of rows of this type that lie so; `most` of them in one step.
    pub(super) fn new(
        kernels: &Kernels,
        [most, columns]: [usize; 2],
        input: ElementType,
        strides: RowStrides,
        several: bool,
    ) -> Result<Self> {
        let (output, aligned) = (ElementType::F32, strides.is_aligned(columns));
        let variant = ColumnSumsVariant { terms: SumTerms::Plain, input, output, into: false, aligned };
        let added = || ColumnSums::new(kernels, ColumnSumsVariant { into: true, ..variant }, most, columns);
        Ok(Self {
            kernels: kernels.clone(),
            variant,
            columns,
            most,
            stored: ColumnSums::new(kernels, variant, most, columns)?,
            added: several.then(added).transpose()?,
        })
    }

    /// The steps of one of the parts.
    pub(super) fn steps(
        &self,
        x: &wgpu::BufferBinding<'_>,
        rows: RowsOf,
        out: &wgpu::BufferBinding<'_>,
        is_first: bool,
    ) -> Result<Vec<Step>> {
        let inputs = Bindings::default().with("x", x.clone());
        let terms = plain_terms(rows.at, rows.row as usize);
        let known = if is_first { Some(&self.stored) } else { self.added.as_ref() };
        if let Some(sums) = known.filter(|_| rows.rows == self.most) {
            return sums.steps(&inputs, &terms, out.clone(), 0);
        }
        let variant = ColumnSumsVariant { into: !is_first, ..self.variant };
        let sums = ColumnSums::new(&self.kernels, variant, rows.rows, self.columns)?;
        sums.steps(&inputs, &terms, out.clone(), 0)
    }
}
