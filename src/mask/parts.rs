use super::{BlockMask, count};
use crate::{Error, Extent, Result};
use std::sync::{Arc, OnceLock};

/// A block mask over queries and keys in an order of their own.
///
/// Row i' of the mask is query `q_order[i']`, its key j' is key `k_order[j']`. What is scattered in natural order
/// (every 64th key, a few global tokens) lies densely in the right one. Without an order, places are positions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Which places meet.
    pub mask: BlockMask,
    /// The query of each row of the mask; each query at most once. `None`: all queries in natural order.
    pub q_order: Option<Arc<[u32]>>,
    /// The key of each key of the mask. `None`: all keys in natural order. A key may come several times, as long as no
    /// query keeps two of its places; then the part cannot be [transposed](Parts::transpose). The parts of the crate's own
    /// patterns have each key once.
    pub k_order: Option<Arc<[u32]>>,
}

/// Parts whose sets of pairs are disjoint: together they are one pattern, and their results merge by log-sum-exp.
///
/// The first part covers every query, in whatever order, so that it writes each row; the later ones merge into it.
/// Cheap to clone.
///
/// ```
/// use wgpu_attention::{Causal, Window, mask::{BlockGrid, BlockMask, Part, Parts}};
/// // Every query sees the two keys before its own; query 30 sees the keys 0 to 15, too.
/// let near = BlockMask::new(&Window { before: 2, after: 0 }, BlockGrid::new(64, 64))?;
/// let far = BlockMask::new(&wgpu_attention::Full, BlockGrid::new(1, 16))?;
/// let parts = Parts::new(
///     vec![
///         Part { mask: near, q_order: None, k_order: None },
///         Part { mask: far, q_order: Some([30].into()), k_order: Some((0..16).collect()) },
///     ],
///     BlockGrid::new(64, 64).extent(),
/// )?;
/// parts.check_disjoint()?;
/// assert!(parts.keeps(0, 0, 30, 7) && !parts.keeps(0, 0, 31, 7));
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Parts {
    extent: Extent,
    parts: Arc<[Part]>,
    /// Made when first asked for: a kernel needs no way back from positions to places.
    places: Arc<OnceLock<Vec<[Option<Places>; 2]>>>,
    pub(super) note: Option<Arc<str>>,
}

/// For each position its places in an order.
#[derive(Debug)]
struct Places {
    /// Where a position's places start in `places`, with a closing entry.
    starts: Vec<u32>,
    places: Vec<u32>,
}

impl Parts {
    /// Parts over the lengths `extent`. That their sets are disjoint is taken on trust, see
    /// [`check_disjoint`](Self::check_disjoint).
    ///
    /// # Errors
    /// [`Error::Argument`] where there is no part, the first leaves out a query, an order's length is not that of its
    /// mask's grid, an index is out of range, a query comes twice, or a grid does not fit `extent`.
    pub fn new(parts: Vec<Part>, extent: Extent) -> Result<Self> {
        match parts.first() {
            None => return Err(Error::argument("parts", "at least 1", 0)),
            Some(Part { q_order: Some(order), .. }) if order.len() != extent.q_len => {
                let need = format!("every query ({}): the first part writes each row", extent.q_len);
                return Err(Error::argument("parts[0].q_order", need, order.len()));
            }
            Some(_) => {}
        }
        for (index, part) in parts.iter().enumerate() {
            part.check(index, &extent)?;
        }
        Ok(Self { extent, parts: parts.into(), places: Arc::default(), note: None })
    }

    /// The parts, in the order in which they run.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// The lengths of queries and keys.
    pub fn extent(&self) -> &Extent {
        &self.extent
    }

    /// Whether query `i` keeps key `j` in any part. `false` for an index past the lengths.
    pub fn keeps(&self, batch: usize, head: usize, i: usize, j: usize) -> bool {
        self.times(batch, head, i, j) > 0
    }

