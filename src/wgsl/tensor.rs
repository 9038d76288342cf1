//! Providers of tensors: `shaders/tensor/`, one file per element type and alignment, under the tensor's name.

use crate::ElementType;

/// The text that defines `NAME_word` and `load_NAME(at, count)`.
pub(super) fn reads(name: &str, element: ElementType, aligned: bool) -> String {
    let text = match (element, aligned) {
        (ElementType::F32, true) => include_str!("../../shaders/tensor/in_f32_x4.wgsl"),
        (ElementType::F32, false) => include_str!("../../shaders/tensor/in_f32_x1.wgsl"),
        (ElementType::F16, true) => include_str!("../../shaders/tensor/in_f16_x4.wgsl"),
        (ElementType::F16, false) => include_str!("../../shaders/tensor/in_f16_x1.wgsl"),
        (ElementType::Bf16, true) => include_str!("../../shaders/tensor/in_bf16_x4.wgsl"),
        (ElementType::Bf16, false) => include_str!("../../shaders/tensor/in_bf16_x1.wgsl"),
    };
    text.replace("TENSOR", name)
}

/// [`reads`], or the text of a tensor that is not given.
pub(super) fn reads_if(given: bool, name: &str, element: ElementType, aligned: bool) -> String {
    match given {
        true => reads(name, element, aligned),
        false => include_str!("../../shaders/tensor/absent.wgsl").replace("TENSOR", name),
    }
}

/// The text that defines `max_of_NAME(at, lane, width)`, of the rows of a tensor that is defined elsewhere.
pub(super) fn row_maximum(name: &str) -> String {
    include_str!("../../shaders/lib/row_maximum.wgsl").replace("TENSOR", name)
}

/// The text that defines `load_NAME(at, count)` of a tensor that is another one.
pub(super) fn same(name: &str, other: &str) -> String {
    include_str!("../../shaders/tensor/shared.wgsl").replace("TENSOR", name).replace("OTHER", other)
}

/// The text that defines `out_word`, `store_out(at, count, value)` and `load_out(at, count)`.
pub(super) fn writes(element: ElementType, aligned: bool) -> String {
    let narrow = narrow(element);
    format!("{}{}{narrow}", stores("out", element, aligned), if narrow.is_empty() { "" } else { "\n" })
}

/// [`writes`] of a tensor whose elements are read, too, in any type.
pub(super) fn reads_and_writes(element: ElementType, aligned: bool) -> String {
    let widen = match element {
        ElementType::F32 => return writes(element, aligned),
        ElementType::F16 => include_str!("../../shaders/element/in_f16.wgsl"),
        ElementType::Bf16 => include_str!("../../shaders/element/in_bf16.wgsl"),
    };
    let both = match aligned {
        true => include_str!("../../shaders/tensor/both_16_x4.wgsl"),
        false => include_str!("../../shaders/tensor/both_16_x1.wgsl"),
    };
    [both, narrow(element), widen].join("\n")
}

/// [`writes`] under another name, without [`narrow`], which several tensors of a shader share.
pub(super) fn stores(name: &str, element: ElementType, aligned: bool) -> String {
    let store = match (element, aligned) {
        (ElementType::F32, true) => include_str!("../../shaders/tensor/out_f32_x4.wgsl"),
        (ElementType::F32, false) => include_str!("../../shaders/tensor/out_f32_x1.wgsl"),
        (_, true) => include_str!("../../shaders/tensor/out_16_x4.wgsl"),
        (_, false) => include_str!("../../shaders/tensor/out_16_x1.wgsl"),
    };
    store.replace("out", name)
}

/// What tensors of this type need to be written.
pub(super) fn narrow(element: ElementType) -> &'static str {
    match element {
        ElementType::F32 => "",
        ElementType::F16 => include_str!("../../shaders/element/out_f16.wgsl"),
        ElementType::Bf16 => include_str!("../../shaders/element/out_bf16.wgsl"),
    }
}
