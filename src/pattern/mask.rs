use super::bits::Bits;
use super::logic::lower::{FirstRows, Piece};
use super::{Extent, Full, Identity, Pattern, Range, Site, Span, Varies, spans};
use crate::{Error, Result};
use std::fmt;
use std::sync::Arc;

/// An explicit mask: a tensor of `[B or 1, H or 1, Lq or 1, Lk or 1]`, `true` = attend, where a size of 1 is shared
/// along its axis. As many keys per row as the tensor says.
///
/// ```text
/// sizes: [1, 1, 1, 4]   [1, 1, 3, 4]
///        █·██           █··█
///        █·██           ····
///        █·██           ·██·
/// ```
///
/// At Lq != Lk it is what it says; there is no alignment. `true` is attend as in PyTorch's
/// `scaled_dot_product_attention` and in ONNX; `torch.nn.MultiheadAttention` means the opposite. A mask that is shared
/// along the queries or along the keys has a closed form; any other is read pair by pair.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "json::Mask", into = "json::Mask"))]
pub struct Mask {
    sizes: [usize; 4],
    values: Bits,
    /// For a mask shared along the queries, the stretches of keys of each batch item and head.
    stretches: Arc<[Vec<Span>]>,
}

impl Mask {
    /// A mask from its values, `sizes` = `[B or 1, H or 1, Lq or 1, Lk or 1]`, the last axis fastest.
    ///
    /// # Errors
    /// [`Error::Argument`] where the number of values is not the product of the sizes.
    pub fn new(sizes: [usize; 4], values: impl IntoIterator<Item = bool>) -> Result<Self> {
        let values = Bits::new(values);
        let need = sizes.iter().try_fold(1usize, |product, &size| product.checked_mul(size));
        if need != Some(values.len()) {
            let [batch, heads, queries, keys] = sizes;
            let need = format!("{batch} x {heads} x {queries} x {keys} values");
            return Err(Error::argument("Mask.values", need, values.len()));
        }
        let stretches = match sizes {
            [_, _, 1, keys] if keys > 1 => {
                let rows = (0..values.len()).step_by(keys);
                rows.map(|start| stretches(&values, start..start + keys)).collect()
            }
            _ => Arc::default(),
        };
        Ok(Self { sizes, values, stretches })
    }

    /// `[B or 1, H or 1, Lq or 1, Lk or 1]`.
    pub fn sizes(&self) -> [usize; 4] {
        self.sizes
    }

    fn index(&self, site: &Site, i: usize, j: usize) -> usize {
        let places = [site.batch, site.head, i, j].into_iter().zip(self.sizes);
        places.fold(0, |index, (at, size)| index * size + if size == 1 { 0 } else { at })
    }

    fn at(&self, site: &Site, i: usize, j: usize) -> bool {
        let index = self.index(site, i, j);
        self.values.get(index)
    }
}

/// The stretches of set values among some, as keys from the first of them on.
fn stretches(values: &Bits, of: Range<usize>) -> Vec<Span> {
    let mut stretches: Vec<Range<usize>> = Vec::new();
    for key in (0..of.len()).filter(|key| values.get(of.start + key)) {
        match stretches.last_mut() {
            Some(last) if last.end == key => last.end += 1,
            _ => stretches.push(key..key + 1),
        }
    }
    spans::coarse(stretches.into_iter())
}

impl Pattern for Mask {
    fn keep(&self, site: &Site, i: usize, j: usize) -> bool {
        self.at(site, i, j)
    }

    fn keep_word(&self, site: &Site, i: usize, j: usize) -> u32 {
        let all = spans::ones(site.extent.kv_len.saturating_sub(j));
        match self.sizes[3] {
            1 => {
                if self.at(site, i, 0) {
                    all
                } else {
                    0
                }
            }
            _ => all & self.values.word(self.index(site, i, j)),
        }
    }

    fn spans(&self, site: &Site, mut rows: Range<usize>) -> Vec<Span> {
        let [batch, heads, _, keys] = self.sizes;
        if !self.stretches.is_empty() {
            let (item, head) =
                (if batch == 1 { 0 } else { site.batch }, if heads == 1 { 0 } else { site.head });
            return self.stretches.get(item * heads + head).cloned().unwrap_or_default();
        }
        let every = |all| vec![Span { keys: 0..site.extent.kv_len, all }];
        if keys != 1 {
            return every(false);
        }
        let first = self.at(site, rows.start, 0);
        if rows.any(|i| self.at(site, i, 0) != first) {
            every(false)
        } else if first {
            every(true)
        } else {
            Vec::new()
        }
    }

