//! Relative rows: a product of the query with a row that the distance chooses (Shaw 2018, Transformer-XL).

use super::fields::{Fields, Written};
use super::rule::{Known, Pair, Products, Rule, SUBNORMAL, TINY, TensorGradient, Tensors, TermTensor, U};
use crate::uniform::{Block, Rows, uniform};
use crate::{AttentionShape, Error, Result, Strides};
use std::borrow::Cow;

/// Adds to the product what a row per distance makes of it (Dai 2019, section 3.3):
///
/// ```text
/// scale [ (q_i + u_h) . k_j + (q_i + w_h) . r_h(D) ],     D = (i + Lk - Lq) - j,     row t of r is D = first_distance - t
/// ```
///
/// It is part of the product: temperature, softcap and what is added act on the sum. Tensors, f32:
///
/// | name | shape | |
/// |---|---|---|
/// | `relative_rows` | r `[H, R, d]`, or as [`strides`](Self::strides) says | |
/// | `relative_biases` | `[2, H, d]`: u, then w; `[1, H, d]` where there is one; none where there is neither | one tensor, since a kernel has 8 buffers |
///
/// | model | first_distance | rows | u, w |
/// |---|---|---|---|
/// | Transformer-XL (Dai 2019) | Lk - 1 | Lk, causal | both |
/// | XLNet (Yang 2019) | Lk | Lk + Lq | both |
/// | Music Transformer (Huang 2018) | L - 1 | L, causal | none |
/// | Shaw 2018, equation 5, the keys' rows | k | 2 k + 1, [clipped](Self::clip) | none |
///
/// ```
/// use wgpu_attention::{AttentionShape, Relative, Score};
/// // 64 queries behind a memory of 192 keys: rows of distances 255 to 0.
/// let score = Score::new().with(Relative::new(255, 256).u(true).w(true));
/// let attention = AttentionShape::new(1, 8, 64, 32).kv_len(256).score(score);
/// attention.check()?;
/// let tensors = attention.score.tensors(&attention.shape);
/// assert_eq!([tensors[0].len, tensors[1].len], [8 * 256 * 32, 2 * 8 * 32]);
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Relative {
    first_distance: i32,
    rows: usize,
    strides: Option<Strides>,
    u: bool,
    w: bool,
    clip: bool,
}

uniform! {
    /// Of `shaders/score/relative.wgsl`.
    RelativeParams { rows: Rows, count: u32, first_distance: i32, head_dim: u32, w_at: u32 }
}

impl Relative {
    /// `rows` rows per head, of which the first is that of the distance `first_distance`, the next of one less, and so on.
    pub fn new(first_distance: i32, rows: usize) -> Self {
        Self { first_distance, rows, strides: None, u: false, w: false, clip: false }
    }

    /// Sets whether there is u, which the query has beside its keys.
    pub fn u(self, u: bool) -> Self {
        Self { u, ..self }
    }

    /// Sets whether there is w, which the query has beside its rows.
    pub fn w(self, w: bool) -> Self {
        Self { w, ..self }
    }

    /// Sets whether distances past the rows take the row at that end (Shaw 2018, equation 4: clip(D, k)). Otherwise a plan
    /// refuses a pattern that keeps such a pair, and the reference gives NaN for its row.
    pub fn clip(self, clip: bool) -> Self {
        Self { clip, ..self }
    }

    /// Sets where the rows of r lie, over `[B, H, R, d]`: a head stride of 0 for `[R, d]` that all heads share.
    pub fn strides(self, strides: Strides) -> Self {
        Self { strides: Some(strides), ..self }
    }

    pub(super) fn read(fields: &Fields<'_>) -> Result<Self, String> {
        fields.only(&["first_distance", "rows", "u", "w", "clip", "offset", "batch", "head", "row"])?;
        let whole = "a whole number";
        let relative = Self::new(fields.need("first_distance", whole)?, fields.need("rows", whole)?);
        let relative = relative.u(fields.flag("u")?).w(fields.flag("w")?).clip(fields.flag("clip")?);
        let stride = |name| Ok::<isize, String>(fields.find(name, whole)?.unwrap_or(0));
        let offset: Option<usize> = fields.find("offset", "a whole number of at least 0")?;
        let [batch, head] = [stride("batch")?, stride("head")?];
        let strides = match fields.find("row", whole)? {
            None if offset.is_none() && (batch, head) == (0, 0) => return Ok(relative),
            None => return Err("`relative` needs `row` beside `offset`, `batch` and `head`".into()),
            Some(row) => Strides { offset: offset.unwrap_or(0), batch, head, row },
        };
        Ok(relative.strides(strides))
    }

