//! Integers for plain Rust users: slices in, `Vec`s out.

use super::{IntegerBuffers, IntegerMatmulBuffers};
use crate::gpu::Gpu;
use crate::gpu::bindings::whole;
use crate::gpu::layer::MatmulBuffers;
use crate::{
    Element, ElementType, Error, IntegerMatmulShape, IntegerOutput, MatmulShape, QuantizeRule, QuantizeShape,
    Quantized, Result,
};

/// A tensor of integers on the device.
struct Uploaded {
    words: wgpu::Buffer,
    scales: wgpu::Buffer,
    zero_points: Option<wgpu::Buffer>,
}

impl Uploaded {
    fn buffers(&self, has_scales: bool) -> IntegerBuffers<'_> {
        IntegerBuffers::new(whole(&self.words))
            .scales(has_scales.then(|| whole(&self.scales)))
            .zero_points(self.zero_points.as_ref().map(whole))
    }
}

impl Gpu {
    /// Quantises the numbers x `[rows, inner]`: integers, with their scales and zero points. The same as [`QuantizeShape::quantize`] on the host,
    /// except for the last bits on devices whose division is not rounded to nearest.
    ///
    /// # Errors
    /// [`Error::Argument`] for an x of another length and for the rule [`Given`](QuantizeRule::Given), whose scales
    /// [`Gpu::quantize_with`] takes; as [`Kernels::quantize`](crate::Kernels::quantize).
    ///
    /// ```no_run
    /// use wgpu_attention::{Gpu, IntegerFormat, IntegerType, QuantizeRule, QuantizeShape};
    /// let shape = QuantizeShape::new(1, 4, IntegerFormat::new(IntegerType::I8), QuantizeRule::Symmetric);
    /// let tensor = Gpu::new()?.quantize(&shape, &[0.5f32, -1.0, 0.25, 0.0])?;
    /// assert_eq!(tensor.values(), [64, -128, 32, 0]);
    /// # Ok::<(), wgpu_attention::Error>(())
    /// ```
    #[cfg(not(target_arch = "wasm32"))]
    pub fn quantize<I: Element>(&self, shape: &QuantizeShape, x: &[I]) -> Result<Quantized> {
        pollster::block_on(self.quantize_async(shape, x))
    }

    /// [`Gpu::quantize`] without blocking the caller's executor.
    ///
    /// # Errors
    /// As [`Gpu::quantize`].
    pub async fn quantize_async<I: Element>(&self, shape: &QuantizeShape, x: &[I]) -> Result<Quantized> {
        if shape.rule == QuantizeRule::Given {
            return Err(Error::argument("rule", "one that makes scales", "Given"));
        }
        let zero_points = shape.format.zero_points.then(|| vec![0; shape.len_scales()]);
        self.quantized(shape, x, vec![0.0; shape.len_scales()], zero_points.unwrap_or_default()).await
    }

    /// Quantises the numbers x `[rows, inner]` by the given scales and zero points: ONNX's `QuantizeLinear`.
    ///
    /// # Errors
    /// As [`QuantizeShape::quantize_with`] and [`Kernels::quantize`](crate::Kernels::quantize).
    ///
    /// ```no_run
    /// use wgpu_attention::{Gpu, IntegerFormat, IntegerType, QuantizeRule, QuantizeShape};
    /// let shape = QuantizeShape::new(1, 3, IntegerFormat::new(IntegerType::I8), QuantizeRule::Given);
    /// let tensor = Gpu::new()?.quantize_with(&shape, &[0.5f32, -1.0, 0.2], vec![0.25], vec![])?;
    /// assert_eq!(tensor.values(), [2, -4, 1]);
    /// # Ok::<(), wgpu_attention::Error>(())
    /// ```
    #[cfg(not(target_arch = "wasm32"))]
    pub fn quantize_with<I: Element>(
        &self,
        shape: &QuantizeShape,
        x: &[I],
        scales: Vec<f32>,
        zero_points: Vec<i32>,
    ) -> Result<Quantized> {
        pollster::block_on(self.quantize_with_async(shape, x, scales, zero_points))
    }

