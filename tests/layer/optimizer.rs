//! Steps of the optimizers against their bound, and against the published formulas over several steps; norms and the factor that clips.

use crate::Checked;
use crate::harness::{Guarded, Rows, gpu, kernels, normal, rounded, run_all};
use wgpu_attention::reference::layer::{self, Bounded, Comparison, OptimizerInputs};
use wgpu_attention::{
    ClipShape, ElementType, Kernels, OptimizerBuffers, OptimizerRule, OptimizerShape, OptimizerSlices,
    OptimizerStep,
};
use wgpu_attention_testing::combinations;

use ElementType::{Bf16, F16, F32};

const RULES: [OptimizerRule; 5] = [
    OptimizerRule::SGD,
    OptimizerRule::Sgd { momentum: 0.9, nesterov: false, weight_decay: 0.1 },
    OptimizerRule::Sgd { momentum: 0.75, nesterov: true, weight_decay: 0.0 },
    OptimizerRule::ADAMW,
    OptimizerRule::AdamW { beta1: 0.5, beta2: 0.75, eps: 0.1, weight_decay: 0.5 },
];

/// Parameters, first and second state.
type State = [Vec<f64>; 3];

/// What a step left: parameters, first and second state, the rounded copy.
struct Left {
    state: State,
    rounded: Vec<f64>,
}

/// A step on the device.
fn stepped(
    kernels: &Kernels,
    shape: &OptimizerShape,
    step: OptimizerStep,
    [p, first, second]: &State,
    gradient: &[f64],
    clip: Option<[f64; 2]>,
) -> Result<Left, String> {
    let rows = Rows::contiguous(1, shape.len);
    let [parameters, first, second] = [p, first, second].map(|values| Guarded::new(values, F32));
    let gradient = Guarded::new(gradient, shape.gradient);
    let element = shape.rounded.unwrap_or(F16);
    let rounded = Guarded::new(&vec![-7.5; shape.len], element);
    let clip = clip.map(|clip| Guarded::new(&clip, F32));
    let (has_first, has_second) = (shape.rule.has_first(), shape.rule.has_second());
    let buffers = OptimizerBuffers::new(parameters.binding(), gradient.binding())
        .first(has_first.then(|| first.binding()))
        .second(has_second.then(|| second.binding()))
        .rounded(shape.rounded.map(|_| rounded.binding()))
        .clip(clip.as_ref().map(Guarded::binding));
    let plan = kernels.optimizer(shape).map_err(|e| e.to_string())?;
    let call = plan.bind(buffers, step).map_err(|e| e.to_string())?;
    let outputs =
        [(&parameters, rows, F32), (&first, rows, F32), (&second, rows, F32), (&rounded, rows, element)];
    let [p, first, second, rounded] = <[_; 4]>::try_from(run_all(&[&call], &outputs)?).expect("four outputs");
    Ok(Left { state: [p, first, second], rounded })
}

fn passed(found: &Comparison, what: &str, case: &dyn std::fmt::Debug) -> Result<f64, String> {
    match found.pass && found.unspecified == 0 {
        true => Ok(found.worst.map_or(0.0, |worst| worst.ratio)),
        false => Err(format!("{what}: {found}\n{case:?}")),
    }
}

/// One step from normal tensors, within the bound: worst error / bound.
pub(crate) fn bound(kernels: &Kernels, shape: &OptimizerShape, step: OptimizerStep) -> Result<f64, String> {
    let draw = |stream| normal(31, stream, shape.len, F32);
    // v is a mean of squares.
    let state = [draw(0), draw(1), draw(2).iter().map(|x| f64::from((x * x) as f32)).collect()];
    let gradient = normal(31, 3, shape.len, shape.gradient);
    let clip = shape.clipped.then_some([8.0, 0.125]);
    let left = stepped(kernels, shape, step, &state, &gradient, clip)?;
    let [p, first, second] = state.each_ref().map(|values| Bounded::exact(values));
    let (gradient, clip) = (Bounded::exact(&gradient), clip.map(|clip| Bounded::exact(&clip)));
    let inputs = OptimizerInputs {
        parameters: &p,
        gradient: &gradient,
        first: shape.rule.has_first().then_some(&first),
        second: shape.rule.has_second().then_some(&second),
        clip: clip.as_ref(),
    };
    let expected = layer::optimizer(shape, step, &inputs).map_err(|e| e.to_string())?;
    let [got_p, got_first, got_second] = left.state;
    let mut worst = passed(&expected.parameters.compare(got_p, 0.0), "parameters", shape)?;
    if shape.rule.has_first() {
        worst = worst.max(passed(&expected.first.compare(got_first, 0.0), "first", shape)?);
    }
    if shape.rule.has_second() {
        worst = worst.max(passed(&expected.second.compare(got_second, 0.0), "second", shape)?);
    }
    if shape.rounded.is_some() {
        worst = worst.max(passed(&expected.rounded.compare(left.rounded, 0.0), "rounded", shape)?);
    }
    Ok(worst)
}

