//! What a call of linear attention computes beside its sizes: the feature map, causal or not, decay, who is hidden.
//!
//! | file | what |
//! |---|---|
//! | `map.rs` | what a feature map is |
//! | `favor.rs`, `relu.rs`, `elu.rs`, `identity.rs`, `softmax.rs` | one map each, in f64 with its error; `shaders/linear/` has the same |
//! | `projection.rs` | random projections |
//! | `state.rs` | what is carried from call to call |

mod elu;
mod favor;
mod identity;
mod map;
mod projection;
mod relu;
mod softmax;
mod state;

pub use favor::Stabiliser;
pub(crate) use map::{Features, Known, Map, Row};
pub use projection::Projection;
pub use state::LinearState;

use crate::construct::constructed;
use crate::layout::check_u32;
use crate::lsh::check_optional;
use crate::{Attention, AttentionShape, Error, Result, Score};

/// Attention without a softmax over keys (Katharopoulos 2020, *Transformers are RNNs*): for features phi of queries and keys,
///
/// ```text
/// o_i = sum_j w_ij v_j / ( sum_j w_ij + denominator_eps sum_f phi_f(q_i) )        w_ij = decay^D  phi(q_i) . phi(k_j)
/// ```
///
/// over all keys, or with [`causal`](Self::causal) over j <= i + Lk - Lq: D = (i + Lk - Lq) - j is the distance from the key to the query. Where the
/// denominator is 0, as without any key, o_i is 0. The products are summed over keys first, so that time and memory are linear in the
/// length: of causal attention in chunks of [`CHUNK`](Self::CHUNK) keys, whose sums are scanned in order.
///
/// ```
/// use wgpu_attention::{AttentionShape, FeatureMap, LinearOptions};
/// let shape = AttentionShape::new(1, 8, 65_536, 64);
/// let performer = LinearOptions::new(FeatureMap::favor(128)).causal(true);
/// performer.check(&shape)?;
/// let retention = LinearOptions::new(FeatureMap::Identity).causal(true).decay(vec![0.97; 8]);
/// retention.check(&shape)?;
/// assert!(retention.causal(false).check(&shape).unwrap_err().to_string().contains("decay"));
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct LinearOptions {
    /// From queries and keys to features.
    pub map: FeatureMap,
    /// Whether a query sees no later key. The default is no.
    pub causal: bool,
    /// Added to each feature's sum over keys in the denominator. The default is 0. Where keys have weights of their own
    /// ([`Stabiliser::Running`], [`decay`](Self::decay), [`key_mask`](Self::key_mask)) it is relative to the largest that a query meets.
    pub denominator_eps: f32,
    /// What a key's weight is multiplied by from one position to the next, one per key head `[Hkv]`, above 0 and at most 1 (Sun 2023, *Retentive
    /// Network*, there without a denominator). Causal only. The default is none.
    pub decay: Option<Vec<f32>>,
    /// Whether there is a key mask `[B, Lk]`: masked keys are seen by no query, whatever they and their values hold.
    pub key_mask: bool,
    /// What of earlier keys a call starts with, and what it leaves to later ones. The default is nothing.
    pub state: LinearState,
}

/// How queries and keys become features.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum FeatureMap {
    /// FAVOR+ (Choromanski 2020, *Rethinking Attention with Performers*): with y = d^(-1/4) P x, phi(x) = m^(-1/2) (exp(y - |x|^2 / (2 sqrt d) - c) + eps): in
    /// the mean over P, phi(q) . phi(k) is exp(q . k / sqrt d) up to a factor.
    Favor {
        /// Features, m.
        features: usize,
        /// Keeps features away from 0; published code has 1e-4.
        eps: f32,
        /// What is subtracted from the exponents, c.
        stabiliser: Stabiliser,
        /// Where the projection P `[m, d]` comes from.
        projection: Projection,
    },
    /// Generalised ReLU (Choromanski 2020): max(y, 0) + eps with y = d^(-1/4) P x.
    Relu {
        /// Features, m.
        features: usize,
        /// Keeps features away from 0; published code has 1e-3.
        eps: f32,
        /// Where the projection P `[m, d]` comes from.
        projection: Projection,
    },
    /// elu(x) + 1 (Katharopoulos 2020).
    Elu,
    /// x: queries and keys are features already. What is not above 0 may make denominators 0, or nearly so.
    Identity,
    /// Softmax of q over its elements, of each element of k over all keys (Shen 2018, *Efficient Attention*); exp(k) where causal.
    Softmax,
}

