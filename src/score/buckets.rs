//! A bias per bucket of distances (T5, Raffel 2019).

use super::fields::{Fields, Written};
use super::rule::{Known, Pair, Rule, TensorGradient, Tensors, TermTensor, added};
use crate::uniform::Block;
use crate::{AttentionShape, Error, Result};
use std::borrow::Cow;

/// Adds an element of the caller's f32 tensor `bucket_table`, `[buckets, H]`: that of the head and of the bucket that the
/// distance D = (i + Lk - Lq) - j falls into (Raffel 2019, section 2.1, and its published code). Near distances have a bucket
/// each, those further away share them, wider and wider up to `max_distance`; what lies beyond has the last one.
///
/// ```text
/// bidirectional: N = buckets / 2, base = N if j is after the query, else 0, n = |D|
/// otherwise:     N = buckets,     base = 0,                                 n = max(D, 0)
/// E = N / 2      bucket = base + n                                                             for n < E
///                bucket = base + min(N - 1, E + floor((N - E) ln(n / E) / ln(max_distance / E)))  from there on
/// ```
///
/// Divisions are of integers. The edges of the buckets are found on the host, exactly, so that no logarithm decides in f32;
/// for the published sizes they are those of the published code. An element that is not finite makes the rows that read it NaN. T5 itself has a [`scale`](crate::Score::scale) of 1.
///
/// ```
/// use wgpu_attention::{AttentionShape, Buckets, Score};
/// // T5's encoder.
/// let buckets = Buckets::new(32, 128).bidirectional(true);
/// assert_eq!([0, 7, 8, 128, 10_000, -1].map(|distance| buckets.bucket(distance)), [0, 7, 8, 15, 15, 17]);
/// let attention = AttentionShape::new(1, 8, 512, 64).score(Score::new().scale(1.0).with(buckets));
/// assert_eq!(attention.score.tensors(&attention.shape)[0].len, 32 * 8);
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Buckets {
    buckets: usize,
    max_distance: usize,
    bidirectional: bool,
}

/// Most buckets: their edges stay within the 16 KiB of parameters that every device has.
const MOST: usize = 4096;

impl Buckets {
    /// `buckets` buckets for keys up to the query; later keys share that of distance 0. Distances from `max_distance` on are in the last bucket.
    /// T5's decoder has 32 and 128.
    pub fn new(buckets: usize, max_distance: usize) -> Self {
        Self { buckets, max_distance, bidirectional: false }
    }

    /// Sets whether keys after the query have half of the buckets to themselves (T5's encoder).
    pub fn bidirectional(self, bidirectional: bool) -> Self {
        Self { bidirectional, ..self }
    }

    pub(super) fn read(fields: &Fields<'_>) -> Result<Self, String> {
        fields.only(&["count", "max_distance", "bidirectional"])?;
        let number = |name| fields.need(name, "a whole number");
        Ok(Self::new(number("count")?, number("max_distance")?).bidirectional(fields.flag("bidirectional")?))
    }

    /// The bucket of a distance (i + Lk - Lq) - j, by the formula above: the row of the table. Sizes that
    /// [`Score::check`](crate::Score::check) refuses give some bucket.
    pub fn bucket(&self, distance: i64) -> usize {
        let (n, base) = match self.bidirectional {
            true => (distance.unsigned_abs(), if distance < 0 { self.side() } else { 0 }),
            false => (distance.max(0) as u64, 0),
        };
        let exact = self.exact() as u64;
        base + if n < exact { n as usize } else { self.exact() + self.steps(n) }
    }

    /// N.
    fn side(&self) -> usize {
        if self.bidirectional { self.buckets / 2 } else { self.buckets }
    }

    /// E.
    fn exact(&self) -> usize {
        self.side() / 2
    }

    /// N - E.
    fn wide(&self) -> usize {
        self.side() - self.exact()
    }

    /// min(N - E - 1, floor((N - E) ln(n / E) / ln(max_distance / E))), for n >= E.
    fn steps(&self, n: u64) -> usize {
        let (exact, wide) = (self.exact() as f64, self.wide());
        let ratio = |x: u64| (x as f64 / exact).ln();
        let quotient = wide as f64 * ratio(n) / ratio(self.max_distance as u64);
        let nearest = quotient.round();
        // Within 1e-11 of the formula for all sizes that `check` lets pass.
        if nearest >= wide as f64 || (quotient - nearest).abs() > 1e-9 {
            return (quotient as usize).min(wide - 1);
        }
        nearest as usize - usize::from(!self.reaches(n, nearest as usize))
    }

