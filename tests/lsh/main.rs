//! LSH attention and the sort under it: on a device, against the reference and what others computed.
//!
//! | file | what |
//! |---|---|
//! | `golden.rs` | cases of Hugging Face's Reformer and of reformer-pytorch |
//! | `sort.rs` | the stable sort by key |
//! | `attention.rs` | buckets, order, rows within their bounds; every option |
//! | `terms.rs` | the terms of the score, by formulas of the tests' own |
//! | `positions.rs` | count and gather tests: which positions terms are asked of; one's own key, sinks, numbers that are none |
//! | `formula.rs` | who meets whom, and attention over that |
//! | `properties.rs` | what must hold whatever the numbers: one bucket is dense, permutations, repeats |
//! | `gradients/` | gradients |
//! | `bound.rs` | the bound against a simulated kernel, as wrong as WGSL allows |
//! | `api.rs` | a user's own encoder; bad input |
//! | `mutants.rs` | faults planted in the shader text |
//! | `recall.rs` | the picture of recall against rounds |

mod api;
mod attention;
mod bound;
mod formula;
mod golden;
mod gradients;
mod mutants;
mod positions;
mod properties;
mod recall;
#[path = "../reference/rounding.rs"]
mod rounding;
#[allow(dead_code)] // LSH has a score of its own.
#[path = "../reference/scores.rs"]
mod scores;
#[allow(dead_code)]
#[path = "../reference/simulator.rs"]
mod simulator;
mod sort;
mod terms;

use wgpu_attention::reference::{self, Kind, LshGot, LshReport, Rows};
use wgpu_attention::wgsl::TileKind;
use wgpu_attention::{
    Attention, Counter, Element, Gpu, LshInputs, LshOptions, LshOutput, Options, Storage, TermTensor,
};
use wgpu_attention_testing::Devices;

/// This thread's device, with all that the adapter has: three tensors of terms need more storage buffers than every device gives.
fn gpu() -> &'static Gpu {
    static GPUS: Devices = Devices::new();
    GPUS.of_this_thread(|| {
        // A fault that a test looks for must reach it.
        Gpu::new()
            .expect("an adapter: run by `cargo xtask test`, which fetches a software one")
            .self_tests(false)
    })
}

/// The device with each kind of tile; its pipelines are kept, too.
fn both_kinds_of_tile() -> [Gpu; 2] {
    let with =
        |kind| gpu().kernels().with_options(Options::default().tile_kind(kind)).expect("valid options");
    [TileKind::Staged, TileKind::Direct].map(|kind| gpu().with_kernels(with(kind)))
}

/// One call's tensors.
#[derive(Clone)]
struct Case<E> {
    attention: Attention,
    options: LshOptions,
    qk: Vec<E>,
    v: Vec<E>,
    projections: Option<Vec<f32>>,
    key_mask: Option<Vec<bool>>,
    /// Of the score's terms.
    tensors: Vec<(&'static str, Vec<f32>)>,
}

impl<E: Element> Case<E> {
    /// Random tensors, and a mask that hides about a quarter of the keys if the options ask for one.
    fn new(attention: impl Into<Attention>, options: LshOptions, kind: Kind, seed: u64) -> Self {
        let attention = attention.into().storage(Storage::all(E::TYPE));
        let shape = &attention.shape;
        let tensors = reference::random::<E, E>(&attention, kind, seed).expect("a valid call");
        let inputs = tensors.inputs();
        let (qk, v) = (inputs.q.to_vec(), inputs.v.to_vec());
        let of_term = |tensor: TermTensor| {
            (tensor.name, inputs.get(tensor.name).expect("random tensors are all there").to_vec())
        };
        let terms = attention.score.tensors(shape).into_iter().map(of_term).collect();
        let draw = Counter::new(seed, 99);
        let hidden = (0..shape.batch * shape.q_len).map(|n| draw.below(n as u64, 4) > 0).collect();
        let key_mask = options.key_mask.then_some(hidden);
        Self { attention, options, qk, v, projections: None, key_mask, tensors: terms }
    }

    fn inputs(&self) -> LshInputs<'_, E> {
        let inputs = LshInputs::new(&self.qk, &self.v)
            .projections(self.projections.as_deref())
            .key_mask(self.key_mask.as_deref());
        self.tensors.iter().fold(inputs, |inputs, (name, values)| inputs.tensor(name, values))
    }

    /// A tensor of the score.
    fn tensor(&self, name: &str) -> &[f32] {
        &self.tensors.iter().find(|(own, _)| *own == name).expect("the score has it").1
    }

    /// With another one.
    fn with_tensor(mut self, name: &str, values: Vec<f32>) -> Self {
        self.tensors.iter_mut().find(|(own, _)| *own == name).expect("the score has it").1 = values;
        self
    }

    fn run_on(&self, gpu: &Gpu) -> LshOutput<E> {
        gpu.lsh(&self.attention, &self.options, &self.inputs())
            .unwrap_or_else(|e| panic!("{:?}: {e}", self.options))
    }

    fn run(&self) -> LshOutput<E> {
        self.run_on(gpu())
    }

    fn verify(&self, got: &LshOutput<E>, rows: Rows) -> LshReport {
        let got = LshGot::new(&got.out, &got.buckets).lse(&got.lse[..]).order(&got.order[..]);
        reference::verify_lsh(&self.attention, &self.options, &self.inputs(), got, rows, None).expect("valid")
    }

    /// Runs and asserts that everything holds.
    ///
    /// Under the tile that GPUs get, whatever the device prefers: the other one is in the examples, the benches and
    /// `the_flags_alone_and_together`; what differs between them is none of LSH's.
    fn check(&self, rows: Rows) -> LshOutput<E> {
        self.check_on(&both_kinds_of_tile()[0], rows)
    }

    fn check_on(&self, gpu: &Gpu, rows: Rows) -> LshOutput<E> {
        let got = self.run_on(gpu);
        let report = self.verify(&got, rows);
        let what = (gpu.kernels().options().tile_kind, &self.attention, &self.options);
        assert!(report.pass, "{what:?}: {report}");
        assert_eq!(report.attention.unspecified, 0, "{what:?}: {report}");
        got
    }
}
