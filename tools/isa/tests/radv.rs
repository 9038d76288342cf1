//! The tool on kernels whose numbers are known. Needs RADV: `cargo xtask isa --check` runs these.

use wgpu_attention_isa::{FAMILIES, stats};

#[test]
#[ignore = "needs the driver that `cargo xtask isa --check` fetches"]
fn a_tiled_product_is_mostly_fma() {
    let rows = stats(include_str!("matmul.wgsl"), "matmul").unwrap();
    assert_eq!(rows.iter().map(|row| row.family.as_str()).collect::<Vec<_>>(), FAMILIES);
    for row in rows {
        assert_eq!((row.lanes, row.lds_bytes(), row.spills()), (256, 8192, 0), "{}", row.family);
        assert!(row.vgprs() >= 24 && row.occupancy() >= 4 && row.wave >= 32, "{}", row.family);
        // 16 keys of a tile by 4 x 4 products a lane; the loop over them is unrolled into the one over tiles.
        assert_eq!(row.loops.iter().map(|one| one.own.fma).collect::<Vec<_>>(), [256], "{}", row.family);
        assert!((60.0..100.0).contains(&row.fma_percent()), "{}: {}", row.family, row.fma_percent());
    }
}

#[test]
#[ignore = "needs the driver that `cargo xtask isa --check` fetches"]
fn a_matrix_product_uses_matrix_units_where_there_are_any() {
    let rows = stats(include_str!("matrix.wgsl"), "product").unwrap();
    assert_eq!(rows.iter().map(|row| row.family.as_str()).collect::<Vec<_>>(), ["navi31"]);
    assert_eq!(rows[0].loops.iter().map(|one| one.own.matrix).collect::<Vec<_>>(), [1]);
    assert!(rows[0].isa.contains("v_wmma_f32_16x16x16_f16"));
}
