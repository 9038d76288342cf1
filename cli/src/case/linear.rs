//! Cases of linear attention.

use super::{Content, Gradient, Gradients, flag_of, number_of, text_of, unknown};
use crate::tensors::{Tensors, wrong};
use anyhow::{Result, bail};
use serde_json::{Map, Value};
use wgpu_attention::{
    AttentionShape, Element, FeatureMap, LinearInputs, LinearOptions, Projection, Stabiliser,
};

/// A call of linear attention and its expected values.
#[derive(Debug)]
pub(crate) struct Linear {
    /// f32, `[B, H, L, D]`.
    pub(crate) shape: AttentionShape,
    pub(crate) options: LinearOptions,
    pub(crate) q: Vec<f32>,
    pub(crate) k: Vec<f32>,
    pub(crate) v: Vec<f32>,
    projection: Option<Vec<f32>>,
    /// `[B, H, Lq, dv]`.
    pub(crate) out: Vec<f32>,
    pub(crate) allowance: f64,
    /// What of queries and of keys the file says their features are, with the errors of that.
    pub(crate) features: [Option<(Vec<f32>, f64)>; 2],
    /// By q, k and v, as far as the file has them.
    pub(crate) gradients: Option<Gradients>,
}

const KEYS: [&str; 4] = ["feature", "feature_eps", "denominator_eps", "causal"];
const FEATURES: [&str; 2] = ["q_features", "k_features"];
const TENSORS: [&str; 11] =
    ["q", "k", "v", "projection", "out", "dout", "dq", "dk", "dv", FEATURES[0], FEATURES[1]];

/// Reads a case of the op `linear_attention`.
pub(super) fn linear(file: &Tensors<'_>, keys: &Map<String, Value>) -> Result<Content> {
    if let Some(reason) = unknown(file, keys, &KEYS, &TENSORS) {
        return Ok(Content::Unsupported(reason));
    }
    let [q, k, v, out] = [file.need("q")?, file.need("k")?, file.need("v")?, file.need("out")?];
    let &[b, h, l, d] = &q.shape[..] else {
        return Err(wrong("q", "[B, H, Lq, d]", format!("{:?}", q.shape)));
    };
    let (&[_, kv_heads, kv_len, _], Some(&dv)) = (&k.shape[..], v.shape.get(3)) else {
        return Err(wrong("k and v", "[B, Hkv, Lk, d] and [B, Hkv, Lk, dv]", format!("{:?}", k.shape)));
    };
    k.expect(&[b, kv_heads, kv_len, d], "[B, Hkv, Lk, d]")?;
    v.expect(&[b, kv_heads, kv_len, dv], "[B, Hkv, Lk, dv]")?;
    out.expect(&[b, h, l, dv], "[B, H, Lq, dv]")?;
    let shape = AttentionShape::new(b, h, l, d).kv_heads(kv_heads).kv_len(kv_len).value_dim(dv);
    let projection = file.find("projection");
    let features = match &projection {
        None => d,
        Some(projection) => match projection.shape[..] {
            [features, dim] if dim == d => features,
            _ => return Err(wrong("projection", "[m, d]", format!("{:?}", projection.shape))),
        },
    };
    let map = match map(keys, projection.is_some(), features)? {
        Ok(map) => map,
        Err(reason) => return Ok(Content::Unsupported(reason)),
    };
    let options = LinearOptions::new(map)
        .causal(flag_of(keys, "causal")?.unwrap_or(false))
        .denominator_eps(number_of(keys, "denominator_eps")?.unwrap_or(0.0) as f32);
    options.check(shape)?;
    let of_features = |name: &str, sizes: [usize; 4]| -> Result<_> {
        let Some(tensor) = file.find(name) else { return Ok(None) };
        tensor.expect(&sizes, "[B, H, L, m]")?;
        Ok(Some((tensor.floats()?, super::allowance(keys, name)?.unwrap_or(0.0))))
    };
    Ok(Content::Linear(Box::new(Linear {
        features: [
            of_features(FEATURES[0], [b, h, l, features])?,
            of_features(FEATURES[1], [b, kv_heads, kv_len, features])?,
        ],
        gradients: gradients(file, keys, &shape)?,
        q: q.floats()?,
        k: k.floats()?,
        v: v.floats()?,
        projection: projection.map(|projection| projection.floats()).transpose()?,
        out: out.floats()?,
        allowance: super::allowance(keys, "out")?.unwrap_or(0.0),
        shape,
        options,
    })))
}

/// The gradients, where the file has them.
fn gradients(
    file: &Tensors<'_>,
    keys: &Map<String, Value>,
    shape: &AttentionShape,
) -> Result<Option<Gradients>> {
    let AttentionShape { batch, heads, kv_heads, q_len, kv_len, head_dim, value_dim, .. } = *shape;
    let mut each = vec![];
    for (name, shape) in [
        ("dq", [batch, heads, q_len, head_dim]),
        ("dk", [batch, kv_heads, kv_len, head_dim]),
        ("dv", [batch, kv_heads, kv_len, value_dim]),
    ] {
        let Some(tensor) = file.find(name) else { continue };
        tensor.expect(&shape, "that of its tensor")?;
        let allowance = super::allowance(keys, name)?;
        each.push(Gradient {
            name,
            of_term: None,
            shape: shape.to_vec(),
            values: tensor.floats()?,
            allowance,
        });
    }
    if each.is_empty() {
        return Ok(None);
    }
    let dout = file.need("dout")?;
    dout.expect(&[batch, heads, q_len, value_dim], "[B, H, Lq, dv]")?;
    Ok(Some(Gradients { dout: dout.floats()?, each }))
}

/// The feature map, or why there is none.
fn map(keys: &Map<String, Value>, projected: bool, features: usize) -> Result<Result<FeatureMap, String>> {
    let eps = number_of(keys, "feature_eps")?.unwrap_or(0.0) as f32;
    let name = text_of(keys, "feature")?;
    let projection = Projection::Given;
    let (map, needs) = match name.as_str() {
        "favor" => (FeatureMap::Favor { features, eps, stabiliser: Stabiliser::Global, projection }, true),
        "generalized" => (FeatureMap::Relu { features, eps, projection }, true),
        "softmax" => (FeatureMap::Softmax, false),
        "elu" => (FeatureMap::Elu, false),
        "identity" => (FeatureMap::Identity, false),
        other => return Ok(Err(format!("feature `{other}` is not supported yet"))),
    };
    if needs != projected {
        let (need, got) = if needs { ("it", "none") } else { ("none", "one") };
        bail!("projection: need {need} for the feature `{name}`, got {got}");
    }
    Ok(Ok(map))
}

impl Linear {
    /// The tensors, with q, k and v of any element type.
    pub(crate) fn inputs<'a, E: Element>(
        &'a self,
        q: &'a [E],
        k: &'a [E],
        v: &'a [E],
    ) -> LinearInputs<'a, E> {
        LinearInputs::new(q, k, v).projection(self.projection.as_deref())
    }
}
