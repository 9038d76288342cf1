//! What attention of packed sequences computes, queries and keys alike packed in the caller's own tensors.

use crate::layout::check_u32;
use crate::pattern::{And, First, Or, Window};
use crate::{Attention, AttentionShape, Error, Layout, Layouts, Result, Score, Storage};

/// Attention of up to `sequences` sequences that lie packed in one tensor each of queries, keys and values, without padding and without a cache.
///
/// ```text
/// q [rows of queries, H, d]    k [rows of keys, Hkv, d]    v [rows of keys, Hkv, dv]    out [rows of queries, H, dv]    lse [H, rows of queries]
/// sequence b has the queries q_offsets[b] .. q_offsets[b + 1] and the keys k_offsets[b] .. k_offsets[b + 1]
/// query i of n stands at p = i + L - n among its L keys, where both end together, and attends the keys p - before .. p + after of its sequence
/// ```
///
/// Offsets (`cu_seqlens_q`, `cu_seqlens_k` of FlashAttention) lie in the device's memory, `[B + 1]` in u32 each: one plan serves all lengths that these
/// tensors hold, and one bound call all offsets. The first of them are taken for 0. A sequence may have no queries, no keys, or more queries than
/// keys: a query that sees no key gives 0, with an lse of `f32::MIN`, and so do rows that belong to no sequence. Offsets past the tensors' ends are cut
/// off to them, and a sequence whose second offset is below its first has no rows: nothing outside is read or written. Sequences may share keys by
/// offsets of keys that fall and rise again; where offsets of queries fall, rows behind the lower one may hold anything.
///
/// Attention is causal unless [`after`](Self::after) is set: it is 0 at first.
///
/// The kernel is that of decoding ([`DecodeShape`](crate::DecodeShape)), made for few queries per sequence or many heads per key head: it takes rows as
/// wide as [`AttentionShape::MAX_HEAD_DIM`] and [`AttentionShape::MAX_VALUE_DIM`], too. Where sequences are long, and known to the host, the pattern
/// [`Document`](crate::Document) in [`Kernels::attention`](crate::Kernels::attention) is faster.
///
/// ```
/// use wgpu_attention::PackedShape;
/// let shape = PackedShape::new(16, 8, [512, 4096], 128).kv_heads(2).after(None); // each attends all of its sequence
/// shape.check()?;
/// assert_eq!((shape.len_q(), shape.len_k()), (512 * 8 * 128, 4096 * 2 * 128));
/// assert!(shape.kv_heads(3).check().unwrap_err().to_string().starts_with("kv_heads: need a divisor of heads (8)"));
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct PackedShape {
    /// Sequences, B.
    pub sequences: usize,
    /// Query heads, H, a multiple of the key heads.
    pub heads: usize,
    /// Key and value heads, Hkv.
    pub kv_heads: usize,
    /// Rows of queries in all, at most.
    pub q_rows: usize,
    /// Rows of keys and values in all, at most.
    pub kv_rows: usize,
    /// Elements of a query and of a key, d.
    pub head_dim: usize,
    /// Elements of a value, dv.
    pub value_dim: usize,
    /// The factor of q . k; 1 / sqrt(d) where it is not given.
    pub scale: Option<f32>,
    /// Keys before its own position that a query attends; all of them where it is not given.
    pub before: Option<usize>,
    /// Keys after its own position that a query attends; all of them where it is not given, and none at first.
    pub after: Option<usize>,
    /// First keys of a sequence that every query attends whatever `before` is, up to its own position and `after`.
    pub sinks: usize,
    /// How the tensors are stored.
    pub storage: Storage,
    /// Where q, k, v and out lie, of one batch item: `[rows, heads, d]` at first.
    pub layouts: Layouts,
    /// The log-sum-exp of each row is written, too.
    pub lse: bool,
}

