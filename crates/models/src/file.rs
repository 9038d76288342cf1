//! Safetensors files: tensors by name, with errors that say which one, what was needed and what was found.

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};
use std::cell::RefCell;
use std::collections::BTreeSet;
use wgpu_attention::half::{bf16, f16};
use wgpu_attention::{KeyLengths, Mask, Pattern};

/// What is wrong with a file, or with a call.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// The tensors that are input.
const INPUTS: [&str; 3] = ["input_ids", "attention_mask", "token_type_ids"];

/// Numbers of 16 or 32 bits as f32, none of another type.
fn widened(view: &TensorView<'_>) -> Option<Vec<f32>> {
    let halves = || view.data().chunks_exact(2).map(|bytes| [bytes[0], bytes[1]]);
    match view.dtype() {
        Dtype::F32 => Some(bytemuck::pod_collect_to_vec(view.data())),
        Dtype::F16 => Some(halves().map(|bytes| f16::from_le_bytes(bytes).to_f32()).collect()),
        Dtype::BF16 => Some(halves().map(|bytes| bf16::from_le_bytes(bytes).to_f32()).collect()),
        _ => None,
    }
}

/// A model file, or the files of one model.
pub struct File<'a> {
    /// The tensors of each file.
    tensors: Vec<SafeTensors<'a>>,
    /// In place of those among the tensors.
    inputs: Option<SafeTensors<'a>>,
    case: Value,
    /// Weights alone, and their configuration beside them: nothing that a model is expected to compute.
    is_model: bool,
    /// The tensors that were read.
    read: RefCell<BTreeSet<String>>,
}

