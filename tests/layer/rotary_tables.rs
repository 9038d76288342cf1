//! Tables of a rotary embedding, made on the device.

use crate::Checked;
use crate::harness::{Guarded, Rows, kernels, run};
use wgpu_attention::reference::layer::rotary_tables;
use wgpu_attention::{ElementType, Error, Kernels, RotaryAngles, RotaryScaling, RotaryTablesBuffers, Yarn};

use ElementType::F32;

/// The worst error / bound.
fn bound(kernels: &Kernels, angles: &RotaryAngles, first: usize, len: usize) -> Result<f64, String> {
    let half = angles.dim / 2;
    let empty = vec![f64::NAN; len * half];
    let tables = [Guarded::new(&empty, F32), Guarded::new(&empty, F32)];
    let buffers = RotaryTablesBuffers::new(tables[0].binding(), tables[1].binding());
    let call = kernels.rotary_tables(angles).and_then(|plan| plan.bind(first, len, buffers));
    let call = call.map_err(|e| e.to_string())?;
    let expected = rotary_tables(angles, first, len).map_err(|e| e.to_string())?;
    let mut worst = 0f64;
    for (table, expected) in tables.iter().zip(expected) {
        let got = run(&[&call], table, Rows::contiguous(len, half), F32)?;
        let found = expected.compare(got, 0.0);
        if !found.pass {
            return Err(format!("{found}\n{angles:?}, {len} positions from {first}"));
        }
        worst = worst.max(found.worst.map_or(0.0, |worst| worst.ratio));
    }
    Ok(worst)
}

/// A selection for the mutants.
pub(crate) fn selection(kernels: &Kernels) -> Checked {
    let yarn = RotaryScaling::Yarn(Yarn::new(40.0, 4096));
    let angles = RotaryAngles::new(64, 1e4).scaling(yarn);
    bound(kernels, &angles, 0, 100)?;
    bound(kernels, &angles, 1_000_000, 100)?;
    bound(kernels, &RotaryAngles::new(6, 100.0), 0xffff_0000, 0x800).map(|_| ())
}

#[test]
fn every_scaling_is_within_the_bound_at_every_position() {
    let llama3 = RotaryScaling::Llama3 {
        factor: 8.0,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_len: 8192,
    };
    let mut worst = 0f64;
    for (dim, base, scaling) in [
        (2, 1e4, RotaryScaling::None),
        (128, 1e4, RotaryScaling::Linear { factor: 4.0 }),
        (80, 1e4, RotaryScaling::Ntk { factor: 8.0 }),
        (64, 1e4, RotaryScaling::Dynamic { factor: 2.0, original_len: 4096, len: 9000 }),
        (128, 1e6, RotaryScaling::Yarn(Yarn::new(4.0, 32768))),
        (128, 5e5, llama3),
    ] {
        let angles = RotaryAngles::new(dim, base).scaling(scaling);
        for first in [0, 65_500, 999_950, (1 << 24) - 50, 1 << 31, (1 << 32) - 100] {
            worst = worst.max(bound(kernels(), &angles, first, 100).unwrap());
        }
    }
    assert!(worst > 0.1, "the bound is {} times the error", 1.0 / worst);
    println!("worst error / bound {worst:.3}");
}

#[test]
fn quarters_and_eighths_of_a_turn() {
    // One pair of frequency 1: angles everywhere.
    let worst = bound(kernels(), &RotaryAngles::new(2, 1e4), 0, 200_000).unwrap();
    println!("worst error / bound {worst:.3}");
    selection(kernels()).unwrap();
}

#[test]
fn what_does_not_fit_is_refused() {
    let plan = kernels().rotary_tables(&RotaryAngles::new(8, 1e4)).unwrap();
    assert_eq!(plan.angles().dim, 8);
    let [cos, sin, small] = [40, 40, 36].map(|len| Guarded::new(&vec![0.0; len], F32));
    let buffers = || RotaryTablesBuffers::new(cos.binding(), sin.binding());
    plan.bind(0, 10, buffers()).unwrap();
    plan.bind((1 << 32) - 10, 10, buffers()).unwrap();
    plan.bind((1 << 32) - 9, 0, buffers()).unwrap();
    for (first, buffers, words) in [
        ((1 << 32) - 9, buffers(), "first: need positions below 4294967296, got 4294967287 and 10 more"),
        (0, buffers().cos(small.binding()), "cos: need 160 bytes"),
        (0, buffers().sin(small.binding()), "sin: need 160 bytes"),
        (0, buffers().sin(cos.binding()), "sin: need bytes apart from those of cos"),
    ] {
        let error = plan.bind(first, 10, buffers).expect_err(words);
        assert!(matches!(error, Error::Argument { .. }) && error.to_string().contains(words), "{error}");
    }
    let error = kernels().rotary_tables(&RotaryAngles::new(7, 1e4)).unwrap_err().to_string();
    assert!(error.contains("dim: need an even number"), "{error}");
}
