//! Variants with tiles so small that an interpreter runs a workgroup in seconds: for the race check.

use wgpu_attention::wgsl::{
    AppendTarget, AppendVariant, AttendedRows, AttentionVariant, BackwardRows, BackwardVariant, CacheText,
    CrossEntropyVariant, DecodeVariant, FewRows, HashVariant, LinearVariant, MatmulTile, MatmulVariant,
    NewRows, RecurrentTile, RecurrentVariant, RowEnd, RowKernel, RowVariant, Shader, SortPass,
    SquaresVariant, StagedProduct, StagedTile, Stats, Tile, WeightsVariant,
};
use wgpu_attention::{
    BiasStrides, CacheStorage, ElementType, LinearState, LossGradient, MatmulShape, RecurrentCell, Score,
    WeightOrder,
};

/// Kernels with workgroup memory (`races.mjs` names those that are not here), by the names of the cases in `races/cases.mjs`.
pub fn small() -> Vec<(&'static str, Shader)> {
    let product = |rows, weights, tile| {
        MatmulVariant::of(&MatmulShape::new(rows, 20, 12).weights(weights), tile).shader()
    };
    let matmul = |weights, tile| product(9, weights, MatmulTile::Staged(tile));
    let few = MatmulTile::Few(FewRows { lanes: 4, rows: 2, column_groups: 2, fours: 1, row_lanes: false });
    let narrow = StagedProduct { lanes_r: 2, lanes_c: 2, tall: false, wide: false, chunk: 2 };
    let wide = StagedProduct { tall: true, wide: true, chunk: 1, ..narrow };
    let norm = |centered| RowKernel::Norm { centered, bias: true, weight: ElementType::F32 };
    let hash = HashVariant {
        head_dim: 36,
        input: ElementType::F32,
        aligned: true,
        rounds: 1,
        factors: vec![4, 8],
        key_mask: false,
    };
    vec![
        ("attention", attention(false)),
        ("attention merging", attention(true)),
        ("matmul", matmul(WeightOrder::InOut, narrow)),
        ("matmul out-in", matmul(WeightOrder::OutIn, wide)),
        ("matmul few rows", product(2, WeightOrder::OutIn, few)),
        ("layer norm", rows(norm(true))),
        ("rms norm", rows(norm(false))),
        ("softmax", rows(RowKernel::Softmax)),
        ("cross entropy", cross_entropy()),
        ("recurrent", recurrent()),
        ("squares", SquaresVariant { input: ElementType::F32, aligned: true }.shader()),
        ("sort count", SortPass::count()),
        ("sort scan", SortPass::scan()),
        ("lsh hash", hash.shader()),
        ("decode", decode()),
        ("append int8", append()),
        ("attention dk dv", gradients(BackwardRows::Keys { dk: true, dv: true }, Score::new())),
        ("attention d bias", gradients(BackwardRows::Tensor("bias"), shared_bias())),
        ("attention chosen rows", chosen_rows()),
        ("linear outputs", linear_outputs()),
    ]
}

/// A kernel whose sizes are its text's, with other ones.
fn resized(mut shader: Shader, sizes: &[(&str, &str)]) -> Shader {
    for (size, other) in sizes {
        assert!(shader.text.contains(size), "{}: no `{size}`", shader.label);
        shader.text = shader.text.replace(size, other);
    }
    shader
}

/// 8 queries by 16 keys for 8 lanes. Staged by small pieces, or with resident queries, wide rows of output and what an
/// earlier part left.
fn attention(merging: bool) -> Shader {
    let tile = StagedTile {
        lanes_r: 2,
        lanes_c: 4,
        narrow: false,
        wide: merging,
        far: merging,
        tall: false,
        chunk: 2,
        v_keys: if merging { 8 } else { 4 },
        q_resident: merging,
        by_subgroup: false,
    };
    let variant = AttentionVariant {
        tile: Tile::Staged(tile),
        head_dim: 8,
        value_dim: 12,
        q: ElementType::F32,
        kv: ElementType::F32,
        output: ElementType::F32,
        aligned_q: true,
        aligned_kv: true,
        aligned_out: true,
        block_q: 8,
        block_k: 32,
        q_order: false,
        k_order: false,
        packed: false,
        chosen_heads: false,
        score: Score::new(),
        stats: if merging { Stats::State } else { Stats::Lse },
        accumulate: merging,
        chunks: None,
    };
    variant.shader()
}

