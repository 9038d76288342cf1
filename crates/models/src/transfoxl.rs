//! Transformer-XL (Dai 2019) as Hugging Face's `TransfoXLModel`: two segments behind a memory, which is rows of zeros at first.

use super::memory::{Behind, Heads, Piece, last, project, rows, sinusoids};
use super::{Error, File, Machine, Pair, Sizes, Table};
use wgpu_attention::{Activation, Causal, WeightOrder, Window};

/// What a layer remembers: rows of the tensors that segments before left.
pub type Memory<T> = Vec<Piece<T>>;

/// The weights, and what the configuration says.
pub struct TransformerXl<T> {
    width: usize,
    heads: Heads,
    eps: f32,
    memory: usize,
    /// -1: none.
    clamp: i64,
    /// Only the last `memory` keys up to oneself.
    same_length: bool,
    /// The embedding, times sqrt(width).
    words: Vec<f32>,
    layers: Vec<Layer<T>>,
}

struct Layer<T> {
    /// q, k, v and r, each `[H d, width]`.
    products: [Pair<T>; 4],
    /// u, then w.
    biases: T,
    behind: Behind<T>,
}

/// Runs the Transformer-XL of a file over both segments, and keeps their states: `seg1_hidden_0`, `seg2_hidden_0` and so on, `mems1_0` and so
/// on, the memory between them, `seg1_last` and `last`.
///
/// # Errors
/// What is missing or different in the file, by name, and what the machine refuses.
pub fn transfoxl<M: Machine>(machine: &mut M, file: &File<'_>) -> Result<(), Error> {
    file.check_family("transfoxl")?;
    for key in ["adaptive", "cutoffs"] {
        file.refuse(key)?;
    }
    let vocabulary = file.size("vocab_size")?;
    let (first, [batch, first_len]) = file.tokens("input_ids_1", vocabulary)?;
    let (second, sizes) = file.tokens("input_ids_2", vocabulary)?;
    file.expect_sizes("input_ids_2", sizes, [batch, sizes[1]])?;
    let model = TransformerXl::read(machine, file)?;

    let memory = model.no_memory(machine, batch);
    let memory = model.segment(machine, ["seg1", "seg1_last"], &first, [batch, first_len], memory)?;
    for (n, pieces) in memory.iter().enumerate() {
        machine.keep_rows(format!("mems1_{n}"), [batch, model.width], pieces);
    }
    model.segment(machine, ["seg2", "last"], &second, sizes, memory)?;
    Ok(())
}

impl<T: Clone> TransformerXl<T> {
    /// Reads the weights.
    ///
    /// # Errors
    /// What is missing or different in the file, by name.
    pub fn read<M: Machine<Tensor = T>>(machine: &mut M, file: &File<'_>) -> Result<Self, Error> {
        let vocabulary = file.size("vocab_size")?;
        let width = file.size("d_model")?;
        let embedded = file.size_or("d_embed", width)?;
        if embedded != width {
            return Err(format!("config `d_embed`: need d_model ({width}), found {embedded}").into());
        }
        let heads = Heads { heads: file.size("n_head")?, dim: file.size("d_head")? };
        let words = file.tensor("word_emb.emb_layers.0.weight", &[vocabulary, width])?;
        let factor = (width as f64).sqrt();
        let layers = (0..file.size("n_layer")?).map(|n| Layer::read(machine, file, n, width, heads));
        Ok(Self {
            width,
            heads,
            eps: file.eps()?,
            memory: file.size_or("mem_len", 0)?,
            clamp: file.whole_or("clamp_len", -1)?,
            same_length: file.flag("same_length")?,
            words: words.iter().map(|&x| (f64::from(x) * factor) as f32).collect(),
            layers: layers.collect::<Result<_, _>>()?,
        })
    }

    /// The same model with another length of its memory.
    pub fn with_memory(self, rows: usize) -> Self {
        Self { memory: rows, ..self }
    }

    /// Layers, width, heads and their size, width of the feed-forward layers, rows of the vocabulary.
    pub fn sizes(&self) -> [usize; 6] {
        let hidden = self.layers.first().map_or(0, |layer| layer.behind.hidden);
        let words = self.words.len() / self.width;
        [self.layers.len(), self.width, self.heads.heads, self.heads.dim, hidden, words]
    }

    /// The memory before the first segment, of each layer: rows of zeros, which are attended to.
    pub fn no_memory<M: Machine<Tensor = T>>(&self, machine: &mut M, batch: usize) -> Vec<Memory<T>> {
        if self.memory == 0 {
            return self.layers.iter().map(|_| vec![]).collect();
        }
        let zeros = machine.upload(&vec![0.0; batch * self.memory * self.width]);
        self.layers.iter().map(|_| vec![Piece::all(zeros.clone(), self.memory)]).collect()
    }

