//! A forward pass on a device: a list of calls, planned and bound once and recorded into one encoder.

use super::bands::Band;
use super::matrices::{quantized, transposed};
use super::pool::{Pool, Tensor, clear, zeros};
use super::{Error, Integers, Layers, Machine, Origin, Pair, Piece, Table};
use std::rc::Rc;
use wgpu_attention::{
    AddShape, Attention, AttentionBuffers, AxialShape, BlockGrid, Combine, EmbedShape, FeedForwardBuffers,
    FeedForwardShape, Gpu, IntegerFormat, LshBuffers, LshOptions, MatmulShape, NormBuffers, NormShape, Parts,
    Pattern, RotaryBuffers, RotaryShape, ScaleGroups, WeightOrder,
};

/// One thing to record.
enum Call {
    Kernel(wgpu_attention::Call),
    /// What records itself otherwise.
    Recorded(Box<dyn Fn(&mut wgpu::CommandEncoder)>),
    /// Keeps a state, or a stretch of one, for the caller.
    Copy {
        source: wgpu::Buffer,
        from: u64,
        copy: wgpu::Buffer,
        to: u64,
        bytes: u64,
    },
}

/// A forward pass, ready to be recorded, and the states that it leaves, by name.
pub struct Forward {
    gpu: Gpu,
    pool: Pool,
    calls: Vec<Call>,
    states: Vec<(String, wgpu::Buffer)>,
    /// States that a model shows are kept.
    keeps: bool,
    /// The ids of the embeddings, in their order, for each band of the table.
    ids: Vec<Vec<(Tensor, Band)>>,
    /// For a text that grows token by token: matrices lie as few rows want them.
    generates: bool,
    /// What matrices of products are stored as, in place of numbers.
    integers: Option<IntegerFormat>,
    /// Bytes that a model has uploaded.
    uploaded: u64,
    /// A tensor that no buffer of this device holds.
    too_large: Option<u64>,
}

pub(crate) fn whole(buffer: &wgpu::Buffer) -> wgpu::BufferBinding<'_> {
    buffer.as_entire_buffer_binding()
}

impl Forward {
    /// An empty pass on a device.
    pub fn new(gpu: &Gpu) -> Self {
        let (calls, states, ids) = (vec![], vec![], vec![]);
        let (pool, keeps) = (Pool::default(), true);
        let (generates, integers, uploaded, too_large) = (false, None, 0, None);
        Self { gpu: gpu.clone(), pool, calls, states, keeps, ids, generates, integers, uploaded, too_large }
    }

    /// Nothing yet, and of what a model shows nothing is kept.
    pub(crate) fn without_states(gpu: &Gpu) -> Self {
        Self { keeps: false, ..Self::new(gpu) }
    }

    /// Stores matrices of products as few rows want them, `[out, in]`: in f32, or as such integers, symmetrically quantised as they are read.
    pub(crate) fn to_generate(gpu: &Gpu, integers: Option<IntegerFormat>) -> Self {
        Self { generates: true, integers, ..Self::without_states(gpu) }
    }

    /// Whether all that was uploaded has a buffer.
    pub(crate) fn check_uploaded(&self) -> Result<(), Error> {
        let most = self.gpu.device().limits().max_buffer_size;
        match self.too_large {
            Some(bytes) => Err(format!(
                "a tensor of {bytes} bytes: need them in one buffer, whose max_buffer_size is {most}"
            )
            .into()),
            None => Ok(()),
        }
    }

    /// The largest binding.
    pub(crate) fn most_bytes(&self) -> u64 {
        self.gpu.device().limits().max_storage_buffer_binding_size
    }

    /// Bytes that a model has uploaded: those of its weights.
    pub(crate) fn uploaded(&self) -> u64 {
        self.uploaded
    }