fn rows(kernel: RowKernel) -> Shader {
    RowVariant { kernel, input: ElementType::F32, output: ElementType::F32, aligned: true }.shader()
}

/// 2 items by 4 slices.
fn recurrent() -> Shader {
    RecurrentVariant {
        cell: RecurrentCell::RnnTanh,
        tile: RecurrentTile::Sliced { items: 2, slices: 4 },
        weight: ElementType::F32,
        bias: true,
        initial: true,
        aligned: true,
    }
    .shader()
}

fn cross_entropy() -> Shader {
    CrossEntropyVariant {
        input: ElementType::F32,
        teacher: None,
        gradient: LossGradient::InPlace,
        aligned: true,
    }
    .shader()
}

/// Where the cache of both lies. Pages, packed rows and other storage are other loads, and no other barriers.
const CACHE: CacheText = CacheText { page: None, new: NewRows::Same };

fn decode() -> Shader {
    DecodeVariant {
        head_dim: 8,
        value_dim: 12,
        row_groups: 1,
        q: ElementType::F32,
        aligned_q: true,
        storage: ElementType::F32.into(),
        rows: AttendedRows::Cached,
        cache: CACHE,
        touches: false,
    }
    .shader()
}

fn append() -> Shader {
    AppendVariant {
        dim: 24,
        target: AppendTarget::Cache,
        rotary: None,
        input: ElementType::F32,
        aligned: true,
        output: CacheStorage::Int8,
        cache: CACHE,
    }
    .shader()
}

/// A number per key.
fn shared_bias() -> Score {
    Score::new().bias(BiasStrides::broadcast([1, 1, 1, 64]))
}

/// 8 rows by 16 columns for 8 lanes.
fn gradients(rows: BackwardRows, score: Score) -> Shader {
    let tile = StagedTile {
        lanes_r: 2,
        lanes_c: 4,
        wide: false,
        far: false,
        tall: false,
        chunk: 2,
        v_keys: 4,
        q_resident: false,
        by_subgroup: false,
        narrow: false,
    };
    let variant = BackwardVariant {
        rows,
        tile: Tile::Staged(tile),
        head_dim: 8,
        value_dim: 12,
        q: ElementType::F32,
        kv: ElementType::F32,
        dout: ElementType::F32,
        gradient: ElementType::F32,
        aligned_q: true,
        aligned_kv: true,
        aligned_dout: true,
        aligned_gradient: true,
        block_q: 8,
        block_k: 32,
        q_order: false,
        k_order: false,
        chosen_heads: false,
        score,
        accumulate: false,
        late_maxima: false,
        chunks: None,
    };
    variant.shader()
}

/// A summary alone, of 4 lanes instead of 64.
fn chosen_rows() -> Shader {
    let variant = WeightsVariant {
        head_dim: 8,
        q: ElementType::F32,
        kv: ElementType::F32,
        aligned_q: true,
        aligned_k: true,
        block_q: 8,
        block_k: 32,
        q_order: false,
        k_order: false,
        score: Score::new(),
        matrix: false,
        summary: Some(2),
        accumulate: false,
        late_maxima: false,
    };
    resized(
        variant.shader(),
        &[("const LANES = 64u;", "const LANES = 4u;"), ("const KEYS = 256u;", "const KEYS = 16u;")],
    )
}

/// Chunks of 8 instead of 64.
fn linear_outputs() -> Shader {
    let variant = LinearVariant {
        value_dim: 8,
        input: ElementType::F32,
        output: ElementType::F32,
        aligned_v: true,
        aligned_out: true,
        causal: true,
        weighted: false,
        by_column: false,
        direct: false,
        state: LinearState::Absent,
        end: RowEnd::Mean,
        mirrored: false,
    };
    // The interpreter reads no quotient there.
    let lanes = ("@workgroup_size(CHUNK / 2)", "@workgroup_size(4)");
    resized(variant.outputs(), &[("const CHUNK = 64u;", "const CHUNK = 8u;"), lanes])
}
