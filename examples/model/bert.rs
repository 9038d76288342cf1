//! BERT (Devlin 2019) as Hugging Face's `BertModel`: norms behind the residuals, weights `[out, in]`.

use super::{Error, File, Forward, Sizes};
use wgpu_attention::{
    Activation, And, BlockGrid, Combine, FeedForwardShape, Gpu, KeyLengths, MatmulShape, Parts, Pattern,
    WeightOrder,
};

/// Plans and binds a forward pass. Padding is removed from `pattern` by the attention mask.
pub(crate) fn bert<'a>(gpu: &'a Gpu, file: &File<'_>, pattern: impl Pattern) -> Result<Forward<'a>, Error> {
    file.check_family("bert")?;
    let (vocabulary, positions) = (file.size("vocab_size")?, file.size("max_position_embeddings")?);
    let (ids, [batch, len]) = file.tokens(vocabulary)?;
    let sizes = Sizes {
        batch,
        len,
        width: file.size("hidden_size")?,
        heads: file.size("num_attention_heads")?,
        eps: file.eps()?,
    };
    check(&sizes, positions)?;
    let (width, hidden) = (sizes.width, file.size("intermediate_size")?);
    let lengths = lengths(file, [batch, len])?;
    let parts = Parts::lower(
        &And(pattern, KeyLengths { lengths }),
        BlockGrid::from(&super::attention_shape(&sizes)),
    )?;
    let rows = sizes.rows();
    let mut pass = Forward::new(gpu, sizes);
    let [x, y, context] = [(); 3].map(|()| pass.tensor(rows * width));
    let qkv = [(); 3].map(|()| pass.tensor(rows * width));

    let table =
        |name: &str, size| file.tensor(&format!("embeddings.{name}_embeddings.weight"), &[size, width]);
    let (types, _) = file.indices("token_type_ids")?;
    pass.embed(&ids, &table("word", vocabulary)?, Combine::Store, &y)?;
    pass.embed(&positions_of(batch, len), &table("position", positions)?, Combine::AddInto, &y)?;
    pass.embed(&types, &table("token_type", 2)?, Combine::AddInto, &y)?;
    let norm = pass.pair(file, "embeddings.LayerNorm", &[width], width)?;
    pass.norm(&y, &norm, &x)?;
    pass.keep("hidden_0".into(), &x);

    let square = MatmulShape::new(rows, width, width).weights(WeightOrder::OutIn).bias(true);
    let feed_forward = FeedForwardShape::new(rows, width, hidden, Activation::GeluErf);
    let feed_forward = feed_forward.weights(WeightOrder::OutIn).bias(true).residual(true);
    for n in 0..file.size("num_hidden_layers")? {
        let name = |part: &str| format!("encoder.layer.{n}.{part}");
        for (projection, out) in ["query", "key", "value"].into_iter().zip(&qkv) {
            let linear =
                pass.pair(file, &name(&format!("attention.self.{projection}")), &[width, width], width)?;
            pass.linear(square, &x, &linear.weight, Some(&linear.bias), None, out)?;
        }
        pass.attention(&parts, &qkv, &context)?;
        let dense = pass.pair(file, &name("attention.output.dense"), &[width, width], width)?;
        pass.linear(square.combine(Combine::Add), &context, &dense.weight, Some(&dense.bias), Some(&x), &y)?;
        let norm = pass.pair(file, &name("attention.output.LayerNorm"), &[width], width)?;
        pass.norm(&y, &norm, &x)?;
        let first = pass.pair(file, &name("intermediate.dense"), &[hidden, width], hidden)?;
        let second = pass.pair(file, &name("output.dense"), &[width, hidden], width)?;
        pass.feed_forward(feed_forward, &x, [&first, &second], &x, &y)?;
        let norm = pass.pair(file, &name("output.LayerNorm"), &[width], width)?;
        pass.norm(&y, &norm, &x)?;
        pass.keep(format!("hidden_{}", n + 1), &x);
    }
    pass.keep("last".into(), &x);
    Ok(pass)
}

/// What a table of positions and the heads ask for.
pub(super) fn check(sizes: &Sizes, positions: usize) -> Result<(), Error> {
    if sizes.len > positions {
        return Err(format!("input_ids: need at most {positions} positions, found {}", sizes.len).into());
    }
    if !sizes.width.is_multiple_of(sizes.heads) {
        return Err(format!("heads: need a divisor of {}, found {}", sizes.width, sizes.heads).into());
    }
    Ok(())
}

/// 0 .. len for each batch item.
pub(super) fn positions_of(batch: usize, len: usize) -> Vec<u32> {
    (0..batch).flat_map(|_| 0..len as u32).collect()
}

/// Keys of each item: the attention mask must be ones, then zeros.
fn lengths(file: &File<'_>, sizes: [usize; 2]) -> Result<Vec<usize>, Error> {
    let (mask, found) = file.indices("attention_mask")?;
    if found != sizes {
        return Err(format!("tensor `attention_mask`: need {sizes:?}, found {found:?}").into());
    }
    let length = |mask: &[u32]| -> Result<usize, Error> {
        let length = mask.iter().take_while(|&&kept| kept == 1).count();
        match mask[length..].iter().all(|&kept| kept == 0) {
            true => Ok(length),
            false => Err("tensor `attention_mask`: need ones, then zeros, found another order".into()),
        }
    };
    mask.chunks(sizes[1].max(1)).map(length).collect()
}
