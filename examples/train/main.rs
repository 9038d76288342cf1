//! A character model that learns on the device, from any text: forward pass, loss, backward pass, clipping and AdamW are one submission per step.
//!
//! ```text
//! cargo run --example train -- --model reformer
//! cargo run --example train -- --model sparse --text FILE --steps 500
//! cargo run --example train -- --resume target/train/sparse.safetensors
//! cargo run --example train -- --compare
//! ```
//!
//! `gpt` attends all that came before, `sparse` the Sparse Transformer's strided pattern (Child 2019), `reformer` what hashing finds, in
//! reversible layers (Kitaev 2020). Ctrl-C ends it as `--steps` does: with a checkpoint, the curve, and a sample.

mod arguments;
mod build;
mod checkpoint;
mod curve;
mod gpt;
mod model;
mod profile;
mod reformer;
mod sample;
mod text;
mod trainer;

#[cfg(test)]
mod tests;

use arguments::{Arguments, Kind};
use clap::Parser;
use curve::Curve;
use indicatif::{ProgressBar, ProgressStyle};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use text::Text;
use trainer::Trainer;
use wgpu_attention::Gpu;

type Error = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("train: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), Error> {
    let stop = Arc::new(AtomicBool::new(false));
    let asked = stop.clone();
    ctrlc::set_handler(move || {
        // A second time means it.
        if asked.swap(true, Ordering::SeqCst) {
            std::process::exit(130);
        }
    })?;
    let text = Text::read(arguments.text.as_deref())?;
    let gpu = Gpu::new()?;
    println!(
        "{}: {} characters of {} kinds; a unigram model's loss is {:.3} nats per character",
        gpu.info().name,
        text.len(),
        text.vocabulary(),
        text.unigram()
    );
    if arguments.profile {
        return profile::print(&gpu, arguments.config(arguments.model, &text), &text);
    }
    let mut trainers = trainers(&gpu, arguments, &text)?;
    let curves = learn(arguments, &text, &mut trainers, &stop)?;
    std::fs::create_dir_all(&arguments.out)?;
    for trainer in &trainers {
        let path = arguments.out.join(format!("{}.safetensors", trainer.kind()));
        checkpoint::write(&path, trainer, &text)?;
        println!("{}: step {}, {}", trainer.kind(), trainer.steps(), path.display());
    }
    let names: Vec<String> = trainers.iter().map(|trainer| trainer.kind().to_string()).collect();
    let picture = arguments.out.join(format!("{}.svg", names.join("-")));
    checkpoint::write_whole(&picture, curve::svg(&curves, text.unigram())?.as_bytes())?;
    println!("the loss: {}", picture.display());
    for trainer in &mut trainers {
        let held_out = trainer.evaluate(&text)?;
        println!("{}: {held_out:.3} nats per character of text that was held out", trainer.kind());
        if arguments.sample > 0 {
            println!("\n{}\n", sample::sample(trainer, &text, arguments.sample)?);
        }
    }
    Ok(())
}

/// What is to learn: one model, the one of a checkpoint, or two side by side.
fn trainers(gpu: &Gpu, arguments: &Arguments, text: &Text) -> Result<Vec<Trainer>, Error> {
    if let Some(path) = &arguments.resume {
        return Ok(vec![checkpoint::read(path, gpu, text)?]);
    }
    let kinds = if arguments.compare { vec![Kind::Gpt, Kind::Sparse] } else { vec![arguments.model] };
    kinds.into_iter().map(|kind| Trainer::new(gpu, arguments.config(kind, text))).collect()
}

/// Steps by turns, over the same text, until there are enough or somebody asks to stop.
fn learn(
    arguments: &Arguments,
    text: &Text,
    trainers: &mut [Trainer],
    stop: &AtomicBool,
) -> Result<Vec<Curve>, Error> {
    let names = trainers.iter().map(|trainer| trainer.kind().to_string());
    let mut curves: Vec<Curve> = names.map(|name| Curve { name, points: vec![] }).collect();
    let bar = ProgressBar::new(u64::from(arguments.steps))
        .with_style(ProgressStyle::with_template("{bar:30} step {pos} of {len}, {msg}, {eta} left")?);
    // From the end of the first step on, which compiles.
    let mut began = Instant::now();
    let mut tokens = 0;
    for n in 0..arguments.steps {
        let mut losses = vec![];
        for (trainer, curve) in trainers.iter_mut().zip(&mut curves) {
            let loss = trainer.step(text)?;
            curve.points.push((trainer.steps(), loss));
            tokens += if n > 0 { trainer.tokens_per_step() } else { 0 };
            losses.push(format!("{} {loss:.3}", curve.name));
        }
        if n == 0 {
            began = Instant::now();
        }
        let rate = tokens as f64 / began.elapsed().as_secs_f64();
        let said = format!("loss {}, {rate:.0} tokens per second", losses.join(", "));
        bar.set_message(said.clone());
        bar.inc(1);
        // Where no terminal shows the bar, a line now and then.
        if bar.is_hidden() && (n + 1).is_multiple_of(arguments.every) {
            println!("step {}: {said}", trainers.first().map_or(0, Trainer::steps));
        }
        let late = arguments.minutes.is_some_and(|limit| began.elapsed().as_secs_f64() > 60.0 * limit);
        if late || stop.load(Ordering::SeqCst) {
            break;
        }
    }
    bar.finish_and_clear();
    Ok(curves)
}
