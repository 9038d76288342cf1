//! Choices of a call.

use std::sync::{Mutex, PoisonError};
use wgpu_attention::{Gpu, Result, Score};

/// Options of [`attention`](crate::attention()). The default is softmax(q k^T / sqrt(d)) over the pattern's pairs, on the fastest adapter.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct AttentionOptions {
    /// The score of a pair: its scale, and terms without tensors (a cap, [ALiBi](wgpu_attention::Alibi) with its own slopes, dropout).
    pub score: Score,
    /// Where it is computed. `None`: on one [`Gpu::new`] for the whole process, which the first such call opens. Once that device is lost, every such
    /// call fails.
    pub gpu: Option<Gpu>,
}

impl AttentionOptions {
    /// Sets the score.
    pub fn score(self, score: Score) -> Self {
        Self { score, ..self }
    }

    /// Sets the factor of q . k.
    pub fn scale(self, scale: f32) -> Self {
        Self { score: self.score.scale(scale), ..self }
    }

    /// Sets where it is computed. A clone shares the device, its pipelines and the plans of the last calls.
    pub fn gpu(self, gpu: &Gpu) -> Self {
        Self { gpu: Some(gpu.clone()), ..self }
    }
}

/// What calls without a device of their own share. Where none opens, the next call tries again.
pub(crate) fn shared() -> Result<Gpu> {
    static SHARED: Mutex<Option<Gpu>> = Mutex::new(None);
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    match &*shared {
        Some(gpu) => Ok(gpu.clone()),
        None => Ok(shared.insert(Gpu::new()?).clone()),
    }
}
