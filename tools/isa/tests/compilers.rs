//! The tool on kernels whose numbers are known, by the compiler of every GPU that this machine can have. `cargo xtask isa --check`
//! runs these.

use std::path::{Path, PathBuf};

use wgpu_attention_isa::measure::{Measured, launcher, measure_all};
use wgpu_attention_isa::statistics::Statistics;
use wgpu_attention_isa::{GPUS, Gpu, budget};

/// The GPUs whose compilers are there, with what they make of a file of this folder.
fn measured(file: &str) -> Vec<(&'static Gpu, Measured)> {
    let there: Vec<(&Gpu, PathBuf)> = GPUS.iter().filter_map(|gpu| Some((gpu, launcher(gpu)?))).collect();
    assert!(there.len() >= 7, "compilers of {} GPUs", there.len());
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(file).display().to_string();
    let all =
        measure_all(Path::new(env!("CARGO_BIN_EXE_isa")), &there, |_| vec![file.clone(), "--checked".into()]);
    there.into_iter().map(|(gpu, _)| gpu).zip(all.unwrap()).collect()
}

/// The one row of each.
fn rows(file: &str) -> Vec<Statistics> {
    measured(file).into_iter().flat_map(|(_, measured)| measured.rows).collect()
}

#[test]
#[ignore = "needs the compilers that `cargo xtask isa --check` fetches"]
fn a_tiled_product_is_mostly_fma() {
    for row in rows("matmul.wgsl") {
        let gpu = row.gpu.name;
        assert_eq!((row.lanes, row.workgroup_bytes, row.spills()), (256, 8192, 0), "{gpu}");
        assert!(row.registers() >= 8 && row.occupancy() >= 4 && row.width >= 8, "{gpu}");
        // 16 keys of a tile by 4 x 4 products a lane, wherever the loop over them is unrolled into the one over tiles.
        let fma: Vec<_> = row.loops.iter().map(|one| one.own.fma).collect();
        assert!(fma.iter().all(|fma| *fma >= 16 && *fma <= 256 && fma % 16 == 0), "{gpu}: {fma:?}");
        assert!(row.loops.iter().any(|one| one.own.loads.count() > 0), "{gpu}");
        assert!((40.0..=100.0).contains(&row.fma_percent()), "{gpu}: {}", row.fma_percent());
    }
}

#[test]
#[ignore = "needs the compilers that `cargo xtask isa --check` fetches"]
fn a_matrix_product_uses_matrix_units_where_there_are_any() {
    for (gpu, measured) in measured("matrix.wgsl") {
        match gpu.name {
            "navi31" | "gfx1201" | "ampere" => {
                let matrix: u32 = measured.rows[0].loops.iter().map(|one| one.own.matrix).sum();
                assert!(matrix >= 1, "{}", gpu.name);
            }
            // No matrix units, or none of 16 x 16 x 16.
            _ => assert_eq!((measured.rows.len(), measured.skipped.len()), (0, 1), "{}", gpu.name),
        }
    }
}

#[test]
#[ignore = "needs the compilers that `cargo xtask isa --check` fetches"]
fn a_kernel_that_spills_is_noticed() {
    let spilling = rows("spills.wgsl");
    assert!(spilling.len() >= 7);
    for row in spilling {
        let gpu = row.gpu.name;
        assert!(row.spills() > 0 && row.whole.scratch > 0, "{gpu}: {} spills, {:?}", row.spills(), row.whole);
        // A budget of a time when it did not.
        let written = budget::write(std::slice::from_ref(&row), "a driver").unwrap();
        let mut before = budget::read(&written).unwrap();
        before[0].spills = 0;
        let found = budget::shortfalls(&before, std::slice::from_ref(&row));
        assert!(found.iter().any(|line| line.contains("spills, above 0")), "{gpu}: {found:?}");
    }
}