    /// Whether (N - E) ln(n / E) / ln(max_distance / E) >= k, in integers: n^(N - E) E^k >= max_distance^k E^(N - E).
    fn reaches(&self, n: u64, k: usize) -> bool {
        let (exact, wide) = (self.exact() as u64, self.wide());
        let product = |x: u64, times: usize, y: u64, more: usize| {
            let factors = std::iter::repeat_n(x, times).chain(std::iter::repeat_n(y, more));
            factors.fold(vec![1], multiplied)
        };
        let size = |digits: Vec<u32>| (digits.len(), digits.into_iter().rev().collect::<Vec<_>>());
        size(product(n, wide, exact, k)) >= size(product(self.max_distance as u64, k, exact, wide))
    }

    /// The first distance of each bucket after that which begins at E, ascending.
    fn edges(&self) -> Vec<u32> {
        let (exact, wide) = (self.exact() as f64, self.wide());
        let edge = |k: usize| {
            let near = exact * (self.max_distance as f64 / exact).powf(k as f64 / wide as f64);
            let mut edge = (near.round() as u64).max(self.exact() as u64);
            while edge > self.exact() as u64 && self.steps(edge) >= k {
                edge -= 1;
            }
            while self.steps(edge) < k {
                edge += 1;
            }
            edge as u32
        };
        (1..wide).map(edge).collect()
    }

    /// Where the pair's element is in the table, which has all heads side by side.
    fn place(&self, at: &Pair<'_>, tensors: &Tensors<'_>) -> usize {
        self.bucket(at.distance()) * (tensors[0].len() / self.buckets) + at.head
    }
}

/// Times one digit; digits of 32 bits, the lowest first.
fn multiplied(mut number: Vec<u32>, by: u64) -> Vec<u32> {
    let mut carry = 0u64;
    for digit in &mut number {
        let sum = u64::from(*digit) * by + carry;
        *digit = sum as u32;
        carry = sum >> 32;
    }
    if carry > 0 {
        number.push(carry as u32);
    }
    number
}

impl Rule for Buckets {
    fn name(&self) -> &'static str {
        "buckets"
    }

    fn fields(&self) -> Written {
        let sizes = Written::default().with("count", self.buckets).with("max_distance", self.max_distance);
        sizes.with_flag("bidirectional", self.bidirectional)
    }

    fn check(&self, _: &AttentionShape) -> Result<()> {
        let least = if self.bidirectional { 4 } else { 2 };
        if !(least..=MOST).contains(&self.buckets) {
            return Err(Error::argument("buckets", format!("{least} to {MOST} of them"), self.buckets));
        }
        let (first, most) = (self.exact() + 1, 1 << 30);
        if !(first..=most).contains(&self.max_distance) {
            let need = format!("{first} to {most}, beyond the distances with a bucket each");
            return Err(Error::argument("buckets.max_distance", need, self.max_distance));
        }
        Ok(())
    }

    fn tensors(&self, shape: &AttentionShape) -> Vec<TermTensor> {
        vec![TermTensor { name: "bucket_table", len: self.buckets * shape.heads, strided: false }]
    }

    fn score(&self, before: f64, at: &Pair<'_>, tensors: &Tensors<'_>) -> f64 {
        before + f64::from(tensors[0][self.place(at, tensors)])
    }

    fn may_spoil(&self) -> bool {
        true
    }

    fn error(&self, before: Known, after: f64, _: &Pair<'_>, _: &Tensors<'_>) -> f64 {
        added(before, after)
    }

    /// 1.
    fn element(&self, _: Known, at: &Pair<'_>, tensors: &Tensors<'_>) -> Option<(usize, Known)> {
        Some((self.place(at, tensors), Known { score: 1.0, error: 0.0 }))
    }

    fn gradient(&self, _: &str, _: &AttentionShape) -> Option<TensorGradient> {
        Some(TensorGradient::per_head())
    }

    fn drawn(&self, normal: f64) -> f32 {
        2.0 * normal as f32
    }

    fn silent(&self, _: u64) -> Option<f32> {
        Some(0.0)
    }

    fn shader(&self) -> Cow<'static, str> {
        let groups = self.table().len() / 4;
        format!("const EDGE_GROUPS = {groups}u;\n\n{}", include_str!("../../shaders/score/buckets.wgsl"))
            .into()
    }

    fn scales(&self) -> bool {
        false
    }

    fn params(&self, _: &AttentionShape) -> Option<Block> {
        let table = self.table();
        // Halvings of a table whose length is one less than a power of two; no edge, no halving.
        let step = if self.wide() > 1 { self.wide().next_power_of_two() as u32 / 2 } else { 0 };
        let head = [self.side() as u32, self.exact() as u32, step, self.bidirectional.into()];
        let words: Vec<u32> = head.into_iter().chain(table).collect();
        let bytes = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        Some(Block { member: "buckets", name: "BucketsParams", fields: FIELDS, bytes })
    }
}

