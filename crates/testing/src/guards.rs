use super::layouts::covered;
use wgpu::util::DeviceExt;
use wgpu_attention::{Attention, Element, Strides};

/// A NaN in f32, and in both halves as f16 and as bf16.
pub const POISON: u32 = 0x7fff_7fff;

/// Bytes of poison behind a tensor; before it there is one whole unit of the offset alignment.
const GUARD_BYTES: usize = 256;

/// Where the elements of a tensor lie.
#[derive(Debug, Clone, Copy)]
pub(super) struct Extents {
    pub(super) strides: Strides,
    pub(super) sizes: [usize; 3],
    pub(super) dim: usize,
    pub(super) len: usize,
}

/// A tensor in a buffer whose every other byte is poison: before it, behind it, between its rows.
pub struct Guarded {
    /// With guards around the tensor.
    pub buffer: wgpu::Buffer,
    offset: usize,
    bytes: usize,
    name: &'static str,
    covered: Vec<bool>,
}

impl Guarded {
    /// An input: `data` where rows are, NaN elsewhere.
    pub(super) fn input<E: Element>(
        device: &wgpu::Device,
        name: &'static str,
        data: &[E],
        at: Extents,
    ) -> Self {
        Self::new(device, name, size_of::<E>(), at, Some(bytemuck::cast_slice(data)))
    }

    /// An output: poison everywhere.
    pub(super) fn output(
        device: &wgpu::Device,
        name: &'static str,
        element_bytes: usize,
        at: Extents,
    ) -> Self {
        Self::new(device, name, element_bytes, at, None)
    }

    /// The output of a call.
    pub fn of_rows(
        device: &wgpu::Device,
        name: &'static str,
        element_bytes: usize,
        attention: &Attention,
    ) -> Self {
        let shape = &attention.shape;
        let sizes = [shape.batch, shape.heads, shape.q_len];
        let (strides, len) = (attention.out_strides(), attention.len_out());
        let at = Extents { strides, sizes, dim: shape.value_dim, len };
        Self::output(device, name, element_bytes, at)
    }

    /// What the buffer holds as long as nothing is written.
    pub fn bytes(&self) -> Vec<u8> {
        POISON.to_le_bytes().repeat(self.buffer.size() as usize / 4)
    }

    fn new(device: &wgpu::Device, name: &'static str, size: usize, at: Extents, data: Option<&[u8]>) -> Self {
        let covered = covered(at.strides, at.sizes, at.dim, at.len);
        let offset = device.limits().min_storage_buffer_offset_alignment as usize;
        let bytes = covered.len() * size;
        let mut words = vec![POISON; (offset + bytes.next_multiple_of(4) + GUARD_BYTES) / 4];
        let tensor = &mut bytemuck::cast_slice_mut::<_, u8>(&mut words)[offset..];
        if let Some(data) = data {
            for n in (0..covered.len()).filter(|&n| covered[n]) {
                tensor[n * size..][..size].copy_from_slice(&data[n * size..][..size]);
            }
        }
        let buffer = device.create_buffer_init(&wgpu::util::BufferInitDescriptor {
            label: Some(name),
            contents: bytemuck::cast_slice(&words),
            usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC,
        });
        Self { buffer, offset, bytes, name, covered }
    }

    /// The tensor alone.
    pub fn binding(&self) -> wgpu::BufferBinding<'_> {
        let size = wgpu::BufferSize::new(self.bytes.next_multiple_of(4) as u64);
        wgpu::BufferBinding { buffer: &self.buffer, offset: self.offset as u64, size }
    }

    /// The elements, from what was read back, once all the poison is found untouched.
    pub fn take<O: Element>(&self, all: &[u8]) -> Result<Vec<O>, String> {
        let size = size_of::<O>();
        let poison = POISON.to_le_bytes();
        let kept = |n: usize| match n.checked_sub(self.offset) {
            Some(n) if n < self.bytes => !self.covered[n / size],
            _ => true,
        };
        match (0..all.len()).find(|&n| kept(n) && all[n] != poison[n % 4]) {
            Some(n) => {
                let place = n as isize - self.offset as isize;
                let what = match place {
                    ..0 => "before it",
                    place if place as usize >= self.bytes => "behind it",
                    _ => "between its rows",
                };
                Err(format!("{} was written {what}: byte {place} of {}", self.name, self.bytes))
            }
            None => Ok(bytemuck::pod_collect_to_vec(&all[self.offset..][..self.bytes])),
        }
    }
}
