//! A Reformer (Kitaev 2020): LSH attention and chunked feed-forward layers in reversible layers, so that its activations take the same memory
//! whatever its depth.

use crate::Error;
use crate::model::{Config, Model, Piece, Place, Slot};
use wgpu_attention::{
    Activation, AddShape, AttentionBranch, AttentionShape, BranchPlan, Call, Combine, EmbedShape,
    FeedForwardBranch, FeedForwardShape, Gpu, LshOptions, MatmulBuffers, MatmulGradBuffers, MatmulShape,
    NormBuffers, NormGradBuffers, NormKind, NormShape, Reversible,
};

/// Rounds of hashing.
const ROUNDS: usize = 2;

/// The model: its layers, and the calls before and behind them.
pub(crate) struct Reformer {
    stack: Reversible,
    embed: Vec<Call>,
    head: Vec<Call>,
    head_backward: Vec<Call>,
    embed_backward: Vec<Call>,
    tokens: wgpu::Buffer,
    logits: wgpu::Buffer,
    slots: Vec<Slot>,
}

fn whole(buffer: &wgpu::Buffer) -> wgpu::BufferBinding<'_> {
    buffer.as_entire_buffer_binding()
}

impl Model for Reformer {
    fn tokens(&self) -> &wgpu::Buffer {
        &self.tokens
    }

    fn logits(&self) -> &wgpu::Buffer {
        &self.logits
    }

    fn slots(&self) -> &[Slot] {
        &self.slots
    }

    fn forward(&self, encoder: &mut wgpu::CommandEncoder) {
        self.embed.iter().for_each(|call| call.encode(encoder));
        // Both streams begin as the embedding.
        let streams = self.stack.buffers();
        encoder.copy_buffer_to_buffer(&streams.x1, 0, &streams.x2, 0, streams.x1.size());
        self.stack.forward(encoder);
        self.head.iter().for_each(|call| call.encode(encoder));
    }

    fn backward(&self, encoder: &mut wgpu::CommandEncoder) {
        self.head_backward.iter().for_each(|call| call.encode(encoder));
        self.stack.backward(encoder);
        self.embed_backward.iter().for_each(|call| call.encode(encoder));
    }

    fn pieces(&self) -> [Vec<Piece<'_>>; 2] {
        let of = |name: &str, calls| -> Piece<'_> { (name.into(), recorded(calls)) };
        let streams = self.stack.buffers();
        let copy: Piece<'_> = (
            "embed".into(),
            Box::new(|encoder| {
                encoder.copy_buffer_to_buffer(&streams.x1, 0, &streams.x2, 0, streams.x1.size())
            }),
        );
        let mut forward = vec![of("embed", &self.embed), copy];
        let mut backward = vec![of("head backward", &self.head_backward)];
        for n in 0..self.stack.len() {
            forward.push(("layers".into(), Box::new(move |encoder| self.stack.forward_layer(encoder, n))));
            let n = self.stack.len() - 1 - n;
            backward.push((
                "layers inverse and backward".into(),
                Box::new(move |encoder| self.stack.backward_layer(encoder, n)),
            ));
        }
        forward.push(of("head", &self.head));
        backward.push(of("embed backward", &self.embed_backward));
        [forward, backward]
    }
}

fn recorded(calls: &[Call]) -> Box<dyn Fn(&mut wgpu::CommandEncoder) + '_> {
    Box::new(|encoder| calls.iter().for_each(|call| call.encode(encoder)))
}

impl Reformer {
    pub(crate) fn new(gpu: &Gpu, config: &Config) -> Result<Self, Error> {
        let (rows, width, vocabulary) = (config.rows(), config.width, config.vocabulary);
        let mut tensors = Tensors { gpu, first: Box::new(config.first_values()), slots: vec![] };
        let [tokens, positions] = [(); 2].map(|()| tensors.buffer(rows));
        let ids: Vec<u32> = (0..rows).map(|row| (row % config.len) as u32).collect();
        gpu.queue().write_buffer(&positions, 0, bytemuck::cast_slice(&ids));
        let logits = tensors.buffer(rows * vocabulary);

        let mut stack = gpu.kernels().reversible(rows, width)?;
        let streams = stack.buffers().clone();
        let words = tensors.drawn("words", vocabulary * width, 0.1);
        let places = tensors.drawn("positions", config.len * width, 0.02);
        let lookups = [
            (EmbedShape::new(rows, vocabulary, width), &tokens, words),
            (EmbedShape::new(rows, config.len, width), &positions, places),
        ];
        let mut embed = vec![];
        let mut embed_backward = vec![];
        // The embedding's gradient is the sum of both streams', in the place of the first.
        let sum = gpu.kernels().add(&AddShape::new(rows, width).in_place(true))?;
        embed_backward.push(sum.bind_in_place(whole(&streams.dx1), whole(&streams.dx2))?);
        for (n, (shape, ids, [table, dtable])) in lookups.iter().enumerate() {
            let combine = if n == 0 { Combine::Store } else { Combine::AddInto };
            let plan = gpu.kernels().embed(&shape.combine(combine))?;
            embed.push(plan.bind(whole(ids), whole(table), whole(&streams.x1))?);
            embed_backward.push(plan.backward()?.bind(whole(ids), whole(&streams.dx1), whole(dtable))?);
        }
        tensors.layers(config, &mut stack)?;
        let [head, head_backward] = tensors.head(config, &stack, &logits)?;
        Ok(Self { stack, embed, head, head_backward, embed_backward, tokens, logits, slots: tensors.slots })
    }
}

