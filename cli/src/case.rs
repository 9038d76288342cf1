//! Golden cases: results of other systems, one a file. `golden/README.md` describes the format.

use crate::pattern::{self, Unusable};
use crate::shapes::attention_shape;
use crate::tensors::{self, Tensor, Tensors, wrong};
use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Value};
use std::path::Path;
use wgpu_attention::{
    AnyPattern, AttentionShape, BiasStrides, BlockLayout, Element, Inputs, Layout, Mask, Pattern, reference,
};

/// A golden case.
#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) op: String,
    pub(crate) content: Content,
}

/// What a case asks for.
#[derive(Debug)]
pub(crate) enum Content {
    Attention(Box<Attention>),
    /// With the reason.
    Unsupported(String),
}

/// An attention call and its expected values.
#[derive(Debug)]
pub(crate) struct Attention {
    /// f32, `[B, H, L, D]`.
    pub(crate) shape: AttentionShape,
    pub(crate) pattern: AnyPattern,
    /// Patterns with the same set, as they stand in the file: a pattern, or why it is not supported.
    pub(crate) same_set: Vec<(Value, Result<AnyPattern, String>)>,
    /// As `shape` says.
    pub(crate) tensors: reference::Tensors<f32>,
    /// `[B, H, Lq, dv]`.
    pub(crate) out: Vec<f32>,
    /// `[B, H, Lq]`.
    pub(crate) lse: Option<Vec<f32>>,
    /// The expected values' own absolute error.
    pub(crate) allowance: f64,
    /// The case has gradients, for a backward pass.
    pub(crate) gradients: bool,
}

/// Keys that say nothing about the result, in a case of any op.
const COMMENTS: [&str; 5] = ["op", "name", "source", "note", "notes"];
/// Keys of an attention case.
const KEYS: [&str; 5] = ["scale", "softcap", "pattern", "same_set", "expected_abs_error"];
/// Tensors of an attention case.
const TENSORS: [&str; 12] = ["q", "k", "v", "bias", "mask", "layout", "out", "lse", "dout", "dq", "dk", "dv"];
/// What `expected_abs_error` may say: the errors of gradients are of no use without a backward pass.
const ERRORS: [&str; 4] = ["out", "dq", "dk", "dv"];

impl Case {
    /// Reads and checks a file. The error names it, the tensor or key, the need and what came.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        Self::parse(&tensors::read(path)?).with_context(|| path.display().to_string())
    }

    fn parse(bytes: &[u8]) -> Result<Self> {
        let file = Tensors::parse(bytes)?;
        let text =
            file.metadata("case").context("metadata: need the key `case` of a golden case, got none")?;
        let value: Value = serde_json::from_str(text).context("metadata `case`: need JSON")?;
        let Value::Object(keys) = value else { bail!("metadata `case`: need a JSON object, got {value}") };
        let name = text_of(&keys, "name")?;
        let op = text_of(&keys, "op")?;
        let content = match op.as_str() {
            "attention" => attention(&file, &keys)?,
            other => Content::Unsupported(format!("op `{other}` is not there yet")),
        };
        Ok(Self { name, op, content })
    }
}

fn attention(file: &Tensors<'_>, keys: &Map<String, Value>) -> Result<Content> {
    // Whatever we do not know may change the result.
    let known = |key: &&String| !COMMENTS.contains(&key.as_str()) && !KEYS.contains(&key.as_str());
    if let Some(key) = keys.keys().find(known) {
        return Ok(Content::Unsupported(format!("key `{key}` is not there yet")));
    }
    if let Some(name) = file.names().into_iter().find(|name| !TENSORS.contains(name)) {
        return Ok(Content::Unsupported(format!("tensor `{name}` is not there yet")));
    }
    let errors = keys.get("expected_abs_error").cloned().unwrap_or_else(|| Map::new().into());
    let Value::Object(errors) = errors else { bail!("expected_abs_error: need an object, got {errors}") };
    if let Some(key) = errors.keys().find(|key| !ERRORS.contains(&key.as_str())) {
        return Ok(Content::Unsupported(format!("key `expected_abs_error.{key}` is not there yet")));
    }
    let allowance = number_of(&errors, "out").context("expected_abs_error")?.unwrap_or(0.0);
    ensure!(allowance >= 0.0, "expected_abs_error.out: need at least 0, got {allowance}");

    let (shape, inputs) = inputs(file, keys)?;
    let json = keys.get("pattern").context("pattern: need one, got none")?;
    let pattern = match pattern::from_json(json) {
        Ok(pattern) => pattern,
        Err(Unusable::Unsupported(reason)) => return Ok(Content::Unsupported(reason)),
        Err(Unusable::Malformed(reason)) => bail!("{reason}"),
    };
    let pattern = with_tensors(pattern, file, &shape)?;
    pattern.check(&shape.extent()).context("pattern")?;

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
        gradients: ["dq", "dk", "dv"].iter().any(|name| file.find(name).is_some()),
        tensors: inputs,
        pattern,
        shape,
    })))
}

