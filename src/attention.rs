//! What one attention call computes, but for the set S: sizes, score, storage, layout.

use crate::{AttentionShape, ElementType, Heads, Layout, Result, Score, Strides};

/// How the tensors of a call are stored. Arithmetic is f32 whatever the storage; lse is always f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub struct Storage {
    /// Type of q.
    pub q: ElementType,
    /// Type of k and v.
    pub kv: ElementType,
    /// Type of out.
    pub out: ElementType,
}

impl Storage {
    /// One type for q, k, v and out.
    pub const fn all(element: ElementType) -> Self {
        Self { q: element, kv: element, out: element }
    }

    /// Sets the storage of q.
    pub const fn q(self, q: ElementType) -> Self {
        Self { q, ..self }
    }

    /// Sets the storage of k and v.
    pub const fn kv(self, kv: ElementType) -> Self {
        Self { kv, ..self }
    }

    /// Sets the storage of out.
    pub const fn out(self, out: ElementType) -> Self {
        Self { out, ..self }
    }
}

/// Where the tensors of a call lie. lse is always `[B, H, Lq]`, contiguous.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub struct Layouts {
    /// Layout of q.
    pub q: Layout,
    /// Layout of k.
    pub k: Layout,
    /// Layout of v.
    pub v: Layout,
    /// Layout of out.
    pub out: Layout,
}

impl Layouts {
    /// One layout for q, k, v and out.
    pub const fn all(layout: Layout) -> Self {
        Self { q: layout, k: layout, v: layout, out: layout }
    }

    /// Sets where q lies.
    pub const fn q(self, q: Layout) -> Self {
        Self { q, ..self }
    }

    /// Sets where k lies.
    pub const fn k(self, k: Layout) -> Self {
        Self { k, ..self }
    }

    /// Sets where v lies.
    pub const fn v(self, v: Layout) -> Self {
        Self { v, ..self }
    }

    /// Sets where out lies.
    pub const fn out(self, out: Layout) -> Self {
        Self { out, ..self }
    }
}

/// What one attention call computes, apart from the set S of attended pairs: sizes, score, storage and layout.
///
/// An [`AttentionShape`] alone is one with the plain score, f32 and `[B, H, L, D]` everywhere; wherever a call takes an
/// `Attention`, a shape serves.
///
/// ```
/// use wgpu_attention::{AttentionShape, ElementType, Layout, Score, Storage};
/// let attention = AttentionShape::new(2, 16, 4096, 128)
///     .kv_heads(4)
///     .score(Score::new().softcap(30.0))
///     .storage(Storage::all(ElementType::F16).out(ElementType::F32))
///     .layout(Layout::Blhd);
/// attention.check()?;
/// assert_eq!(attention.len_k(), 2 * 4 * 4096 * 128);
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Attention {
    /// The sizes.
    pub shape: AttentionShape,
    /// The score of a pair.
    pub score: Score,
    /// How the tensors are stored.
    pub storage: Storage,
    /// Where they lie.
    pub layouts: Layouts,
    /// Which query heads are computed.
    pub heads: Heads,
}

impl From<AttentionShape> for Attention {
    fn from(shape: AttentionShape) -> Self {
        Self {
            shape,
            score: Score::new(),
            storage: Storage::default(),
            layouts: Layouts::default(),
            heads: Heads::ALL,
        }
    }
}

impl From<&AttentionShape> for Attention {
    fn from(shape: &AttentionShape) -> Self {
        (*shape).into()
    }
}

impl From<&Attention> for Attention {
    fn from(attention: &Attention) -> Self {
        attention.clone()
    }
}

impl AttentionShape {
    /// A call of these sizes with this score.
    pub fn score(self, score: Score) -> Attention {
        Attention::from(self).score(score)
    }

    /// A call of these sizes over tensors stored so.
    pub fn storage(self, storage: Storage) -> Attention {
        Attention::from(self).storage(storage)
    }

    /// A call of these sizes with q, k, v and out in one layout.
    pub fn layout(self, layout: Layout) -> Attention {
        Attention::from(self).layout(layout)
    }

    /// A call of these sizes, each tensor with a layout of its own.
    pub fn layouts(self, layouts: Layouts) -> Attention {
        Attention::from(self).layouts(layouts)
    }

    /// A call of these sizes that computes these query heads.
    pub fn heads(self, heads: Heads) -> Attention {
        Attention::from(self).heads(heads)
    }
}

impl Attention {
    /// Sets the score.
    pub fn score(self, score: Score) -> Self {
        Self { score, ..self }
    }

    /// Sets how the tensors are stored.
    pub fn storage(self, storage: Storage) -> Self {
        Self { storage, ..self }
    }

    /// Sets the layout of q, k, v and out.
    pub fn layout(self, layout: Layout) -> Self {
        Self { layouts: Layouts::all(layout), ..self }
    }

    /// Sets the layout of each tensor.
    pub fn layouts(self, layouts: Layouts) -> Self {
        Self { layouts, ..self }
    }

