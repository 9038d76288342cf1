//! The loss of distillation and its gradient against their bound, and against formulas of their own.

use crate::Checked;
use crate::harness::{Guarded, Rows, gpu, kernels, normal, rounded, run_all, with};
use crate::rows::strided;
use wgpu_attention::reference::layer::{self, Bounded};
use wgpu_attention::{DistillationBuffers, DistillationShape, ElementType, Kernels, LossGradient};

use ElementType::{Bf16, F16, F32};
use LossGradient::{InPlace, Stored};

/// Loss and gradient of contiguous logits, which lie as the shape says.
fn computed(
    kernels: &Kernels,
    shape: &DistillationShape,
    [x, y]: [&[f64]; 2],
) -> Result<[Vec<f64>; 2], String> {
    let (rows, width) = (shape.rows, shape.vocabulary);
    let lie = |row: Option<usize>| strided(rows, width, row.unwrap_or(width));
    let logits = Guarded::new(&lie(shape.logits_row).spread(x), shape.input);
    let teacher = Guarded::new(&lie(shape.teacher_row).spread(y), shape.teacher);
    let loss = Guarded::new(&vec![-7.5; rows], F32);
    let apart = match shape.gradient {
        Stored(element) => {
            let rows = lie(shape.gradient_row);
            Some((Guarded::new(&rows.spread(&vec![-7.5; x.len()]), element), rows, element))
        }
        _ => None,
    };
    let buffers = DistillationBuffers::new(logits.binding(), teacher.binding(), loss.binding())
        .gradient(apart.as_ref().map(|(gradient, ..)| gradient.binding()));
    let plan = kernels.distillation(shape).map_err(|e| e.to_string())?;
    let call = plan.bind(buffers).map_err(|e| e.to_string())?;
    let mut outputs = vec![(&loss, Rows::contiguous(rows, 1), F32)];
    match &apart {
        Some((gradient, rows, element)) => outputs.push((gradient, *rows, *element)),
        None if shape.gradient == InPlace => outputs.push((&logits, lie(shape.logits_row), shape.input)),
        None => {}
    }
    let mut got = run_all(&[&call], &outputs)?;
    got.resize(2, vec![]);
    Ok(got.try_into().expect("two outputs"))
}

/// Within the bound; the worst error / bound of loss and gradient.
fn judged(kernels: &Kernels, shape: &DistillationShape, [x, y]: [&[f64]; 2]) -> Result<[f64; 2], String> {
    let [loss, gradient] = computed(kernels, shape, [x, y])?;
    let expected =
        layer::distillation(shape, &Bounded::exact(x), &Bounded::exact(y)).map_err(|e| e.to_string())?;
    let mut worst = [0.0; 2];
    for (n, (expected, got)) in [(expected.loss, loss), (expected.gradient, gradient)].into_iter().enumerate()
    {
        let found = expected.compare(got, 0.0);
        if !found.pass || found.unspecified > 0 {
            return Err(format!("{}: {found}\n{shape:?}", ["loss", "gradient"][n]));
        }
        worst[n] = found.worst.map_or(0.0, |worst| worst.ratio);
    }
    Ok(worst)
}

/// Normal logits of this scale.
fn bound(kernels: &Kernels, shape: &DistillationShape, scale: f64) -> Result<[f64; 2], String> {
    let drawn = |stream, element| {
        let values = normal(31, stream, shape.rows * shape.vocabulary, F32);
        rounded(values.into_iter().map(|x| x * scale), element)
    };
    judged(kernels, shape, [&drawn(0, shape.input), &drawn(1, shape.teacher)])
}

/// T^2 sum q (ln q - ln p), term by term.
fn by_definition(x: &[f64], y: &[f64], temperature: f64) -> f64 {
    let logs = |x: &[f64]| {
        let most = x.iter().copied().fold(f64::MIN, f64::max);
        let sum = x.iter().map(|x| ((x - most) / temperature).exp()).sum::<f64>();
        x.iter().map(|x| (x - most) / temperature - sum.ln()).collect::<Vec<_>>()
    };
    let terms = logs(x).into_iter().zip(logs(y)).map(|(p, q)| q.exp() * (q - p));
    temperature * temperature * terms.sum::<f64>()
}

