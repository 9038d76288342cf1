//! Cases of LSH attention.

use super::attention::TERM_GRADIENTS;
use super::{Content, Gradient, Gradients, flag_of, number_of, size_of, unknown};
use crate::distances::{self, Distances};
use crate::score::{self, Terms};
use crate::tensors::{Tensors, wrong};
use anyhow::{Context, Result, bail};
use serde_json::{Map, Value};
use wgpu_attention::{
    Attention, AttentionShape, Dropout, ElementType, LshInputs, LshOptions, Projections, Relative, Score,
    Segments, Term,
};

/// A call of LSH attention and its expected values.
#[derive(Debug)]
pub(crate) struct Lsh {
    pub(crate) given: LshCall,
    /// `[B, H, L, dv]`.
    pub(crate) out: Vec<f32>,
    /// `[B, H, L]`.
    pub(crate) lse: Option<Vec<f32>>,
    /// `[B, H, rounds, L]`.
    pub(crate) buckets: Option<Vec<u32>>,
    pub(crate) allowance: f64,
    /// By qk and v.
    pub(crate) gradients: Option<Gradients>,
}

/// A call of LSH attention, with its tensors.
#[derive(Debug)]
pub(crate) struct LshCall {
    /// f32, `[B, H, L, D]`.
    pub(crate) attention: Attention,
    pub(crate) options: LshOptions,
    /// The types of qk and v in the file.
    elements: [ElementType; 2],
    pub(crate) qk: Vec<f32>,
    pub(crate) v: Vec<f32>,
    projections: Vec<f32>,
    key_mask: Option<Vec<bool>>,
    /// Tensors of the score.
    terms: Terms,
}

/// Keys of an LSH case, beside those of its score.
const KEYS: [&str; 12] = [
    "rounds",
    "chunk",
    "buckets",
    "look_back",
    "look_ahead",
    "wrap",
    "chain_rounds",
    "causal",
    "self_penalty",
    "within_bucket",
    "count_once",
    "norm_eps",
];
/// Tensors of an LSH case, beside those of its score.
const TENSORS: [&str; 10] =
    ["qk", "v", "rotations", "key_mask", "out", "lse", "buckets", "dout", GRADIENTS[0], GRADIENTS[1]];
/// Gradients by qk and v.
const GRADIENTS: [&str; 2] = ["dqk", "dv"];

/// The op of these cases.
pub(crate) const OP: &str = "lsh_attention";

/// Reads a case of the op `lsh_attention`. What it leaves out is as [`LshOptions`] has it.
pub(super) fn lsh(file: &Tensors<'_>, keys: &Map<String, Value>) -> Result<Content> {
    let given = match LshCall::new(file, keys, &[])? {
        Ok(given) => given,
        Err(reason) => return Ok(Content::Unsupported(reason)),
    };
    let LshCall { attention, options, .. } = &given;
    let AttentionShape { batch, heads, q_len, value_dim, .. } = attention.shape;
    let out = file.need("out")?;
    out.expect(&[batch, heads, q_len, value_dim], "[B, H, L, dv]")?;
    let lse = file.find("lse").map(|lse| {
        lse.expect(&[batch, heads, q_len], "[B, H, L]")?;
        lse.floats()
    });
    let buckets = file.find("buckets").map(|buckets| {
        buckets.expect(&[batch, heads, options.rounds, q_len], "[B, H, rounds, L]")?;
        let buckets = buckets.indices()?;
        // Masked keys are in the one after the last.
        let most = options.bucket_count() - usize::from(!options.key_mask);
        match buckets.iter().find(|&&bucket| bucket as usize > most) {
            Some(bucket) => Err(wrong("buckets", format!("buckets up to {most}"), bucket)),
            None => Ok(buckets),
        }
    });
    Ok(Content::Lsh(Box::new(Lsh {
        out: out.floats()?,
        lse: lse.transpose()?,
        allowance: super::allowance(keys, "out")?.unwrap_or(0.0),
        buckets: buckets.transpose()?,
        gradients: gradients(file, keys, &attention.shape)?,
        given,
    })))
}

/// The gradients, where the file has them.
fn gradients(
    file: &Tensors<'_>,
    keys: &Map<String, Value>,
    shape: &AttentionShape,
) -> Result<Option<Gradients>> {
    let mut each = vec![];
    for (name, dim) in GRADIENTS.into_iter().zip([shape.head_dim, shape.value_dim]) {
        let Some(tensor) = file.find(name) else { continue };
        let shape = vec![shape.batch, shape.heads, shape.q_len, dim];
        tensor.expect(&shape, "that of its tensor")?;
        let allowance = super::allowance(keys, name)?;
        each.push(Gradient { name, of_term: None, shape, values: tensor.floats()?, allowance });
    }
    if each.is_empty() {
        return Ok(None);
    }
    let dout = file.need("dout")?;
    dout.expect(&[shape.batch, shape.heads, shape.q_len, shape.value_dim], "[B, H, L, dv]")?;
    Ok(Some(Gradients { dout: dout.floats()?, each }))
}

impl LshCall {
    /// The call of a file that holds a case of LSH attention, with expected values or without; none of a file of attention, or without a case.
    pub(crate) fn of_file(bytes: &[u8]) -> Result<Option<Self>> {
        let file = Tensors::parse(bytes)?;
        let case = file.metadata("case").and_then(|text| serde_json::from_str::<Value>(text).ok());
        let Some(Value::Object(keys)) = case else { return Ok(None) };
        match keys.get("op").and_then(Value::as_str) {
            Some(OP) => Self::new(&file, &keys, &TERM_GRADIENTS)?.map(Some).map_err(anyhow::Error::msg),
            None | Some("attention") => Ok(None),
            Some(other) => {
                bail!("metadata `case`: need a case of attention or of LSH attention, got `{other}`")
            }
        }
    }

