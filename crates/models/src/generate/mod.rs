//! Texts from a model, token by token: a prompt in chunks, then one token per step over caches of keys and values that stay on the device.
//!
//! | file | what |
//! |---|---|
//! | `mod.rs` | [`Generator`]: caches, and what is recorded for ids |
//! | `pass.rs` | the calls of a chunk or of a token, bound once |
//! | `sample.rs` | [`Sampler`]: the next token from logits |
//! | `folder.rs` | [`Folder`]: a model as Hugging Face lays it out |

mod folder;
mod pass;
mod sample;

pub use folder::Folder;
pub use sample::{Sampler, Sampling};

use super::attend::DecoderSizes;
use super::decoder::{Decoder, check_ids};
use super::device::Forward;
use super::pool::clear;
use super::{Error, File};
use pass::{Head, Pass};
use std::time::{Duration, Instant};
use wgpu_attention::{CacheShape, CacheStorage, Call, DecodeShape, ElementType, Gpu, IntegerFormat, KvCache};

/// How a text is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GeneratorOptions {
    /// Positions of the text, at most: the caches are as large from the start.
    pub capacity: usize,
    /// How keys and values are stored.
    pub cache: CacheStorage,
    /// What the matrices of products, the head's among them, are quantised to as they are read, symmetrically; `None` keeps f32.
    pub weights: Option<IntegerFormat>,
    /// Ids of a prompt that are computed together.
    pub chunk: usize,
}

impl GeneratorOptions {
    /// Keys, values and weights in f32, the largest chunks.
    pub fn new(capacity: usize) -> Self {
        Self { capacity, cache: ElementType::F32.into(), weights: None, chunk: DecodeShape::MAX_NEW }
    }

    /// Sets how keys and values are stored.
    pub fn cache(mut self, cache: impl Into<CacheStorage>) -> Self {
        self.cache = cache.into();
        self
    }

    /// Sets what the matrices of products are quantised to.
    pub fn weights(mut self, weights: impl Into<Option<IntegerFormat>>) -> Self {
        self.weights = weights.into();
        self
    }

    /// Sets how many ids of a prompt are computed together.
    pub fn chunk(mut self, chunk: usize) -> Self {
        self.chunk = chunk;
        self
    }

    /// The cache of a layer.
    fn cache_shape(&self, sizes: &DecoderSizes) -> CacheShape {
        CacheShape::new(1, sizes.kv_heads, self.capacity, sizes.head_dim).storage(self.cache)
    }
}

/// A GPT-2 or a Llama that reads ids and says what may come next.
///
/// All is planned, compiled, bound and allocated by [`new`](Self::new), which also computes a chunk and a token once. Ids are then recorded and submitted, once per chunk and once per token: nothing
/// is uploaded, since ids, positions and counts are copied on the device from a buffer of whole numbers, and the commands say from where. What a token computes does not depend on them, so
/// its dispatches are recorded ahead, while the device computes the token before.
pub struct Generator {
    gpu: Gpu,
    sizes: DecoderSizes,
    options: GeneratorOptions,
    /// One per layer.
    caches: Vec<KvCache>,
    /// 0, 1, 2, ..: each at its own place.
    numbers: wgpu::Buffer,
    chunk: Pass,
    token: Pass,
    head: Head,
    logits: Vec<f32>,
    /// What the next token computes: recorded while the device computes the last one.
    ahead: Option<wgpu::CommandBuffer>,
    recording: Duration,
    recording_ahead: Duration,
    submitting: Duration,
    weight_bytes: u64,
}