/// PyTorch's documented algorithms, one parameter.
fn published(rule: &OptimizerRule, lr: f64, gradients: &[f64], mut p: f64) -> f64 {
    let wide = |x: f32| f64::from(x);
    let (mut m, mut v) = (0.0, 0.0);
    for (n, &g) in gradients.iter().enumerate() {
        let t = n as i32 + 1;
        match *rule {
            OptimizerRule::Sgd { momentum, nesterov, weight_decay } => {
                let mut g = g + wide(weight_decay) * p;
                if momentum != 0.0 {
                    m = if t > 1 { wide(momentum) * m + g } else { g };
                    g = if nesterov { g + wide(momentum) * m } else { m };
                }
                p -= lr * g;
            }
            OptimizerRule::AdamW { beta1, beta2, eps, weight_decay } => {
                p -= lr * wide(weight_decay) * p;
                m = wide(beta1) * m + (1.0 - wide(beta1)) * g;
                v = wide(beta2) * v + (1.0 - wide(beta2)) * g * g;
                let (m, v) = (m / (1.0 - wide(beta1).powi(t)), v / (1.0 - wide(beta2).powi(t)));
                p -= lr * m / (v.sqrt() + wide(eps));
            }
            _ => unreachable!("no other rule"),
        }
    }
    p
}

/// Six steps on the device, from states that hold anything, end where the published algorithm ends.
fn several_steps(kernels: &Kernels, rule: OptimizerRule) -> Checked {
    let (len, lr) = (37, 0.0625);
    let shape = OptimizerShape::new(len, rule);
    let start = normal(32, 0, len, F32);
    let mut state = [start.clone(), vec![1e6; len], vec![1e6; len]];
    let gradients: Vec<_> = (1..=6).map(|stream| normal(32, stream, len, F32)).collect();
    for (n, gradient) in gradients.iter().enumerate() {
        state = stepped(kernels, &shape, OptimizerStep::new(n as u32 + 1, lr), &state, gradient, None)?.state;
    }
    for (n, got) in state[0].iter().enumerate() {
        let own: Vec<f64> = gradients.iter().map(|gradient| gradient[n]).collect();
        let want = published(&rule, lr.into(), &own, start[n]);
        if got.is_nan() || (got - want).abs() > 3e-6 * want.abs().max(1.0) {
            return Err(format!("parameter {n} is {got} instead of {want}: {rule:?}"));
        }
    }
    Ok(())
}

/// The first step of AdamW goes lr along the gradient's sign, however small or large it is, and by its decay.
fn first_step(kernels: &Kernels) -> Checked {
    let gradient = [1.0, -1.0, 1e-3, -1e5, 1e15, -300.0, 0.0];
    let rule = OptimizerRule::AdamW { beta1: 0.9, beta2: 0.999, eps: 1e-12, weight_decay: 0.5 };
    let shape = OptimizerShape::new(gradient.len(), rule);
    let nan = || vec![-7.5; gradient.len()];
    let state = [vec![2.0; gradient.len()], nan(), nan()];
    let left = stepped(kernels, &shape, OptimizerStep::new(1, 0.25), &state, &gradient, None)?;
    for (got, g) in left.state[0].iter().zip(gradient) {
        let sign = if g == 0.0 { 0.0 } else { g.signum() };
        let want = 2.0 * (1.0 - 0.25 * 0.5) - 0.25 * sign;
        if got.is_nan() || (got - want).abs() > 2e-6 {
            return Err(format!("{got} instead of {want} for a gradient of {g}"));
        }
    }
    Ok(())
}

