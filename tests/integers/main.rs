//! Tensors of integers: made of numbers, made numbers again, multiplied, and as weights of the matrix product.
//!
//! | file | what |
//! |---|---|
//! | `quantize.rs` | scales, zero points and integers by every rule, on the host and on the device; numbers of integers |
//! | `weights.rs` | the matrix product whose weights are integers, on both kinds of tiles |
//! | `product.rs` | exact sums, and what becomes of them |
//! | `api.rs` | buffers with poison around them, and bad input one by one |
//! | `properties.rs` | drawn sizes |
//! | `mutants.rs` | faults planted in the shader texts: the checks must find them |

mod api;
mod mutants;
mod product;
mod properties;
mod quantize;
mod weights;

use wgpu_attention::reference::layer::Bounded;
use wgpu_attention::wgsl::TileKind;
use wgpu_attention::{Counter, Gpu, IntegerFormat, IntegerType, Options, Quantized, ScaleGroups};
use wgpu_attention_testing::gpu_with;

/// The outcome of a check: what is wrong, with the case.
type Checked<T = ()> = Result<T, String>;

/// The device with the tiles of GPUs, and with those of CPUs.
fn both() -> [Gpu; 2] {
    [TileKind::Staged, TileKind::Direct].map(|kind| gpu_with(Options::default().tile_kind(kind)))
}

/// N(0, 1).
fn normal(seed: u64, len: usize) -> Vec<f32> {
    let draw = Counter::new(seed, 0);
    (0..len as u64).map(|n| draw.normal(n) as f32).collect()
}

/// A tensor of drawn integers, both ends of the range among them, scales from 0.5 on and drawn zero points.
fn drawn(seed: u64, format: IntegerFormat, rows: usize, inner: usize) -> Quantized {
    let [low, high] = format.element.range();
    let draw = Counter::new(seed, 1);
    let any = |n: u64| low + (draw.uniform(n) * f64::from(high - low + 1)) as i32;
    let values: Vec<i32> = (0..(rows * inner) as u64).map(any).collect();
    let scales = (0..format.len_scales(rows, inner) as u64).map(|n| (0.5 + draw.uniform(n + 999)) as f32);
    let zero_points = (0..format.len_scales(rows, inner) as u64).map(|n| any(n + 77_777));
    let zero_points = if format.zero_points { zero_points.collect() } else { vec![] };
    Quantized::new(format, rows, inner, &values, scales.collect(), zero_points).expect("a tensor")
}

/// Every type, group size, with zero points and without.
fn formats() -> Vec<IntegerFormat> {
    let groups = [
        ScaleGroups::Tensor,
        ScaleGroups::Rows,
        ScaleGroups::Groups(32),
        ScaleGroups::Groups(64),
        ScaleGroups::Groups(128),
    ];
    let of = |element: IntegerType| {
        groups.into_iter().flat_map(move |groups| {
            [false, true]
                .map(|zero_points| IntegerFormat::new(element).groups(groups).zero_points(zero_points))
        })
    };
    IntegerType::ALL.into_iter().flat_map(of).collect()
}

/// Everything compared and within its bound: the worst error / bound.
fn within<T: Into<f64>>(what: &str, exact: &Bounded, got: impl IntoIterator<Item = T>) -> Checked<f64> {
    let found = exact.compare(got, 0.0);
    match found.pass && found.unspecified == 0 {
        true => Ok(found.worst.map_or(0.0, |worst| worst.ratio)),
        false => Err(format!("{what}: {found}")),
    }
}
