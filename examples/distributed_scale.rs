//! What attention over 8 to 4,096 ranks costs, computed before there is a machine: the table and the picture of
//! docs/distributed_scale.md. Prints the table, and draws the picture:
//!
//! ```text
//! cargo run --example distributed_scale -- docs/distributed_scale.svg
//! ```
//!
//! 8 heads of 128 in f16, blocks of 64; each rank computes 100 TFLOP/s, any two exchange 100 GB/s with 2 us per message.

#![allow(dead_code)] // A test makes both, too.

#[path = "plot/mod.rs"]
mod plot;

use plot::{Error, Plot};
use wgpu_attention::ranks::{Assignment, Cost, Machine, Pass, Travel};
use wgpu_attention::{
    AttentionShape, BigBird, BlockGrid, BlockMask, Causal, ElementType, First, Full, Global, Or, Pattern,
    Storage, Window,
};

const LENS: [(usize, &str); 2] = [(1 << 20, "1M"), (1 << 24, "16M")];
const RANKS: [usize; 4] = [8, 64, 512, 4096];
const BLOCK: usize = 64;

fn main() -> Result<(), Error> {
    let lines = lines(&LENS)?;
    print!("{}", table(&lines));
    plot::command("distributed_scale", || picture(&lines))
}

/// The table that docs/distributed_scale.md has to hold, and the picture that docs/distributed_scale.svg has to be.
pub(crate) fn pages() -> Result<(String, String), Error> {
    let lines = lines(&LENS)?;
    Ok((table(&lines), picture(&lines)?))
}

/// The lines of that table for the shorter length, which take a sixteenth of the time.
pub(crate) fn lines_of_the_shorter() -> Result<Vec<String>, Error> {
    Ok(lines(&LENS[..1])?.iter().map(row).collect())
}

/// One line of the table.
struct Line {
    pattern: &'static str,
    rows: &'static str,
    len: &'static str,
    ranks: usize,
    cost: Cost,
}

type Spread = fn(usize, usize, usize) -> wgpu_attention::Result<Assignment>;

/// A pattern, whether its heads draw alike, what travels, and the ways to hold its rows.
struct Subject {
    name: &'static str,
    pattern: Box<dyn Pattern>,
    alike: bool,
    travel: Travel,
    spreads: &'static [(&'static str, Spread)],
}

const CONTIGUOUS: (&str, Spread) = ("contiguous", Assignment::contiguous);
const ZIG_ZAG: (&str, Spread) = ("zig-zag", Assignment::zig_zag);

fn subjects() -> Vec<Subject> {
    let window = Window { before: 1023, after: 0 };
    let global = Global { tokens: (0..2 * BLOCK).collect() };
    let bigbird = |block, global| BigBird { block, window: 3, global, random: 3, seed: 7 };
    let one = |name, pattern| Subject {
        name,
        pattern,
        alike: false,
        travel: Travel::Shared,
        spreads: &[CONTIGUOUS],
    };
    let alike = |name, pattern| Subject { alike: true, ..one(name, pattern) };
    vec![
        one("full", Box::new(Full)),
        Subject { spreads: &[ZIG_ZAG, CONTIGUOUS], ..one("causal", Box::new(Causal)) },
        one("window", Box::new(window)),
        one("window, first keys", Box::new(Or(window, First { count: 2 * BLOCK }))),
        one("window, global rows", Box::new(Or(window, global))),
        one("window, random blocks", Box::new(bigbird(BLOCK, 0))),
        alike("the same blocks in all heads", Box::new(bigbird(BLOCK, 0))),
        one("BigBird", Box::new(bigbird(BLOCK, 2))),
        Subject { travel: Travel::Needed, ..one("BigBird, nothing shared", Box::new(bigbird(BLOCK, 2))) },
        alike("BigBird of 1,024, heads alike", Box::new(bigbird(1024, 1))),
    ]
}

fn lines(lens: &[(usize, &'static str)]) -> Result<Vec<Line>, Error> {
    let machine = Machine::new(100e12, 100e9, 2e-6);
    let mut lines = vec![];
    for Subject { name, pattern, alike, travel, spreads } in subjects() {
        for &(len, named) in lens {
            // Heads draw apart, batch items do not: all else about them is the same.
            let [batch, heads] = if alike { [8, 1] } else { [1, 8] };
            let call = AttentionShape::new(batch, heads, len, 128).storage(Storage::all(ElementType::F16));
            let mask = BlockMask::new(&pattern, BlockGrid::from(&call.shape).blocks(BLOCK, BLOCK))?;
            for &(rows, spread) in spreads {
                for ranks in RANKS {
                    let assignment = spread(len, BLOCK, ranks)?;
                    let cost = Cost::new(&call, &mask, [&assignment; 2], travel, machine)?;
                    lines.push(Line { pattern: name, rows, len: named, ranks, cost });
                }
            }
        }
    }
    Ok(lines)
}

fn table(lines: &[Line]) -> String {
    let head = "| pattern | rows | n | ranks | forward | efficiency | of backward | most pairs / mean | most received | most messages | memory |\n";
    let rule = "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n";
    head.to_owned() + rule + &lines.iter().map(row).collect::<String>()
}

fn row(Line { pattern, rows, len, ranks, cost }: &Line) -> String {
    let most = |of: fn(&wgpu_attention::ranks::PassCost) -> u64| {
        cost.ranks.iter().map(|rank| of(&rank.forward)).max().unwrap_or(0)
    };
    let messages = most(|pass| pass.received_messages.max(pass.sent_messages));
    let [received, memory] = [most(|pass| pass.received_bytes), most(|pass| pass.memory_bytes)]
        .map(|bytes| format!("{:.1}", bytes as f64 / 1e6));
    format!(
        "| {pattern} | {rows} | {len} | {ranks} | {} | {} | {} | {:.2} | {received} MB | {messages} | {memory} MB |\n",
        seconds(cost.time_s(Pass::Forward)),
        percent(cost.efficiency(Pass::Forward)),
        percent(cost.efficiency(Pass::Backward)),
        cost.imbalance(),
    )
}

fn seconds(time: f64) -> String {
    match time {
        time if time < 1e-3 => format!("{:.1} us", time * 1e6),
        time if time < 1.0 => format!("{:.2} ms", time * 1e3),
        time => format!("{time:.2} s"),
    }
}

fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

fn picture(lines: &[Line]) -> Result<String, Error> {
    let named = [
        ("causal", "zig-zag", "1M"),
        ("causal", "contiguous", "1M"),
        ("window", "contiguous", "16M"),
        ("window", "contiguous", "1M"),
        ("window, global rows", "contiguous", "16M"),
        ("BigBird of 1,024, heads alike", "contiguous", "16M"),
        ("BigBird", "contiguous", "16M"),
    ];
    let curve = |(pattern, rows, len): (&str, &str, &str)| {
        let points = lines.iter().filter(|line| (line.pattern, line.rows, line.len) == (pattern, rows, len));
        let points = points.map(|line| (line.ranks as f64, line.cost.efficiency(Pass::Forward))).collect();
        // What fits beside the end of a curve.
        let name = match pattern {
            "causal" => rows,
            "BigBird of 1,024, heads alike" => "of 1,024",
            _ => pattern.trim_start_matches("window, "),
        };
        (format!("{name}, {len}"), points)
    };
    Plot {
        title: "Ranks: causal, window, with global rows, BigBird of 64 and of 1,024 (100 TFLOP/s, 100 GB/s)"
            .into(),
        x: "ranks".into(),
        y: "arithmetic / (ranks x time)".into(),
        top: 1.0,
        curves: named.map(curve).into(),
    }
    .svg()
}
