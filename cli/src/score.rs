//! The score of a call: as options, as keys of a case, and what a file holds for its terms.

use crate::tensors::{Tensors, wrong};
use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use serde_json::{Map, Value};
use wgpu_attention::{
    Alibi, AttentionShape, BiasStrides, Relative, Score, Segments, Slopes, Strides, Temperature,
};

/// The score as options.
#[derive(Debug, Args)]
pub(crate) struct ScoreArgs {
    /// Factor of q . k; 1 / sqrt(D) unless given
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    scale: Option<f32>,
    /// Cap the scores: C tanh(score / C), before the bias
    #[arg(long, value_name = "C", allow_negative_numbers = true)]
    softcap: Option<f32>,
    /// Add ALiBi's linear biases; `--alibi=bloom` and the like for other slopes than the paper's
    #[arg(
        long,
        value_name = "SLOPES",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "paper"
    )]
    alibi: Option<Kind>,
    /// ALiBi by the distance without its sign: keys after the query count as those before it
    #[arg(long, requires = "alibi")]
    alibi_symmetric: bool,
}

/// The distances of relative rows as options: for a file that has the rows.
#[derive(Debug, Args)]
pub(crate) struct DistanceArgs {
    /// Add relative rows: row t of the file's tensor `r` ([R, D], [H, R, D] or [B, H, R, D]) is that of the distance N - t from key to
    /// query; its tensors `u` and `w`, [H, D], are added to the queries of keys and of rows
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    first_distance: Option<i32>,
    /// Distances past the rows take the row at that end
    #[arg(long, requires = "first_distance")]
    clip_distances: bool,
}

/// [`Slopes`] as an argument, and as a text of a case.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Kind {
    /// 2^(-8 h / H), h = 1 .. H.
    Paper,
    /// As Bloom and the paper's code have them, where H is no power of two.
    Bloom,
    /// As MPT has them.
    Mpt,
    /// The tensor `slopes` of the file, [H].
    Given,
}

impl Kind {
    fn alibi(self, symmetric: bool) -> Alibi {
        let slopes = match self {
            Self::Paper => Slopes::Paper,
            Self::Bloom => Slopes::Bloom,
            Self::Mpt => Slopes::Mpt,
            Self::Given => Slopes::Given,
        };
        Alibi::new(slopes).symmetric(symmetric)
    }
}

impl ScoreArgs {
    /// As the library takes it; what needs a tensor of a file is added by [`with_tensors`].
    pub(crate) fn score(&self) -> Score {
        let alibi = self.alibi.map(|kind| kind.alibi(self.alibi_symmetric));
        score(self.scale, self.softcap, alibi)
    }
}

impl DistanceArgs {
    /// Which distances relative rows are of.
    pub(crate) fn distances(&self) -> Option<Distances> {
        self.first_distance.map(|first| Distances { first, clip: self.clip_distances })
    }
}

/// The distances of relative rows: the first one's, and whether those past the rows are clipped.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Distances {
    first: i32,
    clip: bool,
}

/// The distances of a case.
pub(crate) fn distances_of_case(keys: &Map<String, Value>) -> Result<Option<Distances>> {
    let clip = crate::case::flag_of(keys, "clip_distances")?;
    match keys.get("first_distance") {
        None | Some(Value::Null) if clip.is_some() => {
            bail!("clip_distances: need none, as there is no first_distance")
        }
        None | Some(Value::Null) => Ok(None),
        Some(value) => match value.as_i64().and_then(|first| i32::try_from(first).ok()) {
            Some(first) => Ok(Some(Distances { first, clip: clip.unwrap_or(false) })),
            None => bail!("first_distance: need a whole number of 32 bits, got {value}"),
        },
    }
}

/// Keys of a case that say something about the score.
pub(crate) const KEYS: [&str; 6] =
    ["scale", "softcap", "alibi", "alibi_symmetric", "first_distance", "clip_distances"];

/// The score of a case.
pub(crate) fn of_case(keys: &Map<String, Value>) -> Result<Score> {
    let number = |key| Ok::<_, anyhow::Error>(crate::case::number_of(keys, key)?.map(|number| number as f32));
    let symmetric = crate::case::flag_of(keys, "alibi_symmetric")?;
    let kind = match keys.get("alibi") {
        None | Some(Value::Null | Value::Bool(false)) => None,
        Some(Value::Bool(true)) => Some(Kind::Paper),
        Some(Value::String(name)) if Kind::from_str(name, false).is_ok() => Kind::from_str(name, false).ok(),
        Some(other) => bail!("alibi: need true, false, `paper`, `bloom`, `mpt` or `given`, got {other}"),
    };
    if symmetric.is_some() && kind.is_none() {
        bail!("alibi_symmetric: need none, as there is no alibi");
    }
    let alibi = kind.map(|kind| kind.alibi(symmetric.unwrap_or(false)));
    Ok(score(number("scale")?, number("softcap")?, alibi))
}