/// Tensors that are made one behind the other, and the parameters among them.
struct Tensors<'g> {
    gpu: &'g Gpu,
    first: Box<dyn FnMut(usize, f64) -> Vec<f32> + 'g>,
    slots: Vec<Slot>,
}

impl Tensors<'_> {
    fn buffer(&self, elements: usize) -> wgpu::Buffer {
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
        let size = 4 * elements as u64;
        self.gpu.device().create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size,
            usage,
            mapped_at_creation: false,
        })
    }

    /// A parameter that begins so, and its gradient.
    fn parameter(&mut self, name: &str, values: &[f32]) -> [wgpu::Buffer; 2] {
        let both = [(); 2].map(|()| self.buffer(values.len()));
        self.gpu.queue().write_buffer(&both[0], 0, bytemuck::cast_slice(values));
        let [values_at, gradient] = both.clone().map(|buffer| Place { buffer, offset: 0 });
        self.slots.push(Slot { name: name.into(), len: values.len(), values: values_at, gradient });
        both
    }

    fn drawn(&mut self, name: &str, len: usize, deviation: f64) -> [wgpu::Buffer; 2] {
        let values = (self.first)(len, deviation);
        self.parameter(name, &values)
    }

    fn layers(&mut self, config: &Config, stack: &mut Reversible) -> Result<(), Error> {
        let (rows, width) = (config.rows(), config.width);
        let kernels = self.gpu.kernels();
        let norm = NormShape::new(NormKind::Layer, rows, width, 1e-5).bias(true);
        let attention = AttentionShape::new(config.batch, config.heads, config.len, width / config.heads);
        // Two chunks' worth of positions per bucket on average, as the paper has it (section 2).
        let chunk = (config.len / 8).clamp(16, 64);
        let options = LshOptions::new(ROUNDS, 2 * config.len / chunk, chunk).causal(true);
        let f = AttentionBranch::new(norm, attention).lsh(kernels, &stack.f(), options)?;
        let feed_forward = FeedForwardShape::new(rows, width, 4 * width, Activation::GeluTanh).bias(true);
        let feed_forward = feed_forward.chunk(Some(256));
        let g = FeedForwardBranch::new(norm, feed_forward).plan(kernels, &stack.g())?;
        for n in 0..config.layers {
            let f = self.branch(&format!("{n}.attention"), &f, width)?;
            let g = self.branch(&format!("{n}.feed_forward"), &g, width)?;
            stack.push(f, g)?;
        }
        Ok(())
    }

    /// One layer's branch: a buffer of parameters, and one of gradients.
    fn branch(
        &mut self,
        name: &str,
        plan: &BranchPlan,
        width: usize,
    ) -> Result<wgpu_attention::LayerBranch, Error> {
        let layout = plan.layout();
        let [parameters, gradients] = [(); 2].map(|()| self.buffer(layout.len()));
        for parameter in layout.parameters() {
            let len = parameter.range.len();
            let values = match parameter.name {
                "norm_weight" => vec![1.0; len],
                "norm_bias" | "b1" | "b2" => vec![0.0; len],
                // As many columns as make the tensor, whose rows are the inputs.
                "w2" => (self.first)(len, (4.0 * width as f64).powf(-0.5)),
                _ => (self.first)(len, (width as f64).powf(-0.5)),
            };
            let offset = 4 * parameter.range.start as u64;
            self.gpu.queue().write_buffer(&parameters, offset, bytemuck::cast_slice(&values));
            self.slots.push(Slot {
                name: format!("{name}.{}", parameter.name),
                len,
                values: Place { buffer: parameters.clone(), offset },
                gradient: Place { buffer: gradients.clone(), offset },
            });
        }
        Ok(plan.branch(&parameters, &gradients)?)
    }

    /// From both streams to the logits, and back from their gradient.
    fn head(
        &mut self,
        config: &Config,
        stack: &Reversible,
        logits: &wgpu::Buffer,
    ) -> Result<[Vec<Call>; 2], Error> {
        let (rows, both, vocabulary) = (config.rows(), 2 * config.width, config.vocabulary);
        let [joined, normed, djoined, dnormed] = [(); 4].map(|()| self.buffer(rows * both));
        let [weight, dweight] = self.parameter("norm.weight", &vec![1.0; both]);
        let [bias, dbias] = self.parameter("norm.bias", &vec![0.0; both]);
        let [w, dw] = self.drawn("head.weight", both * vocabulary, (both as f64).powf(-0.5));
        let [b, db] = self.parameter("head.bias", &vec![0.0; vocabulary]);
        let kernels = self.gpu.kernels();
        let norm = kernels.norm(&NormShape::new(NormKind::Layer, rows, both, 1e-5).bias(true))?;
        let head = kernels.matmul(&MatmulShape::new(rows, both, vocabulary).bias(true))?;
        let forward = vec![
            stack.join_streams(whole(&joined))?,
            norm.bind(NormBuffers::new(whole(&joined), whole(&weight), whole(&normed)).bias(whole(&bias)))?,
            head.bind(MatmulBuffers::new(whole(&normed), whole(&w), whole(logits)).bias(whole(&b)))?,
        ];
        let of_head = MatmulGradBuffers::new(whole(&normed), whole(&w), whole(logits));
        let of_head = of_head.da(whole(&dnormed)).db(whole(&dw)).dbias(whole(&db));
        let of_norm = NormGradBuffers::new(whole(&joined), whole(&weight), whole(&dnormed), whole(&djoined));
        let of_norm = of_norm.dweight(whole(&dweight)).dbias(whole(&dbias));
        let backward = vec![
            head.backward()?.bind(of_head)?,
            norm.backward()?.bind(of_norm)?,
            stack.split_gradients(whole(&djoined))?,
        ];
        Ok([forward, backward])
    }
}
