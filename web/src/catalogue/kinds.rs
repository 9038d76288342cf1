//! Each pattern of the crate, with parameters that a slider can move.

use super::{Form, Input, Kind, Made, Values};
use wgpu_attention::pattern::Alignment;
use wgpu_attention::{
    AnyPattern, BigBird, BlockLayout, Blocks, Dilated, Document, Error, First, Fixed, FixedPart, Global,
    KeyLengths, Longformer, Mask, Permutation, Prefix, Random, Result, Strided, StridedPart, Window,
};

/// Blocks on a side of a layout, at most: the cells are written down.
const LAYOUT_SIDE: usize = 2048;

const ALIGNMENTS: [&str; 2] = ["bottom_right", "top_left"];
const STRIDED_PARTS: [(&str, StridedPart); 3] =
    [("both", StridedPart::Both), ("local", StridedPart::Local), ("column", StridedPart::Column)];
const FIXED_PARTS: [(&str, FixedPart); 3] =
    [("both", FixedPart::Both), ("block", FixedPart::Block), ("summary", FixedPart::Summary)];
const STREAMS: [&str; 2] = ["content", "query"];

/// Every pattern that [`AnyPattern`] knows; the last one combines them.
pub(crate) static KINDS: [Kind; 18] = [
    Kind {
        name: "causal",
        title: "Causal",
        says: "Every key up to the query’s own position.",
        source: "",
        inputs: &[choice("alignment", "diagonal ends at", &ALIGNMENTS)],
        make: causal,
    },
    Kind {
        name: "window",
        title: "Sliding window",
        says: "The keys near the query’s own.",
        source: "Child 2019; Beltagy 2020",
        inputs: &[
            number("before", "keys before", "127", 0, None),
            number("after", "keys after", "0", 0, None),
        ],
        make: window,
    },
    Kind {
        name: "dilated",
        title: "Dilated window",
        says: "Every few keys of a window.",
        source: "Beltagy 2020, section 3.1",
        inputs: &[
            number("before", "reach before", "255", 0, None),
            number("after", "reach after", "0", 0, None),
            number("step", "step", "4", 1, Some(64)),
        ],
        make: dilated,
    },
    Kind {
        name: "strided",
        title: "Strided (Sparse Transformer)",
        says: "The last keys, and every key that a multiple of the stride lies before the query.",
        source: "Child 2019, equation 3",
        inputs: &[
            number("stride", "stride", "32", 1, Some(1024)),
            choice("part", "part", &["both", "local", "column"]),
            flag("causal", "causal", "1"),
        ],
        make: strided,
    },
    Kind {
        name: "fixed",
        title: "Fixed (Sparse Transformer)",
        says: "The keys of the query’s own block, and the last keys of every block.",
        source: "Child 2019, equation 4",
        inputs: &[
            number("stride", "keys of a block", "128", 1, Some(1024)),
            number("summary", "of them seen by all", "8", 1, Some(256)),
            choice("part", "part", &["both", "block", "summary"]),
            flag("causal", "causal", "1"),
        ],
        make: fixed,
    },
    Kind {
        name: "bigbird",
        title: "BigBird",
        says: "Blocks near the diagonal, the first blocks, and blocks drawn at random.",
        source: "Zaheer 2020, section 2",
        inputs: &[
            number("block", "keys of a block", "64", 1, Some(256)),
            number("window", "blocks of the window (odd)", "3", 1, Some(31)),
            number("global", "global blocks", "1", 0, Some(16)),
            number("random", "random blocks", "2", 0, Some(16)),
            number("seed", "seed", "7", 0, Some(99)),
        ],
        make: bigbird,
    },
    Kind {
        name: "random",
        title: "Random blocks",
        says: "For each block of queries, blocks of keys drawn at random.",
        source: "Zaheer 2020, section 2",
        inputs: &[
            number("block", "keys of a block", "64", 1, Some(256)),
            number("count", "blocks drawn", "3", 0, Some(16)),
            number("seed", "seed", "7", 0, Some(99)),
        ],
        make: random,
    },
    Kind {
        name: "longformer",
        title: "Longformer",
        says: "A window on both sides, and global tokens that attend all and that all attend.",
        source: "Beltagy 2020, section 3.1",
        inputs: &[
            number("window", "keys of the window", "128", 0, None),
            number("every", "a token every", "256", 1, None),
        ],
        make: longformer,
    },
    Kind {
        name: "global",
        title: "Global tokens",
        says: "Tokens that attend all and that all attend, and nothing else.",
        source: "Beltagy 2020; Zaheer 2020",
        inputs: &[number("every", "a token every", "64", 1, None)],
        make: global,
    },
    Kind {
        name: "blocks",
        title: "Block-sparse layout",
        says: "A layout of blocks: here those near the diagonal, and every few columns.",
        source: "",
        inputs: &[
            number("block", "positions of a block", "64", 1, Some(256)),
            number("band", "blocks beside the diagonal", "1", 0, Some(16)),
            number("every", "a column every", "4", 1, Some(64)),
        ],
        make: blocks,
    },
    Kind {
        name: "document",
        title: "Packed documents",
        says: "The keys of the query’s own document.",
        source: "Krell 2021",
        inputs: &[number("each", "positions of a document", "192", 1, None), flag("causal", "causal", "1")],
        make: document,
    },
    Kind {
        name: "prefix",
        title: "Prefix, then causal",
        says: "A prefix that every query attends, and every key up to the query’s own.",
        source: "Raffel 2019, section 3.2.1",
        inputs: &[number("len", "keys of the prefix", "256", 0, None)],
        make: prefix,
    },
    Kind {
        name: "first",
        title: "First keys (attention sinks)",
        says: "The first keys, for every query.",
        source: "Xiao 2023, section 3.2",
        inputs: &[number("count", "keys", "4", 0, None)],
        make: first,
    },
    Kind {
        name: "permutation",
        title: "Permutation (XLNet)",
        says: "The positions that come before the query’s own in an order of the model’s.",
        source: "Yang 2019, section 2.2",
        inputs: &[
            number("step", "the order goes in steps of", "387", 1, Some(1024)),
            choice("stream", "stream", &STREAMS),
            number("given", "positions given", "0", 0, None),
        ],
        make: permutation,
    },
    Kind {
        name: "key_lengths",
        title: "Padding",
        says: "The first keys of a sequence; the rest is padding.",
        source: "",
        inputs: &[number("keys", "keys that are not padding", "700", 0, None)],
        make: key_lengths,
    },
    Kind {
        name: "mask",
        title: "Mask tensor",
        says: "A tensor of booleans: here one that hides a key every few.",
        source: "",
        inputs: &[number("every", "hides a key every", "4", 1, Some(64))],
        make: mask,
    },
    Kind {
        name: "full",
        title: "Full (dense)",
        says: "Every key.",
        source: "",
        inputs: &[],
        make: |_| Ok(made(AnyPattern::Full {}, "Full")),
    },
    Kind {
        name: "text",
        title: "Combined, as text",
        says: "Any of them, combined by & (and), | (or), ! (not) and parentheses.",
        source: "",
        inputs: &[Input {
            name: "text",
            label: "pattern",
            starts: "first:count=4 & causal | window:before=127",
            form: Form::Text,
        }],
        make: text,
    },
];

