//! Evaluation of Transformer-XL (Dai 2019, section 4.5, table 9) both ways: segment by segment, each behind the memory that the one
//! before left, and, as models without memory must, by computing a window of the same attention length anew for every token.
//!
//! ```text
//! cargo run --release --example transformer_xl -- golden/e2e_transfoxl_mems.safetensors
//! cargo run --release --example transformer_xl -- golden/e2e_transfoxl_mems.safetensors 200,800
//! ```
//!
//! Nothing of the memory is copied. What a layer remembers are rows of the tensor that it read in the segment before; the products
//! that make keys and values write those of the memory in front of those of the segment, into one tensor, by the strides of their
//! output. Attention then sees more keys than queries, and nothing else: `causal` and the relative rows count from the aligned ends.

use std::time::Instant;
use wgpu_attention::Gpu;
use wgpu_attention_models::{DeviceTensor, Error, File, Forward, TransformerXl};

/// Tokens of a segment.
const SEGMENT: usize = 128;
/// Attention lengths, and how many times faster memory was in the paper.
const PUBLISHED: [(usize, usize); 4] = [(800, 363), (1800, 773), (2800, 1409), (3800, 1874)];

fn main() -> Result<(), Error> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (path, lengths) = match &arguments[..] {
        [path] => (path, PUBLISHED.map(|(length, _)| length).to_vec()),
        [path, lengths] => (path, lengths.split(',').map(str::parse).collect::<Result<_, _>>()?),
        _ => return Err("usage: transformer_xl FILE [LENGTH,LENGTH,...]".into()),
    };
    let bytes = std::fs::read(path).map_err(|error| format!("cannot read {path}: {error}"))?;
    let file = File::parse(&bytes)?;
    file.check_family("transfoxl")?;
    let gpu = Gpu::new()?;
    let [layers, width, heads, dim, hidden, words] = model(&gpu, &file, 0)?.1.sizes();
    println!(
        "{}: {layers} layers of width {width}, {heads} heads of {dim}, feed-forward {hidden}, {words} words; segments of {SEGMENT}",
        gpu.info().name
    );
    println!("| attention length | by memory, ms per token | by windows, ms per token | times | published |");
    println!("|---|---|---|---|---|");
    for length in lengths {
        let [memory, windows] = least([&with_memory(&gpu, &file, length)?, &window(&gpu, &file, length)?])?;
        let memory = memory / (2 * SEGMENT) as f64;
        let published = PUBLISHED.iter().find(|(of, _)| *of == length);
        let published = published.map_or("-".into(), |(_, times)| times.to_string());
        println!(
            "| {length} | {:.4} | {:.3} | {:.0} | {published} |",
            1e3 * memory,
            1e3 * windows,
            windows / memory
        );
    }
    println!(
        "Times are the least of 3, by turns, with the read-back of all states, on this device and for this model; \
         the paper's are of its own models on a GPU, against that of Al-Rfou (2018)."
    );
    Ok(())
}

/// A pass to record into, and the model with a memory of so many rows.
fn model(gpu: &Gpu, file: &File<'_>, memory: usize) -> Result<(Forward, TransformerXl<DeviceTensor>), Error> {
    let mut pass = Forward::new(gpu);
    let model = TransformerXl::read(&mut pass, file)?.with_memory(memory);
    Ok((pass, model))
}

/// Two segments, each behind a memory of `length` rows; the second remembers the first.
fn with_memory(gpu: &Gpu, file: &File<'_>, length: usize) -> Result<Forward, Error> {
    let (mut pass, model) = model(gpu, file, length)?;
    let [.., words] = model.sizes();
    let mut memory = model.no_memory(&mut pass, 1);
    for (n, names) in [["seg1", "seg1_last"], ["seg2", "last"]].into_iter().enumerate() {
        memory = model.segment(&mut pass, names, &text(n * SEGMENT, SEGMENT, words), [1, SEGMENT], memory)?;
    }
    Ok(pass)
}

/// A window of `length` tokens, for one of them.
fn window(gpu: &Gpu, file: &File<'_>, length: usize) -> Result<Forward, Error> {
    let (mut pass, model) = model(gpu, file, 0)?;
    let [.., words] = model.sizes();
    let memory = model.no_memory(&mut pass, 1);
    model.segment(&mut pass, ["window", "last"], &text(0, length, words), [1, length], memory)?;
    Ok(pass)
}

/// Seconds of one run of each, the least of 3, by turns; the first warms up.
fn least(passes: [&Forward; 2]) -> Result<[f64; 2], Error> {
    let mut least = [f64::INFINITY; 2];
    for run in 0..4 {
        for (least, pass) in least.iter_mut().zip(passes) {
            let start = Instant::now();
            let states = pass.run()?;
            let seconds = start.elapsed().as_secs_f64();
            if !states.iter().all(|(_, values)| values.iter().all(|x| x.is_finite())) {
                return Err("a state is not finite".into());
            }
            *least = if run > 0 { least.min(seconds) } else { *least };
        }
    }
    Ok(least)
}

/// Tokens of a text without sense.
fn text(first: usize, len: usize, words: usize) -> Vec<u32> {
    let word = |n: usize| {
        (n as u64).wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407) >> 33
    };
    (first..first + len).map(|n| (word(n) % words as u64) as u32).collect()
}