/// A gradient of NaN is seen in its parameter, and in no other.
fn not_a_number(kernels: &Kernels) -> Checked {
    for rule in RULES {
        let mut gradient = vec![1.0; 9];
        gradient[5] = f64::NAN;
        let state = [vec![1.0; 9], vec![1.0; 9], vec![1.0; 9]];
        let shape = OptimizerShape::new(9, rule).gradient(F32);
        let left = stepped(kernels, &shape, OptimizerStep::new(2, 0.5), &state, &gradient, None)?;
        if !left.state[0].iter().enumerate().all(|(n, p)| p.is_nan() == (n == 5)) {
            return Err(format!("parameters {:?}: {rule:?}", left.state[0]));
        }
    }
    Ok(())
}

/// Norm and factor on the device.
fn clipped(kernels: &Kernels, shape: &ClipShape, tensors: &[Vec<f64>]) -> Result<[f64; 2], String> {
    let guarded: Vec<_> = tensors
        .iter()
        .zip(&shape.tensors)
        .map(|(values, (_, element))| Guarded::new(values, *element))
        .collect();
    let bindings: Vec<_> = guarded.iter().map(Guarded::binding).collect();
    let clip = Guarded::new(&[-7.5, -7.5], F32);
    let call = kernels
        .clip(shape)
        .and_then(|plan| plan.bind(&bindings, clip.binding()))
        .map_err(|e| e.to_string())?;
    let got = run_all(&[&call, &call], &[(&clip, Rows::contiguous(1, 2), F32)])?.remove(0);
    Ok([got[0], got[1]])
}

/// Within the bound: worst error / bound.
pub(crate) fn norm_bound(kernels: &Kernels, shape: &ClipShape, size: f64) -> Result<f64, String> {
    let draw = |(n, (len, element)): (usize, &(usize, ElementType))| {
        rounded(normal(33, n as u64, *len, F32).into_iter().map(|x| size * x), *element)
    };
    let tensors: Vec<_> = shape.tensors.iter().enumerate().map(draw).collect();
    let got = clipped(kernels, shape, &tensors)?;
    let exact: Vec<_> = tensors.iter().map(|values| Bounded::exact(values)).collect();
    let expected = layer::clip(shape, &exact.iter().collect::<Vec<_>>()).map_err(|e| e.to_string())?;
    passed(&expected.compare(got, 0.0), "clip", shape)
}

/// Norms that are whole numbers, of any size, over several tensors, and the factor that follows.
fn whole_norms(kernels: &Kernels) -> Checked {
    for size in [1.0, 1e-30, 3e30, 4e36, 1e-37, 1e18] {
        // 3, 4, 12 and 84 in four places of three tensors: 85.
        let shape = ClipShape::new(1.0).tensor(20_001, F32).tensor(0, F32).tensor(7, F32).tensor(8192, F32);
        let mut tensors = vec![vec![0.0; 20_001], vec![], vec![0.0; 7], vec![0.0; 8192]];
        let size = f64::from(size as f32);
        (tensors[0][20_000], tensors[0][3]) = (3.0 * size, 84.0 * size);
        (tensors[2][6], tensors[3][8191]) = (-4.0 * size, 12.0 * size);
        let [norm, factor] = clipped(kernels, &shape, &tensors)?;
        let want = (1.0 / (85.0 * size + 1e-6)).min(1.0);
        // f32 rounds what is multiplied here; a factor below the smallest normal number may be 0.
        let near = |got: f64, want: f64| (got - want).abs() <= 2e-6 * want + f64::from(f32::MIN_POSITIVE);
        if !(near(norm, 85.0 * size) && near(factor, want)) {
            return Err(format!("norm {norm:e} and factor {factor:e} for {:e} and {want:e}", 85.0 * size));
        }
    }
    // A norm that leaves f32 has its factor all the same.
    let [_, factor] = clipped(kernels, &ClipShape::new(3e38).tensor(100, F32), &[vec![3e38; 100]])?;
    if factor.is_nan() || (factor - 0.1).abs() > 1e-6 {
        return Err(format!("a factor of {factor} instead of 0.1"));
    }
    // More tensors than a lane adds up at once.
    let many = (0..2500).fold(ClipShape::new(100.0), |shape, _| shape.tensor(1, F32));
    let got = clipped(kernels, &many, &vec![vec![1.0]; 2500])?;
    if got[0].is_nan() || (got[0] - 50.0).abs() > 1e-4 || got[1] != 1.0 {
        return Err(format!("{got:?} of 2,500 ones"));
    }
    let none = clipped(kernels, &ClipShape::new(0.5), &[])?;
    let zeros = clipped(kernels, &ClipShape::new(0.5).tensor(5, F32), &[vec![0.0; 5]])?;
    if none != [0.0, 1.0] || zeros != [0.0, 1.0] {
        return Err(format!("{none:?} of nothing, {zeros:?} of zeros"));
    }
    for special in [f64::INFINITY, f64::NEG_INFINITY, f64::NAN] {
        let mut tensors = vec![vec![1.0; 10_000], vec![1.0; 3]];
        tensors[0][9_000] = special;
        let shape = ClipShape::new(1.0).tensor(10_000, F32).tensor(3, F32);
        let got = clipped(kernels, &shape, &tensors)?;
        if !got.iter().all(|x| x.is_nan()) {
            return Err(format!("{got:?} of {special}"));
        }
    }
    Ok(())
}

