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
        first_work: u32, end_work: u32, row_tiles: u32, heads: u32, heads_a_kv_head: u32,
        q_len: u32, q_count: u32, k_count: u32,
        q_batch: u32, q_head: u32, q_row: u32,
        k_batch: u32, k_head: u32, k_row: u32,
        v_batch: u32, v_head: u32, v_row: u32,
        out_batch: u32, out_head: u32, out_row: u32,
        bias_batch: u32, bias_head: u32, bias_query: u32, bias_key: u32,
        rows_at: u32, runs_at: u32, tiles_at: u32, q_order_at: u32, k_order_at: u32, slopes_at: u32,
        mask_batch: u32, mask_head: u32,
        q_scale: f32, softcap: f32,
    }
}

uniform! {
    /// `Params` of `finish.wgsl`.
    FinishParams {
        first_work: u32, end_work: u32, rows: u32, heads: u32, q_len: u32,
        out_batch: u32, out_head: u32, out_row: u32,
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
                other => panic!("no uniform struct is known for {other}"),
            };
            let ours: Vec<_> = ours.iter().map(|(name, offset)| (name.to_string(), *offset)).collect();
            assert_eq!(wgsl_fields(&shader.text), ours, "{}", shader.label);
        }
    }
}
