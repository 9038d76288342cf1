//! Gradients that other systems computed (`golden/`), against the reference.

use safetensors::{SafeTensors, tensor::TensorView};
use serde_json::Value;
use std::path::{Path, PathBuf};
use wgpu_attention::pattern::Tensors;
use wgpu_attention::reference::gradient::attention_gradient;
use wgpu_attention::{
    Alibi, AnyPattern, AttentionShape, Bias, BiasStrides, BlockLayout, Buckets, Inputs, Mask, Relative,
    Score, Segments, Sinks, Slopes, Strides, Term,
};

/// What rounding f64 to f32 moves, relative.
const ROUNDING: f64 = 1.0 / 16_777_216.0;
/// What two evaluations in f64 differ by, of the largest element.
const ARITHMETIC: f64 = 1e-13;

fn floats(view: &TensorView<'_>) -> Vec<f32> {
    bytemuck::pod_collect_to_vec(view.data())
}

/// The sizes with ones before them.
fn padded<const N: usize>(shape: &[usize]) -> [usize; N] {
    let mut sizes = [1; N];
    sizes[N - shape.len()..].copy_from_slice(shape);
    sizes
}

fn bits(view: &TensorView<'_>) -> Vec<bool> {
    view.data().iter().map(|&byte| byte != 0).collect()
}

fn pattern(file: &SafeTensors<'_>, json: &Value) -> AnyPattern {
    let tensors = Tensors {
        mask: file.tensor("mask").ok().map(|mask| Mask::new(padded(mask.shape()), bits(&mask)).unwrap()),
        layout: file
            .tensor("layout")
            .ok()
            .map(|layout| BlockLayout::new(padded(layout.shape()), bits(&layout)).unwrap()),
    };
    serde_json::from_value::<AnyPattern>(json.clone()).unwrap().with_tensors(&tensors)
}

/// The gradients at a scale that need not be an f32: on the line through those at two that are, one place apart. What the line
/// misses is of second order, 1e-14.
fn at_scale(scale: f64, gradients: impl Fn(f32) -> Vec<Vec<f64>>) -> Vec<Vec<f64>> {
    let near = scale as f32;
    let (low, high) = (gradients(near), gradients(near.next_up()));
    let share = (scale - f64::from(near)) / (f64::from(near.next_up()) - f64::from(near));
    let between =
        |low: &Vec<f64>, high: &Vec<f64>| low.iter().zip(high).map(|(a, b)| a + share * (b - a)).collect();
    low.iter().zip(&high).map(|(low, high)| between(low, high)).collect()
}

/// Rows of r by distance, as the file has them.
fn relative(case: &Value, file: &SafeTensors<'_>) -> Option<(Relative, Vec<f32>, Vec<f32>)> {
    let r = file.tensor("r").ok()?;
    let [batch, heads, rows, dim]: [usize; 4] = padded(r.shape());
    let stride = |size, stride: usize| if size == 1 { 0 } else { stride as isize };
    let strides = Strides::new(stride(batch, heads * rows * dim), stride(heads, rows * dim), dim as isize);
    let [u, w] = ["u", "w"].map(|name| file.tensor(name).ok().map(|view| floats(&view)));
    let relative = Relative::new(case["first_distance"].as_i64().unwrap() as i32, rows).strides(strides);
    let relative = relative.u(u.is_some()).w(w.is_some()).clip(case["clip_distances"] == true);
    Some((relative, floats(&r), [u, w].into_iter().flatten().flatten().collect()))
}

