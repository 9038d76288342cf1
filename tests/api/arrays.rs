//! `ndarray`'s views, however they lie, against the reference over plain slices.

use ndarray::{Array4, ArrayView4, Axis, s};
use wgpu_attention::{AttentionShape, Causal, Error, Full, Score};

use super::{assert_right, gpu, tensors};

/// [B, H, L, d] of grouped heads, more keys than queries, another value size.
fn shape() -> AttentionShape {
    AttentionShape::new(2, 4, 33, 16).kv_heads(2).kv_len(40).value_dim(8)
}

/// q, k, v of the shape as arrays in standard layout, and their elements.
fn arrays() -> ([Array4<f32>; 3], [Vec<f32>; 3]) {
    let (shape, data) = (shape(), tensors(shape()));
    let sizes = [
        (shape.batch, shape.heads, shape.q_len, shape.head_dim),
        (shape.batch, shape.kv_heads, shape.kv_len, shape.head_dim),
        (shape.batch, shape.kv_heads, shape.kv_len, shape.value_dim),
    ];
    let array = |n: usize| Array4::from_shape_vec(sizes[n], data[n].clone()).unwrap();
    ([array(0), array(1), array(2)], data)
}

/// Runs attention over views that hold the elements of [`arrays`].
fn check(q: ArrayView4<'_, f32>, k: ArrayView4<'_, f32>, v: ArrayView4<'_, f32>) {
    let (_, data) = arrays();
    let out = gpu().attention_arrays(q, k, v, Score::new(), &Causal).unwrap();
    assert_eq!(out.dim(), (2, 4, 33, 8));
    assert_right(shape(), &data, out.as_slice().expect("a new array is in standard layout"));
}

#[test]
fn views_of_any_order_hold_the_same_tensor() {
    let ([q, k, v], _) = arrays();
    check(q.view(), k.view(), v.view());
    // [B, L, H, d] in memory.
    let swapped = |x: &Array4<f32>| x.view().permuted_axes([0, 2, 1, 3]).as_standard_layout().into_owned();
    let [q2, k2, v2] = [&q, &k, &v].map(swapped);
    let back = |x: &'_ Array4<f32>| x.view().permuted_axes([0, 2, 1, 3]).to_owned();
    assert_eq!(back(&q2), q);
    check(q2.view().permuted_axes([0, 2, 1, 3]), k2.view().permuted_axes([0, 2, 1, 3]), v.view());
    check(q.view(), k2.view().permuted_axes([0, 2, 1, 3]), v2.view().permuted_axes([0, 2, 1, 3]));
}

#[test]
fn reversed_and_spaced_views_are_read_as_they_say() {
    let ([q, k, v], _) = arrays();
    // Positions from the last to the first in memory; the view turns them again.
    let turned = |x: &Array4<f32>| x.slice(s![.., .., ..;-1, ..]).as_standard_layout().into_owned();
    let [q2, k2, v2] = [&q, &k, &v].map(turned);
    let again = |x: &Array4<f32>| -> Array4<f32> { x.slice(s![.., .., ..;-1, ..]).to_owned() };
    assert_eq!(again(&q2), q);
    check(q2.slice(s![.., .., ..;-1, ..]), k2.slice(s![.., .., ..;-1, ..]), v2.slice(s![.., .., ..;-1, ..]));
    // Elements from the last to the first, and every second position of a longer tensor: these are copied.
    let mut wide = Array4::from_elem((2, 4, 66, 16), f32::NAN);
    wide.slice_mut(s![.., .., ..;2, ..]).assign(&q);
    let k3 = k.slice(s![.., .., .., ..;-1]).as_standard_layout().into_owned();
    check(wide.slice(s![.., .., ..;2, ..]), k3.slice(s![.., .., .., ..;-1]), v.view());
}

#[test]
fn a_broadcast_axis_serves_all_batch_items() {
    let ([q, k, v], _) = arrays();
    let of = |x: &Array4<f32>| x.slice(s![..1, .., .., ..]).to_owned();
    let [q1, k1, v1] = [&q, &k, &v].map(of);
    let both = k1.broadcast((2, 2, 40, 16)).unwrap();
    let out = gpu().attention_arrays(q.view(), both, v.view(), Score::new(), &Full).unwrap();
    let one = gpu().attention_arrays(q1.view(), k1.view(), v1.view(), Score::new(), &Full).unwrap();
    assert_eq!(out.index_axis(Axis(0), 0), one.index_axis(Axis(0), 0));
}

#[test]
fn gradients_have_the_sizes_and_bits_of_slices() {
    let ([q, k, v], data) = arrays();
    let dout = Array4::from_shape_fn((2, 4, 33, 8), |(b, h, i, c)| ((b + h + i + c) as f32).cos());
    let inputs = [q.view(), k.view(), v.view()];
    let found = gpu().attention_backward_arrays(inputs, dout.view(), Score::new(), &Causal).unwrap();
    let slice = dout.as_slice().unwrap();
    let expected =
        gpu().attention_backward::<_, _, _, f32>(shape(), &super::inputs(&data), slice, &Causal).unwrap();
    assert_eq!([found.dq.dim(), found.dk.dim(), found.dv.dim()], [q.dim(), k.dim(), v.dim()]);
    assert_eq!(found.dq.as_slice().unwrap(), expected.dq);
    assert_eq!(found.dk.as_slice().unwrap(), expected.dk);
    assert_eq!(found.dv.as_slice().unwrap(), expected.dv);
}

#[test]
fn views_that_do_not_agree_are_named() {
    let ([q, k, v], _) = arrays();
    let short = k.slice(s![.., .., ..39, ..]);
    let error = |k, v| gpu().attention_arrays(q.view(), k, v, Score::new(), &Full).unwrap_err();
    let said = error(short, v.view());
    assert!(matches!(&said, Error::Argument { name, .. } if name == "v"), "{said}");
    let said = error(v.view(), v.view()).to_string();
    assert!(
        said.contains('k') && said.contains("[2, 2, 40, 16]") && said.contains("[2, 2, 40, 8]"),
        "{said}"
    );
    let inputs = [q.view(), k.view(), v.view()];
    let said = gpu().attention_backward_arrays(inputs, q.view(), Score::new(), &Full).unwrap_err();
    assert!(matches!(&said, Error::Argument { name, .. } if name == "dout"), "{said}");
}
