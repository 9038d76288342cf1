//! A model by its name.

use crate::Error;
use crate::gpt::Gpt;
use crate::model::{Config, Model};
use crate::reformer::Reformer;
use wgpu_attention::{Causal, Gpu, Strided};

/// The model of a configuration, on a device.
pub(crate) fn model(gpu: &Gpu, config: &Config) -> Result<Box<dyn Model>, Error> {
    if !config.width.is_multiple_of(config.heads) {
        let (width, heads) = (config.width, config.heads);
        return Err(format!("heads: need a divisor of the width {width}, found {heads}").into());
    }
    match config.kind.as_str() {
        "gpt" => Ok(Box::new(Gpt::new(gpu, config, Causal)?)),
        "sparse" => {
            // About the root of the length, so that a row attends some two roots of it (Child 2019, section 4.2).
            let stride = (config.len as f64).sqrt().round() as usize;
            Ok(Box::new(Gpt::new(gpu, config, Strided::new(stride)?)?))
        }
        "reformer" => Ok(Box::new(Reformer::new(gpu, config)?)),
        other => Err(format!("model: need gpt, sparse or reformer, found `{other}`").into()),
    }
}
