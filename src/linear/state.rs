//! What is carried from call to call of causal linear attention.

use super::{FeatureMap, LinearOptions, Stabiliser};
use crate::{AttentionShape, Error, Result};

/// Whether a call starts from the sums that earlier calls left of their keys, and leaves its own: a sequence in pieces, of one token each
/// where it is decoded, in time and memory that do not grow with what came before (Katharopoulos 2020, *Transformers are RNNs*, section 3.4).
///
/// A state is a buffer of f32, [`LinearOptions::len_state`] elements, `[B, Hkv, ..]`. A head has, for each of the m features, rounded up to a multiple of 4,
/// sum_j w_j phi_f(k_j) v_j in dv elements, rounded up likewise, then sum_j w_j phi_f(k_j) and three zeros; and at its end the logarithm of
/// the largest weight, which the sums are relative to, 1 once a key is in them, and two zeros. Zeros are the state of no key.
///
/// ```
/// use wgpu_attention::{AttentionShape, FeatureMap, LinearOptions, LinearState};
/// let options = LinearOptions::new(FeatureMap::Elu).causal(true).state(LinearState::Carried);
/// let token = AttentionShape::new(1, 8, 1, 64);
/// options.check(&token)?;
/// assert_eq!(options.len_state(&token), 8 * (64 * (64 + 4) + 4));
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum LinearState {
    /// There is no state: a call sees its own keys alone.
    #[default]
    Absent,
    /// A call starts with no key, whatever the state's buffer holds, and leaves the state of its keys there.
    Left,
    /// A call starts with the keys of the state, each before all of its own, and leaves the state of all of them in its place. k, v and the
    /// key mask are those of the new keys; there are at most as many queries, the last of which stands at the last key.
    Carried,
}

impl LinearOptions {
    /// Elements of the state `[B, Hkv, ..]`; 0 where there is none.
    pub fn len_state(&self, shape: &AttentionShape) -> usize {
        match self.state {
            LinearState::Absent => 0,
            LinearState::Left | LinearState::Carried => {
                shape.batch.saturating_mul(shape.kv_heads).saturating_mul(self.len_chunk_state(shape) + 4)
            }
        }
    }

    /// Whether a call has nothing to do: without queries it may still leave a state.
    #[cfg(feature = "gpu")]
    pub(crate) fn is_empty(&self, shape: &AttentionShape) -> bool {
        shape.batch == 0 || (shape.q_len == 0 && self.state == LinearState::Absent)
    }

    pub(super) fn check_state(&self, shape: &AttentionShape) -> Result<()> {
        if self.state == LinearState::Absent {
            return Ok(());
        }
        if !self.causal {
            return Err(Error::argument("state", "none where not causal", format!("{:?}", self.state)));
        }
        if let FeatureMap::Favor { stabiliser: stabiliser @ Stabiliser::Global, .. } = self.map {
            let need = "Stabiliser::Running where there is a state: the other looks at all keys";
            return Err(Error::argument("stabiliser", need, format!("{stabiliser:?}")));
        }
        if self.state == LinearState::Carried && shape.q_len > shape.kv_len {
            let need = format!("at most the {} new keys, where a state is carried", shape.kv_len);
            return Err(Error::argument("q_len", need, shape.q_len));
        }
        Ok(())
    }
}
