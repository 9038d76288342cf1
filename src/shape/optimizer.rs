//! What a step of an optimizer computes, and the norm that its gradients are clipped by.

use crate::layout::check_u32;
use crate::{ElementType, Error, Result};

/// How parameters follow their gradient g; t counts steps from 1 on, lr is the learning rate of the step.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum OptimizerRule {
    /// Stochastic gradient descent with momentum (Sutskever 2013), as `torch.optim.SGD` without dampening:
    ///
    /// ```text
    /// g += weight_decay p
    /// b  = momentum b + g                                        b = g in the first step
    /// p -= lr (g + momentum b)                                   with nesterov; else p -= lr b
    /// ```
    Sgd {
        /// How much of b stays: at least 0, below 1. With 0 there is no b.
        momentum: f32,
        /// Whether the step looks ahead (Nesterov); needs a momentum.
        nesterov: bool,
        /// Added to the gradient, times the parameter: at least 0.
        weight_decay: f32,
    },
    /// Adam with decoupled weight decay (Loshchilov 2019, algorithm 2), as `torch.optim.AdamW`:
    ///
    /// ```text
    /// p *= 1 - lr weight_decay
    /// m  = beta1 m + (1 - beta1) g                               m = v = 0 before the first step
    /// v  = beta2 v + (1 - beta2) g^2
    /// p -= lr / (1 - beta1^t) m / (sqrt(v) / sqrt(1 - beta2^t) + eps)
    /// ```
    AdamW {
        /// How much of m stays: at least 0, below 1.
        beta1: f32,
        /// How much of v stays: at least 0, below 1.
        beta2: f32,
        /// Added to the root of v: a normal number above 0.
        eps: f32,
        /// How much of the parameters a step of lr 1 takes: at least 0.
        weight_decay: f32,
    },
}

impl OptimizerRule {
    /// Plain gradient descent.
    pub const SGD: Self = Self::Sgd { momentum: 0.0, nesterov: false, weight_decay: 0.0 };
    /// AdamW as PyTorch has it by default.
    pub const ADAMW: Self = Self::AdamW { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01 };

    /// Whether there is a first state: SGD's b, Adam's m.
    pub fn has_first(&self) -> bool {
        !matches!(self, Self::Sgd { momentum: 0.0, .. })
    }

    /// Whether there is a second state: Adam's v.
    pub fn has_second(&self) -> bool {
        matches!(self, Self::AdamW { .. })
    }

    fn check(&self) -> Result<()> {
        match *self {
            Self::Sgd { momentum, nesterov, weight_decay } => {
                check_share("momentum", momentum)?;
                if nesterov && momentum == 0.0 {
                    return Err(Error::argument("nesterov", "a momentum above 0", "a momentum of 0"));
                }
                check_size("weight_decay", weight_decay)
            }
            Self::AdamW { beta1, beta2, eps, weight_decay } => {
                check_share("beta1", beta1)?;
                check_share("beta2", beta2)?;
                // A device may take a subnormal for 0.
                if !(eps.is_normal() && eps > 0.0) {
                    return Err(Error::argument("eps", "a normal number above 0", eps));
                }
                check_size("weight_decay", weight_decay)
            }
        }
    }
}

fn check_share(name: &'static str, share: f32) -> Result<()> {
    match (0.0..1.0).contains(&share) && (share == 0.0 || share.is_normal()) {
        true => Ok(()),
        false => Err(Error::argument(name, "0, or a normal number below 1", share)),
    }
}

fn check_size(name: &'static str, size: f32) -> Result<()> {
    match size == 0.0 || (size.is_normal() && size > 0.0) {
        true => Ok(()),
        false => Err(Error::argument(name, "0, or a normal number above 0", size)),
    }
}

/// One step of an optimizer over flat f32 parameters `[len]`, with states of the same size.
///
/// Rounded parameters are a copy in 16 bits, for a model that computes in them: the f32 ones are then its master weights
/// (Micikevicius 2018). The gradient may be multiplied by a factor that the device has computed ([`ClipShape`]).
/// A gradient that is NaN makes its parameter and its states NaN. Squares of a gradient past 1.8e19 leave f32: clip it.
///
/// ```
/// use wgpu_attention::{ElementType, OptimizerRule, OptimizerShape};
/// let shape = OptimizerShape::new(1000, OptimizerRule::ADAMW).gradient(ElementType::Bf16).clipped(true);
/// assert!(shape.check().is_ok());
/// let rule = OptimizerRule::Sgd { momentum: 0.0, nesterov: true, weight_decay: 0.0 };
/// assert!(OptimizerShape::new(8, rule).check().unwrap_err().to_string().starts_with("nesterov"));
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct OptimizerShape {
    /// Parameters. May be 0: then nothing is written.
    pub len: usize,
    /// How they follow the gradient.
    pub rule: OptimizerRule,
    /// Storage of the gradient.
    pub gradient: ElementType,
    /// Storage of the rounded copy, f16 or bf16, if there is one.
    pub rounded: Option<ElementType>,
    /// Whether the gradient is multiplied by the factor of a [`ClipPlan`](crate::ClipPlan).
    pub clipped: bool,
}

