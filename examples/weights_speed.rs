//! How fast few rows meet a weight matrix, beside how fast the adapter reads: `cargo run --example weights_speed`.
//!
//! 1, 2, 4 and 8 rows of x by W `[4096, 4096]`, in f32, f16, i8 and i4; by turns with two probes, of which one only reads and one only multiplies and adds, the least time of each. Bytes per second are those
//! of the weights, scales with them, each read once.

mod rates;

use rates::{Timed, arithmetic, compare, filled, probe};
use std::time::Duration;
use wgpu_attention::wgpu::{Buffer, BufferUsages};
use wgpu_attention::{
    Call, ElementType, Gpu, IntegerFormat, IntegerType, MatmulBuffers, MatmulShape, Result, ScaleGroups,
    WeightOrder,
};

const INNER: usize = 4096;
const COLUMNS: usize = 4096;

/// What W is made of.
#[derive(Clone, Copy)]
enum Weight {
    Numbers(ElementType),
    Integers(IntegerFormat),
}

fn main() -> Result<()> {
    let gpu = Gpu::new()?;
    println!("on {}", gpu.info().name);
    let mut timed = vec![probe(&gpu), arithmetic(&gpu)];
    let integers = |element, groups| Weight::Integers(IntegerFormat::new(element).groups(groups));
    for rows in [1, 2, 4, 8] {
        for weight in [
            Weight::Numbers(ElementType::F32),
            Weight::Numbers(ElementType::F16),
            integers(IntegerType::I8, ScaleGroups::Rows),
            integers(IntegerType::I8, ScaleGroups::Groups(64)),
            integers(IntegerType::I4, ScaleGroups::Groups(32)),
        ] {
            timed.push(product(&gpu, rows, weight)?);
        }
    }
    compare(&gpu, &mut timed);
    Ok(())
}

/// x W^T of so many rows, W of `COLUMNS` rows of `INNER` numbers or integers.
fn product(gpu: &Gpu, rows: usize, weight: Weight) -> Result<Timed> {
    let shape = MatmulShape::new(rows, INNER, COLUMNS).weights(WeightOrder::OutIn);
    let (shape, bytes) = match weight {
        Weight::Numbers(element) => (shape.weight(element), COLUMNS * INNER * element.size_bytes()),
        Weight::Integers(format) => (shape.integers(format), format.bytes(COLUMNS, INNER)),
    };
    let scales = shape.integers.map_or(4, |format| format.len_scales(COLUMNS, INNER));
    let weight_bytes = bytes - if shape.integers.is_some() { 4 * scales } else { 0 };
    let [x, w, scales, out] = [rows * INNER, weight_bytes / 4, scales, rows * COLUMNS]
        .map(|words| filled(gpu, words, BufferUsages::empty()));
    let whole = Buffer::as_entire_buffer_binding;
    let plan = gpu.kernels().matmul(&shape)?;
    let buffers = MatmulBuffers::new(whole(&x), whole(&w), whole(&out));
    let call: Call = plan.bind(buffers.scales(shape.integers.map(|_| whole(&scales))))?;
    let name = match weight {
        Weight::Numbers(element) => element.to_string(),
        Weight::Integers(format) => format.to_string(),
    };
    Ok(Timed {
        name: format!("rows {rows}, {name}, {}", plan.tile()),
        bytes: bytes as f64,
        flops: 2.0 * (rows * INNER * COLUMNS) as f64,
        record: Box::new(move |pass| call.dispatch(pass)),
        least: Duration::MAX,
        computed: Duration::MAX,
    })
}
