//! The entry for wgpu users: plans on a device of theirs.

use super::path::usable_size;
use super::pipeline::{Pipeline, Use, filled_buffer};
use super::plan::AttentionPlan;
use super::scope::checked;
use crate::mask::Parts;
use crate::wgsl::{AttentionVariant, Shader, Tile, TileKind, TileLimits};
use crate::{AttentionShape, Error, KernelPath, Result};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Choices of the caller; [`Default`] leaves them to the plan.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Options {
    /// Force a kernel, for attention and for matrix products. What the device cannot run is then an [`Error`], never another
    /// kernel.
    pub path: Option<KernelPath>,
    /// Force how lanes share their work in attention and in matrix products; the sizes follow from the call and the device. By default a Vulkan device
    /// that computes on a CPU gets [`TileKind::Direct`], unless it is SwiftShader, any other [`TileKind::Staged`].
    pub tile_kind: Option<TileKind>,
    /// Force the workgroup's sizes.
    pub tile: Option<Tile>,
    /// Rows of the square cooperative matrices that the adapter multiplies; none by default. [`Options::matrices`] finds it.
    pub matrix_size: Option<usize>,
    /// Force the number of workgroups that share the keys of one row tile and merge by (m, l). By default there are several
    /// only where rows are too few to keep the device busy.
    pub splits: Option<usize>,
    /// Compile without run-time checks what can do without: kernels whose every index the host has proven
    /// ([`Shader::proven`]). wgpu otherwise clamps indices and bounds loops. Kernels that take indices from tensors (LSH, the sort,
    /// embedding) and edited shaders keep their checks. Off by default.
    pub unchecked: bool,
    /// Floating-point operations of one dispatch at most. The default, 5e10, takes half a second at 100 GFLOP/s:
    /// below the 2 s after which Windows resets a device.
    pub dispatch_flops: f64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            path: None,
            tile_kind: None,
            tile: None,
            matrix_size: None,
            splits: None,
            unchecked: false,
            dispatch_flops: 5e10,
        }
    }
}

impl Options {
    /// Forces a kernel.
    pub fn path(mut self, path: KernelPath) -> Self {
        self.path = Some(path);
        self
    }

    /// Forces how lanes share their work.
    pub fn tile_kind(mut self, kind: TileKind) -> Self {
        self.tile_kind = Some(kind);
        self
    }

    /// Forces the workgroup's sizes.
    pub fn tile(mut self, tile: Tile) -> Self {
        self.tile = Some(tile);
        self
    }

    /// Says which cooperative matrices the adapter has: `adapter.cooperative_matrix_properties()`. A device does not know
    /// them. Those that no kernel here uses are ignored.
    pub fn matrices(mut self, reported: &[wgpu::CooperativeMatrixProperties]) -> Self {
        self.matrix_size = usable_size(reported);
        self
    }

    /// Forces the number of workgroups that share a row tile's keys.
    pub fn splits(mut self, splits: usize) -> Self {
        self.splits = Some(splits);
        self
    }

    /// Compiles proven kernels without run-time checks.
    pub fn unchecked(mut self, unchecked: bool) -> Self {
        self.unchecked = unchecked;
        self
    }

    /// Limits the work of one dispatch.
    pub fn dispatch_flops(mut self, flops: f64) -> Self {
        self.dispatch_flops = flops;
        self
    }
}

/// The kernels on one device: makes plans, and keeps compiled pipelines for the next plan of the same kind.
///
/// Nothing here submits, polls or touches a queue, and no global handler of the device is set. Clones share the
/// pipelines.
///
/// ```no_run
/// use wgpu_attention::{AttentionBuffers, AttentionShape, BlockGrid, BlockMask, Causal, Kernels, Options};
/// # fn example(device: &wgpu::Device, encoder: &mut wgpu::CommandEncoder, buffers: [&wgpu::Buffer; 4])
/// # -> wgpu_attention::Result<()> {
/// let shape = AttentionShape::new(1, 12, 1024, 64);
/// let kernels = Kernels::new(device, Options::default())?;
/// let mask = BlockMask::new(&Causal, BlockGrid::from(&shape))?;
/// let plan = kernels.attention(&shape, &mask)?; // compiles, once
/// let [q, k, v, out] = buffers.map(wgpu::Buffer::as_entire_buffer_binding);
/// let call = plan.bind(AttentionBuffers { q, k, v, bias: None, out, lse: None })?; // checks, records nothing
/// call.encode(encoder);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Kernels {
    inner: Arc<Inner>,
}

impl std::fmt::Debug for Kernels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kernels").field("options", self.options()).finish_non_exhaustive()
    }
}

/// A change to every shader's text before it is compiled.
type Edit = dyn Fn(&str) -> String + Send + Sync;

struct Inner {
    device: wgpu::Device,
    options: Options,
    edit: Option<Arc<Edit>>,
    /// Bound where a variant has no use for a binding: one to read, one to write, since a buffer may not be both.
    unused: [wgpu::Buffer; 2],
    /// By the shader's text.
    pipelines: Mutex<HashMap<String, Arc<Pipeline>>>,
}

impl Kernels {
    /// Kernels on a device.
    ///
    /// # Errors
    /// [`Error::Limit`] if the device was made with less than WebGPU's default limits, [`Error::Device`] if it is
    /// lost.
    pub fn new(device: &wgpu::Device, options: Options) -> Result<Self> {
        Self::create(device, options, None)
    }

