//! Names of cases.

use super::*;

#[test]
fn every_pattern_parses_at_every_length() {
    for (name, of_len) in PATTERNS {
        for len in [512, 1024, 12_288] {
            AnyPattern::parse(&of_len(len)).unwrap_or_else(|error| panic!("{name} at {len}: {error}"));
        }
    }
    assert!(QUADRATIC.iter().all(|name| pattern(name, 512).is_some()) && pattern("helix", 512).is_none());
}

#[test]
fn names_tell_sizes_apart() {
    let name = |shape: AttentionShape| {
        let work = Work::Attention { attention: shape.into(), pattern: pattern("causal", 512).unwrap() };
        Spec { known_as: Some("Example"), work, lanes: Lanes::Planned }.name()
    };
    let shape = AttentionShape::new(1, 8, 512, 64);
    assert_eq!(name(shape), "attention/causal f32 b1 h8 n512 d64 (Example)");
    assert_eq!(name(shape.kv_heads(2).q_len(1)), "attention/causal f32 b1 h8/2 q1 k512 d64 (Example)");
}

#[test]
fn names_tell_directions_apart() {
    let attention: Attention = AttentionShape::new(1, 1, 512, 64).into();
    let named = |work| Spec { known_as: None, work, lanes: Lanes::Planned }.name();
    let lsh = |direction| {
        let options = LshOptions::new(2, 16, 64).causal(true);
        named(Work::Lsh { attention: attention.clone(), options, direction })
    };
    assert_eq!(lsh(Direction::Forward), "lsh/causal f32 b1 h1 n512 d64 rounds2 chunk64");
    assert_eq!(lsh(Direction::Backward), "backward/lsh/causal f32 b1 h1 n512 d64 rounds2 chunk64");
    assert_eq!(lsh(Direction::Both), "both/lsh/causal f32 b1 h1 n512 d64 rounds2 chunk64");
    let (options, direction) = (LinearOptions::new(FeatureMap::favor(32)), Direction::Backward);
    let linear = Work::Linear { attention: attention.clone(), options, direction };
    assert_eq!(named(linear), "backward/linear/performer f32 b1 h1 n512 d64 m32");
    let linformer = Work::Linformer { attention, options: LinformerOptions::new(512, 32), direction };
    assert_eq!(named(linformer), "backward/linformer f32 b1 h1 n512 d64 k32");
}

#[test]
fn names_and_filters_know_scores() {
    let shape = AttentionShape::new(1, 1, 512, 64);
    let with = |name: &str| shape.score(scores::score(name, &shape).expect("a score"));
    let pattern = || pattern("causal", 512).unwrap();
    let spec = |work| Spec { known_as: None, work, lanes: Lanes::Planned };
    let forward = spec(Work::Attention { attention: with("txl"), pattern: pattern() });
    assert_eq!(forward.name(), "attention/causal+txl f32 b1 h1 n512 d64");
    assert_eq!(forward.score_text().as_deref(), Some("relative:first_distance=511,rows=512,u=true,w=true"));
    assert!(["+txl", "causal+txl f32", "relative:first", "u=true"].iter().all(|it| forward.matches(it)));
    assert!(!forward.matches("music") && !forward.matches("causal f32"));
    let backward = |wanted| spec(Work::Backward { attention: with("alibi"), pattern: pattern(), wanted });
    let queries = Spec { lanes: Lanes::Staged, ..backward(Wanted::Queries) };
    assert_eq!(queries.name(), "backward-dq/causal+alibi f32 b1 h1 n512 d64 staged");
    let backward = backward(Wanted::All);
    assert_eq!(backward.name(), "backward/causal+alibi f32 b1 h1 n512 d64");
    let plain = spec(Work::Attention { attention: shape.into(), pattern: pattern() });
    assert!(plain.score_text().is_none() && plain.score_name().is_none() && !plain.matches("plain"));
    assert!(plain.matches("causal f32"));
}
