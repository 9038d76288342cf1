use crate::Checked;
use crate::harness::{Guarded, Rows, kernels, normal, run, with};
use wgpu_attention::reference::layer::{Bounded, rotary};
use wgpu_attention::{
    ElementType, Kernels, Layout, RotaryBuffers, RotaryPairs, RotaryShape, RowStrides, rotary_tables,
};

use ElementType::{Bf16, F16, F32};

/// The worst error / bound.
pub(crate) fn bound(kernels: &Kernels, shape: &RotaryShape) -> Result<f64, String> {
    let x = normal(6, 0, shape.len_x(), shape.input);
    let [mut cos, mut sin] = rotary_tables(shape.len, shape.rotary_dim, 100.0)
        .map(|t| t.into_iter().map(f64::from).collect::<Vec<_>>());
    if shape.tables_per_item {
        // Other positions for the second item.
        for table in [&mut cos, &mut sin] {
            let reversed: Vec<f64> = table.iter().rev().copied().collect();
            (1..shape.batch).for_each(|_| table.extend(&reversed));
        }
    }
    let (x_buffer, cos_buffer, sin_buffer) =
        (Guarded::new(&x, shape.input), Guarded::new(&cos, F32), Guarded::new(&sin, F32));
    let out = Guarded::new(&vec![f64::NAN; shape.len_out()], shape.output);
    let buffers =
        RotaryBuffers::new(x_buffer.binding(), cos_buffer.binding(), sin_buffer.binding(), out.binding());
    let call = kernels.rotary(shape).and_then(|plan| plan.bind(buffers)).map_err(|e| e.to_string())?;
    // All of out's memory belongs to some row: the layouts here are dense.
    let all = Rows {
        strides: RowStrides::new(0, shape.len_out() as isize),
        batch: 1,
        rows: 1,
        width: shape.len_out(),
    };
    let memory = run(&[&call], &out, all, shape.output)?;
    let mut got: Vec<f64> = vec![];
    for batch in 0..shape.batch {
        for head in 0..shape.heads {
            for t in 0..shape.len {
                let at = shape.strides_of_out().at(batch, head, t);
                got.extend(&memory[at..at + shape.head_dim]);
            }
        }
    }
    let expected = rotary(shape, &Bounded::exact(&x), &Bounded::exact(&cos), &Bounded::exact(&sin));
    let found = expected.map_err(|e| e.to_string())?.compare(got, 0.0);
    if found.pass {
        Ok(found.worst.map_or(0.0, |worst| worst.ratio))
    } else {
        Err(format!("{found}\n{shape:?}"))
    }
}

/// A selection for the mutants.
pub(crate) fn selection(kernels: &Kernels) -> Checked {
    for pairs in [RotaryPairs::HalfSplit, RotaryPairs::Interleaved] {
        let shape = RotaryShape::new(2, 3, 5, 16).pairs(pairs);
        bound(kernels, &shape.x_layout(Layout::Blhd))?;
        bound(kernels, &shape.rotary_dim(6).tables_per_item(true).out_layout(Layout::Blhd))?;
    }
    Ok(())
}

#[test]
fn the_selection_passes() {
    selection(kernels()).unwrap();
}

#[test]
fn every_size_and_type_is_within_the_bound() {
    let mut worst = 0f64;
    for pairs in [RotaryPairs::HalfSplit, RotaryPairs::Interleaved] {
        for (head_dim, rotary_dim) in [(2, 2), (3, 2), (7, 4), (16, 16), (64, 32), (80, 80), (128, 128)] {
            let shape = RotaryShape::new(1, 2, 9, head_dim).rotary_dim(rotary_dim).pairs(pairs);
            worst = worst.max(bound(kernels(), &shape).unwrap());
        }
        for element in [F16, Bf16] {
            for head_dim in [7, 16] {
                let shape = RotaryShape::new(2, 2, 9, head_dim).rotary_dim(6).pairs(pairs);
                bound(kernels(), &shape.input(element).output(element)).unwrap();
            }
        }
    }
    println!("worst error/bound: rotary {worst:.3}");
}

#[test]
fn bad_input_is_named() {
    let shape = RotaryShape::new(1, 2, 3, 8);
    for (shape, words) in [
        (shape.rotary_dim(3), "rotary_dim: need an even number up to head_dim (8), got 3"),
        (shape.rotary_dim(10), "rotary_dim"),
        (with(shape, |shape| shape.heads = 0), "heads: need at least 1"),
        (with(shape, |shape| shape.len = usize::MAX), "x needs"),
    ] {
        let message = kernels().rotary(&shape).unwrap_err().to_string();
        assert!(message.contains(words), "{words}: {message}");
    }
    let plan = kernels().rotary(&shape).unwrap();
    let [x, table, out] = [48, 12, 48].map(|len| Guarded::new(&vec![0.0; len], F32));
    let buffers = || RotaryBuffers::new(x.binding(), table.binding(), table.binding(), out.binding());
    assert!(plan.bind(buffers()).is_ok());
    let message = plan.bind(buffers().out(x.binding())).unwrap_err().to_string();
    assert!(message.starts_with("out: need a buffer other than that of x"), "{message}");
    let empty = kernels().rotary(&with(shape, |shape| shape.len = 0)).unwrap();
    assert_eq!(empty.bind(buffers()).unwrap().dispatches(), 0);
}
