//! The table of sinusoidal positions.

use std::str::FromStr;

/// Where the sines and cosines of a row are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum SinusoidalLayout {
    /// sin in even columns, cos in odd ones: the paper.
    #[default]
    Interleaved,
    /// All sines, then all cosines: tensor2tensor, fairseq, M2M-100.
    Halves,
}

/// The frequencies f_k of a table whose rows have `width` elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum SinusoidalFrequencies {
    /// 10000^(-2k / width): the paper.
    #[default]
    Paper,
    /// 10000^(-k / (width / 2 - 1)): tensor2tensor; the last one is 1 / 10000.
    Tensor2tensor,
}

impl FromStr for SinusoidalLayout {
    type Err = crate::Error;

    fn from_str(name: &str) -> crate::Result<Self> {
        match name {
            "interleaved" => Ok(Self::Interleaved),
            "halves" => Ok(Self::Halves),
            other => Err(crate::Error::argument("layout", "`interleaved` or `halves`", other)),
        }
    }
}

impl FromStr for SinusoidalFrequencies {
    type Err = crate::Error;

    fn from_str(name: &str) -> crate::Result<Self> {
        match name {
            "paper" => Ok(Self::Paper),
            "tensor2tensor" => Ok(Self::Tensor2tensor),
            other => Err(crate::Error::argument("frequencies", "`paper` or `tensor2tensor`", other)),
        }
    }
}

/// The table of sinusoidal positions (Vaswani 2017, section 3.5), `[len, width]`, computed in f64:
///
/// ```text
/// p_t[2k] = sin(t / 10000^(2k / width))        p_t[2k + 1] = cos(t / 10000^(2k / width))
/// ```
///
/// A table rather than a kernel: WGSL promises its sine to 2^-11 at most, and beyond pi not at all.
///
/// ```
/// let table = wgpu_attention::sinusoidal_positions(2, 4);
/// assert_eq!(table[..4], [0.0, 1.0, 0.0, 1.0]);
/// assert_eq!(table[4], 1f32.sin());
/// ```
pub fn sinusoidal_positions(len: usize, width: usize) -> Vec<f32> {
    sinusoidal_positions_with(len, width, SinusoidalLayout::default(), SinusoidalFrequencies::default())
}

/// [`sinusoidal_positions`] as other implementations have them. Of an odd width, the last column of [`SinusoidalLayout::Halves`] is 0, as
/// tensor2tensor pads it.
///
/// ```
/// use wgpu_attention::{SinusoidalFrequencies, SinusoidalLayout, sinusoidal_positions_with};
/// let table = sinusoidal_positions_with(2, 4, SinusoidalLayout::Halves, SinusoidalFrequencies::Tensor2tensor);
/// assert_eq!(table[..4], [0.0, 0.0, 1.0, 1.0]);
/// assert_eq!(table[5], (1f64 / 10000.0).sin() as f32);
/// ```
pub fn sinusoidal_positions_with(
    len: usize,
    width: usize,
    layout: SinusoidalLayout,
    frequencies: SinusoidalFrequencies,
) -> Vec<f32> {
    let half = width / 2;
    let divisor = |k: usize| {
        let exponent = match frequencies {
            SinusoidalFrequencies::Paper => (2 * k) as f64 / width as f64,
            // One frequency alone is 1.
            SinusoidalFrequencies::Tensor2tensor => k as f64 / half.saturating_sub(1).max(1) as f64,
        };
        10000f64.powf(exponent)
    };
    let value = |t: usize, c: usize| {
        let (k, is_sine) = match layout {
            SinusoidalLayout::Interleaved => (c / 2, c.is_multiple_of(2)),
            SinusoidalLayout::Halves if c >= 2 * half => return 0.0,
            SinusoidalLayout::Halves => (c % half, c < half),
        };
        let angle = t as f64 / divisor(k);
        (if is_sine { angle.sin() } else { angle.cos() }) as f32
    };
    (0..len).flat_map(|t| (0..width).map(move |c| (t, c))).map(|(t, c)| value(t, c)).collect()
}
