//! `features`: what a model of BERT's family makes of tokens, for a model behind it.

use crate::devices::{self, AdapterArgs, PathArgs};
use crate::output::{check_writable, say, write_whole};
use crate::tensors::{self, Output, Tensors};
use anyhow::{Context, Result, anyhow, bail, ensure};
use clap::{Args, ValueEnum};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use std::collections::HashMap;
use std::path::PathBuf;
use wgpu_attention::ElementType;
use wgpu_attention_models::{self as model, FeatureLayers, File, Folder, Forward, Pooling};

/// The features of tokens: hidden states of chosen layers, per token or pooled, written to a file
///
/// BERT's feature-based approach (Devlin 2019, section 5.3): the model stays as it is, and another one learns from its hidden states. The
/// model is a safetensors file with its configuration under the metadata key `case` (golden/README.md), or a folder of Hugging Face's with
/// config.json and the weights, of BERT or ALBERT. The file has `features` [texts, tokens, width], or [texts, width] where the tokens are pooled.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  wgpu-attention features --model golden/e2e_albert.safetensors --layers concat-last-4 --out features.safetensors
  wgpu-attention features --model bert-base-uncased --tokens 101,7592,2088,102 --layers second-to-last --pool mean --out text.safetensors
  wgpu-attention features --model bert-base-uncased --tokens '101,7592,102;101,2748,102' --layers sum-last-4 --weights 1,1,2,4 --out two.safetensors")]
pub(super) struct Features {
    /// The model: a file, or a folder
    #[arg(long, short, value_name = "PATH")]
    model: PathBuf,
    /// The ids of the tokens of a text, with `;` between texts; shorter ones are padded, and the padding is masked
    #[arg(long, value_name = "IDS", conflicts_with = "input")]
    tokens: Option<String>,
    /// A safetensors file with `input_ids` [texts, tokens], and if there are any `attention_mask` and `token_type_ids`, I32; those of the model's file
    /// unless given
    #[arg(long, short, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Which hidden states
    #[arg(long, value_enum, default_value = "last")]
    layers: Layers,
    /// The weights of a sum, one for each layer; 1 unless given
    #[arg(long, value_name = "LIST", value_delimiter = ',', allow_hyphen_values = true)]
    weights: Option<Vec<f64>>,
    /// What becomes of the tokens of a text
    #[arg(long, value_enum, default_value = "none")]
    pool: Pool,
    /// Where the features go
    #[arg(long, short, value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    adapter: AdapterArgs,
    #[command(flatten)]
    path: PathArgs,
}

/// [`FeatureLayers`] as an argument.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Layers {
    /// What the first layer sees
    Embeddings,
    /// What the first layer gives
    First,
    /// What the last layer but one gives
    SecondToLast,
    /// What the last layer gives
    Last,
    /// The weighted sum of the last four
    #[value(name = "sum-last-4")]
    SumLast4,
    /// The last four beside each other
    #[value(name = "concat-last-4")]
    ConcatLast4,
    /// The weighted sum of all, without the embeddings
    AllSum,
}

impl Layers {
    fn chosen(self) -> FeatureLayers {
        match self {
            Self::Embeddings => FeatureLayers::Embeddings,
            Self::First => FeatureLayers::First,
            Self::SecondToLast => FeatureLayers::SecondToLast,
            Self::Last => FeatureLayers::Last,
            Self::SumLast4 => FeatureLayers::SumLast4,
            Self::ConcatLast4 => FeatureLayers::ConcatLast4,
            Self::AllSum => FeatureLayers::SumAll,
        }
    }
}

/// [`Pooling`] as an argument.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Pool {
    /// Features per token
    None,
    /// The mean over the tokens that are not masked
    Mean,
    /// The first token that is not masked
    Cls,
    /// The largest of the tokens that are not masked, element by element
    Max,
}

impl Pool {
    fn chosen(self) -> Pooling {
        match self {
            Self::None => Pooling::None,
            Self::Mean => Pooling::Mean,
            Self::Cls => Pooling::Cls,
            Self::Max => Pooling::Max,
        }
    }
}

/// Families whose hidden states these are.
const FAMILIES: [&str; 2] = ["albert", "bert"];

