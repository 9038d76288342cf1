//! Axial positions and their gradients: against the definition, exactly.

use crate::harness::{Guarded, gpu, kernels, normal};
use wgpu_attention::reference::layer::{self, Bounded};
use wgpu_attention::{AxialShape, Combine, ElementType::F32};

/// Tables and out by the definition.
fn defined(shape: &AxialShape) -> ([Vec<f32>; 2], Vec<f32>) {
    let table = |axis: usize| {
        let len = shape.sizes[axis] * shape.widths[axis];
        normal(41, axis as u64, len, F32).into_iter().map(|x| x as f32).collect::<Vec<f32>>()
    };
    let tables = [table(0), table(1)];
    let row = |p: usize, axis: usize| {
        let (id, width) = ([p / shape.sizes[1], p % shape.sizes[1]][axis], shape.widths[axis]);
        tables[axis][id * width..][..width].to_vec()
    };
    let out = (0..shape.positions).flat_map(|p| [row(p, 0), row(p, 1)].concat()).collect();
    (tables, out)
}

#[test]
fn rows_are_those_of_both_tables() {
    for (sizes, widths, positions) in [
        ([4, 8], [6, 10], 30),
        ([1, 1], [1, 1], 1),
        ([3, 5], [4, 8], 15),
        ([7, 2], [5, 3], 9),
        ([2, 2], [4, 4], 0),
    ] {
        let shape = AxialShape::new(sizes, widths).positions(positions);
        let ([first, second], want) = defined(&shape);
        let got: Vec<f32> = gpu().axial_positions(&shape, [&first, &second]).unwrap();
        assert_eq!(got, want, "{shape:?}");
        let tables = [&first, &second].map(|table| Bounded::exact(table));
        let reference = layer::axial_positions(&shape, [&tables[0], &tables[1]]).unwrap();
        assert!(reference.compare(got, 0.0).pass, "{shape:?}");
    }
}

#[test]
fn gradients_are_sums_over_the_positions_of_a_row() {
    for (sizes, widths, positions) in [([4, 8], [6, 10], 30), ([3, 90], [4, 8], 265), ([70, 3], [5, 3], 0)] {
        let shape = AxialShape::new(sizes, widths).positions(positions);
        let dout = normal(42, 0, positions * shape.width(), F32);
        let narrow: Vec<f32> = dout.iter().map(|&x| x as f32).collect();
        let got = gpu().axial_backward(&shape, &narrow).unwrap();
        let want = layer::axial_backward(&shape, &Bounded::exact(&dout)).unwrap();
        for (axis, (got, want)) in got.into_iter().zip(want).enumerate() {
            let found = want.compare(got, 0.0);
            assert!(found.pass, "axis {axis} of {shape:?}: {found}");
        }
    }
}

#[test]
fn gradients_of_ones_count_the_positions() {
    // 5 positions of a grid of 3 x 2: rows of the first table have 2, 2 and 1, those of the second 3 and 2.
    let shape = AxialShape::new([3, 2], [4, 1]).positions(5);
    let [first, second] = gpu().axial_backward(&shape, &[1.0f32; 25]).unwrap();
    assert_eq!(first, [2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 1.0, 1.0, 1.0, 1.0]);
    assert_eq!(second, [3.0, 2.0]);
}

#[test]
fn bad_input_is_named() {
    let shape = AxialShape::new([4, 8], [6, 10]);
    let error = |shape: AxialShape| kernels().axial_positions(&shape).unwrap_err().to_string();
    assert!(error(shape.positions(33)).starts_with("positions: need at most 32, the grid's, got 33"));
    assert!(error(AxialShape::new([4, 8], [6, 0])).starts_with("width: need at least 1"));
    assert!(error(AxialShape::new([0, 8], [6, 4])).starts_with("table_rows: need at least 1"));
    assert!(error(shape.combine(Combine::MultiplyInto)).starts_with("combine: need Store or"));
    let [first, second, out] = [24, 80, 512].map(|len| Guarded::new(&vec![0.0; len], F32));
    let plan = kernels().axial_positions(&shape).unwrap();
    assert!(plan.bind([first.binding(), second.binding()], out.binding()).is_ok());
    let few = plan.bind([first.binding(), first.binding()], out.binding()).unwrap_err().to_string();
    assert!(few.starts_with("table: need 320 bytes"), "{few}");
    let error = gpu().axial_backward::<f32>(&shape, &[0.0; 511]).unwrap_err().to_string();
    assert!(error.starts_with("dout: need 512"), "{error}");
}
