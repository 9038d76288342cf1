//! Random numbers that are a function of their index.

use std::f64::consts::TAU;

/// A counter-based generator: the n-th number depends on the seed, the stream and n alone, so that any element can be
/// drawn by itself, in parallel, and again on a GPU.
///
/// SplitMix64 (Steele 2014): `bits(n) = mix(key + (n + 1) G)` with G = 0x9e3779b97f4a7c15 and the 64-bit finaliser
/// `mix`; `key = mix(mix(seed + G) + (stream + 1) G)` keeps streams of one seed apart.
///
/// ```
/// use wgpu_attention::Counter;
/// let draw = Counter::new(1, 0);
/// assert_eq!(draw.bits(5), Counter::new(1, 0).bits(5));
/// assert_ne!(draw.bits(5), Counter::new(1, 1).bits(5));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counter {
    key: u64,
}

impl Counter {
    const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

    /// The numbers of one stream of a seed.
    pub fn new(seed: u64, stream: u64) -> Self {
        let seed = Self::mix(seed.wrapping_add(Self::GAMMA));
        Self { key: Self::mix(seed.wrapping_add(stream.wrapping_add(1).wrapping_mul(Self::GAMMA))) }
    }

    /// 64 bits.
    pub fn bits(&self, n: u64) -> u64 {
        Self::mix(self.key.wrapping_add(n.wrapping_add(1).wrapping_mul(Self::GAMMA)))
    }

    /// Uniform in [0, 1), a multiple of 2^-53.
    pub fn uniform(&self, n: u64) -> f64 {
        (self.bits(n) >> 11) as f64 * 2f64.powi(-53)
    }

    /// N(0, 1) by Box and Muller, from the numbers 2n and 2n + 1: sqrt(-2 ln(1 - u)) cos(2 pi u').
    pub fn normal(&self, n: u64) -> f64 {
        let n = n.wrapping_mul(2);
        (-2.0 * (1.0 - self.uniform(n)).ln()).sqrt() * (TAU * self.uniform(n.wrapping_add(1))).cos()
    }

    /// Uniform in 0..below, by the high half of a product: biased by less than below / 2^64. 0 for `below` = 0.
    pub fn below(&self, n: u64, below: u64) -> u64 {
        ((u128::from(self.bits(n)) * u128::from(below)) >> 64) as u64
    }

    fn mix(z: u64) -> u64 {
        let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
