//! Golden cases: results of other systems, one per file. `golden/README.md` describes the format.
//!
//! | file | ops |
//! |---|---|
//! | `attention.rs` | `attention` |
//! | `lsh.rs` | `lsh_attention` |
//! | `linear.rs` | `linear_attention` |
//! | `linformer.rs` | `linformer` |
//! | `recurrent.rs` | `recurrent` |
//! | `decode.rs` | `decode` |
//! | `packed.rs` | `packed` |
//! | `layer.rs` | `layer_norm`, `rms_norm`, `rotary`, `axial_positions`, `activation`, `feed_forward` |
//! | `integers.rs` | `quantize`, `dequantize`, `quantized_matmul`, `matmul_integer` |
//! | `tables.rs` | `alibi_slopes`, `relative_buckets`, `sinusoidal` |
//!
//! A `model` is read by `wgpu_attention_models`, and so is `reversible`.

mod attention;
mod decode;
mod integers;
mod layer;
mod linear;
mod linformer;
mod lsh;
mod packed;
mod recurrent;
mod tables;

pub(crate) use attention::{Attention, Gradient, Gradients, Places, pattern_tensors};
pub(crate) use decode::Decode;
pub(crate) use integers::{IntegerCall, Integers};
pub(crate) use layer::{Layer, LayerOp, NormPlace};
pub(crate) use linear::Linear;
pub(crate) use linformer::Linformer;
pub(crate) use lsh::{Lsh, LshCall, OP as LSH};
pub(crate) use packed::{Packed, heads_first};
pub(crate) use recurrent::Recurrent;
pub(crate) use tables::{Made, Table};

use crate::tensors::{self, Tensors};
use anyhow::{Context, Result, bail};
use serde_json::{Map, Value};
use std::path::Path;
use wgpu_attention_models::FAMILIES;

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
    Lsh(Box<Lsh>),
    Linear(Box<Linear>),
    Linformer(Box<Linformer>),
    Recurrent(Box<Recurrent>),
    Decode(Box<Decode>),
    Packed(Box<Packed>),
    Layer(Box<Layer>),
    Integers(Box<Integers>),
    /// Made on the host alone.
    Table(Box<Table>),
    /// The whole file.
    Model(Vec<u8>),
    /// With the reason.
    Unsupported(String),
}

/// Keys of a case of any op that are read here, or that say nothing about the result.
const COMMON: [&str; 7] = ["op", "name", "source", "note", "notes", "needs", "expected_abs_error"];
/// What of `needs` is read here.
const NEEDS: [&str; 9] = [
    "gradients",
    "distances",
    "segments",
    "alibi",
    "buckets",
    "distance_bias",
    "sinks",
    "gated",
    "post_norm",
];
/// What `expected_abs_error` may say, beside the names of gradients.
const ERRORS: [&str; 3] = ["out", "q_features", "k_features"];

impl Case {
    /// Reads and checks a file. The error names it, the tensor or key, the need and what came.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        Self::parse(tensors::read(path)?).with_context(|| path.display().to_string())
    }

    /// Reads and checks the bytes of a file.
    pub(crate) fn parse(bytes: Vec<u8>) -> Result<Self> {
        let file = Tensors::parse(&bytes)?;
        let text =
            file.metadata("case").context("metadata: need the key `case` of a golden case, got none")?;
        let value: Value = serde_json::from_str(text).context("metadata `case`: need JSON")?;
        let Value::Object(keys) = value else { bail!("metadata `case`: need a JSON object, got {value}") };
        let name = text_of(&keys, "name")?;
        let op = text_of(&keys, "op")?;
        let content = match op.as_str() {
            "attention" => attention::attention(&file, &keys)?,
            LSH => lsh::lsh(&file, &keys)?,
            "linear_attention" => linear::linear(&file, &keys)?,
            "linformer" => linformer::linformer(&file, &keys)?,
            "recurrent" => recurrent::recurrent(&file, &keys)?,
            "decode" => decode::decode(&file, &keys)?,
            "packed" => packed::packed(&file, &keys)?,
            "layer_norm" | "rms_norm" => layer::norm(&file, &keys, &op)?,
            "rotary" => layer::rotary(&file, &keys)?,
            "axial_positions" => layer::axial(&file, &keys)?,
            "sinusoidal" => tables::sinusoidal(&file, &keys)?,
            "activation" => layer::activation(&file, &keys)?,
            "alibi_slopes" => tables::alibi_slopes(&file, &keys)?,
            "relative_buckets" => tables::relative_buckets(&file, &keys)?,
            "feed_forward" => layer::feed_forward(&file, &keys)?,
            "quantize" => integers::quantize(&file, &keys)?,
            "dequantize" => integers::dequantize(&file, &keys)?,
            "quantized_matmul" => integers::weights(&file, &keys)?,
            "matmul_integer" => integers::products(&file, &keys)?,
            "reversible" => match layer::reversible(&file, &keys) {
                Some(reason) => Content::Unsupported(reason),
                None => Content::Model(bytes),
            },
            "model" => match text_of(&keys, "family")?.as_str() {
                family if FAMILIES.contains(&family) => Content::Model(bytes),
                family => Content::Unsupported(format!("family `{family}` is not supported yet")),
            },
            other => Content::Unsupported(format!("op `{other}` is not supported yet")),
        };
        Ok(Self { name, op, content })
    }
}

