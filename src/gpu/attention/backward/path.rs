//! Which kernels compute the gradients, and why.

use super::{AttentionPlan, Gradients, tables};
use crate::gpu::attention::path::PathChoice;
use crate::mask::Parts;
use crate::wgsl::{BackwardRows, Matrices, TileKind};
use crate::{ElementType, Error, KernelPath, Result};

/// Those of dq, dk and dv: what the caller forced, else those of attention itself, where matrices take the gradients, too. `passes`: the
/// mask as each of the two passes walks it.
pub(super) fn choose(
    forward: &AttentionPlan,
    gradients: &Gradients,
    passes: [&Parts; 2],
) -> Result<PathChoice> {
    let choice = |path, why: String| Ok(PathChoice { path, why });
    let (of_forward, forced) = (forward.path(), forward.kernels.options().gradient_path);
    match (forced, of_forward.path) {
        (Some(KernelPath::Scalar), _) => choice(KernelPath::Scalar, "the caller forced it".into()),
        (Some(KernelPath::Cooperative), _) => {
            suits(forward, gradients, passes)?;
            choice(KernelPath::Cooperative, "the caller forced it".into())
        }
        (None, KernelPath::Scalar) => {
            choice(KernelPath::Scalar, format!("as attention itself: {}", of_forward.why))
        }
        (None, KernelPath::Cooperative) => match suits(forward, gradients, passes) {
            Ok(()) => choice(KernelPath::Cooperative, format!("as attention itself: {}", of_forward.why)),
            Err(error) => choice(KernelPath::Scalar, format!("for cooperative matrices, {error}")),
        },
    }
}

/// How lanes share the work on this path.
pub(super) fn kind(forward: &AttentionPlan, path: KernelPath) -> Result<TileKind> {
    match path {
        KernelPath::Scalar => Ok(forward.kernels.scalar_tile_kind()),
        KernelPath::Cooperative => forward.kernels.matrices(forward.attention()).map(TileKind::Cooperative),
    }
}

/// Whether matrices take these gradients, and each part has rows enough to fill them.
fn suits(forward: &AttentionPlan, gradients: &Gradients, passes: [&Parts; 2]) -> Result<()> {
    let attention = forward.attention();
    let matrices = forward.kernels.matrices(attention)?;
    if let Some(term) = attention.score.term("segments") {
        let need = "a score without segments, whose products matrix units do not make here";
        return Err(Error::argument("score", need, term.name()));
    }
    if gradients.dout != ElementType::F16 {
        let need = "f16, as the cooperative path multiplies it";
        return Err(Error::argument("gradients.dout", need, gradients.dout));
    }
    let rows = [BackwardRows::Queries, BackwardRows::Keys { dk: true, dv: true }];
    for ((parts, rows), name) in passes.into_iter().zip(rows).zip(["q_len", "kv_len"]) {
        fits(forward, parts, rows, name, matrices)?;
    }
    Ok(())
}

/// Whether every part of a pass has a tile, and rows, whose number has this name, to fill it.
fn fits(
    forward: &AttentionPlan,
    parts: &Parts,
    rows: BackwardRows,
    name: &'static str,
    matrices: Matrices,
) -> Result<()> {
    let kind = TileKind::Cooperative(matrices);
    for part in parts.parts() {
        let have = part.mask.grid().q_len;
        if have < kind.least_rows() {
            let need = format!("at least {}, to fill matrices of the gradients", kind.least_rows());
            return Err(Error::argument(name, need, have));
        }
        tables::tile(&forward.kernels, forward.attention(), part, rows, kind)?;
    }
    Ok(())
}
