//! The loss and its gradient against their bound, and against formulas of their own.

use crate::Checked;
use crate::harness::{Guarded, Rows, gpu, kernels, normal, rounded, run_all, with};
use wgpu_attention::reference::layer::{self, Bounded};
use wgpu_attention::{
    CrossEntropyBuffers, CrossEntropyShape, ElementType, Kernels, LossGradient, RowStrides,
};
use wgpu_attention_testing::combinations;

use ElementType::{Bf16, F16, F32};
use LossGradient::{InPlace, Stored};

const TYPES: [ElementType; 3] = [F32, F16, Bf16];

fn strided(rows: usize, width: usize, row: usize) -> Rows {
    Rows { strides: RowStrides::new(0, row as isize), batch: 1, rows, width }
}

/// Loss and gradient of contiguous logits, which lie as the shape says. What is to be written holds numbers before, so that a NaN
/// that is read back was written.
fn computed(
    kernels: &Kernels,
    shape: &CrossEntropyShape,
    x: &[f64],
    targets: &[u32],
) -> Result<[Vec<f64>; 2], String> {
    let (rows, width) = (shape.rows, shape.vocabulary);
    let x_rows = strided(rows, width, shape.stride_of_logits());
    let g_rows = strided(rows, width, shape.stride_of_gradient());
    let logits = Guarded::new(&x_rows.spread(x), shape.input);
    let targets = Guarded::integers(targets);
    let loss = Guarded::new(&vec![-7.5; rows], F32);
    let stored = matches!(shape.gradient, Stored(_));
    let element = shape.gradient_type().unwrap_or(F32);
    let apart = stored.then(|| Guarded::new(&g_rows.spread(&vec![-7.5; rows * width]), element));
    let buffers = CrossEntropyBuffers::new(logits.binding(), targets.binding(), loss.binding())
        .gradient(apart.as_ref().map(Guarded::binding));
    let plan = kernels.cross_entropy(shape).map_err(|e| e.to_string())?;
    let call = plan.bind(buffers).map_err(|e| e.to_string())?;
    let loss = (&loss, Rows::contiguous(rows, 1), F32);
    let gradient = match shape.gradient {
        LossGradient::None => return Ok([run_all(&[&call], &[loss])?.remove(0), vec![]]),
        _ => (apart.as_ref().unwrap_or(&logits), g_rows, element),
    };
    let [loss, gradient] = <[_; 2]>::try_from(run_all(&[&call], &[loss, gradient])?).expect("two outputs");
    Ok([loss, gradient])
}

