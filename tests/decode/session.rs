//! Sequences fed in steps into a cache full of NaN, through buffers that are guarded.

use crate::Checked;
use wgpu_attention::reference::{INT8_STEPS, Tensors, int8_row, int8_scale};
use wgpu_attention::{
    AppendBuffers, AttendBuffers, Attention, CacheShape, CacheStorage, Call, DecodePlan, DecodeShape,
    Element, Kernels, KvCache, Result, Strides,
};
use wgpu_attention_testing::POISON;

/// Words of poison around each tensor: the offset alignment of every device.
const GUARD_BYTES: usize = 256;

/// A cache, a plan, and the one call that serves all steps.
pub(crate) struct Session {
    pub(crate) device: wgpu::Device,
    pub(crate) queue: wgpu::Queue,
    pub(crate) shape: DecodeShape,
    pub(crate) cache: KvCache,
    pub(crate) plan: DecodePlan,
    pub(crate) q: wgpu::Buffer,
    pub(crate) k: wgpu::Buffer,
    pub(crate) v: wgpu::Buffer,
    pub(crate) out: wgpu::Buffer,
    pub(crate) lse: wgpu::Buffer,
    /// Counts, or offsets.
    pub(crate) counts: wgpu::Buffer,
    /// Where each sequence's rows begin, as they were fed last, where they are packed.
    pub(crate) offsets: Vec<usize>,
    pub(crate) call: Call,
}

/// A step's outputs: out as it lies, and lse.
pub(crate) struct Step<O> {
    pub(crate) out: Vec<O>,
    pub(crate) lse: Vec<f32>,
}

impl Session {
    /// Everything bound, poison wherever nothing has been written. `tables`: cos and sin.
    pub(crate) fn new(
        kernels: &Kernels,
        queue: &wgpu::Queue,
        shape: DecodeShape,
        tables: Option<&[Vec<f32>; 2]>,
    ) -> Result<Self> {
        let device = kernels.device().clone();
        let cache = kernels.kv_cache(&shape.cache)?;
        for buffer in [cache.keys()].into_iter().chain(cache.values()) {
            let poison = vec![POISON; buffer.size() as usize / 4];
            queue.write_buffer(buffer, 0, bytemuck::cast_slice(&poison));
        }
        let guarded = |elements: usize, size: usize| {
            let bytes = (elements * size).next_multiple_of(4).max(16);
            buffer(&device, queue, &vec![POISON; (2 * GUARD_BYTES + bytes) / 4])
        };
        let (input, output) = (shape.input.size_bytes(), shape.output.size_bytes());
        let (q, k, v) =
            (guarded(shape.len_q(), input), guarded(shape.len_k(), input), guarded(shape.len_v(), input));
        let (out, lse) = (guarded(shape.len_out(), output), guarded(shape.len_lse(), 4));
        let counts = guarded(shape.cache.batch + 1, 4);
        let tables = tables.map(|tables| {
            tables.each_ref().map(|table| {
                let words: Vec<u32> = table.iter().map(|x| x.to_bits()).collect();
                buffer(&device, queue, &words)
            })
        });
        let whole = wgpu::Buffer::as_entire_buffer_binding;
        let [cos, sin] = [0, 1].map(|n| tables.as_ref().map(|tables| whole(&tables[n])));
        let given = |buffer| shape.counts.then(|| inside(buffer));
        let offsets = |buffer| shape.packed.then(|| inside(buffer));
        let append = AppendBuffers::new(inside(&k), shape.cache.value_start.is_none().then(|| inside(&v)))
            .cos(cos.clone())
            .sin(sin.clone())
            .counts(given(&counts))
            .offsets(offsets(&counts));
        let attend = AttendBuffers::new(inside(&q), inside(&out))
            .cos(cos.clone())
            .sin(sin.clone())
            .counts(given(&counts))
            .offsets(offsets(&counts))
            .lse(shape.lse.then(|| inside(&lse)));
        let plan = kernels.decode(&shape)?;
        let call = plan.bind(&cache, append, attend)?;
        let queue = queue.clone();
        Ok(Self { device, queue, shape, cache, plan, q, k, v, out, lse, counts, offsets: vec![], call })
    }