    /// Kernels whose shader texts pass through `edit` first: for mutation tests, which plant faults and see that the
    /// suite finds them, and for experiments.
    ///
    /// # Errors
    /// As [`Kernels::new`].
    pub fn with_edited_shaders(
        device: &wgpu::Device,
        options: Options,
        edit: impl Fn(&str) -> String + Send + Sync + 'static,
    ) -> Result<Self> {
        Self::create(device, options, Some(Arc::new(edit)))
    }

    /// Kernels on the same device with other options; their pipelines are their own.
    ///
    /// # Errors
    /// As [`Kernels::new`].
    pub fn with_options(&self, options: Options) -> Result<Self> {
        Self::create(self.device(), options, self.inner.edit.clone())
    }

    fn create(device: &wgpu::Device, options: Options, edit: Option<Arc<Edit>>) -> Result<Self> {
        let limits = device.limits();
        let needs = [
            (
                "max_storage_buffers_per_shader_stage",
                AttentionVariant::STORAGE_BUFFERS,
                limits.max_storage_buffers_per_shader_stage,
            ),
            ("max_compute_invocations_per_workgroup", 128, limits.max_compute_invocations_per_workgroup),
            ("max_compute_workgroup_size_x", 128, limits.max_compute_workgroup_size_x),
            (
                "max_dynamic_uniform_buffers_per_pipeline_layout",
                1,
                limits.max_dynamic_uniform_buffers_per_pipeline_layout,
            ),
        ];
        for (limit, need, have) in needs {
            if have < need {
                return Err(Error::limit("the attention kernel", limit, need.into(), have.into()));
            }
        }
        if options.dispatch_flops.is_nan() || options.dispatch_flops <= 0.0 {
            return Err(Error::argument("dispatch_flops", "a number above 0", options.dispatch_flops));
        }
        let unused = checked(device, "Kernels::new", || {
            ["unused input", "unused output"]
                .map(|label| filled_buffer(device, label, wgpu::BufferUsages::STORAGE, &[0; 16]))
        })?;
        let inner = Inner { device: device.clone(), options, edit, unused, pipelines: Mutex::default() };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Plans one attention call: checks the shape against the mask and the device, uploads the mask and compiles what
    /// is not compiled yet. `parts` is a [`BlockMask`](crate::BlockMask) or a list of [`Parts`] with disjoint sets.
    ///
    /// # Errors
    /// [`Error::Argument`] for a bad shape or a mask of another size, [`Error::Limit`] where the device is too small,
    /// [`Error::Device`] for what wgpu reports while compiling.
    pub fn attention(&self, shape: &AttentionShape, parts: impl Into<Parts>) -> Result<AttentionPlan> {
        AttentionPlan::new(self, shape, parts.into(), false)
    }

    /// The device.
    pub fn device(&self) -> &wgpu::Device {
        &self.inner.device
    }

    /// The caller's choices.
    pub fn options(&self) -> &Options {
        &self.inner.options
    }

    /// What a workgroup of the scalar path may have.
    pub(super) fn tile_limits(&self) -> TileLimits {
        self.limits_of(self.scalar_tile_kind())
    }

    pub(crate) fn limits_of(&self, kind: TileKind) -> TileLimits {
        let limits = self.inner.device.limits();
        let lanes = limits.max_compute_invocations_per_workgroup.min(limits.max_compute_workgroup_size_x);
        TileLimits {
            workgroup_bytes: (limits.max_compute_workgroup_storage_size as usize)
                .min(TileLimits::of(kind).workgroup_bytes),
            lanes: lanes as usize,
            kind,
        }
    }

    pub(super) fn scalar_tile_kind(&self) -> TileKind {
        match self.options().tile_kind {
            Some(kind @ (TileKind::Staged | TileKind::Direct)) => kind,
            _ if self.computes_on_a_cpu() && self.compiles_direct_tiles() => TileKind::Direct,
            _ => TileKind::Staged,
        }
    }

    /// Whether the device's compiler is known to be up to arrays that loops index, lane by lane: OpenGL's make ladders of branches
    /// of them, and minutes of those; SwiftShader's takes minutes and gigabytes. Of GPUs' compilers nothing is known.
    pub(crate) fn compiles_direct_tiles(&self) -> bool {
        let info = self.device().adapter_info();
        info.backend == wgpu::Backend::Vulkan && !info.driver.starts_with("SwiftShader")
    }

    pub(super) fn computes_on_a_cpu(&self) -> bool {
        self.inner.device.adapter_info().device_type == wgpu::DeviceType::Cpu
    }

    pub(super) fn unused(&self, used: Use) -> wgpu::BufferBinding<'_> {
        self.inner.unused[used as usize].as_entire_buffer_binding()
    }

    /// The compiled shader, from the cache or new. Its text is the key: what is equal is compiled once.
    pub(super) fn pipeline(
        &self,
        mut shader: Shader,
        params_bytes: usize,
        uses: &[Use],
    ) -> Result<Arc<Pipeline>> {
        if let Some(edit) = &self.inner.edit {
            shader.text = edit(&shader.text);
            shader.proven = false;
        }
        let checks = !(self.inner.options.unchecked && shader.proven);
        // A panic of another thread leaves a map of whole pipelines: it stays usable.
        let lock = || self.inner.pipelines.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pipeline) = lock().get(&shader.text) {
            return Ok(pipeline.clone());
        }
        // Compiled outside the lock: it takes long, and two threads that compile the same lose only time.
        let pipeline = Arc::new(Pipeline::new(&self.inner.device, &shader, checks, params_bytes, uses)?);
        Ok(lock().entry(shader.text).or_insert(pipeline).clone())
    }
}