impl<'a> File<'a> {
    /// Finds the tensors in a file's bytes. The model's configuration is under the metadata key `case`.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Error> {
        let (_, header) = SafeTensors::read_metadata(bytes)?;
        let case = header.metadata().as_ref().and_then(|metadata| metadata.get("case"));
        let case = serde_json::from_str(case.ok_or("metadata: need a key `case`, found none")?)?;
        let tensors = vec![SafeTensors::deserialize(bytes)?];
        Ok(Self { tensors, inputs: None, case, is_model: false, read: RefCell::default() })
    }

    /// The weights of one model in so many files, and its configuration as Hugging Face has it.
    pub fn of_model(config: &Value, files: &[&'a [u8]]) -> Result<Self, Error> {
        let found = &config["model_type"];
        let family =
            found.as_str().ok_or_else(|| format!("config `model_type`: need a name, found {found}"))?;
        let case = json!({ "op": "model", "family": family, "config": config });
        let tensors = files.iter().map(|bytes| SafeTensors::deserialize(bytes)).collect::<Result<_, _>>()?;
        Ok(Self { tensors, inputs: None, case, is_model: true, read: RefCell::default() })
    }

    /// The same model with the `input_ids`, `attention_mask` and `token_type_ids` of another file, in place of its own.
    ///
    /// # Errors
    /// What is no safetensors file.
    pub fn with_inputs(mut self, bytes: &'a [u8]) -> Result<Self, Error> {
        self.inputs = Some(SafeTensors::deserialize(bytes)?);
        Ok(self)
    }

    /// Refuses a model with tensors that nothing has asked for: it is not the one that its configuration describes. Those that `known` accepts
    /// may stay.
    ///
    /// # Errors
    /// Names the first such tensor.
    pub fn check_all_read(&self, known: impl Fn(&str) -> bool) -> Result<(), Error> {
        let unread = if self.is_model { self.unread() } else { vec![] };
        match unread.iter().find(|name| !known(name)) {
            Some(name) => Err(format!("tensor `{name}`: need none of this name in this model").into()),
            None => Ok(()),
        }
    }

    /// What the case says under a key, null if nothing.
    pub fn of_case(&self, key: &str) -> &Value {
        &self.case[key]
    }

    /// Sets a key of the configuration.
    pub fn set(&mut self, key: &str, value: Value) {
        self.case["config"][key] = value;
    }

    /// Heads that are pruned, of each layer: Hugging Face's `pruned_heads`, by the layer's number.
    pub fn pruned_heads(&self, layers: usize, heads: usize) -> Result<Vec<Vec<u32>>, Error> {
        let found = &self.case["config"]["pruned_heads"];
        let wrong = |need: &str| format!("config `pruned_heads`: need {need}, found {found}");
        let mut pruned = vec![vec![]; layers];
        if found.is_null() {
            return Ok(pruned);
        }
        for (layer, list) in found.as_object().ok_or_else(|| wrong("lists of heads by layer"))? {
            let of_layer = layer.parse().ok().and_then(|n: usize| pruned.get_mut(n));
            let of_layer = of_layer.ok_or_else(|| wrong(&format!("layers below {layers}")))?;
            let list = list.as_array().ok_or_else(|| wrong("lists of heads by layer"))?;
            let head =
                |head: &Value| head.as_u64().filter(|&head| (head as usize) < heads).map(|head| head as u32);
            let list: Option<Vec<u32>> = list.iter().map(head).collect();
            *of_layer = list.ok_or_else(|| wrong(&format!("heads below {heads}")))?;
            of_layer.sort_unstable();
            of_layer.dedup();
            if of_layer.len() == heads {
                return Err(wrong("one head or more left in each layer").into());
            }
        }
        Ok(pruned)
    }

    /// The model's family.
    pub fn family(&self) -> Result<&str, Error> {
        let found = &self.case["family"];
        found.as_str().ok_or_else(|| format!("family: need a name, found {found}").into())
    }

    /// The model's family must be `need`.
    pub fn check_family(&self, need: &str) -> Result<(), Error> {
        let found = self.family()?;
        if found == need { Ok(()) } else { Err(format!("family: need `{need}`, found `{found}`").into()) }
    }

    /// Whether there is a weight of this name.
    pub fn has(&self, name: &str) -> bool {
        self.names_of(name).iter().any(|name| self.find(name).is_some())
    }

    /// The tensors that nothing has asked for so far: once a model has run, those that it does not understand.
    pub fn unread(&self) -> Vec<String> {
        let read = self.read.borrow();
        let mut names = self.names("");
        names.retain(|name| !read.contains(name));
        names
    }

    /// The names of the tensors that begin with `prefix`, sorted.
    pub fn names(&self, prefix: &str) -> Vec<String> {
        let names = self.tensors.iter().flat_map(SafeTensors::names);
        let names = names.into_iter().filter(|name| name.starts_with(prefix));
        let mut names: Vec<String> = names.map(ToString::to_string).collect();
        names.sort();
        names
    }

    /// The names under which a weight may stand: Hugging Face's, that of golden cases, with the family or `model` before it as models with a
    /// head on top have it, without `transformer` as a GPT-2 without one has it, and with the names that norms had in BERT's first files.
    fn names_of(&self, name: &str) -> Vec<String> {
        let family = self.case["family"].as_str().unwrap_or_default();
        let mut names = vec![name.to_owned()];
        names.extend(["w", family, "model"].map(|prefix| format!("{prefix}.{name}")));
        names.extend(name.strip_prefix("transformer.").map(Into::into));
        for (new, old) in [("LayerNorm.weight", "LayerNorm.gamma"), ("LayerNorm.bias", "LayerNorm.beta")] {
            if let Some(start) = name.strip_suffix(new) {
                names.extend([format!("{start}{old}"), format!("{family}.{start}{old}")]);
            }
        }
        names
    }

    fn find(&self, name: &str) -> Option<TensorView<'a>> {
        match self.inputs.as_ref().filter(|_| INPUTS.contains(&name)) {
            Some(inputs) => inputs.tensor(name).ok(),
            None => self.tensors.iter().find_map(|file| file.tensor(name).ok()),
        }
    }

    /// A tensor of exactly this name.
    fn view(&self, name: &str) -> Option<TensorView<'a>> {
        let view = self.find(name)?;
        self.read.borrow_mut().insert(name.to_owned());
        Some(view)
    }

    /// A number of the configuration.
    fn number(&self, key: &str) -> Result<f64, Error> {
        let found = &self.case["config"][key];
        found.as_f64().ok_or_else(|| format!("config `{key}`: need a number, found {found}").into())
    }

    /// A size of the configuration: a whole number of at least 1.
    ///
    /// # Errors
    /// Names the key, and what the configuration has there.
    pub fn size(&self, key: &str) -> Result<usize, Error> {
        let found = self.number(key)?;
        if found >= 1.0 && found.fract() == 0.0 && found <= f64::from(u32::MAX) {
            return Ok(found as usize);
        }
        Err(format!("config `{key}`: need a whole number of at least 1, found {found}").into())
    }

    /// A size of the configuration, or a default where there is none.
    ///
    /// # Errors
    /// As [`size`](Self::size).
    pub fn size_or(&self, key: &str, default: usize) -> Result<usize, Error> {
        if self.case["config"][key].is_null() { Ok(default) } else { self.size(key) }
    }

    /// A whole number of the configuration, of either sign, or a default where there is none.
    ///
    /// # Errors
    /// As [`size`](Self::size).
    pub fn whole_or(&self, key: &str, default: i64) -> Result<i64, Error> {
        let found = &self.case["config"][key];
        match found.is_null() {
            true => Ok(default),
            false => found
                .as_i64()
                .ok_or_else(|| format!("config `{key}`: need a whole number, found {found}").into()),
        }
    }

    /// A whole number of the configuration that may be 0.
    ///
    /// # Errors
    /// As [`size`](Self::size).
    pub fn count(&self, key: &str) -> Result<usize, Error> {
        let found = self.whole_or(key, -1)?;
        usize::try_from(found)
            .map_err(|_| format!("config `{key}`: need a whole number of at least 0, found {found}").into())
    }

    /// Sizes in a list, or one alone.
    pub fn sizes(&self, key: &str) -> Result<Vec<usize>, Error> {
        let found = &self.case["config"][key];
        let list = found.as_array().cloned().unwrap_or_else(|| vec![found.clone()]);
        let size = |value: &Value| value.as_u64().filter(|&size| (1..=u64::from(u32::MAX)).contains(&size));
        let sizes: Option<Vec<usize>> =
            list.iter().map(|value| size(value).map(|size| size as usize)).collect();
        let need = "whole numbers of at least 1";
        sizes.ok_or_else(|| format!("config `{key}`: need {need}, found {found}").into())
    }

    /// Two sizes.
    pub fn size_pair(&self, key: &str) -> Result<[usize; 2], Error> {
        let sizes = self.sizes(key)?;
        <[usize; 2]>::try_from(sizes)
            .map_err(|sizes| format!("config `{key}`: need two sizes, found {sizes:?}").into())
    }

    /// Words in a list.
    pub fn words(&self, key: &str) -> Result<Vec<&str>, Error> {
        let found = &self.case["config"][key];
        let words = found.as_array().and_then(|list| list.iter().map(Value::as_str).collect());
        words.ok_or_else(|| format!("config `{key}`: need a list of words, found {found}").into())
    }

    /// Whether gradients are expected.
    pub fn has_gradients(&self) -> bool {
        self.has("dout")
    }

    /// What the configuration says under a key, null if nothing.
    pub fn of_config(&self, key: &str) -> &Value {
        &self.case["config"][key]
    }

    /// A truth value; false where there is none.
    pub fn flag(&self, key: &str) -> Result<bool, Error> {
        self.flag_or(key, false)
    }

    /// A truth value that has a default.
    pub fn flag_or(&self, key: &str, default: bool) -> Result<bool, Error> {
        let found = &self.case["config"][key];
        match found.is_null() {
            true => Ok(default),
            false => found
                .as_bool()
                .ok_or_else(|| format!("config `{key}`: need true or false, found {found}").into()),
        }
    }

    /// A word that has a default.
    pub fn word_or<'f>(&'f self, key: &str, default: &'f str) -> Result<&'f str, Error> {
        let found = &self.case["config"][key];
        match found.is_null() {
            true => Ok(default),
            false => {
                found.as_str().ok_or_else(|| format!("config `{key}`: need a word, found {found}").into())
            }
        }
    }

    /// Refuses what is not supported yet: a key that is neither false, nor empty, nor null.
    pub fn refuse(&self, key: &str) -> Result<(), Error> {
        let found = &self.case["config"][key];
        let empty = found.as_array().is_some_and(Vec::is_empty)
            || found.as_object().is_some_and(|map| map.is_empty());
        let off = found.is_null() || found == false || empty;
        if off { Ok(()) } else { Err(format!("config `{key}`: need none, found {found}").into()) }
    }

    /// The eps of the norms, by the names that it has in the families.
    pub fn eps(&self) -> Result<f32, Error> {
        let names = ["layer_norm_eps", "layer_norm_epsilon", "rms_norm_eps"];
        let there = |name: &&str| !self.case["config"][*name].is_null();
        Ok(self.number(names.into_iter().find(there).unwrap_or(names[0]))? as f32)
    }

    /// How far an expected state may be off by itself.
    pub fn expected_error(&self, state: &str) -> f64 {
        let errors = &self.case["expected_abs_error"];
        errors[state].as_f64().or(errors["out"].as_f64()).unwrap_or(0.0)
    }

    /// A weight by Hugging Face's name, of this shape.
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, Error> {
        let view = self.names_of(name).iter().find_map(|name| self.view(name));
        let view = view.ok_or_else(|| format!("tensor `{name}`: need {shape:?}, found none of this name"))?;
        let (found, dtype) = (view.shape(), view.dtype());
        match widened(&view).filter(|_| found == shape) {
            Some(values) => Ok(values),
            None => Err(format!("tensor `{name}`: need F32 {shape:?}, found {dtype:?} {found:?}").into()),
        }
    }

    /// A weight of any shape.
    pub fn weight(&self, name: &str) -> Result<Vec<f32>, Error> {
        let prefixed = format!("w.{name}");
        Ok(self.values(&prefixed).or_else(|_| self.values(name))?.0)
    }

    /// An f32 tensor of any shape, and its shape.
    pub fn values(&self, name: &str) -> Result<(Vec<f32>, Vec<usize>), Error> {
        let view = self.view(name).ok_or_else(|| format!("tensor `{name}`: need one, found none"))?;
        Ok((self.tensor(name, view.shape())?, view.shape().to_vec()))
    }

    /// Indices `[batch, length]`, and both sizes.
    pub fn indices(&self, name: &str) -> Result<(Vec<u32>, [usize; 2]), Error> {
        let view = self.view(name).ok_or_else(|| format!("tensor `{name}`: need one, found none"))?;
        let &[batch, len] = view.shape() else {
            return Err(format!("tensor `{name}`: need [batch, length], found {:?}", view.shape()).into());
        };
        let (indices, _) = self.integers(name, |_| true)?;
        let whole = |&index: &i32| {
            u32::try_from(index).map_err(|_| format!("tensor `{name}`: found {index} below 0"))
        };
        Ok((indices.iter().map(whole).collect::<Result<_, _>>()?, [batch, len]))
    }

    /// Integers of these sizes, and the sizes.
    pub fn integers(
        &self,
        name: &str,
        fits: impl Fn(&[usize]) -> bool,
    ) -> Result<(Vec<i32>, Vec<usize>), Error> {
        let view = self.view(name).ok_or_else(|| format!("tensor `{name}`: need one, found none"))?;
        let (sizes, dtype) = (view.shape(), view.dtype());
        let values = match dtype {
            Dtype::I32 => bytemuck::pod_collect_to_vec(view.data()),
            Dtype::U8 | Dtype::BOOL => view.data().iter().map(|&value| value.into()).collect(),
            _ => return Err(format!("tensor `{name}`: need I32 or U8, found {dtype:?}").into()),
        };
        if !fits(sizes) {
            let need = "sizes that fit those of the other inputs";
            return Err(format!("tensor `{name}`: need {need}, found {sizes:?}").into());
        }
        Ok((values, sizes.to_vec()))
    }

    /// Ids, each below `rows`: the kernels would take one past it for a row of 0.
    pub fn tokens(&self, name: &str, rows: usize) -> Result<(Vec<u32>, [usize; 2]), Error> {
        let (ids, sizes) = self.indices(name)?;
        match ids.iter().find(|&&id| id as usize >= rows) {
            Some(id) => Err(format!("tensor `{name}`: need ids below {rows}, found {id}").into()),
            None => Ok((ids, sizes)),
        }
    }

    /// Checks the sizes of indices.
    pub fn expect_sizes(&self, name: &str, found: [usize; 2], need: [usize; 2]) -> Result<(), Error> {
        if found == need {
            return Ok(());
        }
        Err(format!("tensor `{name}`: need [batch, length] = {need:?}, found {found:?}").into())
    }

    /// The keys that the attention mask lets be seen, if it hides any: by their number where it is padding on the right, which
    /// takes no test per pair.
    pub fn key_mask(&self, name: &str, sizes: [usize; 2]) -> Result<Option<Box<dyn Pattern>>, Error> {
        if !self.has(name) {
            return Ok(None);
        }
        let (mask, found) = self.indices(name)?;
        self.expect_sizes(name, found, sizes)?;
        if let Some(other) = mask.iter().find(|&&kept| kept > 1) {
            return Err(format!("tensor `{name}`: need 0 and 1, found {other}").into());
        }
        if mask.iter().all(|&kept| kept == 1) {
            return Ok(None);
        }
        let [batch, len] = sizes;
        let rows = || mask.chunks(len.max(1));
        if rows().all(|row| row.is_sorted_by(|a, b| a >= b)) {
            let lengths = rows().map(|row| row.iter().filter(|&&kept| kept == 1).count()).collect();
            return Ok(Some(Box::new(KeyLengths { lengths })));
        }
        let bits: Vec<bool> = mask.iter().map(|&kept| kept == 1).collect();
        Ok(Some(Box::new(Mask::new([batch, 1, 1, len], bits)?)))
    }
}
