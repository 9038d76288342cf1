//! What a rotary embedding computes.

use crate::layout::check_u32;
use crate::{ElementType, Error, Layout, Result, Strides};

/// Which elements of a row turn together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum RotaryPairs {
    /// (0, r/2), (1, r/2 + 1), ...: GPT-NeoX, Llama in Hugging Face's layout.
    #[default]
    HalfSplit,
    /// (0, 1), (2, 3), ...: the paper, GPT-J.
    Interleaved,
}

/// Rotary position embedding (Su 2021) of x `[B, H, L, d]`: with r = `rotary_dim`, pair k = 0 .. r/2 of the row at
/// position t turns by the angle of the tables,
///
/// ```text
/// (a, b)  ->  (a cos_tk - b sin_tk,  b cos_tk + a sin_tk)
/// ```
///
/// and elements from r on are copied. The tables cos and sin are f32, `[L, r/2]` or one per batch item,
/// `[B, L, r/2]`; [`rotary_tables`] makes them.
///
/// ```
/// use wgpu_attention::{RotaryPairs, RotaryShape};
/// let shape = RotaryShape::new(2, 8, 128, 64).rotary_dim(32).pairs(RotaryPairs::Interleaved);
/// assert_eq!((shape.len_x(), shape.len_table()), (2 * 8 * 128 * 64, 128 * 16));
/// assert!(shape.rotary_dim(33).check().unwrap_err().to_string().contains("rotary_dim"));
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct RotaryShape {
    /// Batch items, B. May be 0: then nothing is written.
    pub batch: usize,
    /// Heads, H.
    pub heads: usize,
    /// Positions, L. May be 0: then nothing is written.
    pub len: usize,
    /// Elements of a row, d.
    pub head_dim: usize,
    /// Elements that turn, r: even, at most d.
    pub rotary_dim: usize,
    /// Which of them turn together.
    pub pairs: RotaryPairs,
    /// Pairs turn back, by the angle's opposite: what undoes the embedding, and makes its gradient.
    pub inverse: bool,
    /// The tables are `[B, L, r/2]` instead of `[L, r/2]`.
    pub tables_per_item: bool,
    /// Storage of x.
    pub input: ElementType,
    /// Storage of out.
    pub output: ElementType,
    /// Where x lies.
    pub x_layout: Layout,
    /// Where out lies.
    pub out_layout: Layout,
}

impl RotaryShape {
    /// Contiguous f32 tensors, all of a row turned, halves split.
    pub fn new(batch: usize, heads: usize, len: usize, head_dim: usize) -> Self {
        Self {
            batch,
            heads,
            len,
            head_dim,
            rotary_dim: head_dim,
            pairs: RotaryPairs::HalfSplit,
            inverse: false,
            tables_per_item: false,
            input: ElementType::F32,
            output: ElementType::F32,
            x_layout: Layout::Bhld,
            out_layout: Layout::Bhld,
        }
    }

    setters! {
        /// Sets how many elements of a row turn.
        rotary_dim: usize,
        /// Sets which elements turn together.
        pairs: RotaryPairs,
        /// Sets whether pairs turn back.
        inverse: bool,
        /// Sets whether each batch item has tables of its own.
        tables_per_item: bool,
        /// Sets the storage of x.
        input: ElementType,
        /// Sets the storage of out.
        output: ElementType,
        /// Sets where x lies.
        x_layout: Layout,
        /// Sets where out lies.
        out_layout: Layout,
    }

    /// Strides of x, resolved.
    pub fn strides_of_x(&self) -> Strides {
        self.x_layout.strides(self.heads, self.len, self.head_dim)
    }

    /// Strides of out, resolved.
    pub fn strides_of_out(&self) -> Strides {
        self.out_layout.strides(self.heads, self.len, self.head_dim)
    }

    /// Elements from the start of x to the end of its last row.
    pub fn len_x(&self) -> usize {
        self.strides_of_x().extent([self.batch, self.heads, self.len], self.head_dim)
    }

    /// Elements from the start of out to the end of its last row.
    pub fn len_out(&self) -> usize {
        self.strides_of_out().extent([self.batch, self.heads, self.len], self.head_dim)
    }

    /// Elements of cos, and of sin.
    pub fn len_table(&self) -> usize {
        self.len * (self.rotary_dim / 2) * if self.tables_per_item { self.batch } else { 1 }
    }

    /// Whether there is nothing to compute.
    pub fn is_empty(&self) -> bool {
        self.batch == 0 || self.len == 0
    }

    /// Checks everything that can be said without a device.
    ///
    /// # Errors
    /// [`Error::Argument`] for a size of 0, a `rotary_dim` that is odd or past `head_dim`, rows of out that overlap;
    /// [`Error::Limit`] where an element offset would pass 32 bits.
    pub fn check(&self) -> Result<()> {
        for (name, size) in
            [("heads", self.heads), ("head_dim", self.head_dim), ("rotary_dim", self.rotary_dim)]
        {
            if size == 0 {
                return Err(Error::argument(name, "at least 1", 0));
            }
        }
        if !self.rotary_dim.is_multiple_of(2) || self.rotary_dim > self.head_dim {
            let need = format!("an even number up to head_dim ({})", self.head_dim);
            return Err(Error::argument("rotary_dim", need, self.rotary_dim));
        }
        let sizes = [self.batch, self.heads, self.len];
        let contiguous = sizes.iter().try_fold(self.head_dim.next_multiple_of(4) as u128, |all, &n| {
            check_u32("x", all * (n as u128).max(1)).map(|()| all * (n as u128).max(1))
        });
        contiguous?;
        self.x_layout.check("x_layout", sizes, self.head_dim)?;
        self.out_layout.check("out_layout", sizes, self.head_dim)?;
        self.strides_of_out().check_no_overlap("out_layout", sizes, self.head_dim)
    }
}

/// cos and sin of a rotary embedding, each `[len, rotary_dim / 2]`, of the angles t base^(-2k / rotary_dim) (Su 2021,
/// section 3.2.2; `base` is 10000 there), computed in f64. [`RotaryAngles`](crate::RotaryAngles) has the scalings for long contexts.
///
/// ```
/// let [cos, sin] = wgpu_attention::rotary_tables(3, 4, 10000.0);
/// assert_eq!((cos[0], sin[0]), (1.0, 0.0));
/// assert_eq!(sin[2 * 2 + 1], (2.0f64 / 100.0).sin() as f32);
/// ```
pub fn rotary_tables(len: usize, rotary_dim: usize, base: f64) -> [Vec<f32>; 2] {
    let half = rotary_dim / 2;
    let angle = |n: usize| (n / half) as f64 * base.powf(-2.0 * (n % half) as f64 / rotary_dim as f64);
    [f64::cos, f64::sin].map(|f| (0..len * half).map(|n| f(angle(n)) as f32).collect())
}
