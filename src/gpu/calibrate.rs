//! How fast a device is, so that no dispatch runs for long.

use super::attention::AttentionBuffers;
use super::host::Gpu;
use super::kernels::Kernels;
use super::options::Options;
use super::scope::check_not_lost;
use crate::pattern::Full;
use crate::{AttentionShape, ElementType, Error, Result};
use std::time::{Duration, Instant};

impl Gpu {
    /// Long enough that neither the submission nor the wait for it count.
    const LEAST_TIME: Duration = Duration::from_millis(20);
    /// Even the fastest device takes [`Self::LEAST_TIME`] for so many keys, and k and v take 16 MiB each.
    const MOST_KEYS: usize = 1 << 16;

    /// The same device, its dispatches cut by how fast it is: measures the floating-point operations per second of dense
    /// attention, and plans so that no dispatch takes longer than [`Options::DISPATCH_TIME`] by that estimate. What is computed
    /// does not change by a bit. Without this, the estimate follows from the device's kind.
    ///
    /// Takes some 0.1 s, and compiles a kernel. A workgroup's own work is not cut: at millions of keys it may take longer.
    ///
    /// # Errors
    /// As [`Gpu::attention`].
    ///
    /// ```no_run
    /// let gpu = wgpu_attention::Gpu::new()?.calibrated()?;
    /// println!("{:?} operations per second", gpu.kernels().options().measured_flops_per_second);
    /// # Ok::<(), wgpu_attention::Error>(())
    /// ```
    pub fn calibrated(&self) -> Result<Self> {
        let kernels = self.calibrated_kernels()?;
        // Kernels measured before the device was lost are still here.
        check_not_lost(self.device()).map_err(|e| self.or_lost(e))?;
        Ok(self.with_kernels(kernels))
    }

    /// The kernels of [`Gpu::calibrated`], measured once for a device and its clones; those that are there where the options
    /// say already how long a dispatch may be.
    pub(super) fn calibrated_kernels(&self) -> Result<Kernels> {
        let options = self.kernels().options();
        if options.dispatch_flops.is_some() || options.measured_flops_per_second.is_some() {
            return Ok(self.kernels().clone());
        }
        if let Some(kernels) = self.calibrated.get() {
            return Ok(kernels.clone());
        }
        let measured_flops_per_second = Some(self.flops_per_second()?);
        let options = Options { measured_flops_per_second, ..*self.kernels().options() };
        let kernels = self.kernels().with_options(options).map_err(|e| self.or_lost(e))?;
        Ok(self.calibrated.get_or_init(|| kernels).clone())
    }

    fn flops_per_second(&self) -> Result<f64> {
        let mut keys = 256;
        loop {
            // The heads share their keys: little memory for much work.
            let shape = AttentionShape::new(1, 16, 256, 64).kv_heads(1).kv_len(keys);
            let plan = self.kernels().attention(shape, &Full).map_err(|e| self.or_lost(e))?;
            let input = |name, elements| self.output(name, elements, ElementType::F32);
            let (q, k, v) =
                (input("q", shape.len_q())?, input("k", shape.len_k())?, input("v", shape.len_v())?);
            let out = input("out", shape.len_out())?;
            let [q, k, v, out] = [&q, &k, &v, &out].map(wgpu::Buffer::as_entire_buffer_binding);
            let call = plan.bind(AttentionBuffers::new(q, k, v, out));
            let call = call.map_err(|e| self.or_lost(e))?;
            let timed = || -> Result<Duration> {
                let start = Instant::now();
                self.submit(|encoder| {
                    call.encode(encoder);
                    Ok(())
                })?;
                let waited = self.device().poll(wgpu::PollType::wait_indefinitely());
                let failed =
                    |e: wgpu::PollError| Error::Device { what: "calibration".into(), message: e.to_string() };
                waited.map_err(|e| self.or_lost(failed(e)))?;
                Ok(start.elapsed())
            };
            // The first run writes zeros first; of the others the fastest had the device for itself.
            timed()?;
            let time = timed()?.min(timed()?);
            if time >= Self::LEAST_TIME || keys == Self::MOST_KEYS {
                return Ok(plan.explain().flops / time.as_secs_f64().max(1e-9));
            }
            keys *= 2;
        }
    }
}
