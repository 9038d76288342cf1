//! Choices of the caller.

use super::loads::Loads;
use crate::wgsl::{GpuFamily, MatrixSums, Tile, TileKind};
use crate::{Error, KernelPath, Result};
use std::time::Duration;

/// Choices of the caller; [`Default`] leaves them to the plan.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[non_exhaustive]
pub struct Options {
    /// Force a kernel, for attention and for matrix products. What the device cannot run is then an [`Error`], never another
    /// kernel.
    pub path: Option<KernelPath>,
    /// Force the kernels of attention's gradients. By default those of attention itself, where cooperative matrices take the gradients, too:
    /// [`BackwardPlan::path`](crate::BackwardPlan::path) says which, and why. What cannot run is then an [`Error`], never other kernels.
    pub gradient_path: Option<KernelPath>,
    /// Force how lanes share their work in attention and in matrix products; the sizes follow from the call and the device. By default a Vulkan device
    /// that computes on a CPU gets [`TileKind::Direct`], unless it is SwiftShader, any other [`TileKind::Staged`].
    pub tile_kind: Option<TileKind>,
    /// Force the workgroup's sizes.
    pub tile: Option<Tile>,
    /// Force whose sizes staged tiles have: [`GpuFamily::Any`] for those that suit most GPUs. By default those of the family that the adapter's
    /// vendor and subgroups tell, if there is one.
    pub gpu_family: Option<GpuFamily>,
    /// Rows of the square cooperative matrices that the adapter multiplies; none by default. [`Options::matrices`] finds it.
    pub matrix_size: Option<usize>,
    /// The adapter's first matrices of f16 with f32 sums, rows x columns x inner dimension, where it has some and none that a kernel
    /// can name: WGSL has square ones of 8 and 16. For the reason that a plan gives. [`Options::matrices`] finds it.
    pub other_matrices: Option<[u32; 3]>,
    /// Force where attention's sums live on cooperative matrices. By default in the matrices, and in lanes where the device
    /// failed its self-test that way.
    pub matrix_sums: Option<MatrixSums>,
    /// Force the number of workgroups that share the keys of one row tile and merge by (m, l). By default there are several
    /// only where rows are too few to keep the device busy.
    pub splits: Option<usize>,
    /// Compile without run-time checks what can do without: kernels whose every index the host has proven
    /// ([`Shader::proven`](crate::wgsl::Shader::proven)). wgpu otherwise clamps indices and bounds loops. Kernels that take indices from tensors (LSH, the sort,
    /// embedding) and edited shaders keep their checks. Off by default.
    pub unchecked: bool,
    /// Floating-point operations of one dispatch at most. By default as many as the device does in
    /// [`Options::DISPATCH_TIME`] by the estimate for its kind, or by [`measured_flops_per_second`](Self::measured_flops_per_second);
    /// but never so few that a large GPU had less than 2,048 workgroups to share out.
    pub dispatch_flops: Option<f64>,
    /// How fast the device is, where that was measured: `Gpu::calibrated` does.
    pub measured_flops_per_second: Option<f64>,
    /// Declares every storage buffer of every kernel writable, so that a call may use several ranges of one buffer that do not
    /// meet: for callers whose allocator puts many tensors into one buffer. Off by default.
    pub shared_buffers: bool,
}

impl Options {
    /// What a dispatch takes at most, by estimate: well below the 2 s after which Windows resets a device.
    pub const DISPATCH_TIME: Duration = Duration::from_millis(400);
    /// Workgroups of a dispatch at least on a discrete GPU, unless one alone takes too long.
    const LEAST_ITEMS: u32 = 2048;

    /// Forces a kernel.
    pub fn path(mut self, path: KernelPath) -> Self {
        self.path = Some(path);
        self
    }

