//! ALBERT (Lan 2020) as Hugging Face's `AlbertModel`: embeddings of E elements that one product widens to the H of the layers, and layers
//! that share their weights.
//!
//! `num_hidden_groups` groups of `inner_group_num` layers hold all weights there are. Layer n of `num_hidden_layers` is group
//! `n num_hidden_groups / num_hidden_layers`, run as a whole: its weights are uploaded once and bound for every layer that it is, and their
//! gradients ([`Training`](super::Training)) are the sums over those layers.

use super::{Error, File, Layers, Machine, Pair, Sizes, Table, activation};
use wgpu_attention::{
    Activation, Attention, Combine, FeedForwardShape, Full, MatmulShape, NormShape, RowStrides, WeightOrder,
};

/// Runs the ALBERT of a file over its `input_ids`, and keeps its states: `hidden_0`, which the first layer sees, `hidden_1` and so on, one per layer, `last`,
/// and `pooled` where the model has a pooling layer. Keys that the attention mask hides are left out.
///
/// # Errors
/// What is missing or different in the file, by name, and what the machine refuses.
pub fn albert<M: Machine>(machine: &mut M, file: &File<'_>) -> Result<(), Error> {
    file.check_family("albert")?;
    file.refuse("pruned_heads")?;
    let model = Albert::of(file)?;
    let (sizes, attention) = (model.sizes, model.sizes.attention());
    let mask = match file.key_mask("attention_mask", [sizes.batch, sizes.len])? {
        Some(seen) => machine.mask(&attention, seen)?,
        None => machine.mask(&attention, Full)?,
    };
    let mut x = model.embed(machine)?;
    machine.keep("hidden_0".into(), &x);
    let group = |n| -> Vec<String> {
        (0..model.inner)
            .map(|inner| format!("encoder.albert_layer_groups.{n}.albert_layers.{inner}"))
            .collect()
    };
    let mut weights = vec![];
    for name in (0..model.groups).flat_map(group) {
        weights.push(model.layer(machine, &name)?);
    }
    for n in 0..model.layers {
        let first = n * model.groups / model.layers * model.inner;
        for layer in &weights[first..first + model.inner] {
            x = model.apply(machine, layer, (&attention, &mask), &x)?;
        }
        machine.keep(format!("hidden_{}", n + 1), &x);
    }
    machine.keep("last".into(), &x);
    model.pool(machine, &x)
}

/// The sizes of a file.
struct Albert<'f, 'a> {
    file: &'f File<'a>,
    sizes: Sizes,
    /// E.
    embedding: usize,
    hidden: usize,
    layers: usize,
    groups: usize,
    inner: usize,
    activation: Activation,
}

/// The weights of a layer, whichever layers it is.
struct Layer<T> {
    /// Of q, k and v.
    projections: [Pair<T>; 3],
    dense: Pair<T>,
    attended: Pair<T>,
    first: Pair<T>,
    second: Pair<T>,
    norm: Pair<T>,
}

impl<'f, 'a> Albert<'f, 'a> {
    fn of(file: &'f File<'a>) -> Result<Self, Error> {
        let (_, [batch, len]) = file.tokens("input_ids", file.size("vocab_size")?)?;
        let heads = file.size("num_attention_heads")?;
        let sizes = Sizes { batch, len, width: file.size("hidden_size")?, heads, eps: file.eps()? };
        sizes.check(file.size("max_position_embeddings")?)?;
        let (layers, groups) = (file.size("num_hidden_layers")?, file.size_or("num_hidden_groups", 1)?);
        if groups > layers {
            let need = format!("config `num_hidden_groups`: need at most {layers}, one per layer");
            return Err(format!("{need}, found {groups}").into());
        }
        Ok(Self {
            file,
            sizes,
            embedding: file.size("embedding_size")?,
            hidden: file.size("intermediate_size")?,
            layers,
            groups,
            inner: file.size_or("inner_group_num", 1)?,
            activation: activation(file.word_or("hidden_act", "gelu_new")?)?,
        })
    }

