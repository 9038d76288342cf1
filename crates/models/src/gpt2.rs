//! GPT-2 (Radford 2019) as Hugging Face's `GPT2LMHeadModel`: norms before the products, weights `[in, out]`, logits by
//! the transposed token table, or by a head of its own.

use super::attend::{Attend, DecoderSizes, Projections, Whole};
use super::{Error, File, Layers, Machine, Origin, Pair, Sizes, Table, activation};
use wgpu_attention::{
    Activation, And, Combine, FeedForwardShape, Layouts, MatmulShape, Pattern, WeightOrder,
};

/// Runs the GPT-2 of a file over its `input_ids` under a pattern, and keeps its states: `hidden_0`, which the first layer sees, `hidden_1` and
/// so on, one per layer, the last of them behind the final norm; and the logits, `last`.
///
/// Keys that an attention mask hides, if there is one, are removed from `pattern`; positions count from the first token, hidden or not.
/// (Hugging Face gives a row without any key the mean of all values; here it is 0.)
///
/// # Errors
/// What is missing or different in the file, by name, and what the machine refuses.
pub fn gpt2<M: Machine>(
    machine: &mut M,
    file: &File<'_>,
    pattern: impl Pattern + 'static,
) -> Result<(), Error> {
    file.check_family("gpt2")?;
    let (ids, [batch, len]) = file.tokens("input_ids", file.size("vocab_size")?)?;
    let config = Config::of(file)?;
    let sizes = config.rows(batch, len);
    sizes.check(config.sizes.positions)?;
    let attention = sizes.attention();
    let mask = match file.key_mask("attention_mask", [batch, len])? {
        Some(seen) => machine.mask(&attention, And(pattern, seen))?,
        None => machine.mask(&attention, pattern)?,
    };
    let model = Gpt2::load(machine, file)?;
    let whole = Whole { attention, mask, tables: None };
    let x = model.hidden(machine, &ids, &sizes.positions(), &mut whole.layers())?;
    // Hugging Face stores the last hidden state behind the final norm.
    let normed = model.normed(machine, ids.len(), &x)?;
    machine.keep(format!("hidden_{}", config.sizes.layers), &normed);
    let logits = model.logits(machine, ids.len(), &normed)?;
    machine.keep("last".into(), &logits);
    Ok(())
}

/// The sizes that the configuration says.
pub(crate) fn sizes(file: &File<'_>) -> Result<DecoderSizes, Error> {
    Ok(Config::of(file)?.sizes)
}

#[derive(Debug, Clone, Copy)]
struct Config {
    sizes: DecoderSizes,
    hidden: usize,
    activation: Activation,
    eps: f32,
}

impl Config {
    fn of(file: &File<'_>) -> Result<Self, Error> {
        ["scale_attn_by_inverse_layer_idx", "add_cross_attention", "quantization_config"]
            .into_iter()
            .try_for_each(|key| file.refuse(key))?;
        if !file.flag_or("scale_attn_weights", true)? {
            return Err("config `scale_attn_weights`: need true, found false".into());
        }
        let (width, heads) = (file.size("n_embd")?, file.size("n_head")?);
        if !width.is_multiple_of(heads) {
            return Err(format!("heads: need a divisor of {width}, found {heads}").into());
        }
        let sizes = DecoderSizes {
            layers: file.size("n_layer")?,
            width,
            vocabulary: file.size("vocab_size")?,
            heads,
            kv_heads: heads,
            head_dim: width / heads,
            positions: file.size("n_positions")?,
            theta: None,
        };
        let activation = activation(file.word_or("activation_function", "gelu_new")?)?;
        Ok(Self { sizes, hidden: file.size_or("n_inner", 4 * width)?, activation, eps: file.eps()? })
    }

    fn rows(&self, batch: usize, len: usize) -> Sizes {
        Sizes { batch, len, width: self.sizes.width, heads: self.sizes.heads, eps: self.eps }
    }
}

