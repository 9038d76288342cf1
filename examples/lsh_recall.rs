//! How many rounds and buckets LSH attention needs: the share of each query's nearest keys that it sees in some round, on the
//! CPU reference. Prints a table, and draws it:
//!
//! ```text
//! cargo run --example lsh_recall -- docs/lsh_recall.svg
//! ```
//!
//! 2,048 positions of size 64 in clusters of 8 (members lie half a standard deviation from their centre), chunks of 64, each query
//! sees its own chunk and the one before: 128 keys per round. What counts is whether the other 7 of its cluster are among them.

#![allow(dead_code)] // A test draws it, too.

#[path = "plot/mod.rs"]
mod plot;

use plot::{Error, Plot};
use wgpu_attention::{AttentionShape, Counter, LshInputs, LshOptions, reference};

const N: usize = 2048;
const D: usize = 64;
const CHUNK: usize = 64;
const CLUSTER: usize = 8;
const BUCKETS: [usize; 5] = [16, 32, 64, 128, 256];
const ROUNDS: [usize; 5] = [1, 2, 4, 8, 16];

fn main() -> Result<(), Error> {
    let curves = curves()?;
    println!("recall of the 7 nearest of {N} keys, chunks of {CHUNK}, look back 1\n");
    println!("| buckets | {} |", ROUNDS.map(|rounds| format!("{rounds} rounds")).join(" | "));
    println!("|---:|{}", "---:|".repeat(ROUNDS.len()));
    for (buckets, points) in BUCKETS.iter().zip(&curves) {
        println!("| {buckets} | {} |", points.map(|(_, recall)| format!("{recall:.3}")).join(" | "));
    }
    plot::command("lsh_recall", || picture(&curves))
}

/// The picture that docs/lsh_recall.svg has to be.
pub(crate) fn svg() -> Result<String, Error> {
    picture(&curves()?)
}

type Points = [(f64, f64); ROUNDS.len()];

fn picture(curves: &[Points]) -> Result<String, Error> {
    let named = BUCKETS.iter().zip(curves);
    Plot {
        title: format!(
            "LSH: recall of the nearest keys ({N} positions, chunks of {CHUNK}, 128 keys per round)"
        ),
        x: "rounds".into(),
        y: "share of the 7 nearest keys seen".into(),
        top: 1.0,
        curves: named.map(|(buckets, points)| (format!("{buckets} buckets"), points.to_vec())).collect(),
    }
    .svg()
}

/// Recall by rounds, for each number of buckets.
pub(crate) fn curves() -> Result<Vec<Points>, Error> {
    let x = positions();
    let nearest = nearest(&x);
    let shape = AttentionShape::new(1, 1, N, D);
    let inputs = LshInputs::new(&x, &x);
    let curve = |buckets: usize| -> Result<Points, Error> {
        let options = LshOptions::new(ROUNDS[ROUNDS.len() - 1], buckets, CHUNK);
        let order = reference::lsh_order(&reference::lsh_buckets(shape, &options, &inputs)?.buckets, N);
        let mut chunk_of = vec![0; order.len()];
        for (place, &i) in order.iter().enumerate() {
            chunk_of[place / N * N + i as usize] = place % N / CHUNK;
        }
        let chunks = N / CHUNK;
        let meets = |round: usize, i: usize, j: usize| {
            let (c, k) = (chunk_of[round * N + i], chunk_of[round * N + j]);
            c == k || (c + chunks - 1) % chunks == k
        };
        Ok(ROUNDS.map(|rounds| {
            let pairs = nearest.iter().enumerate().flat_map(|(i, near)| near.iter().map(move |&j| (i, j)));
            let met = pairs.filter(|&(i, j)| (0..rounds).any(|round| meets(round, i, j))).count();
            (rounds as f64, met as f64 / (nearest.len() * (CLUSTER - 1)) as f64)
        }))
    };
    BUCKETS.into_iter().map(curve).collect()
}

/// Clusters whose members are far apart in the sequence.
fn positions() -> Vec<f32> {
    let (centre, noise) = (Counter::new(2, 0), Counter::new(2, 1));
    let element = |i: usize, c: usize| {
        let cluster = (i * 1237 % N) / CLUSTER;
        (centre.normal((cluster * D + c) as u64) + 0.5 * noise.normal((i * D + c) as u64)) as f32
    };
    (0..N).flat_map(|i| (0..D).map(move |c| element(i, c))).collect()
}

/// The keys with the largest products for each query, keys normalised.
fn nearest(x: &[f32]) -> Vec<Vec<usize>> {
    let row = |i: usize| &x[i * D..][..D];
    let dot = |i: usize, j: usize| row(i).iter().zip(row(j)).map(|(a, b)| a * b).sum::<f32>();
    let norms: Vec<f32> = (0..N).map(|i| dot(i, i).sqrt()).collect();
    let nearest = |i: usize| {
        let mut keys: Vec<_> = (0..N).filter(|&j| j != i).map(|j| (-dot(i, j) / norms[j], j)).collect();
        keys.sort_by(|a, b| a.0.total_cmp(&b.0));
        keys[..CLUSTER - 1].iter().map(|key| key.1).collect()
    };
    (0..N).map(nearest).collect()
}
