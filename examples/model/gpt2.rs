//! GPT-2 (Radford 2019) as Hugging Face's `GPT2LMHeadModel`: norms before the products, weights `[in, out]`, logits by
//! the transposed token table.

use super::bert::{check, positions_of};
use super::{Error, File, Forward, Pair, Sizes};
use wgpu_attention::{
    Activation, BlockGrid, Combine, FeedForwardShape, Gpu, MatmulShape, Parts, Pattern, WeightOrder,
};

/// Plans and binds a forward pass.
pub(crate) fn gpt2<'a>(gpu: &'a Gpu, file: &File<'_>, pattern: impl Pattern) -> Result<Forward<'a>, Error> {
    file.check_family("gpt2")?;
    let (vocabulary, positions) = (file.size("vocab_size")?, file.size("n_positions")?);
    let (ids, [batch, len]) = file.tokens(vocabulary)?;
    let width = file.size("n_embd")?;
    let hidden = if file.size("n_inner").is_ok() { file.size("n_inner")? } else { 4 * width };
    let sizes = Sizes { batch, len, width, heads: file.size("n_head")?, eps: file.eps()? };
    check(&sizes, positions)?;
    let parts = Parts::lower(&pattern, BlockGrid::from(&super::attention_shape(&sizes)))?;
    let (rows, layers) = (sizes.rows(), file.size("n_layer")?);
    let mut pass = Forward::new(gpu, sizes);
    let [mut x, mut y, normed, context] = [(); 4].map(|()| pass.tensor(rows * width));
    let qkv = [(); 3].map(|()| pass.tensor(rows * width));

    let tokens = file.tensor("transformer.wte.weight", &[vocabulary, width])?;
    pass.embed(&ids, &tokens, Combine::Store, &x)?;
    let table = file.tensor("transformer.wpe.weight", &[positions, width])?;
    pass.embed(&positions_of(batch, len), &table, Combine::AddInto, &x)?;
    pass.keep("hidden_0".into(), &x);

    let square = MatmulShape::new(rows, width, width).bias(true);
    let feed_forward =
        FeedForwardShape::new(rows, width, hidden, Activation::GeluTanh).bias(true).residual(true);
    for n in 0..layers {
        let name = |part: &str| format!("transformer.h.{n}.{part}");
        let norm = pass.pair(file, &name("ln_1"), &[width], width)?;
        pass.norm(&x, &norm, &normed)?;
        for (linear, out) in projections(&pass, file, &name("attn.c_attn"), width)?.iter().zip(&qkv) {
            pass.linear(square, &normed, &linear.weight, Some(&linear.bias), None, out)?;
        }
        pass.attention(&parts, &qkv, &context)?;
        // The residual is where the result goes: it is added to in place.
        let dense = pass.pair(file, &name("attn.c_proj"), &[width, width], width)?;
        pass.linear(square.combine(Combine::AddInto), &context, &dense.weight, Some(&dense.bias), None, &x)?;
        let norm = pass.pair(file, &name("ln_2"), &[width], width)?;
        pass.norm(&x, &norm, &normed)?;
        let first = pass.pair(file, &name("mlp.c_fc"), &[width, hidden], hidden)?;
        let second = pass.pair(file, &name("mlp.c_proj"), &[hidden, width], width)?;
        pass.feed_forward(feed_forward, &normed, [&first, &second], &x, &y)?;
        std::mem::swap(&mut x, &mut y);
        if n + 1 < layers {
            pass.keep(format!("hidden_{}", n + 1), &x);
        }
    }
    // Hugging Face stores the last hidden state behind the final norm.
    let norm = pass.pair(file, "transformer.ln_f", &[width], width)?;
    pass.norm(&x, &norm, &normed)?;
    pass.keep(format!("hidden_{layers}"), &normed);
    let logits = pass.tensor(rows * vocabulary);
    let tokens = pass.upload(&tokens);
    let head = MatmulShape::new(rows, width, vocabulary).weights(WeightOrder::OutIn);
    pass.linear(head, &normed, &tokens, None, None, &logits)?;
    pass.keep("last".into(), &logits);
    Ok(pass)
}

/// The three projections of `c_attn`, `[in, 3 out]`, each a matrix of its own.
fn projections(pass: &Forward<'_>, file: &File<'_>, name: &str, width: usize) -> Result<[Pair; 3], Error> {
    let weight = file.tensor(&format!("{name}.weight"), &[width, 3 * width])?;
    let bias = file.tensor(&format!("{name}.bias"), &[3 * width])?;
    Ok([0, 1, 2].map(|n| {
        let columns = |row: &[f32]| row[n * width..][..width].to_vec();
        let weight: Vec<f32> = weight.chunks(3 * width).flat_map(columns).collect();
        Pair { weight: pass.upload(&weight), bias: pass.upload(&columns(&bias)) }
    }))
}