/// Of `BucketsParams` in the shader.
const FIELDS: &[(&str, usize)] =
    &[("side", 0), ("exact", 4), ("step", 8), ("bidirectional", 12), ("edges", 16)];

impl Buckets {
    /// The edges, in groups of 4, with edges that no distance reaches behind them.
    fn table(&self) -> Vec<u32> {
        let mut table = self.edges();
        table.resize(self.wide().next_power_of_two().max(4), u32::MAX);
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The published code in the f32 of its framework: the logarithm's quotient, times N - E, cut to an integer.
    fn published(buckets: usize, max_distance: usize, bidirectional: bool, distance: i64) -> usize {
        let (side, base, n) = match bidirectional {
            true => (buckets / 2, if distance < 0 { buckets / 2 } else { 0 }, distance.unsigned_abs()),
            false => (buckets, 0, distance.max(0) as u64),
        };
        let exact = side / 2;
        if n < exact as u64 {
            return base + n as usize;
        }
        let quotient = (n as f32 / exact as f32).ln() / (max_distance as f64 / exact as f64).ln() as f32;
        base + (side - 1).min(exact + (quotient * (side - exact) as f32) as usize)
    }

    /// T5's own sizes: by hand from the formula, 8 (max / 8)^(k / 8) and 16 (max / 16)^(k / 16), rounded up.
    #[test]
    fn edges_are_those_of_the_formula() {
        assert_eq!(Buckets::new(32, 128).bidirectional(true).edges(), [12, 16, 23, 32, 46, 64, 91]);
        let causal = [19, 21, 24, 27, 31, 35, 40, 46, 52, 59, 67, 77, 87, 99, 113];
        assert_eq!(Buckets::new(32, 128).edges(), causal);
        assert!(Buckets::new(2, 2).edges().is_empty());
        assert_eq!(Buckets::new(4, 16).edges(), [6]);
        // The root of 49: an exact power, as are 16, 32 and 64 above, where f64 may fall to either side.
        assert_eq!(Buckets::new(3, 49).edges(), [7]);
    }

    #[test]
    fn buckets_are_those_of_the_published_code() {
        for (buckets, max_distance, bidirectional) in [
            (32, 128, true),
            (32, 128, false),
            (16, 64, false),
            (8, 20, true),
            (64, 256, true),
            (16, 30, true),
        ] {
            let term = Buckets::new(buckets, max_distance).bidirectional(bidirectional);
            for distance in -600..=600 {
                let want = published(buckets, max_distance, bidirectional, distance);
                assert_eq!(term.bucket(distance), want, "{term:?} at {distance}");
            }
        }
    }

    /// What the shader does with the table, for every size: the count of edges up to n, by halving.
    #[test]
    fn halving_counts_the_edges() {
        let shape = AttentionShape::new(1, 1, 1, 1);
        for buckets in 2..70 {
            let term = Buckets::new(buckets, buckets + 100);
            term.check(&shape).unwrap();
            let bytes = term.params(&shape).unwrap().bytes;
            let word = |n: usize| u32::from_le_bytes(bytes[4 * n..4 * n + 4].try_into().unwrap());
            assert!(term.edges().is_sorted() && bytes.len().is_multiple_of(16), "{buckets}");
            for n in 0..buckets as u32 + 200 {
                let (mut past, mut step) = (0, word(2));
                while step > 0 {
                    past += if word(4 + (past + step - 1) as usize) <= n { step } else { 0 };
                    step /= 2;
                }
                assert_eq!((n.min(word(1)) + past) as usize, term.bucket(n.into()), "{buckets} at {n}");
            }
        }
    }
}
