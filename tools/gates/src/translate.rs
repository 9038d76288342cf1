//! To every language that wgpu's backends speak, with the checks that wgpu puts in.

use anyhow::{Context, Result};
use naga::back::{glsl, hlsl, msl, spv};
use naga::proc::{BoundsCheckPolicies, BoundsCheckPolicy};

use crate::Parsed;

/// What a shader is translated to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    /// Vulkan's.
    SpirV,
    /// Metal's.
    Msl,
    /// DirectX's.
    Hlsl,
    /// OpenGL's.
    Glsl,
}

impl Language {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::SpirV, Self::Msl, Self::Hlsl, Self::Glsl];

    /// Whether it has cooperative matrices.
    pub fn has_matrices(self) -> bool {
        matches!(self, Self::SpirV | Self::Msl)
    }
}

/// The translated text, or SPIR-V's words in hexadecimal.
///
/// # Errors
/// What naga cannot express.
pub fn translate(parsed: &Parsed, language: Language) -> Result<String> {
    let restrict = BoundsCheckPolicy::Restrict;
    let policies = BoundsCheckPolicies { index: restrict, buffer: restrict, ..Default::default() };
    let (module, info) = (&parsed.module, &parsed.info);
    let entry_point = parsed.entry().name.clone();
    let compute = naga::ShaderStage::Compute;
    match language {
        Language::SpirV => {
            let options =
                spv::Options { lang_version: (1, 3), bounds_check_policies: policies, ..Default::default() };
            let pipeline = spv::PipelineOptions { shader_stage: compute, entry_point };
            let words = spv::write_vec(module, info, &options, Some(&pipeline))?;
            Ok(words.iter().map(|word| format!("{word:08x}")).collect())
        }
        Language::Msl => {
            let options =
                msl::Options { lang_version: (2, 4), bounds_check_policies: policies, ..Default::default() };
            let (text, translated) = msl::write_string(module, info, &options, &Default::default())?;
            translated.entry_point_names[parsed.entry_index()].as_ref().map_err(Clone::clone)?;
            Ok(text)
        }
        Language::Hlsl => {
            let mut text = String::new();
            let (options, pipeline) = (hlsl::Options::default(), hlsl::PipelineOptions::default());
            let translated = hlsl::Writer::new(&mut text, &options, &pipeline).write(module, info, None)?;
            translated.entry_point_names[parsed.entry_index()].as_ref().map_err(Clone::clone)?;
            Ok(text)
        }
        Language::Glsl => {
            let mut text = String::new();
            let version = glsl::Version::Embedded { version: 310, is_webgl: false };
            let options = glsl::Options { version, ..Default::default() };
            let pipeline = glsl::PipelineOptions { shader_stage: compute, entry_point, multiview: None };
            glsl::Writer::new(&mut text, module, info, &options, &pipeline, policies)
                .and_then(|mut writer| writer.write())
                .context("GLSL")?;
            Ok(text)
        }
    }
}
