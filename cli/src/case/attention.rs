//! Attention cases.

use super::{Content, unknown};
use crate::distances::{self, DistanceBias, Distances};
use crate::inputs::Owned;
use crate::pattern::{self, Unusable};
use crate::score;
use crate::shapes::attention_shape;
use crate::tensors::{Tensor, Tensors, wrong};
use anyhow::{Context, Result, bail};
use serde_json::{Map, Value};
use std::ops::Range;
use wgpu_attention::{AnyPattern, AttentionShape, BlockLayout, Layout, Mask, Pattern};

/// An attention call and its expected values.
#[derive(Debug)]
pub(crate) struct Attention {
    /// f32, `[B, H, L, D]`.
    pub(crate) call: wgpu_attention::Attention,
    pub(crate) pattern: AnyPattern,
    /// Patterns with the same set, as they stand in the file: a pattern, or why it is not supported.
    pub(crate) same_set: Vec<(Value, Result<AnyPattern, String>)>,
    /// As `call` says.
    pub(crate) tensors: Owned<f32>,
    /// `[B, H, Lq, dv]`.
    pub(crate) out: Vec<f32>,
    /// `[B, H, Lq]`.
    pub(crate) lse: Option<Vec<f32>>,
    /// The expected values' own absolute error.
    pub(crate) allowance: f64,
    pub(crate) gradients: Option<Gradients>,
}

/// The gradients of a case.
#[derive(Debug)]
pub(crate) struct Gradients {
    /// By out, as it lies.
    pub(crate) dout: Vec<f32>,
    /// By q, k, v and the tensors of the score, as far as the file has them.
    pub(crate) each: Vec<Gradient>,
}

/// The gradient by one tensor.
#[derive(Debug)]
pub(crate) struct Gradient {
    pub(crate) name: &'static str,
    /// Where the tensor of the score has it. None of q, k and v.
    pub(crate) of_term: Option<OfTerm>,
    pub(crate) shape: Vec<usize>,
    pub(crate) values: Vec<f32>,
    /// The values' own absolute error, where the file says it.
    pub(crate) allowance: Option<f64>,
}

/// Where the gradient of a tensor of the score has that of a tensor of the file.
#[derive(Debug)]
pub(crate) struct OfTerm {
    pub(crate) tensor: &'static str,
    pub(crate) places: Places,
}

/// Which elements of the tensor of the score are the file's.
#[derive(Debug)]
pub(crate) enum Places {
    /// From this one on, in the same order.
    From(usize),
    /// Of each of the file's elements: the gradient is the sum of theirs.
    Sums(Vec<Range<usize>>),
}

/// Keys of an attention case, beside those of its score.
const KEYS: [&str; 2] = ["pattern", "same_set"];
/// Tensors of an attention case, beside those of its score and its gradients.
const TENSORS: [&str; 8] = ["q", "k", "v", "mask", "layout", "out", "lse", "dout"];
/// Gradients by q, k and v.
pub(super) const GRADIENTS: [&str; 3] = ["dq", "dk", "dv"];
/// Gradients by tensors of the score.
pub(super) const TERM_GRADIENTS: [&str; 12] = [
    "dr",
    "du",
    "dw",
    "ds",
    "dseg_embed",
    "dsinks",
    "dbucket_table",
    "dbias",
    "ddistance_bias",
    "dalibi_slopes",
    "dslopes",
    "dtemperature",
];

