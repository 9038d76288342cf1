//! Which query heads a call computes.

use crate::{AttentionShape, Error, Result};
use std::sync::Arc;

/// The query heads that a call computes: all, or some of them, as head pruning wants (Michel et al. 2019; Voita et al. 2019).
///
/// The tensors stay whole and where they are. A head that is left out costs no workgroup, and nothing of it is written: its rows of
/// out, lse, the state and dq stay as they are, and so do the rows of dk and dv of a key head that no computed head reads. So calls of different
/// heads, each under a pattern of its own, can fill one out. Where a pruned head has to count as 0, as before an output projection, clear the buffer
/// once. [`Gpu`](crate::Gpu) and the [reference](mod@crate::reference) do: a head that is left out is one whose rows attend nothing,
/// 0 with an lse of `f32::MIN`. Everything that differs by head, a pattern, a slope, a bias, dropout, goes by the head's own
/// number.
///
/// ```
/// use wgpu_attention::{AttentionShape, Heads};
/// let attention = AttentionShape::new(1, 12, 128, 64).heads(Heads::without(12, &[3, 7]));
/// attention.check()?;
/// assert_eq!(attention.heads.count(12), 10);
/// assert!(!attention.heads.computes(3));
/// let twice = attention.heads(Heads::only(&[5, 5])).check().unwrap_err();
/// assert!(twice.to_string().contains("heads"));
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Heads(Option<Arc<[u32]>>);

impl Heads {
    /// Every head.
    pub const ALL: Self = Self(None);

    /// These heads alone, in any order.
    pub fn only(heads: &[u32]) -> Self {
        let mut heads = heads.to_vec();
        heads.sort_unstable();
        Self(Some(heads.into()))
    }

    /// All of `heads` heads but those in `pruned`.
    pub fn without(heads: usize, pruned: &[u32]) -> Self {
        Self::only(&(0..heads as u32).filter(|head| !pruned.contains(head)).collect::<Vec<_>>())
    }

    /// The heads, rising, where they are not all.
    pub fn chosen(&self) -> Option<&[u32]> {
        self.0.as_deref()
    }

    /// Whether the head is computed.
    pub fn computes(&self, head: usize) -> bool {
        self.chosen().is_none_or(|heads| heads.iter().any(|&own| own as usize == head))
    }

    /// How many of `heads` heads are computed.
    pub fn count(&self, heads: usize) -> usize {
        self.chosen().map_or(heads, <[u32]>::len)
    }

    /// Each computed head once, and at least one.
    pub(crate) fn check(&self, shape: &AttentionShape) -> Result<()> {
        let Some(heads) = self.chosen() else { return Ok(()) };
        if heads.is_empty() {
            return Err(Error::argument("heads", "at least one head", "none"));
        }
        if let Some(head) = heads.iter().find(|&&head| head as usize >= shape.heads) {
            let need = format!("heads below {}, as the shape says", shape.heads);
            return Err(Error::argument("heads", need, head));
        }
        match heads.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(Error::argument("heads", "each head once", format!("{} twice", pair[0]))),
            None => Ok(()),
        }
    }

    /// For calls that compute every head.
    pub(crate) fn check_all(&self, what: &str) -> Result<()> {
        match self.chosen() {
            Some(heads) => {
                let need = format!("Heads::ALL, since {what} computes every head");
                Err(Error::argument("heads", need, format!("{} of them", heads.len())))
            }
            None => Ok(()),
        }
    }

    /// Of each key head that a computed head reads: the places of its heads in the list, first and end.
    #[cfg(feature = "gpu")]
    pub(crate) fn of_key_heads(&self, shape: &AttentionShape) -> Vec<[u32; 2]> {
        let mut groups: Vec<[u32; 2]> = vec![];
        let Some(heads) = self.chosen() else { return groups };
        let mut last = None;
        for (place, &head) in (0u32..).zip(heads) {
            let kv_head = shape.kv_head(head as usize);
            match groups.last_mut().filter(|_| last == Some(kv_head)) {
                Some(group) => group[1] = place + 1,
                None => groups.push([place, place + 1]),
            }
            last = Some(kv_head);
        }
        groups
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_come_in_order_and_by_key_head() {
        let shape = AttentionShape::new(1, 8, 4, 16).kv_heads(4);
        let heads = Heads::only(&[7, 2, 3, 0]);
        assert_eq!(heads.chosen(), Some(&[0, 2, 3, 7][..]));
        assert_eq!(heads.of_key_heads(&shape), [[0, 1], [1, 3], [3, 4]]);
        assert_eq!(heads, Heads::without(8, &[1, 4, 5, 6]));
        assert_eq!((heads.count(8), Heads::ALL.count(8)), (4, 8));
        assert!(heads.computes(7) && !heads.computes(1) && Heads::ALL.computes(1));
    }

    #[test]
    fn bad_heads_are_named() {
        let shape = AttentionShape::new(1, 4, 4, 16);
        let said = |heads: Heads| heads.check(&shape).unwrap_err().to_string();
        assert!(said(Heads::only(&[])).contains("at least one head"));
        assert!(said(Heads::only(&[1, 4])).contains("below 4"));
        assert!(said(Heads::only(&[3, 1, 3])).contains("3 twice"));
        assert!(Heads::ALL.check(&shape).is_ok() && Heads::only(&[3]).check(&shape).is_ok());
        assert!(Heads::only(&[3]).check_all("it").unwrap_err().to_string().contains("Heads::ALL"));
    }
}