    /// [`Gpu::quantize_with`] without blocking the caller's executor.
    ///
    /// # Errors
    /// As [`Gpu::quantize_with`].
    pub async fn quantize_with_async<I: Element>(
        &self,
        shape: &QuantizeShape,
        x: &[I],
        scales: Vec<f32>,
        zero_points: Vec<i32>,
    ) -> Result<Quantized> {
        if shape.rule != QuantizeRule::Given {
            return Err(Error::argument("rule", "Given, since the scales are", format!("{:?}", shape.rule)));
        }
        let none = vec![0; shape.rows * shape.inner];
        Quantized::new(shape.format, shape.rows, shape.inner, &none, scales.clone(), zero_points.clone())
            .map(drop)?;
        self.quantized(shape, x, scales, zero_points).await
    }

    /// Runs a quantisation; scales and zero points are as many as there should be.
    async fn quantized<I: Element>(
        &self,
        shape: &QuantizeShape,
        x: &[I],
        scales: Vec<f32>,
        zero_points: Vec<i32>,
    ) -> Result<Quantized> {
        let shape = shape.input(I::TYPE);
        let plan = self.kernels().quantize(&shape)?;
        let x = self.slice("x", x, shape.len_x(), false)?;
        self.check_alive()?;
        let (format, rows, inner) = (shape.format, shape.rows, shape.inner);
        let mut made = Quantized { format, rows, inner, words: vec![], scales, zero_points };
        if rows == 0 {
            return Ok(made);
        }
        let words = self.output("words", shape.len_words(), ElementType::F32)?;
        let given = shape.rule == QuantizeRule::Given;
        let beside = |name, bytes: &[u32]| match given {
            true => self.upload(name, bytes, bytes.len()),
            false => self.output(name, bytes.len(), ElementType::F32),
        };
        let scales = beside("scales", bytemuck::cast_slice(&made.scales))?;
        let zero_points = format
            .zero_points
            .then(|| beside("zero_points", bytemuck::cast_slice(&made.zero_points)))
            .transpose()?;
        let uploaded = Uploaded { words, scales, zero_points };
        let call = plan.bind(whole(&x), uploaded.buffers(true)).map_err(|e| self.or_lost(e))?;
        let mut outputs = vec![&uploaded.words];
        if !given {
            outputs.push(&uploaded.scales);
            outputs.extend(uploaded.zero_points.as_ref());
        }
        let fetched = self.fetch(&outputs, |encoder| call.encode(encoder)).await?;
        made.words = fetched.take(0, shape.len_words())?;
        if !given {
            made.scales = fetched.take(1, made.scales.len())?;
        }
        if !given && format.zero_points {
            made.zero_points = fetched.take(2, made.zero_points.len())?;
        }
        Ok(made)
    }

    /// The numbers `[rows, inner]` that a tensor of integers stands for.
    ///
    /// # Errors
    /// As [`Quantized::check`] and [`Kernels::dequantize`](crate::Kernels::dequantize).
    ///
    /// ```no_run
    /// use wgpu_attention::{Gpu, IntegerFormat, IntegerType, Quantized};
    /// let tensor = Quantized::new(IntegerFormat::new(IntegerType::I8), 1, 2, &[3, -4], vec![0.5], vec![])?;
    /// assert_eq!(Gpu::new()?.dequantize::<f32>(&tensor)?, [1.5, -2.0]);
    /// # Ok::<(), wgpu_attention::Error>(())
    /// ```
    #[cfg(not(target_arch = "wasm32"))]
    pub fn dequantize<O: Element>(&self, tensor: &Quantized) -> Result<Vec<O>> {
        pollster::block_on(self.dequantize_async(tensor))
    }

