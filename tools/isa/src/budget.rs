//! What a kernel may not fall short of, in a committed file: speed cannot quietly rot.
//!
//! A line: family, least waves of a SIMD, least percent of fma in the hot loops, least matrix products in them, and
//! the shader's label. Spills are never allowed and take no column.

use anyhow::{Context, Result, bail, ensure};

use crate::Statistics;

/// The least that a shader must reach on a family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Budget {
    /// The GPU family.
    pub family: String,
    /// The shader.
    pub label: String,
    /// Waves that a SIMD can hold.
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
            family: row.family.clone(),
            label: row.label.clone(),
            occupancy: row.occupancy(),
            fma_percent: row.fma_percent() as u64,
            matrix: row.loops.iter().map(|one| u64::from(one.own.matrix)).sum(),
        }
    }

    /// Whether this is for the shader and family of another one.
    fn is_for(&self, other: &Self) -> bool {
        self.family == other.family && self.label == other.label
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
    let family = words.next().context("no family")?.to_string();
    let mut number = |name| -> Result<u64> {
        words
            .next()
            .with_context(|| format!("no {name}"))?
            .parse()
            .with_context(|| format!("{name} is no number"))
    };
    let (occupancy, fma_percent, matrix) = (number("waves")?, number("fma")?, number("matrix")?);
    let label = words.collect::<Vec<_>>().join(" ");
    ensure!(!label.is_empty(), "no shader");
    Ok(Budget { family, label, occupancy, fma_percent, matrix })
}

/// Writes a file of budgets: what the shaders reach now.
pub fn write(rows: &[Statistics]) -> Result<String> {
    let mut out = String::from(
        "# What the kernels may not fall short of; see `src/budget.rs`. Made by `cargo xtask isa --bless`.\n\
         # family  waves  fma_%  matrix  shader\n",
    );
    let mut seen: Vec<Budget> = Vec::new();
    for row in rows {
        let now = Budget::of(row);
        if seen.iter().any(|known| known.is_for(&now)) {
            bail!("two shaders are called `{}`", row.label);
        }
        let Budget { family, label, occupancy, fma_percent, matrix } = &now;
        out += &format!("{family:8}  {occupancy:>5}  {fma_percent:>5}  {matrix:>6}  {label}\n");
        seen.push(now);
    }
    Ok(out)
}

/// Kernels known to spill: a part of the label, the beginning of the families' names, and the most registers and bytes. To be mended;
/// meanwhile they may not get worse.
const KNOWN_SPILLS: [(&str, &str, u64); 4] = [
    // Pair by pair, on the staged tile: the addresses of 16 rows beside 16 sums and 32 vectors of output.
    (" relative", "navi", 40),
    // Keys in sorted places, where meetings of 16 pairs are counted beside the sums of dk and of dv; each alone is no better.
    ("backward dk dv d64 dv64 f32/f32 f32->f32 tile 64x32 chunk 8 v 32 block 2147483648", "navi", 5),
    ("backward dk dv d64 dv64 f32/f32 f32->f32 tile 64x32 chunk 8 v 32 block 2147483648", "vega", 13),
    // A lane's two queries with their sums, on the family with the fewest registers.
    ("linear outputs causal", "vega", 16),
];

/// What may spill of a kernel.
fn known_spills(row: &Statistics) -> u64 {
    let known =
        |(label, family, _): &&(&str, &str, u64)| row.label.contains(label) && row.family.starts_with(family);
    KNOWN_SPILLS.iter().find(known).map_or(0, |(.., most)| *most)
}

/// Everything that falls short, one line each; budgets without a shader and shaders without a budget too.
pub fn shortfalls(budgets: &[Budget], rows: &[Statistics]) -> Vec<String> {
    let mut found = Vec::new();
    for row in rows {
        let now = Budget::of(row);
        let name = format!("{} on {}", row.label, row.family);
        if row.spills() > known_spills(row) {
            found.push(format!("{name}: {} registers and bytes spilled", row.spills()));
        }
        let Some(budget) = budgets.iter().find(|budget| budget.is_for(&now)) else {
            found.push(format!("{name}: no budget"));
            continue;
        };
        let least = [
            ("waves of a SIMD", now.occupancy, budget.occupancy),
            ("% fma in the hot loops", now.fma_percent, budget.fma_percent),
            ("matrix products in the hot loops", now.matrix, budget.matrix),
        ];
        for (what, is, needed) in least {
            if is < needed {
                found.push(format!("{name}: {is} {what}, below {needed}"));
            }
        }
    }
    let families: Vec<_> = rows.iter().map(|row| row.family.as_str()).collect();
    for budget in budgets.iter().filter(|budget| families.contains(&budget.family.as_str())) {
        if !rows.iter().any(|row| budget.is_for(&Budget::of(row))) {
            found.push(format!("{} on {}: a budget without a shader", budget.label, budget.family));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listing::{Loop, Mix};

    fn row(label: &str, fma: u32, waves: u64, spills: u64) -> Statistics {
        let own = Mix { vector: 100, fma, ..Mix::default() };
        Statistics {
            label: label.into(),
            family: "navi31".into(),
            numbers: vec![("Subgroups per SIMD".into(), waves), ("Spilled VGPRs".into(), spills)],
            loops: vec![Loop { block: "BB1".into(), own, innermost: true }],
            ..Statistics::default()
        }
    }

    #[test]
    fn what_is_written_is_read_and_holds() {
        let rows = [row("a kernel", 70, 8, 0), row("another", 60, 16, 0)];
        let budgets = read(&write(&rows).unwrap()).unwrap();
        assert_eq!(budgets.len(), 2);
        assert_eq!(
            (budgets[0].label.as_str(), budgets[0].occupancy, budgets[0].fma_percent),
            ("a kernel", 8, 70)
        );
        assert_eq!(shortfalls(&budgets, &rows), [""; 0]);
    }

    #[test]
    fn each_shortfall_is_named() {
        let budgets = read(&write(&[row("a", 70, 8, 0), row("gone", 70, 8, 0)]).unwrap()).unwrap();
        let found = shortfalls(&budgets, &[row("a", 69, 7, 2), row("new", 70, 8, 0)]);
        let all = found.join("\n");
        for part in
            ["a on navi31: 2 registers", "7 waves", "69 % fma", "new on navi31: no budget", "gone on navi31"]
        {
            assert!(all.contains(part), "{part}: {all}");
        }
        assert_eq!(found.len(), 5);
    }

    #[test]
    fn malformed_lines_are_shown() {
        assert!(format!("{:#}", read("navi31 8 x 0 a").unwrap_err()).contains("navi31 8 x 0 a"));
        assert!(read("navi31 8 60 0").is_err());
        assert!(write(&[row("a", 1, 1, 0), row("a", 1, 1, 0)]).is_err());
    }
}