impl FeatureMap {
    /// FAVOR+ with orthogonal projections of seed 0, an eps of 1e-4 and [`Stabiliser::Running`], under which a query sees nothing of later keys.
    pub fn favor(features: usize) -> Self {
        let projection = Projection::Seeded { seed: 0 };
        Self::Favor { features, eps: 1e-4, stabiliser: Stabiliser::Running, projection }
    }

    /// Generalised ReLU with orthogonal projections of seed 0 and an eps of 1e-3.
    pub fn relu(features: usize) -> Self {
        Self::Relu { features, eps: 1e-3, projection: Projection::Seeded { seed: 0 } }
    }

    /// The same map with another projection; maps without one stay as they are.
    pub fn projection(mut self, given: Projection) -> Self {
        if let Self::Favor { projection, .. } | Self::Relu { projection, .. } = &mut self {
            *projection = given;
        }
        self
    }

    /// Features per row, m.
    pub fn features(&self, head_dim: usize) -> usize {
        match *self {
            Self::Favor { features, .. } | Self::Relu { features, .. } => features,
            Self::Elu | Self::Identity | Self::Softmax => head_dim,
        }
    }

    pub(crate) fn source(&self) -> Option<Projection> {
        match *self {
            Self::Favor { projection, .. } | Self::Relu { projection, .. } => Some(projection),
            Self::Elu | Self::Identity | Self::Softmax => None,
        }
    }

    pub(crate) fn eps(&self) -> f32 {
        match *self {
            Self::Favor { eps, .. } | Self::Relu { eps, .. } => eps,
            Self::Elu | Self::Identity | Self::Softmax => 0.0,
        }
    }

    /// Whether each key has a weight beside its features.
    pub(crate) fn weighs_keys(&self) -> bool {
        matches!(self, Self::Favor { stabiliser: Stabiliser::Running, .. })
    }
}