/// A selection for the mutants.
pub(crate) fn selection(kernels: &Kernels) -> Checked {
    for rule in RULES {
        for (len, rounded) in [(600, Some(F16)), (301, Some(Bf16)), (7, None)] {
            let shape = OptimizerShape::new(len, rule).rounded(rounded);
            bound(kernels, &shape, OptimizerStep::new(3, 0.5))?;
            bound(kernels, &shape.clipped(true).gradient(Bf16), OptimizerStep::new(1, 0.5))?;
        }
        several_steps(kernels, rule)?;
    }
    first_step(kernels)?;
    not_a_number(kernels)
}

/// A selection for the mutants of the norm.
pub(crate) fn norm_selection(kernels: &Kernels) -> Checked {
    for len in [5, 600, 30_000] {
        norm_bound(kernels, &ClipShape::new(2.0).tensor(len, F32).tensor(len / 2, F16), 1.0)?;
    }
    norm_bound(kernels, &ClipShape::new(2.0).tensor(2_200_000, Bf16), 1e-3)?;
    whole_norms(kernels)
}

#[test]
fn the_selections_pass() {
    selection(kernels()).unwrap();
    norm_selection(kernels()).unwrap();
}

#[test]
fn every_rule_and_storage_is_within_the_bound() {
    let mut worst = 0f64;
    for rule in RULES {
        for [gradient, kind] in combinations([3, 3]) {
            let (rounded, clipped) = [(None, true), (Some(F16), false), (Some(Bf16), true)][kind];
            for len in [1, 64, 257, 1030] {
                let shape = OptimizerShape::new(len, rule).gradient([F32, F16, Bf16][gradient]);
                for step in [1, 2, 1000, u32::MAX] {
                    let (shape, step) =
                        (shape.rounded(rounded).clipped(clipped), OptimizerStep::new(step, 0.01));
                    worst = worst.max(bound(kernels(), &shape, step).unwrap());
                }
            }
        }
    }
    println!("worst error/bound of a step: {worst:.3}");
}

#[test]
fn norms_of_every_size_and_storage_are_within_the_bound() {
    let mut worst = 0f64;
    for size in [1.0, 1e30, 1e-30, 1e-37] {
        for len in [1, 2, 255, 8191, 8193, 70_000] {
            worst = worst.max(norm_bound(kernels(), &ClipShape::new(1.0).tensor(len, F32), size).unwrap());
        }
    }
    let shape = ClipShape::new(100.0).tensor(9_001, F16).tensor(8_192, Bf16).tensor(1, F32);
    worst = worst.max(norm_bound(kernels(), &shape, 1.0).unwrap());
    println!("worst error/bound of norm and factor: {worst:.3}");
}

