use super::layouts::covered;
use wgpu::util::DeviceExt;
use wgpu_attention::{Attention, AttentionShape, Element, Inputs, Strides};

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

impl Extents {
    /// Of q, k and v.
    pub(super) fn of_inputs(attention: &Attention) -> [Self; 3] {
        let AttentionShape { batch, heads, kv_heads, q_len, kv_len, head_dim, value_dim, .. } =
            attention.shape;
        let rows = |strides, heads, rows, dim, len| Self { strides, sizes: [batch, heads, rows], dim, len };
        [
            rows(attention.q_strides(), heads, q_len, head_dim, attention.len_q()),
            rows(attention.k_strides(), kv_heads, kv_len, head_dim, attention.len_k()),
            rows(attention.v_strides(), kv_heads, kv_len, value_dim, attention.len_v()),
        ]
    }

    /// Of out, and of its gradient.
    pub(super) fn of_out(attention: &Attention) -> Self {
        let shape = &attention.shape;
        let sizes = [shape.batch, shape.heads, shape.q_len];
        Self { strides: attention.out_strides(), sizes, dim: shape.value_dim, len: attention.len_out() }
    }

    /// Of lse.
    pub(super) fn of_lse(attention: &Attention) -> Self {
        let sizes = attention.shape;
        let sizes = [sizes.batch, sizes.heads, sizes.q_len];
        let strides = Strides::new((sizes[1] * sizes[2]) as isize, sizes[2] as isize, 1);
        Self { strides, sizes, dim: 1, len: attention.len_lse() }
    }

    /// Of elements one behind the other.
    pub(super) fn of_one_row(len: usize) -> Self {
        Self { strides: Strides::default(), sizes: [1, 1, 1], dim: len, len }
    }
}

/// A tensor in a buffer whose every other byte is poison: before it, behind it, between its rows.
pub struct Guarded {
    /// With guards around the tensor.
    pub buffer: wgpu::Buffer,
    offset: usize,
    bytes: usize,
    name: &'static str,
    covered: Vec<bool>,
    /// Elements of heads that the call leaves out, and what they count as.
    left_out: (Vec<usize>, f64),
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
        Self::output(device, name, element_bytes, Extents::of_out(attention))
    }

    /// Without the rows of some heads: those stay poison, and are read as `value`.
    pub(super) fn leaving(mut self, at: Extents, is_computed: impl Fn(usize) -> bool, value: f64) -> Self {
        let [batch, heads, rows] = at.sizes;
        let of_head = |(item, head)| (0..rows).map(move |row| (item, head, row));
        let left = (0..batch).flat_map(|item| (0..heads).map(move |head| (item, head)));
        let left = left.filter(|(_, head)| !is_computed(*head)).flat_map(of_head);
        let elements = left.flat_map(|(item, head, row)| {
            let first = at.strides.at(item, head, row);
            first..first + at.dim
        });
        self.left_out = (elements.collect(), value);
        self.left_out.0.iter().for_each(|&n| self.covered[n] = false);
        self
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
        Self { buffer, offset, bytes, name, covered, left_out: (vec![], 0.0) }
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
            None => {
                let mut values: Vec<O> = bytemuck::pod_collect_to_vec(&all[self.offset..][..self.bytes]);
                let (elements, value) = &self.left_out;
                elements.iter().for_each(|&n| values[n] = O::from_f64(*value));
                Ok(values)
            }
        }
    }
}

/// The inputs of a call, each guarded.
pub(super) struct GuardedInputs {
    pub(super) q: Guarded,
    pub(super) k: Guarded,
    pub(super) v: Guarded,
    terms: Vec<(&'static str, Guarded)>,
}

impl GuardedInputs {
    pub(super) fn new<Q: Element, KV: Element>(
        device: &wgpu::Device,
        attention: &Attention,
        inputs: &Inputs<'_, Q, KV>,
    ) -> Self {
        let [q, k, v] = Extents::of_inputs(attention);
        let of_term = |term: wgpu_attention::TermTensor| {
            let values = inputs.get(term.name).expect("the inputs have the tensors of the score");
            (term.name, Guarded::input(device, term.name, values, Extents::of_one_row(term.len)))
        };
        Self {
            q: Guarded::input(device, "q", inputs.q, q),
            k: Guarded::input(device, "k", inputs.k, k),
            v: Guarded::input(device, "v", inputs.v, v),
            terms: attention.score.tensors(&attention.shape).into_iter().map(of_term).collect(),
        }
    }

    /// The tensors of the score's terms.
    pub(super) fn tensors(&self) -> Vec<(&'static str, wgpu::BufferBinding<'_>)> {
        self.terms.iter().map(|(name, tensor)| (*name, tensor.binding())).collect()
    }
}
