//! The picture from which rounds and buckets are chosen.

#[path = "../../examples/lsh_recall.rs"]
mod lsh_recall;

#[test]
fn the_picture_shows_what_is_computed() {
    let drawn = lsh_recall::svg().unwrap();
    let stored = include_str!("../../docs/lsh_recall.svg");
    assert!(
        drawn == stored,
        "`cargo run --example lsh_recall -- docs/lsh_recall.svg`, and look at the change"
    );
}

#[test]
fn more_rounds_find_more_keys() {
    for curve in lsh_recall::curves().unwrap() {
        assert!(curve.is_sorted_by(|a, b| a.1 < b.1), "{curve:?}");
        // Chance is 128 of 2,048 keys.
        assert!(curve[0].1 > 4.0 * 128.0 / 2048.0 && curve[4].1 <= 1.0, "{curve:?}");
    }
}
