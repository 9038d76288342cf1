use wgpu_attention::{Attention, AttentionShape, Layout, Layouts, Strides};

/// How the tensors of a call lie in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placement {
    /// `[B, H, L, D]`.
    Bhld,
    /// `[B, L, H, D]`.
    Blhd,
    /// q, k and v as views into one tensor `[B, L, (H + 2 Hkv) D]`: needs Lq = Lk and d = dv.
    PackedQkv,
    /// `[B, H, L, D]` with a gap of so many elements behind every row, and 3 times that behind every head.
    Gap(usize),
    /// `[B, L, H, D]` with gaps.
    BlhdGap(usize),
    /// k and v of the first batch item and head serve all.
    SharedKv,
    /// As `Gap(4)`, from so many elements on.
    Offset(usize),
    /// As `Gap` with so many elements, with rows, heads and batch items in reverse: every stride is negative.
    Reversed(usize),
}

impl Placement {
    /// The call, laid out so.
    pub fn apply(self, attention: impl Into<Attention>) -> Attention {
        let attention = attention.into();
        let layouts = self.layouts(&attention.shape);
        attention.layouts(layouts)
    }

    /// Where the tensors of these sizes lie.
    pub fn layouts(self, shape: &AttentionShape) -> Layouts {
        let AttentionShape { batch, heads, kv_heads, q_len, kv_len, head_dim, value_dim, .. } = *shape;
        // q, k, v and out, each from its heads, rows and elements per row.
        let each = |strides: &dyn Fn(usize, usize, usize) -> Strides| {
            let of = |heads, len, dim| Layout::Strided(strides(heads, len, dim));
            Layouts::all(of(heads, q_len, head_dim))
                .k(of(kv_heads, kv_len, head_dim))
                .v(of(kv_heads, kv_len, value_dim))
                .out(of(heads, q_len, value_dim))
        };
        match self {
            Self::Bhld => Layouts::all(Layout::Bhld),
            Self::Blhd => Layouts::all(Layout::Blhd),
            Self::PackedQkv => {
                assert!(q_len == kv_len && head_dim == value_dim, "packed tensors are of one size");
                let row = (heads + 2 * kv_heads) * head_dim;
                let packed = strides(q_len * row, head_dim, row);
                Layouts::default()
                    .q(Layout::Strided(packed))
                    .k(Layout::Strided(packed.offset(heads * head_dim)))
                    .v(Layout::Strided(packed.offset((heads + kv_heads) * head_dim)))
            }
            Self::Gap(gap) => each(&|heads, len, dim| bhld(heads, len, dim, gap)),
            Self::BlhdGap(gap) => each(&|heads, len, dim| blhd(heads, len, dim, gap)),
            Self::SharedKv => Layouts::default()
                .k(Layout::Strided(strides(0, 0, head_dim)))
                .v(Layout::Strided(strides(0, 0, value_dim))),
            Self::Offset(offset) => each(&|heads, len, dim| bhld(heads, len, dim, 4).offset(offset)),
            Self::Reversed(gap) => each(&|heads, len, dim| {
                let Strides { batch: item, head, row, .. } = bhld(heads, len, dim, gap);
                let last =
                    (batch as isize - 1) * item + (heads as isize - 1) * head + (len as isize - 1) * row;
                Strides::new(-item, -head, -row).offset(last as usize)
            }),
        }
    }
}

fn strides(batch: usize, head: usize, row: usize) -> Strides {
    Strides::new(batch as isize, head as isize, row as isize)
}

fn bhld(heads: usize, len: usize, dim: usize, gap: usize) -> Strides {
    let row = dim + gap;
    let head = len * row + 3 * gap;
    strides(heads * head, head, row)
}

fn blhd(heads: usize, len: usize, dim: usize, gap: usize) -> Strides {
    let head = dim + gap;
    let row = heads * head + gap;
    strides(len * row + 3 * gap, head, row)
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
