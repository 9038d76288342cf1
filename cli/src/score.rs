//! The score of a call: as options, as keys of a case, and what a file holds for its terms.

use crate::distances::{DistanceBias, Distances};
use crate::tensors::{Tensors, wrong};
use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use serde_json::{Map, Value};
use wgpu_attention::{
    Alibi, AttentionShape, Bias, BiasStrides, Buckets, Relative, Score, Segments, Sinks, Slopes, Strides,
    Temperature, Term,
};

/// The score as options.
#[derive(Debug, Args)]
pub(crate) struct ScoreArgs {
    /// The score: its terms joined by `+`, such as `softcap:cap=50 + alibi:slopes=bloom`,
    /// `scale:factor=1 + buckets:count=32,max_distance=128,bidirectional=true`, `temperature`, `sinks`. The options below change it
    #[arg(long, value_name = "SCORE")]
    score: Option<Score>,
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
    /// The first of the options that was given.
    pub(crate) fn given(&self) -> Option<&'static str> {
        let each = [
            ("--score", self.score.is_some()),
            ("--scale", self.scale.is_some()),
            ("--softcap", self.softcap.is_some()),
            ("--alibi", self.alibi.is_some()),
        ];
        each.into_iter().find(|(_, given)| *given).map(|(name, _)| name)
    }

    /// As the library takes it; what needs a tensor of a file is added by [`with_tensors`].
    pub(crate) fn score(&self) -> Score {
        let alibi = self.alibi.map(|kind| kind.alibi(self.alibi_symmetric));
        score(self.score.clone().unwrap_or_default(), self.scale, self.softcap, alibi)
    }
}

/// Keys of a case that say something about the score.
pub(crate) const KEYS: [&str; 5] = ["scale", "softcap", "alibi", "alibi_symmetric", "relative_buckets"];

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
    let score = score(Score::new(), number("scale")?, number("softcap")?, alibi);
    Ok(buckets_of_case(keys)?.map_or(score.clone(), |buckets| score.with(buckets)))
}

/// T5's buckets: `{"num_buckets": 32, "max_distance": 128, "bidirectional": true}`.
fn buckets_of_case(keys: &Map<String, Value>) -> Result<Option<Buckets>> {
    match keys.get("relative_buckets") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Object(keys)) => buckets(keys, &["num_buckets", "max_distance", "bidirectional"])
            .context("relative_buckets")
            .map(Some),
        Some(other) => bail!("relative_buckets: need an object, got {other}"),
    }
}

/// Buckets by the keys of an object, which may have these.
pub(crate) fn buckets(keys: &Map<String, Value>, known: &[&str]) -> Result<Buckets> {
    if let Some(key) = keys.keys().find(|key| !known.contains(&key.as_str())) {
        bail!("{key}: need none, as no bucket has it");
    }
    let size = |key| {
        crate::case::size_of(keys, key)?.with_context(|| format!("{key}: need a whole number, got none"))
    };
    let bidirectional = crate::case::flag_of(keys, "bidirectional")?.unwrap_or(false);
    let buckets = Buckets::new(size("num_buckets")?, size("max_distance")?).bidirectional(bidirectional);
    Score::new().with(buckets).check(&AttentionShape::new(1, 1, 1, 1))?;
    Ok(buckets)
}

fn score(score: Score, scale: Option<f32>, softcap: Option<f32>, alibi: Option<Alibi>) -> Score {
    let score = scale.map_or(score.clone(), |scale| score.scale(scale));
    let score = softcap.map_or(score.clone(), |cap| score.softcap(cap));
    alibi.map_or(score.clone(), |alibi| score.with(alibi))
}

