//! Steps: forward pass, loss, backward pass, clipping and AdamW, in one submission each.

use crate::Error;
use crate::build;
use crate::model::{Config, Model, Piece};
use crate::text::{Batch, Text};
use wgpu_attention::{
    Call, ClipShape, CrossEntropyBuffers, CrossEntropyShape, ElementType, Gpu, LossGradient,
    OptimizerBuffers, OptimizerPlan, OptimizerRule, OptimizerShape, OptimizerStep,
};

/// Gradients whose norm is larger are scaled down to it.
const LARGEST_NORM: f32 = 1.0;
/// Steps until the learning rate is what was asked for.
const WARM_UP: f32 = 50.0;

/// A model, and all that makes it learn.
pub(crate) struct Trainer {
    gpu: Gpu,
    config: Config,
    model: Box<dyn Model>,
    steps: u32,
    /// Parameters, gradients, and AdamW's two moments, each of all parameters one behind the other.
    flat: [wgpu::Buffer; 4],
    clip: wgpu::Buffer,
    targets: wgpu::Buffer,
    losses: wgpu::Buffer,
    read: wgpu::Buffer,
    learning_loss: Call,
    loss_alone: Call,
    clipping: Call,
    adamw: OptimizerPlan,
}

fn whole(buffer: &wgpu::Buffer) -> wgpu::BufferBinding<'_> {
    buffer.as_entire_buffer_binding()
}

impl Trainer {
    /// A model that has learnt nothing yet.
    pub(crate) fn new(gpu: &Gpu, config: Config) -> Result<Self, Error> {
        let model = build::model(gpu, &config)?;
        let len: usize = model.slots().iter().map(|slot| slot.len).sum();
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
        let buffer = |elements: usize, usage| {
            let size = 4 * elements as u64;
            gpu.device().create_buffer(&wgpu::BufferDescriptor {
                label: None,
                size,
                usage,
                mapped_at_creation: false,
            })
        };
        let flat = [(); 4].map(|()| buffer(len, usage));
        let [clip, targets, losses] = [2, config.rows(), config.rows()].map(|len| buffer(len, usage));
        let read = buffer(config.rows(), wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST);
        let loss = |gradient| -> Result<Call, Error> {
            let shape = CrossEntropyShape::new(config.rows(), config.vocabulary).gradient(gradient);
            let shape = shape.factor(1.0 / config.rows() as f32);
            let buffers = CrossEntropyBuffers::new(whole(model.logits()), whole(&targets), whole(&losses));
            Ok(gpu.kernels().cross_entropy(&shape)?.bind(buffers)?)
        };
        let shape = OptimizerShape::new(len, OptimizerRule::ADAMW).clipped(true);
        let norm = ClipShape::new(LARGEST_NORM).tensor(len, ElementType::F32);
        let trainer = Self {
            learning_loss: loss(LossGradient::InPlace)?,
            loss_alone: loss(LossGradient::None)?,
            clipping: gpu.kernels().clip(&norm)?.bind(&[whole(&flat[1])], whole(&clip))?,
            adamw: gpu.kernels().optimizer(&shape)?,
            gpu: gpu.clone(),
            config,
            model,
            steps: 0,
            flat,
            clip,
            targets,
            losses,
            read,
        };
        trainer.submit(|encoder| trainer.gather(encoder));
        Ok(trainer)
    }

    pub(crate) fn kind(&self) -> &str {
        &self.config.kind
    }

    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    pub(crate) fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    pub(crate) fn model(&self) -> &dyn Model {
        &*self.model
    }

    /// Steps that it has taken.
    pub(crate) fn steps(&self) -> u32 {
        self.steps
    }

    pub(crate) fn tokens_per_step(&self) -> usize {
        self.config.rows()
    }

    /// One step; the mean loss before it.
    pub(crate) fn step(&mut self, text: &Text) -> Result<f64, Error> {
        let sizes = [self.config.batch, self.config.len];
        self.upload(&text.batch(sizes, self.config.seed, self.steps)?);
        let adamw = self.bound()?;
        self.submit(|encoder| {
            self.model.forward(encoder);
            self.learning_loss.encode(encoder);
            self.model.backward(encoder);
            self.collect(encoder);
            self.clipping.encode(encoder);
            adamw.encode(encoder);
            self.scatter(encoder);
            encoder.copy_buffer_to_buffer(&self.losses, 0, &self.read, 0, self.losses.size());
        });
        self.steps += 1;
        self.mean_loss()
    }

    /// The mean loss over text that is held out; nothing is learnt of it.
    pub(crate) fn evaluate(&self, text: &Text) -> Result<f64, Error> {
        // One batch is a few lines: where the text has a table there, it says little.
        const TURNS: usize = 16;
        let mut sum = 0.0;
        for turn in 0..TURNS {
            self.upload(&text.unseen([self.config.batch, self.config.len], turn, TURNS)?);
            self.submit(|encoder| {
                self.model.forward(encoder);
                self.loss_alone.encode(encoder);
                encoder.copy_buffer_to_buffer(&self.losses, 0, &self.read, 0, self.losses.size());
            });
            sum += self.mean_loss()?;
        }
        Ok(sum / TURNS as f64)
    }

