//! Cases of Linformer.

use super::{Content, Gradient, Gradients, number_of, unknown};
use crate::tensors::{Tensor, Tensors, wrong};
use anyhow::Result;
use serde_json::{Map, Value};
use wgpu_attention::{Attention, AttentionShape, Element, LinformerInputs, LinformerOptions, Score};

/// A call of Linformer and its expected values.
#[derive(Debug)]
pub(crate) struct Linformer {
    /// f32, `[B, H, L, D]`.
    pub(crate) attention: Attention,
    pub(crate) options: LinformerOptions,
    pub(crate) q: Vec<f32>,
    pub(crate) k: Vec<f32>,
    pub(crate) v: Option<Vec<f32>>,
    e: Vec<f32>,
    f: Option<Vec<f32>>,
    /// `[B, H, Lq, dv]`.
    pub(crate) out: Vec<f32>,
    pub(crate) allowance: f64,
    /// By q, k, v, E and F, as far as the file has them.
    pub(crate) gradients: Option<Gradients>,
}

const KEYS: [&str; 1] = ["scale"];
const TENSORS: [&str; 12] = ["q", "k", "v", "e", "f", "out", "dout", "dq", "dk", "dv", "de", "df"];

/// Reads a case of the op `linformer`.
pub(super) fn linformer(file: &Tensors<'_>, keys: &Map<String, Value>) -> Result<Content> {
    if let Some(reason) = unknown(file, keys, &KEYS, &TENSORS) {
        return Ok(Content::Unsupported(reason));
    }
    let [q, k, e, out] = [file.need("q")?, file.need("k")?, file.need("e")?, file.need("out")?];
    let (v, f) = (file.find("v"), file.find("f"));
    let &[b, h, l, d] = &q.shape[..] else {
        return Err(wrong("q", "[B, H, Lq, d]", format!("{:?}", q.shape)));
    };
    let &[_, kv_heads, kv_len, _] = &k.shape[..] else {
        return Err(wrong("k", "[B, Hkv, Lk, d]", format!("{:?}", k.shape)));
    };
    let (rows, projected, per_head) = match e.shape[..] {
        [rows, projected] => (rows, projected, false),
        [heads, rows, projected] if heads == kv_heads => (rows, projected, true),
        _ => return Err(wrong("e", "[n, kk] or [Hkv, n, kk]", format!("{:?}", e.shape))),
    };
    let dv = match v.as_ref().map(|v| v.shape.get(3)) {
        None => d,
        Some(Some(&dv)) => dv,
        Some(None) => return Err(wrong("v", "[B, Hkv, Lk, dv]", "fewer axes")),
    };
    k.expect(&[b, kv_heads, kv_len, d], "[B, Hkv, Lk, d]")?;
    v.as_ref().map(|v| v.expect(&[b, kv_heads, kv_len, dv], "[B, Hkv, Lk, dv]")).transpose()?;
    f.as_ref().map(|f| f.expect(&e.shape, "as e")).transpose()?;
    out.expect(&[b, h, l, dv], "[B, H, Lq, dv]")?;
    let shape = AttentionShape::new(b, h, l, d).kv_heads(kv_heads).kv_len(kv_len).value_dim(dv);
    let score = match number_of(keys, "scale")? {
        Some(scale) => Score::new().scale(scale as f32),
        None => Score::new(),
    };
    let options = LinformerOptions::new(rows, projected)
        .per_head(per_head)
        .values(v.is_some())
        .value_projection(f.is_some());
    let attention = shape.score(score);
    options.check(&attention)?;
    Ok(Content::Linformer(Box::new(Linformer {
        gradients: gradients(file, keys, [&q, &k, v.as_ref().unwrap_or(&k), &e], &shape)?,
        q: q.floats()?,
        k: k.floats()?,
        v: v.map(|v| v.floats()).transpose()?,
        e: e.floats()?,
        f: f.map(|f| f.floats()).transpose()?,
        out: out.floats()?,
        allowance: super::allowance(keys, "out")?.unwrap_or(0.0),
        attention,
        options,
    })))
}

/// The gradients, where the file has them; a tensor that is absent has none.
fn gradients(
    file: &Tensors<'_>,
    keys: &Map<String, Value>,
    [q, k, v, e]: [&Tensor<'_>; 4],
    shape: &AttentionShape,
) -> Result<Option<Gradients>> {
    let mut each = vec![];
    for (name, of, its) in [("dq", "q", q), ("dk", "k", k), ("dv", "v", v), ("de", "e", e), ("df", "f", e)] {
        let Some(tensor) = file.find(name) else { continue };
        if file.find(of).is_none() {
            return Err(wrong(name, "none, since the case has no such tensor", "one"));
        }
        tensor.expect(&its.shape, "that of its tensor")?;
        each.push(Gradient {
            name,
            of_term: None,
            shape: its.shape.to_vec(),
            values: tensor.floats()?,
            allowance: super::allowance(keys, name)?,
        });
    }
    if each.is_empty() {
        return Ok(None);
    }
    let dout = file.need("dout")?;
    dout.expect(&[shape.batch, shape.heads, shape.q_len, shape.value_dim], "[B, H, Lq, dv]")?;
    Ok(Some(Gradients { dout: dout.floats()?, each }))
}

impl Linformer {
    /// The tensors, with q, k and v of any element type.
    pub(crate) fn inputs<'a, E: Element>(
        &'a self,
        q: &'a [E],
        k: &'a [E],
        v: Option<&'a [E]>,
    ) -> LinformerInputs<'a, E> {
        LinformerInputs::new(q, k, &self.e).v(v).f(self.f.as_deref())
    }
}
