//! A stable sort of u32 keys in segments, with values: least significant digit first, 8 bits per pass.

use super::bindings::{Access, Bindings, check_aliasing, checked_binding, scratch};
use super::call::Call;
use super::kernels::Kernels;
use super::params::{Params, SortParams, SortScanParams};
use super::pipeline::{Pipeline, Step, Work};
use crate::construct::constructed;
use crate::layout::check_u32;
use crate::wgsl::SortPass;
use crate::{ElementType, Error, Result};
use std::sync::Arc;

/// What one sort does: `segments` lists of `len` keys each, every one sorted by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct SortShape {
    /// Lists. May be 0.
    pub segments: usize,
    /// Keys of a list: up to [`MAX_LEN`](Self::MAX_LEN). May be 0.
    pub len: usize,
    /// Bits of a key that count, 1 to 32: the order is that of the keys modulo 2^key_bits. A pass takes 8.
    pub key_bits: u32,
    /// Whether there are values to carry along; without, the keys' places in their list are the values (argsort).
    pub values: bool,
}

impl SortShape {
    /// Most keys of a list.
    pub const MAX_LEN: usize = 1 << 24;

    /// Lists of full 32-bit keys, without values.
    pub fn new(segments: usize, len: usize) -> Self {
        Self { segments, len, key_bits: 32, values: false }
    }

    /// Sets the bits of a key that count.
    pub fn key_bits(mut self, key_bits: u32) -> Self {
        self.key_bits = key_bits;
        self
    }

    /// Sets whether there are values.
    pub fn values(mut self, values: bool) -> Self {
        self.values = values;
        self
    }

    /// Keys in all.
    pub fn len_keys(&self) -> usize {
        self.segments * self.len
    }

    /// Checks everything that can be said without a device.
    ///
    /// # Errors
    /// [`Error::Argument`] for key bits other than 1 to 32, [`Error::Limit`] for lists past
    /// [`MAX_LEN`](Self::MAX_LEN) or more keys than 32-bit indices reach.
    pub fn check(&self) -> Result<()> {
        if !(1..=32).contains(&self.key_bits) {
            return Err(Error::argument("key_bits", "1 to 32", self.key_bits));
        }
        if self.len > Self::MAX_LEN {
            return Err(Error::limit("len", "SortShape::MAX_LEN", self.len as u64, Self::MAX_LEN as u64));
        }
        // The counts of the digits may be more than the keys.
        let counts = self.segments as u128 * self.blocks() as u128 * SortPass::LANES as u128;
        check_u32("the sort", (self.segments as u128 * self.len as u128).max(counts))
    }

    fn blocks(&self) -> usize {
        self.len.div_ceil(SortPass::BLOCK)
    }

    fn passes(&self) -> u32 {
        self.key_bits.div_ceil(SortPass::DIGIT_BITS)
    }
}

/// The buffers of one sort. All need `BufferUsages::STORAGE`; outputs may not be buffers that are also read, or each
/// other's.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SortBuffers<'a> {
    /// Keys `[segments, len]`, u32.
    pub keys: wgpu::BufferBinding<'a>,
    /// Values `[segments, len]`, u32, if and only if the shape has them.
    pub values: Option<wgpu::BufferBinding<'a>>,
    /// Where the sorted keys go, if they are wanted.
    pub sorted_keys: Option<wgpu::BufferBinding<'a>>,
    /// Where the values go, `[segments, len]`: those of equal keys stay in their order.
    pub sorted_values: wgpu::BufferBinding<'a>,
}

