//! The duplication task of the Reformer paper (Kitaev 2020, section 5.1): sequences 0w0w, in which every symbol of the
//! second half is to be copied from the first. Exact attention and LSH attention side by side.
//!
//!     cargo run --example duplication [half] [chunk]
//!
//! Nothing is learned here: a position's vector stands for its symbol, and equal symbols attend each other. What is shown is
//! how often LSH finds the one key that matters, and how far its output is from exact attention, as rounds are added.

use std::error::Error;
use wgpu_attention::{AttentionShape, Counter, Gpu, LshInputs, LshOptions, Score};

const HEAD_DIM: usize = 64;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse::<usize>());
    let half = arguments.next().transpose()?.unwrap_or(512);
    let chunk = arguments.next().transpose()?.unwrap_or(32);
    let len = 2 * half;
    let (qk, v) = sequence(half);

    let gpu = Gpu::new()?;
    println!("adapter: {}; 0w0w of {len} positions, chunks of {chunk}", gpu.info().name);
    let shape = AttentionShape::new(1, 1, len, HEAD_DIM).score(Score::new().scale(1.0));
    let inputs = LshInputs::new(&qk, &v);

    // One chunk over everything is exact attention over shared queries and keys.
    let exact = gpu
        .lsh::<f32, f32>(&shape, &LshOptions::new(1, 2, len).chain_rounds(false).causal(true), &inputs)?
        .out;
    println!("exact:     copied {:5.1} %", 100.0 * copied(&exact, &v, half));
    let buckets = (2 * len / chunk).next_multiple_of(2).min(LshOptions::MAX_BUCKETS);
    for rounds in [1, 2, 4, 8] {
        let options = LshOptions::new(rounds, buckets, chunk).causal(true);
        let out = gpu.lsh::<f32, f32>(&shape, &options, &inputs)?.out;
        println!(
            "{rounds} rounds:  copied {:5.1} %, rows that agree with exact attention {:5.1} %, mean cosine {:.4}",
            100.0 * copied(&out, &v, half),
            100.0 * agreeing(&out, &exact, half),
            cosine(&out, &exact, half)
        );
    }
    Ok(())
}

/// The vectors of 0w0w: one direction a position of w, a little noise apart in the two copies; and what each stands for.
fn sequence(half: usize) -> (Vec<f32>, Vec<f32>) {
    let (symbol, noise, value) = (Counter::new(1, 0), Counter::new(1, 1), Counter::new(1, 2));
    let element = |n: usize, part: usize, c: usize| {
        let exact = symbol.normal((n * HEAD_DIM + c) as u64);
        // Twice a unit normal: the right key is 16 nats ahead, so that it is all that matters.
        2.0 * (exact + 0.2 * noise.normal(((part * half + n) * HEAD_DIM + c) as u64)) as f32
    };
    let positions = || (0..2).flat_map(|part| (0..half).map(move |n| (part, n)));
    let qk = positions().flat_map(|(part, n)| (0..HEAD_DIM).map(move |c| element(n, part, c))).collect();
    let v = positions()
        .flat_map(|(_, n)| (0..HEAD_DIM).map(move |c| value.normal((n * HEAD_DIM + c) as u64) as f32));
    (qk, v.collect())
}

/// The share of the second half whose output is nearest to its own symbol's value, of all symbols.
fn copied(out: &[f32], v: &[f32], half: usize) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>();
    let row = |data: &[f32], i: usize| data[i * HEAD_DIM..][..HEAD_DIM].to_vec();
    let right = (0..half).filter(|&n| {
        let o = row(out, half + n);
        let distance = |m: &usize| dot(&row(v, *m), &row(v, *m)) - 2.0 * dot(&o, &row(v, *m));
        (0..half).min_by(|a, b| distance(a).total_cmp(&distance(b))) == Some(n)
    });
    right.count() as f64 / half as f64
}

fn rows<'a>(a: &'a [f32], b: &'a [f32], half: usize) -> impl Iterator<Item = (&'a [f32], &'a [f32])> {
    a[half * HEAD_DIM..].chunks(HEAD_DIM).zip(b[half * HEAD_DIM..].chunks(HEAD_DIM))
}

/// The share of rows of the second half within 1 % of the exact ones.
fn agreeing(out: &[f32], exact: &[f32], half: usize) -> f64 {
    let square = |x: f32| f64::from(x) * f64::from(x);
    let close = |(a, b): &(&[f32], &[f32])| {
        let error: f64 = a.iter().zip(*b).map(|(a, b)| square(a - b)).sum();
        error <= 1e-4 * b.iter().map(|&b| square(b)).sum::<f64>()
    };
    rows(out, exact, half).filter(close).count() as f64 / half as f64
}

fn cosine(out: &[f32], exact: &[f32], half: usize) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>();
    rows(out, exact, half).map(|(a, b)| dot(a, b) / (dot(a, a) * dot(b, b)).sqrt().max(1e-30)).sum::<f64>()
        / half as f64
}
