//! T5 (Raffel 2019) as Hugging Face's `T5Model`: RMS norms before each part, relative buckets of the first block for all, no biases,
//! scores that are not scaled; encoder and decoder.

use super::memory::AnyPattern;
use super::{Error, File, Machine, Pair, Sizes, Table, activation};
use wgpu_attention::{
    And, Attention, AttentionShape, Buckets, Causal, Combine, Full, Layout, MatmulShape, NormKind, NormShape,
    Score, WeightOrder,
};

/// Sizes and configuration, for both stacks.
struct Model<'f, 'a> {
    file: &'f File<'a>,
    width: usize,
    heads: usize,
    dim: usize,
    hidden: usize,
    eps: f32,
    words: Vec<f32>,
}

/// One stack of blocks over a sequence.
struct Stack<'a, T> {
    /// `encoder` or `decoder`, and what its states are called.
    name: &'a str,
    states: &'a str,
    blocks: usize,
    batch: usize,
    len: usize,
    x: T,
}

/// Runs the encoder and the decoder of a file's T5, and keeps their states: `enc_hidden_0`, `dec_hidden_0` and so on, and `last`.
///
/// # Errors
/// What is missing or different in the file, by name, and what the machine refuses.
pub fn t5<M: Machine>(machine: &mut M, file: &File<'_>) -> Result<(), Error> {
    file.check_family("t5")?;
    let (width, vocabulary) = (file.size("d_model")?, file.size("vocab_size")?);
    let model = Model {
        file,
        width,
        heads: file.size("num_heads")?,
        dim: file.size("d_kv")?,
        hidden: file.size("d_ff")?,
        eps: file.eps()?,
        words: file.tensor("shared.weight", &[vocabulary, width])?,
    };
    let blocks = file.size("num_layers")?;
    let (ids, [batch, len]) = file.tokens("input_ids", vocabulary)?;
    let x = model.embed(machine, &ids, [batch, len])?;
    let encoder = Stack { name: "encoder", states: "enc", blocks, batch, len, x };
    let encoded = model.encode(machine, encoder)?;

    let (ids, [decoder_batch, q_len]) = file.tokens("decoder_input_ids", vocabulary)?;
    file.expect_sizes("decoder_input_ids", [decoder_batch, q_len], [batch, q_len])?;
    let x = model.embed(machine, &ids, [batch, q_len])?;
    let blocks = file.size_or("num_decoder_layers", blocks)?;
    let decoder = Stack { name: "decoder", states: "dec", blocks, batch, len: q_len, x };
    let last = model.decode(machine, decoder, &encoded, len)?;
    machine.keep("last".into(), &last);
    Ok(())
}

impl Model<'_, '_> {
    fn sizes(&self, [batch, len]: [usize; 2]) -> Sizes {
        Sizes { batch, len, width: self.width, heads: self.heads, eps: self.eps }
    }

    fn embed<M: Machine>(&self, machine: &mut M, ids: &[u32], sizes: [usize; 2]) -> Result<M::Tensor, Error> {
        let sizes = self.sizes(sizes);
        let x = machine.tensor(sizes.rows() * self.width);
        let words = Table::new(machine.upload(&self.words));
        machine.embed(&sizes.embed(self.words.len() / self.width), ids, &words, &x)?;
        Ok(x)
    }

    fn encode<M: Machine>(&self, machine: &mut M, stack: Stack<'_, M::Tensor>) -> Result<M::Tensor, Error> {
        let sizes = [stack.batch, stack.len];
        let (call, table) = self.bucketed(machine, &stack, true)?;
        let mask = match self.file.key_mask("attention_mask", sizes)? {
            Some(seen) => machine.mask(&call, seen)?,
            None => machine.mask(&call, Full)?,
        };
        let rows = stack.batch * stack.len;
        for n in 0..stack.blocks {
            self.show(machine, &stack, n, &stack.x);
            let part = |layer: usize| format!("encoder.block.{n}.layer.{layer}");
            self.attend_itself(machine, rows, &part(0), (&call, &mask, Some(&table)), &stack.x)?;
            self.feed_forward(machine, rows, &part(1), &stack.x)?;
        }
        self.end(machine, &stack)
    }

