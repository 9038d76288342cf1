//! Linear attention by its definition: features, every pair's weight, one sum per row.
//!
//! | file | what |
//! |---|---|
//! | `call.rs` | the tensors of a call, and their features |
//! | `bound.rs` | one row, and the bound on a kernel's error |
//! | `gradient.rs`, `back.rs` | gradients, with a bound: pairs; from features to what they are of |
//! | `verify.rs` | a kernel's rows against all that |

mod back;
mod bound;
mod call;
mod gradient;
mod verify;

pub use gradient::{BoundedLinearGradients, linear_gradient};
pub use verify::{verify_linear, verify_linear_steps};

use super::Position;
use crate::linear::{Features, LinearInputs, LinearOptions};
use crate::{Attention, Element, Result};
use bound::solve;
use call::{Line, LinearCall};
use rayon::prelude::*;

/// Linear attention in f64, `[B, H, Lq, dv]`, contiguous whatever the layout.
///
/// Whatever [`LinearOptions::state`] says, there is no key before the first.
///
/// Another algorithm than the kernel's: no chunks and no state; a row's weights with all keys that it sees, then two sums. In time
/// proportional to B H Lq Lk (m + dv), rows in parallel.
///
/// # Errors
/// As [`LinearOptions::check`] and [`LinearInputs::check`], and [`Error::Argument`](crate::Error::Argument) for another element type than the storage says.
///
/// ```
/// use wgpu_attention::{AttentionShape, FeatureMap, LinearInputs, LinearOptions, reference};
/// // Features that are all 1: the mean of the values up to one's own position.
/// let shape = AttentionShape::new(1, 1, 3, 1);
/// let (ones, v) = ([1.0f32; 3], [3.0f32, 5.0, 10.0]);
/// let options = LinearOptions::new(FeatureMap::Identity).causal(true);
/// let out = reference::linear_attention(&shape, &options, &LinearInputs::new(&ones, &ones, &v))?;
/// assert_eq!(out, [3.0, 4.0, 6.0]);
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
pub fn linear_attention<Q: Element, KV: Element>(
    attention: impl Into<Attention>,
    options: &LinearOptions,
    inputs: &LinearInputs<'_, Q, KV>,
) -> Result<Vec<f64>> {
    let attention = attention.into();
    let call = LinearCall::new(&attention, options, inputs)?;
    let lines = call.lines();
    let shape = &attention.shape;
    let rows = (0..shape.len_lse()).into_par_iter().map(|n| {
        let at = Position::of_row(shape, n);
        solve(&call, call.line(&lines, at), at).out
    });
    Ok(rows.flatten_iter().collect())
}

/// The features of queries `[B, H, Lq, m]` and of keys `[B, Hkv, Lk, m]` in f64, as [`FeatureMap`](crate::FeatureMap) defines them: under
/// [`Stabiliser::Running`](crate::Stabiliser) each row beside its own largest. Masked keys have none: 0.
///
/// # Errors
/// As [`linear_attention`].
///
/// ```
/// use wgpu_attention::{AttentionShape, FeatureMap, LinearInputs, LinearOptions, reference};
/// let shape = AttentionShape::new(1, 1, 1, 2);
/// let x = [1.0f32, -1.0];
/// let options = LinearOptions::new(FeatureMap::Elu);
/// let [q, k] = reference::linear_features(&shape, &options, &LinearInputs::new(&x, &x, &x))?;
/// assert_eq!(q, [2.0, (-1.0f64).exp()]);
/// assert_eq!(q, k);
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
pub fn linear_features<Q: Element, KV: Element>(
    attention: impl Into<Attention>,
    options: &LinearOptions,
    inputs: &LinearInputs<'_, Q, KV>,
) -> Result<[Vec<f64>; 2]> {
    let attention = attention.into();
    let call = LinearCall::new(&attention, options, inputs)?;
    let shape = &attention.shape;
    let values = |features: Features| features.phi.into_iter().map(|phi| phi.value);
    let queries = (0..shape.len_lse()).flat_map(|n| values(call.query(Position::of_row(shape, n)))).collect();
    let none = vec![0.0; options.map.features(shape.head_dim)];
    let of_line = |line: Line| -> Vec<f64> {
        let keys = line.keys.into_iter();
        keys.flat_map(|key| key.map_or(none.clone(), |key| values(key).collect())).collect()
    };
    Ok([queries, call.lines().into_iter().flat_map(of_line).collect()])
}
