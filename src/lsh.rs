//! What one call of LSH attention computes beside its sizes: rounds, buckets, chunks, who sees whom.

use crate::construct::constructed;
use crate::layout::check_u32;
use crate::score::Rule;
use crate::{Attention, AttentionShape, Counter, Error, Result};

/// Attention by locality-sensitive hashing (Kitaev 2020, *Reformer: The Efficient Transformer*): each query sees the
/// keys that hash near it, in time near linear in the length.
///
/// Queries and keys are shared: qk `[B, H, L, d]`, with key j = `qk_j / sqrt(|qk_j|^2 + norm_eps)` (a zero vector stays
/// zero). In each of `rounds` rounds r, with projections `P_r [d, buckets / 2]`,
///
/// ```text
/// bucket_r(x) = argmax [x P_r ; -x P_r]              ties to the lowest index; factors (b0, b1, ..): h0 + b0 h1 + ..
/// order_r     = positions sorted by (bucket_r, position)
/// ```
///
/// The sorted rounds are laid end to end ([`chain_rounds`](Self::chain_rounds)) or cut each by itself into chunks of
/// `chunk` places, the last of which may be short. A query in chunk c sees the keys of chunks c - `look_back` ..= c +
/// `look_ahead`, circularly with [`wrap`](Self::wrap), each chunk at most once. Its own key scores `self_penalty`. The rounds
/// merge by log-sum-exp.
///
/// ```text
/// chunks of 4 places after sorting (digits: buckets), look_back 1, look_ahead 0: the chunks that chunk c sees
///
///   places   0000 | 0111 | 1122 | 2333
///   c = 0     ##                   ##      <- wrap
///   c = 1     ##     ##
///   c = 2            ##     ##
///   c = 3                   ##     ##
/// ```
///
/// # The score
///
/// A pair that meets has the call's [`Score`](crate::Score), of its positions i and j in the sequence, whatever places the sort gives them:
///
/// ```text
/// score(i, j) = terms(scale q_i . x_j / |x_j|, i, j)        i != j; D = i - j
/// score(i, i) = self_penalty
///             - ln N                                        of either, behind the terms, with count_once
/// l_i         = sum over rounds, and keys j met in them, of exp(score(i, j)) + exp(sink)
/// ```
///
/// It takes softcap, temperature, ALiBi, buckets, biases, sinks and terms of the caller's own.
///
/// *One's own key*: `self_penalty` stands in place of the whole score, as the mask value of published code does. No term acts on it, nor
/// does a number in a term's tensor that is not finite. But a bias of minus infinity says who meets whom: it removes a pair from all rounds,
/// one's own key too, as the key mask does. *Sinks* count once per row, not once per round.
///
/// Relative rows and segments are refused: what they add to a product would be divided by the norm of the key. So is dropout: a pair may meet
/// several times, and [`Dropout`](crate::Dropout) draws once per pair. On a device with 8 storage buffers per stage, a score may have
/// two tensors (of terms, ALiBi's own slopes among them); three where there is one round, and neither lse nor the state is asked for. More are an [`Error::Limit`].
///
/// Published implementations differ: Hugging Face's Reformer uses a scale of 1 and a norm_eps of 1e-6 d,
/// reformer-pytorch a scale of 1 / sqrt(d), a self penalty of -5e4 and a norm_eps of 0. Both chain the rounds, wrap and count a
/// pair as often as it meets.
///
/// ```
/// use wgpu_attention::{AttentionShape, LshOptions};
/// let shape = AttentionShape::new(1, 8, 4096, 64);
/// let options = LshOptions::new(4, 128, 64).causal(true); // rounds, buckets, places per chunk
/// options.check(&shape)?;
/// assert!(LshOptions::new(4, 127, 64).check(&shape).unwrap_err().to_string().contains("even"));
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct LshOptions {
    /// Hash rounds, R: 1 to [`MAX_ROUNDS`](Self::MAX_ROUNDS).
    pub rounds: usize,
    /// Factors of the number of buckets, each even: one for a plain hash; with several, a bucket is h0 + b0 h1 + ...,
    /// and the projections have half their *sum* of columns instead of half their product.
    pub buckets: Vec<usize>,
    /// Places of a chunk, at least 1.
    pub chunk: usize,
    /// Chunks before its own that a query sees. The default is 1.
    pub look_back: usize,
    /// Chunks behind its own that a query sees. The default is 0.
    pub look_ahead: usize,
    /// Whether the first chunk comes after the last. The default is yes.
    pub wrap: bool,
    /// Whether the sorted rounds form one line of R L places that is cut into chunks, so that the first chunk of a round
    /// sees the last of the round before. The default is yes, as all published implementations do.
    pub chain_rounds: bool,
    /// Whether a query sees no position after its own. The default is no.
    pub causal: bool,
    /// Whether a query sees only keys of its own bucket and round. The default is no.
    pub within_bucket: bool,
    /// Whether ln N is subtracted from the score of a pair that meets N times over all rounds, so that it counts once
    /// (Kitaev 2020, appendix A). The default is no. Costs time in proportion to the square of the rounds.
    pub count_once: bool,
    /// Whether there is a key mask `[B, L]`. Masked positions get one bucket after the last, and no query sees them.
    pub key_mask: bool,
    /// Score of a query with its own key, in place of the product and of all terms. The default is -1e5: used only when nothing else is
    /// visible.
    pub self_penalty: f32,
    /// Added to |x|^2 under the root that normalises a key: 0 or a normal number above 0. The default is 0. Keys come out right for
    /// |x| from 1e-38 to 8e37, where the squares themselves would leave f32; one with a NaN or an infinity has a norm of NaN.
    pub norm_eps: f32,
    /// Where the projections come from.
    pub projections: Projections,
}

