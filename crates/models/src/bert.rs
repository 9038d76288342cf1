//! BERT (Devlin 2019) as Hugging Face's `BertModel`: norms behind the residuals, weights `[out, in]`.

use super::{Error, File, Machine, Sizes};
use wgpu_attention::{
    Activation, And, Combine, FeedForwardShape, MatmulShape, Pattern, RowStrides, WeightOrder,
};

/// A forward pass. Keys that the attention mask hides are removed from `pattern`.
pub fn bert<M: Machine>(
    machine: &mut M,
    file: &File<'_>,
    pattern: impl Pattern + 'static,
) -> Result<(), Error> {
    file.check_family("bert")?;
    let (vocabulary, positions) = (file.size("vocab_size")?, file.size("max_position_embeddings")?);
    let (ids, [batch, len]) = file.tokens("input_ids", vocabulary)?;
    let sizes = Sizes {
        batch,
        len,
        width: file.size("hidden_size")?,
        heads: file.size("num_attention_heads")?,
        eps: file.eps()?,
    };
    sizes.check(positions)?;
    let (width, hidden, rows) = (sizes.width, file.size("intermediate_size")?, sizes.rows());
    let types_there = file.size_or("type_vocab_size", 2)?;
    let (types, type_sizes) = file.tokens("token_type_ids", types_there)?;
    file.expect_sizes("token_type_ids", type_sizes, [batch, len])?;
    let attention = sizes.attention();
    let mask = match file.key_mask("attention_mask", [batch, len])? {
        Some(seen) => machine.mask(&attention, And(pattern, seen))?,
        None => machine.mask(&attention, pattern)?,
    };
    // Before anything is as wide as the configuration says: the file holds these, so they bound it.
    let table =
        |name: &str, size| file.tensor(&format!("embeddings.{name}_embeddings.weight"), &[size, width]);
    let (words, places) = (table("word", vocabulary)?, table("position", positions)?);
    let kinds = table("token_type", types_there)?;
    let [x, y, context] = [(); 3].map(|()| machine.tensor(rows * width));
    let qkv = [(); 3].map(|()| machine.tensor(rows * width));

    let add = Combine::AddInto;
    machine.embed(&sizes.embed(vocabulary), &ids, &words, &y)?;
    machine.embed(&sizes.embed(positions).combine(add), &sizes.positions(), &places, &y)?;
    machine.embed(&sizes.embed(types_there).combine(add), &types, &kinds, &y)?;
    let norm = machine.pair(file, "embeddings.LayerNorm", &[width], width)?;
    machine.norm(&sizes.norm(), &y, &norm, &x)?;
    machine.keep("hidden_0".into(), &x);

    let square = MatmulShape::new(rows, width, width).weights(WeightOrder::OutIn).bias(true);
    let feed_forward = FeedForwardShape::new(rows, width, hidden, Activation::GeluErf);
    let feed_forward = feed_forward.weights(WeightOrder::OutIn).bias(true).residual(true);
    for n in 0..file.size("num_hidden_layers")? {
        let name = |part: &str| format!("encoder.layer.{n}.{part}");
        for (projection, out) in ["query", "key", "value"].into_iter().zip(&qkv) {
            let name = name(&format!("attention.self.{projection}"));
            let linear = machine.pair(file, &name, &[width, width], width)?;
            machine.linear(&square, &x, &linear, None, out)?;
        }
        machine.attention(&attention, &mask, &qkv, &[], &context)?;
        let dense = machine.pair(file, &name("attention.output.dense"), &[width, width], width)?;
        machine.linear(&square.combine(Combine::Add), &context, &dense, Some(&x), &y)?;
        let norm = machine.pair(file, &name("attention.output.LayerNorm"), &[width], width)?;
        machine.norm(&sizes.norm(), &y, &norm, &x)?;
        let first = machine.pair(file, &name("intermediate.dense"), &[hidden, width], hidden)?;
        let second = machine.pair(file, &name("output.dense"), &[width, hidden], width)?;
        machine.feed_forward(&feed_forward, &x, [&first, &second], &x, &y)?;
        let norm = machine.pair(file, &name("output.LayerNorm"), &[width], width)?;
        machine.norm(&sizes.norm(), &y, &norm, &x)?;
        machine.keep(format!("hidden_{}", n + 1), &x);
    }
    machine.keep("last".into(), &x);

    pool(machine, file, &sizes, &x)
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
