//! Which kernel computes an attention call, and why.

use crate::gpu::kernels::Kernels;
use crate::gpu::options::{Options, usable_size};
use crate::mask::Parts;
use crate::score::Rule;
use crate::wgsl::{Matrices, Tile, TileKind, TileLimits};
use crate::{Attention, ElementType, Error, KernelPath, MatmulShape, Result};

/// The kernel that a plan runs, and why that one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathChoice {
    /// The kernel.
    pub path: KernelPath,
    /// The reason, in words.
    pub why: String,
}

/// What the cooperative path needs of a device.
const NEEDED: wgpu::Features =
    wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX.union(wgpu::Features::SHADER_F16);

/// The features that [`KernelPath::Cooperative`] needs, if the adapter has all of them; none otherwise. One of them is
/// experimental: a device gets it only with `wgpu::ExperimentalFeatures::enabled()`, which is unsafe and so for the caller
/// to decide.
pub fn cooperative_features(adapter: &wgpu::Adapter) -> wgpu::Features {
    if adapter.features().contains(NEEDED) && usable_size(&adapter.cooperative_matrix_properties()).is_some()
    {
        NEEDED
    } else {
        wgpu::Features::empty()
    }
}

/// The kernel for a call, and the kind of its tile: what the caller forced, or the fastest that the device has.
pub(super) fn choose(
    kernels: &Kernels,
    attention: &Attention,
    parts: &Parts,
) -> Result<(PathChoice, TileKind)> {
    let choice = |path, why: String| PathChoice { path, why };
    let scalar = |why| Ok((choice(KernelPath::Scalar, why), kernels.scalar_tile_kind()));
    let cooperative = |why: &str, kind| Ok((choice(KernelPath::Cooperative, why.into()), kind));
    match forced(kernels.options())? {
        Some(KernelPath::Scalar) => scalar("the caller forced it".into()),
        Some(KernelPath::Cooperative) => {
            cooperative("the caller forced it", TileKind::Cooperative(kernels.matrices(attention)?))
        }
        None => match kernels
            .matrices(attention)
            .and_then(|matrices| suits(kernels, attention, parts, matrices))
        {
            Err(error) => scalar(format!("for cooperative matrices, {error}")),
            Ok(_) if kernels.computes_on_a_cpu() => scalar("the device emulates cooperative matrices".into()),
            Ok(kind) => cooperative("inputs in f16, and the device has cooperative matrices", kind),
        },
    }
}

/// Why a tile has the sizes that it has.
pub(super) fn tile_why(kernels: &Kernels, tile: &Tile) -> String {
    let options = kernels.options();
    if options.tile.is_some() {
        return "the caller forced it".into();
    }
    match tile {
        Tile::Staged(_) => {
            let family = kernels.gpu_family();
            let forced = if options.gpu_family.is_some() { ", which the caller forced" } else { "" };
            format!("for {family}{forced}: {}", family.why())
        }
        Tile::Direct(_) => "each lane works alone, which suits a CPU".into(),
        Tile::Cooperative(_) => "as much as workgroup memory holds".into(),
    }
}

/// The path that the caller forces, by itself or by a tile of it.
pub(in crate::gpu) fn forced(options: &Options) -> Result<Option<KernelPath>> {
    let of_tile = match (options.tile, options.tile_kind) {
        (Some(Tile::Cooperative(_)), _) | (None, Some(TileKind::Cooperative(_))) => {
            Some(KernelPath::Cooperative)
        }
        (None, None) => None,
        _ => Some(KernelPath::Scalar),
    };
    if let (Some(path), Some(of_tile)) = (options.path, of_tile) {
        if path != of_tile {
            return Err(Error::argument("tile", format!("one of the {path} path, which is forced"), of_tile));
        }
    }
    Ok(options.path.or(of_tile))
}

impl Kernels {
    /// The device's matrices, or what is missing for this call.
    pub(crate) fn matrices(&self, attention: &Attention) -> Result<Matrices> {
        if let Some(term) = attention.score.term("relative") {
            let need = "a score without relative rows, whose products matrix units do not make here";
            return Err(Error::argument("score", need, term.name()));
        }
        if let Some(term) = attention.score.dropout_term() {
            let need = "a score without dropout, which the tile of matrices does not do";
            return Err(Error::argument("score", need, term.name()));
        }
        self.matrices_for(&[("storage.q", attention.storage.q), ("storage.kv", attention.storage.kv)])
    }

    fn matrices_for(&self, operands: &[(&'static str, ElementType)]) -> Result<Matrices> {
        if let Some((name, got)) = operands.iter().find(|(_, element)| *element != ElementType::F16) {
            return Err(Error::argument(*name, "f16, as the cooperative path multiplies it", got));
        }
        let need = "square matrices of 8 or 16, f16 operands and f32 sums, by Options::matrices";
        if let Some([m, n, k]) = self.options().other_matrices {
            let got = format!(
                "an adapter with {m} x {n} x {k} (rows, columns, inner dimension), which WGSL cannot name"
            );
            return Err(Error::argument("matrices", need, got));
        }
        let have = self.device().features();
        if !have.contains(NEEDED) {
            let got = format!("a device without {}", NEEDED.difference(have));
            return Err(Error::argument("device", format!("the features {NEEDED}"), got));
        }
        let size = self.options().matrix_size.ok_or_else(|| Error::argument("matrices", need, "none"))?;
        let matrices = Matrices { size, subgroup: self.device().adapter_info().subgroup_max_size as usize };
        matrices.check()?;
        Ok(matrices)
    }

    /// What a workgroup of a matrix product on this path may have; without one, on the fastest that the device has. The choice
    /// does not follow the number of rows, so that a part of them comes out as it does among all.
    pub(in crate::gpu) fn product_limits(
        &self,
        shape: &MatmulShape,
        path: Option<KernelPath>,
    ) -> Result<TileLimits> {
        let matrices = || match shape.integers {
            Some(format) => Err(Error::argument("integers", "none for cooperative matrices", format)),
            None => self.matrices_for(&[("input", shape.input), ("weight", shape.weight)]),
        };
        let kind = match path {
            Some(KernelPath::Scalar) => self.scalar_tile_kind(),
            Some(KernelPath::Cooperative) => TileKind::Cooperative(matrices()?),
            None => match matrices() {
                Ok(matrices) if !self.computes_on_a_cpu() => TileKind::Cooperative(matrices),
                _ => self.scalar_tile_kind(),
            },
        };
        Ok(self.limits_of(kind))
    }
}

/// Whether every part has a tile, and rows enough to fill it: few queries are bound by the reading of k and v.
fn suits(kernels: &Kernels, attention: &Attention, parts: &Parts, matrices: Matrices) -> Result<TileKind> {
    let shape = &attention.shape;
    let kind = TileKind::Cooperative(matrices);
    let rows = shape.q_len * shape.heads / shape.kv_heads;
    if rows < kind.least_rows() {
        let need = format!("at least {} with the heads of a key head, to fill matrices", kind.least_rows());
        return Err(Error::argument("q_len", need, rows));
    }
    for part in parts.parts() {
        let grid = part.mask.grid();
        Tile::choose(shape.head_dim, shape.value_dim, grid.block_q, grid.block_k, kernels.limits_of(kind))?;
    }
    Ok(kind)
}
