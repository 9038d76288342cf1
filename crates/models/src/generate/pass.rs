//! The calls of a chunk or of a token, bound once.

use crate::Error;
use crate::bands::Band;
use crate::decoder::Decoder;
use crate::device::{Forward, whole};
use crate::pool::Tensor;
use std::rc::Rc;
use wgpu::BufferUsages as Usage;
use wgpu_attention::{AppendBuffers, AttendBuffers, Call, DecodeShape, Gpu, KvCache, RotaryPairs};

/// From ids to hidden states, through the caches.
pub(super) struct Pass {
    rows: usize,
    /// For each band of the table.
    ids: Vec<(Tensor, Band)>,
    /// In a model that looks positions up; as ids.
    positions: Vec<(Tensor, Band)>,
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
            .layouts(model.layouts(rows));
        let plan = gpu.kernels().decode(&shape)?;
        gpu.check_plan(&plan)?;
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
            positions: ids.next().unwrap_or_default(),
            count,
            calls,
            hidden,
            row_bytes: 4 * sizes.width as u64,
        })
    }

    /// Records copies of ids, of their positions from `from` on and of their count to where the calls read them. `numbers` are 0, 1, 2, ..: a word is copied from its own place.
    pub(super) fn encode_ids(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        numbers: &wgpu::Buffer,
        from: usize,
        ids: &[u32],
    ) {
        let mut copy = |from: u64, to: &wgpu::Buffer, at: usize, words: usize| {
            encoder.copy_buffer_to_buffer(numbers, 4 * from, to, 4 * at as u64, 4 * words as u64);
        };
        for (table, band) in &self.ids {
            for (at, &id) in ids.iter().enumerate() {
                copy(band.number(id).into(), table, at, 1);
            }
        }
        match &self.positions[..] {
            [(all, _)] => copy(from as u64, all, 0, self.rows),
            bands => {
                for ((table, band), at) in
                    bands.iter().flat_map(|one| (0..self.rows).map(move |at| (one, at)))
                {
                    copy(band.number((from + at) as u32).into(), table, at, 1);
                }
            }
        }
        if let Some(count) = &self.count {
            copy(ids.len() as u64, count, 0, 1);
        }
    }

    /// Records all calls for so many ids, and the logits of the last. Nothing of it depends on which ids they are, or on where they stand.
    pub(super) fn encode_calls(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        count: usize,
        logits: Option<&Head>,
    ) {
        // One pass for all: wgpu orders its dispatches.
        let mut pass = encoder.begin_compute_pass(&Default::default());
        self.calls.iter().for_each(|call| call.dispatch(&mut pass));
        let Some(head) = logits else { return };
        if Rc::ptr_eq(&head.row, &self.hidden) {
            head.dispatch(&mut pass);
            drop(pass);
        } else {
            drop(pass);
            let last = (count - 1) as u64 * self.row_bytes;
            encoder.copy_buffer_to_buffer(&self.hidden, last, &head.row, 0, self.row_bytes);
            head.dispatch(&mut encoder.begin_compute_pass(&Default::default()));
        }
        encoder.copy_buffer_to_buffer(&head.logits, 0, &head.copy, 0, head.copy.size());
    }

    pub(super) fn calls(&self) -> &[Call] {
        &self.calls
    }

    /// The hidden states that it leaves, `[rows, width]`.
    pub(super) fn hidden(&self) -> &Tensor {
        &self.hidden
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
    /// Of the hidden state in `row`, which a pass of one id leaves there.
    pub(super) fn new(gpu: &Gpu, model: &Decoder<Tensor>, row: Tensor) -> Result<Self, Error> {
        let mut forward = Forward::without_states(gpu);
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

    fn dispatch(&self, pass: &mut wgpu::ComputePass<'_>) {
        self.calls.iter().for_each(|call| call.dispatch(pass));
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