    /// A step in pieces, by their names, in their order; what is copied between the passes and AdamW belongs to it.
    pub(crate) fn pieces(&self) -> Result<Vec<Piece<'_>>, Error> {
        let adamw = self.bound()?;
        let [mut pieces, backward] = self.model.pieces();
        pieces.push(("loss".into(), Box::new(|encoder| self.learning_loss.encode(encoder))));
        pieces.extend(backward);
        pieces.push(("clip".into(), Box::new(|encoder| self.clipping.encode(encoder))));
        let update = move |encoder: &mut wgpu::CommandEncoder| {
            self.collect(encoder);
            adamw.encode(encoder);
            self.scatter(encoder);
        };
        pieces.push(("AdamW".into(), Box::new(update)));
        Ok(pieces)
    }

    /// The elements of all parameters.
    pub(crate) fn parameters(&self) -> usize {
        self.model.slots().iter().map(|slot| slot.len).sum()
    }

    /// Parameters, and AdamW's two moments, all one behind the other: what a checkpoint holds.
    pub(crate) fn state(&self) -> Result<[Vec<f32>; 3], Error> {
        let mut read =
            [&self.flat[0], &self.flat[2], &self.flat[3]].map(|buffer| self.values(buffer, 0, buffer.size()));
        let mut take = |n: usize| std::mem::replace(&mut read[n], Ok(vec![]));
        Ok([take(0)?, take(1)?, take(2)?])
    }

    /// Goes on from what another trainer's `state` was.
    pub(crate) fn restore(&mut self, state: [&[f32]; 3], steps: u32) {
        let queue = self.gpu.queue();
        for (buffer, values) in [0, 2, 3].into_iter().zip(state) {
            queue.write_buffer(&self.flat[buffer], 0, bytemuck::cast_slice(values));
        }
        self.submit(|encoder| self.scatter(encoder));
        self.steps = steps;
    }

    /// Elements of a buffer. Blocks.
    pub(crate) fn values(&self, buffer: &wgpu::Buffer, offset: u64, bytes: u64) -> Result<Vec<f32>, Error> {
        let device = self.gpu.device();
        let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
        let read = device.create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size: bytes,
            usage,
            mapped_at_creation: false,
        });
        self.submit(|encoder| encoder.copy_buffer_to_buffer(buffer, offset, &read, 0, bytes));
        self.map(&read)
    }

    pub(crate) fn submit(&self, record: impl FnOnce(&mut wgpu::CommandEncoder)) {
        let mut encoder = self.gpu.device().create_command_encoder(&Default::default());
        record(&mut encoder);
        self.gpu.queue().submit([encoder.finish()]);
    }

    fn map(&self, read: &wgpu::Buffer) -> Result<Vec<f32>, Error> {
        // A failed mapping shows below, where the range is asked for.
        read.map_async(wgpu::MapMode::Read, .., |_| ());
        self.gpu.device().poll(wgpu::PollType::wait_indefinitely())?;
        let view = read.slice(..).get_mapped_range().map_err(|error| error.to_string())?;
        let values = bytemuck::pod_collect_to_vec(&view);
        drop(view);
        read.unmap();
        Ok(values)
    }

    /// Rises at first, when the moments know little, and falls from the 500th step on.
    fn learning_rate(&self) -> f32 {
        let step = (self.steps + 1) as f32;
        self.config.learning_rate * (step / WARM_UP).min(1.0) * (500.0 / step).sqrt().min(1.0)
    }

    fn upload(&self, batch: &Batch) {
        let queue = self.gpu.queue();
        queue.write_buffer(self.model.tokens(), 0, bytemuck::cast_slice(&batch.ids));
        queue.write_buffer(&self.targets, 0, bytemuck::cast_slice(&batch.targets));
    }

    fn mean_loss(&self) -> Result<f64, Error> {
        let losses = self.map(&self.read)?;
        let mean = losses.iter().map(|&loss| f64::from(loss)).sum::<f64>() / losses.len() as f64;
        match mean.is_finite() {
            true => Ok(mean),
            false => {
                Err(format!("the loss is {mean} after {} steps: need a smaller --learning-rate", self.steps)
                    .into())
            }
        }
    }

    /// The parameters, and where each lies among all, in bytes.
    fn slots(&self) -> impl Iterator<Item = (&crate::model::Slot, u64)> {
        self.model.slots().iter().scan(0, |at, slot| {
            let here = *at;
            *at += 4 * slot.len as u64;
            Some((slot, here))
        })
    }

    /// The optimizer's next step.
    fn bound(&self) -> Result<Call, Error> {
        let step = OptimizerStep::new(self.steps + 1, self.learning_rate());
        let [parameters, gradient, first, second] = self.flat.each_ref().map(whole);
        let buffers = OptimizerBuffers::new(parameters, gradient).first(first).second(second);
        Ok(self.adamw.bind(buffers.clip(whole(&self.clip)), step)?)
    }

    /// The gradients from the model to where AdamW reads them.
    fn collect(&self, encoder: &mut wgpu::CommandEncoder) {
        for (slot, at) in self.slots() {
            let (place, bytes) = (&slot.gradient, 4 * slot.len as u64);
            encoder.copy_buffer_to_buffer(&place.buffer, place.offset, &self.flat[1], at, bytes);
        }
    }

    /// The parameters from the model to where AdamW has them.
    fn gather(&self, encoder: &mut wgpu::CommandEncoder) {
        for (slot, at) in self.slots() {
            let (place, bytes) = (&slot.values, 4 * slot.len as u64);
            encoder.copy_buffer_to_buffer(&place.buffer, place.offset, &self.flat[0], at, bytes);
        }
    }

    /// And back.
    fn scatter(&self, encoder: &mut wgpu::CommandEncoder) {
        for (slot, at) in self.slots() {
            let (place, bytes) = (&slot.values, 4 * slot.len as u64);
            encoder.copy_buffer_to_buffer(&self.flat[0], at, &place.buffer, place.offset, bytes);
        }
    }
}