const fn number(
    name: &'static str,
    label: &'static str,
    starts: &'static str,
    least: u32,
    most: Option<u32>,
) -> Input {
    Input { name, label, starts, form: Form::Number { least, most } }
}

const fn flag(name: &'static str, label: &'static str, starts: &'static str) -> Input {
    Input { name, label, starts, form: Form::Flag }
}

/// Starts with the first word.
const fn choice(name: &'static str, label: &'static str, of: &'static [&'static str]) -> Input {
    Input { name, label, starts: of[0], form: Form::Choice { of } }
}

fn made(pattern: AnyPattern, rust: impl Into<String>) -> Made {
    Made { pattern, rust: rust.into(), text: None }
}

fn causal(values: &Values<'_>) -> Result<Made> {
    let [bottom_right, top_left] = ALIGNMENTS;
    let meanings = [(bottom_right, Alignment::BottomRight), (top_left, Alignment::TopLeft)];
    let alignment = values.choice("alignment", &meanings)?;
    let rust = if alignment == Alignment::TopLeft { "Causal::top_left()" } else { "Causal" };
    Ok(made(AnyPattern::Causal { alignment }, rust))
}

fn window(values: &Values<'_>) -> Result<Made> {
    let (before, after) = (values.number("before")?, values.number("after")?);
    let rust = format!("Window {{ before: {before}, after: {after} }}");
    Ok(made(AnyPattern::Window(Window { before, after }), rust))
}

