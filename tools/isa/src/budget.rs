//! What a kernel may not fall short of, in committed files, one per GPU: speed cannot quietly rot.
//!
//! A line: most registers, most spills, least occupancy, least percent of fma in the hot loops, least matrix products in them, and
//! the shader's label.

use anyhow::{Context, Result, bail, ensure};

use crate::Statistics;
use crate::assembly::Compiler;

/// What a shader may take, and what it must reach, on one GPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Budget {
    /// The shader.
    pub label: String,
    /// Registers.
    pub registers: u64,
    /// Spills.
    pub spills: u64,
    /// Occupancy.
    pub occupancy: u64,
    /// Share of fma in each hot loop.
    pub fma_percent: u64,
    /// Matrix products in the hot loops.
    pub matrix: u64,
}

impl Budget {
    /// What a shader reaches now.
    pub fn of(row: &Statistics) -> Self {
        Self {
            label: row.label.clone(),
            registers: row.registers(),
            spills: row.spills(),
            occupancy: row.occupancy(),
            fma_percent: row.fma_percent() as u64,
            matrix: row.loops.iter().map(|one| u64::from(one.own.matrix)).sum(),
        }
    }

    /// What goes beyond this, or falls short of it, in words.
    fn broken_by(&self, now: &Self) -> Vec<String> {
        let most = [("registers", now.registers, self.registers), ("spills", now.spills, self.spills)];
        let least = [
            ("of occupancy", now.occupancy, self.occupancy),
            ("% fma in the hot loops", now.fma_percent, self.fma_percent),
            ("matrix products in the hot loops", now.matrix, self.matrix),
        ];
        let above = most.iter().filter(|(_, is, most)| is > most);
        let below = least.iter().filter(|(_, is, least)| is < least);
        above
            .map(|(what, is, most)| format!("{is} {what}, above {most}"))
            .chain(below.map(|(what, is, least)| format!("{is} {what}, below {least}")))
            .collect()
    }
}

/// Reads a file of budgets.
pub fn read(text: &str) -> Result<Vec<Budget>> {
    let is_budget = |line: &&str| !line.trim().is_empty() && !line.starts_with('#');
    text.lines()
        .filter(is_budget)
        .map(|line| budget(line).with_context(|| format!("budget `{line}`")))
        .collect()
}

/// Reads a line.
fn budget(line: &str) -> Result<Budget> {
    let mut words = line.split_whitespace();
    let mut number = |name| -> Result<u64> {
        words
            .next()
            .with_context(|| format!("no {name}"))?
            .parse()
            .with_context(|| format!("{name} is no number"))
    };
    let (registers, spills) = (number("registers")?, number("spills")?);
    let (occupancy, fma_percent, matrix) = (number("occupancy")?, number("fma")?, number("matrix")?);
    let label = words.collect::<Vec<_>>().join(" ");
    ensure!(!label.is_empty(), "no shader");
    Ok(Budget { label, registers, spills, occupancy, fma_percent, matrix })
}

/// Writes a file of budgets: what the shaders reach now.
pub fn write(rows: &[Statistics], driver: &str) -> Result<String> {
    let mut out = format!(
        "# What the kernels may not fall short of; see `src/budget.rs`. Made by `cargo xtask isa --bless` with {driver}.\n\
         # registers  spills  occupancy  fma_%  matrix  shader\n",
    );
    let mut seen: Vec<String> = Vec::new();
    for row in rows {
        let Budget { label, registers, spills, occupancy, fma_percent, matrix } = Budget::of(row);
        if seen.contains(&label) {
            bail!("two shaders are called `{label}`");
        }
        out += &format!(
            "{registers:>11}  {spills:>6}  {occupancy:>9}  {fma_percent:>5}  {matrix:>6}  {label}\n"
        );
        seen.push(label);
    }
    Ok(out)
}

/// Kernels known to spill where no other does: a part of the label, the beginning of the GPUs' names, and the most registers and bytes
/// or, on Adreno and NVIDIA, instructions; the first that fits counts. To be mended; meanwhile they may not get worse.
const KNOWN_SPILLS: [(&str, &str, u64); 19] = [
    // Gradients under relative rows and segments on the staged tile: dq has 16 sums, 16 scores and what is added to them at once.
    ("backward dq d64 dv64 f32/f32 f32->f32 tile 64x32 chunk 8 v 16 block 64x64 relative", "navi", 29_006),
    ("backward dq d64 dv64 f32/f32 f32->f32 tile 64x32 chunk 8 v 16 block 64x64 segments", "navi", 224),
    ("backward d segments", "navi", 15),
    // Two rows per query beside 16 sums and 32 vectors of output; with relative rows, in scratch memory, which counts in bytes.
    ("segments softcap", "navi", 28_018),
    ("lse segments", "navi", 233),
    // Pair by pair, on the staged tile: the addresses of 16 rows beside the same.
    ("relative", "navi", 40),
    ("relative", "gfx1201", 27),
    // Keys in sorted places, where meetings of 16 pairs are counted beside the sums of dk and of dv.
    ("2147483648", "navi", 7),
    ("2147483648", "gfx1201", 9),
    ("2147483648", "vega10", 13),
    // A lane's two queries with their sums, in an array.
    ("linear outputs causal dv7", "", 14),
    ("lsh join", "ampere", 20),
    // 48 registers of 4 words, for tiles that want more; the tall ones are of other families, and never planned there.
    ("tall", "adreno", 415),
    ("attention d576 dv512 f32->f32 tile 8x", "adreno", 32),
    ("attention d576 dv512 f32->f32 tile 16x", "adreno", 8),
    ("attention d256", "adreno", 64),
    ("backward dq d128", "adreno", 27),
    ("backward dk dv d64", "adreno", 15),
    ("backward dk dv d128", "adreno", 210),
];

