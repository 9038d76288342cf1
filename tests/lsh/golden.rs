//! Cases that other systems computed: the reference and the device must agree with them.

use super::gpu;
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use std::path::PathBuf;
use wgpu_attention::reference::{self, Expected, LshGot, Rows};
use wgpu_attention::{
    Attention, AttentionShape, ElementType, LshGradients, LshInputs, LshOptions, LshOutput, Projections,
    Score,
};

struct Golden {
    name: String,
    attention: Attention,
    options: LshOptions,
    qk: Vec<f32>,
    v: Vec<f32>,
    projections: Vec<f32>,
    key_mask: Option<Vec<bool>>,
    out: Vec<f32>,
    lse: Option<Vec<f32>>,
    buckets: Vec<u32>,
    allowance: f64,
    gradients: Option<Gradients>,
}

struct Gradients {
    dout: Vec<f32>,
    /// dqk and dv, each with the error of its values.
    each: [(Vec<f32>, f64); 2],
}

impl Golden {
    fn inputs(&self) -> LshInputs<'_, f32> {
        LshInputs::new(&self.qk, &self.v)
            .projections(&self.projections[..])
            .key_mask(self.key_mask.as_deref())
    }
}

fn floats(file: &SafeTensors, name: &str) -> Option<Vec<f32>> {
    let tensor = file.tensor(name).ok()?;
    assert_eq!(tensor.dtype(), Dtype::F32, "{name}");
    Some(bytemuck::pod_collect_to_vec(tensor.data()))
}

/// Every LSH case of the folder.
fn cases() -> Vec<Golden> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden");
    let files = std::fs::read_dir(folder).expect("golden/").map(|entry| entry.expect("readable").path());
    let mut files: Vec<_> =
        files.filter(|path| path.extension().is_some_and(|e| e == "safetensors")).collect();
    files.sort();
    let parse = |path: PathBuf| {
        let bytes = std::fs::read(&path).expect("readable");
        let (_, header) = SafeTensors::read_metadata(&bytes).expect("safetensors");
        let case: Value =
            serde_json::from_str(header.metadata().as_ref()?.get("case")?).expect("the case is JSON");
        (case["op"] == "lsh_attention").then(|| golden(&bytes, &case))
    };
    files.into_iter().filter_map(parse).collect()
}

fn golden(bytes: &[u8], case: &Value) -> Golden {
    let file = SafeTensors::deserialize(bytes).expect("safetensors");
    let size = |name: &str| case[name].as_u64().unwrap_or_else(|| panic!("{name}")) as usize;
    let flag = |name: &str| case[name].as_bool().unwrap_or_else(|| panic!("{name}"));
    let number = |name: &str| case[name].as_f64().unwrap_or_else(|| panic!("{name}"));
    let factors: Vec<usize> = case["buckets"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|b| b.as_u64().expect("a size") as usize)
        .collect();
    let [b, h, l, d] = file.tensor("qk").expect("qk").shape().try_into().expect("[B, H, L, d]");
    let dv = file.tensor("v").expect("v").shape()[3];
    let per_head = file.tensor("rotations").expect("rotations").shape()[0] != 1;
    let mask = file.tensor("key_mask").ok().map(|mask| mask.data().iter().map(|&byte| byte != 0).collect());
    let buckets = file.tensor("buckets").ok().map(|buckets| -> Vec<u32> {
        let buckets: Vec<i32> = bytemuck::pod_collect_to_vec(buckets.data());
        buckets.into_iter().map(|bucket| bucket as u32).collect()
    });
    let error = |name: &str| case["expected_abs_error"][name].as_f64().expect("an error");
    let gradients = floats(&file, "dout").map(|dout| {
        let each = ["dqk", "dv"].map(|name| (floats(&file, name).expect("with dout"), error(name)));
        Gradients { dout, each }
    });
    let options = LshOptions::new(size("rounds"), factors[0], size("chunk"))
        .buckets(factors)
        .look_back(size("look_back"))
        .look_ahead(size("look_ahead"))
        .wrap(flag("wrap"))
        .chain_rounds(flag("chain_rounds"))
        .causal(flag("causal"))
        .within_bucket(flag("within_bucket"))
        .count_once(flag("count_once"))
        .self_penalty(number("self_penalty") as f32)
        .norm_eps(number("norm_eps") as f32)
        .key_mask(mask.is_some())
        .projections(Projections::Given { per_head });
    let mut golden = Golden {
        name: case["name"].as_str().expect("a name").into(),
        attention: AttentionShape::new(b, h, l, d)
            .value_dim(dv)
            .score(Score::new().scale(number("scale") as f32)),
        options,
        qk: floats(&file, "qk").expect("qk"),
        v: floats(&file, "v").expect("v"),
        projections: floats(&file, "rotations").expect("rotations"),
        key_mask: mask,
        out: floats(&file, "out").expect("out"),
        lse: floats(&file, "lse"),
        buckets: vec![],
        allowance: error("out"),
        gradients,
    };
    golden.buckets = buckets.unwrap_or_else(|| {
        let own = reference::lsh_buckets(&golden.attention, &golden.options, &golden.inputs());
        own.expect("a valid case").buckets
    });
    golden
}

