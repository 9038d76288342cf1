//! One call on a device, step by step: upload, compute (as often as wanted), read back.

use anyhow::{Context, Result, anyhow, ensure};
use bytemuck::Pod;
use futures_channel::oneshot;
use web_time::{Duration, Instant};
use wgpu::{BufferUsages, ErrorFilter};
use wgpu_attention::reference::Got;
use wgpu_attention::{
    Attention, AttentionBuffers, AttentionGradBuffers, AttentionPlan, BackwardPlan, Element, ElementType,
    Error, Gpu, Inputs,
};

/// A call's inputs on the device.
struct Uploaded<'n> {
    q: wgpu::Buffer,
    k: wgpu::Buffer,
    v: wgpu::Buffer,
    /// Those of the score, by name.
    tensors: Vec<(&'n str, wgpu::Buffer)>,
}

impl<'n> Uploaded<'n> {
    async fn new<Q: Element, KV: Element>(
        gpu: &Gpu,
        attention: &Attention,
        inputs: &Inputs<'n, Q, KV>,
    ) -> Result<Self> {
        inputs.check(attention)?;
        let input = |name, bytes| buffer(gpu, name, bytes, BufferUsages::STORAGE);
        let q = input("q", bytemuck::cast_slice(inputs.q)).await?;
        let k = input("k", bytemuck::cast_slice(inputs.k)).await?;
        let v = input("v", bytemuck::cast_slice(inputs.v)).await?;
        let mut tensors = vec![];
        for (name, values) in &inputs.tensors {
            tensors.push((*name, input("a tensor of the score", bytemuck::cast_slice(values)).await?));
        }
        Ok(Self { q, k, v, tensors })
    }

    fn buffers<'b>(&'b self, out: &'b wgpu::Buffer) -> AttentionBuffers<'b> {
        let mut buffers = AttentionBuffers::new(whole(&self.q), whole(&self.k), whole(&self.v), whole(out));
        buffers.tensors = self.tensors();
        buffers
    }

    fn tensors(&self) -> Vec<(&str, wgpu::BufferBinding<'_>)> {
        self.tensors.iter().map(|(name, buffer)| (*name, whole(buffer))).collect()
    }
}

/// A call whose tensors are on the device.
pub struct Call<'g> {
    gpu: &'g Gpu,
    attention: Attention,
    call: wgpu_attention::Call,
    out: wgpu::Buffer,
    lse: Option<wgpu::Buffer>,
}

/// What a call gave.
#[derive(Debug, Clone, PartialEq)]
pub struct Output<O> {
    /// `[B, H, Lq, dv]`, lying as the layout of out says.
    pub out: Vec<O>,
    /// `[B, H, Lq]`, where it was asked for.
    pub lse: Option<Vec<f32>>,
}

impl<O> Output<O> {
    /// As slices.
    pub fn got(&self) -> Got<'_, O> {
        Got::new(&self.out).lse(self.lse.as_deref())
    }
}

impl<'g> Call<'g> {
    /// Uploads the inputs and poisons the outputs: what the kernel does not write is NaN.
    pub async fn upload<Q: Element, KV: Element>(
        gpu: &'g Gpu,
        plan: &AttentionPlan,
        inputs: &Inputs<'_, Q, KV>,
        lse: bool,
    ) -> Result<Self> {
        let attention = plan.attention().clone();
        let uploaded = Uploaded::new(gpu, &attention, inputs).await?;
        let out = poisoned(gpu, "out", attention.len_out(), attention.storage.out).await?;
        let lse = match lse {
            true => Some(poisoned(gpu, "lse", attention.len_lse(), ElementType::F32).await?),
            false => None,
        };
        let mut buffers = uploaded.buffers(&out);
        buffers.lse = lse.as_ref().map(whole);
        let call = checked(gpu.device(), "bind", || plan.bind(buffers)).await??;
        Ok(Self { gpu, attention, call, out, lse })
    }

    /// Computes `times` times in one submission and waits; from submit to done.
    pub async fn compute(&self, times: usize) -> Result<Duration> {
        compute(self.gpu, &self.call, times).await
    }

    /// Records one call into a pass.
    pub fn dispatch(&self, pass: &mut wgpu::ComputePass<'_>) {
        self.call.dispatch(pass);
    }

    /// What was computed.
    pub async fn read<O: Element>(&self) -> Result<Output<O>> {
        let element = self.attention.storage.out;
        ensure!(O::TYPE == element, "out is {element}, not {}", O::TYPE);
        Ok(Output {
            out: read(self.gpu, "out", &self.out, self.attention.len_out()).await?,
            lse: match &self.lse {
                Some(lse) => Some(read(self.gpu, "lse", lse, self.attention.len_lse()).await?),
                None => None,
            },
        })
    }
}

