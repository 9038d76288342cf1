//! The Reformer (Kitaev 2020) as Hugging Face's `ReformerModel`: LSH and local attention in reversible layers, feed-forward in chunks, axial
//! positions.

use super::{Error, File, Layers, Machine, Pair, Sizes, Table, activation};
use wgpu_attention::{
    Activation, And, Attention, AttentionShape, AxialShape, BlockLayout, Blocks, Causal, Combine,
    FeedForwardShape, Layout, LshOptions, MatmulShape, NormShape, Pattern, Projections, Score, WeightOrder,
};

/// What attends in a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The n-th LSH layer.
    Lsh(usize),
    Local,
}

impl Kind {
    /// What the weights of attention are called.
    pub(crate) fn names(self) -> Names {
        match self {
            Self::Lsh(_) => LSH,
            Self::Local => LOCAL,
        }
    }
}

/// A name in the file, and that of the branch's parameter.
pub(crate) type Names = &'static [(&'static str, &'static str)];

const LSH: Names = &[
    ("attention.layer_norm.weight", "norm_weight"),
    ("attention.layer_norm.bias", "norm_bias"),
    ("attention.self_attention.query_key.weight", "wqk"),
    ("attention.self_attention.value.weight", "wv"),
    ("attention.output.dense.weight", "wo"),
];

const LOCAL: Names = &[
    ("attention.layer_norm.weight", "norm_weight"),
    ("attention.layer_norm.bias", "norm_bias"),
    ("attention.self_attention.query.weight", "wq"),
    ("attention.self_attention.key.weight", "wk"),
    ("attention.self_attention.value.weight", "wv"),
    ("attention.output.dense.weight", "wo"),
];

pub(crate) const FEED_FORWARD: Names = &[
    ("feed_forward.layer_norm.weight", "norm_weight"),
    ("feed_forward.layer_norm.bias", "norm_bias"),
    ("feed_forward.dense.dense.weight", "w1"),
    ("feed_forward.dense.dense.bias", "b1"),
    ("feed_forward.output.dense.weight", "w2"),
    ("feed_forward.output.dense.bias", "b2"),
];

/// What the configuration says of a model and its input.
pub(crate) struct Config {
    pub(crate) sizes: Sizes,
    pub(crate) head_dim: usize,
    pub(crate) hidden: usize,
    pub(crate) vocabulary: usize,
    pub(crate) axial: AxialShape,
    pub(crate) kinds: Vec<Kind>,
    causal: bool,
    chunk: Option<usize>,
    activation: Activation,
}

impl Config {
    /// The configuration, and the input's ids.
    pub(crate) fn read(file: &File<'_>) -> Result<(Self, Vec<u32>), Error> {
        file.check_family("reformer")?;
        let vocabulary = file.size("vocab_size")?;
        let (ids, [batch, len]) = file.tokens("input_ids", vocabulary)?;
        let (width, heads) = (file.size("hidden_size")?, file.size("num_attention_heads")?);
        if !file.flag("axial_pos_embds")? {
            return Err("config `axial_pos_embds`: need true, found none".into());
        }
        let axial =
            AxialShape::new(file.size_pair("axial_pos_shape")?, file.size_pair("axial_pos_embds_dim")?);
        let positions = axial.positions;
        if axial.width() != width {
            let found = axial.width();
            return Err(format!("config `axial_pos_embds_dim`: need {width} in all, found {found}").into());
        }
        if len > positions {
            return Err(format!("input_ids: need at most {positions} positions, found {len}").into());
        }
        let chunk = file.count("chunk_size_feed_forward")?;
        let (head_dim, eps) = (file.size("attention_head_size")?, file.eps()?);
        let config = Self {
            sizes: Sizes { batch, len, width, heads, eps },
            head_dim,
            hidden: file.size("feed_forward_size")?,
            vocabulary,
            axial: axial.positions(len),
            kinds: kinds(file)?,
            causal: file.flag("is_decoder")?,
            chunk: (chunk > 0).then_some(chunk),
            activation: activation(file.word_or("hidden_act", "relu")?)?,
        };
        Ok((config, ids))
    }

    /// Width of all heads.
    pub(crate) fn inner(&self) -> usize {
        self.sizes.heads * self.head_dim
    }

    /// Of rows `[B, L, H, d]`. LSH scores are not scaled: keys are unit vectors.
    pub(crate) fn attention(&self, kind: Kind) -> Attention {
        let Sizes { batch, len, heads, .. } = self.sizes;
        let call = AttentionShape::new(batch, heads, len, self.head_dim).layout(Layout::Blhd);
        match kind {
            Kind::Lsh(_) => call.score(Score::new().scale(1.0)),
            Kind::Local => call,
        }
    }

    pub(crate) fn lsh(&self, file: &File<'_>) -> Result<LshOptions, Error> {
        let (chunk, rounds) = (file.size("lsh_attn_chunk_length")?, file.size("num_hashes")?);
        let chunks = self.check_chunks("lsh_attn_chunk_length", chunk)?.saturating_mul(rounds);
        let [before, after] = seen(file, "lsh", chunks)?;
        Ok(LshOptions::new(rounds, 2, chunk)
            .buckets(file.sizes("num_buckets")?)
            .look_back(before)
            .look_ahead(after)
            .causal(self.causal)
            .norm_eps((1e-6 * self.head_dim as f64) as f32)
            .projections(Projections::Given { per_head: true }))
    }

