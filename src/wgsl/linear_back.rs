//! Variants of the shaders that only the gradients of linear attention have: `shaders/linear/`.

use super::linear::{MapMode, MapText};
use super::tensor::{reads, writes};
use super::{Header, Shader};
use crate::ElementType;

/// All that tells one shader of `linear/vectors.wgsl` from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LinearVectors {
    /// Elements of a value, dv.
    pub value_dim: usize,
    /// Storage of the rows: dout, or v.
    pub input: ElementType,
    /// Every row begins at, and has, a multiple of 4 elements.
    pub aligned: bool,
    /// Rows are of queries; else of keys.
    pub queries: bool,
    /// Keys may be masked.
    pub key_mask: bool,
    /// Of queries, the logarithm of what their denominator is relative to is left.
    pub logs: bool,
}

impl LinearVectors {
    /// The shader of this variant.
    pub fn shader(&self) -> Shader {
        let flag = |flag, name| if flag { name } else { "" };
        let label = format!(
            "linear vectors {} dv{} {}{}{}{}",
            if self.queries { "queries" } else { "keys" },
            self.value_dim,
            self.input,
            flag(!self.aligned, " unaligned"),
            flag(self.key_mask, " key-mask"),
            flag(self.logs, " logs"),
        );
        let header = Header::default()
            .u32s(&[("VALUE_DIM", self.value_dim), ("VALUE_GROUPS", self.value_dim.div_ceil(4))])
            .params(&[("kernel", "KernelParams"), ("x", "Rows")]);
        let vector = match self.queries {
            true => include_str!("../../shaders/linear/vector_of_query.wgsl"),
            false => include_str!("../../shaders/linear/vector_of_key.wgsl"),
        };
        let hidden = match (self.queries, self.key_mask) {
            (true, _) => "",
            (false, true) => include_str!("../../shaders/linear/key_mask.wgsl"),
            (false, false) => include_str!("../../shaders/linear/no_key_mask.wgsl"),
        };
        let logs = match self.logs {
            true => include_str!("../../shaders/linear/leave_log.wgsl"),
            false => include_str!("../../shaders/linear/no_log.wgsl"),
        };
        let x = reads("x", self.input, self.aligned);
        let files = [include_str!("../../shaders/linear/vectors.wgsl"), vector, hidden, logs, &x];
        header.shader(label, "linear_vectors", &files)
    }
}

/// All that tells one shader of `linear/features_back.wgsl` from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FeatureGradient {
    /// Elements of a row of x.
    pub head_dim: usize,
    /// Features, m; counts for published FAVOR+ only.
    pub features: usize,
    /// Storage of x.
    pub input: ElementType,
    /// Storage of the gradient.
    pub output: ElementType,
    /// Every row of x begins at, and has, a multiple of 4 elements.
    pub aligned_x: bool,
    /// Every row of the gradient begins at, and has, a multiple of 4 elements.
    pub aligned_out: bool,
    /// The map; `None` where x are values.
    pub map: Option<MapText>,
    /// Sums are relative to weights of keys.
    pub weighted: bool,
}

impl FeatureGradient {
    /// The shader of this variant.
    pub fn shader(&self) -> Shader {
        use MapText::{FavorGlobal, FavorRunning, Relu};
        let flag = |flag, name| if flag { name } else { "" };
        let length = matches!(self.map, Some(FavorRunning | FavorGlobal));
        let projected = length || self.map == Some(Relu);
        let x = if length {
            format!(" {}{}", self.input, flag(!self.aligned_x, " unaligned-x"))
        } else {
            String::new()
        };
        let label = format!(
            "linear gradient {} d{}{x}->{}{}{}",
            self.map.map_or("values", MapText::name),
            self.head_dim,
            self.output,
            flag(!self.aligned_out, " unaligned-out"),
            flag(self.weighted, " weighted"),
        );
        let map = self.map.unwrap_or(MapText::Identity);
        let members = [("kernel", "KernelParams"), ("out", "Rows"), ("x", "Rows")];
        let header = map
            .header(self.features, MapMode::Elements)
            .u32s(&[("HEAD_DIM", self.head_dim), ("HEAD_GROUPS", self.head_dim.div_ceil(4))])
            .params(&members[..if length { 3 } else { 2 }]);
        let input = reads("x", self.input, self.aligned_x);
        let projection = reads("projection", ElementType::F32, self.head_dim.is_multiple_of(4));
        let out = writes(self.output, self.aligned_out);
        let files = [
            include_str!("../../shaders/linear/features_back.wgsl"),
            map.text(),
            match projected {
                true => include_str!("../../shaders/linear/back_projected.wgsl"),
                false => include_str!("../../shaders/linear/back_plain.wgsl"),
            },
            if projected { &projection } else { "" },
            match length {
                true => include_str!("../../shaders/linear/back_length.wgsl"),
                false => include_str!("../../shaders/linear/back_no_length.wgsl"),
            },
            if length { &input } else { "" },
            match map {
                MapText::Identity => include_str!("../../shaders/linear/back_no_phi.wgsl"),
                _ => include_str!("../../shaders/linear/back_phi.wgsl"),
            },
            match self.weighted {
                true => include_str!("../../shaders/linear/key_factor.wgsl"),
                false => include_str!("../../shaders/linear/no_factor.wgsl"),
            },
            &out,
        ];
        header.shader(label, "linear_features_back", &files)
    }
}