fn formulas(kernels: &Kernels) -> Checked {
    for (width, scale, temperature) in [(20_000, 3.0, 1.0), (300, 10.0, 2.0), (301, 1.0, 0.5), (7, 2.0, 8.0)]
    {
        let shape = DistillationShape::new(1, width, temperature).gradient(Stored(F32));
        let [x, y] =
            [0, 1].map(|n| rounded(normal(32, n, width, F32).into_iter().map(|x| 50.0 + scale * x), F32));
        let [loss, gradient] = computed(kernels, &shape, [&x, &y])?;
        let want = by_definition(&x, &y, temperature.into());
        if loss[0].is_nan() || (loss[0] - want).abs() > 4e-6 * want.max(f64::from(temperature)) {
            return Err(format!("a loss of {} instead of {want}: {shape:?}", loss[0]));
        }
        // Along the gradient the loss changes as the gradient says.
        let step = 1e-4;
        let moved = |sign: f64| {
            let x: Vec<_> = x.iter().zip(&gradient).map(|(x, g)| x + sign * step * g).collect();
            by_definition(&x, &y, temperature.into())
        };
        let (slope, size) =
            ((moved(1.0) - moved(-1.0)) / (2.0 * step), gradient.iter().map(|g| g * g).sum::<f64>());
        if slope.is_nan() || (slope - size).abs() > 1e-4 * size {
            return Err(format!("a slope of {slope} instead of {size}: {shape:?}"));
        }
    }
    Ok(())
}

/// A student that is its teacher has nothing to learn.
fn nothing_to_learn(kernels: &Kernels) -> Checked {
    for width in [5, 300] {
        let shape = DistillationShape::new(4, width, 3.0).gradient(Stored(F32));
        let x = normal(33, 0, 4 * width, F32);
        let [loss, gradient] = computed(kernels, &shape, [&x, &x])?;
        if loss.iter().any(|loss| loss.is_nan() || loss.abs() > 1e-5) || gradient.iter().any(|&g| g != 0.0) {
            return Err(format!("{loss:?}, {gradient:?}"));
        }
    }
    Ok(())
}

/// NaN, infinities and rows of nothing, in the student and in the teacher.
fn no_numbers(kernels: &Kernels) -> Checked {
    for (width, gradient) in [(7, Stored(F32)), (300, Stored(F16)), (8, InPlace)] {
        let shape = DistillationShape::new(3, width, 2.0).gradient(gradient);
        for special in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            for place in [0, width - 1] {
                let [x, y] = [0, 1].map(|n| normal(34, n, 3 * width, F32));
                let mut changed = x.clone();
                changed[width + place] = special;
                judged(kernels, &shape, [&changed, &y]).map_err(|e| format!("student {special}: {e}"))?;
                judged(kernels, &shape, [&x, &changed]).map_err(|e| format!("teacher {special}: {e}"))?;
                judged(kernels, &shape, [&changed, &changed]).map_err(|e| format!("both {special}: {e}"))?;
            }
        }
        let (x, none) = (normal(34, 2, 3 * width, F32), vec![f64::NEG_INFINITY; 3 * width]);
        judged(kernels, &shape, [&none, &x])?;
        judged(kernels, &shape, [&x, &none])?;
    }
    Ok(())
}

/// A selection for the mutants.
pub(crate) fn selection(kernels: &Kernels) -> Checked {
    for width in [5, 64, 300] {
        let shape = DistillationShape::new(5, width, 2.5).factor(0.25);
        let apart = shape.gradient(Stored(F32)).logits_row(Some(width + 4)).gradient_row(Some(width + 8));
        bound(kernels, &apart.teacher_row(Some(width + 12)), 3.0)?;
        bound(kernels, &shape.gradient(InPlace), 3.0)?;
    }
    nothing_to_learn(kernels)?;
    no_numbers(kernels)?;
    formulas(kernels)
}

#[test]
fn the_selection_passes() {
    selection(kernels()).unwrap();
}

