use wgpu_attention::{AttentionShape, Layout, Strides};

/// How the tensors of a call lie in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placement {
    /// `[B, H, L, D]`.
    Bhld,
    /// `[B, L, H, D]`.
    Blhd,
    /// q, k and v in one row of a position, `[B, L, (H + 2 Hkv) D]`: needs Lq = Lk and d = dv.
    PackedQkv,
    /// `[B, H, L, D]` with a gap of so many elements behind every row, and 3 times that behind every head.
    Gap(usize),
    /// `[B, L, H, D]` with gaps.
    BlhdGap(usize),
    /// k and v of the first batch item and head serve all.
    SharedKv,
}

impl Placement {
    /// The shape, laid out so.
    pub fn apply(self, shape: AttentionShape) -> AttentionShape {
        let AttentionShape { heads, kv_heads, q_len, kv_len, head_dim, value_dim, .. } = shape;
        match self {
            Self::Bhld => shape.layout(Layout::Bhld),
            Self::Blhd => shape.layout(Layout::Blhd),
            Self::PackedQkv => {
                assert!(q_len == kv_len && head_dim == value_dim, "packed tensors are of one size");
                let row = (heads + 2 * kv_heads) * head_dim;
                let packed = Layout::Strided(Strides { batch: q_len * row, head: head_dim, row });
                shape.q_layout(packed).k_layout(packed).v_layout(packed)
            }
            Self::Gap(gap) => shape
                .q_layout(bhld(heads, q_len, head_dim, gap))
                .k_layout(bhld(kv_heads, kv_len, head_dim, gap))
                .v_layout(bhld(kv_heads, kv_len, value_dim, gap))
                .out_layout(bhld(heads, q_len, value_dim, gap)),
            Self::BlhdGap(gap) => shape
                .q_layout(blhd(heads, q_len, head_dim, gap))
                .k_layout(blhd(kv_heads, kv_len, head_dim, gap))
                .v_layout(blhd(kv_heads, kv_len, value_dim, gap))
                .out_layout(blhd(heads, q_len, value_dim, gap)),
            Self::SharedKv => shape
                .k_layout(Layout::Strided(Strides { batch: 0, head: 0, row: head_dim }))
                .v_layout(Layout::Strided(Strides { batch: 0, head: 0, row: value_dim })),
        }
    }
}

fn bhld(heads: usize, len: usize, dim: usize, gap: usize) -> Layout {
    let row = dim + gap;
    let head = len * row + 3 * gap;
    Layout::Strided(Strides { batch: heads * head, head, row })
}

fn blhd(heads: usize, len: usize, dim: usize, gap: usize) -> Layout {
    let head = dim + gap;
    let row = heads * head + gap;
    Layout::Strided(Strides { batch: len * row + 3 * gap, head, row })
}

/// Which elements of `0..len` belong to a row.
pub(crate) fn covered(strides: Strides, sizes: [usize; 3], dim: usize, len: usize) -> Vec<bool> {
    let mut covered = vec![false; len];
    for batch in 0..sizes[0] {
        for head in 0..sizes[1] {
            for row in 0..sizes[2] {
                covered[strides.at(batch, head, row)..][..dim].fill(true);
            }
        }
    }
    covered
}

/// The rows of a tensor one after another, `[B, H, L, D]`.
pub fn contiguous<T: Copy>(data: &[T], strides: Strides, sizes: [usize; 3], dim: usize) -> Vec<T> {
    let [batch, heads, len] = sizes;
    let rows = (0..batch * heads * len).map(|n| strides.at(n / len / heads, n / len % heads, n % len));
    rows.flat_map(|at| data[at..at + dim].iter().copied()).collect()
}
