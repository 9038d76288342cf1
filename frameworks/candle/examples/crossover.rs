//! From which length on attention on the GPU pays, upload and read-back counted: beside candle's own on the CPU.
//!
//! ```text
//! cargo run --release --example crossover    prints a table
//! ```

use candle_core::{D, Device, Result, Tensor};
use candle_nn::attention::{AttnMask, flash_attn, flash_attn_varlen_cpu};
use std::time::{Duration, Instant};
use wgpu_attention_candle::pattern::{Causal, Pattern, Window};
use wgpu_attention_candle::{AttentionOptions, Gpu, attention};

const HEADS: usize = 2;
const DIM: usize = 64;
const LENGTHS: [usize; 6] = [128, 256, 512, 1024, 2048, 4096];
/// Keys before a query.
const BEFORE: usize = 255;
/// A call for which four times the last length's is longer is not run.
const LONGEST: Duration = Duration::from_secs(6);

/// What is timed; candle's own first.
const CALLS: [&str; 5] = [
    "candle's operations, causal",
    "`flash_attn`, causal",
    "this crate, causal",
    "`flash_attn_varlen_cpu`, window",
    "this crate, window",
];

fn main() -> Result<()> {
    let gpu = Gpu::new().map_err(candle_core::Error::wrap)?;
    let info = gpu.info();
    println!(
        "{}, {}; f32, batch 1, {HEADS} heads of {DIM}; a window of {}\n",
        info.name,
        info.driver_info,
        BEFORE + 1
    );
    println!("| positions | {} |\n|---:{}|", CALLS.join(" | "), "|---:".repeat(CALLS.len()));
    let mut columns: [Vec<Option<Duration>>; CALLS.len()] = Default::default();
    for len in LENGTHS {
        let row = row(&gpu, len, columns.each_ref().map(|column| column.last().copied().flatten()))?;
        let cells = row
            .map(|time| time.map_or("not run".into(), |time| format!("{:.1} ms", time.as_secs_f64() * 1e3)));
        println!("| {len} | {} |", cells.join(" | "));
        columns.iter_mut().zip(row).for_each(|(column, time)| column.push(time));
    }
    let [plain, flash, causal, flash_window, window] = columns;
    println!();
    for (name, ours, theirs) in [
        ("causal, candle's operations", &causal, &plain),
        ("causal, `flash_attn`", &causal, &flash),
        ("window, `flash_attn_varlen_cpu`", &window, &flash_window),
    ] {
        println!("- {name}: {}", crossover(ours, theirs));
    }
    Ok(())
}

/// The time of each call at this length, if the last length's allows it.
fn row(
    gpu: &Gpu,
    len: usize,
    last: [Option<Duration>; CALLS.len()],
) -> Result<[Option<Duration>; CALLS.len()]> {
    // [B, L, H, d], as a layer's projections lie; a view of [B, H, L, d].
    let [q, k, v] = [0; 3].map(|_| Tensor::randn(0f32, 1.0, (1, len, HEADS, DIM), &Device::Cpu));
    let lying = [q?, k?, v?];
    let [q, k, v] = lying.each_ref().map(|x| x.transpose(1, 2));
    let views = [q?, k?, v?];
    let over = |pattern: &dyn Pattern| {
        let [q, k, v] = &views;
        attention(q, k, v, pattern, AttentionOptions::default().gpu(gpu))
    };
    let window = Window { before: BEFORE, after: 0 };
    let mask = causal_mask(len)?;
    let calls: [&dyn Fn() -> Result<Tensor>; CALLS.len()] =
        [&|| plain(&views, &mask), &|| flash(&lying), &|| over(&Causal), &|| flash_window(&lying), &|| {
            over(&window)
        }];
    let mut row = [None; CALLS.len()];
    for ((time, call), last) in row.iter_mut().zip(calls).zip(last) {
        if len == LENGTHS[0] || last.is_some_and(|last| last * 4 < LONGEST) {
            *time = Some(best(call)?);
        }
    }
    Ok(row)
}

/// The least of seven; the first call, which compiles, does not count.
fn best(call: &dyn Fn() -> Result<Tensor>) -> Result<Duration> {
    call()?;
    let mut best = Duration::MAX;
    for _ in 0..7 {
        let start = Instant::now();
        call()?;
        best = best.min(start.elapsed());
    }
    Ok(best)
}

/// 0 where query i sees key j, -infinity elsewhere: `[L, L]`, made before the clock starts.
fn causal_mask(len: usize) -> Result<Tensor> {
    let pairs = (0..len).flat_map(|i| (0..len).map(move |j| if j <= i { 0f32 } else { f32::NEG_INFINITY }));
    Tensor::from_iter(pairs, &Device::Cpu)?.reshape((len, len))
}

/// softmax(q k^T / sqrt(d) + mask) v.
fn plain([q, k, v]: &[Tensor; 3], mask: &Tensor) -> Result<Tensor> {
    let scores = (q.contiguous()?.matmul(&k.contiguous()?.t()?)? / (DIM as f64).sqrt())?;
    candle_nn::ops::softmax(&scores.broadcast_add(mask)?, D::Minus1)?.matmul(&v.contiguous()?)
}

fn flash([q, k, v]: &[Tensor; 3]) -> Result<Tensor> {
    flash_attn::<f32>(q, k, v, scale(), AttnMask::causal(), None, None)
}

fn flash_window(lying: &[Tensor; 3]) -> Result<Tensor> {
    let [q, k, v] = lying.each_ref().map(|x| x.squeeze(0));
    let (q, k, v) = (q?, k?, v?);
    let len = q.dim(0)?;
    let lens = Tensor::new(&[len as u32], &Device::Cpu)?;
    flash_attn_varlen_cpu(&q, &k, &v, None, &lens, &lens, len, len, scale(), true, Some(BEFORE), None)
}

fn scale() -> f32 {
    1.0 / (DIM as f32).sqrt()
}

/// The first length from which on ours is faster at every one that both ran.
fn crossover(ours: &[Option<Duration>], theirs: &[Option<Duration>]) -> String {
    let both = LENGTHS.iter().zip(ours.iter().zip(theirs));
    let both: Vec<_> = both.filter_map(|(len, (ours, theirs))| Some((*len, (*ours)? < (*theirs)?))).collect();
    match both.iter().rev().take_while(|(_, faster)| *faster).last() {
        Some((len, _)) => format!("this crate is faster from {len} positions on"),
        None => "this crate is not faster at these lengths".into(),
    }
}
