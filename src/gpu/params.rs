//! The parameters of kernels: uniform structs, field for field those of the shaders, and how they make up a `Params`.

use crate::uniform::{Block, Rows, Uniform, uniform};
use crate::{Attention, Error, Result};

/// The parameters of one kernel: the members of the shader's `Params`, by name. Where a shader has one struct alone, it is the
/// one member. The first two words of the first member are always the work items `first_work .. end_work`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Params(Vec<Block>);

impl Params {
    /// A kernel's one struct.
    pub(crate) fn of<U: Uniform>(params: U) -> Self {
        Self::default().with("params", params)
    }

    pub(crate) fn with<U: Uniform>(mut self, member: &'static str, values: U) -> Self {
        self.0.push(Block::new(member, values));
        self
    }

    /// The same, but for one member.
    pub(crate) fn replaced<U: Uniform>(mut self, member: &'static str, values: U) -> Self {
        self.0.retain(|block| block.member != member);
        self.with(member, values)
    }

    /// The bytes of the shader's `Params` with these members, each at a multiple of 16 bytes; of the one struct where the
    /// shader lists none.
    pub(crate) fn bytes(&self, members: &[&str]) -> Result<Vec<u8>> {
        let mut bytes = vec![];
        for member in if members.is_empty() { &["params"][..] } else { members } {
            let block = self.0.iter().find(|block| block.member == *member);
            let block = block.ok_or_else(|| {
                // A variant and its plan that disagree: a test runs every variant.
                Error::argument((*member).to_owned(), "parameters for this member of the shader", "none")
            })?;
            bytes.extend(&block.bytes);
            bytes.resize(bytes.len().next_multiple_of(16), 0);
        }
        Ok(bytes)
    }

    /// Says which work items a dispatch computes.
    pub(crate) fn set_work(bytes: &mut [u8], first: u32, end: u32) {
        bytes[..8].copy_from_slice(bytemuck::cast_slice(&[first, end]));
    }
}

uniform! {
    /// `KernelParams` of `attention.wgsl`.
    AttentionParams {
        first_work: u32, end_work: u32, row_tiles: u32, splits: u32, tiles_per_split: u32, batch: u32, heads: u32,
        heads_per_kv_head: u32, q_len: u32, kv_len: u32, q_count: u32, k_count: u32, q_scale: f32,
    }

    /// `KeepParams` of `keep/bits.wgsl`.
    KeepParams {
        rows_at: u32, runs_at: u32, tiles_at: u32, q_order_at: u32, k_order_at: u32, batch: u32, head: u32, heads_at: u32,
    }

    /// `KeepParams` of `keep/lsh.wgsl`.
    LshKeepParams { round: u32, buckets_at: u32, places_at: u32 }

    /// `KernelParams` of `backward.wgsl`.
    BackwardParams {
        first_work: u32, end_work: u32, row_tiles: u32, tiles_per_split: u32, heads: u32, heads_per_kv_head: u32,
        q_len: u32, kv_len: u32, q_count: u32, k_count: u32, q_scale: f32, scale: f32, records: u32,
        batch: u32,
    }

    /// `KernelParams` of `backward/records.wgsl`.
    RecordParams {
        first_work: u32, end_work: u32, rows: u32, heads: u32, q_len: u32, behind: u32, computed: u32, heads_at: u32,
    }

    /// `TermParams` of `backward/terms.wgsl`.
    TermParams {
        tile_step: u32, head_step: u32, batch_step: u32, batch: u32, apart: u32, copies: u32, len: u32,
    }

    /// `KernelParams` of `backward/narrow.wgsl`.
    NarrowParams { first_work: u32, end_work: u32, rows: u32, heads: u32, len: u32 }

    /// `Params` of `backward/zeros.wgsl`.
    ZeroParams { first_work: u32, end_work: u32, len: u32 }

    /// `Params` of `backward/sinks.wgsl`.
    SinkParams { first_work: u32, end_work: u32, heads: u32, copies: u32, rows: u32, q_len: u32 }

    /// `Params` of `backward/sums.wgsl`.
    CopyParams { first_work: u32, end_work: u32, len: u32, copies: u32 }

    /// `KernelParams` of `weights.wgsl`.
    WeightsParams {
        first_work: u32, end_work: u32, tiles_per_split: u32, batch: u32, heads: u32, heads_per_kv_head: u32,
        q_len: u32, kv_len: u32, q_count: u32, k_count: u32, q_scale: f32,
    }

    /// `KernelParams` of `merge.wgsl`.
    MergeParams {
        first_work: u32, end_work: u32, rows: u32, splits: u32, heads: u32, q_len: u32, computed: u32, heads_at: u32,
    }
}

