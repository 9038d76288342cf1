pub(in crate::pattern) mod table;

use super::{Extent, Identity, Pattern, Range, Site, Span, Varies, spans};
use crate::{Error, Result};
use std::fmt;
use std::sync::Arc;

/// A user's own layout of blocks: query block i / block attends key block j / block where the layout says so, for
/// each head or for all. As many keys per row as its layout row has blocks, times `block`.
///
/// ```text
/// block: 2, layout: 1 0 0
///                   0 1 1
/// ██····
/// ██····
/// ··████
/// ··████
/// ```
///
/// At Lq != Lk the layout is what it says: both sides count from their first position, there is no alignment, and the
/// layout has Lq / block rows and Lk / block columns, rounded up; the last block of a side may be short. `block` is
/// the layout's own and need not be the block of any kernel. This is the layout of DeepSpeed's and OpenAI's
/// block-sparse kernels; theirs knows nothing inside a block, so for "unidirectional" layouts combine it with
/// [`Causal`](super::Causal) by [`And`](super::And).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
pub struct Blocks {
    /// Positions per block, at least 1.
    pub block: usize,
    /// Which blocks meet.
    #[cfg_attr(feature = "serde", serde(default))]
    pub layout: BlockLayout,
}

/// Which block of queries attends which block of keys, `[H or 1, query blocks, key blocks]`. Cheap to clone.
///
/// ```
/// use wgpu_attention::{BlockLayout, Blocks};
/// let cells = [[1, 0, 0], [0, 1, 1]];
/// let layout = BlockLayout::new([1, 2, 3], cells.as_flattened().iter().map(|&cell| cell == 1))?;
/// assert_eq!(layout, BlockLayout::from_columns(3, &[vec![vec![0], vec![1, 2]]])?);
/// let pattern = Blocks { block: 64, layout };
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "json::Layout", into = "json::Layout"))]
pub struct BlockLayout {
    sizes: [usize; 3],
    /// For each head and block row its stretches of columns: a dense table of a million keys would not fit.
    rows: Arc<[Vec<Range<u32>>]>,
}

impl BlockLayout {
    /// A layout from its cells, `sizes` = `[heads or 1, query blocks, key blocks]`, the last axis fastest.
    ///
    /// # Errors
    /// [`Error::Argument`] where the number of cells is not the product of the sizes, or a size is 0.
    pub fn new(sizes: [usize; 3], cells: impl IntoIterator<Item = bool>) -> Result<Self> {
        let cells: Vec<bool> = cells.into_iter().collect();
        check_sizes(sizes)?;
        let need = sizes.iter().try_fold(1usize, |product, &size| product.checked_mul(size));
        if need != Some(cells.len()) {
            let [heads, q_blocks, k_blocks] = sizes;
            let need = format!("{heads} x {q_blocks} x {k_blocks} cells");
            return Err(Error::argument("Blocks.layout", need, cells.len()));
        }
        let rows = cells.chunks(sizes[2]).map(|row| {
            columns_to_runs((0u32..).zip(row).filter(|(_, cell)| **cell).map(|(column, _)| column))
        });
        Ok(Self { sizes, rows: rows.collect() })
    }

    /// A layout from the key blocks of each query block of each head (or of the one that all heads share).
    ///
    /// # Errors
    /// [`Error::Argument`] where there is no head or block, heads have unequal numbers of rows, or a row's columns
    /// are not ascending, come twice, or reach `k_blocks`; [`Error::Limit`] for 2^32 key blocks and more.
    pub fn from_columns(k_blocks: usize, heads: &[Vec<Vec<u32>>]) -> Result<Self> {
        let q_blocks = heads.first().map_or(0, Vec::len);
        check_sizes([heads.len(), q_blocks, k_blocks])?;
        for (head, rows) in heads.iter().enumerate() {
            if rows.len() != q_blocks {
                let need = format!("{q_blocks} rows, as in head 0");
                return Err(Error::argument(format!("Blocks.layout[{head}]"), need, rows.len()));
            }
            for (row, columns) in rows.iter().enumerate() {
                let name = || format!("Blocks.layout[{head}][{row}]");
                if let Some(pair) = columns.windows(2).find(|pair| pair[0] >= pair[1]) {
                    let got = format!("{} before {}", pair[0], pair[1]);
                    return Err(Error::argument(name(), "ascending columns, each once", got));
                }
                if let Some(&column) = columns.last().filter(|&&column| column as usize >= k_blocks) {
                    return Err(Error::argument(name(), format!("columns below {k_blocks}"), column));
                }
            }
        }
        let rows = heads.iter().flatten().map(|columns| columns_to_runs(columns.iter().copied()));
        Ok(Self { sizes: [heads.len(), q_blocks, k_blocks], rows: rows.collect() })
    }

    /// `[heads or 1, query blocks, key blocks]`.
    pub fn sizes(&self) -> [usize; 3] {
        self.sizes
    }

    /// Whether query block `r` attends key block `c`. `false` past the layout.
    pub fn keeps(&self, head: usize, r: usize, c: usize) -> bool {
        table::has(self.row(head, r), c)
    }

    /// A layout from the stretches of columns of each row, which are ascending and do not touch.
    pub(super) fn from_rows(sizes: [usize; 3], rows: Vec<Vec<Range<u32>>>) -> Self {
        Self { sizes, rows: rows.into() }
    }

    /// The stretches of columns of a row; none past the layout.
    pub(super) fn row(&self, head: usize, r: usize) -> &[Range<u32>] {
        let [heads, q_blocks, _] = self.sizes;
        let head = if heads == 1 { 0 } else { head };
        if head >= heads || r >= q_blocks {
            return &[];
        }
        &self.rows[head * q_blocks + r]
    }
}

