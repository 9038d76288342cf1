//! Variants of the shaders of linear attention: `shaders/linear/`.

use super::tensor::{reads, writes};
use super::{Header, Shader};
use crate::{ElementType, FeatureMap, LinearOptions, LinearState, Stabiliser};

/// A feature map's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MapText {
    /// `linear/favor_running.wgsl`.
    FavorRunning,
    /// `linear/favor_global.wgsl`.
    FavorGlobal,
    /// `linear/relu.wgsl`.
    Relu,
    /// `linear/elu.wgsl`.
    Elu,
    /// `linear/identity.wgsl`.
    Identity,
    /// `linear/softmax.wgsl`.
    Softmax,
}

/// What a map needs to know of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MapMode {
    /// The element alone.
    Elements,
    /// The row's largest element, too.
    Rows,
    /// Something of all keys: a second step follows.
    Later,
}

impl MapText {
    /// The text of a map.
    pub fn of(map: &FeatureMap) -> Self {
        match map {
            FeatureMap::Favor { stabiliser: Stabiliser::Running, .. } => Self::FavorRunning,
            FeatureMap::Favor { stabiliser: Stabiliser::Global, .. } => Self::FavorGlobal,
            FeatureMap::Relu { .. } => Self::Relu,
            FeatureMap::Elu => Self::Elu,
            FeatureMap::Identity => Self::Identity,
            FeatureMap::Softmax => Self::Softmax,
        }
    }

    /// What it needs to know of a query, or of a key.
    pub fn mode(self, key: bool, causal: bool) -> MapMode {
        match self {
            Self::FavorGlobal if key => MapMode::Later,
            Self::Softmax if key && !causal => MapMode::Later,
            Self::Softmax if key => MapMode::Elements,
            Self::FavorRunning | Self::FavorGlobal | Self::Softmax => MapMode::Rows,
            Self::Relu | Self::Elu | Self::Identity => MapMode::Elements,
        }
    }

    pub(super) fn text(self) -> &'static str {
        match self {
            Self::FavorRunning => include_str!("../../shaders/linear/favor_running.wgsl"),
            Self::FavorGlobal => include_str!("../../shaders/linear/favor_global.wgsl"),
            Self::Relu => include_str!("../../shaders/linear/relu.wgsl"),
            Self::Elu => include_str!("../../shaders/linear/elu.wgsl"),
            Self::Identity => include_str!("../../shaders/linear/identity.wgsl"),
            Self::Softmax => include_str!("../../shaders/linear/softmax.wgsl"),
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::FavorRunning => "favor running",
            Self::FavorGlobal => "favor global",
            Self::Relu => "relu",
            Self::Elu => "elu",
            Self::Identity => "identity",
            Self::Softmax => "softmax",
        }
    }

    /// `ROOT_OF_FEATURES` is the published code's m^(-1/2).
    pub(super) fn header(self, features: usize, mode: MapMode) -> Header {
        let header = Header::default().u32s(&[
            ("ELEMENTS", MapMode::Elements as usize),
            ("ROWS", MapMode::Rows as usize),
            ("LATER", MapMode::Later as usize),
            ("MODE", mode as usize),
        ]);
        match self {
            Self::FavorGlobal => {
                header.f32s(&[("ROOT_OF_FEATURES", (features as f64).sqrt().recip() as f32)])
            }
            _ => header,
        }
    }
}

/// All that tells one shader of `linear/features.wgsl` from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FeatureVariant {
    /// Elements of a query and of a key, d.
    pub head_dim: usize,
    /// Features, m; counts for published FAVOR+ only.
    pub features: usize,
    /// Storage of x.
    pub input: ElementType,
    /// Every row of x begins at, and has, a multiple of 4 elements.
    pub aligned: bool,
    /// The map.
    pub map: MapText,
    /// What it needs to know.
    pub mode: MapMode,
    /// The map is one of P x.
    pub projected: bool,
    /// Keys may be masked.
    pub key_mask: bool,
    /// Logarithms of weights are left.
    pub weights: bool,
}

impl FeatureVariant {
    /// Rows of a workgroup, and its lanes, as the shader says.
    pub const ROWS: usize = 64;

