//! What a step consists of: the time of each kind of piece, and the memory of the whole.

use crate::Error;
use crate::model::Config;
use crate::text::Text;
use crate::trainer::Trainer;
use std::time::Instant;
use wgpu_attention::Gpu;

/// Rounds, of which the fastest counts.
const ROUNDS: usize = 5;

/// Builds the model, runs its pieces one by one, and prints a table.
pub(crate) fn print(gpu: &Gpu, config: Config, text: &Text) -> Result<(), Error> {
    let before = allocated(gpu)?;
    let mut trainer = Trainer::new(gpu, config)?;
    trainer.step(text)?;
    let memory = allocated(gpu)? - before;
    let pieces = trainer.pieces()?;
    let mut best = vec![f64::MAX; pieces.len()];
    let mut nothing = f64::MAX;
    for _ in 0..ROUNDS {
        nothing = nothing.min(time(gpu, |_| ())?);
        for ((_, record), best) in pieces.iter().zip(&mut best) {
            *best = best.min(time(gpu, record)?);
        }
    }
    // Pieces of one name are one line, where the first of them stands.
    let mut lines: Vec<(&str, usize, f64)> = vec![];
    for ((name, _), seconds) in pieces.iter().zip(best) {
        let seconds = (seconds - nothing).max(0.0);
        match lines.iter_mut().find(|line| line.0 == name) {
            Some(line) => (line.1, line.2) = (line.1 + 1, line.2 + seconds),
            None => lines.push((name, 1, seconds)),
        }
    }
    let whole: f64 = lines.iter().map(|line| line.2).sum();
    println!("\n| piece | times | ms | share |\n|---|---:|---:|---:|");
    for (name, count, seconds) in &lines {
        println!("| {name} | {count} | {:.2} | {:.0} % |", 1e3 * seconds, 100.0 * seconds / whole);
    }
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    println!("| all | {} | {:.2} | |", pieces.len(), 1e3 * whole);
    println!(
        "\n{} parameters: {:.2} MiB, four times with gradients and moments, and once more in the model; device memory in all {:.2} MiB",
        trainer.parameters(),
        mib(4 * trainer.parameters() as u64),
        mib(memory)
    );
    Ok(())
}

/// Bytes of the device that are in use.
fn allocated(gpu: &Gpu) -> Result<u64, Error> {
    let report = gpu
        .device()
        .generate_allocator_report()
        .ok_or("this backend does not say how much memory is in use")?;
    Ok(report.total_allocated_bytes)
}

/// The seconds that a submission takes, the wait for it included.
fn time(gpu: &Gpu, record: impl Fn(&mut wgpu::CommandEncoder)) -> Result<f64, Error> {
    let mut encoder = gpu.device().create_command_encoder(&Default::default());
    record(&mut encoder);
    let commands = encoder.finish();
    let began = Instant::now();
    gpu.queue().submit([commands]);
    gpu.device().poll(wgpu::PollType::wait_indefinitely())?;
    Ok(began.elapsed().as_secs_f64())
}