/// Within the bound; the worst error / bound of loss and gradient.
fn judged(
    kernels: &Kernels,
    shape: &CrossEntropyShape,
    x: &[f64],
    targets: &[u32],
) -> Result<[f64; 2], String> {
    let [loss, gradient] = computed(kernels, shape, x, targets)?;
    let expected = layer::cross_entropy(shape, &Bounded::exact(x), targets).map_err(|e| e.to_string())?;
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

/// Normal logits of this scale, targets all over the row.
pub(crate) fn bound(kernels: &Kernels, shape: &CrossEntropyShape, scale: f64) -> Result<[f64; 2], String> {
    let (rows, width) = (shape.rows, shape.vocabulary);
    let x = normal(12, 0, rows * width, F32).into_iter().map(|x| x * scale);
    let x = rounded(x, shape.input);
    let targets: Vec<u32> = (0..rows).map(|row| (row * 7919 + width - 1) as u32 % width as u32).collect();
    judged(kernels, shape, &x, &targets)
}

/// Equal logits: every loss is ln V whatever the smoothing, and the gradient 1 / V but at the target.
fn counts(kernels: &Kernels, width: usize, smoothing: f32) -> Checked {
    let shape = CrossEntropyShape::new(3, width).gradient(Stored(F32)).smoothing(smoothing);
    let targets = [0, width as u32 / 2, width as u32 - 1];
    let [loss, gradient] = computed(kernels, &shape, &vec![-5.5; 3 * width], &targets)?;
    let want = (width as f64).ln();
    if let Some(loss) = loss.iter().find(|&loss| loss.is_nan() || (loss - want).abs() > 1e-6 * want.max(1.0))
    {
        return Err(format!("a loss of {loss} instead of ln {width}"));
    }
    for (n, got) in gradient.iter().enumerate() {
        let share = f64::from(smoothing) / width as f64;
        let is_target = targets[n / width] as usize == n % width;
        let q = share + if is_target { 1.0 - f64::from(smoothing) } else { 0.0 };
        let want = 1.0 / width as f64 - q;
        if got.is_nan() || (got - want).abs() > 1e-6 {
            return Err(format!("a gradient of {got} instead of {want} at {n} of {width}"));
        }
    }
    Ok(())
}

/// The published definition, term by term: (1 - s) times the negative log-likelihood of the target, and s times the mean of all.
fn by_definition(x: &[f64], target: usize, smoothing: f64) -> f64 {
    let largest = x.iter().copied().fold(f64::MIN, f64::max);
    let log_sum = largest + x.iter().map(|x| (x - largest).exp()).sum::<f64>().ln();
    let mean = x.iter().map(|x| log_sum - x).sum::<f64>() / x.len() as f64;
    (1.0 - smoothing) * (log_sum - x[target]) + smoothing * mean
}

/// Long rows in blocks, far logits, confident and wrong ones; and the gradient of a row adds up to 0.
fn formulas(kernels: &Kernels) -> Checked {
    for (width, scale, offset, smoothing) in
        [(70_001, 3.0, 100.0, 0.1), (20_000, 1.0, -1e4, 0.0), (300, 40.0, 0.0, 0.3), (7, 1e20, 0.0, 0.0)]
    {
        let shape = CrossEntropyShape::new(1, width).gradient(Stored(F32)).smoothing(smoothing);
        let x = normal(13, 0, width, F32).into_iter().map(|x| offset + scale * x);
        let x = rounded(x, F32);
        for target in [0, width / 3, width - 1] {
            let [loss, gradient] = computed(kernels, &shape, &x, &[target as u32])?;
            let want = by_definition(&x, target, smoothing.into());
            let off = (loss[0] - want).abs() / want.max(1.0);
            if off.is_nan() || off > 2e-6 {
                return Err(format!("a loss of {} instead of {want}: {shape:?}", loss[0]));
            }
            let sum: f64 = gradient.iter().sum();
            if sum.is_nan() || sum.abs() > 2e-6 {
                return Err(format!("a gradient that adds up to {sum}: {shape:?}"));
            }
        }
    }
    Ok(())
}

/// Ignored rows are 0 whatever they hold, targets past the vocabulary NaN, and each leaves its neighbours alone.
fn rows_apart(kernels: &Kernels) -> Checked {
    for (width, gradient) in [(7, Stored(F32)), (300, InPlace), (9, Stored(F16)), (6, InPlace)] {
        let element = if width == 6 { F16 } else { F32 };
        let shape = CrossEntropyShape::new(5, width).gradient(gradient).input(element);
        let mut x = normal(14, 0, 5 * width, element);
        x[width] = f64::NAN;
        let (past, ignored) = (width as u32, -100i32 as u32);
        let targets = [0, ignored, past, 1, 2];
        // Poison is no element in place: the NaN is written as a number's neighbour and lies in the row.
        let [loss, gradient] = computed(kernels, &shape.ignore_index(Some(ignored)), &x, &targets)?;
        for row in 0..5 {
            let elements = &gradient[row * width..][..width];
            let right = match row {
                1 => loss[row] == 0.0 && elements.iter().all(|&g| g == 0.0),
                2 => loss[row].is_nan() && elements.iter().all(|g| g.is_nan()),
                _ => {
                    loss[row] > 0.0
                        && loss[row] < 20.0
                        && elements.iter().any(|&g| g < 0.0)
                        && elements.iter().all(|&g| g.abs() < 1.0)
                }
            };
            if !right {
                return Err(format!("row {row} of {width}: loss {}, gradient {elements:?}", loss[row]));
            }
        }
        // Without an index to ignore there is none, and 0 is a target like any other.
        let [loss, _] = computed(kernels, &shape, &x, &[0, 0, u32::MAX, ignored, 0])?;
        if loss.iter().map(|loss| loss.is_nan()).ne([false, true, true, true, false]) || loss[0] == 0.0 {
            return Err(format!("losses of {loss:?}"));
        }
    }
    Ok(())
}

/// NaN and +infinity show in loss and gradient; -infinity weighs 0, and costs infinitely much where it is wanted.
fn no_numbers(kernels: &Kernels) -> Checked {
    for (width, gradient) in
        [(7, Stored(F32)), (300, Stored(F16)), (64, Stored(Bf16)), (8, InPlace), (9, InPlace)]
    {
        for special in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            for place in [0, width - 1] {
                for smoothing in [0.0, 0.1] {
                    let shape = CrossEntropyShape::new(3, width).gradient(gradient).smoothing(smoothing);
                    let mut x = normal(15, 0, 3 * width, F32);
                    x[width + place] = special;
                    for target in [place as u32, (place as u32 + 1) % width as u32] {
                        judged(kernels, &shape, &x, &[target; 3]).map_err(|e| format!("{special}: {e}"))?;
                    }
                }
            }
        }
        let shape = CrossEntropyShape::new(1, width).gradient(gradient);
        judged(kernels, &shape, &vec![f64::NEG_INFINITY; width], &[0])?;
    }
    Ok(())
}