    /// [`Gpu::dequantize`] without blocking the caller's executor.
    ///
    /// # Errors
    /// As [`Gpu::dequantize`].
    pub async fn dequantize_async<O: Element>(&self, tensor: &Quantized) -> Result<Vec<O>> {
        let plan = self.kernels().dequantize(tensor.format, tensor.rows, tensor.inner, O::TYPE)?;
        let integers = self.integers("tensor", tensor, tensor.format, [tensor.rows, tensor.inner])?;
        let bind = |out: &wgpu::Buffer| plan.bind(integers.buffers(true), whole(out));
        self.layer(tensor.rows * tensor.inner, None, bind).await
    }

    /// x W^T (+ bias), with x `[rows, inner]` and W `[columns, inner]` of integers: a product of [`MatmulShape::integers`], whose format is W's.
    ///
    /// # Errors
    /// [`Error::Argument`] for a W of another format or other sizes than the shape's, for combinations other than
    /// [`Store`](crate::Combine::Store), and as [`Gpu::matmul`].
    ///
    /// ```no_run
    /// use wgpu_attention::{Gpu, IntegerFormat, IntegerType, MatmulShape, QuantizeRule, QuantizeShape, WeightOrder};
    /// let format = IntegerFormat::new(IntegerType::I8);
    /// let weight = QuantizeShape::new(2, 3, format, QuantizeRule::Symmetric).quantize(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0])?;
    /// let shape = MatmulShape::new(1, 3, 2).weights(WeightOrder::OutIn).integers(format);
    /// let y: Vec<f32> = Gpu::new()?.quantized_matmul(&shape, &[1.0f32, 1.0, 1.0], &weight, None::<&[f32]>)?;
    /// # Ok::<(), wgpu_attention::Error>(())
    /// ```
    #[cfg(not(target_arch = "wasm32"))]
    pub fn quantized_matmul<I: Element, W: Element, O: Element>(
        &self,
        shape: &MatmulShape,
        x: &[I],
        weight: &Quantized,
        bias: Option<&[W]>,
    ) -> Result<Vec<O>> {
        pollster::block_on(self.quantized_matmul_async(shape, x, weight, bias))
    }

    /// [`Gpu::quantized_matmul`] without blocking the caller's executor.
    ///
    /// # Errors
    /// As [`Gpu::quantized_matmul`].
    pub async fn quantized_matmul_async<I: Element, W: Element, O: Element>(
        &self,
        shape: &MatmulShape,
        x: &[I],
        weight: &Quantized,
        bias: Option<&[W]>,
    ) -> Result<Vec<O>> {
        let shape = shape.input(I::TYPE).weight(W::TYPE).output(O::TYPE);
        let Some(format) = shape.integers else {
            return Err(Error::argument("integers", format!("{} in the shape", weight.format), "none"));
        };
        if shape.combine != crate::Combine::Store {
            return Err(Error::argument("combine", "Store", format!("{:?}", shape.combine)));
        }
        let plan = self.kernels_for(shape.flops())?.matmul(&shape)?;
        let a = self.slice("x", x, shape.len_a(), shape.a_strides.is_some())?;
        let b = self.integers("weight", weight, format, [shape.columns, shape.inner])?;
        let bias = self.optional("bias", bias, shape.bias, shape.columns, false)?;
        let bind = |out: &wgpu::Buffer| {
            let buffers = MatmulBuffers::new(whole(&a), whole(&b.words), whole(out))
                .scales(whole(&b.scales))
                .zero_points(b.zero_points.as_ref().map(whole));
            plan.bind(buffers.bias(bias.as_ref().map(whole)))
        };
        self.layer(shape.len_out(), None, bind).await
    }