    /// The shader of this variant.
    pub fn shader(&self) -> Shader {
        let flag = |flag, name| if flag { name } else { "" };
        let label = format!(
            "linear features {} d{} {}{}{}{}{}",
            self.map.name(),
            self.head_dim,
            self.input,
            flag(!self.aligned, " unaligned"),
            flag(self.mode == MapMode::Later, " later"),
            flag(self.key_mask, " key-mask"),
            flag(self.weights, " weights"),
        );
        let header = self
            .map
            .header(self.features, self.mode)
            .u32s(&[("HEAD_DIM", self.head_dim), ("HEAD_GROUPS", self.head_dim.div_ceil(4))])
            .params(&[("kernel", "KernelParams"), ("x", "Rows")]);
        let projection = match self.projected {
            true => reads("projection", ElementType::F32, self.head_dim.is_multiple_of(4)),
            false => String::new(),
        };
        let files = [
            include_str!("../../shaders/linear/features.wgsl"),
            match self.projected {
                true => include_str!("../../shaders/linear/projected.wgsl"),
                false => include_str!("../../shaders/linear/plain.wgsl"),
            },
            self.map.text(),
            &reads("x", self.input, self.aligned),
            &projection,
            match self.key_mask {
                true => include_str!("../../shaders/linear/key_mask.wgsl"),
                false => include_str!("../../shaders/linear/no_key_mask.wgsl"),
            },
            match self.weights {
                true => include_str!("../../shaders/linear/leave_weight.wgsl"),
                false => include_str!("../../shaders/linear/no_weight.wgsl"),
            },
        ];
        header.shader(label, "linear_features", &files)
    }

    /// The variant of queries, or of keys.
    pub fn of(
        options: &LinearOptions,
        head_dim: usize,
        key: bool,
        input: ElementType,
        aligned: bool,
    ) -> Self {
        let map = MapText::of(&options.map);
        let mode = map.mode(key, options.causal);
        Self {
            head_dim,
            features: if map == MapText::FavorGlobal { options.map.features(head_dim) } else { 0 },
            input,
            aligned,
            map,
            mode,
            projected: matches!(options.map, FeatureMap::Favor { .. } | FeatureMap::Relu { .. }),
            key_mask: key && options.key_mask,
            weights: key && (options.weighted() || mode == MapMode::Later),
        }
    }

    fn representatives() -> Vec<Self> {
        use ElementType::{Bf16, F16, F32};
        let global = FeatureMap::Favor {
            features: 44,
            eps: 1e-4,
            stabiliser: Stabiliser::Global,
            projection: crate::Projection::Given,
        };
        let maps = [
            (FeatureMap::favor(44), F32, 64),
            (global, F16, 7),
            (FeatureMap::relu(8), Bf16, 16),
            (FeatureMap::Elu, F32, 7),
            (FeatureMap::Identity, F16, 16),
            (FeatureMap::Softmax, F32, 16),
        ];
        let both = |(map, input, dim): (FeatureMap, ElementType, usize)| {
            let options = LinearOptions::new(map).key_mask(dim == 7);
            [false, true].map(|key| Self::of(&options, dim, key, input, dim.is_multiple_of(4)))
        };
        maps.into_iter().flat_map(both).collect()
    }
}

/// The shaders of `linear/maxima.wgsl` and `linear/keys.wgsl`: what maps need that look at all keys.
pub struct KeyMaxima;

impl KeyMaxima {
    /// Rows of a workgroup of the first, as the shader says.
    pub const ROWS: usize = 256;

    /// The shader that finds the largest of each feature.
    pub fn maxima() -> Shader {
        let header = Header::default().params(&[("kernel", "KernelParams")]);
        header.shader(
            "linear maxima".into(),
            "linear_maxima",
            &[include_str!("../../shaders/linear/maxima.wgsl")],
        )
    }

    /// The shader that makes features, given the largest of each.
    pub fn keys(map: MapText, features: usize) -> Shader {
        let features = if map == MapText::FavorGlobal { features } else { 0 };
        let header = map.header(features, MapMode::Rows).bools(&[("BY_FEATURE", map == MapText::Softmax)]);
        let files = [include_str!("../../shaders/linear/keys.wgsl"), map.text()];
        let label = format!("linear keys {} m{features}", map.name());
        header.params(&[("kernel", "KernelParams")]).shader(label, "linear_keys", &files)
    }
}

