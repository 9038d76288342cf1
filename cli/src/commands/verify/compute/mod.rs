//! A case on the CPU reference and on a GPU.

pub(super) mod attention;
mod decode;
mod feed_forward;
mod gradients;
mod integers;
mod layer;
mod linear;
mod linformer;
mod lsh;
mod model;
mod packed;
mod recurrent;
mod table;
mod tensors;

use super::record::Judged;
use crate::case::Content;
use crate::tensors::rounded;
use anyhow::Result;
use wgpu_attention::{AnyPattern, Element, ElementType, Gpu};
use wgpu_attention_bench::typed;

/// What came of a case on a GPU.
pub(super) enum Done {
    Compared {
        path: String,
        against: &'static str,
        judged: Box<Judged>,
    },
    /// With the reason: an input does not fit the element type, or there is no such kernel.
    Unsupported(String),
}

/// Why a table of the host has nothing to run on a GPU.
pub(super) const ON_THE_HOST: &str = "made on the host: no kernel computes it";

/// What a comparison is with.
const EXPECTED: &str = "expected";
const REFERENCE: &str = "reference";

/// The reference against the expected values; an attention case under a pattern of the same set, without its gradients.
pub(super) fn on_cpu(case: &Content, pattern: Option<&AnyPattern>) -> Result<Judged> {
    match case {
        Content::Attention(case) => {
            let gradients = case.gradients.as_ref().filter(|_| pattern.is_none());
            attention::on_cpu(case, pattern.unwrap_or(&case.pattern), gradients)
        }
        Content::Lsh(case) => lsh::on_cpu(case),
        Content::Linear(case) => linear::on_cpu(case),
        Content::Linformer(case) => linformer::on_cpu(case),
        Content::Recurrent(case) => recurrent::on_cpu(case),
        Content::Decode(case) => decode::on_cpu(case),
        Content::Packed(case) => packed::on_cpu(case),
        Content::Layer(case) => layer::on_cpu(case),
        Content::Integers(case) => integers::on_cpu(case),
        Content::Table(case) => table::judged(case),
        Content::Model(bytes) => model::on_cpu(bytes),
        Content::Unsupported(reason) => anyhow::bail!("{reason}"),
    }
}

/// The kernels against the expected values; in 16 bits against the reference on the rounded inputs. `kv` is the type of k and
/// v, where they have one of their own.
pub(super) fn on_gpu<E: Element>(
    gpu: &Gpu,
    case: &Content,
    pattern: Option<&AnyPattern>,
    kv: Option<ElementType>,
) -> Result<Done> {
    match case {
        Content::Attention(case) => {
            // In f32 alone: in other types the expected values say nothing, and each is a set of pipelines more.
            let all_f32 = kv.unwrap_or(E::TYPE) == ElementType::F32 && E::TYPE == ElementType::F32;
            let gradients = case.gradients.as_ref().filter(|_| pattern.is_none() && all_f32);
            let pattern = pattern.unwrap_or(&case.pattern);
            typed!(kv.unwrap_or(E::TYPE), KV => attention::on_gpu::<E, KV>(gpu, case, pattern, gradients))
        }
        Content::Table(_) => Ok(Done::Unsupported(ON_THE_HOST.into())),
        _ if kv.is_some() => {
            Ok(Done::Unsupported("only attention has k and v in a type of their own".into()))
        }
        Content::Lsh(case) => lsh::on_gpu::<E>(gpu, case),
        Content::Linear(case) => linear::on_gpu::<E>(gpu, case),
        Content::Linformer(case) => linformer::on_gpu::<E>(gpu, case),
        Content::Recurrent(case) => recurrent::on_gpu::<E>(gpu, case),
        Content::Decode(case) => decode::on_gpu::<E>(gpu, case),
        Content::Packed(case) => packed::on_gpu::<E>(gpu, case),
        Content::Layer(case) => layer::on_gpu::<E>(gpu, case),
        Content::Integers(case) => integers::on_gpu::<E>(gpu, case),
        Content::Model(bytes) => model::on_gpu::<E>(gpu, bytes),
        Content::Unsupported(reason) => Ok(Done::Unsupported(reason.clone())),
    }
}

/// q, k and v in their type, or the reason why they do not go into it.
fn rounded_qkv<E: Element>(q: &[f32], k: &[f32], v: &[f32]) -> Result<[Vec<E>; 3], String> {
    Ok([rounded("q", q)?, rounded("k", k)?, rounded("v", v)?])
}

fn narrow(values: &[f64]) -> Vec<f32> {
    values.iter().map(|&x| x as f32).collect()
}
