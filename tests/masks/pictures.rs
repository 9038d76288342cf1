//! Pictures.

use wgpu_attention::mask::{BlockGrid, BlockMask};
use wgpu_attention::{
    And, BlockLayout, Blocks, Causal, Document, First, Full, Mask, Not, Or, Pattern, Permutation, Predicate,
    Prefix, Site, Window,
};

fn picture(pattern: &dyn Pattern, q_len: usize, kv_len: usize) -> String {
    let mask = BlockMask::new(pattern, BlockGrid::new(q_len, kv_len)).expect("it builds");
    mask.pairs(0, 0).trim_end().replace('\n', " ")
}

/// The pictures of the documentation, for Lq = Lk, Lq < Lk, Lq > Lk.
#[test]
fn pictures() {
    let three = |pattern: &dyn Pattern| [(4, 4), (3, 5), (4, 3)].map(|(q, k)| picture(pattern, q, k));
    assert_eq!(three(&Full), ["████ ████ ████ ████", "█████ █████ █████", "███ ███ ███ ███"]);
    assert_eq!(three(&Causal), ["█··· ██·· ███· ████", "███·· ████· █████", "··· █·· ██· ███"]);
    assert_eq!(three(&Causal::top_left()), ["█··· ██·· ███· ████", "█···· ██··· ███··", "█·· ██· ███ ███"]);
    assert_eq!(
        three(&Window { before: 1, after: 0 }),
        ["█··· ██·· ·██· ··██", "·██·· ··██· ···██", "··· █·· ██· ·██"]
    );
    assert_eq!(three(&Prefix { len: 2 }), ["██·· ██·· ███· ████", "███·· ████· █████", "██· ██· ██· ███"]);
    assert_eq!(three(&First { count: 2 }), ["██·· ██·· ██·· ██··", "██··· ██··· ██···", "██· ██· ██· ██·"]);
    // Attention sinks; a prefix in their place would be plain causal.
    let window = Window { before: 0, after: 0 };
    let sinks = |first: &dyn Pattern| picture(&Or(And(first, Causal), window), 4, 4);
    assert_eq!(sinks(&First { count: 1 }), "█··· ██·· █·█· █··█");
    assert_eq!(sinks(&Prefix { len: 1 }), picture(&Causal, 4, 4));
    assert_eq!(
        three(&And(Causal, Window { before: 1, after: 1 })),
        ["█··· ██·· ·██· ··██", "·██·· ··██· ···██", "··· █·· ██· ·██"]
    );
    assert_eq!(
        three(&Or(Causal, Window { before: 0, after: 1 })),
        ["██·· ███· ████ ████", "████· █████ █████", "█·· ██· ███ ███"]
    );
    assert_eq!(three(&Not(Causal)), ["·███ ··██ ···█ ····", "···██ ····█ ·····", "███ ·██ ··█ ···"]);
    let document = Document::new([0, 0, 1, 1, 1]);
    assert_eq!(picture(&document, 5, 5), "██··· ██··· ··███ ··███ ··███");
    assert_eq!(picture(&document, 2, 5), "··███ ··███");
    assert_eq!(picture(&document, 6, 5), "····· ██··· ██··· ··███ ··███ ··███");
    let permutation = Permutation::new([2, 0, 3, 1]);
    assert_eq!(picture(&permutation, 4, 4), "█·█· ████ ··█· █·██");
    assert_eq!(picture(&permutation, 4, 6), "███·█· ██████ ██··█· ███·██");
    assert_eq!(picture(&permutation, 6, 4), "···· ···· █·█· ████ ··█· █·██");
    let query = permutation.query(true);
    assert_eq!(picture(&query, 4, 4), "··█· █·██ ···· █·█·");
    // Of what is given, nothing is predicted: all attend it, and it itself.
    assert_eq!(picture(&query.clone().given(2), 4, 4), "█·█· █·██ █·█· █·█·");
    let layout = BlockLayout::new([1, 2, 3], [true, false, false, false, true, true]).expect("sizes fit");
    assert_eq!(picture(&Blocks { block: 2, layout }, 4, 6), "██···· ██···· ··████ ··████");
    let keys = Mask::new([1, 1, 1, 4], [true, false, true, true]).expect("sizes fit");
    assert_eq!(picture(&keys, 3, 4), "█·██ █·██ █·██");
}

