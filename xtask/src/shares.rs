//! Which tests of the longest programs a run has.
//!
//! What these programs wait for is a compiler, once for each pipeline that a test asks for, and most of their tests ask for kernels under
//! one option more. So of the tests that are named here a run has some, drawn anew (`turns.rs`). Every run has the others, among them
//! those that take each kernel and each type of tensors through bound, count and gather. A quick run has a third of both, a long run has
//! all, and whoever names tests to cargo has those.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};

use crate::length::Length;
use crate::{steps, turns};

/// A program of which a run has some tests.
#[derive(Debug)]
pub(crate) struct Share {
    program: &'static str,
    /// The package's folder: there are programs of one name.
    folder: &'static str,
    /// Tests, and modules of tests, of which a run has some; where none is named, all of them.
    by_turns: &'static [&'static str],
    /// Those among them that every run has all the same.
    every_run: &'static [&'static str],
    /// Of the others, one in so many.
    one_in: usize,
}

/// How many times fewer tests a quick run has.
const QUICK: usize = 3;

/// All of them.
const SHARES: [Share; 15] = [
    Share {
        program: "kernels",
        folder: "",
        by_turns: &[],
        every_run: &[
            "cooperative::every_pattern_counts_its_own_pairs",
            "dropout::every_pattern",
            "few_queries::each_pair_counts_once",
            "few_queries::rows_are_within_the_bound",
            "harness",
            "merging::parts_lose_and_add_no_key",
            "merging::parts_merge_within_the_bound",
            "relative::every_pattern",
            "segments::every_pattern",
            "sets",
            "sizes::every_dimension_in_bf16",
            "sizes::every_dimension_in_f16",
            "sizes::every_dimension_in_f32",
            "strange::under_every_pattern_and_tile",
            "weights::every_pattern",
        ],
        one_in: 8,
    },
    Share {
        program: "lsh",
        folder: "",
        by_turns: &["attention", "gradients", "mutants", "positions", "properties", "terms"],
        every_run: &[
            "attention::element_types",
            "gradients::close::element_types",
            "gradients::close::kinds_of_inputs",
            "gradients::counts",
            "gradients::mutants::the_checks_find_the_faults",
            "mutants::the_checks_find_the_faults",
            "positions::counts",
            "positions::the_key_that_is_nearest",
        ],
        one_in: 10,
    },
    Share {
        program: "backward",
        folder: "",
        by_turns: &["dropout", "gradients", "mutants", "relative", "tensors"],
        every_run: &[
            "dropout::every_pattern",
            "gradients::element_types",
            "gradients::every_pattern",
            "gradients::plain",
            "mutants::the_checks_kill_the_mutants",
        ],
        one_in: 8,
    },
    Share {
        program: "cli",
        folder: "cli",
        by_turns: &[
            "answers::adapters_are_described",
            "bench",
            "biases",
            "demo",
            "faults",
            "features",
            "generate",
            "gpu_script",
            "lsh",
            "ranks",
            "scores",
            "verdicts",
            "verify::golden_cases_pass_in_16_bits",
            "verify::the_line_that_reproduces_does",
        ],
        every_run: &[],
        one_in: 8,
    },
    Share {
        program: "layer",
        folder: "",
        by_turns: &["cooperative", "matmul", "reversible"],
        every_run: &[
            "cooperative::every_size_is_within_the_bound",
            "matmul::every_element_type_is_within_the_bound",
            "matmul::every_size_is_within_the_bound",
        ],
        one_in: 4,
    },
    Share {
        program: "linear",
        folder: "",
        by_turns: &["gradients", "linformer", "mutants"],
        every_run: &[
            "gradients::every_map_is_within_its_bound",
            "linformer::every_option_is_within_its_bound",
        ],
        one_in: 3,
    },
    Share {
        program: "heads",
        folder: "",
        by_turns: &["backward", "mutants::the_checks_pass_without_faults"],
        every_run: &["backward::gradients_in_16_bits"],
        one_in: 3,
    },
    Share {
        program: "integers",
        folder: "",
        by_turns: &["weights"],
        every_run: &["weights::every_format_is_within_the_bound"],
        one_in: 3,
    },
    Share {
        program: "decode",
        folder: "",
        by_turns: &["latent", "own_keys", "rotary"],
        every_run: &[],
        one_in: 3,
    },
    Share {
        program: "generation",
        folder: "",
        by_turns: &["bands", "counted", "integers"],
        every_run: &[],
        one_in: 3,
    },
    Share {
        program: "robustness",
        folder: "",
        by_turns: &[
            "device::out_of_memory_is_an_error_that_says_how_much",
            "limits",
            "many::ten_thousand_calls_in_constant_memory",
            "time::dispatches_of_a_calibrated_device_are_short",
        ],
        every_run: &[],
        one_in: 3,
    },
    Share {
        program: "mutants",
        folder: "",
        by_turns: &["the_checks_pass_on_the_shaders_as_they_are"],
        every_run: &[],
        one_in: 3,
    },
    Share { program: "tune", folder: "", by_turns: &[], every_run: &[], one_in: 3 },
    Share {
        program: "ranks",
        folder: "crates/ranks",
        by_turns: &["common", "cost"],
        every_run: &[],
        one_in: 3,
    },
    Share {
        program: "wgpu_attention_bench",
        folder: "crates/bench",
        by_turns: &["tests::every_kernel_verifies", "tests::every_score_verifies"],
        every_run: &[],
        one_in: 3,
    },
];

/// The tests of a program that a run has, and those that it leaves to others.
#[derive(Debug, PartialEq)]
pub(crate) struct Drawn {
    pub(crate) taken: Vec<String>,
    pub(crate) left: Vec<String>,
}