macro_rules! setters {
    ($($(#[$doc:meta])* $name:ident: $type:ty),* $(,)?) => {
        $($(#[$doc])* pub fn $name(mut self, $name: $type) -> Self { self.$name = $name; self })*
    };
}

impl LinearOptions {
    /// Keys whose features are summed up at a time.
    pub const CHUNK: usize = 64;
    /// Most features.
    pub const MAX_FEATURES: usize = 1024;
    /// Longest sequence.
    pub const MAX_LEN: usize = 1 << 24;

    /// All keys, no eps, no decay, no mask, no state.
    pub fn new(map: FeatureMap) -> Self {
        Self {
            map,
            causal: false,
            denominator_eps: 0.0,
            decay: None,
            key_mask: false,
            state: LinearState::Absent,
        }
    }

    setters! {
        /// Sets the feature map.
        map: FeatureMap,
        /// Sets whether a query sees no later key.
        causal: bool,
        /// Sets what is added to each feature's sum in the denominator.
        denominator_eps: f32,
        /// Sets whether there is a key mask.
        key_mask: bool,
        /// Sets what is carried from call to call.
        state: LinearState,
    }

    /// Sets the decay of each key head.
    pub fn decay(mut self, decay: impl Into<Option<Vec<f32>>>) -> Self {
        self.decay = decay.into();
        self
    }

    /// Elements of the projection `[m, d]`; 0 for maps without.
    pub fn len_projection(&self, shape: &AttentionShape) -> usize {
        self.map.source().map_or(0, |_| self.map.features(shape.head_dim) * shape.head_dim)
    }

    /// Elements of the key mask `[B, Lk]`.
    pub fn len_key_mask(&self, shape: &AttentionShape) -> usize {
        if self.key_mask { shape.batch * shape.kv_len } else { 0 }
    }

    /// The seeded projection; `None` where the caller gives it, and for maps without.
    pub fn seeded_projection(&self, shape: &AttentionShape) -> Option<Vec<f32>> {
        match self.map.source() {
            Some(Projection::Seeded { seed }) => {
                Some(Projection::orthogonal(seed, self.map.features(shape.head_dim), shape.head_dim))
            }
            _ => None,
        }
    }

    /// ln of the decay per key head, in f32, as the kernel has it; 0 without decay.
    pub(crate) fn log_decays(&self, kv_heads: usize) -> Vec<f32> {
        let log = |decay: &f32| f64::from(*decay).ln() as f32;
        self.decay.as_ref().map_or(vec![0.0; kv_heads], |decay| decay.iter().map(log).collect())
    }

    /// Whether keys have weights beside their features.
    pub(crate) fn weighted(&self) -> bool {
        self.map.weighs_keys() || self.decay.is_some() || self.key_mask
    }

    /// The map, in f64.
    pub(crate) fn exact_map(&self) -> Box<dyn Map + Sync> {
        let causal = self.causal;
        match self.map {
            FeatureMap::Favor { features, eps, stabiliser, .. } => {
                Box::new(favor::Favor { features, eps, stabiliser })
            }
            FeatureMap::Relu { eps, .. } => Box::new(relu::Relu { eps }),
            FeatureMap::Elu => Box::new(elu::Elu),
            FeatureMap::Identity => Box::new(identity::Identity),
            FeatureMap::Softmax => Box::new(softmax::Softmax { causal }),
        }
    }

    /// Checks the options, and the shape that they are for.
    ///
    /// # Errors
    /// [`Error::Argument`] for no feature, an eps that is neither 0 nor a normal number above 0, a decay without [`causal`](Self::causal), of another
    /// number of heads, or outside of 0 to 1, a score that is not plain, a [`state`](Self::state) where a query sees later keys or stands before
    /// the new ones; [`Error::Limit`] past the limits named here, and where an index
    /// would pass 32 bits.
    pub fn check(&self, attention: impl Into<Attention>) -> Result<()> {
        let attention = attention.into();
        let shape = &attention.shape;
        attention.check()?;
        shape.check_narrow("linear attention")?;
        attention.heads.check_all("linear attention")?;
        if attention.score != Score::new() {
            return Err(Error::argument("score", "the plain one: linear attention has no score", "another"));
        }
        let features = self.map.features(shape.head_dim);
        if features == 0 {
            return Err(Error::argument("features", "at least 1", 0));
        }
        for (what, limit, need, have) in [
            ("features", "LinearOptions::MAX_FEATURES", features, Self::MAX_FEATURES),
            ("q_len", "LinearOptions::MAX_LEN", shape.q_len, Self::MAX_LEN),
            ("kv_len", "LinearOptions::MAX_LEN", shape.kv_len, Self::MAX_LEN),
        ] {
            if need > have {
                return Err(Error::limit(what, limit, need as u64, have as u64));
            }
        }
        // A device may take a subnormal for 0.
        for (name, eps) in [("eps", self.map.eps()), ("denominator_eps", self.denominator_eps)] {
            if !(eps == 0.0 || eps.is_normal() && eps > 0.0) {
                return Err(Error::argument(name, "0 or a normal number above 0", eps));
            }
        }
        self.check_decay(shape)?;
        self.check_state(shape)?;
        let width = features.next_multiple_of(4);
        let [queries, keys] = [shape.heads * shape.q_len, shape.kv_heads * shape.kv_len]
            .map(|rows| (shape.batch * rows) as u128);
        check_u32("features of queries", queries * width as u128)?;
        check_u32("features of keys", keys * width as u128)?;
        check_u32("states of chunks", self.len_states(shape) as u128)
    }

    fn check_decay(&self, shape: &AttentionShape) -> Result<()> {
        let Some(decay) = &self.decay else { return Ok(()) };
        if !self.causal {
            return Err(Error::argument("decay", "none where not causal", "one"));
        }
        if decay.len() != shape.kv_heads {
            let need = format!("{} numbers, one per key head", shape.kv_heads);
            return Err(Error::argument("decay", need, decay.len()));
        }
        match decay.iter().find(|decay| !(decay.is_normal() && **decay > 0.0 && **decay <= 1.0)) {
            Some(wrong) => Err(Error::argument("decay", "normal numbers above 0, at most 1", wrong)),
            None => Ok(()),
        }
    }

    /// Chunks of keys per head; one at least, which may be empty.
    pub(crate) fn chunks(shape: &AttentionShape) -> usize {
        shape.kv_len.div_ceil(Self::CHUNK).max(1)
    }

    /// Elements of a chunk's state: for each feature the sums of values in groups of 4, and a group with the sum of the features.
    pub(crate) fn len_chunk_state(&self, shape: &AttentionShape) -> usize {
        Self::len_sums(self.map.features(shape.head_dim), shape.value_dim)
    }

    /// The same of so many features and values.
    pub(crate) fn len_sums(features: usize, value_dim: usize) -> usize {
        4 * features.next_multiple_of(4) * (value_dim.div_ceil(4) + 1)
    }

    /// Elements of all chunks' states.
    pub(crate) fn len_states(&self, shape: &AttentionShape) -> usize {
        let lines = shape.batch.saturating_mul(shape.kv_heads);
        lines.saturating_mul(Self::chunks(shape)).saturating_mul(self.len_chunk_state(shape))
    }
}

/// The tensors of one call of linear attention, lying as the shape says.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct LinearInputs<'a, Q, KV = Q> {
    /// q `[B, H, Lq, d]`.
    pub q: &'a [Q],
    /// k `[B, Hkv, Lk, d]`.
    pub k: &'a [KV],
    /// v `[B, Hkv, Lk, dv]`.
    pub v: &'a [KV],
    /// P `[m, d]`, if and only if [`Projection::Given`].
    pub projection: Option<&'a [f32]>,
    /// `[B, Lk]`, true where a key may be seen; if and only if [`LinearOptions::key_mask`].
    pub key_mask: Option<&'a [bool]>,
}

constructed! {
    LinearInputs ['a, Q, KV] { q: &'a [Q], k: &'a [KV], v: &'a [KV] } { projection: &'a [f32], key_mask: &'a [bool] }
}

impl<Q, KV> LinearInputs<'_, Q, KV> {
    /// Checks the lengths.
    ///
    /// # Errors
    /// [`Error::Argument`] naming the tensor.
    pub fn check(&self, attention: &Attention, options: &LinearOptions) -> Result<()> {
        let (shape, layouts) = (&attention.shape, &attention.layouts);
        crate::inputs::check_len("q", self.q.len(), attention.len_q(), layouts.q)?;
        crate::inputs::check_len("k", self.k.len(), attention.len_k(), layouts.k)?;
        crate::inputs::check_len("v", self.v.len(), attention.len_v(), layouts.v)?;
        let given = options.map.source() == Some(Projection::Given);
        let projection = self.projection.map(<[_]>::len);
        check_optional("projection", given, projection, options.len_projection(shape))?;
        let key_mask = self.key_mask.map(<[_]>::len);
        check_optional("key_mask", options.key_mask, key_mask, options.len_key_mask(shape))
    }
}
