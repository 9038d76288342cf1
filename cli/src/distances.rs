//! What a file says by distance: the distances of relative rows and of biases, as options and as keys of a case.

use crate::tensors::{Tensors, wrong};
use anyhow::{Result, bail};
use clap::Args;
use serde_json::{Map, Value};
use std::ops::Range;
use wgpu_attention::{
    AnyPattern, Attention, AttentionShape, BiasStrides, BlockGrid, Parts, Pattern, Site, Term,
};

/// Tensors of the terms of a score, by name.
type Terms = [(&'static str, Vec<f32>)];

/// The distances of relative rows and biases as options: for a file that has them.
#[derive(Debug, Args)]
pub(crate) struct DistanceArgs {
    /// Add relative rows: row t of the file's tensor `r` ([R, D], [H, R, D] or [B, H, R, D]) is that of the distance N - t from key to
    /// query; its tensors `u` and `w`, [H, D], are added to the queries of keys and of rows. And a bias by distance: element t of its
    /// tensor `distance_bias` ([H, R] or [1, R]) likewise
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    first_distance: Option<i32>,
    /// Distances past the rows take the row at that end
    #[arg(long, requires = "first_distance")]
    clip_distances: bool,
}

impl DistanceArgs {
    /// Which distances they are of.
    pub(crate) fn distances(&self) -> Option<Distances> {
        self.first_distance.map(|first| Distances { first, clip: self.clip_distances })
    }
}

/// The distance of the first row, and whether those past the rows are clipped.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Distances {
    pub(crate) first: i32,
    pub(crate) clip: bool,
}

/// That a file's `distance_bias` has an element for every pair of a call: of those that the pattern keeps, and no bias of minus infinity
/// removes.
pub(crate) fn check_kept(
    distances: Option<Distances>,
    file: &Tensors<'_>,
    call: &Attention,
    pattern: &AnyPattern,
    terms: &Terms,
) -> Result<()> {
    let shape = &call.shape;
    let Some(bias) = DistanceBias::of_file(distances, file, shape)? else { return Ok(()) };
    // By blocks: of a long call there are too many pairs to ask, unless something is wrong.
    let parts = Parts::lower(pattern, BlockGrid::from(shape))?;
    let Some([lowest, highest]) = parts.distances() else { return Ok(()) };
    let first = shape.kv_len as i64 - shape.q_len as i64;
    let ends = [highest, lowest].map(|distance| match first - distance {
        j @ 0.. => [0, 0, 0, j as usize],
        i => [0, 0, i.unsigned_abs() as usize, 0],
    });
    if bias.check(ends.into_iter()).is_ok() {
        return Ok(());
    }
    bias.check(kept_pairs(call, pattern, terms))
}

/// Every pair that the pattern keeps and the file's `bias` does not remove.
fn kept_pairs<'a>(
    call: &'a Attention,
    pattern: &'a AnyPattern,
    terms: &'a Terms,
) -> impl Iterator<Item = [usize; 4]> + 'a {
    let AttentionShape { batch, heads, q_len, kv_len, .. } = call.shape;
    let extent = call.shape.extent();
    let values = terms.iter().find(|(name, _)| *name == "bias").map(|(_, values)| values);
    let strides = match call.score.term("bias") {
        Some(Term::Bias(bias)) => bias.strides(),
        _ => BiasStrides::default(),
    };
    let rows = (0..batch * heads * q_len).map(move |n| [n / q_len / heads, n / q_len % heads, n % q_len]);
    let pairs = rows.flat_map(move |[batch, head, i]| (0..kv_len).map(move |j| [batch, head, i, j]));
    pairs.filter(move |&[batch, head, i, j]| {
        let removed = |values: &Vec<f32>| values[strides.at(batch, head, i, j)] == f32::NEG_INFINITY;
        pattern.keep(&Site { batch, head, extent }, i, j) && !values.is_some_and(removed)
    })
}

/// The same of a call whose every pair may be kept, but for keys after the query where it is causal, and for the query's own.
pub(crate) fn check_all(
    distances: Option<Distances>,
    file: &Tensors<'_>,
    shape: &AttentionShape,
    causal: bool,
) -> Result<()> {
    let Some(bias) = DistanceBias::of_file(distances, file, shape)? else { return Ok(()) };
    let last = shape.q_len.saturating_sub(1);
    let ends = [[0, 0, last, 0], if causal { [0, 0, 1, 0] } else { [0, 0, 0, last] }];
    bias.check(ends.into_iter().filter(|_| last > 0))
}

/// Keys of a case that say which distances.
pub(crate) const KEYS: [&str; 2] = ["first_distance", "clip_distances"];

impl Distances {
    /// Those of a case.
    pub(crate) fn of_case(keys: &Map<String, Value>) -> Result<Option<Self>> {
        let clip = crate::case::flag_of(keys, "clip_distances")?;
        match keys.get("first_distance") {
            None | Some(Value::Null) if clip.is_some() => {
                bail!("clip_distances: need none, as there is no first_distance")
            }
            None | Some(Value::Null) => Ok(None),
            Some(value) => match value.as_i64().and_then(|first| i32::try_from(first).ok()) {
                Some(first) => Ok(Some(Self { first, clip: clip.unwrap_or(false) })),
                None => bail!("first_distance: need a whole number of 32 bits, got {value}"),
            },
        }
    }
}