#[test]
fn every_width_type_and_temperature_is_within_the_bound() {
    let mut worst = [0f64; 2];
    for width in [1, 2, 3, 4, 63, 65, 256, 1030] {
        for (scale, temperature) in [(1.0, 1.0), (10.0, 4.0), (60.0, 10.0), (3.0, 0.3)] {
            for gradient in [LossGradient::None, InPlace, Stored(F32)] {
                let shape = DistillationShape::new(6, width, temperature).gradient(gradient);
                let found = bound(kernels(), &shape, scale).unwrap();
                worst = [worst[0].max(found[0]), worst[1].max(found[1])];
            }
        }
    }
    println!("worst error/bound: loss {:.3}, gradient {:.3}", worst[0], worst[1]);
    for (input, teacher, gradient) in
        [(F16, F16, InPlace), (Bf16, F32, InPlace), (F32, Bf16, Stored(F16)), (F16, F32, Stored(Bf16))]
    {
        for width in [9, 72] {
            let shape =
                DistillationShape::new(7, width, 2.0).input(input).teacher(teacher).gradient(gradient);
            bound(kernels(), &shape.factor(1.0 / 7.0), 3.0).unwrap();
        }
    }
}

#[test]
fn slices_come_back_and_bad_input_is_named() {
    let shape = DistillationShape::new(2, 4, 2.0).gradient(InPlace).factor(0.5);
    let (x, y) = ([1.0f32; 8], [0.0f32, 0.0, 0.0, f32::NEG_INFINITY, 0.0, 0.0, 0.0, 0.0]);
    let got = gpu().distillation::<_, _, f32>(&shape, &x, &y).unwrap();
    // 4 ln(4 / 3), and 1/2 of 2 (p - q).
    assert!(
        (got.loss[0] - 4.0 * (4f32 / 3.0).ln()).abs() < 1e-5 && got.loss[1].abs() < 1e-6,
        "{:?}",
        got.loss
    );
    let third = 0.25 - 1.0 / 3.0;
    let want = [third, third, third, 0.25, 0.0, 0.0, 0.0, 0.0];
    assert!(got.gradient.unwrap().iter().zip(want).all(|(got, want)| (got - want).abs() < 1e-6));
    let error = gpu().distillation::<f32, f32, f32>(&shape, &x, &y[1..]).unwrap_err().to_string();
    assert!(error.starts_with("teacher: need"), "{error}");
    let error = gpu().distillation::<f32, f32, half::f16>(&shape, &x, &y).unwrap_err().to_string();
    assert!(error.starts_with("gradient: need one of f32"), "{error}");
    let nothing =
        gpu().distillation::<f32, f32, f32>(&with(shape, |shape| shape.rows = 0), &[], &[]).unwrap();
    assert_eq!((nothing.loss, nothing.gradient), (vec![], Some(vec![])));
    for (shape, words) in [
        (with(shape, |shape| shape.temperature = 0.0), "temperature: need 1e-6 to 1e6, got 0"),
        (with(shape, |shape| shape.temperature = f32::NAN), "temperature: need 1e-6 to 1e6"),
        (with(shape, |shape| shape.vocabulary = 0), "vocabulary: need at least 1"),
        (shape.gradient_row(Some(4)), "gradient_row: need none"),
        (shape.factor(f32::INFINITY), "factor: need a normal number or 0"),
    ] {
        let message = kernels().distillation(&shape).unwrap_err().to_string();
        assert!(message.starts_with(words), "{words}: {message}");
    }
    let [x, small] = [8, 4].map(|len| Guarded::new(&vec![0.0; len], F32));
    let loss = Guarded::new(&[0.0; 2], F32);
    let plan = kernels().distillation(&shape).unwrap();
    let message = |teacher| {
        plan.bind(DistillationBuffers::new(x.binding(), teacher, loss.binding())).unwrap_err().to_string()
    };
    assert!(message(small.binding()).starts_with("teacher: need 32 bytes"));
    let shared = message(x.binding());
    assert!(shared.starts_with("logits: need a buffer other than that of teacher"), "{shared}");
}