    /// Whether there is u.
    pub fn has_u(&self) -> bool {
        self.u
    }

    /// Whether there is w.
    pub fn has_w(&self) -> bool {
        self.w
    }

    /// The distances that have a row, the lowest and the highest; `None` where every distance has one, by clipping.
    pub fn distances(&self) -> Option<[i64; 2]> {
        let first = i64::from(self.first_distance);
        (!self.clip).then_some([first - (self.rows as i64 - 1), first])
    }

    /// Whether all rows of r begin at multiples of 4 elements and are so long.
    pub(crate) fn is_aligned(&self, head_dim: usize) -> bool {
        let own = self.strides.is_none_or(|strides| strides.is_aligned());
        own && head_dim.is_multiple_of(4)
    }

    fn resolved(&self, head_dim: usize) -> Strides {
        let d = head_dim as isize;
        self.strides.unwrap_or(Strides::new(0, (self.rows as isize).saturating_mul(d), d))
    }

    fn row(&self, at: &Pair<'_>) -> Option<usize> {
        let t = i64::from(self.first_distance) - at.distance();
        let last = self.rows as i64 - 1;
        if self.clip || (0..=last).contains(&t) { Some(t.clamp(0, last) as usize) } else { None }
    }

    /// (q, u, w, k, r) of each element; `None` where the pair has no row.
    fn elements<'a>(
        &self,
        at: &Pair<'a>,
        tensors: &'a Tensors<'_>,
    ) -> Option<impl Iterator<Item = [f64; 5]> + 'a> {
        let d = at.q.len();
        let start = self.resolved(d).at(at.batch, at.head, self.row(at)?);
        let r = &tensors[0][start..start + d];
        // [n, H, d]: u, then w.
        let biases = usize::from(self.u) + usize::from(self.w);
        let bias = |has: bool, n: usize| {
            let heads = || tensors[1].len() / (biases * d);
            has.then(|| &tensors[1][(n * heads() + at.head) * d..])
        };
        let (u, w) = (bias(self.u, 0), bias(self.w, biases.saturating_sub(1)));
        let (q, k) = (at.q, at.k);
        let of = |bias: Option<&[f32]>, c: usize| bias.map_or(0.0, |bias| bias[c]);
        Some((0..d).map(move |c| [q[c], of(u, c), of(w, c), k[c], r[c]].map(f64::from)))
    }
}