/// The bias that a file has as `distance_bias`, `[H or 1, R]`, of which element t is that of the distance first_distance - t.
#[derive(Debug)]
pub(crate) struct DistanceBias {
    values: Vec<f32>,
    heads: usize,
    /// R.
    count: usize,
    distances: Distances,
    /// Of the call.
    lens: [usize; 2],
}

impl DistanceBias {
    /// That of a file, if it has one.
    pub(crate) fn of_file(
        distances: Option<Distances>,
        file: &Tensors<'_>,
        shape: &AttentionShape,
    ) -> Result<Option<Self>> {
        let (bias, distances) = match (file.find("distance_bias"), distances) {
            (None, _) => return Ok(None),
            (Some(bias), None) => {
                return Err(wrong(&bias.name, "the distance of its first element (first_distance)", "none"));
            }
            (Some(bias), Some(distances)) => (bias, distances),
        };
        let meaning = "[H or 1, R]";
        let [heads, count] = bias.padded::<2>(meaning)?;
        if (heads != shape.heads && heads != 1) || count == 0 {
            return Err(wrong(&bias.name, meaning, format!("{:?}", bias.shape)));
        }
        let lens = [shape.q_len, shape.kv_len];
        Ok(Some(Self { values: bias.floats()?, heads, count, distances, lens }))
    }

    /// How [`tensor`](Self::tensor) lies.
    pub(crate) fn strides(&self) -> BiasStrides {
        let [q_len, kv_len] = self.lens;
        let strides = BiasStrides::toeplitz(q_len, kv_len);
        BiasStrides { head: if self.heads == 1 { 0 } else { strides.head }, ..strides }
    }

    /// Every distance that there is, ascending. Those without an element are NaN: no pair that is kept may have one.
    pub(crate) fn tensor(&self) -> Vec<f32> {
        let Distances { first, clip } = self.distances;
        let last = self.count as i64 - 1;
        let of_distance = |head: usize, distance: i64| {
            let t = i64::from(first) - distance;
            let t = if clip { t.clamp(0, last) } else { t };
            if (0..=last).contains(&t) { self.values[head * self.count + t as usize] } else { f32::NAN }
        };
        let [q_len, kv_len] = self.lens;
        let ascending = if q_len == 0 || kv_len == 0 { 0..0 } else { 1 - q_len as i64..kv_len as i64 };
        let all = (0..self.heads).flat_map(|head| ascending.clone().map(move |distance| (head, distance)));
        all.map(|(head, distance)| of_distance(head, distance)).collect()
    }

    /// That every pair which `kept` gives, by batch item, head, query and key, has an element.
    fn check(&self, kept: impl Iterator<Item = [usize; 4]>) -> Result<()> {
        let (Distances { first, clip }, [q_len, kv_len]) = (self.distances, self.lens);
        if clip {
            return Ok(());
        }
        let distance = |[_, _, i, j]: [usize; 4]| (i + kv_len) as i64 - q_len as i64 - j as i64;
        let kept = kept.map(distance).map(|distance| [distance; 2]);
        let last = i64::from(first) - (self.count as i64 - 1);
        match kept.reduce(|a, b| [a[0].min(b[0]), a[1].max(b[1])]) {
            Some([lowest, highest]) if lowest < last || highest > i64::from(first) => Err(wrong(
                "distance_bias",
                format!("the distances from {lowest} to {highest}, those of the pairs that are kept"),
                format!("{} from {last} to {first} (see clip_distances)", self.count),
            )),
            _ => Ok(()),
        }
    }

    /// For each of the file's elements, those of [`tensor`](Self::tensor) that are its: one, none where no pair is so far apart, and at an
    /// end that others are clipped to, several. Its gradient is the sum of theirs.
    pub(crate) fn places(&self) -> Vec<Range<usize>> {
        let Distances { first, clip } = self.distances;
        let [q_len, kv_len] = self.lens.map(|len| len as i64);
        // Of a head: distances 1 - Lq to Lk - 1, if there are any.
        let len = if q_len == 0 || kv_len == 0 { 0 } else { q_len + kv_len - 1 };
        let place = |distance: i64| (distance + q_len - 1).clamp(0, len) as usize;
        let last = self.count - 1;
        let of_element = |t: usize| {
            let distance = i64::from(first) - t as i64;
            let lowest = if clip && t == last { 0 } else { place(distance) };
            let behind = if clip && t == 0 { len as usize } else { place(distance + 1) };
            lowest..behind
        };
        let head_len = len as usize;
        let of_head = move |head: usize| {
            (0..self.count)
                .map(of_element)
                .map(move |it| head * head_len + it.start..head * head_len + it.end)
        };
        (0..self.heads).flat_map(of_head).collect()
    }
}