    /// The exact sums of a product of integers `[rows, columns]`: ONNX's `MatMulInteger`, but that B is `[columns, inner]`.
    ///
    /// # Errors
    /// [`Error::Argument`] for tensors of other formats or sizes than the shape's, for another output than [`IntegerOutput::Sums`], and as
    /// [`Kernels::integer_matmul`](crate::Kernels::integer_matmul).
    ///
    /// ```no_run
    /// use wgpu_attention::{Gpu, IntegerFormat, IntegerMatmulShape, IntegerOutput, IntegerType, Quantized};
    /// let format = IntegerFormat::new(IntegerType::I8);
    /// // 1 row of A and 1 column of out, 2 elements each.
    /// let a = Quantized::new(format, 1, 2, &[2, 3], vec![0.5], vec![])?;
    /// let b = Quantized::new(format, 1, 2, &[4, 5], vec![2.0], vec![])?;
    /// let shape = IntegerMatmulShape::new(1, 2, 1, format, format).output(IntegerOutput::Sums);
    /// assert_eq!(Gpu::new()?.integer_sums(&shape, &a, &b)?, [2 * 4 + 3 * 5]);
    /// # Ok::<(), wgpu_attention::Error>(())
    /// ```
    #[cfg(not(target_arch = "wasm32"))]
    pub fn integer_sums(&self, shape: &IntegerMatmulShape, a: &Quantized, b: &Quantized) -> Result<Vec<i32>> {
        pollster::block_on(self.integer_sums_async(shape, a, b))
    }

    /// [`Gpu::integer_sums`] without blocking the caller's executor.
    ///
    /// # Errors
    /// As [`Gpu::integer_sums`].
    pub async fn integer_sums_async(
        &self,
        shape: &IntegerMatmulShape,
        a: &Quantized,
        b: &Quantized,
    ) -> Result<Vec<i32>> {
        if shape.output != IntegerOutput::Sums {
            return Err(Error::argument("output", "Sums", format!("{:?}", shape.output)));
        }
        self.integer_product(shape, a, b, None).await
    }

    /// A product of integers, as bytes of another scale: ONNX's `QLinearMatMul`, but that B is `[columns, inner]`. The integers
    /// `[rows, columns]` come unpacked.
    ///
    /// # Errors
    /// As [`Gpu::integer_sums`], of the output [`IntegerOutput::Requantized`].
    ///
    /// ```no_run
    /// use wgpu_attention::{Gpu, IntegerFormat, IntegerMatmulShape, IntegerOutput, IntegerType, Quantized};
    /// let format = IntegerFormat::new(IntegerType::I8);
    /// // 1 row of A and 1 column of out, 2 elements each.
    /// let a = Quantized::new(format, 1, 2, &[2, 3], vec![0.5], vec![])?;
    /// let b = Quantized::new(format, 1, 2, &[4, 5], vec![2.0], vec![])?;
    /// let output = IntegerOutput::Requantized { element: IntegerType::I8, scale: 1.0, zero_point: 7 };
    /// let shape = IntegerMatmulShape::new(1, 2, 1, format, format).output(output);
    /// assert_eq!(Gpu::new()?.integer_requantized(&shape, &a, &b)?, [23 + 7]); // 23 * 0.5 * 2.0 / 1.0
    /// # Ok::<(), wgpu_attention::Error>(())
    /// ```
    #[cfg(not(target_arch = "wasm32"))]
    pub fn integer_requantized(
        &self,
        shape: &IntegerMatmulShape,
        a: &Quantized,
        b: &Quantized,
    ) -> Result<Vec<i32>> {
        pollster::block_on(self.integer_requantized_async(shape, a, b))
    }

    /// [`Gpu::integer_requantized`] without blocking the caller's executor.
    ///
    /// # Errors
    /// As [`Gpu::integer_requantized`].
    pub async fn integer_requantized_async(
        &self,
        shape: &IntegerMatmulShape,
        a: &Quantized,
        b: &Quantized,
    ) -> Result<Vec<i32>> {
        let IntegerOutput::Requantized { element, .. } = shape.output else {
            return Err(Error::argument("output", "Requantized", format!("{:?}", shape.output)));
        };
        let words = self.integer_product(shape, a, b, None).await?;
        let (rows, inner) = (shape.rows, shape.columns);
        let format = crate::IntegerFormat::new(element);
        let out = Quantized { format, rows, inner, words, scales: vec![], zero_points: vec![] };
        Ok(out.values())
    }