impl PackedShape {
    /// Causal attention over f32 tensors `[rows, heads, dim]` of these many rows of queries and of keys, with as many key heads as query heads, and
    /// values as long as keys.
    pub fn new(sequences: usize, heads: usize, [q_rows, kv_rows]: [usize; 2], head_dim: usize) -> Self {
        Self {
            sequences,
            heads,
            kv_heads: heads,
            q_rows,
            kv_rows,
            head_dim,
            value_dim: head_dim,
            scale: None,
            before: None,
            after: Some(0),
            sinks: 0,
            storage: Storage::default(),
            layouts: Layouts::all(Layout::Blhd),
            lse: false,
        }
    }

    setters! {
        /// Sets the number of key and value heads.
        kv_heads: usize,
        /// Sets the number of elements of a value.
        value_dim: usize,
        /// Sets the factor of q . k.
        scale: Option<f32>,
        /// Sets how many keys before its own position a query attends.
        before: Option<usize>,
        /// Sets how many keys after its own position a query attends.
        after: Option<usize>,
        /// Sets how many first keys every query attends.
        sinks: usize,
        /// Sets how the tensors are stored.
        storage: Storage,
        /// Sets where the tensors lie.
        layouts: Layouts,
        /// Sets whether the log-sum-exp is written.
        lse: bool,
    }

    /// The call as attention of all rows of queries to all rows of keys.
    pub(crate) fn attention(&self) -> Attention {
        self.of_sequence(self.q_rows, self.kv_rows).layouts(self.layouts)
    }

    /// The attention of one sequence of `q_len` queries and `kv_len` keys, for the [reference](crate::reference). Tensors are contiguous: q
    /// `[1, H, q_len, d]`, k `[1, Hkv, kv_len, d]`.
    pub fn of_sequence(&self, q_len: usize, kv_len: usize) -> Attention {
        let shape = AttentionShape::new(1, self.heads, q_len, self.head_dim)
            .kv_heads(self.kv_heads)
            .kv_len(kv_len)
            .value_dim(self.value_dim);
        let score = self.scale.map_or(Score::new(), |scale| Score::new().scale(scale));
        shape.score(score).storage(self.storage)
    }

    /// Which keys the queries of one sequence attend: for the [reference](crate::reference).
    pub fn pattern(&self) -> Or<And<First, Window>, Window> {
        let [before, after] = [self.before, self.after].map(|end| end.unwrap_or(usize::MAX));
        Or(And(First { count: self.sinks }, Window { before: usize::MAX, after }), Window { before, after })
    }

    /// Elements from the start of q to the end of the row that lies last.
    pub fn len_q(&self) -> usize {
        self.attention().len_q()
    }

    /// Elements from the start of k to the end of the row that lies last.
    pub fn len_k(&self) -> usize {
        self.attention().len_k()
    }

    /// Elements from the start of v to the end of the row that lies last.
    pub fn len_v(&self) -> usize {
        self.attention().len_v()
    }

    /// Elements from the start of out to the end of the row that lies last.
    pub fn len_out(&self) -> usize {
        self.attention().len_out()
    }

    /// Elements of lse, `[H, rows of queries]`.
    pub fn len_lse(&self) -> usize {
        self.attention().len_lse()
    }

    /// Checks everything that can be said without a device.
    ///
    /// # Errors
    /// [`Error::Argument`] for no sequence, no row, a size past [`AttentionShape::MAX_HEAD_DIM`] or [`AttentionShape::MAX_VALUE_DIM`], and otherwise as
    /// [`Attention::check`].
    pub fn check(&self) -> Result<()> {
        let sizes = [("sequences", self.sequences), ("q_rows", self.q_rows), ("kv_rows", self.kv_rows)];
        for (name, size) in sizes {
            if size == 0 {
                return Err(Error::argument(name, "at least 1", 0));
            }
        }
        check_u32("sequences", self.sequences as u128)?;
        // A position and a window's end are added up.
        check_u32("rows", 2 * (self.q_rows as u128 + self.kv_rows as u128))?;
        self.attention().check()
    }
}
