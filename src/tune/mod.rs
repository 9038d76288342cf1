//! Tuning, for those who ask for it: times a call's candidate tiles and splits on the device, and keeps the fastest.
//!
//! Without it the choice follows from sizes and limits alone, and is the same on every run. With it, too, once it is in the
//! [`TuningCache`]: what was fastest then is taken, by adapter, driver and version of this crate.
//!
//! | file | what |
//! |---|---|
//! | `mod.rs` | the entry, and what it returns |
//! | `candidates.rs` | what could be fast, and the least time it could take |
//! | `trial.rs` | one candidate on the device: verified, then timed |
//! | `cache.rs` | choices on disk |

#[cfg(feature = "serde")]
mod cache;
mod candidates;
mod trial;

#[cfg(feature = "serde")]
pub use cache::TuningCache;

use crate::wgsl::Tile;
use crate::{Attention, BlockGrid, Element, ElementType, Gpu, Options, Parts, Pattern, Result};
use candidates::Candidates;
use half::{bf16, f16};
use trial::Trials;

/// How to compute a call: what [`Gpu::tune`] finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Tuning {
    /// Sizes of a workgroup; they also say which kernel path it is.
    pub tile: Tile,
    /// Workgroups that share the keys of a row tile.
    pub splits: usize,
}

impl Tuning {
    /// These options, but for the tile and the splits.
    pub fn options(&self, base: Options) -> Options {
        Options { tile: Some(self.tile), splits: Some(self.splits), ..base }
    }
}

/// What became of a candidate.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// Its result is within the bound; seconds of a call, the least of several samples.
    Timed(f64),
    /// It could not be the fastest: seconds that it takes at least, at the best rate that was seen.
    Skipped(f64),
    /// The device does not take it: why.
    Refused(String),
    /// Its result is out of the bound, by how much: a fault of the device's compiler, or of this crate.
    Wrong(String),
}

/// A candidate, and what became of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Trial {
    /// The candidate.
    pub tuning: Tuning,
    /// What became of it.
    pub outcome: Outcome,
}

/// What [`Gpu::tune`] returns.
#[derive(Debug, Clone, PartialEq)]
pub struct Tuned {
    /// The fastest; what the plan chooses by itself, if nothing is faster.
    pub best: Tuning,
    /// In the order in which they ran, the plan's own choice first; none where the choice came out of a cache.
    pub trials: Vec<Trial>,
}

impl Gpu {
    /// Finds the fastest tile and splits for a call by running it on random inputs: each candidate is compared with the f64
    /// reference on a sample of rows, and timed if it is right. `watch` is told of each. Takes seconds, since each tile is a
    /// shader to be compiled.
    ///
    /// What this device's [`Options`] force (a path, a tile, splits) stays as it is.
    ///
    /// ```no_run
    /// use wgpu_attention::{AttentionShape, Causal, Gpu, Kernels};
    ///
    /// let gpu = Gpu::new()?;
    /// let shape = AttentionShape::new(1, 12, 4096, 64);
    /// let tuned = gpu.tune(&shape, &Causal, &mut |trial| println!("{trial:?}"))?;
    /// let kernels = Kernels::new(gpu.device(), tuned.best.options(*gpu.kernels().options()))?;
    /// # Ok::<(), wgpu_attention::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Kernels::attention`](crate::Kernels::attention) for a call that the plan's own choice cannot run, and
    /// [`Error::Device`](crate::Error::Device) where that choice's result is out of the bound.
    pub fn tune(
        &self,
        attention: impl Into<Attention>,
        pattern: &dyn Pattern,
        watch: &mut dyn FnMut(&Trial),
    ) -> Result<Tuned> {
        let attention = attention.into();
        attention.check()?;
        let parts = Parts::lower(pattern, BlockGrid::from(&attention.shape))?;
        self.tune_parts(&attention, pattern, &parts, watch)
    }

    /// [`Gpu::tune`] of a pattern that is lowered.
    fn tune_parts(
        &self,
        attention: &Attention,
        pattern: &dyn Pattern,
        parts: &Parts,
        watch: &mut dyn FnMut(&Trial),
    ) -> Result<Tuned> {
        let task = Task { gpu: self, attention, pattern, parts };
        match attention.storage.q {
            ElementType::F32 => task.with_q::<f32>(watch),
            ElementType::F16 => task.with_q::<f16>(watch),
            ElementType::Bf16 => task.with_q::<bf16>(watch),
        }
    }
}

/// What is tuned; its element types become types one after the other.
struct Task<'a> {
    gpu: &'a Gpu,
    attention: &'a Attention,
    pattern: &'a dyn Pattern,
    parts: &'a Parts,
}

impl Task<'_> {
    fn with_q<Q: Element>(&self, watch: &mut dyn FnMut(&Trial)) -> Result<Tuned> {
        match self.attention.storage.kv {
            ElementType::F32 => self.with_kv::<Q, f32>(watch),
            ElementType::F16 => self.with_kv::<Q, f16>(watch),
            ElementType::Bf16 => self.with_kv::<Q, bf16>(watch),
        }
    }

    fn with_kv<Q: Element, KV: Element>(&self, watch: &mut dyn FnMut(&Trial)) -> Result<Tuned> {
        match self.attention.storage.out {
            ElementType::F32 => self.tune::<Q, KV, f32>(watch),
            ElementType::F16 => self.tune::<Q, KV, f16>(watch),
            ElementType::Bf16 => self.tune::<Q, KV, bf16>(watch),
        }
    }

    fn tune<Q: Element, KV: Element, O: Element>(&self, watch: &mut dyn FnMut(&Trial)) -> Result<Tuned> {
        let Self { gpu, attention, pattern, parts } = *self;
        let plan = gpu.kernels().attention_parts(attention, parts)?;
        let own = Tuning { tile: plan.explain().tile, splits: plan.explain().splits };
        if attention.shape.is_empty() {
            return Ok(Tuned { best: own, trials: vec![] });
        }
        let candidates = Candidates::new(gpu, attention, parts, own);
        let mut trials = Trials::<Q, KV, O>::new(gpu, attention, pattern, parts, watch)?;
        trials.run_own(own)?;
        for tile in candidates.tiles() {
            trials.run(&candidates, Tuning { tile, splits: own.splits })?;
        }
        // The best tile may want other splits.
        let tile = trials.best().tile;
        for splits in candidates.splits() {
            trials.run(&candidates, Tuning { tile, splits })?;
        }
        Ok(Tuned { best: trials.best(), trials: trials.into_list() })
    }
}