constructed! {
    SortBuffers ['a] { keys: wgpu::BufferBinding<'a>, sorted_values: wgpu::BufferBinding<'a> } { values: wgpu::BufferBinding<'a>, sorted_keys: wgpu::BufferBinding<'a> }
}

/// A stable radix sort on the device, planned and compiled: made by [`Kernels::sort`].
///
/// ```no_run
/// use wgpu_attention::{Kernels, Options, SortBuffers, SortShape};
/// # fn example(device: &wgpu::Device, encoder: &mut wgpu::CommandEncoder, keys: &wgpu::Buffer, order: &wgpu::Buffer)
/// # -> wgpu_attention::Result<()> {
/// let kernels = Kernels::new(device, Options::default())?;
/// let plan = kernels.sort(&SortShape::new(8, 4096).key_bits(7))?; // 8 lists of 4,096 keys below 128: one pass
/// // The order: places in their list.
/// let [keys, order] = [keys, order].map(wgpu::Buffer::as_entire_buffer_binding);
/// let call = plan.bind(SortBuffers::new(keys, order))?;
/// call.encode(encoder);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct SortPlan {
    kernels: Kernels,
    shape: SortShape,
}

impl Kernels {
    /// Plans a stable sort: a least-significant-digit radix sort (Knuth, *The Art of Computer Programming* 3, 5.2.5) of 8
    /// bits per pass, without subgroups, within WebGPU's default limits. The same keys give the same result, bit for bit.
    ///
    /// # Errors
    /// As [`SortShape::check`]; [`Error::Limit`] on a device without workgroups of 256 lanes, [`Error::Device`] for what
    /// wgpu reports while compiling.
    pub fn sort(&self, shape: &SortShape) -> Result<SortPlan> {
        SortPlan::new(self, shape)
    }
}

impl SortPlan {
    pub(super) fn new(kernels: &Kernels, shape: &SortShape) -> Result<Self> {
        shape.check()?;
        let limits = kernels.device().limits();
        let lanes = limits.max_compute_invocations_per_workgroup.min(limits.max_compute_workgroup_size_x);
        if (lanes as usize) < SortPass::LANES {
            let need = SortPass::LANES as u64;
            return Err(Error::limit(
                "the sort",
                "max_compute_invocations_per_workgroup",
                need,
                lanes.into(),
            ));
        }
        let plan = Self { kernels: kernels.clone(), shape: *shape };
        plan.pipelines(false)?;
        Ok(plan)
    }

    /// The shape that was planned.
    pub fn shape(&self) -> &SortShape {
        &self.shape
    }