impl Features {
    /// Always all is well, or an error.
    pub(super) fn run(&self) -> Result<bool> {
        check_writable(&self.out)?;
        let said = |error: model::Error| anyhow!("{}: {error}", self.model.display());
        let folder = Folder::open(&self.model).map_err(said)?;
        let mut file = folder.file().map_err(said)?;
        let inputs = self.inputs()?;
        if let Some(inputs) = &inputs {
            file = file.with_inputs(inputs).map_err(said)?;
        }
        let family = file.family().map_err(said)?;
        ensure!(
            FAMILIES.contains(&family),
            "{}: need a model of {}, got `{family}`",
            self.model.display(),
            FAMILIES.join(" or ")
        );
        ensure!(
            file.has("input_ids"),
            "--tokens or --input: need the tokens, which the model's file does not have"
        );

        let seen = seen(&file).map_err(said)?;
        let gpu = self.adapter.best()?.ok_or_else(devices::none_there)?.open(self.path)?;
        let mut pass = Forward::new(&gpu);
        model::run(&mut pass, &file).map_err(said)?;
        let states = pass.run().map_err(said)?;
        let layers = (self.layers.chosen(), self.weights.as_deref());
        let found = model::features(&states, &seen, layers, self.pool.chosen()).map_err(said)?;
        self.write(family, &found)?;
        say!(
            "features {:?} of {family}, {}, pooled: {}",
            found.shape,
            self.word(self.layers),
            self.word(self.pool)
        )?;
        eprintln!("wrote {}", self.out.display());
        Ok(true)
    }

    /// The bytes of a file with the input, where it is not the model's own.
    fn inputs(&self) -> Result<Option<Vec<u8>>> {
        if let Some(path) = &self.input {
            let bytes = tensors::read(path)?;
            Tensors::parse(&bytes)
                .and_then(|file| file.need("input_ids").map(drop))
                .with_context(|| path.display().to_string())?;
            return Ok(Some(bytes));
        }
        self.tokens.as_deref().map(padded).transpose()
    }

    fn write(&self, family: &str, found: &model::Features) -> Result<()> {
        let mut metadata = HashMap::from([
            ("family".to_owned(), family.to_owned()),
            ("layers".to_owned(), self.word(self.layers)),
            ("pool".to_owned(), self.word(self.pool)),
        ]);
        if let Some(weights) = &self.weights {
            metadata.insert(
                "weights".to_owned(),
                weights.iter().map(f64::to_string).collect::<Vec<_>>().join(","),
            );
        }
        let data = bytemuck::cast_slice(&found.values);
        let output = Output { name: "features", element: ElementType::F32, shape: found.shape.clone(), data };
        write_whole(&self.out, &tensors::serialize(&[output], metadata)?)
    }

    /// How an argument is written.
    fn word(&self, value: impl ValueEnum) -> String {
        value.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

/// Which tokens the attention mask lets be seen, `[batch, length]`.
fn seen(file: &File<'_>) -> Result<Vec<Vec<bool>>, model::Error> {
    let (ids, [_, len]) = file.indices("input_ids")?;
    let mask = match file.has("attention_mask") {
        true => file.indices("attention_mask")?.0,
        false => vec![1; ids.len()],
    };
    Ok(mask.chunks(len.max(1)).map(|text| text.iter().map(|&seen| seen == 1).collect()).collect())
}

/// `1,2,3;4,5` as a file with `input_ids` and `attention_mask`.
fn padded(tokens: &str) -> Result<Vec<u8>> {
    let id = |word: &str| word.trim().parse::<i32>().ok().filter(|&id| id >= 0);
    let text = |text: &str| -> Result<Vec<i32>> {
        let ids: Option<Vec<i32>> = text.split(',').map(id).collect();
        ids.with_context(|| format!("--tokens: need ids of at least 0, as `101,7592;101`, got `{text}`"))
    };
    let texts = tokens.split(';').map(text).collect::<Result<Vec<_>>>()?;
    let len = texts.iter().map(Vec::len).max().unwrap_or(0);
    if len == 0 {
        bail!("--tokens: need a token, got none");
    }
    let fill = |of: fn(i32) -> i32| -> Vec<i32> {
        let pad = |ids: &Vec<i32>| {
            ids.iter().map(|&id| of(id)).chain(std::iter::repeat_n(0, len - ids.len())).collect::<Vec<_>>()
        };
        texts.iter().flat_map(pad).collect()
    };
    let (ids, mask) = (fill(|id| id), fill(|_| 1));
    let view = |values| TensorView::new(Dtype::I32, vec![texts.len(), len], bytemuck::cast_slice(values));
    let views = [("input_ids", view(&ids)?), ("attention_mask", view(&mask)?)];
    Ok(safetensors::serialize(views, None)?)
}