    /// Gives each sequence so many of its text's next positions. Rows behind a sequence's count are NaN.
    pub(crate) fn feed<Q: Element, KV: Element>(&mut self, counts: &[usize], texts: &[Tensors<Q, KV>]) {
        let lengths = self.cache.lengths().to_vec();
        self.feed_from(counts, &lengths, texts);
    }

    /// The same from other positions of the texts.
    pub(crate) fn feed_from<Q: Element, KV: Element>(
        &mut self,
        counts: &[usize],
        from: &[usize],
        texts: &[Tensors<Q, KV>],
    ) {
        let (shape, cache) = (self.shape, self.shape.cache);
        let [q, k, v] = new_strides(&shape);
        let [mut new_q, mut new_k, mut new_v] =
            [shape.len_q(), shape.len_k(), shape.len_v()].map(|len| vec![Q::from_f64(f64::NAN); len]);
        let ends = counts.iter().scan(0, |end, count| {
            *end += count;
            Some(*end)
        });
        self.offsets = std::iter::once(0).chain(ends).collect();
        for (b, text) in texts.iter().enumerate() {
            let rows = Rows { from: from[b], count: counts[b], place: self.place(b, 0) };
            rows.put(&mut new_q, q, &text.q, shape.heads, cache.head_dim);
            rows.put(&mut new_k, k, &text.k, cache.kv_heads, cache.head_dim);
            if cache.value_start.is_none() {
                rows.put(&mut new_v, v, &text.v, cache.kv_heads, cache.value_dim);
            }
        }
        for (buffer, data) in [(&self.q, &new_q), (&self.k, &new_k), (&self.v, &new_v)] {
            write(&self.queue, buffer, bytemuck::cast_slice(data));
        }
        let words = if shape.packed { &self.offsets } else { counts };
        let words: Vec<u32> = words.iter().map(|&word| word as u32).collect();
        write(&self.queue, &self.counts, bytemuck::cast_slice(&words));
    }

    /// Batch item and row, in the tensors of new rows, of a sequence's row t.
    pub(crate) fn place(&self, b: usize, t: usize) -> [usize; 2] {
        if self.shape.packed { [0, self.offsets[b] + t] } else { [b, t] }
    }

    /// Extends the cache, runs the call, reads out and lse, and finds the poison around them untouched.
    pub(crate) fn step<O: Element>(&mut self, counts: &[usize]) -> Result<Step<O>, String> {
        let mut encoder = self.device.create_command_encoder(&Default::default());
        self.cache.extend(&self.queue, &mut encoder, counts).map_err(|e| e.to_string())?;
        self.call.encode(&mut encoder);
        self.queue.submit([encoder.finish()]);
        self.outputs()
    }

    pub(crate) fn outputs<O: Element>(&self) -> Result<Step<O>, String> {
        let out = self.taken("out", &self.out, self.shape.len_out(), size_of::<O>())?;
        let lse = match self.shape.lse {
            true => self.taken("lse", &self.lse, self.shape.len_lse(), 4)?,
            false => vec![],
        };
        Ok(Step { out: bytemuck::pod_collect_to_vec(&out), lse: bytemuck::pod_collect_to_vec(&lse) })
    }

    fn taken(&self, name: &str, buffer: &wgpu::Buffer, len: usize, size: usize) -> Result<Vec<u8>, String> {
        let all = read(&self.device, &self.queue, buffer);
        let poison = POISON.to_le_bytes();
        let inside = GUARD_BYTES..GUARD_BYTES + len * size;
        match (0..all.len()).find(|n| !inside.contains(n) && all[*n] != poison[n % 4]) {
            Some(n) => Err(format!("{name}: byte {n} was written, and {inside:?} are its own")),
            None => Ok(all[inside].to_vec()),
        }
    }