    fn decode<M: Machine>(
        &self,
        machine: &mut M,
        stack: Stack<'_, M::Tensor>,
        encoded: &M::Tensor,
        encoded_len: usize,
    ) -> Result<M::Tensor, Error> {
        let sizes = [stack.batch, stack.len];
        let (call, table) = self.bucketed(machine, &stack, false)?;
        let pattern: AnyPattern = match self.file.key_mask("decoder_attention_mask", sizes)? {
            Some(seen) => Box::new(And(Causal, seen)),
            None => Box::new(Causal),
        };
        let mask = machine.mask(&call, pattern)?;
        let cross = self.call([stack.batch, stack.len, encoded_len]);
        let cross_mask = match self.file.key_mask("attention_mask", [stack.batch, encoded_len])? {
            Some(seen) => machine.mask(&cross, seen)?,
            None => machine.mask(&cross, Full)?,
        };
        let rows = stack.batch * stack.len;
        for n in 0..stack.blocks {
            self.show(machine, &stack, n, &stack.x);
            let part = |layer: usize| format!("decoder.block.{n}.layer.{layer}");
            self.attend_itself(machine, rows, &part(0), (&call, &mask, Some(&table)), &stack.x)?;
            let normed = self.normed(machine, rows, &part(1), &stack.x)?;
            let attention = (&cross, &cross_mask, None);
            self.attend(
                machine,
                &format!("{}.EncDecAttention", part(1)),
                attention,
                [&normed, encoded],
                &stack.x,
            )?;
            self.feed_forward(machine, rows, &part(2), &stack.x)?;
        }
        self.end(machine, &stack)
    }

    /// Scores of q . k alone, over `[B, L, H, d]` tensors.
    fn call(&self, [batch, len, keys]: [usize; 3]) -> Attention {
        let shape = AttentionShape::new(batch, self.heads, len, self.dim).kv_len(keys);
        shape.score(Score::new().scale(1.0)).layout(Layout::Blhd)
    }

    /// Attention within a stack, and the table of its buckets.
    fn bucketed<M: Machine>(
        &self,
        machine: &mut M,
        stack: &Stack<'_, M::Tensor>,
        bidirectional: bool,
    ) -> Result<(Attention, M::Tensor), Error> {
        let buckets = self.file.size_or("relative_attention_num_buckets", 32)?;
        let distance = self.file.size_or("relative_attention_max_distance", 128)?;
        let name = format!("{}.block.0.layer.0.SelfAttention.relative_attention_bias.weight", stack.name);
        let table = self.file.tensor(&name, &[buckets, self.heads])?;
        let mut call = self.call([stack.batch, stack.len, stack.len]);
        call.score = call.score.with(Buckets::new(buckets, distance).bidirectional(bidirectional));
        Ok((call, machine.upload(&table)))
    }

    /// Adds what x, once normed, makes of itself to x: the first step of a block of either stack.
    fn attend_itself<M: Machine>(
        &self,
        machine: &mut M,
        rows: usize,
        part: &str,
        attention: (&Attention, &M::Mask, Option<&M::Tensor>),
        x: &M::Tensor,
    ) -> Result<(), Error> {
        let normed = self.normed(machine, rows, part, x)?;
        self.attend(machine, &format!("{part}.SelfAttention"), attention, [&normed, &normed], x)
    }

    /// Adds what a query makes of the keys to x.
    fn attend<M: Machine>(
        &self,
        machine: &mut M,
        name: &str,
        (call, mask, table): (&Attention, &M::Mask, Option<&M::Tensor>),
        [queries, keys]: [&M::Tensor; 2],
        x: &M::Tensor,
    ) -> Result<(), Error> {
        let inner = self.heads * self.dim;
        let (rows, key_rows) = (call.shape.batch * call.shape.q_len, call.shape.batch * call.shape.kv_len);
        let product =
            |machine: &mut M, part: &str, rows: usize, of: &M::Tensor| -> Result<M::Tensor, Error> {
                let out = machine.tensor(rows * inner);
                let shape = MatmulShape::new(rows, self.width, inner).weights(WeightOrder::OutIn);
                let by = self.matrix(machine, &format!("{name}.{part}"), [inner, self.width])?;
                machine.linear(&shape, of, &by, None, &out)?;
                Ok(out)
            };
        let q = product(machine, "q", rows, queries)?;
        let k = product(machine, "k", key_rows, keys)?;
        let v = product(machine, "v", key_rows, keys)?;
        let context = machine.tensor(rows * inner);
        let terms: Vec<_> = table.map(|table| ("bucket_table", table)).into_iter().collect();
        machine.attention(call, mask, &[q, k, v], &terms, &context)?;
        let dense = self.matrix(machine, &format!("{name}.o"), [self.width, inner])?;
        let shape = MatmulShape::new(rows, inner, self.width).weights(WeightOrder::OutIn);
        machine.linear(&shape.combine(Combine::AddInto), &context, &dense, None, x)
    }

