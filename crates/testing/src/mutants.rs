//! Faults planted in the shader text, and the harness that runs checks on them: the checks must find the faults.
//!
//! The faults are `tests/mutants/table/`; each suite brings its checks.

use crate::turns::one_in;
use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use wgpu_attention::wgsl::Shader;

/// A fault: each text is replaced wherever a shader has all of them.
#[derive(Debug)]
pub struct Mutant {
    /// What is wrong.
    pub name: &'static str,
    /// What is replaced by what.
    pub edits: &'static [(&'static str, &'static str)],
    /// The checks that are run first; where `only`, the ones that must find it.
    pub checks: &'static [&'static str],
    /// Whether no other check may find it.
    pub only: bool,
}

/// A table of faults. With the checks that are likely to find each, all others run after them:
///
/// `"a name" ["check", "another"] "text" => "replacement", "text" => "replacement";`
///
/// or grouped by the one check that must find them: `"check" { "a name": "text" => "replacement"; }`.
#[macro_export]
macro_rules! mutants {
    ($($check:literal { $($name:literal: $find:literal => $replacement:literal;)* })*) => {
        /// All of them.
        pub(crate) const MUTANTS: &[$crate::mutants::Mutant] = &[$($($crate::mutants::Mutant {
            name: $name,
            edits: &[($find, $replacement)],
            checks: &[$check],
            only: true,
        }),*),*];
    };
    ($($name:literal [$($check:literal),+] $($find:literal => $replacement:literal),+;)*) => {
        /// All of them.
        pub(crate) const MUTANTS: &[$crate::mutants::Mutant] = &[$($crate::mutants::Mutant {
            name: $name,
            edits: &[$(($find, $replacement)),+],
            checks: &[$($check),+],
            only: false,
        }),*];
    };
}

impl Mutant {
    /// The changed text, and whether it was changed.
    ///
    /// # Panics
    /// A shader has one of the texts twice.
    pub fn apply(&self, text: &str) -> (String, bool) {
        if !self.edits.iter().all(|(find, _)| text.contains(find)) {
            return (text.to_owned(), false);
        }
        let replace = |text: String, (find, replacement): &(&str, &str)| {
            assert_eq!(text.matches(find).count(), 1, "{}: `{find}` is ambiguous", self.name);
            text.replace(find, replacement)
        };
        (self.edits.iter().fold(text.to_owned(), replace), true)
    }
}

/// A change of shader texts.
pub type Edit = Arc<dyn Fn(&str) -> String + Send + Sync>;

/// `Err` says what is wrong.
pub type Check<S> = fn(&S) -> Result<(), String>;

/// Faults with the checks that must find them.
#[derive(Debug)]
pub struct Suite<S: 'static> {
    /// The faults.
    pub mutants: &'static [Mutant],
    /// Kernels of edited shaders.
    pub subject: fn(Edit) -> S,
    /// By name.
    pub checks: &'static [(&'static str, Check<S>)],
}

