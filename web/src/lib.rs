//! A page in a browser (`page/`) that shows patterns, and runs, verifies and times the kernels. It runs this in workers: the crate itself plans
//! what is drawn, and the command line's own cases, reference, clock and record (`wgpu-attention-bench`) run, with the page in the place of the
//! terminal.
//!
//! | file | what |
//! |---|---|
//! | `catalogue/` | the patterns to choose from, their parameters, the Rust that makes them |
//! | `facts.rs` | a chosen pattern at its lengths: pairs, blocks, bytes |
//! | `field.rs` | its mask as cells of a picture |
//! | `drawing.rs` | what the page calls to draw |
//! | `session.rs` | what the page calls on a device |
//! | `run.rs` | a chosen pattern on a device, beside dense attention |
//! | `listener.rs` | the page, as it hears of a run |

// On other targets only the tests use it.
#![cfg_attr(not(target_arch = "wasm32"), allow(dead_code))]

mod catalogue;
mod facts;
mod field;

#[cfg(target_arch = "wasm32")]
mod drawing;
#[cfg(target_arch = "wasm32")]
mod listener;
#[cfg(target_arch = "wasm32")]
mod run;
#[cfg(target_arch = "wasm32")]
mod session;

#[cfg(target_arch = "wasm32")]
#[wasm_bindgen::prelude::wasm_bindgen]
extern "C" {
    /// The worker's: a panic ends everything, and only this can say so.
    fn panicked(words: &str);
}

/// From now on the worker hears of panics.
#[cfg(target_arch = "wasm32")]
fn hear_panics() {
    std::panic::set_hook(Box::new(|panic| panicked(&panic.to_string())));
}