    /// Words, positions and types of E elements, normed, and then widened to H.
    fn embed<M: Machine>(&self, machine: &mut M) -> Result<M::Tensor, Error> {
        let Self { file, sizes, embedding, .. } = self;
        let (rows, narrow) = (sizes.rows(), Sizes { width: *embedding, ..*sizes });
        let [words, places, types] = [
            file.size("vocab_size")?,
            file.size("max_position_embeddings")?,
            file.size_or("type_vocab_size", 2)?,
        ];
        let ids = file.tokens("input_ids", words)?.0;
        let kinds = match file.has("token_type_ids") {
            false => vec![0; rows],
            true => {
                let (kinds, found) = file.tokens("token_type_ids", types)?;
                file.expect_sizes("token_type_ids", found, [sizes.batch, sizes.len])?;
                kinds
            }
        };
        let padding = file.whole_or("pad_token_id", 0)?.try_into()?;
        let [sum, normed] = [(); 2].map(|()| machine.tensor(rows * embedding));
        for (name, count, ids, padding) in [
            ("word", words, &ids, Some(padding)),
            ("position", places, &narrow.positions(), None),
            ("token_type", types, &kinds, None),
        ] {
            let name = format!("embeddings.{name}_embeddings.weight");
            let values = machine.learnt(file, &name, &[count, *embedding])?;
            let combine = if padding.is_some() { Combine::Store } else { Combine::AddInto };
            machine.embed(&narrow.embed(count).combine(combine), ids, &Table { values, padding }, &sum)?;
        }
        let norm = machine.pair(file, "embeddings.LayerNorm", &[*embedding], *embedding)?;
        machine.norm(&narrow.norm(), &sum, &norm, &normed)?;
        let x = machine.tensor(rows * sizes.width);
        let widen = self.product(machine, "encoder.embedding_hidden_mapping_in", *embedding)?;
        machine.linear(&self.linear(*embedding), &normed, &widen, None, &x)?;
        Ok(x)
    }

    /// A product of rows with H columns.
    fn linear(&self, inner: usize) -> MatmulShape {
        MatmulShape::new(self.sizes.rows(), inner, self.sizes.width).weights(WeightOrder::OutIn).bias(true)
    }

    /// Its matrix.
    fn product<M: Machine>(
        &self,
        machine: &mut M,
        name: &str,
        inner: usize,
    ) -> Result<Pair<M::Tensor>, Error> {
        machine.pair(self.file, name, &[self.sizes.width, inner], self.sizes.width)
    }

    fn layer<M: Machine>(&self, machine: &mut M, name: &str) -> Result<Layer<M::Tensor>, Error> {
        let (width, hidden) = (self.sizes.width, self.hidden);
        let part = |part: &str| format!("{name}.{part}");
        let mut square = |name: &str| self.product(machine, &part(name), width);
        let projections = [square("attention.query")?, square("attention.key")?, square("attention.value")?];
        let dense = square("attention.dense")?;
        let mut norm = |name: &str| machine.pair(self.file, &part(name), &[width], width);
        let (attended, norm) = (norm("attention.LayerNorm")?, norm("full_layer_layer_norm")?);
        let first = machine.pair(self.file, &part("ffn"), &[hidden, width], hidden)?;
        let second = machine.pair(self.file, &part("ffn_output"), &[width, hidden], width)?;
        Ok(Layer { projections, dense, attended, first, second, norm })
    }

    fn apply<M: Machine>(
        &self,
        machine: &mut M,
        layer: &Layer<M::Tensor>,
        (attention, mask): (&Attention, &M::Mask),
        x: &M::Tensor,
    ) -> Result<M::Tensor, Error> {
        let (rows, width) = (self.sizes.rows(), self.sizes.width);
        let norm: NormShape = self.sizes.norm();
        let qkv = [(); 3].map(|()| machine.tensor(rows * width));
        for (pair, out) in layer.projections.iter().zip(&qkv) {
            machine.linear(&self.linear(width), x, pair, None, out)?;
        }
        let [context, sum, attended, wide_sum, out] = [(); 5].map(|()| machine.tensor(rows * width));
        machine.attention(attention, mask, &qkv, &[], &context)?;
        machine.attended(&context);
        let dense = self.linear(width).combine(Combine::Add);
        machine.linear(&dense, &context, &layer.dense, Some(x), &sum)?;
        machine.norm(&norm, &sum, &layer.attended, &attended)?;
        let shape = FeedForwardShape::new(rows, width, self.hidden, self.activation);
        let shape = shape.weights(WeightOrder::OutIn).bias(true).residual(true);
        let layers = Layers::new(&layer.first, &layer.second);
        machine.feed_forward(&shape, &attended, layers, &attended, &wide_sum)?;
        machine.norm(&norm, &wide_sum, &layer.norm, &out)?;
        Ok(out)
    }

    /// Where the model has a pooling layer: the first row of each item.
    fn pool<M: Machine>(&self, machine: &mut M, x: &M::Tensor) -> Result<(), Error> {
        if !self.file.has("pooler.weight") {
            return Ok(());
        }
        let Sizes { batch, len, width, .. } = self.sizes;
        let pooler = self.product(machine, "pooler", width)?;
        let first = MatmulShape::new(batch, width, width).weights(WeightOrder::OutIn).bias(true);
        let first = first.a_strides(RowStrides::new(0, (len * width) as isize)).activation(Activation::Tanh);
        let pooled = machine.tensor(batch * width);
        machine.linear(&first, x, &pooler, None, &pooled)?;
        machine.keep("pooled".into(), &pooled);
        Ok(())
    }
}
