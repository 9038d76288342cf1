//! A shader, parsed and validated.

use anyhow::{Context, Result, anyhow};
use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};
use naga::{EntryPoint, Function, Module, TypeInner};

/// A valid module and its entry point.
#[derive(Debug)]
pub struct Parsed {
    /// The module.
    pub module: Module,
    /// What validation found out.
    pub info: ModuleInfo,
    entry: usize,
}

impl Parsed {
    /// Parses and validates for a device with no optional features, except for shaders that ask for matrices or subgroups.
    ///
    /// # Errors
    /// What naga says, with the place in the text; an entry point that is not there.
    pub fn new(text: &str, entry: &str) -> Result<Self> {
        let module =
            naga::front::wgsl::parse_str(text).map_err(|error| anyhow!("{}", error.emit_to_string(text)))?;
        // unpack2x16float, which wgpu has wherever the adapter meets WebGPU.
        let portable = Capabilities::SHADER_FLOAT16_IN_FLOAT32;
        let asks = has_matrices(&module) || has_subgroups(&module);
        let capabilities = if asks { Capabilities::all() } else { portable };
        let info = Validator::new(ValidationFlags::all(), capabilities)
            .validate(&module)
            .map_err(|error| anyhow!("{}", error.emit_to_string(text)))?;
        let entry = module.entry_points.iter().position(|point| point.name == entry);
        let entry = entry.context("the entry point is not there")?;
        Ok(Self { module, info, entry })
    }

    /// The entry point.
    pub fn entry(&self) -> &EntryPoint {
        &self.module.entry_points[self.entry]
    }

    /// Its number.
    pub fn entry_index(&self) -> usize {
        self.entry
    }

    /// Whether the shader needs cooperative matrices, which only some languages have.
    pub fn has_matrices(&self) -> bool {
        has_matrices(&self.module)
    }

    /// Whether the shader needs subgroups, which not all languages have.
    pub fn has_subgroups(&self) -> bool {
        has_subgroups(&self.module)
    }
}

/// Whether the entry point is told of subgroups.
fn has_subgroups(module: &Module) -> bool {
    let of_subgroup = |argument: &naga::FunctionArgument| {
        let builtin = naga::Binding::BuiltIn(naga::BuiltIn::SubgroupId);
        argument.binding.as_ref() == Some(&builtin)
    };
    module.entry_points.iter().any(|point| point.function.arguments.iter().any(of_subgroup))
}

fn has_matrices(module: &Module) -> bool {
    module.types.iter().any(|(_, ty)| matches!(ty.inner, TypeInner::CooperativeMatrix { .. }))
}

/// All functions, the entry points last.
pub(crate) fn functions(parsed: &Parsed) -> impl Iterator<Item = &Function> {
    let functions = parsed.module.functions.iter().map(|(_, function)| function);
    functions.chain(parsed.module.entry_points.iter().map(|point| &point.function))
}
