//! Variants of `activation.wgsl` and `activation_backward.wgsl`.

use super::{Header, Shader, tensor};
use crate::{Activation, ActivationShape, ElementType};

/// All that tells one shader of an activation by itself from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ActivationVariant {
    /// Applied to x.
    pub activation: Activation,
    /// Whether act(x) is multiplied by a gate.
    pub gated: bool,
    /// What is computed.
    pub pass: ActivationPass,
    /// Storage of x, of the gate, and of their gradients.
    pub input: ElementType,
    /// Storage of out, and of its gradient.
    pub output: ElementType,
    /// The number of elements is a multiple of 4.
    pub aligned: bool,
}

/// What a shader of an activation computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ActivationPass {
    /// out.
    Forward,
    /// The gradients.
    Backward {
        /// By x.
        dx: bool,
        /// By the gate.
        dgate: bool,
    },
    /// The gradient by x over x itself, of f32; without a gate.
    OverArgument,
    /// The gradients and out, over f32 tensors that are read: without a gate dx over the gradient of out and out over x; with one dx
    /// over x, that of the gate over the gate, and out over its gradient.
    InPlace,
}

impl ActivationVariant {
    /// Elements of a workgroup: 64 lanes by 4.
    pub const PER_WORKGROUP: usize = 256;

    /// The variant for a shape; in place there are whole groups of 4.
    pub fn of(shape: &ActivationShape, pass: ActivationPass) -> Self {
        let ActivationShape { len, activation, gated, input, output } = *shape;
        let aligned = len.is_multiple_of(4) || pass == ActivationPass::InPlace;
        Self { activation, gated, pass, input, output, aligned }
    }

    /// The shader of this variant.
    pub fn shader(&self) -> Shader {
        let (entry, text) = match self.pass {
            ActivationPass::Forward => ("activate", include_str!("../../shaders/activation.wgsl")),
            _ => ("activate_backward", include_str!("../../shaders/activation_backward.wgsl")),
        };
        let tensors = match self.pass {
            ActivationPass::Forward => self.forward(),
            ActivationPass::Backward { dx, dgate } => self.backward(dx, dgate),
            ActivationPass::OverArgument => self.over_argument(),
            ActivationPass::InPlace => self.in_place(),
        };
        let mut files = vec![
            text,
            include_str!("../../shaders/lib/elements.wgsl"),
            include_str!("../../shaders/lib/activation.wgsl"),
            include_str!("../../shaders/lib/hyperbolic.wgsl"),
            include_str!("../../shaders/lib/nan.wgsl"),
        ];
        if self.pass != ActivationPass::Forward {
            files.push(include_str!("../../shaders/lib/slope.wgsl"));
        }
        files.extend(tensors.iter().map(String::as_str));
        Header::default()
            .u32s(&constants(Some(self.activation)))
            .bools(&[("GATED", self.gated), ("KEEPS_HIDDEN", self.pass == ActivationPass::InPlace)])
            .shader(self.label(), entry, &files)
    }

    /// x, gate and out.
    fn forward(&self) -> Vec<String> {
        vec![
            tensor::reads("x", self.input, self.aligned),
            tensor::reads_if(self.gated, "gate", self.input, self.aligned),
            tensor::writes(self.output, self.aligned),
        ]
    }

    /// x, gate, the gradient of out, and those that are written.
    fn backward(&self, dx: bool, dgate: bool) -> Vec<String> {
        let gradient = |name, wanted| match wanted {
            true => tensor::stores(name, self.input, self.aligned),
            false => not_stored(name),
        };
        vec![
            tensor::reads("x", self.input, self.aligned),
            tensor::reads_if(self.gated, "gate", self.input, self.aligned),
            tensor::reads("dout", self.output, self.aligned),
            gradient("dx", dx),
            gradient("dgate", dgate),
            not_stored("hidden"),
            tensor::narrow(self.input).to_owned(),
        ]
    }

    fn over_argument(&self) -> Vec<String> {
        vec![
            tensor::stores("x", ElementType::F32, self.aligned),
            tensor::reads("dout", self.output, self.aligned),
            tensor::reads_if(false, "gate", self.input, self.aligned),
            stored_over("dx", "x"),
            not_stored("dgate"),
            not_stored("hidden"),
        ]
    }