    /// Adds the feed-forward layer's to x: `relu` and the like, or gated.
    fn feed_forward<M: Machine>(
        &self,
        machine: &mut M,
        rows: usize,
        part: &str,
        x: &M::Tensor,
    ) -> Result<(), Error> {
        let normed = self.normed(machine, rows, part, x)?;
        let kind = self.file.word_or("feed_forward_proj", "relu")?;
        let (gated, act) = match kind.strip_prefix("gated-") {
            // Hugging Face takes the tanh form for this name.
            Some("gelu") => (true, "gelu_new"),
            Some(act) => (true, act),
            None => (false, kind),
        };
        let name = |matrix: &str| format!("{part}.DenseReluDense.{matrix}");
        let (width, hidden) = (self.width, self.hidden);
        let inner = machine.tensor(rows * hidden);
        let shape = MatmulShape::new(rows, width, hidden).weights(WeightOrder::OutIn);
        let first = self.matrix(machine, &name(if gated { "wi_0" } else { "wi" }), [hidden, width])?;
        machine.linear(&shape.activation(activation(act)?), &normed, &first, None, &inner)?;
        if gated {
            let gate = self.matrix(machine, &name("wi_1"), [hidden, width])?;
            machine.linear(&shape.combine(Combine::MultiplyInto), &normed, &gate, None, &inner)?;
        }
        let second = self.matrix(machine, &name("wo"), [width, hidden])?;
        let shape = MatmulShape::new(rows, hidden, width).weights(WeightOrder::OutIn);
        machine.linear(&shape.combine(Combine::AddInto), &inner, &second, None, x)
    }

    fn matrix<M: Machine>(
        &self,
        machine: &mut M,
        name: &str,
        sizes: [usize; 2],
    ) -> Result<Pair<M::Tensor>, Error> {
        let weight = self.file.tensor(&format!("{name}.weight"), &sizes)?;
        Ok(Pair::new(machine.upload(&weight)))
    }

    fn normed<M: Machine>(
        &self,
        machine: &mut M,
        rows: usize,
        part: &str,
        x: &M::Tensor,
    ) -> Result<M::Tensor, Error> {
        self.norm(machine, rows, &format!("{part}.layer_norm"), x)
    }

    fn norm<M: Machine>(
        &self,
        machine: &mut M,
        rows: usize,
        name: &str,
        x: &M::Tensor,
    ) -> Result<M::Tensor, Error> {
        let out = machine.tensor(rows * self.width);
        let weight = self.file.tensor(&format!("{name}.weight"), &[self.width])?;
        let pair = Pair::new(machine.upload(&weight));
        machine.norm(&NormShape::new(NormKind::Rms, rows, self.width, self.eps), x, &pair, &out)?;
        Ok(out)
    }

    fn show<M: Machine>(&self, machine: &mut M, stack: &Stack<'_, M::Tensor>, n: usize, x: &M::Tensor) {
        machine.keep(format!("{}_hidden_{n}", stack.states), x);
    }

    /// The last state, behind its norm.
    fn end<M: Machine>(&self, machine: &mut M, stack: &Stack<'_, M::Tensor>) -> Result<M::Tensor, Error> {
        let name = format!("{}.final_layer_norm", stack.name);
        let last = self.norm(machine, stack.batch * stack.len, &name, &stack.x)?;
        self.show(machine, stack, stack.blocks, &last);
        Ok(last)
    }
}
