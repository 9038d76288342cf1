//! What decoding with a key cache computes: the cache, and a step of new positions; and packed sequences without a cache.

#[cfg(feature = "gpu")]
mod ledger;
mod storage;

#[cfg(feature = "gpu")]
pub(crate) use ledger::{Changes, Ledger};
pub use storage::CacheStorage;

use crate::layout::check_u32;
use crate::pattern::{And, Causal, First, Or, Window};
use crate::{
    Attention, AttentionShape, ElementType, Error, Layout, Layouts, Result, RotaryPairs, Score, Storage,
};

macro_rules! setters {
    ($($(#[$doc:meta])* $name:ident: $type:ty),* $(,)?) => {
        $($(#[$doc])* pub fn $name(mut self, $name: $type) -> Self { self.$name = $name; self })*
    };
}

// Behind the macro that it shares.
mod packed;
pub use packed::PackedShape;

/// Pages of a cache, which its sequences take as they grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Paging {
    /// Positions of a page: a power of two that divides the capacity.
    pub page: usize,
    /// Pages in all.
    pub pages: usize,
}

/// The sizes of a cache of keys and values of up to `capacity` positions per sequence.
///
/// ```text
/// contiguous   keys [B, Hkv, capacity, d]        position p of sequence b in row p
/// paged        keys [pages, Hkv, page, d]        position p of sequence b in page table[b, p / page], row p mod page
/// ```
///
/// and values likewise, with rows of dv. A row takes a multiple of 4 elements; [`CacheStorage`] says what else.
///
/// ```
/// use wgpu_attention::{CacheShape, ElementType};
/// let shape = CacheShape::new(4, 8, 8192, 128).storage(ElementType::F16).paged(64, 300);
/// assert_eq!(shape.len_keys(), 300 * 8 * 64 * 128);
/// let error = shape.paged(48, 300).check().unwrap_err().to_string();
/// assert_eq!(error, "page: need a power of two that divides the capacity (8192), got 48");
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct CacheShape {
    /// Sequences, B.
    pub batch: usize,
    /// Key and value heads, Hkv.
    pub kv_heads: usize,
    /// Positions of a sequence, at most.
    pub capacity: usize,
    /// Elements of a key, d.
    pub head_dim: usize,
    /// Elements of a value, dv.
    pub value_dim: usize,
    /// Where a value begins in its key's row, if values are a part of keys: see [`values_in_keys`](Self::values_in_keys).
    pub value_start: Option<usize>,
    /// Storage of keys and values.
    pub storage: CacheStorage,
    /// Pages; none where each sequence has room for its capacity from the start.
    pub paging: Option<Paging>,
}

impl CacheShape {
    /// Contiguous, f32, values as long as keys.
    pub fn new(batch: usize, kv_heads: usize, capacity: usize, head_dim: usize) -> Self {
        let (value_dim, storage) = (head_dim, ElementType::F32.into());
        Self { batch, kv_heads, capacity, head_dim, value_dim, value_start: None, storage, paging: None }
    }

    setters! {
        /// Sets the number of elements of a value.
        value_dim: usize,
    }

    /// Says that values are these elements of the keys' rows, so that the cache stores one tensor: latent attention (DeepSeek 2024), whose row of 576
    /// per token is 512 elements that are key and value, and 64 that turn and are key alone. Begin and length are multiples of 4. New values are not
    /// given then, nor is there a buffer of values. In int8 a value has the scale of its whole row.
    ///
    /// What turns ([`DecodeShape::rotary`]) are a row's first elements, and values do not turn: put them first, in queries too, and values behind them.
    ///
    /// ```
    /// use wgpu_attention::{CacheShape, DecodeShape, ElementType, RotaryPairs};
    /// let cache = CacheShape::new(4, 1, 8192, 576).values_in_keys(64..576).storage(ElementType::F16);
    /// assert_eq!((cache.value_dim, cache.keys_bytes(), cache.values_bytes()), (512, 4 * 8192 * 1152, 0));
    /// DecodeShape::new(cache, 128, 1).scale(Some(0.0721688)).rotary(Some((64, RotaryPairs::Interleaved))).check()?;
    /// let error = cache.values_in_keys(64..580).check().unwrap_err().to_string();
    /// assert_eq!(error, "values_in_keys: need multiples of 4 that end at head_dim (576) or before, got 64..580");
    /// # Ok::<(), wgpu_attention::Error>(())
    /// ```
    pub fn values_in_keys(mut self, elements: std::ops::Range<usize>) -> Self {
        (self.value_start, self.value_dim) = (Some(elements.start), elements.len());
        self
    }

    /// Sets the storage of keys and values: an [`ElementType`], or a [`CacheStorage`].
    pub fn storage(mut self, storage: impl Into<CacheStorage>) -> Self {
        self.storage = storage.into();
        self
    }

    /// Sets how many positions a page has, and how many pages there are.
    pub fn paged(mut self, page: usize, pages: usize) -> Self {
        self.paging = Some(Paging { page, pages });
        self
    }

    /// Rows of a head that lie one behind the other, and how many such pieces there are.
    fn pieces(&self) -> [usize; 2] {
        self.paging.map_or([self.capacity, self.batch], |Paging { page, pages }| [page, pages])
    }

    /// Elements of all keys.
    pub fn len_keys(&self) -> usize {
        self.rows() * self.head_dim.next_multiple_of(4)
    }

    /// Elements of all values; 0 where they are a part of keys.
    pub fn len_values(&self) -> usize {
        self.value_rows() * self.value_dim.next_multiple_of(4)
    }

    /// Bytes of all keys, with their scales.
    pub fn keys_bytes(&self) -> usize {
        self.rows() * self.storage.row(self.head_dim) * self.storage.size_bytes()
    }

    /// Bytes of all values, with their scales; 0 where they are a part of keys.
    pub fn values_bytes(&self) -> usize {
        self.value_rows() * self.storage.row(self.value_dim) * self.storage.size_bytes()
    }

    /// Rows that are of values alone.
    fn value_rows(&self) -> usize {
        if self.value_start.is_some() { 0 } else { self.rows() }
    }

    fn rows(&self) -> usize {
        let [rows, pieces] = self.pieces();
        pieces * self.kv_heads * rows
    }

    /// Entries of the page tables, `[B, capacity / page]`; 0 without pages.
    pub fn len_tables(&self) -> usize {
        self.paging.map_or(0, |paging| self.batch * (self.capacity / paging.page))
    }

    /// Checks everything that can be said without a device.
    ///
    /// # Errors
    /// [`Error::Argument`] for a size of 0, a page that is no power of two or does not divide the capacity, values that are no part of keys or do not
    /// begin and end at a multiple of 4; [`Error::Limit`] where an element's index would pass 32 bits.
    pub fn check(&self) -> Result<()> {
        let sizes = [("batch", self.batch), ("kv_heads", self.kv_heads), ("capacity", self.capacity)];
        for (name, size) in sizes {
            if size == 0 {
                return Err(Error::argument(name, "at least 1", 0));
            }
        }
        if let Some(Paging { page, pages }) = self.paging {
            if !page.is_power_of_two() || !self.capacity.is_multiple_of(page) {
                let need = format!("a power of two that divides the capacity ({})", self.capacity);
                return Err(Error::argument("page", need, page));
            }
            if pages == 0 {
                return Err(Error::argument("pages", "at least 1", 0));
            }
        }
        if let Some(start) = self.value_start {
            let end = start.saturating_add(self.value_dim);
            if end > self.head_dim || !start.is_multiple_of(4) || !self.value_dim.is_multiple_of(4) {
                let need = format!("multiples of 4 that end at head_dim ({}) or before", self.head_dim);
                return Err(Error::argument("values_in_keys", need, format!("{start}..{end}")));
            }
        }
        let [rows, pieces] = self.pieces();
        let rows = [self.kv_heads, rows, pieces].iter().fold(1u128, |all, &n| all.saturating_mul(n as u128));
        for (name, dim) in [("keys", self.head_dim), ("values", self.value_dim)] {
            let row = (dim as u128).next_multiple_of(4) + self.storage.before_row() as u128;
            check_u32(name, rows.saturating_mul(row))?;
        }
        check_u32("capacity", self.capacity as u128)?;
        check_u32("batch", self.batch as u128 * self.capacity as u128)
    }
}

/// A step of decoding: up to `new` positions per sequence are appended to the cache, and their queries attend it.
///
/// ```text
/// append    k, v of new position t go to position n_b + t of sequence b;  then n_b = n_b + new
/// attend    query t stands at position p = n_b - new + t and attends the keys j <= p of its sequence
/// ```
///
/// with n_b the sequence's own length, which the device keeps. A plan serves every length. Under a [window](Self::window) a query attends
/// p - before <= j <= p, and the first [`sinks`](Self::sinks) positions. With [`rotary`](Self::rotary) keys turn as they are appended, and
/// queries as they attend, each at its own position. With [`counts`](Self::counts) each sequence has a number of new positions of its own,
/// up to `new`: those behind are ignored, and their rows of out are 0.
///
/// ```
/// use wgpu_attention::{CacheShape, DecodeShape};
/// let cache = CacheShape::new(4, 8, 8192, 128);
/// let shape = DecodeShape::new(cache, 32, 1).window(Some(4095)).sinks(4);
/// shape.check()?;
/// assert_eq!((shape.len_q(), shape.len_k()), (4 * 32 * 128, 4 * 8 * 128));
/// let error = DecodeShape::new(cache, 32, 65).check().unwrap_err().to_string();
/// assert_eq!(error, "new: need 1 to 64, got 65");
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct DecodeShape {
    /// The cache.
    pub cache: CacheShape,
    /// Query heads, H, a multiple of the cache's heads.
    pub heads: usize,
    /// New positions per sequence, at most.
    pub new: usize,
    /// Each sequence has a number of new positions of its own, in a buffer `[B]` of u32.
    pub counts: bool,
    /// New rows of all sequences lie packed, `new` of them at most, and a buffer `[B + 1]` of u32 says where those of each begin: see
    /// [`packed`](Self::packed()).
    pub packed: bool,
    /// The factor of q . k; 1 / sqrt(d) where it is not given.
    pub scale: Option<f32>,
    /// Positions before its own that a query attends; all of them where it is not given.
    pub window: Option<usize>,
    /// First positions of a sequence that every query attends whatever its window (the attention sinks of StreamingLLM, Xiao 2023).
    pub sinks: usize,
    /// How many elements of keys and queries turn by the rotary embedding (Su 2021), and which together. The tables cos and sin are f32
    /// `[capacity, r/2]`: see [`rotary_tables`](crate::rotary_tables).
    pub rotary: Option<(usize, RotaryPairs)>,
    /// Storage of q and of new keys and values.
    pub input: ElementType,
    /// Storage of out.
    pub output: ElementType,
    /// Where q `[B, H, new, d]`, new k `[B, Hkv, new, d]` and v `[B, Hkv, new, dv]`, and out `[B, H, new, dv]` lie.
    pub layouts: Layouts,
    /// The log-sum-exp of each row is written, too.
    pub lse: bool,
}

impl DecodeShape {
    /// Most new positions of a step.
    pub const MAX_NEW: usize = 64;

    /// Contiguous f32 tensors, all keys, no rotary embedding.
    pub fn new(cache: CacheShape, heads: usize, new: usize) -> Self {
        Self {
            cache,
            heads,
            new,
            counts: false,
            packed: false,
            scale: None,
            window: None,
            sinks: 0,
            rotary: None,
            input: ElementType::F32,
            output: ElementType::F32,
            layouts: Layouts::default(),
            lse: false,
        }
    }

    /// A step of up to `rows` new positions in all, however they are shared: chunks of prompts, single tokens, tokens that are tried, in one call.
    /// Tensors are packed, q `[rows, H, d]`, new k `[rows, Hkv, d]` and v `[rows, Hkv, dv]`, out `[rows, H, dv]`, and lse `[H, rows]`. Sequence b has
    /// the rows `offsets[b] .. offsets[b + 1]` (`cu_seqlens` of FlashAttention), causal at its own end; any number of them. `offsets[0]` is taken for 0.
    /// Rows that belong to no sequence are 0 in out.
    ///
    /// ```
    /// use wgpu_attention::{CacheShape, DecodeShape};
    /// let shape = DecodeShape::packed(CacheShape::new(16, 8, 8192, 128), 32, 512);
    /// shape.check()?;
    /// assert_eq!((shape.len_q(), shape.len_k()), (512 * 32 * 128, 512 * 8 * 128));
    /// # Ok::<(), wgpu_attention::Error>(())
    /// ```
    pub fn packed(cache: CacheShape, heads: usize, rows: usize) -> Self {
        Self { packed: true, layouts: Layouts::all(Layout::Blhd), ..Self::new(cache, heads, rows) }
    }

    /// Batch items of the tensors of new rows.
    pub(crate) fn row_batch(&self) -> usize {
        if self.packed { 1 } else { self.cache.batch }
    }

    setters! {
        /// Sets whether each sequence has a number of new positions of its own.
        counts: bool,
        /// Sets the factor of q . k.
        scale: Option<f32>,
        /// Sets how many positions before its own a query attends.
        window: Option<usize>,
        /// Sets how many first positions every query attends.
        sinks: usize,
        /// Sets how many elements turn, and which together.
        rotary: Option<(usize, RotaryPairs)>,
        /// Sets the storage of q and of new keys and values.
        input: ElementType,
        /// Sets the storage of out.
        output: ElementType,
        /// Sets where the tensors lie.
        layouts: Layouts,
        /// Sets whether the log-sum-exp is written.
        lse: bool,
    }

    /// The step as attention of `new` queries to as many keys as the cache can have.
    pub(crate) fn attention(&self) -> Attention {
        self.sized(self.row_batch(), self.new, self.cache.capacity).layouts(Layouts {
            k: Layout::Bhld,
            v: Layout::Bhld,
            ..self.layouts
        })
    }

    fn sized(&self, batch: usize, q_len: usize, kv_len: usize) -> Attention {
        let cache = &self.cache;
        let shape = AttentionShape::new(batch, self.heads, q_len, cache.head_dim)
            .kv_heads(cache.kv_heads)
            .kv_len(kv_len)
            .value_dim(cache.value_dim);
        let score = self.scale.map_or(Score::new(), |scale| Score::new().scale(scale));
        let storage = Storage { q: self.input, kv: cache.storage.element(), out: self.output };
        shape.score(score).storage(storage)
    }

    /// The new rows: q, k and v of the same length, as they lie.
    pub(crate) fn new_rows(&self) -> Attention {
        self.sized(self.row_batch(), self.new, self.new).layouts(self.layouts)
    }

    /// What one sequence computes that has `length` keys, the last `count` of which are new: for the [reference](crate::reference).
    /// Tensors are contiguous: q `[1, H, count, d]`, k `[1, Hkv, length, d]` as the cache has them; int8 widened to f32.
    pub fn of_sequence(&self, length: usize, count: usize) -> Attention {
        self.sized(1, count, length)
    }

    /// Which keys the queries of one sequence attend: for the [reference](crate::reference).
    pub fn pattern(&self) -> Or<And<First, Causal>, Window> {
        let sinks = And(First { count: self.sinks }, Causal);
        Or(sinks, Window { before: self.window.unwrap_or(usize::MAX), after: 0 })
    }

    /// Elements from the start of q to the end of its last row.
    pub fn len_q(&self) -> usize {
        self.new_rows().len_q()
    }

    /// Elements from the start of the new keys to the end of the last.
    pub fn len_k(&self) -> usize {
        self.new_rows().len_k()
    }

    /// Elements from the start of the new values to the end of the last; 0 where they are a part of keys.
    pub fn len_v(&self) -> usize {
        if self.cache.value_start.is_some() { 0 } else { self.new_rows().len_v() }
    }

    /// Elements from the start of out to the end of its last row.
    pub fn len_out(&self) -> usize {
        self.attention().len_out()
    }

    /// Elements of lse, `[B, H, new]`, or `[H, rows]` where they are packed.
    pub fn len_lse(&self) -> usize {
        self.attention().len_lse()
    }

    /// Elements of cos, and of sin; 0 without a rotary embedding.
    pub fn len_table(&self) -> usize {
        self.rotary.map_or(0, |(dim, _)| self.cache.capacity * (dim / 2))
    }

    /// Checks everything that can be said without a device.
    ///
    /// # Errors
    /// As [`CacheShape::check`] and [`Attention::check`]; [`Error::Argument`] for no new position or more than
    /// [`MAX_NEW`](Self::MAX_NEW), a `rotary` dimension that is odd, past `head_dim`, or past where values in keys begin.
    pub fn check(&self) -> Result<()> {
        self.cache.check()?;
        if self.packed && self.counts {
            return Err(Error::argument("counts", "none beside packed rows, whose offsets say it", "counts"));
        }
        if self.packed && self.new == 0 {
            return Err(Error::argument("new", "at least 1 row", 0));
        }
        if !self.packed && !(1..=Self::MAX_NEW).contains(&self.new) {
            return Err(Error::argument("new", format!("1 to {}", Self::MAX_NEW), self.new));
        }
        if let Some((dim, _)) = self.rotary {
            if dim == 0 || !dim.is_multiple_of(2) || dim > self.cache.head_dim {
                let need = format!("an even number from 2 to head_dim ({})", self.cache.head_dim);
                return Err(Error::argument("rotary", need, dim));
            }
            if let Some(start) = self.cache.value_start.filter(|&start| start < dim) {
                let need = format!("values behind the {dim} elements that turn (rotary)");
                return Err(Error::argument("values_in_keys", need, format!("values from {start} on")));
            }
            check_u32("cos", self.cache.capacity as u128 * (dim / 2) as u128)?;
        }
        // A position and a window's end are added up.
        check_u32("capacity and new rows", 2 * (self.cache.capacity as u128 + self.new as u128))?;
        self.new_rows().check()
    }
}
