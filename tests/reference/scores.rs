//! Scores as the kernels compute them, on a [`Device`].

use super::rounding::Device;
use std::f64::consts::LOG2_E;
use wgpu_attention::reference::Position;
use wgpu_attention::{Attention, AttentionShape, Element, Inputs, Relative, Slopes, Term};

pub(crate) const DROPPED: f64 = f32::MIN as f64;

/// The lowest score of a pair that is not left out.
pub(crate) const LOWEST: f64 = f32::MIN.next_up() as f64;

/// The score of a row's keys, before its terms in base 2 where there are none.
pub(crate) fn scores_of<'a, Q: Element, KV: Element>(
    device: &Device,
    attention: &'a Attention,
    inputs: &'a Inputs<'a, Q, KV>,
    at: Position,
    base_e: bool,
) -> impl FnMut(&mut Device, u32) -> f64 + use<'a, Q, KV> {
    let shape = &attention.shape;
    let base = if base_e { 1.0 } else { LOG2_E };
    let q_scale = (f64::from(attention.scale_value()) * base) as f32;
    let q_scale = device.flushed(f64::from(q_scale), f64::from(f32::MIN_POSITIVE));
    let q_at = attention.q_strides().at(at.batch, at.head, at.i);
    let q: Vec<f64> = inputs.q[q_at..q_at + shape.head_dim].iter().map(|&q| device.read(q)).collect();
    move |device: &mut Device, j: u32| {
        let s = match attention.score.term("relative") {
            Some(Term::Relative(relative)) => {
                related(device, attention, inputs, at, relative, j, (&q, q_scale))
            }
            _ => product(device, &q, q_scale, key(attention, inputs, at, j)),
        };
        terms_of_score(device, attention, inputs, at, j, s)
    }
}

/// k_j as the row's head sees it.
fn key<'a, Q, KV>(attention: &Attention, inputs: &Inputs<'a, Q, KV>, at: Position, j: u32) -> &'a [KV] {
    let k_at = attention.k_strides().at(at.batch, attention.shape.kv_head(at.head), j as usize);
    &inputs.k[k_at..k_at + attention.shape.head_dim]
}

/// (q_scale (q + u)) . k + (q_scale (q + w)) . r, as `shaders/score/relative.wgsl` has it, for contiguous r.
pub(crate) fn related<Q: Element, KV: Element>(
    device: &mut Device,
    attention: &Attention,
    inputs: &Inputs<'_, Q, KV>,
    at: Position,
    relative: &Relative,
    j: u32,
    (q, q_scale): (&[f64], f64),
) -> f64 {
    let [r, u, w] = relative_rows(attention, inputs, at, relative, j);
    let with = |device: &mut Device, bias: &[f32]| -> Vec<f64> {
        let add = |(c, &q): (usize, &f64)| {
            let bias = bias.get(c).map_or(0.0, |&bias| device.read(bias));
            device.add(q, bias)
        };
        q.iter().enumerate().map(add).collect()
    };
    let u = with(device, u);
    let w = with(device, w);
    let s = product(device, &u, q_scale, key(attention, inputs, at, j));
    product_from(device, s, &w, q_scale, r)
}

/// r of a pair, and u and w of its head, empty where there are none; r contiguous.
pub(crate) fn relative_rows<'a, Q, KV>(
    attention: &Attention,
    inputs: &Inputs<'a, Q, KV>,
    at: Position,
    relative: &Relative,
    j: u32,
) -> [&'a [f32]; 3] {
    let (d, shape) = (attention.shape.head_dim, &attention.shape);
    let position = (at.i + shape.kv_len) as i64 - shape.q_len as i64;
    let [lowest, first] = relative.distances().expect("not clipped");
    let t = (first - (position - i64::from(j))) as usize;
    let rows = inputs.get("relative_rows").expect("the inputs have r");
    let r = &rows[(at.head * (first - lowest + 1) as usize + t) * d..][..d];
    let biases = inputs.get("relative_biases").unwrap_or(&[]);
    let bias = |has: bool, n: usize| if has { &biases[(n * shape.heads + at.head) * d..][..d] } else { &[] };
    [r, bias(relative.has_u(), 0), bias(relative.has_w(), relative.has_u().into())]
}

/// (q_scale q) . k.
pub(crate) fn product<E: Element>(device: &mut Device, q: &[f64], q_scale: f64, k: &[E]) -> f64 {
    product_from(device, 0.0, q, q_scale, k)
}

fn product_from<E: Element>(device: &mut Device, mut s: f64, q: &[f64], q_scale: f64, k: &[E]) -> f64 {
    for (&q, &k) in q.iter().zip(k) {
        let scaled = device.mul(q, q_scale);
        let k = device.read(k);
        s = device.fma(scaled, k, s);
    }
    s
}

