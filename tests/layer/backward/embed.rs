//! The gradient of an embedding's table: sums of whole numbers, which have no error, and drawn ones within the bound.

use crate::Checked;
use crate::harness::{Guarded, Rows, gpu, kernels, normal, run};
use crate::rows::judged;
use wgpu_attention::reference::layer::Bounded;
use wgpu_attention::reference::layer::backward::embed_backward;
use wgpu_attention::{Combine, EmbedGradients, EmbedShape, Kernels, RowStrides};

use wgpu_attention::ElementType::{Bf16, F16, F32};

/// dtable of the kernels; what it is added to is `before`.
fn gradient(
    kernels: &Kernels,
    shape: &EmbedShape,
    gradients: &EmbedGradients,
    ids: &[u32],
    dout: &[f64],
    before: &[f64],
) -> Result<Vec<f64>, String> {
    let add = gradients.combine == Combine::AddInto;
    let none = vec![f64::NAN; shape.len_table()];
    let dtable = Guarded::new(if add { before } else { &none }, F32);
    let strides =
        RowStrides::new(0, gradients.dout_row.unwrap_or(shape.width) as isize).offset(gradients.dout_at);
    let lies = Rows { strides, batch: 1, rows: shape.rows, width: shape.width };
    let (ids, dout) = (Guarded::integers(ids), Guarded::new(&lies.spread(dout), gradients.dout));
    let plan = kernels.embed(shape).and_then(|plan| plan.backward_with(*gradients));
    let call = plan.and_then(|plan| plan.bind(ids.binding(), dout.binding(), dtable.binding()));
    let rows = Rows::contiguous(shape.table_rows, shape.width);
    run(&[&call.map_err(|e| e.to_string())?], &dtable, rows, F32)
}

/// Whole numbers: each element of dout has one of its own, and is found in its id's row and column.
fn gathered(kernels: &Kernels, shape: &EmbedShape, gradients: &EmbedGradients, ids: &[u32]) -> Checked {
    let width = shape.width;
    let dout: Vec<f64> = (0..shape.len_out()).map(|n| (n / width * 3 % 127 + n % width) as f64).collect();
    let before: Vec<f64> = (0..shape.len_table()).map(|n| (n % 5) as f64).collect();
    let got = gradient(kernels, shape, gradients, ids, &dout, &before)?;
    let mut want = if gradients.combine == Combine::AddInto { before } else { vec![0.0; shape.len_table()] };
    for (row, &id) in ids.iter().enumerate() {
        if (id as usize) < shape.table_rows && Some(id) != gradients.padding {
            (0..width).for_each(|c| want[id as usize * width + c] += dout[row * width + c]);
        }
    }
    match (0..want.len()).find(|&n| got[n] != want[n]) {
        Some(n) => Err(format!(
            "row {}, column {}: {} instead of {}, {shape:?}, {gradients:?}",
            n / width,
            n % width,
            got[n],
            want[n]
        )),
        None => Ok(()),
    }
}

/// Ids of many kinds: one alone, all alike, runs that end at a block's end or beside it, past the table.
fn kinds_of_ids(rows: usize, table_rows: usize) -> [Vec<u32>; 5] {
    let ids = |of: &dyn Fn(u32) -> u32| (0..rows as u32).map(of).collect();
    let last = table_rows as u32 - 1;
    [
        ids(&|_| last),
        ids(&|n| n * 7 % (last + 1)),
        // Of 64 each, in the order of the ids and against it.
        ids(&|n| (n / 64) % (last + 1)),
        ids(&|n| last - (n / 65) % (last + 1)),
        // Past the table, in few and in all bits.
        ids(&|n| if n % 3 == 0 { u32::MAX - n % 2 } else { n % (last + 3) }),
    ]
}

/// A selection for the mutants.
pub(crate) fn selection(kernels: &Kernels) -> Checked {
    for (rows, width) in [(1, 4), (63, 5), (130, 4), (333, 72)] {
        let shape = EmbedShape::new(rows, 9, width);
        let gradients = EmbedGradients::of(&shape);
        for ids in kinds_of_ids(rows, 9) {
            gathered(kernels, &shape, &gradients, &ids)?;
        }
        let [same, mixed, ..] = kinds_of_ids(rows, 9);
        gathered(kernels, &shape, &gradients.combine(Combine::AddInto), &mixed)?;
        gathered(kernels, &shape, &gradients.padding(Some(2)), &mixed)?;
        gathered(kernels, &shape, &gradients.padding(Some(8)), &same)?;
        gathered(kernels, &shape, &gradients.dout_at(width + 3).dout_row(Some(2 * width)), &mixed)?;
    }
    Ok(())
}

#[test]
fn the_selection_passes() {
    selection(kernels()).unwrap();
}

#[test]
fn long_runs_and_every_type_are_within_the_bound() {
    for (rows, width, dout) in [(9000, 6, F32), (500, 12, F16), (500, 7, Bf16)] {
        let shape = EmbedShape::new(rows, 11, width);
        let gradients = EmbedGradients::of(&shape).dout(dout);
        let values = normal(14, 0, shape.len_out(), dout);
        for ids in kinds_of_ids(rows, 11) {
            let got = gradient(kernels(), &shape, &gradients, &ids, &values, &[]).unwrap();
            let want = embed_backward(&shape, &ids, &Bounded::exact(&values), None, None).unwrap();
            judged(want.compare(got, 0.0), &(shape, gradients)).unwrap();
        }
    }
}

#[test]
fn bad_input_is_named_and_nothing_is_no_error() {
    let shape = EmbedShape::new(4, 3, 2);
    let plan = kernels().embed(&shape).unwrap();
    let refused = |gradients| plan.backward_with(gradients).unwrap_err().to_string();
    let gradients = EmbedGradients::of(&shape);
    assert!(
        refused(gradients.padding(Some(3))).starts_with("padding: need a row of the table, below 3, got 3")
    );
    assert!(refused(gradients.combine(Combine::Add)).starts_with("combine: need Store or AddInto"));
    let (ids, dout) = (Guarded::integers(&[0, 1, 2, 0]), Guarded::new(&[0.0; 8], F32));
    let [dtable, few] = [6, 4].map(|len| Guarded::new(&vec![0.0; len], F32));
    let backward = plan.backward().unwrap();
    assert!(backward.bind(ids.binding(), dout.binding(), dtable.binding()).is_ok());
    let message = |ids, dout, dtable| backward.bind(ids, dout, dtable).unwrap_err().to_string();
    assert!(message(ids.binding(), few.binding(), dtable.binding()).starts_with("dout: need 32 bytes"));
    assert!(message(ids.binding(), dout.binding(), few.binding()).starts_with("dtable: need 24 bytes"));
    assert!(
        message(ids.binding(), dout.binding(), dout.binding()).starts_with("dtable: need a buffer other")
    );
    // No rows: all of the table's gradient is 0.
    let none = gpu().embed_backward::<f32>(&EmbedShape::new(0, 3, 2), &[], &[], None).unwrap();
    assert_eq!(none, [0.0; 6]);
    let got =
        gpu().embed_backward(&shape, &[0, 1, 7, 0], &[1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0], Some(1));
    assert_eq!(got.unwrap(), [8.0, 10.0, 0.0, 0.0, 0.0, 0.0]);
}
