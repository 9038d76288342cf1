//! Cases that other systems made (`golden/`).

use crate::harness::{Guarded, Rows, gpu, kernels, run, run_all};
use safetensors::SafeTensors;
use serde_json::Value;
use std::path::PathBuf;
use wgpu_attention::reference::layer::{self, Bounded, FeedForwardInputs};
use wgpu_attention::{
    Activation, Causal, ElementType::F32, FeedForwardBuffers, FeedForwardShape, Full, NormBuffers,
    NormGradBuffers, NormKind, NormShape, RotaryBuffers, RotaryPairs, RotaryShape, RowGradients, WeightOrder,
    Window,
};
use wgpu_attention_models::{self as model, Error, Exact, File, Forward, State};

/// A case: its tensors and what it says.
struct Case {
    name: String,
    bytes: Vec<u8>,
    json: Value,
}

impl Case {
    fn tensor(&self, name: &str) -> Option<(Vec<usize>, Vec<f64>)> {
        let file = SafeTensors::deserialize(&self.bytes).expect("a safetensors file");
        let view = file.tensor(name).ok()?;
        let values: Vec<f32> = bytemuck::pod_collect_to_vec(view.data());
        Some((view.shape().to_vec(), values.into_iter().map(f64::from).collect()))
    }

    fn need(&self, name: &str) -> (Vec<usize>, Vec<f64>) {
        self.tensor(name).unwrap_or_else(|| panic!("{}: no tensor {name}", self.name))
    }

    fn eps(&self, key: &str) -> f32 {
        self.json[key].as_f64().expect("an eps") as f32
    }

    fn judge(&self, expected: &Bounded, got: Vec<f64>) {
        self.judge_tensor("out", expected, got);
    }

    fn judge_tensor(&self, name: &str, expected: &Bounded, got: Vec<f64>) {
        let allowance = self.json["expected_abs_error"][name].as_f64().expect("an error");
        // Their values and the reference's, without any kernel.
        let reference = Bounded { bound: vec![0.0; expected.out.len()], ..expected.clone() };
        // Their error was measured against an f64 evaluation too, hence up to the last digits.
        let found = reference.compare(self.need(name).1, allowance * (1.0 + 1e-6) + 1e-9);
        assert!(found.pass, "{}, {name} of the reference: {found}", self.name);
        let theirs = Bounded { out: self.need(name).1, bound: expected.bound.clone() };
        let found = theirs.compare(got, allowance);
        assert!(found.pass, "{}, {name}: {found}", self.name);
        println!("{}, {name}: {found}", self.name);
    }
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden")
}

/// All cases of some operation.
fn cases(ops: &[&str]) -> Vec<Case> {
    let mut cases = vec![];
    for entry in std::fs::read_dir(folder()).expect("golden/") {
        let path = entry.expect("an entry").path();
        if path.extension().is_none_or(|extension| extension != "safetensors") {
            continue;
        }
        let bytes = std::fs::read(&path).expect("a case");
        let (_, header) = SafeTensors::read_metadata(&bytes).expect("a header");
        let case = header.metadata().as_ref().and_then(|metadata| metadata.get("case")).expect("a case");
        let json: Value = serde_json::from_str(case).expect("JSON");
        if ops.contains(&json["op"].as_str().expect("an op")) {
            cases.push(Case {
                name: path.file_name().expect("a name").to_string_lossy().into(),
                bytes,
                json,
            });
        }
    }
    assert!(!cases.is_empty(), "no case of {ops:?}");
    cases
}

/// A norm on the device, and its reference.
fn norm(shape: &NormShape, x: &Bounded, weight: &[f64], bias: Option<&[f64]>) -> (Vec<f64>, Bounded) {
    let [x_buffer, weight_buffer] = [&x.out, weight].map(|values| Guarded::new(values, F32));
    let bias_buffer = bias.map(|bias| Guarded::new(bias, F32));
    let out = Guarded::new(&vec![f64::NAN; x.out.len()], F32);
    let buffers = NormBuffers::new(x_buffer.binding(), weight_buffer.binding(), out.binding())
        .bias(bias_buffer.as_ref().map(Guarded::binding));
    let call = kernels().norm(shape).unwrap().bind(buffers).unwrap();
    let got = run(&[&call], &out, Rows::contiguous(shape.rows, shape.width), F32).unwrap();
    let bias = bias.map(Bounded::exact);
    (got, layer::norm(shape, x, &Bounded::exact(weight), bias.as_ref()).unwrap())
}

