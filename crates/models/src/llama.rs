//! Llama (Touvron 2023) as Hugging Face's `LlamaModel` and `LlamaForCausalLM`: RMS norms before each part, rotated queries and keys, fewer heads
//! of keys and values than of queries, a gated feed-forward layer, no biases.

use super::attend::{Attend, DecoderSizes, Projections, Whole};
use super::memory::AnyPattern;
use super::{Error, File, Layers, Machine, Origin, Pair, Table, activation};
use wgpu_attention::{
    Activation, And, AttentionShape, Causal, Combine, EmbedShape, FeedForwardShape, Layout, Layouts,
    MatmulShape, NormKind, NormShape, WeightOrder,
};

/// Runs the Llama of a file over its `input_ids`, and keeps its states: `hidden_0`, which the first layer sees, `hidden_1` and so on, one per
/// layer, the last of them behind the final norm; and the same as `last`.
///
/// # Errors
/// What is missing or different in the file, by name, and what the machine refuses.
pub fn llama<M: Machine>(machine: &mut M, file: &File<'_>) -> Result<(), Error> {
    file.check_family("llama")?;
    let sizes = Config::of(file)?.sizes;
    let (ids, [batch, len]) = file.tokens("input_ids", sizes.vocabulary)?;
    let attention = AttentionShape::new(batch, sizes.heads, len, sizes.head_dim).kv_heads(sizes.kv_heads);
    let attention = attention.layout(Layout::Blhd);
    let pattern: AnyPattern = match file.key_mask("attention_mask", [batch, len])? {
        Some(seen) => Box::new(And(Causal, seen)),
        None => Box::new(Causal),
    };
    let mask = machine.mask(&attention, pattern)?;
    let mut table = |name: &str| -> Result<_, Error> {
        let (values, found) = file.values(name)?;
        let need = [len, sizes.head_dim / 2];
        if found != need {
            return Err(format!("tensor `{name}`: need {need:?}, found {found:?}").into());
        }
        Ok(machine.upload(&values))
    };
    let tables = Some([table("rope_cos")?, table("rope_sin")?]);
    let model = Llama::load(machine, file)?;
    let whole = Whole { attention, mask, tables };
    let x = model.hidden(machine, &ids, &mut whole.layers())?;
    // Hugging Face stores the last hidden state behind the final norm.
    let last = model.normed(machine, ids.len(), &x)?;
    machine.keep(format!("hidden_{}", sizes.layers), &last);
    machine.keep("last".into(), &last);
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
        ["attention_bias", "mlp_bias", "sliding_window", "quantization_config"]
            .into_iter()
            .try_for_each(|key| file.refuse(key))?;
        let (width, heads) = (file.size("hidden_size")?, file.size("num_attention_heads")?);
        if file.whole_or("head_dim", 0)? == 0 && !width.is_multiple_of(heads) {
            return Err(format!("num_attention_heads: need a divisor of {width}, found {heads}").into());
        }
        let sizes = DecoderSizes {
            layers: file.size("num_hidden_layers")?,
            width,
            vocabulary: file.size("vocab_size")?,
            heads,
            kv_heads: file.size_or("num_key_value_heads", heads)?,
            head_dim: file.size_or("head_dim", width / heads)?,
            positions: file.size_or("max_position_embeddings", 2048)?,
            theta: Some(theta(file)?),
        };
        let activation = activation(file.word_or("hidden_act", "silu")?)?;
        Ok(Self { sizes, hidden: file.size("intermediate_size")?, activation, eps: file.eps()? })
    }

    fn norm(&self, rows: usize) -> NormShape {
        NormShape::new(NormKind::Rms, rows, self.sizes.width, self.eps)
    }
}

