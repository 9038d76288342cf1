//! The Reformer (Kitaev 2020) as Hugging Face's `ReformerModel`: LSH and local attention in reversible layers, feed-forward in chunks, axial
//! positions.

use super::{Error, File, Layers, Machine, Sizes, Table, activation};
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
        let chunk = file.size("lsh_attn_chunk_length")?;
        self.check_chunks("lsh_attn_chunk_length", chunk)?;
        Ok(LshOptions::new(file.size("num_hashes")?, 2, chunk)
            .buckets(file.sizes("num_buckets")?)
            .look_back(file.count("lsh_num_chunks_before")?)
            .look_ahead(file.count("lsh_num_chunks_after")?)
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
        let (before, after) = (file.count("local_num_chunks_before")?, file.count("local_num_chunks_after")?);
        if before + 1 + after > chunks {
            let found = before + 1 + after;
            let key = "local_num_chunks_before";
            return Err(format!(
                "config `{key}`: need at most {chunks} chunks that see each other, found {found}"
            )
            .into());
        }
        let sees = |n: usize| {
            let ahead = (n % chunks + chunks - n / chunks) % chunks;
            ahead <= after || ahead + before >= chunks
        };
        let layout = BlockLayout::new([1, chunks, chunks], (0..chunks * chunks).map(sees))?;
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

/// A forward pass.
pub fn reformer<M: Machine>(machine: &mut M, file: &File<'_>) -> Result<(), Error> {
    let (config, ids) = Config::read(file)?;
    let (sizes, width) = (config.sizes, config.sizes.width);
    let (rows, inner) = (sizes.rows(), config.inner());
    let [words, first, second] = config.tables(file)?;
    let table = Table::new(machine.upload(&words));
    let mut x = [(); 2].map(|()| machine.tensor(rows * width));
    for stream in &x {
        machine.embed(&sizes.embed(config.vocabulary), &ids, &table, stream)?;
        machine.axial(&config.axial.combine(Combine::AddInto), sizes.batch, [&first, &second], stream)?;
    }
    machine.keep("hidden_0".into(), &x[0]);

    let normed = machine.tensor(rows * width);
    let [q, k, v, context] = [(); 4].map(|()| machine.tensor(rows * inner));
    for (n, &kind) in config.kinds.iter().enumerate() {
        let name = |part: &str| format!("encoder.layers.{n}.{part}");
        let [x1, x2] = &x;
        let y = [(); 2].map(|()| machine.tensor(rows * width));
        let norm = machine.pair(file, &name("attention.layer_norm"), &[width], width)?;
        machine.norm(&sizes.norm(), x2, &norm, &normed)?;
        let project = MatmulShape::new(rows, width, inner).weights(WeightOrder::OutIn);
        let linear = |machine: &mut M, part: &str, out: &M::Tensor| {
            let name = name(&format!("attention.self_attention.{part}.weight"));
            let weight = file.tensor(&name, &[inner, width])?;
            let pair = super::Pair { weight: machine.upload(&weight), bias: None };
            machine.linear(&project, &normed, &pair, None, out)
        };
        linear(machine, "value", &v)?;
        let call = config.attention(kind);
        match kind {
            Kind::Lsh(hashed) => {
                linear(machine, "query_key", &q)?;
                let (options, projections) = (config.lsh(file)?, config.projections(file, hashed)?);
                machine.lsh(
                    &call,
                    &options,
                    [&q, &v],
                    &projections,
                    &context,
                    format!("buckets_lsh{hashed}"),
                )?;
            }
            Kind::Local => {
                linear(machine, "query", &q)?;
                linear(machine, "key", &k)?;
                let mask = machine.mask(&call, config.local(file)?)?;
                machine.attention(&call, &mask, &[q.clone(), k.clone(), v.clone()], &[], &context)?;
            }
        }
        let weight = file.tensor(&name("attention.output.dense.weight"), &[width, inner])?;
        let output = super::Pair { weight: machine.upload(&weight), bias: None };
        let dense = MatmulShape::new(rows, inner, width).weights(WeightOrder::OutIn).combine(Combine::Add);
        machine.linear(&dense, &context, &output, Some(x1), &y[0])?;

        let norm = machine.pair(file, &name("feed_forward.layer_norm"), &[width], width)?;
        machine.norm(&sizes.norm(), &y[0], &norm, &normed)?;
        let hidden = config.hidden;
        let first = machine.pair(file, &name("feed_forward.dense.dense"), &[hidden, width], hidden)?;
        let second = machine.pair(file, &name("feed_forward.output.dense"), &[width, hidden], width)?;
        let layer = config.feed_forward().residual(true);
        machine.feed_forward(&layer, &normed, Layers::new(&first, &second), x2, &y[1])?;
        machine.keep(format!("hidden_{}", n + 1), &y[1]);
        x = y;
    }
    let both = machine.join([rows, width], x.each_ref())?;
    let norm = machine.pair(file, "encoder.layer_norm", &[2 * width], 2 * width)?;
    let last = machine.tensor(rows * 2 * width);
    machine.norm(&config.last_norm(), &both, &norm, &last)?;
    machine.keep("last".into(), &last);
    Ok(())
}
