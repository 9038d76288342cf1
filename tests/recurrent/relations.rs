//! Calls that must give the same bits.

use super::{Call, Checked, both, shape};
use wgpu_attention::{Gpu, RecurrentCell, RecurrentShape};

/// Rows of `width` elements, `[outer, inner]`, as `[inner, outer]`.
fn swapped(data: &[f32], [outer, inner]: [usize; 2], width: usize) -> Vec<f32> {
    let row = |n: usize| data[(n % outer * inner + n / outer) * width..][..width].iter().copied();
    (0..outer * inner).flat_map(row).collect()
}

/// Each item's positions in turn from the last to the first.
fn reversed(data: &[f32], steps: usize, width: usize) -> Vec<f32> {
    data.chunks(steps * width).flat_map(|item| item.chunks(width).rev().flatten().copied()).collect()
}

/// `count` columns of rows of `width`, from `first` on.
fn columns(data: &[f32], width: usize, first: usize, count: usize) -> Vec<f32> {
    data.chunks(width).flat_map(|row| row[first..first + count].iter().copied()).collect()
}

fn equal(what: &str, a: &[f32], b: &[f32]) -> Checked {
    let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    if bits(a) == bits(b) { Ok(()) } else { Err(format!("{what} differ:\n{a:?}\n{b:?}")) }
}

/// The second direction is the first one of the reversed sequence, with its own weights and states.
pub(super) fn directions(gpu: &Gpu) -> Checked {
    for cell in RecurrentCell::ALL {
        let both = Call::<f32>::new(shape(cell).bidirectional(true).initial(true), 1.0, 3);
        let (shape, half) = (both.shape, both.h0.len() / 2);
        let got = both.run_on(gpu)?;
        for direction in 0..2 {
            let mut one = both.clone();
            one.shape = shape.bidirectional(false);
            one.parts = vec![both.parts[direction].clone()];
            one.h0 = both.h0[direction * half..][..half].to_vec();
            if cell.has_c() {
                one.c0 = both.c0[direction * half..][..half].to_vec();
            }
            if direction == 1 {
                one.x = reversed(&both.x, shape.steps, shape.input);
            }
            let alone = one.run_on(gpu)?;
            let mut out = columns(&got.out, shape.width(), direction * shape.hidden, shape.hidden);
            if direction == 1 {
                out = reversed(&out, shape.steps, shape.hidden);
            }
            equal("directions", &out, &alone.out)?;
            equal("last states", &got.h_n[direction * half..][..half], &alone.h_n)?;
        }
    }
    Ok(())
}

/// A layer over the out of the one before.
pub(super) fn layers(gpu: &Gpu) -> Checked {
    for cell in RecurrentCell::ALL {
        let stack = Call::<f32>::new(shape(cell).layers(3).bidirectional(true).initial(true), 1.0, 4);
        let (shape, each) = (stack.shape, stack.h0.len() / 3);
        let got = stack.run_on(gpu)?;
        let mut x = stack.x.clone();
        for layer in 0..3 {
            let mut one = stack.clone();
            one.shape = shape.input(shape.input_of(layer)).layers(1);
            one.parts = stack.parts[2 * layer..][..2].to_vec();
            one.h0 = stack.h0[layer * each..][..each].to_vec();
            if cell.has_c() {
                one.c0 = stack.c0[layer * each..][..each].to_vec();
            }
            one.x = x;
            let alone = one.run_on(gpu)?;
            equal("last states", &got.h_n[layer * each..][..each], &alone.h_n)?;
            x = alone.out;
        }
        equal("layers", &got.out, &x)?;
    }
    Ok(())
}

#[test]
fn directions_are_calls_of_their_own() {
    both().iter().try_for_each(directions).unwrap();
}

#[test]
fn layers_are_calls_of_their_own() {
    both().iter().try_for_each(layers).unwrap();
}

/// The rest of a sequence, from where the first part ended.
#[test]
fn a_sequence_goes_on_where_it_ended() {
    for gpu in both() {
        for cell in RecurrentCell::ALL {
            let whole = Call::<f32>::new(shape(cell).steps_first(true).initial(true), 1.0, 5);
            let (shape, cut) = (whole.shape, 2);
            let got = whole.run_on(&gpu).unwrap();
            let (first, rest) = whole.x.split_at(cut * shape.batch * shape.input);
            let begin = Call { shape: shape.steps(cut), x: first.to_vec(), ..whole.clone() };
            let begun = begin.run_on(&gpu).unwrap();
            let end = Call {
                shape: shape.steps(shape.steps - cut),
                x: rest.to_vec(),
                h0: begun.h_n.clone(),
                c0: begun.c_n.clone().unwrap_or_default(),
                ..whole.clone()
            };
            let ended = end.run_on(&gpu).unwrap();
            equal("halves", &got.out, &[begun.out, ended.out].concat()).unwrap();
            equal("last states", &got.h_n, &ended.h_n).unwrap();
            assert_eq!(got.c_n, ended.c_n);
        }
    }
}

#[test]
fn layouts_and_blocks_change_nothing() {
    for gpu in both() {
        for cell in RecurrentCell::ALL {
            let call = Call::<f32>::new(shape(cell).layers(2).bidirectional(true).initial(true), 1.0, 6);
            let got = call.run_on(&gpu).unwrap();
            let sizes = [call.shape.batch, call.shape.steps];
            for block in [None, Some(1), Some(3), Some(99)] {
                let mut other = call.clone();
                other.shape = call.shape.block(block);
                assert_eq!(other.run_on(&gpu).unwrap(), got, "blocks of {block:?}");
                other.shape = other.shape.steps_first(true);
                other.x = swapped(&call.x, sizes, call.shape.input);
                let out = other.run_on(&gpu).unwrap();
                equal("layouts", &out.out, &swapped(&got.out, sizes, call.shape.width())).unwrap();
                assert_eq!((out.h_n, out.c_n), (got.h_n.clone(), got.c_n.clone()));
            }
        }
    }
}

#[test]
fn repeats_are_equal_bit_for_bit() {
    let call = Call::<f32>::new(RecurrentShape::new(RecurrentCell::Lstm, 5, 20, 9, 33), 1.0, 7);
    let first = call.run();
    assert!((0..3).all(|_| call.run() == first));
}

/// What is not finite shows from its position on, in its item, and nowhere else.
pub(super) fn strange(gpu: &Gpu) -> Checked {
    for cell in RecurrentCell::ALL {
        let mut call = Call::<f32>::new(shape(cell), 1.0, 8);
        let (shape, width) = (call.shape, call.shape.width());
        let before = call.run_on(gpu)?;
        let (item, position) = (1, 2);
        let first = item * shape.steps + position;
        call.x[first * shape.input + 3] = f32::NAN;
        let after = call.run_on(gpu)?;
        for (row, (before, after)) in before.out.chunks(width).zip(after.out.chunks(width)).enumerate() {
            let met = row >= first && row < (item + 1) * shape.steps;
            if met && !after.iter().all(|x| x.is_nan()) {
                return Err(format!("row {row} does not show it: {after:?}, {cell}"));
            }
            if !met {
                equal("rows that have nothing to do with it", before, after)?;
            }
        }
    }
    // An infinity saturates what it meets, and is no NaN.
    let mut call = Call::<f32>::new(shape(RecurrentCell::Lstm), 1.0, 8);
    call.x[3] = f32::INFINITY;
    call.check_on(gpu).map(drop)
}

#[test]
fn what_is_not_finite_shows_where_it_is_met() {
    both().iter().try_for_each(strange).unwrap();
}