impl OptimizerShape {
    /// f32 gradients, no copy, no clipping.
    pub fn new(len: usize, rule: OptimizerRule) -> Self {
        Self { len, rule, gradient: ElementType::F32, rounded: None, clipped: false }
    }

    setters! {
        /// Sets how parameters follow the gradient.
        rule: OptimizerRule,
        /// Sets the storage of the gradient.
        gradient: ElementType,
        /// Sets the storage of the rounded copy.
        rounded: Option<ElementType>,
        /// Sets whether the gradient is clipped.
        clipped: bool,
    }

    /// Checks everything that can be said without a device.
    ///
    /// # Errors
    /// [`Error::Argument`] for a number of the rule outside its range, a copy in f32;
    /// [`Error::Limit`] where an element offset would pass 32 bits.
    pub fn check(&self) -> Result<()> {
        self.rule.check()?;
        if self.rounded == Some(ElementType::F32) {
            return Err(Error::argument("rounded", "f16 or bf16: the parameters are f32", ElementType::F32));
        }
        // Whole workgroups of 64 lanes by 4 elements.
        check_u32("len", self.len as u128 + 255)
    }
}

/// Which step it is: what changes from one to the next, and nothing is planned for.
///
/// ```
/// use wgpu_attention::OptimizerStep;
/// assert!(OptimizerStep::new(1, 3e-4).check().is_ok());
/// assert!(OptimizerStep::new(0, 3e-4).check().unwrap_err().to_string().starts_with("step: need at least 1"));
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct OptimizerStep {
    /// Steps so far, with this one: 1 for the first, which reads no state.
    pub step: u32,
    /// The learning rate: at least 0.
    pub learning_rate: f32,
}

impl OptimizerStep {
    /// Step number `step`, counted from 1 on.
    pub fn new(step: u32, learning_rate: f32) -> Self {
        Self { step, learning_rate }
    }

    /// Checks the numbers.
    ///
    /// # Errors
    /// [`Error::Argument`] for a `step` of 0, a `learning_rate` that is negative or neither normal nor 0.
    pub fn check(&self) -> Result<()> {
        if self.step == 0 {
            return Err(Error::argument("step", "at least 1", 0));
        }
        check_size("learning_rate", self.learning_rate)
    }

    /// lr / (1 - beta1^t).
    pub(crate) fn adam_rate(&self, beta1: f32) -> f64 {
        f64::from(self.learning_rate) / (1.0 - f64::from(beta1).powf(self.step.into()))
    }

    /// 1 / sqrt(1 - beta2^t).
    pub(crate) fn adam_root(&self, beta2: f32) -> f64 {
        (1.0 - f64::from(beta2).powf(self.step.into())).sqrt().recip()
    }

    /// 1 - lr weight_decay.
    pub(crate) fn kept(&self, weight_decay: f32) -> f64 {
        1.0 - f64::from(self.learning_rate) * f64::from(weight_decay)
    }
}

/// The norm of all gradients together, and the factor that brings it to at most `max_norm`, both left on the device:
///
/// ```text
/// norm   = sqrt( sum over all elements of all tensors of g^2 )
/// factor = min(1, max_norm / (norm + 1e-6))
/// ```
///
/// as `torch.nn.utils.clip_grad_norm_` has it. Sums have a fixed order: the same call twice gives the same bits. Squares that leave f32 are
/// those of scaled elements: any gradients that f32 holds come out right. A norm past
/// f32 is infinite, and its factor right all the same. A NaN or an infinity makes both NaN.
///
/// ```
/// use wgpu_attention::{ClipShape, ElementType};
/// let shape = ClipShape::new(1.0).tensor(768 * 3072, ElementType::Bf16).tensor(3072, ElementType::F32);
/// assert_eq!(shape.partials(), 289);
/// assert!(ClipShape::new(0.0).check().unwrap_err().to_string().starts_with("max_norm"));
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ClipShape {
    /// The largest norm that stays: a normal number above 0.
    pub max_norm: f32,
    /// Elements and storage of each tensor.
    pub tensors: Vec<(usize, ElementType)>,
}

impl ClipShape {
    /// Elements that a workgroup adds up.
    pub(crate) const CHUNK: usize = 8192;

    /// No tensor yet: a norm of 0.
    pub fn new(max_norm: f32) -> Self {
        Self { max_norm, tensors: vec![] }
    }

    /// With one more tensor.
    pub fn tensor(mut self, len: usize, element: ElementType) -> Self {
        self.tensors.push((len, element));
        self
    }

    /// Partial sums, 8 bytes of scratch each.
    pub fn partials(&self) -> usize {
        self.tensors.iter().map(|(len, _)| len.div_ceil(Self::CHUNK)).sum()
    }

    /// Checks everything that can be said without a device.
    ///
    /// # Errors
    /// [`Error::Argument`] for a `max_norm` that is not a normal number above 0; [`Error::Limit`] where an element offset would
    /// pass 32 bits.
    pub fn check(&self) -> Result<()> {
        if !(self.max_norm.is_normal() && self.max_norm > 0.0) {
            return Err(Error::argument("max_norm", "a normal number above 0", self.max_norm));
        }
        for (len, _) in &self.tensors {
            check_u32("tensor", *len as u128 + Self::CHUNK as u128)?;
        }
        check_u32("partials", self.partials() as u128)
    }
}
