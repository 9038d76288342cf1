//! What the adapter can reach, measured by microkernels whose results must be right.
//!
//! | file | what |
//! |---|---|
//! | `mod.rs` | which, before and after the cases; drift |
//! | `probes.rs` | each: its kernel, its work, its expected result |
//! | `microkernel.rs` | a pipeline with its buffers |
//! | `wgsl/` | the kernels |

pub(super) mod microkernel;
mod probes;

use crate::clock::{Interrupted, Stop, Stopwatch};
use crate::record::{Ceiling, CeilingKind, Probe, Rules};
use crate::text::one_line;
use anyhow::{Context, Result};
use wgpu::Features;
use wgpu_attention::{Gpu, Options, cooperative_features, recommended_features, recommended_limits};

/// All of them, in the order in which they are measured.
pub const KINDS: [CeilingKind; 7] = [
    CeilingKind::FmaF32,
    CeilingKind::FmaF16,
    CeilingKind::MatrixF16,
    CeilingKind::Copy,
    CeilingKind::Read,
    CeilingKind::Workgroup,
    CeilingKind::Launch,
];

/// A ceiling is measured for so long at most.
const MOST_S: f64 = 0.75;

/// Measures ceilings, on a device of its own: kernels get no more features than users give them.
pub struct Ceilings {
    gpu: Gpu,
    rules: Rules,
    stop: Stop,
}

impl Ceilings {
    /// A device of their own, with all that the adapter can do.
    ///
    /// # Errors
    /// The adapter gives no device.
    pub async fn open(adapter: &wgpu::Adapter, rules: Rules, stop: Stop) -> Result<Self> {
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("ceilings"),
            required_features: recommended_features(adapter)
                | (adapter.features() & Features::SHADER_F16)
                | cooperative_features(adapter),
            required_limits: recommended_limits(adapter),
            experimental_features: wgpu_attention_experimental::allowed(),
            ..Default::default()
        };
        let (device, queue) =
            adapter.request_device(&descriptor).await.context("a device for the ceilings")?;
        let options = Options::default().matrices(&adapter.cooperative_matrix_properties());
        let gpu = Gpu::with_device(adapter.get_info(), device, queue, options)?;
        let rules = Rules { max_s: rules.max_s.min(MOST_S), ..rules };
        Ok(Self { gpu, rules, stop })
    }

    /// Measures one. What the adapter lacks is said by the inner result; the outer error is the run's end.
    pub(super) async fn measure(&self, kind: CeilingKind) -> Result<Result<Probe, String>, Interrupted> {
        let lacks = match kind {
            CeilingKind::FmaF16 if !self.gpu.device().features().contains(Features::SHADER_F16) => {
                Some("the adapter has no shader-f16")
            }
            CeilingKind::MatrixF16
                if !self.gpu.device().features().contains(Features::EXPERIMENTAL_COOPERATIVE_MATRIX) =>
            {
                Some("the adapter has no cooperative matrices of f16")
            }
            _ => None,
        };
        if let Some(lacks) = lacks {
            return Ok(Err(lacks.into()));
        }
        match self.probe(kind).await {
            Ok(probe) => Ok(Ok(probe)),
            Err(error) if error.is::<Interrupted>() => Err(Interrupted),
            Err(error) => Ok(Err(one_line(&format!("{error:#}")))),
        }
    }

    async fn probe(&self, kind: CeilingKind) -> Result<Probe> {
        let probed = probes::prepare(&self.gpu, kind).await?;
        let stopwatch = Stopwatch::new(&self.gpu, self.rules, self.stop.clone()).await;
        let timing = stopwatch.hot(&|pass| probed.kernel.dispatch(pass), 0.0).await?;
        let least_s = timing.clock().summary.min_s;
        // Seconds a launch, all else work a second.
        let value = if kind == CeilingKind::Launch { least_s } else { probed.work / least_s };
        Ok(Probe { value, work: probed.work, timing })
    }
}

impl Ceiling {
    /// What was measured before the cases.
    pub(super) fn new(kind: CeilingKind, before: Result<Probe, String>) -> Self {
        let (before, why) = match before {
            Ok(probe) => (Some(probe), None),
            Err(why) => (None, Some(why)),
        };
        Self { kind, before, after: None, drift: None, why }
    }

    /// Adds what was measured after them.
    pub(super) fn finish(&mut self, after: Result<Probe, String>) {
        match after {
            Ok(after) => {
                self.drift = self.before.as_ref().map(|before| after.value / before.value - 1.0);
                self.after = Some(after);
            }
            Err(why) => drop(self.why.get_or_insert(why)),
        }
    }

    /// The better of both; of times the lesser.
    pub fn value(&self) -> Option<f64> {
        let values = [&self.before, &self.after].into_iter().flatten().map(|probe| probe.value);
        let better = if self.kind == CeilingKind::Launch { f64::min } else { f64::max };
        values.reduce(better)
    }
}

/// Whether a ceiling changed by more than that.
pub(super) fn drifted(ceilings: &[Ceiling], limit: f64) -> bool {
    ceilings.iter().filter_map(|ceiling| ceiling.drift).any(|drift| drift.is_nan() || drift.abs() > limit)
}