fn dilated(values: &Values<'_>) -> Result<Made> {
    let (before, after, step) = (values.number("before")?, values.number("after")?, values.number("step")?);
    let rust = format!("Dilated::new({before}, {after}, {step})?");
    Ok(made(AnyPattern::Dilated(Dilated { before, after, step }), rust))
}

fn strided(values: &Values<'_>) -> Result<Made> {
    let (stride, causal) = (values.number("stride")?, values.flag("causal")?);
    let part = values.choice("part", &STRIDED_PARTS)?;
    let rust = match (part, causal) {
        (StridedPart::Both, true) => format!("Strided::new({stride})?"),
        _ => format!("Strided {{ stride: {stride}, part: StridedPart::{part:?}, causal: {causal} }}"),
    };
    Ok(made(AnyPattern::Strided(Strided { stride, part, causal }), rust))
}

fn fixed(values: &Values<'_>) -> Result<Made> {
    let (stride, summary) = (values.number("stride")?, values.number("summary")?);
    let (part, causal) = (values.choice("part", &FIXED_PARTS)?, values.flag("causal")?);
    let rust = match (part, causal) {
        (FixedPart::Both, true) => format!("Fixed::new({stride}, {summary})?"),
        _ => format!(
            "Fixed {{ stride: {stride}, summary: {summary}, part: FixedPart::{part:?}, causal: {causal} }}"
        ),
    };
    Ok(made(AnyPattern::Fixed(Fixed { stride, summary, part, causal }), rust))
}

fn bigbird(values: &Values<'_>) -> Result<Made> {
    let (block, window) = (values.number("block")?, values.number("window")?);
    let (global, random) = (values.number("global")?, values.number("random")?);
    let seed = values.number("seed")? as u64;
    let rust = format!(
        "BigBird {{ block: {block}, window: {window}, global: {global}, random: {random}, seed: {seed} }}"
    );
    Ok(made(AnyPattern::BigBird(BigBird { block, window, global, random, seed }), rust))
}

fn random(values: &Values<'_>) -> Result<Made> {
    let (block, count) = (values.number("block")?, values.number("count")?);
    let seed = values.number("seed")? as u64;
    let rust = format!("Random {{ block: {block}, count: {count}, seed: {seed} }}");
    Ok(made(AnyPattern::Random(Random { block, count, seed }), rust))
}

/// A token every few positions, and the Rust that says so.
fn tokens(values: &Values<'_>) -> Result<(Vec<usize>, String)> {
    let (len, every) = (values.len, values.positive("every")?);
    Ok(((0..len).step_by(every).collect(), format!("(0..{len}).step_by({every}).collect::<Vec<_>>()")))
}

fn longformer(values: &Values<'_>) -> Result<Made> {
    let (window, (global, tokens)) = (values.number("window")?, tokens(values)?);
    let rust = format!("Longformer::new({window}, {tokens})?");
    Ok(made(AnyPattern::Longformer(Longformer::new(window, global)?), rust))
}

fn global(values: &Values<'_>) -> Result<Made> {
    let (global, tokens) = tokens(values)?;
    Ok(made(AnyPattern::Global(Global::new(global)?), format!("Global::new({tokens})?")))
}

