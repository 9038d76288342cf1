//! The matrix product.

use crate::construct::constructed;
use crate::gpu::Kernels;
use crate::gpu::bindings::{Access, Bindings, check_aliasing, checked_binding, optional_binding};
use crate::gpu::call::Call;
use crate::gpu::params::{MatmulParams, Params};
use crate::gpu::pipeline::{Pipeline, Step, Work};
use crate::wgsl::{MatmulTile, MatmulVariant};
use crate::{Combine, ElementType, KernelPath, MatmulShape, Result, RowStrides};
use std::sync::Arc;

/// A planned matrix product: made by [`Kernels::matmul`].
#[derive(Debug, Clone)]
pub struct MatmulPlan {
    kernels: Kernels,
    shape: MatmulShape,
    tile: MatmulTile,
    pipeline: Arc<Pipeline>,
}

/// The buffers of one product. All need `BufferUsages::STORAGE`; out may not be a buffer that is also read.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct MatmulBuffers<'a> {
    /// A `[batch, rows, inner]` or `[batch, inner, rows]`, [`MatmulShape::len_a`] elements.
    pub a: wgpu::BufferBinding<'a>,
    /// B `[batch, inner, columns]` or `[batch, columns, inner]`, [`MatmulShape::len_b`] elements; the words of
    /// [integers](MatmulShape::integers), if it is of those.
    pub b: wgpu::BufferBinding<'a>,
    /// The scales, f32, if and only if B is of integers.
    pub scales: Option<wgpu::BufferBinding<'a>>,
    /// The zero points, i32, if and only if the integers have them.
    pub zero_points: Option<wgpu::BufferBinding<'a>>,
    /// The bias `[columns]` in B's type, if and only if the shape has one.
    pub bias: Option<wgpu::BufferBinding<'a>>,
    /// The residual `[batch, rows, columns]` in C's type, if and only if the shape [adds](Combine::Add) one.
    pub residual: Option<wgpu::BufferBinding<'a>>,
    /// C `[batch, rows, columns]`, [`MatmulShape::len_out`] elements.
    pub out: wgpu::BufferBinding<'a>,
}

constructed! {
    MatmulBuffers ['a] { a: wgpu::BufferBinding<'a>, b: wgpu::BufferBinding<'a>, out: wgpu::BufferBinding<'a> }
    { scales: wgpu::BufferBinding<'a>, zero_points: wgpu::BufferBinding<'a>, bias: wgpu::BufferBinding<'a>, residual: wgpu::BufferBinding<'a> }
}

impl Kernels {
    /// Plans a matrix product and compiles its kernel, unless it is compiled already. A and B in f16 meet in cooperative
    /// matrices where the device has them ([`KernelPath::Cooperative`](crate::KernelPath)). Up to 8 rows by a B stored `[out, in]` have a tile
    /// of their own ([`MatmulTile::few`]), which reads B once.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) and [`Error::Limit`](crate::Error::Limit) as [`MatmulShape::check`],
    /// [`Error::Device`](crate::Error::Device) for what wgpu reports while compiling.
    ///
    /// ```no_run
    /// use wgpu_attention::{Kernels, MatmulBuffers, MatmulShape, Options, WeightOrder};
    /// # fn example(device: &wgpu::Device, encoder: &mut wgpu::CommandEncoder, buffers: [&wgpu::Buffer; 4])
    /// # -> wgpu_attention::Result<()> {
    /// // The query projection of BERT: `torch.nn.Linear` stores [out, in].
    /// let shape = MatmulShape::new(512, 768, 768).weights(WeightOrder::OutIn).bias(true);
    /// let plan = Kernels::new(device, Options::default())?.matmul(&shape)?;
    /// let [a, b, bias, out] = buffers.map(wgpu::Buffer::as_entire_buffer_binding);
    /// plan.bind(MatmulBuffers::new(a, b, out).bias(bias))?.encode(encoder);
    /// # Ok(())
    /// # }
    /// ```
    pub fn matmul(&self, shape: &MatmulShape) -> Result<MatmulPlan> {
        shape.check()?;
        MatmulPlan::new(self, shape, self.product_tile(shape, self.options().path)?)
    }

    /// The tile of a product on this path, or on the one that suits it.
    pub(super) fn product_tile(&self, shape: &MatmulShape, path: Option<KernelPath>) -> Result<MatmulTile> {
        let few = match path {
            // A product that the caller wants on matrix units is there.
            Some(KernelPath::Cooperative) => None,
            _ => MatmulTile::few(shape, self.scalar_tile_kind()),
        };
        few.map_or_else(|| Ok(MatmulTile::choose(shape, self.product_limits(shape, path)?)), Ok)
    }

    /// [`Kernels::matmul`] by tiles that all add up in the same order: a row has the same bits whatever rows are beside it.
    pub(in crate::gpu) fn matmul_of_any_rows(&self, shape: &MatmulShape) -> Result<MatmulPlan> {
        shape.check()?;
        MatmulPlan::new(
            self,
            shape,
            MatmulTile::choose(shape, self.product_limits(shape, self.options().path)?),
        )
    }