    /// A mask that all batch items and heads share, and all queries or all keys, scattered: the keys that it keeps side
    /// by side, or the queries that it keeps first.
    fn pieces(&self, extent: &Extent) -> Option<Vec<Piece>> {
        let [1, 1, queries, keys] = self.sizes else { return None };
        let flips = self.values.iter().zip(self.values.iter().skip(1)).filter(|(a, b)| a != b).count();
        if queries.min(keys) > 1 || flips <= self.values.len() / 64 {
            return None;
        }
        let of = |kept: bool| (0u32..).zip(self.values.iter()).filter(move |value| value.1 == kept);
        let of = |kept| of(kept).map(|(place, _)| place);
        if queries == 1 {
            let keys = Some(of(true).collect());
            return Some(vec![Piece { k_order: keys, ..Piece::natural(Full) }.fitted()]);
        }
        debug_assert_eq!(queries, extent.q_len);
        let rows = FirstRows(self.values.count());
        let order = Some(of(true).chain(of(false)).collect());
        Some(vec![Piece { q_order: order, ..Piece::natural(rows) }])
    }

    fn why(&self) -> Option<&'static str> {
        Some("an explicit mask is visited in natural order")
    }

    fn varies(&self) -> Varies {
        Varies { batch: self.sizes[0] > 1, heads: self.sizes[1] > 1 }
    }

    fn check(&self, extent: &Extent) -> Result<()> {
        if self.sizes == [0; 4] {
            return Err(Error::argument("Mask.values", "a tensor", "none"));
        }
        let axes = ["batch", "heads", "q_len", "kv_len"];
        let sizes = [extent.batch, extent.heads, extent.q_len, extent.kv_len];
        for ((axis, size), got) in axes.into_iter().zip(sizes).zip(self.sizes) {
            if got != 1 && got != size {
                return Err(Error::argument("Mask.sizes", format!("1 or {axis} ({size})"), got));
            }
        }
        Ok(())
    }

    fn alike(&self, site: &Site, a: usize, b: usize) -> bool {
        match self.sizes {
            [_, _, 1, _] => true,
            [_, _, _, 1] => self.at(site, a, 0) == self.at(site, b, 0),
            _ => false,
        }
    }

    fn identity(&self) -> Identity<'_> {
        Identity::of(self)
    }
}

/// Sizes and a count instead of every value.
impl fmt::Debug for Mask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kept = self.values.count();
        write!(f, "Mask {{ sizes: {:?}, {kept} values set }}", self.sizes)
    }
}

#[cfg(feature = "serde")]
mod json {
    use super::super::json::Bit;
    use crate::{Error, Result};
    use serde::{Deserialize, Serialize};

    /// Sizes and values, the last axis fastest; both absent where the tensor lies elsewhere.
    #[derive(Serialize, Deserialize, Default)]
    #[serde(deny_unknown_fields, default)]
    pub(super) struct Mask {
        #[serde(skip_serializing_if = "Option::is_none")]
        sizes: Option<[usize; 4]>,
        #[serde(skip_serializing_if = "Option::is_none")]
        values: Option<Vec<Bit>>,
    }

    impl TryFrom<Mask> for super::Mask {
        type Error = Error;

        fn try_from(json: Mask) -> Result<Self> {
            match (json.sizes, json.values) {
                (None, None) => Ok(Self::default()),
                (Some(sizes), Some(values)) => Self::new(sizes, values.into_iter().map(|bit| bit.0)),
                (Some(_), None) => Err(Error::argument("Mask.values", "a list, as there are sizes", "none")),
                (None, Some(_)) => {
                    Err(Error::argument("Mask.sizes", "four sizes, as there are values", "none"))
                }
            }
        }
    }

    impl From<super::Mask> for Mask {
        fn from(mask: super::Mask) -> Self {
            if mask == super::Mask::default() {
                return Self::default();
            }
            Self { sizes: Some(mask.sizes), values: Some(mask.values.iter().map(Bit).collect()) }
        }
    }
}
