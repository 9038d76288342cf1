//! Gradients of Linformer on the device: plan, bind, encode.
//!
//! ```text
//! K' = E^T K   V' = F^T V        dq, dK', dV': those of attention over K' and V'
//! dk = E dK'   dv = F dV'        dE = sum K dK'^T   dF = sum V dV'^T       over all batch items, and over the heads that share E and F
//! ```
//!
//! Where F is E, dE has both sums; where v is k, dk has both products. So the kernels of attention's gradients and of the matrix product
//! compute all of it; sums over heads and batch items are products that add to the one before, in that order.
//!
//! | file | what |
//! |---|---|
//! | `mod.rs` | [`LinformerBackwardPlan`]: its parts, compiled |
//! | `products.rs` | from gradients of projected rows to those of keys, values and projections |
//! | `bind.rs` | [`LinformerGradBuffers`], checked and bound to a plan |
//! | `host.rs` | slices in, `Vec`s out |

mod bind;
mod host;
mod products;

pub use bind::LinformerGradBuffers;
pub use host::LinformerGradients;

use super::LinformerPlan;
use crate::gpu::attention::{AttentionPlan, BackwardPlan, Gradients};
use crate::linformer::LinformerOptions;
use crate::{Attention, ElementType, Full, Layout, Result};
use products::{OfProjection, OfRows};
use std::sync::Arc;

const LABEL: &str = "Linformer backward";

/// The gradients of Linformer, planned and compiled. Made by [`LinformerPlan::backward`]; clones share it.
///
/// Projected rows and what attention makes of them are computed again: a call keeps nothing for it. Time and memory are linear in the lengths. No
/// atomics: the same call gives the same bits.
#[derive(Debug, Clone)]
pub struct LinformerBackwardPlan {
    forward: LinformerPlan,
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    gradients: Gradients,
    /// The forward pass over projected rows, which leaves its rows in f32.
    attend: AttentionPlan,
    attended: BackwardPlan,
    dk: OfRows,
    /// Where there is a v.
    dv: Option<OfRows>,
    de: OfProjection,
    /// Where there is an F.
    df: Option<OfProjection>,
}

impl LinformerPlan {
    /// Plans the gradients of this call by q, k, v, E and F: those of q, k and v each stored and lying as its tensor does, those of E and F in
    /// f32, as large as they; from a gradient of out that is stored and lies as out does.
    ///
    /// # Errors
    /// As [`backward_with`](Self::backward_with).
    ///
    /// ```no_run
    /// use wgpu_attention::wgpu::{Buffer, CommandEncoder, Device};
    /// use wgpu_attention::{AttentionShape, Kernels, LinformerGradBuffers, LinformerOptions, Options};
    ///
    /// fn record(device: &Device, encoder: &mut CommandEncoder, buffers: [&Buffer; 9]) -> wgpu_attention::Result<()> {
    ///     let kernels = Kernels::new(device, Options::default())?;
    ///     // One projection of keys and values.
    ///     let options = LinformerOptions::new(4096, 256).value_projection(false);
    ///     let backward = kernels.linformer(AttentionShape::new(1, 8, 4096, 64), options)?.backward()?;
    ///     let [q, k, v, e, dout, dq, dk, dv, de] = buffers.map(Buffer::as_entire_buffer_binding);
    ///     let buffers = LinformerGradBuffers::new(q, k, e, dout).v(v).dq(dq).dk(dk).dv(dv).de(de);
    ///     backward.bind(buffers)?.encode(encoder);
    ///     Ok(())
    /// }
    /// ```
    pub fn backward(&self) -> Result<LinformerBackwardPlan> {
        self.backward_with(Gradients::of(&self.attention))
    }

    /// [`backward`](Self::backward), with gradients by q, k and v in types and places of their own.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) for gradients that overlap; [`Error::Limit`](crate::Error::Limit) where the device is too small;
    /// [`Error::Device`](crate::Error::Device) for what wgpu reports while compiling.
    pub fn backward_with(&self, gradients: Gradients) -> Result<LinformerBackwardPlan> {
        gradients.check(&self.attention)?;
        let (kernels, options) = (&self.kernels, &self.options);
        let mut attended = options.attended(&self.attention);
        attended.storage = attended.storage.out(ElementType::F32);
        attended.layouts = attended.layouts.out(Layout::Bhld);
        let whole = kernels.with_options(kernels.options().splits(1))?;
        let attend = whole.attention(attended, &Full)?;
        let (dk_layout, dv_layout) = (Layout::Bhld, Layout::Bhld);
        let of_attention = Gradients { dkv: ElementType::F32, dk_layout, dv_layout, ..gradients };
        let inner = Inner {
            attended: attend.backward_with(of_attention)?,
            attend,
            dk: OfRows::new(self, &gradients, false)?,
            dv: options.values.then(|| OfRows::new(self, &gradients, true)).transpose()?,
            de: OfProjection::new(self, false)?,
            df: options.value_projection.then(|| OfProjection::new(self, true)).transpose()?,
            gradients,
        };
        Ok(LinformerBackwardPlan { forward: self.clone(), inner: Arc::new(inner) })
    }
}

impl LinformerBackwardPlan {
    /// What the gradients are of.
    pub fn attention(&self) -> &Attention {
        &self.forward.attention
    }

    /// The options of the call.
    pub fn options(&self) -> &LinformerOptions {
        &self.forward.options
    }

    /// How the gradients by q, k and v are stored, and where they lie.
    pub fn gradients(&self) -> &Gradients {
        &self.inner.gradients
    }

    /// Floating-point operations of a call for all gradients, two per multiplication and addition: the forward pass once more, the gradients of
    /// attention, a product per gradient of keys, values, E and F.
    pub fn flops(&self) -> f64 {
        let inner = &self.inner;
        let rows = inner.dk.flops() + inner.dv.as_ref().map_or(0.0, OfRows::flops);
        let projections = inner.de.flops() + inner.df.as_ref().map_or(0.0, OfProjection::flops);
        self.forward.flops() + inner.attended.explain().flops + rows + projections
    }

    /// Bytes of a call's scratch for all gradients: that of the forward call; out and the state of attention, its records, and gradients of
    /// projected rows, all in f32; and gradients of keys or values in f32 where there is a key mask, or where two products of 16 bits add up.
    pub fn scratch_bytes(&self) -> u64 {
        let inner = &self.inner;
        let sums = inner.dk.sum_bytes() + inner.dv.as_ref().map_or(0, OfRows::sum_bytes);
        let own: u64 = bind::sizes(self).iter().map(|(_, bytes)| bytes).sum();
        self.forward.scratch_bytes() + own + inner.attended.explain().scratch_bytes + sums
    }
}
