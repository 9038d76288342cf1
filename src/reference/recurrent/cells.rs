//! The cells, and what the kernels' way to compute them adds (`shaders/recurrent/`).

use crate::Activation;
use crate::recurrent::RecurrentCell;
use crate::reference::layer::activation;
use crate::reference::layer::running::Running;
use crate::reference::rounding::{E, U};

/// h and c after a step, of the gates' input products and own products, and of h and c before it.
pub(super) fn next(
    cell: RecurrentCell,
    inputs: &[Running],
    own: &[Running],
    h: Running,
    c: Running,
) -> (Running, Running) {
    let gate = |n: usize| sum(inputs[n], own[n]);
    match cell {
        RecurrentCell::RnnTanh => (tanh(gate(0)), c),
        RecurrentCell::RnnRelu => (relu(gate(0)), c),
        RecurrentCell::Lstm => {
            let c = sigmoid(gate(1)) * c + sigmoid(gate(0)) * tanh(gate(2));
            (sigmoid(gate(3)) * tanh(c), c)
        }
        RecurrentCell::Gru => {
            let z = sigmoid(gate(1));
            let n = tanh(sum(inputs[2], sigmoid(gate(0)) * own[2]));
            let rest = Running::exact(1.0) + Running { value: -z.value, ..z };
            (rest * n + z * h, c)
        }
    }
}

/// An infinite input product stays what it is, whatever is added that is finite.
fn sum(input: Running, own: Running) -> Running {
    let is_known = input.value.is_infinite() && input.error == 0.0;
    if is_known && own.value.is_finite() && own.error.is_finite() { input } else { input + own }
}

fn relu(x: Running) -> Running {
    let (value, error) = activation::of(Activation::Relu, x.value, x.error);
    Running { value, error }
}

fn tanh(x: Running) -> Running {
    let (value, own) = activation::of(Activation::Tanh, x.value, 0.0);
    function(x, value, own, |x| Activation::Tanh.slope(x))
}

fn sigmoid(x: Running) -> Running {
    function(x, logistic(x.value), sigmoid_error(x.value), |x| logistic(x) * logistic(-x))
}

/// A function whose slope falls from 0 on to both sides, and whose values are 2 apart at most: its value, how far its evaluation is from that, and what
/// an error of x brings, by the mean value theorem. Two numbers of x's error apart, the evaluation's own error differs by less than 2^-16 of that.
fn function(x: Running, value: f64, own: f64, slope: impl Fn(f64) -> f64) -> Running {
    if x.value.is_nan() {
        return x;
    }
    if x.error == f64::INFINITY {
        // It may be NaN.
        return Running { value, error: f64::INFINITY };
    }
    let steepest = slope((x.value.abs() - x.error).max(0.0));
    Running { value, error: (x.error * steepest).min(2.0) + own + x.error.min(2.0) * 2f64.powi(-16) }
}

fn logistic(x: f64) -> f64 {
    // The small tail itself.
    if x < 0.0 { x.exp() / (1.0 + x.exp()) } else { 1.0 / (1.0 + (-x).exp()) }
}

/// z = exp(-min(|x|, 80)) is off by (3 + 2 |x|) ULP of itself. 1 / (1 + z) passes on z / (1 + z) of a relative error, z / (1 + z) 1 / (1 + z) of it; a
/// sum and a quotient (2.5 ULP) come on top. Past 80 it stays what it is there.
fn sigmoid_error(x: f64) -> f64 {
    let y = x.abs().min(80.0);
    let z = (-y).exp();
    let of_z = (3.0 + 2.0 * y) * E;
    let (value, passed) = if x >= 0.0 { (1.0 / (1.0 + z), of_z * z) } else { (z / (1.0 + z), of_z) };
    let stopped = if x.abs() > 80.0 { z } else { 0.0 };
    1.01 * value * (passed + 2.5 * E + U) + stopped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_stay_within_what_an_error_of_x_brings() {
        for f in [tanh, sigmoid] {
            for n in -400..=400 {
                for error in [0.0, 1e-6, 0.01, 0.5, 3.0] {
                    let x = f64::from(n) * 0.05;
                    let y = f(Running { value: x, error });
                    for moved in [x - error, x + error, x + 0.3 * error] {
                        let there = f(Running { value: moved, error: 0.0 });
                        let apart = (there.value - y.value).abs();
                        assert!(apart <= y.error, "at {x} with {error}: {apart:e} > {:e}", y.error);
                    }
                }
            }
        }
    }

    #[test]
    fn saturated_gates_pass_nothing_on() {
        let far = |value| Running { value, error: 1e-3 };
        assert!(sigmoid(far(40.0)).error < 1e-6 && tanh(far(-20.0)).error < 1e-6);
        assert!(sigmoid(far(-200.0)).error < 1e-7 && sigmoid(Running::exact(-200.0)).error < 1e-30);
        let infinite = sum(Running::exact(f32::INFINITY), far(1.0));
        assert!(sigmoid(infinite).error < 1e-6 && sigmoid(infinite).value == 1.0);
        assert_eq!(tanh(Running { value: 0.0, error: f64::INFINITY }).error, f64::INFINITY);
        assert!(sigmoid(Running::exact(f32::NAN)).value.is_nan());
    }
}
