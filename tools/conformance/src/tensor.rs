//! Contiguous tensors in buffers of their own, with poison around them.

use anyhow::{Result, ensure};
use half::{bf16, f16};
use wgpu::util::DeviceExt;
use wgpu_attention::{Counter, ElementType};

use crate::bench::Bench;
use wgpu_attention_testing::POISON;

/// Bytes of poison before a tensor, a multiple of every device's offset alignment, and behind it.
const GUARD_BYTES: usize = 256;

/// A tensor.
pub(crate) struct Tensor {
    pub(crate) buffer: wgpu::Buffer,
    len: usize,
    element: ElementType,
}

impl Tensor {
    /// These values.
    pub(crate) fn of(bench: &Bench, values: &[f64], element: ElementType) -> Self {
        Self::new(bench, &encode(values, element), values.len(), element)
    }

    /// These numbers.
    pub(crate) fn words(bench: &Bench, words: &[u32]) -> Self {
        Self::new(bench, bytemuck::cast_slice(words), words.len(), ElementType::F32)
    }

    /// Elements as they lie in memory.
    pub(crate) fn elements<E: wgpu_attention::Element>(bench: &Bench, values: &[E]) -> Self {
        Self::new(bench, bytemuck::cast_slice(values), values.len(), E::TYPE)
    }

    /// Poison, to be written over.
    pub(crate) fn output(bench: &Bench, len: usize, element: ElementType) -> Self {
        let bytes = (len * element.size_bytes()).next_multiple_of(4);
        Self::new(bench, bytemuck::cast_slice(&vec![POISON; bytes / 4]), len, element)
    }

    fn new(bench: &Bench, bytes: &[u8], len: usize, element: ElementType) -> Self {
        let mut words = vec![POISON; (2 * GUARD_BYTES + bytes.len().next_multiple_of(4)) / 4];
        bytemuck::cast_slice_mut::<_, u8>(&mut words)[GUARD_BYTES..][..bytes.len()].copy_from_slice(bytes);
        let buffer = bench.gpu().device().create_buffer_init(&wgpu::util::BufferInitDescriptor {
            label: None,
            contents: bytemuck::cast_slice(&words),
            usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC,
        });
        Self { buffer, len, element }
    }

    pub(crate) fn binding(&self) -> wgpu::BufferBinding<'_> {
        let size = (self.len * self.element.size_bytes()).next_multiple_of(4) as u64;
        wgpu::BufferBinding {
            buffer: &self.buffer,
            offset: GUARD_BYTES as u64,
            size: wgpu::BufferSize::new(size),
        }
    }

    /// The tensor's own bytes, from what was read back, once the poison around them is found untouched.
    pub(crate) fn take<'a>(&self, all: &'a [u8]) -> Result<&'a [u8]> {
        let inside = GUARD_BYTES..GUARD_BYTES + self.len * self.element.size_bytes();
        let poison = POISON.to_le_bytes();
        let touched = (0..all.len()).find(|n| !inside.contains(n) && all[*n] != poison[n % 4]);
        ensure!(touched.is_none(), "byte {touched:?} was written; the output's are {inside:?}");
        Ok(&all[inside])
    }

    /// The elements.
    pub(crate) fn values(&self, all: &[u8]) -> Result<Vec<f64>> {
        Ok(decode(self.take(all)?, self.element))
    }
}

/// N(0, 1), rounded to a type.
pub(crate) fn normal(stream: u64, len: usize, element: ElementType) -> Vec<f64> {
    let draw = Counter::new(1, stream);
    decode(&encode(&(0..len as u64).map(|n| draw.normal(n)).collect::<Vec<_>>(), element), element)
}

fn encode(values: &[f64], element: ElementType) -> Vec<u8> {
    let bytes = |x: &f64| match element {
        ElementType::F32 => (*x as f32).to_le_bytes().to_vec(),
        ElementType::F16 => f16::from_f64(*x).to_le_bytes().to_vec(),
        ElementType::Bf16 => bf16::from_f64(*x).to_le_bytes().to_vec(),
    };
    values.iter().flat_map(bytes).collect()
}

fn decode(bytes: &[u8], element: ElementType) -> Vec<f64> {
    let all = bytes.chunks(element.size_bytes());
    match element {
        ElementType::F32 => all.map(|b| bytemuck::pod_read_unaligned::<f32>(b).into()).collect(),
        ElementType::F16 => all.map(|b| bytemuck::pod_read_unaligned::<f16>(b).to_f64()).collect(),
        ElementType::Bf16 => all.map(|b| bytemuck::pod_read_unaligned::<bf16>(b).to_f64()).collect(),
    }
}
