//! What one attention call computes, apart from the set S: sizes, where the elements lie, and the score.

use crate::{ElementType, Error, Result};

/// Where the rows of a `[batch, head, row, element]` tensor lie, in elements. The last axis is contiguous.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Strides {
    /// From one batch item to the next.
    pub batch: usize,
    /// From one head to the next.
    pub head: usize,
    /// From one row (position in the sequence) to the next.
    pub row: usize,
}

impl Strides {
    /// Index of the first element of a row.
    pub fn at(&self, batch: usize, head: usize, row: usize) -> usize {
        batch * self.batch + head * self.head + row * self.row
    }
}

/// Order of the axes of a tensor in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Layout {
    /// `[batch, heads, length, dim]`, contiguous.
    #[default]
    Bhld,
    /// `[batch, length, heads, dim]`, contiguous.
    Blhd,
    /// Anything else with a contiguous last axis: packed QKV, padded rows, a view into a larger tensor.
    /// A stride of 0 shares one item among all (inputs only).
    Strided(Strides),
}

/// Strides of the additive bias over `[batch, head, query, key]`, in elements; 0 broadcasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BiasStrides {
    /// From one batch item to the next.
    pub batch: usize,
    /// From one query head to the next.
    pub head: usize,
    /// From one query to the next.
    pub query: usize,
    /// From one key to the next.
    pub key: usize,
}

impl BiasStrides {
    /// Strides of a contiguous tensor of these sizes, in which an axis of size 1 is broadcast.
    pub fn broadcast([batch, head, query, key]: [usize; 4]) -> Self {
        let stride = |size, stride| if size == 1 { 0 } else { stride };
        Self {
            batch: stride(batch, head * query * key),
            head: stride(head, query * key),
            query: stride(query, key),
            key: stride(key, 1),
        }
    }

    /// Index of one element.
    pub fn at(&self, batch: usize, head: usize, i: usize, j: usize) -> usize {
        batch * self.batch + head * self.head + i * self.query + j * self.key
    }
}

/// What one attention call computes, apart from the set S of attended pairs.
///
/// With B = `batch`, H = `heads`, Hkv = `kv_heads`, Lq = `q_len`, Lk = `kv_len`, d = `head_dim`,
/// dv = `value_dim`, the tensors are q `[B, H, Lq, d]`, k `[B, Hkv, Lk, d]`, v `[B, Hkv, Lk, dv]`,
/// out `[B, H, Lq, dv]` and lse `[B, H, Lq]`, and
///
/// ```text
/// score(i, j) = softcap(scale q_i . k_j) + bias(i, j) + slope_h (j - i)
/// ```
///
/// Query head h reads key/value head h / (H / Hkv) (grouped-query attention, Ainslie 2023).
///
/// ```
/// use wgpu_attention::AttentionShape;
/// let llama = AttentionShape::new(4, 32, 2048, 128).kv_heads(8);
/// assert_eq!(llama.len_k(), 4 * 8 * 2048 * 128);
/// llama.check()?;
/// assert!(llama.kv_heads(5).check().unwrap_err().to_string().contains("kv_heads"));
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AttentionShape {
    /// Batch items, B. May be 0: then nothing is written.
    pub batch: usize,
    /// Query heads, H.
    pub heads: usize,
    /// Key and value heads, Hkv: a divisor of `heads`.
    pub kv_heads: usize,
    /// Queries, Lq. May be 0: then nothing is written.
    pub q_len: usize,
    /// Keys, Lk.
    pub kv_len: usize,
    /// Elements of a query and of a key, d: 1 to [`MAX_DIM`](Self::MAX_DIM).
    pub head_dim: usize,
    /// Elements of a value and of an output row, dv: 1 to [`MAX_DIM`](Self::MAX_DIM).
    pub value_dim: usize,
    /// Factor of q . k; `None` is 1 / sqrt(d) (Vaswani 2017, eq. 1).
    pub scale: Option<f32>,
    /// `Some(c)`: scores become c tanh(score / c) before the bias (Gemma 2).
    pub softcap: Option<f32>,
    /// `Some`: an f32 tensor is added to the scores. A bias of minus infinity removes the pair from S.
    pub bias: Option<BiasStrides>,
    /// Adds slope_h (j - i) with slope_h = 2^(-8 h / H), h from 1 (ALiBi, Press 2022).
    pub alibi: bool,
    /// Storage of q, k and v.
    pub input: ElementType,
    /// Storage of out. lse is always f32.
    pub output: ElementType,
    /// Where q lies.
    pub q_layout: Layout,
    /// Where k lies.
    pub k_layout: Layout,
    /// Where v lies.
    pub v_layout: Layout,
    /// Where out lies. lse is always `[B, H, Lq]`, contiguous.
    pub out_layout: Layout,
}

