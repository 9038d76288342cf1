//! Scores of your own, without touching the crate: `cargo run --example your_score`.
//!
//! A relative bias for images in two dimensions (Liu 2021, Swin, section 3.2: a table by the offset of rows and of columns), and
//! soft-capping once more, which gives the same bits as the crate's own. Each has its text for the device, and closures in f64 for the
//! reference, so that every element of the result is compared within a bound.

use wgpu_attention::reference::{self, Got, VerifyOptions};
use wgpu_attention::{Attention, AttentionShape, Custom, CustomPair, Full, Gpu, Inputs, Outputs, Score};

/// One rounding of f32 to either neighbour.
const U: f64 = f32::EPSILON as f64;
/// What a flush of a number below the normal ones may lose.
const TINY: f64 = f32::MIN_POSITIVE as f64;

/// Adds `image_bias_table[head][dy][dx]`, `[H, 2 height - 1, 2 width - 1]`, for queries and keys that are the pixels of an image, row
/// by row: dy and dx say how many rows and columns the query is behind the key, from 1 - height and 1 - width on. The table has a gradient.
pub(crate) fn image_bias(heads: usize, height: usize, width: usize) -> Custom {
    let text = format!(
        "const image_bias_height = {height}u;
const image_bias_width = {width}u;

fn image_bias_table_at(pairs: Pairs) -> vec4<u32> {{
    let y = vec4(pairs.i / image_bias_width + image_bias_height - 1u) - pairs.j / vec4(image_bias_width);
    let x = vec4(pairs.i % image_bias_width + image_bias_width - 1u) - pairs.j % vec4(image_bias_width);
    let row = vec4(pairs.head * (2u * image_bias_height - 1u)) + y;
    return row * (2u * image_bias_width - 1u) + x;
}}

fn image_bias_score(pairs: Pairs, s: vec4<f32>) -> vec4<f32> {{
    let at = image_bias_table_at(pairs);
    return s + vec4(image_bias_table[at.x], image_bias_table[at.y], image_bias_table[at.z], image_bias_table[at.w]);
}}

fn image_bias_table_by(pairs: Pairs, s: vec4<f32>) -> vec4<f32> {{ return vec4(1.0); }}"
    );
    let index = move |at: &CustomPair<'_>| {
        let y = at.i / width + height - 1 - at.j / width;
        let x = at.i % width + width - 1 - at.j % width;
        (at.head * (2 * height - 1) + y) * (2 * width - 1) + x
    };
    Custom::adds("image_bias", text, move |s, at| s + f64::from(at.tensors[0][index(at)]))
        .tensor("image_bias_table", heads * (2 * height - 1) * (2 * width - 1))
        .tensor_gradient("image_bias_table", index, |_, _| 1.0, |_, _, _, _| 0.0)
        .error(|_, error, after, _| error + U * (after.abs() + error) + TINY)
}

/// c tanh(score / c), with c in a tensor of one element.
pub(crate) fn tanh_cap() -> Custom {
    let text = "fn tanh_cap_score(pairs: Pairs, s: vec4<f32>) -> vec4<f32> {
    return tanh_cap_value[0] * hyperbolic(s / tanh_cap_value[0]);
}

fn tanh_cap_slope(pairs: Pairs, s: vec4<f32>) -> vec4<f32> {
    let t = hyperbolic(s / tanh_cap_value[0]);
    return fma(-t, t, vec4(1.0));
}";
    let cap = |at: &CustomPair<'_>| f64::from(at.tensors[0][0]);
    // 20 roundings of division, tanh and product; three flushes. tanh is nowhere steeper than 1.
    let off =
        |error: f64, after: f64, cap: f64| error + 20.0 * U * (after.abs() + error) + TINY * (2.0 + cap);
    let capped = move |s: f64, at: &CustomPair<'_>| cap(at) * (s / cap(at)).tanh();
    Custom::new("tanh_cap", text, capped)
        .tensor("tanh_cap_value", 1)
        .error(move |_, error, after, at| off(error, after, cap(at)))
        .slope(
            move |s, at| (s / cap(at)).cosh().powi(-2),
            // What the error of tanh makes of its square, and three roundings.
            move |s, error, _, at| {
                let tanh = (s / cap(at)).tanh().abs();
                let tanh_error = off(error, tanh * cap(at), cap(at)) / cap(at);
                tanh_error * (2.0 * tanh + tanh_error) + 6.0 * U
            },
        )
}

/// Runs a call, compares it with the reference, and gives its output.
fn checked(gpu: &Gpu, attention: &Attention, inputs: &Inputs<'_, f32>) -> wgpu_attention::Result<Vec<f32>> {
    let result = gpu.run::<f32, f32, f32>(attention, inputs, &Full, Outputs::default().lse())?;
    let got = Got::new(&result.out).lse(result.lse.as_deref());
    let report = reference::verify(attention, inputs, &Full, got, VerifyOptions::default())?;
    println!("{}: {report}", attention.score);
    assert!(report.pass);
    Ok(result.out)
}

pub(crate) fn main() -> wgpu_attention::Result<()> {
    let gpu = Gpu::new()?;
    println!("on {}", gpu.info().name);
    // An image of 8 x 12 pixels.
    let (heads, height, width) = (4, 8, 12);
    let shape = AttentionShape::new(1, heads, height * width, 32);
    let wave = |len: usize, step: f32| (0..len).map(|n| (n as f32 * step).sin()).collect::<Vec<f32>>();
    let (q, k, v) = (wave(shape.len_q(), 0.37), wave(shape.len_k(), 0.61), wave(shape.len_v(), 0.23));

    let by_offset = shape.score(Score::new().with(image_bias(heads, height, width)));
    let table = wave(by_offset.score.tensors(&shape)[0].len, 0.7);
    checked(&gpu, &by_offset, &Inputs::new(&q, &k, &v).tensor("image_bias_table", &table))?;

    let inputs = Inputs::new(&q, &k, &v);
    let own = shape.score(Score::new().scale(1.0).with(tanh_cap()));
    let own = checked(&gpu, &own, &inputs.clone().tensor("tanh_cap_value", &[2.0]))?;
    let built_in = checked(&gpu, &shape.score(Score::new().scale(1.0).softcap(2.0)), &inputs)?;
    assert_eq!(own, built_in);

    // What a text may not do is refused before anything is compiled, with its line.
    let wrong = Custom::new(
        "other",
        "fn other_score(pairs: Pairs, s: vec4<f32>) -> vec4<f32> {\n    return s + q[0];\n}",
        |s, _| s,
    );
    let error = gpu.kernels().attention(shape.score(Score::new().with(wrong)), &Full).unwrap_err();
    println!("refused: {error}");
    Ok(())
}
