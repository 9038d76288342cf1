//! That the models learn, and that a run that was interrupted goes on bit for bit.

use crate::checkpoint;
use crate::model::Config;
use crate::text::Text;
use crate::trainer::Trainer;
use std::sync::OnceLock;
use wgpu_attention::Gpu;

fn gpu() -> &'static Gpu {
    static GPU: OnceLock<Gpu> = OnceLock::new();
    GPU.get_or_init(|| Gpu::new().expect("an adapter"))
}

fn config(kind: &str, text: &Text) -> Config {
    Config {
        kind: kind.into(),
        vocabulary: text.vocabulary(),
        batch: 4,
        len: 64,
        width: 32,
        heads: 2,
        layers: 2,
        learning_rate: 1e-2,
        seed: 7,
    }
}

#[test]
fn every_model_learns_more_than_frequencies() {
    let text = Text::read(None).unwrap();
    for kind in ["gpt", "sparse", "reformer"] {
        let mut trainer = Trainer::new(gpu(), config(kind, &text)).unwrap();
        let first = trainer.step(&text).unwrap();
        for _ in 1..120 {
            trainer.step(&text).unwrap();
        }
        let held_out = trainer.evaluate(&text).unwrap();
        println!(
            "{kind}: {first:.3} at first, {held_out:.3} on what it has not seen; unigrams {:.3}",
            text.unigram()
        );
        assert!(first > text.unigram(), "{kind}: {first}");
        assert!(held_out < text.unigram() - 0.25, "{kind}: {held_out}, unigrams {}", text.unigram());
    }
}

#[test]
fn a_run_that_was_interrupted_goes_on_bit_for_bit() {
    let text = Text::read(None).unwrap();
    let folder = tempfile();
    for kind in ["sparse", "reformer"] {
        let mut whole = Trainer::new(gpu(), config(kind, &text)).unwrap();
        let mut first = Trainer::new(gpu(), config(kind, &text)).unwrap();
        for _ in 0..3 {
            assert_eq!(whole.step(&text).unwrap(), first.step(&text).unwrap());
        }
        let path = folder.join(format!("{kind}.safetensors"));
        checkpoint::write(&path, &first, &text).unwrap();
        let mut second = checkpoint::read(&path, gpu(), &text).unwrap();
        assert_eq!((second.steps(), second.config()), (3, whole.config()));
        for _ in 0..3 {
            assert_eq!(whole.step(&text).unwrap(), second.step(&text).unwrap(), "{kind}");
        }
        assert_eq!(whole.state().unwrap(), second.state().unwrap(), "{kind}");
        assert!(!folder.join(format!("{kind}.safetensors.part")).exists());
    }
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn what_does_not_fit_is_said() {
    let text = Text::read(None).unwrap();
    let error = |result: Result<Trainer, crate::Error>| result.err().expect("an error").to_string();
    let heads = Config { heads: 5, ..config("gpt", &text) };
    assert_eq!(error(Trainer::new(gpu(), heads)), "heads: need a divisor of the width 32, found 5");
    let folder = tempfile();
    let path = folder.join("none.safetensors");
    assert!(error(checkpoint::read(&path, gpu(), &text)).contains("cannot be read"));
    let trainer = Trainer::new(gpu(), config("gpt", &text)).unwrap();
    checkpoint::write(&path, &trainer, &text).unwrap();
    let other = Text::new("other characters").unwrap();
    assert!(error(checkpoint::read(&path, gpu(), &other)).ends_with("found one of other characters"));
    let short = other.batch([1, 64], 0, 0).err().expect("an error").to_string();
    assert_eq!(short, "text: need 650 characters for sequences of 64, found 16");
    std::fs::remove_dir_all(folder).unwrap();
}

/// A folder of this process.
fn tempfile() -> std::path::PathBuf {
    static COUNT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    let n = COUNT.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
    let folder = std::env::temp_dir().join(format!("train-{}-{n}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    folder
}
