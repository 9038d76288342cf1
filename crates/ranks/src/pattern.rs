//! What tells two patterns apart that lie in different processes.

use std::fmt::Write;
use wgpu_attention::{Counter, Extent, Pattern, Site};

/// A hash that is the same in every process: FNV-1a, 64 bits.
pub(crate) struct Fnv(pub(crate) u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    /// The hash of what a value prints.
    pub(crate) fn of(value: &dyn std::fmt::Debug) -> u64 {
        let mut hash = Self::default();
        // This writer never fails.
        let _ = write!(hash, "{value:?}");
        hash.0
    }
}

impl Write for Fnv {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.bytes(text.as_bytes());
        Ok(())
    }
}

/// Rows of each kind that are looked at.
const ROWS: u64 = 24;

/// A hash of a pattern's parameters, as it prints them, and of the keys of some rows: a closure prints nothing of itself, and long
/// lists are printed as their sizes.
pub(crate) fn fingerprint(pattern: &dyn Pattern, extent: Extent) -> u64 {
    let mut hash = Fnv(Fnv::of(&pattern));
    let Extent { batch, heads, q_len, kv_len } = extent;
    if batch * heads * q_len * kv_len == 0 {
        return hash.0;
    }
    let numbers = Counter::new(0x7a6e_6b73, 1);
    let drawn = |n: u64, size: usize| (numbers.bits(n) % size as u64) as usize;
    let mut words = vec![0; kv_len.div_ceil(32)];
    for n in 0..ROWS {
        let site = Site { batch: drawn(3 * n, batch), head: drawn(3 * n + 1, heads), extent };
        // The first, the last, and any.
        let i = match n {
            0 => 0,
            1 => q_len - 1,
            _ => drawn(3 * n + 2, q_len),
        };
        words.fill(0);
        pattern.row(&site, i, &mut words);
        hash.bytes(&i.to_le_bytes());
        words.iter().for_each(|word| hash.bytes(&word.to_le_bytes()));
    }
    hash.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use wgpu_attention::{Causal, PairPredicate, Window};

    #[test]
    fn patterns_are_told_apart() {
        let extent = Extent { batch: 2, heads: 2, q_len: 50, kv_len: 70 };
        let of = |pattern: &dyn Pattern| fingerprint(pattern, extent);
        let window = |before| Window { before, after: 0 };
        assert_eq!(of(&window(3)), of(&window(3)));
        assert_ne!(of(&window(3)), of(&window(4)));
        assert_ne!(of(&Causal), of(&window(70)));
        // Two closures print the same; the same rule is the same, wherever it lies.
        let every = |step: usize| PairPredicate::new(move |_, j| j % step == 0);
        assert_eq!(of(&every(2)), of(&every(2)));
        assert_ne!(of(&every(2)), of(&every(3)));
        assert_eq!(fingerprint(&Causal, Extent { q_len: 0, ..extent }), Fnv::of(&Causal));
    }
}
