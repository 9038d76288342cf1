use super::*;
use wgpu_attention::{
    And, BigBird, BlockGrid, BlockLayout, BlockMask, Blocks, Causal, Dilated, Document, First, Fixed,
    FixedPart, Full, Global, KeyLengths, Longformer, Mask, Pattern, Permutation, Prefix, Random, Strided,
    StridedPart, Window,
};

const SIZES: [usize; 2] = [130, 200];

fn make(pattern: &str, values: &[(&str, &str)]) -> Result<Made> {
    let values = values.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    let [queries, length] = SIZES.map(|size| size.to_string());
    Choice { pattern: pattern.into(), length, queries, values }.make()
}

fn same(made: &Made, by_hand: &dyn Pattern, line: &str) -> Result<()> {
    let without_spaces = |text: &str| text.split_whitespace().collect::<String>();
    assert_eq!(without_spaces(&made.rust), without_spaces(line));
    let grid = BlockGrid::new(SIZES[0], SIZES[1]);
    let equal = BlockMask::new(&made.pattern, grid)? == BlockMask::new(by_hand, grid)?;
    assert!(equal, "`{line}` is not the pattern of the page");
    Ok(())
}

/// The catalogue's line is this expression, which compiles, and whose pairs are those of the catalogue's pattern.
macro_rules! lines {
    ($($kind:literal $values:tt => $line:expr;)*) => {
        [$(($kind, same(&make($kind, &$values)?, &$line, stringify!($line))?)),*]
    };
}

#[test]
fn every_line_compiles_and_makes_the_same_pairs() -> Result<()> {
    let compared = lines! {
        "full" [] => Full;
        "causal" [] => Causal;
        "causal" [("alignment", "top_left")] => Causal::top_left();
        "window" [("before", "9"), ("after", "2")] => Window { before: 9, after: 2 };
        "dilated" [("before", "40")] => Dilated::new(40, 0, 4)?;
        "strided" [("stride", "11")] => Strided::new(11)?;
        "strided" [("part", "column"), ("causal", "0")] =>
            Strided { stride: 32, part: StridedPart::Column, causal: false };
        "fixed" [("stride", "16"), ("summary", "2")] => Fixed::new(16, 2)?;
        "fixed" [("part", "summary")] => Fixed { stride: 128, summary: 8, part: FixedPart::Summary, causal: true };
        "bigbird" [("block", "8")] => BigBird { block: 8, window: 3, global: 1, random: 2, seed: 7 };
        "random" [("seed", "3")] => Random { block: 64, count: 3, seed: 3 };
        "longformer" [("every", "50")] => Longformer::new(128, (0..200).step_by(50).collect::<Vec<_>>())?;
        "global" [] => Global::new((0..200).step_by(64).collect::<Vec<_>>())?;
        "blocks" [("block", "16")] => Blocks { block: 16, layout: BlockLayout::new([1, 9, 13], (0..117usize).map(|n|
            (n / 13).abs_diff(n % 13) <= 1 || n % 13 % 4 == 0))? };
        "document" [("causal", "0")] => Document::new((0..200).map(|key| key / 192).collect::<Vec<u32>>());
        "document" [("each", "30")] => And(Causal, Document::new((0..200).map(|key| key / 30).collect::<Vec<u32>>()));
        "prefix" [("len", "20")] => Prefix { len: 20 };
        "first" [] => First { count: 4 };
        "permutation" [("step", "13")] => Permutation::new((0..130).map(|n| n * 17 % 130).collect::<Vec<u32>>());
        "permutation" [("stream", "query"), ("given", "5")] =>
            Permutation::new((0..130).map(|n| n * 387 % 130).collect::<Vec<u32>>()).query(true).given(5);
        "key_lengths" [("keys", "150")] => KeyLengths { lengths: vec![150] };
        "mask" [] => Mask::new([1, 1, 1, 200], (0..200).map(|key| key % 4 != 3))?;
        "text" [("text", "causal & !first:count=4")] => AnyPattern::parse("causal & !first:count=4")?;
    };
    for kind in &KINDS {
        assert!(compared.iter().any(|(name, ())| *name == kind.name), "no line of {} is compared", kind.name);
    }
    Ok(())
}

/// The names in the crate's own error are all offered; what combines others is written as text.
#[test]
fn every_pattern_of_the_crate_is_offered() {
    let error = AnyPattern::parse("x").expect_err("no pattern").to_string();
    let (_, known) = error.split_once("called `x`: ").expect("the names");
    let known: Vec<_> = known.split('`').skip(1).step_by(2).collect();
    assert!(known.len() > 15, "{known:?}");
    for name in known.iter().filter(|name| !["and", "or", "not", "x"].contains(name)) {
        assert!(KINDS.iter().any(|kind| kind.name == *name), "{name} is not offered");
    }
}

#[test]
fn what_they_start_with_is_a_pattern() {
    for kind in &KINDS {
        let choice = Choice { pattern: kind.name.into(), length: "1024".into(), ..Default::default() };
        let made = choice.make().unwrap_or_else(|error| panic!("{}: {error}", kind.name));
        let mask = BlockMask::new(&made.pattern, BlockGrid::new(1024, 1024));
        let mask = mask.unwrap_or_else(|error| panic!("{}: {error}", kind.name));
        assert!(mask.kept() > 0, "{} keeps nothing", kind.name);
        assert!(
            made.command().is_some_and(|text| AnyPattern::parse(&text).as_ref() == Ok(&made.pattern))
                || ["blocks", "mask", "document", "permutation", "text", "longformer", "global"]
                    .contains(&kind.name)
        );
    }
}
