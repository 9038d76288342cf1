//! From the gradients of projected rows to those of keys and values, and of the projections.

use crate::gpu::attention::{Gradients, Narrow};
use crate::gpu::call::{Call, Stage};
use crate::gpu::kernels::Kernels;
use crate::gpu::layer::{MatmulBuffers, MatmulPlan};
use crate::gpu::linformer::{LinformerPlan, Run, lines, seen};
use crate::gpu::zeros::zeros;
use crate::{Combine, ElementType, MatmulShape, Result, RowStrides, Strides, WeightOrder};

/// A gradient that is a sum over one projected tensor, or over both.
#[derive(Debug)]
struct Term {
    /// Whether of V', else of K'.
    values: bool,
    plans: Vec<MatmulPlan>,
}

impl Term {
    fn new(kernels: &Kernels, values: bool, shapes: impl Iterator<Item = MatmulShape>) -> Result<Self> {
        Ok(Self { values, plans: shapes.map(|shape| kernels.matmul(&shape)).collect::<Result<_>>()? })
    }

    fn flops(&self) -> f64 {
        self.plans.iter().map(|plan| plan.shape().flops()).sum()
    }
}

/// The calls of terms, one after the other: a of each side, and b, to one tensor.
fn calls<'a>(
    terms: &[Term],
    [a, b]: [&[wgpu::BufferBinding<'a>; 2]; 2],
    out: &wgpu::BufferBinding<'a>,
) -> Result<Vec<Call>> {
    let of_term = |term: &Term| {
        let [a, b] = [a, b].map(|each| each[usize::from(term.values)].clone());
        let bind = |plan: &MatmulPlan| plan.bind(MatmulBuffers::new(a.clone(), b.clone(), out.clone()));
        term.plans.iter().map(bind).collect::<Result<Vec<_>>>()
    };
    Ok(terms.iter().map(of_term).collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
}

/// Gradients of rows of K' or V' `[B, Hkv, kk, dim]`: from line to line.
fn projected(plan: &LinformerPlan, dim: usize) -> isize {
    (plan.options.projected * dim) as isize
}

/// Where the projection of the first line of a product lies, from line to line.
fn of_heads(plan: &LinformerPlan) -> (bool, isize) {
    let own = plan.options.per_head && plan.attention.shape.kv_heads > 1;
    (own, if own { (plan.options.rows * plan.options.projected) as isize } else { 0 })
}

/// dk = E dK', dv = F dV'; where v is k, both in dk.
#[derive(Debug)]
pub(super) struct OfRows {
    terms: Vec<Term>,
    /// What brings f32 sums to the gradient: where masked rows become 0, or where the second term could not be added in 16 bits.
    last: Option<Narrow>,
}

impl OfRows {
    /// `second`: of v, else of k.
    pub(super) fn new(plan: &LinformerPlan, gradients: &Gradients, second: bool) -> Result<Self> {
        let (shape, options) = (&plan.attention.shape, &plan.options);
        let [_, dk, dv, _] = gradients.strides(shape);
        let (strides, dim) = if second { (dv, shape.value_dim) } else { (dk, shape.head_dim) };
        let both = !options.values;
        let is_summed = options.key_mask || (both && gradients.dkv != ElementType::F32);
        let sizes = [shape.batch, shape.kv_heads, shape.kv_len, dim];
        let last =
            is_summed.then(|| Narrow::new(&plan.kernels, strides, gradients.dkv, sizes, options.key_mask));
        let (rows, heads) = ((shape.kv_len * dim) as isize, shape.kv_heads as isize);
        let (strides, element) = match is_summed {
            true => (Strides::new(heads * rows, rows, dim as isize), ElementType::F32),
            false => (strides, gradients.dkv),
        };
        let sides = if both { vec![false, true] } else { vec![second] };
        let term = |values: bool| {
            let combine = if both && values { Combine::AddInto } else { Combine::Store };
            let product =
                move |run: Run| product_of_rows(plan, (strides, element, dim), run).combine(combine);
            let (own, _) = of_heads(plan);
            Term::new(&plan.kernels, values, lines(shape, strides, own).into_iter().map(product))
        };
        Ok(Self { terms: sides.into_iter().map(term).collect::<Result<_>>()?, last: last.transpose()? })
    }

    pub(super) fn flops(&self) -> f64 {
        self.terms.iter().map(Term::flops).sum()
    }

    /// Bytes of f32 sums, where they are not the gradient itself.
    pub(super) fn sum_bytes(&self) -> u64 {
        self.last.as_ref().map_or(0, |last| last.bytes)
    }

    /// Whether dV', or dK', is needed.
    pub(super) fn needs(&self, values: bool) -> bool {
        self.terms.iter().any(|term| term.values == values)
    }

    /// `projections`: E and F; `gradients`: dK' and dV'. `sums`: scratch of [`sum_bytes`](Self::sum_bytes).
    pub(super) fn calls<'a>(
        &self,
        kernels: &Kernels,
        operands: [&[wgpu::BufferBinding<'a>; 2]; 2],
        (out, sums, key_mask): (
            &wgpu::BufferBinding<'a>,
            &wgpu::BufferBinding<'a>,
            &Option<wgpu::BufferBinding<'a>>,
        ),
    ) -> Result<Vec<Call>> {
        let Some(last) = &self.last else { return calls(&self.terms, operands, out) };
        let mut all = calls(&self.terms, operands, sums)?;
        let step = last.step(kernels.device(), sums.clone(), out.clone(), key_mask.clone())?;
        all.push(Call::new(super::LABEL, [(Stage::Merge, step)]));
        Ok(all)
    }
}

/// E dK' or F dV' of some lines.
fn product_of_rows(
    plan: &LinformerPlan,
    (strides, element, dim): (Strides, ElementType, usize),
    run: Run,
) -> MatmulShape {
    let (shape, options) = (&plan.attention.shape, &plan.options);
    let (_, of_line) = of_heads(plan);
    let first = run.batch * shape.kv_heads * projected(plan, dim) as usize;
    MatmulShape::new(shape.kv_len, options.projected, dim)
        .batch(run.lines)
        .output(element)
        .a_strides(RowStrides::new(of_line, options.projected as isize))
        .b_strides(RowStrides::new(projected(plan, dim), dim as isize).offset(first))
        .out_strides(RowStrides::new(run.stride, strides.row).offset(strides.at(run.batch, 0, 0)))
}

/// dE = sum K dK'^T, dF = sum V dV'^T; where F is E, both in dE.
#[derive(Debug)]
pub(super) struct OfProjection {
    terms: Vec<Term>,
    /// Elements, where some rows are of no key and so have a gradient of 0.
    zeros: Option<usize>,
}

impl OfProjection {
    /// `second`: of F, else of E.
    pub(super) fn new(plan: &LinformerPlan, second: bool) -> Result<Self> {
        let (shape, options) = (&plan.attention.shape, &plan.options);
        let sides = if options.value_projection { vec![second] } else { vec![false, true] };
        let term = |values: bool| {
            let (strides, element, dim) = seen(&plan.attention, options, values && options.values);
            let (own, of_line) = of_heads(plan);
            let is_later = !options.value_projection && values;
            // Heads side by side where each has its own, one line after the other where they add up.
            let (each, lines) =
                if own { (shape.kv_heads, shape.batch) } else { (1, shape.batch * shape.kv_heads) };
            let product = move |n: usize| {
                let (batch, head) = (n * each / shape.kv_heads, n * each % shape.kv_heads);
                let combine = if n == 0 && !is_later { Combine::Store } else { Combine::AddInto };
                let first = n * each * projected(plan, dim) as usize;
                let rows = options.projected as isize;
                MatmulShape::new(shape.kv_len, dim, options.projected)
                    .batch(each)
                    .weights(WeightOrder::OutIn)
                    .input(element)
                    .combine(combine)
                    .a_strides(RowStrides::new(strides.head, strides.row).offset(strides.at(batch, head, 0)))
                    .b_strides(RowStrides::new(projected(plan, dim), dim as isize).offset(first))
                    .out_strides(RowStrides::new(if own { of_line } else { 0 }, rows))
            };
            Term::new(&plan.kernels, values, (0..lines).map(product))
        };
        let zeros = (options.rows > shape.kv_len).then(|| options.len_projection(shape));
        Ok(Self { terms: sides.into_iter().map(term).collect::<Result<_>>()?, zeros })
    }

    pub(super) fn flops(&self) -> f64 {
        self.terms.iter().map(Term::flops).sum()
    }

    /// Whether dV', or dK', is needed.
    pub(super) fn needs(&self, values: bool) -> bool {
        self.terms.iter().any(|term| term.values == values)
    }

    /// `operands`: keys and values; dK' and dV'.
    pub(super) fn calls<'a>(
        &self,
        kernels: &Kernels,
        operands: [&[wgpu::BufferBinding<'a>; 2]; 2],
        out: &wgpu::BufferBinding<'a>,
    ) -> Result<Vec<Call>> {
        let zeros = self.zeros.map(|len| zeros(kernels, len, out.clone())).transpose()?;
        let mut all = vec![Call::new(super::LABEL, zeros.map(|step| (Stage::Prepare, step)))];
        all.extend(calls(&self.terms, operands, out)?);
        Ok(all)
    }
}