/// The gradients of a call whose tensors are on the device, after the forward pass.
pub struct Backward<'g> {
    gpu: &'g Gpu,
    call: wgpu_attention::Call,
    /// dq, dk, dv, with their lengths, as many as are computed.
    gradients: [Option<(wgpu::Buffer, usize)>; 3],
}

impl<'g> Backward<'g> {
    /// Uploads the inputs, computes forward, and poisons the gradients: those that are wanted of dq, dk and dv.
    pub async fn upload<Q: Element, KV: Element, O: Element>(
        gpu: &'g Gpu,
        (plan, backward): (&AttentionPlan, &BackwardPlan),
        inputs: &Inputs<'_, Q, KV>,
        dout: &[O],
        wanted: [bool; 3],
    ) -> Result<Self> {
        let attention = plan.attention();
        let uploaded = Uploaded::new(gpu, attention, inputs).await?;
        let dout = buffer(gpu, "dout", bytemuck::cast_slice(dout), BufferUsages::STORAGE).await?;
        let out = poisoned(gpu, "out", attention.len_out(), attention.storage.out).await?;
        let state = poisoned(gpu, "state", 2 * attention.len_lse(), ElementType::F32).await?;
        let forward = uploaded.buffers(&out).state(whole(&state));
        let forward = checked(gpu.device(), "bind", || plan.bind(forward)).await??;
        let mut encoder = gpu.device().create_command_encoder(&Default::default());
        forward.encode(&mut encoder);
        submit(gpu, "forward", encoder.finish()).await?;
        // Stored and lying as their tensors.
        let stored = backward.gradients();
        let [dq, dk, dv] = [
            ("dq", attention.len_q(), stored.dq),
            ("dk", attention.len_k(), stored.dkv),
            ("dv", attention.len_v(), stored.dkv),
        ];
        let mut gradients = [None, None, None];
        for ((gradient, wanted), (name, len, element)) in gradients.iter_mut().zip(wanted).zip([dq, dk, dv]) {
            if wanted {
                *gradient = Some((poisoned(gpu, name, len, element).await?, len));
            }
        }
        let Uploaded { q, k, v, .. } = &uploaded;
        let [q, k, v] = [q, k, v].map(whole);
        let mut buffers = AttentionGradBuffers::new(q, k, v, whole(&out), whole(&state), whole(&dout));
        buffers.tensors = uploaded.tensors();
        [buffers.dq, buffers.dk, buffers.dv] =
            gradients.each_ref().map(|gradient| gradient.as_ref().map(|(buffer, _)| whole(buffer)));
        let call = checked(gpu.device(), "bind", || backward.bind(buffers)).await??;
        Ok(Self { gpu, call, gradients })
    }

    /// Computes `times` times in one submission and waits; from submit to done.
    pub async fn compute(&self, times: usize) -> Result<Duration> {
        compute(self.gpu, &self.call, times).await
    }

    /// Records one call into a pass.
    pub fn dispatch(&self, pass: &mut wgpu::ComputePass<'_>) {
        self.call.dispatch(pass);
    }

    /// dq, dk, dv; none of those that were not wanted.
    pub async fn read<G: Element>(&self) -> Result<[Option<Vec<G>>; 3]> {
        let mut all = [None, None, None];
        for ((values, gradient), name) in all.iter_mut().zip(&self.gradients).zip(["dq", "dk", "dv"]) {
            if let Some((buffer, len)) = gradient {
                *values = Some(read(self.gpu, name, buffer, *len).await?);
            }
        }
        Ok(all)
    }
}

fn whole(buffer: &wgpu::Buffer) -> wgpu::BufferBinding<'_> {
    buffer.as_entire_buffer_binding()
}

/// The first elements of a buffer.
pub async fn read<E: Pod>(gpu: &Gpu, name: &str, from: &wgpu::Buffer, elements: usize) -> Result<Vec<E>> {
    let device = gpu.device();
    let copy = checked(device, "read-back", || {
        device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("read-back"),
            size: from.size(),
            usage: BufferUsages::MAP_READ | BufferUsages::COPY_DST,
            mapped_at_creation: false,
        })
    })
    .await?;
    let mut encoder = device.create_command_encoder(&Default::default());
    encoder.copy_buffer_to_buffer(from, 0, &copy, 0, from.size());
    submit(gpu, "read-back", encoder.finish()).await?;
    let (send, receive) = oneshot::channel();
    copy.map_async(wgpu::MapMode::Read, .., move |result| drop(send.send(result)));
    wait(device).context("read-back")?;
    receive.await.map_err(|_| anyhow!("the device dropped the read-back of {name}"))?.context("read-back")?;
    let view = copy.slice(..).get_mapped_range().context("read-back")?;
    Ok(bytemuck::pod_collect_to_vec(&view[..elements * size_of::<E>()]))
}

