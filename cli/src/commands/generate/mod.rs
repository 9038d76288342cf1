//! `generate`: a text from a GPT-2 or a Llama, token by token.

mod words;

use crate::devices::{AdapterArgs, PathArgs, none_there};
use crate::output::{json_line, seconds};
use crate::progress::Progress;
use anyhow::{Context, Result, anyhow, bail, ensure};
use clap::{ArgGroup, Args, ValueEnum};
use serde::Serialize;
use std::io::Read;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use wgpu_attention::{CacheStorage, ElementType, IntegerFormat, IntegerType, ScaleGroups};
use wgpu_attention_bench::clock::Stop;
use wgpu_attention_models::{Error, Folder, Generator, GeneratorOptions, Sampler, Sampling, decoder_sizes};
use words::{Shown, Words};

/// Continue a text with a GPT-2 or a Llama, token by token, over keys and values that stay on the device
///
/// A model is a folder as Hugging Face lays it out: config.json, model.safetensors (or shards and their index) and, for texts, tokenizer.json. Weights
/// may be f32, f16 or bf16. What this program does not support yet, such as a scaling of the rotary embedding, is an error that names it.
///
/// The text streams to stdout, as ids where there is no tokenizer; times go to stderr. It ends at the model's end of text, after --max-tokens, where
/// the model has no more positions, or at Ctrl-C, which prints what was done and exits with 1; a second one ends at once.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("start").required(true).args(["prompt", "tokens"]))]
#[command(after_help = "Examples:
  wgpu-attention generate --model gpt2 --prompt 'The sea was' --temperature 0.8 --top-p 0.95 --seed 1
  wgpu-attention generate --model llama --prompt - --max-tokens 200 --weights int8 --cache int8 < question.txt
  wgpu-attention generate --model golden/e2e_gpt2.safetensors --tokens 7,12,3 --max-tokens 20 --json")]
pub(super) struct Generate {
    /// A folder with config.json and model.safetensors, such a file with its folder's config.json, or a golden model
    #[arg(long, value_name = "PATH")]
    model: PathBuf,
    /// A text to continue; `-` reads it from stdin, without its last line break
    #[arg(long, value_name = "TEXT")]
    prompt: Option<String>,
    /// Ids to continue, as they are
    #[arg(long, value_name = "IDS", value_delimiter = ',')]
    tokens: Vec<u32>,
    /// Tokens to make, at most
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    max_tokens: u32,
    /// Divides the logits before one is drawn; 0 takes the most likely token
    #[arg(long, value_name = "T", default_value_t = 0.0)]
    temperature: f64,
    /// Draw among the K most likely tokens
    #[arg(long, value_name = "K")]
    top_k: Option<usize>,
    /// Draw among the most likely tokens that hold this share of the probability
    #[arg(long, value_name = "P")]
    top_p: Option<f64>,
    /// Where the random numbers begin: the same seed gives the same text on the same adapter
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Storage of keys and values
    #[arg(long, value_name = "TYPE", default_value = "f32")]
    cache: Cache,
    /// Storage of the weights that rows are multiplied by; integers are made as the model is read
    #[arg(long, value_name = "TYPE", default_value = "f32")]
    weights: Weights,
    #[command(flatten)]
    adapter: AdapterArgs,
    #[command(flatten)]
    path: PathArgs,
    /// One JSON object behind the last token instead of a stream
    #[arg(long)]
    json: bool,
    /// No times on stderr
    #[arg(long, short)]
    quiet: bool,
}

/// How keys and values are stored.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Cache {
    /// IEEE single precision
    F32,
    /// IEEE half precision
    F16,
    /// The upper half of a single
    Bf16,
    /// Integers of 8 bits, a scale per row
    Int8,
}

impl From<Cache> for CacheStorage {
    fn from(cache: Cache) -> Self {
        match cache {
            Cache::F32 => ElementType::F32.into(),
            Cache::F16 => ElementType::F16.into(),
            Cache::Bf16 => ElementType::Bf16.into(),
            Cache::Int8 => Self::Int8,
        }
    }
}

/// How matrices are stored.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Weights {
    /// IEEE single precision
    F32,
    /// Integers of 8 bits, a scale per output
    Int8,
    /// Integers of 4 bits, a scale per 32 inputs of an output
    Int4,
}

