//! Cases that PyTorch made: the reference and the device must agree with them.

use super::{Call, Part, both, of_output};
use safetensors::SafeTensors;
use serde_json::Value;
use std::path::PathBuf;
use wgpu_attention::reference::{self, layer::Bounded};
use wgpu_attention::{RecurrentCell, RecurrentShape};

/// The case of a file, its expected out, h_n and c_n, and how far these may be off.
fn read(bytes: &[u8]) -> (Call, [Vec<f32>; 3], [f64; 3]) {
    let (_, header) = SafeTensors::read_metadata(bytes).expect("safetensors");
    let metadata = header.metadata().as_ref().expect("metadata");
    let case: Value = serde_json::from_str(&metadata["case"]).expect("JSON");
    let file = SafeTensors::deserialize(bytes).expect("safetensors");
    let find = |name: &str| -> Option<Vec<f32>> {
        file.tensor(name).ok().map(|tensor| bytemuck::pod_collect_to_vec(tensor.data()))
    };
    let some = |name: &str| find(name).unwrap_or_default();
    let sizes = |name: &str| file.tensor(name).expect("there").shape().to_vec();
    let cell: RecurrentCell = case["cell"].as_str().expect("a cell").parse().expect("known");
    let steps_first = case.get("steps_first").is_some_and(|flag| flag == true);
    let [first, second, input] = sizes("x")[..] else { panic!("three axes") };
    let (batch, steps) = if steps_first { (second, first) } else { (first, second) };
    let bidirectional = find("weight_ih_l0_reverse").is_some();
    let layers = (0..9).take_while(|layer| find(&format!("weight_ih_l{layer}")).is_some()).count();
    let shape = RecurrentShape::new(cell, batch, steps, input, sizes("weight_hh_l0")[1])
        .layers(layers)
        .bidirectional(bidirectional)
        .bias(find("bias_ih_l0").is_some())
        .initial(find("h0").is_some())
        .steps_first(steps_first);
    let part = |number: usize| {
        let (layer, direction) = (number / shape.directions(), number % shape.directions());
        let reverse = if direction == 1 { "_reverse" } else { "" };
        let of = |tensor: &str| some(&format!("{tensor}_l{layer}{reverse}"));
        Part {
            weight_ih: of("weight_ih"),
            weight_hh: of("weight_hh"),
            bias_ih: of("bias_ih"),
            bias_hh: of("bias_hh"),
        }
    };
    let parts = (0..shape.parts()).map(part).collect();
    let call = Call { shape, x: some("x"), parts, h0: some("h0"), c0: some("c0") };
    let names = ["out", "h_n", "c_n"];
    let error = |name: &str| case["expected_abs_error"][name].as_f64().unwrap_or(0.0);
    (call, names.map(some), names.map(error))
}

#[test]
fn the_reference_and_the_device_agree_with_every_case() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden");
    let files = std::fs::read_dir(folder).expect("golden").map(|entry| entry.expect("an entry").path());
    let mut cells = vec![];
    for path in
        files.filter(|path| path.file_name().is_some_and(|n| n.to_string_lossy().starts_with("recurrent_")))
    {
        let (call, expected, errors) = read(&std::fs::read(&path).expect("readable"));
        let exact = call.with(|inputs| reference::recurrent(&call.shape, inputs)).unwrap();
        let exact = [exact.out, exact.h_n, exact.c_n];
        for ((exact, want), error) in exact.iter().zip(&expected).zip(errors) {
            let near = |(got, want): (&f64, &f32)| (got - f64::from(*want)).abs() <= error + 1e-12;
            assert!(exact.out.len() == want.len() && exact.out.iter().zip(want).all(near), "{path:?}");
        }
        for gpu in both() {
            let got = call.run_on(&gpu).unwrap();
            for (((got, want), exact), error) in of_output(&got).iter().zip(&expected).zip(&exact).zip(errors)
            {
                let wanted = Bounded { out: Bounded::exact(want).out, bound: exact.bound.clone() };
                let found = wanted.compare(got.iter().copied(), error);
                assert!(found.pass && found.unspecified == 0, "{path:?}: {found}");
            }
        }
        cells.push(call.shape.cell);
    }
    assert!(cells.len() >= 7 && RecurrentCell::ALL.iter().all(|cell| cells.contains(cell)), "{cells:?}");
}
