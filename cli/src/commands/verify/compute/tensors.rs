//! The tensors of cases of the kernels around attention, by their names.

use std::collections::BTreeMap;

/// Gradients by some tensors, by their names.
pub(super) type Tensors<T> = Vec<(&'static str, T)>;

/// The tensors of a case in one element type.
pub(super) type Rounded<E> = BTreeMap<&'static str, Vec<E>>;

/// One that the reading of the case made sure of.
pub(super) fn need<'a, E>(tensors: &'a Rounded<E>, name: &str) -> &'a [E] {
    find(tensors, name).unwrap_or_default()
}

pub(super) fn find<'a, E>(tensors: &'a Rounded<E>, name: &str) -> Option<&'a [E]> {
    tensors.get(name).map(Vec::as_slice)
}
