//! Safetensors files: tensors by name, with errors that name the tensor, the need and what came.

use anyhow::{Context, Result, anyhow};
use bytemuck::Pod;
use half::{bf16, f16};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use std::collections::HashMap;
use std::fmt::Display;
use std::path::Path;
use wgpu_attention::{ElementType, IntegerType};

/// The tensors and metadata of a file that was read into memory.
pub(crate) struct Tensors<'a> {
    file: SafeTensors<'a>,
    metadata: HashMap<String, String>,
}

/// One tensor of a file.
pub(crate) struct Tensor<'a> {
    pub(crate) name: String,
    pub(crate) shape: Vec<usize>,
    dtype: Dtype,
    data: &'a [u8],
}

/// Reads a file; the error names it.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// An error about a tensor.
pub(crate) fn wrong(name: impl Display, need: impl Display, got: impl Display) -> anyhow::Error {
    anyhow!("tensor `{name}`: need {need}, got {got}")
}

impl<'a> Tensors<'a> {
    /// Finds the tensors in a file's bytes.
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self> {
        let file = SafeTensors::read_metadata(bytes).and_then(|(_, header)| {
            let metadata = header.metadata().clone().unwrap_or_default();
            Ok(Self { file: SafeTensors::deserialize(bytes)?, metadata })
        });
        file.map_err(|error| {
            let why = past_the_end(bytes).unwrap_or_else(|| error.to_string());
            anyhow!("need a whole safetensors file, got {} bytes: {why}", bytes.len())
        })
    }

    /// A text of the metadata.
    pub(crate) fn metadata(&self, key: &str) -> Option<&str> {
        self.metadata.get(key).map(String::as_str)
    }

    /// All names, sorted.
    pub(crate) fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.file.iter().map(|(name, _)| name).collect();
        names.sort_unstable();
        names
    }

    /// A tensor, if it is there.
    pub(crate) fn find(&self, name: &str) -> Option<Tensor<'a>> {
        let view = self.file.tensor(name).ok()?;
        Some(Tensor {
            name: name.into(),
            shape: view.shape().to_vec(),
            dtype: view.dtype(),
            data: view.data(),
        })
    }

    /// A tensor that has to be there.
    pub(crate) fn need(&self, name: &str) -> Result<Tensor<'a>> {
        self.find(name).ok_or_else(|| wrong(name, "it", format!("only {}", self.names().join(", "))))
    }
}

/// Names a tensor that the header places past the end of the file: it was cut off.
fn past_the_end(bytes: &[u8]) -> Option<String> {
    let header_bytes = u64::from_le_bytes(bytes.first_chunk().copied()?);
    let start = header_bytes.checked_add(8)?;
    let header = bytes.get(8..usize::try_from(start).ok()?)?;
    let header: HashMap<String, serde_json::Value> = serde_json::from_slice(header).ok()?;
    let end = |info: &serde_json::Value| info["data_offsets"][1].as_u64()?.checked_add(start);
    let ends = header.iter().filter_map(|(name, info)| Some((end(info)?, name)));
    let (end, name) = ends.filter(|(end, _)| *end > bytes.len() as u64).min()?;
    Some(format!("tensor `{name}` ends at byte {end}"))
}