impl Generator {
    /// Reads the weights, and plans all that is ever recorded.
    ///
    /// # Errors
    /// What is missing or different in the file, by name; a capacity of 0 or past the model's positions; a chunk that is not 1 to 64; the device's
    /// limits and memory; weights that cannot be quantised as asked for, by the tensor's name.
    pub fn new(gpu: &Gpu, file: &File<'_>, options: GeneratorOptions) -> Result<Self, Error> {
        let mut forward = Forward::to_generate(gpu, options.weights);
        let model = Decoder::load(&mut forward, file)?;
        file.check_all_read(is_no_weight)?;
        forward.check_uploaded()?;
        let sizes = model.sizes();
        let need = |name: &str, most: usize, found: usize| match (1..=most).contains(&found) {
            true => Ok(()),
            false => Err(format!("{name}: need 1 to {most}, found {found}")),
        };
        need("capacity", sizes.positions, options.capacity)?;
        need("chunk", DecodeShape::MAX_NEW, options.chunk)?;
        let shape = options.cache_shape(&sizes);
        let caches: Vec<_> =
            (0..sizes.layers).map(|_| gpu.kernels().kv_cache(&shape)).collect::<Result<_, _>>()?;
        let of_caches = caches
            .iter()
            .flat_map(|cache| [Some(cache.keys()), cache.values(), Some(cache.device_lengths())]);
        clear(gpu, of_caches.flatten());
        let count = sizes.vocabulary.max(options.capacity + DecodeShape::MAX_NEW);
        let numbers: Vec<u32> = (0..count as u32).collect();
        let numbers = (*forward.store(&numbers)).clone();
        let tables = sizes.theta.map(|theta| {
            let tables = wgpu_attention::rotary_tables(options.capacity, sizes.head_dim, theta);
            tables.map(|table| forward.store(&table))
        });
        let pass = |rows| Pass::new(gpu, &model, &caches, tables.as_ref(), rows);
        let token = pass(1)?;
        let mut generator = Self {
            chunk: pass(options.chunk)?,
            head: Head::new(gpu, &model, token.hidden().clone())?,
            token,
            gpu: gpu.clone(),
            sizes,
            options,
            caches,
            numbers,
            logits: vec![0.0; sizes.vocabulary],
            ahead: None,
            recording: Duration::ZERO,
            recording_ahead: Duration::ZERO,
            submitting: Duration::ZERO,
            weight_bytes: forward.uploaded(),
        };
        generator.warm_up()?;
        Ok(generator)
    }

    /// Computes a chunk and a token once, and forgets them: some drivers compile a pipeline where it is first used.
    fn warm_up(&mut self) -> Result<(), Error> {
        let ids = [0; 2];
        self.append(&ids[..self.options.capacity.min(2)])?;
        self.truncate(0)?;
        self.feed(&ids[..1])?;
        self.truncate(0)?;
        (self.recording, self.recording_ahead, self.submitting) = Default::default();
        Ok(())
    }

    /// The model's sizes.
    pub fn sizes(&self) -> &DecoderSizes {
        &self.sizes
    }

    /// What was asked for.
    pub fn options(&self) -> &GeneratorOptions {
        &self.options
    }

    /// Ids so far.
    pub fn len(&self) -> usize {
        self.caches[0].lengths()[0]
    }

    /// Whether there is no id yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends ids, at least one, and waits for the logits of what comes behind the last, `[vocabulary]`.
    ///
    /// # Errors
    /// No ids, one that the model does not have, more than the capacity; what the device reports. Nothing is appended then.
    pub fn feed(&mut self, ids: &[u32]) -> Result<&[f32], Error> {
        let last = self.check(ids)?.min(self.options.chunk);
        let (before, last) = ids.split_at(ids.len() - last);
        self.append(before)?;
        self.submit(last, true)?;
        self.record_ahead();
        self.head.read(&self.gpu, &mut self.logits)?;
        Ok(&self.logits)
    }

    /// Appends ids whose logits nobody asks for, chunk by chunk, and waits until they are computed.
    ///
    /// # Errors
    /// As [`feed`](Self::feed), but for no ids.
    pub fn append(&mut self, ids: &[u32]) -> Result<(), Error> {
        if ids.is_empty() {
            return Ok(());
        }
        self.check(ids)?;
        for chunk in ids.chunks(self.options.chunk) {
            self.submit(chunk, false)?;
            self.gpu.device().poll(wgpu::PollType::wait_indefinitely())?;
        }
        Ok(())
    }

