//! Variants of the kernels of integers: `quantize.wgsl` and what comes before it, `dequantize.wgsl`, `integer_matmul.wgsl`; and the
//! weights of `matmul.wgsl` as integers.

use super::{Header, Shader, tensor};
use crate::ElementType;
use crate::integers::{
    IntegerFormat, IntegerMatmulShape, IntegerOutput, IntegerType, QuantizeRule, QuantizeShape, ScaleGroups,
};

/// Lanes of a workgroup of the kernels that make integers, or numbers of them.
#[cfg(feature = "gpu")]
pub(crate) const INTEGER_LANES: usize = 64;

/// The constants of `integers/scales.wgsl`.
fn scale_constants(groups: ScaleGroups) -> [(&'static str, usize); 4] {
    let (kind, size) = match groups {
        ScaleGroups::Tensor => (0, 1),
        ScaleGroups::Rows => (1, 1),
        ScaleGroups::Groups(size) => (2, size),
    };
    [("BY_TENSOR", 0), ("BY_ROWS", 1), ("SCALES", kind), ("GROUP", size)]
}

/// The text that defines `zero_point_of_NAME`.
fn zero_points(name: &str, given: bool) -> String {
    let text = match given {
        true => include_str!("../../shaders/integers/zero_points.wgsl"),
        false => include_str!("../../shaders/integers/no_zero_points.wgsl"),
    };
    text.replace("TENSOR", name)
}

/// B as integers of this format, whose rows are whole words or not: the header's constants.
pub(super) fn weight_constants(header: Header, format: IntegerFormat, whole_rows: bool) -> Header {
    header
        .u32s(&scale_constants(format.groups))
        .bools(&[("SIGNED_b", format.element.is_signed()), ("WHOLE_ROWS", whole_rows)])
}

/// The text that defines `b_along_k` of such a B.
pub(super) fn weights(format: IntegerFormat) -> String {
    let fours = match format.element.bits() {
        8 => include_str!("../../shaders/integers/in_8.wgsl"),
        _ => include_str!("../../shaders/integers/in_4.wgsl"),
    };
    [
        include_str!("../../shaders/product/integers.wgsl"),
        include_str!("../../shaders/integers/scales.wgsl"),
        &fours.replace("TENSOR", "b"),
        &zero_points("b", format.zero_points),
    ]
    .join("\n")
}

/// A pass over numbers that become integers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum QuantizePass {
    /// `quantize/extremes.wgsl`: the extremes of parts of what shares a scale.
    Extremes,
    /// `quantize/scales.wgsl`: scales and zero points of them.
    Scales,
    /// `quantize.wgsl`: the integers.
    Integers,
}

/// All that tells one of these shaders from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct QuantizeVariant {
    /// What is computed.
    pub pass: QuantizePass,
    /// What is made.
    pub format: IntegerFormat,
    /// The rule is symmetric.
    pub symmetric: bool,
    /// x is multiplied by 1 / scale, not divided by it.
    pub multiplies: bool,
    /// Storage of x.
    pub input: ElementType,
    /// Every row of x begins at a multiple of 4 elements.
    pub aligned: bool,
}

impl QuantizeVariant {
    /// The variant of a shape's pass.
    pub fn of(shape: &QuantizeShape, pass: QuantizePass) -> Self {
        Self {
            pass,
            format: shape.format,
            symmetric: shape.rule == QuantizeRule::Symmetric,
            multiplies: shape.multiplies(),
            input: shape.input,
            aligned: shape.inner.is_multiple_of(4),
        }
    }

    /// The shader of this variant.
    pub fn shader(&self) -> Shader {
        let params = include_str!("../../shaders/quantize/params.wgsl");
        let order = include_str!("../../shaders/quantize/order.wgsl");
        let x = tensor::reads("x", self.input, self.aligned);
        let unaligned = if self.aligned { "" } else { " unaligned" };
        let header = Header::default();
        match self.pass {
            QuantizePass::Extremes => {
                let files = [include_str!("../../shaders/quantize/extremes.wgsl"), params, order, &x];
                let label = format!("quantize extremes {}{unaligned}", self.input);
                header.shader(label, "quantize_extremes", &files)
            }
            QuantizePass::Scales => {
                let (name, rule) = match self.symmetric {
                    true => ("symmetric", include_str!("../../shaders/quantize/symmetric.wgsl")),
                    false => ("range", include_str!("../../shaders/quantize/range.wgsl")),
                };
                let scales = include_str!("../../shaders/quantize/scales.wgsl");
                let nan = include_str!("../../shaders/lib/nan.wgsl");
                let files = [scales, params, rule, order, nan];
                header.shader(format!("quantize scales {name}"), "quantize_scales", &files)
            }
            QuantizePass::Integers => {
                let at = include_str!("../../shaders/integers/scales.wgsl");
                let zeros = zero_points("x", self.format.zero_points);
                let files = [include_str!("../../shaders/quantize.wgsl"), params, at, &zeros, &x];
                let how = if self.multiplies { " reciprocal" } else { "" };
                // Signs are bits like others.
                let label = format!("quantize {}->{}{how}{unaligned}", self.input, self.format);
                header
                    .u32s(&scale_constants(self.format.groups))
                    .u32s(&[("BITS", self.format.element.bits())])
                    .bools(&[("MULTIPLIES", self.multiplies)])
                    .shader(label, "quantize", &files)
            }
        }
    }

