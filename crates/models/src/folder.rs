//! Weights apart from their configuration and their input, as Hugging Face's folders have them.

use super::{Error, File};
use safetensors::SafeTensors;
use serde_json::{Value, json};

impl<'a> File<'a> {
    /// The weights of `model.safetensors` with the configuration of `config.json`, whose `model_type` is the family. The input is not there
    /// yet: [`with_inputs`](Self::with_inputs).
    pub fn of_weights(bytes: &'a [u8], config: Value) -> Result<Self, Error> {
        let family = config["model_type"].as_str();
        let family = family
            .ok_or_else(|| format!("config `model_type`: need a name, found {}", config["model_type"]))?;
        let case = json!({"op": "model", "family": family, "config": config});
        Ok(Self::new(SafeTensors::deserialize(bytes)?, case))
    }

    /// The same model with the `input_ids`, `attention_mask` and `token_type_ids` of another file, in place of its own.
    pub fn with_inputs(mut self, bytes: &'a [u8]) -> Result<Self, Error> {
        self.inputs = Some(SafeTensors::deserialize(bytes)?);
        Ok(self)
    }
}
