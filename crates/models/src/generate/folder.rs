//! A model as Hugging Face lays it out: `config.json`, weights in one safetensors file or in several with an index, `tokenizer.json`.

use crate::{Error, File};
use safetensors::SafeTensors;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The bytes of a model.
pub struct Folder {
    place: PathBuf,
    /// None where a golden file has its own.
    config: Option<Value>,
    files: Vec<Vec<u8>>,
    ends: Vec<u32>,
}

impl Folder {
    /// Reads a folder, or one safetensors file with the configuration beside it, or with one of its own under the metadata key `case`.
    ///
    /// # Errors
    /// A file that is missing or cannot be read; an index that names a tensor its file does not have.
    pub fn open(path: &Path) -> Result<Self, Error> {
        if path.is_dir() {
            let config = json(&path.join("config.json"))?;
            let ends = ends(path, &config)?;
            return Ok(Self { place: path.into(), config: Some(config), files: weights(path)?, ends });
        }
        let bytes = read(path)?;
        let (_, header) =
            SafeTensors::read_metadata(&bytes).map_err(|e| format!("{}: {e}", path.display()))?;
        let has_case = header.metadata().as_ref().is_some_and(|metadata| metadata.contains_key("case"));
        let place = path.parent().unwrap_or(Path::new("")).to_owned();
        let config = (!has_case).then(|| json(&place.join("config.json"))).transpose()?;
        let ends = config.as_ref().map_or(Ok(vec![]), |config| ends(&place, config))?;
        Ok(Self { place, config, files: vec![bytes], ends })
    }

    /// The weights and the configuration.
    ///
    /// # Errors
    /// What no safetensors file is, or a configuration without a model's name.
    pub fn file(&self) -> Result<File<'_>, Error> {
        match (&self.config, &self.files[..]) {
            (None, [bytes]) => File::parse(bytes),
            (config, files) => {
                let files: Vec<&[u8]> = files.iter().map(Vec::as_slice).collect();
                File::of_model(config.as_ref().unwrap_or(&Value::Null), &files)
            }
        }
    }

    /// The ids that end a text.
    pub fn ends(&self) -> &[u32] {
        &self.ends
    }

    /// Where the tokenizer is, if there is one.
    pub fn tokenizer(&self) -> Option<PathBuf> {
        Some(self.place.join("tokenizer.json")).filter(|path| self.config.is_some() && path.is_file())
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|e| format!("cannot read {}: {e}", path.display()).into())
}

fn json(path: &Path) -> Result<Value, Error> {
    serde_json::from_slice(&read(path)?).map_err(|e| format!("{}: {e}", path.display()).into())
}

/// The files with the weights.
fn weights(folder: &Path) -> Result<Vec<Vec<u8>>, Error> {
    let (whole, index) = (folder.join("model.safetensors"), folder.join("model.safetensors.index.json"));
    if whole.is_file() {
        return Ok(vec![read(&whole)?]);
    }
    if !index.is_file() {
        let need = "model.safetensors or model.safetensors.index.json";
        return Err(format!("{}: need {need}, found neither", folder.display()).into());
    }
    let found = json(&index)?;
    let at = |what: String| -> Error { format!("{}: {what}", index.display()).into() };
    let map = found["weight_map"].as_object().ok_or_else(|| at("need a `weight_map`, found none".into()))?;
    let mut shards: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (tensor, file) in map {
        // Only names: an index says nothing about other folders.
        let name = file.as_str().filter(|name| Path::new(name).file_name().is_some_and(|last| last == *name));
        let name = name.ok_or_else(|| at(format!("tensor `{tensor}`: need a file's name, found {file}")))?;
        shards.entry(name).or_default().push(tensor);
    }
    let shard = |(name, tensors): (&str, Vec<&str>)| -> Result<Vec<u8>, Error> {
        let bytes = read(&folder.join(name))?;
        let file = SafeTensors::deserialize(&bytes).map_err(|e| at(format!("{name}: {e}")))?;
        match tensors.iter().find(|tensor| file.tensor(tensor).is_err()) {
            Some(tensor) => Err(at(format!("tensor `{tensor}`: need it in {name}, found none of this name"))),
            None => Ok(bytes),
        }
    };
    shards.into_iter().map(shard).collect()
}

/// `eos_token_id`, a number or a list, as `generation_config.json` has it, or else the configuration.
fn ends(folder: &Path, config: &Value) -> Result<Vec<u32>, Error> {
    let own = folder.join("generation_config.json");
    let own = if own.is_file() { json(&own)? } else { Value::Null };
    let found = [&own, config].map(|config| &config["eos_token_id"]);
    let found = found.into_iter().find(|found| !found.is_null()).unwrap_or(&Value::Null);
    let list = match found {
        Value::Null => &[][..],
        Value::Array(list) => list,
        one => std::slice::from_ref(one),
    };
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    let ids = list.iter().map(id).collect::<Option<_>>();
    ids.ok_or_else(|| format!("config `eos_token_id`: need an id, or a list of ids, found {found}").into())
}
