//! Static checks of shaders. They run over every variant that the crate lists ([`wgpu_attention::wgsl::variants`]), so that a
//! new kernel is covered as soon as it is listed.
//!
//! | file | what |
//! |---|---|
//! | `module.rs` | a shader, parsed and validated |
//! | `translate.rs` | to SPIR-V, MSL, HLSL and GLSL as wgpu does it |
//! | `lints.rs` | what compiles and yet goes wrong somewhere |
//! | `exchange.rs` | values that matrices and lanes exchange without a barrier |
//! | `loops.rs` | loops that are not counted |
//! | `small.rs` | variants that an interpreter can run |
//! | `uniformity.rs` | barriers that only some of a workgroup's lanes reach |

mod exchange;
mod lints;
mod loops;
mod module;
mod small;
mod translate;
mod uniformity;

pub use lints::{Fault, lint};
pub use module::Parsed;
pub use small::small;
pub use translate::{Language, translate};
