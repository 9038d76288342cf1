//! Families that read a text from left to right: all of them but attention, which a whole pass and a step of generation compute differently.

use super::attend::{Attend, DecoderSizes, Whole};
use super::gpt2::Gpt2;
use super::llama::Llama;
use super::{Error, File, Machine};
use wgpu_attention::{AttentionShape, Causal, Layout, Layouts, rotary_tables};

/// A model's weights.
pub(crate) enum Decoder<T> {
    Gpt2(Gpt2<T>),
    Llama(Llama<T>),
}

impl<T: Clone> Decoder<T> {
    /// Reads all weights.
    pub(crate) fn load<M: Machine<Tensor = T>>(machine: &mut M, file: &File<'_>) -> Result<Self, Error> {
        match file.family()? {
            "gpt2" => Gpt2::load(machine, file).map(Self::Gpt2),
            "llama" => Llama::load(machine, file).map(Self::Llama),
            other => Err(other_family(other)),
        }
    }

    pub(crate) fn sizes(&self) -> DecoderSizes {
        match self {
            Self::Gpt2(model) => model.sizes,
            Self::Llama(model) => model.sizes,
        }
    }

    /// Where q, k and v of so many rows lie, and what attention makes of them.
    pub(crate) fn layouts(&self, rows: usize) -> Layouts {
        match self {
            Self::Gpt2(model) => model.layouts(rows),
            Self::Llama(model) => model.layouts(rows),
        }
    }

    /// The hidden states `[rows, width]` of these ids, before the last norm.
    pub(crate) fn hidden<M: Machine<Tensor = T>>(
        &self,
        machine: &mut M,
        ids: &[u32],
        positions: &[u32],
        attend: &mut Attend<'_, M>,
    ) -> Result<T, Error> {
        match self {
            Self::Gpt2(model) => model.hidden(machine, ids, positions, attend),
            Self::Llama(model) => model.hidden(machine, ids, attend),
        }
    }

    /// The logits `[rows, vocabulary]` of hidden states.
    pub(crate) fn logits<M: Machine<Tensor = T>>(
        &self,
        machine: &mut M,
        rows: usize,
        x: &T,
    ) -> Result<T, Error> {
        match self {
            Self::Gpt2(model) => {
                let normed = model.normed(machine, rows, x)?;
                model.logits(machine, rows, &normed)
            }
            Self::Llama(model) => {
                let normed = model.normed(machine, rows, x)?;
                model.logits(machine, rows, &normed)
            }
        }
    }
}

/// The sizes of a file's GPT-2 or Llama, as its configuration has them.
///
/// # Errors
/// For another family, and for a size that is missing or none.
pub fn decoder_sizes(file: &File<'_>) -> Result<DecoderSizes, Error> {
    match file.family()? {
        "gpt2" => super::gpt2::sizes(file),
        "llama" => super::llama::sizes(file),
        other => Err(other_family(other)),
    }
}

fn other_family(found: &str) -> Error {
    format!("config `model_type`: need gpt2 or llama, found `{found}`").into()
}

/// Runs a GPT-2 or a Llama over a whole text, and keeps its logits `[L, vocabulary]` as `last`.
///
/// # Errors
/// What is missing or different in the file, by name, and what the machine refuses.
pub fn logits<M: Machine>(machine: &mut M, file: &File<'_>, ids: &[u32]) -> Result<(), Error> {
    let model = Decoder::load(machine, file)?;
    let sizes = model.sizes();
    check_ids(&sizes, ids)?;
    let len = ids.len();
    if !(1..=sizes.positions).contains(&len) {
        return Err(format!("ids: need 1 to {} of them, found {len}", sizes.positions).into());
    }
    let attention = AttentionShape::new(1, sizes.heads, len, sizes.head_dim).kv_heads(sizes.kv_heads);
    let attention = attention.layout(Layout::Blhd);
    let mask = machine.mask(&attention, Causal)?;
    let tables = sizes
        .theta
        .map(|theta| rotary_tables(len, sizes.head_dim, theta).map(|table| machine.upload(&table)));
    let whole = Whole { attention, mask, tables };
    let positions: Vec<u32> = (0..len as u32).collect();
    let x = model.hidden(machine, ids, &positions, &mut whole.layers())?;
    let logits = model.logits(machine, len, &x)?;
    machine.keep("last".into(), &logits);
    Ok(())
}

/// Ids that the kernels would take for rows of 0 are errors.
pub(crate) fn check_ids(sizes: &DecoderSizes, ids: &[u32]) -> Result<(), Error> {
    match ids.iter().find(|&&id| id as usize >= sizes.vocabulary) {
        Some(id) => Err(format!("ids: need some below {}, found {id}", sizes.vocabulary).into()),
        None => Ok(()),
    }
}
