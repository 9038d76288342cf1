//! The matrix product and the feed-forward layer in cooperative matrices.

use crate::harness::{cooperative, gpu};
use crate::matmul::{apart, bound, gather, ones, transposed_alike};
use crate::{Checked, feed_forward};
use wgpu_attention::wgsl::{CooperativeProduct, MatmulTile, Matrices};
use wgpu_attention::{
    AOrder, Activation, Combine, ElementType, FeedForwardShape, KernelPath, Kernels, MatmulShape, Options,
    RowStrides, WeightOrder,
};
use wgpu_attention_testing::{combinations, one_in};

use ElementType::{Bf16, F16, F32};

const ORDERS: [WeightOrder; 2] = [WeightOrder::InOut, WeightOrder::OutIn];

fn halves(rows: usize, inner: usize, columns: usize) -> MatmulShape {
    MatmulShape::new(rows, inner, columns).input(F16).weight(F16)
}

/// 1 or 4 subgroups of 2 by 2 matrices, 4 of 4 by 4, a column of the former, a row of the latter.
fn tiles(kernels: &Kernels) -> [MatmulTile; 5] {
    let size = kernels.options().matrix_size.expect("a device with cooperative matrices");
    let matrices = Matrices { size, subgroup: kernels.device().adapter_info().subgroup_max_size as usize };
    [(1, 1, false), (2, 2, false), (2, 2, true), (4, 1, false), (1, 2, true)].map(|of| {
        let (subgroups_r, subgroups_c, wide) = of;
        MatmulTile::Cooperative(CooperativeProduct { matrices, subgroups_r, subgroups_c, wide })
    })
}

/// For the mutants.
pub(crate) fn selection(kernels: &Kernels) -> Checked {
    for weights in ORDERS {
        for tile in [tiles(kernels)[1], tiles(kernels)[2]] {
            ones(kernels, &halves(70, 68, 132).weights(weights), tile)?;
            gather(kernels, &halves(70, 68, 132).weights(weights).batch(2), tile)?;
            bound(kernels, &apart(halves(33, 37, 36).weights(weights)), tile)?;
            let transposed = |shape: MatmulShape| shape.weights(weights).a_order(AOrder::InnerRows);
            ones(kernels, &transposed(halves(70, 68, 132)), tile)?;
            gather(kernels, &transposed(halves(70, 68, 132)).batch(2), tile)?;
            bound(kernels, &apart(transposed(halves(33, 37, 36))), tile)?;
        }
    }
    Ok(())
}

#[test]
fn the_selection_passes() {
    selection(&cooperative()).unwrap();
}

#[test]
fn every_size_is_within_the_bound() {
    let kernels = cooperative();
    let tiles_there = tiles(&kernels);
    let edges = [1, 3, 8, 9, 16, 17, 33, 64, 65, 129];
    let mut worst = 0f64;
    for a_order in [AOrder::RowsInner, AOrder::InnerRows] {
        for [n, order, tile] in combinations([edges.len(), ORDERS.len(), tiles_there.len()]) {
            let [second, third] = [edges[(n + 3) % edges.len()], edges[(n + 7) % edges.len()]];
            let shape = halves(edges[n], second, third).weights(ORDERS[order]).a_order(a_order);
            worst = worst.max(bound(&kernels, &shape, tiles_there[tile]).unwrap());
            ones(&kernels, &shape, tiles_there[tile]).unwrap();
        }
    }
    println!("matmul in cooperative matrices: worst error/bound {worst:.3}");
}

#[test]
fn ends_and_strides_are_those_of_the_scalar_path() {
    let kernels = cooperative();
    let tile = tiles(&kernels)[1];
    let padded = |width: isize| RowStrides::new(40 * (width + 4), width + 4);
    for combine in [Combine::Store, Combine::Add, Combine::AddInto, Combine::MultiplyInto] {
        let shape = halves(37, 24, 36).batch(2).bias(true).combine(combine).activation(Activation::GeluErf);
        let shape = shape.a_strides(padded(24)).out_strides(padded(36)).residual_strides(padded(36));
        bound(&kernels, &shape, tile).unwrap();
    }
    for output in [F16, Bf16] {
        bound(&kernels, &halves(5, 7, 9).output(output).combine(Combine::Add), tile).unwrap();
    }
}

#[test]
fn a_transposed_gives_the_bits_of_a() {
    let kernels = cooperative();
    let shapes = [halves(70, 68, 36).batch(2), halves(33, 37, 35)];
    for [shape, tile] in combinations([shapes.len(), 2]) {
        transposed_alike(&kernels, &shapes[shape], tiles(&kernels)[1 + tile]).unwrap();
    }
}

#[test]
fn a_layer_keeps_its_bits_whatever_the_chunk() {
    let kernels = cooperative();
    let shape = FeedForwardShape::new(70, 20, 36, Activation::GeluTanh).bias(true).residual(true);
    let shapes = [shape.elements(F16), shape.gated(true).weights(WeightOrder::OutIn).elements(F16)];
    for shape in one_in(2, shapes.len()).into_iter().map(|n| shapes[n]) {
        feed_forward::chunks_agree(&kernels, &shape).unwrap();
        feed_forward::bound(&kernels, &shape.chunk(Some(20))).unwrap();
    }
}