    /// A list in which every file and every flag's values occur.
    fn representatives() -> Vec<Self> {
        use ElementType::{Bf16, F16, F32};
        let symmetric = |element, groups, inner, input| {
            let format = IntegerFormat::new(element).groups(groups);
            QuantizeShape::new(8, inner, format, QuantizeRule::Symmetric).input(input)
        };
        let range = |element, groups, inner, rule| {
            let format = IntegerFormat::new(element).groups(groups).zero_points(true);
            QuantizeShape::new(8, inner, format, rule)
        };
        let given = IntegerFormat::new(IntegerType::I8);
        let shapes = [
            symmetric(IntegerType::I8, ScaleGroups::Rows, 64, F32),
            symmetric(IntegerType::I8, ScaleGroups::Groups(32), 64, F16),
            symmetric(IntegerType::I4, ScaleGroups::Groups(128), 128, Bf16),
            symmetric(IntegerType::I8, ScaleGroups::Tensor, 7, F32),
            range(IntegerType::U8, ScaleGroups::Tensor, 64, QuantizeRule::Range),
            range(IntegerType::U8, ScaleGroups::Rows, 7, QuantizeRule::ReducedRange { bits: 7 }),
            range(IntegerType::U4, ScaleGroups::Groups(64), 64, QuantizeRule::Range),
            QuantizeShape::new(8, 64, given, QuantizeRule::Given),
        ];
        let passes = [QuantizePass::Extremes, QuantizePass::Scales, QuantizePass::Integers];
        shapes.iter().flat_map(|shape| passes.map(|pass| Self::of(shape, pass))).collect()
    }
}

/// All that tells one shader of `dequantize.wgsl` from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DequantizeVariant {
    /// What is read.
    pub format: IntegerFormat,
    /// Storage of the numbers.
    pub output: ElementType,
    /// Every row of them begins at a multiple of 4 elements.
    pub aligned: bool,
}

impl DequantizeVariant {
    /// The shader of this variant.
    pub fn shader(&self) -> Shader {
        let unaligned = if self.aligned { "" } else { " unaligned" };
        let label = format!("dequantize {}->{}{unaligned}", self.format, self.output);
        let files = [
            include_str!("../../shaders/dequantize.wgsl"),
            &weights(self.format),
            &tensor::writes(self.output, self.aligned),
        ];
        weight_constants(Header::default(), self.format, self.aligned).shader(label, "dequantize", &files)
    }

    fn representatives() -> Vec<Self> {
        use ElementType::{Bf16, F16, F32};
        let of = |element, groups, zero_points, output, aligned| {
            let format = IntegerFormat::new(element).groups(groups).zero_points(zero_points);
            Self { format, output, aligned }
        };
        vec![
            of(IntegerType::I8, ScaleGroups::Rows, false, F32, true),
            of(IntegerType::U8, ScaleGroups::Tensor, true, F32, false),
            of(IntegerType::I4, ScaleGroups::Groups(32), false, F16, true),
            of(IntegerType::U4, ScaleGroups::Groups(64), true, Bf16, true),
        ]
    }
}

/// All that tells one shader of `integer_matmul.wgsl` from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct IntegerMatmulVariant {
    /// Format of A.
    pub a: IntegerFormat,
    /// Format of B.
    pub b: IntegerFormat,
    /// Storage of scaled sums; of others what they become.
    pub end: IntegerEnd,
    /// Whether a bias is added.
    pub bias: bool,
    /// Every row of out begins at a multiple of 4 elements.
    pub aligned: bool,
}

/// What becomes of the sums of `integer_matmul.wgsl`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum IntegerEnd {
    /// `integers/sums.wgsl`.
    Sums,
    /// `integers/scaled.wgsl`, in this storage.
    Scaled(ElementType),
    /// `integers/requantized.wgsl`, as such bytes.
    Requantized(IntegerType),
}

