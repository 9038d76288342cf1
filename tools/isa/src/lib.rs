//! Shader statistics without a GPU: registers, spills, occupancy and instruction mix of WGSL kernels, by the compilers of
//! AMD's, Apple's, Intel's, NVIDIA's and Qualcomm's GPUs in Mesa.
//!
//! Mesa's drivers compile for GPUs that are not there: a library in front of the system's stands in for the kernel's driver. This
//! crate translates WGSL as wgpu does ([`spirv`]), has a driver compile it ([`device`]) in a process of its own ([`mod@measure`]), reads
//! the numbers and the instructions ([`assembly`], [`listing`]) and says what the hot loops could reach ([`throughput`]). It runs
//! nothing. Start it through `cargo xtask isa`, which fetches the drivers.
#![deny(unsafe_code)]

pub mod assembly;
pub mod budget;
pub mod device;
mod flow;
pub mod gpu;
pub mod listing;
pub mod measure;
pub mod predictions;
pub mod report;
pub mod spirv;
pub mod statistics;
pub mod throughput;

pub use gpu::{GPUS, Gpu};
pub use spirv::Checks;
pub use statistics::Statistics;