/// The base of the angles. Angles that are made otherwise are refused: texts would come out that nearly make sense.
fn theta(file: &File<'_>) -> Result<f64, Error> {
    for key in ["rope_scaling", "rope_parameters"] {
        let found = file.of_config(key);
        let kind = [&found["rope_type"], &found["type"]].into_iter().find(|kind| !kind.is_null());
        if !found.is_null() && kind.and_then(|kind| kind.as_str()) != Some("default") {
            return Err(format!("config `{key}`: need none, or rope_type `default`, found {found}").into());
        }
    }
    let partial = file.of_config("partial_rotary_factor");
    if !partial.is_null() && partial.as_f64() != Some(1.0) {
        return Err(format!("config `partial_rotary_factor`: need 1, found {partial}").into());
    }
    let inner = &file.of_config("rope_parameters")["rope_theta"];
    let found = if inner.is_null() { file.of_config("rope_theta") } else { inner };
    if found.is_null() {
        return Ok(10000.0);
    }
    let theta = found.as_f64().filter(|theta| theta.is_finite() && *theta >= 1.0);
    theta.ok_or_else(|| format!("config `rope_theta`: need a number of at least 1, found {found}").into())
}

/// The weights.
pub(crate) struct Llama<T> {
    pub(crate) sizes: DecoderSizes,
    config: Config,
    tokens: Table<T>,
    blocks: Vec<Block<T>>,
    norm: Pair<T>,
    /// None in a model that ends with its hidden states.
    head: Option<Pair<T>>,
}

struct Block<T> {
    norm: Pair<T>,
    projections: Projections<T>,
    output: Pair<T>,
    second_norm: Pair<T>,
    first: Pair<T>,
    gate: Pair<T>,
    second: Pair<T>,
}

impl<T: Clone> Llama<T> {
    pub(crate) fn load<M: Machine<Tensor = T>>(machine: &mut M, file: &File<'_>) -> Result<Self, Error> {
        let config = Config::of(file)?;
        let DecoderSizes { layers, width, vocabulary, .. } = config.sizes;
        let (name, size) = ("embed_tokens.weight", [vocabulary, width]);
        let values = file.tensor(name, &size)?;
        let tokens = machine.parameter(Origin::whole(name), &values);
        let blocks = (0..layers).map(|n| Block::load(machine, file, &config, n)).collect::<Result<_, _>>()?;
        let norm = machine.weight(file, "norm", &[width])?;
        let head = if file.flag("tie_word_embeddings")? {
            let packed = machine.packed(&Origin::whole(name), &values, size, WeightOrder::OutIn)?;
            Some(packed.unwrap_or_else(|| Pair::new(tokens.clone())))
        } else if file.has("lm_head.weight") {
            Some(machine.product(file, "lm_head", size, WeightOrder::OutIn)?)
        } else {
            None
        };
        Ok(Self { sizes: config.sizes, config, tokens: Table::new(tokens), blocks, norm, head })
    }

    /// The hidden states before the last norm; shows all but those of the last layer.
    pub(crate) fn hidden<M: Machine<Tensor = T>>(
        &self,
        machine: &mut M,
        ids: &[u32],
        attend: &mut Attend<'_, M>,
    ) -> Result<T, Error> {
        let DecoderSizes { width, vocabulary, .. } = self.sizes;
        let rows = ids.len();
        let mut x = machine.tensor(rows * width);
        machine.embed(&EmbedShape::new(rows, vocabulary, width), ids, &self.tokens, &x)?;
        machine.keep("hidden_0".into(), &x);
        for n in 0..self.blocks.len() {
            let sum = self.attended(machine, n, rows, &x, attend)?;
            x = self.fed_forward(machine, &self.blocks[n], rows, &sum)?;
            if n + 1 < self.blocks.len() {
                machine.keep(format!("hidden_{}", n + 1), &x);
            }
        }
        Ok(x)
    }