impl IntegerMatmulVariant {
    /// Rows, and columns, of a workgroup.
    pub const SIDE: usize = 32;

    /// The variant for a shape.
    pub fn of(shape: &IntegerMatmulShape) -> Self {
        let end = match shape.output {
            IntegerOutput::Sums => IntegerEnd::Sums,
            IntegerOutput::Scaled(element) => IntegerEnd::Scaled(element),
            IntegerOutput::Requantized { element, .. } => IntegerEnd::Requantized(element),
        };
        let aligned = shape.columns.is_multiple_of(4);
        Self { a: shape.a, b: shape.b, end, bias: shape.bias, aligned }
    }

    /// The shader of this variant.
    pub fn shader(&self) -> Shader {
        let of_rows = |format: IntegerFormat| format.groups == ScaleGroups::Rows;
        let header = Header::default().bools(&[
            ("SIGNED_a", self.a.element.is_signed()),
            ("SIGNED_b", self.b.element.is_signed()),
            ("ROWS_OF_a", of_rows(self.a)),
            ("ROWS_OF_b", of_rows(self.b)),
        ]);
        let mut files = vec![
            include_str!("../../shaders/integer_matmul.wgsl").to_owned(),
            zero_points("a", self.a.zero_points),
            zero_points("b", self.b.zero_points),
        ];
        let factors = include_str!("../../shaders/integers/factors.wgsl");
        let header = match self.end {
            IntegerEnd::Sums => {
                files.push(include_str!("../../shaders/integers/sums.wgsl").into());
                header
            }
            IntegerEnd::Scaled(element) => {
                files.push(include_str!("../../shaders/integers/scaled.wgsl").into());
                files.push(factors.into());
                files.push(tensor::reads_if(self.bias, "bias", ElementType::F32, false));
                files.push(tensor::writes(element, self.aligned));
                header.bools(&[("HAS_BIAS", self.bias)])
            }
            IntegerEnd::Requantized(element) => {
                files.push(include_str!("../../shaders/integers/requantized.wgsl").into());
                files.push(factors.into());
                header.i32s(&[("LEAST_OUT", element.range()[0])])
            }
        };
        let files: Vec<&str> = files.iter().map(String::as_str).collect();
        header.shader(self.label(), "integer_matmul", &files)
    }

    fn label(&self) -> String {
        let end = match self.end {
            IntegerEnd::Sums => "sums".to_owned(),
            IntegerEnd::Scaled(element) => element.to_string(),
            IntegerEnd::Requantized(element) => element.to_string(),
        };
        let bias = if self.bias { " bias" } else { "" };
        let unaligned = if self.aligned { "" } else { " unaligned" };
        format!("integer matmul {} by {} -> {end}{bias}{unaligned}", self.a, self.b)
    }

    fn representatives() -> Vec<Self> {
        let (tensor, rows) = (ScaleGroups::Tensor, ScaleGroups::Rows);
        let of = |element, groups, zero_points| {
            IntegerFormat::new(element).groups(groups).zero_points(zero_points)
        };
        let (i8, u8) = (IntegerType::I8, IntegerType::U8);
        [
            (of(u8, tensor, true), of(i8, rows, false), IntegerEnd::Scaled(ElementType::F32), true, true),
            (of(u8, rows, true), of(i8, tensor, false), IntegerEnd::Scaled(ElementType::F16), false, false),
            (of(u8, tensor, true), of(u8, tensor, true), IntegerEnd::Sums, false, true),
            (of(i8, tensor, false), of(i8, rows, true), IntegerEnd::Sums, false, true),
            (of(u8, tensor, true), of(u8, rows, true), IntegerEnd::Requantized(u8), false, true),
            (of(i8, rows, true), of(i8, tensor, true), IntegerEnd::Requantized(i8), false, false),
        ]
        .map(|(a, b, end, bias, aligned)| Self { a, b, end, bias, aligned })
        .into()
    }
}

/// Shaders in which every file and every flag's values occur.
pub(super) fn representatives() -> Vec<Shader> {
    let quantize = QuantizeVariant::representatives();
    let mut shaders: Vec<_> = quantize.iter().map(QuantizeVariant::shader).collect();
    shaders.extend(DequantizeVariant::representatives().iter().map(DequantizeVariant::shader));
    shaders.extend(IntegerMatmulVariant::representatives().iter().map(IntegerMatmulVariant::shader));
    shaders
}
