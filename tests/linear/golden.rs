//! Cases that performer-pytorch computed: the reference and the device must agree with them.

use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use std::path::PathBuf;
use wgpu_attention::reference::{self, Rows};
use wgpu_attention::{
    AttentionShape, ElementType, FeatureMap, LinearGradients, LinearInputs, LinearOptions, Projection,
    Stabiliser,
};
use wgpu_attention_testing::gpu;

struct Golden {
    name: String,
    shape: AttentionShape,
    options: LinearOptions,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    projection: Option<Vec<f32>>,
    out: Vec<f32>,
    /// Of out, and by q, k and v.
    gradients: [Vec<f32>; 4],
    /// Of queries and of keys.
    features: [Option<Vec<f32>>; 2],
    errors: Value,
}

impl Golden {
    fn inputs(&self) -> LinearInputs<'_, f32> {
        LinearInputs::new(&self.q, &self.k, &self.v).projection(self.projection.as_deref())
    }

    fn error(&self, tensor: &str) -> f64 {
        self.errors[tensor].as_f64().unwrap_or_else(|| panic!("the error of {tensor}"))
    }
}

fn floats(file: &SafeTensors, name: &str) -> Option<Vec<f32>> {
    let tensor = file.tensor(name).ok()?;
    assert_eq!(tensor.dtype(), Dtype::F32, "{name}");
    Some(bytemuck::pod_collect_to_vec(tensor.data()))
}

fn cases() -> Vec<Golden> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden");
    let mut files: Vec<_> =
        std::fs::read_dir(folder).expect("golden/").map(|entry| entry.expect("readable").path()).collect();
    files.retain(|path| path.extension().is_some_and(|e| e == "safetensors"));
    files.sort();
    let parse = |path: PathBuf| {
        let bytes = std::fs::read(&path).expect("readable");
        let (_, header) = SafeTensors::read_metadata(&bytes).expect("safetensors");
        let case: Value = serde_json::from_str(header.metadata().as_ref()?.get("case")?).expect("JSON");
        (case["op"] == "linear_attention").then(|| golden(&bytes, &case))
    };
    files.into_iter().filter_map(parse).collect()
}

fn golden(bytes: &[u8], case: &Value) -> Golden {
    let file = SafeTensors::deserialize(bytes).expect("safetensors");
    let [b, h, l, d] = file.tensor("q").expect("q").shape().try_into().expect("[B, H, L, d]");
    let features = file.tensor("projection").map_or(d, |p| p.shape()[0]);
    let eps = case["feature_eps"].as_f64().unwrap_or(0.0) as f32;
    let projection = Projection::Given;
    let map = match case["feature"].as_str().expect("a feature map") {
        "favor" => FeatureMap::Favor { features, eps, stabiliser: Stabiliser::Global, projection },
        "generalized" => FeatureMap::Relu { features, eps, projection },
        "softmax" => FeatureMap::Softmax,
        other => panic!("{other}"),
    };
    let tensor = |name: &str| floats(&file, name).unwrap_or_else(|| panic!("{name}"));
    Golden {
        name: case["name"].as_str().expect("a name").into(),
        shape: AttentionShape::new(b, h, l, d),
        options: LinearOptions::new(map)
            .causal(case["causal"].as_bool().expect("causal"))
            .denominator_eps(case["denominator_eps"].as_f64().expect("an eps") as f32),
        q: tensor("q"),
        k: tensor("k"),
        v: tensor("v"),
        projection: floats(&file, "projection"),
        out: tensor("out"),
        gradients: ["dout", "dq", "dk", "dv"].map(tensor),
        features: ["q_features", "k_features"].map(|name| floats(&file, name)),
        errors: case["expected_abs_error"].clone(),
    }
}

#[test]
fn the_reference_reproduces_every_case() {
    let cases = cases();
    assert!(cases.len() >= 4, "{} cases", cases.len());
    for case in cases {
        let exact = reference::linear_attention(case.shape, &case.options, &case.inputs()).unwrap();
        let near = |got: &[f64], want: &[f32], error: f64| {
            assert_eq!(got.len(), want.len());
            for (n, (got, want)) in got.iter().zip(want).enumerate() {
                let off = (got - f64::from(*want)).abs();
                assert!(off <= error + 1e-12, "{} element {n}: {got} against {want}", case.name);
            }
        };
        near(&exact, &case.out, case.error("out"));
        let features = reference::linear_features(case.shape, &case.options, &case.inputs()).unwrap();
        for ((got, want), name) in features.iter().zip(&case.features).zip(["q_features", "k_features"]) {
            if let Some(want) = want {
                near(got, want, case.error(name));
            }
        }
    }
}

#[test]
fn gradients_agree_with_every_case() {
    let mut compared = 0;
    for case in cases() {
        let ([dout, gradients @ ..], inputs) = (&case.gradients, case.inputs());
        let exact =
            reference::linear_gradient(case.shape, &case.options, &inputs, dout, ElementType::F32).unwrap();
        let got: LinearGradients<f32> =
            gpu().linear_backward(case.shape, &case.options, &inputs, dout).unwrap();
        let names = ["dq", "dk", "dv"];
        let each = [(&exact.dq, got.dq), (&exact.dk, got.dk), (&exact.dv, got.dv)];
        for ((name, (exact, got)), want) in names.into_iter().zip(each).zip(gradients) {
            let error = case.error(name);
            let far = exact.out.iter().zip(want).map(|(a, &b)| (a - f64::from(b)).abs()).fold(0.0, f64::max);
            assert!(far <= error + 1e-12, "{} {name}: the reference is {far} off, not {error}", case.name);
            let found = exact.compare(got.iter().copied(), 0.0);
            println!("{} {name}: {found}", case.name);
            assert!(found.pass && found.unspecified == 0, "{} {name}: {found}", case.name);
            compared += 1;
        }
    }
    assert!(compared >= 12, "{compared}");
}

#[test]
fn the_device_agrees_with_every_case() {
    for case in cases() {
        let got: Vec<f32> = gpu().linear_attention(case.shape, &case.options, &case.inputs()).unwrap();
        for expected in [None, Some((&case.out[..], case.error("out")))] {
            let report = reference::verify_linear(
                case.shape,
                &case.options,
                &case.inputs(),
                &got,
                Rows::All,
                expected,
            )
            .unwrap();
            println!("{}: {report}", case.name);
            assert!(report.pass && report.unspecified == 0, "{}: {report}", case.name);
        }
    }
}
