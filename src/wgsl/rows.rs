//! Variants of the kernels over rows: `norm.wgsl`, `softmax.wgsl`, `add.wgsl`, `embed.wgsl`.

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
    },
    /// `embed.wgsl`.
    Embed {
        /// Rows are added to what out holds.
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
    /// Every row of every tensor begins at a multiple of 4 elements and is one long.
    pub aligned: bool,
}

impl RowVariant {
    /// Lanes of a workgroup, as `lib/rows.wgsl` says.
    pub const LANES: usize = 64;

    /// The shader of this variant.
    pub fn shader(&self) -> Shader {
        let read = |name, element| tensor::reads(name, element, self.aligned);
        let out = tensor::writes(self.output, self.aligned);
        let params = include_str!("../../shaders/lib/row_params.wgsl");
        let rows = include_str!("../../shaders/lib/rows.wgsl");
        let nan = include_str!("../../shaders/lib/nan.wgsl");
        let unaligned = if self.aligned { "" } else { " unaligned" };
        let types = format!("{}->{}{unaligned}", self.input, self.output);
        match self.kernel {
            RowKernel::Norm { centered, bias, weight } => {
                let kind = if centered { "layer" } else { "rms" };
                let label = format!("norm {kind} {types} weight {weight}{}", if bias { " bias" } else { "" });
                let header = Header::default().bools(&[("CENTERED", centered), ("HAS_BIAS", bias)]);
                let entry = include_str!("../../shaders/norm.wgsl");
                let tensors = [
                    read("x", self.input),
                    read("weight", weight),
                    tensor::reads_if(bias, "bias", weight, self.aligned),
                ];
                let largest = include_str!("../../shaders/lib/largest.wgsl");
                let files = [entry, params, rows, largest, nan, &tensors[0], &tensors[1], &tensors[2], &out];
                header.shader(label, "norm", &files)
            }
            RowKernel::Softmax => {
                let entry = include_str!("../../shaders/softmax.wgsl");
                let softmax = include_str!("../../shaders/lib/row_softmax.wgsl");
                let files = [entry, params, rows, softmax, nan, &read("x", self.input), &out];
                Header::default().shader(format!("softmax {types}"), "softmax", &files)
            }
            RowKernel::Add { other } => {
                let entry = include_str!("../../shaders/add.wgsl");
                let files = [entry, params, rows, &read("x", self.input), &read("other", other), &out];
                Header::default().shader(format!("add {types} other {other}"), "add", &files)
            }
            RowKernel::Embed { into } => {
                let entry = include_str!("../../shaders/embed.wgsl");
                let label = format!("embed {types}{}", if into { " into" } else { "" });
                let files = [entry, params, rows, &read("table", self.input), &out];
                Header::default().bools(&[("INTO", into)]).shader(label, "embed", &files)
            }
        }
    }

    /// A list in which every file and every flag's values occur.
    pub(super) fn representatives() -> Vec<Self> {
        use ElementType::{Bf16, F16, F32};
        let mut list = vec![];
        for (input, output, aligned) in
            [(F32, F32, true), (F16, F32, false), (Bf16, F16, true), (F32, Bf16, false)]
        {
            let add = |kernel| Self { kernel, input, output, aligned };
            list.push(add(RowKernel::Norm { centered: aligned, bias: output == F32, weight: input }));
            list.push(add(RowKernel::Softmax));
            list.push(add(RowKernel::Add { other: output }));
            list.push(add(RowKernel::Embed { into: output == F32 }));
        }
        list
    }
}