/// The weights.
pub(crate) struct Gpt2<T> {
    pub(crate) sizes: DecoderSizes,
    config: Config,
    tokens: Table<T>,
    positions: Table<T>,
    blocks: Vec<Block<T>>,
    norm: Pair<T>,
    head: Pair<T>,
}

struct Block<T> {
    norm: Pair<T>,
    projections: Projections<T>,
    dense: Pair<T>,
    second_norm: Pair<T>,
    first: Pair<T>,
    second: Pair<T>,
}

impl<T: Clone> Gpt2<T> {
    pub(crate) fn load<M: Machine<Tensor = T>>(machine: &mut M, file: &File<'_>) -> Result<Self, Error> {
        let config = Config::of(file)?;
        let DecoderSizes { layers, width, vocabulary, positions, .. } = config.sizes;
        let (name, size) = ("transformer.wte.weight", [vocabulary, width]);
        let values = file.tensor(name, &size)?;
        let tokens = machine.parameter(Origin::whole(name), &values);
        let table = machine.learnt(file, "transformer.wpe.weight", &[positions, width])?;
        let blocks = (0..layers).map(|n| Block::load(machine, file, &config, n)).collect::<Result<_, _>>()?;
        let norm = machine.pair(file, "transformer.ln_f", &[width], width)?;
        let head = match file.flag_or("tie_word_embeddings", true)? {
            true => {
                let packed = machine.packed(&Origin::whole(name), &values, size, WeightOrder::OutIn)?;
                packed.unwrap_or_else(|| Pair::new(tokens.clone()))
            }
            false => machine.product(file, "lm_head", size, WeightOrder::OutIn)?,
        };
        let (tokens, positions) = (Table::new(tokens), Table::new(table));
        Ok(Self { sizes: config.sizes, config, tokens, positions, blocks, norm, head })
    }

    /// The hidden states before the last norm; shows all but those of the last layer.
    pub(crate) fn hidden<M: Machine<Tensor = T>>(
        &self,
        machine: &mut M,
        ids: &[u32],
        positions: &[u32],
        attend: &mut Attend<'_, M>,
    ) -> Result<T, Error> {
        let (rows, sizes) = (ids.len(), self.config.rows(1, ids.len()));
        let mut x = machine.tensor(rows * sizes.width);
        machine.embed(&sizes.embed(self.sizes.vocabulary), ids, &self.tokens, &x)?;
        let add = sizes.embed(self.sizes.positions).combine(Combine::AddInto);
        machine.embed(&add, positions, &self.positions, &x)?;
        machine.keep("hidden_0".into(), &x);
        for n in 0..self.blocks.len() {
            x = self.block(machine, n, &sizes, &x, attend)?;
            if n + 1 < self.blocks.len() {
                machine.keep(format!("hidden_{}", n + 1), &x);
            }
        }
        Ok(x)
    }

    fn block<M: Machine<Tensor = T>>(
        &self,
        machine: &mut M,
        n: usize,
        sizes: &Sizes,
        x: &T,
        attend: &mut Attend<'_, M>,
    ) -> Result<T, Error> {
        let block = &self.blocks[n];
        let (rows, width) = (sizes.rows(), sizes.width);
        let [normed, context, attended, again, out] = [(); 5].map(|()| machine.tensor(rows * width));
        let square = MatmulShape::new(rows, width, width).bias(true);
        machine.norm(&sizes.norm(), x, &block.norm, &normed)?;
        let qkv = block.projections.of(machine, &square, [width; 3], &normed)?;
        attend(machine, n, &qkv, &context)?;
        machine.linear(&square.combine(Combine::Add), &context, &block.dense, Some(x), &attended)?;
        machine.norm(&sizes.norm(), &attended, &block.second_norm, &again)?;
        let feed_forward = FeedForwardShape::new(rows, width, self.config.hidden, self.config.activation);
        let feed_forward = feed_forward.bias(true).residual(true);
        let layers = Layers::new(&block.first, &block.second);
        machine.feed_forward(&feed_forward, &again, layers, &attended, &out)?;
        Ok(out)
    }

