//! BigBird attention over a sequence that no rank holds by itself: each rank makes its rows of q, k and v from a counter, attends
//! what it needs of the others, and holds sampled rows of its result against f64.
//!
//! ```sh
//! mpirun -n 4 target/debug/examples/bigbird --help
//! ```

use anyhow::{Context, Result, ensure};
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use std::time::{Duration, Instant};
use wgpu_attention::reference::{Got, Rows, VerifyOptions, verify};
use wgpu_attention::{
    AttentionShape, BigBird, Counter, Extent, Full, Gpu, Inputs, Pattern, Site, ranks::Assignment,
};
use wgpu_attention_mpi::Mpi;
use wgpu_attention_mpi::ranks::{DistributedAttention, Exchange, Forward, Pass, Plan};

/// BigBird attention over the ranks of an MPI program, checked in sampled rows against f64.
#[derive(Parser, Debug, Clone)]
struct Options {
    /// Positions of the sequence
    #[arg(long, default_value_t = 1 << 20)]
    tokens: usize,
    /// Elements of a query, a key and a value
    #[arg(long, default_value_t = 64)]
    head_dim: usize,
    /// Positions of a block
    #[arg(long, default_value_t = 64)]
    block: usize,
    /// Blocks of the window, an odd number
    #[arg(long, default_value_t = 3)]
    window: usize,
    /// Global blocks, which attend everything and are attended by everything
    #[arg(long, default_value_t = 1)]
    global: usize,
    /// Random blocks per block of queries
    #[arg(long, default_value_t = 2)]
    random: usize,
    /// Seed of the inputs and of the random blocks
    #[arg(long, default_value_t = 7)]
    seed: u64,
    /// Rows that each rank holds against f64
    #[arg(long, default_value_t = 8)]
    rows: usize,
    /// Seconds that a rank waits for another
    #[arg(long, default_value_t = 3600)]
    limit: u64,
}

impl Options {
    /// Numbers from -1 to 1: a row of q (tensor 0), k (1) or v (2), whoever asks.
    fn row(&self, tensor: u64, row: usize) -> impl Iterator<Item = f32> {
        let (counter, dim) = (Counter::new(self.seed, tensor), self.head_dim as u64);
        let first = row as u64 * dim;
        (first..first + dim).map(move |n| (counter.bits(n) >> 40) as f32 / (1 << 23) as f32 - 1.0)
    }

    /// Rows of a rank, or any others.
    fn rows_of(&self, tensor: u64, rows: impl Iterator<Item = usize>) -> Vec<f32> {
        rows.flat_map(|row| self.row(tensor, row)).collect()
    }

    fn pattern(&self) -> BigBird {
        let Self { block, window, global, random, seed, .. } = *self;
        BigBird { block, window, global, random, seed }
    }
}

fn main() -> Result<()> {
    let options = Options::parse();
    let mpi = Mpi::world(Duration::from_secs(60)).map_err(|fault| anyhow::anyhow!("{fault:?}"))?;
    let (rank, ranks, shape) =
        (mpi.rank(), mpi.size(), AttentionShape::new(1, 1, options.tokens, options.head_dim));
    let progress = progress(rank, 4 + options.rows as u64);
    progress.set_message("device");
    let gpu = Gpu::new()?;
    progress.inc(1);
    progress.set_message("handshake and plans");
    let rows = Assignment::contiguous(options.tokens, options.block, ranks)?;
    let plan = Plan::new(rows.clone(), rows.clone()).block(options.block);
    let plan = plan.limit(Duration::from_secs(options.limit));
    let mut attention = DistributedAttention::with(mpi, &gpu, shape, &options.pattern(), plan)?;
    progress.inc(1);
    progress.set_message("inputs");
    let own: Vec<usize> = rows.rows(rank).iter().cloned().flatten().collect();
    let [q, k, v] = [0, 1, 2].map(|tensor| options.rows_of(tensor, own.iter().copied()));
    progress.inc(1);
    progress.set_message("attention");
    let began = Instant::now();
    let forward = attention.forward(&q, &k, &v).context("attention")?;
    let time = began.elapsed();
    progress.inc(1);
    let worst = checked(&options, &own, &forward, &progress)?;
    progress.finish_and_clear();
    let (needs, traffic) = (attention.needs(), attention.traffic());
    println!(
        "rank {rank} of {ranks} on {}: {} rows in {:.1} s; {} foreign keys needed, {:.1} MB sent in {} messages; \
         {} rows against f64: largest error / bound {worst:.3}",
        gpu.info().name,
        own.len(),
        time.as_secs_f64(),
        needs.foreign(),
        traffic.bytes(Pass::Forward) as f64 / 1e6,
        traffic.messages(Pass::Forward),
        options.rows.min(own.len()),
    );
    Ok(())
}

/// On the first rank's screen alone.
fn progress(rank: usize, steps: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{elapsed_precise} [{bar:30}] {msg}");
    match style {
        Ok(style) if rank == 0 => {
            let bar = ProgressBar::new(steps).with_style(style);
            bar.enable_steady_tick(Duration::from_millis(500));
            bar
        }
        _ => ProgressBar::hidden(),
    }
}

/// The largest error / bound of sampled rows: each is one query over the keys that it attends, made anew.
fn checked(options: &Options, own: &[usize], forward: &Forward, progress: &ProgressBar) -> Result<f64> {
    let (pattern, tokens, dim) = (options.pattern(), options.tokens, options.head_dim);
    let extent = Extent { batch: 1, heads: 1, q_len: tokens, kv_len: tokens };
    let site = Site { batch: 0, head: 0, extent };
    let (mut words, mut worst) = (vec![0u32; tokens.div_ceil(32)], 0f64);
    let samples = options.rows.min(own.len());
    for sample in 0..samples {
        // The first and the last one among them.
        let place = sample * (own.len() - 1) / (samples - 1).max(1);
        progress.set_message(format!("row {}", own[place]));
        words.fill(0);
        pattern.row(&site, own[place], &mut words);
        let kept = |j: &usize| words[j / 32] >> (j % 32) & 1 == 1;
        let keys: Vec<usize> = (0..tokens).filter(kept).collect();
        let q = options.rows_of(0, [own[place]].into_iter());
        let [k, v] = [1, 2].map(|tensor| options.rows_of(tensor, keys.iter().copied()));
        let shape = AttentionShape::new(1, 1, 1, dim).kv_len(keys.len());
        let got = Got::new(&forward.out[place * dim..(place + 1) * dim]).lse(&forward.lse[place..=place]);
        let report =
            verify(shape, &Inputs::new(&q, &k, &v), &Full, got, VerifyOptions::default().rows(Rows::All))?;
        ensure!(report.pass && report.unspecified == 0, "row {}: {report}", own[place]);
        worst = worst.max(report.worst_out.map_or(0.0, |worst| worst.ratio));
        progress.inc(1);
    }
    Ok(worst)
}
