//! Cases that the package `linformer` computed: the reference and the device must agree with them.

use safetensors::SafeTensors;
use serde_json::Value;
use std::path::PathBuf;
use wgpu_attention::reference::layer::Bounded;
use wgpu_attention::reference::{self, Rows};
use wgpu_attention::{
    Attention, AttentionShape, ElementType, LinformerGradients, LinformerInputs, LinformerOptions, Score,
};
use wgpu_attention_testing::gpu;

/// A gradient's name, what it must be, what the device gave.
type Found<'a> = (&'a str, Option<&'a Bounded>, Option<Vec<f32>>);

#[test]
fn the_reference_and_the_device_agree_with_every_case() {
    for name in ["linformer_s64_k16", "linformer_s64_k16_sharekv"] {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("golden/{name}.safetensors"));
        let bytes = std::fs::read(&path).expect("readable");
        let (_, header) = SafeTensors::read_metadata(&bytes).expect("safetensors");
        let metadata = header.metadata().as_ref().expect("metadata");
        let case: Value = serde_json::from_str(&metadata["case"]).expect("JSON");
        let file = SafeTensors::deserialize(&bytes).expect("safetensors");
        let find = |name: &str| -> Option<Vec<f32>> {
            file.tensor(name).ok().map(|tensor| bytemuck::pod_collect_to_vec(tensor.data()))
        };
        let tensor = |name: &str| find(name).unwrap_or_else(|| panic!("{name}"));
        let sizes = |name: &str| file.tensor(name).expect("there").shape().to_vec();
        let [b, h, l, d] = sizes("q")[..] else { panic!("[B, H, L, d]") };
        let (v, f) = (find("v"), find("f"));
        let options = LinformerOptions::new(sizes("e")[0], sizes("e")[1])
            .values(v.is_some())
            .value_projection(f.is_some());
        let score = Score::new().scale(case["scale"].as_f64().expect("a scale") as f32);
        let call: Attention = AttentionShape::new(b, h, l, d).kv_len(sizes("k")[2]).score(score);
        let (q, k, e, want) = (tensor("q"), tensor("k"), tensor("e"), tensor("out"));
        let inputs = LinformerInputs::new(&q, &k, &e).v(v.as_deref()).f(f.as_deref());
        let error = case["expected_abs_error"]["out"].as_f64().expect("an error");
        let exact = reference::linformer(&call, &options, &inputs).unwrap();
        assert_eq!(exact.len(), want.len());
        for (got, want) in exact.iter().zip(&want) {
            assert!((got - f64::from(*want)).abs() <= error + 1e-12, "{name}: {got} against {want}");
        }
        let got: Vec<f32> = gpu().linformer(&call, &options, &inputs).unwrap();
        for expected in [None, Some((&want[..], error))] {
            let report =
                reference::verify_linformer(&call, &options, &inputs, &got, Rows::All, expected).unwrap();
            println!("{name}: {report}");
            assert!(report.pass && report.unspecified == 0, "{name}: {report}");
        }
        let dout = tensor("dout");
        let exact = reference::linformer_gradient(&call, &options, &inputs, &dout, ElementType::F32).unwrap();
        let got: LinformerGradients<f32> = gpu().linformer_backward(&call, &options, &inputs, &dout).unwrap();
        let each: [Found<'_>; 5] = [
            ("dq", Some(&exact.dq), Some(got.dq)),
            ("dk", Some(&exact.dk), Some(got.dk)),
            ("dv", exact.dv.as_ref(), got.dv),
            ("de", Some(&exact.de), Some(got.de)),
            ("df", exact.df.as_ref(), got.df),
        ];
        for (gradient, exact, got) in each {
            // In the file if and only if it is a gradient of the call.
            assert_eq!(find(gradient).is_some(), got.is_some(), "{name} {gradient}");
            let (Some(exact), Some(got)) = (exact, got) else { continue };
            let (want, error) = (tensor(gradient), case["expected_abs_error"][gradient].as_f64().unwrap());
            let far = exact.out.iter().zip(&want).map(|(a, &b)| (a - f64::from(b)).abs()).fold(0.0, f64::max);
            assert!(far <= error + 1e-12, "{name} {gradient}: the reference is {far} off, not {error}");
            let found = exact.compare(got.iter().copied(), 0.0);
            println!("{name} {gradient}: {found}");
            assert!(found.pass && found.unspecified == 0, "{name} {gradient}: {found}");
        }
    }
}