impl Weights {
    fn format(self) -> Option<IntegerFormat> {
        match self {
            Self::F32 => None,
            Self::Int8 => Some(IntegerFormat::new(IntegerType::I8)),
            Self::Int4 => Some(IntegerFormat::new(IntegerType::I4).groups(ScaleGroups::Groups(32))),
        }
    }
}

/// Why a text ended. The names are part of the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Stopped {
    /// The model said so.
    End,
    MaxTokens,
    /// No position is left.
    Full,
    Interrupted,
}

/// What was made. The names are part of the command line.
#[derive(Debug, Serialize)]
struct Made {
    adapter: String,
    prompt: Vec<u32>,
    tokens: Vec<u32>,
    /// What the tokens say; none without a tokenizer.
    text: Option<String>,
    stopped: Stopped,
    /// On the device, scales with them.
    weight_bytes: u64,
    cache_bytes: u64,
    prefill_s: f64,
    prefill_tokens_per_s: f64,
    /// Behind the first token, which the prompt gives.
    decode_s: f64,
    decode_tokens_per_s: Option<f64>,
    /// What the host records for a token.
    recording_s_per_token: Option<f64>,
    /// What it submits, which is the driver's work for the most part.
    submitting_s_per_token: Option<f64>,
    /// What the choice of a token takes.
    choosing_s_per_token: Option<f64>,
}

/// An error of the models.
fn of_model(error: Error) -> anyhow::Error {
    anyhow!(error)
}

impl Generate {
    /// All is well unless the user ended it.
    pub(super) fn run(&self) -> Result<bool> {
        let sampling =
            Sampling { temperature: self.temperature, top_k: self.top_k, top_p: self.top_p, seed: self.seed };
        let sampler = Sampler::new(sampling).map_err(of_model)?;
        let mut progress = Progress::new(2, self.quiet || self.json);
        let folder = progress.step("read", || Folder::open(&self.model).map_err(of_model))?;
        let file = folder.file().map_err(of_model).with_context(|| self.model.display().to_string())?;
        // Ids can be continued without a tokenizer, and shown as such.
        let wanted = self.prompt.is_some() || cfg!(feature = "tokenizer");
        let words = folder.tokenizer().filter(|_| wanted).map(|path| Words::open(&path)).transpose()?;
        let prompt = self.start(words.as_ref())?;
        let positions = decoder_sizes(&file).map_err(of_model)?.positions;
        ensure!(
            (1..=positions).contains(&prompt.len()),
            "the prompt: need 1 to {positions} tokens, got {}",
            prompt.len()
        );
        let capacity = positions.min(prompt.len() + self.max_tokens as usize);
        let device = self.adapter.best()?.ok_or_else(none_there)?;
        // Nobody compares a text: its kernels are tested where they are planned.
        let gpu = device.open(self.path)?.self_tests(true);
        let options = GeneratorOptions::new(capacity).cache(self.cache).weights(self.weights.format());
        let generator = progress.step("plan", || Generator::new(&gpu, &file, options).map_err(of_model))?;
        drop(progress);
        let shown = Shown::new(words.as_ref(), self.json);
        let mut text = Text {
            generator,
            sampler,
            shown,
            ends: folder.ends(),
            max_tokens: self.max_tokens as usize,
            stop: stop_on_ctrl_c()?,
            tokens: vec![],
            prefill: Duration::ZERO,
            choosing: Duration::ZERO,
        };
        let made = text.make(gpu.info().name.clone(), prompt)?;
        if self.json {
            json_line(&made)?;
        }
        if !self.quiet {
            eprintln!("{}", summary(&made));
        }
        Ok(made.stopped != Stopped::Interrupted)
    }

    /// The ids to continue.
    fn start(&self, words: Option<&Words>) -> Result<Vec<u32>> {
        let Some(prompt) = &self.prompt else { return Ok(self.tokens.clone()) };
        let Some(words) = words else {
            bail!("--prompt: need tokenizer.json beside the model, found none (--tokens takes ids)");
        };
        if prompt != "-" {
            return words.ids(prompt);
        }
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).context("cannot read the prompt from stdin")?;
        let line = text.strip_suffix('\n').unwrap_or(&text);
        words.ids(line.strip_suffix('\r').unwrap_or(line))
    }
}

fn stop_on_ctrl_c() -> Result<Stop> {
    let stop = Stop::default();
    let set = stop.clone();
    ctrlc::set_handler(move || {
        if set.set() {
            std::process::exit(130);
        }
    })
    .context("cannot catch Ctrl-C")?;
    Ok(stop)
}

