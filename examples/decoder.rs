//! A GPT-2-shaped decoder from a safetensors file with Hugging Face's tensor names, on the GPU, in one command encoder,
//! checked against the hidden states in the file:
//!
//! ```text
//! cargo run --features serde --example decoder -- golden/e2e_gpt2.safetensors
//! cargo run --features serde --example decoder -- golden/e2e_gpt2.safetensors --pattern window:before=4,after=0
//! ```
//!
//! Any pattern of the crate can take the place of `causal`; the states then differ from the file's, and are only shown.

mod command;

use wgpu_attention_models as model;

fn main() -> Result<(), model::Error> {
    command::run("decoder", "causal", model::gpt2)
}