    /// The type of qk and v, which a kernel has in one type.
    pub(crate) fn element(&self) -> Result<ElementType> {
        let [qk, v] = self.elements;
        if qk == v { Ok(qk) } else { Err(wrong("v", format!("{qk}, as qk"), v)) }
    }

    /// What is given of a case; or why it is not supported. `results`: tensors that do not matter.
    fn new(file: &Tensors<'_>, keys: &Map<String, Value>, results: &[&str]) -> Result<Result<Self, String>> {
        let known_keys = [&KEYS[..], &score::KEYS, &distances::KEYS].concat();
        let tensors = [&TENSORS[..], &score::TENSORS, results].concat();
        let reason = refused(file, keys).or_else(|| unknown(file, keys, &known_keys, &tensors));
        if let Some(reason) = reason {
            return Ok(Err(reason));
        }
        let (qk, v) = (file.need("qk")?, file.need("v")?);
        let &[b, h, l, d] = &qk.shape[..] else {
            return Err(wrong("qk", "[B, H, L, d]", format!("{:?}", qk.shape)));
        };
        let Some(&dv) = v.shape.get(3) else {
            return Err(wrong("v", "[B, H, L, dv]", format!("{:?}", v.shape)));
        };
        v.expect(&[b, h, l, dv], "[B, H, L, dv]")?;
        let elements = [qk.element()?, v.element()?];
        let shape = AttentionShape::new(b, h, l, d).value_dim(dv);
        let (score, terms) = score::of_file(keys, file, &shape)?;
        let attention = shape.score(score);

        let rotations = file.need("rotations")?;
        let per_head = rotations.shape.first().is_some_and(|&heads| heads != 1);
        let key_mask = file.find("key_mask");
        let options =
            options(keys)?.key_mask(key_mask.is_some()).projections(Projections::Given { per_head });
        options.check(&attention)?;
        distances::check_all(Distances::of_case(keys)?, file, &shape, options.causal)?;
        let heads = if per_head { h } else { 1 };
        let sizes = [heads, d, options.rounds, options.columns()];
        rotations.expect(&sizes, "[H or 1, d, rounds, half the sum of the bucket factors]")?;
        let key_mask = key_mask.map(|mask| {
            mask.expect(&[b, l], "[B, L]")?;
            mask.bits()
        });
        let (key_mask, projections) = (key_mask.transpose()?, rotations.floats()?);
        let (qk, v) = (qk.floats()?, v.floats()?);
        Ok(Ok(Self { attention, options, elements, qk, v, projections, key_mask, terms }))
    }

    /// The tensors, with qk and v of any element type.
    pub(crate) fn inputs<'a, E>(&'a self, qk: &'a [E], v: &'a [E]) -> LshInputs<'a, E> {
        let inputs = LshInputs::new(qk, v).projections(self.projections.as_slice());
        let inputs = inputs.key_mask(self.key_mask.as_deref());
        self.terms.iter().fold(inputs, |inputs, (name, values)| inputs.tensor(name, values))
    }
}

/// Why LSH attention cannot have a term that the file has something for, as the library says it.
fn refused(file: &Tensors<'_>, keys: &Map<String, Value>) -> Option<String> {
    let has = |names: &[&str]| names.iter().any(|name| file.find(name).is_some());
    let terms: [(bool, Term); 3] = [
        (has(&["r", "u", "w"]), Relative::new(0, 1).into()),
        (has(&["s", "seg_embed", "seg_q", "seg_k"]), Segments.into()),
        (keys.contains_key("dropout"), Dropout::new(0.5, 0).into()),
    ];
    let (_, term) = terms.into_iter().find(|(there, _)| *there)?;
    // Of any sizes: these are of one place.
    let call = AttentionShape::new(1, 1, 1, 1).score(Score::new().with(term));
    LshOptions::new(1, 2, 1).check(call).err().map(|error| error.to_string())
}

fn options(keys: &Map<String, Value>) -> Result<LshOptions> {
    let need =
        |key: &str| size_of(keys, key)?.with_context(|| format!("{key}: need a whole number, got none"));
    let list = match keys.get("buckets") {
        Some(Value::Array(list)) => list,
        Some(other) => bail!("buckets: need a list of factors, got {other}"),
        None => bail!("buckets: need a list of factors, got none"),
    };
    let factor = |value: &Value| {
        let factor = value.as_u64().and_then(|factor| usize::try_from(factor).ok());
        factor.with_context(|| format!("buckets: need whole numbers, got {value}"))
    };
    let factors: Vec<usize> = list.iter().map(factor).collect::<Result<_>>()?;
    let mut options = LshOptions::new(need("rounds")?, 2, need("chunk")?).buckets(factors);
    options.look_back = size_of(keys, "look_back")?.unwrap_or(options.look_back);
    options.look_ahead = size_of(keys, "look_ahead")?.unwrap_or(options.look_ahead);
    for (key, flag) in [
        ("wrap", &mut options.wrap),
        ("chain_rounds", &mut options.chain_rounds),
        ("causal", &mut options.causal),
        ("within_bucket", &mut options.within_bucket),
        ("count_once", &mut options.count_once),
    ] {
        *flag = flag_of(keys, key)?.unwrap_or(*flag);
    }
    for (key, number) in [("self_penalty", &mut options.self_penalty), ("norm_eps", &mut options.norm_eps)] {
        *number = number_of(keys, key)?.map_or(*number, |given| given as f32);
    }
    Ok(options)
}
