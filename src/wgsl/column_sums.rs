//! Variants of `column_sums.wgsl`.

use super::{Header, Shader, tensor};
use crate::ElementType;

/// What is added up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SumTerms {
    /// `sums/plain.wgsl`: the elements of x.
    Plain,
    /// `sums/normed.wgsl`: the elements of dout times those of x normalised.
    Normed {
        /// Storage of dout.
        dout: ElementType,
    },
}

/// All that tells one shader of column sums from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ColumnSumsVariant {
    /// What is added up.
    pub terms: SumTerms,
    /// Storage of x.
    pub input: ElementType,
    /// Storage of out.
    pub output: ElementType,
    /// The sums are added to what out, of f32, holds.
    pub into: bool,
    /// Every row of every tensor begins at, and has, a multiple of 4 elements.
    pub aligned: bool,
}

impl ColumnSumsVariant {
    /// Rows of a block.
    pub const BLOCK: usize = 256;
    /// Columns of a workgroup.
    pub const COLUMNS: usize = 32;

    /// The shader of this variant.
    pub fn shader(&self) -> Shader {
        let dout_text;
        let x = tensor::reads("x", self.input, self.aligned);
        let out = tensor::writes(self.output, self.aligned);
        let entry = include_str!("../../shaders/column_sums.wgsl");
        let (name, files) = match self.terms {
            SumTerms::Plain => {
                ("plain".to_owned(), vec![entry, include_str!("../../shaders/sums/plain.wgsl"), &x, &out])
            }
            SumTerms::Normed { dout } => {
                dout_text = tensor::reads("dout", dout, self.aligned);
                let terms = include_str!("../../shaders/sums/normed.wgsl");
                let record = include_str!("../../shaders/lib/norm_record.wgsl");
                (format!("normed dout {dout}"), vec![entry, terms, record, &x, &dout_text, &out])
            }
        };
        let into = if self.into { " into" } else { "" };
        let unaligned = if self.aligned { "" } else { " unaligned" };
        let label = format!("column sums {name} {}->{}{into}{unaligned}", self.input, self.output);
        let header = Header::default().bools(&[("INTO", self.into)]);
        header.params(&[("kernel", "KernelParams"), ("terms", "TermParams")]).shader(
            label,
            "column_sums",
            &files,
        )
    }

    /// A list in which every file and every flag's values occur.
    pub(super) fn representatives() -> Vec<Self> {
        use ElementType::{Bf16, F16, F32};
        let (plain, normed) = (SumTerms::Plain, |dout| SumTerms::Normed { dout });
        [
            (plain, F32, F32, false, true),
            (plain, F32, F32, true, true),
            (plain, F32, F32, true, false),
            (plain, F16, F16, false, true),
            (plain, Bf16, Bf16, false, false),
            (normed(F32), F32, F32, false, true),
            (normed(F16), Bf16, F32, true, false),
        ]
        .map(|(terms, input, output, into, aligned)| Self { terms, input, output, into, aligned })
        .into()
    }
}
