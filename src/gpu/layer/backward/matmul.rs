//! Gradients of the matrix product.

use super::products::{RowsOf, SummedProduct, SummedRows};
use super::shapes::{is_shared, of_argument, shape_of_da, shape_of_db};
use crate::construct::constructed;
use crate::gpu::Kernels;
use crate::gpu::bindings::{Access, Bindings, check_aliasing, checked_binding, optional_binding, scratch};
use crate::gpu::call::{Call, Stage};
use crate::gpu::layer::activation::ActivationKernel;
use crate::gpu::layer::matmul::{Cut, MatmulPlan, Operands, Start};
use crate::gpu::pipeline::Step;
use crate::gpu::zeros::zeros;
use crate::wgsl::ActivationPass;
use crate::{
    AOrder, ActivationShape, Combine, ElementType, Error, MatmulShape, Result, RowStrides, WeightOrder,
};

/// The gradients of a matrix product: made by [`MatmulPlan::backward`].
///
/// They are products themselves, on the kernel of the forward pass: with S = A B + bias and dS = dC act'(S),
///
/// ```text
/// dA = dS B^T        dB = A^T dS        dbias = the sums of dS's columns
/// ```
///
/// All are f32 and contiguous, dA and dB in the order of A and B, and so are the sums. A B that all batch items share
/// ([`RowStrides::batch`] of 0) gets the sum over them, in their order; so does an A. Where there is an activation, S is computed
/// again, into scratch. The gradient by a residual, or by what out held before, is dC itself. The same call gives the same bits.
#[derive(Debug, Clone)]
pub struct MatmulBackwardPlan {
    kernels: Kernels,
    shape: MatmulShape,
    argument: Option<Argument>,
    /// None where there is nothing to compute but zeros.
    products: Option<Products>,
}

/// S and the kernel that makes dS of it, in its place.
#[derive(Debug, Clone)]
struct Argument {
    product: MatmulPlan,
    slope: ActivationKernel,
}

#[derive(Debug, Clone)]
struct Products {
    da: SummedProduct,
    db: SummedProduct,
    dbias: Option<SummedRows>,
}

/// The buffers of a product's gradients. All need `BufferUsages::STORAGE`; what is written may not be a buffer that is also
/// read. A gradient that is not given is not computed.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct MatmulGradBuffers<'a> {
    /// A, as in the forward pass.
    pub a: wgpu::BufferBinding<'a>,
    /// B, as in the forward pass.
    pub b: wgpu::BufferBinding<'a>,
    /// The gradient of C, stored and lying as C.
    pub dout: wgpu::BufferBinding<'a>,
    /// The bias, if and only if the shape has one and an activation.
    pub bias: Option<wgpu::BufferBinding<'a>>,
    /// The gradient by A, if wanted: [`MatmulBackwardPlan::len_da`] f32.
    pub da: Option<wgpu::BufferBinding<'a>>,
    /// The gradient by B, if wanted: [`MatmulBackwardPlan::len_db`] f32.
    pub db: Option<wgpu::BufferBinding<'a>>,
    /// The gradient by the bias, if there is one and it is wanted: `columns` f32.
    pub dbias: Option<wgpu::BufferBinding<'a>>,
    /// [`MatmulBackwardPlan::scratch_bytes`], so that several calls share them; `None` allocates.
    pub scratch: Option<wgpu::BufferBinding<'a>>,
}