impl AttentionParams {
    /// What the sizes alone say. The rest is 0.
    pub(crate) fn of_sizes(attention: &Attention) -> Self {
        let shape = &attention.shape;
        Self {
            splits: 1,
            tiles_per_split: u32::MAX,
            batch: shape.batch as u32,
            heads: shape.heads as u32,
            heads_per_kv_head: (shape.heads / shape.kv_heads) as u32,
            q_len: shape.q_len as u32,
            kv_len: shape.kv_len as u32,
            ..Default::default()
        }
    }
}

impl Params {
    /// Where the tensors of a call lie.
    pub(crate) fn with_rows(self, attention: &Attention) -> Self {
        self.with("q", Rows::from(attention.q_strides()))
            .with("k", Rows::from(attention.k_strides()))
            .with("v", Rows::from(attention.v_strides()))
            .with("out", Rows::from(attention.out_strides()))
    }

    /// Those of the score's terms.
    pub(crate) fn with_terms(mut self, attention: &Attention) -> Self {
        self.0.extend(attention.score.rules().filter_map(|rule| rule.params(&attention.shape)));
        self
    }

    /// Rows of out in scratch that holds whole groups of 4, `[B, H, Lq, dv rounded up]`.
    pub(crate) fn with_merged_rows(self, attention: &Attention) -> Self {
        let shape = &attention.shape;
        self.replaced("out", Rows::of_groups(shape.heads, shape.q_len, shape.value_dim.div_ceil(4)))
    }
}

uniform! {
    /// `Params` of `sort_count.wgsl` and `sort_scatter.wgsl`.
    SortParams { first_work: u32, end_work: u32, len: u32, blocks: u32, shift: u32, digit_mask: u32 }
}

uniform! {
    /// `Params` of `sort_scan.wgsl`.
    SortScanParams { first_work: u32, end_work: u32, blocks: u32 }
}

uniform! {
    /// `Params` of `lsh_hash.wgsl`.
    LshHashParams {
        first_work: u32, end_work: u32, row_tiles: u32, heads: u32, len: u32,
        q_at: u32, q_batch: u32, q_head: u32, q_row: u32, projection_head: u32, norm_eps: f32,
    }
}

uniform! {
    /// `KernelParams` of `lsh_join.wgsl`.
    LshJoinParams { first_work: u32, end_work: u32, rows: u32, heads: u32, len: u32 }

    /// `Params` of `lsh_tables.wgsl`.
    LshTablesParams { first_work: u32, end_work: u32, len: u32, places: u32, total: u32 }
}

uniform! {
    /// `KernelParams` of `linear/features.wgsl` and `linear/features_back.wgsl`.
    LinearFeatureParams {
        first_work: u32, end_work: u32, tiles: u32, heads: u32, len: u32, features: u32,
        scale: f32, half_scale: f32, feature_eps: f32,
    }

    /// `KernelParams` of `linear/vectors.wgsl`.
    LinearVectorParams { first_work: u32, end_work: u32, tiles: u32, heads: u32, len: u32 }

    /// `KernelParams` of `linear/columns.wgsl`.
    LinearColumnParams {
        first_work: u32, end_work: u32, tiles: u32, heads: u32, len: u32, groups: u32, chunks: u32, value_groups: u32,
    }

    /// `KernelParams` of `linear/maxima.wgsl`.
    LinearMaximaParams { first_work: u32, end_work: u32, rows: u32, tiles: u32, groups: u32, columns: u32 }

    /// `KernelParams` of `linear/keys.wgsl`.
    LinearKeyParams { first_work: u32, end_work: u32, tiles: u32, len: u32, features: u32, feature_eps: f32 }

    /// `KernelParams` of `linear/states.wgsl`.
    LinearStateParams {
        first_work: u32, end_work: u32, kv_heads: u32, kv_len: u32, chunks: u32, groups: u32,
        feature_tiles: u32, column_tiles: u32,
    }

    /// `KernelParams` of `linear/scan.wgsl`.
    LinearScanParams {
        first_work: u32, end_work: u32, tiles: u32, kv_heads: u32, kv_len: u32, chunks: u32, width: u32,
    }

    /// `KernelParams` of `linear/outputs.wgsl`.
    LinearOutputParams {
        first_work: u32, end_work: u32, tiles: u32, heads: u32, heads_per_kv_head: u32, q_len: u32, kv_len: u32,
        chunks: u32, groups: u32, first_tile: i32, shift: i32, denominator_eps: f32, kv_heads_per_head: u32, nth_kv_head: u32, last: u32,
    }
}