    /// Each head's, of an LSH layer.
    pub(crate) fn projections(&self, file: &File<'_>, layer: usize) -> Result<Vec<f32>, Error> {
        let options = self.lsh(file)?;
        let sizes = [self.sizes.heads, self.head_dim, options.rounds, options.columns()];
        file.tensor(&format!("rotations_lsh{layer}"), &sizes)
    }

    /// Chunk c sees the chunks c - before .. c + after, the first after the last.
    pub(crate) fn local(&self, file: &File<'_>) -> Result<Box<dyn Pattern>, Error> {
        let chunk = file.size("local_attn_chunk_length")?;
        let chunks = self.check_chunks("local_attn_chunk_length", chunk)?;
        let [before, after] = seen(file, "local", chunks)?;
        let columns = |own: usize| {
            let seen = (0..=before + after).map(|n| ((own + chunks - before + n) % chunks) as u32);
            let mut seen: Vec<u32> = seen.collect();
            seen.sort_unstable();
            seen
        };
        let layout = BlockLayout::from_columns(chunks, &[(0..chunks).map(columns).collect()])?;
        let blocks = Blocks { block: chunk, layout };
        Ok(if self.causal { Box::new(And(blocks, Causal)) } else { Box::new(blocks) })
    }

    /// The number of chunks. (One alone is another computation there, and padding is the caller's.)
    fn check_chunks(&self, key: &str, chunk: usize) -> Result<usize, Error> {
        let len = self.sizes.len;
        if len <= chunk || !len.is_multiple_of(chunk) {
            return Err(format!(
                "config `{key}`: need a divisor of the length ({len}) below it, found {chunk}"
            )
            .into());
        }
        Ok(len / chunk)
    }

    pub(crate) fn feed_forward(&self) -> FeedForwardShape {
        FeedForwardShape::new(self.sizes.rows(), self.sizes.width, self.hidden, self.activation)
            .weights(WeightOrder::OutIn)
            .bias(true)
            .chunk(self.chunk)
    }

    /// The last norm, over both streams.
    pub(crate) fn last_norm(&self) -> NormShape {
        Sizes { width: 2 * self.sizes.width, ..self.sizes }.norm()
    }

    /// The tables of words and of positions.
    pub(crate) fn tables(&self, file: &File<'_>) -> Result<[Vec<f32>; 3], Error> {
        let ([n0, n1], [d0, d1]) = (self.axial.sizes, self.axial.widths);
        let positions = |axis: usize, sizes: &[usize]| file.tensor(&position_table(axis), sizes);
        Ok([
            file.tensor(WORDS, &[self.vocabulary, self.sizes.width])?,
            positions(0, &[n0, 1, d0])?,
            positions(1, &[1, n1, d1])?,
        ])
    }
}

/// The name of the table of words.
pub(crate) const WORDS: &str = "embeddings.word_embeddings.weight";

/// The name of a table of positions.
pub(crate) fn position_table(axis: usize) -> String {
    format!("embeddings.position_embeddings.weights.{axis}")
}

/// The chunks before its own that a chunk sees, and those behind it: of so many, each once.
fn seen(file: &File<'_>, kind: &str, chunks: usize) -> Result<[usize; 2], Error> {
    let key = |side: &str| format!("{kind}_num_chunks_{side}");
    let [before, after] = [file.count(&key("before"))?, file.count(&key("after"))?];
    let all = before.saturating_add(after).saturating_add(1);
    if all > chunks {
        let key = key("before");
        let need = format!("at most {chunks} chunks that a chunk sees, its own among them");
        return Err(format!("config `{key}`: need {need}, found {all}").into());
    }
    Ok([before, after])
}

fn kinds(file: &File<'_>) -> Result<Vec<Kind>, Error> {
    let words = file.words("attn_layers")?;
    let (count, need) = (words.len(), file.size_or("num_hidden_layers", words.len())?);
    if count != need {
        return Err(
            format!("config `attn_layers`: need {need}, as num_hidden_layers says, found {count}").into()
        );
    }
    let mut hashed = 0;
    let kind = |word: &str| match word {
        "lsh" => {
            hashed += 1;
            Ok(Kind::Lsh(hashed - 1))
        }
        "local" => Ok(Kind::Local),
        other => Err(format!("config `attn_layers`: need lsh or local, found `{other}`").into()),
    };
    words.into_iter().map(kind).collect()
}