    /// Forgets all ids past a length.
    ///
    /// # Errors
    /// A length past the text's own.
    pub fn truncate(&mut self, length: usize) -> Result<(), Error> {
        let queue = self.gpu.queue();
        Ok(self.caches.iter_mut().try_for_each(|cache| cache.truncate(queue, 0, length))?)
    }

    /// How long the host has recorded so far before a submission that waited for it, all chunks and tokens together.
    pub fn recording(&self) -> Duration {
        self.recording
    }

    /// How long it has recorded what the next token computes, while the device computed.
    pub fn recording_ahead(&self) -> Duration {
        self.recording_ahead
    }

    /// How long it has submitted, which is the driver's work for the most part.
    pub fn submitting(&self) -> Duration {
        self.submitting
    }

    /// Writes through the queue that the caches have made: none for tokens, one per layer where a text is forgotten.
    pub fn uploads(&self) -> usize {
        self.caches.iter().map(KvCache::uploads).sum()
    }

    /// Dispatches that a token takes, its logits with it.
    pub fn dispatches(&self) -> usize {
        let all = self.token.calls().iter().chain(self.head.calls());
        all.map(Call::dispatches).sum()
    }

    /// Bytes of the weights on the device, scales with them.
    pub fn weight_bytes(&self) -> u64 {
        self.weight_bytes
    }

    /// Bytes of keys and values on the device, all layers together.
    pub fn cache_bytes(&self) -> u64 {
        let bytes = |shape: &CacheShape| (shape.keys_bytes() + shape.values_bytes()) as u64;
        self.caches.iter().map(|cache| bytes(cache.shape())).sum()
    }

    /// How many ids there are.
    fn check(&self, ids: &[u32]) -> Result<usize, Error> {
        check_ids(&self.sizes, ids)?;
        let room = self.options.capacity - self.len();
        match ids.len() {
            0 => Err("ids: need at least 1, found none".into()),
            count if count > room => {
                Err(format!("ids: need at most {room} more of {}, found {count}", self.options.capacity)
                    .into())
            }
            count => Ok(count),
        }
    }

    /// Records a chunk or a token, as far as it is not recorded yet, and submits it.
    fn submit(&mut self, ids: &[u32], logits: bool) -> Result<(), Error> {
        let start = Instant::now();
        let from = self.len();
        let mut encoder = self.encoder();
        for cache in &mut self.caches {
            cache.extend(self.gpu.queue(), &mut encoder, &[ids.len()])?;
        }
        let pass = if ids.len() == 1 { &self.token } else { &self.chunk };
        pass.encode_ids(&mut encoder, &self.numbers, from, ids);
        let ahead = if ids.len() == 1 && logits { self.ahead.take() } else { None };
        if ahead.is_none() {
            pass.encode_calls(&mut encoder, ids.len(), logits.then_some(&self.head));
        }
        let commands = encoder.finish();
        let recorded = start.elapsed();
        self.gpu.queue().submit([commands].into_iter().chain(ahead));
        self.recording += recorded;
        self.submitting += start.elapsed() - recorded;
        Ok(())
    }

    /// Records what the next token computes, unless that is done or there is no room for one.
    fn record_ahead(&mut self) {
        if self.ahead.is_some() || self.len() == self.options.capacity {
            return;
        }
        let start = Instant::now();
        let mut encoder = self.encoder();
        self.token.encode_calls(&mut encoder, 1, Some(&self.head));
        self.ahead = Some(encoder.finish());
        self.recording_ahead += start.elapsed();
    }

    fn encoder(&self) -> wgpu::CommandEncoder {
        self.gpu.device().create_command_encoder(&Default::default())
    }
}

/// Tensors of Hugging Face's files that hold no weight, or one that the configuration ties to another.
fn is_no_weight(name: &str) -> bool {
    let ends = [".attn.bias", ".attn.masked_bias", ".rotary_emb.inv_freq"];
    name == "lm_head.weight" || ends.iter().any(|end| name.ends_with(end))
}