/// All that tells one shader of `linear/states.wgsl`, `scan.wgsl` and `outputs.wgsl` from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LinearVariant {
    /// Elements of a value, dv.
    pub value_dim: usize,
    /// Storage of v.
    pub input: ElementType,
    /// Storage of out.
    pub output: ElementType,
    /// Every row of v begins at, and has, a multiple of 4 elements.
    pub aligned_v: bool,
    /// Every row of out begins at, and has, a multiple of 4 elements.
    pub aligned_out: bool,
    /// A query sees no later key.
    pub causal: bool,
    /// Keys have weights of their own.
    pub weighted: bool,
    /// Features of keys are divided by their sums over the keys.
    pub by_column: bool,
    /// Lanes keep what is theirs in arrays, as CPUs want it; else in workgroup memory.
    pub direct: bool,
    /// What is carried from call to call.
    pub state: LinearState,
    /// What becomes of a row's sums.
    pub end: RowEnd,
    /// Places count from the end.
    pub mirrored: bool,
}

/// What becomes of the sums of a row of `linear/outputs.wgsl`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RowEnd {
    /// Their mean.
    Mean,
    /// Their mean, and behind it what gradients need of the row; f32 in whole groups of 4.
    MeanAndRow,
    /// The sums themselves, over several key heads; f32 in whole groups of 4.
    Sums,
}

impl LinearVariant {
    /// Features of a workgroup of `states.wgsl`, and lanes of `scan.wgsl`, as the shaders say.
    pub const FEATURES: usize = 64;
    /// Groups of 4 columns of a workgroup of `states.wgsl`.
    pub const COLUMN_GROUPS: usize = 4;

