//! Sums over chunks of keys, over chunks, rows: the three dispatches of linear attention, and of each sum in its gradients.

use crate::Result;
use crate::gpu::bindings::Bindings;
use crate::gpu::kernels::Kernels;
use crate::gpu::params::{LinearOutputParams, LinearScanParams, LinearStateParams, Params};
use crate::gpu::pipeline::{Pipeline, Step};
use crate::linear::LinearOptions;
use crate::uniform::Rows;
use crate::wgsl::LinearVariant;
use std::sync::Arc;

/// Compiled: sums over chunks, their scan, rows.
#[derive(Debug, Clone)]
pub(super) struct PassPipelines {
    pub(super) states: Arc<Pipeline>,
    pub(super) scan: Arc<Pipeline>,
    pub(super) outputs: Arc<Pipeline>,
}

impl PassPipelines {
    pub(super) fn new(kernels: &Kernels, variant: &LinearVariant) -> Result<Self> {
        Ok(Self {
            states: kernels.pipeline(variant.states())?,
            scan: kernels.pipeline(variant.scan())?,
            outputs: kernels.pipeline(variant.outputs())?,
        })
    }
}

/// The sizes of one such sum. Queries and keys are whatever meets: in gradients of keys, they change places.
pub(super) struct Pass<'a> {
    pub(super) kernels: &'a Kernels,
    pub(super) pipelines: &'a PassPipelines,
    pub(super) batch: usize,
    pub(super) heads: usize,
    pub(super) kv_heads: usize,
    pub(super) q_len: usize,
    pub(super) kv_len: usize,
    pub(super) features: usize,
    pub(super) value_dim: usize,
    pub(super) causal: bool,
    /// Where causal, query i stands at key i + shift.
    pub(super) shift: i64,
    pub(super) denominator_eps: f32,
    /// The feature of a query that the eps multiplies, in sums.
    pub(super) last: usize,
    pub(super) v: Rows,
    pub(super) out: Rows,
    /// Of all three.
    pub(super) bindings: Bindings<'a>,
}

impl Pass<'_> {
    fn chunks(&self) -> usize {
        self.kv_len.div_ceil(LinearOptions::CHUNK).max(1)
    }

    fn lines(&self) -> usize {
        self.batch * self.kv_heads
    }

    fn groups(&self) -> usize {
        self.features.div_ceil(4)
    }

    /// All three.
    pub(super) fn all(&self) -> Result<Vec<Step>> {
        let mut steps = vec![self.states()?, self.scan()?];
        steps.extend(self.outputs()?);
        Ok(steps)
    }

    pub(super) fn states(&self) -> Result<Step> {
        let (chunks, groups) = (self.chunks(), self.groups());
        let feature_tiles = (4 * groups).div_ceil(LinearVariant::FEATURES);
        let column_tiles = self.value_dim.div_ceil(4 * LinearVariant::COLUMN_GROUPS);
        let kernel = LinearStateParams {
            kv_heads: self.kv_heads as u32,
            kv_len: self.kv_len as u32,
            chunks: chunks as u32,
            groups: groups as u32,
            feature_tiles: feature_tiles as u32,
            column_tiles: column_tiles as u32,
            ..Default::default()
        };
        let params = Params::default().with("kernel", kernel).with("v", self.v);
        let items = [self.lines(), chunks, feature_tiles, column_tiles].iter().map(|&n| n as u128).product();
        let flops = (2 * LinearOptions::CHUNK * LinearVariant::FEATURES * 16) as f64;
        let work = self.kernels.work("states of chunks", items, flops)?;
        Step::new(self.kernels.device(), &self.pipelines.states, &params, work, &self.bindings)
    }

    pub(super) fn scan(&self) -> Result<Step> {
        let chunks = self.chunks();
        let width = LinearOptions::len_sums(self.features, self.value_dim) / 4;
        let tiles = width.div_ceil(LinearVariant::FEATURES);
        let kernel = LinearScanParams {
            tiles: tiles as u32,
            kv_heads: self.kv_heads as u32,
            kv_len: self.kv_len as u32,
            chunks: chunks as u32,
            width: width as u32,
            ..Default::default()
        };
        let params = Params::default().with("kernel", kernel);
        let items = self.lines() as u128 * tiles as u128;
        let flops = (8 * LinearVariant::FEATURES * chunks) as f64;
        let work = self.kernels.work("the scan of chunks", items, flops)?;
        Step::new(self.kernels.device(), &self.pipelines.scan, &params, work, &self.bindings)
    }

    /// A step per key head that a query has, each added to those before.
    pub(super) fn outputs(&self) -> Result<Vec<Step>> {
        let groups = self.groups();
        let chunk = LinearOptions::CHUNK as i64;
        // Where causal, tiles of queries are those of the keys.
        let shift = if self.causal { self.shift } else { 0 };
        let (first, last) = (shift.div_euclid(chunk), (shift + self.q_len as i64 - 1).div_euclid(chunk));
        let tiles = last - first + 1;
        let (heads_per_kv_head, kv_heads_per_head) =
            ((self.heads / self.kv_heads).max(1), (self.kv_heads / self.heads).max(1));
        let kernel = LinearOutputParams {
            tiles: tiles as u32,
            heads: self.heads as u32,
            heads_per_kv_head: heads_per_kv_head as u32,
            q_len: self.q_len as u32,
            kv_len: self.kv_len as u32,
            chunks: self.chunks() as u32,
            groups: groups as u32,
            first_tile: first as i32,
            shift: shift as i32,
            denominator_eps: self.denominator_eps,
            kv_heads_per_head: kv_heads_per_head as u32,
            last: self.last as u32,
            ..Default::default()
        };
        let items = self.batch as u128 * self.heads as u128 * tiles as u128;
        let per_row = 4 * groups * self.value_dim + chunk as usize * (4 * groups + self.value_dim);
        let work = self.kernels.work("linear attention", items, (2 * chunk as usize * per_row) as f64)?;
        let step = |nth_kv_head| {
            let kernel = LinearOutputParams { nth_kv_head, ..kernel };
            let params = Params::default().with("kernel", kernel).with("v", self.v).with("out", self.out);
            Step::new(self.kernels.device(), &self.pipelines.outputs, &params, work, &self.bindings)
        };
        (0..kv_heads_per_head as u32).map(step).collect()
    }
}
