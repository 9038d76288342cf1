//! Products of few rows by weights `[out, in]`: the tile whose lanes share the inner dimension.

use crate::Checked;
use crate::harness::kernels;
use crate::matmul::{apart, bound, gather, ones};
use wgpu_attention::wgsl::{FewRows, MatmulTile, TileKind};
use wgpu_attention::{AOrder, Activation, Combine, ElementType, Error, Kernels, MatmulShape, WeightOrder};

use ElementType::{Bf16, F16, F32};

/// x W^T.
fn shape(rows: usize, inner: usize, columns: usize) -> MatmulShape {
    MatmulShape::new(rows, inner, columns).weights(WeightOrder::OutIn)
}

fn tile(shape: &MatmulShape, kind: TileKind) -> MatmulTile {
    // More rows than the plan gives it, too.
    let (lanes, rows) = (if kind == TileKind::Direct { 8 } else { 64 }, shape.rows.next_power_of_two());
    MatmulTile::few(shape, kind).unwrap_or(MatmulTile::Few(FewRows { lanes, rows, column_groups: 1 }))
}

/// For the mutants.
pub(crate) fn selection(kernels: &Kernels) -> Checked {
    for kind in [TileKind::Staged, TileKind::Direct] {
        for rows in [1, 2, 3, 8] {
            let shape = shape(rows, 300, 37);
            ones(kernels, &shape, tile(&shape, kind))?;
            gather(kernels, &shape.batch(2), tile(&shape, kind))?;
        }
        let odd = apart(shape(5, 37, 18));
        bound(kernels, &odd, tile(&odd, kind))?;
    }
    // More rows than a tile has.
    let tall = FewRows { lanes: 16, rows: 2, column_groups: 2 };
    gather(kernels, &shape(7, 68, 40), MatmulTile::Few(tall))
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
    assert!(!is_few(shape(5, 64, 64)) && !is_few(MatmulShape::new(1, 64, 64)));
    assert!(!is_few(shape(4, 64, 64).a_order(AOrder::InnerRows)));
    let one = tile(&shape(1, 64, 64), TileKind::Direct);
    match kernels().matmul_with_tile(&MatmulShape::new(1, 64, 64), one) {
        Err(Error::Argument { name, .. }) => assert_eq!(name, "tile"),
        other => panic!("{other:?}"),
    }
    let bad = MatmulTile::Few(FewRows { lanes: 8, rows: 3, column_groups: 1 });
    let error = kernels().matmul_with_tile(&shape(1, 64, 64), bad).unwrap_err().to_string();
    assert!(error.starts_with("tile.rows"), "{error}");
}
