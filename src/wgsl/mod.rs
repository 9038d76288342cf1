//! The shader text: files of `shaders/`, put together for one variant.
//!
//! A shader is a generated header of constants, then its entry file, then the libraries and providers it names (WGSL
//! lets names be used before they are declared, so the entry file comes first and is read first). There is no
//! preprocessor: a variant is other constants or another provider file. Needs no device and no `wgpu`.

mod attention;
mod finish;
mod lsh;
mod matmul;
mod matrix;
mod rotary;
mod rows;
mod sort;
mod tensor;
mod tile;

pub use attention::{AttentionVariant, ScoreTerms, Stats};
pub use finish::FinishVariant;
pub use lsh::{HashVariant, PlaceTables, SortedChunks};
pub use matmul::{MatmulTile, MatmulVariant};
pub use matrix::{Matrices, MatrixTile};
pub use rotary::RotaryVariant;
pub use rows::{RowKernel, RowVariant};
pub use sort::SortPass;
pub use tile::{DirectTile, StagedTile, Tile, TileKind, TileLimits};

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
}

/// Constants of a header, one WGSL `const` each, behind the directives, which WGSL wants first.
#[derive(Default)]
struct Header {
    directives: String,
    constants: String,
}

impl Header {
    fn u32s(mut self, constants: &[(&str, usize)]) -> Self {
        constants.iter().for_each(|(name, value)| self.line(name, format_args!("{value}u")));
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

    fn line(&mut self, name: &str, value: impl Display) {
        writeln!(self.constants, "const {name} = {value};").expect("writing to a String succeeds");
    }

    fn shader(self, label: String, entry: &'static str, files: &[&str]) -> Shader {
        let mut text = format!("// {label}\n{}{}", self.directives, self.constants);
        for file in files {
            text.push('\n');
            text.push_str(file);
        }
        Shader { label, entry, text, for_cpus: false, proven: false }
    }
}

/// Shaders that between them use every file and every constant at both of its values: what static checks run over.
pub fn variants() -> Vec<Shader> {
    let mut shaders: Vec<_> =
        AttentionVariant::representatives().iter().map(AttentionVariant::shader).collect();
    shaders.extend(HashVariant::representatives().iter().map(HashVariant::shader));
    shaders.push(PlaceTables::shader());
    shaders.extend(SortPass::all());
    shaders.extend(FinishVariant::representatives().iter().map(FinishVariant::shader));
    shaders.extend(MatmulVariant::representatives().iter().map(MatmulVariant::shader));
    shaders.extend(RowVariant::representatives().iter().map(RowVariant::shader));
    shaders.extend(RotaryVariant::representatives().iter().map(RotaryVariant::shader));
    shaders
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_variant_is_valid_wgsl() {
        // unpack2x16float; wgpu has it wherever the adapter meets WebGPU.
        let capabilities = naga::valid::Capabilities::SHADER_FLOAT16_IN_FLOAT32
            | naga::valid::Capabilities::SHADER_FLOAT16
            | naga::valid::Capabilities::COOPERATIVE_MATRIX;
        for shader in variants() {
            let module = naga::front::wgsl::parse_str(&shader.text)
                .unwrap_or_else(|e| panic!("{}: {}", shader.label, e.emit_to_string(&shader.text)));
            naga::valid::Validator::new(naga::valid::ValidationFlags::all(), capabilities)
                .validate(&module)
                .unwrap_or_else(|e| panic!("{}: {}", shader.label, e.emit_to_string(&shader.text)));
        }
    }
}
