//! Tables of a rotary embedding, made on the device.

use crate::construct::constructed;
use crate::gpu::Kernels;
use crate::gpu::bindings::{Access, Bindings, check_aliasing, checked_binding, whole};
use crate::gpu::call::Call;
use crate::gpu::memory::filled_buffer;
use crate::gpu::params::{Params, RotaryTableParams};
use crate::gpu::pipeline::{Pipeline, Step};
use crate::gpu::scope::allocated;
use crate::wgsl::RotaryTables;
use crate::{ElementType, Error, Result, RotaryAngles};
use std::sync::Arc;

/// The planned tables of a rotary embedding: made by [`Kernels::rotary_tables`].
#[derive(Debug, Clone)]
pub struct RotaryTablesPlan {
    kernels: Kernels,
    angles: RotaryAngles,
    pipeline: Arc<Pipeline>,
    /// In turns, `[r/2]` of 64 bits.
    frequencies: wgpu::Buffer,
}

/// The tables. Both need `BufferUsages::STORAGE`.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RotaryTablesBuffers<'a> {
    /// cos in f32, `[len, r/2]`.
    pub cos: wgpu::BufferBinding<'a>,
    /// sin, as cos.
    pub sin: wgpu::BufferBinding<'a>,
}

constructed! {
    RotaryTablesBuffers ['a] { cos: wgpu::BufferBinding<'a>, sin: wgpu::BufferBinding<'a> } {  }
}

impl Kernels {
    /// Plans the tables of a rotary embedding, which the device makes for any positions: those that [`Kernels::rotary`] and
    /// [`DecodeShape::rotary`](crate::DecodeShape::rotary) take. Angles are as exact at position 4,000,000,000 as at 1 but for what f64 leaves of a
    /// frequency: an entry is off by at most 5 2^-23 times the attention factor
    /// ([`reference::layer::rotary_tables`](crate::reference::layer::rotary_tables) has the whole bound).
    ///
    /// # Errors
    /// As [`RotaryAngles::check`]; [`Error::Device`] for what wgpu reports while compiling.
    ///
    /// ```no_run
    /// use wgpu_attention::{Kernels, RotaryAngles, RotaryScaling, RotaryTablesBuffers, Yarn};
    /// # fn example(kernels: &Kernels, encoder: &mut wgpu::CommandEncoder, buffers: [&wgpu::Buffer; 2])
    /// # -> wgpu_attention::Result<()> {
    /// let angles = RotaryAngles::new(128, 1e6).scaling(RotaryScaling::Yarn(Yarn::new(4.0, 32768)));
    /// let plan = kernels.rotary_tables(&angles)?;
    /// let [cos, sin] = buffers.map(wgpu::Buffer::as_entire_buffer_binding);
    /// plan.bind(0, 131_072, RotaryTablesBuffers::new(cos, sin))?.encode(encoder); // [131072, 64] each
    /// # Ok(())
    /// # }
    /// ```
    pub fn rotary_tables(&self, angles: &RotaryAngles) -> Result<RotaryTablesPlan> {
        angles.check()?;
        let words: Vec<u64> = angles.inverse_frequencies().into_iter().map(in_turns).collect();
        let (label, usage) = ("rotary frequencies", wgpu::BufferUsages::STORAGE);
        let bytes: &[u8] = bytemuck::cast_slice(&words);
        let make = || filled_buffer(self.device(), label, usage, bytes);
        let frequencies = allocated(self.device(), label, bytes.len() as u64, make)?;
        let pipeline = self.pipeline(RotaryTables.shader())?;
        Ok(RotaryTablesPlan { kernels: self.clone(), angles: *angles, pipeline, frequencies })
    }
}

/// What is left of a frequency in radians when whole turns are taken off, as a fraction of 64 bits.
fn in_turns(frequency: f64) -> u64 {
    ((frequency / std::f64::consts::TAU).fract() * 2f64.powi(64)).round() as u64
}

impl RotaryTablesPlan {
    /// The angles that were planned.
    pub fn angles(&self) -> &RotaryAngles {
        &self.angles
    }

    /// Checks the tables of positions `first .. first + len` and binds them: nothing is recorded yet.
    ///
    /// # Errors
    /// [`Error::Argument`] for positions past 2^32, a buffer that is too small, lacks the usage or is misaligned, tables that overlap;
    /// [`Error::Limit`] for a buffer past the device's binding size; [`Error::Device`] for what wgpu reports.
    pub fn bind(&self, first: usize, len: usize, buffers: RotaryTablesBuffers<'_>) -> Result<Call> {
        let label = "rotary tables";
        if (first as u128 + len as u128) > 1 << 32 {
            let got = format!("{first} and {len} more");
            return Err(Error::argument("first", "positions below 4294967296", got));
        }
        if len == 0 {
            return Ok(Call::new(label, []));
        }
        let half = self.angles.dim / 2;
        let (device, limits) = (self.kernels.device(), self.kernels.device().limits());
        let cells = len as u128 * half as u128;
        let work = self.kernels.work(label, cells.div_ceil(RotaryTables::LANES as u128), 4096.0)?;
        let cos = checked_binding(&limits, "cos", &buffers.cos, len * half, ElementType::F32)?;
        let sin = checked_binding(&limits, "sin", &buffers.sin, len * half, ElementType::F32)?;
        let named = [("cos", Some(&cos), Access::Write), ("sin", Some(&sin), Access::Write)];
        check_aliasing(&named, self.kernels.options().shared_buffers)?;
        let params = Params::of(RotaryTableParams {
            first: first as u32,
            len: len as u32,
            half: half as u32,
            factor: self.angles.attention_factor() as f32,
            ..Default::default()
        });
        let bindings = Bindings::default()
            .with("frequencies", whole(&self.frequencies))
            .with("cosines", cos)
            .with("sines", sin);
        Ok(Call::of_steps(label, [Step::new(device, &self.pipeline, &params, work, &bindings)?]))
    }
}