/// The tensor of segments, where the file has them.
fn segments(file: &SafeTensors<'_>) -> Option<Vec<f32>> {
    let [s, e] = ["s", "seg_embed"].map(|name| file.tensor(name).ok().map(|view| floats(&view)));
    let [queries, keys] = ["seg_q", "seg_k"].map(|name| {
        let words = file.tensor(name).ok()?.data().to_vec();
        Some(words.chunks(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect::<Vec<_>>())
    });
    Some(Segments::tensor(&s?, &e?, &queries?, &keys?))
}

/// The terms that the file has a tensor of their own for: with the names that the tensor has here and its gradient there.
fn terms(
    case: &Value,
    file: &SafeTensors<'_>,
    shape: &AttentionShape,
) -> Vec<(Term, [&'static str; 2], Vec<f32>)> {
    let tensor = |name| file.tensor(name).ok().map(|view| floats(&view));
    let mut terms: Vec<(Term, _, _)> = vec![];
    if let Some(slopes) = tensor("alibi_slopes") {
        terms.push((Alibi::new(Slopes::Given).into(), ["slopes", "dalibi_slopes"], slopes));
    }
    if let Some(table) = tensor("bucket_table") {
        let size = |key: &str| case["relative_buckets"][key].as_u64().unwrap() as usize;
        let buckets = Buckets::new(size("num_buckets"), size("max_distance"));
        let bidirectional = case["relative_buckets"]["bidirectional"] == true;
        let names = ["bucket_table", "dbucket_table"];
        terms.push((buckets.bidirectional(bidirectional).into(), names, table));
    }
    if let Some(mut bias) = tensor("distance_bias") {
        // The file has the distances descending, all that there are.
        let rows = shape.q_len + shape.kv_len - 1;
        assert_eq!(
            (case["first_distance"].as_u64(), bias.len()),
            (Some(shape.kv_len as u64 - 1), shape.heads * rows)
        );
        bias.chunks_mut(rows).for_each(<[f32]>::reverse);
        let toeplitz = BiasStrides::toeplitz(shape.q_len, shape.kv_len);
        terms.push((Bias::new(toeplitz).into(), ["bias", "ddistance_bias"], bias));
    }
    if let Some(sinks) = tensor("sinks") {
        terms.push((Sinks.into(), ["sinks", "dsinks"], sinks));
    }
    terms
}

/// Whether the file has gradients; then they are compared.
fn check(path: &Path) -> bool {
    let bytes = std::fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let Ok(dout) = file.tensor("dout") else { return false };
    let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
    let text = &metadata.metadata().as_ref().expect("a case")["case"];
    let case: Value = serde_json::from_str(text).unwrap();
    if case["op"] == "model" {
        return false; // through a whole model
    }
    if case["op"] == "linear_attention" {
        return false; // the reference has no gradients of it yet
    }
    assert_eq!(case["op"], "attention", "{}", path.display());

    let [q, k, v] = ["q", "k", "v"].map(|name| file.tensor(name).unwrap());
    let [batch, heads, q_len, head_dim] = padded(q.shape());
    let [_, kv_heads, kv_len, value_dim] = padded(v.shape());
    let shape = AttentionShape::new(batch, heads, kv_len, head_dim)
        .kv_heads(kv_heads)
        .q_len(q_len)
        .value_dim(value_dim);
    let mut score = Score::new();
    if let Some(cap) = case["softcap"].as_f64() {
        score = score.softcap(cap as f32);
    }
    let bias =
        file.tensor("bias").ok().map(|bias| (BiasStrides::broadcast(padded(bias.shape())), floats(&bias)));
    let [q, k, v, dout] = [q, k, v, dout].map(|view| floats(&view));
    let mut inputs = Inputs::new(&q, &k, &v);
    if let Some((strides, values)) = &bias {
        score = score.bias(*strides);
        inputs = inputs.tensor("bias", values);
    }
    let relative = relative(&case, &file);
    if let Some((relative, rows, biases)) = &relative {
        score = score.with(*relative);
        inputs = inputs.tensor("relative_rows", rows);
        if !biases.is_empty() {
            inputs = inputs.tensor("relative_biases", biases);
        }
    }
    let segments = segments(&file);
    if let Some(segments) = &segments {
        score = score.with(Segments);
        inputs = inputs.tensor("segments", segments);
    }
    let terms = terms(&case, &file, &shape);
    for (term, [name, _], values) in &terms {
        score = score.with(term.clone());
        inputs = inputs.tensor(name, values);
    }
    let pattern = pattern(&file, &case["pattern"]);
    let at = |scale: f32| {
        let attention = shape.score(score.clone().scale(scale));
        let exact = attention_gradient(attention, &inputs, &dout, &pattern).unwrap();
        let terms = exact.terms.into_iter().filter_map(|(name, mut values)| match name {
            "relative_rows" | "relative_biases" => Some(values),
            "segments" => {
                // The segments themselves are behind s and e.
                let ids = values.split_off(3 * heads * head_dim);
                assert!(ids.iter().all(|&by| by == 0.0));
                Some(values)
            }
            _ => None,
        });
        [exact.dq, exact.dk, exact.dv].into_iter().chain(terms).collect()
    };
    let gradients = at_scale(case["scale"].as_f64().unwrap(), at);
    let mut gradients = gradients.into_iter();
    // u and w are one tensor, as are s and e.
    for names in [&["dq"][..], &["dk"], &["dv"], &["dr"], &["du", "dw"], &["ds", "dseg_embed"]] {
        let Some(mut rest) = gradients.next() else { break };
        for name in names {
            let Ok(expected) = file.tensor(name) else { continue };
            let behind = rest.split_off(expected.shape().iter().product());
            let gradient = std::mem::replace(&mut rest, behind);
            let own = case["expected_abs_error"][name].as_f64();
            compare(&format!("{}: {name}", path.display()), &gradient, &floats(&expected), own);
        }
        assert!(rest.is_empty(), "{}: {names:?}", path.display());
    }
    for (_, [name, gradient], _) in &terms {
        let Ok(expected) = file.tensor(gradient) else { continue };
        let scale = case["scale"].as_f64().unwrap() as f32;
        let exact =
            attention_gradient(shape.score(score.clone().scale(scale)), &inputs, &dout, &pattern).unwrap();
        let own = case["expected_abs_error"][gradient].as_f64();
        let place = format!("{}: {gradient}", path.display());
        compare(&place, exact.term(name).unwrap(), &floats(&expected), own);
    }
    true
}

/// Within the expected values' own error, or, where the file gives none, within their rounding.
fn compare(place: &str, gradient: &[f64], expected: &[f32], own: Option<f64>) {
    assert_eq!(gradient.len(), expected.len(), "{place}");
    let largest = gradient.iter().fold(0.0f64, |max, x| max.max(x.abs()));
    assert!(largest > 1e-3, "{place} is all but 0");
    for (n, (&x, &expected)) in gradient.iter().zip(expected).enumerate() {
        let allowed = own.unwrap_or(ROUNDING * x.abs() + ARITHMETIC * largest);
        let error = (x - f64::from(expected)).abs();
        assert!(error <= allowed, "{place}, element {n}: {x:e}, expected {expected:e}, off by {error:e}");
    }
}

#[test]
fn gradients_of_other_systems_are_the_reference_s() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let cases = files.filter(|path| path.extension().is_some_and(|it| it == "safetensors"));
    let compared = cases.filter(|path| check(path)).count();
    assert!(compared >= 45, "{compared} files have gradients");
}
