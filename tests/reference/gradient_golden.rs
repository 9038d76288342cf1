//! Gradients that other systems computed (`golden/`), against the reference.

use safetensors::{SafeTensors, tensor::TensorView};
use serde_json::Value;
use std::path::{Path, PathBuf};
use wgpu_attention::pattern::Tensors;
use wgpu_attention::reference::gradient::attention_gradient;
use wgpu_attention::{
    Alibi, AnyPattern, AttentionShape, Bias, BiasStrides, BlockLayout, Buckets, Inputs, Mask, Relative,
    Score, Segments, Sinks, Slopes, Strides,
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

/// A tensor of the score: its name here, and the names of its gradients in the file, which lie in it one behind the other.
struct Given {
    name: &'static str,
    values: Vec<f32>,
    gradients: &'static [&'static str],
}

/// The score but for its scale, and its tensors.
fn score(case: &Value, file: &SafeTensors<'_>, shape: &AttentionShape) -> (Score, Vec<Given>) {
    let mut given = vec![];
    let mut give = |name, values, gradients| given.push(Given { name, values, gradients });
    let mut score = Score::new();
    if let Some(cap) = case["softcap"].as_f64() {
        score = score.softcap(cap as f32);
    }
    if let Ok(bias) = file.tensor("bias") {
        score = score.bias(BiasStrides::broadcast(padded(bias.shape())));
        give("bias", floats(&bias), &[]);
    }
    if let Some((relative, rows, biases)) = relative(case, file) {
        score = score.with(relative);
        give("relative_rows", rows, &["dr"]);
        if !biases.is_empty() {
            give("relative_biases", biases, &["du", "dw"]);
        }
    }
    if let Some(segments) = segments(file) {
        score = score.with(Segments);
        give("segments", segments, &["ds", "dseg_embed"]);
    }
    let tensor = |name| file.tensor(name).ok().map(|view| floats(&view));
    if let Some(slopes) = tensor("alibi_slopes") {
        score = score.with(Alibi::new(Slopes::Given));
        give("slopes", slopes, &["dalibi_slopes"]);
    }
    if let Some(table) = tensor("bucket_table") {
        score = score.with(buckets(&case["relative_buckets"]));
        give("bucket_table", table, &["dbucket_table"]);
    }
    if let Some(mut bias) = tensor("distance_bias") {
        // The file has the distances descending, all that there are.
        let rows = shape.q_len + shape.kv_len - 1;
        let sizes = (case["first_distance"].as_u64(), bias.len());
        assert_eq!(sizes, (Some(shape.kv_len as u64 - 1), shape.heads * rows));
        bias.chunks_mut(rows).for_each(<[f32]>::reverse);
        score = score.with(Bias::new(BiasStrides::toeplitz(shape.q_len, shape.kv_len)));
        give("bias", bias, &["ddistance_bias"]);
    }
    if let Some(sinks) = tensor("sinks") {
        score = score.with(Sinks);
        give("sinks", sinks, &["dsinks"]);
    }
    (score, given)
}

fn buckets(case: &Value) -> Buckets {
    let size = |key: &str| case[key].as_u64().unwrap() as usize;
    Buckets::new(size("num_buckets"), size("max_distance")).bidirectional(case["bidirectional"] == true)
}

/// Whether the file has gradients; then they are compared.
fn check(path: &Path) -> bool {
    let bytes = std::fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let Ok(dout) = file.tensor("dout") else { return false };
    let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
    let text = &metadata.metadata().as_ref().expect("a case")["case"];
    let case: Value = serde_json::from_str(text).unwrap();
    // Judged by `tests/lsh/golden.rs`, `tests/linear/`, `tests/layer/golden.rs`, `tests/layer/reversible/golden.rs`.
    let elsewhere = ["lsh_attention", "linear_attention", "linformer", "reversible", "model"];
    let of_layers = ["layer_norm", "rms_norm", "rotary", "axial_positions", "activation", "feed_forward"];
    if elsewhere.iter().chain(&of_layers).any(|op| case["op"] == *op) {
        return false;
    }
    assert_eq!(case["op"], "attention", "{}", path.display());

    let [q, k, v] = ["q", "k", "v"].map(|name| file.tensor(name).unwrap());
    let [batch, heads, q_len, head_dim] = padded(q.shape());
    let [_, kv_heads, kv_len, value_dim] = padded(v.shape());
    let shape = AttentionShape::new(batch, heads, kv_len, head_dim).kv_heads(kv_heads);
    let shape = shape.q_len(q_len).value_dim(value_dim);
    let [q, k, v, dout] = [q, k, v, dout].map(|view| floats(&view));
    let (score, given) = score(&case, &file, &shape);
    let inputs = Inputs::new(&q, &k, &v);
    let inputs = given.iter().fold(inputs, |inputs, given| inputs.tensor(given.name, &given.values));
    let pattern = pattern(&file, &case["pattern"]);
    let at = |scale: f32| {
        let attention = shape.score(score.clone().scale(scale));
        let exact = attention_gradient(attention, &inputs, &dout, &pattern).unwrap();
        let terms = given.iter().map(|given| exact.term(given.name).unwrap().to_vec());
        [exact.dq.clone(), exact.dk.clone(), exact.dv.clone()].into_iter().chain(terms).collect()
    };
    let gradients = at_scale(case["scale"].as_f64().unwrap(), at);
    let names: [&[&str]; 3] = [&["dq"], &["dk"], &["dv"]];
    let names = names.into_iter().chain(given.iter().map(|given| given.gradients));
    for (names, mut rest) in names.zip(gradients) {
        for name in names {
            let Ok(expected) = file.tensor(name) else { continue };
            let behind = rest.split_off(expected.shape().iter().product());
            let gradient = std::mem::replace(&mut rest, behind);
            let own = case["expected_abs_error"][name].as_f64();
            compare(&format!("{}: {name}", path.display()), &gradient, &floats(&expected), own);
        }
        // Behind s and e are the segments themselves.
        let all_there = !names.is_empty() && names.iter().all(|name| file.tensor(name).is_ok());
        assert!(!all_there || rest.iter().all(|&by| by == 0.0), "{}: {names:?}", path.display());
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
