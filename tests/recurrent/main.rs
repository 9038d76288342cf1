//! Recurrent networks against their f64 reference, step by step and through all of them, on both kinds of tiles.
//!
//! | file | what |
//! |---|---|
//! | `bounds.rs` | within the bound: cells, sizes, layouts, storage |
//! | `counts.rs` | states that are known exactly: whole numbers, saturated gates |
//! | `relations.rs` | calls that must give the same bits: directions, layers, blocks, halves of a sequence |
//! | `api.rs` | buffers, scratch, and bad input one by one |
//! | `golden.rs` | cases that PyTorch made |
//! | `mutants.rs` | faults planted in the shader texts: the checks must find them |

mod api;
mod bounds;
mod counts;
mod golden;
mod mutants;
mod relations;

use wgpu_attention::reference::{self, layer::Comparison};
use wgpu_attention::wgsl::TileKind;
use wgpu_attention::{
    Counter, Element, Gpu, Options, RecurrentCell, RecurrentInputs, RecurrentOutput, RecurrentShape,
    RecurrentWeights,
};
use wgpu_attention_testing::{gpu, gpu_with};

/// The outcome of a check: what is wrong, with the case.
type Checked = Result<(), String>;

/// One call's tensors.
#[derive(Debug, Clone)]
struct Call<W = f32> {
    shape: RecurrentShape,
    x: Vec<f32>,
    parts: Vec<Part<W>>,
    h0: Vec<f32>,
    c0: Vec<f32>,
}

/// The weights of a layer and direction.
#[derive(Debug, Clone)]
struct Part<W> {
    weight_ih: Vec<W>,
    weight_hh: Vec<W>,
    bias_ih: Vec<W>,
    bias_hh: Vec<W>,
}

impl<W: Element> Call<W> {
    /// Normal x and states, weights as PyTorch draws them but `size` times as large.
    fn new(shape: RecurrentShape, size: f64, seed: u64) -> Self {
        let shape = shape.weight(W::TYPE);
        let normal = |stream, len: usize| -> Vec<f32> {
            let draw = Counter::new(seed, stream);
            (0..len as u64).map(|n| draw.normal(n) as f32).collect()
        };
        let range = size / (shape.hidden as f64).sqrt();
        let part = |number: usize| {
            let drawn = |tensor: u64, len: usize| -> Vec<W> {
                let draw = Counter::new(seed, 100 + 10 * number as u64 + tensor);
                (0..len as u64).map(|n| W::from_f64(range * (2.0 * draw.uniform(n) - 1.0))).collect()
            };
            let bias = if shape.bias { shape.len_bias() } else { 0 };
            Part {
                weight_ih: drawn(0, shape.len_weight_ih(number / shape.directions())),
                weight_hh: drawn(1, shape.len_weight_hh()),
                bias_ih: drawn(2, bias),
                bias_hh: drawn(3, bias),
            }
        };
        let state = if shape.initial { shape.len_state() } else { 0 };
        Self {
            x: normal(0, shape.len_x()),
            parts: (0..shape.parts()).map(part).collect(),
            h0: normal(1, state),
            c0: normal(2, if shape.cell.has_c() { state } else { 0 }),
            shape,
        }
    }

    /// Calls `with` with the tensors that the shape has.
    fn with<T>(&self, with: impl FnOnce(&RecurrentInputs<'_, W>) -> T) -> T {
        let (bias, initial) = (self.shape.bias, self.shape.initial);
        let weights = self.parts.iter().map(|part| {
            RecurrentWeights::new(&part.weight_ih, &part.weight_hh)
                .bias_ih(bias.then_some(&part.bias_ih[..]))
                .bias_hh(bias.then_some(&part.bias_hh[..]))
        });
        let weights: Vec<_> = weights.collect();
        let inputs = RecurrentInputs::new(&self.x, &weights)
            .h0(initial.then_some(&self.h0[..]))
            .c0((initial && self.shape.cell.has_c()).then_some(&self.c0[..]));
        with(&inputs)
    }

    fn run_on(&self, gpu: &Gpu) -> Result<RecurrentOutput, String> {
        self.with(|inputs| gpu.recurrent(&self.shape, inputs)).map_err(|e| format!("{e}\n{:?}", self.shape))
    }

    fn run(&self) -> RecurrentOutput {
        self.run_on(gpu()).unwrap_or_else(|e| panic!("{e}"))
    }

    /// Every step of one layer from the states that the device left, and h_n the last of them: worst error / bound.
    fn steps_on(&self, gpu: &Gpu) -> Result<f64, String> {
        let got = self.run_on(gpu)?;
        let exact = self.with(|inputs| reference::recurrent_steps(&self.shape, inputs, &got.out));
        let exact = exact.map_err(|e| e.to_string())?;
        self.compared(&exact, of_output(&got))
    }

    /// All steps from the first: worst error / bound.
    fn check_on(&self, gpu: &Gpu) -> Result<f64, String> {
        let got = self.run_on(gpu)?;
        let exact =
            self.with(|inputs| reference::recurrent(&self.shape, inputs)).map_err(|e| e.to_string())?;
        self.compared(&exact, of_output(&got))
    }

    /// out, h_n and c_n within their bounds: worst error / bound.
    fn compared(
        &self,
        exact: &reference::RecurrentBounded,
        [out, h_n, c_n]: [&[f32]; 3],
    ) -> Result<f64, String> {
        let passed = |what: &str, found: Comparison| match found.pass && found.unspecified == 0 {
            true => Ok(found.worst.map_or(0.0, |worst| worst.ratio)),
            false => Err(format!("{what}: {found}\n{:?}", self.shape)),
        };
        let all = [
            passed("out", exact.out.compare(out.iter().copied(), 0.0))?,
            passed("h_n", exact.h_n.compare(h_n.iter().copied(), 0.0))?,
            passed("c_n", exact.c_n.compare(c_n.iter().copied(), 0.0))?,
        ];
        Ok(all.into_iter().fold(0.0, f64::max))
    }
}

fn of_output(got: &RecurrentOutput) -> [&[f32]; 3] {
    [&got.out, &got.h_n, got.c_n.as_deref().unwrap_or_default()]
}

/// The device with the tiles of GPUs, and with those of CPUs.
fn both() -> [Gpu; 2] {
    [TileKind::Staged, TileKind::Direct].map(|kind| gpu_with(Options::default().tile_kind(kind)))
}

/// Sizes that are no multiples of anything; more items than a lane of a direct tile has.
fn shape(cell: RecurrentCell) -> RecurrentShape {
    RecurrentShape::new(cell, 9, 5, 7, 10)
}
