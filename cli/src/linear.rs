//! Linear attention and Linformer as arguments: in place of a pattern.

use clap::Args;
use wgpu_attention::{FeatureMap, LinearOptions, Projection};

/// Linear attention, where it is asked for.
#[derive(Debug, Args)]
pub(crate) struct LinearArgs {
    /// Linear attention, in place of a pattern, by its feature map: `elu`, `identity`, `softmax`, `favor` (FAVOR+, the Performer's) or `relu`; the last two
    /// may have parameters: `favor:features=256,seed=0`
    #[arg(long, value_name = "MAP", value_parser = map)]
    pub(crate) linear: Option<FeatureMap>,
    /// With --linear: no query sees a later key
    #[arg(long, requires = "linear")]
    causal: bool,
}

impl LinearArgs {
    /// What is asked for, if it is.
    pub(crate) fn options(&self) -> Option<LinearOptions> {
        self.linear.map(|map| LinearOptions::new(map).causal(self.causal))
    }
}

/// Features unless they are given.
const FEATURES: usize = 256;

/// A feature map as an argument.
fn map(text: &str) -> Result<FeatureMap, String> {
    let (name, parameters) = text.split_once(':').unwrap_or((text, ""));
    let (mut features, mut seed) = (FEATURES, 0u64);
    for parameter in parameters.split(',').filter(|it| !it.is_empty()) {
        let (key, value) = parameter
            .split_once('=')
            .ok_or_else(|| format!("`{parameter}`: need a name, `=` and a number"))?;
        let number: u64 = value.parse().map_err(|_| format!("{key}: need a whole number, got `{value}`"))?;
        match key {
            "features" => features = number as usize,
            "seed" => seed = number,
            other => return Err(format!("`{other}`: need `features` or `seed`")),
        }
    }
    let projected = match name {
        "favor" => FeatureMap::favor(features),
        "relu" => FeatureMap::relu(features),
        _ if !parameters.is_empty() => return Err(format!("`{name}` has no parameters, got `{parameters}`")),
        "elu" => FeatureMap::Elu,
        "identity" => FeatureMap::Identity,
        "softmax" => FeatureMap::Softmax,
        other => return Err(format!("`{other}`: need elu, identity, softmax, favor or relu")),
    };
    Ok(projected.projection(Projection::Seeded { seed }))
}

/// A feature map as the argument has it.
pub(crate) fn text(map: &FeatureMap) -> String {
    let seed = |projection: &Projection| match projection {
        Projection::Seeded { seed } => *seed,
        _ => 0,
    };
    match map {
        FeatureMap::Favor { features, projection, .. } => {
            format!("favor:features={features},seed={}", seed(projection))
        }
        FeatureMap::Relu { features, projection, .. } => {
            format!("relu:features={features},seed={}", seed(projection))
        }
        FeatureMap::Elu => "elu".into(),
        FeatureMap::Softmax => "softmax".into(),
        _ => "identity".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_are_read_and_said() {
        for (given, said) in [
            ("elu", "elu"),
            ("identity", "identity"),
            ("softmax", "softmax"),
            ("favor", "favor:features=256,seed=0"),
            ("favor:seed=7", "favor:features=256,seed=7"),
            ("relu:features=32,seed=3", "relu:features=32,seed=3"),
        ] {
            let read = map(given).unwrap();
            assert_eq!(text(&read), said);
            assert_eq!(map(said).unwrap(), read);
        }
        for (given, word) in [
            ("exp", "need elu"),
            ("elu:features=3", "no parameters"),
            ("favor:features=x", "whole number"),
            ("favor:size=3", "`size`"),
            ("favor:features", "`=`"),
        ] {
            let error = map(given).unwrap_err();
            assert!(error.contains(word), "{given}: {error}");
        }
    }
}
