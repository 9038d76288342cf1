//! Weights for plain Rust users: slices in, `Vec`s out.

use super::{WeightsBuffers, WeightsOptions};
use crate::gpu::attention::AttentionPlan;
use crate::gpu::attention::uploaded::Uploaded;
use crate::gpu::host::Gpu;
use crate::pattern::Pattern;
use crate::{Attention, Element, ElementType, Inputs, Position, Result, Storage};

/// What [`Gpu::attention_weights`] returns.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct AttentionWeights {
    /// The weights `[N, Lk]` of the N rows, where they were asked for; 0 for pairs that are not attended.
    pub weights: Option<Vec<f32>>,
    /// Per row, where they were asked for.
    pub summaries: Option<Vec<RowSummary>>,
}

/// A summary of the weights of a row.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct RowSummary {
    /// - sum p ln p over the keys, in nats: ln n where n keys share equally, 0 where one has all. A sink's share is left out.
    pub entropy: f32,
    /// |S_i|.
    pub keys: u32,
    /// The keys of the largest weights and these, the largest first, equal ones in the order of the keys; none whose weight is 0 in f32.
    pub top: Vec<(u32, f32)>,
}

impl AttentionWeights {
    /// The mean of the entropies, in nats; `None` without summaries, or rows.
    pub fn mean_entropy(&self) -> Option<f64> {
        let summaries = self.summaries.as_ref().filter(|summaries| !summaries.is_empty())?;
        Some(summaries.iter().map(|row| f64::from(row.entropy)).sum::<f64>() / summaries.len() as f64)
    }
}

impl Gpu {
    /// The weights of chosen rows over slices; computes attention, too, for the state of its rows. Blocks.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) for a slice of the wrong length, and as
    /// [`AttentionPlan::weights`](crate::AttentionPlan::weights).
    ///
    /// ```no_run
    /// use wgpu_attention::{AttentionShape, Causal, Gpu, Inputs, Position, WeightsOptions};
    /// let (gpu, shape) = (Gpu::new()?, AttentionShape::new(1, 8, 512, 64));
    /// let [q, k, v] = [0.1, 0.2, 0.3].map(|x: f32| vec![x; shape.len_q()]);
    /// let last = [Position { batch: 0, head: 0, i: 511 }];
    /// let weights = gpu.attention_weights(shape, &Inputs::new(&q, &k, &v), &Causal, &last, WeightsOptions::default())?;
    /// println!("{:?}", weights.summaries);
    /// # Ok::<(), wgpu_attention::Error>(())
    /// ```
    #[cfg(not(target_arch = "wasm32"))]
    pub fn attention_weights<Q: Element, KV: Element>(
        &self,
        attention: impl Into<Attention>,
        inputs: &Inputs<'_, Q, KV>,
        pattern: &dyn Pattern,
        rows: &[Position],
        options: WeightsOptions,
    ) -> Result<AttentionWeights> {
        pollster::block_on(self.attention_weights_async(attention, inputs, pattern, rows, options))
    }

    /// [`Gpu::attention_weights`] without blocking the caller's executor.
    ///
    /// # Errors
    /// As [`Gpu::attention_weights`].
    pub async fn attention_weights_async<Q: Element, KV: Element>(
        &self,
        attention: impl Into<Attention>,
        inputs: &Inputs<'_, Q, KV>,
        pattern: &dyn Pattern,
        rows: &[Position],
        options: WeightsOptions,
    ) -> Result<AttentionWeights> {
        self.check_alive()?;
        let attention = attention.into().storage(Storage { q: Q::TYPE, kv: KV::TYPE, out: ElementType::F32 });
        attention.check()?;
        inputs.check(&attention)?;
        let plan = self.planned(|kernels| kernels.attention(&attention, pattern), AttentionPlan::flops)?;
        let weights = plan.weights(rows, options).map_err(|e| self.or_lost(e))?;

        let uploaded = Uploaded::new(self, &attention, inputs)?;
        // A binding has at least one element, also that of an empty tensor.
        let output = |name, len: usize| self.output(name, len.max(1), ElementType::F32);
        let (len_weights, len_summaries) = (weights.len_weights(), weights.len_summaries());
        let out = output("out", attention.len_out())?;
        let state = output("state", 2 * attention.len_lse())?;
        let matrix = output("weights", len_weights)?;
        let summaries = output("summaries", len_summaries)?;

        let whole = wgpu::Buffer::as_entire_buffer_binding;
        let forward = plan.bind(uploaded.forward(&out).state(whole(&state))).map_err(|e| self.or_lost(e))?;
        let [q, k, _] = uploaded.rows();
        let mut buffers = WeightsBuffers::new(q, k, whole(&state));
        buffers.tensors = uploaded.tensors();
        buffers.weights = options.matrix.then(|| whole(&matrix));
        buffers.summaries = options.summary.map(|_| whole(&summaries));
        let call = weights.bind(buffers).map_err(|e| self.or_lost(e))?;
        let record = |encoder: &mut wgpu::CommandEncoder| {
            forward.encode(encoder);
            call.encode(encoder);
        };
        let fetched = self.fetch(&[&matrix, &summaries], record).await?;
        let words: Vec<u32> = fetched.take(1, len_summaries)?;
        Ok(AttentionWeights {
            weights: options.matrix.then(|| fetched.take(0, len_weights)).transpose()?,
            summaries: options
                .summary
                .map(|top| words.chunks(2 * (1 + top)).map(RowSummary::from_words).collect()),
        })
    }
}

impl RowSummary {
    fn from_words(words: &[u32]) -> Self {
        let top = words[2..].chunks(2).take_while(|pair| pair[0] != u32::MAX);
        Self {
            entropy: f32::from_bits(words[0]),
            keys: words[1],
            top: top.map(|pair| (pair[0], f32::from_bits(pair[1]))).collect(),
        }
    }
}
