//! Rotary embedding.

use super::{Bounded, TINY, check_len, gamma, settled};
use crate::Result;
use crate::shape::{RotaryPairs, RotaryShape};

/// Rotary embedding of x, which lies as the shape says; the result is contiguous `[B, H, L, d]`.
///
/// Every turned element is a sum of two products: |error| <= gamma_2 (|a cos| + |b sin|) beside what the inputs carry;
/// copied elements have none.
///
/// # Errors
/// [`Error::Argument`](crate::Error::Argument) for a tensor that is too short, and as [`RotaryShape::check`].
///
/// ```
/// use wgpu_attention::{RotaryShape, reference::layer::{Bounded, rotary}};
/// let x = Bounded::exact(&[1.0f32, 2.0]);
/// let (cos, sin) = (Bounded::exact(&[0.0f32]), Bounded::exact(&[1.0f32])); // a quarter turn
/// assert_eq!(rotary(&RotaryShape::new(1, 1, 1, 2), &x, &cos, &sin)?.out, [-2.0, 1.0]);
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
pub fn rotary(shape: &RotaryShape, x: &Bounded, cos: &Bounded, sin: &Bounded) -> Result<Bounded> {
    shape.check()?;
    check_len("x", x, shape.len_x())?;
    check_len("cos", cos, shape.len_table())?;
    check_len("sin", sin, shape.len_table())?;
    let half = shape.rotary_dim / 2;
    let turn = if shape.inverse { -1.0 } else { 1.0 };
    let mut y = Bounded::default();
    for batch in 0..shape.batch {
        for head in 0..shape.heads {
            for t in 0..shape.len {
                let at = shape.strides_of_x().at(batch, head, t);
                let item = if shape.tables_per_item { batch } else { 0 };
                let table = (item * shape.len + t) * half;
                for c in 0..shape.head_dim {
                    if c >= shape.rotary_dim {
                        y.out.push(x.out[at + c]);
                        y.bound.push(x.bound[at + c]);
                        continue;
                    }
                    let (k, a, b) = match shape.pairs {
                        RotaryPairs::Interleaved => (c / 2, c / 2 * 2, c / 2 * 2 + 1),
                        RotaryPairs::HalfSplit => (c % half, c % half, c % half + half),
                    };
                    let (other, sign) = if c == a { (b, -turn) } else { (a, turn) };
                    let (cos, dcos) = (cos.out[table + k], cos.bound[table + k]);
                    let (sin, dsin) = (sin.out[table + k], sin.bound[table + k]);
                    let (own, d_own) = (x.out[at + c], x.bound[at + c]);
                    let (other, d_other) = (x.out[at + other], x.bound[at + other]);
                    let size = (own.abs() + d_own) * (cos.abs() + dcos)
                        + (other.abs() + d_other) * (sin.abs() + dsin);
                    let passed = size - (own * cos).abs() - (other * sin).abs();
                    let bound = passed + gamma(2) * size + 4.0 * TINY * (1.0 + own.abs() + other.abs());
                    let (value, bound) = settled((own * cos + sign * other * sin, bound));
                    y.out.push(value);
                    y.bound.push(bound);
                }
            }
        }
    }
    Ok(y.stored(shape.output))
}
