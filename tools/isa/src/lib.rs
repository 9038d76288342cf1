//! Shader statistics without a GPU: registers, spills, occupancy and instruction mix of WGSL kernels on AMD GPUs.
//!
//! Mesa's RADV driver compiles for a GPU that is not there (`RADV_FORCE_FAMILY`), with the compiler that runs on real
//! machines, and tells what it made. This crate translates WGSL as wgpu does ([`spirv`]), has RADV compile it
//! ([`Radv`]), and reads the numbers and the instructions ([`listing`]). It runs nothing. It needs Mesa 25.0: start
//! it through `cargo xtask isa`, which fetches that.
#![deny(unsafe_code)]

pub mod budget;
pub mod listing;
mod radv;
pub mod report;
pub mod spirv;

use anyhow::Result;

pub use radv::{Radv, Statistics};
pub use spirv::Checks;

/// GPU families, as `RADV_FORCE_FAMILY` names them: RDNA3, RDNA2 and GCN.
pub const FAMILIES: [&str; 3] = ["navi31", "navi21", "vega10"];

/// What each of [`FAMILIES`] that can run it makes of an entry point, with wgpu's default checks.
pub fn stats(wgsl: &str, entry: &str) -> Result<Vec<Statistics>> {
    let shader = spirv::translate(wgsl, Some(entry), Checks::checked())?;
    let mut found = Vec::new();
    for family in FAMILIES {
        let radv = Radv::open(family)?;
        if radv.supports(&shader) {
            found.push(radv.compile(entry, &shader)?);
        }
    }
    Ok(found)
}
