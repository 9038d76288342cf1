//! The shader text: files of `shaders/`, put together for one variant.
//!
//! A shader is a generated header of constants, then its entry file, then the libraries and providers it names (WGSL
//! lets names be used before they are declared, so the entry file comes first and is read first). There is no
//! preprocessor: a variant is other constants or another provider file. Needs no device and no `wgpu`.

mod activation;
mod attention;
mod backward;
mod column_sums;
mod cooperative;
mod cross_entropy;
mod decode;
mod embed_backward;
mod family;
mod few;
mod integers;
mod limits;
mod linear;
mod linear_back;
mod lsh;
mod matmul;
mod matrices;
mod merge;
mod optimizer;
mod product;
mod recurrent;
mod rotary;
mod rows;
mod score;
mod sort;
mod tensor;
mod tile;
mod weights;

pub use activation::{ActivationPass, ActivationVariant};
pub use attention::{AttentionVariant, Stats};
pub use backward::{BackwardRows, BackwardVariant, CopyPass, NarrowVariant, RecordVariant};
pub use column_sums::{ColumnSumsVariant, SumTerms};
pub use cooperative::{CooperativeTile, MatrixSums};
pub use cross_entropy::CrossEntropyVariant;
pub use decode::{
    AppendTarget, AppendVariant, AttendedRows, CacheText, DecodeVariant, NewRows, RaiseVariant,
};
pub use embed_backward::EmbedBackwardVariant;
pub use family::GpuFamily;
pub use few::FewRows;
#[cfg(feature = "gpu")]
pub(crate) use integers::INTEGER_LANES;
pub use integers::{DequantizeVariant, IntegerEnd, IntegerMatmulVariant, QuantizePass, QuantizeVariant};
pub use limits::{TileKind, TileLimits};
pub use linear::{FeatureVariant, KeyMaxima, LinearVariant, MapMode, MapText, RowEnd};
pub use linear_back::{FeatureGradient, LinearVectors, SoftmaxColumns};
pub use lsh::{HashVariant, JoinVariant, PlaceTables, SortedChunks};
pub use matmul::MatmulVariant;
pub use matrices::Matrices;
pub use merge::MergeVariant;
pub use optimizer::{ClipFactor, OptimizerVariant, SquaresVariant};
pub use product::{CooperativeProduct, DirectProduct, MatmulTile, StagedProduct};
pub use recurrent::{RecurrentTile, RecurrentVariant};
pub use rotary::{RotaryTables, RotaryVariant};
pub use rows::{RowKernel, RowVariant};
pub use sort::SortPass;
pub use tile::{DirectTile, StagedTile, Tile};
pub use weights::WeightsVariant;

use std::fmt::{Display, Write};

/// A complete shader: what to call it, its entry point, its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shader {
    /// The variant's full name, which is also its pipeline's label.
    pub label: String,
    /// The entry point.
    pub entry: &'static str,
    /// The WGSL.
    pub text: String,
    /// Made for devices that compute on a CPU: it runs on any, but what a GPU's compiler makes of it says nothing.
    pub for_cpus: bool,
    /// Every index lies inside its buffer or array and every loop ends, whatever the tensors hold, as long as the tables come
    /// from the host: it may run without run-time checks. `tests/kernels/indices.rs` counts what lies outside.
    pub proven: bool,
    /// The storage buffers that the shader uses: binding n + 1 of group 0 is the n-th. Binding 0 are its parameters.
    pub bindings: Vec<Binding>,
    /// The members of its `Params`, where the shader is made of providers with parameters of their own; otherwise none.
    pub params: Vec<&'static str>,
}

/// A storage buffer of a shader.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Binding {
    /// The variable's name.
    pub name: String,
    /// Whether the shader may write it.
    pub writable: bool,
}

/// Constants of a header, one WGSL `const` each, behind the directives, which WGSL wants first.
#[derive(Default)]
struct Header {
    directives: String,
    constants: String,
    params: Vec<&'static str>,
}

impl Header {
    fn u32s(mut self, constants: &[(&str, usize)]) -> Self {
        constants.iter().for_each(|(name, value)| self.line(name, format_args!("{value}u")));
        self
    }

    fn i32s(mut self, constants: &[(&str, i32)]) -> Self {
        constants.iter().for_each(|(name, value)| self.line(name, format_args!("{value}i")));
        self
    }

    fn bools(mut self, constants: &[(&str, bool)]) -> Self {
        constants.iter().for_each(|(name, value)| self.line(name, value));
        self
    }

