//! Values of element types that are known when it runs, in rows that lie anywhere.

use half::{bf16, f16};

use crate::gpu::Fetched;
use crate::{Element, ElementType, Gpu, Layout, Result, Strides};

/// A tensor's rows: batch items, heads, positions, and the elements of each.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rows {
    pub(super) sizes: [usize; 3],
    pub(super) dim: usize,
    strides: Strides,
}

impl Rows {
    pub(super) fn new(layout: Layout, sizes: [usize; 3], dim: usize) -> Self {
        let [_, heads, len] = sizes;
        Self { sizes, dim, strides: layout.strides(heads, len, dim) }
    }

    /// Elements up to the end of the row that lies last.
    pub(super) fn extent(&self) -> usize {
        self.strides.extent(self.sizes, self.dim)
    }

    /// Where each row starts, those of a contiguous tensor in their order.
    fn starts(&self) -> impl Iterator<Item = usize> {
        let ([batch, heads, len], strides) = (self.sizes, self.strides);
        (0..batch * heads * len).map(move |n| strides.at(n / len / heads, n / len % heads, n % len))
    }

    /// Contiguous rows as they lie, with 0 between them.
    pub(super) fn spread<E: Element>(&self, values: &[f64]) -> Vec<E> {
        let mut lying = vec![E::from_f64(0.0); self.extent()];
        for (start, row) in self.starts().zip(values.chunks(self.dim.max(1))) {
            lying[start..start + self.dim].iter_mut().zip(row).for_each(|(to, &x)| *to = E::from_f64(x));
        }
        lying
    }

    /// Rows as they lie, contiguous.
    pub(super) fn gathered(&self, lying: &[f64]) -> Vec<f64> {
        self.starts().flat_map(|start| lying[start..start + self.dim].iter().copied()).collect()
    }

    /// On the device.
    pub(super) fn uploaded(&self, gpu: &Gpu, values: &[f64], element: ElementType) -> Result<wgpu::Buffer> {
        typed!(element, E => gpu.upload("dout", &self.spread::<E>(values), self.extent()))
    }

    /// The n-th buffer that was brought back.
    pub(super) fn taken(&self, fetched: &Fetched, n: usize, element: ElementType) -> Result<Vec<f64>> {
        let lying: Vec<f64> = typed!(element, E => {
            fetched.take::<E>(n, self.extent())?.into_iter().map(Into::into).collect()
        });
        Ok(self.gathered(&lying))
    }
}

/// The nearest value that every one of these types has.
pub(super) fn rounded(x: f64, types: [ElementType; 2]) -> f64 {
    types.into_iter().fold(x, |x, element| match element {
        ElementType::F32 => f64::from(x as f32),
        ElementType::F16 => f16::from_f64(x).into(),
        ElementType::Bf16 => bf16::from_f64(x).into(),
    })
}
