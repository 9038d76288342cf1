//! Linear attention: on a device, against the reference, exact counts, what others computed.
//!
//! | file | what |
//! |---|---|
//! | `attention.rs` | rows within their bounds: every map, storage, size, option |
//! | `counts.rs` | sets of keys that are known exactly: means, single keys, decay by halves |
//! | `state.rs` | sequences in pieces: decoding |
//! | `linformer/` | Linformer: rows within their bounds, projections that are known exactly, golden cases, bad input |
//! | `properties.rs` | what must hold whatever the numbers; random calls |
//! | `golden.rs` | cases of performer-pytorch |
//! | `gradients.rs` | gradients |
//! | `api.rs` | a user's own encoder; bad input |
//! | `mutants.rs` | faults planted in the shader text |

mod api;
mod attention;
mod counts;
mod golden;
mod gradients;
mod linformer;
mod mutants;
mod properties;
mod state;

use wgpu_attention::reference::{self, Kind, Report, Rows};
use wgpu_attention::wgsl::TileKind;
use wgpu_attention::{
    Attention, AttentionShape, Counter, Element, FeatureMap, Gpu, LinearInputs, LinearOptions, LinearState,
    Options, Projection, Stabiliser, Storage,
};
use wgpu_attention_testing::{gpu, gpu_with};

/// One call's tensors.
#[derive(Debug, Clone)]
struct Case<E> {
    attention: Attention,
    options: LinearOptions,
    q: Vec<E>,
    k: Vec<E>,
    v: Vec<E>,
    projection: Option<Vec<f32>>,
    key_mask: Option<Vec<bool>>,
}

impl<E: Element> Case<E> {
    /// Random tensors, and a mask that hides about a quarter of the keys if the options ask for one.
    fn new(attention: impl Into<Attention>, options: LinearOptions, kind: Kind, seed: u64) -> Self {
        let attention = attention.into().storage(Storage::all(E::TYPE));
        let tensors = reference::random::<E, E>(&attention, kind, seed).expect("a valid call");
        let [q, k, v] = [tensors.q.clone(), tensors.k.clone(), tensors.v.clone()];
        let shape = &attention.shape;
        let draw = Counter::new(seed, 99);
        let hidden = (0..shape.batch * shape.kv_len).map(|n| draw.below(n as u64, 4) > 0).collect();
        let key_mask = options.key_mask.then_some(hidden);
        let given = (0..options.len_projection(shape) as u64).map(|n| draw.normal(n) as f32).collect();
        let is_given = match options.map {
            FeatureMap::Favor { projection, .. } | FeatureMap::Relu { projection, .. } => {
                projection == Projection::Given
            }
            _ => false,
        };
        Self { attention, options, q, k, v, projection: is_given.then_some(given), key_mask }
    }

    fn inputs(&self) -> LinearInputs<'_, E> {
        LinearInputs::new(&self.q, &self.k, &self.v)
            .projection(self.projection.as_deref())
            .key_mask(self.key_mask.as_deref())
    }

    fn run_on(&self, gpu: &Gpu) -> Result<Vec<E>, String> {
        let run = gpu.linear_attention(&self.attention, &self.options, &self.inputs());
        run.map_err(|e| format!("{:?}: {e}", self.options))
    }

    fn run(&self) -> Vec<E> {
        self.run_on(gpu()).unwrap_or_else(|e| panic!("{e}"))
    }

    fn report(&self, got: &[E], rows: Rows) -> Report {
        reference::verify_linear(&self.attention, &self.options, &self.inputs(), got, rows, None)
            .expect("valid")
    }

    /// Every element within its bound, and something promised of each.
    fn check_on(&self, gpu: &Gpu) -> Result<Report, String> {
        let report = self.report(&self.run_on(gpu)?, Rows::All);
        match report.pass && report.unspecified == 0 {
            true => Ok(report),
            false => Err(format!("{report}\n{:?} {:?}", self.attention, self.options)),
        }
    }

    /// With what GPUs get; all that is not checked by this has what this device gets.
    fn check(&self) -> Report {
        let staged = gpu_with(Options::default().tile_kind(TileKind::Staged));
        self.check_on(&staged).unwrap_or_else(|e| panic!("{e}"))
    }
}

/// A call that carries a state.
fn good_state() -> LinearOptions {
    LinearOptions::new(FeatureMap::Elu).causal(true).state(LinearState::Carried)
}

/// Every map, under a name.
fn maps() -> [(&'static str, FeatureMap); 7] {
    let global = FeatureMap::Favor {
        features: 22,
        eps: 1e-4,
        stabiliser: Stabiliser::Global,
        projection: Projection::Seeded { seed: 3 },
    };
    [
        ("favor", FeatureMap::favor(22)),
        ("favor global", global),
        ("favor given", FeatureMap::favor(9).projection(Projection::Given)),
        ("relu", FeatureMap::relu(20)),
        ("elu", FeatureMap::Elu),
        ("identity", FeatureMap::Identity),
        ("softmax", FeatureMap::Softmax),
    ]
}

/// Grouped heads, several chunks, short last ones, lengths that differ.
fn shape() -> AttentionShape {
    AttentionShape::new(2, 4, 70, 12).kv_heads(2).kv_len(150).value_dim(20)
}
