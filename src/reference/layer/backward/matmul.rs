//! Gradients of the matrix product.

use super::activation::sloped;
use super::sums::{Added, sums};
use crate::reference::layer::{Bounded, MatmulInputs, check_len, matmul};
use crate::{AOrder, Combine, ElementType, Error, MatmulShape, Result, RowStrides, WeightOrder};

/// What [`matmul_backward`] returns: every gradient contiguous, in the order of its tensor; of one batch item where all share it.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct MatmulBoundedGradients {
    /// The gradient by A.
    pub da: Bounded,
    /// The gradient by B.
    pub db: Bounded,
    /// The gradient by the bias, if there is one.
    pub dbias: Option<Bounded>,
}

/// The gradients of sum(dout C), C = act(A B + bias) and perhaps more that is added, by A, B and the bias.
///
/// With S = A B + bias and dS = dout act'(S): dA = dS B^T, dB = A^T dS, dbias the sums of dS's columns, each over all batch items
/// that share its tensor. S has the bound of the [product](matmul()), dS that of the
/// [activation's slope](super::activation_backward()), and every sum of n terms that of a product with n terms, with one more
/// rounding per batch item that is added.
///
/// # Errors
/// [`Error::Argument`] for a tensor that is too short, missing or not asked for, for [`Combine::MultiplyInto`], and as
/// [`MatmulShape::check`].
///
/// ```
/// use wgpu_attention::{MatmulShape, reference::layer::{Bounded, MatmulInputs, backward::matmul_backward}};
/// let (a, b, dout) = (Bounded::exact(&[1.0f32, 2.0]), Bounded::exact(&[3.0f32, 4.0]), Bounded::exact(&[5.0f32]));
/// let inputs = MatmulInputs { a: &a, b: &b, bias: None, other: None };
/// let gradients = matmul_backward(&MatmulShape::new(1, 2, 1), &inputs, &dout)?;
/// assert_eq!((gradients.da.out, gradients.db.out), (vec![15.0, 20.0], vec![5.0, 10.0]));
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
pub fn matmul_backward(
    shape: &MatmulShape,
    inputs: &MatmulInputs<'_>,
    dout: &Bounded,
) -> Result<MatmulBoundedGradients> {
    shape.check()?;
    check_len("dout", dout, shape.len_out())?;
    if shape.combine == Combine::MultiplyInto {
        return Err(Error::argument(
            "combine",
            "Store, Add or AddInto, since the gradient of MultiplyInto is unknown",
            "MultiplyInto",
        ));
    }
    let ds = argument(shape, inputs, dout)?;
    check_len("a", inputs.a, shape.len_a())?;
    check_len("b", inputs.b, shape.len_b())?;
    let MatmulShape { batch, rows, inner, columns, .. } = *shape;
    // One element of each by its place: batch item, row or k, k or column.
    let of_a = |item: usize, row: usize, k: usize| match shape.a_order {
        AOrder::RowsInner => shape.strides_of_a().at(item, row) + k,
        AOrder::InnerRows => shape.strides_of_a().at(item, k) + row,
    };
    let of_b = |item: usize, k: usize, column: usize| match shape.weights {
        WeightOrder::InOut => shape.strides_of_b().at(item, k) + column,
        WeightOrder::OutIn => shape.strides_of_b().at(item, column) + k,
    };
    let of_ds = |item: usize, row: usize, column: usize| (item * rows + row) * columns + column;
    let items = |strides: RowStrides| if strides.batch == 0 && batch > 1 { 1 } else { batch };
    let of_items = |n: usize, all: usize| if all == batch { n..n + 1 } else { 0..batch };
    let pair =
        |x: &Bounded, n: usize, y: &Bounded, m: usize| [(x.out[n], x.bound[n]), (y.out[m], y.bound[m])];

    let all = items(shape.strides_of_a());
    let da = sums(all * rows * inner, Added(batch), |n| {
        let (item, place) = (n / (rows * inner), n % (rows * inner));
        let (row, k) = match shape.a_order {
            AOrder::RowsInner => (place / inner, place % inner),
            AOrder::InnerRows => (place % rows, place / rows),
        };
        let (ds, b) = (&ds, inputs.b);
        let of_item =
            move |item| (0..columns).map(move |c| pair(ds, of_ds(item, row, c), b, of_b(item, k, c)));
        of_items(item, all).flat_map(of_item)
    });
    let all = items(shape.strides_of_b());
    let db = sums(all * inner * columns, Added(batch), |n| {
        let (item, place) = (n / (inner * columns), n % (inner * columns));
        let (k, column) = match shape.weights {
            WeightOrder::InOut => (place / columns, place % columns),
            WeightOrder::OutIn => (place % inner, place / inner),
        };
        let (ds, a) = (&ds, inputs.a);
        let of_item =
            move |item| (0..rows).map(move |row| pair(a, of_a(item, row, k), ds, of_ds(item, row, column)));
        of_items(item, all).flat_map(of_item)
    });
    let dbias = shape.bias.then(|| {
        let ds = &ds;
        sums(columns, Added(batch), |column| {
            let row = move |row: usize| row * columns + column;
            (0..batch * rows).map(row).map(move |n| [(ds.out[n], ds.bound[n]), (1.0, 0.0)])
        })
    });
    Ok(MatmulBoundedGradients { da, db, dbias })
}

/// dS, contiguous.
fn argument(shape: &MatmulShape, inputs: &MatmulInputs<'_>, dout: &Bounded) -> Result<Bounded> {
    let MatmulShape { batch, rows, columns, .. } = *shape;
    let strides = shape.strides_of_out();
    let place = |n: usize| strides.at(n / columns / rows, n / columns % rows) + n % columns;
    let places = (0..batch * rows * columns).map(place);
    let (out, bound) = places.map(|n| (dout.out[n], dout.bound[n])).unzip();
    let dout = Bounded { out, bound };
    let Some(activation) = shape.activation else { return Ok(dout) };
    let product = MatmulShape { activation: None, combine: Combine::Store, out_strides: None, ..*shape };
    let s = matmul(&product.output(ElementType::F32), &MatmulInputs { other: None, ..*inputs })?;
    let of = |tensor: &Bounded, n: usize| (tensor.out[n], tensor.bound[n]);
    let (out, bound) = (0..s.out.len()).map(|n| sloped(activation, of(&s, n), of(&dout, n))).unzip();
    Ok(Bounded { out, bound }.stored(ElementType::F32))
}