uniform! {
    /// `Params` of `matmul.wgsl`.
    MatmulParams {
        first_work: u32, end_work: u32, row_tiles: u32, column_tiles: u32, rows: u32, inner: u32, columns: u32,
        a_at: u32, a_batch: u32, a_row: u32, b_at: u32, b_batch: u32, b_row: u32,
        residual_at: u32, residual_batch: u32, residual_row: u32, out_at: u32, out_batch: u32, out_row: u32,
    }
}

uniform! {
    /// `Params` of `quantize/params.wgsl`.
    QuantizeParams {
        first_work: u32, end_work: u32, rows: u32, inner: u32, row_words: u32, slices: u32, slice_len: u32, parts: u32,
        part_len: u32, range: f32, least_scale: f32, low: i32, high: i32,
    }

    /// `Params` of `dequantize.wgsl`.
    DequantizeParams { first_work: u32, end_work: u32, rows: u32, inner: u32, b_row: u32 }

    /// `Params` of `integer_matmul.wgsl`.
    IntegerMatmulParams {
        first_work: u32, end_work: u32, row_tiles: u32, rows: u32, inner: u32, columns: u32, row_words: u32, last_mask: u32,
        out_factor: f32, out_zero_point: i32,
    }
}

uniform! {
    /// `Params` of `activation.wgsl` and `activation_backward.wgsl`.
    ActivationParams { first_work: u32, end_work: u32, len: u32 }
}

uniform! {
    /// `Params` of `lib/row_params.wgsl`.
    RowParams {
        first_work: u32, end_work: u32, rows: u32, width: u32,
        x_row: u32, other_row: u32, out_row: u32, table_rows: u32, eps: f32, out_at: u32,
    }
}

uniform! {
    /// `KernelParams` of `column_sums.wgsl`.
    ColumnSumParams { first_work: u32, end_work: u32, column_tiles: u32, rows: u32, columns: u32, out_at: u32 }

    /// `TermParams` of `sums/plain.wgsl`.
    PlainTermParams { x_at: u32, x_row: u32 }

    /// `TermParams` of `sums/normed.wgsl`.
    NormedTermParams { x_row: u32, dout_row: u32 }

    /// `Params` of `lib/embed_runs.wgsl`.
    EmbedRunParams {
        first_work: u32, end_work: u32, rows: u32, width: u32, dout_row: u32, table_rows: u32, has_padding: u32, padding: u32, dout_at: u32,
    }
}

uniform! {
    /// `KernelParams` of `cross_entropy.wgsl`.
    CrossEntropyParams { first_work: u32, end_work: u32, width: u32, x_row: u32, out_row: u32, factor: f32 }

    /// `WantedParams` of `loss/targets.wgsl`.
    TargetParams { may_ignore: u32, ignored: u32, at_target: f32, at_all: f32 }

    /// `WantedParams` of `loss/teacher.wgsl`.
    TeacherParams { teacher_row: u32, scale: f32, weight: f32 }
}

uniform! {
    /// `KernelParams` of `optimizer.wgsl`.
    OptimizerParams { first_work: u32, end_work: u32, len: u32, is_first: u32 }

    /// `SgdParams` of `optimizer/sgd.wgsl`.
    SgdParams { rate: f32, momentum: f32, decay: f32, nesterov: u32 }

    /// `AdamwParams` of `optimizer/adamw.wgsl`.
    AdamwParams { rate: f32, kept: f32, beta1: f32, new1: f32, beta2: f32, new2: f32, root: f32, eps: f32 }

    /// `Params` of `squares.wgsl`.
    SquaresParams { first_work: u32, end_work: u32, len: u32, partials_at: u32 }

    /// `Params` of `clip.wgsl`.
    ClipParams { first_work: u32, end_work: u32, count: u32, max_norm: f32 }
}

uniform! {
    /// `KernelParams` of `recurrent.wgsl`.
    RecurrentParams {
        first_work: u32, end_work: u32, tiles: u32, unit_tiles: u32, first_step: u32, steps: u32, is_backward: u32,
        batch: u32, hidden: u32, inputs_first: u32, inputs_batch: u32, inputs_step: u32,
        out_at: u32, out_batch: u32, out_step: u32, state_at: u32,
    }
}

