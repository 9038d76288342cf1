//! What the suites hold.

use super::*;
use crate::record::Direction;
use crate::scores::SCORES;

#[test]
fn every_case_of_every_suite_is_valid_and_named_once() {
    for suite in [Suite::Quick, Suite::Standard, Suite::Full, Suite::Crossover, Suite::Predictions] {
        let specs = suite.cases();
        let names: std::collections::BTreeSet<_> = specs.iter().map(Spec::name).collect();
        assert_eq!(names.len(), specs.len());
        for spec in &specs {
            let checked = match &spec.work {
                Work::Attention { attention, pattern } | Work::Backward { attention, pattern, .. } => {
                    attention.check().and(pattern.parse().map(drop))
                }
                Work::Lsh { attention, options, .. } => options.check(attention),
                Work::Linear { attention, options, .. } => options.check(attention),
                Work::Linformer { attention, options, .. } => options.check(attention),
                Work::Decode(it) => it.check(),
                Work::Block(it) => it.attention().check().and(it.pattern.parse().map(drop)),
                Work::Matmul(it) => it.check(),
                Work::FeedForward(it) => it.check(),
                Work::Recurrent(it) => it.check(),
                Work::Norm(it) => it.check(),
                Work::Softmax(it) => it.check(),
                Work::Rotary(it) => it.check(),
                Work::Embed(it) => it.check(),
                Work::Add(it) => it.check(),
            };
            checked.unwrap_or_else(|error| panic!("{}: {error}", spec.name()));
            let (kernel, name) = (spec.kernel(), spec.kernel().name());
            assert_eq!(serde_json::to_value(kernel).unwrap(), name, "as the JSON has it");
        }
    }
}

#[test]
fn every_score_is_in_the_standard_suite_and_some_are_in_the_quick_one() {
    let names = |suite: Suite, direction| -> Vec<String> {
        let specs = suite.cases().into_iter().filter(|spec| spec.direction() == direction);
        specs.filter_map(|spec| spec.score_name()).collect()
    };
    let standard = names(Suite::Standard, Direction::Forward);
    for (name, _) in SCORES {
        assert!(standard.iter().any(|it| it == name), "{name}");
    }
    let lens = |part: &str| -> Vec<usize> {
        let specs = Suite::Standard.cases().into_iter().filter(|spec| spec.name().contains(part));
        specs.map(|spec| spec.shape().length()).collect()
    };
    for case in
        ["attention/full+shaw ", "attention/causal+txl ", "attention/window+t5 ", "attention/window+sinks "]
    {
        assert_eq!(lens(case), [1024, 2048, 4096, 8192], "{case}");
    }
    let own = if cfg!(feature = "custom") { 1 } else { 0 };
    assert_eq!(standard.iter().filter(|name| *name == "custom").count(), own);
    // Five of attention over patterns, one of LSH attention.
    assert_eq!(names(Suite::Quick, Direction::Forward).len(), 6 + own);
    assert_eq!(names(Suite::Quick, Direction::Backward), ["alibi", "txl"]);
}

#[test]
fn the_published_workloads_are_in_the_standard_suite() {
    let known: Vec<_> = Suite::Standard.cases().iter().filter_map(|spec| spec.known_as).collect();
    let need = [
        "BERT-base",
        "GPT-2",
        "Llama grouped heads",
        "Sparse Transformer Enwik8",
        "BigBird-base",
        "Reformer",
        "llama.cpp D72",
        "llama.cpp D64",
    ];
    assert_eq!(known, need);
}

#[test]
fn every_subject_of_the_crossover_is_there_at_every_length() {
    let specs = Suite::Crossover.cases();
    let lens: Vec<usize> = (7..=16).map(|power| 1 << power).collect();
    for subject in [
        "attention/full ",
        "attention/causal ",
        "attention/window ",
        "attention/strided ",
        "attention/fixed ",
        "attention/bigbird ",
        "lsh/causal ",
        "linformer ",
        "linear/performer ",
        "linear/performer-causal ",
    ] {
        let of_it = specs.iter().filter(|spec| spec.known_as.is_none() && spec.name().starts_with(subject));
        assert_eq!(of_it.map(|spec| spec.shape().length()).collect::<Vec<_>>(), lens, "{subject}");
    }
    let table: Vec<_> = specs.iter().filter(|spec| spec.known_as.is_some()).map(Spec::name).collect();
    assert_eq!(table.len(), 6);
    assert!(
        table.iter().all(|name| name.contains("n12288") && name.contains("(Sparse Transformer)")),
        "{table:?}"
    );
}

#[test]
fn one_suite_alone_has_a_time() {
    let rules = Suite::Crossover.rules();
    let half = Suite::Crossover.rules_within(120.0).expect("it has");
    assert_eq!(rules.most_call_s.map(|most| most / 2.0), half.most_call_s);
    assert!(half.max_s < rules.max_s && rules.cold_bytes == 0);
    assert!(Suite::Standard.rules_within(120.0).is_none() && Suite::Standard.rules().most_call_s.is_none());
}
