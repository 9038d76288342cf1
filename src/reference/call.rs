//! The tensors of one call: checked once, then read row by row in f64; and the score.

use crate::pattern::{Pattern, Site};
use crate::{AttentionShape, Element, Error, Inputs, Layout, Result};
use std::fmt;

/// One row of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position {
    /// Batch item, below B.
    pub batch: usize,
    /// Query head, below H.
    pub head: usize,
    /// Query, below Lq.
    pub i: usize,
}

impl Position {
    /// The n-th row of `[B, H, Lq]`.
    pub(super) fn of_row(shape: &AttentionShape, n: usize) -> Self {
        let (rest, i) = (n / shape.q_len, n % shape.q_len);
        Self { batch: rest / shape.heads, head: rest % shape.heads, i }
    }

    /// Its place in `[B, H, Lq]`.
    pub(super) fn row(&self, shape: &AttentionShape) -> usize {
        (self.batch * shape.heads + self.head) * shape.q_len + self.i
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "batch {}, head {}, query {}", self.batch, self.head, self.i)
    }
}

/// A call whose sizes have been checked: nothing below can index past an end.
pub(super) struct Call<'a, E> {
    pub(super) shape: &'a AttentionShape,
    inputs: Inputs<'a, E>,
    pattern: &'a dyn Pattern,
    slopes: Vec<f32>,
}

impl<'a, E: Element> Call<'a, E> {
    pub(super) fn new(
        shape: &'a AttentionShape,
        inputs: &Inputs<'a, E>,
        pattern: &'a dyn Pattern,
    ) -> Result<Self> {
        shape.check()?;
        check_type::<E>("q, k and v", shape.input)?;
        check_len("q", inputs.q.len(), shape.len_q(), shape.q_layout)?;
        check_len("k", inputs.k.len(), shape.len_k(), shape.k_layout)?;
        check_len("v", inputs.v.len(), shape.len_v(), shape.v_layout)?;
        match (shape.bias, inputs.bias) {
            (None, Some(_)) => {
                return Err(Error::argument("bias", "none, as the shape has none", "a tensor"));
            }
            (Some(_), None) => return Err(Error::argument("bias", "a tensor, as the shape has one", "none")),
            (Some(_), Some(bias)) if bias.len() < shape.len_bias() => {
                let need = format!("at least {} elements", shape.len_bias());
                return Err(Error::argument("bias", need, format!("{} elements", bias.len())));
            }
            _ => {}
        }
        pattern.check(&shape.extent())?;
        let slopes = if shape.alibi { shape.alibi_slopes() } else { Vec::new() };
        Ok(Self { shape, inputs: *inputs, pattern, slopes })
    }

    pub(super) fn check_position(&self, at: Position) -> Result<()> {
        let shape = self.shape;
        let axes =
            [("batch", at.batch, shape.batch), ("head", at.head, shape.heads), ("i", at.i, shape.q_len)];
        for (name, got, size) in axes {
            if got >= size {
                return Err(Error::argument(format!("position.{name}"), format!("below {size}"), got));
            }
        }
        Ok(())
    }

    /// S_i, ascending.
    pub(super) fn keys(&self, at: Position) -> Vec<u32> {
        (0..self.shape.kv_len).filter(|&j| self.keeps(at, j)).map(|j| j as u32).collect()
    }

    /// Whether j is in S_i: a bias of minus infinity removes it.
    pub(super) fn keeps(&self, at: Position, j: usize) -> bool {
        let site = Site { batch: at.batch, head: at.head, extent: self.shape.extent() };
        self.pattern.keep(&site, at.i, j) && self.bias(at, j) != Some(f64::NEG_INFINITY)
    }

    /// q_i, `[d]`.
    pub(super) fn q(&self, at: Position) -> Vec<f64> {
        let start = self.shape.q_strides().at(at.batch, at.head, at.i);
        self.inputs.q[start..start + self.shape.head_dim].iter().map(|&x| x.into()).collect()
    }

    /// k_j as the row's head sees it, `[d]`.
    pub(super) fn k(&self, at: Position, j: u32) -> impl Iterator<Item = f64> + '_ {
        let start = self.shape.k_strides().at(at.batch, self.shape.kv_head(at.head), j as usize);
        self.inputs.k[start..start + self.shape.head_dim].iter().map(|&x| x.into())
    }

    /// v_j as the row's head sees it, `[dv]`.
    pub(super) fn v(&self, at: Position, j: u32) -> impl Iterator<Item = f64> + '_ {
        let start = self.shape.v_strides().at(at.batch, self.shape.kv_head(at.head), j as usize);
        self.inputs.v[start..start + self.shape.value_dim].iter().map(|&x| x.into())
    }

    /// bias(i, j), if the shape has one.
    pub(super) fn bias(&self, at: Position, j: usize) -> Option<f64> {
        let index = self.shape.bias?.at(at.batch, at.head, at.i, j);
        Some(f64::from(self.inputs.bias?[index]))
    }

    /// slope_h (j - i), if the shape asks for ALiBi (Press 2022). Positions count from 0 on both axes.
    pub(super) fn alibi(&self, at: Position, j: u32) -> Option<f64> {
        let slope = self.slopes.get(at.head)?;
        Some(f64::from(*slope) * (f64::from(j) - at.i as f64))
    }

    /// scale q_i . k_j.
    pub(super) fn product(&self, q: &[f64], at: Position, j: u32) -> f64 {
        let dot: f64 = q.iter().zip(self.k(at, j)).map(|(q, k)| q * k).sum();
        f64::from(self.shape.scale_value()) * dot
    }

    /// score(i, j) = softcap(product) + bias(i, j) + slope_h (j - i).
    pub(super) fn score(&self, product: f64, at: Position, j: u32) -> f64 {
        let capped = self.shape.softcap.map(f64::from).map_or(product, |cap| cap * (product / cap).tanh());
        capped + self.bias(at, j as usize).unwrap_or(0.0) + self.alibi(at, j).unwrap_or(0.0)
    }
}

pub(super) fn check_type<E: Element>(name: &'static str, need: crate::ElementType) -> Result<()> {
    if E::TYPE != need {
        return Err(Error::argument(name, format!("{need} elements, as the shape says"), E::TYPE));
    }
    Ok(())
}

/// Exactly the tensor for a contiguous layout; a strided view may be followed by more.
pub(super) fn check_len(name: &'static str, got: usize, need: usize, layout: Layout) -> Result<()> {
    let strided = matches!(layout, Layout::Strided(_));
    if got == need || (strided && got > need) {
        return Ok(());
    }
    let need = format!("{}{need} elements", if strided { "at least " } else { "" });
    Err(Error::argument(name, need, format!("{got} elements")))
}