#[test]
fn the_factor_stays_on_the_device() {
    // A norm of 5 to be 0.5: the step is that of a tenth of the gradient.
    let (gradient, clip) = (Guarded::new(&[3.0, 4.0], F32), Guarded::new(&[0.0; 2], F32));
    let parameters = Guarded::new(&[1.0, 1.0], F32);
    let norm = kernels().clip(&ClipShape::new(0.5).tensor(2, F32)).unwrap();
    let norm = norm.bind(&[gradient.binding()], clip.binding()).unwrap();
    let plan = kernels().optimizer(&OptimizerShape::new(2, OptimizerRule::SGD).clipped(true)).unwrap();
    let buffers = || OptimizerBuffers::new(parameters.binding(), gradient.binding()).clip(clip.binding());
    let step = plan.bind(buffers(), OptimizerStep::new(1, 1.0)).unwrap();
    let got = run_all(&[&norm, &step], &[(&parameters, Rows::contiguous(1, 2), F32)]).unwrap().remove(0);
    assert!((got[0] - 0.7).abs() < 1e-6 && (got[1] - 0.6).abs() < 1e-6, "{got:?}");
}

#[test]
fn slices_come_back() {
    let sgd = OptimizerRule::Sgd { momentum: 0.5, nesterov: false, weight_decay: 0.0 };
    let shape = OptimizerShape::new(2, sgd).clipped(true);
    let step = OptimizerStep::new(2, 1.0);
    let gradient = [3.0, 4.0].map(half::f16::from_f32);
    let clip = gpu().clip(&ClipShape::new(2.5).tensor(2, F32), &[&gradient]).unwrap();
    assert!((clip[0] - 5.0).abs() < 1e-6 && (clip[1] - 0.5).abs() < 1e-6, "{clip:?}");
    // An exact half, for whole numbers below.
    let slices = OptimizerSlices::new(&[10.0, 20.0], &gradient).first(&[2.0, 4.0][..]).clip(&[5.0, 0.5][..]);
    let y = gpu().optimizer(&shape, step, slices).unwrap();
    assert_eq!((y.parameters, y.first, y.second), (vec![7.5, 16.0], Some(vec![2.5, 4.0]), None));
    let empty = OptimizerShape::new(0, OptimizerRule::SGD);
    let y = gpu().optimizer(&empty, step, OptimizerSlices::new(&[], &gradient[..0])).unwrap();
    assert!(y.parameters.is_empty());
    let error = |shape: OptimizerShape, slices: OptimizerSlices<'_, half::f16>| {
        gpu().optimizer(&shape, step, slices).unwrap_err().to_string()
    };
    for (shape, slices, words) in [
        (shape.rounded(Some(F16)), slices, "rounded: need none"),
        (shape, slices.parameters(&[1.0]), "parameters: need"),
        (shape, slices.first(None), "first: need a tensor"),
        (shape, slices.second(&[1.0, 1.0][..]), "second: need none"),
        (shape, slices.clip(&[1.0][..]), "clip: need"),
        (shape, slices.gradient(&gradient[..1]), "gradient: need"),
    ] {
        let message = error(shape, slices);
        assert!(message.starts_with(words), "{words}: {message}");
    }
    let message = gpu().clip::<f32>(&ClipShape::new(1.0).tensor(2, F32), &[]).unwrap_err().to_string();
    assert!(message.starts_with("tensors: need 1 tensors"), "{message}");
}

