//! BigBird (Zaheer 2020) as Hugging Face's `BigBirdModel` with block-sparse attention: BERT with another pattern, whose random blocks
//! the file names.

use super::bert::Encoder;
use super::{Error, File, Machine};
use wgpu_attention::{Attention, Bias, BiasStrides, Mask, Score};

/// Runs the BigBird of a file over its `input_ids`, and keeps its states: `hidden_0`, which the first layer sees, `hidden_1` and so on, one per layer, and `last`.
///
/// # Errors
/// What is missing or different in the file, by name, and what the machine refuses.
pub fn bigbird<M: Machine>(machine: &mut M, file: &File<'_>) -> Result<(), Error> {
    file.check_family("bigbird")?;
    file.refuse("pruned_heads")?;
    file.refuse("rescale_embeddings")?;
    let attention = file.word_or("attention_type", "block_sparse")?;
    if attention != "block_sparse" {
        return Err(format!("config `attention_type`: need block_sparse, found `{attention}`").into());
    }
    let (encoder, tokens) = Encoder::of(file, "gelu_new")?;
    let sizes = encoder.sizes;
    let block = file.size("block_size")?;
    let [batch, heads, len] = [sizes.batch, sizes.heads, sizes.len];
    if !len.is_multiple_of(block) || len < 3 * block {
        return Err(format!("input_ids: need whole blocks of {block}, at least 3, found {len} ids").into());
    }
    let kept = match file.has("attention_mask") {
        false => vec![1; batch * len],
        true => {
            let (kept, found) = file.indices("attention_mask")?;
            file.expect_sizes("attention_mask", found, [batch, len])?;
            kept
        }
    };
    let mut x = encoder.embed(machine, &tokens, &sizes.positions(), None)?;
    for n in 0..encoder.layers {
        let counts = counts(file, n, heads, len / block)?;
        let count = |item: usize, i: usize, j: usize| {
            counts[(item % heads * (len / block) + i / block) * (len / block) + j / block]
        };
        let seen = |n: usize| {
            let (item, i, j) = (n / len / len, n / len % len, n % len);
            // What Hugging Face does to padding: no query sees it, and what it sees itself is 0.
            let there = |at: usize| kept[item / heads * len + at] == 1;
            there(i) && there(j) && count(item, i, j) > 0
        };
        let mask = Mask::new([batch, heads, len, len], (0..batch * heads * len * len).map(seen))?;
        let weight = |n: usize| (count(n / len / len, n / len % len, n % len).max(1) as f32).ln();
        let bias: Vec<f32> = (0..heads * len * len).map(weight).collect();
        let strides = BiasStrides::broadcast([1, heads, len, len]);
        let call: Attention = sizes.attention().score(Score::new().with(Bias::new(strides)));
        let (mask, bias) = (machine.mask(&call, mask)?, machine.upload(&bias));
        let qkv = encoder.projections(machine, n, ["query", "key", "value"], &x)?;
        let context = machine.tensor(sizes.rows() * sizes.width);
        machine.attention(&call, &mask, &qkv, &[("bias", &bias)], &context)?;
        x = encoder.behind(machine, n, &x, &context)?;
    }
    machine.keep("last".into(), &x);
    Ok(())
}

/// How often each block of queries meets each block of keys in layer n, `[heads, blocks, blocks]`: a block that is drawn counts again.
fn counts(file: &File<'_>, n: usize, heads: usize, blocks: usize) -> Result<Vec<u32>, Error> {
    let name = format!("rand_attn_layer{n}");
    let of_heads = |sizes: &[usize]| sizes.len() == 3 && sizes[..2] == [heads, blocks - 2];
    let (drawn, sizes) = file.integers(&name, of_heads)?;
    if let Some(other) = drawn.iter().find(|&&block| block < 0 || block as usize >= blocks) {
        return Err(format!("tensor `{name}`: need blocks below {blocks}, found {other}").into());
    }
    let mut counts = vec![0; heads * blocks * blocks];
    for (at, row) in counts.chunks_mut(blocks).enumerate() {
        let (head, b) = (at / blocks, at % blocks);
        if b == 0 || b == blocks - 1 {
            row.fill(1);
            continue;
        }
        for block in [0, b - 1, b, b + 1, blocks - 1] {
            row[block] = 1;
        }
        let list = (head * (blocks - 2) + b - 1) * sizes[2];
        for &block in &drawn[list..][..sizes[2]] {
            row[block as usize] += 1;
        }
    }
    Ok(counts)
}
