//! Gradients of LSH attention.
//!
//! | file | what |
//! |---|---|
//! | `close.rs` | every element within its bound of the formula in f64, over every option |
//! | `bound.rs` | the bound against simulated kernels |
//! | `counts.rs` | gradients that are integers: who meets whom, and how often |
//! | `relations.rs` | repeats, factors, NaN that stays out or shows |
//! | `buffers.rs` | a user's own encoder, other storage, poison, bad input |
//! | `mutants.rs` | faults planted in the shader text |

mod bound;
mod buffers;
mod close;
mod counts;
mod mutants;
mod relations;

use super::Case;
use wgpu_attention::reference::{self, BoundedLshGradients};
use wgpu_attention::{Attention, Counter, Element, ElementType, Gpu, LshGradients};

impl<E: Element> Case<E> {
    /// The gradient of out, in f32: N(0, 1).
    fn dout(&self) -> Vec<f32> {
        let numbers = Counter::new(21, 7);
        (0..self.attention.len_out()).map(|n| numbers.normal(n as u64) as f32).collect()
    }

    /// The call whose gradients `Gpu` computes: its out is f32.
    fn with_f32_out(&self) -> Attention {
        let storage = self.attention.storage.out(ElementType::F32);
        self.attention.clone().storage(storage)
    }

    fn gradients_on<G: Element>(&self, gpu: &Gpu, dout: &[f32]) -> LshGradients<G> {
        gpu.lsh_backward(&self.attention, &self.options, &self.inputs(), dout)
            .unwrap_or_else(|e| panic!("{:?}: {e}", self.options))
    }

    /// The gradients by the formula, given the device's buckets, with the bounds of gradients of type G.
    fn exact_gradients<G: Element>(&self, dout: &[f32], buckets: &[u32]) -> BoundedLshGradients {
        let (attention, inputs) = (self.with_f32_out(), self.inputs());
        reference::bounded_lsh_gradient(&attention, &self.options, &inputs, dout, buckets, G::TYPE)
            .expect("a valid call")
    }

    /// The largest error / bound of dqk and dv.
    ///
    /// # Errors
    /// An element outside of its bound, or of which nothing is promised.
    fn gradients_close<G: Element>(&self, gpu: &Gpu) -> Result<[f64; 2], String> {
        let dout = self.dout();
        let got = self.gradients_on::<G>(gpu, &dout);
        within(&self.exact_gradients::<G>(&dout, &got.buckets), &got.dqk, &got.dv)
            .map_err(|e| format!("{e}\n{:?} {:?}", self.attention, self.options))
    }
}

/// The largest error / bound of dqk and dv, both contiguous.
fn within<G: Element>(exact: &BoundedLshGradients, dqk: &[G], dv: &[G]) -> Result<[f64; 2], String> {
    let mut worst = [0.0; 2];
    for (n, (name, got, exact)) in [("dqk", dqk, &exact.dqk), ("dv", dv, &exact.dv)].into_iter().enumerate() {
        let found = exact.compare(got.iter().copied(), 0.0);
        if !found.pass || found.unspecified > 0 {
            return Err(format!("{name}: {found}"));
        }
        worst[n] = found.worst.map_or(0.0, |worst| worst.ratio);
    }
    Ok(worst)
}
