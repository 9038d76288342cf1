//! Safetensors files: tensors by name, with errors that say which one, what was needed and what was found.

use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

pub(crate) type Error = Box<dyn std::error::Error + Send + Sync>;

/// A model file.
pub(crate) struct File<'a> {
    tensors: SafeTensors<'a>,
    case: Value,
}

impl<'a> File<'a> {
    /// Finds the tensors in a file's bytes. The model's configuration is under the metadata key `case`.
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, Error> {
        let (_, header) = SafeTensors::read_metadata(bytes)?;
        let case = header.metadata().as_ref().and_then(|metadata| metadata.get("case"));
        let case = serde_json::from_str(case.ok_or("metadata: need a key `case`, found none")?)?;
        Ok(Self { tensors: SafeTensors::deserialize(bytes)?, case })
    }

    /// The model's family, which must be `need`.
    pub(crate) fn check_family(&self, need: &str) -> Result<(), Error> {
        let found = &self.case["family"];
        if found.as_str() == Some(need) {
            Ok(())
        } else {
            Err(format!("family: need `{need}`, found {found}").into())
        }
    }

    /// A number of the configuration.
    fn number(&self, key: &str) -> Result<f64, Error> {
        let found = &self.case["config"][key];
        found.as_f64().ok_or_else(|| format!("config `{key}`: need a number, found {found}").into())
    }

    /// A size of the configuration.
    pub(crate) fn size(&self, key: &str) -> Result<usize, Error> {
        let found = self.number(key)?;
        if found >= 1.0 && found.fract() == 0.0 && found <= f64::from(u32::MAX) {
            return Ok(found as usize);
        }
        Err(format!("config `{key}`: need a whole number of at least 1, found {found}").into())
    }

    /// `layer_norm_eps`.
    pub(crate) fn eps(&self) -> Result<f32, Error> {
        Ok(self.number("layer_norm_eps")? as f32)
    }

    /// How far the expected states may be off by themselves.
    pub(crate) fn expected_error(&self) -> f64 {
        self.case["expected_abs_error"]["out"].as_f64().unwrap_or(0.0)
    }

    /// A weight by Hugging Face's name, of this shape.
    pub(crate) fn tensor(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, Error> {
        // Golden cases put `w.` before the names.
        let prefixed = format!("w.{name}");
        let view = self.tensors.tensor(name).or_else(|_| self.tensors.tensor(&prefixed));
        let view = view.map_err(|_| format!("tensor `{name}`: need {shape:?}, found none of this name"))?;
        if view.shape() != shape || view.dtype() != Dtype::F32 {
            let (found, dtype) = (view.shape(), view.dtype());
            return Err(format!("tensor `{name}`: need F32 {shape:?}, found {dtype:?} {found:?}").into());
        }
        Ok(bytemuck::pod_collect_to_vec(view.data()))
    }

    /// An f32 tensor of any shape.
    pub(crate) fn values(&self, name: &str) -> Result<Vec<f32>, Error> {
        let view = self.tensors.tensor(name).map_err(|_| format!("tensor `{name}`: need one, found none"))?;
        self.tensor(name, view.shape())
    }

    /// Indices `[batch, length]`, and both sizes.
    pub(crate) fn indices(&self, name: &str) -> Result<(Vec<u32>, [usize; 2]), Error> {
        let view = self.tensors.tensor(name).map_err(|_| format!("tensor `{name}`: need one, found none"))?;
        let (shape, dtype) = (view.shape(), view.dtype());
        let &[batch, len] = shape else {
            return Err(format!("tensor `{name}`: need [batch, length], found {shape:?}").into());
        };
        if dtype != Dtype::I32 {
            return Err(format!("tensor `{name}`: need I32, found {dtype:?}").into());
        }
        let indices: Vec<i32> = bytemuck::pod_collect_to_vec(view.data());
        let whole = |&index: &i32| {
            u32::try_from(index).map_err(|_| format!("tensor `{name}`: found {index} below 0"))
        };
        Ok((indices.iter().map(whole).collect::<Result<_, _>>()?, [batch, len]))
    }

    /// Token ids, each below `vocabulary`: the kernels would take one past it for a row of 0.
    pub(crate) fn tokens(&self, vocabulary: usize) -> Result<(Vec<u32>, [usize; 2]), Error> {
        let (ids, sizes) = self.indices("input_ids")?;
        match ids.iter().find(|&&id| id as usize >= vocabulary) {
            Some(id) => Err(format!("tensor `input_ids`: need ids below {vocabulary}, found {id}").into()),
            None => Ok((ids, sizes)),
        }
    }
}