fn check_sizes(sizes: [usize; 3]) -> Result<()> {
    if sizes.contains(&0) {
        let [heads, q_blocks, k_blocks] = sizes;
        let got = format!("{heads} x {q_blocks} x {k_blocks}");
        return Err(Error::argument("Blocks.layout", "at least one head and one block per side", got));
    }
    // The end of a stretch of columns is stored in 32 bits.
    let most = u32::MAX as usize;
    if sizes[2] > most {
        let k_blocks = sizes[2] as u64;
        return Err(Error::limit(
            "Blocks.layout",
            "the largest 32-bit index of a key block",
            k_blocks,
            most as u64,
        ));
    }
    Ok(())
}

fn columns_to_runs(columns: impl Iterator<Item = u32>) -> Vec<Range<u32>> {
    let mut runs: Vec<Range<u32>> = Vec::new();
    for column in columns {
        match runs.last_mut() {
            Some(run) if run.end == column => run.end += 1,
            _ => runs.push(column..column + 1),
        }
    }
    runs
}

impl Pattern for Blocks {
    fn keep(&self, site: &Site, i: usize, j: usize) -> bool {
        let block = self.block.max(1);
        self.layout.keeps(site.head, i / block, j / block)
    }

    fn keep_word(&self, site: &Site, i: usize, j: usize) -> u32 {
        let block = self.block.max(1);
        table::word(self.layout.row(site.head, i / block), block, j, site.extent.kv_len)
    }

    fn spans(&self, site: &Site, rows: Range<usize>) -> Vec<Span> {
        let (block, kv_len) = (self.block.max(1), site.extent.kv_len);
        let row = |r| table::stretches(self.layout.row(site.head, r), block, kv_len);
        spans::all_together((rows.start / block..=(rows.end - 1) / block).map(row).collect(), kv_len)
    }

    fn varies(&self) -> Varies {
        Varies { batch: false, heads: self.layout.sizes[0] > 1 }
    }

    fn why(&self) -> Option<&'static str> {
        table::why(self.block)
    }

    fn check(&self, extent: &Extent) -> Result<()> {
        if self.block == 0 {
            return Err(Error::argument("Blocks.block", "at least 1", 0));
        }
        let [heads, q_blocks, k_blocks] = self.layout.sizes;
        if self.layout.rows.is_empty() {
            return Err(Error::argument("Blocks.layout", "a layout", "none"));
        }
        if heads != 1 && heads != extent.heads {
            let need = format!("1 head or {}", extent.heads);
            return Err(Error::argument("Blocks.layout", need, heads));
        }
        let (need_q, need_k) = (extent.q_len.div_ceil(self.block), extent.kv_len.div_ceil(self.block));
        // Without queries any number of rows will do, without keys any of columns: nothing is asked of them.
        if (extent.q_len > 0 && q_blocks != need_q) || (extent.kv_len > 0 && k_blocks != need_k) {
            let Self { block, .. } = self;
            let need = format!(
                "{need_q} x {need_k} blocks of {block} for {} queries and {} keys",
                extent.q_len, extent.kv_len
            );
            return Err(Error::argument("Blocks.layout", need, format!("{q_blocks} x {k_blocks}")));
        }
        Ok(())
    }

    fn alike(&self, _: &Site, a: usize, b: usize) -> bool {
        let block = self.block.max(1);
        a / block == b / block
    }

    fn identity(&self) -> Identity<'_> {
        Identity::of(self)
    }
}

/// Sizes and a count instead of every stretch.
impl fmt::Debug for BlockLayout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let blocks: usize = self.rows.iter().flatten().map(ExactSizeIterator::len).sum();
        write!(f, "BlockLayout {{ sizes: {:?}, {blocks} blocks set }}", self.sizes)
    }
}

#[cfg(feature = "serde")]
mod json {
    use super::super::json::Bit;
    use crate::{Error, Result};
    use serde::{Deserialize, Serialize};

    #[derive(Serialize, Deserialize)]
    #[serde(untagged, expecting = "nested lists of 0 and 1: [rows][columns] or [heads][rows][columns]")]
    pub(super) enum Layout {
        Shared(Vec<Vec<Bit>>),
        PerHead(Vec<Vec<Vec<Bit>>>),
    }

    impl TryFrom<Layout> for super::BlockLayout {
        type Error = Error;

        fn try_from(json: Layout) -> Result<Self> {
            let heads = match json {
                Layout::Shared(rows) => vec![rows],
                Layout::PerHead(heads) => heads,
            };
            let q_blocks = heads.first().map_or(0, Vec::len);
            let k_blocks = heads.first().and_then(|rows| rows.first()).map_or(0, Vec::len);
            for (head, rows) in heads.iter().enumerate() {
                let ragged = rows.iter().find(|row| row.len() != k_blocks).map(Vec::len);
                if rows.len() != q_blocks || ragged.is_some() {
                    let need = format!("{q_blocks} rows of {k_blocks}, as at the start");
                    let got = ragged.map_or(format!("{} rows", rows.len()), |len| format!("a row of {len}"));
                    return Err(Error::argument(format!("Blocks.layout[{head}]"), need, got));
                }
            }
            let cells = heads.iter().flatten().flatten().map(|bit| bit.0);
            super::BlockLayout::new([heads.len(), q_blocks, k_blocks], cells)
        }
    }

    impl From<super::BlockLayout> for Layout {
        fn from(layout: super::BlockLayout) -> Self {
            let [heads, q_blocks, k_blocks] = layout.sizes;
            let row = |head, r| (0..k_blocks).map(|c| Bit(layout.keeps(head, r, c))).collect();
            Self::PerHead((0..heads).map(|head| (0..q_blocks).map(|r| row(head, r)).collect()).collect())
        }
    }
}
