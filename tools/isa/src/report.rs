//! The numbers as tables.

use crate::Checks;
use crate::gpu::Gpu;
use crate::listing::Loop;
use crate::statistics::{Statistics, occupancy_is, registers_are};
use crate::throughput::{Prediction, Tiles, core, predict};

/// Columns that are numbers.
const COLUMNS: [&str; 7] =
    ["subgroup", "lanes", "registers", "spills", "occupancy", "workgroup bytes", "instr."];

/// The numbers of a row, as [`COLUMNS`] names them.
fn numbers(row: &Statistics) -> [u64; 7] {
    [
        row.width.into(),
        row.lanes.into(),
        row.registers(),
        row.spills(),
        row.occupancy(),
        row.workgroup_bytes.into(),
        row.whole.all.into(),
    ]
}

/// For a terminal: two lines a shader and GPU, one for each hot loop, and what is predicted.
pub fn text(rows: &[Statistics]) -> String {
    let mut out = String::new();
    for row in rows {
        let pairs = COLUMNS.iter().zip(numbers(row)).map(|(name, value)| format!("{name} {value}"));
        out += &format!("{} on {}\n  {}\n", row.label, row.gpu.name, pairs.collect::<Vec<_>>().join(", "));
        let loops = row.loops.iter().map(|one| ("loop", one));
        for (what, one) in loops.chain(row.around.iter().map(|one| ("around", one))) {
            let own = &one.own;
            out += &format!(
                "  {what} {}: {} instructions, {} fma of {} arithmetic ({:.0} %), {} matrix, workgroup memory: loads {}, stores {}; \
                 {} memory, {} scratch, {} barriers, {} scalar, {} branches\n",
                one.place,
                own.all,
                own.fma,
                own.vector,
                one.fma_percent(),
                own.matrix,
                own.loads,
                own.stores,
                own.memory,
                own.scratch,
                own.barriers,
                own.scalar,
                own.branches
            );
        }
        if let [Some(full), Some(masked)] = predictions(row) {
            out += &format!(
                "  predicted: {:.0} % of the peak, bound by {}; where each tile has a mask {:.0} %, bound by {}\n",
                full.percent, full.bound, masked.percent, masked.bound
            );
        }
    }
    out
}

/// Of full tiles, and of masked ones.
fn predictions(row: &Statistics) -> [Option<Prediction>; 2] {
    [Tiles::Full, Tiles::Masked].map(|tiles| predict(row, tiles))
}

/// For a page of one GPU: how to read it, and a table.
pub fn markdown(gpu: &Gpu, rows: &[Statistics], checks: Checks, driver: &str) -> String {
    let core = core(gpu.name).map_or(String::new(), |core| {
        let issue = core.issue.map_or("each kind by itself".into(), |issue| format!("{issue} instructions"));
        let bytes = core.workgroup_bytes.map_or("not known".into(), |bytes| format!("{bytes} bytes"));
        format!(
            "Predicted: the share of the peak of f32 fma, and what binds most (`src/throughput.rs`), where no tile of keys has a mask, \
             and where each has; by \
             {} fma per clock and {}, issued: {issue}; workgroup memory: {bytes}. Source: {}.\n",
            core.lanes, core.name, core.source
        )
    });
    let mut out = format!(
        "# {}\n\nWhat {driver} makes of the kernels for {}, which is not there. Run-time checks: {checks}. Registers: {}. Occupancy: {}. \
         Hot loops, one turn: fma of all arithmetic, matrix products, loads from workgroup memory by width.\n\n{core}\nMade by \
         `cargo xtask isa --bless`.\n\n",
        gpu.name,
        gpu.what,
        registers_are(gpu.compiler),
        occupancy_is(gpu.compiler),
    );
    out += &format!("| shader | {} | hot loops | predicted | masked |\n", COLUMNS.join(" | "));
    out += &format!("|---|{}---|---|---|\n", "---:|".repeat(COLUMNS.len()));
    for row in rows {
        let values = numbers(row).map(|value| value.to_string()).join(" | ");
        let loops: Vec<_> = row.loops.iter().map(loop_cell).collect();
        let cell = |one: Prediction| format!("{:.0} %, {}", one.percent, one.bound);
        let [full, masked] = predictions(row).map(|found| found.map_or(String::new(), cell));
        out += &format!("| {} | {values} | {} | {full} | {masked} |\n", row.label, loops.join("; "));
    }
    out
}

/// A hot loop in a few characters.
fn loop_cell(one: &Loop) -> String {
    let own = &one.own;
    let matrix = if own.matrix > 0 { format!(" + {} matrix", own.matrix) } else { String::new() };
    let loads = if own.loads.count() > 0 { format!(", {}", own.loads) } else { String::new() };
    format!("{} of {}{matrix}{loads}", own.fma, own.vector)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::named;
    use crate::statistics::Asked;

    fn row() -> Statistics {
        let listing = format!(
            "BB1:\n{}{}\tds_load_b128 v[0:3], v4\n\ts_cbranch_scc1 BB1\n",
            "\tv_fmac_f32_e32 v1, v2, v3\n".repeat(60),
            "\tv_add_f32_e32 v1, v2, v3\n".repeat(20)
        );
        let asked = Asked { label: "kernel".into(), lanes: 128, workgroup_bytes: 4096 };
        let numbers = vec![("VGPRs".into(), 36), ("Subgroups per SIMD".into(), 16)];
        Statistics::new(named("navi21").unwrap(), asked, 64, numbers, listing)
    }

    #[test]
    fn both_tables_tell_the_same() {
        let text = text(&[row()]);
        for part in
            ["kernel on navi21", "registers 36", "(75 %)", "loads 1 x 16 B", "predicted: 75 % of the peak"]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
        let page = markdown(row().gpu, &[row()], Checks::checked(), "a driver");
        let line =
            "| kernel | 64 | 128 | 36 | 0 | 16 | 4096 | 82 | 60 of 80, 1 x 16 B | 75 %, other arithmetic |";
        assert!(page.contains("# navi21") && page.contains(line), "{page}");
        let columns = |line: &str| line.matches('|').count();
        let table: Vec<_> = page.lines().filter(|line| line.starts_with('|')).map(columns).collect();
        assert_eq!(table, [12, 12, 12]);
    }
}