/// Reads a case of the op `attention`.
pub(super) fn attention(file: &Tensors<'_>, keys: &Map<String, Value>) -> Result<Content> {
    let (known_keys, tensors) = (
        [&KEYS[..], &score::KEYS, &distances::KEYS].concat(),
        [&TENSORS[..], &GRADIENTS, &TERM_GRADIENTS, &score::TENSORS, &score::ROWS].concat(),
    );
    if let Some(reason) = unknown(file, keys, &known_keys, &tensors) {
        return Ok(Content::Unsupported(reason));
    }
    if let (None, Some(name)) =
        (file.find("r"), ["u", "w"].into_iter().find(|name| file.find(name).is_some()))
    {
        return Ok(Content::Unsupported(format!("tensor `{name}` without `r` is not supported yet")));
    }
    let allowance = super::allowance(keys, "out")?.unwrap_or(0.0);
    let (call, tensors) = inputs(file, keys)?;
    let shape = call.shape;
    let json = keys.get("pattern").filter(|json| !json.is_null()).context("pattern: need one, got none")?;
    let pattern = match pattern::from_json(json) {
        Ok(pattern) => pattern,
        Err(Unusable::Unsupported(reason)) => return Ok(Content::Unsupported(reason)),
        Err(Unusable::Malformed(reason)) => bail!("{reason}"),
    };
    let pattern = with_tensors(pattern, file, &shape)?;
    pattern.check(&shape.extent()).context("pattern")?;
    distances::check_kept(Distances::of_case(keys)?, file, &call, &pattern, &tensors.terms)?;

    let full = [shape.batch, shape.heads, shape.q_len, shape.value_dim];
    let out = file.need("out")?;
    out.expect(&full, "[B, H, Lq, dv]")?;
    let lse = file.find("lse").map(|lse| {
        lse.expect(&full[..3], "[B, H, Lq]")?;
        lse.floats()
    });
    Ok(Content::Attention(Box::new(Attention {
        same_set: same_set(keys, &shape)?,
        out: out.floats()?,
        lse: lse.transpose()?,
        allowance,
        gradients: gradients(file, keys, &shape)?,
        tensors,
        pattern,
        call,
    })))
}

fn gradients(
    file: &Tensors<'_>,
    keys: &Map<String, Value>,
    shape: &AttentionShape,
) -> Result<Option<Gradients>> {
    let AttentionShape { batch, heads, kv_heads, q_len, kv_len, head_dim, value_dim, .. } = *shape;
    let shapes = [
        [batch, heads, q_len, head_dim],
        [batch, kv_heads, kv_len, head_dim],
        [batch, kv_heads, kv_len, value_dim],
    ];
    let mut each = vec![];
    for (name, shape) in GRADIENTS.into_iter().zip(shapes) {
        let Some(tensor) = file.find(name) else { continue };
        tensor.expect(&shape, "that of its tensor")?;
        let allowance = super::allowance(keys, name)?;
        each.push(Gradient { name, of_term: None, shape: shape.into(), values: tensor.floats()?, allowance });
    }
    for name in TERM_GRADIENTS {
        let Some(tensor) = file.find(name) else { continue };
        let of_term = of_term(name, file, keys, shape)?;
        tensor.expect(&file.need(&name[1..])?.shape, "that of its tensor")?;
        let (shape, allowance) = (tensor.shape.clone(), super::allowance(keys, name)?);
        each.push(Gradient { name, of_term: Some(of_term), shape, values: tensor.floats()?, allowance });
    }
    if each.is_empty() {
        return Ok(None);
    }
    let dout = file.need("dout")?;
    dout.expect(&[batch, heads, q_len, value_dim], "[B, H, Lq, dv]")?;
    Ok(Some(Gradients { dout: dout.floats()?, each }))
}

/// The tensor of the score that has this gradient, and where in it.
fn of_term(
    name: &str,
    file: &Tensors<'_>,
    keys: &Map<String, Value>,
    shape: &AttentionShape,
) -> Result<OfTerm> {
    let rows = shape.heads * shape.head_dim;
    let (tensor, first) = match name {
        "dr" => ("relative_rows", 0),
        "du" => ("relative_biases", 0),
        "dw" => ("relative_biases", if file.find("u").is_some() { rows } else { 0 }),
        "ds" => ("segments", 0),
        "dseg_embed" => ("segments", rows),
        "dsinks" => ("sinks", 0),
        "dbucket_table" => ("bucket_table", 0),
        "dbias" => ("bias", 0),
        "dalibi_slopes" | "dslopes" => ("slopes", 0),
        "dtemperature" => ("temperature", 0),
        // A bias by distance lies in another order.
        _ => {
            let bias = DistanceBias::of_file(Distances::of_case(keys)?, file, shape)?;
            let bias = bias.with_context(|| format!("{name}: need `{}`, got none", &name[1..]))?;
            return Ok(OfTerm { tensor: "second_bias", places: Places::Sums(bias.places()) });
        }
    };
    Ok(OfTerm { tensor, places: Places::From(first) })
}