/// Shape, q, k, v and bias.
fn inputs(
    file: &Tensors<'_>,
    keys: &Map<String, Value>,
) -> Result<(AttentionShape, reference::Tensors<f32>)> {
    let [q, k, v] = [file.need("q")?, file.need("k")?, file.need("v")?];
    for tensor in [&q, &k, &v] {
        if tensor.shape.len() != 4 {
            return Err(wrong(&tensor.name, "[B, H, L, D]", format!("{:?}", tensor.shape)));
        }
    }
    let mut shape = attention_shape(&q, &k, &v, Layout::Bhld)?.elements(wgpu_attention::ElementType::F32);
    shape.scale = number_of(keys, "scale")?.map(|scale| scale as f32);
    shape.softcap = number_of(keys, "softcap")?.map(|cap| cap as f32);
    let bias = file.find("bias").map(|bias| with_bias(&mut shape, &bias)).transpose()?;
    shape.check()?;
    Ok((shape, reference::Tensors { q: q.floats()?, k: k.floats()?, v: v.floats()?, bias }))
}

/// The values of a bias, whose strides go into the shape.
pub(crate) fn with_bias(shape: &mut AttentionShape, bias: &Tensor<'_>) -> Result<Vec<f32>> {
    let sizes = bias.broadcast([shape.batch, shape.heads, shape.q_len, shape.kv_len])?;
    shape.bias = Some(BiasStrides::broadcast(sizes));
    bias.floats()
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
    pattern_tensors(file, shape).map(|tensors| pattern.with_tensors(&tensors))
}

/// The tensors of a file that patterns refer to.
pub(crate) fn pattern_tensors(
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
    Ok(wgpu_attention::pattern::Tensors {
        mask: file.find("mask").map(mask).transpose()?,
        layout: file.find("layout").map(layout).transpose()?,
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

fn text_of(keys: &Map<String, Value>, key: &str) -> Result<String> {
    match keys.get(key) {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(other) => bail!("{key}: need a text, got {other}"),
        None => bail!("{key}: need a text, got none"),
    }
}

/// A number, if it is there.
fn number_of(keys: &Map<String, Value>, key: &str) -> Result<Option<f64>> {
    match keys.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match value.as_f64() {
            Some(number) => Ok(Some(number)),
            None => bail!("{key}: need a number, got {value}"),
        },
    }
}

impl Attention {
    /// The inputs rounded to an element type; the name of the tensor that does not fit its range otherwise.
    pub(crate) fn rounded<E: Element>(&self) -> Result<reference::Tensors<E>, String> {
        let round = |name: &str, values: &[f32]| -> Result<Vec<E>, String> {
            let rounded = |&x: &f32| {
                let element = E::from_f64(x.into());
                let fits = Into::<f64>::into(element).is_finite() || !x.is_finite();
                if fits {
                    Ok(element)
                } else {
                    Err(format!("`{name}` holds {x:e}, past the range of {}", E::TYPE))
                }
            };
            values.iter().map(rounded).collect()
        };
        let Inputs { q, k, v, .. } = self.tensors.inputs();
        let bias = self.tensors.bias.clone();
        Ok(reference::Tensors { q: round("q", q)?, k: round("k", k)?, v: round("v", v)?, bias })
    }
}