fn blocks(values: &Values<'_>) -> Result<Made> {
    let (block, band, every) = (values.positive("block")?, values.number("band")?, values.positive("every")?);
    let longest = values.len.max(values.queries);
    if longest.div_ceil(block) > LAYOUT_SIDE {
        let need = format!("at least {}, for {LAYOUT_SIDE} blocks on a side", longest.div_ceil(LAYOUT_SIDE));
        return Err(Error::argument("blocks.block", need, block));
    }
    let [rows, columns] = [values.queries, values.len].map(|len| len.div_ceil(block));
    let cells =
        (0..rows * columns).map(|n| (n / columns).abs_diff(n % columns) <= band || n % columns % every == 0);
    let layout = BlockLayout::new([1, rows, columns], cells)?;
    let rust = format!(
        "Blocks {{ block: {block}, layout: BlockLayout::new([1, {rows}, {columns}], (0..{}usize).map(|n| \
         (n / {columns}).abs_diff(n % {columns}) <= {band} || n % {columns} % {every} == 0))? }}",
        rows * columns
    );
    Ok(made(AnyPattern::Blocks(Blocks { block, layout }), rust))
}

fn document(values: &Values<'_>) -> Result<Made> {
    let (len, each, causal) = (values.len, values.positive("each")?, values.flag("causal")?);
    let ids: Vec<u32> = (0..len).map(|key| (key / each) as u32).collect();
    let documents = AnyPattern::Document(Document::new(ids));
    let rust = format!("Document::new((0..{len}).map(|key| key / {each}).collect::<Vec<u32>>())");
    if !causal {
        return Ok(made(documents, rust));
    }
    let both = vec![AnyPattern::Causal { alignment: Alignment::BottomRight }, documents];
    Ok(made(AnyPattern::And { of: both }, format!("And(Causal, {rust})")))
}

fn prefix(values: &Values<'_>) -> Result<Made> {
    let len = values.number("len")?;
    Ok(made(AnyPattern::Prefix(Prefix { len }), format!("Prefix {{ len: {len} }}")))
}

fn first(values: &Values<'_>) -> Result<Made> {
    let count = values.number("count")?;
    Ok(made(AnyPattern::First(First { count }), format!("First {{ count: {count} }}")))
}

/// Steps around the sequence. A step that has a divisor in common with the length would not come to every position: the next that has
/// none is taken.
fn permutation(values: &Values<'_>) -> Result<Made> {
    let (len, given) = (values.len.min(values.queries), values.number("given")?);
    let step = (values.positive("step")?..=u32::MAX as usize)
        .find(|step| common_divisor(*step, len) == 1)
        .unwrap_or(1);
    // The line counts in u32.
    if (len as u64 - 1) * step as u64 > u32::MAX.into() {
        let need = format!("at most {}", u32::MAX as usize / len);
        return Err(Error::argument("permutation.step", need, step));
    }
    let [content, query] = STREAMS;
    let query = values.choice("stream", &[(content, false), (query, true)])?;
    let order: Vec<u32> = (0..len as u32).map(|n| n * step as u32 % len as u32).collect();
    let pattern = AnyPattern::Permutation(Permutation::new(order).query(query).given(given));
    let mut rust = format!("Permutation::new((0..{len}).map(|n| n * {step} % {len}).collect::<Vec<u32>>())");
    if query {
        rust += ".query(true)";
    }
    if given > 0 {
        rust += &format!(".given({given})");
    }
    Ok(made(pattern, rust))
}

fn common_divisor(a: usize, b: usize) -> usize {
    if b == 0 { a } else { common_divisor(b, a % b) }
}

fn key_lengths(values: &Values<'_>) -> Result<Made> {
    let keys = values.number("keys")?;
    let pattern = AnyPattern::KeyLengths(KeyLengths { lengths: vec![keys] });
    Ok(made(pattern, format!("KeyLengths {{ lengths: vec![{keys}] }}")))
}

fn mask(values: &Values<'_>) -> Result<Made> {
    let (len, every) = (values.len, values.positive("every")?);
    let shown = (0..len).map(|key| key % every != every - 1);
    let rust = format!("Mask::new([1, 1, 1, {len}], (0..{len}).map(|key| key % {every} != {}))?", every - 1);
    Ok(made(AnyPattern::Mask(Mask::new([1, 1, 1, len], shown)?), rust))
}

fn text(values: &Values<'_>) -> Result<Made> {
    let text = values.text("text");
    let rust = format!("AnyPattern::parse({text:?})?");
    Ok(Made { pattern: AnyPattern::parse(text)?, rust, text: Some(text.into()) })
}