    /// [`Kernels::matmul`] with a workgroup of the caller's choice.
    ///
    /// # Errors
    /// As [`Kernels::matmul`], and as [`MatmulTile::check`].
    pub fn matmul_with_tile(&self, shape: &MatmulShape, tile: MatmulTile) -> Result<MatmulPlan> {
        shape.check()?;
        MatmulPlan::new(self, shape, tile)
    }
}

impl MatmulPlan {
    /// A product within a gradient, whose f32 sums the scalar path multiplies: what is f16 on both sides takes the caller's.
    /// The tile is that of another shape, so that it does not follow what differs.
    pub(super) fn of_gradient(kernels: &Kernels, shape: &MatmulShape, like: &MatmulShape) -> Result<Self> {
        shape.check()?;
        let halves = (shape.input, shape.weight) == (ElementType::F16, ElementType::F16);
        let path = if halves { kernels.options().path } else { Some(KernelPath::Scalar) };
        Self::new(kernels, shape, MatmulTile::choose(like, kernels.product_limits(like, path)?))
    }

    /// The plan of a shape that is checked.
    pub(super) fn new(kernels: &Kernels, shape: &MatmulShape, tile: MatmulTile) -> Result<Self> {
        tile.check(kernels.product_limits(shape, Some(tile.path()))?)?;
        tile.check_orders(shape)?;
        let plan = |pipeline| Self { kernels: kernels.clone(), shape: *shape, tile, pipeline };
        let shader = MatmulVariant::of(shape, tile).shader();
        let plan = plan(kernels.pipeline(shader)?);
        plan.work(shape.rows)?;
        Ok(plan)
    }

    /// The shape that was planned.
    pub fn shape(&self) -> &MatmulShape {
        &self.shape
    }

    /// The kernels that it was planned on.
    pub(super) fn kernels(&self) -> &Kernels {
        &self.kernels
    }

    /// The workgroup's sizes.
    pub fn tile(&self) -> MatmulTile {
        self.tile
    }

    /// The name of the shader that a call runs: see [`AttentionPlan::shaders`](crate::AttentionPlan::shaders).
    pub fn shader(&self) -> String {
        MatmulVariant::of(&self.shape, self.tile).shader().label
    }

    /// Checks the buffers and binds them: nothing is recorded yet.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) for a buffer that is too small, missing, not asked for, lacks the
    /// usage, is misaligned, or serves as input and as output; [`Error::Limit`](crate::Error::Limit) for one past the
    /// device's binding size; [`Error::Device`](crate::Error::Device) for what wgpu reports.
    pub fn bind(&self, buffers: MatmulBuffers<'_>) -> Result<Call> {
        let shape = &self.shape;
        let limits = self.kernels.device().limits();
        let add = shape.combine == Combine::Add;
        if shape.is_empty() {
            return Ok(Call::new("matmul", []));
        }
        let a = checked_binding(&limits, "a", &buffers.a, shape.len_a(), shape.input)?;
        let (b_len, b_type) = match shape.integers {
            // Words, as f32 are.
            Some(format) => (format.len_words(shape.columns, shape.inner), ElementType::F32),
            None => (shape.len_b(), shape.weight),
        };
        let b = checked_binding(&limits, "b", &buffers.b, b_len, b_type)?;
        let (scales, zero_points) = self.scales(&limits, &buffers)?;
        let bias = optional_binding(&limits, "bias", &buffers.bias, shape.bias, shape.columns, shape.weight)?;
        let residual = optional_binding(
            &limits,
            "residual",
            &buffers.residual,
            add,
            shape.len_residual(),
            shape.output,
        )?;
        let out = checked_binding(&limits, "out", &buffers.out, shape.len_out(), shape.output)?;
        let named = [
            ("a", Some(&a), Access::Read),
            ("b", Some(&b), Access::Read),
            ("scales", scales.as_ref(), Access::Read),
            ("zero_points", zero_points.as_ref(), Access::Read),
            ("bias", bias.as_ref(), Access::Read),
            ("residual", residual.as_ref(), Access::Read),
            ("out", Some(&out), Access::Write),
        ];
        check_aliasing(&named, self.kernels.options().shared_buffers)?;
        let beside = Bindings::default().with_some("scales", scales).with_some("b_zero_points", zero_points);
        let step = self.step_beside(&Operands { a, b, bias, residual, out }, Cut::all(shape), beside)?;
        Ok(Call::of_steps("matmul", [step]))
    }