    /// Where q, k and v of so many rows lie.
    pub(crate) fn layouts(&self, rows: usize) -> Layouts {
        self.blocks[0].projections.layouts(&self.sizes, rows)
    }

    /// The last norm.
    pub(crate) fn normed<M: Machine<Tensor = T>>(
        &self,
        machine: &mut M,
        rows: usize,
        x: &T,
    ) -> Result<T, Error> {
        let normed = machine.tensor(rows * self.sizes.width);
        machine.norm(&self.config.rows(1, rows).norm(), x, &self.norm, &normed)?;
        Ok(normed)
    }

    /// The logits of normed states.
    pub(crate) fn logits<M: Machine<Tensor = T>>(
        &self,
        machine: &mut M,
        rows: usize,
        normed: &T,
    ) -> Result<T, Error> {
        let DecoderSizes { width, vocabulary, .. } = self.sizes;
        let logits = machine.tensor(rows * vocabulary);
        let head = MatmulShape::new(rows, width, vocabulary).weights(WeightOrder::OutIn);
        machine.linear(&head, normed, &self.head, None, &logits)?;
        Ok(logits)
    }
}

impl<T: Clone> Block<T> {
    fn load<M: Machine<Tensor = T>>(
        machine: &mut M,
        file: &File<'_>,
        config: &Config,
        n: usize,
    ) -> Result<Self, Error> {
        let (width, hidden) = (config.sizes.width, config.hidden);
        let name = |part: &str| format!("transformer.h.{n}.{part}");
        Ok(Self {
            norm: machine.pair(file, &name("ln_1"), &[width], width)?,
            projections: projections(machine, file, &name("attn.c_attn"), width)?,
            dense: linear(machine, file, &name("attn.c_proj"), [width, width])?,
            second_norm: machine.pair(file, &name("ln_2"), &[width], width)?,
            first: linear(machine, file, &name("mlp.c_fc"), [width, hidden])?,
            second: linear(machine, file, &name("mlp.c_proj"), [hidden, width])?,
        })
    }
}

/// A product `[in, out]` and its bias.
fn linear<M: Machine>(
    machine: &mut M,
    file: &File<'_>,
    name: &str,
    sizes: [usize; 2],
) -> Result<Pair<M::Tensor>, Error> {
    let bias = machine.learnt(file, &format!("{name}.bias"), &sizes[1..])?;
    Ok(machine.product(file, name, sizes, WeightOrder::InOut)?.bias(bias))
}

/// The three projections of `c_attn`, `[in, 3 out]`.
fn projections<M: Machine>(
    machine: &mut M,
    file: &File<'_>,
    name: &str,
    width: usize,
) -> Result<Projections<M::Tensor>, Error> {
    if machine.joins() {
        return linear(machine, file, name, [width, 3 * width]).map(Projections::Joined);
    }
    let (weight_name, bias_name) = (format!("{name}.weight"), format!("{name}.bias"));
    let weight = file.tensor(&weight_name, &[width, 3 * width])?;
    let bias = file.tensor(&bias_name, &[3 * width])?;
    let mut part = |n: usize| -> Result<_, Error> {
        let columns = |row: &[f32]| row[n * width..][..width].to_vec();
        let weight: Vec<f32> = weight.chunks(3 * width).flat_map(columns).collect();
        let origin = Origin::part(&weight_name, n, 3);
        let pair = machine.matrix(origin, &weight, [width, width], WeightOrder::InOut)?;
        Ok(pair.bias(machine.parameter(Origin::part(&bias_name, n, 3), &columns(&bias))))
    };
    Ok(Projections::Apart([part(0)?, part(1)?, part(2)?]))
}
