//! Uniform structs, field for field those of the shaders. A test compares names and offsets, for every variant.

/// Declares a struct of a shader's uniform buffer, with the list of its fields.
macro_rules! uniform {
    ($($(#[$meta:meta])* $name:ident { $($field:ident: $type:ty),* $(,)? })*) => {$(
        $(#[$meta])*
        #[repr(C)]
        #[derive(Debug, Clone, Copy, Default, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
        pub(crate) struct $name { $(pub(crate) $field: $type),* }

        impl $crate::uniform::Uniform for $name {
            const NAME: &'static str = stringify!($name);
            const FIELDS: &'static [(&'static str, usize)] =
                &[$((stringify!($field), std::mem::offset_of!($name, $field))),*];
        }
    )*};
}
pub(crate) use uniform;

/// A struct that a shader declares under the same name.
pub(crate) trait Uniform: bytemuck::Pod {
    /// The struct's name, here and in WGSL.
    const NAME: &'static str;
    /// Names and byte offsets of its fields.
    const FIELDS: &'static [(&'static str, usize)];
}

/// One member of a shader's `Params`, filled.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Block {
    /// The member.
    pub(crate) member: &'static str,
    /// Its struct.
    pub(crate) name: &'static str,
    /// The struct's fields.
    pub(crate) fields: &'static [(&'static str, usize)],
    /// Its bytes.
    pub(crate) bytes: Vec<u8>,
}

impl Block {
    pub(crate) fn new<U: Uniform>(member: &'static str, values: U) -> Self {
        Self { member, name: U::NAME, fields: U::FIELDS, bytes: bytemuck::bytes_of(&values).to_vec() }
    }
}

uniform! {
    /// Where the rows of a tensor lie; strides may be negative, in two's complement.
    Rows { offset: u32, batch: u32, head: u32, row: u32 }
}

impl Rows {
    /// Rows of so many groups of 4 elements, `[batch, heads, len, 4 groups]`, one behind the other.
    #[cfg(feature = "gpu")]
    pub(crate) fn of_groups(heads: usize, len: usize, groups: usize) -> Self {
        let row = 4 * groups as u32;
        let head = row * len as u32;
        Self { offset: 0, batch: head * heads as u32, head, row }
    }
}

impl From<crate::Strides> for Rows {
    fn from(strides: crate::Strides) -> Self {
        let [batch, head, row] = [strides.batch, strides.head, strides.row].map(|stride| stride as u32);
        Self { offset: strides.offset as u32, batch, head, row }
    }
}
