//! An encoder that classifies made-up texts, with attention by burn and, one line changed, by this crate over a BigBird pattern.
//!
//! ```text
//! cargo run --example encoder                      learns with both
//! cargo run --example encoder -- measure results   times and memory of both, into results/encoder.json, .md and .svg
//! ```

mod measure;
mod model;
mod plot;

use burn::nn::loss::CrossEntropyLossConfig;
use burn::optim::{AdamConfig, GradientsParams};
use burn::tensor::ops::AttentionModuleOptions;
use burn::tensor::{Bool, Device, Int, Tensor, TensorData, module};
use model::{Attend, Encoder, VOCABULARY};
use wgpu_attention_burn::pattern::{BigBird, Extent, Pattern, Site};
use wgpu_attention_burn::wgpu_attention::Counter;
use wgpu_attention_burn::{AttentionOptions, attention};

pub(crate) type Error = Box<dyn std::error::Error>;

const LEN: usize = 128;
const CLASSES: usize = 4;
const BATCH: usize = 8;
const STEPS: usize = 20;

fn main() -> Result<(), Error> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => learn_with_both(&wgpu_attention_burn::device()?),
        ["measure", folder] => measure::measure(folder.as_ref()),
        _ => Err("usage: encoder [measure FOLDER]".into()),
    }
}

/// Attention by burn, which is given the pattern as a mask.
pub(crate) fn by_burn(mask: Tensor<4, Bool>) -> Box<Attend> {
    Box::new(move |q, k, v| {
        module::attention(q, k, v, Some(mask.clone()), None, AttentionModuleOptions::default())
    })
}

/// Attention by this crate.
pub(crate) fn by_us(pattern: BigBird) -> Box<Attend> {
    Box::new(move |q, k, v| {
        attention(q, k, v, &pattern, AttentionOptions::default()).expect("a call that fits")
    })
}

/// True where a pattern has no pair.
pub(crate) fn mask(
    pattern: &dyn Pattern,
    batch: usize,
    heads: usize,
    len: usize,
    device: &Device,
) -> Tensor<4, Bool> {
    let extent = Extent { batch, heads, q_len: len, kv_len: len };
    // Each head has random blocks of its own.
    let sites = (0..heads).map(|head| Site { batch: 0, head, extent });
    let left_out: Vec<bool> = sites
        .flat_map(|site| (0..len).flat_map(move |i| (0..len).map(move |j| !pattern.keep(&site, i, j))))
        .collect();
    Tensor::<4, Bool>::from_data(TensorData::new(left_out, [1, heads, len, len]), device)
        .expand([batch, heads, len, len])
}

fn learn_with_both(device: &Device) -> Result<(), Error> {
    let pattern = BigBird::new(16, 3, 1, 1, 0)?;
    device.seed(1);
    let start = Encoder::new(LEN, CLASSES, &device.clone().autodiff());
    for (name, attend) in [
        ("burn", by_burn(mask(&pattern, BATCH, model::HEADS, LEN, device))),
        ("wgpu-attention", by_us(pattern)),
    ] {
        println!("attention by {name}");
        let right = learn(start.clone(), &attend, device);
        println!("   {right} of {} new texts are classified rightly\n", 4 * BATCH);
    }
    Ok(())
}

/// Learns, and gives the number of new texts that it then classifies rightly.
fn learn(mut encoder: Encoder, attend: &Attend, device: &Device) -> usize {
    let with_gradients = device.clone().autodiff();
    let mut optimizer = AdamConfig::new().init();
    let loss = CrossEntropyLossConfig::new().init(&with_gradients);
    for step in 0..STEPS {
        let (texts, classes) = texts(step as u64, &with_gradients);
        let loss = loss.forward(encoder.forward(texts, attend), classes);
        if step % 5 == 0 || step == STEPS - 1 {
            println!("   step {step:2}: loss {:.4}", loss.clone().into_scalar::<f32>());
        }
        let gradients = GradientsParams::from_grads(loss.backward(), &encoder);
        encoder = optimizer.step(1e-2, encoder, gradients);
    }
    let right = |seed| {
        let (texts, classes) = texts(seed, &with_gradients);
        let guessed = encoder.forward(texts, attend).argmax(1).reshape([BATCH]);
        guessed.equal(classes).int().sum().into_scalar::<i32>() as usize
    };
    (1000..1004).map(right).sum()
}

/// Texts `[B, L]` of random words, one in 4 of which is of the text's class; and the classes.
fn texts(seed: u64, device: &Device) -> (Tensor<2, Int>, Tensor<1, Int>) {
    let draw = Counter::new(seed, 0);
    let below = |at: usize, limit: usize| (draw.uniform(at as u64) * limit as f64) as usize;
    let classes: Vec<i32> = (0..BATCH).map(|n| below(n, CLASSES) as i32).collect();
    let word = |at: usize| {
        let n = BATCH + 2 * at;
        if below(n, 4) == 0 {
            classes[at / LEN]
        } else {
            (CLASSES + below(n + 1, VOCABULARY - CLASSES)) as i32
        }
    };
    let words: Vec<i32> = (0..BATCH * LEN).map(word).collect();
    let texts = Tensor::from_data(TensorData::new(words, [BATCH, LEN]), device);
    (texts, Tensor::from_data(TensorData::new(classes.clone(), [BATCH]), device))
}