async fn compute(gpu: &Gpu, call: &wgpu_attention::Call, times: usize) -> Result<Duration> {
    let mut encoder = gpu.device().create_command_encoder(&Default::default());
    (0..times).for_each(|_| call.encode(&mut encoder));
    submit(gpu, "compute", encoder.finish()).await
}

/// Submits and waits; from submit to done.
pub async fn submit(gpu: &Gpu, what: &'static str, commands: wgpu::CommandBuffer) -> Result<Duration> {
    let scopes = Scopes::push(gpu.device(), what);
    let (send, receive) = oneshot::channel();
    let start = Instant::now();
    gpu.queue().submit([commands]);
    // Nobody is left to tell if the receiver is gone.
    gpu.queue().on_submitted_work_done(move || _ = send.send(()));
    wait(gpu.device()).context(what)?;
    receive.await.map_err(|_| anyhow!("{what}: the device dropped the work"))?;
    let took = start.elapsed();
    // Not before the clock has stopped: a browser asks another process.
    scopes.pop().await?;
    Ok(took)
}

/// Blocks until all that was submitted is done. A browser runs callbacks by itself, and nothing may block there.
fn wait(device: &wgpu::Device) -> Result<()> {
    #[cfg(not(target_arch = "wasm32"))]
    device.poll(wgpu::PollType::wait_indefinitely())?;
    #[cfg(target_arch = "wasm32")]
    let _ = device;
    Ok(())
}

/// A buffer with a content, in whole words and never empty.
pub async fn buffer(
    gpu: &Gpu,
    name: &'static str,
    bytes: &[u8],
    usage: BufferUsages,
) -> Result<wgpu::Buffer> {
    let device = gpu.device();
    let (size, limits) = ((bytes.len() as u64).next_multiple_of(16).max(16), device.limits());
    let most = [
        ("max_storage_buffer_binding_size", limits.max_storage_buffer_binding_size),
        ("max_buffer_size", limits.max_buffer_size),
    ];
    if let Some((limit, have)) = most.into_iter().find(|(_, have)| size > *have) {
        return Err(Error::limit(name, limit, size, have).into());
    }
    let descriptor = wgpu::BufferDescriptor { label: Some(name), size, usage, mapped_at_creation: true };
    let buffer = checked(device, name, || device.create_buffer(&descriptor)).await?;
    let mut view = buffer.slice(..).get_mapped_range_mut().with_context(|| format!("uploading {name}"))?;
    view.slice(..bytes.len()).copy_from_slice(bytes);
    drop(view);
    buffer.unmap();
    Ok(buffer)
}

/// An output, poisoned: all bits are set, so that what the kernel does not write is NaN in every element type.
pub async fn poisoned(
    gpu: &Gpu,
    name: &'static str,
    elements: usize,
    element: ElementType,
) -> Result<wgpu::Buffer> {
    let usage = BufferUsages::STORAGE | BufferUsages::COPY_SRC;
    buffer(gpu, name, &vec![0xff; elements * element.size_bytes()], usage).await
}

/// Runs `create` and returns what the device says against it; uncaught errors would be a panic, or unseen in a browser.
pub async fn checked<T>(device: &wgpu::Device, what: &'static str, create: impl FnOnce() -> T) -> Result<T> {
    let scopes = Scopes::push(device, what);
    let value = create();
    scopes.pop().await?;
    Ok(value)
}

/// Catches what a device says against what is done with it.
struct Scopes {
    scopes: [wgpu::ErrorScopeGuard; 3],
    what: &'static str,
}

impl Scopes {
    fn push(device: &wgpu::Device, what: &'static str) -> Self {
        let filters = [ErrorFilter::Internal, ErrorFilter::OutOfMemory, ErrorFilter::Validation];
        Self { scopes: filters.map(|filter| device.push_error_scope(filter)), what }
    }

    async fn pop(self) -> Result<()> {
        let mut first = None;
        // A stack: the last one pushed is popped first.
        for scope in self.scopes.into_iter().rev() {
            let error = scope.pop().await;
            first = first.or(error);
        }
        match first {
            None => Ok(()),
            Some(error) => Err(Error::Device { what: self.what.into(), message: error.to_string() }.into()),
        }
    }
}
