//! `weights`: which keys a query attends, and how much.
//!
//! | file | what |
//! |---|---|
//! | `choice.rs` | which rows: indices and slices |
//! | `heat.rs` | rows as text and as SVG |

mod choice;
mod heat;

use super::file_call::{FileCall, Job};
use crate::devices::{self, AdapterArgs, PathArgs};
use crate::output::{check_writable, json_line, say, write_whole};
use crate::tensors::{self, Output, Tensors};
use anyhow::{Result, ensure};
use choice::{Choice, spread};
use clap::Args;
use serde_json::json;
use std::collections::HashMap;
use std::path::PathBuf;
use wgpu_attention::{
    AttentionWeights, Element, ElementType, Inputs, Pattern, Position, RowSummary, Site, WeightsOptions,
};
use wgpu_attention_bench::typed;

/// The attention weights of chosen queries: drawn, summed up, or written to a file
///
/// The file holds q and k, and what the score and the pattern need, as for `run`; v is not read. Drawn is a line per query: the weight of
/// each key, or of as many keys as fit one cell; the entropy of the row in nats (ln n where n keys share equally); how many keys
/// it attends; and the largest weight with its key. A weight is exp(score - lse): those of a row add up to 1, less a sink's share.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  wgpu-attention weights --pattern causal --input qkv.safetensors --rows 0,5,-1 --head :
  wgpu-attention weights --pattern 'window:before=127,after=0' --input qkv.safetensors --rows 100:200 --json --top 8
  wgpu-attention weights --pattern full --input qkv.safetensors --rows : --head : --output weights.safetensors --svg heads.svg")]
pub(super) struct Weights {
    #[command(flatten)]
    call: FileCall,
    /// Queries: indices and slices as Python has them (`0,5,-1`, `10:20`, `:`), negative ones from the end; 32 from the first to the
    /// last unless given
    #[arg(long, value_name = "LIST", allow_hyphen_values = true)]
    rows: Option<Choice>,
    /// Query heads, likewise
    #[arg(long, value_name = "LIST", allow_hyphen_values = true, default_value = "0")]
    head: Choice,
    /// Batch items, likewise
    #[arg(long, value_name = "LIST", allow_hyphen_values = true, default_value = "0")]
    batch: Choice,
    /// One JSON object per row instead of the drawing: batch, head, row, keys, entropy, and the keys of the largest weights
    #[arg(long)]
    json: bool,
    /// How many keys --json names per row
    #[arg(long, value_name = "N", default_value_t = 4)]
    top: usize,
    /// Also draw the rows as SVG
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Also write every weight: `weights` [batch items, heads, rows, Lk] in f32, 0 for pairs that are not attended
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    adapter: AdapterArgs,
    #[command(flatten)]
    path: PathArgs,
}

/// Rows without --rows.
const ROWS: usize = 32;
/// Rows of a head past which a picture has no line for each.
const MOST_DRAWN: usize = 4096;

/// The rows, and what was found.
struct Found<'a> {
    job: &'a Job,
    /// Indices along each axis: every head of every batch item has all the rows.
    batch: Vec<usize>,
    heads: Vec<usize>,
    rows: Vec<usize>,
    weights: AttentionWeights,
}

impl Weights {
    /// Always all is well, or an error.
    pub(super) fn run(&self) -> Result<bool> {
        for path in [&self.svg, &self.output].into_iter().flatten() {
            check_writable(path)?;
        }
        let (bytes, job) = self.call.read_without_values()?;
        let (file, storage) = (Tensors::parse(&bytes)?, job.call.storage);
        let found = typed!(storage.q, Q => typed!(storage.kv, KV => self.compute::<Q, KV>(&file, &job)))?;
        for site in 0..found.sites() {
            if self.json {
                (0..found.rows.len()).try_for_each(|n| json_line(&found.json(site, n)))?;
            } else {
                say!("{}", heat::text(&found, site).trim_end())?;
            }
        }
        if let Some(path) = &self.svg {
            let title = format!("Attention weights, {}", self.call.pattern()?.to_json());
            write_whole(path, heat::svg(&found, &title).as_bytes())?;
            eprintln!("wrote {}", path.display());
        }
        if let Some(path) = &self.output {
            write_whole(path, &self.file(&found)?)?;
            eprintln!("wrote {}", path.display());
        }
        Ok(true)
    }

