//! The products that a product's gradients are.

use crate::{AOrder, ElementType, MatmulShape, RowStrides, WeightOrder};

/// dS: what it is stored as, and where its rows lie.
pub(super) fn of_argument(shape: &MatmulShape) -> (ElementType, RowStrides) {
    match shape.activation {
        Some(_) => (ElementType::F32, RowStrides::contiguous(shape.rows, shape.columns)),
        None => (shape.output, shape.strides_of_out()),
    }
}

/// Whether all of several batch items share a tensor.
pub(super) fn is_shared(shape: &MatmulShape, strides: RowStrides) -> bool {
    shape.batch > 1 && strides.batch == 0
}

/// The order of a weight that is multiplied by from the other side.
pub(super) fn flipped(order: WeightOrder) -> WeightOrder {
    match order {
        WeightOrder::InOut => WeightOrder::OutIn,
        WeightOrder::OutIn => WeightOrder::InOut,
    }
}

/// dA = dS B^T, or its transpose B dS^T where A is stored transposed. Of one batch item where all share A.
pub(super) fn shape_of_da(shape: &MatmulShape) -> MatmulShape {
    let (element, strides) = of_argument(shape);
    let batch = if is_shared(shape, shape.strides_of_a()) { 1 } else { shape.batch };
    let MatmulShape { rows, inner, columns, .. } = *shape;
    match shape.a_order {
        AOrder::RowsInner => MatmulShape::new(rows, columns, inner)
            .weights(flipped(shape.weights))
            .input(element)
            .weight(shape.weight)
            .a_strides(strides)
            .b_strides(shape.strides_of_b()),
        AOrder::InnerRows => MatmulShape::new(inner, columns, rows)
            .a_order(match shape.weights {
                WeightOrder::InOut => AOrder::RowsInner,
                WeightOrder::OutIn => AOrder::InnerRows,
            })
            .weights(WeightOrder::OutIn)
            .input(shape.weight)
            .weight(element)
            .a_strides(shape.strides_of_b())
            .b_strides(strides),
    }
    .batch(batch)
}

/// dB = A^T dS, or its transpose dS^T A where B is stored transposed. Of one batch item where all share B.
pub(super) fn shape_of_db(shape: &MatmulShape) -> MatmulShape {
    let (element, strides) = of_argument(shape);
    let batch = if is_shared(shape, shape.strides_of_b()) { 1 } else { shape.batch };
    let MatmulShape { rows, inner, columns, .. } = *shape;
    match shape.weights {
        WeightOrder::InOut => MatmulShape::new(inner, rows, columns)
            .a_order(match shape.a_order {
                AOrder::RowsInner => AOrder::InnerRows,
                AOrder::InnerRows => AOrder::RowsInner,
            })
            .input(shape.input)
            .weight(element)
            .a_strides(shape.strides_of_a())
            .b_strides(strides),
        WeightOrder::OutIn => MatmulShape::new(columns, rows, inner)
            .a_order(AOrder::InnerRows)
            .weights(match shape.a_order {
                AOrder::RowsInner => WeightOrder::InOut,
                AOrder::InnerRows => WeightOrder::OutIn,
            })
            .input(element)
            .weight(shape.input)
            .a_strides(strides)
            .b_strides(shape.strides_of_a()),
    }
    .batch(batch)
}
