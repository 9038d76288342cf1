//! States that are known exactly.

use super::{Call, Checked, both};
use wgpu_attention::{Counter, Gpu, RecurrentCell, RecurrentShape};

/// Whole numbers below 2^24: a ReLU network computes them exactly, whatever the order of its sums.
fn whole(shape: RecurrentShape, seed: u64) -> Call {
    let mut call = Call::<f32>::new(shape, 1.0, seed);
    let small = |tensor: &mut Vec<f32>, stream: u64, values: u64| {
        let draw = Counter::new(seed, stream);
        let value = |n: usize| draw.below(n as u64, values) as f32 - (values / 2) as f32;
        tensor.iter_mut().enumerate().for_each(|(n, x)| *x = value(n));
    };
    small(&mut call.x, 20, 5);
    small(&mut call.h0, 21, 5);
    for (number, part) in call.parts.iter_mut().enumerate() {
        let stream = 30 + 4 * number as u64;
        small(&mut part.weight_ih, stream, 3);
        small(&mut part.bias_ih, stream + 1, 5);
        small(&mut part.bias_hh, stream + 2, 5);
        // One unit of the step before for each unit, so that states stay small: the next one, or less the one after.
        let hidden = shape.hidden;
        part.weight_hh.fill(0.0);
        for unit in 0..hidden {
            part.weight_hh[unit * hidden + (unit * 3 + 1) % hidden] = 1.0;
            part.weight_hh[unit * hidden + (unit + 2) % hidden] -= 1.0;
        }
    }
    call
}

/// The same network in whole numbers: out and h_n.
fn counted(call: &Call) -> [Vec<f32>; 2] {
    let shape = &call.shape;
    let (batch, steps, hidden) = (shape.batch, shape.steps, shape.hidden);
    let at = |item: usize, position: usize| {
        if shape.steps_first { position * batch + item } else { item * steps + position }
    };
    let (mut x, mut h_n) = (call.x.clone(), vec![]);
    for layer in 0..shape.layers {
        let (input, mut out) = (shape.input_of(layer), vec![0.0; shape.len_out()]);
        for direction in 0..shape.directions() {
            let number = layer * shape.directions() + direction;
            let part = &call.parts[number];
            for item in 0..batch {
                let mut h = vec![0.0; hidden];
                if shape.initial {
                    h.copy_from_slice(&call.h0[(number * batch + item) * hidden..][..hidden]);
                }
                for step in 0..steps {
                    let row = at(item, if direction == 0 { step } else { steps - 1 - step });
                    let unit = |unit: usize| {
                        let dot = |w: &[f32], x: &[f32]| w.iter().zip(x).map(|(w, x)| w * x).sum::<f32>();
                        let of_x = dot(&part.weight_ih[unit * input..][..input], &x[row * input..][..input]);
                        let of_h = dot(&part.weight_hh[unit * hidden..][..hidden], &h);
                        let bias = if shape.bias { part.bias_ih[unit] + part.bias_hh[unit] } else { 0.0 };
                        (of_x + of_h + bias).max(0.0)
                    };
                    h = (0..hidden).map(unit).collect();
                    out[row * shape.width() + direction * hidden..][..hidden].copy_from_slice(&h);
                }
                h_n.extend(h);
            }
        }
        x = out;
    }
    [x, h_n]
}

/// Every layout and option, and sizes of several tiles each way.
pub(super) fn counts(gpu: &Gpu) -> Checked {
    let small = RecurrentShape::new(RecurrentCell::RnnRelu, 11, 6, 5, 9);
    let few = RecurrentShape::new(RecurrentCell::RnnRelu, 3, 4, 5, 21);
    let wide = RecurrentShape::new(RecurrentCell::RnnRelu, 19, 4, 8, 148);
    for (n, shape) in [
        small,
        small.initial(true).bias(false).steps_first(true),
        small.layers(3).bidirectional(true).initial(true),
        small.block(Some(4)).bidirectional(true),
        small.block(Some(4)).steps_first(true).layers(2),
        few.initial(true),
        wide.initial(true),
        wide.bidirectional(true).steps_first(true).block(Some(3)),
    ]
    .into_iter()
    .enumerate()
    {
        let call = whole(shape, n as u64);
        let got = call.run_on(gpu)?;
        let [out, h_n] = counted(&call);
        assert!(out.iter().all(|x| x.abs() < 16_777_216.0), "whole numbers that f32 holds");
        for (name, got, want) in [("out", &got.out, &out), ("h_n", &got.h_n, &h_n)] {
            if let Some(at) = (0..want.len()).find(|&n| got[n] != want[n]) {
                return Err(format!("{name}[{at}]: {} instead of {}, {shape:?}", got[at], want[at]));
            }
        }
    }
    Ok(())
}

/// A gate of each unit by its bias: 40 is open, -40 shut.
fn gates(call: &mut Call, values: &[f32]) {
    let hidden = call.shape.hidden;
    for part in &mut call.parts {
        for (gate, value) in values.iter().enumerate() {
            part.bias_ih[gate * hidden..][..hidden].fill(*value / 2.0);
            part.bias_hh[gate * hidden..][..hidden].fill(*value / 2.0);
        }
    }
}

/// Of a number that has been multiplied by 1 in every step, each within 4 units in the last place.
fn is_kept(got: f32, want: f32, steps: usize) -> bool {
    (got - want).abs() <= want.abs() * 4.0 * f32::EPSILON * steps as f32 + 1e-12
}

/// Gates that are open or shut carry what they have.
pub(super) fn carried(gpu: &Gpu) -> Checked {
    // An LSTM that keeps c, and one that takes g = tanh(bias) instead, once.
    let shape = RecurrentShape::new(RecurrentCell::Lstm, 9, 50, 4, 21).initial(true).bidirectional(true);
    let mut call = Call::<f32>::new(shape, 0.1, 4);
    gates(&mut call, &[-60.0, 60.0, 1.0, 60.0]);
    let got = call.run_on(gpu)?;
    let c_n = got.c_n.ok_or("an LSTM has a c")?;
    for (n, (got, want)) in c_n.iter().zip(&call.c0).enumerate() {
        if !is_kept(*got, *want, shape.steps) {
            return Err(format!("c_n[{n}]: {got} instead of {want}"));
        }
    }
    for (n, (got, c)) in got.h_n.iter().zip(&call.c0).enumerate() {
        if !is_kept(*got, c.tanh(), 2 * shape.steps) {
            return Err(format!("h_n[{n}]: {got} instead of tanh {c}"));
        }
    }
    // A GRU that keeps h.
    let shape = RecurrentShape::new(RecurrentCell::Gru, 9, 50, 4, 21).initial(true).bidirectional(true);
    let mut call = Call::<f32>::new(shape, 0.1, 4);
    gates(&mut call, &[0.0, 60.0, 1.0]);
    let got = call.run_on(gpu)?;
    let wrong = got.h_n.iter().zip(&call.h0).position(|(got, want)| !is_kept(*got, *want, shape.steps));
    wrong.map_or(Ok(()), |n| Err(format!("h_n[{n}]: {} instead of {}", got.h_n[n], call.h0[n])))
}

#[test]
fn whole_numbers_are_exact() {
    for gpu in both() {
        counts(&gpu).unwrap();
    }
}

#[test]
fn open_gates_carry_their_values_and_shut_ones_let_nothing_in() {
    for gpu in both() {
        carried(&gpu).unwrap();
    }
}