    fn f32s(mut self, constants: &[(&str, f32)]) -> Self {
        // In exponential form every finite f32 is a literal.
        constants.iter().for_each(|(name, value)| self.line(name, format_args!("{value:e}f")));
        self
    }

    /// Language extensions.
    fn enable(mut self, extensions: &[&str]) -> Self {
        extensions.iter().for_each(|name| self.directives += &format!("enable {name};\n"));
        self
    }

    fn aliases(mut self, types: &[(&str, String)]) -> Self {
        types.iter().for_each(|(name, value)| self.constants += &format!("alias {name} = {value};\n"));
        self
    }

    /// Declares `params` with these members, each a struct that one of the files declares.
    fn params(mut self, members: &[(&'static str, &str)]) -> Self {
        self.constants += "struct Params {\n";
        for (member, name) in members {
            // WGSL wants structs within uniform structs at multiples of 16 bytes.
            writeln!(self.constants, "    @align(16) {member}: {name},")
                .expect("writing to a String succeeds");
            self.params.push(member);
        }
        self.constants += "}\n@group(0) @binding(0) var<uniform> params: Params;\n";
        self
    }

    fn line(&mut self, name: &str, value: impl Display) {
        writeln!(self.constants, "const {name} = {value};").expect("writing to a String succeeds");
    }

    /// The files behind the header. The bindings that they declare, each under a constant of the variable's own name, are
    /// numbered in the order in which they come: a variant has those that its files use, and no others.
    fn shader(mut self, label: String, entry: &'static str, files: &[&str]) -> Shader {
        let bindings: Vec<Binding> = files.iter().flat_map(|file| declared_bindings(file)).collect();
        for (n, binding) in bindings.iter().enumerate() {
            self.line(&format!("BINDING_{}", binding.name), n + 1);
        }
        let mut text = format!("// {label}\n{}{}", self.directives, self.constants);
        for file in files {
            text.push('\n');
            text.push_str(file);
        }
        Shader { label, entry, text, for_cpus: false, proven: false, bindings, params: self.params }
    }
}

/// The lines `@group(0) @binding(BINDING_NAME) var<storage, ACCESS> NAME: ...` of a file.
fn declared_bindings(file: &str) -> impl Iterator<Item = Binding> {
    file.lines().filter_map(|line| {
        let (name, rest) = line.strip_prefix("@group(0) @binding(BINDING_")?.split_once(')')?;
        Some(Binding { name: name.to_owned(), writable: rest.starts_with(" var<storage, read_write>") })
    })
}

impl Shader {
    /// The same shader with all of its storage buffers writable, so that several bindings may lie in one buffer: wgpu lets a
    /// dispatch use a buffer either to read or to write, whatever the ranges.
    pub fn with_shared_buffers(mut self) -> Self {
        self.text = self.text.replace("var<storage, read>", "var<storage, read_write>");
        self.bindings.iter_mut().for_each(|binding| binding.writable = true);
        self
    }
}

/// Shaders that between them use every file and every constant at both of its values: what static checks run over.
pub fn variants() -> Vec<Shader> {
    let mut shaders: Vec<_> =
        AttentionVariant::representatives().iter().map(AttentionVariant::shader).collect();
    shaders.extend(BackwardVariant::representatives().iter().map(BackwardVariant::shader));
    shaders.extend(RecordVariant::representatives().iter().map(RecordVariant::shader));
    shaders.extend(NarrowVariant::representatives().iter().map(NarrowVariant::shader));
    shaders.extend(CopyPass::ALL.map(CopyPass::shader));
    shaders.extend(WeightsVariant::representatives().iter().map(WeightsVariant::shader));
    shaders.extend(HashVariant::representatives().iter().map(HashVariant::shader));
    shaders.push(PlaceTables::shader());
    shaders.extend(JoinVariant::representatives().iter().map(JoinVariant::shader));
    shaders.extend(SortPass::all());
    shaders.extend(MergeVariant::representatives().iter().map(MergeVariant::shader));
    shaders.extend(MatmulVariant::representatives().iter().map(MatmulVariant::shader));
    shaders.extend(ActivationVariant::representatives().iter().map(ActivationVariant::shader));
    shaders.extend(RowVariant::representatives().iter().map(RowVariant::shader));
    shaders.extend(CrossEntropyVariant::representatives().iter().map(CrossEntropyVariant::shader));
    shaders.extend(OptimizerVariant::representatives().iter().map(OptimizerVariant::shader));
    shaders.extend(SquaresVariant::representatives().iter().map(SquaresVariant::shader));
    shaders.push(ClipFactor::shader());
    shaders.extend(ColumnSumsVariant::representatives().iter().map(ColumnSumsVariant::shader));
    shaders.extend(EmbedBackwardVariant::representatives().iter().map(EmbedBackwardVariant::shader));
    shaders.extend(RecurrentVariant::representatives().iter().map(RecurrentVariant::shader));
    shaders.extend(RotaryVariant::representatives().iter().map(RotaryVariant::shader));
    shaders.push(RotaryTables.shader());
    shaders.extend(decode::representatives());
    shaders.extend(integers::representatives());
    shaders.extend(linear::representatives());
    shaders.extend(linear_back::representatives());
    // Some variants share a shader.
    let mut seen = std::collections::HashSet::new();
    shaders.retain(|shader| seen.insert(shader.text.clone()));
    shaders
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bindings of a module: name, number, whether it is written.
    fn bindings(module: &naga::Module) -> Vec<(u32, String, bool)> {
        let storage = module.global_variables.iter().filter_map(|(_, variable)| {
            let naga::AddressSpace::Storage { access } = variable.space else { return None };
            let writable = access.contains(naga::StorageAccess::STORE);
            Some((variable.binding?.binding, variable.name.clone()?, writable))
        });
        let mut list: Vec<_> = storage.collect();
        list.sort();
        list
    }

    #[test]
    fn bindings_are_those_of_the_text() {
        for shader in variants() {
            for shader in [shader.clone(), shader.with_shared_buffers()] {
                let module = naga::front::wgsl::parse_str(&shader.text).unwrap();
                let listed = shader.bindings.iter().enumerate();
                let listed: Vec<_> =
                    listed.map(|(n, b)| (n as u32 + 1, b.name.clone(), b.writable)).collect();
                assert_eq!(bindings(&module), listed, "{}", shader.label);
                // What WebGPU promises of every device.
                assert!(listed.len() <= 8, "{}: {} storage buffers", shader.label, listed.len());
            }
        }
    }

    fn workgroup_bytes(module: &naga::Module) -> usize {
        let of = |(_, variable): (_, &naga::GlobalVariable)| match variable.space {
            naga::AddressSpace::WorkGroup => module.types[variable.ty].inner.size(module.to_ctx()) as usize,
            _ => 0,
        };
        module.global_variables.iter().map(of).sum()
    }

    #[test]
    fn workgroup_memory_is_what_tiles_count() {
        for variant in AttentionVariant::representatives() {
            let shader = variant.shader();
            let module = naga::front::wgsl::parse_str(&shader.text).unwrap();
            let bytes = workgroup_bytes(&module);
            let counted = variant.tile.workgroup_bytes(variant.head_dim);
            assert!(bytes <= counted, "{}: {bytes} bytes, not {counted}", shader.label);
        }
    }

    #[test]
    fn workgroup_memory_of_gradients_in_matrices_is_what_passes_count() {
        let mut looked_at = 0;
        for variant in BackwardVariant::representatives() {
            let Some(memory) = variant.memory() else { continue };
            let shader = variant.shader();
            let module = naga::front::wgsl::parse_str(&shader.text).unwrap();
            assert_eq!(workgroup_bytes(&module), memory.bytes(), "{}", shader.label);
            looked_at += 1;
        }
        assert!(looked_at > 10, "{looked_at}");
    }

    #[test]
    fn every_variant_is_valid_wgsl() {
        // unpack2x16float; wgpu has it wherever the adapter meets WebGPU.
        let capabilities = naga::valid::Capabilities::SHADER_FLOAT16_IN_FLOAT32
            | naga::valid::Capabilities::SHADER_FLOAT16
            | naga::valid::Capabilities::COOPERATIVE_MATRIX
            | naga::valid::Capabilities::SUBGROUP;
        for shader in variants() {
            let module = naga::front::wgsl::parse_str(&shader.text)
                .unwrap_or_else(|e| panic!("{}: {}", shader.label, e.emit_to_string(&shader.text)));
            naga::valid::Validator::new(naga::valid::ValidationFlags::all(), capabilities)
                .validate(&module)
                .unwrap_or_else(|e| panic!("{}: {}", shader.label, e.emit_to_string(&shader.text)));
        }
    }
}