#[test]
fn norms() {
    let mut gradients = 0;
    for case in cases(&["layer_norm", "rms_norm"]) {
        let (sizes, x) = case.need("x");
        let kind = if case.json["op"] == "layer_norm" { NormKind::Layer } else { NormKind::Rms };
        let (weight, bias) = (case.need("weight").1, case.tensor("bias").map(|bias| bias.1));
        let shape = NormShape::new(kind, sizes[0], sizes[1], case.eps("eps")).bias(bias.is_some());
        let (got, expected) = norm(&shape, &Bounded::exact(&x), &weight, bias.as_deref());
        case.judge(&expected, got);
        if case.tensor("dout").is_some() {
            norm_gradients(&case, &shape, &x, &weight);
            gradients += 1;
        }
    }
    assert!(gradients >= 3, "{gradients} cases with gradients");
}

/// The gradients of a case that has them.
fn norm_gradients(case: &Case, shape: &NormShape, x: &[f64], weight: &[f64]) {
    let dout = case.need("dout").1;
    let inputs = [x, weight, &dout].map(|values| Guarded::new(values, F32));
    let [dx, dweight, dbias] =
        [x.len(), shape.width, shape.width].map(|len| Guarded::new(&vec![f64::NAN; len], F32));
    let [x_, weight_, dout_] = &inputs;
    let buffers = NormGradBuffers::new(x_.binding(), weight_.binding(), dout_.binding(), dx.binding())
        .dweight(dweight.binding())
        .dbias(shape.bias.then(|| dbias.binding()));
    let call = kernels().norm(shape).unwrap().backward().unwrap().bind(buffers).unwrap();
    let row = Rows::contiguous(1, shape.width);
    let mut outputs = vec![(&dx, Rows::contiguous(shape.rows, shape.width), F32), (&dweight, row, F32)];
    outputs.extend(shape.bias.then_some((&dbias, row, F32)));
    let got = run_all(&[&call], &outputs).unwrap();
    let [x, weight, dout] = [x, weight, &dout].map(Bounded::exact);
    let want = layer::backward::norm_backward(shape, &RowGradients::of_norm(shape), &x, &weight, &dout, None)
        .unwrap();
    for ((name, want), got) in
        [("dx", &want.dx), ("dweight", &want.dweight), ("dbias", &want.dbias)].into_iter().zip(got)
    {
        case.judge_tensor(name, want, got);
    }
}

#[test]
fn rotary() {
    let mut gradients = 0;
    for case in cases(&["rotary"]) {
        let (sizes, x) = case.need("x");
        let ((table_sizes, cos), (_, sin)) = (case.need("cos"), case.need("sin"));
        let interleaved = case.json["interleaved"].as_bool().expect("a truth value");
        let shape = RotaryShape::new(sizes[0], sizes[1], sizes[2], sizes[3])
            .rotary_dim(case.json["rotary_dim"].as_u64().expect("a size") as usize)
            .pairs(if interleaved { RotaryPairs::Interleaved } else { RotaryPairs::HalfSplit })
            .tables_per_item(table_sizes.len() == 3);
        let [x_buffer, cos_buffer, sin_buffer] = [&x, &cos, &sin].map(|values| Guarded::new(values, F32));
        let out = Guarded::new(&vec![f64::NAN; x.len()], F32);
        let buffers =
            RotaryBuffers::new(x_buffer.binding(), cos_buffer.binding(), sin_buffer.binding(), out.binding());
        let plan = kernels().rotary(&shape).unwrap();
        let rows = Rows::contiguous(1, x.len());
        let got = run(&[&plan.bind(buffers).unwrap()], &out, rows, F32).unwrap();
        let [x, cos, sin] = [x, cos, sin].map(|values| Bounded::exact(&values));
        case.judge(&layer::rotary(&shape, &x, &cos, &sin).unwrap(), got);
        let Some((_, dout)) = case.tensor("dout") else { continue };
        let (dout_buffer, dx) = (Guarded::new(&dout, F32), Guarded::new(&vec![f64::NAN; dout.len()], F32));
        let buffers = RotaryBuffers::new(
            dout_buffer.binding(),
            cos_buffer.binding(),
            sin_buffer.binding(),
            dx.binding(),
        );
        let got = run(&[&plan.backward().unwrap().bind(buffers).unwrap()], &dx, rows, F32).unwrap();
        let want = layer::rotary(&shape.inverse(true), &Bounded::exact(&dout), &cos, &sin).unwrap();
        case.judge_tensor("dx", &want, got);
        gradients += 1;
    }
    assert!(gradients >= 2, "{gradients} cases with gradients");
}

