//! The calls of a chunk or of a token, bound once.

use crate::Error;
use crate::decoder::Decoder;
use crate::device::{Forward, whole};
use crate::pool::Tensor;
use wgpu::BufferUsages as Usage;
use wgpu_attention::{
    AppendBuffers, AttendBuffers, Call, DecodeShape, Gpu, KvCache, Layout, Layouts, RotaryPairs,
};

/// From ids to hidden states, through the caches.
pub(super) struct Pass {
    rows: usize,
    ids: Tensor,
    /// In a model that looks positions up.
    positions: Option<Tensor>,
    /// How many of the rows there are, where it is not always one.
    count: Option<Tensor>,
    calls: Vec<Call>,
    /// `[rows, width]`.
    hidden: Tensor,
    row_bytes: u64,
}

impl Pass {
    pub(super) fn new(
        gpu: &Gpu,
        model: &Decoder<Tensor>,
        caches: &[KvCache],
        tables: Option<&[Tensor; 2]>,
        rows: usize,
    ) -> Result<Self, Error> {
        let (sizes, cache) = (model.sizes(), caches[0].shape());
        let mut forward = Forward::without_states(gpu);
        let count = (rows > 1).then(|| forward.store(&[0u32]));
        let shape = DecodeShape::new(*cache, sizes.heads, rows)
            .counts(count.is_some())
            .rotary(tables.map(|_| (sizes.head_dim, RotaryPairs::HalfSplit)))
            .layouts(Layouts::all(Layout::Blhd));
        let plan = gpu.kernels().decode(&shape)?;
        // Layers run one after the other.
        let scratch = plan.scratch()?;
        let count_binding = || count.as_deref().map(whole);
        let table = |n: usize| tables.map(|tables| whole(&tables[n]));
        let mut attend = |forward: &mut Forward, n: usize, [q, k, v]: &[Tensor; 3], context: &Tensor| {
            let append = AppendBuffers::new(whole(k), whole(v)).cos(table(0)).sin(table(1));
            let queries = AttendBuffers::new(whole(q), whole(context)).cos(table(0)).sin(table(1));
            let (append, queries) = (append.counts(count_binding()), queries.counts(count_binding()));
            forward.push(plan.bind_with(&caches[n], append, queries, &scratch)?)
        };
        let zeros = vec![0; rows];
        let hidden = model.hidden(&mut forward, &zeros, &zeros, &mut attend)?;
        let (ids, calls) = forward.into_calls();
        let mut ids = ids.into_iter();
        Ok(Self {
            rows,
            ids: ids.next().ok_or("a model that looks no ids up")?,
            positions: ids.next(),
            count,
            calls,
            hidden,
            row_bytes: 4 * sizes.width as u64,
        })
    }

    /// Records all calls for ids at positions from `from` on. `numbers` are 0, 1, 2, ..: a word is copied from its own place.
    pub(super) fn encode(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        numbers: &wgpu::Buffer,
        from: usize,
        ids: &[u32],
    ) {
        let mut copy = |from: u64, to: &wgpu::Buffer, at: usize, words: usize| {
            encoder.copy_buffer_to_buffer(numbers, 4 * from, to, 4 * at as u64, 4 * words as u64);
        };
        for (at, &id) in ids.iter().enumerate() {
            copy(id.into(), &self.ids, at, 1);
        }
        if let Some(positions) = &self.positions {
            copy(from as u64, positions, 0, self.rows);
        }
        if let Some(count) = &self.count {
            copy(ids.len() as u64, count, 0, 1);
        }
        // One pass for all: wgpu orders its dispatches.
        let mut pass = encoder.begin_compute_pass(&Default::default());
        self.calls.iter().for_each(|call| call.dispatch(&mut pass));
    }

    pub(super) fn calls(&self) -> &[Call] {
        &self.calls
    }

    /// Where the hidden state of the last of so many ids is.
    pub(super) fn last_row(&self, count: usize) -> (&wgpu::Buffer, u64) {
        (&self.hidden, (count - 1) as u64 * self.row_bytes)
    }
}

/// From the last hidden state to logits on the host.
pub(super) struct Head {
    /// `[width]`.
    row: Tensor,
    calls: Vec<Call>,
    logits: Tensor,
    /// Where the host reads them.
    copy: wgpu::Buffer,
}

impl Head {
    pub(super) fn new(gpu: &Gpu, model: &Decoder<Tensor>) -> Result<Self, Error> {
        let mut forward = Forward::without_states(gpu);
        let row = forward.store(&vec![0f32; model.sizes().width]);
        let logits = model.logits(&mut forward, 1, &row)?;
        let copy = gpu.device().create_buffer(&wgpu::BufferDescriptor {
            label: Some("logits"),
            size: logits.size(),
            usage: Usage::MAP_READ | Usage::COPY_DST,
            mapped_at_creation: false,
        });
        let (_, calls) = forward.into_calls();
        Ok(Self { row, calls, logits, copy })
    }

    pub(super) fn calls(&self) -> &[Call] {
        &self.calls
    }

    /// Records the logits of a hidden state, and their way to the host.
    pub(super) fn encode(&self, encoder: &mut wgpu::CommandEncoder, (hidden, offset): (&wgpu::Buffer, u64)) {
        encoder.copy_buffer_to_buffer(hidden, offset, &self.row, 0, self.row.size());
        let mut pass = encoder.begin_compute_pass(&Default::default());
        self.calls.iter().for_each(|call| call.dispatch(&mut pass));
        drop(pass);
        encoder.copy_buffer_to_buffer(&self.logits, 0, &self.copy, 0, self.copy.size());
    }

    /// Waits for what was submitted, and reads the logits.
    pub(super) fn read(&self, gpu: &Gpu, logits: &mut [f32]) -> Result<(), Error> {
        // A failed mapping shows below, where the range is asked for.
        self.copy.map_async(wgpu::MapMode::Read, .., |_| ());
        gpu.device().poll(wgpu::PollType::wait_indefinitely())?;
        let view = self.copy.slice(..).get_mapped_range().map_err(|e| e.to_string())?;
        for (logit, bytes) in logits.iter_mut().zip(view.chunks_exact(4)) {
            *logit = f32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        }
        drop(view);
        self.copy.unmap();
        Ok(())
    }
}