#[test]
fn bad_input_is_named() {
    let sgd = |momentum, nesterov, weight_decay| OptimizerRule::Sgd { momentum, nesterov, weight_decay };
    let adam = |beta1, beta2, eps, weight_decay| OptimizerRule::AdamW { beta1, beta2, eps, weight_decay };
    let of = |rule| OptimizerShape::new(8, rule);
    for (shape, words) in [
        (of(sgd(1.0, false, 0.0)), "momentum: need 0, or a normal number below 1, got 1"),
        (of(sgd(-0.1, false, 0.0)), "momentum: need"),
        (of(sgd(0.0, true, 0.0)), "nesterov: need a momentum above 0"),
        (of(sgd(0.9, true, -1.0)), "weight_decay: need 0, or a normal number above 0, got -1"),
        (of(sgd(0.9, true, f32::NAN)), "weight_decay: need"),
        (of(adam(1.0, 0.9, 1e-8, 0.0)), "beta1: need"),
        (of(adam(0.9, f32::NAN, 1e-8, 0.0)), "beta2: need"),
        (of(adam(0.9, 0.9, 0.0, 0.0)), "eps: need a normal number above 0, got 0"),
        (of(adam(0.9, 0.9, 1e-8, f32::INFINITY)), "weight_decay: need"),
        (of(OptimizerRule::SGD).rounded(Some(F32)), "rounded: need f16 or bf16"),
        (OptimizerShape::new(u32::MAX as usize, OptimizerRule::SGD), "len needs"),
    ] {
        let message = kernels().optimizer(&shape).unwrap_err().to_string();
        assert!(message.starts_with(words), "{words}: {message}");
    }
    for (shape, words) in [
        (ClipShape::new(f32::INFINITY), "max_norm: need a normal number above 0"),
        (ClipShape::new(-1.0), "max_norm: need"),
        (ClipShape::new(1.0).tensor(u32::MAX as usize, F32), "tensor needs"),
    ] {
        let message = kernels().clip(&shape).unwrap_err().to_string();
        assert!(message.starts_with(words), "{words}: {message}");
    }
    let tensors: Vec<_> = (0..6).map(|_| Guarded::new(&[0.0; 8], F32)).collect();
    let short = Guarded::new(&[0.0; 4], F32);
    let [p, g, m, v, r, c] = <&[_; 6]>::try_from(&tensors[..]).expect("six");
    let adamw = of(OptimizerRule::ADAMW);
    let buffers = || OptimizerBuffers::new(p.binding(), g.binding()).first(m.binding()).second(v.binding());
    let bind = |shape: OptimizerShape, buffers: OptimizerBuffers<'_>, step| {
        kernels().optimizer(&shape).unwrap().bind(buffers, step).map(drop)
    };
    let step = OptimizerStep::new(1, 0.1);
    assert!(bind(adamw, buffers(), step).is_ok());
    assert!(
        bind(adamw.clipped(true).rounded(Some(F16)), buffers().clip(c.binding()).rounded(r.binding()), step)
            .is_ok()
    );
    let rate = |rate| OptimizerStep::new(1, rate);
    for (shape, buffers, step, words) in [
        (adamw, buffers(), OptimizerStep::new(0, 0.1), "step: need at least 1, got 0"),
        (adamw, buffers(), rate(-0.1), "learning_rate: need"),
        (adamw, buffers(), rate(f32::NAN), "learning_rate: need"),
        (adamw, buffers().parameters(short.binding()), step, "parameters: need 32 bytes"),
        (adamw, buffers().second(short.binding()), step, "second: need 32 bytes"),
        (adamw, buffers().first(None), step, "first: need a buffer"),
        (adamw, buffers().clip(c.binding()), step, "clip: need none"),
        (adamw.clipped(true), buffers(), step, "clip: need a buffer"),
        (adamw.rounded(Some(F16)), buffers(), step, "rounded: need a buffer"),
        (of(OptimizerRule::SGD), buffers(), step, "first: need none"),
        (
            adamw,
            buffers().gradient(p.binding()),
            step,
            "parameters: need a buffer other than that of gradient",
        ),
        (adamw, buffers().second(m.binding()), step, "second: need bytes apart from those of first"),
    ] {
        let message = bind(shape, buffers, step).unwrap_err().to_string();
        assert!(message.starts_with(words), "{words}: {message}");
    }
    let empty = OptimizerShape::new(0, OptimizerRule::ADAMW);
    assert_eq!(kernels().optimizer(&empty).unwrap().bind(buffers(), step).unwrap().dispatches(), 0);
    let plan = kernels().clip(&ClipShape::new(1.0).tensor(8, F32)).unwrap();
    let message = plan.bind(&[], c.binding()).unwrap_err().to_string();
    assert!(message.starts_with("tensors: need 1 tensors, got 0"), "{message}");
    let message = plan.bind(&[short.binding()], c.binding()).unwrap_err().to_string();
    assert!(message.starts_with("tensors: need 32 bytes"), "{message}");
    let message = plan.bind(&[p.binding()], p.binding()).unwrap_err().to_string();
    assert!(message.starts_with("clip: need a buffer other than that of tensors"), "{message}");
    assert!(gpu().kernels().clip(&ClipShape::new(1.0)).is_ok());
}
