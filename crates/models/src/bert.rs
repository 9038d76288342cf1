//! BERT (Devlin 2019) as Hugging Face's `BertModel`: norms behind the residuals, weights `[out, in]`; and what BigBird and Longformer have of it.

use super::{Error, File, Layers, Machine, Pair, Sizes, Table, activation};
use wgpu_attention::{
    Activation, And, Combine, FeedForwardShape, Heads, MatmulShape, Pattern, RowStrides, WeightOrder,
};

/// Runs the BERT of a file over its `input_ids` under a pattern, and keeps its states: `hidden_0`, which the first layer sees, `hidden_1` and so on, one per layer,
/// `last`, and `pooled` where the model has a pooling layer.
///
/// Keys that the attention mask hides are removed from `pattern`. Heads that the configuration's `pruned_heads` names are not
/// computed and count as 0 before the output projection, as Hugging Face's `prune_heads` has it; the weights are whole, whatever is pruned.
///
/// # Errors
/// What is missing or different in the file, by name, and what the machine refuses.
pub fn bert<M: Machine>(
    machine: &mut M,
    file: &File<'_>,
    pattern: impl Pattern + 'static,
) -> Result<(), Error> {
    file.check_family("bert")?;
    let (encoder, tokens) = Encoder::of(file, "gelu")?;
    let sizes = encoder.sizes;
    let pruned = file.pruned_heads(encoder.layers, sizes.heads)?;
    let attention = sizes.attention();
    let mask = match file.key_mask("attention_mask", [sizes.batch, sizes.len])? {
        Some(seen) => machine.mask(&attention, And(pattern, seen))?,
        None => machine.mask(&attention, pattern)?,
    };
    let mut x = encoder.embed(machine, &tokens, &sizes.positions(), None)?;
    for (n, pruned) in pruned.iter().enumerate() {
        let qkv = encoder.projections(machine, n, ["query", "key", "value"], &x)?;
        let elements = sizes.rows() * sizes.width;
        // A pruned head counts as one whose context is 0.
        let (call, context) = match &pruned[..] {
            [] => (attention.clone(), machine.tensor(elements)),
            some => (attention.clone().heads(Heads::without(sizes.heads, some)), machine.zeros(elements)),
        };
        machine.attention(&call, &mask, &qkv, &[], &context)?;
        machine.attended(&context);
        x = encoder.behind(machine, n, &x, &context)?;
    }
    machine.keep("last".into(), &x);
    pool(machine, file, &sizes, &x)
}

/// What the members of the family have in common: all but their attention.
pub(crate) struct Encoder<'f, 'a> {
    file: &'f File<'a>,
    pub(crate) sizes: Sizes,
    pub(crate) layers: usize,
    vocabulary: usize,
    positions: usize,
    types: usize,
    hidden: usize,
    activation: Activation,
    /// The row of the embeddings that stands for padding and is not learnt.
    pub(crate) padding: usize,
}

/// The ids of the words and of their segments, of each `[batch, len]`.
pub(crate) struct Tokens {
    pub(crate) ids: Vec<u32>,
    types: Vec<u32>,
}

impl<'f, 'a> Encoder<'f, 'a> {
    /// The sizes of the file, and its input; `default` is the family's activation.
    pub(crate) fn of(file: &'f File<'a>, default: &str) -> Result<(Self, Tokens), Error> {
        let vocabulary = file.size("vocab_size")?;
        let (ids, [batch, len]) = file.tokens("input_ids", vocabulary)?;
        let types_there = file.size_or("type_vocab_size", 2)?;
        let types = match file.has("token_type_ids") {
            false => vec![0; ids.len()],
            true => {
                let (types, sizes) = file.tokens("token_type_ids", types_there)?;
                file.expect_sizes("token_type_ids", sizes, [batch, len])?;
                types
            }
        };
        let encoder = Self {
            file,
            sizes: Sizes {
                batch,
                len,
                width: file.size("hidden_size")?,
                heads: file.size("num_attention_heads")?,
                eps: file.eps()?,
            },
            layers: file.size("num_hidden_layers")?,
            vocabulary,
            positions: file.size("max_position_embeddings")?,
            types: types_there,
            hidden: file.size("intermediate_size")?,
            activation: activation(file.word_or("hidden_act", default)?)?,
            padding: file.whole_or("pad_token_id", 0)?.try_into()?,
        };
        encoder.sizes.check(encoder.positions)?;
        Ok((encoder, Tokens { ids, types }))
    }