    fn weights(&self) -> &'static str {
        match self.weighted {
            true => include_str!("../../shaders/linear/weighted.wgsl"),
            false => include_str!("../../shaders/linear/unweighted.wgsl"),
        }
    }

    /// What counts places.
    fn places(&self) -> &'static str {
        match self.mirrored {
            true => include_str!("../../shaders/linear/mirrored.wgsl"),
            false => include_str!("../../shaders/linear/forward.wgsl"),
        }
    }

    fn header(&self) -> Header {
        Header::default()
            .u32s(&[("CHUNK", LinearOptions::CHUNK)])
            .bools(&[("CAUSAL", self.causal), ("WEIGHTED", self.weighted)])
    }

    /// How a shader of sums begins and ends: its constant, its file, its part of the label.
    fn of_state(state: LinearState) -> (bool, &'static str, &'static str) {
        let there = include_str!("../../shaders/linear/state.wgsl");
        match state {
            LinearState::Absent => (false, include_str!("../../shaders/linear/no_state.wgsl"), ""),
            LinearState::Left => (false, there, " state-left"),
            LinearState::Carried => (true, there, " state-carried"),
        }
    }

    fn label(&self, step: &str, rest: &str) -> String {
        let flag = |flag, name| if flag { name } else { "" };
        let [causal, weighted] = [flag(self.causal, " causal"), flag(self.weighted, " weighted")];
        format!("linear {step}{causal}{weighted}{}{rest}", flag(self.mirrored, " mirrored"))
    }

    /// The shader that sums over chunks of keys.
    pub fn states(&self) -> Shader {
        let all = Self { causal: false, ..*self };
        let unaligned = if self.aligned_v { "" } else { " unaligned" };
        // Only a top is read here, and only where keys have weights.
        let needs = self.weighted && self.state == LinearState::Carried;
        let (carried, state, of_state) =
            Self::of_state(if needs { LinearState::Carried } else { LinearState::Absent });
        let rest = format!(" dv{} {}{unaligned}{of_state}", self.value_dim, self.input);
        let label = all.label("states", &rest);
        let header = all
            .header()
            .u32s(&[("VALUE_DIM", self.value_dim), ("VALUE_GROUPS", self.value_dim.div_ceil(4))])
            .bools(&[("CARRIED", carried)])
            .params(&[("kernel", "KernelParams"), ("v", "Rows")]);
        let v = reads("v", self.input, self.aligned_v);
        let files =
            [include_str!("../../shaders/linear/states.wgsl"), self.weights(), self.places(), state, &v];
        header.shader(label, "linear_states", &files)
    }

    /// The shader that adds up the sums of the chunks before each.
    pub fn scan(&self) -> Shader {
        let (carried, state, of_state) = Self::of_state(self.state);
        let header = self.header().bools(&[("CARRIED", carried)]).params(&[("kernel", "KernelParams")]);
        let files = [include_str!("../../shaders/linear/scan.wgsl"), self.weights(), self.places(), state];
        header.shader(self.label("scan", of_state), "linear_scan", &files)
    }

    /// The shader that makes the rows of out.
    pub fn outputs(&self) -> Shader {
        let flag = |flag, name| if flag { name } else { "" };
        let rest = format!(
            " dv{} {}->{}{}{}{}{}{}",
            self.value_dim,
            self.input,
            self.output,
            flag(!self.aligned_v, " unaligned-v"),
            flag(!self.aligned_out, " unaligned-out"),
            flag(self.by_column, " by-column"),
            flag(self.direct, " direct"),
            match self.end {
                RowEnd::Mean => "",
                RowEnd::MeanAndRow => " rows",
                RowEnd::Sums => " sums",
            }
        );
        let header = self
            .header()
            .u32s(&[("VALUE_DIM", self.value_dim), ("VALUE_GROUPS", self.value_dim.div_ceil(4))])
            .bools(&[("BY_COLUMN", self.by_column)])
            .params(&[("kernel", "KernelParams"), ("v", "Rows"), ("out", "Rows")]);
        let (v, out) = (reads("v", self.input, self.aligned_v), writes(self.output, self.aligned_out));
        let own = match self.direct {
            true => include_str!("../../shaders/linear/own_direct.wgsl"),
            false => include_str!("../../shaders/linear/own_staged.wgsl"),
        };
        let end = match self.end {
            RowEnd::Mean => include_str!("../../shaders/linear/mean.wgsl"),
            RowEnd::MeanAndRow => include_str!("../../shaders/linear/mean_rows.wgsl"),
            RowEnd::Sums => include_str!("../../shaders/linear/sums.wgsl"),
        };
        let outputs = include_str!("../../shaders/linear/outputs.wgsl");
        let files = [outputs, end, own, self.weights(), self.places(), &v, &out];
        let shader = header.shader(self.label("outputs", &rest), "linear_outputs", &files);
        Shader { for_cpus: self.direct, ..shader }
    }

    fn representatives() -> Vec<Self> {
        use ElementType::{Bf16, F16, F32};
        let base = Self {
            value_dim: 64,
            input: F32,
            output: F32,
            aligned_v: true,
            aligned_out: true,
            causal: true,
            weighted: true,
            by_column: false,
            direct: false,
            state: LinearState::Absent,
            end: RowEnd::Mean,
            mirrored: false,
        };
        vec![
            base,
            Self { direct: true, state: LinearState::Carried, ..base },
            Self {
                weighted: false,
                value_dim: 7,
                aligned_v: false,
                aligned_out: false,
                state: LinearState::Left,
                ..base
            },
            Self { end: RowEnd::MeanAndRow, direct: true, ..base },
            Self { end: RowEnd::Sums, mirrored: true, ..base },
            Self { end: RowEnd::Sums, causal: false, weighted: false, direct: true, ..base },
            Self { causal: false, by_column: true, weighted: false, input: F16, output: F16, ..base },
            Self { causal: false, input: Bf16, output: Bf16, value_dim: 24, ..base },
        ]
    }
}

/// Shaders in which every file and every flag's values occur.
pub(super) fn representatives() -> Vec<Shader> {
    let mut list: Vec<_> = FeatureVariant::representatives().iter().map(FeatureVariant::shader).collect();
    list.push(KeyMaxima::maxima());
    list.push(KeyMaxima::keys(MapText::FavorGlobal, 44));
    list.push(KeyMaxima::keys(MapText::Softmax, 44));
    for variant in LinearVariant::representatives() {
        list.extend([variant.states(), variant.scan(), variant.outputs()]);
    }
    list
}