#[test]
fn feed_forward() {
    // Those behind a norm; `verify` computes the others, too, and the gradients.
    let behind_norm = |case: &Case| case.json["norm"].is_string() && case.json["norm_place"].is_null();
    for case in cases(&["feed_forward"]).into_iter().filter(behind_norm) {
        let (sizes, x) = case.need("x");
        let [model, hidden] = [sizes[2], case.need("b1").1.len()];
        let rows = x.len() / model;
        let activation: Activation = case.json["activation"].as_str().expect("a name").parse().unwrap();
        let eps = case.eps("norm_eps");
        let [weight, bias, w1, b1, w2, b2] =
            ["norm_weight", "norm_bias", "w1", "b1", "w2", "b2"].map(|name| case.need(name).1);
        let norm_shape = NormShape::new(NormKind::Layer, rows, model, eps).bias(true);
        let (normed, of_norm) = norm(&norm_shape, &Bounded::exact(&x), &weight, Some(&bias));
        for chunk in [None, Some(1), Some(7)] {
            let shape = FeedForwardShape::new(rows, model, hidden, activation).bias(true).chunk(chunk);
            let shape = shape.weights(WeightOrder::OutIn);
            let [x, w1_, b1_, w2_, b2_] =
                [&normed, &w1, &b1, &w2, &b2].map(|values| Guarded::new(values, F32));
            let out = Guarded::new(&vec![f64::NAN; rows * model], F32);
            let buffers = FeedForwardBuffers::new(x.binding(), w1_.binding(), w2_.binding(), out.binding())
                .b1(Some(b1_.binding()))
                .b2(Some(b2_.binding()));
            let call = kernels().feed_forward(&shape).unwrap().bind(buffers).unwrap();
            let got = run(&[&call], &out, Rows::contiguous(rows, model), F32).unwrap();
            // The bound of both: the norm's error goes into the layer's.
            let [w1, b1, w2, b2] = [&w1, &b1, &w2, &b2].map(|values| Bounded::exact(values));
            let inputs = FeedForwardInputs {
                x: &of_norm,
                w1: &w1,
                b1: Some(&b1),
                w3: None,
                b3: None,
                w2: &w2,
                b2: Some(&b2),
                residual: None,
            };
            case.judge(&layer::feed_forward(&shape, &inputs).unwrap(), got);
        }
    }
}

/// The states that a model leaves on the device.
fn on_device(build: impl FnOnce(&mut Forward) -> Result<(), Error>) -> Vec<(String, Vec<f32>)> {
    let mut pass = Forward::new(gpu());
    build(&mut pass).unwrap();
    let states = pass.run().unwrap();
    assert_eq!(pass.run().unwrap(), states, "the same pass twice gives the same bits");
    states
}

#[test]
fn models() {
    for case in cases(&["model"]) {
        let file = File::parse(&case.bytes).unwrap();
        let states = on_device(|pass| model::run(pass, &file));
        let mut exact = Exact::default();
        model::run(&mut exact, &file).unwrap();
        for (machine, states) in [("device", &states), ("f64", &exact.states)] {
            let found = model::compare(&file, states).unwrap();
            let gradient = |name: &String| name == "dout" || name.starts_with("d.");
            let unread: Vec<_> = file.unread().into_iter().filter(|name| !gradient(name)).collect();
            assert!(
                unread.is_empty() && found.len() >= 4,
                "{}, {machine}: {unread:?} are not compared",
                case.name
            );
            for State { name, found, .. } in found {
                assert!(found.pass, "{}, {name}, {machine}: {found}", case.name);
                println!("{}, {name}, {machine}: {found}", case.name);
            }
        }
    }
}

#[test]
fn gradients_of_models() {
    let mut families = vec![];
    for case in cases(&["model"]) {
        let file = File::parse(&case.bytes).unwrap();
        let family = file.family().unwrap();
        if !file.has("dout") || !model::LEARNING.contains(&family) {
            continue;
        }
        families.push(family.to_owned());
        let gradients = model::gradients(Some(gpu()), &file).unwrap().unwrap();
        let again = model::gradients(Some(gpu()), &file).unwrap().unwrap();
        assert_eq!(again, gradients, "the same step twice gives the same bits");
        for State { name, found, .. } in model::compare(&file, &gradients).unwrap() {
            assert!(found.pass, "{}, {name}: {found}", case.name);
            println!("{}, {name}: {found}", case.name);
        }
        // Every gradient of the file was compared, and nothing in it is left over.
        assert_eq!(gradients.len(), file.names("d.").len(), "{}", case.name);
        let states =
            |name: &String| name.starts_with("hidden_") || ["last", "pooled"].contains(&name.as_str());
        let unread: Vec<_> = file.unread().into_iter().filter(|name| !states(name)).collect();
        assert_eq!(unread, [""; 0], "{}", case.name);
    }
    families.sort();
    families.dedup();
    assert_eq!(families, model::LEARNING, "a golden case of each");
}