/// What the checks made of a mutant: the one that failed, and its message.
type Verdict = Option<(&'static str, String)>;

impl<S> Suite<S> {
    /// Every check passes on the shaders as they are.
    ///
    /// # Panics
    /// One does not.
    pub fn pass_without_faults(&self) {
        let start = Instant::now();
        let subject = (self.subject)(Arc::new(|text: &str| text.to_owned()));
        for (name, check) in self.checks {
            check(&subject).unwrap_or_else(|e| panic!("{name}: {e}"));
        }
        println!("control: {} checks in {:.1} s", self.checks.len(), start.elapsed().as_secs_f64());
    }

    /// The checks find the faults: 95 of 100 at least. A run takes an eighth of them, drawn anew, since it is the tests that they test, and
    /// each has to be compiled; `cargo xtask test --long` takes all.
    ///
    /// # Panics
    /// They do not, no shader has a fault's text, or a check is not there.
    pub fn kill_the_mutants(&self) {
        let start = Instant::now();
        let next = AtomicUsize::new(0);
        let taken: Vec<_> =
            one_in(8, self.mutants.len()).into_iter().map(|place| &self.mutants[place]).collect();
        let verdicts: Mutex<Vec<(usize, Verdict)>> = Mutex::default();
        // Compiling takes most of the time, and a thread each.
        std::thread::scope(|scope| {
            for _ in 0..std::thread::available_parallelism().map_or(2, usize::from).min(4) {
                scope.spawn(|| {
                    while let Some((place, mutant)) = take(&next, &taken) {
                        let verdict = self.examine(mutant);
                        verdicts.lock().unwrap_or_else(PoisonError::into_inner).push((place, verdict));
                    }
                });
            }
        });
        let mut verdicts = verdicts.into_inner().expect("no panic");
        verdicts.sort_by_key(|verdict| verdict.0);
        for (place, verdict) in &verdicts {
            let (check, message) = verdict.as_ref().map_or(("SURVIVED", ""), |(check, why)| (check, why));
            let message: String = message.chars().take(110).collect();
            println!("{:55} {check:14} {}", taken[*place].name, message.replace('\n', " "));
        }
        let survived = verdicts.iter().filter(|verdict| verdict.1.is_none());
        let survivors: Vec<_> = survived.map(|verdict| taken[verdict.0].name).collect();
        let (all, killed) = (taken.len(), verdicts.len() - survivors.len());
        let (there, time) = (self.mutants.len(), start.elapsed().as_secs_f64());
        println!("{killed} of {all} killed, of {there} that there are, in {time:.1} s");
        assert_eq!(verdicts.len(), all, "every mutant has a verdict");
        assert!(20 * survivors.len() <= there, "survivors: {survivors:?}");
    }

    /// Runs the checks on a mutant until one fails, the likely ones first.
    fn examine(&self, mutant: &'static Mutant) -> Verdict {
        let applied = Arc::new(AtomicUsize::new(0));
        let count = applied.clone();
        let subject = (self.subject)(Arc::new(move |text: &str| {
            let (text, applied) = mutant.apply(text);
            count.fetch_add(usize::from(applied), Ordering::Relaxed);
            text
        }));
        let likely = |(name, _): &&(&'static str, Check<S>)| mutant.checks.contains(name);
        let there = |name: &&str| self.checks.iter().any(|check| check.0 == *name);
        assert!(mutant.checks.iter().all(there), "{}: no such check", mutant.name);
        let others = self.checks.iter().filter(|check| !mutant.only && !likely(check));
        let checks = self.checks.iter().filter(likely).chain(others);
        let verdict = checks.into_iter().find_map(|(name, check)| Some((*name, check(&subject).err()?)));
        assert!(applied.load(Ordering::Relaxed) > 0, "{}: no shader has this text any more", mutant.name);
        verdict
    }
}

/// The next one of a list that threads share, with its place.
fn take<'a, T>(next: &AtomicUsize, list: &'a [T]) -> Option<(usize, &'a T)> {
    let place = next.fetch_add(1, Ordering::Relaxed);
    list.get(place).map(|one| (place, one))
}

/// Without a device: each fault changes one of the shaders, which still is one, and each has a name of its own.
///
/// # Panics
/// If that is not so.
pub fn every_mutant_changes_some_shader(mutants: &[Mutant], shaders: &[Shader]) {
    let changes = |mutant: &Mutant, text: &str| {
        let (changed, applied) = mutant.apply(text);
        applied && changed != text
    };
    let idle = |mutant: &&Mutant| !shaders.iter().any(|shader| changes(mutant, &shader.text));
    let idle: Vec<_> = mutants.iter().filter(idle).map(|mutant| mutant.name).collect();
    assert!(idle.is_empty(), "no shader has the text of {idle:#?}");
    let is_one = |text: &str| wgpu::naga::front::wgsl::parse_str(text).is_ok();
    let breaks = |mutant: &&Mutant| {
        let mut changed = shaders.iter().filter(|shader| changes(mutant, &shader.text));
        !changed.any(|shader| is_one(&mutant.apply(&shader.text).0))
    };
    let broken: Vec<_> = mutants.iter().filter(breaks).map(|mutant| mutant.name).collect();
    assert!(broken.is_empty(), "faults that no shader can have: {broken:#?}");
    let mut names = HashSet::new();
    let twice: Vec<_> = mutants.iter().filter(|mutant| !names.insert(mutant.name)).collect();
    assert!(twice.is_empty(), "names that come twice: {twice:#?}");
}