    /// What the first layer sees; `padding` is the row of the positions that is not learnt, if there is one.
    pub(crate) fn embed<M: Machine>(
        &self,
        machine: &mut M,
        tokens: &Tokens,
        positions: &[u32],
        padding: Option<u32>,
    ) -> Result<M::Tensor, Error> {
        let (sizes, width) = (&self.sizes, self.sizes.width);
        // Before anything is as wide as the configuration says: the file holds these, so they bound it.
        let mut table = |name: &str, rows, padding| -> Result<_, Error> {
            let name = format!("embeddings.{name}_embeddings.weight");
            Ok(Table { values: machine.learnt(self.file, &name, &[rows, width])?, padding })
        };
        let words = table("word", self.vocabulary, Some(self.padding as u32))?;
        let places = table("position", self.positions, padding)?;
        let types = table("token_type", self.types, None)?;
        let [x, y] = [(); 2].map(|()| machine.tensor(sizes.rows() * width));
        let add = Combine::AddInto;
        machine.embed(&sizes.embed(self.vocabulary), &tokens.ids, &words, &y)?;
        machine.embed(&sizes.embed(self.positions).combine(add), positions, &places, &y)?;
        machine.embed(&sizes.embed(self.types).combine(add), &tokens.types, &types, &y)?;
        let norm = machine.pair(self.file, "embeddings.LayerNorm", &[width], width)?;
        machine.norm(&sizes.norm(), &y, &norm, &x)?;
        machine.keep("hidden_0".into(), &x);
        Ok(x)
    }

    /// x times three of the matrices of layer n's attention.
    pub(crate) fn projections<M: Machine>(
        &self,
        machine: &mut M,
        n: usize,
        names: [&str; 3],
        x: &M::Tensor,
    ) -> Result<[M::Tensor; 3], Error> {
        let elements = self.sizes.rows() * self.sizes.width;
        let out = names.map(|_| machine.tensor(elements));
        for (name, out) in names.into_iter().zip(&out) {
            let linear = self.linear(machine, &format!("encoder.layer.{n}.attention.self.{name}"))?;
            machine.linear(&self.square(), x, &linear, None, out)?;
        }
        Ok(out)
    }

    fn linear<M: Machine>(&self, machine: &mut M, name: &str) -> Result<Pair<M::Tensor>, Error> {
        let width = self.sizes.width;
        machine.pair(self.file, name, &[width, width], width)
    }

    fn square(&self) -> MatmulShape {
        let width = self.sizes.width;
        MatmulShape::new(self.sizes.rows(), width, width).weights(WeightOrder::OutIn).bias(true)
    }

    /// What layer n makes of its input and of what its attention gave.
    pub(crate) fn behind<M: Machine>(
        &self,
        machine: &mut M,
        n: usize,
        x: &M::Tensor,
        context: &M::Tensor,
    ) -> Result<M::Tensor, Error> {
        let (file, sizes, hidden) = (self.file, &self.sizes, self.hidden);
        let (rows, width) = (sizes.rows(), sizes.width);
        let name = |part: &str| format!("encoder.layer.{n}.{part}");
        let [sum, attended, wide_sum, out] = [(); 4].map(|()| machine.tensor(rows * width));
        let dense = self.linear(machine, &name("attention.output.dense"))?;
        machine.linear(&self.square().combine(Combine::Add), context, &dense, Some(x), &sum)?;
        let norm = machine.pair(file, &name("attention.output.LayerNorm"), &[width], width)?;
        machine.norm(&sizes.norm(), &sum, &norm, &attended)?;
        let first = machine.pair(file, &name("intermediate.dense"), &[hidden, width], hidden)?;
        let second = machine.pair(file, &name("output.dense"), &[width, hidden], width)?;
        let shape = FeedForwardShape::new(rows, width, hidden, self.activation);
        let shape = shape.weights(WeightOrder::OutIn).bias(true).residual(true);
        machine.feed_forward(&shape, &attended, Layers::new(&first, &second), &attended, &wide_sum)?;
        let norm = machine.pair(file, &name("output.LayerNorm"), &[width], width)?;
        machine.norm(&sizes.norm(), &wide_sum, &norm, &out)?;
        machine.keep(format!("hidden_{}", n + 1), &out);
        Ok(out)
    }
}

/// Where the model has a pooling layer: the first row of each item.
fn pool<M: Machine>(machine: &mut M, file: &File<'_>, sizes: &Sizes, x: &M::Tensor) -> Result<(), Error> {
    // Models without one are stored, too.
    if file.has("pooler.dense.weight") {
        let (batch, len, width) = (sizes.batch, sizes.len, sizes.width);
        let dense = machine.pair(file, "pooler.dense", &[width, width], width)?;
        let first = MatmulShape::new(batch, width, width).weights(WeightOrder::OutIn).bias(true);
        let first = first.a_strides(RowStrides::new(0, (len * width) as isize)).activation(Activation::Tanh);
        let pooled = machine.tensor(batch * width);
        machine.linear(&first, x, &dense, None, &pooled)?;
        machine.keep("pooled".into(), &pooled);
    }
    Ok(())
}