/// A selection for the mutants.
pub(crate) fn selection(kernels: &Kernels) -> Checked {
    for width in [5, 64, 300] {
        for smoothing in [0.0, 0.2] {
            counts(kernels, width, smoothing)?;
            let shape = CrossEntropyShape::new(5, width).smoothing(smoothing).factor(0.25);
            let apart = shape.gradient(Stored(F32)).logits_row(Some(width + 4)).gradient_row(Some(width + 8));
            bound(kernels, &apart, 3.0)?;
            for element in TYPES {
                bound(kernels, &shape.gradient(InPlace).input(element), 3.0)?;
            }
        }
    }
    rows_apart(kernels)?;
    no_numbers(kernels)?;
    formulas(kernels)
}

#[test]
fn the_selection_passes() {
    selection(kernels()).unwrap();
}

#[test]
fn every_width_and_type_is_within_the_bound() {
    let mut worst = [0f64; 2];
    for width in [1, 2, 3, 4, 5, 63, 64, 65, 255, 256, 257, 1030] {
        for (n, scale) in [1.0, 10.0, 60.0].into_iter().enumerate() {
            for gradient in [LossGradient::None, InPlace, Stored(F32)] {
                let shape = CrossEntropyShape::new(6, width).gradient(gradient).smoothing(0.1 * n as f32);
                let found = bound(kernels(), &shape, scale).unwrap();
                worst = [worst[0].max(found[0]), worst[1].max(found[1])];
            }
        }
    }
    println!("worst error/bound: loss {:.3}, gradient {:.3}", worst[0], worst[1]);
    let gradients = [LossGradient::None, InPlace, Stored(F32), Stored(F16), Stored(Bf16)];
    for input in TYPES {
        for [gradient, width] in combinations([gradients.len(), 2]) {
            let shape = CrossEntropyShape::new(7, [9, 72][width]).gradient(gradients[gradient]).input(input);
            bound(kernels(), &shape.factor(1.0 / 7.0).smoothing(0.1), 3.0).unwrap();
        }
    }
}

#[test]
fn a_row_smoothed_whole_wants_all_alike() {
    // Targets do not matter then.
    let shape = CrossEntropyShape::new(4, 10).gradient(Stored(F32)).smoothing(1.0);
    let x = normal(16, 0, 40, F32);
    let [first, second] =
        [[0, 1, 2, 3], [9, 8, 7, 6]].map(|targets| computed(kernels(), &shape, &x, &targets).unwrap());
    assert_eq!(first, second);
    judged(kernels(), &shape, &x, &[0; 4]).unwrap();
}

#[test]
fn the_same_call_twice_gives_the_same_bits_and_in_place_those_of_apart() {
    let x = normal(17, 0, 6 * 1030, F32);
    let targets = [0, 5, 1029, 700, 3, 9];
    let shape = CrossEntropyShape::new(6, 1030).smoothing(0.1).factor(1.0 / 6.0);
    let apart = computed(kernels(), &shape.gradient(Stored(F32)), &x, &targets).unwrap();
    assert_eq!(apart, computed(kernels(), &shape.gradient(Stored(F32)), &x, &targets).unwrap());
    assert_eq!(apart, computed(kernels(), &shape.gradient(InPlace), &x, &targets).unwrap());
}