/// Whether `expected_abs_error` may say it of any case.
fn is_error_of(tensor: &str) -> bool {
    [&ERRORS[..], &attention::GRADIENTS, &attention::TERM_GRADIENTS].concat().contains(&tensor)
}

/// What of a file this program does not know, for it may change the result.
fn unknown(
    file: &Tensors<'_>,
    keys: &Map<String, Value>,
    known_keys: &[&str],
    known_tensors: &[&str],
) -> Option<String> {
    let known = |key: &str| COMMON.contains(&key) || known_keys.contains(&key);
    let of_case = keys.keys().filter(|key| !known(key)).map(|key| format!("key `{key}`"));
    let names = file.names().into_iter().filter(|name| !known_tensors.contains(name));
    let tensors = names.map(|name| format!("tensor `{name}`"));
    let errors = keys.get("expected_abs_error").and_then(Value::as_object).into_iter().flatten();
    let errors = errors.filter(|(key, _)| !is_error_of(key) && !known_tensors.contains(&key.as_str()));
    let errors = errors.map(|(key, _)| format!("key `expected_abs_error.{key}`"));
    let needs = keys.get("needs").map(|needs| needs.as_array().cloned().unwrap_or(vec![needs.clone()]));
    let needs = needs.into_iter().flatten().filter(|need| !need.as_str().is_some_and(|n| NEEDS.contains(&n)));
    let needs = needs.map(|need| format!("need {need}"));
    not_there(&of_case.chain(tensors).chain(errors).chain(needs).collect::<Vec<_>>())
}

/// The reason why a case with these is not supported; none without any.
pub(crate) fn not_there(names: &[String]) -> Option<String> {
    match names {
        [] => None,
        [name] => Some(format!("{name} is not supported yet")),
        names => Some(format!("{} are not supported yet", names.join(", "))),
    }
}

/// The own absolute error of an expected tensor, if the case says it.
fn allowance(keys: &Map<String, Value>, name: &str) -> Result<Option<f64>> {
    let allowance = match keys.get("expected_abs_error") {
        None => None,
        Some(Value::Object(errors)) => number_of(errors, name).context("expected_abs_error")?,
        Some(other) => bail!("expected_abs_error: need an object, got {other}"),
    };
    match allowance {
        Some(error) if error < 0.0 => bail!("expected_abs_error.{name}: need at least 0, got {error}"),
        allowance => Ok(allowance),
    }
}

fn text_of(keys: &Map<String, Value>, key: &str) -> Result<String> {
    match keys.get(key) {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(other) => bail!("{key}: need a text, got {other}"),
        None => bail!("{key}: need a text, got none"),
    }
}

/// A number, if it is there.
pub(crate) fn number_of(keys: &Map<String, Value>, key: &str) -> Result<Option<f64>> {
    match keys.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match value.as_f64() {
            Some(number) => Ok(Some(number)),
            None => bail!("{key}: need a number, got {value}"),
        },
    }
}

/// A size, if it is there.
pub(crate) fn size_of(keys: &Map<String, Value>, key: &str) -> Result<Option<usize>> {
    match keys.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match value.as_u64().and_then(|size| usize::try_from(size).ok()) {
            Some(size) => Ok(Some(size)),
            None => bail!("{key}: need a whole number, got {value}"),
        },
    }
}

/// A truth value, if it is there.
pub(crate) fn flag_of(keys: &Map<String, Value>, key: &str) -> Result<Option<bool>> {
    match keys.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Bool(flag)) => Ok(Some(*flag)),
        Some(value) => bail!("{key}: need true or false, got {value}"),
    }
}