/// The call, and its input tensors.
fn inputs(file: &Tensors<'_>, keys: &Map<String, Value>) -> Result<(wgpu_attention::Attention, Owned<f32>)> {
    let [q, k, v] = [file.need("q")?, file.need("k")?, file.need("v")?];
    for tensor in [&q, &k, &v] {
        if tensor.shape.len() != 4 {
            return Err(wrong(&tensor.name, "[B, H, L, D]", format!("{:?}", tensor.shape)));
        }
    }
    let shape = attention_shape(&q, &k, &v, Layout::Bhld)?;
    let (score, terms) = score::of_file(keys, file, &shape)?;
    let call = shape.score(score);
    call.check()?;
    Ok((call, Owned { q: q.floats()?, k: k.floats()?, v: v.floats()?, terms }))
}

/// The pattern with the file's `mask` and `layout` in it.
fn with_tensors(pattern: AnyPattern, file: &Tensors<'_>, shape: &AttentionShape) -> Result<AnyPattern> {
    for (name, kind) in [("mask", "mask"), ("layout", "blocks")] {
        match (file.find(name), pattern::uses(&pattern, kind)) {
            (None, true) => {
                let need = format!("it, as the pattern has `{kind}`");
                return Err(wrong(name, need, format!("only {}", file.names().join(", "))));
            }
            (Some(_), false) => {
                return Err(wrong(name, format!("none, as the pattern has no `{kind}`"), "a tensor"));
            }
            _ => {}
        }
    }
    pattern_tensors(&pattern, file, shape).map(|tensors| pattern.with_tensors(&tensors))
}

/// The tensors of a file that the pattern refers to; what it does not may be of any type and shape.
pub(crate) fn pattern_tensors(
    pattern: &AnyPattern,
    file: &Tensors<'_>,
    shape: &AttentionShape,
) -> Result<wgpu_attention::pattern::Tensors> {
    let mask = |mask: Tensor<'_>| -> Result<_> {
        let sizes = mask.broadcast([shape.batch, shape.heads, shape.q_len, shape.kv_len])?;
        Ok(Mask::new(sizes, mask.bits()?)?)
    };
    let layout = |layout: Tensor<'_>| -> Result<_> {
        let sizes = layout.padded("[H or 1, query blocks, key blocks]")?;
        Ok(BlockLayout::new(sizes, layout.bits()?)?)
    };
    let find = |name, kind| file.find(name).filter(|_| pattern::uses(pattern, kind));
    Ok(wgpu_attention::pattern::Tensors {
        mask: find("mask", "mask").map(mask).transpose()?,
        layout: find("layout", "blocks").map(layout).transpose()?,
    })
}

fn same_set(
    keys: &Map<String, Value>,
    shape: &AttentionShape,
) -> Result<Vec<(Value, Result<AnyPattern, String>)>> {
    let list = match keys.get("same_set") {
        None => return Ok(vec![]),
        Some(Value::Array(list)) => list,
        Some(other) => bail!("same_set: need a list of patterns, got {other}"),
    };
    let read = |json: &Value| match pattern::from_json(json) {
        Ok(pattern) => {
            pattern.check(&shape.extent()).with_context(|| format!("same_set: {json}"))?;
            Ok((json.clone(), Ok(pattern)))
        }
        Err(Unusable::Unsupported(reason)) => Ok((json.clone(), Err(reason))),
        Err(Unusable::Malformed(reason)) => bail!("same_set: {reason}"),
    };
    list.iter().map(read).collect()
}
