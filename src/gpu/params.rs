//! Uniform structs, field for field those of the shaders; a test compares names and offsets.

/// Declares a uniform struct and the list of its fields.
macro_rules! uniform {
    ($(#[$meta:meta])* $name:ident { $($field:ident: $type:ty),* $(,)? }) => {
        $(#[$meta])*
        #[repr(C)]
        #[derive(Debug, Clone, Copy, Default, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
        pub(crate) struct $name { $(pub(crate) $field: $type),* }

        #[cfg(test)]
        impl $name {
            const FIELDS: &[(&str, usize)] = &[$((stringify!($field), std::mem::offset_of!($name, $field))),*];
        }
    };
}

uniform! {
    /// `Params` of `attention.wgsl`.
    AttentionParams {
        first_work: u32, end_work: u32, row_tiles: u32, splits: u32, batch: u32, heads: u32, heads_a_kv_head: u32,
        q_len: u32, q_count: u32, k_count: u32,
        q_batch: u32, q_head: u32, q_row: u32,
        k_batch: u32, k_head: u32, k_row: u32,
        v_batch: u32, v_head: u32, v_row: u32,
        out_batch: u32, out_head: u32, out_row: u32,
        bias_batch: u32, bias_head: u32, bias_query: u32, bias_key: u32,
        rows_at: u32, runs_at: u32, tiles_at: u32, q_order_at: u32, k_order_at: u32, slopes_at: u32,
        mask_batch: u32, mask_head: u32,
        q_scale: f32, softcap: f32,
        part: u32, groups_at: u32, places_at: u32,
    }
}

uniform! {
    /// `Params` of `finish.wgsl`.
    FinishParams {
        first_work: u32, end_work: u32, rows: u32, splits: u32, heads: u32, q_len: u32,
        out_batch: u32, out_head: u32, out_row: u32,
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
        q_batch: u32, q_head: u32, q_row: u32, projection_head: u32, norm_eps: f32,
    }
}

uniform! {
    /// `Params` of `lsh_tables.wgsl`.
    LshTablesParams { first_work: u32, end_work: u32, len: u32, places: u32, total: u32 }
}

uniform! {
    /// `Params` of `matmul.wgsl`.
    MatmulParams {
        first_work: u32, end_work: u32, row_tiles: u32, column_tiles: u32, rows: u32, inner: u32, columns: u32,
        a_at: u32, a_batch: u32, a_row: u32, b_batch: u32, b_row: u32,
        residual_at: u32, residual_batch: u32, residual_row: u32, out_at: u32, out_batch: u32, out_row: u32,
    }
}

uniform! {
    /// `Params` of `lib/rows.wgsl`.
    RowParams {
        first_work: u32, end_work: u32, rows: u32, width: u32,
        x_row: u32, other_row: u32, out_row: u32, table_rows: u32, eps: f32,
    }
}

uniform! {
    /// `Params` of `rotary.wgsl`.
    RotaryParams {
        first_work: u32, end_work: u32, rows: u32, heads: u32, len: u32, head_dim: u32, rotary_dim: u32,
        x_batch: u32, x_head: u32, x_row: u32, table_batch: u32, out_batch: u32, out_head: u32, out_row: u32,
    }
}

/// A uniform struct that says which work items a dispatch computes.
pub(crate) trait WorkParams: bytemuck::Pod {
    fn with_work(self, first: u32, end: u32) -> Self;
}

impl WorkParams for AttentionParams {
    fn with_work(self, first_work: u32, end_work: u32) -> Self {
        Self { first_work, end_work, ..self }
    }
}

impl WorkParams for FinishParams {
    fn with_work(self, first_work: u32, end_work: u32) -> Self {
        Self { first_work, end_work, ..self }
    }
}

impl WorkParams for MatmulParams {
    fn with_work(self, first_work: u32, end_work: u32) -> Self {
        Self { first_work, end_work, ..self }
    }
}

impl WorkParams for SortParams {
    fn with_work(self, first_work: u32, end_work: u32) -> Self {
        Self { first_work, end_work, ..self }
    }
}

impl WorkParams for SortScanParams {
    fn with_work(self, first_work: u32, end_work: u32) -> Self {
        Self { first_work, end_work, ..self }
    }
}

impl WorkParams for LshHashParams {
    fn with_work(self, first_work: u32, end_work: u32) -> Self {
        Self { first_work, end_work, ..self }
    }
}

impl WorkParams for LshTablesParams {
    fn with_work(self, first_work: u32, end_work: u32) -> Self {
        Self { first_work, end_work, ..self }
    }
}

impl WorkParams for RowParams {
    fn with_work(self, first_work: u32, end_work: u32) -> Self {
        Self { first_work, end_work, ..self }
    }
}

impl WorkParams for RotaryParams {
    fn with_work(self, first_work: u32, end_work: u32) -> Self {
        Self { first_work, end_work, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names and byte offsets of `Params` in a shader.
    fn wgsl_fields(text: &str) -> Vec<(String, usize)> {
        let module = naga::front::wgsl::parse_str(text).unwrap();
        let params = module.types.iter().find(|(_, ty)| ty.name.as_deref() == Some("Params")).unwrap();
        let naga::TypeInner::Struct { members, .. } = &params.1.inner else { panic!("Params is a struct") };
        members.iter().map(|m| (m.name.clone().unwrap(), m.offset as usize)).collect()
    }

    #[test]
    fn structs_match_the_shaders() {
        for shader in crate::wgsl::variants() {
            let ours = match shader.entry {
                "attention" => AttentionParams::FIELDS,
                "finish" => FinishParams::FIELDS,
                "sort_count" | "sort_scatter" => SortParams::FIELDS,
                "sort_scan" => SortScanParams::FIELDS,
                "lsh_hash" => LshHashParams::FIELDS,
                "lsh_tables" => LshTablesParams::FIELDS,
                "matmul" => MatmulParams::FIELDS,
                "norm" | "softmax" | "add" | "embed" => RowParams::FIELDS,
                "rotary" => RotaryParams::FIELDS,
                other => panic!("no uniform struct is known for {other}"),
            };
            let ours: Vec<_> = ours.iter().map(|(name, offset)| (name.to_string(), *offset)).collect();
            assert_eq!(wgsl_fields(&shader.text), ours, "{}", shader.label);
        }
    }
}