    /// Forces the kernels of attention's gradients.
    pub fn gradient_path(mut self, path: KernelPath) -> Self {
        self.gradient_path = Some(path);
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

    /// Forces whose sizes staged tiles have.
    pub fn gpu_family(mut self, family: GpuFamily) -> Self {
        self.gpu_family = Some(family);
        self
    }

    /// Says which cooperative matrices the adapter has: `adapter.cooperative_matrix_properties()`. A device does not know
    /// them. Those that no kernel here uses are ignored, but for the reason that a plan gives.
    pub fn matrices(mut self, reported: &[wgpu::CooperativeMatrixProperties]) -> Self {
        self.matrix_size = usable_size(reported);
        let other = reported.iter().find(|one| has_types(one)).filter(|_| self.matrix_size.is_none());
        self.other_matrices = other.map(|one| [one.m_size, one.n_size, one.k_size]);
        self
    }

    /// Forces where attention's sums live on cooperative matrices.
    pub fn matrix_sums(mut self, sums: MatrixSums) -> Self {
        self.matrix_sums = Some(sums);
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
        self.dispatch_flops = Some(flops);
        self
    }

    /// Sets whether several ranges of one buffer may serve a call.
    pub fn shared_buffers(mut self, shared: bool) -> Self {
        self.shared_buffers = shared;
        self
    }

    pub(super) fn check(&self) -> Result<()> {
        for (name, given) in [
            ("dispatch_flops", self.dispatch_flops),
            ("measured_flops_per_second", self.measured_flops_per_second),
        ] {
            if let Some(flops) = given.filter(|flops| flops.is_nan() || *flops <= 0.0) {
                return Err(Error::argument(name, "a number above 0", flops));
            }
        }
        Ok(())
    }

    /// Workgroups of one dispatch at most, which do so much.
    pub(super) fn items_per_dispatch(&self, kind: wgpu::DeviceType, loads: &Loads) -> u32 {
        let items = loads.within(self.most_flops(kind));
        match kind {
            // A barrier follows each dispatch: with fewer, most of such a device would wait for the last of them.
            wgpu::DeviceType::DiscreteGpu if items > 1 && self.dispatch_flops.is_none() => {
                items.max(Self::LEAST_ITEMS)
            }
            _ => items,
        }
    }

    /// Floating-point operations of one dispatch at most.
    pub(super) fn most_flops(&self, kind: wgpu::DeviceType) -> f64 {
        let rate = self.measured_flops_per_second.unwrap_or(match kind {
            wgpu::DeviceType::Cpu => 3e10,
            wgpu::DeviceType::DiscreteGpu => 5e12,
            wgpu::DeviceType::IntegratedGpu | wgpu::DeviceType::VirtualGpu => 5e11,
            wgpu::DeviceType::Other => 1e11,
        });
        self.dispatch_flops.unwrap_or(rate * Self::DISPATCH_TIME.as_secs_f64())
    }
}

/// The family that an adapter seems to be of: by the PCI number of its vendor, as Vulkan and Direct3D 12 tell it.
pub(super) fn family(info: &wgpu::AdapterInfo) -> GpuFamily {
    // Software adapters have their makers' numbers, too.
    if info.device_type == wgpu::DeviceType::Cpu {
        return GpuFamily::Any;
    }
    of_vendor(info.vendor, info.subgroup_min_size)
}

fn of_vendor(vendor: u32, least_subgroup: u32) -> GpuFamily {
    match vendor {
        0x10de => GpuFamily::Nvidia,
        0x8086 if least_subgroup >= 16 => GpuFamily::IntelXe2,
        0x8086 => GpuFamily::Intel,
        // GCN's subgroups are of 64 lanes; it has no registers to spare for two waves of larger tiles.
        0x1002 if least_subgroup == 32 => GpuFamily::Rdna,
        _ => GpuFamily::Any,
    }
}

/// The largest square matrices with f16 operands and f32 sums among those that an adapter reports.
pub(super) fn usable_size(reported: &[wgpu::CooperativeMatrixProperties]) -> Option<usize> {
    let square = |m: &&wgpu::CooperativeMatrixProperties| m.m_size == m.n_size && m.m_size == m.k_size;
    let sizes = reported.iter().filter(|one| has_types(one)).filter(square).map(|m| m.m_size as usize);
    sizes.filter(|size| [8, 16].contains(size)).max()
}

/// Whether the operands are f16 and the sums f32.
fn has_types(reported: &wgpu::CooperativeMatrixProperties) -> bool {
    use wgpu::CooperativeScalarType::{F16, F32};
    (reported.ab_type, reported.cr_type) == (F16, F32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use wgpu::DeviceType::{Cpu, DiscreteGpu, IntegratedGpu};

    fn reported(
        [m_size, n_size, k_size]: [u32; 3],
        cr_type: wgpu::CooperativeScalarType,
    ) -> wgpu::CooperativeMatrixProperties {
        let ab_type = wgpu::CooperativeScalarType::F16;
        wgpu::CooperativeMatrixProperties {
            m_size,
            n_size,
            k_size,
            ab_type,
            cr_type,
            saturating_accumulation: false,
        }
    }

    #[test]
    fn matrices_are_those_that_wgsl_can_name() {
        use wgpu::CooperativeScalarType::{F16, F32};
        let found = |sizes: &[([u32; 3], wgpu::CooperativeScalarType)]| {
            let all: Vec<_> = sizes.iter().map(|&(size, sums)| reported(size, sums)).collect();
            let options = Options::default().matrices(&all);
            (options.matrix_size, options.other_matrices)
        };
        assert_eq!(found(&[]), (None, None));
        // lavapipe, RDNA3; NVIDIA has oblong ones beside the square ones.
        assert_eq!(found(&[([8; 3], F16), ([8; 3], F32)]), (Some(8), None));
        assert_eq!(found(&[([16, 8, 16], F32), ([16; 3], F16), ([16; 3], F32)]), (Some(16), None));
        assert_eq!(found(&[([16; 3], F32), ([8; 3], F32)]), (Some(16), None));
        // Intel: Xe2, DG2.
        assert_eq!(found(&[([8, 16, 16], F16), ([8, 16, 16], F32)]), (None, Some([8, 16, 16])));
        assert_eq!(found(&[([8, 8, 16], F32)]), (None, Some([8, 8, 16])));
        assert_eq!(found(&[([32; 3], F32)]), (None, Some([32; 3])));
        assert_eq!(found(&[([16; 3], F16)]), (None, None));
        // What was found of another adapter is forgotten.
        let other = Options::default().matrices(&[reported([8, 8, 16], F32)]);
        assert_eq!(other.matrices(&[reported([16; 3], F32)]).other_matrices, None);
    }

    #[test]
    fn families_are_told_by_vendor_and_subgroups() {
        use GpuFamily::{Any, Intel, IntelXe2, Nvidia, Rdna};
        for (vendor, least_subgroup, family) in [
            (0x10de, 32, Nvidia),
            (0x8086, 8, Intel),
            (0x8086, 16, IntelXe2),
            (0x1002, 32, Rdna),
            (0x1002, 64, Any), // GCN
            (0x5143, 64, Any),
            (0, 4, Any), // browsers and Metal
        ] {
            assert_eq!(of_vendor(vendor, least_subgroup), family, "{vendor:x}");
        }
    }

    #[test]
    fn long_calls_stay_wide_on_large_devices() {
        let options = Options::default();
        // A workgroup of 64 rows over 131,072 keys, d = 128: 4.3e9 operations.
        let flops = 2.0 * 256.0 * 64.0 * 131_072.0;
        assert_eq!(options.items_per_dispatch(DiscreteGpu, &Loads::from(flops)), 2048);
        assert!((40..60).contains(&options.items_per_dispatch(IntegratedGpu, &Loads::from(flops))));
        assert_eq!(options.items_per_dispatch(Cpu, &Loads::from(flops)), 2);
        // One workgroup that passes the limit by itself is not joined by others.
        assert_eq!(options.items_per_dispatch(DiscreteGpu, &Loads::from(4e12)), 1);
        // What the caller forces is taken as it is.
        assert_eq!(options.dispatch_flops(1.0).items_per_dispatch(DiscreteGpu, &Loads::from(flops)), 1);
        let fast = Options { measured_flops_per_second: Some(1e14), ..options };
        assert!(fast.items_per_dispatch(DiscreteGpu, &Loads::from(flops)) > 9000);
        assert!(Options { dispatch_flops: Some(f64::NAN), ..options }.check().is_err());
    }
}