constructed! {
    MatmulGradBuffers ['a] { a: wgpu::BufferBinding<'a>, b: wgpu::BufferBinding<'a>, dout: wgpu::BufferBinding<'a> }
    { bias: wgpu::BufferBinding<'a>, da: wgpu::BufferBinding<'a>, db: wgpu::BufferBinding<'a>, dbias: wgpu::BufferBinding<'a>, scratch: wgpu::BufferBinding<'a> }
}

impl MatmulPlan {
    /// Plans the gradients of this product by A, B and the bias, and compiles their kernels.
    ///
    /// # Errors
    /// [`Error::Argument`] for [`Combine::MultiplyInto`], since what out held before is gone, and for a C with an activation whose
    /// rows are not contiguous; [`Error::Limit`] where an element offset would pass 32 bits; [`Error::Device`] for what wgpu
    /// reports while compiling.
    ///
    /// ```no_run
    /// use wgpu_attention::{Activation, Kernels, MatmulGradBuffers, MatmulShape, WeightOrder};
    /// # fn example(kernels: &Kernels, encoder: &mut wgpu::CommandEncoder, buffers: [&wgpu::Buffer; 6])
    /// # -> wgpu_attention::Result<()> {
    /// let shape = MatmulShape::new(512, 768, 768).weights(WeightOrder::OutIn).bias(true);
    /// let plan = kernels.matmul(&shape)?.backward()?;
    /// let [x, w, dy, dx, dw, db] = buffers.map(wgpu::Buffer::as_entire_buffer_binding);
    /// plan.bind(MatmulGradBuffers::new(x, w, dy).da(dx).db(dw).dbias(db))?.encode(encoder);
    /// # Ok(())
    /// # }
    /// ```
    pub fn backward(&self) -> Result<MatmulBackwardPlan> {
        let (kernels, shape) = (self.kernels().clone(), *self.shape());
        if shape.combine == Combine::MultiplyInto {
            let need = "Store, Add or AddInto where gradients are wanted: what out held before is gone";
            return Err(Error::argument("combine", need, format!("{:?}", shape.combine)));
        }
        if let Some(format) = shape.integers {
            let need = "none where gradients are wanted: integers have no gradient";
            return Err(Error::argument("integers", need, format));
        }
        let contiguous = RowStrides::contiguous(shape.rows, shape.columns);
        if let (Some(_), Some(got)) = (shape.activation, shape.out_strides.filter(|it| *it != contiguous)) {
            let need = "contiguous rows, or none, where an activation is differentiated";
            return Err(Error::argument("out_strides", need, format!("{got:?}")));
        }
        if shape.is_empty() {
            return Ok(MatmulBackwardPlan { kernels, shape, argument: None, products: None });
        }
        let argument = Argument::new(&kernels, &shape)?;
        let products = Some(Products::new(&kernels, &shape)?);
        Ok(MatmulBackwardPlan { kernels, shape, argument, products })
    }
}

impl Argument {
    /// None without an activation.
    fn new(kernels: &Kernels, shape: &MatmulShape) -> Result<Option<Self>> {
        let Some(activation) = shape.activation else { return Ok(None) };
        let product = MatmulShape { activation: None, combine: Combine::Store, out_strides: None, ..*shape };
        let product = product.output(ElementType::F32);
        let elements = shape.batch * shape.rows * shape.columns;
        let slope = ActivationShape::new(elements, activation).output(shape.output);
        slope.check()?;
        Ok(Some(Self {
            product: MatmulPlan::of_gradient(kernels, &product, &product)?,
            slope: ActivationKernel::new(kernels, &slope, ActivationPass::OverArgument)?,
        }))
    }
}

impl Products {
    fn new(kernels: &Kernels, shape: &MatmulShape) -> Result<Self> {
        let (element, strides) = of_argument(shape);
        let shared = |strides| is_shared(shape, strides);
        let (da, db) = (shape_of_da(shape), shape_of_db(shape));
        let dbias =
            || SummedRows::new(kernels, [shape.rows, shape.columns], element, strides, shape.batch > 1);
        Ok(Self {
            da: SummedProduct::new(kernels, &da, shared(shape.strides_of_a()))?,
            db: SummedProduct::new(kernels, &db, shared(shape.strides_of_b()))?,
            dbias: shape.bias.then(dbias).transpose()?,
        })
    }
}

/// Checked buffers.
struct Checked<'a> {
    a: wgpu::BufferBinding<'a>,
    b: wgpu::BufferBinding<'a>,
    bias: Option<wgpu::BufferBinding<'a>>,
    dout: wgpu::BufferBinding<'a>,
    /// Of da, db and dbias.
    gradients: [Option<wgpu::BufferBinding<'a>>; 3],
    scratch: Option<wgpu::BufferBinding<'a>>,
}

impl MatmulBackwardPlan {
    /// The shape of the product.
    pub fn shape(&self) -> &MatmulShape {
        &self.shape
    }

    /// Elements of the gradient by A: those of A without gaps, of one batch item where all share it.
    pub fn len_da(&self) -> usize {
        let items = if is_shared(&self.shape, self.shape.strides_of_a()) { 1 } else { self.shape.batch };
        items * self.shape.rows * self.shape.inner
    }

    /// Elements of the gradient by B: those of B without gaps, of one batch item where all share it.
    pub fn len_db(&self) -> usize {
        let items = if is_shared(&self.shape, self.shape.strides_of_b()) { 1 } else { self.shape.batch };
        items * self.shape.inner * self.shape.columns
    }

    /// Bytes of S, where there is an activation: one f32 per element of C. Otherwise 0.
    pub fn scratch_bytes(&self) -> u64 {
        match self.shape.activation {
            Some(_) => 4 * (self.shape.batch * self.shape.rows * self.shape.columns) as u64,
            None => 0,
        }
    }

    /// Checks the buffers and binds them: nothing is recorded yet.
    ///
    /// # Errors
    /// As [`MatmulPlan::bind`].
    pub fn bind(&self, buffers: MatmulGradBuffers<'_>) -> Result<Call> {
        let own = match (&self.argument, &buffers.scratch) {
            (Some(_), None) => {
                let what = "the argument of an activation";
                Some(scratch(self.kernels.device(), what, self.scratch_bytes())?)
            }
            _ => None,
        };
        let given = buffers.scratch.clone().or(own.as_ref().map(wgpu::Buffer::as_entire_buffer_binding));
        let checked = self.checked(&buffers, given)?;
        let [da, db, dbias] = &checked.gradients;
        let mut steps = vec![];
        let Some(products) = &self.products else {
            for (len, out) in [(self.len_da(), da), (self.len_db(), db), (self.shape.columns, dbias)] {
                if let (Some(out), true) = (out, len > 0) {
                    steps.push((Stage::Main, zeros(&self.kernels, len, out.clone())?));
                }
            }
            return Ok(Call::new("matmul backward", steps));
        };
        if checked.gradients.iter().all(Option::is_none) {
            return Ok(Call::new("matmul backward", []));
        }
        let mut main = vec![];
        if let Some(da) = da {
            main.extend(self.steps_of_da(&products.da, &checked, da)?);
        }
        if let Some(db) = db {
            main.extend(self.steps_of_db(&products.db, &checked, db)?);
        }
        if let (Some(sums), Some(dbias)) = (&products.dbias, dbias) {
            main.extend(self.steps_of_dbias(sums, &checked, dbias)?);
        }
        steps.extend(self.steps_of_argument(&checked)?.into_iter().map(|step| (Stage::Prepare, step)));
        steps.extend(main.into_iter().map(|step| (Stage::Main, step)));
        Ok(Call::new("matmul backward", steps))
    }

    /// The buffers, each checked and cut to its tensor.
    fn checked<'a>(
        &self,
        buffers: &MatmulGradBuffers<'a>,
        given: Option<wgpu::BufferBinding<'a>>,
    ) -> Result<Checked<'a>> {
        let (shape, limits) = (&self.shape, self.kernels.device().limits());
        let gradient = |name, binding: &Option<_>, len, may: bool| {
            let wanted = binding.is_some() && may;
            optional_binding(&limits, name, binding, wanted, len, ElementType::F32)
        };
        let needs_bias = shape.bias && shape.activation.is_some();
        let elements = self.scratch_bytes() as usize / 4;
        let a = checked_binding(&limits, "a", &buffers.a, shape.len_a(), shape.input)?;
        let b = checked_binding(&limits, "b", &buffers.b, shape.len_b(), shape.weight)?;
        let bias = optional_binding(&limits, "bias", &buffers.bias, needs_bias, shape.columns, shape.weight)?;
        let dout = checked_binding(&limits, "dout", &buffers.dout, shape.len_out(), shape.output)?;
        let da = gradient("da", &buffers.da, self.len_da(), true)?;
        let db = gradient("db", &buffers.db, self.len_db(), true)?;
        let dbias = gradient("dbias", &buffers.dbias, shape.columns, shape.bias)?;
        let has_scratch = self.argument.is_some();
        let scratch = optional_binding(&limits, "scratch", &given, has_scratch, elements, ElementType::F32)?;
        let named = [
            ("a", Some(&a), Access::Read),
            ("b", Some(&b), Access::Read),
            ("bias", bias.as_ref(), Access::Read),
            ("dout", Some(&dout), Access::Read),
            ("da", da.as_ref(), Access::Write),
            ("db", db.as_ref(), Access::Write),
            ("dbias", dbias.as_ref(), Access::Write),
            ("scratch", scratch.as_ref(), Access::Both),
        ];
        check_aliasing(&named, self.kernels.options().shared_buffers)?;
        Ok(Checked { a, b, bias, dout, gradients: [da, db, dbias], scratch })
    }

    /// S, and dS in its place.
    fn steps_of_argument(&self, checked: &Checked<'_>) -> Result<Vec<Step>> {
        let (Some(Argument { product, slope }), Some(scratch)) = (&self.argument, &checked.scratch) else {
            return Ok(vec![]);
        };
        let operands = Operands {
            a: checked.a.clone(),
            b: checked.b.clone(),
            bias: checked.bias.clone(),
            residual: None,
            out: scratch.clone(),
        };
        let bindings = Bindings::default().with("x", scratch.clone()).with("dout", checked.dout.clone());
        let elements = self.scratch_bytes() as usize / 4;
        Ok(vec![
            product.step(&operands, Cut::all(product.shape()))?,
            slope.step(&self.kernels, elements, &bindings)?,
        ])
    }

    fn steps_of_da<'a>(
        &self,
        product: &SummedProduct,
        checked: &Checked<'a>,
        out: &wgpu::BufferBinding<'a>,
    ) -> Result<Vec<Step>> {
        let ds = checked.scratch.clone().unwrap_or(checked.dout.clone());
        let [a, b] = match self.shape.a_order {
            AOrder::RowsInner => [ds, checked.b.clone()],
            AOrder::InnerRows => [checked.b.clone(), ds],
        };
        let is_shared = is_shared(&self.shape, self.shape.strides_of_a());
        self.summed(product, &Operands { a, b, bias: None, residual: None, out: out.clone() }, is_shared)
    }

    fn steps_of_db<'a>(
        &self,
        product: &SummedProduct,
        checked: &Checked<'a>,
        out: &wgpu::BufferBinding<'a>,
    ) -> Result<Vec<Step>> {
        let ds = checked.scratch.clone().unwrap_or(checked.dout.clone());
        let [a, b] = match self.shape.weights {
            WeightOrder::InOut => [checked.a.clone(), ds],
            WeightOrder::OutIn => [ds, checked.a.clone()],
        };
        let is_shared = is_shared(&self.shape, self.shape.strides_of_b());
        self.summed(product, &Operands { a, b, bias: None, residual: None, out: out.clone() }, is_shared)
    }

    /// One step, or one per batch item, each added to those before.
    fn summed(&self, product: &SummedProduct, operands: &Operands<'_>, is_shared: bool) -> Result<Vec<Step>> {
        let items = if is_shared { self.shape.batch } else { 1 };
        let of_item = |item| {
            let cut = Cut { a: Start::item(item), b: Start::item(item), ..product.whole() };
            product.step(operands, cut, item == 0)
        };
        (0..items).map(of_item).collect()
    }

    fn steps_of_dbias<'a>(
        &self,
        sums: &SummedRows,
        checked: &Checked<'a>,
        out: &wgpu::BufferBinding<'a>,
    ) -> Result<Vec<Step>> {
        let ds = checked.scratch.as_ref().unwrap_or(&checked.dout);
        let (rows, strides) = (self.shape.rows, of_argument(&self.shape).1);
        let mut steps = vec![];
        for item in 0..self.shape.batch {
            let of_item = RowsOf { rows, at: strides.at(item, 0), row: strides.row };
            steps.extend(sums.steps(ds, of_item, out, item == 0)?);
        }
        Ok(steps)
    }
}