#[test]
fn the_reference_reproduces_every_case() {
    let cases = cases();
    assert!(cases.len() >= 13, "{} cases", cases.len());
    assert!(cases.iter().filter(|case| case.gradients.is_some()).count() >= 4, "with gradients");
    for case in cases {
        let buckets = reference::lsh_buckets(&case.attention, &case.options, &case.inputs()).unwrap();
        let pairs = buckets.buckets.iter().zip(&case.buckets).zip(&buckets.certain);
        let wrong = pairs.filter(|((a, b), certain)| **certain && a != b).count();
        assert_eq!(wrong, 0, "{}: certain buckets differ", case.name);
        let exact =
            reference::lsh_with_buckets(&case.attention, &case.options, &case.inputs(), &case.buckets)
                .unwrap();
        for (n, (got, want)) in exact.out.iter().zip(&case.out).enumerate() {
            let error = (got - f64::from(*want)).abs();
            assert!(error <= case.allowance + 1e-12, "{} element {n}: {got} against {want}", case.name);
        }
        for (n, (got, want)) in exact.lse.iter().zip(case.lse.iter().flatten()).enumerate() {
            let error = (got - f64::from(*want)).abs();
            assert!(error <= 1e-6 * (1.0 + got.abs()), "{} lse {n}: {got} against {want}", case.name);
        }
        let Some(Gradients { dout, each: want }) = &case.gradients else { continue };
        let inputs = case.inputs();
        let exact =
            reference::lsh_gradient(&case.attention, &case.options, &inputs, dout, &case.buckets).unwrap();
        for (name, got, (want, allowance)) in [("dqk", exact.dqk, &want[0]), ("dv", exact.dv, &want[1])] {
            for (n, (got, want)) in got.iter().zip(want).enumerate() {
                let error = (got - f64::from(*want)).abs();
                assert!(error <= allowance + 1e-12, "{} {name} {n}: {got} against {want}", case.name);
            }
        }
    }
}

#[test]
fn the_device_agrees_with_every_case() {
    for case in cases() {
        let got: LshOutput<f32> = gpu().lsh(&case.attention, &case.options, &case.inputs()).unwrap();
        assert_eq!(got.buckets, case.buckets, "{}: the device's buckets", case.name);
        let expected = Expected::new(&case.out).lse(case.lse.as_deref());
        let got = LshGot::new(&got.out, &got.buckets).lse(&got.lse[..]).order(&got.order[..]);
        for expected in [None, Some((expected, case.allowance))] {
            let report = reference::verify_lsh(
                &case.attention,
                &case.options,
                &case.inputs(),
                got,
                Rows::All,
                expected,
            )
            .unwrap();
            println!("{}: {report}", case.name);
            assert!(report.pass, "{}: {report}", case.name);
            assert_eq!(report.attention.unspecified, 0, "{}", case.name);
        }
    }
}

#[test]
fn the_devices_gradients_agree_with_every_case() {
    for case in cases() {
        let Some(Gradients { dout, each: want }) = &case.gradients else { continue };
        let inputs = case.inputs();
        let got: LshGradients<f32> =
            gpu().lsh_backward(&case.attention, &case.options, &inputs, dout).unwrap();
        assert_eq!(got.buckets, case.buckets, "{}: the device's buckets", case.name);
        let exact = reference::bounded_lsh_gradient(
            &case.attention,
            &case.options,
            &inputs,
            dout,
            &case.buckets,
            ElementType::F32,
        );
        let exact = exact.unwrap();
        for (name, got, mut exact, (want, error)) in
            [("dqk", got.dqk, exact.dqk, &want[0]), ("dv", got.dv, exact.dv, &want[1])]
        {
            exact.out = want.iter().map(|&x| x.into()).collect();
            let found = exact.compare(got, *error);
            println!("{} {name}: {found}", case.name);
            assert!(found.pass && found.unspecified == 0, "{} {name}: {found}", case.name);
        }
    }
}
