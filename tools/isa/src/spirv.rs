//! From WGSL to SPIR-V as wgpu's Vulkan backend does it: same translator, same options, same checks.

use std::collections::BTreeMap;

use anyhow::{Context, Result, anyhow, ensure};
use naga::back::spv::{self, Capability, ZeroInitializeWorkgroupMemoryMode};
use naga::proc::{BoundsCheckPolicies, BoundsCheckPolicy};
use naga::valid::{Capabilities, ValidationFlags, Validator};

/// The run-time checks that wgpu puts into a shader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checks {
    /// Indices are clamped (those into buffers by the driver, which all of these can) and divisors are guarded:
    /// `bounds_checks` and `int_div_checks` of `wgpu::ShaderRuntimeChecks`.
    pub bounds: bool,
    /// Loops count down to a forced end: `force_loop_bounding` of `wgpu::ShaderRuntimeChecks`.
    pub loops: bool,
    /// Workgroup memory begins as zeros: `zero_initialize_workgroup_memory` of `wgpu::PipelineCompilationOptions`.
    pub zeros: bool,
}

impl Checks {
    /// wgpu's default: all of them.
    pub const fn checked() -> Self {
        Self { bounds: true, loops: true, zeros: true }
    }

    /// As the crate runs its kernels: checked, but workgroup memory is not zeroed, which they never need.
    pub const fn as_run() -> Self {
        Self { zeros: false, ..Self::checked() }
    }

    /// None of them: `create_shader_module_trusted` with all checks off, and no zeros.
    pub const fn unchecked() -> Self {
        Self { bounds: false, loops: false, zeros: false }
    }
}

impl std::fmt::Display for Checks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let word = |on, name| if on { format!("{name} on") } else { format!("{name} off") };
        let (bounds, loops) = (word(self.bounds, "bounds"), word(self.loops, "loops"));
        write!(f, "{bounds}, {loops}, {}", word(self.zeros, "zeroed workgroup memory"))
    }
}

/// A translated entry point and what a pipeline of it needs.
#[derive(Debug)]
pub struct Shader {
    /// Name of the entry point.
    pub entry: String,
    /// The SPIR-V.
    pub words: Vec<u32>,
    /// Its bindings, by group: (binding, whether it is a uniform buffer; else a storage buffer).
    pub groups: Vec<Vec<(u32, bool)>>,
    /// Lanes of a workgroup.
    pub lanes: u32,
    /// Workgroup memory that it asks for, in bytes.
    pub workgroup_bytes: u32,
    /// Rows of the square matrices that it multiplies on matrix units, if any.
    pub matrices: Option<u32>,
}

/// Translates an entry point; the first compute entry point where none is named.
pub fn translate(wgsl: &str, entry: Option<&str>, checks: Checks) -> Result<Shader> {
    let module =
        naga::front::wgsl::parse_str(wgsl).map_err(|error| anyhow!("{}", error.emit_to_string(wgsl)))?;
    let info = Validator::new(ValidationFlags::all(), Capabilities::all())
        .validate(&module)
        .map_err(|error| anyhow!("{}", error.emit_to_string(wgsl)))?;
    let is_wanted = |point: &&naga::EntryPoint| {
        point.stage == naga::ShaderStage::Compute && entry.is_none_or(|name| name == point.name)
    };
    let point = module.entry_points.iter().find(is_wanted);
    let point = point.with_context(|| format!("no compute entry point {}", entry.unwrap_or_default()))?;

    let groups = groups(&module)?;
    let pipeline =
        spv::PipelineOptions { shader_stage: naga::ShaderStage::Compute, entry_point: point.name.clone() };
    let words = spv::write_vec(&module, &info, &options(checks, &groups), Some(&pipeline))?;
    let lanes = point.workgroup_size.iter().product();
    let matrices = module.types.iter().find_map(|(_, ty)| match ty.inner {
        naga::TypeInner::CooperativeMatrix { rows, .. } => Some(rows as u32),
        _ => None,
    });
    let in_workgroup = module.global_variables.iter().filter(|(handle, variable)| {
        let of_point = info
            .get_entry_point(module.entry_points.iter().position(|one| one.name == point.name).unwrap_or(0));
        variable.space == naga::AddressSpace::WorkGroup && !of_point[*handle].is_empty()
    });
    let sizes = in_workgroup.map(|(_, variable)| module.types[variable.ty].inner.size(module.to_ctx()));
    let workgroup_bytes = sizes.sum();
    Ok(Shader { entry: point.name.clone(), words, groups, lanes, workgroup_bytes, matrices })
}

