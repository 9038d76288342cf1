//! Tuning: only right candidates are timed, the fastest is kept, and a cache gives the same choice again.

use std::fs;
use std::path::PathBuf;
use wgpu_attention::ElementType::F16;
use wgpu_attention::tune::{Outcome, Trial, Tuned, TuningCache};
use wgpu_attention::wgsl::{Tile, TileKind};
use wgpu_attention::{
    Attention, AttentionShape, Causal, Gpu, Inputs, KernelPath, Kernels, Options, SelfTest, Storage, Strided,
    StridedPart,
};
use wgpu_attention_testing::{gpu, gpu_with};

/// A folder of its own, gone at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("wgpu-attention-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("a folder");
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn shape() -> AttentionShape {
    AttentionShape::new(1, 2, 200, 32)
}

fn timed(trial: &Trial) -> Option<f64> {
    match trial.outcome {
        Outcome::Timed(time_s) => Some(time_s),
        _ => None,
    }
}

fn tune(gpu: &Gpu, attention: impl Into<Attention>) -> Tuned {
    gpu.tune(attention, &Causal, &mut |_| ()).expect("tuned")
}

#[test]
fn the_fastest_right_candidate_is_kept() {
    let mut seen = vec![];
    let tuned = gpu().tune(shape(), &Causal, &mut |trial| seen.push(trial.clone())).expect("tuned");
    assert_eq!(seen, tuned.trials, "all are shown as they end");
    let least = tuned.trials.iter().filter_map(timed).fold(f64::INFINITY, f64::min);
    let best = tuned.trials.iter().find(|trial| timed(trial) == Some(least)).expect("something ran");
    assert_eq!(best.tuning, tuned.best);
    assert!(tuned.trials.iter().filter(|trial| timed(trial).is_some()).count() > 1, "{:?}", tuned.trials);
    assert!(timed(&tuned.trials[0]).is_some(), "the plan's own choice comes first");
    let kinds = |staged: bool| {
        let is = |trial: &&Trial| matches!(trial.tuning.tile, Tile::Staged(_)) == staged;
        tuned.trials.iter().filter(is).count()
    };
    assert!(kinds(true) > 1 && kinds(false) >= 1);
    let mut each: Vec<_> = tuned.trials.iter().map(|trial| trial.tuning).collect();
    each.dedup();
    assert_eq!(each.len(), tuned.trials.len(), "none twice");

    // What was found is what then runs.
    let kernels =
        Kernels::new(gpu().device(), tuned.best.options(Options::default())).expect("valid options");
    let plan = kernels.attention(shape(), &Causal).expect("a plan");
    assert_eq!((plan.explain().tile, plan.explain().splits), (tuned.best.tile, tuned.best.splits));
}

#[test]
fn several_parts_and_few_queries() {
    let pattern = Strided { stride: 20, part: StridedPart::Both, causal: true };
    let tuned = gpu().tune(shape(), &pattern, &mut |_| ()).expect("tuned");
    assert!(tuned.trials.iter().filter_map(timed).count() > 1);
    let few = AttentionShape::new(1, 4, 1, 32).kv_heads(2).kv_len(2000);
    let tuned = tune(gpu(), few);
    let splits: Vec<_> = tuned.trials.iter().map(|trial| trial.tuning.splits).collect();
    assert!(splits.iter().any(|n| *n != splits[0]), "{splits:?}");
}

#[test]
fn what_is_forced_stays() {
    let direct = gpu_with(Options::default().tile_kind(TileKind::Direct).splits(1));
    let tuned = tune(&direct, shape());
    assert!(tuned.trials.iter().all(|t| matches!(t.tuning.tile, Tile::Direct(_)) && t.tuning.splits == 1));
    let one = gpu_with(Options::default().tile(tuned.best.tile).splits(2));
    let tuned = tune(&one, shape());
    assert_eq!(tuned.trials.len(), 1);
    let halves = gpu_with(Options::default().path(KernelPath::Cooperative));
    let tuned = tune(&halves, shape().storage(Storage::all(F16)));
    assert!(tuned.trials.iter().all(|trial| matches!(trial.tuning.tile, Tile::Cooperative(_))), "{tuned:?}");
}

/// A wrong candidate is neither timed nor taken, however fast; a wrong choice of the plan's own is an error.
#[test]
fn wrong_results_are_not_taken() {
    let own = tune(gpu(), shape()).trials[0].tuning;
    let own_label = format!("tile {} block", own.tile);
    let broken = |is_broken: Box<dyn Fn(&str) -> bool + Send + Sync>| {
        let edit = move |text: &str| match text.lines().next().is_some_and(&is_broken) {
            true => text.replace("o * end.new_weight", "o"),
            false => text.to_owned(),
        };
        let kernels = Kernels::with_edited_shaders(gpu().device(), Options::default(), edit);
        gpu().with_kernels(kernels.expect("valid options"))
    };
    let all = broken(Box::new(|_| true));
    let error = all.tune(shape(), &Causal, &mut |_| ()).expect_err("all are wrong").to_string();
    assert!(error.contains("tune") && error.contains("FAIL"), "{error}");

    let others = broken(Box::new(move |label| !label.contains(&own_label)));
    let tuned = tune(&others, shape());
    let wrong = |trial: &&Trial| matches!(trial.outcome, Outcome::Wrong(_));
    assert!(tuned.trials.iter().filter(wrong).count() > 0, "{:?}", tuned.trials);
    assert_eq!(tuned.best.tile, own.tile);
}

