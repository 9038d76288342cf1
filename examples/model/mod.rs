//! Whole models from a safetensors file with Hugging Face's tensor names, for the examples `encoder` and `decoder`: how
//! another crate builds on the kernels. A forward pass is a list of calls, planned and bound once and recorded into one
//! encoder.

#![allow(dead_code, unused_imports)] // Each example runs one family.

mod bert;
mod file;
mod gpt2;

pub(crate) use bert::bert;
pub(crate) use file::{Error, File};
pub(crate) use gpt2::gpt2;

use wgpu_attention::{
    AnyPattern, AttentionBuffers, AttentionCall, AttentionShape, Combine, EmbedShape, FeedForwardBuffers,
    FeedForwardShape, Gpu, LayerCall, Layout, MatmulBuffers, MatmulShape, NormBuffers, NormKind, NormShape,
    Parts,
};

/// What both families have in common.
pub(crate) struct Sizes {
    pub(crate) batch: usize,
    pub(crate) len: usize,
    pub(crate) width: usize,
    pub(crate) heads: usize,
    pub(crate) eps: f32,
}

impl Sizes {
    fn rows(&self) -> usize {
        self.batch * self.len
    }
}

/// One thing to record.
enum Call {
    Layer(LayerCall),
    Attention(AttentionCall),
    /// Keeps a state for the caller.
    Copy {
        source: wgpu::Buffer,
        copy: wgpu::Buffer,
    },
}

/// A forward pass, ready to be recorded, and the states that it leaves, by name.
pub(crate) struct Forward<'a> {
    gpu: &'a Gpu,
    sizes: Sizes,
    calls: Vec<Call>,
    states: Vec<(String, wgpu::Buffer)>,
}

/// A norm's or a linear layer's parameters on the device.
struct Pair {
    weight: wgpu::Buffer,
    bias: wgpu::Buffer,
}

fn whole(buffer: &wgpu::Buffer) -> wgpu::BufferBinding<'_> {
    buffer.as_entire_buffer_binding()
}

impl<'a> Forward<'a> {
    fn new(gpu: &'a Gpu, sizes: Sizes) -> Self {
        Self { gpu, sizes, calls: vec![], states: vec![] }
    }

    fn upload<T: bytemuck::Pod>(&self, data: &[T]) -> wgpu::Buffer {
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST;
        let buffer = self.buffer(size_of_val(data) as u64, usage);
        self.gpu.queue().write_buffer(&buffer, 0, bytemuck::cast_slice(data));
        buffer
    }

    /// An f32 tensor that the model computes.
    fn tensor(&self, elements: usize) -> wgpu::Buffer {
        self.buffer(4 * elements as u64, wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC)
    }

    fn buffer(&self, size: u64, usage: wgpu::BufferUsages) -> wgpu::Buffer {
        let descriptor = wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false };
        self.gpu.device().create_buffer(&descriptor)
    }

    /// `weight` and `bias` of a module.
    fn pair(&self, file: &File<'_>, name: &str, weight: &[usize], bias: usize) -> Result<Pair, Error> {
        Ok(Pair {
            weight: self.upload(&file.tensor(&format!("{name}.weight"), weight)?),
            bias: self.upload(&file.tensor(&format!("{name}.bias"), &[bias])?),
        })
    }

    /// Keeps a copy of `source` under `name`.
    fn keep(&mut self, name: String, source: &wgpu::Buffer) {
        let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
        let copy = self.buffer(source.size(), usage);
        self.calls.push(Call::Copy { source: source.clone(), copy: copy.clone() });
        self.states.push((name, copy));
    }

    /// out (+)= table[ids].
    fn embed(
        &mut self,
        ids: &[u32],
        table: &[f32],
        combine: Combine,
        out: &wgpu::Buffer,
    ) -> Result<(), Error> {
        let width = self.sizes.width;
        let shape = EmbedShape::new(ids.len(), table.len() / width, width).combine(combine);
        let (ids, table) = (self.upload(ids), self.upload(table));
        let call = self.gpu.kernels().embed(&shape)?.bind(whole(&ids), whole(&table), whole(out))?;
        self.calls.push(Call::Layer(call));
        Ok(())
    }

    fn norm(&mut self, x: &wgpu::Buffer, pair: &Pair, out: &wgpu::Buffer) -> Result<(), Error> {
        let Sizes { width, eps, .. } = self.sizes;
        let shape = NormShape::new(NormKind::Layer, self.sizes.rows(), width, eps).bias(true);
        let (weight, bias) = (whole(&pair.weight), Some(whole(&pair.bias)));
        let buffers = NormBuffers { x: whole(x), weight, bias, out: whole(out) };
        self.calls.push(Call::Layer(self.gpu.kernels().norm(&shape)?.bind(buffers)?));
        Ok(())
    }

    /// A product of all rows with one matrix; `shape` says what else it does.
    fn linear(
        &mut self,
        shape: MatmulShape,
        a: &wgpu::Buffer,
        b: &wgpu::Buffer,
        bias: Option<&wgpu::Buffer>,
        residual: Option<&wgpu::Buffer>,
        out: &wgpu::Buffer,
    ) -> Result<(), Error> {
        let buffers = MatmulBuffers {
            a: whole(a),
            b: whole(b),
            bias: bias.map(whole),
            residual: residual.map(whole),
            out: whole(out),
        };
        self.calls.push(Call::Layer(self.gpu.kernels().matmul(&shape)?.bind(buffers)?));
        Ok(())
    }

    /// Attention over rows `[B, L, H, d]`, as the projections leave them: heads are strides, not copies.
    fn attention(&mut self, parts: &Parts, qkv: &[wgpu::Buffer; 3], out: &wgpu::Buffer) -> Result<(), Error> {
        let shape = attention_shape(&self.sizes);
        let [q, k, v] = qkv.each_ref().map(whole);
        let buffers = AttentionBuffers { q, k, v, bias: None, out: whole(out), lse: None };
        let call = self.gpu.kernels().attention(&shape, parts.clone())?.bind(buffers)?;
        self.calls.push(Call::Attention(call));
        Ok(())
    }

    /// x + FF(x'), x the residual.
    fn feed_forward(
        &mut self,
        shape: FeedForwardShape,
        x: &wgpu::Buffer,
        [first, second]: [&Pair; 2],
        residual: &wgpu::Buffer,
        out: &wgpu::Buffer,
    ) -> Result<(), Error> {
        let buffers = FeedForwardBuffers {
            x: whole(x),
            w1: whole(&first.weight),
            b1: Some(whole(&first.bias)),
            w3: None,
            b3: None,
            w2: whole(&second.weight),
            b2: Some(whole(&second.bias)),
            residual: Some(whole(residual)),
            out: whole(out),
            scratch: None,
        };
        self.calls.push(Call::Layer(self.gpu.kernels().feed_forward(&shape)?.bind(buffers)?));
        Ok(())
    }

    /// Records all of the pass into one encoder, submits it, and reads the states back.
    pub(crate) fn run(&self) -> Result<Vec<(String, Vec<f32>)>, Error> {
        let device = self.gpu.device();
        let mut encoder = device.create_command_encoder(&Default::default());
        for call in &self.calls {
            match call {
                Call::Layer(call) => call.encode(&mut encoder),
                Call::Attention(call) => call.encode(&mut encoder),
                Call::Copy { source, copy } => encoder.copy_buffer_to_buffer(source, 0, copy, 0, copy.size()),
            }
        }
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

    /// What the pass records.
    pub(crate) fn calls(&self) -> usize {
        self.calls.len()
    }
}