/// The terms of the score, as `shaders/score/` has them.
fn terms_of_score<Q: Element, KV: Element>(
    device: &mut Device,
    attention: &Attention,
    inputs: &Inputs<'_, Q, KV>,
    at: Position,
    j: u32,
    product: f64,
) -> f64 {
    let mut s = product;
    for term in attention.score.terms() {
        match term_of_score(device, attention, inputs, (at, j), term, s) {
            Some(next) => s = next,
            None => return DROPPED,
        }
    }
    if attention.score.is_plain() { s } else { s.max(LOWEST) }
}

/// (q_scale (q + s)) . e, as `shaders/score/segments.wgsl` has it.
fn segments_of_row<Q: Element, KV: Element>(
    device: &mut Device,
    attention: &Attention,
    inputs: &Inputs<'_, Q, KV>,
    at: Position,
    j: u32,
) -> f64 {
    let AttentionShape { batch, heads, q_len, kv_len, head_dim: d, .. } = attention.shape;
    let tensor = inputs.get("segments").expect("the inputs have the tensors of the score");
    let row = |n: usize| &tensor[(n * heads + at.head) * d..][..d];
    let ids = &tensor[3 * heads * d..];
    let same = ids[at.batch * q_len + at.i] == ids[batch * q_len + at.batch * kv_len + j as usize];
    let q_at = attention.q_strides().at(at.batch, at.head, at.i);
    let with_s: Vec<f64> = (0..d)
        .map(|c| {
            let (q, s) = (device.read(inputs.q[q_at + c]), device.read(row(0)[c]));
            device.add(q, s)
        })
        .collect();
    let q_scale = device.flushed(f64::from(attention.scale_value()), f64::from(f32::MIN_POSITIVE));
    product(device, &with_s, q_scale, row(if same { 1 } else { 2 }))
}

/// One term; `None` for a pair that it removes.
pub(crate) fn term_of_score<Q: Element, KV: Element>(
    device: &mut Device,
    attention: &Attention,
    inputs: &Inputs<'_, Q, KV>,
    (at, j): (Position, u32),
    term: &Term,
    s: f64,
) -> Option<f64> {
    let shape = &attention.shape;
    let tensor = |name: &str| inputs.get(name).expect("the inputs have the tensors of the score");
    let distance = (at.i + shape.kv_len) as i64 - shape.q_len as i64 - i64::from(j);
    Some(match term {
        Term::Temperature(_) => device.div(s, tensor("temperature")[at.head].into()),
        Term::Softcap(softcap) => {
            let cap = softcap.cap().into();
            let x = device.div(s, cap);
            let tanh = hyperbolic(device, x);
            device.mul(cap, tanh)
        }
        Term::Alibi(_) => {
            let slopes = Slopes::Paper.values(shape.heads).expect("not the caller's");
            let term = device.mul(slopes[at.head].into(), distance as f64);
            device.add(s, -term)
        }
        Term::Bias(bias) => match tensor("bias")[bias.strides().at(at.batch, at.head, at.i, j as usize)] {
            f32::NEG_INFINITY => return None,
            b => device.add(s, b.into()),
        },
        Term::Buckets(buckets) => {
            let at = buckets.bucket(distance) * shape.heads + at.head;
            device.add(s, tensor("bucket_table")[at].into())
        }
        Term::Relative(_) | Term::Sinks(_) | Term::Dropout(_) => s, // in the product; in the row; in the weights
        Term::Segments(_) => {
            let own = segments_of_row(device, attention, inputs, at, j);
            device.add(s, own)
        }
        other => panic!("{} is not simulated", other.name()),
    })
}

/// tanh x, as `shaders/lib/hyperbolic.wgsl` has it.
pub(crate) fn hyperbolic(device: &mut Device, x: f64) -> f64 {
    let y = x.abs();
    if y < 0.25 {
        let square = device.mul(x, x);
        let series = [0.021869488f32, -0.053968254, 0.13333333, -0.33333334, 1.0];
        let p = series[1..].iter().fold(f64::from(series[0]), |p, &c| device.fma(square, p, f64::from(c)));
        return device.mul(x, p);
    }
    // The error of z is to move the score as the rounding of the score does: towards `push`, whatever the sign of x.
    let side = device.push;
    device.push = -side * x.signum();
    let exponent = (2.0 * y).min(80.0);
    let z = device.within((-exponent).exp(), 3.0 + 2.0 * exponent);
    let above = device.add(1.0, z);
    device.push = side * x.signum();
    let below = device.add(1.0, -z);
    let tanh = device.div(below, above) * x.signum();
    device.push = side;
    tanh
}