    /// Runs a segment behind the memory of each layer, and keeps its states under `name`, the last also as `end`. Returns the memory of the next
    /// segment, which names rows that this one leaves, and copies none.
    ///
    /// # Errors
    /// What the machine refuses.
    pub fn segment<M: Machine<Tensor = T>>(
        &self,
        machine: &mut M,
        [name, end]: [&str; 2],
        ids: &[u32],
        [batch, len]: [usize; 2],
        memory: Vec<Memory<T>>,
    ) -> Result<Vec<Memory<T>>, Error> {
        let sizes = Sizes { batch, len, width: self.width, heads: self.heads.heads, eps: self.eps };
        let keys = memory.first().map_or(0, |pieces| rows(pieces)) + len;
        let mut x = machine.tensor(sizes.rows() * self.width);
        let words = Table::new(machine.upload(&self.words));
        machine.embed(&sizes.embed(self.words.len() / self.width), ids, &words, &x)?;
        machine.keep(format!("{name}_hidden_0"), &x);

        let clamped = |distance: i64| if self.clamp > 0 { distance.min(self.clamp) } else { distance };
        let positions = sinusoids((0..keys as i64).rev().map(clamped), self.width);
        let positions = [Piece::all(machine.upload(&positions), keys)];
        let call = self.heads.attention([batch, len, keys], keys - 1, keys);
        let mask = match self.same_length {
            true => machine.mask(&call, Window { before: self.memory.max(1) - 1, after: 0 })?,
            false => machine.mask(&call, Causal)?,
        };

        let mut next_memory = vec![];
        for (n, (layer, memory)) in self.layers.iter().zip(memory).enumerate() {
            let mut pieces = memory;
            pieces.push(Piece::all(x.clone(), len));
            next_memory.push(last(pieces.clone(), self.memory));
            if layer.behind.norm_first {
                for piece in &mut pieces {
                    let normed = machine.tensor(batch * piece.len * self.width);
                    let shape = Sizes { len: piece.len, ..sizes }.norm();
                    machine.norm(&shape, &piece.tensor, &layer.behind.norm, &normed)?;
                    piece.tensor = normed;
                }
            }
            let size = [batch, self.width, self.heads.width()];
            let [by_q, by_k, by_v, by_r] = &layer.products;
            let own = pieces.len() - 1;
            let q = project(machine, size, &pieces[own..], WeightOrder::OutIn, by_q)?;
            let k = project(machine, size, &pieces, WeightOrder::OutIn, by_k)?;
            let v = project(machine, size, &pieces, WeightOrder::OutIn, by_v)?;
            let r = project(machine, [1, size[1], size[2]], &positions, WeightOrder::OutIn, by_r)?;
            let context = machine.tensor(batch * len * self.heads.width());
            let terms = [("relative_rows", &r), ("relative_biases", &layer.biases)];
            machine.attention(&call, &mask, &[q, k, v], &terms, &context)?;
            x = layer.behind.finish(machine, &sizes, self.heads, &x, &context)?;
            machine.keep(format!("{name}_hidden_{}", n + 1), &x);
        }
        machine.keep(end.into(), &x);
        Ok(next_memory)
    }
}

impl<T: Clone> Layer<T> {
    fn read<M: Machine<Tensor = T>>(
        machine: &mut M,
        file: &File<'_>,
        n: usize,
        width: usize,
        heads: Heads,
    ) -> Result<Self, Error> {
        let name = |part: &str| format!("layers.{n}.{part}");
        let (inner, sizes) = (heads.width(), [heads.heads, heads.dim]);
        let plain = |machine: &mut M, weight: &[f32]| Pair::new(machine.upload(weight));
        let qkv = file.tensor(&name("dec_attn.qkv_net.weight"), &[3 * inner, width])?;
        let mut parts = qkv.chunks(inner * width).map(|part| plain(machine, part)).collect::<Vec<_>>();
        let r = file.tensor(&name("dec_attn.r_net.weight"), &[inner, width])?;
        parts.push(plain(machine, &r));
        let products = parts.try_into().map_err(|_| "qkv_net: need three matrices")?;
        // Untied ones are the layer's, tied ones the model's.
        let bias = |part: &str| {
            let own = name(&format!("dec_attn.{part}"));
            file.tensor(if file.has(&own) { &own } else { part }, &sizes)
        };
        let biases = [bias("r_w_bias")?, bias("r_r_bias")?].concat();
        let o = file.tensor(&name("dec_attn.o_net.weight"), &[width, inner])?;
        let hidden = file.size("d_inner")?;
        Ok(Self {
            products,
            biases: machine.upload(&biases),
            behind: Behind {
                o: plain(machine, &o),
                order: WeightOrder::OutIn,
                norm: machine.pair(file, &name("dec_attn.layer_norm"), &[width], width)?,
                first: machine.pair(file, &name("pos_ff.CoreNet.0"), &[hidden, width], hidden)?,
                second: machine.pair(file, &name("pos_ff.CoreNet.3"), &[width, hidden], width)?,
                last_norm: machine.pair(file, &name("pos_ff.layer_norm"), &[width], width)?,
                hidden,
                activation: Activation::Relu,
                norm_first: file.flag("pre_lnorm")?,
            },
        })
    }
}
