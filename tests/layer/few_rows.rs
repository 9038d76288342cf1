//! Products of few rows by weights `[out, in]`: the tile whose lanes share the inner dimension.

use crate::Checked;
use crate::harness::kernels;
use crate::matmul::{apart, bound, gather, ones};
use wgpu_attention::wgsl::{FewRows, MatmulTile, TileKind};
use wgpu_attention::{
    AOrder, Activation, Combine, ElementType, Error, Kernels, MatmulShape, RowStrides, WeightOrder,
};

use ElementType::{Bf16, F16, F32};

/// x W^T.
fn shape(rows: usize, inner: usize, columns: usize) -> MatmulShape {
    MatmulShape::new(rows, inner, columns).weights(WeightOrder::OutIn)
}

fn tile(shape: &MatmulShape, kind: TileKind) -> MatmulTile {
    MatmulTile::few(shape, kind).expect("few rows, [out, in]")
}

/// For the mutants.
pub(crate) fn selection(kernels: &Kernels) -> Checked {
    for kind in [TileKind::Staged, TileKind::Direct] {
        for rows in [1, 2, 3, 8] {
            let shape = shape(rows, 300, 37);
            ones(kernels, &shape, tile(&shape, kind))?;
            gather(kernels, &shape.batch(2), tile(&shape, kind))?;
        }
        for rows in [3, 6] {
            let wide = shape(rows, 40, 20).a_strides(RowStrides::new(400, 48));
            gather(kernels, &wide, tile(&wide, kind))?;
        }
        let odd = apart(shape(5, 37, 18));
        bound(kernels, &odd, tile(&odd, kind))?;
    }
    // More rows than a tile has, and steps that the inner dimension does not fill.
    for row_lanes in [false, true] {
        let rows = if row_lanes { 1 } else { 2 };
        let tall = FewRows { lanes: 4, rows, column_groups: 2, fours: 4, row_lanes };
        gather(kernels, &shape(7, 72, 40), MatmulTile::Few(tall))?;
        ones(kernels, &shape(6, 133, 37), MatmulTile::Few(tall))?;
    }
    // All that is spelt out; of the second tile the last columns are not there.
    let wide = FewRows { lanes: 4, rows: 8, column_groups: 8, fours: 1, row_lanes: false };
    gather(kernels, &shape(8, 24, 60), MatmulTile::Few(wide))?;
    ones(kernels, &shape(7, 37, 37), MatmulTile::Few(wide))?;
    Ok(())
}

#[test]
fn the_selection_passes() {
    selection(kernels()).unwrap();
}

#[test]
fn every_size_is_within_the_bound() {
    let edges = [1, 2, 3, 4, 5, 7, 8, 31, 33, 65, 129, 515];
    let mut worst = 0f64;
    for rows in 1..=8 {
        for (n, &inner) in edges.iter().enumerate() {
            let shape = shape(rows, inner, edges[(n + rows) % edges.len()]).bias(n % 2 == 0);
            let kind = if n % 3 == 0 { TileKind::Staged } else { TileKind::Direct };
            worst = worst.max(bound(kernels(), &shape, tile(&shape, kind)).unwrap());
            ones(kernels(), &shape.bias(false), tile(&shape, kind)).unwrap();
        }
    }
    println!("few rows: worst error/bound {worst:.3}");
}

#[test]
fn types_and_ends_are_within_the_bound() {
    for (n, element) in [F16, Bf16, F32].into_iter().enumerate() {
        for combine in [Combine::Store, Combine::Add] {
            let shape = shape(1 + 3 * n, 40, 36).elements(element).combine(combine).bias(true);
            bound(kernels(), &shape, tile(&shape, TileKind::Direct)).unwrap();
            let odd =
                MatmulShape::new(3, 41, 35).weights(WeightOrder::OutIn).elements(element).combine(combine);
            bound(kernels(), &odd, tile(&odd, TileKind::Staged)).unwrap();
        }
    }
    let into = shape(2, 40, 36).combine(Combine::MultiplyInto).activation(Activation::Silu);
    bound(kernels(), &into, tile(&into, TileKind::Direct)).unwrap();
}

#[test]
fn the_plan_takes_it_where_it_fits() {
    let is_few = |shape: MatmulShape| matches!(kernels().matmul(&shape).unwrap().tile(), MatmulTile::Few(_));
    assert!(is_few(shape(1, 64, 64)) && is_few(shape(4, 64, 64)));
    assert!(is_few(shape(8, 64, 64)) && !is_few(shape(9, 64, 64)) && !is_few(MatmulShape::new(1, 64, 64)));
    assert!(!is_few(shape(4, 64, 64).a_order(AOrder::InnerRows)));
    let one = tile(&shape(1, 64, 64), TileKind::Direct);
    match kernels().matmul_with_tile(&MatmulShape::new(1, 64, 64), one) {
        Err(Error::Argument { name, .. }) => assert_eq!(name, "tile"),
        other => panic!("{other:?}"),
    }
    let good = FewRows { lanes: 8, rows: 1, column_groups: 1, fours: 1, row_lanes: true };
    for (name, bad) in [
        ("tile.lanes", FewRows { lanes: 3, ..good }),
        ("tile.rows", FewRows { rows: 3, ..good }),
        ("tile.rows", FewRows { rows: 2, ..good }),
        ("tile.rows", FewRows { rows: 16, row_lanes: false, ..good }),
        ("tile.column_groups", FewRows { column_groups: 16, ..good }),
        ("tile.fours", FewRows { fours: 8, ..good }),
    ] {
        let error = kernels().matmul_with_tile(&shape(1, 64, 64), MatmulTile::Few(bad)).unwrap_err();
        assert!(error.to_string().starts_with(name), "{error}");
    }
}