/// Runs the Reformer of a file over its `input_ids`, and keeps its states: `hidden_0`, the embedding, `hidden_1` and so on, the second stream
/// behind each layer; and `last`.
///
/// # Errors
/// What is missing or different in the file, by name, and what the machine refuses.
pub fn reformer<M: Machine>(machine: &mut M, file: &File<'_>) -> Result<(), Error> {
    let (config, ids) = Config::read(file)?;
    let (sizes, width) = (config.sizes, config.sizes.width);
    let rows = sizes.rows();
    // Before anything is as wide as the configuration says: the file holds these, so they bound it.
    let [words, first, second] = config.tables(file)?;
    let table = Table::new(machine.upload(&words));
    let mut x = [(); 2].map(|()| machine.tensor(rows * width));
    for stream in &x {
        machine.embed(&sizes.embed(config.vocabulary), &ids, &table, stream)?;
        machine.axial(&config.axial.combine(Combine::AddInto), sizes.batch, [&first, &second], stream)?;
    }
    machine.keep("hidden_0".into(), &x[0]);
    let normed = machine.tensor(rows * width);
    for (n, &kind) in config.kinds.iter().enumerate() {
        let layer = Layer { file, config: &config, name: format!("encoder.layers.{n}"), normed: &normed };
        let [x1, x2] = x;
        let y1 = layer.attention(machine, kind, &x2, &x1)?;
        let y2 = layer.feed_forward(machine, &y1, &x2)?;
        machine.keep(format!("hidden_{}", n + 1), &y2);
        x = [y1, y2];
    }
    let both = machine.join([rows, width], x.each_ref())?;
    let norm = machine.pair(file, "encoder.layer_norm", &[2 * width], 2 * width)?;
    let last = machine.tensor(rows * 2 * width);
    machine.norm(&config.last_norm(), &both, &norm, &last)?;
    machine.keep("last".into(), &last);
    Ok(())
}

/// A layer by its name in the file, with a tensor for what its norms make.
struct Layer<'a, T> {
    file: &'a File<'a>,
    config: &'a Config,
    name: String,
    normed: &'a T,
}

impl<T: Clone> Layer<'_, T> {
    fn weight<M: Machine<Tensor = T>>(
        &self,
        machine: &mut M,
        part: &str,
        sizes: [usize; 2],
    ) -> Result<Pair<T>, Error> {
        machine.weight(self.file, &format!("{}.attention.{part}", self.name), &sizes)
    }

    fn norm<M: Machine<Tensor = T>>(&self, machine: &mut M, part: &str, x: &T) -> Result<(), Error> {
        let sizes = self.config.sizes;
        let name = format!("{}.{part}.layer_norm", self.name);
        let pair = machine.pair(self.file, &name, &[sizes.width], sizes.width)?;
        machine.norm(&sizes.norm(), x, &pair, self.normed)
    }

    /// residual + Attention(norm(x)).
    fn attention<M: Machine<Tensor = T>>(
        &self,
        machine: &mut M,
        kind: Kind,
        x: &T,
        residual: &T,
    ) -> Result<T, Error> {
        let (file, config) = (self.file, self.config);
        let (rows, width, inner) = (config.sizes.rows(), config.sizes.width, config.inner());
        let dense = self.weight(machine, "output.dense", [width, inner])?;
        self.norm(machine, "attention", x)?;
        let project = |machine: &mut M, part: &str| {
            let pair = self.weight(machine, &format!("self_attention.{part}"), [inner, width])?;
            let shape = MatmulShape::new(rows, width, inner).weights(WeightOrder::OutIn);
            let out = machine.tensor(rows * inner);
            machine.linear(&shape, self.normed, &pair, None, &out)?;
            Ok::<_, Error>(out)
        };
        let v = project(machine, "value")?;
        let (context, call) = (machine.tensor(rows * inner), config.attention(kind));
        match kind {
            Kind::Lsh(hashed) => {
                let qk = project(machine, "query_key")?;
                let (options, projections) = (config.lsh(file)?, config.projections(file, hashed)?);
                let buckets = format!("buckets_lsh{hashed}");
                machine.lsh(&call, &options, [&qk, &v], &projections, &context, buckets)?;
            }
            Kind::Local => {
                let (q, k) = (project(machine, "query")?, project(machine, "key")?);
                let mask = machine.mask(&call, config.local(file)?)?;
                machine.attention(&call, &mask, &[q, k, v], &[], &context)?;
            }
        }
        let y = machine.tensor(rows * width);
        let shape = MatmulShape::new(rows, inner, width).weights(WeightOrder::OutIn).combine(Combine::Add);
        machine.linear(&shape, &context, &dense, Some(residual), &y)?;
        Ok(y)
    }

    /// residual + FF(norm(x)).
    fn feed_forward<M: Machine<Tensor = T>>(&self, machine: &mut M, x: &T, residual: &T) -> Result<T, Error> {
        let (width, hidden) = (self.config.sizes.width, self.config.hidden);
        let name = |part: &str| format!("{}.feed_forward.{part}", self.name);
        let first = machine.pair(self.file, &name("dense.dense"), &[hidden, width], hidden)?;
        let second = machine.pair(self.file, &name("output.dense"), &[width, hidden], width)?;
        self.norm(machine, "feed_forward", x)?;
        let y = machine.tensor(self.config.sizes.rows() * width);
        let shape = self.config.feed_forward().residual(true);
        machine.feed_forward(&shape, self.normed, Layers::new(&first, &second), residual, &y)?;
        Ok(y)
    }
}