#[test]
fn a_cache_gives_the_same_choice_again() {
    let folder = Folder::new("tune");
    let path = folder.0.join("choices.json");
    let mut cache = TuningCache::open(&path).expect("an empty one");
    assert!(cache.is_empty() && !path.exists());
    let first = cache.tuned(gpu(), shape(), &Causal, &mut |_| ()).expect("tuned");
    assert!(!first.trials.is_empty() && cache.len() == 1);
    let none = &mut |trial: &Trial| panic!("tuned again: {trial:?}");
    assert_eq!(cache.tuned(gpu(), shape(), &Causal, none).expect("read").best, first.best);

    // Also from the file; another call has a choice of its own.
    let mut again = TuningCache::open(&path).expect("the file");
    let second = again.tuned(gpu(), shape(), &Causal, none).expect("read");
    assert!(second.best == first.best && second.trials.is_empty());
    let other = again.tuned(gpu(), shape().q_len(100), &Causal, &mut |_| ()).expect("tuned");
    assert!(!other.trials.is_empty() && again.len() == 2);
    assert_eq!(fs::read_dir(&folder.0).expect("a folder").count(), 1, "nothing is left beside it");
}

#[test]
fn a_cache_keeps_how_fast_the_device_is() {
    let folder = Folder::new("speed");
    let path = folder.0.join("choices.json");
    let speed = |gpu: &Gpu| gpu.kernels().options().measured_flops_per_second;
    let measured = TuningCache::open(&path).and_then(|mut cache| cache.calibrated(gpu())).expect("measured");
    assert!(speed(&measured).is_some_and(|speed| speed > 1e6));
    // What the file says counts, so that a second program takes no time for it.
    let text = fs::read_to_string(&path).expect("written");
    let number = speed(&measured).expect("as above").to_string();
    assert!(text.contains(&number), "{number} in {text}");
    fs::write(&path, text.replace(&number, "1.5e9")).expect("written");
    let read = TuningCache::open(&path).and_then(|mut cache| cache.calibrated(gpu())).expect("read");
    assert_eq!(speed(&read), Some(1.5e9));
    assert!(TuningCache::open(&path).expect("the file").is_empty(), "a speed is no choice");
}

#[test]
fn a_cache_keeps_what_self_tests_found() {
    let folder = Folder::new("self-tests");
    let path = folder.0.join("cache.json");
    let right = gpu();
    let plan = right.kernels().attention(shape(), &Causal).unwrap();
    let found = TuningCache::open(&path).unwrap().self_test(right, &plan).unwrap();
    assert_eq!(found, SelfTest::Passed);
    // Read, not run: what is written is what is said.
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains("\"Passed\""), "{text}");
    fs::write(&path, text.replace("\"Passed\"", "{\"Failed\":\"as written\"}")).unwrap();
    let tested = right.clone().self_tests(true);
    let found = TuningCache::open(&path).unwrap().self_test(&tested, &plan).unwrap();
    assert_eq!(found, SelfTest::Failed("as written".into()));
    // The device knows.
    let x = vec![0.5f32; shape().len_q()];
    let said = tested.attention::<_, _, f32>(shape(), &x, &x, &x, &Causal).unwrap_err().to_string();
    assert!(said.contains("self-test") && said.contains("as written"), "{said}");
}

#[test]
fn a_cache_keeps_what_self_tests_of_gradients_found() {
    let folder = Folder::new("self-tests-of-gradients");
    let path = folder.0.join("cache.json");
    let plan = gpu().kernels().attention(shape(), &Causal).unwrap();
    let backward = plan.backward().unwrap();
    let found = TuningCache::open(&path).unwrap().self_test(gpu(), &backward).unwrap();
    assert_eq!(found, SelfTest::Passed);
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains("backward dq") && !text.contains("\"attention d"), "{text}");
    fs::write(&path, text.replace("\"Passed\"", "{\"Failed\":\"as written\"}")).unwrap();
    // Of its own, as clones share what is known, and another test makes them distrust attention.
    let tested = gpu().with_kernels(gpu().kernels().clone()).self_tests(true);
    let found = TuningCache::open(&path).unwrap().self_test(&tested, &backward).unwrap();
    assert_eq!(found, SelfTest::Failed("as written".into()));
    // The device knows; attention itself, by other shaders, is not refused.
    let x = vec![0.5f32; shape().len_q()];
    tested.attention::<_, _, f32>(shape(), &x, &x, &x, &Causal).unwrap();
    let inputs = Inputs::new(&x, &x, &x);
    let said = tested.attention_backward::<_, _, _, f32>(shape(), &inputs, &x, &Causal).unwrap_err();
    assert!(said.to_string().contains("gradients: as written"), "{said}");
}

#[test]
fn files_that_are_no_caches() {
    let folder = Folder::new("tune-wrong");
    let path = folder.0.join("choices.json");
    for text in ["", "{", "[]", r#"{"format": 2, "choices": {}}"#, r#"{"format": 1, "choices": {"x": 3}}"#] {
        fs::write(&path, text).expect("written");
        let error = TuningCache::open(&path).expect_err("no cache").to_string();
        assert!(error.contains("cache") && error.contains("choices.json"), "{text}: {error}");
        assert_eq!(fs::read_to_string(&path).expect("there"), text, "it stays as it is");
    }
    let mut nowhere = TuningCache::open(folder.0.join("missing/choices.json")).expect("an empty one");
    let error = nowhere.tuned(gpu(), shape(), &Causal, &mut |_| ()).expect_err("no place").to_string();
    assert!(error.contains("cache") && error.contains("missing"), "{error}");
}

#[test]
fn bad_input() {
    let error = gpu().tune(AttentionShape::new(1, 3, 8, 16).kv_heads(2), &Causal, &mut |_| ());
    assert!(error.expect_err("3 heads over 2").to_string().contains("heads"));
    let empty = tune(gpu(), AttentionShape::new(0, 1, 8, 16));
    assert!(empty.trials.is_empty());
}
