//! Longformer (Beltagy 2020) as Hugging Face's `LongformerModel`: BERT with windows, and global tokens that have projections of their own.

use super::bert::Encoder;
use super::{Error, File, Machine};
use wgpu_attention::Mask;

/// Runs the Longformer of a file over its `input_ids`, and keeps its states: `hidden_0`, which the first layer sees, `hidden_1` and so on, one per layer, and `last`.
///
/// # Errors
/// What is missing or different in the file, by name, and what the machine refuses.
pub fn longformer<M: Machine>(machine: &mut M, file: &File<'_>) -> Result<(), Error> {
    file.check_family("longformer")?;
    file.refuse("pruned_heads")?;
    let (encoder, tokens) = Encoder::of(file, "gelu")?;
    let sizes = encoder.sizes;
    let [batch, len] = [sizes.batch, sizes.len];
    let flags = |name: &str| -> Result<Vec<u32>, Error> {
        let (values, found) = file.indices(name)?;
        file.expect_sizes(name, found, [batch, len])?;
        Ok(values)
    };
    let (kept, global) = (flags("attention_mask")?, flags("global_attention_mask")?);
    let windows = file.sizes("attention_window")?;
    if windows.len() != encoder.layers {
        let (need, found) = (encoder.layers, windows.len());
        return Err(format!("config `attention_window`: need {need}, one per layer, found {found}").into());
    }
    let attention = sizes.attention();
    let rows = sizes.rows();

    let positions = positions(&tokens.ids, len, encoder.padding as u32);
    let mut x = encoder.embed(machine, &tokens, &positions, Some(encoder.padding as u32))?;
    // Whoever is global sees all through matrices of their own, and everybody else their window and the global ones.
    let pairs = |seen: &dyn Fn(usize, usize, usize) -> bool| {
        let pair = |n: usize| {
            let (item, i, j) = (n / len / len, n / len % len, n % len);
            kept[item * len + i] == 1 && kept[item * len + j] == 1 && seen(item * len, i, j)
        };
        Mask::new([batch, 1, len, len], (0..batch * len * len).map(pair))
    };
    let everything = pairs(&|item, i, _| global[item + i] == 1)?;
    let wide = machine.mask(&attention, everything)?;
    for (n, window) in windows.into_iter().enumerate() {
        let near = pairs(&|item, i, j| {
            global[item + i] != 1 && (i.abs_diff(j) <= window / 2 || global[item + j] == 1)
        })?;
        let near = machine.mask(&attention, near)?;
        let attend = |machine: &mut M, mask: &M::Mask, names: [&str; 3]| -> Result<M::Tensor, Error> {
            let qkv = encoder.projections(machine, n, names, &x)?;
            let out = machine.tensor(rows * sizes.width);
            machine.attention(&attention, mask, &qkv, &[], &out)?;
            Ok(out)
        };
        // A row that a mask keeps nothing of is 0, so that the sum has each row of the one that made it.
        let local = attend(machine, &near, ["query", "key", "value"])?;
        let global = attend(machine, &wide, ["query_global", "key_global", "value_global"])?;
        let context = machine.tensor(rows * sizes.width);
        machine.add(rows * sizes.width, &local, &global, &context)?;
        x = encoder.behind(machine, n, &x, &context)?;
    }
    machine.keep("last".into(), &x);
    Ok(())
}

/// Positions count what is not padding, from the padding's id on, which stands for padding itself.
fn positions(ids: &[u32], len: usize, padding: u32) -> Vec<u32> {
    let of_item = |ids: &[u32]| {
        let count = |count: &mut u32, &id: &u32| {
            *count += u32::from(id != padding);
            Some(if id == padding { padding } else { padding + *count })
        };
        ids.iter().scan(0, count).collect::<Vec<_>>()
    };
    ids.chunks(len.max(1)).flat_map(of_item).collect()
}
