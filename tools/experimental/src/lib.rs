//! The one unsafe word of this workspace: wgpu's token for experimental features, for its tests and tools.
//!
//! `wgpu-attention` itself never asks for it: an application that wants the cooperative path says so on its own.

/// Allows experimental features of wgpu, of which the cooperative path of `wgpu-attention` needs one.
pub fn allowed() -> wgpu::ExperimentalFeatures {
    // SAFETY: the contract is to accept that experimental features may be unsound: shaders with cooperative matrices are
    // checked less than others, since no bounds check knows how far a matrix reaches. The shaders here load and store
    // matrices in workgroup memory only, at places that constants bound; see `shaders/tile/matrix.wgsl`.
    unsafe { wgpu::ExperimentalFeatures::enabled() }
}
