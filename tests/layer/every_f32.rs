//! Activations of every kind of f32, judged by formulas written here: libm's error functions and exponentials in f64.

use crate::Checked;
use crate::harness::{Guarded, Rows, kernels, run};
use wgpu_attention::wgsl::MatmulTile;
use wgpu_attention::{Activation, ElementType, Kernels, MatmulBuffers, MatmulShape};

use ElementType::{Bf16, F16, F32};

/// The activation of each of x, by a product with 1.
fn activated(
    kernels: &Kernels,
    activation: Activation,
    x: &[f64],
    output: ElementType,
) -> Result<Vec<f64>, String> {
    applied(kernels, activation, &Guarded::new(x, F32), x.len(), output)
}

fn applied(
    kernels: &Kernels,
    activation: Activation,
    a: &Guarded,
    len: usize,
    output: ElementType,
) -> Result<Vec<f64>, String> {
    let shape = MatmulShape::new(len, 1, 1).activation(activation).output(output);
    let rows = Rows::contiguous(len, 1);
    let b = Guarded::new(&[1.0], F32);
    // A number, so that a NaN that is read back was written.
    let out = Guarded::new(&vec![-7.5; len], output);
    let plan = kernels.matmul_with_tile(&shape, MatmulTile::SMALL).map_err(|e| e.to_string())?;
    let buffers = MatmulBuffers::new(a.binding(), b.binding(), out.binding());
    run(&[&plan.bind(buffers).map_err(|e| e.to_string())?], &out, rows, output)
}

/// The function, with relative precision on both sides of 0.
fn truth(activation: Activation, x: f64) -> f64 {
    let logistic = |s: f64| if s >= 0.0 { 1.0 / (1.0 + (-s).exp()) } else { s.exp() / (1.0 + s.exp()) };
    match activation {
        Activation::Relu => {
            if x > 0.0 {
                x
            } else {
                0.0
            }
        }
        Activation::GeluErf => 0.5 * x * libm::erfc(-x * std::f64::consts::FRAC_1_SQRT_2),
        Activation::GeluTanh => {
            x * logistic((8.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3)))
        }
        Activation::Silu => x * logistic(x),
        Activation::Tanh => x.tanh(),
        Activation::QuickGelu => x * logistic(1.702 * x),
        Activation::Mish => x * x.exp().ln_1p().tanh(),
    }
}

/// Units in the last place that the result may be off, and where: GELU by tanh and the quick one lose what their exponents, up to 88, lose.
fn units(activation: Activation, x: f64) -> f64 {
    match activation {
        Activation::Relu => 0.0,
        Activation::GeluErf | Activation::Silu | Activation::Tanh | Activation::Mish => 16.0,
        Activation::QuickGelu => 16.0 + if x < 0.0 { 2.0 * 88.0 } else { 0.0 },
        Activation::GeluTanh => 16.0 + if x < 0.0 { 5.0 * 88.0 } else { 0.0 },
    }
}

/// Every exponent with mantissas of all sizes, and densely where the functions bend.
fn sweep() -> Vec<f64> {
    let mut x: Vec<f32> = vec![];
    for exponent in 1..255u32 {
        for n in 0..8 {
            x.push(f32::from_bits(exponent << 23 | (n * 0x12_3457) & 0x7f_ffff));
        }
    }
    x.extend((0..30_000).map(|n| n as f32 * 0.0037));
    x.extend((0..4_000).map(|n| n as f32 * 0.00311 + 1e-3));
    x.extend([f32::MAX, f32::MIN_POSITIVE]);
    x.iter().flat_map(|&x| [f64::from(x), -f64::from(x)]).collect()
}

/// Every activation of the sweep, within `units`; below the smallest normal number, 0 will do.
fn values(kernels: &Kernels) -> Checked {
    let x = sweep();
    for activation in Activation::ALL {
        let got = activated(kernels, activation, &x, F32)?;
        let mut worst = (0.0, 0.0);
        for (&x, &got) in x.iter().zip(&got) {
            let want = truth(activation, x);
            if want.abs() < 1.0001 * f64::from(f32::MIN_POSITIVE) {
                if got != 0.0 && (got - want).abs() > 1e-43 {
                    return Err(format!("{activation}({x:e}) = {got:e} instead of {want:e} or 0"));
                }
                continue;
            }
            let off = (got - want).abs() / (want.abs() * f64::from(f32::EPSILON));
            if off.is_nan() || off > units(activation, x) {
                return Err(format!("{activation}({x:e}) = {got:e} instead of {want:e}: {off:.1} units"));
            }
            if off > worst.0 {
                worst = (off, x);
            }
        }
        println!("{activation}: worst {:.2} units, at {:e}", worst.0, worst.1);
    }
    Ok(())
}

/// NaN stays NaN, infinities give the limits, in every output type.
fn no_numbers(kernels: &Kernels) -> Checked {
    // Lone NaNs and whole groups; the harness has NaN stand for poison, which is one in every type.
    let x =
        [f64::NAN, 1.0, f64::INFINITY, f64::NEG_INFINITY, -1.0, f64::NAN, f64::NAN, f64::NAN, f64::NAN, 0.0];
    // NaNs of either sign, quiet and signalling, with all bits and with one.
    let nans = [0x7fff_ffff, 0xffff_ffff, 0x7fc0_0000, 0xffc0_0000, 0x7f80_0001, 0xff80_0001, 0x7fbf_ffff];
    for output in [F32, F16, Bf16] {
        for activation in Activation::ALL {
            let got = applied(kernels, activation, &Guarded::integers(&nans), nans.len(), output)?;
            if !got.iter().all(|y| y.is_nan()) {
                return Err(format!("{activation} of NaNs in {output}: {got:?}"));
            }
            for (&x, got) in x.iter().zip(activated(kernels, activation, &x, output)?) {
                let right = match x {
                    x if x.is_nan() => got.is_nan(),
                    f64::INFINITY if activation == Activation::Tanh => got == 1.0,
                    f64::INFINITY => got == f64::INFINITY,
                    f64::NEG_INFINITY if activation == Activation::Tanh => got == -1.0,
                    f64::NEG_INFINITY => got == 0.0,
                    x => (got - truth(activation, x)).abs() < 0.01,
                };
                if !right {
                    return Err(format!("{activation}({x}) = {got} in {output}"));
                }
            }
        }
    }
    Ok(())
}

/// A selection for the mutants.
pub(crate) fn selection(kernels: &Kernels) -> Checked {
    values(kernels)?;
    no_numbers(kernels)
}

#[test]
fn activations_are_right_for_every_f32() {
    values(kernels()).unwrap();
}

#[test]
fn activations_pass_on_what_is_no_number() {
    no_numbers(kernels()).unwrap();
}