    /// A product of integers scaled to numbers `[rows, columns]`, with a bias `[columns]` if the shape has one: a linear layer of quantised
    /// activations.
    ///
    /// # Errors
    /// As [`Gpu::integer_sums`], of the output [`IntegerOutput::Scaled`], whose storage is O's.
    ///
    /// ```no_run
    /// use wgpu_attention::{Gpu, IntegerFormat, IntegerMatmulShape, IntegerType, Quantized};
    /// let format = IntegerFormat::new(IntegerType::I8);
    /// // 1 row of A and 1 column of out, 2 elements each.
    /// let a = Quantized::new(format, 1, 2, &[2, 3], vec![0.5], vec![])?;
    /// let b = Quantized::new(format, 1, 2, &[4, 5], vec![2.0], vec![])?;
    /// let shape = IntegerMatmulShape::new(1, 2, 1, format, format).bias(true);
    /// let out: Vec<f32> = Gpu::new()?.integer_matmul(&shape, &a, &b, Some(&[1.0]))?;
    /// assert_eq!(out, [23.0 + 1.0]);
    /// # Ok::<(), wgpu_attention::Error>(())
    /// ```
    #[cfg(not(target_arch = "wasm32"))]
    pub fn integer_matmul<O: Element>(
        &self,
        shape: &IntegerMatmulShape,
        a: &Quantized,
        b: &Quantized,
        bias: Option<&[f32]>,
    ) -> Result<Vec<O>> {
        pollster::block_on(self.integer_matmul_async(shape, a, b, bias))
    }

    /// [`Gpu::integer_matmul`] without blocking the caller's executor.
    ///
    /// # Errors
    /// As [`Gpu::integer_matmul`].
    pub async fn integer_matmul_async<O: Element>(
        &self,
        shape: &IntegerMatmulShape,
        a: &Quantized,
        b: &Quantized,
        bias: Option<&[f32]>,
    ) -> Result<Vec<O>> {
        if !matches!(shape.output, IntegerOutput::Scaled(_)) {
            return Err(Error::argument("output", "Scaled", format!("{:?}", shape.output)));
        }
        self.integer_product(&shape.output(IntegerOutput::Scaled(O::TYPE)), a, b, bias).await
    }

    async fn integer_product<O: bytemuck::Pod>(
        &self,
        shape: &IntegerMatmulShape,
        a: &Quantized,
        b: &Quantized,
        bias: Option<&[f32]>,
    ) -> Result<Vec<O>> {
        let plan = self.kernels_for(shape.flops())?.integer_matmul(shape)?;
        let a = self.integers("a", a, shape.a, [shape.rows, shape.inner])?;
        let b = self.integers("b", b, shape.b, [shape.columns, shape.inner])?;
        let bias = self.optional("bias", bias, shape.bias, shape.columns, false)?;
        self.check_alive()?;
        if shape.rows == 0 {
            return Ok(vec![]);
        }
        let out = self.output("out", shape.len_out(), shape.out_type())?;
        let scales = shape.has_scales();
        let buffers = IntegerMatmulBuffers::new(a.buffers(scales), b.buffers(scales), whole(&out));
        let call = plan.bind(buffers.bias(bias.as_ref().map(whole))).map_err(|e| self.or_lost(e))?;
        self.fetch(&[&out], |encoder| call.encode(encoder)).await?.take(0, shape.len_out())
    }

    /// A tensor of integers on the device, which must be of this format and these sizes.
    fn integers(
        &self,
        name: &'static str,
        tensor: &Quantized,
        format: crate::IntegerFormat,
        [rows, inner]: [usize; 2],
    ) -> Result<Uploaded> {
        if (tensor.format, tensor.rows, tensor.inner) != (format, rows, inner) {
            let got = format!("{} [{}, {}]", tensor.format, tensor.rows, tensor.inner);
            return Err(Error::argument(name, format!("{format} [{rows}, {inner}]"), got));
        }
        tensor.check()?;
        let zero_points = format
            .zero_points
            .then(|| self.upload("zero_points", &tensor.zero_points, tensor.zero_points.len()));
        Ok(Uploaded {
            words: self.upload(name, &tensor.words, tensor.words.len())?,
            scales: self.upload("scales", &tensor.scales, tensor.scales.len())?,
            zero_points: zero_points.transpose()?,
        })
    }
}
