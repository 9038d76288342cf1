//! Shaders without run-time checks: the one module of this crate with unsafe code.
#![allow(unsafe_code)]

/// Compiles a shader that is [`Shader::proven`](crate::wgsl::Shader::proven) and that nobody edited.
pub(super) fn module(
    device: &wgpu::Device,
    descriptor: wgpu::ShaderModuleDescriptor<'_>,
) -> wgpu::ShaderModule {
    // SAFETY: without checks, an index outside of its array, a loop without an end and a division by 0 are undefined. In
    // proven shaders
    // - rows, keys, heads and batch items are clamped to counts that `Params` gives, and `AttentionCall` refuses buffers that
    //   are shorter than the strides and counts of the shape need;
    // - runs, bit tiles and orders come from `BlockMask` and `Parts` alone, which check them where they are made, and are
    //   uploaded by the plan into buffers that nobody else can write;
    // - workgroup memory is indexed by constants that `Tile::check` or `Tile::choose` has fitted, and lanes below them;
    // - loops run over counts of these tables, by steps of at least 1; divisors are constants or counts of at least 1.
    // `tests/kernels/indices.rs` runs them with a counter of indices outside at every access.
    unsafe { device.create_shader_module_trusted(descriptor, wgpu::ShaderRuntimeChecks::unchecked()) }
}