    /// Checks the buffers and binds them; scratch is allocated.
    ///
    /// # Errors
    /// [`Error::Argument`] for a buffer that is too small, lacks the usage, is misaligned, or serves twice where one is
    /// written; [`Error::Limit`] for buffers or scratch past the device's binding size; [`Error::Device`] for what wgpu
    /// reports.
    pub fn bind(&self, buffers: SortBuffers<'_>) -> Result<Call> {
        if self.shape.values != buffers.values.is_some() {
            let (need, got) = if self.shape.values { ("a buffer", "none") } else { ("none", "a buffer") };
            return Err(Error::argument("values", format!("{need}, as the shape says"), got));
        }
        if self.shape.len_keys() == 0 {
            return Ok(Call::new("sort", []));
        }
        let limits = self.kernels.device().limits();
        let check = |name, binding: &wgpu::BufferBinding<'_>| {
            checked_binding(&limits, name, binding, self.shape.len_keys(), ElementType::F32).map(|_| ())
        };
        check("keys", &buffers.keys)?;
        check("sorted_values", &buffers.sorted_values)?;
        buffers.values.as_ref().map(|b| check("values", b)).transpose()?;
        buffers.sorted_keys.as_ref().map(|b| check("sorted_keys", b)).transpose()?;
        let named = [
            ("keys", Some(&buffers.keys), Access::Read),
            ("values", buffers.values.as_ref(), Access::Read),
            ("sorted_keys", buffers.sorted_keys.as_ref(), Access::Write),
            ("sorted_values", Some(&buffers.sorted_values), Access::Write),
        ];
        check_aliasing(&named, self.kernels.options().shared_buffers)?;
        Ok(Call::of_steps("sort", self.steps(&buffers)?))
    }

    /// The steps over buffers that have been checked.
    pub(super) fn steps(&self, buffers: &SortBuffers<'_>) -> Result<Vec<Step>> {
        let (shape, device) = (&self.shape, self.kernels.device());
        let (passes, blocks) = (shape.passes(), shape.blocks());
        let words = |label, words: usize| scratch(device, label, 4 * words as u64);
        let counts = words("sort counts", shape.segments * blocks * SortPass::LANES)?;
        let starts = words("sort starts", shape.segments * SortPass::LANES)?;
        // Every pass but the last writes to one of two places in turn.
        let turns = (passes - 1).min(2);
        let between = |label| (0..turns).map(|_| words(label, shape.len_keys())).collect::<Result<Vec<_>>>();
        let (keys, values) = (between("sort keys")?, between("sort values")?);

        let pipelines = self.pipelines(buffers.sorted_keys.is_some())?;
        let per_dispatch = Self::ITEMS_PER_DISPATCH;
        let work = Work { items: (shape.segments * blocks) as u32, per_dispatch };
        let segments = Work { items: shape.segments as u32, per_dispatch };
        let whole = wgpu::Buffer::as_entire_buffer_binding;
        let mut steps = vec![];
        for pass in 0..passes {
            let params = Params::of(SortParams {
                len: shape.len as u32,
                blocks: blocks as u32,
                shift: pass * SortPass::DIGIT_BITS,
                digit_mask: digit_mask(shape.key_bits - pass * SortPass::DIGIT_BITS),
                ..Default::default()
            });
            let (last, pass) = (pass + 1 == passes, pass as usize);
            let (keys_in, values_in) = match pass.checked_sub(1) {
                None => (buffers.keys.clone(), buffers.values.clone()),
                Some(before) => (whole(&keys[before % 2]), Some(whole(&values[before % 2]))),
            };
            let (keys_out, values_out) = match last {
                true => (buffers.sorted_keys.clone(), buffers.sorted_values.clone()),
                false => (Some(whole(&keys[pass % 2])), whole(&values[pass % 2])),
            };
            let tables = Bindings::default().with("counts", whole(&counts)).with("starts", whole(&starts));
            let scan = Params::of(SortScanParams { blocks: blocks as u32, ..Default::default() });
            let moved = tables
                .clone()
                .with("keys", keys_in)
                .with_some("values", values_in)
                .with_some("keys_out", keys_out)
                .with("values_out", values_out);
            steps.push(Step::new(device, &pipelines.count, &params, work, &moved)?);
            steps.push(Step::new(device, &pipelines.scan, &scan, segments, &tables)?);
            steps.push(Step::new(device, &pipelines.scatter[pass], &params, work, &moved)?);
        }
        Ok(steps)
    }

    /// 2^27 keys: far below a second on any device.
    const ITEMS_PER_DISPATCH: u32 = 1 << 16;

    /// The pipelines of a sort that leaves places alone.
    #[cfg(not(target_arch = "wasm32"))]
    pub(super) fn argsort_pipelines(&self) -> Result<Vec<Arc<Pipeline>>> {
        let Pipelines { count, scan, scatter } = self.pipelines(false)?;
        Ok([count, scan].into_iter().chain(scatter).collect())
    }

    fn pipelines(&self, sorted_keys: bool) -> Result<Pipelines> {
        let (kernels, passes) = (&self.kernels, self.shape.passes());
        let scatter = |pass| {
            let shader = SortPass::scatter(self.shape.values || pass > 0, sorted_keys || pass + 1 < passes);
            kernels.pipeline(shader)
        };
        Ok(Pipelines {
            count: kernels.pipeline(SortPass::count())?,
            scan: kernels.pipeline(SortPass::scan())?,
            scatter: (0..passes).map(scatter).collect::<Result<_>>()?,
        })
    }
}

struct Pipelines {
    count: Arc<Pipeline>,
    scan: Arc<Pipeline>,
    /// One per pass.
    scatter: Vec<Arc<Pipeline>>,
}

/// The bits of a pass's digit, given how many bits are left.
fn digit_mask(bits_left: u32) -> u32 {
    (1 << bits_left.min(SortPass::DIGIT_BITS)) - 1
}