macro_rules! setters {
    ($($(#[$doc:meta])* $name:ident: $type:ty),* $(,)?) => {
        $($(#[$doc])* pub fn $name(mut self, $name: $type) -> Self { self.$name = $name; self })*
    };
}

impl AttentionShape {
    /// Largest `head_dim` and `value_dim`.
    pub const MAX_DIM: usize = 256;

    /// Self-attention of `heads` heads over `len` positions, f32, `[B, H, L, D]`, scale 1 / sqrt(d).
    pub fn new(batch: usize, heads: usize, len: usize, head_dim: usize) -> Self {
        Self {
            batch,
            heads,
            kv_heads: heads,
            q_len: len,
            kv_len: len,
            head_dim,
            value_dim: head_dim,
            scale: None,
            softcap: None,
            bias: None,
            alibi: false,
            input: ElementType::F32,
            output: ElementType::F32,
            q_layout: Layout::Bhld,
            k_layout: Layout::Bhld,
            v_layout: Layout::Bhld,
            out_layout: Layout::Bhld,
        }
    }

    setters! {
        /// Sets the number of key and value heads (grouped-query attention).
        kv_heads: usize,
        /// Sets the number of keys (cross-attention, or queries behind a key cache).
        kv_len: usize,
        /// Sets the number of queries.
        q_len: usize,
        /// Sets the size of a value row.
        value_dim: usize,
        /// Sets whether the ALiBi term is added.
        alibi: bool,
        /// Sets the storage of q, k and v.
        input: ElementType,
        /// Sets the storage of out.
        output: ElementType,
        /// Sets where q lies.
        q_layout: Layout,
        /// Sets where k lies.
        k_layout: Layout,
        /// Sets where v lies.
        v_layout: Layout,
        /// Sets where out lies.
        out_layout: Layout,
    }

    /// Sets the factor of q . k.
    pub fn scale(mut self, scale: f32) -> Self {
        self.scale = Some(scale);
        self
    }

    /// Sets the cap c of c tanh(score / c).
    pub fn softcap(mut self, cap: f32) -> Self {
        self.softcap = Some(cap);
        self
    }

    /// Adds a bias tensor with these strides.
    pub fn bias(mut self, strides: BiasStrides) -> Self {
        self.bias = Some(strides);
        self
    }

    /// Sets the storage of q, k, v and out.
    pub fn elements(self, element: ElementType) -> Self {
        self.input(element).output(element)
    }

    /// Sets the layout of q, k, v and out.
    pub fn layout(self, layout: Layout) -> Self {
        self.q_layout(layout).k_layout(layout).v_layout(layout).out_layout(layout)
    }

    /// The factor of q . k, resolved.
    pub fn scale_value(&self) -> f32 {
        self.scale.unwrap_or((1.0 / (self.head_dim as f64).sqrt()) as f32)
    }

    /// The key/value head that a query head reads.
    pub fn kv_head(&self, head: usize) -> usize {
        head / (self.heads / self.kv_heads)
    }

    /// ALiBi's slopes, one a query head: 2^(-8 h / H) for h = 1 ..= H (Press 2022, section 3), rounded to f32.
    pub fn alibi_slopes(&self) -> Vec<f32> {
        (1..=self.heads).map(|h| (-8.0 * h as f64 / self.heads as f64).exp2() as f32).collect()
    }

    /// Strides of q.
    pub fn q_strides(&self) -> Strides {
        strides(self.q_layout, self.heads, self.q_len, self.head_dim)
    }

    /// Strides of k.
    pub fn k_strides(&self) -> Strides {
        strides(self.k_layout, self.kv_heads, self.kv_len, self.head_dim)
    }

    /// Strides of v.
    pub fn v_strides(&self) -> Strides {
        strides(self.v_layout, self.kv_heads, self.kv_len, self.value_dim)
    }

    /// Strides of out.
    pub fn out_strides(&self) -> Strides {
        strides(self.out_layout, self.heads, self.q_len, self.value_dim)
    }

    /// Elements from the start of q to the end of its last row.
    pub fn len_q(&self) -> usize {
        extent(self.q_strides(), [self.batch, self.heads, self.q_len], self.head_dim)
    }

    /// Elements from the start of k to the end of its last row.
    pub fn len_k(&self) -> usize {
        extent(self.k_strides(), [self.batch, self.kv_heads, self.kv_len], self.head_dim)
    }

    /// Elements from the start of v to the end of its last row.
    pub fn len_v(&self) -> usize {
        extent(self.v_strides(), [self.batch, self.kv_heads, self.kv_len], self.value_dim)
    }

    /// Elements from the start of out to the end of its last row.
    pub fn len_out(&self) -> usize {
        extent(self.out_strides(), [self.batch, self.heads, self.q_len], self.value_dim)
    }

    /// Elements of lse: B H Lq.
    pub fn len_lse(&self) -> usize {
        self.batch * self.heads * self.q_len
    }

    /// Elements from the start of the bias to its last element; 0 without a bias.
    pub fn len_bias(&self) -> usize {
        let Some(s) = self.bias else { return 0 };
        if self.is_empty() {
            return 0;
        }
        s.at(self.batch - 1, self.heads - 1, self.q_len - 1, self.kv_len - 1) + 1
    }

    /// Whether there is nothing to compute: no batch item or no query.
    pub fn is_empty(&self) -> bool {
        self.batch == 0 || self.q_len == 0
    }

    /// Floating-point operations for a number of attended (or visited) pairs: 2 (d + dv) a pair.
    pub fn flops(&self, pairs: u64) -> f64 {
        2.0 * (self.head_dim + self.value_dim) as f64 * pairs as f64
    }

    /// Checks everything that can be said without a device.
    ///
    /// # Errors
    /// [`Error::Argument`] for a zero size, a head count that is no multiple, a dimension past
    /// [`MAX_DIM`](Self::MAX_DIM), a non-finite scale or a cap that is not positive, strides of out under which
    /// rows overlap; [`Error::Limit`] where an element offset would pass 32 bits.
    pub fn check(&self) -> Result<()> {
        for (name, size) in [("heads", self.heads), ("kv_heads", self.kv_heads), ("kv_len", self.kv_len)] {
            if size == 0 {
                return Err(Error::argument(name, "at least 1", 0));
            }
        }
        if !self.heads.is_multiple_of(self.kv_heads) {
            let need = format!("a divisor of heads ({})", self.heads);
            return Err(Error::argument("kv_heads", need, self.kv_heads));
        }
        for (name, dim) in [("head_dim", self.head_dim), ("value_dim", self.value_dim)] {
            if !(1..=Self::MAX_DIM).contains(&dim) {
                return Err(Error::argument(name, format!("1 to {}", Self::MAX_DIM), dim));
            }
        }
        if !self.scale_value().is_finite() {
            return Err(Error::argument("scale", "a finite number", self.scale_value()));
        }
        if let Some(cap) = self.softcap.filter(|cap| !(cap.is_finite() && *cap > 0.0)) {
            return Err(Error::argument("softcap", "a finite number above 0", cap));
        }
        check_layout("q_layout", self.q_layout, [self.batch, self.heads, self.q_len], self.head_dim)?;
        check_layout("k_layout", self.k_layout, [self.batch, self.kv_heads, self.kv_len], self.head_dim)?;
        check_layout("v_layout", self.v_layout, [self.batch, self.kv_heads, self.kv_len], self.value_dim)?;
        let out = [self.batch, self.heads, self.q_len];
        check_layout("out_layout", self.out_layout, out, self.value_dim)?;
        check_no_overlap(self.out_strides(), out, self.value_dim)?;
        // Sizes first: every product above is then known to fit.
        let bias = self.bias.map_or(0, |s| {
            [(s.batch, self.batch), (s.head, self.heads), (s.query, self.q_len), (s.key, self.kv_len)]
                .iter()
                .fold(1u128, |sum, &(stride, size)| sum + stride as u128 * size.saturating_sub(1) as u128)
        });
        let lse = [self.batch, self.heads, self.q_len].iter().map(|&x| x as u128).product();
        for (what, need) in [("bias", bias), ("lse", lse), ("kv_len", self.kv_len as u128)] {
            check_u32(what, need)?;
        }
        Ok(())
    }
}

fn strides(layout: Layout, heads: usize, len: usize, dim: usize) -> Strides {
    match layout {
        Layout::Bhld => Strides { batch: heads * len * dim, head: len * dim, row: dim },
        Layout::Blhd => Strides { batch: heads * len * dim, head: dim, row: heads * dim },
        Layout::Strided(strides) => strides,
    }
}

fn extent(s: Strides, sizes: [usize; 3], dim: usize) -> usize {
    if sizes.contains(&0) {
        return 0;
    }
    s.at(sizes[0] - 1, sizes[1] - 1, sizes[2] - 1) + dim
}

fn check_u32(what: &'static str, need: u128) -> Result<()> {
    if need > u32::MAX as u128 {
        return Err(Error::limit(
            what,
            "elements a tensor",
            need.min(u64::MAX as u128) as u64,
            u32::MAX as u64,
        ));
    }
    Ok(())
}

/// Every element offset must fit 32 bits: WGSL has no wider index. Computed in u128, since the sizes are unchecked.
fn check_layout(name: &'static str, layout: Layout, sizes: [usize; 3], dim: usize) -> Result<()> {
    let need = match layout {
        Layout::Bhld | Layout::Blhd => sizes.iter().map(|&x| x as u128).product::<u128>() * dim as u128,
        Layout::Strided(s) => [s.batch, s.head, s.row]
            .iter()
            .zip(sizes)
            .fold(dim as u128, |sum, (&stride, size)| sum + stride as u128 * size.saturating_sub(1) as u128),
    };
    check_u32(name, need)
}

/// Two output rows may not share an element: with the axes sorted by stride, each stride must span all that the
/// smaller ones reach.
fn check_no_overlap(s: Strides, sizes: [usize; 3], dim: usize) -> Result<()> {
    if sizes.contains(&0) {
        return Ok(());
    }
    let mut axes: Vec<_> =
        [s.batch, s.head, s.row].into_iter().zip(sizes).filter(|axis| axis.1 > 1).collect();
    axes.sort_unstable();
    let mut reach = dim;
    for (stride, size) in axes {
        if stride < reach {
            let got = format!("a stride of {stride} (batch {}, head {}, row {})", s.batch, s.head, s.row);
            return Err(Error::argument(
                "out_layout",
                format!("rows that do not overlap: {reach} apart"),
                got,
            ));
        }
        reach += stride * (size - 1);
    }
    Ok(())
}

// Behind the macro and the checks that they share.
mod activation;
mod feed_forward;
mod matmul;
mod rotary;
mod rows;

pub use activation::Activation;
pub use feed_forward::FeedForwardShape;
pub use matmul::{Combine, MatmulShape, RowStrides, WeightOrder};
pub use rotary::{RotaryPairs, RotaryShape, rotary_tables};
pub use rows::{AddShape, EmbedShape, NormKind, NormShape, SoftmaxShape, sinusoidal_positions};