    /// How often query `i` meets key `j`.
    fn times(&self, batch: usize, head: usize, i: usize, j: usize) -> usize {
        let meets = |(part, [q, k]): (&Part, &[Option<Places>; 2])| {
            let pairs = places(q, i).flat_map(|i| places(k, j).map(move |j| (i, j)));
            pairs.filter(|&(i, j)| part.mask.keeps(batch, head, i, j)).count()
        };
        self.parts.iter().zip(self.places()).map(meets).sum()
    }

    /// For each part, the keys that query `i` keeps in it, in the order in which a kernel walks them.
    pub fn key_order(&self, batch: usize, head: usize, i: usize) -> Vec<Vec<u32>> {
        let keys = |(part, [q, _]): (&Part, &[Option<Places>; 2])| {
            let keys = places(q, i).flat_map(|i| part.mask.key_order(batch, head, i));
            match &part.k_order {
                Some(order) => keys.map(|j| order[j as usize]).collect(),
                None => keys.collect(),
            }
        };
        self.parts.iter().zip(self.places()).map(keys).collect()
    }

    /// In how many tiles of 16 keys, counted in places of each part, query `i` keeps a key: what bounds the longest sum of a
    /// kernel that adds up each tile by itself.
    pub fn key_tiles(&self, batch: usize, head: usize, i: usize) -> usize {
        let tiles = |(part, [q, _]): (&Part, &[Option<Places>; 2])| -> usize {
            places(q, i)
                .map(|i| {
                    let keys = part.mask.key_order(batch, head, i);
                    keys.chunk_by(|a, b| a / 16 == b / 16).count()
                })
                .sum()
        };
        self.parts.iter().zip(self.places()).map(tiles).sum()
    }

    /// Pairs that are kept, over all parts, batch items and heads.
    pub fn kept(&self) -> u64 {
        self.parts.iter().map(|part| part.mask.kept()).sum()
    }

    /// Pairs of the blocks that are visited, over all parts, batch items and heads.
    pub fn visited(&self) -> u64 {
        self.parts.iter().map(|part| part.mask.visited()).sum()
    }

    /// Visited pairs per kept pair: 1 is no waste.
    pub fn waste(&self) -> f64 {
        count::waste(self.visited(), self.kept())
    }

    /// Where [`lower`](Self::lower) found no way to visit at most 4 pairs per kept pair: which part wastes visits, and
    /// why, as one sentence.
    pub fn note(&self) -> Option<&str> {
        self.note.as_deref()
    }

    /// Size of all masks and orders as a kernel reads them.
    pub fn bytes(&self) -> u64 {
        let order = |order: &Option<Arc<[u32]>>| order.as_ref().map_or(0, |order| 4 * order.len() as u64);
        self.parts.iter().map(|part| part.mask.bytes() + order(&part.q_order) + order(&part.k_order)).sum()
    }

    /// Checks that no pair is met twice, which would count its key twice: a bias of ln 2. Walks every kept pair, in
    /// memory for the keys of one query.
    ///
    /// # Errors
    /// [`Error::Argument`] naming the first such pair.
    pub fn check_disjoint(&self) -> Result<()> {
        let Extent { batch, heads, q_len, .. } = self.extent;
        for (batch, head) in (0..batch).flat_map(|batch| (0..heads).map(move |head| (batch, head))) {
            for i in 0..q_len {
                let mut keys = self.key_order(batch, head, i).concat();
                keys.sort_unstable();
                if let Some(twice) = keys.windows(2).find(|pair| pair[0] == pair[1]) {
                    let got =
                        format!("query {i} and key {} twice (batch item {batch}, head {head})", twice[0]);
                    return Err(Error::argument("parts", "each pair at most once", got));
                }
            }
        }
        Ok(())
    }

    fn places(&self) -> &[[Option<Places>; 2]] {
        self.places.get_or_init(|| {
            let Extent { q_len, kv_len, .. } = self.extent;
            let of = |order: &Option<Arc<[u32]>>, len| order.as_deref().map(|order| Places::new(order, len));
            self.parts.iter().map(|part| [of(&part.q_order, q_len), of(&part.k_order, kv_len)]).collect()
        })
    }
}

