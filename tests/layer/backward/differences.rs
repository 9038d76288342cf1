//! The reference's gradients against finite differences of the reference, in f64: no device.

use crate::harness::normal;
use wgpu_attention::reference::layer::backward::{norm_backward, softmax_backward};
use wgpu_attention::reference::layer::{self, Bounded};
use wgpu_attention::{ElementType::F32, NormKind, NormShape, RowGradients, SoftmaxShape};

/// d (sum of out dout) / d values, by central differences.
fn differences(values: &[f64], dout: &[f64], out: impl Fn(&[f64]) -> Vec<f64>) -> Vec<f64> {
    let loss = |values: &[f64]| out(values).iter().zip(dout).map(|(y, g)| y * g).sum::<f64>();
    let step = 1e-5;
    let moved = |n: usize, by: f64| {
        let mut values = values.to_vec();
        values[n] += by;
        loss(&values)
    };
    (0..values.len()).map(|n| (moved(n, step) - moved(n, -step)) / (2.0 * step)).collect()
}

fn close(name: &str, got: &Bounded, want: &[f64]) {
    for (n, (got, want)) in got.out.iter().zip(want).enumerate() {
        assert!((got - want).abs() < 1e-7 * (1.0 + want.abs()), "{name}[{n}]: {got} instead of {want}");
    }
    assert_eq!(got.out.len(), want.len(), "{name}");
}

#[test]
fn norms() {
    for kind in [NormKind::Layer, NormKind::Rms] {
        let (rows, n) = (3, 7);
        let shape = NormShape::new(kind, rows, n, 0.01).bias(true);
        let [x, dout] = [0, 1].map(|stream| normal(21, stream, rows * n, F32));
        let [weight, bias] = [2, 3].map(|stream| normal(21, stream, n, F32));
        let out = |x: &[f64], weight: &[f64], bias: &[f64]| {
            let [x, weight, bias] = [x, weight, bias].map(Bounded::exact);
            layer::norm(&shape, &x, &weight, Some(&bias)).unwrap().out
        };
        let [x_, weight_, dout_] = [&x, &weight, &dout].map(|values| Bounded::exact(values));
        let got = norm_backward(&shape, &RowGradients::of_norm(&shape), &x_, &weight_, &dout_, None).unwrap();
        close("dx", &got.dx, &differences(&x, &dout, |x| out(x, &weight, &bias)));
        close("dweight", &got.dweight, &differences(&weight, &dout, |weight| out(&x, weight, &bias)));
        close("dbias", &got.dbias, &differences(&bias, &dout, |bias| out(&x, &weight, bias)));
    }
}

#[test]
fn softmax() {
    let shape = SoftmaxShape::new(3, 7);
    let [x, dout] = [0, 1].map(|stream| normal(22, stream, 21, F32));
    let out = |x: &[f64]| layer::softmax(&shape, &Bounded::exact(x)).unwrap().out;
    let [y, dout_] = [&out(&x), &dout].map(|values| Bounded::exact(values));
    let got = softmax_backward(&shape, &RowGradients::of_softmax(&shape), &y, &dout_, None).unwrap();
    close("dx", &got, &differences(&x, &dout, out));
}