impl Tensor<'_> {
    /// The type of a tensor of q, k, v or out.
    pub(crate) fn element(&self) -> Result<ElementType> {
        match self.dtype {
            Dtype::F32 => Ok(ElementType::F32),
            Dtype::F16 => Ok(ElementType::F16),
            Dtype::BF16 => Ok(ElementType::Bf16),
            other => Err(wrong(&self.name, "F32, F16 or BF16", format!("{other:?}"))),
        }
    }

    /// The elements in this type, to which they are rounded where the file has another.
    pub(crate) fn elements<E: wgpu_attention::Element>(&self) -> Result<Vec<E>> {
        if self.element()? == E::TYPE {
            return Ok(self.collect());
        }
        rounded(&self.name, &self.floats()?).map_err(anyhow::Error::msg)
    }

    /// The elements of any floating-point type, as f32.
    pub(crate) fn floats(&self) -> Result<Vec<f32>> {
        Ok(match self.element()? {
            ElementType::F32 => self.collect(),
            ElementType::F16 => self.collect::<f16>().into_iter().map(f32::from).collect(),
            ElementType::Bf16 => self.collect::<bf16>().into_iter().map(f32::from).collect(),
        })
    }

    /// The elements of a mask or layout.
    pub(crate) fn bits(&self) -> Result<Vec<bool>> {
        if !matches!(self.dtype, Dtype::U8 | Dtype::BOOL) {
            return Err(wrong(&self.name, "U8 or BOOL", format!("{:?}", self.dtype)));
        }
        match self.data.iter().find(|&&byte| byte > 1) {
            Some(byte) => Err(wrong(&self.name, "values 0 and 1", byte)),
            None => Ok(self.data.iter().map(|&byte| byte == 1).collect()),
        }
    }

    /// The elements of a tensor of indices.
    pub(crate) fn indices(&self) -> Result<Vec<u32>> {
        if self.dtype != Dtype::I32 {
            return Err(wrong(&self.name, "I32", format!("{:?}", self.dtype)));
        }
        let index =
            |index: i32| u32::try_from(index).map_err(|_| wrong(&self.name, "indices of at least 0", index));
        self.collect::<i32>().into_iter().map(index).collect()
    }

    /// The elements of a tensor of integers.
    pub(crate) fn integers(&self) -> Result<Vec<i32>> {
        match self.dtype {
            Dtype::I32 => Ok(self.collect()),
            _ => Err(wrong(&self.name, "I32", format!("{:?}", self.dtype))),
        }
    }

    /// The elements of a tensor of bytes, and of which type they are.
    pub(crate) fn bytes(&self) -> Result<(IntegerType, Vec<i32>)> {
        match self.dtype {
            Dtype::U8 => Ok((IntegerType::U8, self.data.iter().map(|&byte| byte.into()).collect())),
            Dtype::I8 => Ok((IntegerType::I8, self.data.iter().map(|&byte| i32::from(byte as i8)).collect())),
            _ => Err(wrong(&self.name, "U8 or I8", format!("{:?}", self.dtype))),
        }
    }

    /// Checks the shape.
    pub(crate) fn expect(&self, shape: &[usize], meaning: &str) -> Result<()> {
        match self.shape == shape {
            true => Ok(()),
            false => Err(wrong(&self.name, format!("{meaning} = {shape:?}"), format!("{:?}", self.shape))),
        }
    }

    /// The shape with leading axes of 1 up to `N` axes.
    pub(crate) fn padded<const N: usize>(&self, meaning: &str) -> Result<[usize; N]> {
        let Some(missing) = N.checked_sub(self.shape.len()).filter(|_| !self.shape.is_empty()) else {
            return Err(wrong(&self.name, meaning, format!("{:?}", self.shape)));
        };
        let mut padded = [1; N];
        padded[missing..].copy_from_slice(&self.shape);
        Ok(padded)
    }

    /// The shape of a tensor that is broadcast over `[B, H, Lq, Lk]`: each axis of full size, or 1.
    pub(crate) fn broadcast(&self, full: [usize; 4]) -> Result<[usize; 4]> {
        let need = format!("axes of [B, H, Lq, Lk] = {full:?} or 1");
        let sizes = self.padded::<4>(&need)?;
        match sizes.iter().zip(full).all(|(&size, full)| size == full || size == 1) {
            true => Ok(sizes),
            false => Err(wrong(&self.name, need, format!("{:?}", self.shape))),
        }
    }

    /// Files may place tensors at any byte; safetensors are little-endian, as are all platforms of wgpu.
    fn collect<T: Pod>(&self) -> Vec<T> {
        bytemuck::pod_collect_to_vec(self.data)
    }
}

/// A tensor to write.
pub(crate) struct Output<'a> {
    pub(crate) name: &'static str,
    pub(crate) element: ElementType,
    pub(crate) shape: Vec<usize>,
    pub(crate) data: &'a [u8],
}

/// The bytes of a file.
pub(crate) fn serialize(outputs: &[Output<'_>], metadata: HashMap<String, String>) -> Result<Vec<u8>> {
    let views = outputs.iter().map(|output| {
        let dtype = match output.element {
            ElementType::F32 => Dtype::F32,
            ElementType::F16 => Dtype::F16,
            ElementType::Bf16 => Dtype::BF16,
        };
        let view = TensorView::new(dtype, output.shape.clone(), output.data);
        Ok((output.name, view.with_context(|| format!("tensor `{}`", output.name))?))
    });
    Ok(safetensors::serialize(views.collect::<Result<Vec<_>>>()?, Some(metadata))?)
}

/// Values rounded to an element type; which does not fit its range otherwise.
pub(crate) fn rounded<E: wgpu_attention::Element>(
    name: &str,
    values: &[f32],
) -> std::result::Result<Vec<E>, String> {
    let rounded = |&x: &f32| {
        let element = E::from_f64(x.into());
        let fits = Into::<f64>::into(element).is_finite() || !x.is_finite();
        if fits { Ok(element) } else { Err(format!("`{name}` holds {x:e}, past the range of {}", E::TYPE)) }
    };
    values.iter().map(rounded).collect()
}