/// Tensors of the terms of a score, by name.
pub(crate) type Terms = Vec<(&'static str, Vec<f32>)>;

/// The tensors of a file that the terms of a score may use, beside rows.
pub(crate) const TENSORS: [&str; 7] =
    ["bias", "distance_bias", "temperature", "slopes", "alibi_slopes", "bucket_table", "sinks"];
/// Rows that queries have products with, and what belongs to them.
pub(crate) const ROWS: [&str; 7] = ["r", "u", "w", "seg_q", "seg_k", "seg_embed", "s"];

/// The score of a case, with the tensors that its file has for it.
pub(crate) fn of_file(
    keys: &Map<String, Value>,
    file: &Tensors<'_>,
    shape: &AttentionShape,
) -> Result<(Score, Terms)> {
    let (score, terms) = with_tensors(of_case(keys)?, Distances::of_case(keys)?, file, shape)?;
    if let (Some(slopes), true) = (file.find("slopes"), terms.iter().all(|(name, _)| *name != "slopes")) {
        return Err(wrong(&slopes.name, "none, as `alibi` is not `given`", "a tensor"));
    }
    Ok((score, terms))
}

/// The score with the terms that a file has a tensor for (`bias`, `distance_bias`, `temperature`, `alibi_slopes`, `sinks`, `r`, `seg_embed`), and
/// the tensors of all its terms.
pub(crate) fn with_tensors(
    mut score: Score,
    distances: Option<Distances>,
    file: &Tensors<'_>,
    shape: &AttentionShape,
) -> Result<(Score, Terms)> {
    check_distances(distances, file)?;
    // What the score says of the rows of r counts, unless there is more to say.
    if distances.is_some() || score.term("relative").is_none() {
        if let Some(relative) = relative(distances, file, shape)? {
            score = score.with(relative);
        }
    }
    let segments = segments(file, shape)?;
    if segments.is_some() {
        score = score.with(Segments);
    }
    score = with_biases(score, file, shape)?;
    let by_distance = DistanceBias::of_file(distances, file, shape)?;
    if let Some(bias) = &by_distance {
        if score.term("second_bias").is_some() {
            return Err(wrong("distance_bias", "none, as the score has a `second_bias`", "a tensor"));
        }
        score = score.with(Bias::second(bias.strides()));
    }
    for (name, term) in [("temperature", Term::Temperature(Temperature)), ("sinks", Term::Sinks(Sinks))] {
        if file.find(name).is_some() {
            score = score.with(term);
        }
    }
    if let Some(slopes) = file.find("alibi_slopes") {
        if file.find("slopes").is_some() {
            return Err(wrong(&slopes.name, "none, as the file has `slopes`", "a tensor"));
        }
        match score.term("alibi") {
            None => score = score.with(Alibi::new(Slopes::Given)),
            Some(_) if score.tensors(shape).iter().any(|tensor| tensor.name == "slopes") => {}
            Some(_) => return Err(wrong(&slopes.name, "none, as the score has other slopes", "a tensor")),
        }
    }
    if let (Some(table), None) = (file.find("bucket_table"), score.term("buckets")) {
        return Err(wrong(&table.name, "buckets in the score, which it is of", "none"));
    }
    let mut terms = vec![];
    for term in score.tensors(shape) {
        let values = match &by_distance {
            Some(bias) if term.name == "second_bias" => bias.tensor(),
            _ if term.name == "segments" => segments.clone().unwrap_or_default(),
            _ if term.name == "relative_biases" => relative_biases(&score, file, shape)?,
            _ => values_of(term.name, term.len, file, shape)?,
        };
        terms.push((term.name, values));
    }
    check_relative_biases(&score, file)?;
    Ok((score, terms))
}

/// u and w of relative rows, and whether a score has each.
fn of_relative_rows(score: &Score) -> Option<[(&'static str, bool); 2]> {
    match score.term("relative") {
        Some(Term::Relative(relative)) => Some([("u", relative.has_u()), ("w", relative.has_w())]),
        _ => None,
    }
}

/// The tensors `u` and `w` of a file, one behind the other: those that the score has.
fn relative_biases(score: &Score, file: &Tensors<'_>, shape: &AttentionShape) -> Result<Vec<f32>> {
    let mut all = vec![];
    for (name, _) in of_relative_rows(score).into_iter().flatten().filter(|(_, has)| *has) {
        let tensor = file.need(name)?;
        tensor.expect(&[shape.heads, shape.head_dim], "[H, D]")?;
        all.extend(tensor.floats()?);
    }
    Ok(all)
}

/// What a file has of relative rows is in the score.
fn check_relative_biases(score: &Score, file: &Tensors<'_>) -> Result<()> {
    let unused = |(name, has): &(&str, bool)| !has && file.find(name).is_some();
    match of_relative_rows(score).into_iter().flatten().find(unused) {
        Some((name, _)) => {
            Err(wrong(name, format!("none, as the score's relative rows have no {name}"), "a tensor"))
        }
        None => Ok(()),
    }
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
    for ids in [&queries, &keys] {
        // They are compared as f32.
        if let Some(id) = ids.indices()?.into_iter().find(|id| *id >= 1 << 24) {
            return Err(wrong(&ids.name, "ids below 16777216", id));
        }
    }
    Ok(Some(Segments::tensor(&s.floats()?, &e.floats()?, &queries.indices()?, &keys.indices()?)))
}

/// The tensor of a term, out of a file that may have it under another name.
fn values_of(name: &str, len: usize, file: &Tensors<'_>, shape: &AttentionShape) -> Result<Vec<f32>> {
    let heads = shape.heads;
    let tensor = match name {
        "relative_rows" => file.need("r")?,
        "slopes" => file.find("slopes").or(file.find("alibi_slopes")).map_or(file.need("slopes"), Ok)?,
        _ => file.need(name)?,
    };
    match name {
        "slopes" | "temperature" | "sinks" => tensor.expect(&[heads], "[H]")?,
        "bucket_table" => tensor.expect(&[len / heads, heads], "[buckets, H]")?,
        _ => {}
    }
    tensor.floats()
}

/// The score with the file's biases: each lying as the score says, or else broadcast.
fn with_biases(mut score: Score, file: &Tensors<'_>, shape: &AttentionShape) -> Result<Score> {
    for (name, new) in [("bias", Bias::new as fn(BiasStrides) -> Bias), ("second_bias", Bias::second)] {
        let is_free = match score.term(name) {
            Some(Term::Bias(bias)) => bias.strides() == BiasStrides::default(),
            // A file's bias is one of the score; a second one the score has to say.
            _ => name == "bias",
        };
        if let (Some(bias), true) = (file.find(name), is_free) {
            let sizes = bias.broadcast([shape.batch, shape.heads, shape.q_len, shape.kv_len])?;
            score = score.with(new(BiasStrides::broadcast(sizes)));
        }
    }
    Ok(score)
}

/// What says something by distance, and the distances, come together.
fn check_distances(distances: Option<Distances>, file: &Tensors<'_>) -> Result<()> {
    if distances.is_some() && file.find("r").is_none() && file.find("distance_bias").is_none() {
        bail!("first_distance: need none, as the file has no `r` and no `distance_bias`");
    }
    Ok(())
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
        (None, _) => match ["u", "w"].iter().find(|name| file.find(name).is_some()) {
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
