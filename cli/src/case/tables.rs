//! Cases of what is made on the host for the terms of a score.

use super::{Content, size_of, text_of, unknown};
use crate::score;
use crate::tensors::{Tensors, wrong};
use anyhow::{Context, Result, bail};
use serde_json::{Map, Value};
use wgpu_attention::{Slopes, sinusoidal_positions_with};

/// What the library makes, and what is expected.
#[derive(Debug)]
pub(crate) struct Table {
    /// At least one.
    pub(crate) tensors: Vec<Made>,
    /// The largest difference of a value from the expected one, relative to it.
    pub(crate) error: f64,
}

/// A tensor of one axis.
#[derive(Debug)]
pub(crate) struct Made {
    pub(crate) name: String,
    pub(crate) made: Vec<f32>,
    pub(crate) expected: Vec<f32>,
    /// The expected values' own absolute error.
    pub(crate) allowance: f64,
}

/// Reads a case of the op `alibi_slopes`: one rounding of either side.
pub(super) fn alibi_slopes(file: &Tensors<'_>, keys: &Map<String, Value>) -> Result<Content> {
    let heads = match keys.get("heads") {
        Some(Value::Array(heads)) => {
            let head = |heads: &Value| heads.as_u64().and_then(|heads| usize::try_from(heads).ok());
            heads.iter().map(head).collect::<Option<Vec<_>>>().filter(|heads| !heads.is_empty())
        }
        _ => None,
    };
    let heads = heads.context("heads: need a list of numbers of heads")?;
    let names: Vec<String> = heads.iter().map(|heads| format!("slopes_{heads}")).collect();
    let known: Vec<&str> = names.iter().map(String::as_str).collect();
    if let Some(reason) = unknown(file, keys, &["heads", "order"], &known) {
        return Ok(Content::Unsupported(reason));
    }
    let order = text_of(keys, "order")?;
    let slopes = match order.parse() {
        Ok(Slopes::Given) | Err(_) => bail!("order: need `paper`, `bloom` or `mpt`, got `{order}`"),
        Ok(slopes) => slopes,
    };
    let tensor = |(&heads, name): (&usize, String)| {
        let expected = file.need(&name)?;
        expected.expect(&[heads], "[H]")?;
        let (made, expected) = (slopes.values(heads).unwrap_or_default(), expected.floats()?);
        let allowance = super::allowance(keys, &name)?.unwrap_or(0.0);
        Ok(Made { name, made, expected, allowance })
    };
    let tensors = heads.iter().zip(names.clone()).map(tensor).collect::<Result<_>>()?;
    Ok(Content::Table(Box::new(Table { tensors, error: f32::EPSILON.into() })))
}

/// Reads a case of the op `relative_buckets`, whose `relative_position` is that of the key: -D.
pub(super) fn relative_buckets(file: &Tensors<'_>, keys: &Map<String, Value>) -> Result<Content> {
    const KEYS: [&str; 3] = ["num_buckets", "max_distance", "bidirectional"];
    if let Some(reason) = unknown(file, keys, &KEYS, &["relative_position", "out"]) {
        return Ok(Content::Unsupported(reason));
    }
    let own = keys.iter().filter(|(key, _)| KEYS.contains(&key.as_str()));
    let buckets = score::buckets(&own.map(|(key, value)| (key.clone(), value.clone())).collect(), &KEYS)?;
    let (positions, out) = (file.need("relative_position")?, file.need("out")?);
    let [positions, expected] = [positions.integers()?, out.integers()?];
    if positions.len() != expected.len() || positions.is_empty() {
        return Err(wrong("out", "as many elements as relative_position", expected.len()));
    }
    let made = positions.iter().map(|&position| buckets.bucket(-i64::from(position)) as f32).collect();
    let expected = expected.into_iter().map(|bucket| bucket as f32).collect();
    let tensors = vec![Made { name: "out".into(), made, expected, allowance: 0.0 }];
    Ok(Content::Table(Box::new(Table { tensors, error: 0.0 })))
}

/// Reads a case of the op `sinusoidal`: one rounding of either side.
pub(super) fn sinusoidal(file: &Tensors<'_>, keys: &Map<String, Value>) -> Result<Content> {
    if let Some(reason) = unknown(file, keys, &["positions", "dim", "layout", "frequencies"], &["out"]) {
        return Ok(Content::Unsupported(reason));
    }
    let size = |key: &str| size_of(keys, key)?.with_context(|| format!("{key}: need a size, got none"));
    let (positions, dim) = (size("positions")?, size("dim")?);
    let (layout, frequencies) = (text_of(keys, "layout")?.parse()?, text_of(keys, "frequencies")?.parse()?);
    let expected = file.need("out")?;
    expected.expect(&[positions, dim], "[positions, dim]")?;
    let (made, expected) =
        (sinusoidal_positions_with(positions, dim, layout, frequencies), expected.floats()?);
    let allowance = super::allowance(keys, "out")?.unwrap_or(0.0);
    let tensors = vec![Made { name: "out".into(), made, expected, allowance }];
    Ok(Content::Table(Box::new(Table { tensors, error: f32::EPSILON.into() })))
}