    fn in_place(&self) -> Vec<String> {
        let both = |name| tensor::stores(name, ElementType::F32, true);
        let mut texts = vec![both("x"), both("dout")];
        texts.extend(match self.gated {
            true => [
                both("gate"),
                stored_over("dx", "x"),
                stored_over("dgate", "gate"),
                stored_over("hidden", "dout"),
            ],
            false => [
                tensor::reads_if(false, "gate", self.input, true),
                stored_over("dx", "dout"),
                not_stored("dgate"),
                stored_over("hidden", "x"),
            ],
        });
        texts
    }

    fn label(&self) -> String {
        let pass = match self.pass {
            ActivationPass::Forward => "",
            ActivationPass::Backward { dx: true, dgate: false } => " backward dx",
            ActivationPass::Backward { dx: false, .. } => " backward dgate",
            ActivationPass::Backward { .. } => " backward dx dgate",
            ActivationPass::OverArgument => " backward over its argument",
            ActivationPass::InPlace => " backward in place",
        };
        let gated = if self.gated { " gated" } else { "" };
        let unaligned = if self.aligned { "" } else { " unaligned" };
        format!("activation {}{gated}{pass} {}->{}{unaligned}", self.activation, self.input, self.output)
    }

    /// A list in which every file and every flag's values occur.
    pub(super) fn representatives() -> Vec<Self> {
        use ActivationPass::{Forward, InPlace, OverArgument};
        use ElementType::{Bf16, F16, F32};
        let of = |activation, len, gated, [input, output]: [ElementType; 2]| {
            ActivationShape::new(len, activation).gated(gated).input(input).output(output)
        };
        let backward = |dx, dgate| ActivationPass::Backward { dx, dgate };
        let mut list = vec![];
        for (n, activation) in Activation::ALL.into_iter().enumerate() {
            let gated = n % 2 == 0;
            list.push(Self::of(&of(activation, 8, gated, [F32, F32]), Forward));
            list.push(Self::of(&of(activation, 8, gated, [F32, F32]), backward(true, gated)));
            list.push(Self::of(&of(activation, 8, gated, [F32, F32]), InPlace));
            list.push(Self::of(&of(activation, 8, !gated, [F32, F32]), InPlace));
            let output = [F32, F16, Bf16][n % 3];
            list.push(Self::of(&of(activation, 7 + n % 2, false, [F32, output]), OverArgument));
        }
        for (len, types) in [(8, [F16, Bf16]), (7, [Bf16, F16]), (7, [F32, F32])] {
            list.push(Self::of(&of(Activation::Silu, len, true, types), Forward));
            list.push(Self::of(&of(Activation::Silu, len, true, types), backward(true, true)));
            list.push(Self::of(&of(Activation::Silu, len, true, types), backward(false, true)));
        }
        list
    }
}

/// The text of a tensor that is written over another.
fn stored_over(name: &str, other: &str) -> String {
    let text = include_str!("../../shaders/tensor/stored_over.wgsl");
    text.replace("TENSOR", name).replace("OTHER", other)
}

/// The text of one that is not written.
fn not_stored(name: &str) -> String {
    include_str!("../../shaders/tensor/not_stored.wgsl").replace("TENSOR", name)
}

/// `ACTIVATION` and the names of its values, for `lib/activation.wgsl`.
pub(super) fn constants(activation: Option<Activation>) -> [(&'static str, usize); 8] {
    [
        ("RELU", Activation::Relu as usize),
        ("GELU_ERF", Activation::GeluErf as usize),
        ("GELU_TANH", Activation::GeluTanh as usize),
        ("SILU", Activation::Silu as usize),
        ("TANH", Activation::Tanh as usize),
        ("QUICK_GELU", Activation::QuickGelu as usize),
        ("MISH", Activation::Mish as usize),
        ("ACTIVATION", activation.map_or(Activation::ALL.len(), |activation| activation as usize)),
    ]
}