/// Both products of a layer in matrices, as what is between them is f16.
pub(crate) fn layers_of_halves(kernels: &Kernels) -> Checked {
    let shape =
        FeedForwardShape::new(70, 20, 36, Activation::GeluTanh).elements(F16).hidden(F16).chunk(Some(33));
    feed_forward::bound(kernels, &shape.bias(true).residual(true))?;
    feed_forward::bound(kernels, &shape.gated(true).weights(WeightOrder::OutIn))?;
    let whole = FeedForwardShape::new(35, 16, 32, Activation::Relu).input(F16).weight(F16);
    let plan = kernels.feed_forward(&whole.hidden(F16)).map_err(|e| e.to_string())?;
    if plan.second_path() != KernelPath::Cooperative {
        return Err(format!("the second product is {}", plan.second_path()));
    }
    feed_forward::rounded_hidden_values(kernels, whole)
}

#[test]
fn both_products_of_a_layer_are_within_the_bound() {
    layers_of_halves(&cooperative()).unwrap();
    let odd = FeedForwardShape::new(9, 7, 9, Activation::Silu).gated(true).elements(F16).hidden(F16);
    feed_forward::bound(&cooperative(), &odd.chunk(Some(4))).unwrap();
    feed_forward::chunks_agree(&cooperative(), &odd).unwrap();
}

#[test]
fn the_second_product_follows_what_is_between_them() {
    let shape = FeedForwardShape::new(64, 64, 64, Activation::Relu).elements(F16);
    let of = |kernels: &Kernels, hidden| {
        let plan = kernels.feed_forward(&shape.hidden(hidden)).unwrap();
        assert_eq!(plan.shaders().len(), 2);
        let paths = [plan.path(), plan.second_path()];
        for (shader, path) in plan.shaders().iter().zip(paths) {
            assert_eq!(shader.contains("matrix"), path == KernelPath::Cooperative, "{shader}");
        }
        paths
    };
    let (forced, scalar) = (cooperative(), KernelPath::Scalar);
    assert_eq!(of(&forced, F16), [KernelPath::Cooperative; 2]);
    assert_eq!(of(&forced, F32), [KernelPath::Cooperative, scalar]);
    assert_eq!(of(&forced, Bf16), [KernelPath::Cooperative, scalar]);
    let kernels = Kernels::new(gpu().device(), forced.options().path(scalar)).unwrap();
    assert_eq!(of(&kernels, F16), [scalar; 2]);
    // What is not forced is scalar on a CPU, which emulates matrices.
    let kernels = Kernels::new(gpu().device(), Options::default()).unwrap();
    assert_eq!(of(&kernels, F16), [scalar; 2]);
}

#[test]
fn the_path_follows_the_types_and_the_device() {
    let forced = cooperative();
    let message = |kernels: &Kernels, shape: MatmulShape| kernels.matmul(&shape).unwrap_err().to_string();
    let path = |kernels: &Kernels, shape: MatmulShape| kernels.matmul(&shape).unwrap().tile().path();
    assert_eq!(path(&forced, halves(64, 64, 64)), KernelPath::Cooperative);
    let got = message(&forced, MatmulShape::new(64, 64, 64));
    assert!(got.contains("input: need f16, as the cooperative path multiplies it, got f32"), "{got}");
    let got = message(&forced, MatmulShape::new(64, 64, 64).input(F16));
    assert!(got.contains("weight: need f16"), "{got}");
    let got = forced.feed_forward(&FeedForwardShape::new(8, 8, 8, Activation::Relu)).unwrap_err();
    assert!(got.to_string().contains("input: need f16"), "{got}");

    let scalar = Kernels::new(gpu().device(), forced.options().path(KernelPath::Scalar)).unwrap();
    assert_eq!(path(&scalar, halves(64, 64, 64)), KernelPath::Scalar);

    let unknown = Options::default().path(KernelPath::Cooperative);
    let got = message(&Kernels::new(gpu().device(), unknown).unwrap(), halves(8, 8, 8));
    assert!(got.contains("matrices: need"), "{got}");
    let odd = CooperativeProduct {
        matrices: Matrices { size: 4, subgroup: 8 },
        subgroups_r: 1,
        subgroups_c: 1,
        wide: false,
    };
    let got = forced.matmul_with_tile(&halves(8, 8, 8), MatmulTile::Cooperative(odd)).unwrap_err();
    assert!(got.to_string().contains("matrices: need"), "{got}");
    // Rows in such numbers that larger tiles would leave cores idle get smaller ones.
    let tile = |rows| forced.matmul(&halves(rows, 64, 64)).unwrap().tile().rows();
    assert!(tile(1) < tile(1 << 17), "{} and {}", tile(1), tile(1 << 17));
}
