//! Variants of the kernels over rows: `norm.wgsl`, `softmax.wgsl`, `add.wgsl`, `embed.wgsl`, `norm_backward.wgsl`,
//! `softmax_backward.wgsl`.

use super::{Header, Shader, tensor};
use crate::ElementType;

/// A kernel over rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RowKernel {
    /// `norm.wgsl`.
    Norm {
        /// Layer norm; else RMS norm.
        centered: bool,
        /// Whether a bias is added.
        bias: bool,
        /// Storage of weight and bias.
        weight: ElementType,
    },
    /// `softmax.wgsl`.
    Softmax,
    /// `add.wgsl`.
    Add {
        /// Storage of other.
        other: ElementType,
        /// Other is subtracted.
        subtract: bool,
        /// x is what out, of f32, holds.
        in_place: bool,
    },
    /// `embed.wgsl`.
    Embed {
        /// Rows are added to what out holds.
        into: bool,
    },
    /// `norm_backward.wgsl`: out is dx.
    NormBackward {
        /// Layer norm; else RMS norm.
        centered: bool,
        /// Storage of the weight.
        weight: ElementType,
        /// Storage of dout.
        dout: ElementType,
        /// dx, of f32, is added to what out holds.
        into: bool,
    },
    /// `softmax_backward.wgsl`: x is what the softmax gave, out is dx.
    SoftmaxBackward {
        /// Storage of dout.
        dout: ElementType,
        /// dx, of f32, is added to what out holds.
        into: bool,
    },
}

/// All that tells one shader over rows from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RowVariant {
    /// The kernel.
    pub kernel: RowKernel,
    /// Storage of x, or of the table.
    pub input: ElementType,
    /// Storage of out.
    pub output: ElementType,
    /// Every row of every tensor begins at, and has, a multiple of 4 elements.
    pub aligned: bool,
}

/// What a kernel has beside the tensors: its name and that of its tensors, its constants, its files.
struct Parts {
    entry: &'static str,
    label: String,
    header: Header,
    files: Vec<String>,
}

impl RowVariant {
    /// Lanes of a workgroup, as `lib/rows.wgsl` says.
    pub const LANES: usize = 64;

    /// The shader of this variant.
    pub fn shader(&self) -> Shader {
        let Parts { entry, label, header, files } = match self.kernel {
            RowKernel::Norm { centered, bias, weight } => self.norm(centered, bias, weight),
            RowKernel::NormBackward { centered, weight, dout, into } => {
                self.norm_backward(centered, weight, dout, into)
            }
            RowKernel::Softmax => self.softmax(),
            RowKernel::SoftmaxBackward { dout, into } => self.softmax_backward(dout, into),
            RowKernel::Add { other, subtract, in_place } => self.add(other, subtract, in_place),
            RowKernel::Embed { into } => self.embed(into),
        };
        let out = tensor::writes(self.output, self.aligned);
        // The entry comes first, and is read first.
        let mut all = vec![files[0].as_str()];
        all.push(include_str!("../../shaders/lib/row_params.wgsl"));
        all.push(include_str!("../../shaders/lib/rows.wgsl"));
        all.extend(files[1..].iter().map(String::as_str));
        all.push(&out);
        header.shader(label, entry, &all)
    }

    fn read(&self, name: &str, element: ElementType) -> String {
        tensor::reads(name, element, self.aligned)
    }

    /// The types of x and out.
    fn types(&self) -> String {
        format!("{}->{}{}", self.input, self.output, if self.aligned { "" } else { " unaligned" })
    }

    fn norm(&self, centered: bool, bias: bool, weight: ElementType) -> Parts {
        let (kind, types) = (if centered { "layer" } else { "rms" }, self.types());
        Parts {
            entry: "norm",
            label: format!("norm {kind} {types} weight {weight}{}", if bias { " bias" } else { "" }),
            header: Header::default().bools(&[("CENTERED", centered), ("HAS_BIAS", bias)]),
            files: vec![
                include_str!("../../shaders/norm.wgsl").into(),
                include_str!("../../shaders/lib/norm_view.wgsl").into(),
                include_str!("../../shaders/lib/largest.wgsl").into(),
                include_str!("../../shaders/lib/nan.wgsl").into(),
                self.read("x", self.input),
                self.read("weight", weight),
                tensor::reads_if(bias, "bias", weight, self.aligned),
            ],
        }
    }