    /// Sequence b as the cache has it: keys `[Hkv, length, d]` and values; int8 widened.
    pub(crate) fn sequence<KV: Element>(&self, b: usize) -> (Vec<KV>, Vec<KV>) {
        let (shape, length) = (self.shape.cache, self.cache.lengths()[b]);
        let tables: Vec<u32> = self.words(self.cache.device_pages());
        let take = |buffer: &wgpu::Buffer, dim: usize| {
            let all = read(&self.device, &self.queue, buffer);
            let size = row_bytes(&shape, dim);
            let row = |head, p| &all[row_of(&shape, &tables, b, head, p) * size..][..size];
            let places = (0..shape.kv_heads).flat_map(|head| (0..length).map(move |p| (head, p)));
            places.flat_map(|(head, p)| elements::<KV>(shape.storage, row(head, p), dim)).collect()
        };
        let keys: Vec<KV> = take(self.cache.keys(), shape.head_dim);
        let values = match (self.cache.values(), shape.value_start) {
            (Some(values), _) => take(values, shape.value_dim),
            (None, start) => {
                let start = start.expect("values that are a part of keys");
                let part = |key: &[KV]| key[start..start + shape.value_dim].to_vec();
                keys.chunks(shape.head_dim).flat_map(part).collect()
            }
        };
        (keys, values)
    }

    /// Rows of keys that hold anything: those of the sequences' positions, and no others.
    pub(crate) fn check_untouched(&self) -> Result<(), String> {
        let shape = self.shape.cache;
        let tables: Vec<u32> = self.words(self.cache.device_pages());
        let values = self.cache.values().map(|values| (values, shape.value_dim));
        for (buffer, dim) in [(self.cache.keys(), shape.head_dim)].into_iter().chain(values) {
            let all = read(&self.device, &self.queue, buffer);
            let row_bytes = row_bytes(&shape, dim);
            let mut own = vec![false; all.len() / row_bytes];
            for (b, &length) in self.cache.lengths().iter().enumerate() {
                for head in 0..shape.kv_heads {
                    (0..length).for_each(|p| own[row_of(&shape, &tables, b, head, p)] = true);
                }
            }
            let poison = POISON.to_le_bytes();
            let is_poison = |row: &[u8]| row.iter().enumerate().all(|(n, &byte)| byte == poison[n % 4]);
            if let Some(row) =
                (0..own.len()).find(|&row| !own[row] && !is_poison(&all[row * row_bytes..][..row_bytes]))
            {
                return Err(format!("row {row} of the cache is no sequence's, but was written"));
            }
        }
        let lengths: Vec<u32> = self.words(Some(self.cache.device_lengths()));
        let known: Vec<u32> = self.cache.lengths().iter().map(|&n| n as u32).collect();
        match lengths[..known.len()] == known {
            true => Ok(()),
            false => Err(format!("lengths {lengths:?} on the device, {known:?} on the host")),
        }
    }

    pub(crate) fn words(&self, buffer: Option<&wgpu::Buffer>) -> Vec<u32> {
        let bytes = buffer.map_or(vec![], |buffer| read(&self.device, &self.queue, buffer));
        bytemuck::pod_collect_to_vec(&bytes)
    }
}

fn row_bytes(shape: &CacheShape, dim: usize) -> usize {
    let scale = if shape.storage == CacheStorage::Int8 { 4 } else { 0 };
    scale + dim.next_multiple_of(4) * shape.storage.size_bytes()
}

fn elements<KV: Element>(storage: CacheStorage, row: &[u8], dim: usize) -> Vec<KV> {
    match storage {
        CacheStorage::Int8 => {
            let words: Vec<u32> = bytemuck::pod_collect_to_vec(row);
            int8_row(&words, dim).1.into_iter().map(|x| KV::from_f64(x.into())).collect()
        }
        _ => bytemuck::pod_collect_to_vec(&row[..dim * size_of::<KV>()]),
    }
}