    fn upload_all<T: bytemuck::Pod>(&mut self, data: &[T]) -> Tensor {
        let bytes = size_of_val(data) as u64;
        self.uploaded += bytes;
        if bytes > self.gpu.device().limits().max_buffer_size {
            self.too_large = Some(bytes);
            return self.store(&[0u32]);
        }
        self.store(data)
    }

    /// A feed-forward layer of integers, or of matrices past a binding: product by product.
    fn products(
        &mut self,
        shape: &FeedForwardShape,
        x: &Tensor,
        layers: Layers<'_, Tensor>,
        residual: &Tensor,
        out: &Tensor,
    ) -> Result<(), Error> {
        let FeedForwardShape { rows, model_dim, hidden_dim, bias, weights, .. } = *shape;
        let hidden = self.tensor(rows * hidden_dim);
        let first = MatmulShape::new(rows, model_dim, hidden_dim).weights(weights).bias(bias);
        self.linear(&first.activation(shape.activation), x, layers.first, None, &hidden)?;
        if let Some(gate) = layers.gate {
            self.linear(&first.combine(Combine::MultiplyInto), x, gate, None, &hidden)?;
        }
        let second = MatmulShape::new(rows, hidden_dim, model_dim).weights(weights);
        let second = second.bias(bias).combine(Combine::Add);
        self.linear(&second, &hidden, layers.second, Some(residual), out)
    }

    /// The ids of the embeddings, in their order, for each band of the table, and the calls of kernels.
    pub(crate) fn into_calls(self) -> (Vec<Vec<(Tensor, Band)>>, Vec<wgpu_attention::Call>) {
        let kernel = |call| match call {
            Call::Kernel(call) => Some(call),
            Call::Recorded(_) | Call::Copy { .. } => None,
        };
        (self.ids, self.calls.into_iter().filter_map(kernel).collect())
    }

    pub(crate) fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    pub(crate) fn store<T: bytemuck::Pod>(&self, data: &[T]) -> Tensor {
        // States may be copied from what was given.
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::COPY_SRC;
        let buffer = self.buffer(size_of_val(data) as u64, usage);
        self.gpu.queue().write_buffer(&buffer, 0, bytemuck::cast_slice(data));
        Rc::new(buffer)
    }