    /// Sets which query heads are computed.
    pub fn heads(self, heads: Heads) -> Self {
        Self { heads, ..self }
    }

    /// How many query heads are computed.
    pub(crate) fn computed_heads(&self) -> usize {
        self.heads.count(self.shape.heads)
    }

    /// The factor of q . k.
    pub fn scale_value(&self) -> f32 {
        self.score.scale_value(self.shape.head_dim)
    }

    /// Floating-point operations for a number of attended (or visited) pairs: 2 (d + dv) per pair, and 2 d more under
    /// [relative rows](crate::Relative), which are one more product per pair. What other terms do to a score is not counted, as exponentials are not.
    ///
    /// ```
    /// use wgpu_attention::{Attention, AttentionShape, Relative, Score};
    /// let shape = AttentionShape::new(1, 1, 512, 64);
    /// assert_eq!(Attention::from(shape).flops(1), 256.0);
    /// assert_eq!(shape.score(Score::new().alibi()).flops(1), 256.0);
    /// assert_eq!(shape.score(Score::new().with(Relative::new(511, 512))).flops(1), 384.0);
    /// ```
    pub fn flops(&self, pairs: u64) -> f64 {
        self.shape.flops(pairs) + 2.0 * self.relative_dim() as f64 * pairs as f64
    }

    /// The least that the gradients by q, k and v take for a number of attended pairs: 6 d + 4 dv per pair, five products of which one
    /// is made again from the forward pass; 4 d more under [relative rows](crate::Relative), once made again and once by q.
    ///
    /// ```
    /// use wgpu_attention::{Attention, AttentionShape, Relative, Score};
    /// let shape = AttentionShape::new(1, 1, 512, 64);
    /// assert_eq!(Attention::from(shape).backward_flops(1), 640.0);
    /// assert_eq!(shape.score(Score::new().with(Relative::new(511, 512))).backward_flops(1), 896.0);
    /// ```
    pub fn backward_flops(&self, pairs: u64) -> f64 {
        let AttentionShape { head_dim, value_dim, .. } = self.shape;
        (6 * head_dim + 4 * value_dim + 4 * self.relative_dim()) as f64 * pairs as f64
    }

    /// Elements of the row that a pair meets beside its key: d, or none.
    pub(crate) fn relative_dim(&self) -> usize {
        self.score.relative().map_or(0, |_| self.shape.head_dim)
    }

    /// Strides of q, resolved.
    pub fn q_strides(&self) -> Strides {
        self.layouts.q.strides(self.shape.heads, self.shape.q_len, self.shape.head_dim)
    }

    /// Strides of k, resolved.
    pub fn k_strides(&self) -> Strides {
        self.layouts.k.strides(self.shape.kv_heads, self.shape.kv_len, self.shape.head_dim)
    }

    /// Strides of v, resolved.
    pub fn v_strides(&self) -> Strides {
        self.layouts.v.strides(self.shape.kv_heads, self.shape.kv_len, self.shape.value_dim)
    }

    /// Strides of out, resolved.
    pub fn out_strides(&self) -> Strides {
        self.layouts.out.strides(self.shape.heads, self.shape.q_len, self.shape.value_dim)
    }

    /// Elements from the start of q to the end of the row that lies last.
    pub fn len_q(&self) -> usize {
        self.q_strides().extent(self.shape.query_rows(), self.shape.head_dim)
    }

    /// Elements from the start of k to the end of the row that lies last.
    pub fn len_k(&self) -> usize {
        self.k_strides().extent(self.shape.key_rows(), self.shape.head_dim)
    }

    /// Elements from the start of v to the end of the row that lies last.
    pub fn len_v(&self) -> usize {
        self.v_strides().extent(self.shape.key_rows(), self.shape.value_dim)
    }

    /// Elements from the start of out to the end of the row that lies last.
    pub fn len_out(&self) -> usize {
        self.out_strides().extent(self.shape.query_rows(), self.shape.value_dim)
    }

    /// Elements of lse: B H Lq.
    pub fn len_lse(&self) -> usize {
        self.shape.len_lse()
    }

    /// Checks everything that can be said without a device.
    ///
    /// # Errors
    /// As [`AttentionShape::check`] and [`Score::check`]; [`Error::Argument`](crate::Error::Argument) for heads that the shape does not
    /// have, one that comes twice or none at all, and for strides that reach before a tensor's start, or under which rows of out overlap; [`Error::Limit`](crate::Error::Limit) where an element
    /// offset would pass 32 bits.
    pub fn check(&self) -> Result<()> {
        let shape = &self.shape;
        shape.check()?;
        self.heads.check(shape)?;
        let (queries, keys) = (shape.query_rows(), shape.key_rows());
        self.layouts.q.check("q_layout", queries, shape.head_dim)?;
        self.layouts.k.check("k_layout", keys, shape.head_dim)?;
        self.layouts.v.check("v_layout", keys, shape.value_dim)?;
        self.layouts.out.check("out_layout", queries, shape.value_dim)?;
        self.out_strides().check_no_overlap("out_layout", queries, shape.value_dim)?;
        self.score.check(shape)
    }
}