/// Whether rows of `dim` elements are in the cache as they were given: bit by bit, or each quantised by its own scale.
pub(crate) fn check_stored<KV: Element>(
    shape: &CacheShape,
    given: &[KV],
    stored: &[KV],
    dim: usize,
) -> Checked {
    if shape.storage != CacheStorage::Int8 {
        let bits = |x: &[KV]| x.iter().map(|&x| Into::<f64>::into(x).to_bits()).collect::<Vec<_>>();
        return if bits(given) == bits(stored) { Ok(()) } else { Err("other numbers than given".into()) };
    }
    for (n, (row, got)) in given.chunks(dim).zip(stored.chunks(dim)).enumerate() {
        let scale = f64::from(int8_scale(&KV::widened(row)));
        for (x, got) in row.iter().zip(got) {
            let (x, got): (f64, f64) = ((*x).into(), (*got).into());
            let steps = got / scale;
            if !((x - got).abs() <= INT8_STEPS * scale && steps == steps.round() && steps.abs() <= 127.0) {
                return Err(format!("row {n}: {x} is stored as {got}, in steps of {scale}"));
            }
        }
    }
    match given.len() == stored.len() {
        true => Ok(()),
        false => Err(format!("{} elements of {}", stored.len(), given.len())),
    }
}

fn row_of(shape: &CacheShape, tables: &[u32], b: usize, head: usize, position: usize) -> usize {
    match shape.paging {
        None => (b * shape.kv_heads + head) * shape.capacity + position,
        Some(paging) => {
            let page = tables[b * (shape.capacity / paging.page) + position / paging.page] as usize;
            (page * shape.kv_heads + head) * paging.page + position % paging.page
        }
    }
}

/// New positions of one sequence: `count` from position `from` of its text on.
struct Rows {
    from: usize,
    count: usize,
    /// Batch item and row of the first.
    place: [usize; 2],
}

impl Rows {
    fn put<Q: Element, T: Element>(
        &self,
        to: &mut [Q],
        strides: Strides,
        text: &[T],
        heads: usize,
        dim: usize,
    ) {
        let len = text.len() / (heads * dim);
        for head in 0..heads {
            for t in 0..self.count {
                let at = strides.at(self.place[0], head, self.place[1] + t);
                let row = &text[(head * len + self.from + t) * dim..][..dim];
                for (to, &x) in to[at..at + dim].iter_mut().zip(row) {
                    let x: f64 = x.into();
                    *to = Q::from_f64(x);
                    let same: f64 = (*to).into();
                    assert!(same == x || x.is_nan(), "{x} is no {}", Q::TYPE);
                }
            }
        }
    }
}

/// Where new q, k and v lie.
fn new_strides(shape: &DecodeShape) -> [Strides; 3] {
    let mut rows: Attention = shape.of_sequence(shape.new, shape.new);
    rows.shape.batch = if shape.packed { 1 } else { shape.cache.batch };
    let rows = rows.layouts(shape.layouts);
    [rows.q_strides(), rows.k_strides(), rows.v_strides()]
}

/// Where out lies.
pub(crate) fn out_strides(shape: &DecodeShape) -> Strides {
    let mut rows: Attention = shape.of_sequence(shape.new, shape.new);
    rows.shape.batch = if shape.packed { 1 } else { shape.cache.batch };
    rows.layouts(shape.layouts).out_strides()
}

pub(crate) fn buffer(device: &wgpu::Device, queue: &wgpu::Queue, words: &[u32]) -> wgpu::Buffer {
    use wgpu::BufferUsages as Usage;
    let buffer = device.create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size: 4 * words.len() as u64,
        usage: Usage::STORAGE | Usage::COPY_SRC | Usage::COPY_DST,
        mapped_at_creation: false,
    });
    queue.write_buffer(&buffer, 0, bytemuck::cast_slice(words));
    buffer
}

/// What lies between the guards.
pub(crate) fn inside(buffer: &wgpu::Buffer) -> wgpu::BufferBinding<'_> {
    let size = wgpu::BufferSize::new(buffer.size() - 2 * GUARD_BYTES as u64);
    wgpu::BufferBinding { buffer, offset: GUARD_BYTES as u64, size }
}

fn write(queue: &wgpu::Queue, buffer: &wgpu::Buffer, bytes: &[u8]) {
    let mut bytes = bytes.to_vec();
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    queue.write_buffer(buffer, GUARD_BYTES as u64, &bytes);
}

fn read(device: &wgpu::Device, queue: &wgpu::Queue, buffer: &wgpu::Buffer) -> Vec<u8> {
    bytemuck::cast_slice(&wgpu_attention_testing::read(device, queue, buffer)).to_vec()
}