    /// x with what attention makes of it.
    fn attended<M: Machine<Tensor = T>>(
        &self,
        machine: &mut M,
        n: usize,
        rows: usize,
        x: &T,
        attend: &mut Attend<'_, M>,
    ) -> Result<T, Error> {
        let block = &self.blocks[n];
        let DecoderSizes { width, heads, kv_heads, head_dim, .. } = self.sizes;
        let normed = machine.tensor(rows * width);
        machine.norm(&self.config.norm(rows), x, &block.norm, &normed)?;
        let linear = |inner, columns| MatmulShape::new(rows, inner, columns).weights(WeightOrder::OutIn);
        let columns = [heads, kv_heads, kv_heads].map(|heads| heads * head_dim);
        let qkv = block.projections.of(machine, &linear(width, width), columns, &normed)?;
        let context = machine.tensor(rows * heads * head_dim);
        attend(machine, n, &qkv, &context)?;
        let sum = machine.tensor(rows * width);
        let shape = linear(heads * head_dim, width).combine(Combine::Add);
        machine.linear(&shape, &context, &block.output, Some(x), &sum)?;
        Ok(sum)
    }

    /// x with what the feed-forward layer makes of it.
    fn fed_forward<M: Machine<Tensor = T>>(
        &self,
        machine: &mut M,
        block: &Block<T>,
        rows: usize,
        x: &T,
    ) -> Result<T, Error> {
        let width = self.sizes.width;
        let [normed, out] = [(); 2].map(|()| machine.tensor(rows * width));
        machine.norm(&self.config.norm(rows), x, &block.second_norm, &normed)?;
        let layers = Layers { gate: Some(&block.gate), ..Layers::new(&block.first, &block.second) };
        let shape = FeedForwardShape::new(rows, width, self.config.hidden, self.config.activation);
        let shape = shape.weights(WeightOrder::OutIn).gated(true).residual(true);
        machine.feed_forward(&shape, &normed, layers, x, &out)?;
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
        machine.norm(&self.config.norm(rows), x, &self.norm, &normed)?;
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
        let head = self.head.as_ref().ok_or_else(|| {
            let need = format!("[{vocabulary}, {width}], or `tie_word_embeddings` in the config");
            format!("tensor `lm_head.weight`: need {need}, found neither")
        })?;
        let logits = machine.tensor(rows * vocabulary);
        let shape = MatmulShape::new(rows, width, vocabulary).weights(WeightOrder::OutIn);
        machine.linear(&shape, normed, head, None, &logits)?;
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
        let (DecoderSizes { width, heads, kv_heads, head_dim, .. }, hidden) = (config.sizes, config.hidden);
        let name = |part: &str| format!("layers.{n}.{part}");
        let norm = machine.weight(file, &name("input_layernorm"), &[width])?;
        let second_norm = machine.weight(file, &name("post_attention_layernorm"), &[width])?;
        let parts = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"].map(&name);
        let rows = [heads, kv_heads, kv_heads].map(|heads| heads * head_dim);
        let projections = projections(machine, file, parts, rows, width)?;
        let mut product = |part: &str, sizes| machine.product(file, &name(part), sizes, WeightOrder::OutIn);
        Ok(Self {
            norm,
            projections,
            output: product("self_attn.o_proj", [width, heads * head_dim])?,
            second_norm,
            first: product("mlp.gate_proj", [hidden, width])?,
            gate: product("mlp.up_proj", [hidden, width])?,
            second: product("mlp.down_proj", [width, hidden])?,
        })
    }
}

/// The three projections, `[rows, width]` each.
fn projections<M: Machine>(
    machine: &mut M,
    file: &File<'_>,
    names: [String; 3],
    rows: [usize; 3],
    width: usize,
) -> Result<Projections<M::Tensor>, Error> {
    if !machine.joins() {
        let [q, k, v] = names;
        let mut part = |name: &str, rows| machine.product(file, name, [rows, width], WeightOrder::OutIn);
        return Ok(Projections::Apart([part(&q, rows[0])?, part(&k, rows[1])?, part(&v, rows[2])?]));
    }
    let mut values = vec![];
    for (name, rows) in names.iter().zip(rows) {
        values.extend(file.tensor(&format!("{name}.weight"), &[rows, width])?);
    }
    let [first, ..] = names;
    let sizes = [rows.iter().sum(), width];
    let pair =
        machine.matrix(Origin::whole(format!("{first}.weight")), &values, sizes, WeightOrder::OutIn)?;
    Ok(Projections::Joined(pair))
}
