//! GPT-2 (Radford 2019) as Hugging Face's `GPT2LMHeadModel`: norms before the products, weights `[in, out]`, logits by
//! the transposed token table.

use super::{Error, File, Layers, Machine, Origin, Pair, Sizes, Table};
use wgpu_attention::{Activation, And, Combine, FeedForwardShape, MatmulShape, Pattern, WeightOrder};

/// A forward pass. Keys that an attention mask hides, if there is one, are removed from `pattern`; positions count from the
/// first token, hidden or not. (Hugging Face gives a row without any key the mean of all values; here it is 0.)
pub fn gpt2<M: Machine>(
    machine: &mut M,
    file: &File<'_>,
    pattern: impl Pattern + 'static,
) -> Result<(), Error> {
    file.check_family("gpt2")?;
    let (vocabulary, positions) = (file.size("vocab_size")?, file.size("n_positions")?);
    let (ids, [batch, len]) = file.tokens("input_ids", vocabulary)?;
    let width = file.size("n_embd")?;
    let hidden = file.size_or("n_inner", 4 * width)?;
    let sizes = Sizes { batch, len, width, heads: file.size("n_head")?, eps: file.eps()? };
    sizes.check(positions)?;
    let attention = sizes.attention();
    let mask = match file.key_mask("attention_mask", [batch, len])? {
        Some(seen) => machine.mask(&attention, And(pattern, seen))?,
        None => machine.mask(&attention, pattern)?,
    };
    let (rows, layers) = (sizes.rows(), file.size("n_layer")?);
    // Before anything is as wide as the configuration says: the file holds these, so they bound it.
    let tokens = machine.learnt(file, "transformer.wte.weight", &[vocabulary, width])?;
    let table = machine.learnt(file, "transformer.wpe.weight", &[positions, width])?;
    let mut x = machine.tensor(rows * width);
    machine.embed(&sizes.embed(vocabulary), &ids, &Table::new(tokens.clone()), &x)?;
    let add = sizes.embed(positions).combine(Combine::AddInto);
    machine.embed(&add, &sizes.positions(), &Table::new(table), &x)?;
    machine.keep("hidden_0".into(), &x);

    let square = MatmulShape::new(rows, width, width).bias(true);
    let feed_forward =
        FeedForwardShape::new(rows, width, hidden, Activation::GeluTanh).bias(true).residual(true);
    for n in 0..layers {
        let name = |part: &str| format!("transformer.h.{n}.{part}");
        let [normed, context, attended, again, out] = [(); 5].map(|()| machine.tensor(rows * width));
        let qkv = [(); 3].map(|()| machine.tensor(rows * width));
        let norm = machine.pair(file, &name("ln_1"), &[width], width)?;
        machine.norm(&sizes.norm(), &x, &norm, &normed)?;
        for (linear, out) in projections(machine, file, &name("attn.c_attn"), width)?.iter().zip(&qkv) {
            machine.linear(&square, &normed, linear, None, out)?;
        }
        machine.attention(&attention, &mask, &qkv, &[], &context)?;
        let dense = machine.pair(file, &name("attn.c_proj"), &[width, width], width)?;
        machine.linear(&square.combine(Combine::Add), &context, &dense, Some(&x), &attended)?;
        let norm = machine.pair(file, &name("ln_2"), &[width], width)?;
        machine.norm(&sizes.norm(), &attended, &norm, &again)?;
        let first = machine.pair(file, &name("mlp.c_fc"), &[width, hidden], hidden)?;
        let second = machine.pair(file, &name("mlp.c_proj"), &[hidden, width], width)?;
        machine.feed_forward(&feed_forward, &again, Layers::new(&first, &second), &attended, &out)?;
        x = out;
        if n + 1 < layers {
            machine.keep(format!("hidden_{}", n + 1), &x);
        }
    }
    // Hugging Face stores the last hidden state behind the final norm.
    let normed = machine.tensor(rows * width);
    let norm = machine.pair(file, "transformer.ln_f", &[width], width)?;
    machine.norm(&sizes.norm(), &x, &norm, &normed)?;
    machine.keep(format!("hidden_{layers}"), &normed);
    let logits = machine.tensor(rows * vocabulary);
    let tokens = Pair { weight: tokens, bias: None };
    let head = MatmulShape::new(rows, width, vocabulary).weights(WeightOrder::OutIn);
    machine.linear(&head, &normed, &tokens, None, &logits)?;
    machine.keep("last".into(), &logits);
    Ok(())
}

/// The three projections of `c_attn`, `[in, 3 out]`, each a matrix of its own.
fn projections<M: Machine>(
    machine: &mut M,
    file: &File<'_>,
    name: &str,
    width: usize,
) -> Result<[Pair<M::Tensor>; 3], Error> {
    let (weight_name, bias_name) = (format!("{name}.weight"), format!("{name}.bias"));
    let weight = file.tensor(&weight_name, &[width, 3 * width])?;
    let bias = file.tensor(&bias_name, &[3 * width])?;
    Ok([0, 1, 2].map(|n| {
        let columns = |row: &[f32]| row[n * width..][..width].to_vec();
        let weight: Vec<f32> = weight.chunks(3 * width).flat_map(columns).collect();
        let weight = machine.parameter(Origin::part(&weight_name, n, 3), &weight);
        Pair { weight, bias: Some(machine.parameter(Origin::part(&bias_name, n, 3), &columns(&bias))) }
    }))
}
