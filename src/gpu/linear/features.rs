//! Rows of features: of linear attention, and of Linformer where keys are masked.

use crate::gpu::bindings::Bindings;
use crate::gpu::kernels::Kernels;
use crate::gpu::params::{LinearFeatureParams, Params};
use crate::gpu::pipeline::{Pipeline, Step};
use crate::uniform::Rows;
use crate::wgsl::FeatureVariant;
use crate::{Result, Strides};

/// The rows x `[batch, heads, len, dim]`, and how many features each gets.
pub(in crate::gpu) struct FeatureRows {
    pub(in crate::gpu) batch: usize,
    pub(in crate::gpu) heads: usize,
    pub(in crate::gpu) len: usize,
    pub(in crate::gpu) dim: usize,
    pub(in crate::gpu) features: usize,
    pub(in crate::gpu) eps: f32,
    pub(in crate::gpu) strides: Strides,
}

impl FeatureRows {
    /// The dispatches of `linear/features.wgsl`.
    pub(in crate::gpu) fn step(
        &self,
        kernels: &Kernels,
        pipeline: &Pipeline,
        bindings: &Bindings<'_>,
    ) -> Result<Step> {
        let root = (self.dim as f64).sqrt();
        let tiles = self.len.div_ceil(FeatureVariant::ROWS);
        let kernel = LinearFeatureParams {
            tiles: tiles as u32,
            heads: self.heads as u32,
            len: self.len as u32,
            features: self.features as u32,
            scale: root.sqrt().recip() as f32,
            half_scale: (0.5 / root) as f32,
            feature_eps: self.eps,
            ..Default::default()
        };
        let params = Params::default().with("kernel", kernel).with("x", Rows::from(self.strides));
        let items = self.batch as u128 * self.heads as u128 * tiles as u128;
        let flops = (2 * FeatureVariant::ROWS * self.features * self.dim) as f64;
        let work = kernels.work("features of linear attention", items, flops)?;
        Step::new(kernels.device(), pipeline, &params, work, bindings)
    }
}