/// Where the projections `[H or 1, d, R, sum of the factors / 2]` of [`LshOptions`] come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Projections {
    /// N(0, 1), rounded to f32: the n-th element in memory is [`Counter::normal`]`(n)` of stream 0 of the seed. Drawn on
    /// the host, so that every device sees the same numbers.
    Seeded {
        /// The seed.
        seed: u64,
        /// Whether each head has its own, or all share one.
        per_head: bool,
    },
    /// The caller gives them with the tensors.
    Given {
        /// Whether each head has its own, or all share one.
        per_head: bool,
    },
}

macro_rules! setters {
    ($($(#[$doc:meta])* $name:ident: $type:ty),* $(,)?) => {
        $($(#[$doc])* pub fn $name(mut self, $name: $type) -> Self { self.$name = $name; self })*
    };
}

impl LshOptions {
    /// Most rounds.
    pub const MAX_ROUNDS: usize = 64;
    /// Most buckets, the product of the factors.
    pub const MAX_BUCKETS: usize = 65_536;
    /// Longest sequence.
    pub const MAX_LEN: usize = 1 << 24;

    /// A plain hash into `buckets` buckets, everything else as by default; projections of seed 0, per head.
    pub fn new(rounds: usize, buckets: usize, chunk: usize) -> Self {
        Self {
            rounds,
            buckets: vec![buckets],
            chunk,
            look_back: 1,
            look_ahead: 0,
            wrap: true,
            chain_rounds: true,
            causal: false,
            within_bucket: false,
            count_once: false,
            key_mask: false,
            self_penalty: -1e5,
            norm_eps: 0.0,
            projections: Projections::Seeded { seed: 0, per_head: true },
        }
    }

    setters! {
        /// Sets the number of hash rounds.
        rounds: usize,
        /// Sets the factors of the number of buckets.
        buckets: Vec<usize>,
        /// Sets the places of a chunk.
        chunk: usize,
        /// Sets how many chunks before its own a query sees.
        look_back: usize,
        /// Sets how many chunks behind its own a query sees.
        look_ahead: usize,
        /// Sets whether the first chunk comes after the last.
        wrap: bool,
        /// Sets whether the sorted rounds form one line.
        chain_rounds: bool,
        /// Sets whether a query sees no position after its own.
        causal: bool,
        /// Sets whether a query sees only keys of its own bucket and round.
        within_bucket: bool,
        /// Sets whether a pair counts once, however often it meets.
        count_once: bool,
        /// Sets whether there is a key mask.
        key_mask: bool,
        /// Sets the score of a query with its own key.
        self_penalty: f32,
        /// Sets what is added under the root that normalises keys.
        norm_eps: f32,
        /// Sets where the projections come from.
        projections: Projections,
    }

    /// Buckets of a round: the product of the factors. Masked positions come after the last.
    pub fn bucket_count(&self) -> usize {
        self.buckets.iter().product()
    }

    /// Columns of a round's projection: half the sum of the factors.
    pub fn columns(&self) -> usize {
        self.buckets.iter().map(|factor| factor / 2).sum()
    }

    /// Whether each head has projections of its own.
    pub fn per_head(&self) -> bool {
        let (Projections::Seeded { per_head, .. } | Projections::Given { per_head }) = self.projections;
        per_head
    }

    /// Elements of the projections `[H or 1, d, R, sum of the factors / 2]`.
    pub fn len_projections(&self, shape: &AttentionShape) -> usize {
        let heads = if self.per_head() { shape.heads } else { 1 };
        heads * shape.head_dim * self.rounds * self.columns()
    }

    /// Elements of buckets and of order, each `[B, H, R, L]`.
    pub fn len_buckets(&self, shape: &AttentionShape) -> usize {
        shape.batch * shape.heads * self.rounds * shape.q_len
    }

    /// Elements of the key mask `[B, L]`.
    pub fn len_key_mask(&self, shape: &AttentionShape) -> usize {
        if self.key_mask { shape.batch * shape.q_len } else { 0 }
    }

    /// The seeded projections; `None` where the caller gives them.
    pub fn seeded_projections(&self, shape: &AttentionShape) -> Option<Vec<f32>> {
        let Projections::Seeded { seed, .. } = self.projections else { return None };
        let draw = Counter::new(seed, 0);
        Some((0..self.len_projections(shape) as u64).map(|n| draw.normal(n) as f32).collect())
    }

    /// Checks the options, and the shape that they are for.
    ///
    /// # Errors
    /// [`Error::Argument`] for 0 rounds, no factors or odd ones, a chunk of 0, a self penalty that is not finite, a norm_eps
    /// that is neither 0 nor a normal number above 0, a call whose lengths or heads of queries and keys differ, whose q, k and v are not of
    /// one type, or whose score has relative rows, segments or dropout; [`Error::Limit`] past the limits named here and where an index would pass 32 bits.
    pub fn check(&self, attention: impl Into<Attention>) -> Result<()> {
        let attention = attention.into();
        let shape = &attention.shape;
        self.check_own()?;
        check_attention(&attention)?;
        let places = [shape.batch, shape.heads, self.rounds, shape.q_len];
        let projections = [shape.heads, shape.head_dim, self.rounds, self.columns()];
        // Tables of three words a place are the largest.
        let needs = [
            ("LSH places (batch x heads x rounds x length)", 3 * product(places)),
            ("LSH projections", product(projections)),
        ];
        for (what, need) in needs {
            check_u32(what, need)?;
        }
        Ok(())
    }

    fn check_own(&self) -> Result<()> {
        for (name, size) in [("rounds", self.rounds), ("chunk", self.chunk)] {
            if size == 0 {
                return Err(Error::argument(name, "at least 1", 0));
            }
        }
        if self.rounds > Self::MAX_ROUNDS {
            let (need, have) = (self.rounds as u64, Self::MAX_ROUNDS as u64);
            return Err(Error::limit("rounds", "LshOptions::MAX_ROUNDS", need, have));
        }
        if self.buckets.is_empty() {
            return Err(Error::argument("buckets", "at least one factor", "none"));
        }
        if let Some(odd) = self.buckets.iter().find(|&&factor| factor == 0 || factor % 2 == 1) {
            return Err(Error::argument("buckets", "even factors of at least 2", odd));
        }
        // Each factor at least doubles the product: a saturated one is past the limit, too.
        let buckets = self.buckets.iter().fold(1usize, |product, &factor| product.saturating_mul(factor));
        if buckets > Self::MAX_BUCKETS {
            let have = Self::MAX_BUCKETS as u64;
            return Err(Error::limit("buckets", "LshOptions::MAX_BUCKETS", buckets as u64, have));
        }
        if !self.self_penalty.is_finite() {
            return Err(Error::argument("self_penalty", "a finite number", self.self_penalty));
        }
        // A device may take a subnormal for 0.
        if !(self.norm_eps == 0.0 || self.norm_eps.is_normal() && self.norm_eps > 0.0) {
            return Err(Error::argument("norm_eps", "0 or a normal number above 0", self.norm_eps));
        }
        Ok(())
    }
}

fn check_attention(attention: &Attention) -> Result<()> {
    let (shape, layouts) = (&attention.shape, &attention.layouts);
    attention.check()?;
    shape.check_narrow("LSH attention")?;
    attention.heads.check_all("LSH attention")?;
    if shape.kv_heads != shape.heads {
        return Err(Error::argument(
            "kv_heads",
            format!("heads ({}): keys are queries", shape.heads),
            shape.kv_heads,
        ));
    }
    if shape.kv_len != shape.q_len {
        return Err(Error::argument(
            "kv_len",
            format!("q_len ({}): keys are queries", shape.q_len),
            shape.kv_len,
        ));
    }
    if shape.q_len > LshOptions::MAX_LEN {
        let (need, have) = (shape.q_len as u64, LshOptions::MAX_LEN as u64);
        return Err(Error::limit("q_len", "LshOptions::MAX_LEN", need, have));
    }
    if layouts.k != layouts.q {
        let got = format!("{:?}", layouts.k);
        return Err(Error::argument("k_layout", "q_layout: keys are queries", got));
    }
    if attention.storage.kv != attention.storage.q {
        let need = format!("{}, as q: keys are queries", attention.storage.q);
        return Err(Error::argument("storage.kv", need, attention.storage.kv));
    }
    attention.score.rules().try_for_each(check_term)
}

/// Terms that keys in sorted places cannot have.
fn check_term(rule: &dyn Rule) -> Result<()> {
    let why = if rule.in_product() {
        "what it adds to a product would be divided by the norm of the key"
    } else if rule.is_of_weights() {
        "a pair may meet several times, and is drawn once"
    } else {
        return Ok(());
    };
    Err(Error::argument(rule.name(), format!("none for LSH attention, where {why}"), "one"))
}

fn product(sizes: [usize; 4]) -> u128 {
    sizes.iter().map(|&size| size as u128).product()
}

/// The tensors of one call of LSH attention, lying as the shape and [`LshOptions`] say.
///
/// ```
/// use wgpu_attention::{AttentionShape, LshInputs, LshOptions, Score, Sinks, reference};
/// let attention = AttentionShape::new(1, 2, 8, 4).score(Score::new().alibi().with(Sinks));
/// let qk: Vec<f32> = (0..attention.len_q()).map(|n| (n as f32).sin()).collect();
/// let inputs = LshInputs::new(&qk, &qk).tensor("sinks", &[9.0, 9.5]);
/// let exact = reference::lsh(&attention, &LshOptions::new(2, 4, 4), &inputs)?;
/// // Every row has the sink of its head in its sum.
/// assert!(exact.lse[..8].iter().all(|&lse| lse > 9.0) && exact.lse[8..].iter().all(|&lse| lse > 9.5));
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct LshInputs<'a, E> {
    /// Shared queries and keys `[B, H, L, d]`, as the layout of q says.
    pub qk: &'a [E],
    /// v `[B, H, L, dv]`.
    pub v: &'a [E],
    /// Projections `[H or 1, d, R, sum of the factors / 2]`, if and only if [`Projections::Given`].
    pub projections: Option<&'a [f32]>,
    /// `[B, L]`, true where a key may be seen; if and only if [`LshOptions::key_mask`].
    pub key_mask: Option<&'a [bool]>,
    /// Those of the score's terms, by name: see [`Score::tensors`](crate::Score::tensors).
    pub tensors: Vec<(&'a str, &'a [f32])>,
}

constructed! {
    LshInputs ['a, E] { qk: &'a [E], v: &'a [E] } { projections: &'a [f32], key_mask: &'a [bool] } { tensors }
}

impl<'a, E> LshInputs<'a, E> {
    /// Adds a tensor of one of the score's terms.
    pub fn tensor(mut self, name: &'a str, values: &'a [f32]) -> Self {
        self.tensors.push((name, values));
        self
    }

    /// Checks the lengths, and that the score's tensors are there and no others.
    ///
    /// # Errors
    /// [`Error::Argument`] naming the tensor.
    pub fn check(&self, attention: &Attention, options: &LshOptions) -> Result<()> {
        let (shape, layouts) = (&attention.shape, &attention.layouts);
        crate::inputs::check_len("qk", self.qk.len(), attention.len_q(), layouts.q)?;
        crate::inputs::check_len("v", self.v.len(), attention.len_v(), layouts.v)?;
        let given = matches!(options.projections, Projections::Given { .. });
        let projections = self.projections.map(<[_]>::len);
        check_optional("projections", given, projections, options.len_projections(shape))?;
        let key_mask = self.key_mask.map(<[_]>::len);
        check_optional("key_mask", options.key_mask, key_mask, options.len_key_mask(shape))?;
        crate::inputs::check_tensors(attention, &self.tensors)
    }
}

/// A tensor that is there if and only if the options say so.
pub(crate) fn check_optional(
    name: &'static str,
    wanted: bool,
    got: Option<usize>,
    need: usize,
) -> Result<()> {
    match (wanted, got) {
        (false, None) => Ok(()),
        (true, Some(got)) if got == need => Ok(()),
        (true, Some(got)) => {
            Err(Error::argument(name, format!("{need} elements"), format!("{got} elements")))
        }
        (true, None) => Err(Error::argument(name, "a tensor, as the options say", "none")),
        (false, Some(_)) => Err(Error::argument(name, "none, as the options say", "a tensor")),
    }
}