impl Share {
    /// Of a program, where a run of this length does not have all.
    pub(crate) fn of(program: &str, folder: &Path, length: Length) -> Option<&'static Self> {
        let is_of = |share: &&Self| share.program == program && folder == share.folder();
        SHARES.iter().find(is_of).filter(|_| length != Length::Long)
    }

    fn folder(&self) -> PathBuf {
        if self.folder.is_empty() { steps::root() } else { steps::root().join(self.folder) }
    }

    /// Draws from all tests of the program.
    pub(crate) fn draw(&self, tests: Vec<String>, length: Length) -> Result<Drawn> {
        for name in self.by_turns.iter().chain(self.every_run) {
            ensure!(
                tests.iter().any(|test| is_or_is_in(test, name)),
                "{}: xtask/src/shares.rs names `{name}`, but there is no such test",
                self.program
            );
        }
        let (by_turns, others): (Vec<_>, Vec<_>) = tests.iter().partition(|test| self.takes_turns(test));
        let few = match length {
            Length::Long => [1, 1],
            Length::Usual => [1, self.one_in],
            Length::Quick => [QUICK, QUICK * self.one_in],
        };
        let mut taken = HashSet::new();
        for (group, few) in [others, by_turns].iter().zip(few) {
            // What is left of a division has its turn, too.
            let many = (group.len() + turns::drawn(few)) / few;
            taken.extend(turns::some(many, group.len()).into_iter().map(|place| group[place].clone()));
        }
        let (taken, left) = tests.into_iter().partition(|test| taken.contains(test));
        Ok(Drawn { taken, left })
    }

    fn takes_turns(&self, test: &str) -> bool {
        let among = |names: &[&str]| names.iter().any(|name| is_or_is_in(test, name));
        (self.by_turns.is_empty() || among(self.by_turns)) && !among(self.every_run)
    }

    /// A program of which a run has a share of all tests.
    #[cfg(test)]
    pub(crate) fn some_program() -> (PathBuf, &'static str) {
        let of_all = |share: &&Self| share.by_turns.is_empty() && share.every_run.is_empty();
        let share = SHARES.iter().find(of_all).expect("there are some");
        (share.folder(), share.program)
    }
}

/// Whether a test has this name, or is in the module of this name.
fn is_or_is_in(test: &str, name: &str) -> bool {
    test.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARE: Share =
        Share { program: "it", folder: "", by_turns: &["a", "b::one"], every_run: &["a::two"], one_in: 4 };

    fn tests() -> Vec<String> {
        let others = ["ab::one", "b::one", "b::one_more", "b::two", "a::two"];
        let by_turns = (0..10).map(|n| format!("a::n{n}"));
        others.into_iter().map(String::from).chain(by_turns).collect()
    }

    #[test]
    fn of_what_takes_turns_a_run_has_some_and_of_the_others_all() {
        let mut seen = HashSet::new();
        for _ in 0..300 {
            let Drawn { taken, left } = SHARE.draw(tests(), Length::Usual).unwrap();
            // Of 11 that take turns a quarter, and the 4 others.
            assert!(taken.len() == 4 + 2 || taken.len() == 4 + 3, "{taken:?}");
            let always = ["ab::one", "b::one_more", "b::two", "a::two"];
            assert!(always.iter().all(|name| taken.iter().any(|it| it == name)), "{taken:?}");
            // Nothing is lost between them, and the order is that of the program.
            let place = |test: &String| tests().iter().position(|it| it == test).unwrap();
            assert!(taken.is_sorted_by_key(place) && left.is_sorted_by_key(place));
            let both: HashSet<_> = taken.iter().chain(&left).cloned().collect();
            assert_eq!((both.len(), taken.len() + left.len()), (tests().len(), tests().len()));
            seen.extend(taken);
        }
        assert_eq!(seen.len(), tests().len(), "each has its turn");
    }

    #[test]
    fn a_quick_run_has_fewer_and_a_long_one_all() {
        let quick = SHARE.draw(tests(), Length::Quick).unwrap();
        assert!((1..=3).contains(&quick.taken.len()), "{quick:?}");
        let long = SHARE.draw(tests(), Length::Long).unwrap();
        assert_eq!(long, Drawn { taken: tests(), left: vec![] });
        for share in &SHARES {
            let of = |folder: &Path, length| Share::of(share.program, folder, length).map(|it| it.one_in);
            assert_eq!(of(&share.folder(), Length::Long), None, "{}", share.program);
            assert_eq!(of(&share.folder(), Length::Usual), Some(share.one_in));
            assert_eq!(of(&share.folder().join("elsewhere"), Length::Usual), None);
        }
    }

    #[test]
    fn a_name_without_a_test_is_an_error() {
        let renamed = tests().into_iter().filter(|test| test != "b::one").collect();
        let error = SHARE.draw(renamed, Length::Usual).unwrap_err().to_string();
        assert!(error.contains("it: xtask/src/shares.rs names `b::one`"), "{error}");
    }

    #[test]
    fn programs_and_names_come_once() {
        for (n, share) in SHARES.iter().enumerate() {
            assert!(SHARES[..n].iter().all(|other| other.program != share.program), "{}", share.program);
            assert!(share.folder().is_dir(), "{}", share.program);
            for names in [share.by_turns, share.every_run] {
                for (n, name) in names.iter().enumerate() {
                    let mut others = names.iter().enumerate().filter(|(m, _)| *m != n);
                    assert!(others.all(|(_, other)| !is_or_is_in(name, other)), "{name}");
                }
            }
            // What every run has is among what would take turns.
            let among = |name: &&str| share.by_turns.iter().any(|it| is_or_is_in(name, it));
            assert!(share.by_turns.is_empty() || share.every_run.iter().all(among), "{}", share.program);
        }
    }
}