    fn buffer(&self, size: u64, usage: wgpu::BufferUsages) -> wgpu::Buffer {
        let descriptor = wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false };
        self.gpu.device().create_buffer(&descriptor)
    }

    /// A state of so many bytes.
    fn kept(&mut self, name: String, bytes: u64) -> wgpu::Buffer {
        let copy = self.buffer(bytes, wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST);
        self.states.push((name, copy.clone()));
        copy
    }

    pub(crate) fn push(&mut self, call: wgpu_attention::Call) -> Result<(), Error> {
        self.calls.push(Call::Kernel(call));
        Ok(())
    }

    /// Records what is no call.
    pub(crate) fn record(&mut self, record: impl Fn(&mut wgpu::CommandEncoder) + 'static) {
        self.calls.push(Call::Recorded(Box::new(record)));
    }

    /// Copies so many elements.
    pub(crate) fn copy(&mut self, source: &wgpu::Buffer, copy: &wgpu::Buffer, elements: usize) {
        let (source, copy, bytes) = (source.clone(), copy.clone(), 4 * elements as u64);
        self.calls.push(Call::Copy { source, from: 0, copy, to: 0, bytes });
    }

    /// Keeps a stretch of a buffer for the caller.
    pub(crate) fn keep_range(&mut self, name: String, source: &wgpu::Buffer, range: std::ops::Range<usize>) {
        let bytes = 4 * range.len() as u64;
        let copy = self.kept(name, bytes);
        let (source, from) = (source.clone(), 4 * range.start as u64);
        self.calls.push(Call::Copy { source, from, copy, to: 0, bytes });
    }

    /// The embedding of ids that lie on the device.
    pub(crate) fn embed_stored(
        &mut self,
        shape: &EmbedShape,
        ids: &wgpu::Buffer,
        table: &wgpu::Buffer,
        out: &wgpu::Buffer,
    ) -> Result<(), Error> {
        self.push(self.gpu.kernels().embed(shape)?.bind(whole(ids), whole(table), whole(out))?)
    }

    /// Attention that leaves the state (m, l) of its rows, where it is asked for.
    pub(crate) fn attend(
        &mut self,
        call: &Attention,
        mask: &Parts,
        qkv: &[Tensor; 3],
        terms: &[(&'static str, &Tensor)],
        out: &Tensor,
        state: Option<&Tensor>,
    ) -> Result<(), Error> {
        let [q, k, v] = qkv.each_ref().map(|tensor| whole(tensor));
        let buffers = AttentionBuffers::new(q, k, v, whole(out));
        let buffers = terms.iter().fold(buffers, |all, (name, tensor)| all.tensor(name, whole(tensor)));
        let buffers = match state {
            Some(state) => buffers.state(whole(state)),
            None => buffers,
        };
        self.push(self.gpu.kernels().attention_parts(call, mask.clone())?.bind(buffers)?)
    }

    /// Records all of the pass into an encoder.
    pub fn encode(&self, encoder: &mut wgpu::CommandEncoder) {
        for call in &self.calls {
            match call {
                Call::Kernel(call) => call.encode(encoder),
                Call::Recorded(record) => record(encoder),
                Call::Copy { source, from, copy, to, bytes } => {
                    encoder.copy_buffer_to_buffer(source, *from, copy, *to, *bytes);
                }
            }
        }
    }

    /// Records all of the pass into one encoder, submits it, and reads the states back.
    ///
    /// # Errors
    /// What the device reports.
    pub fn run(&self) -> Result<Vec<(String, Vec<f32>)>, Error> {
        let mut encoder = self.gpu.device().create_command_encoder(&Default::default());
        self.encode(&mut encoder);
        self.finish(encoder)
    }

    /// Submits what is recorded, this pass in it, and reads the states back.
    pub(crate) fn finish(&self, encoder: wgpu::CommandEncoder) -> Result<Vec<(String, Vec<f32>)>, Error> {
        let device = self.gpu.device();
        self.gpu.queue().submit([encoder.finish()]);
        for (_, copy) in &self.states {
            // A failed mapping shows below, where the range is asked for.
            copy.map_async(wgpu::MapMode::Read, .., |_| ());
        }
        device.poll(wgpu::PollType::wait_indefinitely())?;
        let read = |(name, copy): &(String, wgpu::Buffer)| -> Result<_, Error> {
            let view = copy.slice(..).get_mapped_range().map_err(|e| e.to_string())?;
            let values = bytemuck::pod_collect_to_vec(&view);
            drop(view);
            copy.unmap();
            Ok((name.clone(), values))
        };
        self.states.iter().map(read).collect()
    }

    /// The calls of kernels.
    pub(crate) fn kernels(&self) -> impl Iterator<Item = &wgpu_attention::Call> {
        self.calls.iter().filter_map(|call| match call {
            Call::Kernel(call) => Some(call),
            Call::Recorded(_) | Call::Copy { .. } => None,
        })
    }

    /// How many calls and copies the pass records.
    pub fn calls(&self) -> usize {
        self.calls.len()
    }
}

impl Machine for Forward {
    type Tensor = Tensor;
    type Mask = Parts;

    fn upload(&mut self, values: &[f32]) -> Tensor {
        self.upload_all(values)
    }

    fn packed(
        &mut self,
        origin: &Origin,
        values: &[f32],
        sizes: [usize; 2],
        order: WeightOrder,
    ) -> Result<Option<Pair<Tensor>>, Error> {
        let Some(format) = self.integers else {
            if !self.generates || order == WeightOrder::OutIn {
                return Ok(None);
            }
            let weight = self.upload_all(&transposed(values, sizes[1]));
            return Ok(Some(Pair { turned: true, ..Pair::new(weight) }));
        };
        let made = quantized(values, sizes, order, format);
        let made = made.map_err(|e| format!("tensor `{}` as {format}: {e}", origin.name))?;
        let weight = self.upload_all(&made.words);
        let integers = Integers { format, scales: self.upload_all(&made.scales) };
        Ok(Some(Pair { integers: Some(integers), ..Pair::new(weight) }))
    }

    fn tensor(&mut self, elements: usize) -> Tensor {
        let tensor = self.pool.take(self.gpu.device(), 4 * elements as u64);
        if !self.keeps {
            // What is recorded for every token.
            clear(&self.gpu, [&*tensor]);
        }
        tensor
    }

    fn zeros(&mut self, elements: usize) -> Tensor {
        zeros(self.gpu.device(), 4 * elements as u64)
    }

    fn mask(&mut self, call: &Attention, pattern: impl Pattern + 'static) -> Result<Parts, Error> {
        Ok(Parts::lower(&pattern, BlockGrid::from(&call.shape))?)
    }

    fn embed(
        &mut self,
        shape: &EmbedShape,
        ids: &[u32],
        table: &Table<Tensor>,
        out: &Tensor,
    ) -> Result<(), Error> {
        let stored = self.embed_bands(shape, ids, &table.values, out)?;
        self.ids.push(stored);
        Ok(())
    }

    fn rotary(
        &mut self,
        shape: &RotaryShape,
        x: &Tensor,
        [cos, sin]: &[Tensor; 2],
        out: &Tensor,
    ) -> Result<(), Error> {
        let buffers = RotaryBuffers::new(whole(x), whole(cos), whole(sin), whole(out));
        self.push(self.gpu.kernels().rotary(shape)?.bind(buffers)?)
    }

    fn add(&mut self, elements: usize, x: &Tensor, other: &Tensor, out: &Tensor) -> Result<(), Error> {
        let plan = self.gpu.kernels().add(&AddShape::new(1, elements))?;
        self.push(plan.bind(whole(x), whole(other), whole(out))?)
    }

    fn axial(
        &mut self,
        shape: &AxialShape,
        items: usize,
        tables: [&[f32]; 2],
        out: &Tensor,
    ) -> Result<(), Error> {
        let (len, width) = (shape.positions, shape.width());
        let [first, second] = tables.map(|table| self.store(table));
        let positions = self.tensor(len * width);
        let plan = self.gpu.kernels().axial_positions(&shape.combine(Combine::Store))?;
        self.push(plan.bind([whole(&first), whole(&second)], whole(&positions))?)?;
        let ids: Vec<u32> = (0..items).flat_map(|_| 0..len as u32).collect();
        let rows = EmbedShape::new(items * len, len, width).combine(Combine::AddInto);
        let ids = self.store(&ids);
        self.push(self.gpu.kernels().embed(&rows)?.bind(whole(&ids), whole(&positions), whole(out))?)
    }

    fn join(&mut self, [rows, width]: [usize; 2], sides: [&Tensor; 2]) -> Result<Tensor, Error> {
        let out = self.tensor(rows * 2 * width);
        let ids = self.store(&(0..rows as u32).collect::<Vec<_>>());
        for (n, side) in sides.into_iter().enumerate() {
            let shape = EmbedShape::new(rows, rows, width).out_at(n * width).out_row(Some(2 * width));
            self.push(self.gpu.kernels().embed(&shape)?.bind(whole(&ids), whole(side), whole(&out))?)?;
        }
        Ok(out)
    }

    fn norm(
        &mut self,
        shape: &NormShape,
        x: &Tensor,
        pair: &Pair<Tensor>,
        out: &Tensor,
    ) -> Result<(), Error> {
        let bias = pair.bias.as_deref().map(whole);
        let buffers = NormBuffers::new(whole(x), whole(&pair.weight), whole(out)).bias(bias);
        self.push(self.gpu.kernels().norm(shape)?.bind(buffers)?)
    }

    fn linear(
        &mut self,
        shape: &MatmulShape,
        a: &Tensor,
        pair: &Pair<Tensor>,
        residual: Option<&Tensor>,
        out: &Tensor,
    ) -> Result<(), Error> {
        let shape = match &pair.integers {
            Some(integers) => shape.weights(WeightOrder::OutIn).integers(integers.format),
            None if pair.turned => shape.weights(WeightOrder::OutIn),
            None => *shape,
        };
        self.linear_bands(&shape, a, pair, residual, out)
    }

    fn joins(&self) -> bool {
        // A scale for all of a matrix would be one for all three.
        self.generates && self.integers.is_none_or(|format| format.groups != ScaleGroups::Tensor)
    }

    fn attention(
        &mut self,
        call: &Attention,
        mask: &Parts,
        qkv: &[Tensor; 3],
        terms: &[(&'static str, &Tensor)],
        out: &Tensor,
    ) -> Result<(), Error> {
        self.attend(call, mask, qkv, terms, out, None)
    }

    fn lsh(
        &mut self,
        call: &Attention,
        options: &LshOptions,
        [qk, v]: [&Tensor; 2],
        projections: &[f32],
        out: &Tensor,
        buckets: String,
    ) -> Result<(), Error> {
        let projections = self.store(projections);
        let found = self.tensor(options.len_buckets(&call.shape));
        let buffers = LshBuffers::new(whole(qk), whole(v), whole(out)).projections(whole(&projections));
        let plan = self.gpu.kernels().lsh(call, options.clone())?;
        self.push(plan.bind(buffers.buckets(whole(&found)))?)?;
        self.keep(buckets, &found);
        Ok(())
    }

    fn feed_forward(
        &mut self,
        shape: &FeedForwardShape,
        x: &Tensor,
        layers: Layers<'_, Tensor>,
        residual: &Tensor,
        out: &Tensor,
    ) -> Result<(), Error> {
        let large = 4 * shape.len_weight() as u64 > self.most_bytes();
        if layers.first.integers.is_some() || large {
            return self.products(shape, x, layers, residual, out);
        }
        let shape = if layers.first.turned { shape.weights(WeightOrder::OutIn) } else { *shape };
        let plan = self.gpu.kernels().feed_forward(&shape)?;
        // What is between the products of one layer is memory for the next.
        let scratch = self.pool.take(self.gpu.device(), plan.scratch_bytes());
        let Layers { first, gate, second } = layers;
        let buffers =
            FeedForwardBuffers::new(whole(x), whole(&first.weight), whole(&second.weight), whole(out))
                .b1(first.bias.as_deref().map(whole))
                .w3(gate.map(|gate| whole(&gate.weight)))
                .b3(gate.and_then(|gate| gate.bias.as_deref()).map(whole))
                .b2(second.bias.as_deref().map(whole))
                .residual(whole(residual))
                .scratch(whole(&scratch));
        self.push(plan.bind(buffers)?)
    }

    fn keep(&mut self, name: String, source: &Tensor) {
        if !self.keeps {
            return;
        }
        let (bytes, copy) = (source.size(), self.kept(name, source.size()));
        self.calls.push(Call::Copy { source: (**source).clone(), from: 0, copy, to: 0, bytes });
    }

    fn keep_rows(&mut self, name: String, [batch, width]: [usize; 2], pieces: &[Piece<Tensor>]) {
        if !self.keeps {
            return;
        }
        let row = 4 * width as u64;
        let rows: usize = pieces.iter().map(|piece| piece.count).sum();
        let copy = self.kept(name, (batch * rows) as u64 * row);
        let mut to = 0;
        for item in 0..batch {
            for piece in pieces {
                let (from, bytes) = ((item * piece.len + piece.first) as u64 * row, piece.count as u64 * row);
                self.calls.push(Call::Copy {
                    source: (*piece.tensor).clone(),
                    from,
                    copy: copy.clone(),
                    to,
                    bytes,
                });
                to += bytes;
            }
        }
    }
}
