//! Faults planted in the shader text: the checks must find them.
//!
//! | file | what |
//! |---|---|
//! | `table.rs` | the faults |
//! | `checks.rs` | the checks, a small selection of the suite's |

mod checks;
mod table;

use checks::{CHECKS, Check, Subject};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;
use table::{MUTANTS, Mutant};
use wgpu_attention_testing as support;

/// What the checks made of a mutant: the one that failed, and its message.
type Verdict = Option<(&'static str, String)>;

#[test]
fn the_checks_pass_on_the_shaders_as_they_are() {
    let start = Instant::now();
    let subject = Subject::new(|text| text.to_owned());
    for (name, check) in CHECKS {
        check(&subject).unwrap_or_else(|e| panic!("{name}: {e}"));
    }
    println!("control: {} checks in {:.1} s", CHECKS.len(), start.elapsed().as_secs_f64());
}

#[test]
fn the_checks_kill_the_mutants() {
    let start = Instant::now();
    let next = AtomicUsize::new(0);
    let verdicts: Mutex<Vec<(usize, Verdict)>> = Mutex::default();
    // Compiling takes most of the time, and a thread each.
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from).min(4) {
            scope.spawn(|| {
                while let Some(mutant) = MUTANTS.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let verdict = examine(mutant);
                    let place =
                        MUTANTS.iter().position(|other| other.name == mutant.name).expect("in the table");
                    verdicts.lock().expect("no panic").push((place, verdict));
                }
            });
        }
    });

    let mut verdicts = verdicts.into_inner().expect("no panic");
    verdicts.sort_by_key(|verdict| verdict.0);
    let survivors: Vec<_> = verdicts.iter().filter(|v| v.1.is_none()).map(|v| MUTANTS[v.0].name).collect();
    for (place, verdict) in &verdicts {
        let (check, message) = verdict.as_ref().map_or(("SURVIVED", ""), |(check, message)| (check, message));
        println!("{:55} {check:14} {}", MUTANTS[*place].name, message.chars().take(110).collect::<String>());
    }
    let killed = MUTANTS.len() - survivors.len();
    println!("{killed} of {} killed in {:.1} s", MUTANTS.len(), start.elapsed().as_secs_f64());
    assert_eq!(verdicts.len(), MUTANTS.len(), "every mutant has a verdict");
    assert!(100 * killed >= 95 * MUTANTS.len(), "survivors: {survivors:?}");
}

/// Runs the checks on a mutant until one fails, the likely ones first.
fn examine(mutant: &'static Mutant) -> Verdict {
    static APPLIED: [AtomicUsize; MUTANTS.len()] = [const { AtomicUsize::new(0) }; MUTANTS.len()];
    let place = MUTANTS.iter().position(|other| other.name == mutant.name).expect("in the table");
    let subject = Subject::new(move |text| {
        let (text, applied) = mutant.apply(text);
        APPLIED[place].fetch_add(usize::from(applied), Ordering::Relaxed);
        text
    });
    let likely = |(name, _): &&(&'static str, Check)| mutant.likely.contains(name);
    let checks = CHECKS.iter().filter(likely).chain(CHECKS.iter().filter(|check| !likely(check)));
    assert!(mutant.likely.iter().all(|name| CHECKS.iter().any(|check| check.0 == *name)), "{}", mutant.name);
    let verdict = checks.into_iter().find_map(|(name, check)| Some((*name, check(&subject).err()?)));
    assert!(APPLIED[place].load(Ordering::Relaxed) > 0, "{}: no shader has this text any more", mutant.name);
    verdict
}

#[test]
fn every_mutant_changes_some_shader() {
    // Without a device: the table is right even where no check compiles the variant.
    let shaders = wgpu_attention::wgsl::variants();
    let idle = |mutant: &&Mutant| !shaders.iter().any(|shader| mutant.apply(&shader.text).1);
    let idle: Vec<_> = MUTANTS.iter().filter(idle).map(|mutant| mutant.name).collect();
    assert!(idle.is_empty(), "no shader has the text of {idle:#?}");
    for mutant in MUTANTS {
        let twins = MUTANTS.iter().filter(|other| other.name == mutant.name).count();
        assert_eq!(twins, 1, "{}: the name comes twice", mutant.name);
    }
}