fn attention_shape(sizes: &Sizes) -> AttentionShape {
    let head_dim = sizes.width / sizes.heads;
    AttentionShape::new(sizes.batch, sizes.heads, sizes.len, head_dim).layout(Layout::Blhd)
}

/// How a family computes: the recorded forward pass of the model in a file.
pub(crate) type Family = for<'a> fn(&'a Gpu, &File<'_>, AnyPattern) -> Result<Forward<'a>, Error>;

/// The command line of an example: `FILE [--pattern PATTERN]`. Under the model's own pattern the states are compared with
/// the file's; under another they are shown.
pub(crate) fn command(example: &str, own_pattern: &str, family: Family) -> Result<(), Error> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (path, pattern) = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [path] => (path, None),
        [path, "--pattern", pattern] => (path, Some(pattern)),
        _ => return Err(format!("usage: {example} FILE [--pattern PATTERN]").into()),
    };
    let bytes = std::fs::read(path).map_err(|error| format!("cannot read {path}: {error}"))?;
    let file = File::parse(&bytes)?;
    let gpu = Gpu::new()?;
    let pass = family(&gpu, &file, AnyPattern::parse(pattern.unwrap_or(own_pattern))?)?;
    let states = pass.run()?;
    println!("{}: {} recordings in one encoder", gpu.info().name, pass.calls());
    if pattern.is_none() {
        for (name, error) in compare(&file, &states)? {
            println!("{name}: right, largest error {error:.1e}");
        }
        return Ok(());
    }
    for (name, values) in &states {
        let mean = values.iter().map(|x| f64::from(x.abs())).sum::<f64>() / values.len() as f64;
        println!(
            "{name}: {} elements, mean size {mean:.4}, begins {:.4?}",
            values.len(),
            &values[..values.len().min(4)]
        );
    }
    Ok(())
}

/// Compares states with those of a golden file; returns the largest error of each.
///
/// Every kernel is held to its bound by the tests, given its inputs. Through a whole model worst cases multiply layer by
/// layer and say nothing, so this looks for wrong wiring, which shows as errors of the size of the values: 2^-23 times
/// 1,000 roundings of the largest value, beside the expected values' own error.
pub(crate) fn compare(file: &File<'_>, states: &[(String, Vec<f32>)]) -> Result<Vec<(String, f64)>, Error> {
    let mut errors = vec![];
    for (name, got) in states {
        let want = file.values(name)?;
        if want.len() != got.len() {
            return Err(format!("`{name}`: need {} elements, got {}", want.len(), got.len()).into());
        }
        let largest = want.iter().fold(1f32, |largest, x| largest.max(x.abs()));
        let limit = f64::from(f32::EPSILON) * 1000.0 * f64::from(largest) + file.expected_error();
        let error = want.iter().zip(got).map(|(want, got)| f64::from((want - got).abs()));
        // NaN must fail, and `max` would drop it.
        let error = error.fold(0.0, |worst, error| if error <= worst { worst } else { error });
        if error.is_nan() || error > limit {
            return Err(format!("`{name}` is off by {error:e}, more than {limit:e}").into());
        }
        errors.push((name.clone(), error));
    }
    Ok(errors)
}