    /// Scales and zero points of B, as many as its integers have.
    fn scales<'a>(
        &self,
        limits: &wgpu::Limits,
        buffers: &MatmulBuffers<'a>,
    ) -> Result<(Option<wgpu::BufferBinding<'a>>, Option<wgpu::BufferBinding<'a>>)> {
        let shape = &self.shape;
        let len = shape.integers.map_or(0, |format| format.len_scales(shape.columns, shape.inner));
        let zero_points = shape.integers.is_some_and(|format| format.zero_points);
        let of =
            |name, binding, wanted| optional_binding(limits, name, binding, wanted, len, ElementType::F32);
        Ok((
            of("scales", &buffers.scales, shape.integers.is_some())?,
            of("zero_points", &buffers.zero_points, zero_points)?,
        ))
    }

    /// The product of a part of the tensors, of buffers that are checked. `shape.rows` and `shape.inner` do not count.
    pub(in crate::gpu) fn step(&self, operands: &Operands<'_>, cut: Cut) -> Result<Step> {
        self.step_beside(operands, cut, Bindings::default())
    }

    /// [`step`](Self::step) with what belongs to B of integers.
    fn step_beside<'a>(&self, operands: &Operands<'a>, cut: Cut, beside: Bindings<'a>) -> Result<Step> {
        let shape = &self.shape;
        let (work, [row_tiles, column_tiles]) = self.work(cut.rows)?;
        let (a, b, residual, out) =
            (shape.strides_of_a(), shape.strides_of_b(), shape.strides_of_residual(), shape.strides_of_out());
        // Rows of integers are whole words.
        let b_row = shape.integers.map_or(b.row as u32, |format| format.row_words(shape.inner) as u32);
        // Offsets in two's complement, as strides are.
        let first = |strides: RowStrides, start: Start| strides.at(start.item, start.row) as u32;
        let params = Params::of(MatmulParams {
            first_work: 0,
            end_work: 0,
            row_tiles,
            column_tiles,
            rows: cut.rows as u32,
            inner: cut.inner as u32,
            columns: shape.columns as u32,
            a_at: first(a, cut.a),
            a_batch: a.batch as u32,
            a_row: a.row as u32,
            b_at: first(b, cut.b),
            b_batch: b.batch as u32,
            b_row,
            residual_at: first(residual, cut.out),
            residual_batch: residual.batch as u32,
            residual_row: residual.row as u32,
            out_at: first(out, cut.out),
            out_batch: out.batch as u32,
            out_row: out.row as u32,
        });
        let buffers = beside
            .with("a", operands.a.clone())
            .with("b", operands.b.clone())
            .with_some("bias", operands.bias.clone())
            .with_some("residual", operands.residual.clone())
            .with("out", operands.out.clone());
        Step::new(self.kernels.device(), &self.pipeline, &params, work, &buffers)
    }

    /// Tiles of this many rows, and how many there are each way in a batch item.
    fn work(&self, rows: usize) -> Result<(Work, [u32; 2])> {
        let row_tiles = rows.div_ceil(self.tile.rows());
        let column_tiles = self.shape.columns.div_ceil(self.tile.columns());
        let items = self.shape.batch as u128 * row_tiles as u128 * column_tiles as u128;
        let flops = 2.0 * (self.tile.rows() * self.tile.columns()) as f64 * self.shape.inner as f64;
        let work = self.kernels.work("the matrix product", items, flops)?;
        Ok((work, [row_tiles as u32, column_tiles as u32]))
    }
}

/// Checked buffers of a product.
#[derive(Clone)]
pub(in crate::gpu) struct Operands<'a> {
    pub(in crate::gpu) a: wgpu::BufferBinding<'a>,
    pub(in crate::gpu) b: wgpu::BufferBinding<'a>,
    pub(in crate::gpu) bias: Option<wgpu::BufferBinding<'a>>,
    pub(in crate::gpu) residual: Option<wgpu::BufferBinding<'a>>,
    pub(in crate::gpu) out: wgpu::BufferBinding<'a>,
}

/// A part of a product: how many rows and how much of the inner dimension, and where they begin.
#[derive(Clone, Copy)]
pub(in crate::gpu) struct Cut {
    pub(in crate::gpu) rows: usize,
    pub(in crate::gpu) inner: usize,
    pub(in crate::gpu) a: Start,
    pub(in crate::gpu) b: Start,
    /// Also of the residual.
    pub(in crate::gpu) out: Start,
}

/// A batch item, and a row of it as it is stored.
#[derive(Clone, Copy, Default)]
pub(in crate::gpu) struct Start {
    pub(in crate::gpu) item: usize,
    pub(in crate::gpu) row: usize,
}

impl Start {
    /// A row of the first batch item.
    pub(in crate::gpu) fn row(row: usize) -> Self {
        Self { item: 0, row }
    }

    /// The first row of a batch item.
    pub(in crate::gpu) fn item(item: usize) -> Self {
        Self { item, row: 0 }
    }
}

impl Cut {
    /// All of it.
    pub(in crate::gpu) fn all(shape: &MatmulShape) -> Self {
        let (rows, inner, start) = (shape.rows, shape.inner, Start::default());
        Self { rows, inner, a: start, b: start, out: start }
    }
}
