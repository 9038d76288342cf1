//! A step of an optimizer, and the norm that its gradients are clipped by.

use super::running::Running;
use super::{Bounded, TINY, U, ULP, check_len, check_optional, gamma};
use crate::{ClipShape, ElementType, OptimizerRule, OptimizerShape, OptimizerStep, Result};

/// What a step reads, each `[len]`.
#[derive(Debug, Clone, Copy)]
pub struct OptimizerInputs<'a> {
    /// The parameters.
    pub parameters: &'a Bounded,
    /// Their gradient.
    pub gradient: &'a Bounded,
    /// SGD's b or AdamW's m, if the rule has it; the first step does not read it.
    pub first: Option<&'a Bounded>,
    /// AdamW's v.
    pub second: Option<&'a Bounded>,
    /// Norm and factor, as [`clip`] gives them, if the shape is clipped.
    pub clip: Option<&'a Bounded>,
}

/// What a step leaves, and how far a kernel's may be from it.
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub struct OptimizerBounded {
    /// The parameters.
    pub parameters: Bounded,
    /// The first state; empty where the rule has none.
    pub first: Bounded,
    /// The second state; empty where the rule has none.
    pub second: Bounded,
    /// The copy; empty where the shape has none.
    pub rounded: Bounded,
}

/// A step of an optimizer, by the formulas of [`OptimizerRule`], each operation with the error that WGSL leaves it (running error
/// analysis, Wilkinson): u for sums and products, 2.5 E for a quotient, 5 E for a root, which may be one of 2^-126 where v is less.
///
/// # Errors
/// [`Error::Argument`](crate::Error::Argument) for a tensor that is too short, missing or not asked for, and as
/// [`OptimizerShape::check`] and [`OptimizerStep::check`].
///
/// ```
/// use wgpu_attention::{OptimizerRule, OptimizerShape, OptimizerStep};
/// use wgpu_attention::reference::layer::{Bounded, OptimizerInputs, optimizer};
/// let (parameters, gradient) = (Bounded::exact(&[1.0f32]), Bounded::exact(&[0.5f32]));
/// let inputs = OptimizerInputs { parameters: &parameters, gradient: &gradient, first: None, second: None, clip: None };
/// let y = optimizer(&OptimizerShape::new(1, OptimizerRule::SGD), OptimizerStep::new(1, 0.5), &inputs)?;
/// assert_eq!(y.parameters.out, [0.75]);
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
pub fn optimizer(
    shape: &OptimizerShape,
    step: OptimizerStep,
    inputs: &OptimizerInputs<'_>,
) -> Result<OptimizerBounded> {
    shape.check()?;
    step.check()?;
    let len = shape.len;
    check_len("parameters", inputs.parameters, len)?;
    check_len("gradient", inputs.gradient, len)?;
    check_optional("first", inputs.first, shape.rule.has_first(), len)?;
    check_optional("second", inputs.second, shape.rule.has_second(), len)?;
    check_optional("clip", inputs.clip, shape.clipped, 2)?;
    let at = |tensor: &Bounded, n: usize| Running { value: tensor.out[n], error: tensor.bound[n] };
    let state = |tensor: Option<&Bounded>, n| match tensor {
        Some(tensor) if step.step > 1 => at(tensor, n),
        _ => Running::exact(0.0),
    };
    let mut all = OptimizerBounded::default();
    for n in 0..len {
        let (p, mut g) = (at(inputs.parameters, n), at(inputs.gradient, n));
        if let Some(clip) = inputs.clip {
            g = g * at(clip, 1);
        }
        let (first, second) = (state(inputs.first, n), state(inputs.second, n));
        let [p, first, second] = stepped(&shape.rule, step, p, g, [first, second]);
        push(&mut all.parameters, p);
        if shape.rule.has_first() {
            push(&mut all.first, first);
        }
        if shape.rule.has_second() {
            push(&mut all.second, second);
        }
    }
    if let Some(element) = shape.rounded {
        all.rounded = all.parameters.clone().stored(element);
    }
    for tensor in [&mut all.parameters, &mut all.first, &mut all.second] {
        *tensor = std::mem::take(tensor).stored(ElementType::F32);
    }
    Ok(all)
}

