//! Tensors in one buffer.

use crate::{Error, Result};
use std::ops::Range;

/// A tensor of a [`ParameterLayout`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Parameter {
    /// Its name.
    pub name: &'static str,
    /// Its elements in the buffer.
    pub range: Range<usize>,
    /// Whether nothing is learnt of it: its gradient is never written. Such tensors lie behind all others.
    pub constant: bool,
}

/// The f32 tensors of a branch, one behind the other in one buffer, each from a multiple of 64 elements on; between them lies nothing.
/// The gradients lie likewise, so that a step of an optimizer takes all of a layer at once.
///
/// ```
/// use wgpu_attention::ParameterLayout;
/// let layout = ParameterLayout::new(&[("weight", 100), ("bias", 10)], &[("projections", 6)]);
/// assert_eq!(layout.range("bias")?, 128..138);
/// assert_eq!((layout.trainable_len(), layout.len()), (192, 256));
/// let all = layout.pack(&[("bias", &[1.0; 10]), ("weight", &[2.0; 100]), ("projections", &[3.0; 6])])?;
/// assert_eq!((all[0], all[128], all[192]), (2.0, 1.0, 3.0));
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ParameterLayout {
    parameters: Vec<Parameter>,
    trainable_len: usize,
    len: usize,
}

/// Elements from the start of one tensor to that of the next are a multiple of this: 256 bytes, the most that WebGPU lets a
/// device ask for.
const ALIGNMENT: usize = 64;

impl ParameterLayout {
    /// Names and elements of what is learnt, and of what is not.
    pub fn new(trainable: &[(&'static str, usize)], constant: &[(&'static str, usize)]) -> Self {
        let mut layout = Self::default();
        trainable.iter().for_each(|&tensor| layout.push(tensor, false));
        layout.trainable_len = layout.len;
        constant.iter().for_each(|&tensor| layout.push(tensor, true));
        layout
    }

    fn push(&mut self, (name, elements): (&'static str, usize), constant: bool) {
        let range = self.len..self.len + elements;
        self.len = range.end.next_multiple_of(ALIGNMENT);
        self.parameters.push(Parameter { name, range, constant });
    }

    /// All tensors, in their order.
    pub fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    /// Elements of the buffer.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no tensor.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Elements of the buffer up to the first constant tensor: what an optimizer takes.
    pub fn trainable_len(&self) -> usize {
        self.trainable_len
    }

    /// The elements of a tensor.
    ///
    /// # Errors
    /// [`Error::Argument`] for a name that is none of them.
    pub fn range(&self, name: &str) -> Result<Range<usize>> {
        let found = self.parameters.iter().find(|parameter| parameter.name == name);
        let names = || self.parameters.iter().map(|parameter| parameter.name);
        let need = || format!("one of {}", crate::names::nearest_first(name, names()));
        found
            .map(|parameter| parameter.range.clone())
            .ok_or_else(|| Error::argument("parameter", need(), format!("`{name}`")))
    }

    /// The buffer's elements, of the values of all tensors, in any order.
    ///
    /// # Errors
    /// [`Error::Argument`] for a tensor that is missing, twice there, unknown, or has another number of elements.
    pub fn pack(&self, values: &[(&str, &[f32])]) -> Result<Vec<f32>> {
        let mut all = vec![0.0; self.len];
        for (n, (name, values_of_it)) in values.iter().enumerate() {
            let range = self.range(name)?;
            if values[..n].iter().any(|before| before.0 == *name) {
                return Err(Error::argument("parameter", "each name once", format!("`{name}` twice")));
            }
            if values_of_it.len() != range.len() {
                let need = format!("{} elements", range.len());
                return Err(Error::argument(name.to_string(), need, values_of_it.len()));
            }
            all[range].copy_from_slice(values_of_it);
        }
        let is_there = |name| values.iter().any(|given| given.0 == name);
        match self.parameters.iter().find(|parameter| !is_there(parameter.name)) {
            Some(Parameter { name, range, .. }) => {
                Err(Error::argument(*name, format!("{} elements", range.len()), "none"))
            }
            None => Ok(all),
        }
    }

    /// The elements of a tensor in the buffer's.
    ///
    /// # Errors
    /// As [`range`](Self::range); [`Error::Argument`] for a slice of another length.
    pub fn take<'a>(&self, name: &str, all: &'a [f32]) -> Result<&'a [f32]> {
        if all.len() != self.len {
            return Err(Error::argument("parameters", format!("{} elements", self.len), all.len()));
        }
        Ok(&all[self.range(name)?])
    }
}