fn score(scale: Option<f32>, softcap: Option<f32>, alibi: Option<Alibi>) -> Score {
    let score = scale.map_or_else(Score::new, |scale| Score::new().scale(scale));
    let score = softcap.map_or(score.clone(), |cap| score.softcap(cap));
    alibi.map_or(score.clone(), |alibi| score.with(alibi))
}

/// Tensors of the terms of a score, by name.
pub(crate) type Terms = Vec<(&'static str, Vec<f32>)>;

/// The tensors of a file that the terms of a score may use.
pub(crate) const TENSORS: [&str; 10] =
    ["bias", "temperature", "slopes", "r", "u", "w", "seg_q", "seg_k", "seg_embed", "s"];

/// The score with the terms that a file has a tensor for (`bias`, `temperature`, `r`, `seg_embed`), and the tensors of all its terms.
pub(crate) fn with_tensors(
    mut score: Score,
    distances: Option<Distances>,
    file: &Tensors<'_>,
    shape: &AttentionShape,
) -> Result<(Score, Terms)> {
    if let Some(relative) = relative(distances, file, shape)? {
        score = score.with(relative);
    }
    let segments = segments(file, shape)?;
    if segments.is_some() {
        score = score.with(Segments);
    }
    if let Some(bias) = file.find("bias") {
        let sizes = bias.broadcast([shape.batch, shape.heads, shape.q_len, shape.kv_len])?;
        score = score.bias(BiasStrides::broadcast(sizes));
    }
    if file.find("temperature").is_some() {
        score = score.with(Temperature);
    }
    let mut terms = vec![];
    for term in score.tensors(shape) {
        match term.name {
            "relative_rows" => {
                terms.push((term.name, file.need("r")?.floats()?));
                continue;
            }
            "relative_biases" => {
                let given = ["u", "w"].iter().filter_map(|name| file.find(name));
                let values = given.map(|tensor| tensor.floats()).collect::<Result<Vec<_>>>()?;
                terms.push((term.name, values.concat()));
                continue;
            }
            "segments" => {
                terms.push((term.name, segments.clone().unwrap_or_default()));
                continue;
            }
            _ => {}
        }
        let tensor = file.need(term.name)?;
        // A bias has been broadcast.
        if !term.strided {
            tensor.expect(&[shape.heads], "[H]")?;
        }
        terms.push((term.name, tensor.floats()?));
    }
    Ok((score, terms))
}

/// The tensor `segments` of a file that has `s`, `seg_embed`, `seg_q` and `seg_k`.
fn segments(file: &Tensors<'_>, shape: &AttentionShape) -> Result<Option<Vec<f32>>> {
    let names = ["s", "seg_embed", "seg_q", "seg_k"];
    if names.iter().all(|name| file.find(name).is_none()) {
        return Ok(None);
    }
    let [s, e, queries, keys] = names.map(|name| file.need(name));
    let (s, e, queries, keys) = (s?, e?, queries?, keys?);
    s.expect(&[shape.heads, shape.head_dim], "[H, D]")?;
    e.expect(&[2, shape.heads, shape.head_dim], "[2, H, D]")?;
    queries.expect(&[shape.batch, shape.q_len], "[B, Lq]")?;
    keys.expect(&[shape.batch, shape.kv_len], "[B, Lk]")?;
    Ok(Some(Segments::tensor(&s.floats()?, &e.floats()?, &queries.indices()?, &keys.indices()?)))
}

/// The relative rows that a file has as `r`, with `u` and `w`.
fn relative(
    distances: Option<Distances>,
    file: &Tensors<'_>,
    shape: &AttentionShape,
) -> Result<Option<Relative>> {
    let (r, Distances { first, clip }) = match (file.find("r"), distances) {
        (Some(r), Some(distances)) => (r, distances),
        (Some(_), None) => bail!("r: need the distance of its first row (first_distance), got none"),
        (None, Some(_)) => bail!("first_distance: need none, as the file has no `r`"),
        (None, None) => match ["u", "w"].iter().find(|name| file.find(name).is_some()) {
            Some(name) => bail!("{name}: need none, as the file has no `r`"),
            None => return Ok(None),
        },
    };
    let meaning = "[R, D], [H or 1, R, D] or [B or 1, H or 1, R, D]";
    let [batch, heads, rows, dim] = r.padded::<4>(meaning)?;
    let fits = (batch == shape.batch || batch == 1) && (heads == shape.heads || heads == 1);
    if !fits || dim != shape.head_dim {
        return Err(wrong("r", meaning, format!("{:?}", r.shape)));
    }
    let stride = |axis: usize, size: usize| if axis == 1 { 0 } else { size as isize };
    let strides = Strides::new(stride(batch, heads * rows * dim), stride(heads, rows * dim), dim as isize);
    let has = |name: &str| -> Result<bool> {
        let tensor = file.find(name);
        tensor.iter().try_for_each(|tensor| tensor.expect(&[shape.heads, dim], "[H, D]"))?;
        Ok(tensor.is_some())
    };
    Ok(Some(Relative::new(first, rows).strides(strides).clip(clip).u(has("u")?).w(has("w")?)))
}