fn push(tensor: &mut Bounded, number: Running) {
    tensor.out.push(number.value);
    tensor.bound.push(number.error);
}

/// Parameter and states behind the step.
fn stepped(
    rule: &OptimizerRule,
    step: OptimizerStep,
    p: Running,
    g: Running,
    [first, second]: [Running; 2],
) -> [Running; 3] {
    match *rule {
        OptimizerRule::Sgd { momentum, nesterov, weight_decay } => {
            let momentum = Running::exact(momentum);
            let g = Running::exact(weight_decay) * p + g;
            let b = momentum * first + g;
            let change = if nesterov { momentum * b + g } else { b };
            [Running::exact(-step.learning_rate) * change + p, b, second]
        }
        OptimizerRule::AdamW { beta1, beta2, eps, weight_decay } => {
            let new = |beta: f32| Running::rounded(1.0 - f64::from(beta));
            let m = Running::exact(beta1) * first + new(beta1) * g;
            let v = Running::exact(beta2) * second + new(beta2) * g * g;
            let size = v.root() * Running::rounded(step.adam_root(beta2)) + Running::exact(eps);
            let change = Running::rounded(-step.adam_rate(beta1)) * (m / size);
            [change + Running::rounded(step.kept(weight_decay)) * p, m, v]
        }
    }
}

/// The norm of several tensors together and the factor that clips it, `[2]`, by the formulas of [`ClipShape`].
///
/// Chunks of 8,192 elements are added up by 64 lanes, then chunks likewise; with C of them at most K = 44 + min(32, C / 64) + C / 2048 + 8
/// roundings meet in a term, of which a root takes half. Elements that a kernel may have otherwise, by dx, move the norm by their own
/// norm at most. What is flushed is below 2^-100 of the largest square.
///
/// # Errors
/// [`Error::Argument`](crate::Error::Argument) for another number of tensors or one that is too short, and as [`ClipShape::check`].
///
/// ```
/// use wgpu_attention::{ClipShape, ElementType::F32, reference::layer::{Bounded, clip}};
/// let shape = ClipShape::new(1.0).tensor(1, F32).tensor(1, F32);
/// let y = clip(&shape, &[&Bounded::exact(&[3.0f32]), &Bounded::exact(&[4.0f32])])?;
/// assert!(y.out[0] == 5.0 && (y.out[1] - 0.2).abs() < 1e-6);
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
pub fn clip(shape: &ClipShape, tensors: &[&Bounded]) -> Result<Bounded> {
    shape.check()?;
    let need = shape.tensors.len();
    if tensors.len() != need {
        return Err(crate::Error::argument("tensors", format!("{need} tensors"), tensors.len()));
    }
    let (mut squares, mut of_squares) = (0.0, 0.0);
    for (tensor, (len, _)) in tensors.iter().zip(&shape.tensors) {
        check_len("tensors", tensor, *len)?;
        squares += tensor.out[..*len].iter().map(|x| x * x).sum::<f64>();
        of_squares += tensor.bound[..*len].iter().map(|dx| dx * dx).sum::<f64>();
    }
    if !squares.is_finite() {
        return Ok(Bounded { out: vec![f64::NAN; 2], bound: vec![0.0; 2] });
    }
    let chunks = shape.partials();
    let roundings = 52 + chunks.div_ceil(64).min(32) + chunks.div_ceil(2048);
    let (norm, passed) = (squares.sqrt(), of_squares.sqrt());
    let relative = (0.5 + U) * gamma(roundings) + 6.0 * ULP + 2f64.powi(-50);
    let error = passed + relative * (norm + passed) + TINY;
    let max_norm = f64::from(shape.max_norm);
    let factor = |norm: f64| (max_norm / (norm + 1e-6)).min(1.0);
    // The quotient is at most 1 and monotonous in the norm; a sum, a constant and a division round it.
    let (least, most) = (factor(norm + error), factor((norm - error).max(0.0)));
    let own = (2.5 * ULP + 3.0 * U) * factor(norm);
    let of_factor = (most - factor(norm)).max(factor(norm) - least) + own + 2.0 * TINY;
    let all = Bounded { out: vec![norm, factor(norm)], bound: vec![error, of_factor] };
    Ok(all.stored(ElementType::F32))
}
