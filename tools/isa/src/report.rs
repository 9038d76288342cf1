//! The numbers as tables.

use crate::listing::Loop;
use crate::{Checks, Statistics};

/// Columns that are numbers.
const COLUMNS: [&str; 11] = [
    "wave",
    "lanes",
    "VGPR",
    "SGPR",
    "spills",
    "LDS bytes",
    "waves",
    "code bytes",
    "instr.",
    "latency",
    "inv. thr.",
];

/// The numbers of a row, as [`COLUMNS`] names them.
fn numbers(row: &Statistics) -> [u64; 11] {
    [
        row.wave.into(),
        row.lanes.into(),
        row.vgprs(),
        row.sgprs(),
        row.spills(),
        row.lds_bytes(),
        row.occupancy(),
        row.number("Code size"),
        row.number("Instructions"),
        row.number("Latency"),
        row.number("Inverse Throughput"),
    ]
}

/// For a terminal: two lines a shader and family, and one for each hot loop.
pub fn text(rows: &[Statistics]) -> String {
    let mut out = String::new();
    for row in rows {
        let pairs = COLUMNS.iter().zip(numbers(row)).map(|(name, value)| format!("{name} {value}"));
        out += &format!("{} on {}\n  {}\n", row.label, row.family, pairs.collect::<Vec<_>>().join(", "));
        for one in &row.loops {
            let own = one.own;
            out += &format!(
                "  loop {}: {} fma of {} vector ({:.0} %), {} matrix, {} workgroup memory, {} memory, {} scalar, \
                 {} branches\n",
                one.block,
                own.fma,
                own.vector,
                one.fma_percent(),
                own.matrix,
                own.lds,
                own.memory,
                own.scalar,
                own.branches
            );
        }
    }
    out
}

/// For a page: a table for each family.
pub fn markdown(rows: &[Statistics], checks: Checks, driver: &str) -> String {
    let mut out = format!(
        "# Shader statistics\n\n\
         What the compiler of {driver} makes of the kernels, for GPUs that are not there. Run-time checks: {checks}. \
         Spills: registers and bytes that went to memory. Waves: how many a SIMD can hold. Latency and inverse \
         throughput: the compiler's estimates, in cycles. Hot loops: fma of all vector instructions, matrix products \
         beside them.\n\nMade by `cargo xtask isa --bless`.\n"
    );
    let mut families: Vec<&str> = Vec::new();
    for row in rows {
        if !families.contains(&row.family.as_str()) {
            families.push(&row.family);
        }
    }
    for family in families {
        out += &format!("\n## {family}\n\n| shader | {} | hot loops |\n", COLUMNS.join(" | "));
        out += &format!("|---|{}---|\n", "---:|".repeat(COLUMNS.len()));
        for row in rows.iter().filter(|row| row.family == family) {
            let values = numbers(row).map(|value| value.to_string()).join(" | ");
            let loops: Vec<_> = row.loops.iter().map(loop_cell).collect();
            out += &format!("| {} | {values} | {} |\n", row.label, loops.join("; "));
        }
    }
    out
}

/// A hot loop in a few characters.
fn loop_cell(one: &Loop) -> String {
    let matrix = if one.own.matrix > 0 { format!(" + {} matrix", one.own.matrix) } else { String::new() };
    format!("{:.0} % ({} of {}){matrix}", one.fma_percent(), one.own.fma, one.own.vector)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listing::Mix;

    fn row() -> Statistics {
        let own = Mix { all: 80, vector: 80, fma: 60, ..Mix::default() };
        Statistics {
            label: "kernel".into(),
            family: "navi31".into(),
            wave: 64,
            numbers: vec![("VGPRs".into(), 36), ("Subgroups per SIMD".into(), 16)],
            loops: vec![Loop { block: "BB3".into(), own, innermost: true }],
            ..Statistics::default()
        }
    }

    #[test]
    fn both_tables_tell_the_same() {
        let text = text(&[row()]);
        assert!(
            text.contains("kernel on navi31") && text.contains("VGPR 36") && text.contains("(75 %)"),
            "{text}"
        );
        let page = markdown(&[row()], Checks::checked(), "a driver");
        assert!(page.contains("## navi31") && page.contains("| 75 % (60 of 80) |"), "{page}");
        let columns = |line: &str| line.matches('|').count();
        let table: Vec<_> = page.lines().filter(|line| line.starts_with('|')).map(columns).collect();
        assert_eq!(table, [14, 14, 14]);
    }
}