/// Ends as large as a number holds are ends that are not there.
#[test]
fn endless_windows() {
    for (q_len, kv_len) in [(70, 70), (40, 90), (90, 40)] {
        let mask = |pattern: &dyn Pattern| {
            let grid = BlockGrid::new(q_len, kv_len).blocks(16, 16);
            assert_eq!(BlockMask::new(pattern, grid), BlockMask::scan(pattern, grid));
            BlockMask::new(pattern, grid).expect("it builds")
        };
        for end in [kv_len + q_len, 1 << 30, isize::MAX as usize, isize::MAX as usize + 1, usize::MAX] {
            assert_eq!(mask(&Window { before: end, after: 0 }), mask(&Causal), "{end}");
            assert_eq!(mask(&Window { before: end, after: end }), mask(&Full), "{end}");
            assert_eq!(mask(&Prefix { len: end }), mask(&Full), "{end}");
            let later = mask(&Window { before: 0, after: end });
            assert_eq!(later, mask(&Or(Not(Causal), Window { before: 0, after: 0 })), "{end}");
        }
    }
}

#[test]
fn drawing_by_block() {
    let mask = BlockMask::new(&Causal, BlockGrid::new(200, 300)).expect("it builds");
    assert_eq!(
        mask.to_string(),
        "\
[1, 1, 200, 300] in blocks of 64 x 64: 40100 pairs kept, 69632 visited (x 1.74), 1708 bytes
█ full  ▒ partial  · empty
█▒▒··
██▒▒·
███▒▒
████▒
"
    );
}

#[test]
fn drawing_of_heads_that_differ() {
    let pattern = Predicate::new(|site: &Site, i, j| site.head < 5 && (i + site.head * 16) / 32 == j / 32);
    let mask = BlockMask::new(&pattern, BlockGrid::new(64, 64).heads(6).blocks(32, 32)).expect("it builds");
    let text = mask.to_string();
    assert_eq!(
        text.lines().skip(1).collect::<Vec<_>>().join("\n"),
        "\
batch item 0, head 0: █ full  ▒ partial  · empty
█·
·█
batch item 0, head 1: █ full  ▒ partial  · empty
▒▒
·▒
batch item 0, head 2: █ full  ▒ partial  · empty
·█
··
batch item 0, head 3: █ full  ▒ partial  · empty
·▒
··
and 2 more"
    );
}

/// A large mask is drawn in cells of several blocks and fits a terminal, in time that follows the runs.
#[test]
fn drawing_of_a_large_mask() {
    let n = 1 << 20;
    let mask =
        BlockMask::new(&Window { before: 200_000, after: 0 }, BlockGrid::new(n, n)).expect("it builds");
    let text = mask.to_string();
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[1].ends_with("(a cell is 228 x 228 blocks)"), "{}", lines[1]);
    assert_eq!(lines.len(), 2 + 72);
    assert!(lines[2..].iter().all(|line| line.chars().count() == 72));
    assert_eq!(lines[2].trim_end_matches('·'), "▒");
    assert_eq!(lines[42].trim_matches('·'), "▒▒████████████▒");
}

#[test]
fn svg_by_pair_and_by_block() {
    let small = BlockMask::new(&Causal, BlockGrid::new(20, 20).blocks(16, 16)).expect("it builds");
    let svg = small.to_svg("causal <&> \"20\"");
    assert!(svg.starts_with("<svg xmlns=") && svg.ends_with("</svg>\n"));
    assert!(svg.contains("<title>causal &lt;&amp;&gt; &quot;20&quot;</title>"));
    assert!(
        svg.contains("visited, not kept")
            && svg.contains("20 queries (down) x 20 keys (across), 52.5 % of the pairs kept")
    );
    // The first query keeps one key of the partial block, the last but one all 16 of the full one.
    assert!(svg.contains("d=\"M0 0h1v1h-1z") && svg.contains("M0 18h16v1h-16z"));
    let large = BlockMask::new(&Causal, BlockGrid::new(1 << 16, 1 << 16)).expect("it builds");
    let svg = large.to_svg("causal");
    assert!(
        svg.contains("a cell: 512 x 512")
            && svg.contains("M0 127h127v1h-127z")
            && !svg.contains("visited, not kept")
    );
    assert!(svg.len() < 20_000, "{}", svg.len());
    // Nothing outside of the file is named but the format itself.
    assert_eq!(svg.matches("http").count(), 1);
    let empty = BlockMask::new(&Full, BlockGrid::new(0, 4)).expect("empty is valid");
    assert!(empty.to_svg("empty").contains("0 queries"));
}