    fn compute<'a, Q: Element, KV: Element>(&self, file: &Tensors<'_>, job: &'a Job) -> Result<Found<'a>> {
        let shape = job.call.shape;
        let rows = self.rows.as_ref().map(|rows| rows.of("--rows", shape.q_len)).transpose()?;
        let rows = rows.unwrap_or_else(|| spread(ROWS, shape.q_len));
        let (heads, batch) = (self.head.of("--head", shape.heads)?, self.batch.of("--batch", shape.batch)?);
        ensure!(
            self.svg.is_none() || rows.len() <= MOST_DRAWN,
            "--svg: need at most {MOST_DRAWN} rows per head, got {}",
            rows.len()
        );
        let q: Vec<Q> = file.need("q")?.elements()?;
        let (k, v): (Vec<KV>, _) = (file.need("k")?.elements()?, vec![KV::from_f64(0.0); job.call.len_v()]);
        let inputs = Inputs::new(&q, &k, &v);
        let inputs = job.terms.iter().fold(inputs, |inputs, (name, values)| inputs.tensor(name, values));
        let matrix = !self.json || self.svg.is_some() || self.output.is_some();
        let options = WeightsOptions::default().matrix(matrix).top(self.top);
        let gpu = self.adapter.best()?.ok_or_else(devices::none_there)?.open(self.path)?;
        let rows_of = |batch, head| rows.iter().map(move |&i| Position { batch, head, i });
        let sites = batch.iter().flat_map(|&batch| heads.iter().map(move |&head| (batch, head)));
        let positions: Vec<_> = sites.flat_map(|(batch, head)| rows_of(batch, head)).collect();
        let weights = gpu.attention_weights(job.call.clone(), &inputs, &job.pattern, &positions, options)?;
        Ok(Found { job, batch, heads, rows, weights })
    }

    /// The weights as a file.
    fn file(&self, found: &Found<'_>) -> Result<Vec<u8>> {
        let weights = found.weights.weights.as_deref().unwrap_or_default();
        let output = Output {
            name: "weights",
            element: ElementType::F32,
            shape: vec![found.batch.len(), found.heads.len(), found.rows.len(), found.kv_len()],
            data: bytemuck::cast_slice(weights),
        };
        let metadata = [
            ("made_by", concat!("wgpu-attention ", env!("CARGO_PKG_VERSION")).to_owned()),
            ("pattern", self.call.pattern()?.to_json()),
            ("batch", json!(found.batch).to_string()),
            ("heads", json!(found.heads).to_string()),
            ("rows", json!(found.rows).to_string()),
        ];
        let metadata = metadata.map(|(name, text)| (name.to_owned(), text));
        tensors::serialize(&[output], HashMap::from(metadata))
    }
}

impl Found<'_> {
    /// How many heads, over all batch items.
    fn sites(&self) -> usize {
        self.batch.len() * self.heads.len()
    }

    fn site(&self, site: usize) -> Site {
        let (batch, head) = (self.batch[site / self.heads.len()], self.heads[site % self.heads.len()]);
        Site { batch, head, extent: self.job.call.shape.extent() }
    }

    fn kv_len(&self) -> usize {
        self.job.call.shape.kv_len
    }

    /// Which head, and how many of its queries.
    fn title(&self, site: usize) -> String {
        let (at, shape) = (self.site(site), &self.job.call.shape);
        format!(
            "batch item {}, head {}: {} of {} queries, {} keys",
            at.batch,
            at.head,
            self.rows.len(),
            shape.q_len,
            shape.kv_len
        )
    }

    /// Of the n-th row of a head, by key; asked for only where they were computed.
    fn weights(&self, site: usize, n: usize) -> &[f32] {
        let weights = self.weights.weights.as_deref().unwrap_or_default();
        &weights[(site * self.rows.len() + n) * self.kv_len()..][..self.kv_len()]
    }

    fn summary(&self, site: usize, n: usize) -> &RowSummary {
        let summaries = self.weights.summaries.as_deref().unwrap_or_default();
        &summaries[site * self.rows.len() + n]
    }

    /// Whether the n-th row attends a key.
    fn keeps(&self, site: usize, n: usize, j: usize) -> bool {
        self.job.pattern.keep(&self.site(site), self.rows[n], j)
    }

    fn json(&self, site: usize, n: usize) -> serde_json::Value {
        let (at, row) = (self.site(site), self.summary(site, n));
        let top: Vec<_> = row.top.iter().map(|(key, weight)| json!({"key": key, "weight": weight})).collect();
        json!({
            "batch": at.batch,
            "head": at.head,
            "row": self.rows[n],
            "keys": row.keys,
            "entropy": row.entropy,
            "top": top,
        })
    }
}