#[test]
fn slices_come_back() {
    let shape = CrossEntropyShape::new(2, 4).gradient(InPlace).factor(0.5);
    let y = gpu().cross_entropy::<f32, f32>(&shape, &[1.0; 8], &[3, 0]).unwrap();
    let want = [0.125, 0.125, 0.125, -0.375, -0.375, 0.125, 0.125, 0.125];
    assert!(y.loss.iter().all(|loss| (loss - 4f32.ln()).abs() < 1e-6), "{:?}", y.loss);
    let gradient = y.gradient.unwrap();
    assert!(gradient.iter().zip(want).all(|(got, want)| (got - want).abs() < 1e-6), "{gradient:?}");
    let apart = gpu().cross_entropy::<f32, f32>(&shape.gradient(Stored(F16)), &[1.0; 8], &[3, 0]).unwrap();
    assert_eq!(apart.gradient, Some(gradient), "the type is that of the slices");
    let alone =
        gpu().cross_entropy::<f32, f32>(&shape.gradient(LossGradient::None), &[1.0; 8], &[3, 0]).unwrap();
    assert_eq!((alone.loss, alone.gradient), (y.loss, None));
    let nothing = gpu().cross_entropy::<f32, f32>(&with(shape, |shape| shape.rows = 0), &[], &[]).unwrap();
    assert_eq!((nothing.loss, nothing.gradient), (vec![], Some(vec![])));
    let error = gpu().cross_entropy::<f32, half::f16>(&shape, &[1.0; 8], &[3, 0]).unwrap_err().to_string();
    assert!(error.starts_with("gradient: need one of f32"), "{error}");
    let error = gpu().cross_entropy::<f32, f32>(&shape, &[1.0; 8], &[3]).unwrap_err().to_string();
    assert!(error.starts_with("targets: need"), "{error}");
    let error = gpu().cross_entropy::<f32, f32>(&shape, &[1.0; 7], &[3, 0]).unwrap_err().to_string();
    assert!(error.starts_with("logits: need"), "{error}");
}

#[test]
fn bad_input_is_named() {
    let shape = CrossEntropyShape::new(4, 8);
    for (shape, words) in [
        (with(shape, |shape| shape.vocabulary = 0), "vocabulary: need at least 1, got 0"),
        (shape.smoothing(-0.1), "smoothing: need 0 to 1, got -0.1"),
        (shape.smoothing(1.1), "smoothing: need 0 to 1"),
        (shape.smoothing(f32::NAN), "smoothing: need 0 to 1"),
        (shape.smoothing(f32::MIN_POSITIVE), "smoothing: need 0, or at least"),
        (shape.factor(f32::INFINITY), "factor: need a normal number or 0"),
        (shape.factor(1e-40), "factor: need a normal number or 0"),
        (shape.gradient_row(Some(8)), "gradient_row: need none"),
        (shape.gradient(InPlace).gradient_row(Some(8)), "gradient_row: need none"),
        (
            shape.gradient(InPlace).logits_row(Some(7)),
            "logits_row: need rows of 8 elements that do not overlap",
        ),
        (
            shape.gradient(Stored(F32)).gradient_row(Some(7)),
            "gradient_row: need rows of 8 elements that do not",
        ),
        (with(shape, |shape| shape.rows = 1 << 31), "rows x width needs"),
    ] {
        let message = kernels().cross_entropy(&shape).unwrap_err().to_string();
        assert!(message.starts_with(words), "{words}: {message}");
    }
    // Rows that are only read may overlap.
    assert!(shape.logits_row(Some(7)).check().is_ok());
    let [x, small, other] = [32, 4, 32].map(|len| Guarded::new(&vec![0.0; len], F32));
    let (targets, loss) = (Guarded::integers(&[0; 4]), Guarded::new(&[0.0; 4], F32));
    let buffers = || CrossEntropyBuffers::new(x.binding(), targets.binding(), loss.binding());
    let bind = |shape: CrossEntropyShape, buffers: CrossEntropyBuffers<'_>| {
        kernels().cross_entropy(&shape).unwrap().bind(buffers).map_err(|error| error.to_string())
    };
    let stored = shape.gradient(Stored(F32));
    assert!(bind(shape, buffers()).is_ok());
    assert!(bind(shape.gradient(InPlace), buffers()).is_ok());
    assert!(bind(stored, buffers().gradient(other.binding())).is_ok());
    assert_eq!(bind(with(shape, |shape| shape.rows = 0), buffers()).unwrap().dispatches(), 0);
    for (shape, buffers, words) in [
        (shape, buffers().logits(small.binding()), "logits: need 128 bytes"),
        (stored, buffers().gradient(small.binding()), "gradient: need 128 bytes"),
        (stored, buffers(), "gradient: need a buffer"),
        (shape, buffers().gradient(other.binding()), "gradient: need none"),
        (shape.gradient(InPlace), buffers().gradient(x.binding()), "gradient: need none"),
        // Over the logits only where the shape says so.
        (stored, buffers().gradient(x.binding()), "gradient: need a buffer other than that of logits"),
        (shape, buffers().loss(targets.binding()), "loss: need a buffer other than that of targets"),
        (shape, buffers().loss(x.binding()), "loss: need a buffer other than that of logits"),
        (shape.gradient(InPlace), buffers().loss(x.binding()), "loss: need bytes apart from those of logits"),
    ] {
        let message = bind(shape, buffers).map(drop).unwrap_err();
        assert!(message.starts_with(words), "{words}: {message}");
    }
}
