//! What linear attention and Linformer cost.

use super::{Asked, Explain};
use crate::output::{bytes, json_line, say};
use crate::{devices, linear};
use anyhow::{Result, ensure};
use serde::Serialize;
use wgpu_attention::{AttentionShape, LinearOptions, LinformerOptions};

/// The answer. The names are part of the command line.
#[derive(Serialize)]
struct LinearExplained {
    op: &'static str,
    q: [usize; 4],
    k: [usize; 4],
    v: [usize; 4],
    dtype: &'static str,
    /// Of linear attention.
    #[serde(skip_serializing_if = "Option::is_none")]
    map: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    causal: Option<bool>,
    /// Features of a row; of Linformer rows that are attended.
    features: usize,
    flops: f64,
    /// The products of attention over all pairs.
    dense_flops: f64,
    scratch_bytes: u64,
    adapter: String,
}

impl Explain {
    pub(super) fn linear(&self, asked: &Asked, options: LinearOptions) -> Result<bool> {
        let features = options.map.features(asked.call.attention().shape.head_dim);
        let (map, causal) = (Some(linear::text(&options.map)), Some(options.causal));
        self.of_plan(asked, ("linear_attention", features), |kernels, call| {
            let plan = kernels.linear_attention(call, options)?;
            Ok((plan.flops(), plan.scratch_bytes()))
        })
        .and_then(|explained| self.say(LinearExplained { map, causal, ..explained }))
    }

    /// Of one E and one F for all heads.
    pub(super) fn linformer(&self, asked: &Asked, projected: usize) -> Result<bool> {
        let options = LinformerOptions::new(asked.call.sizes.kv_len(), projected);
        self.of_plan(asked, ("linformer", projected), |kernels, call| {
            let plan = kernels.linformer(call, options)?;
            Ok((plan.flops(), plan.scratch_bytes()))
        })
        .and_then(|explained| self.say(explained))
    }

    fn of_plan(
        &self,
        asked: &Asked,
        (op, features): (&'static str, usize),
        plan: impl FnOnce(
            &wgpu_attention::Kernels,
            &wgpu_attention::Attention,
        ) -> wgpu_attention::Result<(f64, u64)>,
    ) -> Result<LinearExplained> {
        ensure!(!self.cpu_only, "--cpu-only: need none, as {op} is planned on a device, got one");
        ensure!(
            !asked.lowering.no_lowering,
            "--no-lowering: need none, as {op} has no pattern to lower, got one"
        );
        let call = asked.call.attention();
        let device = self.adapter.best()?.ok_or_else(devices::none_there)?;
        let gpu = device.open(self.path)?;
        let (flops, scratch_bytes) = plan(gpu.kernels(), &call)?;
        let AttentionShape { batch, heads, kv_heads, q_len, kv_len, head_dim, value_dim, .. } = call.shape;
        Ok(LinearExplained {
            op,
            q: [batch, heads, q_len, head_dim],
            k: [batch, kv_heads, kv_len, head_dim],
            v: [batch, kv_heads, kv_len, value_dim],
            dtype: call.storage.q.name(),
            map: None,
            causal: None,
            features,
            flops,
            dense_flops: call.flops((batch * heads * q_len) as u64 * kv_len as u64),
            scratch_bytes,
            adapter: device.info.name.clone(),
        })
    }

    fn say(&self, explained: LinearExplained) -> Result<bool> {
        if self.json {
            json_line(&explained)?
        } else {
            explained.print()?
        }
        Ok(true)
    }
}

impl LinearExplained {
    fn print(&self) -> Result<()> {
        let Self { q, k, v, dtype, features, .. } = self;
        let what = match (&self.map, self.causal) {
            (Some(map), Some(true)) => format!("{map}, causal"),
            (Some(map), _) => map.clone(),
            (None, _) => "Linformer".into(),
        };
        let rows = if self.map.is_some() { "features of a row" } else { "projected rows" };
        let share = 100.0 * self.flops / self.dense_flops;
        let lines = [
            ("kernel", what),
            ("shape", format!("q {q:?}, k {k:?}, v {v:?} in {dtype}")),
            ("width", format!("{features} {rows}")),
            ("operations", format!("{:.3} MFLOP, {share:.1} % of all pairs'", self.flops / 1e6)),
            ("scratch", bytes(self.scratch_bytes)),
            ("adapter", self.adapter.clone()),
        ];
        lines.into_iter().try_for_each(|(name, value)| say!("{name:<11} {value}"))
    }
}