/// A text as it grows.
struct Text<'a> {
    generator: Generator,
    sampler: Sampler,
    shown: Shown<'a>,
    ends: &'a [u32],
    max_tokens: usize,
    stop: Stop,
    tokens: Vec<u32>,
    prefill: Duration,
    choosing: Duration,
}

impl Text<'_> {
    fn make(&mut self, adapter: String, prompt: Vec<u32>) -> Result<Made> {
        let start = Instant::now();
        let fed = self.prefill(&prompt)?;
        self.prefill = start.elapsed();
        let start = Instant::now();
        let (recorded, submitted) = (self.generator.recording(), self.generator.submitting());
        let stopped = if fed { self.continued()? } else { Stopped::Interrupted };
        let decode = start.elapsed();
        let text = self.shown.end()?;
        let (chosen, steps) = (self.tokens.len(), self.tokens.len().saturating_sub(1));
        let per = |time: Duration, count: usize| (count > 0).then(|| time.as_secs_f64() / count as f64);
        Ok(Made {
            adapter,
            prefill_s: self.prefill.as_secs_f64(),
            prefill_tokens_per_s: self.generator.len().min(prompt.len()) as f64 / self.prefill.as_secs_f64(),
            prompt,
            tokens: std::mem::take(&mut self.tokens),
            text,
            stopped,
            weight_bytes: self.generator.weight_bytes(),
            cache_bytes: self.generator.cache_bytes(),
            decode_s: decode.as_secs_f64(),
            decode_tokens_per_s: per(decode, steps).map(f64::recip),
            recording_s_per_token: per(self.generator.recording() - recorded, steps),
            submitting_s_per_token: per(self.generator.submitting() - submitted, steps),
            choosing_s_per_token: per(self.choosing, chosen),
        })
    }

    /// The prompt chunk by chunk, all but its last; false where the user ended it.
    fn prefill(&mut self, prompt: &[u32]) -> Result<bool> {
        let chunk = self.generator.options().chunk;
        let last = (prompt.len() - 1) / chunk * chunk;
        for ids in prompt[..last].chunks(chunk) {
            if self.stop.check().is_err() {
                return Ok(false);
            }
            self.generator.append(ids).map_err(of_model)?;
        }
        self.choose(&prompt[last..])?;
        Ok(true)
    }

    /// Tokens until one of the reasons to end; the first is chosen already.
    fn continued(&mut self) -> Result<Stopped> {
        loop {
            let Some(&next) = self.tokens.last() else { return Ok(Stopped::End) };
            if self.ends.contains(&next) {
                self.tokens.pop();
                return Ok(Stopped::End);
            }
            self.shown.show(next)?;
            if self.tokens.len() == self.max_tokens {
                return Ok(Stopped::MaxTokens);
            }
            if self.generator.len() == self.generator.options().capacity {
                return Ok(Stopped::Full);
            }
            if self.stop.check().is_err() {
                return Ok(Stopped::Interrupted);
            }
            self.choose(&[next])?;
        }
    }

    /// The token behind these ids.
    fn choose(&mut self, ids: &[u32]) -> Result<()> {
        let logits = self.generator.feed(ids).map_err(of_model)?;
        let start = Instant::now();
        self.tokens.push(self.sampler.choose(logits).map_err(of_model)?);
        self.choosing += start.elapsed();
        Ok(())
    }
}

/// What was done, in one line.
fn summary(made: &Made) -> String {
    let stopped = match made.stopped {
        Stopped::End => "the text's end",
        Stopped::MaxTokens => "as many as asked for",
        Stopped::Full => "no position left",
        Stopped::Interrupted => "interrupted",
    };
    let decode = made.decode_tokens_per_s.map_or_else(String::new, |speed| {
        let times = [made.recording_s_per_token, made.submitting_s_per_token, made.choosing_s_per_token];
        let [records, submits, chooses] = times.map(|time| time.map(seconds).unwrap_or_default());
        let host = format!("the host records for {records}, submits for {submits} and chooses for {chooses}");
        format!(", {speed:.1} tokens/s; per token {host}")
    });
    format!(
        "{}: prompt of {} tokens in {}, {:.1} tokens/s; {} tokens in {}{decode}; {stopped}",
        made.adapter,
        made.prompt.len(),
        seconds(made.prefill_s),
        made.prefill_tokens_per_s,
        made.tokens.len(),
        seconds(made.decode_s),
    )
}
