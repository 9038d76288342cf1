#![doc = include_str!("../README.md")]

mod attention;
mod buffers;
mod cache;
mod check;
mod device;
mod linear;
mod lsh;

pub use attention::{AttentionOptions, attention};
pub use device::{attach, attach_with, device, init};
pub use linear::linear_attention;
pub use lsh::lsh_attention;
pub use wgpu_attention;
pub use wgpu_attention::{Error, Result, pattern};