uniform! {
    /// `Params` of `rotary.wgsl`.
    RotaryParams {
        first_work: u32, end_work: u32, rows: u32, heads: u32, len: u32, head_dim: u32, rotary_dim: u32,
        x_at: u32, x_batch: u32, x_head: u32, x_row: u32, table_batch: u32, out_at: u32, out_batch: u32, out_head: u32, out_row: u32,
    }
}

uniform! {
    /// `Params` of `rotary_tables.wgsl`.
    RotaryTableParams { first_work: u32, end_work: u32, first: u32, len: u32, half: u32, factor: f32 }
}

uniform! {
    /// `KernelParams` of `decode.wgsl`.
    DecodeParams {
        first_work: u32, end_work: u32, row_tiles: u32, splits: u32, heads: u32, heads_per_kv_head: u32,
        before: u32, after: u32, sinks: u32, q_scale: f32, nothing: u32,
    }

    /// `CacheParams` of `decode/counts.wgsl`, `decode/same_count.wgsl` and `decode/offsets.wgsl`.
    CacheParams { capacity: u32, kv_heads: u32, most_new: u32, pages: u32, batch: u32 }

    /// `KernelParams` of `decode/append.wgsl`.
    AppendParams { first_work: u32, end_work: u32, rows: u32, heads: u32 }

    /// `KernelParams` of `decode/raise.wgsl`.
    RaiseParams { first_work: u32, end_work: u32, batch: u32, unused: u32 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wgsl::Shader;
    use crate::{AttentionShape, Bias, Buckets, Relative, Score};

    type Fields = Vec<(String, usize)>;

    /// Names and byte offsets of a struct in a shader.
    fn wgsl_fields(module: &naga::Module, name: &str) -> Fields {
        let found = module.types.iter().find(|(_, ty)| ty.name.as_deref() == Some(name));
        let (_, ty) = found.unwrap_or_else(|| panic!("no struct {name}"));
        let naga::TypeInner::Struct { members, .. } = &ty.inner else { panic!("{name} is a struct") };
        members.iter().map(|m| (m.name.clone().unwrap(), m.offset as usize)).collect()
    }

    fn fields(list: &[(&str, usize)]) -> Fields {
        list.iter().map(|(name, offset)| (name.to_string(), *offset)).collect()
    }

    /// The fields of a member of `params` as the host writes them.
    fn host_fields(shader: &Shader, member: &str) -> Fields {
        let is_lsh = shader.label.contains(" lsh ");
        let terms = Score::new().softcap(1.0).alibi().bias(Default::default());
        let terms = terms
            .with(Bias::second(Default::default()))
            .with(Buckets::new(32, 128))
            .with(Relative::new(0, 1))
            .dropout(0.5, 1);
        let shape = AttentionShape::new(1, 1, 1, 1);
        let term = terms.rules().filter_map(|rule| rule.params(&shape)).find(|block| block.member == member);
        fields(match (shader.entry, member) {
            ("attention", "kernel") => AttentionParams::FIELDS,
            ("attention", "keep") if is_lsh => LshKeepParams::FIELDS,
            ("attention", "keep") => KeepParams::FIELDS,
            ("merge", "kernel") => MergeParams::FIELDS,
            ("backward", "kernel") => BackwardParams::FIELDS,
            ("backward", "keep") if is_lsh => LshKeepParams::FIELDS,
            ("backward", "keep") => KeepParams::FIELDS,
            ("lsh_join", "kernel") => LshJoinParams::FIELDS,
            ("backward", "term") => TermParams::FIELDS,
            ("weigh", "kernel") => WeightsParams::FIELDS,
            ("weigh", "keep") => KeepParams::FIELDS,
            ("zero", _) => ZeroParams::FIELDS,
            ("add_up", _) => CopyParams::FIELDS,
            ("add_rows", _) => SinkParams::FIELDS,
            ("record", "kernel") => RecordParams::FIELDS,
            ("narrow_rows", "kernel") => NarrowParams::FIELDS,
            ("linear_columns", "kernel") => LinearColumnParams::FIELDS,
            ("linear_vectors", "kernel") => LinearVectorParams::FIELDS,
            ("linear_features" | "linear_features_back", "kernel") => LinearFeatureParams::FIELDS,
            ("linear_maxima", "kernel") => LinearMaximaParams::FIELDS,
            ("linear_keys", "kernel") => LinearKeyParams::FIELDS,
            ("linear_states", "kernel") => LinearStateParams::FIELDS,
            ("linear_scan", "kernel") => LinearScanParams::FIELDS,
            ("linear_outputs", "kernel") => LinearOutputParams::FIELDS,
            (_, "x" | "q" | "k" | "v" | "out" | "dout" | "dq" | "dk" | "dv" | "dqk") => Rows::FIELDS,
            ("sort_count" | "sort_scatter", _) => SortParams::FIELDS,
            ("sort_scan", _) => SortScanParams::FIELDS,
            ("lsh_hash", _) => LshHashParams::FIELDS,
            ("lsh_tables", _) => LshTablesParams::FIELDS,
            ("matmul", _) => MatmulParams::FIELDS,
            ("quantize" | "quantize_extremes" | "quantize_scales", _) => QuantizeParams::FIELDS,
            ("dequantize", _) => DequantizeParams::FIELDS,
            ("integer_matmul", _) => IntegerMatmulParams::FIELDS,
            ("activate" | "activate_backward", _) => ActivationParams::FIELDS,
            ("norm" | "softmax" | "add" | "embed" | "norm_backward" | "softmax_backward", _) => {
                RowParams::FIELDS
            }
            ("column_sums", "kernel") => ColumnSumParams::FIELDS,
            ("column_sums", "terms") if shader.label.contains(" normed ") => NormedTermParams::FIELDS,
            ("column_sums", "terms") => PlainTermParams::FIELDS,
            ("embed_sums" | "embed_carries", _) => EmbedRunParams::FIELDS,
            ("cross_entropy", "kernel") => CrossEntropyParams::FIELDS,
            ("cross_entropy", "wanted") if shader.label.contains(" teacher ") => TeacherParams::FIELDS,
            ("cross_entropy", "wanted") => TargetParams::FIELDS,
            ("optimize", "kernel") => OptimizerParams::FIELDS,
            ("optimize", "rule") if shader.label.contains(" sgd ") => SgdParams::FIELDS,
            ("optimize", "rule") => AdamwParams::FIELDS,
            ("squares", _) => SquaresParams::FIELDS,
            ("clip_factor", _) => ClipParams::FIELDS,
            ("recurrent", "kernel") => RecurrentParams::FIELDS,
            ("rotary", _) => RotaryParams::FIELDS,
            ("rotary_tables", _) => RotaryTableParams::FIELDS,
            ("decode", "kernel") => DecodeParams::FIELDS,
            ("decode" | "append" | "raise", "cache") => CacheParams::FIELDS,
            ("append", "kernel") => AppendParams::FIELDS,
            ("raise", "kernel") => RaiseParams::FIELDS,
            (entry, member) => term.map(|block| block.fields).unwrap_or_else(|| panic!("{entry}: {member}")),
        })
    }

    #[test]
    fn structs_match_the_shaders() {
        for shader in crate::wgsl::variants() {
            let module = naga::front::wgsl::parse_str(&shader.text).unwrap();
            if shader.params.is_empty() {
                let host = host_fields(&shader, "params");
                assert_eq!(wgsl_fields(&module, "Params"), host, "{}", shader.label);
                assert_eq!(host[..2], fields(&[("first_work", 0), ("end_work", 4)]), "{}", shader.label);
                continue;
            }
            // Members begin where the host puts them, and each holds what the host writes there.
            let mut at = 0;
            for (name, offset) in wgsl_fields(&module, "Params") {
                assert_eq!(offset, at, "{}: {name}", shader.label);
                let params =
                    module.types.iter().find(|(_, ty)| ty.name.as_deref() == Some("Params")).unwrap();
                let naga::TypeInner::Struct { members, .. } = &params.1.inner else { unreachable!() };
                let member = members.iter().find(|m| m.name.as_deref() == Some(&name)).unwrap();
                let ty = module.types[member.ty].name.clone().unwrap();
                let host = host_fields(&shader, &name);
                assert_eq!(wgsl_fields(&module, &ty), host, "{}: {name}", shader.label);
                // An array of vectors, or one word, is last.
                let naga::TypeInner::Struct { span, .. } = module.types[member.ty].inner else {
                    unreachable!()
                };
                let last = host.last().unwrap().1 + 4;
                assert!(ty == "BucketsParams" || span as usize == last, "{}: {name}", shader.label);
                at += (span as usize).next_multiple_of(16);
            }
        }
    }
}
