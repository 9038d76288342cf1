//! A chosen pattern on a device: verified, timed, and beside it dense attention of the same sizes.

use crate::catalogue::{Choice, whole};
use crate::listener::Page;
use anyhow::Result;
use serde::{Deserialize, Serialize};
use wgpu_attention::{Attention, AttentionShape, ElementType, Error, Gpu, Storage};
use wgpu_attention_bench::cases::{Lanes, NamedPattern, Spec, Work};
use wgpu_attention_bench::clock::{Interrupted, Stop};
use wgpu_attention_bench::measure::Bench;
use wgpu_attention_bench::record::{Case, Rules};
use wgpu_attention_bench::subject::check_attention;
use wgpu_attention_bench::suites::Suite;

/// Seconds that a call of dense attention may take: a longer one is not run.
const DENSE_S: f64 = 4.0;

/// Bytes of q, k, v and out together: there is one more copy of each on its way to the device and back.
const HOST_BYTES: u64 = 1 << 30;

/// What the page asks for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Request {
    choice: Choice,
    /// As they were typed.
    heads: String,
    head_dim: String,
    /// `f32` or `f16`.
    element: String,
}

/// What the page shows.
#[derive(Debug, Serialize)]
pub(crate) struct Outcome {
    /// The chosen pattern.
    case: Case,
    /// Dense attention; none where the pattern is that, or it was not run.
    dense: Option<Case>,
    /// Why dense attention was not run.
    no_dense: Option<String>,
}

/// Runs the pattern, then dense attention; the page hears `step` with a sentence as each begins, and `case` with what became of it.
pub(crate) async fn run(gpu: &Gpu, request: &Request, stop: Stop, page: &Page) -> Result<Outcome> {
    page.tell("step", &"The pattern is planned.")?;
    let element = match request.element.as_str() {
        "f32" => ElementType::F32,
        "f16" => ElementType::F16,
        other => return Err(Error::argument("element", "f32 or f16", format!("`{other}`")).into()),
    };
    let [heads, head_dim] = [whole("heads", &request.heads, 0)?, whole("head_dim", &request.head_dim, 0)?];
    let shape =
        AttentionShape::new(1, heads, request.choice.queries()?, head_dim).kv_len(request.choice.length()?);
    let attention = shape.storage(Storage::all(element));
    // Before anything of that length is made.
    check_attention(gpu, &attention)?;
    check_memory(&attention)?;
    let pattern = NamedPattern { name: "chosen", text: request.choice.make()?.pattern.to_json() };
    let spec = |pattern| Spec {
        known_as: None,
        work: Work::Attention { attention: attention.clone(), pattern },
        lanes: Lanes::Planned,
    };
    // Hot caches alone: what a person waits for.
    let rules = Rules { cold_bytes: 0, ..Suite::Quick.rules() };
    let bench = Bench::open(gpu, rules, stop).await?;
    let measured = async |spec: Spec, name: &str| -> Result<Case> {
        page.tell("step", &format!("{name} is compared with the reference in f64, then timed."))?;
        let mut case = Case::new(&spec);
        match case.measure(&bench, &spec).await {
            Ok(()) | Err(Interrupted) => page.tell("ran", &case)?,
        }
        Ok(case)
    };
    let case = measured(spec(pattern), "The pattern").await?;
    let no_dense = no_dense(&case, &shape);
    let dense = match no_dense {
        None => {
            Some(measured(spec(NamedPattern { name: "full", text: "full".into() }), "Dense attention").await?)
        }
        Some(_) => None,
    };
    Ok(Outcome { case, dense, no_dense })
}

/// Refuses tensors for which the page has no memory: the host keeps them, too, and an address here has 32 bits.
fn check_memory(attention: &Attention) -> wgpu_attention::Result<()> {
    let AttentionShape { heads, q_len, kv_len, head_dim, .. } = attention.shape;
    let elements = 2 * heads as u64 * head_dim as u64 * (q_len as u64 + kv_len as u64);
    let bytes = elements * attention.storage.q.size_bytes() as u64;
    match bytes > HOST_BYTES {
        true => Err(Error::limit(
            "q, k, v and out together",
            "the memory that the page gives them",
            bytes,
            HOST_BYTES,
        )),
        false => Ok(()),
    }
}

/// Why dense attention is not run, if it is not.
fn no_dense(case: &Case, shape: &AttentionShape) -> Option<String> {
    let (Some(hot), Some(cost)) = (&case.hot, &case.cost) else {
        return Some("The pattern has no time to compare with.".into());
    };
    let dense = shape.heads as f64 * shape.q_len as f64 * shape.kv_len as f64;
    if cost.kept_pairs.is_some_and(|kept| kept as f64 >= dense) {
        return Some("The pattern is dense attention: it keeps every pair.".into());
    }
    // As many operations for each visited pair.
    let seconds = hot.clock().summary.median_s * dense / (cost.visited_pairs.unwrap_or(1).max(1) as f64);
    (seconds > DENSE_S).then(|| {
        format!(
            "Dense attention was not run: by the pairs it visits, one call would take about {seconds:.0} s."
        )
    })
}
