//! Features of tokens and of texts: hidden states of chosen layers, per token or pooled (Devlin 2019, section 5.3 and table 7).

use super::{Error, Values};

/// Which hidden states a feature is made of, as table 7 of the BERT paper has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FeatureLayers {
    /// What the first layer sees.
    Embeddings,
    /// What the first layer gives.
    First,
    /// What the last layer but one gives.
    SecondToLast,
    /// What the last layer gives.
    Last,
    /// The weighted sum of the last four.
    SumLast4,
    /// The last four beside each other, the fourth last first.
    ConcatLast4,
    /// The weighted sum of all layers, without the embeddings.
    SumAll,
}

/// What becomes of the tokens of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooling {
    /// A feature per token.
    None,
    /// The mean over the tokens that are seen.
    Mean,
    /// The first token that is seen, `[CLS]`.
    Cls,
    /// The largest of the tokens that are seen, element by element.
    Max,
}

/// What is made of hidden states.
#[derive(Debug, Clone, PartialEq)]
pub struct Features {
    /// Row-major.
    pub values: Vec<f32>,
    /// `[batch, length, width]`, or `[batch, width]` where tokens are pooled.
    pub shape: Vec<usize>,
}

impl FeatureLayers {
    /// All of them, by name.
    pub const ALL: [(&'static str, Self); 7] = [
        ("embeddings", Self::Embeddings),
        ("first", Self::First),
        ("second-to-last", Self::SecondToLast),
        ("last", Self::Last),
        ("sum-last-4", Self::SumLast4),
        ("concat-last-4", Self::ConcatLast4),
        ("all-sum", Self::SumAll),
    ];

    /// Whether the states are added up, each with a weight.
    pub fn is_sum(self) -> bool {
        matches!(self, Self::SumLast4 | Self::SumAll)
    }

    /// The states `hidden_n` of a model of so many layers.
    ///
    /// # Errors
    /// For a model that has fewer layers than are asked for.
    pub fn states(self, layers: usize) -> Result<Vec<usize>, Error> {
        let need = match self {
            Self::Embeddings => 0,
            Self::First | Self::Last | Self::SumAll => 1,
            Self::SecondToLast => 2,
            Self::SumLast4 | Self::ConcatLast4 => 4,
        };
        if layers < need {
            return Err(format!("layers: need a model of at least {need}, found {layers}").into());
        }
        Ok(match self {
            Self::Embeddings => vec![0],
            Self::First => vec![1],
            Self::SecondToLast => vec![layers - 1],
            Self::Last => vec![layers],
            Self::SumLast4 | Self::ConcatLast4 => (layers - 3..=layers).collect(),
            Self::SumAll => (1..=layers).collect(),
        })
    }
}

/// Features of the states that a model has shown, `hidden_0` and so on, each `[batch, length, width]`: of chosen layers, and of the
/// tokens that are `seen`, `[batch, length]`. Sums have a weight per state, 1 each unless given. Sums are f64, rounded once.
///
/// # Errors
/// For layers that the model does not have, other numbers of weights or tokens, and a text without a token that is seen.
pub fn features(
    states: &Values,
    seen: &[Vec<bool>],
    (layers, weights): (FeatureLayers, Option<&[f64]>),
    pooling: Pooling,
) -> Result<Features, Error> {
    let hidden =
        |n: usize| states.iter().find(|(name, _)| *name == format!("hidden_{n}")).map(|state| &state.1);
    let count = (0..).take_while(|&n| hidden(n).is_some()).count();
    if count == 0 {
        return Err("features: need the hidden states of a model, found none".into());
    }
    let chosen = layers.states(count - 1)?;
    let weights = match weights {
        Some(_) if !layers.is_sum() => return Err("weights: need layers that are added up".into()),
        Some(weights) if weights.len() != chosen.len() => {
            let (need, found) = (chosen.len(), weights.len());
            return Err(format!("weights: need {need}, one for each layer, found {found}").into());
        }
        Some(weights) => weights.to_vec(),
        None => vec![1.0; chosen.len()],
    };
    let chosen: Vec<&Vec<f32>> = chosen.into_iter().filter_map(hidden).collect();
    let (batch, len) = (seen.len(), seen.first().map_or(0, Vec::len));
    let rows = batch * len;
    if rows == 0
        || !chosen[0].len().is_multiple_of(rows)
        || chosen.iter().any(|state| state.len() != chosen[0].len())
    {
        return Err(format!(
            "features: need states of {batch} times {len} tokens, found {} elements",
            chosen[0].len()
        )
        .into());
    }
    let width = chosen[0].len() / rows;
    let token = |row: usize| -> Vec<f64> {
        let of = |state: &Vec<f32>| -> Vec<f64> {
            state[row * width..][..width].iter().map(|&x| x.into()).collect()
        };
        if !layers.is_sum() {
            return chosen.iter().flat_map(|state| of(state)).collect();
        }
        let mut sum = vec![0.0; width];
        for (state, weight) in chosen.iter().zip(&weights) {
            sum.iter_mut().zip(of(state)).for_each(|(sum, x)| *sum += weight * x);
        }
        sum
    };
    let mut values = vec![];
    for (item, seen) in seen.iter().enumerate() {
        let tokens = (0..len).map(|n| token(item * len + n));
        values.extend(pooled(tokens, seen, pooling).ok_or_else(|| {
            format!("attention_mask: need a token that is seen in text {item}, found none")
        })?);
    }
    let wide = token(0).len();
    let shape = if pooling == Pooling::None { vec![batch, len, wide] } else { vec![batch, wide] };
    Ok(Features { values: values.into_iter().map(|x| x as f32).collect(), shape })
}

/// The features of a text, if any of its tokens is seen.
fn pooled(tokens: impl Iterator<Item = Vec<f64>>, seen: &[bool], pooling: Pooling) -> Option<Vec<f64>> {
    let mut seen_tokens =
        tokens.zip(seen).filter(|(_, seen)| **seen || pooling == Pooling::None).map(|(token, _)| token);
    let join = |with: fn(f64, f64) -> f64| {
        move |all: Vec<f64>, token: Vec<f64>| all.into_iter().zip(token).map(|(x, y)| with(x, y)).collect()
    };
    match pooling {
        Pooling::None => Some(seen_tokens.flatten().collect()),
        Pooling::Cls => seen_tokens.next(),
        Pooling::Max => seen_tokens.reduce(join(f64::max)),
        Pooling::Mean => {
            let count = seen.iter().filter(|&&seen| seen).count() as f64;
            let sum = seen_tokens.reduce(join(|x, y| x + y))?;
            Some(sum.into_iter().map(|x| x / count).collect())
        }
    }
}
