//! The score of a call: as options, as keys of a case, and what a file holds for its terms.

use crate::tensors::Tensors;
use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use serde_json::{Map, Value};
use wgpu_attention::{Alibi, AttentionShape, BiasStrides, Score, Slopes, Temperature};

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

/// Keys of a case that say something about the score.
pub(crate) const KEYS: [&str; 4] = ["scale", "softcap", "alibi", "alibi_symmetric"];

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
pub(crate) const TENSORS: [&str; 3] = ["bias", "temperature", "slopes"];

/// The score with the terms that a file has a tensor for (`bias`, `temperature`), and the tensors of all its terms.
pub(crate) fn with_tensors(
    mut score: Score,
    file: &Tensors<'_>,
    shape: &AttentionShape,
) -> Result<(Score, Terms)> {
    if let Some(bias) = file.find("bias") {
        let sizes = bias.broadcast([shape.batch, shape.heads, shape.q_len, shape.kv_len])?;
        score = score.bias(BiasStrides::broadcast(sizes));
    }
    if file.find("temperature").is_some() {
        score = score.with(Temperature);
    }
    let mut terms = vec![];
    for term in score.tensors(shape) {
        let tensor = file.need(term.name)?;
        // A bias has been broadcast.
        if !term.strided {
            tensor.expect(&[shape.heads], "[H]")?;
        }
        terms.push((term.name, tensor.floats()?));
    }
    Ok((score, terms))
}