impl Rule for Relative {
    fn name(&self) -> &'static str {
        "relative"
    }

    fn fields(&self) -> Written {
        let sizes = Written::default().with("first_distance", self.first_distance).with("rows", self.rows);
        let flags = sizes.with_flag("u", self.u).with_flag("w", self.w).with_flag("clip", self.clip);
        let Some(Strides { offset, batch, head, row }) = self.strides else { return flags };
        flags.with("offset", offset).with("batch", batch).with("head", head).with("row", row)
    }

    fn check(&self, shape: &AttentionShape) -> Result<()> {
        if !(1..=1 << 30).contains(&self.rows) {
            return Err(Error::argument("relative.rows", "1 to 1,073,741,824", self.rows));
        }
        if self.first_distance.unsigned_abs() > 1 << 30 {
            let need = "a distance within 1,073,741,824 of 0";
            return Err(Error::argument("relative.first_distance", need, self.first_distance));
        }
        let sizes = [shape.batch, shape.heads, self.rows];
        self.resolved(shape.head_dim).check("relative_rows", sizes, shape.head_dim)
    }

    fn tensors(&self, shape: &AttentionShape) -> Vec<TermTensor> {
        let d = shape.head_dim;
        let len = self.resolved(d).extent([shape.batch, shape.heads, self.rows], d);
        let rows = TermTensor { name: "relative_rows", len, strided: self.strides.is_some() };
        let biases = usize::from(self.u) + usize::from(self.w);
        let len = biases * shape.heads * d;
        let biases = (biases > 0).then_some(TermTensor { name: "relative_biases", len, strided: false });
        [rows].into_iter().chain(biases).collect()
    }

    fn score(&self, before: f64, at: &Pair<'_>, tensors: &Tensors<'_>) -> f64 {
        let Some(elements) = self.elements(at, tensors) else { return f64::NAN };
        before + at.scale * elements.map(|[q, u, w, k, r]| u * k + (q + w) * r).sum::<f64>()
    }

    /// With A = |scale| sum (|q| + |u|) |k| + (|q| + |w|) |r|: a chain of 2 d products, behind the addition of u or w and the
    /// factor, rounded itself: gamma_{2d+5} A. It holds what the product alone could be off; that is in `before`, and counted
    /// again. Flushes: of elements that may be read as 0, which take their products with them; of products, partial sums and
    /// elements times the factor.
    fn error(&self, before: Known, after: f64, at: &Pair<'_>, tensors: &Tensors<'_>) -> f64 {
        let Some(elements) = self.elements(at, tensors) else { return f64::INFINITY };
        let scale = at.scale.abs();
        let (mut condition, mut lost, mut flushed, mut largest) = (0.0, 0.0, 0.0, 1.0f64);
        for element in elements {
            let [q, u, w, k, r] = element.map(f64::abs);
            condition += (q + u) * k + (q + w) * r;
            lost += if k < SUBNORMAL { u * k } else { 0.0 };
            lost += if q < SUBNORMAL { q * r } else { 0.0 };
            // u, w and r may be flushed where they are read; then the factor's product, and each of the two products.
            flushed += scale * (q + w + k + r) + k + r + 4.0;
            largest = largest.max(q + u.max(w));
        }
        let d = at.q.len() as f64;
        let limit = f64::from(f32::MAX) / 4.0;
        let steps = (2.0 * d + 5.0) * U;
        if scale * condition >= limit
            || scale.max(1.0) * largest >= limit
            || after.abs() >= limit
            || steps > 0.5
        {
            return f64::INFINITY;
        }
        // A factor that is subnormal may take all of it.
        let factor = if scale < 2.0 * TINY { scale * condition } else { 0.0 };
        let flushed = if condition == 0.0 { 0.0 } else { TINY * flushed };
        before.error + steps / (1.0 - steps) * scale * condition + scale * lost + factor + flushed
    }

    /// By q: r. By k: u. By r: q + w; by u: k; by w: r. All times scale.
    fn products(&self, at: &Pair<'_>, tensors: &Tensors<'_>) -> Option<Products> {
        let d = at.q.len();
        let elements: Vec<_> = self.elements(at, tensors)?.collect();
        let of = |element: &dyn Fn(&[f64; 5]) -> f64| -> Vec<f64> {
            elements.iter().map(|all| at.scale * element(all)).collect()
        };
        let r = of(&|[_, _, _, _, r]| *r);
        let start = self.resolved(d).at(at.batch, at.head, self.row(at)?);
        let mut rows = vec![(0, start, of(&|[q, _, w, _, _]| q + w))];
        if self.u {
            rows.push((1, at.head * d, of(&|[_, _, _, k, _]| *k)));
        }
        if self.w {
            let w_at = if self.u { tensors[1].len() / 2 } else { 0 };
            rows.push((1, w_at + at.head * d, r.clone()));
        }
        Some(Products { q: r, k: of(&|[_, u, _, _, _]| *u), rows })
    }

    fn gradient(&self, name: &str, shape: &AttentionShape) -> Option<TensorGradient> {
        if name == "relative_biases" {
            let vectors = Some(include_str!("../../shaders/backward/vectors_biases.wgsl"));
            return Some(TensorGradient { vectors, ..TensorGradient::one_per_head() });
        }
        let sizes = [shape.batch, shape.heads, self.rows];
        let [batch, head, _] = self.resolved(shape.head_dim).apart(sizes, shape.head_dim);
        let vectors = Some(include_str!("../../shaders/backward/vectors_rows.wgsl"));
        Some(TensorGradient { apart: [batch, head, false], vectors, ..Default::default() })
    }

    fn silent(&self, _: u64) -> Option<f32> {
        Some(0.0)
    }

    fn shader(&self) -> Cow<'static, str> {
        include_str!("../../shaders/score/relative.wgsl").into()
    }

    fn in_product(&self) -> bool {
        true
    }

    fn scales(&self) -> bool {
        false
    }

    fn params(&self, shape: &AttentionShape) -> Option<Block> {
        let w_at = if self.u { shape.heads * shape.head_dim } else { 0 };
        let params = RelativeParams {
            rows: Rows::from(self.resolved(shape.head_dim)),
            count: self.rows as u32,
            first_distance: self.first_distance,
            head_dim: shape.head_dim as u32,
            w_at: w_at as u32,
        };
        Some(Block::new("relative", params))
    }
}

// The order of terms is that of their kinds; among relative rows it says nothing.
impl PartialOrd for Relative {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Relative {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let key = |own: &Self| {
            let strides = own.strides.map(|s| (s.offset, s.batch, s.head, s.row));
            (own.first_distance, own.rows, strides, own.u, own.w, own.clip)
        };
        key(self).cmp(&key(other))
    }
}
