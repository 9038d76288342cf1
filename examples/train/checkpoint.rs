//! Checkpoints: safetensors files, written whole or not at all.

use crate::Error;
use crate::model::Config;
use crate::text::Text;
use crate::trainer::Trainer;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::Path;
use wgpu_attention::Gpu;

/// What a checkpoint holds of every parameter: its values, and the two moments of AdamW.
const PARTS: [&str; 3] = ["", "first.", "second."];

/// Everything it takes to go on.
pub(crate) fn write(path: &Path, trainer: &Trainer, text: &Text) -> Result<(), Error> {
    let state = trainer.state()?;
    let mut tensors = vec![];
    for (part, values) in PARTS.into_iter().zip(&state) {
        let mut at = 0;
        for slot in trainer.model().slots() {
            let bytes = bytemuck::cast_slice(&values[at..][..slot.len]);
            tensors
                .push((format!("{part}{}", slot.name), TensorView::new(Dtype::F32, vec![slot.len], bytes)?));
            at += slot.len;
        }
    }
    let training = json!({
        "config": trainer.config().to_json(), "steps": trainer.steps(), "characters": text.characters(),
    });
    let metadata = HashMap::from([("training".to_owned(), training.to_string())]);
    write_whole(path, &safetensors::serialize(tensors, Some(metadata))?)
}

/// A trainer that goes on as the one that wrote the file would have.
pub(crate) fn read(path: &Path, gpu: &Gpu, text: &Text) -> Result<Trainer, Error> {
    let wrong = |what: String| format!("{}: {what}", path.display());
    let bytes = std::fs::read(path).map_err(|error| wrong(format!("cannot be read: {error}")))?;
    let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|error| wrong(error.to_string()))?;
    let training = header.metadata().as_ref().and_then(|metadata| metadata.get("training"));
    let training =
        training.ok_or_else(|| wrong("need a checkpoint of this example, found none in it".into()))?;
    let training: Value = serde_json::from_str(training)?;
    if training["characters"].as_str() != Some(&text.characters()) {
        return Err(wrong("need the text that it has learnt of, found one of other characters".into()).into());
    }
    let steps = training["steps"].as_u64().and_then(|steps| u32::try_from(steps).ok());
    let steps = steps.ok_or_else(|| wrong(format!("steps: need a number, found {}", training["steps"])))?;
    let mut trainer = Trainer::new(gpu, Config::from_json(&training["config"])?)?;
    let tensors = SafeTensors::deserialize(&bytes)?;
    let mut state = [vec![], vec![], vec![]];
    for (part, values) in PARTS.into_iter().zip(&mut state) {
        for slot in trainer.model().slots() {
            let name = format!("{part}{}", slot.name);
            let tensor =
                tensors.tensor(&name).map_err(|_| wrong(format!("tensor `{name}`: need one, found none")))?;
            if tensor.dtype() != Dtype::F32 || tensor.shape() != [slot.len] {
                let (found, shape) = (tensor.dtype(), tensor.shape());
                return Err(wrong(format!(
                    "tensor `{name}`: need F32 [{}], found {found:?} {shape:?}",
                    slot.len
                ))
                .into());
            }
            values.extend(bytemuck::pod_collect_to_vec::<u8, f32>(tensor.data()));
        }
    }
    trainer.restore(state.each_ref().map(Vec::as_slice), steps);
    Ok(trainer)
}

/// Under another name beside it, renamed when it is complete.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let mut name = path.file_name().ok_or("a file needs a name")?.to_owned();
    name.push(".part");
    let beside = path.with_file_name(name);
    let written = std::fs::write(&beside, bytes).and_then(|()| std::fs::rename(&beside, path));
    written.map_err(|error| format!("cannot write {}: {error}", path.display()).into())
}
