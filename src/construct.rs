//! Constructors of structs that may get fields: `new` from what every call has, and a setter per field.

/// Implements `new` with the required fields, and a setter for each field; optional ones are `None` at first, lists empty and for the
/// struct itself to fill.
macro_rules! constructed {
    ($name:ident [$($generics:tt)*] { $($required:ident: $type:ty),* $(,)? } { $($optional:ident: $of:ty),* $(,)? }
     $({ $($list:ident),* })?) => {
        impl<$($generics)*> $name<$($generics)*> {
            /// With what every call has. What only some calls have is set by the methods of its name.
            #[allow(clippy::too_many_arguments, reason = "each is a tensor that every call has")]
            pub fn new($($required: $type),*) -> Self {
                Self { $($required,)* $($optional: None,)* $($($list: vec![],)*)? }
            }

            $(#[doc = concat!("Sets `", stringify!($required), "`.")]
            pub fn $required(mut self, $required: $type) -> Self {
                self.$required = $required;
                self
            })*

            $(#[doc = concat!("Sets `", stringify!($optional), "`.")]
            pub fn $optional(mut self, $optional: impl Into<Option<$of>>) -> Self {
                self.$optional = $optional.into();
                self
            })*
        }
    };
}
pub(crate) use constructed;