#[test]
fn another_pattern_gives_other_states() {
    for case in cases(&["model"]).iter().filter(|case| case.json["family"] == "gpt2") {
        let file = File::parse(&case.bytes).unwrap();
        let window = Window { before: 3, after: 0 };
        let states = on_device(|pass| model::gpt2(pass, &file, window));
        let found = model::compare(&file, &states).unwrap();
        let passed: Vec<_> = found.iter().map(|state| (state.name.as_str(), state.found.pass)).collect();
        // The embedding attends nothing.
        assert_eq!(passed, [("hidden_0", true), ("hidden_1", false), ("hidden_2", false), ("last", false)]);
    }
}

/// The bytes of a case, one tensor's elements changed.
fn with_tensor(name: &str, tensor: &str, change: impl Fn(usize, i32) -> i32) -> Vec<u8> {
    let mut bytes = std::fs::read(folder().join(name)).unwrap();
    let (header, _) = SafeTensors::read_metadata(&bytes).unwrap();
    let start =
        header + 8 + SafeTensors::read_metadata(&bytes).unwrap().1.info(tensor).unwrap().data_offsets.0;
    let len = SafeTensors::deserialize(&bytes).unwrap().tensor(tensor).unwrap().data().len();
    for (n, word) in bytes[start..][..len].chunks_mut(4).enumerate() {
        let value = i32::from_le_bytes(word.try_into().unwrap());
        word.copy_from_slice(&change(n, value).to_le_bytes());
    }
    bytes
}

/// Holes and padding on the left: no golden case has them, so the device is compared with f64.
#[test]
fn attention_masks_of_any_kind() {
    type Kept = fn(usize) -> bool;
    let masks: [(&str, Kept); 3] =
        [("left", |n| n % 20 >= 4), ("holes", |n| n % 3 != 1), ("right", |n| n % 20 < 13)];
    let states = masks.map(|(what, kept)| {
        let bytes = with_tensor("e2e_bert.safetensors", "attention_mask", |n, _| kept(n).into());
        let file = File::parse(&bytes).unwrap();
        let states = on_device(|pass| model::run(pass, &file));
        let mut exact = Exact::default();
        model::run(&mut exact, &file).unwrap();
        for ((name, got), (_, want)) in states.iter().zip(&exact.states) {
            let worst = got.iter().zip(want).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(got.iter().all(|x| x.is_finite()) && worst < 2e-5, "{what}, {name}: {worst:e}");
        }
        states.last().unwrap().1.clone()
    });
    assert!(states[0] != states[1] && states[1] != states[2]);

    let error = |tensor: &str, change: fn(usize, i32) -> i32| {
        let bytes = with_tensor("e2e_bert.safetensors", tensor, change);
        model::run(&mut Exact::default(), &File::parse(&bytes).unwrap()).unwrap_err().to_string()
    };
    assert_eq!(
        error("attention_mask", |n, _| n as i32 % 3),
        "tensor `attention_mask`: need 0 and 1, found 2"
    );
    assert_eq!(error("token_type_ids", |_, _| 2), "tensor `token_type_ids`: need ids below 2, found 2");
    assert_eq!(error("input_ids", |_, _| -1), "tensor `input_ids`: found -1 below 0");
}

#[test]
fn a_model_file_that_does_not_fit_is_named() {
    let bytes = std::fs::read(folder().join("e2e_gpt2.safetensors")).unwrap();
    let edited = |find: &str, replacement: &str| {
        assert_eq!(find.len(), replacement.len());
        let at =
            bytes.windows(find.len()).position(|window| window == find.as_bytes()).expect("in the header");
        let mut bytes = bytes.clone();
        bytes[at..][..find.len()].copy_from_slice(replacement.as_bytes());
        bytes
    };
    let error = |bytes: Vec<u8>| {
        let file = File::parse(&bytes).unwrap();
        model::gpt2(&mut Exact::default(), &file, Causal).unwrap_err().to_string()
    };
    let missing = error(edited("w.transformer.ln_f.bias", "w.transformer.ln_x.bias"));
    assert_eq!(missing, "tensor `transformer.ln_f.bias`: need [32], found none of this name");
    let wrong = error(edited("vocab_size\\\": 50", "vocab_size\\\": 49"));
    assert!(
        wrong.starts_with("tensor `input_ids`: need ids below 49") || wrong.contains("need F32 [49, 32]"),
        "{wrong}"
    );
    let other = File::parse(&bytes).unwrap();
    let family = model::bert(&mut Exact::default(), &other, Full).unwrap_err().to_string();
    assert_eq!(family, "family: need `bert`, found `gpt2`");
    let unknown = edited("family\\\": \\\"gpt2", "family\\\": \\\"gptx");
    let unknown = model::run(&mut Exact::default(), &File::parse(&unknown).unwrap()).unwrap_err().to_string();
    assert_eq!(
        unknown,
        "family: need one of albert, bert, bigbird, gpt2, llama, longformer, reformer, t5, transfoxl, xlnet, found `gptx`"
    );
    assert!(File::parse(&bytes[..100]).is_err());
}