    fn norm_backward(&self, centered: bool, weight: ElementType, dout: ElementType, into: bool) -> Parts {
        let (kind, types) = (if centered { "layer" } else { "rms" }, self.types());
        let into_label = if into { " into" } else { "" };
        Parts {
            entry: "norm_backward",
            label: format!("norm backward {kind} {types} weight {weight} dout {dout}{into_label}"),
            header: Header::default().bools(&[("CENTERED", centered), ("INTO", into)]),
            files: vec![
                include_str!("../../shaders/norm_backward.wgsl").into(),
                include_str!("../../shaders/lib/norm_view.wgsl").into(),
                include_str!("../../shaders/lib/norm_record.wgsl").into(),
                include_str!("../../shaders/lib/largest.wgsl").into(),
                include_str!("../../shaders/lib/nan.wgsl").into(),
                self.read("x", self.input),
                self.read("weight", weight),
                self.read("dout", dout),
            ],
        }
    }

    fn softmax(&self) -> Parts {
        Parts {
            entry: "softmax",
            label: format!("softmax {}", self.types()),
            header: Header::default(),
            files: vec![
                include_str!("../../shaders/softmax.wgsl").into(),
                include_str!("../../shaders/lib/row_softmax.wgsl").into(),
                tensor::row_maximum("x"),
                include_str!("../../shaders/lib/nan.wgsl").into(),
                self.read("x", self.input),
            ],
        }
    }

    fn softmax_backward(&self, dout: ElementType, into: bool) -> Parts {
        let into_label = if into { " into" } else { "" };
        Parts {
            entry: "softmax_backward",
            label: format!("softmax backward {} dout {dout}{into_label}", self.types()),
            header: Header::default().bools(&[("INTO", into)]),
            files: vec![
                include_str!("../../shaders/softmax_backward.wgsl").into(),
                self.read("x", self.input),
                self.read("dout", dout),
            ],
        }
    }

    fn add(&self, other: ElementType, subtract: bool, in_place: bool) -> Parts {
        let name = if subtract { "subtract" } else { "add" };
        let in_place_label = if in_place { " in place" } else { "" };
        Parts {
            entry: "add",
            label: format!("{name} {} other {other}{in_place_label}", self.types()),
            header: Header::default().bools(&[("SUBTRACT", subtract), ("IN_PLACE", in_place)]),
            files: vec![
                include_str!("../../shaders/add.wgsl").into(),
                tensor::reads_if(!in_place, "x", self.input, self.aligned),
                self.read("other", other),
            ],
        }
    }

    fn embed(&self, into: bool) -> Parts {
        Parts {
            entry: "embed",
            label: format!("embed {}{}", self.types(), if into { " into" } else { "" }),
            header: Header::default().bools(&[("INTO", into)]),
            files: vec![include_str!("../../shaders/embed.wgsl").into(), self.read("table", self.input)],
        }
    }

    /// A list in which every file and every flag's values occur.
    pub(super) fn representatives() -> Vec<Self> {
        use ElementType::{Bf16, F16, F32};
        let mut list = vec![];
        for (input, output, aligned) in
            [(F32, F32, true), (F16, F32, false), (Bf16, F16, true), (F32, Bf16, false)]
        {
            let (centered, into) = (aligned, output == F32);
            for kernel in [
                RowKernel::Norm { centered, bias: output == F32, weight: input },
                RowKernel::Softmax,
                RowKernel::Add { other: output, subtract: !aligned, in_place: input == F32 && into },
                RowKernel::Embed { into },
                RowKernel::NormBackward { centered, weight: input, dout: output, into },
                RowKernel::SoftmaxBackward { dout: output, into },
            ] {
                list.push(Self { kernel, input, output, aligned });
            }
        }
        list
    }
}
