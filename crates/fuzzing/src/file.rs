//! A safetensors file from a text that is easier to mutate than its header, whose offsets must all be right:
//!
//! ```text
//! {"op": "activation", "name": "x", "activation": "relu"}      the metadata `case`
//! x F32 2 3                                                    one line per tensor: name, type, sizes
//! out F32 2 3
//!                                                              an empty line, and bytes that fill all tensors, repeated
//! ```

use super::Refused;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use std::collections::{HashMap, HashSet};

/// Bytes of all tensors at most: with these no case takes long.
const MOST_BYTES: usize = 1 << 14;

/// The file.
pub(crate) fn of_text(bytes: &[u8]) -> Result<Vec<u8>, Refused> {
    let end = bytes.windows(2).position(|pair| pair == b"\n\n").map_or(bytes.len(), |at| at + 1);
    let data = bytes.get(end + 1..).filter(|data| !data.is_empty()).unwrap_or(&[0]);
    let mut lines = std::str::from_utf8(&bytes[..end])?.lines();
    let case = lines.next().ok_or("no text")?;
    let tensors = lines.map(tensor).collect::<Result<Vec<_>, _>>()?;
    // The writer panics at a name that comes twice; readers take the last.
    let names: HashSet<&str> = tensors.iter().map(|tensor| tensor.name).collect();
    if names.len() < tensors.len() {
        return Err("a name twice".into());
    }
    let all = tensors.iter().try_fold(0usize, |sum, tensor| sum.checked_add(tensor.bytes));
    if all.is_none_or(|all| all > MOST_BYTES) {
        return Err("too many bytes".into());
    }
    let filled: Vec<Vec<u8>> = tensors
        .iter()
        .scan(data.iter().copied().cycle(), |data, tensor| Some(data.take(tensor.bytes).collect()))
        .collect();
    let views = tensors
        .iter()
        .zip(&filled)
        .map(|(tensor, data)| Ok((tensor.name, TensorView::new(tensor.dtype, tensor.sizes.clone(), data)?)));
    let views = views.collect::<Result<Vec<_>, Refused>>()?;
    Ok(safetensors::serialize(views, Some(HashMap::from([("case".into(), case.into())])))?)
}

struct Tensor<'a> {
    name: &'a str,
    dtype: Dtype,
    sizes: Vec<usize>,
    bytes: usize,
}

fn tensor(line: &str) -> Result<Tensor<'_>, Refused> {
    let mut words = line.split(' ');
    let (name, dtype) = (words.next().ok_or("no name")?, words.next().ok_or("no type")?);
    let dtype: Dtype = serde_json::from_value(dtype.into())?;
    let sizes = words.map(str::parse).collect::<Result<Vec<usize>, _>>()?;
    let bits = sizes.iter().try_fold(dtype.bitsize(), |product, &size| product.checked_mul(size));
    Ok(Tensor { name, dtype, sizes, bytes: bits.ok_or("too many bytes")?.div_ceil(8) })
}
