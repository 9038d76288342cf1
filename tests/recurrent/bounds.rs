//! Within the bound of `reference/recurrent/`.

use super::{Call, Checked, both, shape};
use half::{bf16, f16};
use wgpu_attention::{Element, Gpu, RecurrentCell, RecurrentShape};

/// What mutants are looked for with: every cell with all it may have, and with none of it, on both sides of a multiple of 4.
pub(super) fn selection(gpu: &Gpu) -> Checked {
    for cell in RecurrentCell::ALL {
        let full = shape(cell).initial(true).layers(2).bidirectional(true);
        let bare = RecurrentShape::new(cell, 17, 6, 4, 20).bias(false);
        Call::<f32>::new(full, 1.0, 5).check_on(gpu)?;
        Call::<f32>::new(bare, 2.0, 6).steps_on(gpu)?;
        Call::<f32>::new(bare.initial(true).bidirectional(true).steps_first(true).bias(true), 2.0, 7)
            .steps_on(gpu)?;
    }
    Ok(())
}

#[test]
fn every_cell_is_within_its_bound() {
    for gpu in both() {
        selection(&gpu).unwrap();
    }
}

#[test]
fn sizes() {
    let mut worst = 0f64;
    for gpu in both() {
        for (batch, steps, input, hidden) in [
            (1, 1, 1, 1),
            (1, 9, 3, 4),
            (2, 4, 130, 3),
            (16, 3, 8, 64),
            (17, 2, 5, 65),
            (1, 3, 16, 257),
            (33, 2, 1, 7),
            (8, 3, 12, 160),
        ] {
            for cell in RecurrentCell::ALL {
                let shape = RecurrentShape::new(cell, batch, steps, input, hidden);
                worst = worst.max(Call::<f32>::new(shape, 1.0, 3).steps_on(&gpu).unwrap());
                worst = worst.max(Call::<f32>::new(shape.initial(true), 1.0, 4).check_on(&gpu).unwrap());
            }
        }
    }
    println!("worst error/bound: {worst:.3}");
}

/// Gates from open to shut, weights from nothing to a hundred times PyTorch's.
#[test]
fn weights_of_any_size() {
    let mut worst = [0f64; 2];
    for gpu in both() {
        for cell in RecurrentCell::ALL {
            for size in [0.0, 1e-6, 1.0, 10.0, 100.0] {
                let call = Call::<f32>::new(RecurrentShape::new(cell, 8, 12, 8, 24).initial(true), size, 8);
                worst[0] = worst[0].max(call.steps_on(&gpu).unwrap());
                if size <= 1.0 || cell != RecurrentCell::RnnRelu {
                    worst[1] = worst[1].max(call.check_on(&gpu).unwrap());
                }
            }
        }
    }
    println!("worst error/bound of a step {:.3}, of all {:.3}", worst[0], worst[1]);
}

#[test]
fn long_sequences_step_by_step() {
    let mut worst = 0f64;
    for cell in RecurrentCell::ALL {
        let shape = RecurrentShape::new(cell, 9, 1000, 6, 12).bidirectional(true);
        let [staged, direct] = both();
        worst = worst.max(Call::<f32>::new(shape, 1.0, 9).steps_on(&staged).unwrap());
        worst = worst.max(Call::<f32>::new(shape.block(Some(96)), 1.0, 9).steps_on(&direct).unwrap());
    }
    println!("worst error/bound of a step: {worst:.3}");
}

#[test]
fn weights_in_sixteen_bits() {
    fn of<W: Element>() {
        for gpu in both() {
            for cell in RecurrentCell::ALL {
                for hidden in [10, 20] {
                    let shape = RecurrentShape::new(cell, 8, 5, 8, hidden).layers(2).initial(true);
                    Call::<W>::new(shape, 1.0, 2).check_on(&gpu).unwrap();
                }
            }
        }
    }
    of::<f16>();
    of::<bf16>();
}
