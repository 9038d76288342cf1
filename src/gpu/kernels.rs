//! The entry for wgpu users: plans on a device of theirs.

use super::loads::Loads;
use super::options::{Options, family};
use super::pipeline::{Pipeline, Work};
use super::scope::check_not_lost;
use crate::wgsl::{GpuFamily, Shader, TileKind, TileLimits};
use crate::{Error, Result};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// The kernels on one device: makes plans, and keeps compiled pipelines for the next plan of the same kind.
///
/// Nothing here submits, polls or touches a queue, and no global handler of the device is set. Clones share the
/// pipelines.
///
/// ```no_run
/// use wgpu_attention::{AttentionBuffers, AttentionShape, Causal, Kernels, Options};
/// # fn example(device: &wgpu::Device, encoder: &mut wgpu::CommandEncoder, buffers: [&wgpu::Buffer; 4])
/// # -> wgpu_attention::Result<()> {
/// let shape = AttentionShape::new(1, 12, 1024, 64);
/// let kernels = Kernels::new(device, Options::default())?;
/// let plan = kernels.attention(&shape, &Causal)?; // compiles, once
/// let [q, k, v, out] = buffers.map(wgpu::Buffer::as_entire_buffer_binding);
/// let call = plan.bind(AttentionBuffers::new(q, k, v, out))?; // checks, records nothing
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
    pipelines: Pipelines,
    /// Those of the kernels that were [edited](Kernels::edited), for what the edit leaves as it is.
    unedited: Option<Pipelines>,
}

/// Pipelines by the shader's text and whether it is checked at run time.
type Compiled = HashMap<(String, bool), Arc<Pipeline>>;

/// Pipelines that several share.
type Pipelines = Arc<Mutex<Compiled>>;

impl Kernels {
    /// Kernels on a device.
    ///
    /// # Errors
    /// [`Error::Limit`] where the device allows fewer than 128 lanes per workgroup, or no uniform buffer with a dynamic offset: WebGPU's
    /// default limits suffice. [`Error::Argument`] for [`Options`] with a speed that is no number above 0; [`Error::DeviceLost`].
    pub fn new(device: &wgpu::Device, options: Options) -> Result<Self> {
        Self::create(device, options, None, Arc::default(), None)
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
        Self::create(device, options, Some(Arc::new(edit)), Arc::default(), None)
    }

    /// The same kernels with shader texts that pass through `edit` first, as those of
    /// [`with_edited_shaders`](Self::with_edited_shaders); an edit that these have does not count. What `edit` leaves as it is, is
    /// compiled once for both.
    pub fn edited(&self, edit: impl Fn(&str) -> String + Send + Sync + 'static) -> Self {
        let Inner { device, options, pipelines, unedited, .. } = &*self.inner;
        let unedited = Some(unedited.as_ref().unwrap_or(pipelines).clone());
        let (device, options, edit) = (device.clone(), *options, Some(Arc::new(edit) as Arc<Edit>));
        Self { inner: Arc::new(Inner { device, options, edit, pipelines: Arc::default(), unedited }) }
    }

    /// Kernels on the same device with other options; what both need is compiled once.
    ///
    /// # Errors
    /// As [`Kernels::new`].
    pub fn with_options(&self, options: Options) -> Result<Self> {
        let Inner { device, edit, pipelines, unedited, .. } = &*self.inner;
        Self::create(device, options, edit.clone(), pipelines.clone(), unedited.clone())
    }

    fn create(
        device: &wgpu::Device,
        options: Options,
        edit: Option<Arc<Edit>>,
        pipelines: Pipelines,
        unedited: Option<Pipelines>,
    ) -> Result<Self> {
        let limits = device.limits();
        let needs = [
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
        options.check()?;
        check_not_lost(device)?;
        let inner = Inner { device: device.clone(), options, edit, pipelines, unedited };
        Ok(Self { inner: Arc::new(inner) })
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
            family: self.gpu_family(),
            subgroups: self.has_subgroups(),
        }
    }

    /// Whether shaders may ask for subgroups. Browsers want that said in the text, in words that wgpu does not know yet.
    pub(super) fn has_subgroups(&self) -> bool {
        let device = self.device();
        device.features().contains(wgpu::Features::SUBGROUP)
            && device.adapter_info().backend != wgpu::Backend::BrowserWebGpu
    }

    /// The family that the caller says, or that the adapter seems to be of.
    pub(crate) fn gpu_family(&self) -> GpuFamily {
        self.options().gpu_family.unwrap_or_else(|| family(&self.device().adapter_info()))
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

    /// So many workgroups, which do so much, cut into dispatches.
    ///
    /// # Errors
    /// [`Error::Limit`] where 32 bits do not count them.
    pub(super) fn work(&self, what: &'static str, items: u128, loads: impl Into<Loads>) -> Result<Work> {
        let count = u32::try_from(items).map_err(|_| {
            Error::limit(
                what,
                "the largest 32-bit count of workgroups",
                items.min(u64::MAX.into()) as u64,
                u32::MAX.into(),
            )
        })?;
        let kind = self.device().adapter_info().device_type;
        Ok(Work { items: count, per_dispatch: self.options().items_per_dispatch(kind, &loads.into()) })
    }

    /// The compiled shader, from the cache or new. Its text is the key: what is equal is compiled once.
    ///
    /// # Errors
    /// [`Error::Limit`] where the device has fewer storage buffers than the shader uses; [`Error::Device`] for what wgpu
    /// reports.
    pub(super) fn pipeline(&self, mut shader: Shader) -> Result<Arc<Pipeline>> {
        let (need, have) =
            (shader.bindings.len() as u64, self.device().limits().max_storage_buffers_per_shader_stage);
        if need > u64::from(have) {
            let limit = "max_storage_buffers_per_shader_stage";
            return Err(Error::limit(shader.label, limit, need, have.into()));
        }
        if self.options().shared_buffers {
            shader = shader.with_shared_buffers();
        }
        let mut pipelines = &self.inner.pipelines;
        if let Some(edit) = &self.inner.edit {
            let text = edit(&shader.text);
            match &self.inner.unedited {
                Some(unedited) if text == shader.text => pipelines = unedited,
                _ => (shader.text, shader.proven) = (text, false),
            }
        }
        let checks = !(self.inner.options.unchecked && shader.proven);
        // A panic of another thread leaves a map of whole pipelines: it stays usable.
        let lock = || pipelines.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (shader.text.clone(), checks);
        if let Some(pipeline) = lock().get(&key) {
            return Ok(pipeline.clone());
        }
        // Compiled outside the lock: it takes long, and two threads that compile the same lose only time.
        let pipeline = Arc::new(Pipeline::new(&self.inner.device, &shader, checks)?);
        Ok(lock().entry(key).or_insert(pipeline).clone())
    }
}