/// The shaders of `linear/columns.wgsl`: gradients of a softmax over keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SoftmaxColumns {
    /// Features become shares.
    Shares,
    /// The gradient by keys: their elements, the storage, and whether rows begin at, and have, multiples of 4 elements.
    Gradient(usize, ElementType, bool),
}

impl SoftmaxColumns {
    /// The shader of this variant.
    pub fn shader(&self) -> Shader {
        let columns = include_str!("../../shaders/linear/columns.wgsl");
        let header = Header::default();
        match *self {
            Self::Shares => {
                let files = [columns, include_str!("../../shaders/linear/shares.wgsl")];
                let header = header.params(&[("kernel", "KernelParams")]);
                header.shader("linear columns shares".into(), "linear_columns", &files)
            }
            Self::Gradient(head_dim, output, aligned) => {
                let unaligned = if aligned { "" } else { " unaligned" };
                let label = format!("linear columns gradient d{head_dim} {output}{unaligned}");
                let out = writes(output, aligned);
                let files = [columns, include_str!("../../shaders/linear/softmax_back.wgsl"), &out];
                let header = header.u32s(&[("HEAD_DIM", head_dim)]);
                let header = header.params(&[("kernel", "KernelParams"), ("out", "Rows")]);
                header.shader(label, "linear_columns", &files)
            }
        }
    }
}

/// Shaders in which every file and every flag's values occur.
pub(super) fn representatives() -> Vec<Shader> {
    use ElementType::{Bf16, F16, F32};
    let vectors = LinearVectors {
        value_dim: 64,
        input: F32,
        aligned: true,
        queries: true,
        key_mask: false,
        logs: true,
    };
    let keys = LinearVectors { queries: false, key_mask: true, logs: false, ..vectors };
    let odd =
        LinearVectors { value_dim: 7, input: F16, aligned: false, key_mask: false, logs: false, ..vectors };
    let gradient = FeatureGradient {
        head_dim: 64,
        features: 0,
        input: F32,
        output: F32,
        aligned_x: true,
        aligned_out: true,
        map: Some(MapText::FavorRunning),
        weighted: true,
    };
    let odd_gradient = FeatureGradient { head_dim: 7, aligned_x: false, aligned_out: false, ..gradient };
    let global = FeatureGradient {
        features: 44,
        input: F16,
        output: F16,
        map: Some(MapText::FavorGlobal),
        ..odd_gradient
    };
    let mut list: Vec<_> = [vectors, keys, odd, LinearVectors { queries: false, ..odd }]
        .iter()
        .map(LinearVectors::shader)
        .collect();
    let others = [MapText::Relu, MapText::Elu, MapText::Identity, MapText::Softmax].map(Some);
    let plain = |map| FeatureGradient { map, output: Bf16, weighted: false, ..gradient };
    list.extend([gradient, global].iter().chain(&others.map(plain)).map(FeatureGradient::shader));
    list.push(plain(None).shader());
    let columns = [
        SoftmaxColumns::Shares,
        SoftmaxColumns::Gradient(7, F16, false),
        SoftmaxColumns::Gradient(64, F32, true),
    ];
    list.extend(columns.iter().map(SoftmaxColumns::shader));
    list
}