/// The most that may spill of a kernel, whatever its budget says; none where the budget alone decides, because the compiler's
/// registers are too few for the tile: Intel's and Apple's.
fn most_spills(row: &Statistics) -> Option<u64> {
    let known =
        |(label, gpu, _): &&(&str, &str, u64)| row.label.contains(label) && row.gpu.name.starts_with(gpu);
    match row.gpu.compiler {
        Compiler::Agx | Compiler::Brw => None,
        Compiler::Aco | Compiler::Ir3 | Compiler::Nak => {
            Some(KNOWN_SPILLS.iter().find(known).map_or(0, |(.., most)| *most))
        }
    }
}

/// Everything that falls short on one GPU, one line each; budgets without a shader and shaders without a budget too.
pub fn shortfalls(budgets: &[Budget], rows: &[Statistics]) -> Vec<String> {
    let mut found = Vec::new();
    for row in rows {
        let now = Budget::of(row);
        let name = format!("{} on {}", row.label, row.gpu.name);
        if let Some(most) = most_spills(row).filter(|most| row.spills() > *most) {
            found.push(format!("{name}: {} spills, and {most} are allowed", row.spills()));
        }
        match budgets.iter().find(|budget| budget.label == now.label) {
            Some(budget) => {
                found.extend(budget.broken_by(&now).into_iter().map(|what| format!("{name}: {what}")))
            }
            None => found.push(format!("{name}: no budget")),
        }
    }
    found
}

/// Budgets without a shader, where all shaders were measured.
pub fn forgotten(budgets: &[Budget], rows: &[Statistics]) -> Vec<String> {
    let is_gone = |budget: &&Budget| !rows.iter().any(|row| row.label == budget.label);
    budgets
        .iter()
        .filter(is_gone)
        .map(|budget| format!("{}: a budget without a shader", budget.label))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::assembly::{Item, Kind};
    use crate::gpu::named;
    use crate::listing::{Loop, whole};
    use crate::statistics::Asked;

    /// A shader with a loop of 100 vector instructions.
    fn row(gpu: &str, label: &str, fma: u32, waves: u64, spills: u64) -> Statistics {
        let kinds = [(Kind::Fma, fma), (Kind::Vector, 100 - fma)];
        let items = kinds.map(|(kind, times)| Item::Instruction { kind, times, to: None });
        let numbers = ["VGPRs", "Subgroups per SIMD", "Spilled VGPRs", "Spills"].map(String::from);
        let numbers = numbers.into_iter().zip([96, waves, spills, spills]).collect();
        let asked = Asked { label: label.into(), ..Asked::default() };
        let row = Statistics::new(named(gpu).unwrap(), asked, 64, numbers, String::new());
        let own = whole(&items);
        let shortest = own.clone();
        let one = Loop { place: "1".into(), own, shortest, innermost: true, around_all: false };
        Statistics { loops: vec![one], ..row }
    }

    #[test]
    fn what_is_written_is_read_and_holds() {
        let rows = [row("navi31", "a kernel", 70, 8, 0), row("navi31", "another", 60, 16, 0)];
        let budgets = read(&write(&rows, "a driver").unwrap()).unwrap();
        assert_eq!(budgets, rows.each_ref().map(Budget::of));
        assert_eq!((budgets[0].occupancy, budgets[0].fma_percent, budgets[0].registers), (8, 70, 96));
        assert_eq!(shortfalls(&budgets, &rows), [""; 0]);
        assert_eq!(forgotten(&budgets, &rows), [""; 0]);
    }

    #[test]
    fn each_shortfall_is_named() {
        let before = [row("navi31", "a", 70, 8, 0), row("navi31", "gone", 70, 8, 0)];
        let budgets = read(&write(&before, "a driver").unwrap()).unwrap();
        let now = [row("navi31", "a", 69, 7, 2), row("navi31", "new", 70, 8, 0)];
        let all = shortfalls(&budgets, &now);
        for part in [
            "a on navi31: 2 spills, and 0",
            "2 spills, above 0",
            "7 of occupancy",
            "69 % fma",
            "new on navi31: no budget",
        ] {
            assert!(all.iter().any(|line| line.contains(part)), "{part}: {all:?}");
        }
        assert_eq!(all.len(), 5);
        assert_eq!(forgotten(&budgets, &now), ["gone: a budget without a shader"]);
    }

    #[test]
    fn a_budget_cannot_allow_a_spill_where_none_is_due() {
        let spilling = [row("navi31", "a", 70, 8, 3)];
        let budgets = read(&write(&spilling, "a driver").unwrap()).unwrap();
        assert_eq!(shortfalls(&budgets, &spilling).len(), 1);
        // Intel's and Apple's registers are too few for some tiles: there the committed budget decides.
        let spilling = [row("dg2", "a", 70, 8, 3)];
        let budgets = read(&write(&spilling, "a driver").unwrap()).unwrap();
        assert_eq!(shortfalls(&budgets, &spilling), [""; 0]);
        assert_eq!(shortfalls(&budgets, &[row("dg2", "a", 70, 8, 4)]).len(), 1);
    }

    #[test]
    fn malformed_lines_are_shown() {
        assert!(format!("{:#}", read("8 0 x 60 0 a").unwrap_err()).contains("8 0 x 60 0 a"));
        assert!(read("8 0 8 60 0").is_err());
        assert!(write(&[row("navi31", "a", 1, 1, 0), row("navi31", "a", 1, 1, 0)], "").is_err());
    }
}