/// The bindings by group.
fn groups(module: &naga::Module) -> Result<Vec<Vec<(u32, bool)>>> {
    let mut groups: Vec<Vec<(u32, bool)>> = Vec::new();
    for (_, variable) in module.global_variables.iter() {
        let Some(place) = &variable.binding else { continue };
        let is_uniform = variable.space == naga::AddressSpace::Uniform;
        let is_buffer = is_uniform || matches!(variable.space, naga::AddressSpace::Storage { .. });
        ensure!(is_buffer, "{}: not a buffer", variable.name.as_deref().unwrap_or("a binding"));
        let group = place.group as usize;
        if groups.len() <= group {
            groups.resize_with(group + 1, Vec::new);
        }
        groups[group].push((place.binding, is_uniform));
    }
    Ok(groups)
}

/// The options of `wgpu_hal::vulkan` (adapter.rs, `naga_options`) on a device with Vulkan 1.3 or later,
/// `robustBufferAccess2` and native zeroing of workgroup memory, which all of these are.
fn options(checks: Checks, groups: &[Vec<(u32, bool)>]) -> spv::Options<'static> {
    let binding_map: BTreeMap<_, _> = groups
        .iter()
        .zip(0..)
        .flat_map(|(bindings, group)| bindings.iter().map(move |&(binding, _)| (group, binding)))
        .map(|(group, binding)| {
            let place = spv::BindingInfo { descriptor_set: group, binding, binding_array_size: None };
            (naga::ResourceBinding { group, binding }, place)
        })
        .collect();
    let index = if checks.bounds { BoundsCheckPolicy::Restrict } else { BoundsCheckPolicy::Unchecked };
    spv::Options {
        lang_version: (1, 6),
        flags: spv::WriterFlags::LABEL_VARYINGS | spv::WriterFlags::FORCE_POINT_SIZE,
        capabilities: Some(CAPABILITIES.into_iter().collect()),
        bounds_check_policies: BoundsCheckPolicies {
            index,
            // The driver checks buffers.
            buffer: BoundsCheckPolicy::Unchecked,
            image_load: BoundsCheckPolicy::Unchecked,
            binding_array: BoundsCheckPolicy::Unchecked,
        },
        zero_initialize_workgroup_memory: if checks.zeros {
            ZeroInitializeWorkgroupMemoryMode::Native
        } else {
            ZeroInitializeWorkgroupMemoryMode::None
        },
        force_loop_bounding: checks.loops,
        emit_int_div_checks: checks.bounds,
        use_storage_input_output_16: false,
        binding_map,
        ..spv::Options::default()
    }
}

/// What wgpu allows a shader on a device with f16, subgroups and cooperative matrices; a shader takes what it uses.
const CAPABILITIES: [Capability; 19] = [
    Capability::Shader,
    Capability::Matrix,
    Capability::ImageQuery,
    Capability::GroupNonUniform,
    Capability::GroupNonUniformVote,
    Capability::GroupNonUniformArithmetic,
    Capability::GroupNonUniformBallot,
    Capability::GroupNonUniformShuffle,
    Capability::GroupNonUniformShuffleRelative,
    Capability::GroupNonUniformQuad,
    Capability::Float16,
    Capability::Int16,
    Capability::Int8,
    Capability::DotProductInputAllKHR,
    Capability::DotProductInput4x8BitKHR,
    Capability::DotProductInput4x8BitPackedKHR,
    Capability::DotProductKHR,
    Capability::CooperativeMatrixKHR,
    Capability::VulkanMemoryModel,
];

#[cfg(test)]
mod tests {
    use super::*;

    const MATMUL: &str = include_str!("../tests/matmul.wgsl");
    const MATRIX: &str = include_str!("../tests/matrix.wgsl");

    #[test]
    fn the_fixture_translates() {
        let shader = translate(MATMUL, Some("matmul"), Checks::checked()).unwrap();
        assert_eq!((shader.lanes, shader.workgroup_bytes), (256, 8192));
        assert_eq!(shader.matrices, None);
        assert_eq!(translate(MATRIX, None, Checks::as_run()).unwrap().matrices, Some(16));
        assert_eq!(shader.groups, [vec![(0, true), (1, false), (2, false), (3, false)]]);
        assert_eq!(shader.words[0], 0x0723_0203, "SPIR-V's magic number");
    }

    #[test]
    fn checks_make_the_shader_longer() {
        let words = |checks| translate(MATMUL, None, checks).unwrap().words.len();
        let loops = Checks { loops: true, ..Checks::unchecked() };
        assert!(words(Checks::checked()) > words(loops));
        assert!(words(loops) > words(Checks::unchecked()));
    }

    #[test]
    fn errors_say_what_is_wrong() {
        let error = |wgsl: &str, entry| translate(wgsl, entry, Checks::checked()).unwrap_err().to_string();
        assert!(error("fn f( {}", None).contains("expected"));
        assert!(error(MATMUL, Some("absent")).contains("absent"));
    }
}
