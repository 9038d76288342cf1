//! Llama (Touvron 2023) as Hugging Face's `LlamaModel`: RMS norms before each part, rotated queries and keys, fewer heads of keys
//! and values than of queries, a gated feed-forward layer, no biases.

use super::memory::AnyPattern;
use super::{Error, File, Layers, Machine, Table, activation};
use wgpu_attention::{
    And, AttentionShape, Causal, Combine, EmbedShape, FeedForwardShape, Layout, MatmulShape, NormKind,
    NormShape, RotaryShape, WeightOrder,
};

/// A forward pass.
pub fn llama<M: Machine>(machine: &mut M, file: &File<'_>) -> Result<(), Error> {
    file.check_family("llama")?;
    ["attention_bias", "mlp_bias"].into_iter().try_for_each(|key| file.refuse(key))?;
    let model = Model::of(file)?;
    let (ids, [batch, len]) = file.tokens("input_ids", model.vocabulary)?;
    let rows = batch * len;
    let (width, dim) = (model.width, model.dim);
    let words = Table::new(machine.learnt(file, "embed_tokens.weight", &[model.vocabulary, width])?);
    let attention = AttentionShape::new(batch, model.heads, len, dim).kv_heads(model.kv_heads);
    let attention = attention.layout(Layout::Blhd);
    let pattern: AnyPattern = match file.key_mask("attention_mask", [batch, len])? {
        Some(seen) => Box::new(And(Causal, seen)),
        None => Box::new(Causal),
    };
    let mask = machine.mask(&attention, pattern)?;
    let mut table = |name: &str| -> Result<_, Error> {
        let (values, sizes) = file.values(name)?;
        if sizes != [len, dim / 2] {
            return Err(format!("tensor `{name}`: need [{len}, {}], found {sizes:?}", dim / 2).into());
        }
        Ok(machine.upload(&values))
    };
    let tables = [table("rope_cos")?, table("rope_sin")?];

    let mut x = machine.tensor(rows * width);
    machine.embed(&EmbedShape::new(rows, model.vocabulary, width), &ids, &words, &x)?;
    machine.keep("hidden_0".into(), &x);
    for n in 0..model.layers {
        let name = |part: &str| format!("layers.{n}.{part}");
        let normed = model.norm(machine, rows, &name("input_layernorm"), &x)?;
        let mut project = |part: &str, heads: usize| {
            model.linear(
                machine,
                &name(&format!("self_attn.{part}_proj")),
                [rows, width, heads * dim],
                &normed,
            )
        };
        let q = project("q", model.heads)?;
        let (k, v) = (project("k", model.kv_heads)?, project("v", model.kv_heads)?);
        let mut turned = |x: &M::Tensor, heads: usize| -> Result<M::Tensor, Error> {
            let shape = RotaryShape::new(batch, heads, len, dim);
            let shape = shape.x_layout(Layout::Blhd).out_layout(Layout::Blhd);
            let out = machine.tensor(rows * heads * dim);
            machine.rotary(&shape, x, &tables, &out)?;
            Ok(out)
        };
        let qkv = [turned(&q, model.heads)?, turned(&k, model.kv_heads)?, v];
        let context = machine.tensor(rows * model.heads * dim);
        machine.attention(&attention, &mask, &qkv, &[], &context)?;
        x = model.behind(machine, n, rows, &x, &context)?;
        if n + 1 < model.layers {
            machine.keep(format!("hidden_{}", n + 1), &x);
        }
    }
    // Hugging Face stores the last hidden state behind the final norm.
    let last = model.norm(machine, rows, "norm", &x)?;
    machine.keep(format!("hidden_{}", model.layers), &last);
    machine.keep("last".into(), &last);
    Ok(())
}

/// Sizes and configuration.
struct Model<'f, 'a> {
    file: &'f File<'a>,
    vocabulary: usize,
    width: usize,
    heads: usize,
    kv_heads: usize,
    dim: usize,
    layers: usize,
    eps: f32,
}

impl<'f, 'a> Model<'f, 'a> {
    fn of(file: &'f File<'a>) -> Result<Self, Error> {
        let (width, heads) = (file.size("hidden_size")?, file.size("num_attention_heads")?);
        if file.whole_or("head_dim", 0)? == 0 && !width.is_multiple_of(heads) {
            return Err(format!("num_attention_heads: need a divisor of {width}, found {heads}").into());
        }
        let model = Self {
            file,
            vocabulary: file.size("vocab_size")?,
            width,
            heads,
            kv_heads: file.size_or("num_key_value_heads", heads)?,
            dim: file.size_or("head_dim", width / heads)?,
            layers: file.size("num_hidden_layers")?,
            eps: file.eps()?,
        };
        Ok(model)
    }

    fn norm<M: Machine>(
        &self,
        machine: &mut M,
        rows: usize,
        name: &str,
        x: &M::Tensor,
    ) -> Result<M::Tensor, Error> {
        let out = machine.tensor(rows * self.width);
        let norm = machine.weight(self.file, name, &[self.width])?;
        machine.norm(&NormShape::new(NormKind::Rms, rows, self.width, self.eps), x, &norm, &out)?;
        Ok(out)
    }

    fn linear<M: Machine>(
        &self,
        machine: &mut M,
        name: &str,
        [rows, inner, columns]: [usize; 3],
        x: &M::Tensor,
    ) -> Result<M::Tensor, Error> {
        let weight = machine.weight(self.file, name, &[columns, inner])?;
        let out = machine.tensor(rows * columns);
        let shape = MatmulShape::new(rows, inner, columns).weights(WeightOrder::OutIn);
        machine.linear(&shape, x, &weight, None, &out)?;
        Ok(out)
    }

    /// x with what attention made of it, and then with the feed-forward layer's.
    fn behind<M: Machine>(
        &self,
        machine: &mut M,
        n: usize,
        rows: usize,
        x: &M::Tensor,
        context: &M::Tensor,
    ) -> Result<M::Tensor, Error> {
        let (file, width, inner) = (self.file, self.width, self.heads * self.dim);
        let name = |part: &str| format!("layers.{n}.{part}");
        let [sum, out] = [(); 2].map(|()| machine.tensor(rows * width));
        let o = machine.weight(file, &name("self_attn.o_proj"), &[width, inner])?;
        let shape = MatmulShape::new(rows, inner, width).weights(WeightOrder::OutIn).combine(Combine::Add);
        machine.linear(&shape, context, &o, Some(x), &sum)?;
        let normed = self.norm(machine, rows, &name("post_attention_layernorm"), &sum)?;
        let hidden = file.size("intermediate_size")?;
        let first = machine.weight(file, &name("mlp.gate_proj"), &[hidden, width])?;
        let gate = machine.weight(file, &name("mlp.up_proj"), &[hidden, width])?;
        let second = machine.weight(file, &name("mlp.down_proj"), &[width, hidden])?;
        let layers = Layers { gate: Some(&gate), ..Layers::new(&first, &second) };
        let activation = activation(file.word_or("hidden_act", "silu")?)?;
        let shape = FeedForwardShape::new(rows, width, hidden, activation);
        let shape = shape.weights(WeightOrder::OutIn).gated(true).residual(true);
        machine.feed_forward(&shape, &normed, layers, &sum, &out)?;
        Ok(out)
    }
}