impl PartialEq for Parts {
    fn eq(&self, other: &Self) -> bool {
        self.extent == other.extent && self.parts == other.parts
    }
}

impl From<BlockMask> for Parts {
    fn from(mask: BlockMask) -> Self {
        let extent = mask.grid().extent();
        let parts = [Part { mask, q_order: None, k_order: None }].into();
        Self { extent, parts, places: Arc::default(), note: None }
    }
}

impl From<&BlockMask> for Parts {
    fn from(mask: &BlockMask) -> Self {
        mask.clone().into()
    }
}

impl From<&Parts> for Parts {
    fn from(parts: &Parts) -> Self {
        parts.clone()
    }
}

impl Part {
    fn check(&self, index: usize, extent: &Extent) -> Result<()> {
        let grid = self.mask.grid();
        for (axis, got, need) in [("batch", grid.batch, extent.batch), ("heads", grid.heads, extent.heads)] {
            if got != need {
                return Err(Error::argument(format!("parts[{index}].mask {axis}"), need, got));
            }
        }
        let name = |axis| format!("parts[{index}].{axis}");
        check_order(name("q_order"), self.q_order.as_deref(), grid.q_len, extent.q_len)?;
        check_order(name("k_order"), self.k_order.as_deref(), grid.kv_len, extent.kv_len)?;
        self.check_rows(name("q_order"), "query", extent.q_len)
    }

    /// Checks that no row of the part is another's, too: the rows are `len` queries, or keys of a transposed part.
    pub(super) fn check_rows(&self, name: String, row: &str, len: usize) -> Result<()> {
        let Some(order) = &self.q_order else { return Ok(()) };
        let mut seen = vec![false; len];
        match order.iter().find(|&&i| std::mem::replace(&mut seen[i as usize], true)) {
            Some(i) => Err(Error::argument(name, format!("each {row} at most once"), format!("{i} twice"))),
            None => Ok(()),
        }
    }
}

fn check_order(name: String, order: Option<&[u32]>, places: usize, len: usize) -> Result<()> {
    let Some(order) = order else {
        return match places == len {
            true => Ok(()),
            false => Err(Error::argument(
                name,
                format!("an order, or a mask of all {len}"),
                format!("a mask of {places}"),
            )),
        };
    };
    if order.len() != places {
        return Err(Error::argument(name, format!("{places} entries, as in the mask"), order.len()));
    }
    match order.iter().find(|&&at| at as usize >= len) {
        Some(at) => Err(Error::argument(name, format!("indices below {len}"), at)),
        None => Ok(()),
    }
}

/// The places of a position; the position itself where there is no order.
fn places(order: &Option<Places>, position: usize) -> impl Iterator<Item = usize> + Clone + '_ {
    let (itself, listed) = match order {
        None => (Some(position), &[][..]),
        Some(order) => (None, order.get(position)),
    };
    itself.into_iter().chain(listed.iter().map(|&place| place as usize))
}

impl Places {
    /// A counting sort of the places by position.
    fn new(order: &[u32], len: usize) -> Self {
        let mut starts = vec![0u32; len + 1];
        for &position in order {
            starts[position as usize + 1] += 1;
        }
        for position in 0..len {
            starts[position + 1] += starts[position];
        }
        let (mut next, mut places) = (starts.clone(), vec![0; order.len()]);
        for (place, &position) in order.iter().enumerate() {
            let at = &mut next[position as usize];
            places[*at as usize] = place as u32;
            *at += 1;
        }
        Self { starts, places }
    }

    fn get(&self, position: usize) -> &[u32] {
        match (self.starts.get(position), self.starts.get(position + 1)) {
            (Some(&first), Some(&end)) => &self.places[first as usize..end as usize],
            _ => &[],
        }
    }
}
